"""Agents that learn, and mistakes in making them. What their gradients are: test_exactness.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.engine.rollout import evaluate_actions


def flat(grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in grads.values()])


def test_a_policy_whose_second_look_disagrees_is_stopped(tiny: Any) -> None:
    env, policy = tiny()
    honest = policy.evaluate
    policy.evaluate = lambda actions, *rest: honest(actions.roll(1, 1), *rest)
    agent = rlseq.make_agent("reinforce", policy)
    before = flat(dict(policy.named_parameters()))
    with pytest.raises(RuntimeError, match="`evaluate` disagrees with its `step`"):
        agent.update(agent.collect(env))
    assert torch.equal(flat(dict(policy.named_parameters())), before)


def test_the_entropy_bonus_raises_entropy(tiny: Any) -> None:
    env, policy = tiny()
    env.parts = {"nothing": lambda t, m, c: torch.zeros(len(t))}

    def entropy() -> float:
        batch = rlseq.rollout(policy, env)
        return float(evaluate_actions(policy, batch).entropy.detach()[batch.mask].mean())

    before = entropy()
    rlseq.train(rlseq.make_agent("reinforce", policy, lr=1e-2, entropy=0.1), env, updates=60, alarms="ignore")
    assert entropy() > before + 0.1


def test_reinforce_climbs_the_exact_objective(tiny: Any) -> None:
    env, policy = tiny()
    before = float(rlseq.exact.objective(policy, env))
    agent = rlseq.make_agent("reinforce", policy, lr=2e-2)
    rlseq.train(agent, env, updates=150, alarms="ignore")  # references earn no more than chance here
    best = float(env.table.max(1).values.mean())
    assert before < 0.5 * best
    assert float(rlseq.exact.objective(policy, env)) > 0.8 * best


def test_mle_learns_to_copy() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=128, vocab_size=5, length=3)
    policy = rlseq.make_policy("gru", env, hidden=32, embedding=16)
    agent = rlseq.make_agent("mle", policy, lr=5e-3)
    history = rlseq.train(agent, env, updates=200)
    assert history[-1]["nll"] < 0.1 * history[0]["nll"]
    assert rlseq.evaluate(policy, env, limit=500)["reward"] > 0.95


@pytest.mark.parametrize(
    ("name", "hyper", "error", "message"),
    [
        ("reinforc", {}, ValueError, "unknown agent 'reinforc'; did you mean 'reinforce'"),
        ("reinforce", {"entropi": 1}, TypeError, "no option 'entropi'; did you mean 'entropy'"),
        ("reinforce", {"baseline": "meen"}, ValueError, "unknown baseline 'meen'; did you mean 'mean'"),
        ("mle", {"schedule": "linaer"}, ValueError, "unknown schedule 'linaer'; did you mean 'linear'"),
        ("mle", {"schedule": 0.5}, TypeError, "schedule must be a function, got 0.5"),
        ("mle", {"lr": 0.0}, ValueError, "lr must be a finite number > 0"),
    ],
)
def test_mistakes_in_making_an_agent(tiny: Any, name: str, hyper: Any, error: Any, message: str) -> None:
    _, policy = tiny()
    with pytest.raises(error, match=message):
        rlseq.make_agent(name, policy, **hyper)


@pytest.mark.parametrize("decode", [rlseq.Beam(3), "sample"])
def test_only_samples_may_train(tiny: Any, decode: Any) -> None:
    _, policy = tiny()
    with pytest.raises(TypeError, match="no samples of the policy"):
        rlseq.make_agent("reinforce", policy, decode=decode)


def test_a_policy_that_cannot_score_what_acted_is_told_so(tiny: Any) -> None:
    env, policy = tiny()
    honest = policy.evaluate
    policy.evaluate = lambda actions, context: honest(actions, context)
    agent = rlseq.make_agent("reinforce", policy)
    agent.update(agent.collect(env))
    tempered = rlseq.make_agent("reinforce", policy, decode=rlseq.Sample(0.5))
    with pytest.raises(TypeError, match="let it take `behaviour` too"):
        tempered.update(tempered.collect(env))


@pytest.mark.parametrize("name", [name for name, agent in rlseq.agents.AGENTS.items() if agent.writes_texts])
def test_a_check_of_a_task_changes_nothing(name: str) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=16, length=3)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4, value=True)
    agent = rlseq.make_agent(name, policy)
    before = env.generator.get_state(), torch.get_rng_state(), env.counts.as_dict()
    agent.check(env)
    assert torch.equal(env.generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert env.counts.as_dict() == before[2]


@pytest.mark.parametrize(
    "name", ["mle", "e2e", "scheduled_sampling", "mixer", "seqgan", "rankgan", "pg_bleu"]
)
def test_a_task_without_references_is_refused_before_a_run_is_written(name: str, tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=16)
    agent = rlseq.make_agent(name, rlseq.make_policy("gru", env, hidden=8, embedding=4))
    with pytest.raises(ValueError, match="has no references to learn from"):
        rlseq.train(agent, env, updates=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("field", "name"), [("baseline", "mean"), ("schedule", "linear")])
def test_names_are_for_make_agent_alone(tiny: Any, field: str, name: str) -> None:
    _, policy = tiny()
    hyper: Any = {field: name}
    with pytest.raises(TypeError, match=f"{field}=….* takes a function, got '{name}'; .*make_agent"):
        rlseq.agents.REINFORCE(policy, **hyper)


def test_agents_made_by_name_share_no_state(tiny: Any) -> None:
    env, policy = tiny()
    one, other = (rlseq.make_agent("reinforce", policy, baseline="moving_average") for _ in range(2))
    one.update(one.collect(env))
    fresh = rlseq.make_agent("reinforce", policy, baseline="moving_average")
    assert other.state_dict()["baseline"] == fresh.state_dict()["baseline"] != one.state_dict()["baseline"]


def test_a_learning_baseline_that_would_never_learn_is_refused(tiny: Any) -> None:
    class Learns:
        def __call__(self, returns: Any, batch: Any) -> Any:
            return 0 * returns

        def learn(self, returns: Any, batch: Any) -> None: ...

    _, policy = tiny()
    with pytest.raises(TypeError, match=r"has `learn`, which is called only on a Factor; derive Learns from"):
        rlseq.agents.REINFORCE(policy, baseline=Learns())
