"""Other people's code on our tasks, unmodified: checkers, wrappers, vectorisers, a CleanRL-like script."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor, nn

from rlseq.mdp.registry import ids

torch.set_num_threads(1)
SMALL: dict[str, dict[str, Any]] = {
    "rlseq/Oracle-v0": {"references": 20},
    "rlseq/Captions-v0": {"scenes": 20},
    "rlseq/Boxes-v0": {"scenes": 20},
}
every_id = pytest.mark.parametrize("id", ids())


@every_id
@pytest.mark.parametrize("mode", [None, "ansi"])
def test_gymnasium_s_checker_has_nothing_to_say(id: str, mode: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(id, render_mode=mode, **SMALL.get(id, {})).unwrapped)


@every_id
def test_stable_baselines3_s_checker_has_nothing_to_say(id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(gym.make(id, **SMALL.get(id, {})))
        sb3_check_env(gym.make(id, **SMALL.get(id, {})).unwrapped)


@every_id
def test_a_task_can_be_made_again_from_its_spec(id: str) -> None:
    env = gym.make(id, **SMALL.get(id, {}))
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert str(again.reset(seed=1)[0]) == str(env.reset(seed=1)[0])


def test_an_id_with_its_module_needs_no_import() -> None:
    script = (
        "import gymnasium as gym; env = gym.make('rlseq:rlseq/Copy-v0'); env.reset(seed=0); env.step(1);"
        "vec = gym.make_vec('rlseq:rlseq/Copy-v0', num_envs=3); print(vec.reset(seed=0)[0]['prefix'].shape)"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(3, 6)\n", "")


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2], ids=lambda mode: mode.value)
def test_episode_statistics_are_recorded(mode: AutoresetMode) -> None:
    """Returns and lengths of whole episodes, none counted twice, none merged with the next."""
    env: Any = RecordEpisodeStatistics(gym.make_vec("rlseq/Copy-v0", num_envs=4, autoreset_mode=mode))
    random = np.random.default_rng(0)
    env.reset(seed=0)
    returns: list[float] = []
    lengths: list[int] = []
    score, length = np.zeros(4), np.zeros(4, int)
    fresh = np.zeros(4, bool)
    for _ in range(200):
        _, reward, ended, _, info = env.step(random.integers(8, size=4))
        score, length = score + reward, length + ~fresh
        if ended.any():
            np.testing.assert_allclose(info["episode"]["r"][ended], score[ended], rtol=1e-5)
            assert info["episode"]["l"][ended].tolist() == length[ended].tolist()
            returns += score[ended].tolist()
            lengths += length[ended].tolist()
        score[ended], length[ended] = 0, 0
        fresh = ended & (mode is AutoresetMode.NEXT_STEP)
    assert len(returns) > 100
    np.testing.assert_allclose(list(env.return_queue), returns[-100:], rtol=1e-5)
    assert list(env.length_queue) == lengths[-100:]


def test_infos_turn_into_lists() -> None:
    env: Any = DictInfoToList(gym.make_vec("rlseq/Copy-v0", num_envs=2))
    assert [set(info) for info in env.reset()[1]] == [{"action_mask"}] * 2
    infos = env.step(np.array([0, 1]))[4]
    assert [set(info) for info in infos] == [{"action_mask", "text", "reward_parts"}, {"action_mask"}]


def test_processes_of_their_own_play_the_same() -> None:
    def one_copy() -> gym.Env[Any, Any]:  # a closure, so that processes need not import this file
        return gym.make("rlseq:rlseq/Copy-v0")

    asynchronous = AsyncVectorEnv([one_copy] * 2, context="spawn")
    try:
        envs: tuple[Any, Any] = asynchronous, SyncVectorEnv([one_copy] * 2)
        seen: list[list[Any]] = [[env.reset(seed=4)] for env in envs]
        for action in (1, 0, 3, 2, 0, 1):
            for env, steps in zip(envs, seen, strict=True):
                steps.append(env.step(np.array([action, 2]))[:4])
        assert str(seen[0]) == str(seen[1])
    finally:
        asynchronous.close()


# ── a script in the manner of CleanRL's ppo.py, which knows nothing of us but an id ──────────────────


class Actor(nn.Module):
    def __init__(self, envs: Any) -> None:
        super().__init__()
        self.spaces = dict(envs.single_observation_space.spaces)
        empty = {name: torch.zeros(1, *space.shape) for name, space in self.spaces.items()}
        self.body = nn.Sequential(nn.Linear(self.seen(empty).shape[1], 64), nn.Tanh())
        self.actor, self.critic = nn.Linear(64, envs.single_action_space.n), nn.Linear(64, 1)

    def seen(self, obs: dict[str, Tensor]) -> Tensor:
        """Words as one-hot vectors, other numbers as they are."""
        ids = {name: int(self.spaces[name].high.max()) + 1 for name in ("prefix", "source") if name in obs}
        hot = [nn.functional.one_hot(obs[name].long(), size).flatten(1) for name, size in ids.items()]
        return torch.cat(
            [*hot, *(obs[name].flatten(1) for name in self.spaces if name not in ids)], 1
        ).float()

    def forward(self, obs: dict[str, Tensor]) -> tuple[torch.distributions.Categorical, Tensor]:
        hidden = self.body(self.seen(obs))
        return torch.distributions.Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(1)


def ppo(envs: Any, updates: int, steps: int = 12, gamma: float = 1.0, clip: float = 0.2) -> list[float]:
    torch.manual_seed(0)
    agent = Actor(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2)
    next_obs, _ = envs.reset(seed=1)
    next_done = np.zeros(envs.num_envs, bool)
    history = []
    for _ in range(updates):
        rows: list[tuple[Any, ...]] = []
        episodes: list[float] = []
        for _ in range(steps):
            obs, done = {k: torch.tensor(v) for k, v in next_obs.items()}, torch.tensor(next_done)
            with torch.no_grad():
                dist, value = agent(obs)
            action = dist.sample()
            next_obs, reward, terminations, truncations, infos = envs.step(action.numpy())
            next_done = np.logical_or(terminations, truncations)
            rows.append((obs, action, dist.log_prob(action), torch.tensor(reward), done, value))
            episodes += infos["episode"]["r"][infos["_episode"]].tolist() if "episode" in infos else []
        with torch.no_grad():
            running = agent({k: torch.tensor(v) for k, v in next_obs.items()})[1]
        ended, returns = torch.tensor(next_done), list[Tensor]()
        for *_, reward, done, _ in reversed(rows):
            running = reward + gamma * running * ~ended
            returns.insert(0, running)
            ended = done
        obs = {k: torch.cat([row[0][k] for row in rows]) for k in rows[0][0]}
        action, old, _, begun, value = (torch.cat([row[i] for row in rows]) for i in (1, 2, 3, 4, 5))
        advantage, real = torch.cat(returns) - value, ~begun  # next-step autoreset: that step is no action
        for _ in range(4):
            dist, new_value = agent(obs)
            ratio = (dist.log_prob(action) - old).exp()
            gain = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
            loss = -gain[real].mean() + 0.5 * (new_value - torch.cat(returns))[real].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history.append(float(np.mean(episodes)))
    return history


def test_a_script_that_only_knows_gymnasium_learns() -> None:
    envs = gym.make_vec("rlseq/Copy-v0", num_envs=32, vocab_size=3, length=2)
    history = ppo(RecordEpisodeStatistics(envs), updates=20)
    assert np.mean(history[:3]) < 0.5
    assert np.mean(history[-3:]) > 0.8


@every_id
def test_the_script_trains_on_every_id(id: str) -> None:
    small: dict[str, Any] = {"vocab_size": 30, "length": 5, "hidden": 8} if id == "rlseq/Oracle-v0" else {}
    envs: Any = gym.make_vec(id, num_envs=4, **SMALL.get(id, {}), **small)
    longest = envs.single_observation_space["prefix"].shape[0]
    assert np.isfinite(ppo(RecordEpisodeStatistics(envs), updates=2, steps=longest + 1)).all()
