"""Rules of writing: the generation settings of a pretrained model, as the tokens that are legal next.

A task answers with them in `legal`, so that the distribution that acts is the one that is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Self

from rlseq.utils.arguments import NonNegativeInt, check_fields
from rlseq.vocab import TokenizerVocab


@dataclass(frozen=True)
class WritingRules:
    """Tokens that may not be written, always, at the beginning, or behind others; and the length of texts.

    Each is the setting of transformers with the same effect on `generate`.

    Args:
        words: V.
        eos: the token that ends a text.
        prefix: tokens that the decoder has read before the first that is written.
        min_length: the tokens that are written before a text may end (`min_length`, `min_new_tokens`).
        suppress: tokens that are never written (`suppress_tokens`, and `bad_words_ids` of one token).
        begin_suppress: tokens that are not written first (`begin_suppress_tokens`).
        bad_words: sequences of tokens, of which the last is not written behind the others (`bad_words_ids`).
        no_repeat_ngram: n, if no n tokens may stand twice in a text; else 0 (`no_repeat_ngram_size`).
        forced_eos_at_end: a text that has one token left ends with EOS (`forced_eos_token_id`).
    """

    words: int
    eos: int
    prefix: tuple[int, ...] = ()
    min_length: NonNegativeInt = 0
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    no_repeat_ngram: NonNegativeInt = 0
    forced_eos_at_end: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        for name, ids in (("suppress", self.suppress), ("begin_suppress", self.begin_suppress)):
            wrong = [id for id in ids if not 0 <= id < self.words]
            if wrong:
                raise ValueError(f"{name} must be token ids, 0 … {self.words - 1}, got {wrong[0]}")
        if self.eos in self.suppress and not self.forced_eos_at_end:
            raise ValueError(f"suppress holds the token that ends a text, {self.eos}; leave it out")

    @classmethod
    def of(cls, vocab: TokenizerVocab) -> Self | None:
        """Return the rules that a model's generation settings state; None where they state none.

        As in transformers, `min_length` counts the decoder's prefix. Of a causal model it would count the
        prompt, which has another length in every row, and is refused.
        """
        settings, read = vocab.generation, len(vocab.prefix)
        if settings.get("min_length") and not read:
            raise ValueError(
                f"min_length={settings['min_length']} of the model's generation settings counts the prompt, "
                "whose length differs from row to row; in generation_config.json set min_length to 0, and as "
                "min_new_tokens the least number of tokens that are written"
            )
        bad = [tuple(words) for words in settings.get("bad_words_ids", ())]
        single = [words[0] for words in bad if len(words) == 1]
        never = {*settings.get("suppress_tokens", ()), *settings.get("other_eos", ()), *single}
        least = settings.get("min_length", 0) - read
        forced = settings.get("forced_eos_token_id")
        found = cls(
            words=len(vocab),
            eos=vocab.eos or 0,
            prefix=vocab.prefix,
            min_length=max(0, least, settings.get("min_new_tokens", 0) - max(read - 1, 0)),
            suppress=_words(never - {vocab.eos}, len(vocab)),
            begin_suppress=_words(settings.get("begin_suppress_tokens", ()), len(vocab)),
            bad_words=tuple(words for words in bad if len(words) > 1 and max(words) < len(vocab)),
            no_repeat_ngram=settings.get("no_repeat_ngram_size", 0),
            forced_eos_at_end=vocab.eos in (forced if isinstance(forced, list) else [forced]),
        )
        return None if found == cls(found.words, found.eos, found.prefix) else found

    @property
    def vary(self) -> bool:
        """Whether the legal tokens depend on those that have been written."""
        return bool(
            self.min_length
            or self.begin_suppress
            or self.bad_words
            or self.no_repeat_ngram
            or self.forced_eos_at_end
        )

    def legal(self, tokens: Tensor, length: Tensor) -> Tensor | None:
        """Return the tokens that may follow, `[V]` where these are always the same, else `[B, V]`.

        Args:
            tokens: written so far, `[B, T]`, padded.
            length: their number, `[B]`.

        Returns:
            The legal tokens; None where all are.
        """
        if self.vary:
            return self.masks(tokens, length)
        return self._never(tokens.device) if self.suppress else None

    def masks(self, tokens: Tensor, length: Tensor) -> Tensor:
        """Return the tokens that may follow, always as `[B, V]`."""
        legal = self._never(tokens.device).repeat(len(tokens), 1)
        legal[:, self.eos] &= length >= self.min_length
        if self.begin_suppress:
            legal[:, list(self.begin_suppress)] &= (length > 0).unsqueeze(1)
        for words in self.bad_words:
            legal[:, words[-1]] &= ~self._stand_last(words[:-1], tokens, length)
        if self.no_repeat_ngram:
            legal &= ~self._would_repeat(tokens, length)
        if self.forced_eos_at_end:
            only = torch.arange(self.words, device=tokens.device) == self.eos
            legal = torch.where((length == tokens.shape[1] - 1).unsqueeze(1), only, legal)
        return legal

    def _never(self, device: torch.device) -> Tensor:
        """Return the one tensor of a device that says which tokens are not suppressed."""
        if device not in self._kept:
            mask = torch.ones(self.words, dtype=torch.bool)
            mask[list(self.suppress)] = False
            self._kept[device] = mask.to(device)
        return self._kept[device]

    @cached_property
    def _kept(self) -> dict[torch.device, Tensor]:
        """A rollout remembers one mask instead of one for every token where it is always the same tensor."""
        return {}

    def _read(self, tokens: Tensor) -> Tensor:
        """Return the prefix and the tokens."""
        return torch.cat([tokens.new_tensor(self.prefix).expand(len(tokens), -1), tokens], 1)

    def _last(self, n: int, tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last n tokens before the next, `[B, n]`, and whether there are as many."""
        end = length.unsqueeze(1) + len(self.prefix)
        place = end - n + torch.arange(n, device=tokens.device)
        return self._read(tokens).gather(1, place.clamp(min=0)), (end >= n).squeeze(1)

    def _stand_last(self, words: Sequence[int], tokens: Tensor, length: Tensor) -> Tensor:
        """Return whether the last tokens before the next are these words, `[B]`."""
        last, there = self._last(len(words), tokens, length)
        return (last == tokens.new_tensor(words)).all(1) & there

    def _would_repeat(self, tokens: Tensor, length: Tensor) -> Tensor:
        """Return the tokens `[B, V]` that would complete an n-gram which the text has already."""
        n, read = self.no_repeat_ngram, self._read(tokens)
        if n > read.shape[1]:
            return torch.zeros(len(tokens), self.words, dtype=torch.bool, device=tokens.device)
        last, there = self._last(n - 1, tokens, length)
        windows = read.unfold(1, n, 1)  # [B, places, n]
        ends = torch.arange(n - 1, read.shape[1], device=read.device) < length.unsqueeze(1) + len(self.prefix)
        same = (windows[..., :-1] == last.unsqueeze(1)).all(2) & ends & there.unsqueeze(1)
        repeats = torch.zeros(len(tokens), self.words + 1, dtype=torch.bool, device=tokens.device)
        return repeats.scatter(1, windows[..., -1].where(same, self.words), True)[:, :-1]


def _words(ids: Sequence[int] | set[int], size: int) -> tuple[int, ...]:
    """Return ids in order; a model may name some that its tokenizer does not have."""
    return tuple(sorted(id for id in {*ids} if 0 <= id < size))
