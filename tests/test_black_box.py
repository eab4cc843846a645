"""Searches that see returns alone: their estimates against the exact gradient, and their perturbed rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.adapters import GymEnv
from rlseq.agents.black_box import LowRank, as_they_are, centred_ranks
from rlseq.policies.perturbed import PerturbedRows, copies_of, named_parameters
from rlseq.types import EpisodeStats
from rlseq.utils.vectors import assign, flat

SEARCHES = ["es", "cem", "finite_differences"]


def small(rows: int = 64, **options: Any) -> tuple[Any, Any]:
    """A task with few texts, and a policy with few parameters, away from uniform."""
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=rows, length=2, **options)
    policy = rlseq.make_policy("gru", env, hidden=2, embedding=2)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(2.0)
    return env, policy


def exact_scores(agent: Any, env: Any, perturbations: Tensor) -> Tensor:
    """J of every perturbed policy, by enumeration."""
    start, found = flat(agent.parameters).detach().clone(), []
    for vector in perturbations:
        assign(agent.parameters, start + vector)
        found.append(rlseq.exact.objective(agent.policy, env))
    assign(agent.parameters, start)
    return torch.stack(found)


def exact_gradient(agent: Any, env: Any) -> Tensor:
    return flat(rlseq.exact.gradient(agent.policy, env).values())


def test_differences_by_every_parameter_are_the_gradient() -> None:
    env, policy = small()
    agent: Any = rlseq.make_agent("finite_differences", policy, sigma=0.01)
    agent = rlseq.make_agent("finite_differences", policy, sigma=0.01, population=2 * agent.size)
    found = agent.slope(exact_scores(agent, env, agent.perturbations(0)), agent.pairs(0))
    torch.testing.assert_close(found, exact_gradient(agent, env), rtol=1e-2, atol=1e-3)


def test_differences_by_some_parameters_are_right_on_the_average() -> None:
    """Each parameter is as often among them; the others count as 0."""
    _, policy = small()
    agent: Any = rlseq.make_agent("finite_differences", policy, population=6)
    times = sum(agent.pairs(seed).sum(0) for seed in range(3000))
    share = 3 * 3000 / agent.size
    assert float((times - share).abs().max()) < 5 * share**0.5
    scores = torch.arange(6.0)
    wanted = agent.pairs(1).sum(0) * -3 / (2 * agent.sigma) * agent.size / 3
    torch.testing.assert_close(agent.slope(scores, agent.pairs(1)), wanted)


def test_evolution_strategies_follow_the_gradient() -> None:
    """Along orthogonal directions of length √P the sum is the gradient up to σ²; the drawn ones are such
    on the average."""
    env, policy = small()
    agent: Any = rlseq.make_agent("es", policy, fitness_shaping="none", sigma=5e-3)
    basis = torch.linalg.qr(torch.randn(agent.size, agent.size))[0] * agent.size**0.5
    steps = agent.sigma * basis
    found = agent.slope(exact_scores(agent, env, torch.cat([steps, -steps])), basis)
    torch.testing.assert_close(found, exact_gradient(agent, env), rtol=2e-2, atol=2e-3)
    drawn = torch.cat([agent.pairs(seed) for seed in range(1500)])
    off = drawn.t() @ drawn / len(drawn) - torch.eye(agent.size)
    assert float(off.abs().max()) < 6 * (2 / len(drawn)) ** 0.5
    pairs = agent.perturbations(3)
    torch.testing.assert_close(pairs[:4], -pairs[4:])
    torch.testing.assert_close(pairs[:4], 5e-3 * agent.pairs(3))


@pytest.mark.parametrize("rank", [1, 3])
def test_directions_of_low_rank_are_uncorrelated_and_of_variance_one(rank: int) -> None:
    """So that the mean of the estimate is that of full directions."""
    matrix, vector = torch.empty(4, 3), torch.empty(2)
    drawn = LowRank(rank)([matrix, vector], 20_000, torch.Generator().manual_seed(0))
    assert (torch.linalg.matrix_rank(drawn[:50, :12].view(-1, 4, 3)) == rank).all()
    off = drawn.t() @ drawn / len(drawn) - torch.eye(14)
    assert float(off.abs().max()) < 6 * (8 / len(drawn)) ** 0.5  # E[(ab)⁴] − 1 = 8
    assert float(drawn.mean(0).abs().max()) < 6 / len(drawn) ** 0.5


def test_the_mean_over_directions_of_low_rank_is_the_gradient() -> None:
    """By the exact returns of the perturbed policies, within four standard errors of every entry."""
    env, policy = small()
    agent: Any = rlseq.make_agent(
        "es", policy, fitness_shaping="none", sigma=0.01, population=400, directions="low_rank", only="head.*"
    )
    scores, drawn = exact_scores(agent, env, agent.perturbations(5)), agent.pairs(5)
    each = ((scores[:200] - scores[200:]) / 0.02).unsqueeze(1) * drawn
    torch.testing.assert_close(each.mean(0), agent.slope(scores, drawn))
    error = each.std(0) / 200**0.5
    gradient = rlseq.exact.gradient(policy, env)["head.weight"].flatten()
    assert float(((each.mean(0) - gradient) / error).abs().max()) < 4
    assert float(error.max()) < 0.5 * float(gradient.abs().max())


@pytest.mark.parametrize("name", ["es", "finite_differences"])
def test_sampled_estimates_are_right_on_the_average(name: str) -> None:
    """Along the gradient, the mean of many batches is within three standard errors of it."""
    env, policy = small(rows=64)
    agent: Any = rlseq.make_agent(
        name, policy, fitness_shaping="none", sigma=0.2, population=16, only="head.*"
    )
    gradient, found = rlseq.exact.gradient(policy, env)["head.weight"], []
    for _ in range(80):
        policy.zero_grad()
        agent.loss(agent.collect(env))[0].backward()
        found.append(-(policy.head.weight.grad * gradient).sum() / gradient.square().sum())
    along = torch.stack(found)
    error = float(along.std()) / len(along) ** 0.5
    assert error < 0.3
    assert abs(float(along.mean()) - 1) < 3 * error


def test_the_best_policies_are_followed_by_hand() -> None:
    env, policy = small(rows=8)
    agent: Any = rlseq.make_agent("cem", policy, lr=0.5, elites=0.25, sigma=0.3, noise=0.2)
    batch = agent.collect(env)
    start, drawn = flat(policy.parameters()).detach().clone(), agent.perturbations(batch.seed)
    first, second = batch.returns.argsort(descending=True, stable=True)[:2].tolist()
    agent.update(batch)
    mean = (drawn[first] + drawn[second]) / 2
    torch.testing.assert_close(flat(policy.parameters()), start + 0.5 * mean)
    spread = (drawn[first] - drawn[second]).abs() / 2**0.5
    torch.testing.assert_close(agent.deviation.value, (0.15 + 0.5 * spread).clamp(min=0.2))


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("es", {"lr": 0.1, "sigma": 0.5}),
        ("es", {"lr": 0.1, "sigma": 0.5, "directions": LowRank(2)}),
        ("cem", {"sigma": 0.5, "noise": 0.1}),
        ("finite_differences", {"lr": 0.1, "sigma": 0.5}),
    ],
)
def test_a_search_climbs_the_exact_objective(name: str, hyper: dict[str, Any]) -> None:
    env, policy = small(rows=64)
    agent = rlseq.make_agent(name, policy, population=16, **hyper)
    before = float(rlseq.exact.objective(policy, env))
    rlseq.train(agent, env, updates=50, alarms="ignore")
    best = float(env.table.max())
    assert float(rlseq.exact.objective(policy, env)) > before + 0.6 * (best - before)


def test_ranks_are_centred() -> None:
    torch.testing.assert_close(
        centred_ranks(torch.tensor([3.0, 1.0, 1.0, 9.0])), torch.tensor([1, -2, -2, 3]) / 6
    )
    assert not centred_ranks(torch.ones(4)).any()
    assert torch.equal(as_they_are(torch.ones(2)), torch.ones(2))


@pytest.mark.parametrize("name", ["lstm", "gru", "seq2seq", "transformer"])
def test_every_row_is_written_by_its_own_policy(name: str) -> None:
    """Also where rows end early, where a cache is written in place, and where a state is divided."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=12, vocab_size=4, length=3)
    policy = rlseq.make_policy(name, env, hidden=8)
    copies = copies_of(policy, 3, named_parameters(policy, "*"))
    for copy in copies:
        assign(list(copy.parameters()), 3 * torch.randn(sum(p.numel() for p in policy.parameters())))
    rows = PerturbedRows(copies)
    batch = rlseq.rollout(rows, env)  # type: ignore[arg-type]
    for number, copy in enumerate(copies):
        own = batch.take(slice(4 * number, 4 * number + 4))
        found = copy.evaluate(own.actions, own.context).log_probs  # type: ignore[operator]
        torch.testing.assert_close(found * own.mask, own.log_probs, rtol=1e-4, atol=1e-5)
    state = rows.start(batch.context)
    token = torch.zeros(12, dtype=torch.int64)
    some = torch.tensor([0, 1, 5, 6, 11])
    picked = rlseq.engine.state.fork(state, some)
    torch.testing.assert_close(rows.step(token[some], picked)[0], rows.step(token, state)[0][some])


def test_copies_share_what_does_not_change() -> None:
    _, policy = small()
    (copy,) = copies_of(policy, 1, named_parameters(policy, "head.*"))
    mine, its = dict(policy.named_parameters()), dict(copy.named_parameters())
    assert {name for name in mine if mine[name] is not its[name]} == {"head.weight"}
    assert torch.equal(mine["head.weight"], its["head.weight"])


def test_only_the_chosen_parameters_learn() -> None:
    env, policy = small(rows=16)
    agent = rlseq.make_agent("es", policy, only="head.*")
    before = {name: p.clone() for name, p in policy.named_parameters()}
    agent.update(agent.collect(env))
    changed = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"head.weight"}


def test_perturbed_policies_write_about_the_same_items() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=16, length=3)
    policy = rlseq.make_policy("gru", env, hidden=4, embedding=4)
    items = rlseq.make_agent("es", policy, population=4).collect(env).context["index"].view(4, 4)
    assert (items == items[:1]).all()
    assert len(set(items[0].tolist())) > 1


def test_the_score_of_a_policy_is_the_mean_return_of_its_episodes() -> None:
    env, policy = small(rows=4)
    agent: Any = rlseq.make_agent("es", policy, population=2)
    batch = agent.collect(env)
    torch.testing.assert_close(agent.scores(batch), batch.returns.view(2, 2).mean(1))
    ends = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]).bool()
    stretch = replace(
        batch, rewards=torch.ones(4, 4), ends=ends, mask=torch.ones(4, 4).bool(), last_episodes=None
    )
    torch.testing.assert_close(agent.scores(stretch), torch.tensor([8 / 4, 8 / 2]))


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_a_search_acts(id: str, name: str) -> None:
    env = GymEnv(id, 4, steps=8)
    policy = rlseq.make_policy("mlp", env, hidden=4, standardise=True)
    agent = rlseq.make_agent(name, policy, population=4)
    before = flat(policy.parameters()).detach().clone()
    history = rlseq.train(agent, env, updates=2, alarms="ignore")
    assert len(history) == 2
    assert not torch.equal(flat(policy.parameters()), before)
    assert isinstance(env.episodes, EpisodeStats)
    assert 0 < float(policy.scale.count) <= 64


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("es", {"population": 3}, "come in pairs.*population=3; take 2 or 4"),
        (
            "es",
            {"only": "haed.*"},
            r"only='haed.\*' matches no trainable parameter of this Recurrent; .*head",
        ),
        ("es", {"sigma": 0.0}, "sigma must be a finite number > 0"),
        ("es", {"fitness_shaping": "rank"}, "unknown fitness_shaping 'rank'"),
        ("es", {"directions": "lowrank"}, "unknown directions 'lowrank'.* low_rank"),
        ("cem", {"lr": 1.5}, r"lr must be a number in \(0, 1\], got 1.5"),
        ("cem", {"elites": 1.0}, "elites must be a number"),
        ("finite_differences", {"population": 1000}, "parameters have two neighbours each.*at most"),
        ("cem", {"population": 1}, "population must be an integer ≥ 2"),
    ],
)
def test_settings_that_are_refused(name: str, hyper: dict[str, Any], message: str) -> None:
    _, policy = small()
    with pytest.raises(ValueError, match=message):
        rlseq.make_agent(name, policy, **hyper)


def test_tasks_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    env, policy = small(rows=20)
    agent: Any = rlseq.make_agent("es", policy)
    with pytest.raises(
        ValueError, match=r"population=8 .* must divide the rows .* num_envs=20; .*num_envs=8"
    ):
        agent.collect(env)
    monkeypatch.setattr("rlseq.utils.memory.memory", lambda: 1000)
    with pytest.raises(
        ValueError, match=r"population=4, perturbed_parameters=\d+ would need .*smaller sizes, or .*head\.\*"
    ):
        rlseq.make_agent("es", policy, population=4).check(env)


def test_batches_of_others_are_refused() -> None:
    env, policy = small(rows=8)
    with pytest.raises(TypeError, match="learns from batches that it collects itself"):
        rlseq.make_agent("es", policy).update(rlseq.rollout(policy, env))
