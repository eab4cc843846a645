"""Surrogates and divergences by hand, and after the policy has moved away from the one that sampled."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents.ppo import AdaptiveKL
from rlseq.engine.rollout import evaluate_actions
from rlseq.policy_gradient.losses import clipped, kl_estimate, minimum_risk, out_of_clip, ratio_weighted
from rlseq.policy_gradient.penalties import k1, k2, k3, smoothed
from rlseq.types import Evaluation, LearningBatch


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.0),
        (1.5, 2.0, 2.4, 0.0),  # no gain above 1 + ε
        (0.5, 2.0, 1.0, 2.0),  # on the wrong side: the min keeps the gradient
        (1.0, -2.0, -2.0, -2.0),
        (0.9, -2.0, -1.8, -2.0),
        (0.5, -2.0, -1.6, 0.0),  # no gain below 1 − ε
        (1.5, -2.0, -3.0, -2.0),  # on the wrong side
    ],
)
def test_the_clip_of_the_lecture(ratio: float, advantage: float, gain: float, slope: float) -> None:
    """Min(ρA, clip(ρ, 0.8, 1.2) A) and its slope in ρ (SCOPE R7)."""
    rho = torch.tensor(ratio, requires_grad=True)
    loss = clipped(rho.log(), torch.zeros(()), torch.tensor(advantage), 0.2, 0.2)
    assert float(loss.detach()) == pytest.approx(-gain)
    assert float(torch.autograd.grad(loss, rho)[0]) == pytest.approx(-slope)
    assert bool(out_of_clip(rho.log(), torch.zeros(()), torch.tensor(advantage), 0.2, 0.2)) == (slope == 0)


def test_clip_higher_lets_unlikely_words_grow() -> None:
    rho, one = torch.tensor(1.25), torch.ones(())
    assert float(clipped(rho.log(), torch.zeros(()), one, 0.2, 0.28)) == pytest.approx(-1.25)
    assert float(clipped(rho.log(), torch.zeros(()), one, 0.2, 0.2)) == pytest.approx(-1.2)
    assert float(clipped(torch.tensor(0.5).log(), torch.zeros(()), -one, 0.2, 0.28)) == pytest.approx(0.8)


def moved(tiny: Any, name: str, **hyper: Any) -> tuple[Any, LearningBatch, Evaluation]:
    """An agent whose policy has left the one that sampled; its batch, and what it makes of that now."""
    env, policy = tiny(rows=32, sharp=2.0)
    agent: Any = rlseq.make_agent(name, policy, **hyper)
    batch: LearningBatch = agent.with_advantages(agent.collect(env))
    agent.loss(batch)  # the first ratio is looked at here
    with torch.no_grad():
        for i, p in enumerate(policy.parameters()):
            p.add_(0.6 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    seen = evaluate_actions(policy, batch)
    assert float(((seen.log_probs - batch.log_probs) * batch.mask).detach().exp().sub(1).abs().max()) > 0.3
    return agent, batch, seen


def slopes(agent: Any, loss: Tensor) -> Tensor:
    grads = torch.autograd.grad(loss, list(agent.policy.parameters()), allow_unused=True)
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("ppo", 0.2, 0.2), ("grpo", 0.2, 0.2), ("dapo", 0.2, 0.28), ("dr_grpo", 0.2, 0.2)],
)
def test_later_epochs_against_a_loop_over_tokens(tiny: Any, name: str, low: float, high: float) -> None:
    hyper: dict[str, Any] = {"value_weight": 0.0} if name == "ppo" else {"samples": 4, "kl": 0.0}
    agent, batch, seen = moved(tiny, name, **hyper)
    total, held, out = torch.zeros(()), 0, 0
    for i in range(len(batch.actions)):
        for t in range(int(batch.mask[i].sum())):
            a, rho = float(batch.advantages[i, t]), (seen.log_probs[i, t] - batch.log_probs[i, t]).exp()
            held += 1
            if (a > 0 and float(rho.detach()) > 1 + high) or (a < 0 and float(rho.detach()) < 1 - low):
                out += 1  # a constant: no gradient
                continue
            total = total - a * rho * batch.weights[i, t]
    loss, metrics = agent.loss(batch)
    assert 3 < out < held / 2
    torch.testing.assert_close(slopes(agent, loss), slopes(agent, total), rtol=1e-4, atol=1e-6)
    assert float(metrics["clip_fraction"]) == pytest.approx(out / held)


def test_the_price_of_distance_in_later_epochs(tiny: Any) -> None:
    """−ρA + β (ρ − 1 − log ρ), whose gradient is −ρA∇log π + β (ρ − 1) ∇log π."""
    agent, batch, seen = moved(tiny, "ppo_kl", beta=0.7, value_weight=0.0)
    rho = (seen.log_probs - batch.log_probs).exp().detach()
    by_hand = ((-rho * batch.advantages + 0.7 * (rho - 1)) * seen.log_probs * batch.weights).sum()
    torch.testing.assert_close(
        slopes(agent, agent.loss(batch)[0]), slopes(agent, by_hand), rtol=1e-4, atol=1e-6
    )


def test_the_price_doubles_and_halves() -> None:
    """Outside [target / 1.5, 1.5 · target] (Schulman et al. 2017, §4)."""
    price, betas = AdaptiveKL(0.01, 1.0), []
    for divergence in (0.0149, 0.0151, 0.02, 0.0068, 0.0066, 0.001):
        price.learn(torch.tensor(divergence))
        betas.append(float(price.beta))
    assert betas == [1.0, 2.0, 4.0, 4.0, 2.0, 1.0]


def test_corrected_risk_in_later_epochs(tiny: Any) -> None:
    """−Σ Qₖ Rₖ per context, Q = softmax of log π − log π_old of whole texts."""
    agent, batch, seen = moved(tiny, "mrt_corrected", samples=4)
    whole = ((seen.log_probs - batch.log_probs) * batch.mask).sum(1).view(-1, 4)
    by_hand = -(whole.exp() / whole.exp().sum(1, keepdim=True) * batch.returns.view(-1, 4)).sum(1).mean()
    loss, _ = agent.loss(batch)
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), abs=1e-5)
    torch.testing.assert_close(slopes(agent, loss), slopes(agent, by_hand), rtol=1e-4, atol=1e-6)


def test_several_epochs_are_several_steps(tiny: Any) -> None:
    """Of PPO: as many as epochs × minibatches, all on the advantages of the first look."""
    env, policy = tiny(rows=32)
    agent = rlseq.make_agent("ppo", policy, lr=1e-2, epochs=3, minibatches=2)
    metrics = agent.update(agent.collect(env))
    assert float(agent.optimizer.state[next(policy.parameters())]["step"]) == 6
    assert float(metrics["ratio_max"]) > 1 > float(metrics["ratio_min"])
    assert float(metrics["kl_behaviour"]) > 0


def test_minimum_risk_by_hand() -> None:
    scores = torch.tensor([0.0, math.log(3.0), 1.0, 1.0])
    risk = minimum_risk(scores, torch.tensor([1.0, 2.0, 4.0, 6.0]), 2)
    assert risk.tolist() == pytest.approx([-2 * 0.25 * 1, -2 * 0.75 * 2, -4.0, -6.0])


def test_estimates_of_a_divergence() -> None:
    """With π(a) = 0.5 and π_anchor(a) = 0.25: ρ = ½, log ratio = log 2."""
    ours, other = (Evaluation(torch.tensor(p).log(), torch.zeros(())) for p in (0.5, 0.25))
    log2 = math.log(2)
    assert float(k1(ours, other)) == pytest.approx(log2)
    assert float(k2(ours, other)) == pytest.approx(log2**2 / 2)
    assert float(k3(ours, other)) == pytest.approx(0.5 - 1 + log2)
    assert float(kl_estimate(ours.log_probs - other.log_probs)) == pytest.approx(2 - 1 - log2)
    assert float(ratio_weighted(ours.log_probs, other.log_probs, torch.tensor(3.0))) == pytest.approx(-6.0)


def test_estimates_are_right_on_the_average(tiny: Any) -> None:
    """K1 and k3 are Σₐ π (log π − log π_anchor) in the mean, k2 is not."""
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.5, 0.3])
    ours, other = Evaluation(p.log(), p), Evaluation(q.log(), q)
    divergence = float((p * (p / q).log()).sum())
    assert float((p * k1(ours, other)).sum()) == pytest.approx(divergence, abs=1e-6)
    assert float((p * k3(ours, other)).sum()) == pytest.approx(divergence, abs=1e-6)
    assert abs(float((p * k2(ours, other)).sum()) - divergence) > 0.05
    assert bool((k3(ours, other) >= 0).all())


def test_smoothing_spreads_the_target(tiny: Any) -> None:
    env, policy = tiny(rows=8)
    batch = rlseq.rollout(policy, env)
    seen = evaluate_actions(policy, batch)
    assert seen.logits is not None
    log_p = seen.logits.reduce(lambda z: z.log_softmax(-1))
    target = torch.full_like(log_p, 0.3 / 3).scatter_add(
        2, batch.actions.unsqueeze(2), torch.full_like(log_p[:, :, :1], 0.7)
    )
    found, wanted = smoothed(seen, 0.3), -(target * log_p).sum(2)
    torch.testing.assert_close(found[batch.mask], wanted[batch.mask])


def test_what_the_reward_pays_for_distance_is_not_called_reward(tiny: Any) -> None:
    env, policy = tiny(rows=64)
    anchor = tiny.policy(env, sharp=2.0, seed=1).requires_grad_(False)
    agent: Any = rlseq.make_agent("scst", policy, kl_reward=0.5, reference=anchor)
    batch = agent.collect(env)
    uses_task_reward = env.look_up(batch.actions, batch.mask, batch.context)
    log_ratio = ((batch.log_probs - evaluate_actions(anchor, batch).log_probs) * batch.mask).sum(1)
    torch.testing.assert_close(batch.returns, uses_task_reward - 0.5 * log_ratio)
    metrics = agent.update(batch)
    assert float(metrics["reward"]) == pytest.approx(float(uses_task_reward.mean()), abs=1e-5)
    assert float(metrics["kl_penalty"]) == pytest.approx(0.5 * float(log_ratio.mean()), abs=1e-5)
    assert float(metrics["greedy_gap"]) == pytest.approx(
        float((uses_task_reward - batch.greedy).mean()), abs=1e-5
    )


def test_the_variance_of_importance_sampling() -> None:
    """Var_q[f p/q] = E_p[f² p/q] − E_p[f]²; far apart, few samples have the wrong sign (SCOPE R12)."""
    p, q = torch.tensor([0.9, 0.1]).double(), torch.tensor([0.05, 0.95]).double()
    f = torch.tensor([-1.0, 1.0]).double()
    drawn = torch.multinomial(q, 10 * 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    weighted = -ratio_weighted(p.log()[drawn], q.log()[drawn], f[drawn])  # ρ f
    mean = (p * f).sum()
    variance = (p * f.square() * p / q).sum() - mean.square()
    assert float(weighted.mean()) == pytest.approx(float(mean), abs=0.05)
    assert float(weighted.var()) == pytest.approx(float(variance), rel=0.02)
    wrong_sign = (weighted.view(-1, 10).mean(1) > 0) == (mean < 0)
    assert float(wrong_sign.double().mean()) == pytest.approx(0.95**10, abs=0.01), "when a is never drawn"


class Fixed(torch.nn.Module):
    """One word, of probabilities that nobody reads anything for."""

    def __init__(self, probs: list[float]) -> None:
        super().__init__()
        self.log_probs = torch.tensor([math.log(p) for p in probs])
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def start(self, context: Any) -> Any:
        return ()

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.log_probs.expand(len(token), -1), state

    def evaluate(self, actions: Tensor, context: Any, *behaviour: Any) -> Evaluation:
        log_probs = self.log_probs[actions] + self.unused
        return Evaluation(log_probs, torch.zeros_like(log_probs))


def test_likelihood_is_the_wrong_ruler() -> None:
    """Three good words, and one that is rubbish: the model with the better mean log p is the worse (R3)."""
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=3, vocab_size=4, length=1, ends=False)
    env.parts = {"good": lambda tokens, mask, context: (tokens[:, 0] < 3).float()}
    found = {}
    for name, probs in {"first": [1e-2, 2e-2, 1e-2, 0.96], "second": [0.99, 1e-100, 1e-100, 0.01]}.items():
        policy = Fixed(probs)
        words = torch.tensor([[0], [1], [2]])
        batch = replace(rlseq.rollout(policy, env), actions=words)
        nll = rlseq.make_agent("mle", policy).loss(batch)[1]["nll"]
        found[name] = -float(nll), float(rlseq.exact.objective(policy, env))
    assert found["first"] == pytest.approx((-4.374, 0.04), abs=1e-3)
    assert found["second"] == pytest.approx((-153.5, 0.99), abs=0.02)
