"""Train an agent, and evaluate a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rlseq.agent import Agent
from rlseq.checks import checked_reward, named_functions
from rlseq.decode import Decode, Greedy, Sample, Search
from rlseq.engine import rollout, sequence_env
from rlseq.errors import pick
from rlseq.search import Beam
from rlseq.types import OwnLoop, Reward

DECODERS: dict[str, Decode | Search] = {"beam": Beam(), "greedy": Greedy(), "sample": Sample()}
History = list[dict[str, float]]


def train(
    agent: Agent,
    env: Any,
    updates: int = 1000,
    eval_env: Any = None,
    eval_every: int = 100,
    on_update: Callable[[dict[str, float]], None] | None = None,
) -> History:
    """Run `updates` of `collect`, `update`.

    Args:
        agent: learns.
        env: gives the batches.
        updates: how many gradient steps.
        eval_env: scored greedily every `eval_every` updates, and after the last; its scores are `eval_…`.
        eval_every: updates between two evaluations.
        on_update: is told the metrics of every update; a progress bar, say.

    Returns:
        The metrics of every update.
    """
    if updates < 1 or eval_every < 1:
        raise ValueError(f"updates and eval_every must be ≥ 1, got {updates} and {eval_every}")
    history: History = []
    for update in range(1, updates + 1):
        metrics = agent.update(agent.collect(env))
        row = {"update": float(update), **{name: float(value) for name, value in metrics.items()}}
        if eval_env is not None and (update % eval_every == 0 or update == updates):
            scores = evaluate(agent.policy, eval_env)
            row |= {f"eval_{name}": value for name, value in scores.items()}
        history.append(row)
        if on_update is not None:
            on_update(row)
    return history


def evaluate(
    policy: Any,
    env: Any,
    decode: str | Decode | Search = "greedy",
    metrics: Mapping[str, Reward] | None = None,
    limit: int | None = None,
) -> dict[str, float]:
    """Mean scores of a policy's texts, one for every item of the task.

    Args:
        policy: writes.
        env: the task; its episodes and random numbers are left as they were found.
        decode: "greedy", "sample", "beam", or a decoder.
        metrics: what to report beside the reward, name → reward function; the task's own when not given.
            A metric reports its own figure: an edit distance, not the 1 − rate that it pays as a reward.
        limit: number of texts; all items when not given, or 1,000 where there is only one; of a
            `rlseq.adapters.GymEnv` number of episodes, 100 when not given, for which it starts afresh.

    Returns:
        "reward", "length", every part of the reward, and every metric.
    """
    decode = pick(DECODERS, decode, "decoder") if isinstance(decode, str) else decode
    if isinstance(env, OwnLoop):
        if metrics is not None:
            raise TypeError(f"metrics judge texts; {type(env).__name__} reports reward and length")
        return env.evaluate(policy, decode, limit)
    env = sequence_env(env)
    metrics = named_functions(env.metrics if metrics is None else metrics)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be ≥ 1, got {limit}")
    rows = limit or (env.size if env.size > 1 else 1000)
    items = torch.arange(rows, device=env.device) % env.size
    sums: dict[str, Any] = {}
    episodes = {
        name: vars(env)[name] for name in ("context", "_tokens", "length", "done") if name in vars(env)
    }
    random = env.generator.get_state()
    try:
        for batch in items.split(env.num_envs):
            for name, value in _scores(policy, env, decode, metrics, batch).items():
                sums[name] = sums.get(name, 0.0) + value.double().sum()
    finally:
        vars(env).update(episodes)
        env.generator.set_state(random)
    return {name: float(value) / rows for name, value in sums.items()}


def _scores(
    policy: Any, env: Any, decode: Decode | Search, metrics: Mapping[str, Reward], items: Any
) -> dict[str, Any]:
    """Scores of one batch of items, `[len(items)]` each; the last batch is filled up and cut."""
    n = len(items)
    index = torch.cat([items, items.new_zeros(env.num_envs - n)])
    batch = rollout(policy, env, decode=decode, index=index)
    tokens, mask = batch.actions, batch.mask
    scores = {"reward": batch.returns, "length": batch.lengths.float()}
    if len(env.parts) > 1:
        scores |= {name: part.sum(1) for name, part in env.judge(tokens, mask, batch.context).items()}
    for name, metric in metrics.items():
        metric = getattr(metric, "value", metric)  # an edit distance's own figure, not what it is as a reward
        value = checked_reward(name, metric(tokens, mask, batch.context), mask, mask[:, 0])
        scores[name] = value if value.ndim == 1 else value.sum(1)
    return {name: value[:n] for name, value in scores.items()}
