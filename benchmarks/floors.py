"""The floor of an update: the seconds of the matrix products that it cannot do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from matmul import speed
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

from rlseq.engine.parts import narrow_source
from rlseq.engine.rollout import evaluate_actions
from rlseq.policies.matmul import affine
from rlseq.types import Rollout

COUNTED = 32  # rows of a batch whose products are counted, each alone, so that padding is not


def floor(setting: Any, env: Any, agent: Any) -> float:
    """Return the seconds of the matrix products that an update needs, at the speed of its largest one.

    Every real word is written once, and scored and differentiated once in every epoch; a source is encoded
    once for all of its texts. What is no product (softmax, gates, rewards, Adam) is not counted.
    """
    policy, batch, epochs = agent.policy, agent.collect(env), getattr(agent, "epochs", 1)
    share, total = len(batch.actions) // COUNTED, 0.0
    for row in range(0, len(batch.actions), share):
        scored, encoded = products(policy, alone(policy, batch, row))
        words = (setting.written + 3 * epochs) * (scored - encoded)  # differentiated: twice as many again
        total += share * (words + encoded * (bool(setting.written) + 3 * epochs) / batch.samples)
    return total / (1e9 * fastest(policy, setting.rows))


def alone(policy: Any, batch: Rollout, row: int) -> Rollout:
    """Return one text of a batch without padding."""
    text = batch.take(slice(row, row + 1)).trimmed()
    if policy.words.source is None:
        return text
    return replace(text, context=narrow_source(text.context, policy.words.source_pad))


@torch.no_grad()
def products(policy: Any, text: Rollout) -> tuple[int, int]:
    """Return the operations of the products that score a text, and those that encode its source."""
    return (
        operations(lambda: evaluate_actions(policy, text)),
        operations(lambda: policy.start(text.context)),
    )


def operations(run: Callable[[], Any]) -> int:
    """Return the operations of the matrix products in a call, by kernels that the counter knows."""
    ours = {torch.ops.rlseq.affine: lambda x, weight, *_, **__: 2 * x[0] * x[1] * weight[0]}
    counter = FlopCounterMode(display=False, custom_mapping=ours)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops()


def fastest(policy: Any, rows: int) -> float:
    """Return billions of operations a second of the product of a batch with the policy's largest matrix."""
    weight = max((p.detach() for p in policy.parameters() if p.ndim == 2), key=Tensor.numel)
    x = torch.randn(rows, weight.shape[1])
    with torch.no_grad():
        return max(speed(partial(by, x, weight), 2 * rows * weight.numel()) for by in (affine, linear))
