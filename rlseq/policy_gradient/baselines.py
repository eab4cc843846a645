"""Baselines: functions `(returns [B, T], batch) -> b`, broadcastable to `[B, T]`, subtracted from returns.

To leave the gradient unbiased, b may not depend on the action whose return it is compared with: these look at
other texts, at what was written before the action, or at earlier batches. The exceptions are means of a group
that hold the text itself: `group_mean`, `length_weighted` and `optimal_token`.
A baseline that needs more than the samples, or learns from batches, derives from `Factor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.engine.beside import BesideGreedy
from rlseq.engine.decode import Decode, Greedy, Search
from rlseq.engine.rollout import evaluate_frozen, rollout
from rlseq.mdp.sequence_env import sequence_env
from rlseq.types import Rollout
from rlseq.utils.arguments import Checked, PositiveFloat, PositiveInt, Range, Share, check_fields, shown
from rlseq.utils.ranks import total
from rlseq.utils.stateful import TensorState

Baseline = Callable[[Tensor, Rollout], Tensor]


class Factor:
    """A credit or a baseline that looks beyond the samples, or learns; by default it does neither.

    Plain functions are factors, too: only what overrides one of these methods derives from this class.
    """

    def decoder(self, decode: Decode, env: Any) -> Decode | Search:
        """Return the decoder that writes a batch of a task, or one that also writes what the factor needs."""
        return decode

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Return the batch with what the factor needs; called when a batch is collected."""
        return batch

    def learn(self, returns: Tensor, batch: Rollout) -> None:
        """Learn from the returns of a batch; called after the steps on it."""

    def forget(self) -> None:
        """Forget what was learned; called when the reward has changed, as a discriminator's does."""


def none(returns: Tensor, batch: Rollout) -> Tensor:
    """Return 0."""
    return torch.zeros_like(returns)


@dataclass(frozen=True)
class ConstantBaseline(Checked):
    """A threshold, which gives an always positive reward both signs."""

    threshold: float

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return the threshold."""
        return torch.full_like(returns, self.threshold)


def mean(returns: Tensor, batch: Rollout) -> Tensor:
    """Return bₜ of row i = mean over the other rows j ≠ i of G_{j,t}.

    With its own row in the mean, the estimate would shrink by (B−1)/B; leaving it out costs nothing.
    """
    others = total(batch.mask.sum(0)) - batch.mask.int()
    return (total((returns * batch.mask).sum(0)) - returns * batch.mask) / others.clamp(min=1)


def leave_one_out(returns: Tensor, batch: Rollout) -> Tensor:
    """Return the mean R of the other K−1 texts of the context, less past rewards (Kool et al. 2019)."""
    whole = returns[:, 0].view(-1, batch.samples)
    others = (whole.sum(1, keepdim=True) - whole) / (batch.samples - 1)
    return others.flatten().unsqueeze(1) - past_rewards(batch)


def group_mean(returns: Tensor, batch: Rollout) -> Tensor:
    """Return the mean R of all K texts of the context: A is that of `leave_one_out` times (K−1)/K (GRPO)."""
    means = returns[:, 0].view(-1, batch.samples).mean(1)
    return means.repeat_interleave(batch.samples).unsqueeze(1) - past_rewards(batch)


def length_weighted(returns: Tensor, batch: Rollout) -> Tensor:
    """Return Σ L R / Σ L over the K texts of the context, L their lengths, less past rewards (OPO).

    Hao et al. 2025: the constant of least variance, if the squared gradient of a text grows as its length.
    """
    total, lengths = returns[:, 0].view(-1, batch.samples), batch.mask.sum(1).view(-1, batch.samples)
    optimal = (lengths * total).sum(1) / lengths.sum(1).clamp(min=1)
    return optimal.repeat_interleave(batch.samples).unsqueeze(1) - past_rewards(batch)


@dataclass(frozen=True)
class OptimalToken(Factor):
    """Σ G W / Σ W over the K texts at each step, W the squared norms of all scores so far (verl).

    ‖∇ log π(a)‖² in the logits is 1 − 2π(a) + Σπ². Where one text alone is so long, b is 0.
    """

    @torch.no_grad()
    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Add the squared norm of the score of every action."""
        seen = evaluate_frozen(policy, batch)
        if seen.logits is None:
            raise ValueError(
                f"optimal_token needs all probabilities of {type(policy).__name__}; let its `evaluate` "
                "return `logits` (rlseq.types.Evaluation), or use baseline='length_weighted'"
            )
        likely = seen.logits.reduce(lambda z: z.softmax(-1).square().sum(-1))
        return replace(batch, score_norms=1 - 2 * seen.log_probs.exp() + likely)

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return the weighted mean of each step."""
        if batch.score_norms is None:
            raise ValueError("the optimal token baseline needs the norms of scores; collect with the agent")
        shape = -1, batch.samples, returns.shape[1]
        weight = ((batch.score_norms * batch.mask).cumsum(1) * batch.mask).view(shape)
        optimal = (returns.view(shape) * weight).sum(1) / weight.sum(1).clamp(min=1e-8)
        alone = batch.mask.view(shape).sum(1) < 2
        return optimal.masked_fill(alone, 0).repeat_interleave(batch.samples, 0)


@dataclass(eq=False)
class MovingAverage(TensorState, Factor, Checked):
    """The moving average of all returns of earlier batches (Williams 1992, §4).

    Args:
        decay: share of the average that is kept at every batch.
    """

    tensors: ClassVar = ("average", "weight")

    decay: Share = 0.9
    average: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: Tensor = field(default_factory=lambda: torch.zeros(()))

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return the average before this batch; 0 before the first."""
        return (self.average / self.weight.clamp(min=1e-8)).to(returns.device).expand_as(returns)

    def learn(self, returns: Tensor, batch: Rollout) -> None:
        """Add this batch to the average."""
        now = total((returns * batch.mask).sum()) / total(batch.mask.sum()).clamp(min=1)
        self.average = self.decay * self.average.to(now.device) + (1 - self.decay) * now
        self.weight = self.decay * self.weight.to(now.device) + (1 - self.decay)

    def forget(self) -> None:
        """Start again."""
        self.average, self.weight = torch.zeros_like(self.average), torch.zeros_like(self.weight)


def past_rewards(batch: Rollout) -> Tensor:
    """Return the rewards before each action, which the action cannot change, so they may be subtracted."""
    return batch.rewards.cumsum(1) - batch.rewards


@dataclass(frozen=True)
class OptimalValue(Checked):
    """V* = β log mean exp(r/β) π_ref/π over the K texts: the value of the best policy near π_ref (A*PO).

    Brantley et al. 2025, who take the texts from π_ref; the weights allow for samples of π.

    Args:
        beta: β of the agent.
    """

    beta: PositiveFloat = 0.1

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return V* of the context, less past rewards."""
        if batch.reference_log_probs is None:
            raise ValueError("V* needs a reference policy; take an agent that compares with one, such as dro")
        weight = ((batch.reference_log_probs - batch.log_probs) * batch.mask).sum(1)
        exponents = (returns[:, 0] / self.beta + weight).view(-1, batch.samples)
        value = self.beta * (exponents.logsumexp(1) - math.log(batch.samples))
        return value.repeat_interleave(batch.samples).unsqueeze(1) - past_rewards(batch)


@dataclass(frozen=True)
class CompletedValue(Factor, Checked):
    """V̂(sₜ), the mean return of completions of what was written before yₜ (VinePPO, Kazemnejad et al. 2025).

    Those of the credit `Completions` are used again; from the empty text N more are written for each context.

    Args:
        samples: N.
    """

    samples: PositiveInt = 9

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Store V̂ as the values of the batch."""
        if batch.credit is None:
            raise ValueError("completed_value uses the completions of a credit; pass credit=Completions(9)")
        index = batch.context["index"][:: batch.samples]
        wide = sequence_env(env).replace(num_envs=len(index) * self.samples)
        first = rollout(policy, wide, repeat=self.samples, index=index).returns.view(-1, self.samples).mean(1)
        whole = batch.credit + past_rewards(batch)  # of the text so far and its completions
        before = torch.cat([first.repeat_interleave(batch.samples).unsqueeze(1), whole[:, :-1]], 1)
        return replace(batch, values=before - past_rewards(batch))

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return V̂."""
        return values_of(batch)


class NeedsValues(Factor):
    """A credit or a baseline that uses V of the policy that sampled a batch."""

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Add V, where a rollout has none."""
        if batch.values is not None:
            return batch
        return replace(batch, values=evaluate_frozen(policy, batch).values)


@dataclass(frozen=True)
class Value(NeedsValues):
    """V(sₜ), by the policy's value head."""

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return V."""
        return values_of(batch)


def values_of(batch: Rollout) -> Tensor:
    """Return V `[B, T]`, or refuse a batch without."""
    if batch.values is None:
        raise ValueError(
            "the batch has no values: make the policy with value=True, or let its `evaluate` return values; "
            "and collect the batch with the agent that learns from it"
        )
    return batch.values


@dataclass(frozen=True)
class GreedyReturn(Factor):
    """R of the greedy text of the same context, less past rewards (Rennie et al. 2017; "ReMax")."""

    def decoder(self, decode: Decode, env: Any) -> Decode | Search:
        """Return a decoder that writes greedy texts in the same batch; only texts have them."""
        sequence_env(env)
        return BesideGreedy(decode)

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Add the return of the greedy text, once for all samples of a context, where there is none yet."""
        if batch.greedy is not None:
            return batch
        index = batch.context["index"][:: batch.samples]
        best = rollout(policy, sequence_env(env).replace(num_envs=len(index)), decode=Greedy(), index=index)
        return replace(batch, greedy=best.returns.repeat_interleave(batch.samples))

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return R of the greedy text less past rewards."""
        if batch.greedy is None:
            raise ValueError("the greedy baseline needs greedy texts; collect the batch with the agent")
        return batch.greedy.unsqueeze(1) - past_rewards(batch)


@dataclass(eq=False)
class Regression(TensorState, Factor):
    """bₜ = wₜ·hₜ + cₜ, a linear regression for every step on the policy's hidden state (MIXER).

    Nothing flows back into h (Ranzato et al. 2016). It learns by normalised least mean squares:
    w ← w − rate · mean (b − G) h / (1 + |h|²), which is stable whatever the width of h.

    Args:
        rate: of learning; below 2.
        beside: a baseline that does not learn; the regression predicts what is missing from it.
    """

    tensors: ClassVar = ("weight",)

    rate: Annotated[float, Range(0, 2, open_low=True, open_high=True)] = 0.1
    beside: Baseline = none
    weight: Tensor | None = None  # [T, H + 1], the last column is c

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.beside, Factor) and type(self.beside).learn is not Factor.learn:
            raise ValueError(f"the baseline beside a regression must not learn, got {shown(self.beside)}")

    def decoder(self, decode: Decode, env: Any) -> Decode | Search:
        """Return the decoder of the baseline beside the regression."""
        return self.beside.decoder(decode, env) if isinstance(self.beside, Factor) else decode

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Add h, and what the baseline beside the regression needs."""
        logits = evaluate_frozen(policy, batch).logits
        if logits is None:
            raise ValueError(
                f"a regression needs the hidden state of {type(policy).__name__}; let its `evaluate` return "
                "`logits`, which have `features` (rlseq.types.Evaluation)"
            )
        if isinstance(self.beside, Factor):
            batch = self.beside.prepare(batch, policy, env)
        return replace(batch, features=logits.features)

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return the prediction from earlier batches; 0 before the first."""
        known = self.beside(returns, batch)
        if self.weight is None:
            return known
        return known + (self._inputs(batch) * self.weight.to(returns.device)).sum(2)

    def learn(self, returns: Tensor, batch: Rollout) -> None:
        """Take one step towards the returns of this batch."""
        h = self._inputs(batch)
        error = (self(returns, batch) - returns) * batch.mask / h.square().sum(2)
        slope = total((error.unsqueeze(2) * h).sum(0)) / total(batch.mask.sum(0)).clamp(min=1).unsqueeze(1)
        before = 0.0 if self.weight is None else self.weight.to(slope.device)
        self.weight = before - self.rate * slope

    def forget(self) -> None:
        """Start again."""
        self.weight = None

    def _inputs(self, batch: Rollout) -> Tensor:
        if batch.features is None:
            raise ValueError("a regression needs the policy's features; collect the batch with the agent")
        return F.pad(batch.features, (0, 1), value=1.0)


BASELINES: dict[str, Baseline] = {  # an agent gets a copy of its own
    "none": none,
    "mean": mean,
    "moving_average": MovingAverage(),
    "value": Value(),
    "regression": Regression(),
    "greedy": GreedyReturn(),
    "greedy_corrected": Regression(beside=GreedyReturn()),
    "leave_one_out": leave_one_out,
    "group_mean": group_mean,
    "length_weighted": length_weighted,
    "optimal_token": OptimalToken(),
    "optimal_value": OptimalValue(),
    "completed_value": CompletedValue(),
}
