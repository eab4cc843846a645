"""Rules of form for poems: the lengths of lines, the pattern of tones, and rhyme."""

from __future__ import annotations

import torch
from torch import Tensor

from rlseq.data.poems import LINE_ENDS, Readings
from rlseq.metrics.algebra import WeightedSum
from rlseq.types import Context, Reward
from rlseq.vocab import EOS, UNK, Vocab

LEVEL, OBLIQUE = 1, -1  # tones


class PoemRules:
    """Rules by name, as tables of how each character is read.

    Args:
        vocab: of characters.
        readings: of a character.
        form: lines of a poem, and syllables of a line.
    """

    def __init__(self, vocab: Vocab, readings: Readings, form: tuple[int, int]) -> None:
        self.height, self.width = form
        if self.height < 2 or self.width < 3:
            raise ValueError(f"poems need two lines of three syllables at least, got {form[0]} of {form[1]}")
        special = (EOS, UNK)
        read = [None if word in special or word in LINE_ENDS else readings(word) for word in vocab.words]
        rhymes = sorted({reading.rhyme for reading in read if reading})
        self.tone = torch.tensor([0 if r is None else LEVEL if r.level else OBLIQUE for r in read] + [0])
        self.rhymes = torch.tensor([-1 if r is None else rhymes.index(r.rhyme) for r in read] + [-1])
        self.mark = torch.tensor([word in LINE_ENDS for word in vocab.words])
        self.syllable = torch.tensor([word != EOS and word not in LINE_ENDS for word in vocab.words])
        self.rules: dict[str, Reward] = {"lines": self.lines, "tones": self.tones, "rhyme": self.rhyme}
        self.form = WeightedSum([(1 / len(self.rules), rule) for rule in self.rules.values()])

    def lines(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return how many lines have their length, as a share of those wanted or of those written if more."""
        grid, written = self._grid(tokens, mask)
        lengths = (grid >= 0).sum(2)
        right = (lengths[:, : self.height] == self.width).sum(1)
        return right / written.clamp(min=self.height)

    def tones(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the share of the rules of regulated verse that hold, `[B]`.

        Tones alternate at the second, fourth and sixth syllable. The second syllables of the lines of a
        couplet have opposite tones, and that of the next line has the tone of the one before. Even lines end
        in a level tone, odd ones in an oblique one, but for the first.
        """
        tone = self._of(self.tone, self._grid(tokens, mask)[0][:, : self.height, : self.width])
        even = tone[:, :, 1 : self.width - 1 : 2]
        first, second = even[:, 0::2], even[:, 1::2]
        first = first[:, : second.shape[1]]
        found = [
            even[:, :, 1:] * even[:, :, :-1] == -1,
            (first * second)[:, :, :1] == -1,
            (second[:, :-1, :1] * first[:, 1:, :1]) == 1,
            tone[:, 1::2, -1:] == LEVEL,
            tone[:, 2::2, -1:] == OBLIQUE,
        ]
        return torch.cat([part.flatten(1) for part in found], 1).float().mean(1)

    def rhyme(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the share of even lines that rhyme with the second one, by another character, `[B]`.

        The two lines of a couplet rhyme with each other.
        """
        start, step = (1, 2) if self.height > 3 else (0, 1)
        last = self._grid(tokens, mask)[0][:, start : self.height : step, self.width - 1]
        rhymes = self._of(self.rhymes, last)
        first, others = rhymes[:, :1], rhymes[:, 1:]
        hold = (first == others) & (first >= 0) & (last[:, :1] != last[:, 1:])
        return hold.float().mean(1)

    def _grid(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return syllables by line and place, −1 where there is none, and the number of lines written.

        One line more than wanted and one syllable more in a line hold what is too much.
        """
        mark = self._of(self.mark, tokens) & mask
        real = self._of(self.syllable, tokens) & mask
        line = mark.long().cumsum(1)
        count = real.long().cumsum(1)
        before = torch.where(mark, count, 0).cummax(1).values
        place = (count - 1 - before).clamp(0, self.width)
        shape = len(tokens), self.height + 1, self.width + 1
        where = line.clamp(max=self.height) * (self.width + 1) + place
        grid = torch.full((shape[0], shape[1] * shape[2] + 1), -1, device=tokens.device)
        grid = grid.scatter(1, where.where(real, grid.shape[1] - 1), tokens.where(real, -1))
        return grid[:, :-1].view(shape), torch.where(real, line + 1, 0).amax(1)

    def _of(self, table: Tensor, ids: Tensor) -> Tensor:
        """Return the entries of a table; the last one, −1, where there is no syllable."""
        return table.to(ids.device)[ids]
