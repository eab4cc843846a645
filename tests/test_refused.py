"""What agents cannot learn from is refused with one clear error, before anything is sampled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents import AGENTS, function_name
from rlseq.policy_gradient.baselines import MovingAverage, Regression


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("rloo", {"samples": 1}, r"RLOO compares the texts of one context \(leave_one_out\).*pass samples=4"),
        ("grpo", {"samples": 1}, "needs samples ≥ 2"),
        ("reinforce", {"baseline": "group_mean"}, "needs samples ≥ 2"),
        ("scst", {"scale": "by_group"}, "needs samples ≥ 2"),
        ("mrt", {"samples": 1}, "samples must be an integer ≥ 2, got 1"),
        ("mrt", {"sharpness": 0.0}, "sharpness must be a finite number > 0, got 0.0"),
        ("reinforce", {"samples": 0}, "samples must be an integer ≥ 1, got 0"),
        (
            "reinforce",
            {"reference": object()},
            "reference is looked at only where its divergence has a weight",
        ),
        ("reinforce", {"lr": float("inf")}, "lr must be a finite number > 0, got inf"),
        ("mle", {"lr": float("nan")}, "lr must be a finite number > 0, got nan"),
        ("mixer", {"samples": 2}, "one reference a row"),
        ("mixer", {"mle": 0.1}, "a likelihood of its own"),
        ("mixer", {"delta": 0}, "delta must be an integer ≥ 1, got 0"),
        ("mixer", {"xent_share": 1.0}, r"xent_share must be a number in \[0, 1\), got 1.0"),
        ("e2e", {"xent_share": -0.1}, r"xent_share must be a number in \[0, 1\), got -0.1"),
        ("mixer", {"xent_weight": 1.0}, r"xent_weight must be a number in \(0, 1\), got 1.0"),
        ("reinforce", {"entropy": -0.1}, "entropy must be a finite number ≥ 0, got -0.1"),
        ("reinforce", {"kl": -0.1}, "kl must be a finite number ≥ 0"),
        ("reinforce", {"kl_reward": float("nan")}, "kl_reward must be a finite number ≥ 0, got nan"),
        ("reinforce", {"l2": -1}, "l2 must be a finite number ≥ 0"),
        ("reinforce", {"mle": -1}, "mle must be a finite number ≥ 0"),
        ("a2c", {"value_weight": -1}, "value_weight must be a finite number ≥ 0"),
        ("reinforce", {"gamma": 1.1}, r"gamma must be a number in \[0, 1\], got 1.1"),
        ("a2c", {"lam": 1.1}, r"lam must be a number in \[0, 1\], got 1.1"),
        ("reinforce", {"credit": "tdd"}, "unknown credit 'tdd'; did you mean 'td'"),
        ("reinforce", {"scale": "by_grop"}, "unknown scale 'by_grop'; did you mean 'by_group'"),
        (
            "reinforce",
            {"aggregate": "per_tokens"},
            "unknown aggregate 'per_tokens'; did you mean 'per_token'",
        ),
        ("reinforce", {"divergence": "k4"}, "unknown divergence 'k4'"),
        ("mixer", {"samples": 2}, "leave samples at 1"),
        ("ppo", {"clip": -0.2}, "clip must be a finite number > 0, got -0.2"),
        ("grpo", {"clip": 0.0}, "clip must be a finite number > 0, got 0.0"),
        ("dapo", {"clip_high": -1.0}, "clip_high must be a finite number > 0, got -1.0"),
        ("ppo_kl", {"kl_target": 0.0}, "kl_target must be a finite number > 0, got 0.0"),
        (
            "reinforce",
            {"credit": "completions", "gamma": 0.9},
            "Completions credits actions with scores of texts",
        ),
        ("reinforce", {"credit": "completions", "kl_reward": 0.1}, "use kl, got gamma=1.0, kl_reward=0.1"),
    ],
)
def test_settings(tiny: Any, name: str, hyper: Any, message: str) -> None:
    _, policy = tiny()
    with pytest.raises(ValueError, match=message):
        rlseq.make_agent(name, policy, **hyper)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "mixer", "a3c"])
@pytest.mark.parametrize("hyper", [{"epochs": 2}, {"overlap": True}], ids=str)
def test_agents_that_need_fresh_samples_have_no_settings_for_older_ones(
    tiny: Any, name: str, hyper: Any
) -> None:
    _, policy = tiny()
    with pytest.raises(TypeError, match=f"has no option '{next(iter(hyper))}'"):
        rlseq.make_agent(name, policy, **hyper)


@pytest.mark.parametrize("factor", ["credit", "baseline", "scale", "aggregate", "divergence"])
def test_a_factor_is_a_name_or_a_function(tiny: Any, factor: str) -> None:
    _, policy = tiny()
    with pytest.raises(TypeError, match=f"{factor} must be a function, got 3"):
        rlseq.make_agent("reinforce", policy, **{factor: 3})


def test_none_names_the_function_that_changes_nothing(tiny: Any) -> None:
    _, policy = tiny()
    for given in ("none", None):  # `--hyper reinforce.baseline=none` is read as None
        agent = rlseq.make_agent("reinforce", policy, baseline=given, scale=given)
        assert [function_name(name, getattr(agent, name)) for name in ("baseline", "scale")] == ["none"] * 2


def test_what_stands_beside_a_regression_has_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="must not learn"):
        Regression(beside=MovingAverage())


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("a2c", {}),
        ("ppo", {}),
        ("reinforce", {"baseline": "value"}),
        ("reinforce", {"credit": "gae"}),
        ("reinforce", {"credit": "n_step"}),
    ],
)
def test_values_need_a_head(tiny: Any, name: str, hyper: Any) -> None:
    env, _ = tiny()
    policy = rlseq.make_policy("lstm", env, hidden=4, embedding=3)
    with pytest.raises(ValueError, match=r"no value head; make it with rlseq.make_policy\(…, value=True\)"):
        rlseq.make_agent(name, policy, **hyper)


def refused(agent: Any, env: Any, error: Any, message: str) -> None:
    """`collect` raises, and neither random numbers nor the policy have changed."""
    random, weights = env.generator.get_state(), [p.clone() for p in agent.policy.parameters()]
    with pytest.raises(error, match=message):
        agent.collect(env)
    assert torch.equal(env.generator.get_state(), random), "something was drawn"
    assert all(torch.equal(a, b) for a, b in zip(weights, agent.policy.parameters(), strict=True))


@pytest.mark.parametrize(("name", "hyper"), [("mixer", {}), ("mle", {}), ("reinforce", {"mle": 0.5})])
def test_likelihood_needs_references(tiny: Any, name: str, hyper: Any) -> None:
    env, policy = tiny()
    del env.items["references"], env.items["reference_lengths"]
    refused(
        rlseq.make_agent(name, policy, **hyper), env, ValueError, "Enumerable has no references to learn from"
    )


@pytest.mark.parametrize("hyper", [{"kl": 0.1}, {"kl": 0.1, "divergence": "k3"}, {"kl_reward": 0.1}])
def test_the_reference_policy_must_write_the_same_words(tiny: Any, hyper: Any) -> None:
    env, policy = tiny()
    other = tiny(vocab_size=4)[1]
    agent = rlseq.make_agent("reinforce", policy, reference=other, **hyper)
    refused(agent, env, ValueError, "the reference policy writes 4 words, the task has 3")


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        (
            "rloo",
            {"samples": 5},
            "samples=5 texts of each context must divide the rows of the task, got num_envs=64",
        ),
        ("reinforce", {"minibatches": 65}, "64 contexts .* cannot be split into minibatches=65"),
        ("rloo", {"samples": 16, "micro_batches": 5}, "4 contexts .* micro_batches=5"),
    ],
)
def test_rows_that_cannot_be_split(tiny: Any, name: str, hyper: Any, message: str) -> None:
    env, policy = tiny()
    refused(rlseq.make_agent(name, policy, **hyper), env, ValueError, message)


@pytest.mark.parametrize("name", [name for name, agent in AGENTS.items() if agent.writes_texts])
def test_a_task_that_writes_nothing(tiny: Any, name: str) -> None:
    gym = pytest.importorskip("gymnasium")
    _, policy = tiny()
    with pytest.raises(TypeError, match=r"expected a task that writes texts"):
        rlseq.make_agent(name, policy).collect(gym.make("CartPole-v1"))


def test_references_that_a_task_computes_are_found(tiny: Any) -> None:
    env, policy = tiny()
    given = {name: env.items.pop(name) for name in ("references", "reference_lengths")}
    plain = env.contexts
    env.contexts = lambda index: {**plain(index), **{name: value[index] for name, value in given.items()}}
    for name, hyper in (("mixer", {}), ("mle", {}), ("reinforce", {"mle": 0.5})):
        rlseq.make_agent(name, policy, **hyper).collect(env)


def test_references_may_be_shorter_than_the_longest_text(tiny: Any) -> None:
    env, policy = tiny()
    env.items["references"] = env.items["references"][:, :, :2]
    env.items["reference_lengths"] = torch.full((2, 1), 2)
    for updates in range(4):
        agent: Any = rlseq.make_agent("mixer", policy, delta=1)
        agent.set_progress(0.25 * updates)
        batch = agent.collect(env)
        agent.update(batch)
        assert batch.demonstrations is not None
        assert batch.demonstrations.mask.shape == batch.mask.shape
        assert int(batch.demonstrations.mask.sum(1).max()) == max(0, 2 - updates)
