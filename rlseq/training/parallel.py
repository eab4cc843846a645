"""One training in several processes: who can take part, what all must agree on, and the rows of each.

All ranks hold the same state, so that the checkpoint of rank 0 is that of all, and a run may go on with
another number of ranks. What an agent takes from a batch must be taken over the rows of all ranks; where that
is not tested, an agent is refused.
"""

from __future__ import annotations

import json
from hashlib import sha256
from types import FunctionType
from typing import Any

import torch

from rlseq.metrics.algebra import name_of
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.baselines import Regression
from rlseq.training import checkpoint
from rlseq.training.fingerprint import describe, describe_task, differences
from rlseq.types import LearningReward, SteppedEnv
from rlseq.utils.ranks import Rank, everyones, this_rank

COMPARED_FIELDS = (
    "credit",
    "baseline",
    "scale",
    "aggregate",
    "divergence",
    "action_values",
)  # look at a batch
HOW = "see docs/guides/devices.md"


def check_for_ranks(agent: Any, env: Any) -> None:
    """Refuse what several processes have not been shown to learn as one does."""
    _check_class(type(agent))
    if any(hasattr(p, "device_mesh") for p in agent.policy.parameters()):
        raise ValueError(
            "the weights of this policy are divided among processes (fully_shard), while gradients are "
            "summed and checkpoints written here of whole weights; leave the policy whole on every rank, "
            f"and save memory by adapters (peft=) and micro_batches; {HOW}"
        )
    for name in COMPARED_FIELDS:
        _check_factor(name, getattr(agent, name, None))
    if isinstance(baseline := getattr(agent, "baseline", None), Regression):
        _check_factor("baseline", baseline.beside)
    if isinstance(env, SteppedEnv):
        _check_factor("rewards", getattr(env, "rewards", None))
        return
    _check_factor("curriculum", env.starts)
    for name, reward in env.parts.items():
        if isinstance(reward, LearningReward):
            _check_factor(f"reward {name}", reward)


def _check_factor(name: str, factor: Any) -> None:
    """Refuse a function of a batch that is not known to compare the rows of all ranks."""
    if factor is None or _is_tested(factor if isinstance(factor, FunctionType) else type(factor)):
        return
    if getattr(factor, "for_ranks", False):
        return
    raise ValueError(
        f"{name} {name_of(factor)} has not been shown to be right where each of several processes sees a "
        "part of the rows; if it compares no rows with others, or does so over all ranks "
        f"(rlseq.utils.ranks), give it the attribute for_ranks = True; {HOW}"
    )


def _check_class(cls: type[Agent]) -> None:
    """Refuse an agent that is not known to take its statistics over all ranks; a subclass must say so."""
    if cls.for_ranks and (_is_tested(cls) or "for_ranks" in vars(cls)):
        return
    message = f"{cls.__name__} cannot be trained by several processes; start it without torchrun"
    if not _is_tested(cls):
        message += (
            "; if your class takes means and other statistics of a batch over all ranks "
            "(rlseq.utils.ranks), give it the attribute for_ranks = True"
        )
    raise ValueError(f"{message}; {HOW}")


def _is_tested(part: type | FunctionType) -> bool:
    """Return whether a class or a function is one of rlseq, all of which tests/test_ranks.py compares."""
    return part.__module__.startswith("rlseq.")


def divided(agent: Any, env: Any, me: Rank) -> Any:
    """Return a task with the rows of this rank."""
    if me.of == 1:
        return env
    samples = getattr(agent, "samples", 1)
    if env.num_envs % (me.of * samples):
        each = f"samples={samples} of each source" if samples > 1 else "one row"
        raise ValueError(
            f"num_envs={env.num_envs} rows cannot be divided among {me.of} ranks with at least {each}; make "
            f"the task with a multiple of {me.of * samples} rows"
        )
    if isinstance(env, SteppedEnv):
        return env.of_rank(me)
    return env.replace(num_envs=env.num_envs // me.of, rank=me)


def check_same_settings(agent: Any, env: Any, test: Any, **training: Any) -> None:
    """Refuse ranks whose settings or data differ; weights and seeds are those of rank 0.

    Args:
        agent: the agent.
        env: the training task.
        test: the test task, if there is one.
        **training: settings of the training that decide when ranks meet.
    """
    found = describe(agent, env)
    mine = {part: found[part] for part in ("agent", "env", "policy")}
    mine |= {"test": None if test is None else describe_task(test), "training": training}
    mine["versions"] = {name: found["machine"][name] for name in ("rlseq", "torch")}
    for task in filter(None, (mine["env"], mine["test"])):
        task.pop("seed", None)
    first, *others = map(json.loads, everyones(json.dumps(mine).encode()))
    for number, other in enumerate(others, 1):
        differ = next(differences(first, other, "run"), None)
        if differ is not None:
            raise ValueError(
                f"rank {number} has other settings or data than rank 0, where "
                f"{differ.replace(', is', ', and is')} on rank {number}; start all ranks with the same "
                "command, files and versions"
            )


def check_same_state(agent: Any, env: Any) -> None:
    """Refuse to go on where ranks are no longer copies of each other; called before a checkpoint."""
    if this_rank().of == 1:
        return
    state = {**checkpoint.state_of(agent, env), "counts": env.counts.as_dict()}
    del state["cuda"]  # of its device alone, and set anew for every update
    mine = {name: sha256(checkpoint.packed({name: part})).hexdigest() for name, part in state.items()}
    first, *others = map(json.loads, everyones(json.dumps(mine).encode()))
    for number, other in enumerate(others, 1):
        differ = [name for name in first if first[name] != other[name]]
        if differ:
            raise RuntimeError(
                f"ranks are no longer alike: {', '.join(differ)} of rank {number} and of rank 0 differ, so "
                "that no further checkpoint is written. Something has learned from the rows of one rank "
                f"alone, such as a reward or a callback of your own, or the machines differ; {HOW}"
            )


def device_of(policy: Any) -> torch.device:
    """Return the device of a policy."""
    return next((p.device for p in policy.parameters()), torch.device("cpu"))
