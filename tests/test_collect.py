"""What agents really gather, of the task itself: on the average it gives the gradient of what is enumerated.

The policy is a table of logits, so that one backward pass gives the gradient of every row by itself, and a
test sees thousands of independent batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

import rlseq
from rlseq.agents import AGENTS, PGBLEU, Adversarial, Dual
from rlseq.engine.decode import acting_logits
from rlseq.engine.rollout import rollout
from rlseq.policies.head import divergence
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.credit import Completions
from rlseq.policy_gradient.exact import every_batch, expected_gradient, gradient, mean_gradient
from rlseq.policy_gradient.penalties import DIVERGENCES
from rlseq.types import RAW, Behaviour, Context, Evaluation, LearningBatch, Rollout

GRADIENTS = sorted(
    name
    for name, agent in AGENTS.items()  # those that bring a reward of their own have tests of their own
    if issubclass(agent, PolicyGradient)
    and not issubclass(agent, (Adversarial, Dual, PGBLEU))
    and agent.__module__
    != "rlseq.agents.ratios"  # gather as grpo does, and have its gradient: test_variants.py
)

ROWS, WORDS, STEPS = 3000, 3, 3
ALPHA = 1e-4  # an honest agent fails this often where random numbers are new; the wrong ones fail for certain


@pytest.fixture(autouse=True)
def _in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table notes the rows that it sees, in their order."""
    monkeypatch.setattr("rlseq.engine.rollout.parts_of", lambda mask: None)


class Wide:
    """Logits as they are, `[B, T, V]`."""

    def __init__(self, logits: Tensor, features: Tensor) -> None:
        self.logits, self.features = logits, features

    def reduce(self, what: Callable[..., Tensor], *others: Any) -> Tensor:
        views = (getattr(view, "logits", view) for view in (self, *others))
        flat = [view.flatten(0, 1) for view in views]
        return what(*flat).view(*self.logits.shape[:2], *what(*flat).shape[1:])

    def divergence(self, other: Any) -> Tensor:
        return self.reduce(divergence, other)


class Table(nn.Module):
    """A logit for every word after every prefix of every context; states are nodes of the tree."""

    def __init__(self, contexts: int) -> None:
        super().__init__()
        nodes = sum(WORDS**t for t in range(STEPS))
        generator = torch.Generator().manual_seed(3)
        self.logits = nn.Parameter(0.7 * torch.randn(contexts, nodes, WORDS, generator=generator))
        self.values = nn.Parameter(torch.randn(contexts, nodes, generator=generator))
        self.seen: list[tuple[Tensor, Tensor]] = []  # place in the table and logits of every evaluation

    def start(self, context: Context) -> Any:
        return context["index"], torch.full_like(context["index"], -1)

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        index, node = state
        node = torch.where(node < 0, 0, (node * WORDS + token + 1).clamp(max=self.logits.shape[1] - 1))
        return self.logits[index, node], (index, node)

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        state, token, nodes = self.start(context), actions[:, 0], []
        for t in range(STEPS):
            _, state = self.step(token, state)
            nodes.append(state[1])
            token = actions[:, t]
        index, node = context["index"].unsqueeze(1), torch.stack(nodes, 1)
        raw = self.logits[index, node]
        if raw.requires_grad:
            raw.retain_grad()
            self.seen.append((index * self.logits.shape[1] + node, raw))
        z = acting_logits(raw, behaviour)
        log_p = z.log_softmax(2)
        log_probs = log_p.gather(2, actions.unsqueeze(2)).squeeze(2)
        entropy = -(log_p.exp() * log_p).sum(2)
        values = self.values[index, node]
        features = torch.nn.functional.one_hot(node, self.logits.shape[1]).float()
        return Evaluation(log_probs, entropy, values, log_p.exp().amax(2), Wide(z, features))


def each(agent: Any, batch: Rollout, rows: int) -> Tensor:
    """Gradients with respect to logits of every batch of `rows` rows alone, `[batches, directions]`."""
    agent.policy.zero_grad(set_to_none=True)
    agent.policy.seen.clear()
    number = len(batch.actions) // rows
    with torch.enable_grad():
        whole = [agent.with_advantages(batch.take(slice(i * rows, (i + 1) * rows))) for i in range(number)]
        names = ("advantages", "targets", "weights")
        settled = {name: torch.cat([getattr(part, name) for part in whole]) for name in names}
        joined = LearningBatch(
            **{**vars(batch), **settled, "demonstrations": whole[0].demonstrations and batch.demonstrations}
        )
        agent.loss(joined)[0].backward()
    cells = agent.policy.logits.numel() // WORDS
    total = torch.zeros(number * cells, WORDS, dtype=torch.float64)
    for place, z in agent.policy.seen:
        batch_of = torch.arange(len(place)).unsqueeze(1) // rows
        total.index_add_(0, (batch_of * cells + place).flatten(), -z.grad.double().flatten(0, 1))
    return total.view(number, cells, WORDS)[:, :, 1:].flatten(1)  # logits of a state sum up to no change


def p_value(samples: Tensor, exact: Tensor) -> float:
    """Hotelling's test that the mean is the exact gradient: n δᵀΣ⁻¹δ is χ² of as many degrees as directions.

    Along directions that few batches move the mean is not normal yet; there it must only be near.
    """
    variance, directions = torch.linalg.eigh(samples.t().cov())
    mean = (samples.mean(0) - exact) @ directions
    moving = variance > 1e-3 * variance.max()
    if not (mean.square() < 50 * variance.clamp(min=0) / len(samples) + 1e-10).all():
        return 0.0
    statistic = len(samples) * (mean.square() / variance)[moving].sum()
    return float(chi2.sf(float(statistic), int(moving.sum())))


def in_table(grads: dict[str, Tensor]) -> Tensor:
    return grads["logits"].double()[:, :, 1:].flatten()


HYPER: dict[str, dict[str, Any]] = {
    "a2c": {"lam": 1.0, "entropy": 0.1},
    "all_action": {"action_values": "exact"},
    "cpo": {"samples": 2, "likelihood": 0.0},  # with it rare texts move the mean, which is not normal
    "dapo": {"samples": 2},
    "dpo": {"samples": 2},
    "dro": {"samples": 2},
    "dr_grpo": {"samples": 2},
    "grpo": {"samples": 2, "kl": 0.2},
    "mrt": {"samples": 2, "sharpness": 1.0},
    "mrt_corrected": {"samples": 2},
    "ppo": {"epochs": 1, "minibatches": 1},
    "ppo_kl": {"epochs": 1, "minibatches": 1},
    "reinforce": {"baseline": "regression", "kl_reward": 0.2},
    "rloo": {"samples": 2, "decode": rlseq.Sample(1.5)},
    "scst": {"samples": 2},
}


def made(tiny: Any, name: str, sources: int = 2) -> tuple[Any, Any]:
    env, _ = tiny(rows=ROWS, sources=sources)
    policy = Table(env.size)
    agent: Any = rlseq.make_agent(name, policy, **HYPER.get(name, {}))
    if agent.reference is not None:
        agent.reference = Table(env.size).requires_grad_(False)
        agent.reference.logits.mul_(0.5)
    return env, agent


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        *((name, 2) for name in sorted(set(GRADIENTS) - {"gkd", "mixer", "vineppo"})),
        ("rloo", 0),
        ("grpo", 0),
        ("a2c", 0),
    ],
)
def test_an_agent_gathers_what_is_enumerated(tiny: Any, name: str, sources: int) -> None:
    env, agent = made(tiny, name, sources)
    if name == "reinforce":
        batch = agent.with_advantages(agent.collect(env))
        agent.baseline.learn(batch.targets, batch)
    rows = 2
    samples = each(agent, agent.collect(env), rows)
    assert p_value(samples, in_table(expected_gradient(agent, env, rows))) > ALPHA
    if name in ("rloo", "scst"):
        assert (
            p_value(samples, in_table(gradient(agent.policy, env, Behaviour(agent.decode.temperature))))
            > ALPHA
        )
        assert p_value(samples, 0.5 * in_table(gradient(agent.policy, env))) < ALPHA


@pytest.mark.parametrize("updates", [0, 1, 2, 3])
def test_mixer_gathers_what_is_enumerated(tiny: Any, updates: int) -> None:
    env, policy = tiny(rows=ROWS // 2)[0], Table(2)
    agent: Any = rlseq.make_agent("mixer", policy, xent_share=0.25, delta=1, baseline="greedy")
    agent.set_progress(0.25 * updates)
    given = torch.arange(STEPS) < STEPS - updates
    batch, _ = every_batch(rlseq.make_agent("scst", policy), env, 1)
    agrees = ((batch.actions == env.items["references"][batch.context["index"], 0]) | ~given).all(1)
    on = (batch.log_probs * (batch.mask & ~given)).sum(1)
    batch = replace(batch, demonstrations=replace(batch, mask=batch.mask & given))
    wanted = in_table(mean_gradient(agent, batch, agrees * on.double().exp() / env.size))
    assert p_value(each(agent, agent.collect(env), 1), wanted) > ALPHA


def test_an_agent_that_samples_something_else_fails(tiny: Any) -> None:
    env, agent = made(tiny, "rloo")
    wanted = in_table(expected_gradient(agent, env))
    wrong = rollout(agent.policy, env, repeat=2, decode=rlseq.Sample(1.1))
    agent.loss(agent.collect(env))  # the first ratio is checked, and only the first
    wrong = replace(agent.prepare(replace(wrong, samples=2), env), behaviour=Behaviour(1.5))
    assert p_value(each(agent, wrong, 2), wanted) < ALPHA
    no_groups = replace(rollout(agent.policy, env, decode=agent.decode), samples=2)
    assert p_value(each(agent, no_groups, 2), wanted) > ALPHA, "texts of other contexts are a baseline, too"


def test_baselines_lower_the_variance(tiny: Any) -> None:
    """Where all rewards are positive, one that knows nothing but their mean helps most (SCOPE L15)."""
    env, _ = tiny(rows=ROWS)
    env.parts = {"shifted": lambda t, m, c: env.look_up(t, m, c) + 5}
    variance = {}
    for name in ("none", "mean", "moving_average", "leave_one_out", "greedy"):
        agent: Any = rlseq.make_agent("reinforce", Table(2), baseline=name, samples=2)
        for _ in range(3):
            batch = agent.with_advantages(agent.collect(env))
            if name == "moving_average":
                agent.baseline.learn(batch.targets, batch)
        variance[name] = float(each(agent, batch, 20).var(0).sum())
    for name in ("mean", "moving_average", "leave_one_out", "greedy"):
        assert variance[name] < 0.25 * variance["none"]


def test_completions_find_what_actions_are_worth(tiny: Any) -> None:
    """Their mean is Q within its error; at the end it is the text's own return, exactly (SCOPE R17)."""
    env, _ = tiny(rows=30)
    policy = Table(2)
    batch, _ = every_batch(rlseq.make_agent("scst", policy), env, 1)
    wide = env.replace(num_envs=len(batch.actions))
    n = 4000
    credit = Completions(n).prepare(batch, policy, wide).credit
    assert credit is not None
    chance = batch.log_probs.sum(1).exp()
    for i in range(len(batch.actions)):
        for t in range(int(batch.lengths[i])):
            same = (batch.actions[:, : t + 1] == batch.actions[i, : t + 1]).all(1)
            same &= batch.context["index"] == batch.context["index"][i]
            p = same * chance / (same * chance).sum()
            mean = (p * batch.returns).sum()
            spread = (p * (batch.returns - mean).square()).sum().sqrt()
            assert abs(float(credit[i, t] - mean)) <= 4.5 * float(spread) / n**0.5 + 1e-5
    assert torch.equal(credit[batch.ends], batch.returns)


def test_a_table_is_a_policy(tiny: Any) -> None:
    env, _ = tiny(rows=30)
    rlseq.testing.check_policy(Table(2), env)
    assert set(DIVERGENCES) == {"full_kl", "k1", "k2", "k3"}
