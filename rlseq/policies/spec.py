"""The vocabularies that a policy reads and writes, and embeddings of words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Shifted, SoftTokens, WordsRead
from rlseq.utils.memory import check_fits
from rlseq.vocab import TokenizerVocab

LAYER = 10_000  # bytes that the objects of a layer need, however narrow it is


@dataclass(frozen=True)
class TokenSpec:
    """The ids that a policy writes and reads, and the largest number of them."""

    written: int  # V, words that can be written
    read: int  # rows of their embedding: V, and the ids that are only read
    bos: int = 0  # read before the first word
    length: int = 0  # T, words of a text
    source: int | None = None  # rows of the source's embedding; None where there is no source
    source_pad: int = 0  # fills up short sources
    source_length: int = 0  # S, words of a source
    observed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of what is no words
    noise: int = 0  # numbers of z, which the task draws for every text
    turn: int = -1  # the word between two turns of a dialogue; -1 where there are none
    tokenizer: bool = False  # the words are the ids of a pretrained model's tokenizer
    prefix: tuple[int, ...] = ()  # read by a pretrained decoder before it writes, BOS last
    # Hashes, in this process, of the words that are written and read; empty where they are not known.
    vocabularies: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.prefix:
            object.__setattr__(self, "prefix", (self.bos,))

    @classmethod
    def of(cls, env: SequenceEnv) -> TokenSpec:
        """Return those of a task."""
        words = len(env.vocab), env.vocab.num_ids, env.vocab.bos, env.max_len
        observed = {name: tuple(env.items[name].shape[1:]) for name in env.observed}
        more: dict[str, Any] = {"observed": observed, "noise": env.noise, "vocabularies": hashes(env)}
        more["turn"] = getattr(env, "turn", -1)
        if isinstance(env.vocab, TokenizerVocab):
            more |= {"tokenizer": True, "prefix": env.vocab.prefix}
        if (source := env.source_vocab) is not None:
            more |= {"source": source.num_ids, "source_pad": source.pad}
            more["source_length"] = env.items["source"].shape[1]
        return cls(*words, **more)

    def before(self, actions: Any) -> Any:
        """Return the inputs before each action: BOS, y₁ … y_{T−1}, in the form in which they are given.

        Args:
            actions: ids `[B, T]`, `SoftTokens`, distributions over words `[B, T, V]`; any of them shifted.
        """
        if isinstance(actions, Shifted):
            return actions._replace(words=self.before(actions.words))
        if isinstance(actions, SoftTokens):
            mean = 1 / actions.weights.shape[2]
            return SoftTokens(_delayed(actions.words, self.bos), _delayed(actions.weights, mean))
        if actions.is_floating_point():  # BOS may be an id beyond V
            before = F.pad(_delayed(actions, 0), (0, self.read - actions.shape[2]))
            before[:, 0, self.bos] = 1
            return before
        return _delayed(actions, self.bos)

    def present(self, source: Tensor) -> Tensor:
        """Return False on padding, bool `[B, S]`; the first word is always present, for attention."""
        present = source != self.source_pad
        present[:, 0] = True
        return present


def hashes(env: SequenceEnv) -> tuple[int, ...]:
    """Return a hash of the words that a task writes, and one of those that it reads."""
    return hash(env.vocab.words), hash(env.source_vocab and env.source_vocab.words)


def warn_of_other_words(policy: Any, env: SequenceEnv) -> None:
    """Warn of a policy that was made for a task with as many words, but with other ones."""
    made_for = getattr(getattr(policy, "words", None), "vocabularies", ())
    if made_for and made_for != hashes(env):
        part = "writes" if made_for[0] != hashes(env)[0] else "reads"
        warnings.warn(
            f"the policy was made for a task with other words than {type(env).__name__} {part}: an id means "
            "another word here than in its training; make the task with the same words, or a policy by "
            "rlseq.make_policy(name, env)",
            stacklevel=3,
        )


class TokenEmbedding(nn.Embedding):
    """A vector for every word; of several words at once, or of a distribution, their weighted mean.

    Words that are `Shifted` have their shift added.
    """

    def forward(self, words: WordsRead) -> Tensor:
        """Return vectors `[…, E]`.

        Args:
            words: ids `[…]`; several weighted words in each place; or floats `[…, n]`, the weights of the
                first n words; or one of these, and a vector to add.
        """
        if isinstance(words, Shifted):
            return self.forward(words.words) + words.shift
        if isinstance(words, SoftTokens):
            return (super().forward(words.words) * words.weights.unsqueeze(-1)).sum(-2)
        if words.is_floating_point():
            return words @ self.weight[: words.shape[-1]]
        return super().forward(words)


def _delayed(x: Tensor, first: float) -> Tensor:
    return torch.cat([torch.full_like(x[:, :1], first), x[:, :-1]], 1)


def check_sizes(reads: int, sizes: Mapping[str, Any]) -> None:
    """Refuse sizes whose weights cannot fit; their types are checked where a network is built.

    Args:
        reads: words, or numbers, that the network reads.
        sizes: `hidden`, `embedding` and `layers`, where they are given.
    """
    given = {name: n for name, n in sizes.items() if type(n) is int and n > 0}
    width, layers = given.get("hidden", 1), given.get("layers", 1)
    weights = layers * width**2 + reads * max(width, given.get("embedding", 1))
    check_fits(4 * weights + LAYER * layers, **given)
