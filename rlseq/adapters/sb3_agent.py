"""Stock stable-baselines3 agents as controls, behind our own loop, counts and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3 import A2C, PPO

from rlseq.adapters.sb3 import StockPolicy, TokenExtractor, as_vec_env
from rlseq.mdp.sequence_env import sequence_env
from rlseq.policy_gradient.agent import Agent
from rlseq.types import Metrics
from rlseq.utils.errors import check_options, pick

ALGORITHMS = {"sb3-a2c": A2C, "sb3-ppo": PPO}
BATCH = 2048  # tokens of an iteration, where `n_steps` is not given


@dataclass(eq=False)
class StockAgent(Agent):
    """An SB3 agent with its own network; an update is one of its iterations, collecting included."""

    for_ranks: ClassVar[bool] = False

    model: Any = None

    def __post_init__(self) -> None:
        self.optimizer = self.model.policy.optimizer
        self.trial = None  # stable-baselines3 computes in its own way

    def set_progress(self, done: float) -> None:
        """Do nothing: stable-baselines3 sets the step size."""

    def collect(self, env: Any) -> Any:
        """Return nothing: `update` collects."""

    def loss(self, batch: Any) -> Any:
        """Refuse: a stock agent has no loss of this kind."""
        raise NotImplementedError("an agent of stable-baselines3 has no loss here; call update")

    def update(self, batch: Any) -> Metrics:
        """Collect and train once, and count tokens and episodes."""
        rows, counts = self.model.env, self.model.env.unwrapped.env.counts
        tokens, texts = self.model.num_timesteps, rows.episode_count
        self.model.learn(self.model.n_steps * rows.num_envs, reset_num_timesteps=False)
        counts.generated_tokens += self.model.num_timesteps - tokens
        counts.episodes += rows.episode_count - texts
        recent = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        return {"reward": torch.tensor(float(np.mean(recent)) if recent else 0.0)}


def stock_agent(name: str, env: Any, **hyper: Any) -> StockAgent:
    """An SB3 agent on a task of ours.

    Args:
        name: "sb3-a2c" or "sb3-ppo".
        env: the task.
        **hyper: of the stock class.
    """
    task = sequence_env(env)
    cls = pick(ALGORITHMS, name, "stock agent")
    check_options(hyper, signature(cls).parameters, cls.__name__)
    reader: dict[str, Any] = {"features_extractor_class": TokenExtractor}
    if task.source_vocab is not None:
        reader["features_extractor_kwargs"] = {"source_pad": task.source_vocab.pad}
    own = {"n_steps": max(1, BATCH // task.num_envs), "seed": task.seed, "device": task.device}
    model = cls("MultiInputPolicy", as_vec_env(task), **{**own, "policy_kwargs": reader, **hyper})
    return StockAgent(StockPolicy(model.policy, task.max_len), model=model)
