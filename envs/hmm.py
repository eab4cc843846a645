"""Label a sequence that a mixed-order hidden Markov model wrote; its exact likelihood is known.

Labels y and letters x, with order mixed by α (α = 1 is a plain hidden Markov model):

p(yᵢ | …) = α P(yᵢ | yᵢ₋₁) + (1 − α) P(yᵢ | yᵢ₋₁, yᵢ₋₂)
p(xᵢ | …) = α P(xᵢ | yᵢ) + (1 − α) P(xᵢ | yᵢ, xᵢ₋₁)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.engine.categorical import inverse_cdf
from rlseq.envs.drawn import drawn
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.metrics.fitting import ItemReferences, rewards_of
from rlseq.metrics.positional import accuracy, exact
from rlseq.types import Context, HeldOut, Reward, RewardLike
from rlseq.utils.arguments import PositiveFloat, PositiveInt, Range, Seed, Share, checked_arguments
from rlseq.utils.memory import check_fits
from rlseq.utils.modules import Movable
from rlseq.vocab import Vocab


class HMM(Movable):
    """Tables P, drawn from a Dirichlet distribution by a seed; word 0 stands before the start.

    Args:
        labels: K.
        letters: V.
        alpha: α, the share of the lower order.
        seed: of the tables.
        concentration: of the Dirichlet distribution; the smaller, the surer the next word.
    """

    @checked_arguments
    def __init__(
        self,
        labels: Annotated[int, Range(2)] = 5,
        letters: Annotated[int, Range(2)] = 26,
        *,
        alpha: Share = 0.5,
        seed: Seed = 0,
        concentration: PositiveFloat = 0.3,
    ) -> None:
        check_fits(8 * labels * max(labels, letters) ** 2, labels=labels, letters=letters)
        generator = torch.Generator().manual_seed(seed)

        def tables(*shape: int) -> Tensor:
            gammas = torch._standard_gamma(torch.full(shape, concentration, dtype=torch.float64), generator)
            return (gammas + 1e-6) / (gammas + 1e-6).sum(-1, keepdim=True)

        first, second = tables(labels, labels), tables(labels, labels, labels)
        self.step = alpha * first.unsqueeze(1) + (1 - alpha) * second  # [yᵢ₋₁, yᵢ₋₂, yᵢ]
        letter, pair = tables(labels, letters), tables(labels, letters, letters)
        self.emit = alpha * letter.unsqueeze(1) + (1 - alpha) * pair  # [yᵢ, xᵢ₋₁, xᵢ]
        self.labels, self.letters = labels, letters

    def sample(self, n: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw letters and labels, `[n, T]` each."""
        uniform = torch.rand(2, length, n, generator=generator, dtype=torch.float64)
        before = last = letter = torch.zeros(n, dtype=torch.int64)
        x, y = [], []
        for t in range(length):
            before, last = last, inverse_cdf(self.step[last, before], uniform[0, t])
            letter = inverse_cdf(self.emit[last, letter], uniform[1, t])
            x.append(letter)
            y.append(last)
        return torch.stack(x, 1), torch.stack(y, 1)

    def joint(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the joint log p(x, y), `[n]`."""
        one, two, letter = (_shifted(values, by) for values, by in ((y, 1), (y, 2), (x, 1)))
        return (self.step[one, two, y].log() + self.emit[y, letter, x].log()).sum(1)

    def evidence(self, x: Tensor) -> Tensor:
        """Return the evidence log p(x) = log Σ_y p(x, y), `[n]`, by the forward recursion."""
        return self._forward(x, torch.logsumexp)

    def best(self, x: Tensor) -> Tensor:
        """Return the maximum over y of log p(x, y), `[n]` (Viterbi)."""
        return self._forward(x, torch.amax)

    def _forward(self, x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
        step, emit = self.step.log(), self.emit.log()
        paths = torch.full(
            (len(x), self.labels, self.labels), -torch.inf, dtype=torch.float64, device=x.device
        )
        paths[:, 0, 0] = 0.0  # [n, yᵢ, yᵢ₋₁]
        for letter, before in zip(x.t(), _shifted(x, 1).t(), strict=True):
            onward = reduce(paths.unsqueeze(3) + step, 2).transpose(1, 2)
            paths = onward + emit[:, before, letter].t().unsqueeze(2)
        return reduce(paths, (1, 2))


class Labels(SequenceEnv):
    """Write the label of every letter that a hidden Markov model wrote. Reward: the share that is right.

    Args:
        length: T.
        alpha: α, the share of the lower order; 1 is a plain hidden Markov model.
        labels: K.
        letters: V of the source.
        reward: "accuracy", "exact", "log_posterior" (log p(y | x) / T), another name of `rlseq metrics`, or
            any reward.
        items: number of training sequences.
        split: "train", or "test" for sequences whose letters no training sequence has, 1,000 at most.
        data_seed: of the sequences.
        model_seed: of the model.
        **options: see `EnvOptions`.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        length: PositiveInt = 20,
        alpha: Share = 0.5,
        labels: Annotated[int, Range(2)] = 5,
        letters: Annotated[int, Range(2)] = 26,
        reward: RewardLike = "accuracy",
        items: PositiveInt = 10_000,
        split: str = "train",
        data_seed: Seed = 0,
        model_seed: Seed = 0,
        **options: Unpack[EnvOptions],
    ) -> None:
        check_fits(items * length * 64, items=items, length=length)
        hmm = HMM(labels, letters, alpha=alpha, seed=model_seed)
        x, y = drawn(lambda rows, generator: hmm.sample(rows, length, generator), split, items, data_seed)
        own: dict[str, Reward] = {"accuracy": accuracy, "exact": exact, "log_posterior": self.log_posterior}
        data = {
            "source": x + 1,  # 0 pads
            "references": y.unsqueeze(1),
            "reference_lengths": torch.full((len(x), 1), length),
        }
        vocab = Vocab(Vocab.numbered(labels, eos=None).words, eos=None, bos=labels)
        super().__init__(
            vocab=vocab,
            source_vocab=Vocab(("<pad>", *Vocab.numbered(letters, eos=None).words), eos=None),
            max_len=length,
            reward=rewards_of(reward, ItemReferences(vocab, data), own),
            items=data,
            **options,
        )
        self.hmm = hmm.to(self.device)
        self.metrics = own

    def log_posterior(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the exact log p(y | x) / T, `[B]`; positions that are not written count as label 0."""
        x = context["source"] - 1
        return (self.hmm.joint(x, tokens.where(mask, 0)) - self.hmm.evidence(x)) / self.max_len


def _shifted(values: Tensor, by: int) -> Tensor:
    """Return the values `by` positions before, 0 before the start."""
    return torch.nn.functional.pad(values, (by, 0))[:, : values.shape[1]]
