"""TRPO: trust-region policy optimisation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlseq.agents.a2c import A2C
from rlseq.engine.rollout import evaluate_actions
from rlseq.policy_gradient.agent import clip
from rlseq.policy_gradient.diagnostics import merge_metrics
from rlseq.policy_gradient.factors import Scale, by_batch
from rlseq.policy_gradient.fisher import RecordedDivergence, conjugate_gradients, slope
from rlseq.policy_gradient.losses import ratio_weighted
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch, Metrics, Rollout
from rlseq.utils.arguments import DivergenceTarget, NonNegativeFloat, NonNegativeInt, PositiveInt, StepSize
from rlseq.utils.ranks import total, total_gradients
from rlseq.utils.vectors import assign, flat


@dataclass(eq=False)
class TRPO(A2C, SampleReuse):
    """Maximise E[ Σₜ ρₜAₜ ] subject to KL(π_old ‖ π) ≤ δ,   ρₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ).

    Schulman et al. 2015. A step goes along F⁻¹g, of the length at which ½ dᵀFd = δ, and is halved until the
    objective is larger than before and the divergence at most δ. V learns after it, with parameters that the
    policy does not depend on: where both have one trunk, with V's own head alone.
    """

    lr: StepSize = 1e-3  # step size of Adam, by which V learns; the policy's own follows from kl_target
    kl_target: DivergenceTarget = 0.01  # δ: largest divergence from the old policy in a step, nats per action
    cg_steps: PositiveInt = 10  # steps of conjugate gradients
    damping: NonNegativeFloat = 0.1  # added to the diagonal of F, which may be singular
    halvings: NonNegativeInt = 10  # how often a step is halved before none is taken
    value_weight: NonNegativeFloat = 0.0  # weight of the value loss in the objective; V learns after the step
    value_epochs: PositiveInt = 10  # passes of V over a batch
    value_minibatches: PositiveInt = 4  # gradient steps of V in each pass
    scale: Scale = by_batch  # normalisation of the advantage (rlseq.policy_gradient.factors)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay:
            raise ValueError(
                "TRPO changes the policy within its trust region only, and weights that decay leave it; "
                f"leave weight_decay at 0, got {self.weight_decay}"
            )

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −ρA."""
        return ratio_weighted(evaluation.log_probs, batch.log_probs, batch.advantages)

    def step(self, parts: Iterable[Rollout]) -> Metrics:
        """Take the natural step on the sum of the losses of the parts of a batch, if there is a good one."""
        parts, parameters = list(parts), self.trained()
        divergence = RecordedDivergence(self.policy, parts)
        losses, slopes, logs = [], [], []
        for part in parts:
            loss, metrics = self.loss(part)
            losses.append(loss.detach())
            slopes.append(slope(loss, parameters))
            logs.append(metrics)
        before, gradient = total(torch.stack(losses).sum()), total(torch.stack(slopes).sum(0))
        step = self.natural_step(divergence, parameters, -gradient)
        share, after, moved = self.line_search(step, before, divergence, parameters, parts)
        return {
            "loss": before,
            **merge_metrics(logs),
            "grad_norm": gradient.norm(),
            "gain": before - after,
            "kl_step": moved,
            "step_share": share,
        }

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def natural_step(
        self, divergence: RecordedDivergence, parameters: list[nn.Parameter], uphill: Tensor
    ) -> Tensor:
        """Return d = √(2δ / xᵀFx) x with x = F⁻¹g: the step of divergence δ, to second order."""
        fisher = divergence.fisher_product(parameters)

        def damped(vector: Tensor) -> Tensor:
            return fisher(vector) + self.damping * vector

        x = conjugate_gradients(damped, uphill, self.cg_steps)
        size = x @ damped(x)
        return torch.where(size > 0, x * (2 * self.kl_target / size).sqrt(), 0.0)

    @torch.no_grad()
    def line_search(
        self,
        step: Tensor,
        before: Tensor,
        divergence: RecordedDivergence,
        parameters: list[nn.Parameter],
        parts: list[Rollout],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take the largest good share of a step; return it with the loss and the divergence after it.

        Shares are tried until one is good; on an accelerator, which would be waited for, all of them.
        """
        start, none = flat(parameters), torch.zeros_like(before)
        found = none, before, none
        for halving in range(self.halvings + 1):
            share = torch.full_like(before, 0.5**halving)
            assign(parameters, start + share * step)
            after = total(torch.stack([self.loss(part)[0] for part in parts]).sum())
            moved = divergence()
            good = (found[0] == 0) & (after < before) & (moved <= self.kl_target)
            if not good.is_cuda and good:
                return share, after, moved
            found = share.where(good, found[0]), after.where(good, found[1]), moved.where(good, found[2])
        assign(parameters, torch.where(found[0] > 0, start + found[0] * step, start))
        return found

    def update(self, batch: Rollout) -> Metrics:
        """Take steps on a batch, then let V learn from it."""
        metrics = super().update(batch)
        learned = self.rows(self.with_advantages(batch))
        return metrics if learned.values is None else {**metrics, "value_loss": self.learn_values(learned)}

    def learn_values(self, batch: LearningBatch) -> Tensor:
        """Regress V on the targets; return the mean error of the last pass, half of its square."""
        parameters = self.trained()
        errors: list[Tensor] = []
        for _ in range(self.value_epochs):
            errors = []
            for rows in self.shuffle(batch, self.value_minibatches):
                part = batch.take(rows)
                evaluation = evaluate_actions(self.policy, part)
                assert evaluation.values is not None
                # Other factors for every action, so that their slopes do not cancel each other.
                factors = torch.linspace(1, 2, part.mask.numel(), device=part.mask.device).view_as(part.mask)
                chosen = (evaluation.log_probs * part.mask * factors).sum()
                used = torch.autograd.grad(chosen, parameters, allow_unused=True, retain_graph=True)
                errs = (evaluation.values - part.targets).square() / 2 * part.mask
                error = errs.sum() / total(part.mask.sum()).clamp(min=1)
                found = torch.autograd.grad(error, parameters, allow_unused=True)
                for p, policys, own in zip(parameters, used, found, strict=True):
                    mixed = None if policys is None else total((policys != 0).int())
                    p.grad = own if own is None or mixed is None else own.where(mixed == 0, 0.0)
                total_gradients(parameters)
                clip(parameters, self.clip_norm)
                self.optimizer.step()
                errors.append(total(error.detach()))
        return torch.stack(errors).mean()
