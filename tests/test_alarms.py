"""Alarms: each fires on what it is for, names the cause, and keeps quiet otherwise."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.training.alarms import PATIENCE, AlarmMonitor, AlarmWarning, Stopped
from rlseq.training.reward_hacking import reward_hacking_alarms
from rlseq.types import Context

HEALTHY = {"update": 1.0, "reward": 0.5, "entropy": 2.0, "kl_behaviour": 0.01, "equal_groups": 0.2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": math.nan}, "loss is not finite: the step size is too large"),
        ({"entropy": 0.001}, "entropy fell from 2 to 0.001"),
        ({"kl_reference": 8.0}, "kl_reference is 8 nats per token: the policy is far from where it started"),
    ],
)
def test_an_alarm_says_what_is_wrong_once(change: dict[str, float], message: str) -> None:
    said: list[str] = []
    watch = AlarmMonitor(said.append)
    for row in (
        HEALTHY,
        {**HEALTHY, "update": 2.0},
        {**HEALTHY, **change, "update": 3.0},
        {**HEALTHY, **change},
    ):
        watch(row)
    assert len(said) == 1
    assert said[0].startswith("update 3: ")
    assert message in said[0]


def test_groups_may_be_equal_for_a_while() -> None:
    said: list[str] = []
    watch = AlarmMonitor(said.append)
    for _ in range(PATIENCE - 1):
        watch({**HEALTHY, "equal_groups": 1.0})
    watch(HEALTHY)
    for _ in range(PATIENCE - 1):
        watch({**HEALTHY, "equal_groups": 1.0})
    assert not said
    watch({**HEALTHY, "equal_groups": 1.0})
    assert "the reward does not vary" in said[0]


def test_responses() -> None:
    bad = {**HEALTHY, "reward": math.inf}
    with pytest.warns(AlarmWarning, match="not finite"):
        AlarmMonitor("warn")(bad)
    with pytest.raises(Stopped, match="not finite"):
        AlarmMonitor("stop")(bad)
    AlarmMonitor("ignore")(bad)
    with pytest.raises(ValueError, match="unknown alarms 'stopp'; did you mean 'stop'"):
        AlarmMonitor("stopp")


def test_training_that_has_nothing_to_learn_is_stopped() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=16, vocab_size=4, length=2)
    right, asked = env.parts["accuracy"], []

    def fading(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        asked.append(len(tokens))
        return right(tokens, mask, context) * (len(asked) < 8)

    env.parts = {"fading": fading}
    agent = rlseq.make_agent("rloo", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    with pytest.raises(Stopped, match=r"update \d+: all_groups_equal"):
        rlseq.train(agent, env, updates=50, alarms="stop")
    assert len(asked) >= 8 + PATIENCE


@pytest.mark.parametrize(
    ("reward", "complaint"),
    [
        (lambda t, m, c: torch.ones(len(t)), "all samples earn the same"),
        (lambda t, m, c: m.sum(1) * 1.0, "references .* hardly earn more than random text"),
        (lambda t, m, c: 1 / m.sum(1), "an empty text earns 1.000"),
    ],
)
def test_a_reward_without_sense_is_said_before_the_first_update(reward: Any, complaint: str) -> None:
    env = rlseq.make("rlseq/Parallel-v0", num_envs=16)
    env.parts = {"odd": reward}
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=4)
    before = [parameter.clone() for parameter in policy.parameters()]
    told: list[str] = []
    rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1, alarms=told.append)
    assert any(re.match(f"preflight: {complaint}", line) for line in told), told
    policy.load_state_dict(dict(zip(policy.state_dict(), before, strict=True)))
    with pytest.raises(Stopped, match="preflight"):
        rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1, alarms="stop")
    assert all(map(torch.equal, policy.parameters(), before))


def test_a_constant_answer_that_beats_references_is_named() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=16)
    env.parts = {"sorted": lambda t, m, c: (t.diff(dim=1) >= 0).float().mean(1)}
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=4)
    told: list[str] = []
    rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1, alarms=told.append)
    assert any(
        re.match(r"preflight: the answer '[a-g ]+' to every source earns 0\.[6-9]", line) for line in told
    )


def test_what_is_no_reward_of_the_task_is_not_looked_at() -> None:
    env = rlseq.make("rlseq/Parallel-v0", num_envs=16)
    env.parts = {"constant": lambda t, m, c: torch.ones(len(t))}
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=4)
    told: list[str] = []
    rlseq.train(rlseq.make_agent("mle", policy), env, updates=1, alarms=told.append)
    rlseq.train(rlseq.make_agent("pg_bleu", policy, completions=1), env, updates=1, alarms=told.append)
    assert told == []


@pytest.mark.parametrize("name", ["copied", "generic", "loops", "off_topic", "short"])
def test_fewer_copies_and_fewer_broken_rules_are_no_alarm_and_more_are(name: str) -> None:
    before, after = {"reward": 0.2, name: 0.4}, {"reward": 0.3, name: 0.1}
    assert reward_hacking_alarms([before, after]) == []
    worse = reward_hacking_alarms([before, {"reward": 0.3, name: 0.6}])
    assert worse == [f"reward went from 0.200 to 0.300, but {name} from 0.400 to 0.600"]
