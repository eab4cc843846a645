"""Blocks of rows, precision, and looks at the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq
from rlseq.engine.device import LOOK_EVERY_ON_CPU, AllDone, blocks, casting
from rlseq.engine.rollout import evaluate_actions
from rlseq.types import Behaviour

CPU = torch.device("cpu")


@pytest.mark.parametrize(("rows", "size"), [(4, 4), (8, 4), (12, 4), (9, 3), (7, 4)])
def test_blocks_are_alike_if_they_can_be(monkeypatch: pytest.MonkeyPatch, rows: int, size: int) -> None:
    monkeypatch.setattr("rlseq.engine.device.BLOCK", 40)  # 4 rows of 10 words
    found = blocks(rows, 10, CPU)
    assert [i for block in found for i in range(block.start, block.stop)] == list(range(rows))
    assert found[0].stop == size
    assert blocks(rows, 10, torch.device("meta")) == [slice(0, rows)]


def test_all_done_is_looked_at_now_and_then() -> None:
    done = torch.ones(3, dtype=torch.bool)
    looks, never = AllDone(True), AllDone(False)
    assert [looks(done) for _ in range(LOOK_EVERY_ON_CPU)] == [False] * (LOOK_EVERY_ON_CPU - 1) + [True]
    assert not any(never(done) for _ in range(2 * LOOK_EVERY_ON_CPU))
    assert not any(AllDone(True)(done.logical_not()) for _ in range(2 * LOOK_EVERY_ON_CPU))


@pytest.mark.parametrize("name", ["lstm", "gru", "seq2seq", "transformer"])
def test_a_rollout_under_autocast_is_scored_under_autocast(name: str) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=32, seed=1)
    policy = rlseq.make_policy(name, env, hidden=32)
    batch = rlseq.rollout(policy, env, autocast=torch.bfloat16)
    assert batch.behaviour.autocast == torch.bfloat16
    assert batch.log_probs.dtype == torch.float32

    def off(log_probs: torch.Tensor) -> float:
        return float((((log_probs.detach() - batch.log_probs) * batch.mask).exp() - 1).abs().max())

    assert off(evaluate_actions(policy, batch).log_probs) < 1e-4, "the first ratio is 1, as everywhere"
    assert off(policy.evaluate(batch.actions, batch.context).log_probs) > 1e-4, "float32 is another policy"
    more = rlseq.complete(policy, env, batch, samples=1, autocast=torch.bfloat16)
    assert more.behaviour.autocast == torch.bfloat16


def test_what_autocast_cannot_be() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=2)
    policy: Any = rlseq.make_policy("lstm", env, hidden=8)
    with pytest.raises(ValueError, match=r"autocast must be torch\.bfloat16, torch\.float16 or None"):
        rlseq.rollout(policy, env, autocast=torch.int64)
    with casting(None, CPU):
        assert not torch.is_autocast_enabled("cpu")
    assert Behaviour().autocast is None
