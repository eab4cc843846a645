"""TRPO: its Fisher products, its step against the closed form, and what its line search lets through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.adapters import GymEnv
from rlseq.engine.rollout import evaluate_actions, evaluate_frozen
from rlseq.policies import matmul
from rlseq.policies.control_heads import KeptLogits
from rlseq.policy_gradient.algorithm import frozen_copy
from rlseq.policy_gradient.fisher import RecordedDivergence, conjugate_gradients
from rlseq.types import RAW, Behaviour, Context, Evaluation
from rlseq.utils.vectors import flat


class Softmax(nn.Module):
    """A bandit: one state, whose logits are the parameters."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, words))

    def start(self, context: Context) -> Tensor:
        return context["index"]

    def step(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits.expand(len(token), -1), state

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        z = self.logits.expand(*actions.shape, -1)
        log_p = z.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        return Evaluation(
            log_p.gather(2, actions.unsqueeze(2)).squeeze(2), entropy, logits=KeptLogits(z, z), top=None
        )


def bandit(rows: int = 512) -> tuple[Any, Softmax]:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=rows, vocab_size=4, length=1)
    return env, Softmax(4)


def plain(policy: Any, **hyper: Any) -> Any:
    """TRPO without V."""
    given = {"credit": "reward_to_go", "baseline": "mean", "scale": "none", **hyper}
    return rlseq.make_agent("trpo", policy, **given)


def weights(policy: Any) -> Tensor:
    return flat(policy.parameters()).detach().clone()


def moved(policy: Any, old: Any, batch: Any) -> float:
    """KL(π_old ‖ π) per action."""
    logits = [evaluate_frozen(each, batch).logits for each in (old, policy)]
    assert logits[0] is not None
    assert logits[1] is not None
    return float((logits[0].divergence(logits[1]).detach() * batch.mask).sum() / batch.mask.sum())


def test_a_step_on_a_softmax_is_the_closed_form() -> None:
    """F = diag(p) − ppᵀ and ∇J = p ⊙ A, so that F⁺∇J = A up to a constant: √(2δ / Σ p A²) A."""
    env, policy = bandit(rows=128)
    agent = plain(policy, damping=0.0, kl_target=1e-4)
    batch = agent.with_advantages(agent.collect(env))
    start = weights(policy)
    counts = torch.zeros(4).scatter_add_(0, batch.actions[:, 0], batch.advantages[:, 0]) / env.num_envs
    p = start.softmax(0)
    gradient = counts - p * counts.sum()
    natural = torch.linalg.pinv(torch.diag(p) - torch.outer(p, p)) @ gradient
    wanted = natural * (2e-4 / (gradient @ natural)).sqrt()
    metrics = agent.step([batch])
    assert float(metrics["step_share"]) in (0.5, 1.0)
    step = (weights(policy) - start) / float(metrics["step_share"])
    torch.testing.assert_close(step - step.mean(), wanted - wanted.mean(), rtol=1e-3, atol=1e-5)


def test_a_product_with_the_fisher_matrix_is_that_of_the_scores_of_all_actions(tiny: Any) -> None:
    env, policy = tiny(rows=6)
    batch = rlseq.rollout(policy, env)
    parameters = list(policy.parameters())
    product = RecordedDivergence(policy, [batch]).fisher_product(parameters)
    vector = torch.randn(sum(p.numel() for p in parameters))
    wanted = torch.zeros_like(vector)
    token, state = torch.full((6,), env.vocab.bos), policy.start(batch.context)
    for t in range(env.max_len):
        logits, state = policy.step(token, state)
        log_p, token = logits.log_softmax(1), batch.actions[:, t]
        for row in batch.mask[:, t].nonzero().flatten().tolist():
            for word in range(len(env.vocab)):
                value = log_p[row, word]
                found = torch.autograd.grad(
                    value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                score = flat(found)
                wanted += value.detach().exp() * (score @ vector) * score
    torch.testing.assert_close(product(vector), wanted / batch.mask.sum(), rtol=1e-3, atol=1e-5)


def test_conjugate_gradients_solve_an_equation() -> None:
    half = torch.randn(6, 6, dtype=torch.float64)
    a, b = half @ half.t() + torch.eye(6), torch.randn(6, dtype=torch.float64)
    found = conjugate_gradients(lambda v: a @ v, b, 6, tolerance=0.0)
    torch.testing.assert_close(a @ found, b)
    assert not conjugate_gradients(lambda v: a @ v, torch.zeros_like(b), 6).any()


@pytest.mark.parametrize("hyper", [{}, {"decode": rlseq.Sample(0.7, top_k=2)}, {"samples": 2}])
def test_a_step_stays_within_the_region_and_gains(tiny: Any, hyper: Any) -> None:
    env, policy = tiny(rows=256)
    agent = plain(policy, kl_target=0.02, **hyper)
    for _ in range(2):
        old, before = frozen_copy(policy), float(rlseq.exact.objective(policy, env))
        batch = agent.collect(env)
        metrics = agent.update(batch)
        assert 0 < moved(policy, old, batch) <= 0.02
        assert float(metrics["kl_step"]) == pytest.approx(moved(policy, old, batch), rel=1e-3)
        assert float(metrics["gain"]) > 0
        if not hyper:
            assert float(rlseq.exact.objective(policy, env)) > before


def test_a_step_that_is_too_long_is_halved_or_not_taken(tiny: Any) -> None:
    env, policy = tiny(rows=64)
    batch = plain(policy).collect(env)
    start = weights(policy)
    metrics = plain(policy, kl_target=5.0, damping=0.0, halvings=0).update(batch)
    assert float(metrics["step_share"]) == float(metrics["kl_step"]) == float(metrics["gain"]) == 0
    assert torch.equal(weights(policy), start)
    metrics = plain(policy, kl_target=5.0, damping=0.0, halvings=20).update(batch)
    assert 0 < float(metrics["step_share"]) < 1
    assert 0 < float(metrics["kl_step"]) <= 5


def test_without_any_advantage_nothing_changes(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    env.parts = {"nothing": lambda tokens, mask, context: torch.zeros(len(tokens))}
    start = weights(policy)
    agent = plain(policy)
    assert float(agent.update(agent.collect(env))["step_share"]) == 0
    assert torch.equal(weights(policy), start)


def test_values_learn_without_a_change_of_the_policy(tiny: Any) -> None:
    """On a common trunk V's own head alone moves, even where no advantage has a sign."""
    env, policy = tiny(rows=64)
    env.parts = {"three": lambda tokens, mask, context: torch.full((len(tokens),), 3.0)}
    agent: Any = rlseq.make_agent("trpo", policy, lr=0.05)
    first, before = agent.collect(env), {name: p.clone() for name, p in policy.named_parameters()}
    batches = [agent.with_advantages(agent.collect(env)) for _ in range(4)]
    errors = [float(agent.learn_values(batch)) for batch in batches]
    assert errors[-1] < 0.7 * errors[0]
    changed = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"head.value.weight", "head.value.bias"}
    torch.testing.assert_close(evaluate_frozen(policy, first).log_probs * first.mask, first.log_probs)


def test_parts_of_a_batch_give_its_step(tiny: Any) -> None:
    steps = []
    for parts in (1, 4):
        env, policy = tiny(rows=32)
        agent = plain(policy, micro_batches=parts)
        batch, start = agent.collect(env), weights(policy)
        agent.update(batch)
        steps.append(weights(policy) - start)
    torch.testing.assert_close(*steps, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", ["transformer", "seq2seq"])
def test_attention_and_large_products_are_differentiated_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul, "SMALLEST", 1)
    env = rlseq.make("rlseq/Copy-v0", num_envs=32, vocab_size=4, length=3)
    policy = rlseq.make_policy(name, env, hidden=8)
    agent = plain(policy)
    assert float(agent.update(agent.collect(env))["step_share"]) > 0


def test_second_derivatives_of_large_products_are_those_of_small_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((5, 3), (4, 3), (4,)))
    found = []
    for smallest in (1, 1 << 20):
        monkeypatch.setattr(matmul, "SMALLEST", smallest)
        value = matmul.affine(x, weight, bias).tanh().square().sum()
        first = torch.autograd.grad(value, (x, weight, bias), create_graph=True)
        found.append(torch.autograd.grad(flat(first).square().sum(), (x, weight, bias)))
    torch.testing.assert_close(*found)


def test_trpo_learns_cartpole() -> None:
    env = GymEnv("CartPole-v1", 8, steps=64)
    policy = rlseq.make_policy("mlp", env, hidden=32, value=True)
    agent = rlseq.make_agent("trpo", policy, gamma=0.98, kl_target=0.03)
    rlseq.train(agent, env, updates=15)
    assert rlseq.evaluate(policy, GymEnv("CartPole-v1", 20, seed=1), limit=20)["reward"] > 150


@pytest.mark.parametrize("standardise", [True, False])
def test_trpo_acts_by_vectors(standardise: bool) -> None:
    env = GymEnv("Pendulum-v1", 3, steps=16)
    policy = rlseq.make_policy("mlp", env, hidden=8, value=True, standardise=standardise, shared=standardise)
    agent: Any = rlseq.make_agent("trpo", policy, value_minibatches=2)
    old, batch = frozen_copy(policy), agent.collect(env)
    first = agent.rows(agent.with_advantages(batch))
    metrics = agent.step([first])
    assert 0 < moved(policy, old, first) <= 0.01
    before = evaluate_actions(policy, first).log_probs.detach()
    agent.learn_values(first)
    torch.testing.assert_close(evaluate_actions(policy, first).log_probs.detach(), before)
    assert float(metrics["gain"]) > 0


def test_a_policy_without_logits_is_refused_before_it_changes(tiny: Any) -> None:
    env, policy = tiny(rows=8)
    honest, start = policy.evaluate, weights(policy)
    policy.evaluate = lambda *given: honest(*given)._replace(logits=None)
    agent = plain(policy)
    with pytest.raises(ValueError, match=r"let the policy's `evaluate` return `logits`.*such as ppo"):
        agent.update(agent.collect(env))
    assert torch.equal(weights(policy), start)


def test_weights_do_not_decay(tiny: Any) -> None:
    _, policy = tiny()
    with pytest.raises(ValueError, match=r"leave weight_decay at 0, got 0.1"):
        rlseq.make_agent("trpo", policy, weight_decay=0.1)


def test_a_batch_without_a_real_action_changes_nothing() -> None:
    env, policy = bandit(8)
    agent, before = plain(policy), weights(policy).clone()
    batch = agent.collect(env)
    nowhere = torch.zeros_like(batch.mask)
    agent.update(replace(batch, mask=nowhere, ends=nowhere))
    assert torch.equal(weights(policy), before)
