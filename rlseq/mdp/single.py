"""`SingleEnv`: a task of one row, which `gym.make` returns."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import torch

from rlseq.mdp.sequence_env import Observation, SequenceEnv
from rlseq.mdp.spaces import Info, row_of_info

# The threads of a parent do not exist in a forked child (`gymnasium.vector.AsyncVectorEnv` forks), where the
# first parallel operation would wait for them without end; one row has no use for more than one thread.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class SingleEnv(gym.Env[Observation, int]):
    """A `SequenceEnv` of one row as an ordinary Gymnasium environment."""

    def __init__(self, batch: SequenceEnv) -> None:
        self.batch = batch
        self.metadata = {name: value for name, value in batch.metadata.items() if name != "autoreset_mode"}
        self.render_mode = batch.render_mode
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start an episode; `options={"index": [item]}` chooses what it is about."""
        observation, info = self.batch.reset(seed=seed, options=options)  # first, as it may raise an error
        super().reset(seed=seed)
        return row_of_info(observation, 0), row_of_info(info, 0)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Info]:
        """Write one token."""
        observation, reward, *ended, info = self.batch.step([action])
        terminated, truncated = (bool(rows[0]) for rows in ended)
        return row_of_info(observation, 0), float(reward[0]), terminated, truncated, row_of_info(info, 0)

    def action_masks(self) -> Any:
        """Return the legal tokens, bool `[V]`."""
        return self.batch.action_masks()[0]

    def render(self) -> Any:
        """Return the source and the prefix as text, or print them."""
        lines = self.batch.render()
        return lines if lines is None else lines[0]
