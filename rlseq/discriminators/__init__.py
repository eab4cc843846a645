"""Discriminators: networks that tell generated texts from real ones, as rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from rlseq.discriminators.adversary import Adversary as Adversary
from rlseq.discriminators.network import AttentiveReader, CNNReader, RecurrentReader
from rlseq.discriminators.network import Discriminator as Discriminator
from rlseq.discriminators.network import Reader as Reader
from rlseq.discriminators.ranker import Ranker as Ranker
from rlseq.discriminators.testing import check_discriminator as check_discriminator
from rlseq.mdp.sequence_env import sequence_env
from rlseq.mdp.task_spec import TaskSpec
from rlseq.policies.spec import TokenSpec, check_sizes
from rlseq.utils.arguments import Seed, checked_arguments, keyword_names
from rlseq.utils.errors import check_options, enter, pick

READERS: dict[str, Callable[..., Reader]] = {
    "cnn": CNNReader,
    "gru": partial(RecurrentReader, nn.GRU),
    "lstm": partial(RecurrentReader, nn.LSTM),
    "transformer": AttentiveReader,
}


@checked_arguments
def make_discriminator(name: str, env: Any, *, seed: Seed | None = None, **sizes: Any) -> Discriminator:
    """Make a discriminator by name, on the task's device.

    Args:
        name: "cnn", "gru", "lstm" or "transformer".
        env: the task; it decides vocabularies, source and device.
        seed: of the initial weights; the task's own seed when not given.
        **sizes: `embedding`, `outputs`, `dropout`, `source` (see `Discriminator`), and those of the reader:
            of a CNN `windows` and `share`, else `hidden` and `layers`, of a transformer also `heads`.
    """
    env = sequence_env(env)
    seed = env.seed if seed is None else seed
    return built(name, TokenSpec.of(env), seed, **sizes).to(env.device)


def built(name: str, words: TokenSpec, seed: int, **sizes: Any) -> Discriminator:
    """Make a discriminator of texts made of these words."""
    reader = pick(READERS, name, "discriminator")
    own = keyword_names(Discriminator)
    its = keyword_names(reader) - own
    check_options(sizes, own | its, f"discriminator {name!r}")
    check_sizes(words.read, sizes)
    reading = partial(reader, **{size: value for size, value in sizes.items() if size in its})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator(words, reading, **{s: value for s, value in sizes.items() if s in own})


def built_for(spec: TaskSpec, made: Mapping[str, Any], seed: int = 0) -> Discriminator:
    """Make a discriminator of the texts of a task without its data.

    Args:
        spec: the words and sizes of the task.
        made: the name of the reader, and the sizes.
        seed: of the initial weights.
    """
    return built(made["reader"], TokenSpec.of(spec.env()), seed, **made["sizes"])


def register(name: str, reader: Callable[..., Reader]) -> None:
    """Make a discriminator known by the name of its reader, to `make_discriminator` and agents.

    Args:
        name: letters, digits and `_ + . -`.
        reader: a subclass of `Reader`, or a function that returns one; its keyword-only parameters are sizes.
    """
    if isinstance(reader, type) and not issubclass(reader, Reader):
        raise TypeError(f"a reader must be a subclass of rlseq.discriminators.Reader, got {reader!r:.80}")
    enter(READERS, name, reader, "discriminator", getattr(reader, "func", reader))
