"""Today's variants: each against its formula, written here from the paper, and against what it follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import rlseq
from rlseq.agents import CISPO, DPPO, GMPO, GRPO, GSPO, SAPO
from rlseq.engine.rollout import evaluate_actions
from rlseq.policy_gradient import losses
from rlseq.policy_gradient.baselines import CompletedValue, OptimalToken, OptimalValue, length_weighted
from rlseq.policy_gradient.credit import Consensus, PassAtK
from rlseq.policy_gradient.exact import every_batch, expected_gradient, gradient, mean_gradient
from rlseq.policy_gradient.factors import by_mean
from rlseq.policy_gradient.losses import per_sequence
from rlseq.types import Context

EQUAL, WRONG = 1e-4, 0.02  # relative errors, as in test_exactness.py
ROWS, STEPS = 6, 5

# ── losses of later epochs, on random numbers in double precision ────────────────────────────────────────


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log π, log π_old, A, mask; ratios from 0.2 to 5, texts of 1 to 5 tokens."""
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(ROWS, STEPS, generator=generator, dtype=torch.float64) - 0.1
    new = (old + torch.randn(ROWS, STEPS, generator=generator, dtype=torch.float64)).clamp(max=-0.01)
    advantages = torch.randn(ROWS, 1, generator=generator, dtype=torch.float64).expand(ROWS, STEPS)
    lengths = torch.randint(1, STEPS + 1, (ROWS, 1), generator=generator)
    return new.requires_grad_(), old, advantages, torch.arange(STEPS) < lengths


def gspo(new: list[Tensor], old: list[float], a: float) -> Tensor:
    """Zheng et al. 2025, eq. 5 and 7, of one text."""
    ratios = torch.stack([torch.exp(p - q) for p, q in zip(new, old, strict=True)])
    s = ratios.prod() ** (1 / len(new))
    return -torch.minimum(s * a, s.clamp(1 - 0.2, 1 + 0.3) * a)


def cispo(new: list[Tensor], old: list[float], a: float) -> Tensor:
    """MiniMax 2025, eq. 4, of one text, divided by its length."""
    weights = [
        min(max(math.exp(float(p.detach()) - q), 1 - 0.2), 1 + 0.3) for p, q in zip(new, old, strict=True)
    ]
    return -sum((w * a * p for w, p in zip(weights, new, strict=True)), torch.zeros(())) / len(new)


def sapo(new: list[Tensor], old: list[float], a: float) -> Tensor:
    """Gao et al. 2025: 4/τ · σ(τ (ρ − 1)) · A."""
    tau = 0.7 if a > 0 else 1.3
    gates = [4 / tau / (1 + torch.exp(-tau * (torch.exp(p - q) - 1))) for p, q in zip(new, old, strict=True)]
    return -a * sum(gates, torch.zeros(())) / len(new)


def gmpo(new: list[Tensor], old: list[float], a: float) -> Tensor:
    """Zhao et al. 2025: the product of the token's min, to the power 1/|y|."""
    low, high = math.exp(-0.2), math.exp(0.3)
    product: Any = 1.0
    for p, q in zip(new, old, strict=True):
        rho = torch.exp(p - q)
        kept = rho.clamp(low, high)
        product = product * (torch.minimum(rho, kept) if a > 0 else torch.maximum(rho, kept))
    return torch.as_tensor(-a * product ** (1 / len(new)))


def dppo(new: list[Tensor], old: list[float], a: float) -> Tensor:
    """Qi et al. 2026: a token counts unless its probability has moved away by more than δ."""
    total = torch.zeros(())
    for p, q in zip(new, old, strict=True):
        moved = math.exp(float(p.detach())) - math.exp(q)
        if moved <= 0.3 if a > 0 else moved >= -0.2:
            total = total - min(math.exp(float(p.detach()) - q), 1.5) * a * p
    return total / len(new)


def of_gspo(new: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    log_s = losses.log_ratio_of_text(new, old, mask)
    return losses.clipped(log_s, torch.zeros_like(log_s), a, 0.2, 0.3)


PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "gspo": (gspo, of_gspo),
    "cispo": (cispo, lambda new, old, a, mask: losses.clipped_weight(new, old, a, 0.2, 0.3)),
    "sapo": (sapo, lambda new, old, a, mask: losses.soft_clipped(new, old, a, 0.7, 1.3)),
    "gmpo": (gmpo, lambda new, old, a, mask: losses.geometric_mean(new, old, a, mask, 0.2, 0.3)),
    "dppo": (dppo, lambda new, old, a, mask: losses.within_divergence(new, old, a, 0.2, 0.3, 1.5)),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PAIRS)
def test_a_loss_is_the_formula_of_its_paper(name: str, seed: int) -> None:
    """Value and gradient of the mean over texts of the mean over tokens."""
    formula, ours = PAIRS[name]
    new, old, advantages, mask = drawn(seed)
    lengths = mask.sum(1).tolist()
    wanted = torch.stack(
        [
            formula(list(new[i, :n].unbind()), old[i, :n].tolist(), float(advantages[i, 0]))
            for i, n in enumerate(lengths)
        ]
    ).mean()
    got = (ours(new, old, advantages, mask) * losses.per_text(mask)).sum()
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), abs=1e-6)
    slopes = [torch.autograd.grad(loss, new, retain_graph=True)[0] for loss in (got, wanted)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-6)
    assert float(slopes[0].abs().max()) > 1e-3


@pytest.mark.parametrize("cls", [GSPO, CISPO, SAPO, GMPO, DPPO])
def test_on_fresh_samples_the_gradient_is_that_of_grpo(tiny: Any, cls: Any) -> None:
    """So what they follow there is known (test_objectives.py)."""
    env, policy = tiny(vocab_size=2)
    agent = cls(policy, samples=2)
    grpo = GRPO(policy, samples=2, kl=0.0, aggregate=agent.aggregate)
    assert tiny.error(expected_gradient(agent, env), expected_gradient(grpo, env)) < EQUAL


@pytest.mark.parametrize("name", PAIRS)
def test_an_agent_bounds_later_epochs_as_its_loss_does(tiny: Any, name: str) -> None:
    """The fields of the agent arrive where they should, after the policy has moved."""
    env, policy = tiny(rows=32, sharp=2.0)
    bounds = {"rise": 0.7, "fall": 1.3} if name == "sapo" else {"clip": 0.2, "clip_high": 0.3}
    more = {"most": 1.5} if name == "dppo" else {}
    agent: Any = rlseq.make_agent(name, policy, samples=4, **bounds, **more)
    batch = agent.with_advantages(agent.collect(env))
    agent.loss(batch)  # the first ratio is looked at here
    with torch.no_grad():
        for i, p in enumerate(policy.parameters()):
            p.add_(0.6 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    seen = evaluate_actions(policy, batch)
    wanted = PAIRS[name][1](seen.log_probs, batch.log_probs, batch.advantages, batch.mask)
    torch.testing.assert_close(agent.surrogate(seen, batch), wanted)
    _, metrics = agent.loss(batch)
    assert name == "sapo" or float(metrics["clip_fraction"]) > 0


# ── factors of a group ───────────────────────────────────────────────────────────────────────────────────


def test_reinforce_pp_whitens_over_the_batch(tiny: Any) -> None:
    """Hu et al. 2025: (G − mean) / deviation over the tokens of a batch; G less the group's mean first."""
    env, policy = tiny(rows=24)
    for hyper in ({"samples": 1}, {"samples": 4, "baseline": "group_mean", "kl_reward": 0.0}):
        agent: Any = rlseq.make_agent("reinforce_pp", policy, **hyper)
        batch = agent.with_advantages(agent.collect(env))
        rows = batch.rewards.double()
        to_go = [[float(rows[i, t:].sum()) for t in range(rows.shape[1])] for i in range(24)]
        k = agent.samples
        if k > 1:
            means = [sum(to_go[j][0] for j in range(i // k * k, i // k * k + k)) / k for i in range(24)]
            to_go = [
                [to_go[i][t] - means[i] + float(rows[i, :t].sum()) for t in range(rows.shape[1])]
                for i in range(24)
            ]
        real = torch.tensor(to_go)[batch.mask]
        wanted = (real - real.mean()) / real.std(correction=0)
        torch.testing.assert_close(batch.advantages[batch.mask], wanted.float(), atol=1e-4, rtol=1e-4)


def test_reinforce_pp_and_opo_follow_their_advantages(tiny: Any) -> None:
    """Of all groups of two texts, which are the batch here: Σ A log π, A by hand, held fixed."""
    env, policy = tiny(vocab_size=2)
    plus: Any = rlseq.make_agent("reinforce_pp", policy, kl_reward=0.0, samples=2)
    opo: Any = rlseq.make_agent("reinforce", policy, samples=2, baseline="length_weighted")
    whole = tiny.whole(policy, env)
    p, returns = whole.log_p.view(whole.shape), whole.rewards.sum(1).view(whole.shape)
    lengths = whole.mask.sum(1)
    totals = [torch.zeros(()), torch.zeros(())]
    for item in range(env.size):
        for i in range(whole.shape[1]):
            for j in range(whole.shape[1]):
                pair, n = [i, j], [int(lengths[i]), int(lengths[j])]
                r, chance = returns[item, pair].tolist(), (p[item, i] + p[item, j]).detach().exp() / env.size
                mean = (n[0] * r[0] + n[1] * r[1]) / sum(n)
                spread = ((n[0] * (r[0] - mean) ** 2 + n[1] * (r[1] - mean) ** 2) / sum(n)) ** 0.5 + 1e-8
                for k in range(2):
                    totals[0] = totals[0] + chance * (r[k] - mean) / spread / sum(n) * p[item, pair[k]]
                    totals[1] = totals[1] + chance * (r[k] - mean) / 2 * p[item, pair[k]]
    for agent, total in zip((plus, opo), totals, strict=True):
        assert tiny.error(expected_gradient(agent, env), whole.slopes(policy, total)) < EQUAL


def test_reinforce_pp_with_a_baseline_follows_its_advantages(tiny: Any) -> None:
    """Of all batches of two groups: R less the mean of its group, whitened over the tokens of both groups."""
    env, policy = tiny(vocab_size=2, length=2)
    hyper = {"samples": 2, "baseline": "group_mean", "kl_reward": 0.0}
    agent: Any = rlseq.make_agent("reinforce_pp", policy, **hyper)
    whole, total = tiny.whole(policy, env), torch.zeros(())
    p, returns = whole.log_p.view(whole.shape), whole.rewards.sum(1).view(whole.shape).tolist()
    lengths = whole.mask.sum(1).tolist()
    groups = list(product(range(env.size), *[range(whole.shape[1])] * 2))
    for batch in product(groups, groups):
        chance, leads, ways, counts = torch.ones(()), [], [], []
        for item, *group in batch:
            chance = chance * p[item, group].detach().sum().exp() / env.size
            mean = (returns[item][group[0]] + returns[item][group[1]]) / 2
            leads += [returns[item][i] - mean for i in group]
            ways += [p[item, i] for i in group]
            counts += [lengths[i] for i in group]
        centre = sum(n * a for n, a in zip(counts, leads, strict=True)) / sum(counts)
        spread = sum(n * (a - centre) ** 2 for n, a in zip(counts, leads, strict=True)) / sum(counts)
        for a, log_p in zip(leads, ways, strict=True):
            total = total + chance * (a - centre) / (spread**0.5 + 1e-8) / sum(counts) * log_p
    assert tiny.error(expected_gradient(agent, env, rows=4), whole.slopes(policy, total)) < EQUAL


def test_opo_weighs_returns_by_lengths(tiny: Any) -> None:
    env, policy = tiny(rows=24)
    agent: Any = rlseq.make_agent("reinforce", policy, samples=4, baseline="length_weighted")
    batch = agent.collect(env)
    found = length_weighted(batch.returns.unsqueeze(1).expand_as(batch.rewards), batch)
    for i in range(0, 24, 4):
        lengths, returns = batch.lengths[i : i + 4].tolist(), batch.returns[i : i + 4].tolist()
        b = sum(n * r for n, r in zip(lengths, returns, strict=True)) / sum(lengths)
        torch.testing.assert_close(found[i : i + 4, 0], torch.full((4,), b))


def test_the_optimal_token_baseline_weighs_returns_by_squared_scores(tiny: Any) -> None:
    """‖∇ log π‖² in the logits by autograd; the longest text has no baseline where it is alone."""
    env, policy = tiny(rows=16)
    env.parts = {"dense": lambda tokens, mask, context: (tokens.float() - 0.5) * mask}
    agent: Any = rlseq.make_agent("reinforce", policy, samples=4, baseline="optimal_token")
    batch = agent.collect(env)
    returns = batch.rewards.flip(1).cumsum(1).flip(1)
    found = OptimalToken()(returns, batch)
    whole = tiny.whole(policy, env)
    logits = whole.of(batch, whole.logits.detach())
    for i in range(16):
        for t in range(int(batch.lengths[i])):
            group, weights = range(i // 4 * 4, i // 4 * 4 + 4), []
            for j in group:
                norm = 0.0
                for u in range(min(t + 1, int(batch.lengths[j]))):
                    z = logits[j, u].requires_grad_()
                    (slope,) = torch.autograd.grad(z.log_softmax(0)[batch.actions[j, u]], z)
                    norm += float(slope.square().sum())
                weights.append(norm if t < int(batch.lengths[j]) else 0.0)
            alone = sum(w > 0 for w in weights) < 2
            b = sum(w * float(returns[j, t]) for w, j in zip(weights, group, strict=True)) / sum(weights)
            assert float(found[i, t]) == pytest.approx(0.0 if alone else b, abs=1e-5)


@pytest.mark.parametrize("samples", [2, 3])
def test_the_optimal_token_baseline_follows_its_advantages(tiny: Any, samples: int) -> None:
    """Σ (R − b of each token) log π over all groups, b held fixed; not E[R], as b holds the text itself."""
    env, policy = tiny(vocab_size=2)
    agent = rlseq.make_agent("reinforce", policy, samples=samples, baseline="optimal_token")
    whole, total = tiny.whole(policy, env), torch.zeros(())
    norms = (F.one_hot(whole.tokens, 2) - whole.logits.detach().softmax(2)).square().sum(2) * whole.mask
    norms, reach = norms.cumsum(1).view(*whole.shape, -1).tolist(), whole.mask.view(*whole.shape, -1).tolist()
    log_probs, returns = whole.log_probs.view(*whole.shape, -1), whole.rewards.sum(1).view(whole.shape)
    for item, *group in product(range(env.size), *[range(whole.shape[1])] * samples):
        chance = log_probs[item, group].detach().sum().exp() / env.size
        for t in range(env.max_len):
            there = [i for i in group if reach[item][i][t]]
            weights, paid = [norms[item][i][t] for i in there], returns[item, there].tolist()
            b = sum(w * r for w, r in zip(weights, paid, strict=True)) / max(sum(weights), 1e-8)
            b = b if len(there) > 1 else 0.0
            for i, r in zip(there, paid, strict=True):
                total = total + chance * (r - b) / samples * log_probs[item, i, t]
    got = expected_gradient(agent, env)
    assert tiny.error(got, whole.slopes(policy, total)) < EQUAL
    assert tiny.error(got, gradient(policy, env)) > WRONG


def paid_or_not(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    return ((tokens * mask).sum(1) % 3 == context["index"]).float()


def successes(tiny: Any, policy: Any, env: Any) -> tuple[Any, Tensor]:
    """Every text, and the chance to succeed in each context, `[contexts]`."""
    whole = tiny.whole(policy, env)
    return whole, (whole.log_p.exp() * whole.rewards.sum(1)).view(whole.shape).sum(1)


@pytest.mark.parametrize(("samples", "k"), [(2, 2), (3, 2), (3, 3), (3, None)])
def test_pass_at_k_follows_the_best_of_k(tiny: Any, samples: int, k: int | None) -> None:
    """1 − (1 − p)^k where a text succeeds or fails, up to k of K texts."""
    env, policy = tiny(vocab_size=2)
    env.parts = {"paid": paid_or_not}
    agent = rlseq.make_agent("reinforce", policy, samples=samples, credit=PassAtK(k), baseline="none")
    whole, p = successes(tiny, policy, env)
    objective = (1 - (1 - p) ** (k or samples)).sum() / env.size
    assert tiny.error(expected_gradient(agent, env), whole.slopes(policy, objective)) < EQUAL
    assert tiny.error(expected_gradient(agent, env), gradient(policy, env)) > WRONG


def test_the_best_of_k_of_any_returns_by_all_sets(tiny: Any) -> None:
    env, policy = tiny(rows=10)
    batch = rlseq.make_agent("reinforce", policy, samples=5).collect(env)
    for k in (2, 3, 5):
        credit = PassAtK(k).of_texts(batch, env)
        for start in (0, 5):
            r = batch.returns[start : start + 5].tolist()
            for i in range(5):
                sets = [s for s in combinations(range(5), k) if i in s]
                leads = (max(r[j] for j in s) - max(r[j] for j in s if j != i) for s in sets)
                wanted = 5 * sum(leads) / math.comb(5, k)
                assert float(credit[start + i]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("samples", [2, 3])
def test_maxrl_follows_a_truncated_likelihood_of_success(tiny: Any, samples: int) -> None:
    """Tajwar et al. 2026: Σ_{k<K} pass@k / k, whose limit is log p up to a constant."""
    env, policy = tiny(vocab_size=2)
    env.parts = {"paid": paid_or_not}
    hyper = {"scale": by_mean, "aggregate": per_sequence, "kl": 0.0}
    agent = GRPO(policy, samples=samples, **hyper)  # type: ignore[arg-type]
    whole, p = successes(tiny, policy, env)
    objective = sum(((1 - (1 - p) ** k) / k for k in range(1, samples)), torch.zeros(())).sum() / env.size
    assert tiny.error(expected_gradient(agent, env), whole.slopes(policy, objective)) < EQUAL


def test_gdpo_standardises_each_metric_before_the_sum(tiny: Any) -> None:
    env, policy = tiny(rows=20)
    env.parts = {
        "large": lambda tokens, mask, context: 100 * tokens.float().sum(1),
        "small": lambda tokens, mask, context: mask.sum(1) / 10,
    }
    agent: Any = rlseq.make_agent("reinforce", policy, samples=5, credit="per_metric", baseline="none")
    batch = agent.with_advantages(agent.collect(env))
    for i in range(0, 20, 5):
        wanted = torch.zeros(5)
        for part in env.parts.values():
            rewards = [float(x) for x in part(batch.actions, batch.mask, batch.context)[i : i + 5]]
            mean = sum(rewards) / 5
            spread = (sum((r - mean) ** 2 for r in rewards) / 4) ** 0.5
            wanted += torch.tensor([(r - mean) / (spread + 1e-4) for r in rewards])
        torch.testing.assert_close(batch.advantages[i : i + 5, 0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", [2, 3])
def test_gdpo_follows_the_sum_of_what_each_metric_pays_standardised(tiny: Any, samples: int) -> None:
    """The sum over metrics of Σ p(group) (r − mean) / s · log π, each metric alone; r and s held fixed."""
    env, policy = tiny(vocab_size=2)
    metrics = {"table": env.look_up, "large": lambda tokens, mask, context: 100.0 * mask.sum(1)}

    def standardised(p: Tensor, q: Tensor, r: list[float]) -> Tensor:
        mean = sum(r) / samples
        spread = math.sqrt(sum((x - mean) ** 2 for x in r) / (samples - 1)) + 1e-4
        return -sum(((x - mean) / spread * p[i] for i, x in enumerate(r)), torch.zeros(())) / samples

    alone = []
    for name, metric in metrics.items():
        env.parts = {name: metric}
        alone.append(over_groups(tiny, policy, env, policy, standardised, samples))
    wanted = {name: alone[0][name] + alone[1][name] for name in alone[0]}
    env.parts = metrics
    agent = rlseq.make_agent("reinforce", policy, samples=samples, credit="per_metric", baseline="none")
    assert tiny.error(expected_gradient(agent, env), wanted) < EQUAL
    assert tiny.error(over_groups(tiny, policy, env, policy, standardised, samples), wanted) > WRONG


# ── pairs, regressions, completions ──────────────────────────────────────────────────────────────────────


def over_groups(
    tiny: Any, policy: Any, env: Any, anchor: Any, loss: Callable[..., Tensor], samples: int = 3
) -> dict[str, Tensor]:
    """−∇ Σ p(group) · loss(log p, log p of the anchor, returns) over all groups, whose p is held fixed."""
    ours, theirs = tiny.whole(policy, env), tiny.whole(anchor, env)
    p, q = ours.log_p.view(ours.shape), theirs.log_p.detach().view(ours.shape)
    returns, total = ours.rewards.sum(1).view(ours.shape), torch.zeros(())
    for item in range(env.size):
        for group in product(range(ours.shape[1]), repeat=samples):
            rows = list(group)
            chance = p[item, rows].detach().sum().exp() / env.size
            total = total - chance * loss(p[item, rows], q[item, rows], returns[item, rows].tolist())
    slopes: dict[str, Tensor] = ours.slopes(policy, total)
    return slopes


def paired(tiny: Any, name: str, **hyper: Any) -> tuple[Any, Any, Any, Any]:
    """An agent, its policy and task, and its reference."""
    env, policy = tiny(vocab_size=2, length=2)
    anchor = tiny.policy(env, sharp=2.0, seed=1).requires_grad_(False)
    reference = {} if name == "cpo" else {"reference": anchor}
    return rlseq.make_agent(name, policy, samples=3, beta=0.5, **reference, **hyper), policy, env, anchor


def test_dpo_and_cpo_follow_the_likelihood_of_preferences(tiny: Any) -> None:
    """Rafailov et al. 2023, eq. 7; Xu et al. 2024, eq. 5 and 6; a group of equal returns is no pair."""

    def dpo(p: Tensor, q: Tensor, r: list[float]) -> Tensor:
        best, worst = r.index(max(r)), r.index(min(r))
        lead = 0.5 * (p[best] - q[best]) - 0.5 * (p[worst] - q[worst])
        return torch.log1p(torch.exp(-lead)) if best != worst else torch.zeros(())

    def cpo(p: Tensor, q: Tensor, r: list[float]) -> Tensor:
        best, worst = r.index(max(r)), r.index(min(r))
        if best == worst:
            return torch.zeros(())
        return torch.log1p(torch.exp(-0.5 * (p[best] - p[worst]))) - 0.7 * p[best]

    for name, loss, hyper in (("dpo", dpo, {}), ("cpo", cpo, {"likelihood": 0.7})):
        agent, policy, env, anchor = paired(tiny, name, **hyper)
        wanted = over_groups(tiny, policy, env, anchor, loss)
        assert tiny.error(expected_gradient(agent, env), wanted) < EQUAL


def test_mbr_dpo_follows_the_likelihood_of_preferences_by_consensus(tiny: Any) -> None:
    """Of texts of no, one and two equal words: as many edits are between two as one has more words."""
    agent, policy, env, anchor = paired(tiny, "dpo", credit=Consensus("edit_distance"))
    env.parts = {"words": lambda tokens, mask, context: (tokens * mask).sum(1).float()}

    def dpo(p: Tensor, q: Tensor, r: list[float]) -> Tensor:
        agreed = [-sum(abs(x - y) for y in r) for x in r]
        best, worst = agreed.index(max(agreed)), agreed.index(min(agreed))
        lead = 0.5 * (p[best] - q[best]) - 0.5 * (p[worst] - q[worst])
        return torch.log1p(torch.exp(-lead)) if best != worst else torch.zeros(())

    assert tiny.error(expected_gradient(agent, env), over_groups(tiny, policy, env, anchor, dpo)) < EQUAL


def test_pairs_that_tie_are_left_out_and_counted(tiny: Any) -> None:
    env, policy = tiny(rows=12)
    env.parts = {"same": lambda tokens, mask, context: torch.ones(len(tokens))}
    for name in ("dpo", "cpo"):
        agent: Any = rlseq.make_agent(name, policy, samples=3)
        loss, metrics = agent.loss(agent.collect(env))
        assert float(loss.detach()) == 0
        assert float(metrics["ties"]) == pytest.approx(1)


@pytest.mark.parametrize("baseline", ["leave_one_out", "none"])
def test_a_regression_of_log_ratios_follows_the_reward_and_the_divergence(tiny: Any, baseline: str) -> None:
    """∇ E[R] − β ∇ KL(π ‖ π_ref) of whole texts, where b has not seen the text."""
    agent, policy, env, anchor = paired(tiny, "dro", baseline=baseline)
    ours, theirs = tiny.whole(policy, env), tiny.whole(anchor, env)
    chance = ours.log_p.exp() / env.size
    objective = (chance * (ours.rewards.sum(1) - 0.5 * (ours.log_p - theirs.log_p.detach()))).sum()
    assert tiny.error(expected_gradient(agent, env), ours.slopes(policy, objective)) < EQUAL


def test_the_members_of_the_family_of_regressions(tiny: Any) -> None:
    """Kimi's with the mean of the group, A*PO with V* from the samples, weighted as π_ref would draw them."""

    def regression(b: Callable[..., float]) -> Callable[..., Tensor]:
        def loss(p: Tensor, q: Tensor, r: list[float]) -> Tensor:
            value = b(p.detach(), q, r)
            residuals = [(x - value - 0.5 * (p[k] - q[k])) ** 2 / (2 * 0.5) for k, x in enumerate(r)]
            return sum(residuals, torch.zeros(())) / 3

        return loss

    def optimal(p: Tensor, q: Tensor, r: list[float]) -> float:
        terms = [math.exp(x / 0.5 + float(q[k] - p[k])) for k, x in enumerate(r)]
        return 0.5 * math.log(sum(terms) / 3)

    members = {"group_mean": lambda p, q, r: sum(r) / 3, OptimalValue(0.5): optimal}
    for baseline, b in members.items():
        agent, policy, env, anchor = paired(tiny, "dro", baseline=baseline)
        wanted = over_groups(tiny, policy, env, anchor, regression(b))
        assert tiny.error(expected_gradient(agent, env), wanted) < EQUAL
    with pytest.raises(ValueError, match=r"the β of optimal_value must be the agent's, got 0\.1 and 0\.5"):
        paired(tiny, "dro", baseline="optimal_value")


def test_vineppo_credits_a_word_with_the_change_of_value(tiny: Any) -> None:
    """Kazemnejad et al. 2025: V̂(sₜ₊₁) − V̂(sₜ), which are means of returns."""
    env, policy = tiny(rows=4)
    agent: Any = rlseq.make_agent("vineppo", policy, completions=4000, baseline=CompletedValue(4000))
    batch = agent.with_advantages(agent.collect(env))
    whole = tiny.whole(policy, env)
    values = whole.of(batch, whole.states_worth())
    assert float(((batch.values - values) * batch.mask).abs().max()) < 0.1
    for i, n in enumerate(batch.lengths.tolist()):
        after = [*batch.values[i, 1:n].tolist(), float(batch.returns[i])]
        wanted = torch.tensor(after) - batch.values[i, :n]
        torch.testing.assert_close(batch.advantages[i, :n], wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="pass credit=Completions"):
        rlseq.make_agent("reinforce", policy, baseline="completed_value").collect(env)


def test_vineppo_follows_the_expected_reward(tiny: Any) -> None:
    """To rounding with the worth of prefixes in place of completions; near it with many completions."""
    env, policy = tiny()
    agent: Any = rlseq.make_agent("vineppo", policy, completions=1000, baseline=CompletedValue(1000))
    wanted, whole = gradient(policy, env), tiny.whole(policy, env)
    batch, chance = every_batch(agent, env, 1)
    assert tiny.error(mean_gradient(agent, batch, chance), wanted) < 0.1  # 0.03 with this seed
    credit, values = (whole.of(batch, worth) for worth in (whole.actions_worth(), whole.states_worth()))
    exact = replace(batch, credit=credit, values=values)
    assert tiny.error(mean_gradient(agent, exact, chance), wanted) < EQUAL


@pytest.mark.parametrize(
    ("hyper", "said"),
    [
        (
            {"credit": PassAtK(5), "samples": 4, "baseline": "none"},
            "at least 5 texts .*, got samples=4.*smaller k",
        ),
        ({"credit": "pass_at_k", "baseline": "none"}, "at least 2 texts .*, got samples=1"),
        ({"credit": "pass_at_k", "samples": 4}, "itself; pass baseline='none', got baseline=mean"),
        ({"baseline": "optimal_token"}, r"\(OptimalToken\) and needs samples ≥ 2"),
        ({"baseline": "length_weighted"}, r"\(length_weighted\) and needs samples ≥ 2"),
    ],
)
def test_factors_that_do_not_fit_are_refused(tiny: Any, hyper: dict[str, Any], said: str) -> None:
    _, policy = tiny()
    with pytest.raises(ValueError, match=said):
        rlseq.make_agent("reinforce", policy, **hyper)
    with pytest.raises(ValueError, match="k must be at least 2"):
        PassAtK(1)


def test_a_negative_mean_is_refused(tiny: Any) -> None:
    env, policy = tiny(rows=8)
    agent: Any = GRPO(policy, samples=4, scale=by_mean)
    batch = agent.collect(env)
    with pytest.raises(ValueError, match="needs rewards ≥ 0, got -"):
        agent.with_advantages(batch)
