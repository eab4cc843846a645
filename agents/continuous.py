"""Continuous: a generator that learns through a critic of its distributions, embeddings or hidden states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlseq.agents.adversarial import ThroughDiscriminator, make_matching_discriminator
from rlseq.discriminators import Adversary, Discriminator
from rlseq.discriminators.objectives import (
    ClipWeights,
    GradientPenalty,
    closeness,
    logit,
    lsgan,
    spectral,
    wgan,
)
from rlseq.discriminators.texts import TextBatch, check_judges_distributions
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.policies.head import Head
from rlseq.types import Rollout
from rlseq.utils.arguments import shown
from rlseq.utils.modules import eval_mode, frozen

# ── what a critic reads ──────────────────────────────────────────────────────────────────────────────────


class CriticInput(ABC):
    """A map from texts that were written word by word to vectors that a critic reads, `[B, T, n]`."""

    @abstractmethod
    def __call__(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return the vectors of the policy's own texts, differentiable with respect to its weights."""

    @abstractmethod
    def real(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return the vectors of real texts."""

    @abstractmethod
    def width(self, policy: Any) -> int | None:
        """Return n; None where the critic reads words and distributions over them."""


@dataclass(frozen=True)
class Words(CriticInput):
    """The distribution over words from which each word was drawn; a real word is one-hot."""

    def __call__(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return π(· | y₍₁…ₜ₋₁₎) for every t."""
        distributions: Tensor = _logits(policy, texts).reduce(lambda z: z.softmax(-1))
        return distributions

    def real(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return the ids of words, which count as one-hot."""
        return texts.tokens

    def width(self, policy: Any) -> None:
        """Return None: the critic reads words."""


@dataclass(frozen=True)
class Embeddings(CriticInput):
    """The expected embedding of a word, in the policy's own table; of a real word its embedding (Lee 2018).

    No gradient reaches the table here, since a table of zeros would make all texts alike.
    """

    def __call__(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return Σ_w π(w | y₍₁…ₜ₋₁₎) e(w) for every t."""
        distributions = Words()(policy, texts)
        with frozen(_table(policy)):
            vectors: Tensor = _table(policy)(distributions)
        return vectors

    def real(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return the embeddings of words."""
        vectors: Tensor = _table(policy)(texts.tokens)
        return vectors

    def width(self, policy: Any) -> int:
        """Return the width of the table."""
        table = _table(policy)
        return int(table(torch.zeros(1, dtype=torch.int64, device=next(table.parameters()).device)).shape[1])


@dataclass(frozen=True)
class States(CriticInput):
    """The hidden state from which each word is drawn, after own words or after real ones (Lamb et al. 2016).

    The layer above the hidden states learns nothing from the critic: give likelihood a weight (`mle`).
    """

    def __call__(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return hₜ after y₍₁…ₜ₋₁₎ for every t."""
        states: Tensor = _logits(policy, texts).features
        return states

    def real(self, policy: Any, texts: TextBatch) -> Tensor:
        """Return the same of real texts."""
        return self(policy, texts)

    def width(self, policy: Any) -> int:
        """Return the width of the hidden state."""
        head = getattr(policy, "head", None)
        if not isinstance(head, Head):
            raise ValueError(
                f"{type(policy).__name__} has no `head` (rlseq.policies.head.Head) above a hidden state; use "
                'critic_input="words"'
            )
        return head.weight.shape[1] - 1


def _logits(policy: Any, texts: TextBatch) -> Any:
    with eval_mode(policy):
        logits = policy.evaluate(texts.tokens, texts.context).logits
    if logits is None:
        raise ValueError(
            f"{type(policy).__name__}.evaluate returns no `logits`, from which distributions and hidden "
            "states are read; return rlseq.types.Evaluation with logits, or use the agent seqgan"
        )
    return logits


def _table(policy: Any) -> Any:
    table = getattr(policy, "embedding", None)
    if not callable(table):
        raise ValueError(
            f"{type(policy).__name__} has no table of embeddings (`embedding`) that reads words and "
            'distributions over them; use critic_input="words" or critic_input="states"'
        )
    return table


CRITIC_INPUTS: dict[str, CriticInput] = {"words": Words(), "embeddings": Embeddings(), "states": States()}

# ── critics ──────────────────────────────────────────────────────────────────────────────────────────────

Critic = Callable[[Discriminator], Adversary]


def wgan_gp(discriminator: Discriminator) -> Adversary:
    """Return a Wasserstein critic whose slope is drawn to 1 by a penalty (Gulrajani et al. 2017)."""
    return Adversary(discriminator, value=logit, objective=wgan, penalties=[GradientPenalty()])


def wgan_clipped(discriminator: Discriminator) -> Adversary:
    """Return a Wasserstein critic with clipped weights (Arjovsky et al. 2017)."""
    return Adversary(discriminator, value=logit, objective=wgan, constrain=ClipWeights())


def wgan_spectral(discriminator: Discriminator) -> Adversary:
    """Return a Wasserstein critic of spectrally normalised layers (Miyato et al. 2018)."""
    return Adversary(spectral(discriminator), value=logit, objective=wgan)


def least_squares(discriminator: Discriminator) -> Adversary:
    """Return a critic of least squares, which asks the generator for scores near 1 (Mao et al. 2017)."""
    return Adversary(discriminator, value=closeness, objective=lsgan)


CRITICS: dict[str, Critic] = {
    critic.__name__: critic for critic in (wgan_gp, wgan_clipped, wgan_spectral, least_squares)
}


@dataclass(eq=False)
class Continuous(ThroughDiscriminator):
    """Maximise the critic's score of what the policy's words are drawn from, by its gradient.

    The policy samples and reads words as always; the critic reads distributions, expected embeddings or
    hidden states of the same steps. No gradient flows through the choice of a word. Real words are one-hot,
    and distributions never are: a discriminator with unbounded slopes tells them apart by this alone, and a
    generator learns from it to be sure, not to be right. Hence a WGAN (Gulrajani et al. 2017).
    """

    critic_input: CriticInput = Words()  # vectors that the critic reads
    critic: Critic = wgan_gp  # the adversary that is made when none is given

    def opponent(self) -> Adversary:
        """Make a critic of what is read."""
        width = self.critic_input.width(self.policy)
        discriminator = make_matching_discriminator(self.policy, "cnn", vectors=width)
        try:
            made = self.critic(discriminator)
        except TypeError as error:
            raise TypeError(f"critic must make an Adversary of a discriminator: {error}") from error
        if not isinstance(made, Adversary):
            raise TypeError(f"critic must return an Adversary of a discriminator, got {shown(made)}")
        return made

    def check(self, env: Any) -> None:
        """Refuse a critic that does not read the policy's vectors."""
        super().check(env)
        wanted, made = self.critic_input.width(self.policy), self.adversary.discriminator.vectors
        if wanted is None:
            check_judges_distributions(self.adversary.discriminator, sequence_env(env))
        elif made != wanted:
            raise ValueError(
                f"the critic must read vectors of width {wanted}, got one that reads "
                f"{'words' if made is None else f'vectors of width {made}'}; make it with "
                f"rlseq.make_discriminator(name, env, vectors={wanted}), or leave adversary out"
            )

    def write(self, env: SequenceEnv) -> Rollout:
        """Return texts as the policy writes them."""
        return rollout(self.policy, env)

    def texts(self, batch: Rollout) -> TextBatch:
        """Return what the critic reads of texts of the policy."""
        texts = TextBatch.of(batch)
        return texts._replace(tokens=self.critic_input(self.policy, texts))

    def lessons(self) -> dict[str, Any]:
        """Let the critic learn from what it reads of real texts and of generated ones."""
        return {"read": self.both}

    @torch.no_grad()
    def both(self, real: TextBatch, generated: TextBatch) -> tuple[TextBatch, TextBatch]:
        """Return what the critic reads of real texts and of generated ones."""
        with eval_mode(self.policy):
            seen = self.critic_input.real(self.policy, real), self.critic_input(self.policy, generated)
        return real._replace(tokens=seen[0]), generated._replace(tokens=seen[1])
