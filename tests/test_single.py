"""The one-row view: what `gym.make` returns, and how it shows itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.types import Context


def steps_of(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A dense reward that knows its place."""
    return tokens + 10.0 * torch.arange(tokens.shape[1])


def both(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    return mask.sum(1) + context["index"]


def test_a_finished_episode_goes_on_only_after_a_reset() -> None:
    env: Any = gym.make("rlseq/Copy-v0")
    with pytest.raises(ValueError, match=r"never reset; call reset\(\) first"):
        env.unwrapped.step(1)
    env.reset(options={"index": [3]})
    assert env.step(0)[2]
    with pytest.raises(ValueError, match=r"rows \[0\] are finished and cannot step; reset them first"):
        env.step(1)
    assert env.reset()[0]["length"] == 0
    assert not env.step(1)[2]


def test_an_episode_ends_with_its_text_and_the_parts_of_its_return() -> None:
    env: Any = gym.make("rlseq/Copy-v0", reward={"steps": steps_of, "both": both})
    env.reset(options={"index": [0]})
    assert env.step(3)[4].keys() == {"action_mask"}
    env.step(1)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated) == (23.0, True, False)
    assert info["text"] == "c a"
    assert info["reward_parts"] == {"steps": 3 + 11 + 20, "both": 3}


def test_render_shows_source_and_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    env: Any = gym.make("rlseq/Copy-v0", render_mode="ansi")
    env.reset(seed=0)
    source = env.unwrapped.batch.sources()[0]
    env.step(1)
    env.step(2)
    assert env.render() == f"{source} → a b▏"
    many = gym.make_vec("rlseq/Enumerable-v0", num_envs=2, render_mode="ansi")
    many.reset()
    many.step(np.array([1, 2]))
    assert many.render() == ("a▏", "b▏")
    assert capsys.readouterr().out == ""


def test_human_is_shown_every_step_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    env: Any = gym.make("rlseq/Enumerable-v0", render_mode="human")
    env.reset()
    env.step(1)
    env.step(2)
    assert capsys.readouterr().out == "▏\na▏\na b▏\n"
    assert env.render() is None
    many: Any = rlseq.make("rlseq/Enumerable-v0", 2, render_mode="human", autoreset_mode="SameStep")
    many.reset()
    many.step([1, 0])
    assert capsys.readouterr().out == "a b▏\n▏\n▏\na▏\n▏\n"


def test_action_masks_are_those_of_the_info() -> None:
    one, many = gym.make("rlseq/Copy-v0"), gym.make_vec("rlseq/Copy-v0", num_envs=3)
    mask = one.reset()[1]["action_mask"]
    assert (one.get_wrapper_attr("action_masks")() == mask.astype(bool)).all()
    assert many.reset()[1]["action_mask"].shape == (3, 8)
    assert many.unwrapped.action_masks().dtype == bool  # type: ignore[attr-defined]


FORKED = """
import gymnasium as gym, torch, rlseq
torch.set_num_threads(2)
torch.rand(1000, 1000) @ torch.rand(1000, 1000)
torch.rand(10**7).sum()
env = gym.vector.AsyncVectorEnv([lambda: gym.make("rlseq/Copy-v0")] * 2)
env.reset(seed=0)
for _ in range(8):
    env.step(env.action_space.sample())
env.close()
print("no child hangs")
"""


def test_forked_children_do_not_wait_for_the_threads_of_their_parent() -> None:
    """The parent uses several threads before it forks; without the hook this never ends."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False
    )
    assert "no child hangs" in done.stdout, done.stderr
