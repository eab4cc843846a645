"""Toy decisions for teaching: so few states that every value is known, and can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.types import Context, LegalRule
from rlseq.utils.arguments import PositiveInt, Range, checked_arguments
from rlseq.vocab import EOS, Vocab


class Bandit(SequenceEnv):
    """Choose one of a few arms. Reward: that of the arm, by default 3, 2 and 1, all above zero.

    Without a baseline, a policy gradient lowers the probability of an arm that a batch happens not to sample,
    even that of the best one; with the mean reward as baseline it need not.

    Args:
        rewards: of the arms, at least two.
        **options: see `EnvOptions`.
    """

    @checked_arguments
    def __init__(self, *, rewards: Sequence[float] = (3.0, 2.0, 1.0), **options: Unpack[EnvOptions]) -> None:
        if len(rewards) < 2:
            raise ValueError(f"rewards must be those of at least two arms, got {list(rewards)}")
        vocab = Vocab.numbered(len(rewards), eos=None)
        super().__init__(vocab=vocab, max_len=1, reward={"arm": self.of_arm}, **options)
        self.rewards = torch.tensor(rewards, device=self.device)

    def of_arm(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of the arm, `[B]`."""
        return self.rewards[tokens[:, 0]]


class CreditChain(SequenceEnv):
    """Decide well or badly, then wait until the end. Rewards: +5 or −5 at once, 0 on the way, −2 at the end.

    With three steps these are the rewards (+5, 0, −2) and (−5, 0, −2). Weighted by the whole return, the
    later actions are praised or blamed for the first one; by the rewards that follow them, 3 or −7 goes to
    the first alone, and −2 to the others, whatever they were. The best return is 3, a random policy's −2.

    Args:
        steps: T, at least two.
        **options: see `EnvOptions`.
    """

    @checked_arguments
    def __init__(self, *, steps: Annotated[int, Range(2)] = 3, **options: Unpack[EnvOptions]) -> None:
        vocab = Vocab(("well", "badly"), eos=None)
        super().__init__(vocab=vocab, max_len=steps, reward={"step": self.of_steps}, **options)

    def of_steps(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every step, `[B, T]`."""
        rewards = torch.zeros(tokens.shape, device=tokens.device)
        rewards[:, 0] = 5.0 - 10.0 * tokens[:, 0]
        rewards[:, self.max_len - 1 :] = -2.0
        return rewards


class PlayOrStudy(SequenceEnv):
    """Play: +1 now and −100 later. Study: −1 now and +100 later. Between them nothing can be done but wait.

    Studying is best where γ^delay > 1/100. So γ = 0.9 studies for a reward 20 steps away and plays where it
    is 100 steps away; γ = 0.99 studies for both.

    Args:
        delay: steps from the choice to what follows from it.
        **options: see `EnvOptions`.
    """

    @checked_arguments
    def __init__(self, *, delay: PositiveInt = 20, **options: Unpack[EnvOptions]) -> None:
        vocab = Vocab(("play", "study", "wait"), eos=None)
        super().__init__(vocab=vocab, max_len=delay + 1, reward={"step": self.of_steps}, **options)
        self.metrics = {"studies": lambda tokens, mask, context: (tokens[:, 0] == 1).float()}

    def legal(self) -> LegalRule:
        """Allow the choice at first, and waiting after it."""
        allowed = torch.tensor([[True, True, False], [False, False, True]], device=self.device)
        return lambda tokens, length: allowed[(length > 0).long()]

    def of_steps(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every step, `[B, T]`; who waits from the beginning gets nothing."""
        choice = torch.tensor([1.0, -1.0, 0.0], device=tokens.device)[tokens[:, 0]]
        rewards = torch.zeros(tokens.shape, device=tokens.device)
        rewards[:, 0] = choice
        rewards[:, self.max_len - 1 :] = -100 * choice.unsqueeze(1)
        return rewards


class TwoStates(SequenceEnv):
    """Eight recorded episodes of two states, where Monte Carlo and temporal differences give other values.

    One episode goes from state a to state b and ends, all without a reward; seven begin in b and end, six of
    them with reward 1. `monte_carlo_values` are V(a) = 0 and V(b) = 3/4, `td_values` are 3/4 and 3/4.
    There is nothing to choose: in each state one word is legal.

    Args:
        **options: see `EnvOptions`.
    """

    @checked_arguments
    def __init__(self, **options: Unpack[EnvOptions]) -> None:
        start = torch.tensor([[1]] + [[2]] * 7)  # a, then b; 0 pads
        paid = torch.tensor([0.0, *[1.0] * 6, 0.0])
        super().__init__(
            vocab=Vocab((EOS, "on")),
            source_vocab=Vocab(("<pad>", "a", "b"), eos=None),
            max_len=2,
            reward={"end": self.of_steps},
            items={"source": start, "paid": paid},
            **options,
        )

    def legal(self) -> Tensor:
        """Allow to go on in a, and to end in b."""
        return torch.nn.functional.one_hot((self.state() == 0).long(), 2).bool()

    def state(self) -> Tensor:
        """Return the state of every row: 0 in a, 1 in b, 2 at the end; `[B]`."""
        return (self.context["source"][:, 0] - 1 + self.length).where(~self.done, 2)

    def of_steps(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every step, `[B, T]`: that of the episode for the step out of b."""
        in_b = torch.nn.functional.one_hot(2 - context["source"][:, 0], tokens.shape[1])
        return in_b * context["paid"].unsqueeze(1)


def monte_carlo_values(states: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """Return the mean return after each state's visits, `[S]`.

    Args:
        states: number of the state in which every step was taken, `[B, T]`; all numbers 0 … S−1 occur.
        rewards: of every step, `[B, T]`.
        mask: True on real steps, `[B, T]`.
    """
    rewards = rewards * mask
    to_go = rewards.flip(1).cumsum(1).flip(1)
    return _mean_by_state(states[mask], to_go[mask])


def td_values(states: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """Return the fixed point of V(s) = mean of r + V(s') over each state's visits, `[S]`; see above."""
    count = int(states[mask].max()) + 1
    here = torch.nn.functional.one_hot(states.where(mask, 0), count) * mask.unsqueeze(2)
    after = torch.nn.functional.pad(here, (0, 0, 0, 1))[:, 1:]  # no state after the end
    rows, onward = here[mask].double(), after[mask].double()
    values: Tensor = torch.linalg.solve(rows.T @ (rows - onward), rows.T @ rewards[mask].double())
    return values.to(rewards.dtype)


def _mean_by_state(states: Tensor, figures: Tensor) -> Tensor:
    total = torch.zeros(int(states.max()) + 1).index_add(0, states, figures)
    return total / states.bincount()
