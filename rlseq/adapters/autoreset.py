"""One step of a vector environment in each of Gymnasium's autoreset modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode


def advance(env: Any, actions: Any, mode: AutoresetMode) -> tuple[Any, Any, Any, Any, Any]:
    """Take a step in every row, so that rows that ended are reset now, or by the next step.

    Returns:
        What is observed now; what was reached by the actions, before any reset; rewards; terminated;
        truncated. In NextStep mode the step after an episode's last one only resets.
    """
    observed, rewards, terminated, truncated, info = env.step(actions)
    reached = observed = own(observed)
    ends = terminated | truncated
    if mode is AutoresetMode.SAME_STEP and ends.any():  # the last observation of an episode is in the info
        reached = observed.copy()
        for row in np.flatnonzero(ends):
            reached[row] = info["final_obs"][row]
    elif mode is AutoresetMode.DISABLED and ends.any():
        observed = own(env.reset(options={"reset_mask": ends})[0])
    return observed, reached, rewards, terminated, truncated


def own(observed: Any) -> Any:
    """Return a copy, which the environment cannot write over."""
    return np.array(observed, np.float32)
