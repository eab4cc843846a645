"""Minimum Bayes risk: of a policy's own samples, the one that agrees best with all of them, by any metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from rlseq.engine.beam import Beam, beam_search
from rlseq.engine.decode import Sample
from rlseq.engine.rollout import finished_rollout, rollout
from rlseq.mdp.episodes import Episodes
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task import no_reward
from rlseq.metrics.fitting import ItemReferences, compares_texts, named_reward
from rlseq.metrics.registry import METRICS, row_of
from rlseq.types import RAW, Policy, Rollout
from rlseq.utils.arguments import (
    Checked,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Range,
)
from rlseq.utils.errors import hint

AT_ONCE = 4_000_000  # tokens of samples that are drawn and compared at a time


class Candidates(NamedTuple):
    """C texts of each item, and how well each is expected to score against the policy's samples."""

    tokens: Tensor  # [items, C, T]
    mask: Tensor  # [items, C, T]
    log_probs: Tensor  # [items, C, T]
    utility: Tensor  # [items, C]: meanⱼ u(y, yⱼ)


@dataclass(frozen=True)
class MBR(Checked):
    """argmax over candidates y of meanⱼ u(y, yⱼ), K samples being the references (Kumar & Byrne 2004).

    The samples are candidates, too. If a policy knows how likely texts are, no other candidate is expected to
    score better by u. It costs K texts, and K comparisons of each candidate.

    Args:
        samples: K, texts of each source.
        utility: u, a metric by name, or a sum such as "bleu + 0.5*chrf"; that of the task's reward when
            empty.
        temperature: with which they are drawn.
        top_k: they are made of the k most likely tokens.
        top_p: they are made of the fewest tokens whose probabilities sum to p.
        beam: texts of a beam search of that width that are candidates beside the samples.
    """

    samples: Annotated[int, Range(2)] = 32
    utility: str = ""
    temperature: PositiveFloat = 1.0
    top_k: PositiveInt | None = None
    top_p: PositiveShare | None = None
    beam: NonNegativeInt = 0

    def best(self, policy: Policy, env: SequenceEnv, *, repeat: int, index: Tensor | None) -> Rollout:
        """Return the best text of every row with its rewards."""
        items = env.begin(repeat=repeat, index=index)["index"]
        rows = max(1, AT_ONCE // ((self.samples + self.beam) * env.max_len))
        found = [self._least_risk(policy, env, part) for part in torch.split(items, rows)]
        tokens, lengths, log_probs = (torch.cat(part) for part in zip(*found, strict=True))
        done = torch.ones_like(items, dtype=torch.bool)
        episodes = Episodes.of(env.context, tokens, lengths, done, env.vocab.pad)
        return finished_rollout(env.replace(episodes=episodes), (log_probs, None, None), RAW)

    def candidates(self, policy: Policy, env: SequenceEnv, items: Tensor) -> Candidates:
        """Return the samples of items, the texts of the beam behind them, and what is expected of each."""
        metric = self.utility or utility_of(env)
        wide = env.replace(num_envs=len(items) * self.samples, reward=no_reward)
        decode = Sample(self.temperature, self.top_k, self.top_p)
        drawn = rollout(policy, wide, decode=decode, repeat=self.samples, index=items)
        shape = len(items), self.samples, env.max_len
        texts = [part.view(shape) for part in (drawn.actions, drawn.mask, drawn.log_probs)]
        if self.beam:
            found = beam_search(policy, wide.replace(num_envs=len(items)), Beam(self.beam), index=items)
            pairs = zip(texts, (found.tokens, found.mask, found.log_probs), strict=True)
            texts = [torch.cat([*pair], 1) for pair in pairs]
        tokens, mask, log_probs = texts
        utility = utilities_of(tokens, mask, drawn, metric, env.vocab).double().mean(2)
        return Candidates(tokens, mask, log_probs, utility)

    def _least_risk(self, policy: Policy, env: SequenceEnv, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best texts of items, their lengths and log-probabilities."""
        found = self.candidates(policy, env, items)
        every, best = torch.arange(len(items), device=items.device), found.utility.argmax(1)
        tokens, mask, log_probs = (part[every, best] for part in found[:3])
        return tokens, mask.sum(1), log_probs


def utility_of(env: SequenceEnv) -> str:
    """Return the metric that a task is rewarded by, as the name of a utility; refuse a task without one."""
    names = [name for name in env.parts if name in METRICS and row_of(name).needs_references]
    if len(env.parts) == len(names) == 1:
        return names[0]
    raise ValueError(
        f"minimum Bayes risk compares two texts by a metric, and the reward of this task, "
        f"{' + '.join(env.parts)}, is not a single metric that compares texts; name one, such as "
        "MBR(utility='bleu'), as a command --utility bleu"
    )


def utilities(batch: Rollout, samples: int, metric: str, vocab: Any) -> Tensor:
    """Return u(yᵢ, yⱼ) of every two of the samples of an item, `[items, i, j]`: more is better.

    Args:
        batch: `samples` texts of each item, one after the other.
        samples: K.
        metric: by name, or a sum of rewards; it is fitted on the samples, so that one that weighs words
            counts these.
        vocab: of the texts.
    """
    shape = -1, samples, batch.mask.shape[1]
    tokens, mask = batch.actions.view(shape), batch.mask.view(shape)
    return utilities_of(tokens, mask, batch, metric, vocab)


def utilities_of(tokens: Tensor, mask: Tensor, samples: Rollout, metric: str, vocab: Any) -> Tensor:
    """Return u(yᵢ, yⱼ) of every candidate `[items, C, T]` and every sample of its item, `[items, C, K]`."""
    if not compares_texts(metric):
        known = {name for name, other in METRICS.items() if other.needs_references}
        raise ValueError(f"{metric} does not compare two texts, as a utility must{hint(metric, known)}")
    right = {"references": samples.actions.unsqueeze(1), "reference_lengths": samples.lengths.unsqueeze(1)}
    judge: Any = named_reward(metric, ItemReferences(vocab, right))
    value = getattr(judge, "value", judge)
    items, each = tokens.shape[:2]
    references = torch.arange(len(samples.actions), device=tokens.device).view(items, -1)
    columns = [
        value(tokens.flatten(0, 1), mask.flatten(0, 1), {"index": column.repeat_interleave(each)})
        for column in references.t()
    ]
    return row_of(metric).sign * torch.stack(columns, 1).view(items, each, -1)


def expected_utility(
    batch: Rollout, samples: int, metric: str, vocab: Any, *, without_itself: bool = False
) -> Tensor:
    """Return meanⱼ u(yᵢ, yⱼ) of every sample, `[B]`, over all samples of its item, or all but itself."""
    found = utilities(batch, samples, metric, vocab).double()
    if not without_itself:
        return found.mean(2).flatten()
    own = found.diagonal(dim1=1, dim2=2)
    return ((found.sum(2) - own) / (samples - 1)).flatten()
