"""The base class of metrics: fitting, the reward call, scores of texts, and credit for each token."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from rlseq.metrics.algebra import Composable
from rlseq.metrics.encode import Encoder, Line, References, RefTable, check_count, check_settings
from rlseq.metrics.ngrams import CELLS, PAD
from rlseq.metrics.tokenize import Tokenize, whitespace
from rlseq.types import Context
from rlseq.utils.arguments import NonNegativeInt, PositiveInt, check_fields
from rlseq.utils.masks import steps_of
from rlseq.utils.modules import Movable

SIGNATURE_VERSION = "0.1"


class WholeTexts:
    """B whole sequences to score: ids [B, T] padded with PAD, and the item of each row.

    A metric is written once, in terms of `total` and `last`. Here they look at the whole sequence,
    [B, 1]; in `EveryPrefix` at every prefix, [B, T].
    """

    def __init__(self, ids: Tensor, rows: Tensor) -> None:
        self.ids, self.rows = ids, rows
        self.real = ids >= 0
        self.lengths = self.total(self.real)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum over tokens, [B, T, …] → [B, 1, …].

        Fractions are added from left to right, so that padding cannot change a single bit.
        """
        return x.cumsum(1)[:, -1:] if x.is_floating_point() else x.sum(1, keepdim=True)

    def feed(self) -> Tensor:
        """Return the tokens [B, T] in the order of a recursion: aligned to the right, PAD first."""
        width = self.ids.shape[1]
        shift = torch.arange(width, device=self.ids.device) - width + self.lengths
        return torch.where(shift >= 0, self.ids.gather(1, shift.clamp(min=0)), PAD)

    def last(self, states: Iterable[list[Tensor]]) -> list[Tensor]:
        """Return the last of a recursion's states, which are [B, …] after each token, as [B, 1, …]."""
        (final,) = deque(states, maxlen=1)
        return [part[:, None] for part in final]


class EveryPrefix(WholeTexts):
    """The same sequences, scored after every token."""

    def total(self, x: Tensor) -> Tensor:
        """Return the running sum over tokens, [B, T, …] → [B, T, …]."""
        return x.cumsum(1)

    def feed(self) -> Tensor:
        """Return the tokens [B, T] as they are, PAD last."""
        return self.ids

    def last(self, states: Iterable[list[Tensor]]) -> list[Tensor]:
        """Return all states of a recursion, [B, T, …]."""
        return [torch.stack(parts, 1) for parts in zip(*states, strict=True)]


M = TypeVar("M", bound="Metric")


@dataclass(eq=False)
class Metric(Composable, Movable):
    """A metric fitted on references: a reward on tokens, a score of texts, a corpus figure.

    Args:
        references: `references[i]` is the list of the references of item i, as texts or id lists; or all of
            them as a table of ids, which end in EOS where there is one.
        tokenize: from a text to its words (or ids); by default as the reference implementation.
        eos: the id of EOS, which then counts as a word; scoring stops at the first one.
        vocab_size: ids at or above it are an error.
        dtype: precision of the scores.
    """

    references: References | RefTable = field(repr=False)
    _: KW_ONLY
    tokenize: Tokenize | None = field(default=None, repr=False)
    eos: NonNegativeInt | None = None
    vocab_size: PositiveInt | None = None
    dtype: torch.dtype = torch.float32

    name: ClassVar[str]
    words: ClassVar[Tokenize] = staticmethod(whitespace)

    def __post_init__(self) -> None:
        """Encode the references, fit on them, and forget their texts."""
        check_fields(self)
        check_settings(self)
        self.tokenize = self.tokenize or type(self).words
        self.encoder = Encoder(self.tokenize, self.eos, self.vocab_size, self.vocabulary())
        if isinstance(self.references, RefTable):
            table, self.encoder.integral = self.references, True
        else:
            table = self.encoder.references(self.references)
        self.counts = torch.bincount(table.item, minlength=table.items).tolist()
        self.fingerprint = table.fingerprint(self.encoder.words)
        self.references = ()
        self.fit(table)

    def vocabulary(self) -> dict[str, int]:
        """Return the words that have ids already, for a metric that shares a table with another."""
        return {}

    @abstractmethod
    def fit(self, table: RefTable) -> None:
        """Compute from the references what scores need, as tensors in attributes."""

    @abstractmethod
    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the score of every sequence [B, 1], or of every prefix [B, T], by the class of `batch`."""

    def reward(self, batch: WholeTexts) -> Tensor:
        """Return the score as a figure to maximise, [B, 1] or [B, T]."""
        return self.judge(batch)

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of B sequences, [B]; `context["index"]` names the item of each."""
        return self.chunked(self.reward, *self.read(tokens, mask, context))[:, 0]

    def without_first_reference(self, items: Tensor) -> None:
        """Return None: a fitted metric keeps no references to be fitted on again."""

    def value(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the metric's own figure, [B], such as an edit distance, where the reward is another."""
        return self.chunked(self.judge, *self.read(tokens, mask, context))[:, 0]

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return what each token adds to the reward, [B, T]:  rₜ = Φ(y₁…yₜ) − Φ(y₁…yₜ₋₁),  Φ(∅) = 0.

        Potential-based shaping (Ng, Harada & Russell 1999): the sum over a row is its reward.
        """
        ids, rows = self.read(tokens, mask, context)
        values = self.chunked(self.reward, ids, rows, EveryPrefix)
        return torch.where(ids >= 0, steps_of(values), 0)

    def score(self, hypotheses: Sequence[Line]) -> Tensor:
        """Return the score of hypothesis i against references[i], [N]."""
        return self.chunked(self.judge, *self.lines(hypotheses))[:, 0]

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """Return the figure of the whole set: the mean score, unless the metric pools its counts."""
        return float(self.score(hypotheses).double().mean())

    def pooled(self, statistics: Callable[[WholeTexts], Tensor], hypotheses: Sequence[Line]) -> Tensor:
        """Return the sum of statistics [B, K] over all sentences, [K], in float64."""
        return self.chunked(statistics, *self.lines(hypotheses), dtype=torch.float64).sum(0)

    @property
    def signature(self) -> str:
        """Everything that the score depends on, in one string to store beside it."""
        refs = f"{min(self.counts)}-{max(self.counts)}" if len(set(self.counts)) > 1 else f"{self.counts[0]}"
        unit = "ids" if self.encoder.integral else getattr(self.tokenize, "__name__", "custom")
        eos = "" if self.eos is None else f"|eos:{self.eos}"
        parts = "".join(f"|{key}:{value}" for key, value in self.settings().items())
        return f"{self.name}{parts}|tok:{unit}{eos}|refs:{refs}|rlseq:{SIGNATURE_VERSION}"

    def settings(self) -> dict[str, object]:
        """Return the metric's own parameters, for the signature."""
        return {}

    def to(self: M, device: torch.device | str) -> M:
        """Move the fitted tensors to a device; the reward call does so itself."""
        self._device = torch.device(device)
        vars(self).update(vars(super().to(self._device)))
        return self

    # --- reading -----------------------------------------------------------------------------

    _device = torch.device("cpu")

    def read(self, tokens: Tensor, mask: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return tokens as ids [B, T], PAD outside the mask and after the first EOS, and rows [B]."""
        if self.encoder.integral is False:
            raise TypeError(
                f"{self.name} was fitted on words, so token ids mean nothing to it; give "
                "references as id lists, or a tokenize= that returns the environment's ids"
            )
        if tokens.shape != mask.shape or tokens.dim() != 2:
            raise ValueError(
                f"tokens and mask must be [B, T], got {list(tokens.shape)} and {list(mask.shape)}"
            )
        if "index" not in context:
            raise ValueError('context has no "index", the item of each row; the env provides it')
        if tokens.device != self._device:
            self.to(tokens.device)
        rows = context["index"]
        self.check(torch.where(mask, tokens, 0), rows)
        return scored(tokens, mask, self.eos), rows

    def check(self, tokens: Tensor, rows: Tensor) -> None:
        """Refuse ids and items out of range, on a CPU, where the check costs nothing.

        On a GPU looking would stop the queue at every reward; there an item out of range fails in
        the gather, and an unknown token simply matches nothing.
        """
        if rows.shape != tokens.shape[:1]:
            raise ValueError(
                f'context["index"] must be [B], got {list(rows.shape)} for {tokens.shape[0]} rows'
            )
        if tokens.device.type != "cpu" or not tokens.numel():
            return
        low, high = torch.aminmax(rows)
        if low < 0 or high >= len(self.counts):
            raise ValueError(
                f'context["index"] must lie in [0, {len(self.counts)}), the items {self.name} was '
                f"fitted on, got {int(low if low < 0 else high)}; fit it on the same split"
            )
        low, high = torch.aminmax(tokens)
        limit = 2**31 if self.vocab_size is None else self.vocab_size
        if low < 0 or high >= limit:
            raise ValueError(
                f"tokens must lie in [0, {limit}) where the mask is True, got {int(low if low < 0 else high)}"
            )

    def lines(self, hypotheses: Sequence[Line]) -> tuple[Tensor, Tensor]:
        """Return one hypothesis for each item, as ids [N, T] and rows [N]."""
        ids = self.encoder.hypotheses(hypotheses)
        check_count(len(hypotheses), self.counts)
        return ids.to(self._device), torch.arange(len(hypotheses), device=self._device)

    def chunked(
        self,
        judge: Callable[[WholeTexts], Tensor],
        ids: Tensor,
        rows: Tensor,
        view: type[WholeTexts] = WholeTexts,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Score a bounded number of rows at a time, so that memory stays bounded too."""
        size = max(1, CELLS // self.cells(ids.shape[1]))
        parts = zip(torch.split(ids, size), torch.split(rows, size), strict=True)
        return torch.cat([judge(view(*part)) for part in parts]).to(dtype or self.dtype)

    def cells(self, width: int) -> int:
        """Return the memory cells that one row of this width needs."""
        return (width + 1) ** 2


@dataclass(frozen=True, eq=False)
class HostContext(Mapping[str, Tensor]):
    """A context whose entries are copied to the host when they are asked for.

    Args:
        entries: on a device.
        index: the entry "index", on the host already.
    """

    entries: Context
    index: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.index if name == "index" else self.entries[name].cpu()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def on_host(reward: Callable[..., Tensor], tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return a reward that is computed on the host, on the device of the texts.

    The host waits for one copy. A reward whose steps depend on the data would make it wait at each of them.
    """
    if tokens.device.type == "cpu" or "index" not in context:
        return reward(tokens, mask, context)
    width = tokens.shape[1]
    copied = torch.cat([tokens, mask, context["index"].unsqueeze(1)], 1).cpu()
    texts, real, index = torch.split(copied, [width, width, 1], 1)
    found = reward(texts, real.bool(), HostContext(context, index.squeeze(1)))
    return found.to(tokens.device, non_blocking=True)


def scored(tokens: Tensor, mask: Tensor, eos: int | None) -> Tensor:
    """Return the tokens that count, [B, T]: those under the mask, up to the first EOS; PAD elsewhere."""
    if eos is not None:
        is_eos = tokens == eos
        mask = mask & ((is_eos & mask).cumsum(1) - is_eos.long() <= 0)
    return torch.where(mask, tokens, PAD)
