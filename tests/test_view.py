"""Gymnasium's contract: one task, seen as a vector env, as one row, and as the engine sees it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import rlseq
from rlseq.mdp.registry import ids
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Context
from rlseq.vocab import Vocab

torch.set_num_threads(1)
MODES = list(AutoresetMode)
SMALL: dict[str, dict[str, Any]] = {
    "rlseq/Oracle-v0": {"vocab_size": 30, "length": 5, "references": 20, "hidden": 8},
    "rlseq/Captions-v0": {"scenes": 20},
    "rlseq/Numbers-v0": {"below": 100},
    "rlseq/PlayOrStudy-v0": {"delay": 3},
    "rlseq/Boxes-v0": {"scenes": 20, "objects": 2},
    "rlseq/Chat-v0": {"turns": 2, "user": "self"},
}


def steps_of(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A dense reward: row- and position-coded, rubbish where nothing is written."""
    places = tokens + 10.0 * torch.arange(tokens.shape[1]) + 100.0 * context["index"].unsqueeze(1)
    return places.masked_fill(~mask, torch.inf)


def both(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    return mask.sum(1) + context["index"]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{id: (id, SMALL.get(id, {})) for id in ids()},
    "dense": ("rlseq/Copy-v0", {"reward": steps_of}),
    "dense without eos": ("rlseq/Oracle-v0", {**SMALL["rlseq/Oracle-v0"], "reward": steps_of}),
    "dense and terminal": ("rlseq/Reverse-v0", {"reward": {"steps": steps_of, "both": both}}),
    "fixed length": ("rlseq/Enumerable-v0", {"sources": 5, "ends": False}),
    "sources": ("rlseq/Enumerable-v0", {"sources": 5}),
    "length one": ("rlseq/Enumerable-v0", {"length": 1, "sources": 3}),
    "another side speaks": ("rlseq/Chat-v0", {"turns": 2}),
    "another side asks again": ("rlseq/Chat-v0", {"turns": 2, "user": "asks_again"}),
}
every_case = pytest.mark.parametrize("case", CASES)
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)


@lru_cache(maxsize=1)
def made(case: str) -> gym.Env[Any, Any]:
    """A one-row environment, to be copied: some tasks take half a second to read texts and fit metrics."""
    id, options = CASES[case]
    env = gym.make(id, **options)
    env.reset()
    while not env.step(env.action_space.sample())[2]:
        pass
    return env


def sync(case: str, rows: int, mode: AutoresetMode) -> SyncVectorEnv:
    """What Gymnasium itself makes of one-row environments."""
    return SyncVectorEnv([lambda: deepcopy(made(case))] * rows, autoreset_mode=mode)


def native(case: str, rows: int, mode: AutoresetMode) -> Any:
    id, options = CASES[case]
    return gym.make_vec(id, num_envs=rows, autoreset_mode=mode, **options)


def agree(ours: Any, theirs: Any, rows: np.ndarray[Any, Any]) -> None:
    """Equal layout; equal flags in all rows; equal values in `rows`, where an entry is flagged."""
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        mine, there = ours[name], rows & theirs.get(f"_{name}", rows)
        if isinstance(value, dict):
            agree(mine, value, there)
        elif value.dtype == object:
            assert mine.dtype == object
            assert [x is None for x in mine] == [x is None for x in value]
            for a, b in zip(mine[there], value[there], strict=True):
                equal(a, b)
        else:
            assert mine.dtype == value.dtype
            assert mine.shape == value.shape
            seen = slice(None) if name.startswith("_") else there
            np.testing.assert_allclose(mine[seen], value[seen], rtol=1e-6, err_msg=name)


def equal(a: Any, b: Any) -> None:
    """Equal nested values, of equal types."""
    if isinstance(a, Mapping):
        assert set(a) == set(b)
        for name in a:
            equal(a[name], b[name])
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def agree_in_step(ours: Any, theirs: Any, rows: np.ndarray[Any, Any], mode: AutoresetMode) -> None:
    """Equal steps in `rows`; their next episodes, which same-step autoreset begins here, may differ."""
    going_on = rows & ~theirs[2] if mode is AutoresetMode.SAME_STEP else rows
    agree(ours[0], theirs[0], going_on)
    np.testing.assert_allclose(ours[1][rows], theirs[1][rows], rtol=1e-6, err_msg="rewards")
    for i in (2, 3):
        np.testing.assert_array_equal(ours[i], theirs[i])
    legal = ("action_mask", "_action_mask")  # of the next word, which may be that of the next episode
    for names, compared in ((legal, going_on), (set(theirs[4]).difference(legal), rows)):
        mine, other = ({name: info[name] for name in info if name in names} for info in (ours[4], theirs[4]))
        agree(mine, other, compared)
    assert set(ours[4]) == set(theirs[4])


def restart(env: SyncVectorEnv, items: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> Any:
    """Start some rows of Gymnasium's vector env, each with an item of its own."""
    for row in rows.nonzero()[0]:
        only = np.arange(len(rows)) == row
        observation, _ = env.reset(options={"index": items[[row]], "reset_mask": only})
    return observation


# ── the views are one task ───────────────────────────────────────────────────────────────────────────

ROWS, ROUNDS = 20, 4  # with three modes, 240 episodes of each of these tasks
FEWER_ROWS, FEWER_ROUNDS = 10, 2  # and 60 of every other case, which share all that plays episodes
LONG = [f"rlseq/{name}-v0" for name in ("Copy", "Reverse", "Enumerable", "Oracle", "Captions")]
LONG += [f"rlseq/{name}-v0" for name in ("Parallel", "G2P", "Numbers", "Text", "HMM")]


@every_mode
@every_case
def test_the_views_play_the_same_episodes(case: str, mode: AutoresetMode) -> None:
    """Vector env, one-row envs under Gymnasium's own vectoriser, and append × T + score."""
    id, options = CASES[case]
    rows, rounds = (ROWS, ROUNDS) if case in LONG else (FEWER_ROWS, FEWER_ROUNDS)
    engine = rlseq.make(id, rows, **options)
    ours, theirs = native(case, rows, mode), sync(case, rows, mode)
    random, everyone = np.random.default_rng(0), np.ones(rows, bool)
    theirs.reset()
    for _ in range(rounds):
        items = random.integers(engine.size, size=rows)
        actions = random.integers(ours.single_action_space.n, size=(engine.max_len, rows))
        agree(ours.reset(options={"index": items})[0], restart(theirs, items, everyone), everyone)
        engine.begin(index=torch.from_numpy(items))
        rewards, first = np.zeros((rows, engine.max_len)), everyone.copy()
        for t, action in enumerate(actions):
            engine.append(torch.from_numpy(action))
            step = ours.step(action)
            agree_in_step(step, theirs.step(action), first, mode)
            rewards[first, t] = step[1][first]
            ended = step[2]
            assert (ended[first] == engine.done.numpy()[first]).all()
            first = first & ~ended
            if mode is AutoresetMode.DISABLED and ended.any():
                begun = ours.reset(options={"index": items, "reset_mask": ended})[0]
                agree(begun, restart(theirs, items, ended), everyone)
        assert not first.any()
        np.testing.assert_allclose(rewards, engine.score().numpy(), rtol=1e-5, atol=1e-6)


@every_mode
@every_case
def test_one_row_goes_on_as_gymnasium_s_own_vector_env_does(case: str, mode: AutoresetMode) -> None:
    """With one seed, contexts drawn at every restart are equal too: so is everything."""
    ours, theirs, row = native(case, 1, mode), sync(case, 1, mode), np.ones(1, bool)
    for a, b in zip(ours.reset(seed=11), theirs.reset(seed=11), strict=True):
        agree(a, b, row)
    random = np.random.default_rng(1)
    for _ in range(60):
        action = random.integers(ours.single_action_space.n, size=1)
        step = ours.step(action)
        agree_in_step(step, theirs.step(action), row, mode)
        if mode is AutoresetMode.DISABLED and step[2].all():
            for a, b in zip(ours.reset(), theirs.reset(), strict=True):
                agree(a, b, row)


@every_mode
@every_case
def test_tensors_and_arrays_say_the_same(case: str, mode: AutoresetMode) -> None:
    id, options = CASES[case]
    arrays = native(case, 5, mode)
    tensors = rlseq.make(id, 5, autoreset_mode=mode, **options)
    equal(arrays.reset(seed=2), tensors.reset(seed=2))
    random = np.random.default_rng(2)
    for _ in range(20):
        action = random.integers(arrays.single_action_space.n, size=5)
        step, other = tensors.step(torch.from_numpy(action)), arrays.step(action)
        assert all(isinstance(x, Tensor) for x in step[1:4])
        assert arrays.observation_space.contains(other[0])
        for a, b in zip(other[:4], step[:4], strict=True):
            equal(a, b)
        assert set(other[4]) == set(step[4])
        equal(arrays.action_masks(), tensors.action_masks())
        if mode is AutoresetMode.DISABLED and other[2].any():
            equal(*(env.reset(options={"reset_mask": other[2]})[0] for env in (arrays, tensors)))


@every_case
def test_the_same_seed_gives_the_same_episodes(case: str) -> None:
    def play(seed: int) -> list[Any]:
        env = native(case, 4, AutoresetMode.NEXT_STEP)
        env.reset(seed=3)
        env.step([0] * 4)
        seen = [env.reset(seed=seed)]
        return seen + [env.step([t % 2] * 4)[:4] for t in range(10)]

    equal(tuple(play(5)), tuple(play(5)))


def test_another_seed_gives_other_episodes() -> None:
    env = gym.make_vec("rlseq/Copy-v0", num_envs=8)
    first, other = (env.reset(seed=seed)[0]["source"] for seed in (1, 2))
    unseeded = [gym.make_vec("rlseq/Copy-v0", num_envs=8).reset()[0]["source"] for _ in range(2)]
    assert not (first == other).all()
    assert not (unseeded[0] == unseeded[1]).all()


@pytest.mark.parametrize("seeds", [[3, 4], (3, 4), [3], np.array([3, 4]), torch.tensor([3, 4])])
def test_a_seed_for_each_row_is_refused_and_changes_nothing(seeds: Any) -> None:
    """They were hashed into one, so that a row's episode did not depend on its seed alone."""
    env, twin = (gym.make_vec("rlseq/Copy-v0", num_envs=2) for _ in range(2))
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(TypeError, match="seed must be one integer, as all rows draw from one generator"):
        env.reset(seed=seeds)
    equal(env.reset(), twin.reset())
    assert env.unwrapped.seed == 1  # type: ignore[attr-defined]


def test_rows_of_gymnasiums_own_vector_environment_have_a_seed_each() -> None:
    def first(seeds: list[int]) -> Any:
        rows = gym.vector.SyncVectorEnv([lambda: gym.make("rlseq/Copy-v0")] * 2)
        return rows.reset(seed=seeds)[0]["source"]  # type: ignore[arg-type]

    assert (first([3, 4])[0] == first([3, 5])[0]).all()
    assert not (first([3, 4])[1] == first([3, 5])[1]).all()


# ── autoreset, spelled out ───────────────────────────────────────────────────────────────────────────


def play(mode: str, *columns: list[int]) -> list[Any]:
    """Steps of two rows of Copy, V 3 and length 1, whose sources are `a` and `b`."""
    env: Any = rlseq.make("rlseq/Copy-v0", 2, vocab_size=3, length=1, autoreset_mode=mode)
    sources = [int((env.items["source"] == word).nonzero()[0, 0]) for word in (1, 2)]
    env.reset(options={"index": sources})
    return [env.step(column) for column in columns]


def test_next_step_spends_a_step_on_the_restart() -> None:
    ended, restarted, going_on = play("NextStep", [0, 2], [2, 0], [1, 1])
    assert ended[2].tolist() == [True, False]
    assert ended[0]["prefix"].tolist() == [[0, 0], [2, 0]]
    assert ended[0]["length"].tolist() == [[1], [1]]
    assert ended[4]["text"].tolist() == ["", None]
    assert restarted[2].tolist() == [False, True]
    assert restarted[1].tolist() == [0, 1]
    assert restarted[0]["length"].tolist() == [[0], [2]]  # what row 0 was told to write is ignored
    assert restarted[4]["text"].tolist() == [None, "b"]
    assert restarted[4]["reward_parts"]["accuracy"].tolist() == [0, 1]
    assert going_on[0]["length"].tolist() == [[1], [0]]


def test_same_step_hands_over_the_last_observation_and_info() -> None:
    (step,) = play("same_step", [0, 2])
    assert step[2].tolist() == [True, False]
    assert step[0]["length"].tolist() == [[0], [1]]
    assert step[4]["_final_obs"].tolist() == [True, False]
    assert step[4]["final_obs"][0]["length"].tolist() == [1]
    assert step[4]["final_info"]["text"].tolist() == ["", None]
    assert "text" not in step[4]


@every_mode
def test_the_mode_is_declared(mode: AutoresetMode) -> None:
    for env in (native("sources", 2, mode), rlseq.make("rlseq/Copy-v0", autoreset_mode=mode.value)):
        assert env.metadata["autoreset_mode"] is mode
    assert rlseq.make("rlseq/Copy-v0").metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert "autoreset_mode" not in gym.make("rlseq/Copy-v0").metadata


def test_another_view_of_a_task_has_episodes_of_its_own() -> None:
    env: Any = rlseq.make("rlseq/Copy-v0", 2)
    env.reset()
    env.step([1, 2])
    other = env.with_view(tensors=False, autoreset_mode="SameStep")
    assert other.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    with pytest.raises(ValueError, match="never reset"):
        other.step([1, 1])
    assert isinstance(other.reset()[0]["prefix"], np.ndarray)
    other.step([3, 3])
    assert env.tokens[:, :2].tolist() == [[1, 0], [2, 0]]


def test_observations_are_not_changed_by_later_steps() -> None:
    env = gym.make_vec("rlseq/Copy-v0", num_envs=2)
    seen = [env.reset(seed=0)[0], *(env.step(np.array([t, t]))[0] for t in (1, 2, 3))]
    assert [x["length"][0, 0] for x in seen] == [0, 1, 2, 3]
    assert seen[2]["prefix"].tolist() == [[1, 2, 0, 0, 0, 0]] * 2


def test_observations_are_the_callers_own() -> None:
    words = torch.arange(1, 4, dtype=torch.int32).view(3, 1)
    env: Any = SequenceEnv(
        vocab=Vocab.numbered(4), max_len=2, reward=both, items={"source": words}, tensors=False, seed=0
    )
    env.reset()[0]["source"][:] = 0
    assert env.context["source"].item() > 0


def test_parts_of_rewards_are_zero_where_no_episode_ended() -> None:
    env = gym.make_vec("rlseq/Copy-v0", num_envs=2, reward=steps_of)
    env.reset(options={"index": [0, 1]})
    info = env.step(np.array([1, 0]))[4]
    assert info["reward_parts"]["reward"].tolist() == [0, 100]
    assert info["_reward_parts"].tolist() == info["reward_parts"]["_reward"].tolist() == [False, True]


def test_a_terminal_reward_is_asked_once_what_it_is_and_then_only_at_the_end() -> None:
    asked = []

    def reward(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        asked.append(mask.sum(1).tolist())
        return mask.sum(1)

    env = gym.make_vec("rlseq/Copy-v0", num_envs=2, reward=reward)
    env.reset()
    for actions in ([1, 1], [2, 0], [1, 1], [0, 1]):
        env.step(np.array(actions))
    assert asked == [[1, 1], [2], [4]]
