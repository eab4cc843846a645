"""`OffPolicyAgent`: act, keep what was done, and learn from what is drawn from all that is kept."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.decode import Decode
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.diagnostics import episode_metrics, merge_metrics
from rlseq.types import NOISE, RAW, BasePolicy, Metrics, Rollout, SteppedEnv
from rlseq.utils.arguments import PositiveInt, Share
from rlseq.utils.ranks import this_rank
from rlseq.utils.stateful import Stateful
from rlseq.value_based.replay import Replay
from rlseq.value_based.target import TargetCopy


@dataclass(eq=False)
class OffPolicyAgent(Agent):
    """The base of agents that learn from a replay: a batch is not what was just done, but rows of it all.

    Of a text only its words, its reward and the number of its item are kept; the context, which may be an
    image, is looked up when a row is drawn.
    """

    gamma: Share = 1.0  # discount factor γ
    capacity: PositiveInt = 50_000  # actions in the replay; a text is kept whole
    rows: PositiveInt = 64  # texts, or steps of an environment, that a gradient step learns from
    gradient_steps: PositiveInt = 4  # gradient steps after each batch of new actions
    target_every: PositiveInt = 100  # C, gradient steps between two changes of the target copy
    target_share: Share = 1.0  # how far the target copy then moves towards the policy; 1 replaces it

    def __post_init__(self) -> None:
        super().__post_init__()
        self.replay = Replay(self.capacity)
        self.target = TargetCopy(self.policy, self.target_every, self.target_share)
        self.done = 0.0  # share of training that lies behind

    @abstractmethod
    def acting(self) -> Decode:
        """Return how actions are chosen now."""

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the replay and the target copy among them."""
        return {**super().stateful_parts(), "replay": self.replay, "target": self.target}

    def check(self, env: Any) -> None:
        """Refuse rows of a gradient step that cannot be divided among ranks."""
        if self.rows % this_rank().of:
            raise ValueError(
                f"rows={self.rows} of a gradient step cannot be divided among {this_rank().of} ranks; pass "
                f"rows={this_rank().of * max(1, self.rows // this_rank().of)}"
            )

    def set_progress(self, done: float) -> None:
        """Set step size and exploration for the next update; `done` is the share that lies behind."""
        super().set_progress(done)
        self.done = done

    def collect(self, env: Any) -> Rollout:
        """Act once, keep it, and return what is drawn from the replay, with statistics of what was new."""
        env = unwrap_task(env)
        self.check(env)
        new = rollout(self.policy, env, decode=self.acting())
        if isinstance(env, SteppedEnv):
            self.replay.add(new.as_transitions(), context=("observation",))
            drawn = self.replay.draw(self.rows, self.gradient_steps)
            return replace(drawn, last_episodes=new.episodes)
        self.replay.add(new, context=("index", *[NOISE] * bool(env.noise)))
        batch = self.replay.draw(self.rows, self.gradient_steps)
        context = {**env.contexts(batch.context["index"]), **batch.context}
        behaviour = RAW._replace(support=env.allowed_everywhere(batch.actions, context))
        return replace(batch, context=context, behaviour=behaviour, last_episodes=new.episodes)

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, in so many gradient steps, each on rows of its own."""
        parts = torch.arange(len(batch.mask), device=batch.mask.device).tensor_split(self.gradient_steps)
        width = batch.width if batch.mask.is_cuda else None  # the host looks once, not in every step
        logs = [self.learn(batch.take(part).trimmed(width)) for part in parts]
        if isinstance(self.policy, BasePolicy):
            self.policy.update_statistics(batch)
        return {**episode_metrics(batch.episodes), **merge_metrics(logs)}

    def one_step_returns(self, batch: Rollout, rewards: Tensor, after: Tensor) -> Tensor:
        """Return rₜ + γ V(sₜ₊₁), `[B, T]`, and rₜ where an episode is over; a time limit is no end.

        Args:
            batch: the actions.
            rewards: r, `[B, T]`.
            after: V of the states that the actions led to, `[B, T]`.
        """
        over = batch.ends if batch.cut is None else batch.ends & ~batch.cut
        return rewards + self.gamma * after.masked_fill(over, 0.0)

    def learn(self, batch: Rollout) -> Metrics:
        """Take one gradient step; the target copy follows."""
        metrics = self.step([batch])
        self.target.follow(self.policy)
        return metrics
