"""Credits, what an action is credited with: functions `(batch, gamma) -> Q̂`, `[B, T]`.

A credit that needs more than the samples derives from `rlseq.policy_gradient.baselines.Factor`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.completions import complete
from rlseq.engine.mbr import expected_utility, utility_of
from rlseq.policy_gradient import returns
from rlseq.policy_gradient.baselines import Factor, NeedsValues, past_rewards, values_of
from rlseq.types import Context, Rollout
from rlseq.utils.arguments import Checked, PositiveInt, Share

Credit = Callable[[Rollout, float], Tensor]
Scorer = Callable[[Tensor, Tensor, Context], Tensor]  # (tokens, mask, context) -> [B, T]


def reward_to_go(batch: Rollout, gamma: float) -> Tensor:
    """Return Gₜ, the discounted sum of the rewards from this action on."""
    return returns.reward_to_go(batch.rewards, batch.ends, gamma, batch.bootstrap)


def immediate(batch: Rollout, gamma: float) -> Tensor:
    """Return rₜ alone: wrong, and here to show that it is."""
    return batch.rewards


def own_credit(batch: Rollout, gamma: float) -> Tensor:
    """Stand for the credit that an agent makes from its hyper-parameters (`make_credit`)."""
    raise NotImplementedError("the agent replaces this by its own credit when it is made")


@dataclass(frozen=True)
class Lambda(NeedsValues, Checked):
    """The λ-return Gₜ^λ; less V it is generalised advantage estimation. λ = 0 is TD, λ = 1 Monte Carlo."""

    lam: Share = 0.95

    def __call__(self, batch: Rollout, gamma: float) -> Tensor:
        """Return Gₜ^λ."""
        return returns.lambda_return(
            batch.rewards, values_of(batch), batch.ends, gamma, self.lam, batch.bootstrap
        )


@dataclass(frozen=True)
class NStep(NeedsValues, Checked):
    """The sum of the next n rewards, and V after them."""

    n: PositiveInt = 5

    def __call__(self, batch: Rollout, gamma: float) -> Tensor:
        """Return Σ_{k<n} γᵏ rₜ₊ₖ + γⁿ Vₜ₊ₙ."""
        return returns.n_step(batch.rewards, values_of(batch), batch.ends, gamma, self.n, batch.bootstrap)


class CreditOfTexts(Factor):
    """A credit made of scores of texts, not of rewards along the way; `prepare` stores it in the batch."""

    def __call__(self, batch: Rollout, gamma: float) -> Tensor:
        """Return the stored credit."""
        if batch.credit is None:
            raise ValueError(
                "this credit is made when a batch is collected; collect it with the agent that learns"
            )
        return batch.credit


@dataclass(frozen=True)
class Completions(CreditOfTexts, Checked):
    """Q(y₍₁…ₜ₋₁₎, yₜ) = mean return of N completions of y₍₁…ₜ₎; at the end, the text's own (Yu et al. 2017).

    Rewards before yₜ are subtracted, as from any reward-to-go.

    Args:
        samples: N.
        rollout_policy: writes them; the policy that learns when not given.
        every: words from one prefix that is completed to the next, to spare time. An action between them is
            credited with the next: just as unbiased where the policy itself completes, but noisier.
        compile: as in `rlseq.rollout`.
    """

    samples: PositiveInt = 16
    rollout_policy: Any = None
    every: PositiveInt = 1
    compile: bool = False

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Complete prefixes, and store the mean returns as the credit."""
        rows, longest = batch.actions.shape
        prefixes = list(range(longest - self.every, 0, -self.every))[::-1]
        credit = batch.returns.unsqueeze(1)
        if prefixes:
            writer = self.rollout_policy or policy
            completed = complete(
                writer, env, batch, samples=self.samples, prefixes=prefixes, compile=self.compile
            )
            means = completed.returns.view(len(prefixes), rows, self.samples).mean(2).t()
            following = [sum(prefix < length for prefix in prefixes) for length in range(1, longest + 1)]
            place = torch.tensor(following).to(credit.device, non_blocking=True)  # the host goes on
            credit = torch.cat([means, credit], 1)[:, place]
        credit = credit.where(~batch.ends, batch.returns.unsqueeze(1))
        return replace(batch, credit=credit - past_rewards(batch))


class CreditOfGroups(CreditOfTexts):
    """A credit of whole texts that compares the K texts of a context itself, and so takes no baseline."""

    least: int = 2  # texts of a context that it needs

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Compare the texts, and store the credit."""
        return replace(batch, credit=self.of_texts(batch, env).unsqueeze(1).expand_as(batch.rewards))

    def of_texts(self, batch: Rollout, env: Any) -> Tensor:
        """Return the credit of every text, `[B]`."""
        raise NotImplementedError


@dataclass(frozen=True)
class PassAtK(CreditOfGroups, Checked):
    """The gradient of E[max of k returns], pass@k where returns are 0 or 1, from K ≥ k texts; unbiased.

    Of every set of k of the K texts the best is credited with its lead over the second best, which is the
    best return without it; the mean over all sets (Walder & Karkhanis 2025). With k = K the best text alone
    is credited (Tang et al. 2025).

    Args:
        k: texts of which the best counts; all K when not given.
    """

    k: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k == 1:
            raise ValueError("k must be at least 2; the mean return of one text is what rloo follows")

    @property
    def least(self) -> int:  # type: ignore[override]
        """The number of texts of a context that it needs."""
        return self.k or 2

    def of_texts(self, batch: Rollout, env: Any) -> Tensor:
        """Return K times the mean over sets of the lead that a text has in each, `[B]`."""
        whole = batch.samples
        k = self.k or whole
        ordered, order = batch.returns.view(-1, whole).sort(1)
        sets = [comb(below, k - 2) / comb(whole, k) for below in range(whole)]  # with this text as the second
        weights = torch.tensor(sets, dtype=ordered.dtype, device=ordered.device)
        ahead = torch.tril(ordered.new_ones(whole, whole), -1) * weights  # [best, second]
        lead = whole * (ordered * ahead.sum(1) - ordered @ ahead.t())
        return torch.empty_like(lead).scatter_(1, order, lead).flatten()


@dataclass(frozen=True)
class PerMetric(CreditOfGroups, Checked):
    """Σ over the metrics of a reward of (r − mean) / (s + 10⁻⁴), each within the K texts (GDPO).

    Liu et al. 2026: a sum of rewards, standardised, is ruled by the metric that varies most; here each counts
    alike, whatever its weight in the reward. The paper then whitens over the batch: `scale="by_batch"`.
    """

    def of_texts(self, batch: Rollout, env: Any) -> Tensor:
        """Return the sum of the standardised parts of the reward, `[B]`."""
        parts = env.reward_parts(batch.actions, batch.mask, batch.context)
        groups = torch.stack([part.sum(1).view(-1, batch.samples) for part in parts.values()])
        centred = groups - groups.mean(2, keepdim=True)
        return (centred / (groups.std(2, keepdim=True) + 1e-4)).sum(0).flatten()


@dataclass(frozen=True)
class Consensus(CreditOfGroups, Checked):
    """The mean utility of a text against the other K − 1 texts of its source; no reference is looked at.

    With `scale="best_of_group"` it is fine-tuning on the winners of minimum Bayes risk (Finkelstein & Freitag
    2023), in `dpo` MBR-DPO (Yang et al. 2023).

    Args:
        utility: a metric by name; that of the task's reward when empty.
    """

    utility: str = ""

    def of_texts(self, batch: Rollout, env: Any) -> Tensor:
        """Return the expected utility of every text, `[B]`."""
        metric = self.utility or utility_of(env)
        found = expected_utility(batch, batch.samples, metric, env.vocab, without_itself=True)
        return found.to(batch.rewards)


@dataclass(frozen=True)
class Increments(Factor, Checked):
    """Σ_{t'≥t} (Φ(y₍₁…ₜ'₎) − Φ(y₍₁…ₜ'₋₁₎)): what a text adds to a metric from here on (`metric.increments`).

    Potential-based: the sum over a text is its score, so the objective is the same (Bahdanau et al. 2017).
    """

    increments: Scorer

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Replace the rewards by the increments."""
        return replace(batch, rewards=self.increments(batch.actions, batch.mask, batch.context))

    def __call__(self, batch: Rollout, gamma: float) -> Tensor:
        """Return the sum of the increments from this action on."""
        return reward_to_go(batch, gamma)


@dataclass(frozen=True)
class Stepwise(CreditOfTexts, Checked):
    """Q̂ₜ = the score of the unfinished text y₍₁…ₜ₎, by a discriminator, for instance (REGS)."""

    scorer: Scorer

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Store the scores as the credit."""
        return replace(batch, credit=self.scorer(batch.actions, batch.mask, batch.context))


CREDITS: dict[str, Credit] = {  # an agent gets a copy of its own
    "own_credit": own_credit,
    "reward_to_go": reward_to_go,
    "immediate": immediate,
    "td": Lambda(0.0),
    "gae": Lambda(),
    "n_step": NStep(),
    "completions": Completions(),
    "pass_at_k": PassAtK(),
    "per_metric": PerMetric(),
    "consensus": Consensus(),
}
