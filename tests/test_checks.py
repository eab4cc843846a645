"""What the environment refuses, with a message that helps, leaving everything as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Context
from rlseq.vocab import Vocab


def value_of(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A terminal reward that knows its row."""
    return (tokens * mask).sum(1) + 0.5 * context["index"]


def steps_of(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A dense reward that knows its row and its place."""
    return tokens + 10.0 * torch.arange(tokens.shape[1]) + 100.0 * context["index"].unsqueeze(1)


def items() -> dict[str, Tensor]:
    return {"source": torch.arange(1, 11).view(10, 1) % 4, "name": torch.arange(100, 110)}


def make(reward: Any = value_of, task: type[SequenceEnv] = SequenceEnv, **options: Any) -> SequenceEnv:
    words = Vocab(("<eos>", "a", "b", "c"))
    given = {"vocab": words, "max_len": 4, "num_envs": 3, "seed": 0, "items": items(), **options}
    return task(reward=reward, **given)


def snapshot(env: SequenceEnv) -> dict[str, Any]:
    """Everything that a refusal must leave as it was."""
    return {
        "text": (env.tokens.tolist(), env.length.tolist(), env.done.tolist()),
        "context": {name: value.tolist() for name, value in env.context.items()},
        "random": env.generator.get_state().numpy().tobytes(),
        "seed": (env.seed, env.np_random.bit_generator.state),
    }


@contextmanager
def refused(env: SequenceEnv, error: type[BaseException], *says: str) -> Iterator[None]:
    before = snapshot(env)
    with pytest.raises(error) as raised:
        yield
    for words in says:
        assert words in str(raised.value)
    assert snapshot(env) == before


BAD_ACTIONS: dict[str, tuple[Any, type[Exception], tuple[str, ...]]] = {
    "too large": ([1, 4, 1], ValueError, ("0 … 3", "got 4 in row 1")),
    "negative": ([1, 1, -1], ValueError, ("0 … 3", "got -1 in row 2")),
    "float": ([1.0, 2.0, 3.0], TypeError, ("integers", "float64")),
    "float tensor": (torch.ones(3), TypeError, ("integers", "float32")),
    "bool": (np.array([True, False, True]), TypeError, ("integers", "bool")),
    "words": (["a", "b", "c"], TypeError, ("integers", "<U1")),
    "nothing": (None, TypeError, ("integers", "object")),
    "ragged": ([[1], [1, 2], [3]], ValueError, ("inhomogeneous",)),
    "too few": ([1, 2], ValueError, ("shape (3,)", "got (2,)")),
    "a column": ([[1], [2], [3]], ValueError, ("shape (3,)", "got (3, 1)")),
    "one number": (1, ValueError, ("shape (3,)", "got ()")),
}


@pytest.mark.parametrize("name", BAD_ACTIONS)
def test_bad_actions_are_refused(name: str) -> None:
    actions, error, says = BAD_ACTIONS[name]
    env = make()
    env.reset()
    env.step([1, 2, 3])
    with refused(env, error, *says):
        env.step(actions)


@pytest.mark.parametrize("kind", [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)])
def test_actions_of_every_integer_kind_are_taken(kind: str) -> None:
    env = make()
    env.reset()
    env.step(np.array([1, 2, 3], kind))
    assert env.tokens[:, 0].tolist() == [1, 2, 3]


BAD_RESETS: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "unknown option": ({"indexes": [1]}, ValueError, ("indexes", "index, repeat, reset_mask")),
    "repeat that does not divide": ({"repeat": 2}, ValueError, ("divides num_envs=3", "got 2")),
    "repeat zero": ({"repeat": 0}, ValueError, ("≥ 1", "got 0")),
    "repeat half": ({"repeat": 1.5}, ValueError, ("integer", "got 1.5")),
    "index too large": ({"index": [0, 10, 1]}, ValueError, ("0 … 9", "10")),
    "index negative": ({"index": [0, -1, 1]}, ValueError, ("0 … 9", "-1")),
    "index of floats": ({"index": [0.0, 1.0, 2.0]}, TypeError, ("integers", "float64")),
    "index of words": ({"index": ["a", "b", "c"]}, TypeError, ("integers", "<U1")),
    "index too short": ({"index": [0, 1]}, ValueError, ("(3,)", "got (2,)")),
    "index with repeat": ({"index": [0, 1], "repeat": 3}, ValueError, ("(1,)", "got (2,)")),
    "mask too short": ({"reset_mask": np.array([True])}, ValueError, ("(3,)", "got torch.bool (1,)")),
    "mask of integers": ({"reset_mask": np.array([1, 0, 1])}, ValueError, ("bool", "got torch.int64")),
    "mask of nothing": ({"reset_mask": np.zeros(3, bool)}, ValueError, ("at least one True",)),
}


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("name", BAD_RESETS)
def test_bad_resets_are_refused(name: str, seed: int | None) -> None:
    options, error, says = BAD_RESETS[name]
    env = make()
    env.reset(seed=3)
    env.step([1, 0, 3])
    with refused(env, error, *says):
        env.reset(seed=seed, options=options)


def test_options_given_to_reset_are_left_alone() -> None:
    env, options = make(), {"repeat": 3, "reset_mask": np.ones(3, bool)}
    env.reset()
    env.reset(options=options)
    assert set(options) == {"repeat", "reset_mask"}


@pytest.mark.parametrize("method", ["step", "action_masks", "render"])
def test_a_task_that_was_never_reset_says_so(method: str) -> None:
    env = make()
    with pytest.raises(ValueError, match=r"never reset; call reset\(\) first"):
        getattr(env, method)(*[[1, 1, 1]] * (method == "step"))
    with pytest.raises(ValueError, match="never reset"):
        env.reset(options={"reset_mask": np.ones(3, bool)})
    with pytest.raises(ValueError, match="index must"):
        env.reset(options={"index": [3, 3, 13]})
    with pytest.raises(ValueError, match="never reset"):
        env.render()


def test_a_finished_row_cannot_step_where_nothing_resets_it() -> None:
    env = make(autoreset_mode="disabled")
    env.reset()
    env.step([1, 0, 0])
    with refused(env, ValueError, "rows [1, 2] are finished", "reset"):
        env.step([1, 1, 1])
    env.reset(options={"reset_mask": np.array([False, True, True])})
    env.step([1, 1, 1])
    assert env.tokens[:, :2].tolist() == [[1, 1], [1, 0], [1, 0]]


class Moody:
    """A reward that goes wrong when it is told to."""

    def __init__(self, answer: Any, dense: bool) -> None:
        self.answer, self.dense, self.wrong = answer, dense, True

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Any:
        if not self.wrong:
            return (steps_of if self.dense else value_of)(tokens, mask, context)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(tokens)


BAD_REWARDS: dict[str, tuple[Any, type[BaseException], tuple[str, ...]]] = {
    "raises": (RuntimeError("the judge is out"), RuntimeError, ("the judge is out",)),
    "interrupted": (KeyboardInterrupt(), KeyboardInterrupt, ()),
    "NaN": (lambda x: torch.full(x.shape[:1], torch.nan), ValueError, ("'moody'", "nan", "finite")),
    "infinity": (lambda x: torch.full(x.shape, torch.inf), ValueError, ("'moody'", "inf", "finite")),
    "no tensor": (lambda x: 1.0, TypeError, ("'moody'", "torch.Tensor", "got float")),
    "one number": (lambda x: torch.tensor(1.0), ValueError, ("'moody'", "one per text", "got ()")),
    "a column": (lambda x: torch.ones(len(x), 1), ValueError, ("'moody'", "one per token", ", 1)")),
    "too many": (lambda x: torch.ones(len(x) + 1), ValueError, ("'moody'", "got (")),
}


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", BAD_REWARDS)
def test_a_reward_that_goes_wrong_in_a_step_undoes_the_step(name: str, dense: bool, mode: str) -> None:
    """After the mend, the episodes go on as those of a twin in which nothing ever went wrong."""
    answer, error, says = BAD_REWARDS[name]
    moody = Moody(answer, dense)
    env = make({"fine": value_of, "moody": moody}, autoreset_mode=mode)
    twin = make({"fine": value_of, "moody": steps_of if dense else value_of}, autoreset_mode=mode)
    env.reset(seed=5)
    twin.reset(seed=5)
    for actions in ([1, 0, 3], [1, 1, 0], [0, 2, 2]):
        if mode == "disabled" and env.done.any():
            env.reset(options={"reset_mask": env.done})
            twin.reset(options={"reset_mask": twin.done})
        moody.wrong = True
        with refused(env, error, *says):
            env.step(actions)
        moody.wrong = False
        got, wanted = env.step(actions), twin.step(actions)
        torch.testing.assert_close(got[:4], wanted[:4], rtol=0, atol=0)
        assert snapshot(env) == snapshot(twin)


class StuckAfterB(SequenceEnv):
    def legal(self) -> Tensor:
        return ~((self.tokens == 2) & self.mask).any(1, keepdim=True).expand(-1, len(self.vocab))


def test_an_empty_mask_is_refused_and_names_its_row() -> None:
    env = make(task=StuckAfterB)
    env.reset()
    with refused(env, ValueError, "no token is legal in rows [0, 2]", "at least one"):
        env.step([2, 1, 2])
    env.step([1, 1, 3])


def test_a_finished_row_needs_no_legal_token() -> None:
    env = make(task=StuckAfterB, max_len=1, autoreset_mode="disabled")
    env.reset()
    env.step([2, 2, 2])
    assert not env.action_masks().any()


BAD_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "no room": ({"max_len": 0}, "max_len must be an integer ≥ 1, got 0"),
    "no rows": ({"num_envs": 0}, "num_envs must be an integer ≥ 1, got 0"),
    "half a row": ({"num_envs": 1.5}, "num_envs must be an integer ≥ 1, got 1.5"),
    "no such device": ({"device": "abacus"}, "device 'abacus' is not usable here"),
    "no such mode": ({"autoreset_mode": "sometimes"}, "unknown autoreset_mode 'sometimes'; known: NextStep"),
    "no such picture": ({"render_mode": "rgb_array"}, "render_mode must be None, 'ansi' or 'human'"),
    "no items": ({"items": {"x": torch.zeros(0, 2)}}, "items must have one row per item each, and at least"),
    "ragged items": ({"items": {"x": torch.zeros(3), "y": torch.zeros(4)}}, "got rows {'x': 3, 'y': 4}"),
}


@pytest.mark.parametrize("name", BAD_TASKS)
def test_a_task_that_makes_no_sense_is_refused(name: str) -> None:
    options, says = BAD_TASKS[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        make(**options).begin()


@pytest.mark.parametrize("reward", [None, {}, {"good": value_of, "bad": 1.0}])
def test_a_reward_is_a_function_or_a_dict_of_functions(reward: Any) -> None:
    with pytest.raises(TypeError, match="must be a function"):
        make(reward)
