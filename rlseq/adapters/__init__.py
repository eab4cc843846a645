"""Adapters: any Gymnasium environment as a task, and stable-baselines3."""

from __future__ import annotations

from rlseq.adapters.gym_env import GymEnv as GymEnv
from rlseq.policies.normalize import ReturnScale as ReturnScale
