"""Dialogues as texts: the turns of the other side are forced, word by word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlseq.data.threads import TURN
from rlseq.envs.chat_rules import Rules, turns_of
from rlseq.envs.corpus_task import CorpusTask
from rlseq.types import LegalRule

User = Callable[[list[str]], str | None]  # the turns so far -> what the other side says next; None: nothing
USERS = {"recorded": "recorded", "asks_again": "asks_again", "self": "self"}
Said = dict[tuple[int, str, tuple[int, ...]], list[int]]  # its ids, by item, question, and the words since
NO_ITEM = -1  # of a question that was given to `generate`


def silent(turns: list[str]) -> None:
    """Say nothing, so that a dialogue ends after its first answer."""


class Dialogues(CorpusTask):
    """Write a dialogue of several turns with another side; a subclass sets the attributes.

    In the other side's turns its next word is the only legal one, so that it has probability 1 under every
    policy and no gradient; `append` writes it whatever is asked for.
    """

    turns: int  # answers in a dialogue
    user: str | User
    rules: Rules
    said: Said

    def without_data(self, options: Mapping[str, Any]) -> None:
        """Let the policy speak for both sides if it has learned to; else end after its first answer."""
        self.turns, self.said = options.get("turns", 1), {}
        self.user = "self" if options.get("user") == "self" else silent

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
            forced[row] = self._answered(*self._asked(row), tuple(ids[:last]))[len(ids) - last]
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

    def texts(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Return sequences of ids as text; of an answer alone without the word that gives the turn away."""
        texts = super().texts(tokens, mask)
        return [text.removesuffix(TURN).rstrip() for text in texts] if self.user is silent else texts

    def _asked(self, row: int) -> tuple[int, str]:
        """Return the item and the question of a row; no item where the question was given to `generate`."""
        if "references" not in self.context:
            return NO_ITEM, self.sources()[row]
        item = int(self.context["index"][row])
        return item, self.rules.questions[item]

    def _answered(self, item: int, question: str, before: tuple[int, ...]) -> list[int]:
        """Return the ids of the other side's turn, its end included; EOS where it has nothing to say."""
        key = item, question, before
        if key not in self.said:
            said = self._says(item, turns_of(question, self.vocab.decode(list(before)))[:-1])
            self.said[key] = [self.vocab.eos or 0] if said is None else [*self.vocab.encode(said), self.turn]
        return self.said[key]

    def _says(self, item: int, turns: list[str]) -> str | None:
        """Return what the other side says after these turns; None at the end of a dialogue."""
        if len(turns) >= 2 * self.turns:
            return None
        if callable(self.user):
            return self.user(turns)
        if self.user == "asks_again" and self.rules.count(turns[:-1], turns[-1]):
            return turns[-2]
        if item == NO_ITEM:
            return None
        recorded = turns_of(turns[0], self.corpus.texts(torch.tensor([item]))[0][0])
        return recorded[len(turns)] if len(recorded) > len(turns) + 1 else None
