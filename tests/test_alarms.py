"""Alarms: each fires on what it is for, names the cause, and keeps quiet otherwise."""

from __future__ import annotations

import math

import pytest
import torch

import rlseq
from rlseq.alarms import PATIENCE, AlarmWarning, Stopped, Watchman

HEALTHY = {"update": 1.0, "reward": 0.5, "entropy": 2.0, "kl_behaviour": 0.01, "equal_groups": 0.2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": math.nan}, "loss is not finite: the step size is too large"),
        ({"entropy": 0.001}, "entropy fell from 2 to 0.001"),
        ({"kl_reference": 8.0}, "kl_reference is 8 nats per token: the policy ran away"),
    ],
)
def test_an_alarm_says_what_is_wrong_once(change: dict[str, float], message: str) -> None:
    said: list[str] = []
    watch = Watchman(said.append)
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
    watch = Watchman(said.append)
    for _ in range(PATIENCE - 1):
        watch({**HEALTHY, "equal_groups": 1.0})
    watch(HEALTHY)
    for _ in range(PATIENCE - 1):
        watch({**HEALTHY, "equal_groups": 1.0})
    assert not said
    watch({**HEALTHY, "equal_groups": 1.0})
    assert "no spread here" in said[0]


def test_responses() -> None:
    bad = {**HEALTHY, "reward": math.inf}
    with pytest.warns(AlarmWarning, match="not finite"):
        Watchman("warn")(bad)
    with pytest.raises(Stopped, match="not finite"):
        Watchman("stop")(bad)
    Watchman("ignore")(bad)
    with pytest.raises(ValueError, match="unknown response 'stopp'; did you mean 'stop'"):
        Watchman("stopp")


def test_training_that_has_nothing_to_learn_is_stopped() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=16, vocab_size=4, length=2)
    env.parts = {"constant": lambda tokens, mask, context: torch.ones(len(tokens))}
    agent = rlseq.make_agent("rloo", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    with pytest.raises(Stopped, match=f"update {PATIENCE}: all_groups_equal"):
        rlseq.train(agent, env, updates=50, alarms="stop")
