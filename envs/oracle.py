"""SeqGAN's synthetic task: a random LSTM writes the training set, and scores the texts of a generator.

Yu et al. 2017. The oracle knows the exact probability of every text, so a generator can be scored without a
human: NLL_oracle = −mean log p_oracle(y), in nats per token. Alone it can be gamed (a 2-gram model beats
SeqGAN, a copy of the training set beats everything); state the oracle's own entropy beside every score.
"""

from __future__ import annotations

from copy import copy, deepcopy
from functools import lru_cache
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from rlseq.engine.categorical import inverse_cdf
from rlseq.envs.drawn import SPLITS, other_seed
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.metrics.fitting import ItemReferences, rewards_of
from rlseq.policies.recurrent import Recurrent
from rlseq.policies.spec import TokenSpec
from rlseq.types import Context, Evaluation, HeldOut, RewardLike
from rlseq.utils.arguments import PositiveInt, Seed, checked_arguments
from rlseq.utils.errors import pick
from rlseq.utils.memory import check_fits
from rlseq.vocab import Vocab

GATES = "ifco"  # PyTorch's order of an LSTM's gates: input, forget, cell, output


class Oracle:
    """A fixed LSTM language model without EOS, that starts from word 0.

    i, f, o = σ(x·W + h·U + b),  c = f·c + i·tanh(x·Wc + h·Uc + bc),  h = o·tanh(c),  logits = h·Wout + bout

    Args:
        seed: of its parameters, all drawn from N(0, 1).
        vocab_size: V.
        length: T, words of a text.
        hidden: width of embedding and state.
        device: where it computes.
    """

    @checked_arguments
    def __init__(
        self,
        seed: Seed = 0,
        *,
        vocab_size: PositiveInt = 5000,
        length: PositiveInt = 20,
        hidden: PositiveInt = 32,
        device: str | torch.device = "cpu",
    ) -> None:
        weights = 2 * hidden * (vocab_size + 4 * hidden)
        check_fits(8 * weights, vocab_size=vocab_size, hidden=hidden)
        generator = torch.Generator().manual_seed(seed)
        shapes = _shapes(vocab_size, hidden, hidden)
        arrays = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        self._build(arrays, length, device)

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, length: int = 20, device: str | torch.device = "cpu"
    ) -> Oracle:
        """Read an `.npz`.

        Its arrays: `emb [V,E]`; `W* [E,H]`, `U* [H,H]`, `b* [H]` for each gate * of i f o c; `Wout [H,V]`,
        `bout [V]`.
        """
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name]).float() for name in file.files}
        oracle = cls.__new__(cls)
        oracle._build(_checked(arrays, str(path)), length, device)
        return oracle

    def _build(self, arrays: dict[str, Tensor], length: int, device: str | torch.device) -> None:
        """Turn the released format into the weights of the LSTM policy."""
        (words, embedding), hidden = arrays["emb"].shape, arrays["Ui"].shape[0]
        self.vocab_size, self.length = words, length
        with torch.random.fork_rng(devices=[]):  # its first weights are replaced, and take no random numbers
            model = Recurrent(nn.LSTM, TokenSpec(words, words), hidden=hidden, embedding=embedding)
        weights = {
            "embedding.weight": arrays["emb"],
            "decoder.rnn.weight_ih_l0": torch.cat([arrays[f"W{g}"] for g in GATES], 1).t(),
            "decoder.rnn.weight_hh_l0": torch.cat([arrays[f"U{g}"] for g in GATES], 1).t(),
            "decoder.rnn.bias_ih_l0": torch.cat([arrays[f"b{g}"] for g in GATES]),
            "decoder.rnn.bias_hh_l0": torch.zeros(4 * hidden),
            "head.weight": torch.cat([arrays["Wout"], arrays["bout"].unsqueeze(0)]).t(),
        }
        model.load_state_dict(weights)
        self.model = model.requires_grad_(False).to(device)

    def to(self, device: str | torch.device) -> Oracle:
        """Return the oracle on a device; a copy if it is elsewhere, as others may use it there."""
        if torch.device(device) == self.model.head.weight.device:
            return self
        other = copy(self)
        other.model = deepcopy(self.model).to(device)
        return other

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample texts, `[n, T]`, a thousand at a time."""
        device = self.model.head.weight.device
        return torch.cat([self._sample(min(1000, n - i), generator, device) for i in range(0, n, 1000)])

    def _sample(self, rows: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        uniform = torch.rand(self.length, rows, generator=generator, device=device, dtype=torch.float64)
        token = torch.zeros(rows, dtype=torch.int64, device=device)
        state = self.model.start({"index": uniform[0]})
        tokens = torch.empty(rows, self.length, dtype=torch.int64, device=device)
        for t in range(self.length):
            logits, state = self.model.step(token, state)
            tokens[:, t] = token = inverse_cdf(logits.softmax(-1), uniform[t])
        return tokens

    def nll(self, tokens: Tensor) -> Tensor:
        """Return −log p of every text, in nats per token, `[n]`."""
        return -self._evaluate(tokens).log_probs.mean(1)

    def entropy(self, n: int = 10_000, generator: torch.Generator | None = None) -> float:
        """Return the entropy in nats per token: exact conditional entropies along `n` of its own texts."""
        return float(self._evaluate(self.sample(n, generator)).entropy.mean())

    @torch.no_grad()
    def _evaluate(self, tokens: Tensor) -> Evaluation:
        tokens = torch.as_tensor(tokens, device=self.model.head.weight.device)
        if tokens.ndim != 2 or tokens.is_floating_point():
            raise ValueError(f"tokens must be integers [n, T], got {tokens.dtype} {tuple(tokens.shape)}")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            raise ValueError(
                f"tokens must be 0 … {self.vocab_size - 1}, got {int(tokens.min())} … {int(tokens.max())}"
            )
        return self.model.evaluate(tokens, {"index": tokens[:, 0]})


class OracleEnv(SequenceEnv):
    """Write T words that the oracle finds likely. Reward: its log-likelihood per token.

    There is nothing to read, so there is no source to hold out: a test judges what a policy writes by the
    oracle itself, whose reward does not depend on any item. What the split "test" holds out are references,
    which metrics such as BLEU compare texts with: they are independent draws from the oracle. A draw that
    repeats a training text is kept, because without it they would not be distributed as the oracle's texts.

    Args:
        oracle: an `Oracle`, or the path of an `.npz`; a random one of `data_seed` when not given.
        vocab_size: V of the random one, 5,000 when not given.
        length: T, 20 when not given.
        hidden: width of the random one, 32 when not given.
        reward: "log_likelihood", a name of `rlseq metrics`, or any callable.
        references: number of texts that it writes as references.
        split: "train" for the references to train on, or "test" for others.
        data_seed: of the random oracle, and of the references.
        **options: see `EnvOptions`.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        oracle: Oracle | str | PathLike[str] | None = None,
        vocab_size: PositiveInt | None = None,
        length: PositiveInt | None = None,
        hidden: PositiveInt | None = None,
        reward: RewardLike = "log_likelihood",
        references: PositiveInt = 10_000,
        split: str = "train",
        data_seed: Seed = 0,
        **options: Unpack[EnvOptions],
    ) -> None:
        given = {"vocab_size": vocab_size, "hidden": hidden}
        if oracle is None:
            oracle = random_oracle(data_seed, vocab_size or 5000, length or 20, hidden or 32)
        elif any(given.values()) or (isinstance(oracle, Oracle) and length):
            raise TypeError(
                f"{given | {'length': length}} are those of the oracle that was given; leave them out"
            )
        elif not isinstance(oracle, Oracle):
            oracle = Oracle.load(oracle, length=length or 20)
        reference_seed = data_seed if pick(SPLITS, split, "split") == "train" else other_seed(data_seed)
        check_fits(references * oracle.length * 16, references=references, length=oracle.length)
        vocab = Vocab.numbered(oracle.vocab_size, eos=None)
        items = written(oracle, references, reference_seed)
        own = {"log_likelihood": self.log_likelihood}
        super().__init__(
            vocab=vocab,
            max_len=oracle.length,
            reward=rewards_of(reward, ItemReferences(vocab, items), own),
            items=items,
            **options,
        )
        self.oracle = oracle.to(self.device)
        self.metrics = {"nll_oracle": lambda *text: -self.log_likelihood(*text)}

    def log_likelihood(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the mean log p_oracle of what is written, `[B]`."""
        scores = self.oracle._evaluate(tokens).log_probs
        return (scores * mask).sum(1) / mask.sum(1).clamp(min=1)


@lru_cache(maxsize=4)
def random_oracle(seed: int, vocab_size: int, length: int, hidden: int) -> Oracle:
    """Make a random oracle once for all tasks of a seed."""
    return Oracle(seed, vocab_size=vocab_size, length=length, hidden=hidden)


@lru_cache(maxsize=4)
def written(oracle: Oracle, size: int, seed: int) -> dict[str, Tensor]:
    """Sample references from the oracle, once."""
    generator = torch.Generator(oracle.model.head.weight.device).manual_seed(seed)
    references = oracle.sample(size, generator).unsqueeze(1)
    return {"references": references, "reference_lengths": torch.full((size, 1), oracle.length)}


def _shapes(words: int, embedding: int, hidden: int) -> dict[str, tuple[int, ...]]:
    gates: dict[str, tuple[int, ...]] = {}
    for g in "ifoc":
        gates |= {f"W{g}": (embedding, hidden), f"U{g}": (hidden, hidden), f"b{g}": (hidden,)}
    return {"emb": (words, embedding), **gates, "Wout": (hidden, words), "bout": (words,)}


def _checked(arrays: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the arrays, if all are there, with shapes that fit each other."""
    wanted = _shapes(1, 1, 1)
    missing = sorted(set(wanted) - set(arrays))
    if missing:
        raise ValueError(f"{path}: an oracle needs arrays {', '.join(wanted)}; missing: {', '.join(missing)}")
    if arrays["emb"].ndim != 2 or arrays["Ui"].ndim != 2:
        raise ValueError(
            f"{path}: emb must be [V, E] and Ui [H, H], "
            f"got {tuple(arrays['emb'].shape)}, {tuple(arrays['Ui'].shape)}"
        )
    (words, embedding), hidden = arrays["emb"].shape, arrays["Ui"].shape[0]
    wanted = _shapes(words, embedding, hidden)
    for name, shape in wanted.items():
        if tuple(arrays[name].shape) != shape:
            raise ValueError(f"{path}: {name} must be {shape}, got {tuple(arrays[name].shape)}")
        if not arrays[name].isfinite().all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")
    return arrays
