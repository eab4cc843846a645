"""A bridge to stable-baselines3: its agents on any task of rlseq.

```python
from stable_baselines3 import PPO
env = rlseq.sb3.as_vec_env(rlseq.make("rlseq/Copy-v0", num_envs=64))
reader = {"features_extractor_class": rlseq.sb3.TokenExtractor}
PPO("MultiInputPolicy", env, policy_kwargs=reader).learn(100_000)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Discrete, flatdim
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import Tensor, nn

from rlseq.mdp.sequence_env import sequence_env
from rlseq.mdp.spaces import row_of_info
from rlseq.types import Context, State


def as_vec_env(env: Any) -> VecMonitor:
    """Return a `VecEnv` with the rows of a task, which logs episode returns and lengths as SB3 expects."""
    return VecMonitor(SequenceVecEnv(env))


class SequenceVecEnv(VecEnv):
    """A task as a `VecEnv`: NumPy, rows restart in the same step, the last observation is in `infos`."""

    def __init__(self, env: Any) -> None:
        self.env = sequence_env(env).with_view(tensors=False, autoreset_mode=AutoresetMode.SAME_STEP)
        self.render_mode = self.env.render_mode
        super().__init__(self.env.num_envs, self.env.single_observation_space, self.env.single_action_space)

    def reset(self) -> Any:
        """Start all rows; a seed set by `seed(…)` is used once."""
        observation, info = self.env.reset(seed=self._seeds[0])
        self.reset_infos = [row_of_info(info, row) for row in range(self.num_envs)]
        self._reset_seeds()
        return observation

    def step_async(self, actions: Any) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Take one step in every row."""
        observation, rewards, terminated, truncated, info = self.env.step(self._actions)
        infos = [row_of_info(info, row) for row in range(self.num_envs)]
        for ended in infos:
            if "final_obs" in ended:
                ended["terminal_observation"] = ended.pop("final_obs")
                ended |= {
                    name: value for name, value in ended.pop("final_info").items() if name != "action_mask"
                }
        return observation, rewards, terminated | truncated, infos

    def close(self) -> None:
        """Do nothing: there are no resources to free."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return the attribute, which is the same for every row."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all rows together, since they share one environment."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"rows share one environment; set {attr_name!r} for all of them")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method once; a result with one entry per row (`action_masks`) is split over rows."""
        rows = list(self._get_indices(indices))
        result = getattr(self.env, method_name)(*args, **kwargs)
        by_row = isinstance(result, (Sequence, np.ndarray)) and len(result) == self.num_envs
        return [result[row] if by_row else result for row in rows]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for every row."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[Any]:
        """Return no images."""
        return [None] * self.num_envs


class StockPolicy(nn.Module):
    """The policy of an SB3 agent, as a policy that can write; it reads the whole prefix every time.

    Args:
        policy: `model.policy`.
        max_len: T.
    """

    def __init__(self, policy: Any, max_len: int) -> None:
        super().__init__()
        self.policy, self.max_len = policy, max_len

    def start(self, context: Context) -> State:
        """Return an empty prefix, before the token that starts a text."""
        index = context["index"]
        prefix = torch.zeros(len(index), self.max_len + 1, dtype=torch.int64, device=index.device)
        source = (context["source"],) if "source" in context else ()
        return prefix, torch.full_like(index, -1), *source

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the logits after one more token."""
        prefix, length, *source = state
        longer = prefix.scatter(1, length.clamp(min=0).unsqueeze(1), token.unsqueeze(1))
        prefix = torch.where((length >= 0).unsqueeze(1), longer, prefix)
        length = length + 1
        seen = {"prefix": prefix[:, : self.max_len], "length": length.unsqueeze(1)}
        if source:
            seen["source"] = source[0]
        logits = self.policy.get_distribution(seen).distribution.logits
        return logits, (prefix, length, *source)


def as_policy(model: Any, env: Any) -> Any:
    """Return an SB3 agent as a policy for `rollout`, `evaluate` and `SelfCritical`; it has no `evaluate`.

    Args:
        model: a stable-baselines3 agent with a categorical policy, such as PPO or A2C, or its policy.
        env: the task that it was trained on.
    """
    task, policy = sequence_env(env), getattr(model, "policy", model)
    if not isinstance(policy, ActorCriticPolicy) or not isinstance(policy.action_space, Discrete):
        raise TypeError(
            "model must be a stable-baselines3 agent with a categorical policy, such as PPO or A2C, "
            f"or its policy, got {type(model).__name__}"
        )
    if policy.action_space.n != len(task.vocab):
        raise ValueError(
            f"the policy writes {policy.action_space.n} words, the task has {len(task.vocab)}; "
            "use the task that it was trained on"
        )
    return StockPolicy(policy, task.max_len)


class TokenExtractor(BaseFeaturesExtractor):
    """A network that reads the source, then the prefix, with embeddings and a GRU each.

    SB3 would pass token ids as floats, or one-hot over vocabulary × length. Other observations, such as an
    image, are mapped linearly to the first state of the GRU that reads the prefix.

    Args:
        observation_space: of a task.
        features_dim: width of the features.
        embedding: width of the embeddings.
        source_pad: id that fills up short sources.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        features_dim: int = 128,
        embedding: int = 32,
        source_pad: int = 0,
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.source_pad = source_pad
        self.readers, self.others = nn.ModuleDict(), nn.ModuleDict()
        for name, space in observation_space.spaces.items():
            if name in ("source", "prefix"):
                assert isinstance(space, gym.spaces.Box)
                ids = int(space.high.max()) + 1
                self.readers[name] = _Reader(ids, embedding, features_dim)
            elif name != "length":
                self.others[name] = nn.Linear(flatdim(space), features_dim)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return features `[B, features_dim]` of preprocessed (float) observations."""
        start: Tensor | None = None
        if "source" in self.readers:
            source = observations["source"].long()
            start = self.readers["source"](source, (source != self.source_pad).sum(1), None)
        for name, other in self.others.items():
            seen = other(observations[name].flatten(1))
            start = seen if start is None else start + seen
        length = observations["length"].long().squeeze(1)
        features: Tensor = self.readers["prefix"](observations["prefix"].long(), length, start)
        return features


class _Reader(nn.Module):
    """The state of a GRU after `length` tokens; its start state where there are none."""

    def __init__(self, ids: int, embedding: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ids, embedding)
        self.gru = nn.GRU(embedding, width, batch_first=True)

    def forward(self, tokens: Tensor, length: Tensor, start: Tensor | None) -> Tensor:
        if start is None:
            start = torch.zeros(len(tokens), self.gru.hidden_size, device=tokens.device)
        states, _ = self.gru(self.embedding(tokens), start.unsqueeze(0))
        states = torch.cat([start.unsqueeze(1), states], 1)
        return states[torch.arange(len(tokens), device=tokens.device), length]
