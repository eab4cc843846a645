"""One gradient step: every parameter group is cleared, clipped, and paced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlseq.policy_gradient.agent import Agent, linear
from rlseq.types import Metrics, Rollout


@dataclass(eq=False)
class Linear(Agent):
    """A loss whose gradient is 3 and 4 in two parameters, one in the policy and one beside it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.beside = nn.Parameter(torch.zeros(()))
        self.optimizer = torch.optim.SGD(self.policy.parameters(), self.lr)
        self.optimizer.add_param_group({"params": [self.beside], "lr": 10 * self.lr})

    def collect(self, env: Any) -> Rollout:
        raise NotImplementedError

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        return 3 * self.policy.weight.sum() + 4 * self.beside, {}


def made(**hyper: Any) -> Linear:
    policy = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(policy.weight)
    return Linear(policy, **{"lr": 0.1, "clip_norm": 100.0, **hyper})


def test_gradients_of_every_group_are_those_of_one_step() -> None:
    agent = made()
    for _ in range(3):
        agent.step([None])  # type: ignore[list-item]
        assert agent.policy.weight.grad.item() == pytest.approx(3)
        assert agent.beside.grad is not None
        assert agent.beside.grad.item() == pytest.approx(4)
    assert agent.policy.weight.item() == pytest.approx(-3 * 0.1 * 3)
    assert agent.beside.item() == pytest.approx(-3 * 1.0 * 4)


def test_parts_add_up() -> None:
    agent = made()
    agent.step([None, None])  # type: ignore[list-item]
    assert agent.beside.item() == pytest.approx(-8)


@pytest.mark.parametrize(("clip_norm", "share"), [(2.5, 0.5), (5.0, 1.0), (50.0, 1.0)])
def test_the_norm_over_all_groups_is_clipped(clip_norm: float, share: float) -> None:
    agent = made(clip_norm=clip_norm)
    metrics = agent.step([None])  # type: ignore[list-item]
    assert metrics["grad_norm"].item() == pytest.approx(5.0)
    assert agent.policy.weight.item() == pytest.approx(-0.3 * share, rel=1e-5)
    assert agent.beside.item() == pytest.approx(-4 * share, rel=1e-5)


def test_a_schedule_scales_the_step_size_that_each_group_began_with() -> None:
    agent = made(schedule=linear)
    for done in (0.0, 0.5, 0.75):
        agent.set_progress(done)
        rates = [group["lr"] for group in agent.optimizer.param_groups]
        assert rates == pytest.approx([0.1 * (1 - done), 1.0 * (1 - done)])
    resumed = made(schedule=linear)
    resumed.load_state_dict(agent.state_dict())
    resumed.set_progress(0.5)
    assert [group["lr"] for group in resumed.optimizer.param_groups] == pytest.approx([0.05, 0.5])
