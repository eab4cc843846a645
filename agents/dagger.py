"""DAgger: an expert labels the prefixes that the policy writes itself (dataset aggregation)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlseq.agents.mle import MLE
from rlseq.discriminators.texts import rewarded
from rlseq.engine.references import check_has_expert, trimmed
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.mdp.task import no_reward
from rlseq.metrics.next_words import (
    Expert,
    by_edit_distance,
    by_position,
    draw_words,
    expert_for,
    without_expert,
)
from rlseq.types import Context, Rollout
from rlseq.utils.arguments import NonNegativeInt, check_fields
from rlseq.utils.masks import last_of
from rlseq.utils.ranks import gathered
from rlseq.utils.stateful import Stateful, TensorState


def of_reward(tokens: Tensor, mask: Tensor, context: Context, eos: int | None) -> Tensor:
    """Stand for the expert of the task's reward (`rlseq.metrics.next_words.expert_for`)."""
    raise NotImplementedError("the agent replaces this by the expert of its task when it labels")


EXPERTS: dict[str, Expert] = {
    "of_reward": of_reward,
    "by_edit_distance": by_edit_distance,
    "by_position": by_position,
}


class LabelledTexts(TensorState):
    """A sample of all labelled texts so far: each of them is as likely to be kept as any other."""

    tensors: ClassVar = ("index", "read", "labels", "lengths", "keys")  # keys: uniform random numbers

    def __init__(self) -> None:
        self.index = self.read = self.labels = self.lengths = self.keys = None

    def add(self, most: int, fresh: Sequence[Tensor]) -> None:
        """Add texts, given as `tensors` names them; keep those with the largest keys, at most `most`."""
        device = fresh[0].device
        pairs = zip(self._kept(device), fresh, strict=True)
        pool = fresh if self.keys is None else [torch.cat(pair) for pair in pairs]
        rows = pool[-1].topk(min(most, len(pool[-1]))).indices
        for name, part in zip(self.tensors, pool, strict=True):
            setattr(self, name, part[rows])

    def draw(self, number: int, generator: torch.Generator) -> list[Tensor]:
        """Return texts that are kept, at random."""
        kept = self._kept(generator.device)
        rows = torch.randint(len(kept[0]), (number,), generator=generator, device=generator.device)
        return [part[rows] for part in kept]

    def _kept(self, device: torch.device) -> list[Tensor]:
        """Return the tensors on a device: a checkpoint gives them back on the CPU."""
        for name in self.tensors:
            if (part := getattr(self, name)) is not None:
                setattr(self, name, part.to(device))
        return [getattr(self, name) for name in self.tensors]


@dataclass(eq=False)
class DAgger(MLE):
    """Minimise −log π(y*ₜ | y₍₁…ₜ₋₁₎, source) of prefixes that the policy wrote, y*ₜ by an expert.

    Ross et al. 2011, whose first policy is that of `mle`. Texts of all updates so far are learned from, half
    of every batch new ones, because a policy that learned from its last texts alone would forget what it met
    before. The expert is exact (`rlseq.metrics.next_words`); of several best words it names one at random
    (Sabour et al. 2019). Labels count as tokens of references.
    """

    expert: Expert = of_reward  # best next words after a prefix (rlseq.metrics.next_words)
    memory: NonNegativeInt = 10_000  # texts that are kept of all so far; 0: learn from new ones alone

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()
        self.aggregate, self.told = LabelledTexts(), False

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the texts that are kept among them."""
        return {**super().stateful_parts(), "aggregate": self.aggregate}

    def check(self, env: Any) -> None:
        """Refuse a task in which no expert knows the next word; say once where its reward has none."""
        check_has_expert(sequence_env(env))
        names = without_expert(sequence_env(env).parts) if self.expert is of_reward else []
        if names and not self.told:
            self.told = True
            warnings.warn(
                f"no expert is known for the reward {', '.join(names)}: labels are by edit distance; pass "
                "expert='by_edit_distance' if that is meant, or take a policy gradient, such as rloo",
                stacklevel=2,
            )

    def collect(self, env: Any) -> Rollout:
        """Write texts, label them, and return as many labelled texts, half of them of earlier updates."""
        env = sequence_env(env)
        self.check(env)
        batch = rollout(self.policy, rewarded(env, no_reward))
        env.counts.reference_tokens += env.rank.total(batch.mask.sum())
        of_labels, keys = _uniform(env, *batch.actions.shape), _uniform(env, len(batch.actions))
        texts = batch.context["index"], batch.actions, self.labels(env, batch, of_labels), batch.lengths, keys
        fresh = [gathered(part) for part in texts]  # of all ranks, which keep the same texts
        chosen = fresh
        if self.aggregate.keys is not None and self.memory:
            older = self.aggregate.draw(len(fresh[-1]) // 2, env.generator)
            chosen = [torch.cat([new[len(old) :], old]) for new, old in zip(fresh, older, strict=True)]
        self.aggregate.add(self.memory, fresh)
        return trimmed(_labelled(env, *map(env.rank.own, chosen[:-1])), env)

    def labels(self, env: SequenceEnv, batch: Rollout, uniform: Tensor) -> Tensor:
        """Return a best next word after every prefix of a batch, `[B, T]`."""
        expert = expert_for(env.parts) if self.expert is of_reward else self.expert
        places = expert(batch.actions, batch.mask, batch.context, env.vocab.eos)
        return draw_words(places, batch.context["references"], uniform)


def _uniform(env: SequenceEnv, *shape: int) -> Tensor:
    drawn = env.rank.all(shape[0]), *shape[1:]
    return env.rank.own(torch.rand(drawn, generator=env.generator, device=env.device, dtype=torch.float64))


def _labelled(env: SequenceEnv, index: Tensor, read: Tensor, labels: Tensor, lengths: Tensor) -> Rollout:
    """Return labels as actions, and what the policy had written as what it reads."""
    mask = torch.arange(read.shape[1], device=env.device) < lengths.unsqueeze(1)
    nothing = torch.zeros(read.shape, device=env.device)
    context = {**env.contexts(index), "index": index}
    batch = Rollout(labels.where(mask, 0), mask, nothing, nothing, None, last_of(mask), None, context)
    return replace(batch, inputs=read)
