"""Choose a set of candidate boxes, each by its number, and stop: detection as writing."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar

import gymnasium as gym
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data.archives import read_array
from rlseq.data.boxes import BoxScenes, draw_boxes, read_boxes
from rlseq.data.locate import existing, expand
from rlseq.envs.drawn import SPLITS, other_seed
from rlseq.mdp.sequence_env import EnvOptions, Observation, SequenceEnv
from rlseq.metrics.boxes import HIT, average_precision, f1, f1_steps
from rlseq.metrics.fitting import ItemReferences, rewards_of
from rlseq.types import HeldOut, Reward, RewardLike
from rlseq.utils.arguments import PositiveInt, Range, Seed, checked_arguments
from rlseq.utils.errors import pick
from rlseq.utils.memory import check_fits
from rlseq.vocab import EOS, Vocab


class Boxes(SequenceEnv):
    """Write the numbers of candidate boxes, the surest first, then EOS. Reward: F1 of the set at overlap 0.5.

    Candidates are numbered by their score; no number can be written twice. A policy sees `features`: of each
    candidate its box, its score, and the colour inside.

    Args:
        path: a JSONL file, a picture a line (docs/tasks/boxes.md); by default scenes are drawn and rendered.
        split: "train" or "test"; every tenth line of a file is in the test.
        reward: "f1"; "f1_steps", which pays each box what it adds; "ap", average precision at overlaps from
            0.5 to 0.95 in the order of writing; another name of `rlseq metrics`, or any reward.
        scenes: number of scenes that are drawn.
        objects: M, at most, in drawn scenes; each has three candidates.
        skip_bad: pass over lines that cannot be used; False refuses them.
        data_seed: of the scenes; the splits of one seed are drawn apart.
        **options: see `EnvOptions`.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: str | PathLike[str] | None = None,
        split: str = "train",
        reward: RewardLike = "f1",
        scenes: PositiveInt = 2000,
        objects: Annotated[int, Range(2, 8)] = 4,
        skip_bad: bool = False,
        data_seed: Seed = 0,
        **options: Unpack[EnvOptions],
    ) -> None:
        test = pick(SPLITS, split, "split") == "test"
        if path is None:
            check_fits(scenes * 60_000, scenes=scenes)
            self.scenes = draw_boxes(scenes, objects, other_seed(data_seed) if test else data_seed)
        else:
            every = read_boxes(existing(expand(path)), skip_bad)
            tenth = torch.arange(len(every)) % 10 == 9
            self.scenes = every.take((tenth == test).nonzero().flatten())
        if not len(self.scenes):
            raise ValueError(f"{path} has fewer than ten pictures, too few for split='test'")
        self.observed = {"features": span(self.scenes.candidates)}
        items = items_of(self.scenes)
        vocab = Vocab((EOS, *(str(n + 1) for n in range(items["overlap"].shape[1]))))
        own: dict[str, Reward] = {"f1": f1, "f1_steps": f1_steps, "ap": average_precision}
        super().__init__(
            vocab=vocab,
            max_len=len(vocab),
            reward=rewards_of(reward, ItemReferences(vocab, items), own),
            items=items,
            **options,
        )
        self.metrics = {"f1": f1, "ap": average_precision}
        low, high = self.observed["features"]
        assert isinstance(self.single_observation_space, gym.spaces.Dict)
        spaces = dict(self.single_observation_space.spaces)
        spaces["features"] = gym.spaces.Box(low, high, (items["features"][0].numel(),))
        self.single_observation_space = gym.spaces.Dict(spaces)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def _observe(self) -> Observation:
        """Show features in one row through Gymnasium, as stable-baselines3 asks for."""
        seen = super()._observe()
        return {**seen, "features": seen["features"].reshape(self.num_envs, -1)}

    def legal(self) -> Tensor:
        """Allow to end, and every candidate of the picture that is not chosen yet."""
        numbers = torch.arange(len(self.vocab), device=self.device)
        chosen = torch.nn.functional.one_hot(self.tokens, len(self.vocab)).amax(1).bool()
        count = there(self.context["features"]).sum(1, keepdim=True)
        return (numbers == 0) | ((numbers <= count) & ~chosen)

    def as_source(self, source: Any) -> Any:
        """Return the features of candidates: an array that is given, or a file `.npy`."""
        return read_array(Path(source)) if isinstance(source, (str, PathLike)) else source


def there(candidates: Tensor) -> Tensor:
    """Return which candidates of each picture are boxes and no padding, `[scenes, candidates]`."""
    return (candidates[..., 2:4] > 0).any(2)


def span(values: Tensor) -> tuple[float, float]:
    """Return the least and the largest value, 0 and 1 between them."""
    return min(0.0, float(values.min())), max(1.0, float(values.max()))


def items_of(scenes: BoxScenes) -> dict[str, Tensor]:
    """Return what contexts hold; the reference is the best candidate of every object that has one."""
    overlap = scenes.overlap
    best, which = overlap.max(1)  # [S, M]
    each = torch.nn.functional.one_hot(which, overlap.shape[1]).bool() & (best >= HIT).unsqueeze(2)
    chosen = each.any(1)
    order = torch.argsort(~chosen, dim=1, stable=True)
    lengths = chosen.sum(1, keepdim=True)
    column = torch.arange(overlap.shape[1] + 1)
    written = torch.nn.functional.pad(order + 1, (0, 1)).where(column < lengths, 0)
    return {
        "features": scenes.candidates,
        "overlap": overlap,
        "objects": (scenes.objects[..., 2:] > 0).any(2).sum(1),
        "references": written.unsqueeze(1),
        "reference_lengths": lengths + 1,
    }
