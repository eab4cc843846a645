"""Values of all actions in the states of a batch, Q(sₜ, a), `[B, T, V]`, for the all-action policy gradient.

They are functions of the batch, the policy, the task and the decoder. A value is of what follows from an
action on: rewards before it are the same for all, and are left out. After the end of a text values are 0;
those of actions that are not allowed mean nothing, as their probability is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.engine.decode import Decode, Sample
from rlseq.engine.rollout import evaluate_frozen, rollout
from rlseq.mdp.sequence_env import sequence_env
from rlseq.mdp.task import TOKEN_BYTES
from rlseq.policy_gradient.baselines import Factor, past_rewards
from rlseq.policy_gradient.exact import every_text
from rlseq.types import Behaviour, Rollout
from rlseq.utils.arguments import Checked, PositiveInt, Range
from rlseq.utils.memory import check_fits
from rlseq.utils.ranks import total
from rlseq.utils.stateful import TensorState

QEstimate = Callable[[Rollout, Any, Any, Decode], Tensor]


@torch.no_grad()
def exact_action_values(batch: Rollout, policy: Any, env: Any, decode: Decode) -> Tensor:
    """Return the exact values, by enumeration: Σ π(y) R(y) / Σ π(y) over all texts that begin so."""
    if decode != Sample(decode.temperature):
        raise ValueError(
            f"exact values are of a policy that samples from all words, got {decode}; take "
            'decode=Sample(temperature), or action_values="completions"'
        )
    env = sequence_env(env)
    tokens, chances, rewards = every_text(policy, env, Behaviour(decode.temperature))
    words, index = len(env.vocab), batch.context["index"]
    code, prefix, values = torch.zeros_like(tokens[:, 0]), torch.zeros_like(batch.actions[:, 0]), []
    for t in range(batch.actions.shape[1]):
        code = code * words + tokens[:, t]  # of the first t + 1 words of every text
        sums = chances.new_zeros(2, env.size, words ** (t + 1))
        sums.index_add_(2, code, torch.stack([chances * rewards, chances]))
        means = sums[0] / sums[1].clamp(min=torch.finfo(sums.dtype).tiny)
        following = prefix.unsqueeze(1) * words + torch.arange(words, device=prefix.device)
        values.append(means[index.unsqueeze(1), following])
        prefix = prefix * words + batch.actions[:, t]
    return _from_here_on(torch.stack(values, 1), batch)


@dataclass(frozen=True)
class CompletedActions(Checked):
    """The mean return of N completions of every prefix and every word after it: B·T·V·N texts.

    Args:
        samples: N.
    """

    samples: PositiveInt = 1

    def check(self, env: Any) -> None:
        """Refuse a task with more words than completions fit into memory."""
        env = sequence_env(env)
        rows = env.num_envs * env.max_len * len(env.vocab) * self.samples
        try:
            check_fits(rows * env.max_len * TOKEN_BYTES, num_envs=env.num_envs, words=len(env.vocab))
        except ValueError as error:
            raise ValueError(f'{error}, or take action_values="critic"') from None

    @torch.no_grad()
    def __call__(self, batch: Rollout, policy: Any, env: Any, decode: Decode) -> Tensor:
        """Return the values."""
        env = sequence_env(env)
        real, steps, words = batch.mask.flatten(), batch.mask.shape[1], len(env.vocab)
        support: Any = batch.behaviour.at(torch.arange(len(real), device=real.device), steps).support
        allowed = real.unsqueeze(1) if support is None else real.unsqueeze(1) & support
        state, action = allowed.expand(len(real), words).nonzero(as_tuple=True)
        row, step = state // steps, state % steps
        forced = batch.actions[row].scatter(1, step.unsqueeze(1), action.unsqueeze(1))
        given: dict[str, Any] = {
            name: value.repeat_interleave(self.samples, 0)
            for name, value in (("forced", forced), ("forced_steps", step + 1))
        }
        index = batch.context["index"][row].repeat_interleave(self.samples)
        wide = env.replace(num_envs=len(index), rank=env.rank.with_rows(len(index)))
        completed = rollout(policy, wide, decode=decode, index=index, **given)
        known = env.rank.total(self.samples * step.sum())  # words that are not written now
        env.counts.generated_tokens = env.counts.generated_tokens - known
        values = batch.rewards.new_zeros(*batch.mask.shape, words)
        values[row, step, action] = completed.returns.view(-1, self.samples).mean(1)
        return _from_here_on(values, batch)


@dataclass(eq=False)
class ActionCritic(TensorState, Factor, Checked):
    """Q(s, a) = w_a·h + c_a, a linear regression for every action on the policy's hidden state h.

    It learns from the actions that were taken, by normalised least mean squares, as `Regression` does, and
    nothing flows back into h. Until it knows the values, the gradient is biased.

    Args:
        rate: of learning; below 2.
    """

    tensors: ClassVar = ("weight",)

    rate: Annotated[float, Range(0, 2, open_low=True, open_high=True)] = 0.2
    weight: Tensor | None = None  # [V, H + 1], the last column is c

    def __call__(self, batch: Rollout, policy: Any, env: Any, decode: Decode) -> Tensor:
        """Return the predictions from earlier batches; 0 before the first."""
        h = self._inputs(batch)
        if self.weight is None:
            self.weight = h.new_zeros(env.single_action_space.n, h.shape[2])
        return h @ self.weight.to(h.device).t()

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Add h."""
        logits = evaluate_frozen(policy, batch).logits
        if logits is None:
            raise ValueError(
                f"a critic of actions needs the hidden state of {type(policy).__name__}; let its `evaluate` "
                "return `logits`, which have `features` (rlseq.types.Evaluation)"
            )
        return replace(batch, features=logits.features)

    def learn(self, returns: Tensor, batch: Rollout) -> None:
        """Take one step towards the returns of the actions of this batch."""
        assert self.weight is not None
        h, action = self._inputs(batch)[batch.mask], batch.actions[batch.mask]
        weight = self.weight.to(h.device)
        error = ((weight[action] * h).sum(1) - returns[batch.mask]) / h.square().sum(1)
        slope = total(torch.zeros_like(weight).index_add_(0, action, error.unsqueeze(1) * h))
        times = total(action.bincount(minlength=len(weight))).clamp(min=1)
        self.weight = weight - self.rate * slope / times.unsqueeze(1)

    def forget(self) -> None:
        """Start again."""
        self.weight = None

    def _inputs(self, batch: Rollout) -> Tensor:
        if batch.features is None:
            raise ValueError(
                "a critic of actions needs the policy's features; collect the batch with the agent"
            )
        return F.pad(batch.features, (0, 1), value=1.0)


def _from_here_on(values: Tensor, batch: Rollout) -> Tensor:
    """Return values without the rewards before the action."""
    return (values - past_rewards(batch).unsqueeze(2)) * batch.mask.unsqueeze(2)


ACTION_VALUES: dict[str, QEstimate] = {  # an agent gets a copy of its own
    "exact": exact_action_values,
    "completions": CompletedActions(),
    "critic": ActionCritic(),
}
