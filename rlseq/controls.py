"""Controls: tasks whose reward carries no information, on which a real improvement is impossible.

What an agent gains on them it owes to something else, such as a policy that grows more certain of what it
writes anyway (Choshen et al. 2020). Both change the task in place and return it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlseq.engine import sequence_env
from rlseq.errors import pick
from rlseq.types import Context, Reward


def constant(env: Any) -> Any:
    """Every text earns 1."""
    return _rewarded(env, {"constant": lambda tokens, mask, context: mask[:, 0].new_ones(len(mask)).float()})


def shuffled(env: Any) -> Any:
    """Every text earns what another text of the batch deserves: the one half a batch away."""

    def elsewhere(reward: Reward) -> Reward:
        def judge(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
            value = reward(tokens, mask, context)
            value = value if value.ndim == 1 else value.sum(1)
            return value.roll(max(1, len(value) // 2), 0)

        return judge

    return _rewarded(env, {name: elsewhere(part) for name, part in sequence_env(env).parts.items()})


CONTROLS = {"constant": constant, "shuffled": shuffled}


def controlled(env: Any, control: str) -> Any:
    """A control by name."""
    return pick(CONTROLS, control, "control")(env)


def _rewarded(env: Any, parts: dict[str, Reward]) -> Any:
    sequence_env(env).parts = parts
    return env
