"""`Worker`: a copy of an agent, with weights that may be older, which works in a thread beside it.

Networks compute without Python's lock, so that two threads use two processors where a step of a network takes
longer than the Python around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy, deepcopy
from typing import Any, Generic, TypeVar

import torch

from rlseq.engine.computing import computing, now
from rlseq.mdp.starts import Starts
from rlseq.types import Counts, SteppedEnv
from rlseq.utils.ranks import this_rank
from rlseq.utils.stateful import Stateful, seed_from

Found = TypeVar("Found")


class Worker(Generic[Found]):
    """Works on one batch at a time, while the agent learns from another.

    It takes over the weights of the agent between two batches, and draws the random numbers of a batch from a
    seed of its own. So what it finds does not depend on when threads run, and a run can be resumed.

    Args:
        agent: whose copy works.
        work: what it does, a function of the copy and the task.
    """

    def __init__(self, agent: Any, work: Callable[[Any, Any], Found]) -> None:
        self.agent, self.work = copy(agent), work
        self.agent.policy = deepcopy(agent.policy)
        if getattr(agent, "reference", None) is not None:  # a network is in one thread at a time
            self.agent.reference = deepcopy(agent.reference)
        self.seed: int | None = None  # of the batch that is under way; None where there is none
        self._found: Future[tuple[Found, Counts]] | None = None

    def begin(self, env: Any, policy: Any) -> None:
        """Take over the weights of a policy, and begin a batch."""
        self.agent.policy.load_state_dict(policy.state_dict())
        self.seed = seed_from(env.generator)
        self._start(env)

    def finish(self, env: Any) -> Found:
        """Wait for the batch that is under way; its tokens are counted now."""
        if self._found is None:  # a checkpoint holds how a batch was begun, and not the batch
            self._start(env)
        assert self._found is not None
        (found, counts), self._found = self._found.result(), None
        self.seed = None
        env.counts.add(counts)
        return found

    def _start(self, env: Any) -> None:
        assert self.seed is not None
        generator = torch.Generator(env.device).manual_seed(self.seed)
        own = env.replace(generator=generator, counts=Counts())
        how = now()  # which a thread does not inherit

        def work() -> tuple[Found, Counts]:
            with computing(how):
                return self.work(self.agent, own), own.counts

        pool = ThreadPoolExecutor(1)
        self._found = pool.submit(work)
        pool.shutdown(wait=False)  # no further work; this one goes on

    def state_dict(self) -> dict[str, Any]:
        """Return how the batch that is under way was begun."""
        return {"policy": self.agent.policy.state_dict(), "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.agent.policy.load_state_dict(state["policy"])
        self.seed, self._found = state["seed"], None


def check_for_workers(what: str, env: Any) -> None:
    """Refuse a task that changes as an agent learns, or that several threads or processes cannot share.

    Args:
        what: asks for workers, such as a setting of an agent.
        env: the task.
    """
    if this_rank().of > 1:
        raise ValueError(f"{what} uses threads of one process; start it without torchrun")
    if isinstance(env, SteppedEnv):
        raise ValueError(f"{what} is for texts, got {type(env).__name__}, which plays one batch at a time")
    changing = [f"the reward {name!r}" for name, part in env.parts.items() if isinstance(part, Stateful)]
    if isinstance(env.starts, Starts):
        changing.append(f"the curriculum {type(env.starts).__name__}")
    if changing:
        raise ValueError(
            f"{what} works on the next batch already, and {changing[0]} changes with this one; leave one out"
        )
