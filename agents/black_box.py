"""The base of agents that look at returns alone: perturbed policies write, and nothing is differentiated."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from rlseq.engine.decode import Decode, Sample
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policies.perturbed import PerturbedRows, copies_of, named_parameters
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.diagnostics import episode_metrics
from rlseq.policy_gradient.factors import check_samples
from rlseq.types import BasePolicy, Metrics, Rollout, SteppedEnv
from rlseq.utils.arguments import Checked, Perturbation, PositiveInt, Range, StepSize
from rlseq.utils.memory import check_fits
from rlseq.utils.ranks import gathered, this_rank
from rlseq.utils.stateful import seed_from
from rlseq.utils.vectors import assign, flat

Shaping = Callable[[Tensor], Tensor]  # scores of all perturbed policies -> what a step is made from


def as_they_are(scores: Tensor) -> Tensor:
    """Return the scores."""
    return scores


def centred_ranks(scores: Tensor) -> Tensor:
    """Return ranks from −½ to ½, equal for equal scores: only the order counts (Salimans et al. 2017)."""
    compared = (scores.unsqueeze(1) - scores).sign().sum(1)  # scores below less scores above
    return compared / (2 * max(1, len(scores) - 1))


SHAPINGS: dict[str, Shaping] = {"none": as_they_are, "centred_ranks": centred_ranks}

# (parameters, number of directions, random numbers) -> directions of variance 1 by every entry, [rows, P]
Directions = Callable[[Sequence[Tensor], int, torch.Generator], Tensor]


def every_entry(parameters: Sequence[Tensor], rows: int, generator: torch.Generator) -> Tensor:
    """Return independent standard normal numbers."""
    return torch.randn(rows, sum(p.numel() for p in parameters), generator=generator)


@dataclass(frozen=True)
class LowRank(Checked):
    """ABᵀ/√rank for a matrix, with A and B of independent standard normal numbers, in `rank` columns each.

    Entries are uncorrelated and of variance 1, as those of a full matrix are, so that the mean of an estimate
    is the same up to terms of σ²; a matrix m × n needs rank · (m + n) random numbers in place of m · n
    (Sarkar et al. 2025). Vectors are perturbed entry by entry.

    Args:
        rank: columns of A and B.
    """

    rank: PositiveInt = 1

    def __call__(self, parameters: Sequence[Tensor], rows: int, generator: torch.Generator) -> Tensor:
        """Return directions."""
        return torch.cat([self._of(p, rows, generator) for p in parameters], 1)

    def _of(self, parameter: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        if parameter.dim() < 2:
            return every_entry([parameter], rows, generator)
        sides = len(parameter), parameter.numel() // len(parameter)
        a, b = (torch.randn(rows, side, self.rank, generator=generator) for side in sides)
        matrices: Tensor = a @ b.mT / self.rank**0.5
        return matrices.flatten(1)


WAYS: dict[str, Directions] = {"every_entry": every_entry, "low_rank": LowRank()}


@dataclass(frozen=True, eq=False, kw_only=True)
class PerturbedRollout(Rollout):
    """A rollout in whose rows different policies wrote."""

    seed: int  # from which the perturbations are drawn again


@dataclass(eq=False)
class BlackBox(Agent):
    """N perturbed policies write the same share of the rows each, about the same items.

    Of several processes each has a share of the policies, and tells the others their scores alone.
    """

    compiles: ClassVar[bool] = False

    lr: StepSize = 1e-2  # step size of Adam
    population: Annotated[int, Range(2)] = (
        8  # N, number of perturbed policies; it divides the rows of the task
    )
    sigma: Perturbation = 0.05  # size of a perturbation of a parameter
    only: str = "*"  # pattern of the names of parameters that are perturbed and learn, such as "head.*"
    decode: Decode = field(default_factory=Sample)  # how tokens are chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        check_samples(self.decode)
        self._copies: tuple[nn.Module, ...] = ()
        self.parameters = list(named_parameters(self.policy, self.only).values())

    @property
    def size(self) -> int:
        """The number of parameters that are perturbed."""
        return sum(p.numel() for p in self.parameters)

    @property
    def share(self) -> int:
        """The number of perturbed policies of this process."""
        return self.population // this_rank().of

    @abstractmethod
    def perturbations(self, seed: int) -> Tensor:
        """Return what is added to the parameters of each policy, `[N, P]`."""

    def check(self, env: Any) -> None:
        """Refuse rows that cannot be shared out, and more policies than memory holds."""
        env = unwrap_task(env)
        rows, ranks = this_rank().all(env.num_envs), this_rank().of
        if rows % self.population or self.population % ranks:
            raise ValueError(
                f"population={self.population} perturbed policies must divide the rows of the task, got "
                f"num_envs={rows}; make the task with num_envs={self.population} or a multiple of it"
                + (f", and take a multiple of {ranks} policies, one for each rank" if ranks > 1 else "")
            )
        needed = 8 * self.population * self.size  # 4 bytes for a parameter, and for what is added to it
        try:
            check_fits(needed, population=self.population, perturbed_parameters=self.size)
        except ValueError as error:
            raise ValueError(f'{error}, or perturb fewer parameters, as by only="head.*"') from None

    def collect(self, env: Any) -> PerturbedRollout:
        """Return what the perturbed policies write."""
        env = unwrap_task(env)
        self.check(env)
        seed = seed_from(env.generator)
        writer: Any = self.perturbed(seed)
        given: dict[str, Any] = {}
        if not isinstance(env, SteppedEnv):
            shape = (env.num_envs // self.share,)
            items = torch.randint(env.size, shape, generator=env.generator, device=env.device)
            given["index"] = items.repeat(self.share)
        batch = rollout(writer, env, decode=self.decode, **given)
        return PerturbedRollout(**vars(batch), seed=seed)

    def perturbed(self, seed: int) -> PerturbedRows:
        """Return the perturbed policies as one that writes their rows."""
        if not self._copies:
            changed = named_parameters(self.policy, self.only)
            self._copies = copies_of(self.policy, self.share, changed)
        moved = flat(self.parameters) + this_rank().own(self.perturbations(seed))
        for copy, vector in zip(self._copies, moved, strict=True):
            assign(list(named_parameters(copy, self.only).values()), vector)
        return PerturbedRows(self._copies)

    def drawn(self, directions: Directions, seed: int, rows: int) -> Tensor:
        """Return directions that are drawn from a seed, `[rows, P]`."""
        found = directions(self.parameters, rows, torch.Generator().manual_seed(seed))
        return found.to(self.parameters[0].device, non_blocking=True)  # the host goes on

    def scores(self, batch: Rollout) -> Tensor:
        """Return the mean return of an episode of each perturbed policy, `[N]`; what is cut off counts."""
        unfinished = batch.mask.any(1) & ~batch.ends.gather(1, last(batch.mask)).squeeze(1)
        episodes = (batch.ends.sum(1) + unfinished).view(self.share, -1).sum(1)
        return gathered(batch.returns.view(self.share, -1).sum(1) / episodes.clamp(min=1))

    def update(self, batch: Rollout) -> Metrics:
        """Learn from the returns of a batch."""
        metrics = super().update(batch)
        if isinstance(self.policy, BasePolicy):
            self.policy.update_statistics(batch)
        return {**episode_metrics(batch.episodes), **metrics}


def last(mask: Tensor) -> Tensor:
    """Return the place of the last real action of every row, `[B, 1]`."""
    place = torch.arange(mask.shape[1], device=mask.device)
    return (place * mask).amax(1, keepdim=True)


def seed_of(batch: Rollout) -> int:
    """Return the seed of the perturbations of a batch."""
    if not isinstance(batch, PerturbedRollout):
        raise TypeError(
            "a search learns from batches that it collects itself: which policies wrote is in them"
        )
    return batch.seed
