"""Mistakes of somebody who knows another library: the error, or the warning, names what is meant."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents import AGENTS, make_agent
from rlseq.utils.errors import NAMES_ELSEWHERE, hint


def policy_for(env: Any) -> Any:
    return rlseq.make_policy("gru", env, hidden=8, embedding=4, value=True)


@pytest.fixture
def env() -> Any:
    return rlseq.make("rlseq/Copy-v0", num_envs=16, items=20, length=3)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("learning_rate", "'lr'"),
        ("ent_coef", "'entropy'"),
        ("vf_coef", "'value_weight'"),
        ("n_epochs", "'epochs'"),
        ("clip_range", "'clip'"),
        ("gae_lambda", "'lam'"),
        ("max_grad_norm", "'clip_norm'"),
        ("beta", "'kl'"),
        ("num_generations", "'samples'"),
        ("temperature", "decode=Sample(temperature=…)"),
        ("entopy", "'entropy'"),
    ],
)
def test_names_of_other_libraries_are_understood(env: Any, given: str, meant: str) -> None:
    with pytest.raises(
        TypeError, match=re.escape(f"PPO has no option {given!r}; did you mean {meant}? known:")
    ):
        make_agent("ppo", policy_for(env), **{given: 0.1})


@pytest.mark.parametrize(
    ("given", "meant"),
    [("--learning-rate", "--lr"), ("--clip_range=0.1", "--clip"), ("--temperature", "--decode.temperature")],
)
def test_flags_of_other_libraries_are_understood(given: str, meant: str, capsys: Any) -> None:
    from rlseq.cli import main

    with pytest.raises(SystemExit, match="2"):
        main(["train", "ppo", "--env", "rlseq/Copy-v0", given, "0.1"])
    flag = given.partition("=")[0]
    assert capsys.readouterr().err == f"rlseq: unknown flag {flag}; did you mean {meant}?\n"


def test_an_alias_is_offered_only_where_our_name_is_known() -> None:
    assert hint("clip_range", ["lr", "entropy"]) == "; known: entropy, lr"
    assert hint("batch_size", ["num_envs"]) == "; did you mean 'num_envs'? known: num_envs"


def test_every_suggestion_is_a_name_of_ours() -> None:
    """Hyper-parameters of some agent, sizes of a policy, or options of tasks."""
    ours = {field.name for cls in AGENTS.values() for field in fields(cls)}
    sizes = {"hidden", "embedding", "layers", "heads", "num_envs", "max_len"}
    assert {name.partition("=")[0] for name in NAMES_ELSEWHERE} <= ours | sizes


@pytest.mark.parametrize(
    ("samples", "rows", "offered"),
    [
        (5, 128, "samples=4 or 8 with these rows, or num_envs=125 or 130 with these samples"),
        (3, 16, "samples=2 or 4 with these rows, or num_envs=15 or 18 with these samples"),
        (8, 4, "samples=4 with these rows, or num_envs=8 with these samples"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_with_the_nearest(samples: int, rows: int, offered: str) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=rows, items=20, length=3)
    with pytest.raises(ValueError, match=re.escape(offered)):
        make_agent("rloo", policy_for(env), samples=samples).check(env)


def test_a_string_is_one_source(env: Any) -> None:
    policy = policy_for(env)
    assert rlseq.generate(policy, env, "a b c") == rlseq.generate(policy, env, ["a b c"])


def test_one_row_leaves_a_baseline_of_the_batch_nothing_to_compare() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=1, items=20, length=3)
    said: list[str] = []
    for hyper in ({}, {"baseline": "moving_average"}, {"baseline": "greedy"}):
        rlseq.train(make_agent("reinforce", policy_for(env), **hyper), env, 1, quiet=True, alarms=said.append)
    about = [message for message in said if "num_envs=1" in message]
    assert len(about) == 1
    assert about[0].startswith("preflight: num_envs=1: mean compares a text with the others of its batch")


def test_a_policy_on_a_task_with_other_words_says_so(env: Any) -> None:
    more = rlseq.make("rlseq/Copy-v0", num_envs=16, items=20, length=3, vocab_size=20)
    with pytest.raises(ValueError, match="the policy writes 8 words, the task has 20"):
        rlseq.generate(policy_for(env), more, ["a"])
    words = rlseq.Vocab(("<eos>", *"ABCDEFG"))
    other = env.replace(vocab=words)
    with pytest.warns(UserWarning, match="made for a task with other words than Copy writes"):
        rlseq.train(make_agent("reinforce", policy_for(env)), other, 1, quiet=True, alarms="ignore")


def test_a_reward_of_the_wrong_shape_says_how_many_texts_it_judged(env: Any) -> None:
    wrong = env.replace(reward=lambda tokens, mask, context: torch.zeros(16))
    with pytest.raises(
        ValueError, match=r"must return shape \(32,\) .* is tried on 32 texts, whatever the num"
    ):
        rlseq.train(make_agent("reinforce", policy_for(env)), wrong, 1, quiet=True)


def test_the_help_of_train_has_the_agent_as_a_word(capsys: Any) -> None:
    from rlseq.cli import main

    main(["train", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: rlseq train AGENT --env TASK [OPTIONS]\n")
    for name in AGENTS:
        assert re.search(rf"^{name} ", shown, re.MULTILINE), name
    assert "sb3-" not in shown, "only comparisons train stock agents"
    with pytest.raises(SystemExit, match="0"):
        main(["train", "scst", "--help"])
    shown = capsys.readouterr().out
    assert "usage: rlseq train scst" in shown
    assert "--unrecorded" not in shown
    assert "--config" in shown


def test_the_version(capsys: Any) -> None:
    from rlseq.cli import main
    from rlseq.utils.version import __version__

    main(["--version"])
    assert capsys.readouterr().out == f"rlseq {__version__}\n"
