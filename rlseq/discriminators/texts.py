"""Batches of texts for discriminators: real ones, generated ones, real ones under a wrong source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.engine.references import check_has_references, sample_references
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task import no_reward
from rlseq.policies.encoders import PICTURE_READERS
from rlseq.types import Context, Reward, Rollout
from rlseq.utils.flags import refuse_where
from rlseq.utils.modules import eval_mode
from rlseq.utils.ranks import ALONE

SOURCES = ("source", *PICTURE_READERS)  # the entries of a context that texts are about
WRITTEN_TOGETHER = 1024  # texts, so that memory does not grow with their number


class TextBatch(NamedTuple):
    """B texts and their contexts."""

    tokens: Tensor  # ids [B, T]; or floats [B, T, n]: distributions over words, or other vectors
    mask: Tensor  # [B, T]
    context: Context

    @classmethod
    def of(cls, batch: Rollout) -> TextBatch:
        """Return the texts of a rollout: its relaxed words, where it was written with such."""
        relaxed = batch.inputs
        if isinstance(relaxed, Tensor) and relaxed.is_floating_point():
            return cls(relaxed, batch.mask, batch.context)
        return cls(batch.actions, batch.mask, batch.context)

    def words(self) -> TextBatch:
        """Return the texts as ids: of a distribution, its likeliest word."""
        return self._replace(tokens=self.tokens.argmax(-1)) if self.tokens.is_floating_point() else self

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


WriteTexts = Callable[[Any, SequenceEnv, int], TextBatch]  # (policy, task, number) -> so many of its texts


def generated_texts(policy: Any, env: SequenceEnv, number: int) -> TextBatch:
    """Return texts of a policy, for which no reward is computed."""
    return in_parts(lambda part: TextBatch.of(rollout(policy, part)), env, number)


def in_parts(write: Callable[[SequenceEnv], TextBatch], env: SequenceEnv, number: int) -> TextBatch:
    """Return texts that are written in a task without a reward, at most 1,024 at a time."""
    env = rewarded(env, no_reward).replace(starts=None, rank=ALONE)  # all ranks train it on the same texts
    sizes = [min(WRITTEN_TOGETHER, number - start) for start in range(0, number, WRITTEN_TOGETHER)]
    return joined([write(env.replace(num_envs=size)) for size in sizes])


def real_texts(env: SequenceEnv, number: int) -> TextBatch:
    """Return references of random items."""
    return TextBatch.of(sample_references(env.replace(num_envs=number, rank=ALONE)))


def mismatched(texts: TextBatch) -> TextBatch:
    """Return texts with the source or picture of another, where the two differ (Reed et al. 2016)."""
    context = {name: value.roll(1, 0) for name, value in texts.context.items()}
    rows = sources_differ(context, texts.context).nonzero().squeeze(1)
    if not len(rows):
        raise ValueError(
            "mismatched pairs need different sources, but all of a batch are the same; give the task more "
            "items, or the discriminator mismatch=False"
        )
    return TextBatch(texts.tokens, texts.mask, context).take(rows)


def sources_differ(a: Context, b: Context) -> Tensor:
    """Return in which rows two contexts have other sources or pictures, bool `[B]`."""
    differ = [(a[name] != b[name]).flatten(1).any(1) for name in SOURCES if name in a]
    return torch.stack(differ).any(0)


def check_pool(env: SequenceEnv) -> None:
    """Refuse a task without real texts to learn from."""
    check_has_references(env)
    if "reference_lengths" not in env.items:
        return  # computed, as those of a corpus, in which every item has one
    empty = (env.items["reference_lengths"] < 1).all(1)
    refuse_where(
        empty.any(),
        lambda: ValueError(
            f"{int(empty.sum())} of {len(empty)} items have no real text (reference_lengths 0), "
            f"the first is item {int(empty.nonzero()[0])}; a discriminator compares with real texts"
        ),
    )


@torch.no_grad()
def check_judges_distributions(discriminator: Any, env: SequenceEnv) -> None:
    """Refuse a discriminator that does not score a one-hot distribution as it scores the word."""
    index = torch.zeros(1, dtype=torch.int64, device=env.device)
    context = {**env.contexts(index), "index": index}
    tokens = (torch.arange(env.max_len, device=env.device) % len(env.vocab)).unsqueeze(0)
    hard = TextBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), context)
    with eval_mode(discriminator):
        wanted = discriminator(*hard)
        try:
            found = discriminator(*hard._replace(tokens=F.one_hot(tokens, len(env.vocab)).to(wanted.dtype)))
            reads = torch.allclose(found, wanted, atol=1e-4)
        except (RuntimeError, TypeError, IndexError, ValueError, AttributeError):
            reads = False
    if not reads:
        raise TypeError(
            f"{type(discriminator).__name__} does not read distributions over words: it must score floats "
            "[B, T, V] as well as ids [B, T], and a one-hot row as its word; use "
            "rlseq.make_discriminator(name, env), or embed words by rlseq.policies.spec.TokenEmbedding"
        )


def rewarded(env: SequenceEnv, reward: Reward) -> SequenceEnv:
    """The same task, paid by another reward."""
    return env.replace(reward={"discriminator": reward})
