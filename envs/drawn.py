"""Sources drawn at random, in two parts: those to train on, and those that are held out of training."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import torch
from torch import Tensor

from rlseq.utils.errors import pick

SPLITS = {"train": "train", "test": "test"}
HELD_OUT_SOURCES = 1000  # sources at most
TRAINED = 10_000  # draws of training from which no source is taken away while there are others to hold out
CANDIDATES = 4_000  # draws from which the held-out sources are chosen
Items = tuple[Tensor, ...]  # sources [N, S], and what belongs to them, [N, …]
Draw = Callable[[int, torch.Generator], Items]  # n rows at random


def drawn(draw: Draw, split: str, items: int, seed: int) -> Items:
    """Draw rows of one part. No source is in both parts, however many items training draws.

    Held out are up to 1,000 different sources. They are chosen among 4,000 draws: those that the first 10,000
    draws of training do not have; where these are less than a tenth of the different sources, a tenth, the
    rarest in training, whose draws training then repeats until it has others.

    Args:
        draw: gives n rows.
        split: "train", or "test" for the rows that are held out.
        items: number of rows to train on.
        seed: of all draws.
    """
    held = _held_out(draw, seed)
    if pick(SPLITS, split, "split") == "train":
        return _others(draw, _codes(held[0]), items, torch.Generator().manual_seed(seed))
    if not len(held[0]):
        raise ValueError(
            "this task has fewer than ten different sources, too few to hold some out for split='test'; "
            "make sources longer, or of more words"
        )
    return held


def other_seed(seed: int) -> int:
    """Return the seed of draws that are independent of those by `seed`."""
    return Random(f"held out {seed}").getrandbits(62)


def _held_out(draw: Draw, seed: int) -> Items:
    candidates = draw(CANDIDATES, torch.Generator().manual_seed(other_seed(seed)))
    training = draw(TRAINED, torch.Generator().manual_seed(seed))
    codes, trained = _codes(candidates[0]), _codes(training[0]).sort().values
    times = torch.searchsorted(trained, codes, right=True) - torch.searchsorted(trained, codes)
    once = _first(codes)
    fresh, different = int((times[once] == 0).sum()), len(once)
    count = min(HELD_OUT_SOURCES, max(fresh, different // 10), different - 1)
    rows = once[times[once].argsort(stable=True)[:count]]
    return tuple(part[rows] for part in candidates)


def _others(draw: Draw, held: Tensor, items: int, generator: torch.Generator) -> Items:
    """Draw as many rows as asked for whose source is not held out."""
    found: list[Items] = []
    missing = items
    while missing:
        rows = draw(missing, generator)
        kept = ~torch.isin(_codes(rows[0]), held)
        found.append(tuple(part[kept] for part in rows))
        missing -= len(found[-1][0])
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _codes(sources: Tensor) -> Tensor:
    """Return a number for each source, `[N]`, the same for equal ones.

    Two different sources that had the same number would only be held out, or trained on, together.
    """
    draw = Random(0)
    weights = torch.tensor([draw.getrandbits(63) | 1 for _ in range(sources.shape[1])])
    return (sources * weights).sum(1)  # modulo 2⁶⁴


def _first(codes: Tensor) -> Tensor:
    """Return where each number occurs for the first time, in order."""
    return torch.from_numpy(np.sort(np.unique(codes.numpy(), return_index=True)[1]))
