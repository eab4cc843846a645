"""Batches of texts for discriminators: real ones, generated ones, real ones under a wrong source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlseq.engine.references import check_has_references, sample_references
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task import no_reward
from rlseq.types import Context, Reward, Rollout

WRITTEN_TOGETHER = 1024  # texts, so that memory does not grow with their number


class TextBatch(NamedTuple):
    """B texts and their contexts."""

    tokens: Tensor  # [B, T]
    mask: Tensor  # [B, T]
    context: Context

    @classmethod
    def of(cls, batch: Rollout) -> TextBatch:
        """Return the texts of a rollout."""
        return cls(batch.actions, batch.mask, batch.context)

    def take(self, rows: Tensor | slice) -> TextBatch:
        """Return some of the texts."""
        context = {name: value[rows] for name, value in self.context.items()}
        return TextBatch(self.tokens[rows], self.mask[rows], context)


def joined(parts: Sequence[TextBatch]) -> TextBatch:
    """Return several batches as one."""
    first = parts[0].context
    context = {name: torch.cat([part.context[name] for part in parts]) for name in first}
    return TextBatch(torch.cat([p.tokens for p in parts]), torch.cat([p.mask for p in parts]), context)


def restored(state: Mapping[str, Any] | None, module: nn.Module) -> TextBatch | None:
    """Return texts from a checkpoint, on the device of the module that reads them."""
    if state is None:
        return None
    device = next(module.parameters()).device
    context = {name: value.to(device) for name, value in state["context"].items()}
    return TextBatch(state["tokens"].to(device), state["mask"].to(device), context)


def generated_texts(policy: Any, env: SequenceEnv, number: int) -> TextBatch:
    """Return texts of a policy, for which no reward is computed."""
    env = rewarded(env, no_reward)
    sizes = [min(WRITTEN_TOGETHER, number - start) for start in range(0, number, WRITTEN_TOGETHER)]
    return joined([TextBatch.of(rollout(policy, env.replace(num_envs=size))) for size in sizes])


def real_texts(env: SequenceEnv, number: int) -> TextBatch:
    """Return references of random items."""
    return TextBatch.of(sample_references(env.replace(num_envs=number)))


def mismatched(texts: TextBatch) -> TextBatch:
    """Return texts with the source of another, where the two sources differ (Reed et al. 2016)."""
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
    check_has_references(env)
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
