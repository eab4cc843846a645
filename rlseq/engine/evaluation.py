"""`evaluate`: the scores of a policy's texts, one for every item of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.beam import Beam
from rlseq.engine.checks import named_functions
from rlseq.engine.decode import Decode, Greedy, Sample, Search
from rlseq.engine.mbr import MBR
from rlseq.engine.rollout import rollout
from rlseq.mdp.checks import checked_reward
from rlseq.mdp.sequence_env import sequence_env
from rlseq.types import Reward, SteppedEnv
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.errors import pick
from rlseq.utils.ranks import Rank, gathered

DECODERS: dict[str, Decode | Search] = {
    "beam": Beam(),
    "greedy": Greedy(),
    "mbr": MBR(),
    "sample": Sample(),
}
SUBSET_SEED = 0  # of the items that are tested where a limit leaves some out
SINGLE = 1000  # texts of a task that has one item only


@dataclass(frozen=True, eq=False)
class EvaluatedTexts:
    """The texts of a policy, one row each, and their scores."""

    index: Tensor  # [N], the items
    actions: Tensor  # [N, T]
    mask: Tensor  # [N, T]
    log_probs: Tensor  # [N, T]
    scores: dict[str, Tensor]  # [N] each

    def means(self) -> dict[str, float]:
        """Return the mean of every score."""
        return {name: float(value.double().sum()) / len(self.index) for name, value in self.scores.items()}

    def pooled(self, env: Any, metrics: Sequence[str]) -> dict[str, float]:
        """Compute metrics of all texts together, by their reference definitions (`rlseq.metrics`)."""
        from rlseq.metrics import evaluate as figures

        lines = self.lines(env)
        if not all("references" in line for line in lines):
            raise ValueError(f"this task has no references for {', '.join(metrics)} to compare texts with")
        texts, references = [line["text"] for line in lines], [line["references"] for line in lines]
        return dict(figures(texts, references, metrics))

    def lines(self, env: Any) -> list[dict[str, Any]]:
        """Return the item, source, references, text and scores of every row, as text and numbers."""
        lines = _described(env, self.index)
        scores = {name: value.tolist() for name, value in self.scores.items()}
        for row, (line, text) in enumerate(zip(lines, env.texts(self.actions, self.mask), strict=True)):
            line |= {"text": text, "scores": {name: values[row] for name, values in scores.items()}}
        return lines


@checked_arguments
def evaluate(
    policy: Any,
    env: Any,
    decode: str | Decode | Search = "greedy",
    metrics: Mapping[str, Reward] | None = None,
    limit: PositiveInt | None = None,
) -> dict[str, float]:
    """Compute the mean scores of a policy's texts, one for every item of the task.

    Args:
        policy: the policy that writes.
        env: the task; its episodes, counts and random numbers are restored.
        decode: "greedy", "sample", "beam", "mbr" (minimum Bayes risk), or a decoder.
        metrics: what to report beside the reward, name → reward function; the task's own when not given.
            A metric reports its own value: an edit distance, not the reward 1 − rate that is made of it.
        limit: the largest number of items, drawn at random by a fixed seed, the same for every policy; all
            items when not given. Where the task has one item only, the number of texts, 1,000 when not given;
            of a `rlseq.adapters.GymEnv`, which starts afresh, the number of episodes, 100 when not given.

    Returns:
        "reward", "length", every part of the reward, and every metric.
    """
    if isinstance(env, SteppedEnv):
        if metrics is not None:
            raise TypeError(f"metrics judge texts; {type(env).__name__} reports reward and length")
        return env.evaluate(policy, _decoder(decode), limit)
    return evaluate_texts(policy, env, decode, metrics, limit).means()


@checked_arguments
def evaluate_texts(
    policy: Any,
    env: Any,
    decode: str | Decode | Search = "greedy",
    metrics: Mapping[str, Reward] | None = None,
    limit: PositiveInt | None = None,
) -> EvaluatedTexts:
    """Return the texts that `evaluate` scores, and the scores of each."""
    env = sequence_env(env).replace(starts=None)
    decode = _decoder(decode)
    metrics = named_functions(env.metrics if metrics is None else metrics)
    items = items_tested(env.size, limit).to(env.device)
    with env.preserved():
        batches = torch.split(_of_this_rank(items, env.rank), env.num_envs)
        found = [_evaluate_batch(policy, env, decode, metrics, batch) for batch in batches]

    def whole(parts: Iterable[Tensor]) -> Tensor:
        rows = torch.cat(list(parts))
        return rows if env.rank.of == 1 else gathered(rows)[: len(items)]

    actions, mask, log_probs = (whole(f[i] for f in found) for i in range(3))
    scores = {name: whole(f[3][name] for f in found) for name in found[0][3]}
    return EvaluatedTexts(items, actions, mask, log_probs, scores)


def _of_this_rank(items: Tensor, rank: Rank) -> Tensor:
    """Return the items that this rank tests, as many as every other: the last one again where some lack."""
    each = -(-len(items) // rank.of)
    places = torch.arange(rank.all(each), device=items.device).clamp(max=len(items) - 1)
    return rank.own(items[places])


def _decoder(decode: str | Decode | Search) -> Decode | Search:
    return pick(DECODERS, decode, "decoder") if isinstance(decode, str) else decode


def items_tested(size: int, limit: int | None = None) -> Tensor:
    """Return the items of an evaluation: all in order, or as many as the limit allows, drawn at random.

    They are drawn without replacement and by a fixed seed, so that every policy is tested on the same items,
    each of them once. Only a task that has a single item is tested on it several times.

    Args:
        size: number of items that the task has.
        limit: the largest number of items.
    """
    if size == 1:
        return torch.zeros(limit or SINGLE, dtype=torch.int64)
    return torch.arange(size) if limit is None else subset(size, limit)


def subset(size: int, most: int, seed: int = SUBSET_SEED) -> Tensor:
    """Return 0 … size−1 in order, or `most` of them, drawn without replacement, where there are more."""
    return torch.arange(size) if most >= size else torch.tensor(Random(seed).sample(range(size), most))


def selection(size: int, limit: int | None = None) -> dict[str, Any]:
    """Return the record of which items an evaluation tests, for a results file.

    Returns:
        "size", the number of items that the task has; "texts", the number of texts; "seed", by which the
        items were drawn, None where none is left out; "digest" of their indices, as 64-bit little-endian
        integers in order (BLAKE2b of 16 bytes).
    """
    items = items_tested(size, limit)
    indices = items.numpy().astype("<i8")
    return {
        "size": size,
        "texts": len(items),
        "seed": SUBSET_SEED if len(items) < size else None,
        "digest": blake2b(indices.tobytes(), digest_size=16).hexdigest(),
    }


def _evaluate_batch(
    policy: Any, env: Any, decode: Decode | Search, metrics: Mapping[str, Reward], items: Tensor
) -> tuple[Any, ...]:
    """Write and score the texts of one batch of items; the last batch is filled up, and cut afterwards."""
    n = len(items)
    index = torch.cat([items, items.new_zeros(env.num_envs - n)])
    batch = rollout(policy, env, decode=decode, index=index)
    tokens, mask = batch.actions, batch.mask
    scores = {"reward": batch.returns, "length": batch.lengths.float()}
    if len(env.parts) > 1:
        scores |= {name: part.sum(1) for name, part in env.reward_parts(tokens, mask, batch.context).items()}
    for name, metric in metrics.items():
        metric = getattr(metric, "value", metric)  # an edit distance, not the reward made of it
        value = checked_reward(name, metric(tokens, mask, batch.context), mask, mask[:, 0])
        scores[name] = value if value.ndim == 1 else value.sum(1)
    scores = {name: value[:n] for name, value in scores.items()}
    return tokens[:n], mask[:n], batch.log_probs[:n], scores


def _described(env: Any, index: Tensor) -> list[dict[str, Any]]:
    """Return items, and their sources and references as text, where the task has any."""
    context = env.contexts(index)
    found: list[dict[str, Any]] = [{"index": item} for item in index.tolist()]
    if "source" in context and env.source_vocab is not None:
        source, pad = context["source"], env.source_vocab.pad
        lengths = (source != pad).sum(1).tolist()
        for about, text in zip(found, env.source_vocab.decode_batch(source.tolist(), lengths), strict=True):
            about["source"] = text
    if "references" in context:
        lengths = context["reference_lengths"].tolist()
        for about, rows, sizes in zip(found, context["references"].tolist(), lengths, strict=True):
            about["references"] = [env.vocab.decode(r[:n]) for r, n in zip(rows, sizes, strict=True) if n]
    return found
