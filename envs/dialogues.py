"""Dialogues as texts: the turns of the other side are forced, word by word."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from rlseq.data.threads import TURN
from rlseq.envs.chat_rules import Rules, turns_of
from rlseq.envs.corpus_task import CorpusTask
from rlseq.types import LegalRule

User = Callable[[list[str]], str]  # the turns so far -> what the other side says next
USERS = {"recorded": "recorded", "asks_again": "asks_again", "self": "self"}
Said = dict[tuple[int, tuple[int, ...]], list[int]]  # the other side's ids, by item and what was said before


class Dialogues(CorpusTask):
    """Write a dialogue of several turns with another side; a subclass sets the attributes.

    In the other side's turns its next word is the only legal one, so that it has probability 1 under every
    policy and no gradient; `append` writes it whatever is asked for.
    """

    turns: int  # answers in a dialogue
    user: str | User
    rules: Rules
    said: Said

    @cached_property
    def turn(self) -> int:
        """The id of the word between turns, −1 where there is one answer."""
        return self.vocab.words.index(TURN) if self.turns > 1 and TURN in self.vocab.words else -1

    def spoken(self) -> Tensor:
        """Return the other side's next word where it is its turn, else −1: `[B]`."""
        forced = torch.full_like(self.length, -1)
        if self.turn < 0 or self.user == "self":
            return forced
        ended = (self.tokens == self.turn).sum(1)
        for row in ((ended % 2 == 1) & ~self.done).nonzero().flatten().tolist():
            ids = self.tokens[row, : int(self.length[row])].tolist()
            last = len(ids) - ids[::-1].index(self.turn)
            forced[row] = self._answered(int(self.context["index"][row]), tuple(ids[:last]))[len(ids) - last]
        return forced

    def legal(self) -> Tensor | LegalRule | None:
        """Allow what the other side says in its turns, and every word in those of the policy."""
        if self.turn < 0 or self.user == "self":
            return super().legal()
        forced, words = self.spoken().unsqueeze(1), torch.arange(len(self.vocab), device=self.device)
        return (forced < 0) | (forced == words)

    def append(self, actions: Tensor) -> None:
        """Write a word in every row; in the other side's turns its own, whatever is asked for."""
        forced = self.spoken()
        super().append(torch.where(forced < 0, actions, forced))

    def _answered(self, item: int, before: tuple[int, ...]) -> list[int]:
        """Return the ids of the other side's turn, its end included; EOS where it has nothing to say."""
        if (item, before) not in self.said:
            said = self._says(
                item, turns_of(self.rules.questions[item], self.vocab.decode(list(before)))[:-1]
            )
            end = [self.vocab.eos or 0] if said is None else [*self.vocab.encode(said), self.turn]
            self.said[item, before] = end
        return self.said[item, before]

    def _says(self, item: int, turns: list[str]) -> str | None:
        """Return what the other side says after these turns; None at the end of a dialogue."""
        if len(turns) >= 2 * self.turns:
            return None
        if callable(self.user):
            return self.user(turns)
        if self.user == "asks_again" and self.rules.count(turns[:-1], turns[-1]):
            return turns[-2]
        recorded = turns_of(turns[0], self.corpus.texts(torch.tensor([item]))[0][0])
        return recorded[len(turns)] if len(recorded) > len(turns) + 1 else None
