"""Any Gymnasium environment of fixed-size observations, as something that agents collect from.

    env = rlseq.adapters.GymEnv("CartPole-v1", num_envs=8, steps=32)
    policy = rlseq.make_policy("mlp", env, value=True)
    rlseq.train(rlseq.make_agent("ppo", policy, lr=1e-3), env, updates=400)

A batch is a segment of T steps of B rows. Where a row is cut off without being over (by a time limit, or
at the end of the segment), what would have come is worth V of the state reached (`bootstrap`, see
rlseq.returns; Pardo et al. 2018); a policy without V says nothing of it, and 0 is taken. All three of
Gymnasium's autoreset modes give the same returns; in NextStep mode the step that only resets is False in the
mask.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rlseq.adapters.actions import Actions, chosen
from rlseq.adapters.autoreset import advance, own
from rlseq.engine.decode import Decode, Sample
from rlseq.mdp.checks import autoreset_mode_of, checked_rows, usable_device
from rlseq.policies.mlp import MLP
from rlseq.types import Behaviour, Counts, EpisodeStats, Rollout, SteppedEnv
from rlseq.utils.modules import eval_mode
from rlseq.utils.ranks import ALONE, Rank, everyones
from rlseq.utils.stateful import load_states, set_generator, states_of

Rewards = Callable[[Tensor, Tensor], Tensor]  # (rewards, ends), [B, T] each -> what is learned from
EPISODES_REPORTED = 100  # episodes, the last ones, whose mean is the reward that is reported


def as_paid(rewards: Tensor, ends: Tensor) -> Tensor:
    """Return the rewards of the environment."""
    return rewards


class Episode(NamedTuple):
    """The result of an episode."""

    reward: float  # its return
    length: int
    cut: bool  # by a time limit


class GymStep(NamedTuple):
    """One step of B rows; arrays have B rows."""

    observed: Any
    said: Tensor  # what the policy's `step` returned
    action: Tensor
    support: Tensor | None  # the actions that were allowed, if not all
    rewards: Any
    real: Any  # False where the step only reset a row
    ends: Any
    terminated: Any
    reached: Any  # what was observed after the action, before any reset
    episodes: dict[int, Episode]  # those that ended, by row


class GymEnv(SteppedEnv):
    """B episodes of a Gymnasium environment in lock-step, T steps at a time.

    Args:
        env: an id, or a `gymnasium.vector.VectorEnv` in any autoreset mode.
        num_envs: B, of an id.
        steps: T, steps of every row in a batch.
        seed: of the environment and of sampling.
        rewards: what is learned from (`rlseq.adapters.ReturnScale()`, say); reported are returns as paid.
        device: where the policy is.
        **options: of `gymnasium.make_vec`, where an id is given.
    """

    def __init__(
        self,
        env: Any,
        num_envs: int | None = None,
        steps: int = 128,
        *,
        seed: int = 0,
        rewards: Rewards = as_paid,
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> None:
        if steps < 2:  # one step could be one that only resets
            raise ValueError(f"steps must be ≥ 2, got {steps}")
        self.device, self.seed, self.steps, self.rewards = usable_device(device), seed, steps, rewards
        self.env, self._made_from = checked_env(env, num_envs, options), (env, options)
        self.num_envs = self.env.num_envs
        self.single_observation_space = self.env.single_observation_space
        self.single_action_space = self.env.single_action_space
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.last: deque[Episode] = deque(maxlen=EPISODES_REPORTED)
        self.episodes = EpisodeStats(*torch.zeros(3, 0, device=self.device))
        self._mode = autoreset_mode_of(self.env.metadata["autoreset_mode"])
        self.counts, self.rank = Counts(), ALONE
        self._begin(seed)

    def of_rank(self, me: Rank) -> GymEnv:
        """Return the rows of one of several processes, with the seeds that they have here."""
        id, options = self._made_from
        if not isinstance(id, str):
            raise ValueError(
                "an environment that is made already cannot be divided among processes; pass its id, such as "
                'GymEnv("CartPole-v1", num_envs=8), or start without torchrun'
            )
        other = copy(self)
        other.rank, other.num_envs = me, self.num_envs // me.of
        other.env = checked_env(id, other.num_envs, options)
        other._begin(self.seed + me.number * other.num_envs)
        return other

    def check(self, agent: Any) -> None:
        """Refuse an agent that compares texts of a context, or imitates texts."""
        if agent.samples != 1 or agent.mle:
            raise ValueError(
                f"{type(agent).__name__} (samples={agent.samples}, mle={agent.mle}) compares texts of a "
                "context, or imitates some; episodes of a GymEnv continue across batches: leave them at 1 "
                "and 0"
            )
        if agent.minibatches * agent.micro_batches > self.num_envs * self.steps // 2:  # half may only reset
            raise ValueError(
                f"{self.num_envs} × {self.steps} steps are too few for minibatches={agent.minibatches} of "
                f"micro_batches={agent.micro_batches}; collect more steps, or make fewer parts"
            )

    def describe(self) -> dict[str, Any]:
        """Return the description that a run keeps."""
        spec = getattr(self.env, "spec", None)
        return {
            "class": type(self).__name__,
            "id": getattr(spec, "id", type(self.env).__name__),
            "num_envs": self.num_envs,
            "steps": self.steps,
            "seed": self.seed,
            "autoreset_mode": self._mode.value,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the random generator of sampling and the state of `rewards`.

        A Gymnasium environment cannot be saved, so episodes start afresh, and so do its random numbers.
        """
        return {"generator": self.generator.get_state(), "rewards": states_of({"rewards": self.rewards})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        set_generator(self.generator, state["generator"])
        load_states({"rewards": self.rewards}, state["rewards"], "task's rewards")

    def rollout(self, policy: Any, decode: Decode, *, repeat: int = 1, **texts: Any) -> Rollout:
        """Return the next T steps of every row."""
        for name in [name for name, value in texts.items() if value is not None] + ["repeat"] * (repeat != 1):
            raise ValueError(
                f"{name} is for texts; episodes of a GymEnv continue across batches, so leave it out"
            )
        actions = chosen(self.single_action_space, decode)
        drawn = actions.random(self.steps, self.rank.all(self.num_envs), self.generator)
        random = self.rank.own(drawn, 1)
        with torch.no_grad(), eval_mode(policy):
            self._check_memory(policy)
            steps = [self._step(policy, actions, now) for now in random]
            self._report(self._of_all_ranks(steps))
            segment = self._harvest(steps, actions, decode.temperature)
            self.counts.generated_tokens += int(self.rank.total(segment.mask.sum()))
            return self._valued(segment, policy)

    def evaluate(self, policy: Any, decode: Decode, limit: int | None = None) -> dict[str, float]:
        """Return the mean return and length of `limit` (100) episodes, as many of every row, or one more.

        The first episodes to end, whatever their row, would be the short ones. Episodes under way are broken
        off, so use an environment of its own for evaluations.
        """
        actions, limit = chosen(self.single_action_space, decode), 100 if limit is None else limit
        left = np.full(self.num_envs, limit // self.num_envs)
        left[: limit % self.num_envs] += 1
        episodes: list[Episode] = []
        self._begin()
        with torch.no_grad(), eval_mode(policy):
            self._check_memory(policy)
            while left.any():
                step = self._step(policy, actions, actions.random(1, self.num_envs, self.generator)[0])
                episodes += [episode for row, episode in step.episodes.items() if left[row]]
                left[list(step.episodes)] = np.maximum(left[list(step.episodes)] - 1, 0)
        self._begin()
        returns, lengths, _ = zip(*episodes, strict=True)
        return {"reward": float(np.mean(returns)), "length": float(np.mean(lengths))}

    def _check_memory(self, policy: Any) -> None:
        state = policy.start({"observation": torch.from_numpy(self._observed).to(self.device)})
        if not isinstance(state, tuple) or state:
            raise TypeError(f"{type(policy).__name__} remembers; GymEnv is for policies whose state is ()")

    def _begin(self, seed: int | None = None) -> None:
        self._observed = own(self.env.reset(seed=seed)[0])
        self._real = np.ones(self.num_envs, bool)
        self._return, self._length = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)

    def _step(self, policy: Any, actions: Actions, random: Tensor) -> GymStep:
        observed, real = self._observed, self._real
        with torch.inference_mode():
            said, _ = policy.step(torch.from_numpy(observed).to(self.device), ())
            action, support = actions.choose(said, random)
        after = advance(self.env, actions.outward(action), self._mode)
        self._observed, reached, rewards, terminated, truncated = after
        ends = terminated | truncated
        self._return += rewards
        self._length += real
        episodes = self._ended(ends, terminated) if ends.any() else {}
        if self._mode is AutoresetMode.NEXT_STEP:
            self._real = ~ends
        return GymStep(observed, said, action, support, rewards, real, ends, terminated, reached, episodes)

    def _ended(self, ends: Any, terminated: Any) -> dict[int, Episode]:
        rows = np.flatnonzero(ends).tolist()
        episodes = {
            row: Episode(float(self._return[row]), int(self._length[row]), not terminated[row])
            for row in rows
        }
        self._return[rows], self._length[rows] = 0, 0
        return episodes

    def _of_all_ranks(self, steps: Sequence[GymStep]) -> list[Episode]:
        """Return the episodes that ended on any rank, in the order of steps and rows."""
        first = self.rank.number * self.num_envs
        ended: list[Any] = [
            (t, first + row, *e) for t, step in enumerate(steps) for row, e in step.episodes.items()
        ]
        if self.rank.of > 1:
            ended = sorted(
                tuple(e) for sent in everyones(json.dumps(ended).encode()) for e in json.loads(sent)
            )
        return [Episode(*episode) for _, _, *episode in ended]

    def _report(self, ended: Sequence[Episode]) -> None:
        if not ended:
            return
        self.last.extend(ended)
        self.counts.episodes += len(ended)
        table = np.array(self.last, np.float32)  # much faster than to make a tensor of tuples
        returns, lengths, cut = torch.from_numpy(table).to(self.device).unbind(1)
        self.episodes = EpisodeStats(returns, lengths, cut > 0)

    def _harvest(self, steps: Sequence[GymStep], actions: Actions, temperature: float) -> Rollout:
        """Return the rollout of the steps, without V."""
        acts, said = (torch.stack(parts, 1) for parts in ([s.action for s in steps], [s.said for s in steps]))
        supports = [step.support for step in steps if step.support is not None]
        behaviour = Behaviour(temperature, torch.stack(supports, 1) if supports else None)
        log_probs = actions.log_probs(said, acts, behaviour)
        if not log_probs.isfinite().all():
            rows = (~log_probs.isfinite().all(1)).nonzero().flatten().tolist()
            raise ValueError(f"what the policy says holds NaN or infinity in rows {rows[:8]}")
        real, ends = (self._stacked(part) for part in ([s.real for s in steps], [s.ends for s in steps]))
        rewards = self._stacked([step.rewards for step in steps]).float()
        observed = self._stacked([step.observed for step in steps])
        terminated = self._stacked([step.terminated for step in steps])
        return Rollout(
            actions=acts,
            mask=real,
            log_probs=log_probs.where(real, 0.0),
            rewards=self.rewards(rewards, ends),
            values=None,
            ends=ends,
            bootstrap=None,
            context={"observation": observed, "index": torch.arange(self.num_envs, device=self.device)},
            behaviour=behaviour,
            last_episodes=self.episodes,
            reached=self._stacked([step.reached for step in steps]),
            cut=ends & ~terminated,
        )

    def _valued(self, segment: Rollout, policy: Any) -> Rollout:
        """Add V of every state, and of the states reached where a row is cut off."""
        assert segment.cut is not None
        assert segment.reached is not None
        open_ended = segment.cut.clone()
        open_ended[:, -1] |= ~segment.ends[:, -1]
        open_ended &= segment.mask
        states = torch.cat([segment.context["observation"].flatten(0, 1), segment.reached[open_ended]])
        values = _values(policy, states, segment.actions)
        if values is None:
            return segment
        now, later = values[: open_ended.numel()], values[open_ended.numel() :]
        bootstrap = torch.zeros_like(segment.rewards).masked_scatter_(open_ended, later)
        return replace(segment, values=now.view_as(open_ended), bootstrap=bootstrap)

    def _stacked(self, arrays: Sequence[Any]) -> Tensor:
        """Return `[T]` arrays of B rows as `[B, T, …]`."""
        return torch.from_numpy(np.stack(arrays, 1)).to(self.device)


def _values(policy: Any, observed: Tensor, actions: Tensor) -> Tensor | None:
    """Return V of states `[n, …]`, without what else an MLP would compute."""
    if isinstance(policy, MLP):
        return policy.values_of_states(observed)
    if not hasattr(policy, "evaluate"):  # it acts, and does not score
        return None
    nothing = actions.new_zeros(len(observed), 1, *actions.shape[2:])
    values = policy.evaluate(nothing, {"observation": observed.unsqueeze(1)}).values
    return None if values is None else values.squeeze(1)


def checked_env(env: Any, num_envs: int | None, options: dict[str, Any]) -> Any:
    """Return a vector environment that says how it resets, and whose observations are arrays of one size."""
    if isinstance(env, str):
        env = gym.make_vec(env, checked_rows(1 if num_envs is None else num_envs), **options)
    elif not isinstance(env, gym.vector.VectorEnv):
        raise TypeError(
            f"env must be an id or a gymnasium.vector.VectorEnv, got {type(env).__name__}; make it with "
            "gymnasium.make_vec(id, num_envs), or wrap it: gymnasium.vector.SyncVectorEnv([lambda: env])"
        )
    elif options or num_envs not in (None, env.num_envs):
        raise ValueError(f"an environment that is made already takes no num_envs={num_envs} nor {options}")
    if not isinstance(env.single_observation_space, gym.spaces.Box):
        raise TypeError(
            f"observations must be arrays of one size (Box), got {env.single_observation_space}; "
            "gymnasium.wrappers.vector.FlattenObservation(env) makes one of Dict, Tuple or Discrete"
        )
    if "autoreset_mode" not in env.metadata:
        raise ValueError(
            f"{type(env).__name__} does not say when it resets; set env.metadata['autoreset_mode'] to a "
            "gymnasium.vector.AutoresetMode"
        )
    chosen(env.single_action_space, Sample())  # refuses a space that nobody could act in
    return env
