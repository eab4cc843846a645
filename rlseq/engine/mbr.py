"""Minimum Bayes risk: of a policy's own samples, the one that agrees best with all of them, by any metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from rlseq.engine.decode import Sample
from rlseq.engine.rollout import finished_rollout, rollout
from rlseq.mdp.episodes import Episodes
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task import no_reward
from rlseq.metrics.fitting import ItemReferences, named_reward
from rlseq.metrics.registry import METRICS, row_of
from rlseq.types import RAW, Policy, Rollout
from rlseq.utils.arguments import Checked, PositiveFloat, Range
from rlseq.utils.errors import hint

AT_ONCE = 4_000_000  # tokens of samples that are drawn and compared at a time


@dataclass(frozen=True)
class MBR(Checked):
    """argmax over samples y of meanⱼ u(y, yⱼ), the K samples themselves as references (Kumar & Byrne 2004).

    If a policy knows how likely texts are, no other of its samples is expected to score better by u. It costs
    K texts, and K² comparisons.

    Args:
        samples: K, texts of each source.
        utility: u, a metric by name; that of the task's reward when empty.
        temperature: with which they are drawn.
    """

    samples: Annotated[int, Range(2)] = 32
    utility: str = ""
    temperature: PositiveFloat = 1.0

    def best(self, policy: Policy, env: SequenceEnv, *, repeat: int, index: Tensor | None) -> Rollout:
        """Return the best text of every row with its rewards."""
        metric = self.utility or utility_of(env)
        items = env.begin(repeat=repeat, index=index)["index"]
        rows = max(1, AT_ONCE // (self.samples * env.max_len))
        found = [self._least_risk(policy, env, metric, part) for part in torch.split(items, rows)]
        tokens, lengths, log_probs = (torch.cat(part) for part in zip(*found, strict=True))
        done = torch.ones_like(items, dtype=torch.bool)
        episodes = Episodes.of(env.context, tokens, lengths, done, env.vocab.pad)
        return finished_rollout(env.replace(episodes=episodes), (log_probs, None, None), RAW)

    def _least_risk(
        self, policy: Policy, env: SequenceEnv, metric: str, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best texts of items, their lengths and log-probabilities."""
        wide = env.replace(num_envs=len(items) * self.samples, reward=no_reward)
        batch = rollout(policy, wide, decode=Sample(self.temperature), repeat=self.samples, index=items)
        best = expected_utility(batch, self.samples, metric, env.vocab).view(-1, self.samples).argmax(1)
        chosen = best + torch.arange(len(items), device=best.device) * self.samples
        return batch.actions[chosen], batch.lengths[chosen], batch.log_probs[chosen]


def utility_of(env: SequenceEnv) -> str:
    """Return the metric that a task is rewarded by, as the name of a utility; refuse a task without one."""
    names = [name for name in env.parts if name in METRICS and row_of(name).needs_references]
    if len(env.parts) == len(names) == 1:
        return names[0]
    raise ValueError(
        f"minimum Bayes risk compares two texts by a metric, and the reward of this task, "
        f"{' + '.join(env.parts)}, is none; name one, such as MBR(utility='bleu')"
    )


def utilities(batch: Rollout, samples: int, metric: str, vocab: Any) -> Tensor:
    """Return u(yᵢ, yⱼ) of every two of the samples of an item, `[items, i, j]`: more is better.

    Args:
        batch: `samples` texts of each item, one after the other.
        samples: K.
        metric: by name; it is fitted on the samples, so that one that weighs words counts these.
        vocab: of the texts.
    """
    row = row_of(metric)
    if not row.needs_references:
        known = {name for name, other in METRICS.items() if other.needs_references}
        raise ValueError(f"{metric} does not compare two texts, as a utility must{hint(metric, known)}")
    right = {"references": batch.actions.unsqueeze(1), "reference_lengths": batch.lengths.unsqueeze(1)}
    judge: Any = named_reward(metric, ItemReferences(vocab, right))
    value = getattr(judge, "value", judge)
    first = torch.arange(len(batch.actions), device=batch.actions.device) // samples * samples
    columns = [value(batch.actions, batch.mask, {"index": first + other}) for other in range(samples)]
    return row.sign * torch.stack(columns, 1).view(-1, samples, samples)


def expected_utility(
    batch: Rollout, samples: int, metric: str, vocab: Any, *, without_itself: bool = False
) -> Tensor:
    """Return meanⱼ u(yᵢ, yⱼ) of every sample, `[B]`, over all samples of its item, or all but itself."""
    found = utilities(batch, samples, metric, vocab).double()
    if not without_itself:
        return found.mean(2).flatten()
    own = found.diagonal(dim1=1, dim2=2)
    return ((found.sum(2) - own) / (samples - 1)).flatten()
