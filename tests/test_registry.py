"""Making tasks by id, adding one's own, and what an import brings along."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.mdp.registry import ids, option_names
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Context
from rlseq.vocab import Vocab

torch.set_num_threads(1)
ABSENT = "cuda:99" if torch.cuda.is_available() else "cuda"


@pytest.fixture(autouse=True)
def _registry_as_found() -> Iterator[None]:
    found = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(found)


def test_all_ids_are_registered() -> None:
    wanted = {f"rlseq/{name}-v0" for name in ("Copy", "Reverse", "Enumerable", "Oracle")}
    assert wanted <= set(ids())
    assert "CartPole-v1" not in ids()


def test_make_returns_the_task_itself_on_its_device() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=3, vocab_size=5)
    assert isinstance(env, SequenceEnv)
    assert (env.num_envs, len(env.vocab), env.device, env.seed) == (3, 5, torch.device("cpu"), 0)
    assert gym.make_vec("rlseq/Copy-v0", num_envs=3).unwrapped.__class__ is type(env)
    assert gym.make("rlseq/Copy-v0").unwrapped.batch.__class__ is type(env)  # type: ignore[attr-defined]


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("id", ["rlseq/Copi-v0", "Copy-v0", "rlseq/copy-v0", "rlseq/Copy-v1", "rlseq/Copy"])
def test_an_unknown_id_is_answered_with_the_nearest(id: str) -> None:
    with pytest.raises(
        ValueError, match=f"unknown id '{id}'; did you mean 'rlseq/Copy-v0'\\? known: .*rlseq/Copy"
    ):
        rlseq.make(id)


@pytest.mark.parametrize("id", ["CartPole-v1", ""])
def test_an_id_that_is_none_of_ours_is_answered_with_ours(id: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown id .* known: .*rlseq/Copy-v0, .*rlseq/Enumerable-v0"):
        rlseq.make(id)


@pytest.mark.parametrize("make", [rlseq.make, gym.make, gym.make_vec])
def test_an_unknown_option_is_answered_with_the_nearest(make: Any) -> None:
    with pytest.raises(
        TypeError, match=r"Copy has no option 'lenght'; did you mean 'length'\? known: autoreset"
    ):
        make("rlseq/Copy-v0", lenght=3)
    with pytest.raises(TypeError, match="OracleEnv has no option 'vocabsize'; did you mean 'vocab_size'"):
        make("rlseq/Oracle-v0", vocabsize=3)


@pytest.mark.parametrize("make", [rlseq.make, gym.make, gym.make_vec])
def test_an_unknown_reward_is_answered_with_the_nearest(make: Any) -> None:
    with pytest.raises(ValueError, match="unknown reward 'acuracy'; did you mean 'accuracy'"):
        make("rlseq/Copy-v0", reward="acuracy")


@pytest.mark.parametrize("make", [rlseq.make, gym.make, gym.make_vec])
def test_a_device_that_is_not_there_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=f"device '{ABSENT}' is not usable here .*; use one of: cpu"):
        make("rlseq/Copy-v0", device=ABSENT)


@pytest.mark.parametrize(
    ("name", "value"), [("num_envs", 4), ("autoreset_mode", "SameStep"), ("tensors", True)]
)
def test_one_row_is_one_row(name: str, value: Any) -> None:
    with pytest.raises(
        TypeError, match=f"gym.make makes one episode; {name} belongs to gym.make_vec or rlseq.make"
    ):
        gym.make("rlseq/Copy-v0", **{name: value})


@pytest.mark.parametrize("task", ["nowhere", "rlseq.envs.copy.Copy", ""])
def test_a_task_is_a_class_or_says_where_its_class_is(task: Any) -> None:
    with pytest.raises(ValueError, match="task must be a SequenceEnv subclass or 'module:Class', got"):
        rlseq.register("mine/Wrong-v0", task)
    assert "mine/Wrong-v0" not in gym.registry


# ── a task of one's own ──────────────────────────────────────────────────────────────────────────────

OWN = """
import rlseq
from rlseq import SequenceEnv, Vocab

def vowels(tokens, mask, context):
    return ((tokens == 1) & mask).sum(1) / mask.sum(1)

class Vowels(SequenceEnv):
    def __init__(self, *, length=3, **options):
        words = Vocab(("<eos>", "a", "b"), separator="")
        super().__init__(vocab=words, max_len=length, reward=vowels, **options)
"""


def test_a_task_of_one_s_own_is_a_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = OWN + "rlseq.register('mine/Vowels-v0', Vowels)\n"
    assert len([line for line in script.splitlines() if line]) <= 20
    exec(script, {"__name__": "script"})
    plays("mine/Vowels-v0")
    (tmp_path / "vowels_elsewhere.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    rlseq.register("mine/Elsewhere-v0", "vowels_elsewhere:Vowels")
    assert "vowels_elsewhere" not in sys.modules  # imported when it is first made
    plays("mine/Elsewhere-v0")
    with pytest.raises(ValueError, match="did you mean 'mine/Vowels-v0'"):
        rlseq.make("mine/Vowel-v0")
    with pytest.raises(TypeError, match="Vowels has no option 'legnth'; did you mean 'length'"):
        rlseq.make("mine/Elsewhere-v0", legnth=3)


def plays(id: str) -> None:
    """The three ways to make it, and an agent on it."""
    one: Any = gym.make(id, length=2)
    one.reset(seed=0)
    one.step(1)
    assert one.step(2)[1:3] == (0.5, True)
    assert gym.make_vec(id, num_envs=2).reset()[0]["prefix"].shape == (2, 3)
    env = rlseq.make(id, 16, length=2)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    assert len(rlseq.train(agent, env, updates=2)) == 2


def test_a_class_within_a_function_can_be_registered_too() -> None:
    class Constant(SequenceEnv):
        def __init__(self, *, worth: float = 1.0, **options: Any) -> None:
            def reward(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
                return torch.full(tokens.shape[:1], worth)

            super().__init__(vocab=Vocab.numbered(3), max_len=2, reward=reward, **options)

    rlseq.register("mine/Constant-v0", Constant)
    assert option_names(Constant) >= {"worth", "num_envs", "device", "seed", "render_mode"}
    env: Any = gym.make("mine/Constant-v0", worth=7.0)
    env.reset()
    assert env.step(0)[1] == 7.0


# ── what an import brings along ──────────────────────────────────────────────────────────────────────

HEAVY = ["stable_baselines3", "sacrebleu", "pycocoevalcap", "matplotlib", "rich", "tyro", "pandas", "scipy"]
ENGINE = """
import torch
torch.set_num_threads(1)
env = rlseq.make("rlseq/Copy-v0", num_envs=4)
policy = rlseq.make_policy("lstm", env, hidden=8, embedding=4)
rlseq.rollout(policy, env)
rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1, eval_env=None, quiet=True)
rlseq.train(rlseq.make_agent("mle", policy), env, updates=1, eval_env=None, quiet=True)
"""


@pytest.mark.parametrize(
    ("script", "banned"), [("", ["torch", *HEAVY]), (ENGINE, HEAVY)], ids=["import", "engine"]
)
def test_imports_are_light(script: str, banned: list[str]) -> None:
    code = f"import sys, rlseq\n{script}\nprint(sorted(set({banned}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_public_name_is_there_and_listed() -> None:
    for name in rlseq.__all__:
        assert getattr(rlseq, name) is not None
    assert set(rlseq.__all__) <= set(dir(rlseq))
    with pytest.raises(AttributeError, match="no attribute 'rolout'"):
        rlseq.rolout  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        rlseq.envs.nowhere  # noqa: B018
