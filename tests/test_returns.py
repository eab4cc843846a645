"""Credit, baselines and losses by hand: the worked examples of the lecture notes (SCOPE R1, R4, R5, R13)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlseq.baselines import MovingAverage, mean, none
from rlseq.engine import last_of
from rlseq.losses import per_sequence, per_step, per_text, per_token, score_function
from rlseq.returns import reward_to_go
from rlseq.types import Rollout


def written(rewards: Tensor, mask: Tensor, samples: int = 1) -> Rollout:
    """A batch in which only rewards matter."""
    nothing = torch.zeros_like(rewards)
    return Rollout(nothing.long(), mask, nothing, rewards, None, last_of(mask), None, {}, samples=samples)


def last(rewards: Tensor) -> Tensor:
    ends = torch.zeros_like(rewards, dtype=torch.bool)
    ends[:, -1] = True
    return ends


@pytest.mark.parametrize(
    ("gamma", "wanted"),
    [
        (1.0, [[3.0, -2.0, -2.0], [-7.0, -2.0, -2.0]]),
        (0.9, [[3.38, -1.8, -2.0], [-6.62, -1.8, -2.0]]),
        (0.0, [[5.0, 0.0, -2.0], [-5.0, 0.0, -2.0]]),
    ],
)
def test_reward_to_go_of_the_lecture(gamma: float, wanted: list[list[float]]) -> None:
    rewards = torch.tensor([[5.0, 0.0, -2.0], [-5.0, 0.0, -2.0]])
    torch.testing.assert_close(reward_to_go(rewards, last(rewards), gamma), torch.tensor(wanted))


def test_credit_does_not_cross_the_end_of_an_episode() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    ends = torch.tensor([[False, True, False, True]])
    assert reward_to_go(rewards, ends).tolist() == [[3.0, 2.0, 12.0, 8.0]]


def test_play_now_or_study_now() -> None:
    """+1 now and −100 later, or −1 now and +100 later: only a small γ prefers to play."""
    rewards = torch.tensor([[1.0, 0.0, -100.0], [-1.0, 0.0, 100.0]])
    far_sighted, short_sighted = (reward_to_go(rewards, last(rewards), gamma)[:, 0] for gamma in (0.99, 0.05))
    assert far_sighted[0] < far_sighted[1]
    assert short_sighted[0] > short_sighted[1]


def test_the_loss_is_cross_entropy_weighted_by_the_return() -> None:
    """Two episodes of two actions, with returns 2 and 1: weights 2, 2, 1, 1."""
    logits = torch.randn(2, 2, 5, requires_grad=True)
    actions = torch.tensor([[1, 4], [0, 2]])
    weights = torch.tensor([[2.0, 2.0], [1.0, 1.0]])
    log_probs = logits.log_softmax(2).gather(2, actions.unsqueeze(2)).squeeze(2)
    ours = (score_function(log_probs, weights) * per_sequence(torch.ones(2, 2))).sum()
    each = torch.nn.functional.cross_entropy(logits.view(4, 5), actions.view(4), reduction="none")
    torch.testing.assert_close(ours, (each * torch.tensor([2.0, 2.0, 1.0, 1.0])).sum() / 2)


def step_of(rewards: list[float], sampled: list[int], baseline: float) -> Tensor:
    """Probabilities of three actions after one step from uniform, with the actions that were sampled."""
    logits = torch.zeros(3, requires_grad=True)
    log_probs = logits.log_softmax(0)[torch.tensor(sampled)].unsqueeze(1)
    advantages = torch.tensor([[rewards[a] - baseline] for a in sampled])
    loss = score_function(log_probs, advantages) * per_sequence(torch.ones(len(sampled), 1))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return (logits - logits.grad).softmax(0).detach()


def test_an_action_that_was_not_sampled_loses_only_without_a_baseline() -> None:
    """All rewards are positive, a is the best and was missed: it must not pay for that."""
    rewards, missed = [3.0, 1.0, 2.0], [1, 2]
    assert step_of(rewards, missed, baseline=0.0)[0] < 1 / 3 - 0.05
    assert step_of(rewards, missed, baseline=2.0)[0] > 1 / 3


def test_the_mean_baseline_leaves_its_own_row_out() -> None:
    returns = torch.tensor([[1.0, 10.0], [3.0, 0.0], [5.0, 30.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    batch = written(returns, mask)
    assert mean(returns, batch).tolist() == [[4.0, 30.0], [3.0, 20.0], [2.0, 10.0]]
    alone = mean(returns[:1], batch.take(slice(1))).tolist()
    assert alone == [[0.0, 0.0]], "there is nothing to compare with"
    assert none(returns, batch).count_nonzero() == 0


def test_the_moving_average_knows_earlier_batches_only() -> None:
    average, seen = MovingAverage(decay=0.5), []
    for reward in (4.0, 8.0, 0.0):
        returns = torch.tensor([[reward], [reward]])
        batch = written(returns, torch.ones(2, 1, dtype=torch.bool))
        seen.append(float(average(returns, batch)[0, 0]))
        average.learn(returns, batch)
    assert seen == pytest.approx([0.0, 4.0, (0.25 * 4 + 0.5 * 8) / 0.75])


def test_aggregations_differ_as_they_say() -> None:
    values = torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    wanted = {
        per_sequence: (1 + 2 + 3) / 2,
        per_token: (1 + 2 + 3) / 3,
        per_text: (1.5 + 3) / 2,
        per_step: 1.0,
    }
    for aggregate, total in wanted.items():
        assert float((values * aggregate(mask)).sum()) == pytest.approx(total)


def test_the_advantage_carries_no_gradient() -> None:
    log_probs = torch.randn(1, 2, requires_grad=True)
    advantages = torch.randn(1, 2, requires_grad=True)
    score_function(log_probs, advantages).sum().backward()  # type: ignore[no-untyped-call]
    assert advantages.grad is None
