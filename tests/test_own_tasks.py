"""What a task of one's own may get wrong: computed contexts, and legal tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq


class Computed(rlseq.SequenceEnv):
    """Contexts made from their index."""

    def __init__(self, context: Any, **options: Any) -> None:
        super().__init__(vocab=rlseq.Vocab.numbered(5), max_len=3, reward=lambda t, m, c: m.sum(1), **options)
        self.made = context

    @property
    def size(self) -> int:
        return 9

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        return {name: make(index) for name, make in self.made.items()}


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"x": lambda index: index[:1]},
            r"context 'x' must be a tensor with B = 4 rows on cpu, got \(1,\) on cpu",
        ),
        ({"x": lambda index: index.to("meta")}, "got .* on meta"),
        ({"x": lambda index: index.tolist()}, "got list"),
        (
            {"source": lambda index: index.unsqueeze(1)},
            "contexts gives a source, but items has none.*one row will do",
        ),
    ],
)
def test_computed_contexts_that_cannot_be(context: Any, message: str) -> None:
    env = Computed(context, num_envs=4)
    with pytest.raises(ValueError, match=message):
        env.reset()
    assert not env.context


def test_a_computed_source_whose_width_is_known() -> None:
    placeholder = {"source": torch.ones(1, 2, dtype=torch.int64)}
    env = Computed(
        {"source": lambda index: index.unsqueeze(1) % 4 + torch.ones(2).long()}, items=placeholder, num_envs=4
    )
    assert env.reset()[0]["source"].shape == (4, 2)
    rlseq.testing.check_policy(rlseq.make_policy("seq2seq", env, hidden=8, embedding=4), env)


@pytest.mark.parametrize(
    ("legal", "got"),
    [
        ([True] * 5, "list"),
        (torch.ones(5, dtype=torch.int8), r"torch.int8 \(5,\) on cpu"),
        (torch.ones(4, 6) > 0, r"torch.bool \(4, 6\)"),
        (torch.ones(5, device="meta") > 0, r".*on meta"),
    ],
)
def test_masks_that_are_none(legal: Any, got: str) -> None:
    env = Computed({}, num_envs=4)
    policy = rlseq.make_policy("gru", env, hidden=4, embedding=4)
    env.legal = lambda: legal  # type: ignore[method-assign]
    for use in (env.reset, lambda: rlseq.rollout(policy, env), lambda: rlseq.beam_search(policy, env)):
        with pytest.raises(
            ValueError, match=rf"`legal` must return bool \(\d+, 5\) or \(5,\) on cpu.* got {got}"
        ):
            use()


def test_a_task_may_call_its_own_things_data(tmp_path: Path) -> None:
    env = Computed({}, num_envs=4)
    env.data = ["something of its own"]  # type: ignore[attr-defined]
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    rlseq.train(rlseq.make_agent("reinforce", policy), env, 1, out=tmp_path / "run")
    assert (tmp_path / "run" / "results.json").exists()
