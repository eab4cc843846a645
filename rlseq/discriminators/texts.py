"""Texts that a discriminator compares: real ones, generated ones, real ones under a wrong source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlseq.engine.references import check_references, sample_references
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Context, Reward, Rollout

WRITTEN = 1024  # rows written together, so that memory does not grow with the number of texts


class TextBatch(NamedTuple):
    """B texts, and what each is about."""

    tokens: Tensor  # [B, T]
    mask: Tensor  # [B, T]
    context: Context

    @classmethod
    def of(cls, batch: Rollout) -> TextBatch:
        """Those of a rollout."""
        return cls(batch.actions, batch.mask, batch.context)

    def take(self, rows: Tensor | slice) -> TextBatch:
        """Some of them."""
        context = {name: value[rows] for name, value in self.context.items()}
        return TextBatch(self.tokens[rows], self.mask[rows], context)


def joined(parts: Sequence[TextBatch]) -> TextBatch:
    """Several batches as one."""
    first = parts[0].context
    context = {name: torch.cat([part.context[name] for part in parts]) for name in first}
    return TextBatch(torch.cat([p.tokens for p in parts]), torch.cat([p.mask for p in parts]), context)


def remembered(state: Mapping[str, Any] | None, module: nn.Module) -> TextBatch | None:
    """Texts of a checkpoint, on the device of the module that reads them."""
    if state is None:
        return None
    device = next(module.parameters()).device
    context = {name: value.to(device) for name, value in state["context"].items()}
    return TextBatch(state["tokens"].to(device), state["mask"].to(device), context)


def written(policy: Any, env: SequenceEnv, number: int) -> TextBatch:
    """What a policy writes now; nobody judges it."""
    env = rewarded(env, _nothing)
    sizes = [min(WRITTEN, number - start) for start in range(0, number, WRITTEN)]
    return joined([TextBatch.of(rollout(policy, env.replace(num_envs=size))) for size in sizes])


def real(env: SequenceEnv, number: int) -> TextBatch:
    """References of random items."""
    return TextBatch.of(sample_references(env.replace(num_envs=number)))


def mismatched(texts: TextBatch) -> TextBatch:
    """Every text under the source of another, where the two sources differ (Reed et al. 2016)."""
    context = {name: value.roll(1, 0) for name, value in texts.context.items()}
    differs = (context["source"] != texts.context["source"]).flatten(1).any(1)
    if not differs.any():
        raise ValueError(
            "mismatched pairs need different sources, but all of a batch are the same; give the task more "
            "items, or the discriminator mismatch=False"
        )
    return TextBatch(texts.tokens, texts.mask, context).take(differs)


def check_pool(env: SequenceEnv) -> None:
    """Refuse a task without real texts to learn from."""
    check_references(env)
    if "reference_lengths" not in env.items:
        return  # computed, as those of a corpus, in which every item has one
    empty = (env.items["reference_lengths"] < 1).all(1)
    if empty.any():
        raise ValueError(
            f"{int(empty.sum())} of {len(empty)} items have no real text (reference_lengths 0), "
            f"the first is item {int(empty.nonzero()[0])}; a discriminator compares with real texts"
        )


def rewarded(env: SequenceEnv, reward: Reward) -> SequenceEnv:
    """The same task, paid by another reward."""
    return env.replace(reward={"discriminator": reward})


def _nothing(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    return torch.zeros(len(tokens), device=tokens.device)
