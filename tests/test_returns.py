"""Credit, baselines and losses by hand: the worked examples of the lecture notes (SCOPE R1–R6, R13, R15)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlseq.policy_gradient.baselines import MovingAverage, mean, none
from rlseq.policy_gradient.credit import immediate
from rlseq.policy_gradient.credit import reward_to_go as to_go
from rlseq.policy_gradient.losses import per_sequence, per_step, per_text, per_token, score_function
from rlseq.policy_gradient.returns import lambda_return, n_step, reward_to_go
from rlseq.types import Rollout
from rlseq.utils.masks import last_of


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


# ── credit against slow loops ────────────────────────────────────────────────────────────────────────────


def stretch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows in which episodes end at random places, and the last is cut off or not: r, V, ends, bootstrap."""
    generator = torch.Generator().manual_seed(5)
    rewards, values = torch.randn(2, 20, 9, generator=generator)
    ends = torch.rand(20, 9, generator=generator) < 0.25
    bootstrap = torch.zeros(20, 9)
    bootstrap[:, -1] = torch.randn(20, generator=generator) * ~ends[:, -1]
    bootstrap[:, 3] += (
        torch.randn(20, generator=generator) * ends[:, 3]
    )  # an episode that was truncated there
    return rewards, values, ends, bootstrap


def following(values: Tensor, ends: Tensor, bootstrap: Tensor, i: int, t: int) -> float:
    """V of the state after an action."""
    if ends[i, t] or t == values.shape[1] - 1:
        return float(bootstrap[i, t])
    return float(values[i, t + 1])


def to_go_loop(gamma: float, n: int) -> Tensor:
    """The sum of n rewards and V after them, or less where the row is cut; walked from every action."""
    rewards, values, ends, bootstrap = stretch()
    out = torch.zeros_like(rewards)
    for i in range(rewards.shape[0]):
        for t in range(rewards.shape[1]):
            total, rate = 0.0, 1.0
            for k in range(t, min(t + n, rewards.shape[1])):
                total += rate * float(rewards[i, k])
                rate *= gamma
                if ends[i, k] or k == min(t + n, rewards.shape[1]) - 1:
                    total += rate * following(values, ends, bootstrap, i, k)
                    break
            out[i, t] = total
    return out


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("n", [1, 2, 5, 9, 50])
def test_n_step_returns_against_a_loop(gamma: float, n: int) -> None:
    rewards, values, ends, bootstrap = stretch()
    torch.testing.assert_close(n_step(rewards, values, ends, gamma, n, bootstrap), to_go_loop(gamma, n))


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_reward_to_go_goes_on_where_a_row_is_cut(gamma: float) -> None:
    rewards, _, ends, bootstrap = stretch()
    torch.testing.assert_close(reward_to_go(rewards, ends, gamma, bootstrap), to_go_loop(gamma, 99))


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_lambda_returns_are_the_mixture_of_n_step_returns(gamma: float, lam: float) -> None:
    """G^λ = (1−λ) Σ_n λⁿ⁻¹ G⁽ⁿ⁾, what is left of the weights on the longest (Sutton & Barto, 12.3)."""
    rewards, values, ends, bootstrap = stretch()
    steps = rewards.shape[1]
    mixture = sum((1 - lam) * lam ** (n - 1) * to_go_loop(gamma, n) for n in range(1, steps))
    wanted = mixture + lam ** (steps - 1) * to_go_loop(gamma, steps)
    torch.testing.assert_close(lambda_return(rewards, values, ends, gamma, lam, bootstrap), wanted)


def test_an_old_episode_learns_nothing_of_the_next() -> None:
    rewards, values, ends, bootstrap = stretch()
    ends[:, 4] = True
    later = rewards.clone()
    later[:, 5:] += 100
    for credit in (n_step, lambda_return):
        before, after = (credit(r, values, ends, bootstrap=bootstrap) for r in (rewards, later))
        assert torch.equal(before[:, :5], after[:, :5])
        assert not torch.equal(before[:, 5:], after[:, 5:])


def test_monte_carlo_and_temporal_differences_on_eight_episodes() -> None:
    """(a, 0, b, 0) once, (b, 1) six times, (b, 0) once: V(b) = 3/4; V(a) = 0 or 3/4 (SCOPE R2)."""
    rewards = torch.tensor([[0.0, 0.0], *[[1.0, 0.0]] * 6, [0.0, 0.0]])
    mask = torch.tensor([[True, True], *[[True, False]] * 7])
    states = torch.tensor([[0, 1], *[[1, 0]] * 7])  # a is 0, b is 1
    ends = last_of(mask)

    def fitted(lam: float) -> list[float]:
        """V of a and of b, once they are the mean of their targets."""
        values = torch.zeros(2)
        for _ in range(10):
            targets = lambda_return(rewards, values[states] * mask, ends, lam=lam)
            values = torch.stack([targets[mask & (states == s)].mean() for s in (0, 1)])
        return values.tolist()

    assert fitted(1.0) == pytest.approx([0.0, 0.75])
    assert fitted(0.0) == pytest.approx([0.75, 0.75])


def test_an_action_seen_often_is_not_favoured_by_that() -> None:
    """a once with reward 2, b three times with 1: the 1/p of ∇log p = ∇p/p evens it out (SCOPE R6)."""
    logits = torch.tensor([0.25, 0.75]).log().requires_grad_()  # a is taken a quarter of the time
    actions, rewards = torch.tensor([[0], [1], [1], [1]]), torch.tensor([[2.0], [1.0], [1.0], [1.0]])
    probs = logits.softmax(0)
    with_p = (-rewards * probs[actions]).mean()
    with_log = (score_function(probs.log()[actions], rewards) * per_sequence(torch.ones(4, 1))).sum()
    towards_a = [
        float(-torch.autograd.grad(loss, logits, retain_graph=True)[0][0]) for loss in (with_p, with_log)
    ]
    assert towards_a[0] < 0 < towards_a[1]
    assert towards_a[1] == pytest.approx(0.25 * 0.75 * (2 - 1)), "that is ∇ Σ p R"


def test_an_action_that_was_not_sampled_loses_where_all_rewards_are_positive() -> None:
    """Of three actions b and c are sampled, and a would have paid most (SCOPE R5)."""
    logits = torch.zeros(3, requires_grad=True)
    actions, rewards = torch.tensor([[1], [2]]), torch.tensor([[1.0], [1.5]])
    chance_of_a = {}
    for baseline in (0.0, (3.0 + 1.0 + 1.5) / 3):
        log_probs = logits.log_softmax(0)[actions]
        loss = (score_function(log_probs, rewards - baseline) * per_sequence(torch.ones(2, 1))).sum()
        after = logits.detach() - torch.autograd.grad(loss, logits)[0]
        chance_of_a[baseline > 0] = float(after.softmax(0)[0])
    assert chance_of_a[False] < 1 / 3 < chance_of_a[True]


def test_i_do_not_know_and_i_am_john() -> None:
    """Judged whole, "I don't know" costs P("I"); judged by what may still come, it need not (SCOPE R15)."""
    logits = torch.zeros(2, 4, requires_grad=True)  # at each of two steps, of: I, you, don't-know, am-John
    actions = torch.tensor([[0, 2]])
    worth = torch.tensor([[-1.0, -1.0]]), torch.tensor([[0.3, -1.0]])  # of the whole; of its prefixes
    moved = []
    for credit in worth:
        log_probs = logits.log_softmax(1).gather(1, actions.t()).t()
        loss = (score_function(log_probs, credit) * per_sequence(torch.ones(1, 2))).sum()
        (slope,) = torch.autograd.grad(loss, logits)
        moved.append((logits - slope).softmax(1)[[0, 1], [0, 2]].tolist())
    (i_whole, dont_whole), (i_prefix, dont_prefix) = moved
    assert i_whole < 0.25 < i_prefix
    assert dont_whole < 0.25
    assert dont_prefix < 0.25


def test_the_agent_that_is_paid_at_once_only_fires() -> None:
    """Moving pays nothing now and the hit later; firing is paid when it hits (SCOPE R13)."""
    rewards = torch.tensor([[0.0, 5.0]])  # move, then fire
    batch = written(rewards, torch.ones(1, 2, dtype=torch.bool))
    logits = torch.zeros(2, 2, requires_grad=True)  # at each step, of: move, fire
    moves = {}
    for credit in (immediate, to_go):
        log_probs = logits.log_softmax(1).gather(1, torch.tensor([[0], [1]])).t()
        loss = (score_function(log_probs, credit(batch, 1.0)) * per_sequence(batch.mask)).sum()
        after = logits.detach() - torch.autograd.grad(loss, logits)[0]
        moves[credit] = float(after.softmax(1)[0, 0])
    assert moves[immediate] == 0.5, "moving is credited with nothing"
    assert moves[to_go] > 0.9
