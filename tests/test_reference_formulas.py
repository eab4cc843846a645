"""Losses of whole agents, value and gradient, against the formulas of their papers on random batches.

A batch is collected as in training. Then log π is moved away from what it was, and the agent's loss, with its
credit, baseline, scale, surrogate and weights, is compared with the formula, written out text by text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.policy_gradient.baselines import CompletedValue, OptimalValue
from rlseq.policy_gradient.credit import Consensus, PassAtK
from rlseq.types import Evaluation

K, BETA = 4, 0.5
Texts = list[list[Tensor]]  # log π of the tokens of every text
Formula = Callable[[Texts, Any], Tensor]


def total(terms: Any) -> Tensor:
    return sum(terms, torch.zeros((), dtype=torch.float64))


def groups(batch: Any) -> list[range]:
    return [range(start, start + K) for start in range(0, len(batch.actions), K)]


def returns_of(batch: Any, group: range) -> list[float]:
    return [float(batch.returns[i]) for i in group]


def of_reference(batch: Any, i: int) -> float:
    """log π_ref of a text."""
    return float(batch.reference_log_probs[i, : int(batch.lengths[i])].sum())


def surprise(better: Tensor) -> Tensor:
    """−log σ(x)."""
    return torch.log1p(torch.exp(-better))


def clipped(lp: Tensor, old: float, a: float, low: float = 0.2, high: float = 0.2) -> Tensor:
    rho = torch.exp(lp - old)
    return torch.minimum(rho * a, rho.clamp(1 - low, 1 + high) * a)


def whitened(values: list[list[float]]) -> list[list[float]]:
    """Values of tokens, less their mean, divided by their standard deviation."""
    flat = [x for row in values for x in row]
    mean = sum(flat) / len(flat)
    spread = math.sqrt(sum((x - mean) ** 2 for x in flat) / len(flat)) + 1e-8
    return [[(x - mean) / spread for x in row] for row in values]


def mean_of_tokens(texts: Texts, batch: Any, advantages: list[list[float]]) -> Tensor:
    """−mean over all tokens of min(ρA, clip(ρ) A)."""
    terms = [
        clipped(lp, float(batch.log_probs[i, t]), advantages[i][t])
        for i, text in enumerate(texts)
        for t, lp in enumerate(text)
    ]
    return -total(terms) / len(terms)


def reinforce_pp(texts: Texts, batch: Any) -> Tensor:
    """Hu et al. 2025: the return whitened over the tokens of the batch."""
    paid = batch.returns.tolist()
    return mean_of_tokens(texts, batch, whitened([[paid[i]] * len(text) for i, text in enumerate(texts)]))


def reinforce_pp_baseline(texts: Texts, batch: Any) -> Tensor:
    """The same, of the return less the mean of its group."""
    lead = []
    for group in groups(batch):
        r = returns_of(batch, group)
        lead += [x - sum(r) / K for x in r]
    return mean_of_tokens(texts, batch, whitened([[lead[i]] * len(text) for i, text in enumerate(texts)]))


def credited(texts: Texts, credit: list[float]) -> Tensor:
    """−mean over texts of credit · log π(y)."""
    return -total(c * total(text) for c, text in zip(credit, texts, strict=True)) / len(texts)


def opo(texts: Texts, batch: Any) -> Tensor:
    """Hao et al. 2025: b = Σ length · R / Σ length."""
    credit = []
    for group in groups(batch):
        r, n = returns_of(batch, group), [len(texts[i]) for i in group]
        b = sum(x * y for x, y in zip(r, n, strict=True)) / sum(n)
        credit += [x - b for x in r]
    return credited(texts, credit)


def optimal_token(texts: Texts, batch: Any) -> Tensor:
    """b of a place = Σ w R / Σ w, w the squared norms of the scores up to it, of the texts that reach it."""
    loss = []
    for group in groups(batch):
        r = returns_of(batch, group)
        for i in group:
            for t, lp in enumerate(texts[i]):
                w = [float(batch.score_norms[j, : t + 1].sum()) if t < len(texts[j]) else 0.0 for j in group]
                alone = sum(x > 0 for x in w) < 2
                b = 0.0 if alone else sum(x * y for x, y in zip(w, r, strict=True)) / sum(w)
                loss.append(-(r[i - group.start] - b) * lp)
    return total(loss) / len(texts)


def best_of(k: int) -> Formula:
    """Walder & Karkhanis 2025: of all sets of k, the lead of the best over the others, for the best."""

    def formula(texts: Texts, batch: Any) -> Tensor:
        credit = []
        for group in groups(batch):
            r = returns_of(batch, group)
            for i in range(K):
                leads = (
                    max(r[j] for j in s) - max(r[j] for j in s if j != i)
                    for s in combinations(range(K), k)
                    if i in s
                )
                credit.append(K * sum(leads) / math.comb(K, k))
        return credited(texts, credit)

    return formula


def maxrl(texts: Texts, batch: Any) -> Tensor:
    """Tajwar et al. 2026: (R − mean) / mean, in GRPO's mean over texts of the mean over tokens."""
    loss = []
    for group in groups(batch):
        r = returns_of(batch, group)
        mean = sum(r) / K
        for i, x in zip(group, r, strict=True):
            a = (x - mean) / mean if mean else 0.0
            terms = [clipped(lp, float(batch.log_probs[i, t]), a) for t, lp in enumerate(texts[i])]
            loss.append(-total(terms) / len(terms))
    return total(loss) / len(texts)


def dapo(overlong: int) -> Formula:
    """Yu et al. 2025, eq. 8, 9, 11 and 13: of groups that differ, a mean over all tokens, clipped apart.

    The penalty of length is 0 up to 3 − overlong tokens of 3, and falls to −1; 0 for none.
    """

    def formula(texts: Texts, batch: Any) -> Tensor:
        terms = []
        for group in groups(batch):
            r = (long(batch.actions, batch.mask, None) + large(batch.actions, batch.mask, None)).tolist()
            r = [r[i] - (max(len(texts[i]) - 3 + overlong, 0) / overlong if overlong else 0) for i in group]
            mean = sum(r) / K
            spread = math.sqrt(sum((x - mean) ** 2 for x in r) / (K - 1)) + 1e-4
            if len(set(r)) > 1:
                for i, x in zip(group, r, strict=True):
                    old, a = batch.log_probs[i].tolist(), (x - mean) / spread
                    terms += [clipped(lp, old[t], a, 0.2, 0.35) for t, lp in enumerate(texts[i])]
        return -total(terms) / len(terms)

    return formula


def gdpo(texts: Texts, batch: Any) -> Tensor:
    """Liu et al. 2026: every metric standardised in its group, the sum whitened over the batch."""
    credit = []
    for group in groups(batch):
        summed = [0.0] * K
        for metric in (long, large):
            r = metric(batch.actions, batch.mask, batch.context)[list(group)].tolist()
            mean = sum(r) / K
            spread = math.sqrt(sum((x - mean) ** 2 for x in r) / (K - 1)) + 1e-4
            summed = [s + (x - mean) / spread for s, x in zip(summed, r, strict=True)]
        credit += summed
    tokens = whitened([[credit[i]] * len(text) for i, text in enumerate(texts)])
    return credited(texts, [row[0] for row in tokens])


def pair(scores: list[float]) -> tuple[int, int] | None:
    """The first of the best and the first of the worst; None where all are equal."""
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    return None if best == worst else (best, worst)


def agreement(batch: Any, group: range) -> list[float]:
    """Minus the mean number of edits to the other texts of a group."""
    words = [batch.actions[i, : int(batch.lengths[i])].tolist() for i in group]
    return [-sum(edits(a, b) for b in words) / (K - 1) for a in words]


def edits(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def dpo(scores: Callable[[Any, range], list[float]]) -> Formula:
    """Rafailov et al. 2023, eq. 7, of the best and the worst text of a group."""

    def formula(texts: Texts, batch: Any) -> Tensor:
        loss = []
        for group in groups(batch):
            found = pair(scores(batch, group))
            if found is not None:
                best, worst = (group.start + place for place in found)
                lead = [total(texts[i]) - of_reference(batch, i) for i in (best, worst)]
                loss.append(surprise(BETA * (lead[0] - lead[1])))
        return total(loss) / len(groups(batch))

    return formula


def cpo(texts: Texts, batch: Any) -> Tensor:
    """Xu et al. 2024, eq. 5 and 6, with λ = 0.7."""
    loss = []
    for group in groups(batch):
        found = pair(returns_of(batch, group))
        if found is not None:
            best, worst = (total(texts[group.start + place]) for place in found)
            loss.append(surprise(BETA * (best - worst)) - 0.7 * best)
    return total(loss) / len(groups(batch))


def regression(value: Callable[[Any, range, int], float]) -> Formula:
    """(R − b − β log π/π_ref)² / 2β, a mean over texts; b of text i of a group."""

    def formula(texts: Texts, batch: Any) -> Tensor:
        loss = []
        for group in groups(batch):
            for i in group:
                log_ratio = total(texts[i]) - of_reference(batch, i)
                residual = float(batch.returns[i]) - value(batch, group, i) - BETA * log_ratio
                loss.append(residual**2 / (2 * BETA))
        return total(loss) / len(loss)

    return formula


def of_the_others(batch: Any, group: range, i: int) -> float:
    return sum(float(batch.returns[j]) for j in group if j != i) / (K - 1)


def best_value(batch: Any, group: range, i: int) -> float:
    """Brantley et al. 2025: β log mean exp(R/β), weighted as the reference would draw the texts."""
    terms = [
        math.exp(float(batch.returns[j]) / BETA + of_reference(batch, j) - float(batch.log_probs[j].sum()))
        for j in group
    ]
    return BETA * math.log(sum(terms) / K)


def vineppo(texts: Texts, batch: Any) -> Tensor:
    """Kazemnejad et al. 2025: A = V̂(sₜ₊₁) − V̂(sₜ), at the end R − V̂; PPO's loss, a mean over texts."""
    loss = []
    for i, text in enumerate(texts):
        values = [*batch.values[i, : len(text)].tolist(), float(batch.returns[i])]
        for t, (before, after) in enumerate(pairwise(values)):
            loss.append(-clipped(text[t], float(batch.log_probs[i, t]), after - before))
    return total(loss) / len(texts)


def winners(scores: Callable[[Any, range], list[float]]) -> Formula:
    """−log π of the best text of every group; several that are equally good share its weight."""

    def formula(texts: Texts, batch: Any) -> Tensor:
        credit = []
        for group in groups(batch):
            found = scores(batch, group)
            best = [abs(x - max(found)) < 1e-6 for x in found]
            credit += [K * x / sum(best) for x in best]
        return credited(texts, credit)

    return formula


def long(tokens: Tensor, mask: Tensor, context: Any) -> Tensor:
    return mask.sum(1) / 3


def large(tokens: Tensor, mask: Tensor, context: Any) -> Tensor:
    return (tokens * mask).sum(1) / 6 + 0.1 * (tokens[:, 0] == 1)


CONSENSUS = Consensus("edit_distance")
WINNERS = {"baseline": "none", "scale": "best_of_group"}
CASES: dict[str, tuple[str, dict[str, Any], Formula]] = {
    "reinforce_pp": ("reinforce_pp", {"kl_reward": 0.0}, reinforce_pp),
    "reinforce_pp, baseline": (
        "reinforce_pp",
        {"kl_reward": 0.0, "baseline": "group_mean"},
        reinforce_pp_baseline,
    ),
    "opo": ("reinforce", {"baseline": "length_weighted"}, opo),
    "optimal token": ("reinforce", {"baseline": "optimal_token"}, optimal_token),
    "pass@2 of 4": ("reinforce", {"credit": PassAtK(2), "baseline": "none"}, best_of(2)),
    "pass@4": ("reinforce", {"credit": PassAtK(), "baseline": "none"}, best_of(4)),
    "maxrl": ("grpo", {"scale": "by_mean", "kl": 0.0}, maxrl),
    "dapo": ("dapo", {"clip_high": 0.35}, dapo(0)),
    "dapo, overlong": ("dapo", {"clip_high": 0.35, "overlong": 2}, dapo(2)),
    "gdpo": ("reinforce", {"credit": "per_metric", "baseline": "none", "scale": "by_batch"}, gdpo),
    "dpo": ("dpo", {"beta": BETA}, dpo(returns_of)),
    "mbr-dpo": ("dpo", {"beta": BETA, "credit": CONSENSUS}, dpo(agreement)),
    "cpo": ("cpo", {"beta": BETA, "likelihood": 0.7}, cpo),
    "dro": ("dro", {"beta": BETA, "baseline": "leave_one_out"}, regression(of_the_others)),
    "kimi": (
        "dro",
        {"beta": BETA, "baseline": "group_mean"},
        regression(lambda batch, group, i: sum(returns_of(batch, group)) / K),
    ),
    "a*po": ("dro", {"beta": BETA, "baseline": OptimalValue(BETA)}, regression(best_value)),
    "reinvent": ("dro", {"beta": BETA, "baseline": "none"}, regression(lambda batch, group, i: 0.0)),
    "vineppo": ("vineppo", {"completions": 3, "baseline": CompletedValue(3)}, vineppo),
    "raft": ("reinforce", WINNERS, winners(returns_of)),
    "mbr fine-tuning": ("reinforce", {"credit": CONSENSUS, **WINNERS}, winners(agreement)),
}


def precise(batch: Any) -> Any:
    """A batch in double precision."""
    doubled = {
        n: x.double() for n, x in vars(batch).items() if isinstance(x, Tensor) and x.is_floating_point()
    }
    return replace(batch, **doubled)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_the_formula_of_its_paper(tiny: Any, name: str, seed: int) -> None:
    agent_name, hyper, formula = CASES[name]
    env, policy = tiny(rows=6 * K)
    env.reseed(seed)
    env.parts = {"long": long, "large": large}
    if agent_name in ("dpo", "dro"):
        hyper = {**hyper, "reference": tiny.policy(env, sharp=2.0, seed=1).requires_grad_(False)}
    agent: Any = rlseq.make_agent(agent_name, policy, samples=K, **hyper)
    batch = agent.with_advantages(precise(agent.collect(env)))
    generator = torch.Generator().manual_seed(seed)
    moved = batch.log_probs + 0.5 * torch.randn(batch.log_probs.shape, generator=generator).double()
    log_probs = moved.clamp(max=-0.01).requires_grad_()
    seen = Evaluation(log_probs, log_probs * 0, None, None, None)
    got = (agent.surrogate(seen, batch) * batch.weights).sum()
    texts = [list(row[:n].unbind()) for row, n in zip(log_probs, batch.lengths.tolist(), strict=True)]
    wanted = formula(texts, batch)
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), abs=1e-6)
    slopes = [torch.autograd.grad(loss, log_probs)[0] for loss in (got, wanted)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-6)
    assert float(slopes[1].abs().max()) > 1e-3
