"""The bridge to stable-baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

import rlseq
from rlseq.adapters.sb3 import TokenExtractor, as_vec_env
from rlseq.mdp.registry import ids

SMALL: dict[str, dict[str, Any]] = {
    "rlseq/Enumerable-v0": {},
    "rlseq/Captions-v0": {"scenes": 20},
    "rlseq/Boxes-v0": {"scenes": 20},
}
READER: dict[str, Any] = {
    "features_extractor_class": TokenExtractor,
    "features_extractor_kwargs": {"features_dim": 32, "embedding": 8},
}


@pytest.mark.parametrize("id", ids())
@pytest.mark.parametrize("agent", [PPO, A2C])
@pytest.mark.parametrize("kwargs", [{}, READER], ids=["plain", "reader"])
def test_stock_agents_train_on_every_task(id: str, agent: type[BaseAlgorithm], kwargs: Any) -> None:
    words = {"vocab_size": 20} if id.split("/")[1].split("-")[0] in ("Copy", "Reverse", "Oracle") else {}
    env = as_vec_env(rlseq.make(id, num_envs=4, **SMALL.get(id, words)))
    arguments: dict[str, Any] = {"n_steps": 8} | ({"batch_size": 16} if agent is PPO else {})
    model = agent("MultiInputPolicy", env, policy_kwargs=dict(kwargs), seed=0, device="cpu", **arguments)
    model.learn(32)
    assert model.num_timesteps == 32


def test_ppo_improves_on_a_small_copy() -> None:
    env = as_vec_env(rlseq.make("rlseq/Copy-v0", num_envs=64, vocab_size=3, length=2))
    model = PPO(
        "MultiInputPolicy",
        env,
        policy_kwargs=READER,
        n_steps=12,
        batch_size=256,
        n_epochs=5,
        learning_rate=3e-3,
        gamma=1.0,
        ent_coef=0.01,
        seed=0,
        device="cpu",
    )
    rewards: list[float] = []

    def log(local: dict[str, Any], _: Any) -> bool:
        rewards.extend(info["episode"]["r"] for info in local["infos"] if "episode" in info)
        return True

    model.learn(9000, callback=log)
    assert np.mean(rewards[:300]) < 0.5
    assert np.mean(rewards[-300:]) > 0.75


def test_episodes_end_as_sb3_expects() -> None:
    env = as_vec_env(rlseq.make("rlseq/Copy-v0", num_envs=2, length=2, seed=3))
    first: Any = env.reset()
    observation: Any
    observation, rewards, dones, infos = env.step(np.array([1, 0]))
    assert dones.tolist() == [False, True]
    assert "terminal_observation" not in infos[0]
    last = infos[1]["terminal_observation"]
    assert last["length"].tolist() == [1]
    assert last["source"].tolist() == first["source"][1].tolist()
    assert observation["length"].tolist() == [[1], [0]]
    assert infos[1]["text"] == ""
    assert infos[1]["episode"]["r"] == pytest.approx(float(rewards[1]))
    assert infos[1]["reward_parts"]["accuracy"] == pytest.approx(float(rewards[1]))


def test_the_bridge_leaves_the_task_as_it_is() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=2)
    bridged = as_vec_env(env)
    bridged.reset()
    assert env.tensors
    assert not env.context
    assert isinstance(env.reset()[0]["prefix"], torch.Tensor)


def test_seeds_make_the_same_episodes() -> None:
    def first(seed: int) -> Any:
        env = as_vec_env(rlseq.make("rlseq/Copy-v0", num_envs=5))
        env.seed(seed)
        observation = env.reset()
        assert isinstance(observation, dict)
        return observation["source"].tolist()

    assert first(1) == first(1) != first(2)


def test_action_masks_are_dealt_out_as_maskable_ppo_asks() -> None:
    env = as_vec_env(rlseq.make("rlseq/Copy-v0", num_envs=3))
    env.reset()
    masks = env.env_method("action_masks")
    assert np.stack(masks).shape == (3, 8)
    assert np.stack(masks).dtype == bool
    assert len(env.env_method("action_masks", indices=[1])) == 1


def test_the_reader_ignores_what_is_not_written() -> None:
    env: Any = rlseq.make("rlseq/Copy-v0", num_envs=1)
    reader = TokenExtractor(env.single_observation_space, 16, 8)
    seen = {
        "prefix": torch.tensor([[3.0, 4, 0, 0, 0, 0], [3, 4, 7, 7, 7, 7]]),
        "length": torch.tensor([[2.0], [2]]),
        "source": torch.tensor([[5.0, 6, 0, 0, 0], [5, 6, 0, 0, 0]]),
    }
    features = reader(seen)
    torch.testing.assert_close(features[0], features[1])
    seen["source"][1, 2] = 1
    assert not torch.allclose(reader(seen)[0], reader(seen)[1])


def test_stable_baselines_makes_tasks_by_their_ids() -> None:
    """It asks for pictures first, which texts do not have."""
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("rlseq/Copy-v0", n_envs=2, seed=0)
    model = A2C("MultiInputPolicy", env, policy_kwargs=READER, n_steps=4, seed=0, device="cpu")
    model.learn(16)
    assert model.num_timesteps == 16


def test_a_stock_agent_and_its_policy_write_the_same() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=4)
    model = A2C("MultiInputPolicy", as_vec_env(env), policy_kwargs=READER, seed=0, device="cpu")
    written = [
        rlseq.rollout(rlseq.sb3.as_policy(thing, env), env, decode=rlseq.Greedy(), index=torch.arange(4))
        for thing in (model, model.policy)
    ]
    assert torch.equal(written[0].actions, written[1].actions)
    other = rlseq.make("rlseq/Copy-v0", num_envs=4, vocab_size=20)
    with pytest.raises(ValueError, match=r"the policy writes 8 words, the task has 20"):
        rlseq.sb3.as_policy(model, other)
    with pytest.raises(TypeError, match="or its policy, got Linear"):
        rlseq.sb3.as_policy(torch.nn.Linear(2, 2), env)
