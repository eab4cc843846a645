"""The best next words after any prefix, by the references: experts that label what a policy writes.

An expert answers for every prefix y₍₁…ₜ₎ of every text which words of the references are best to write next,
as places in these references, bool `[B, T, R, L]`. Prefixes may hold any errors. References end by EOS where
the vocabulary has one.

By edit distance (Sabour et al. 2019): with D the distance between the prefix and the first j words of a
reference of L words, EOS counted, and r words still allowed, the least distance that can be reached is
V = minⱼ D(t, j) + max(0, L − j − r), and the best next words are those at the j of the minimum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlseq.metrics.edit import EditDistance, Exact
from rlseq.metrics.positional import accuracy, exact
from rlseq.metrics.registry import row_of
from rlseq.types import Context, Reward

# (tokens [B, T], mask [B, T], context, id of EOS or None) -> places [B, T, R, L]
Expert = Callable[[Tensor, Tensor, Context, int | None], Tensor]
_FAR = 2**28  # the distance to a reference that an item does not have
_POSITIONAL: tuple[Reward, ...] = (accuracy, exact)
_EDITS = (EditDistance, Exact)  # a text without edits is exact


def by_edit_distance(tokens: Tensor, mask: Tensor, context: Context, eos: int | None) -> Tensor:
    """Return the words after which the least edit distance to a reference can still be reached.

    Exact where texts end by EOS. Where all texts have T words, a word to be inserted may be any, and those of
    references are named.
    """
    reachable = _reachable(tokens, context, eos)[:, :-1]
    return (reachable == reachable.flatten(2).amin(2)[..., None, None]) & _inside(context).unsqueeze(1)


def by_position(tokens: Tensor, mask: Tensor, context: Context, eos: int | None) -> Tensor:
    """Return the words that are right at their position: those of the reference that fits best so far.

    These are best for `accuracy` and `exact`. After the length of a reference its last word, EOS, is due.
    """
    references, lengths = context["references"], context["reference_lengths"]
    steps = tokens.shape[1]
    t = torch.arange(steps, device=tokens.device).view(1, -1, 1)
    width = min(steps, references.shape[2])
    same = torch.zeros(*lengths.shape, steps, dtype=torch.int64, device=tokens.device)
    same[..., :width] = tokens[:, None, :width] == references[..., :width]
    right = torch.nn.functional.pad((same * mask.unsqueeze(1)).cumsum(2), (1, 0))[..., :-1].transpose(1, 2)
    length = lengths.unsqueeze(1)
    hoped = right + (length.clamp(max=steps) - t).clamp(min=0)
    share = (hoped / torch.maximum(length, t + 1)).where(length > 0, -1.0)
    place = torch.arange(references.shape[2], device=tokens.device)
    due = place == torch.minimum(t, length - 1).unsqueeze(3)
    return due & (share == share.amax(2, keepdim=True)).unsqueeze(3)


def expert_for(parts: dict[str, Reward]) -> Expert:
    """Return the expert of a task's reward: by position for `accuracy` and `exact`, else by edit distance."""
    return by_position if any(part in _POSITIONAL for part in parts.values()) else by_edit_distance


def without_expert(parts: dict[str, Reward]) -> list[str]:
    """Return the names of rewards that are metrics, but neither by position nor an edit distance."""
    metrics = {name: row_of(name).kind for name, part in parts.items() if part not in _POSITIONAL}
    return [
        n for n, kind in metrics.items() if kind and not (isinstance(kind, type) and issubclass(kind, _EDITS))
    ]


def draw_words(places: Tensor, references: Tensor, uniform: Tensor) -> Tensor:
    """Draw one of the words at the given places for every prefix, `[B, T]`; each different word alike.

    Args:
        places: `[B, T, R, L]`, at least one for every prefix.
        references: `[B, R, L]`.
        uniform: random numbers `[B, T]`.
    """
    words = references.unsqueeze(1).expand(places.shape).masked_fill(~places, -1).flatten(2).sort(2).values
    new = (words >= 0) & (words != torch.nn.functional.pad(words[..., :-1], (1, 0), value=-1))
    number = new.cumsum(2)
    chosen = 1 + (uniform * number[..., -1]).long()
    return words.gather(2, (number == chosen.unsqueeze(2)).int().argmax(2, keepdim=True)).squeeze(2)


def _reachable(tokens: Tensor, context: Context, eos: int | None) -> Tensor:
    """Return D(t, j) plus the words that must still be left out or inserted, `[B, T + 1, R, L]`."""
    steps, length = tokens.shape[1], context["reference_lengths"][:, None, :, None]
    left = steps - torch.arange(steps + 1, device=tokens.device).view(1, -1, 1, 1)
    ahead = length - torch.arange(context["references"].shape[2], device=tokens.device)
    missed = (ahead - left).clamp(min=0) if eos is not None else (ahead - left).abs()
    distances = _distances(tokens, context)[..., :-1] + missed
    return distances.where(_inside(context).unsqueeze(1), _FAR)


def _distances(tokens: Tensor, context: Context) -> Tensor:
    """Return the edit distance of each prefix and each first part of a reference, `[B, T + 1, R, L + 1]`."""
    references = context["references"]
    place = torch.arange(references.shape[2] + 1, device=tokens.device)
    rows = [place.expand(*references.shape[:2], -1)]
    for token in tokens.t():
        before = rows[-1]
        replaced = before[..., :-1] + (references != token[:, None, None])
        kept = torch.minimum(torch.nn.functional.pad(replaced, (1, 0), value=_FAR), before + 1)
        rows.append(place + (kept - place).cummin(2).values)  # leaving words of the reference out
    return torch.stack(rows, 1)


def _inside(context: Context) -> Tensor:
    """Return True on the words of references, `[B, R, L]`."""
    place = torch.arange(context["references"].shape[2], device=context["references"].device)
    return place < context["reference_lengths"].unsqueeze(2)
