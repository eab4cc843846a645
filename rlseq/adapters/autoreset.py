"""One step of a vector environment in each of Gymnasium's autoreset modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

Advanced = tuple[
    Any, Any, Any, Any, Any
]  # observed now, reached by the action, rewards, terminated, truncated


def next_step(env: Any, actions: Any) -> Advanced:
    """Step; the step after an episode's last one only resets."""
    observed, rewards, terminated, truncated, _ = env.step(actions)
    observed = own(observed)
    return observed, observed, rewards, terminated, truncated


def same_step(env: Any, actions: Any) -> Advanced:
    """Step; the last step of an episode has the first observation of the next, and its own in the info."""
    observed, rewards, terminated, truncated, info = env.step(actions)
    reached = observed = own(observed)
    ends = terminated | truncated
    if ends.any():
        reached = observed.copy()
        for row in np.flatnonzero(ends):
            reached[row] = info["final_obs"][row]
    return observed, reached, rewards, terminated, truncated


def disabled(env: Any, actions: Any) -> Advanced:
    """Step, and reset the rows that ended."""
    observed, rewards, terminated, truncated, _ = env.step(actions)
    reached = observed = own(observed)
    ends = terminated | truncated
    if ends.any():
        observed = own(env.reset(options={"reset_mask": ends})[0])
    return observed, reached, rewards, terminated, truncated


ADVANCES: dict[AutoresetMode, Callable[[Any, Any], Advanced]] = {
    AutoresetMode.NEXT_STEP: next_step,
    AutoresetMode.SAME_STEP: same_step,
    AutoresetMode.DISABLED: disabled,
}


def own(observed: Any) -> Any:
    """Return a copy, which the environment cannot write over."""
    return np.array(observed, np.float32)
