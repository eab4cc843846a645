"""Many metrics of one set of hypotheses, by name, each with its signature."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from typing import Any

from rlseq.metrics.bleu import BLEU, COCO
from rlseq.metrics.chrf import ChrF, ChrFPlusPlus
from rlseq.metrics.cider import CIDEr, CIDErD
from rlseq.metrics.diversity import Commonness, DistinctN, Length, Repetition, SelfBLEU
from rlseq.metrics.edit import EditDistance, ErrorRate, Exact, TokenErrorRate
from rlseq.metrics.encode import Line, References, check_references
from rlseq.metrics.external import METEOR, SPICE, Unavailable
from rlseq.metrics.rouge import ROUGEL, ROUGEN
from rlseq.metrics.ter import TER
from rlseq.metrics.tokenize import characters, tercom

Make = Callable[..., Any]


BY_NAME: dict[str, Make] = {
    "bleu": BLEU,
    **{f"bleu_{n}": partial(BLEU, order=n) for n in range(1, 5)},
    **{f"bleu_{n}_coco": partial(BLEU, order=n, definition=COCO) for n in range(1, 5)},
    "cider": CIDEr,
    "cider_d": CIDErD,
    "rouge_l": ROUGEL,
    **{f"rouge_{n}": partial(ROUGEN, order=n) for n in range(1, 5)},
    "chrf": ChrF,
    "chrf++": ChrFPlusPlus,
    "ter": TER,
    "ter_normalized": partial(TER, tokenize=tercom(normalized=True)),
    "edit_distance": EditDistance,
    "wer": ErrorRate,
    "per": ErrorRate,
    "cer": partial(ErrorRate, tokenize=characters),
    "exact": Exact,
    "token_error_rate": TokenErrorRate,
    "meteor": METEOR,
    "spice": SPICE,
}


OF_SETS: dict[str, Make] = {
    "length": Length,
    **{f"distinct_{n}": partial(DistinctN, order=n) for n in range(1, 5)},
    **{f"repetition_{n}": partial(Repetition, order=n) for n in range(1, 5)},
    "commonness": Commonness,
    "self_bleu": SelfBLEU,
}


class Report(dict[str, float]):
    """Corpus figures by metric name; `signatures` says how each was computed, `skipped` why not."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__()
        self.signatures: dict[str, str] = {}
        self.skipped: dict[str, str] = {}


def evaluate(
    hypotheses: Sequence[Line],
    references: References,
    metrics: Sequence[str] = ("bleu", "cider_d", "rouge_l"),
    **options: Any,
) -> Report:
    """The corpus figure of every metric named; a metric that cannot run here is skipped by name.

    Args:
        hypotheses: one sequence for each item, as texts or id lists.
        references: `references[i]` is the list of the references of item i.
        metrics: names, see `BY_NAME` and `OF_SETS`.
        options: for every metric that has them, such as `eos=2` or `tokenize=...`.
    """
    check_references(references)
    makers = [(name, _maker(name)) for name in _listed(metrics)]
    unknown = set(options).difference(*(_options(make) for _, make in makers))
    if unknown:
        raise TypeError(f"no metric of {_listed(metrics)} has the option {sorted(unknown)[0]!r}")
    report = Report()
    for name, make in makers:
        try:
            known = {key: value for key, value in options.items() if key in _options(make)}
            metric = make(**known) if name in OF_SETS else make(references, **known)
        except Unavailable as reason:
            report.skipped[name] = str(reason)
            warnings.warn(f"{name} is skipped: {reason}", stacklevel=2)
            continue
        report[name] = metric.corpus(hypotheses)
        report.signatures[name] = metric.signature
    return report


def _options(make: Make) -> set[str]:
    """The names of a metric's parameters."""
    made: Any = make.func if isinstance(make, partial) else make
    return {field.name for field in fields(made)}


def _listed(metrics: Sequence[str]) -> list[str]:
    return [metrics] if isinstance(metrics, str) else list(metrics)


def _maker(name: str) -> Make:
    """The class of a name, or an error with the nearest one."""
    known = {**BY_NAME, **OF_SETS}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    raise ValueError(f"unknown metric {name!r}; {hint}")


NOT_QUALITY = {"length", "repetition", "distinct_2", "commonness", "peakiness", "self_bleu"}


LOWER_IS_BETTER = {"edit_distance", "per", "wer", "cer", "ter", "token_error_rate", "nll_oracle"}


_SHARES = [
    *("accuracy", "exact", "token_error_rate", "meteor", "spice", "commonness", "peakiness", "self_bleu"),
    *("rouge_l", *(f"rouge_{n}" for n in range(1, 5)), *(f"bleu_{n}_coco" for n in range(1, 5))),
    *("repetition", *(f"{name}_{n}" for name in ("repetition", "distinct") for n in range(1, 5))),
]


_RATES = ("edit_distance", "per", "wer", "cer", "ter")


RANGES: dict[
    str, tuple[float, float]
] = {  # the least and the largest value of a metric, where they are known
    **dict.fromkeys(_SHARES, (0.0, 1.0)),
    **dict.fromkeys(("bleu", *(f"bleu_{n}" for n in range(1, 5)), "chrf"), (0.0, 100.0)),  # on any scale
    **dict.fromkeys(("cider", "cider_d"), (0.0, 10.0)),
    **dict.fromkeys((*_RATES, "length", "nll_oracle"), (0.0, math.inf)),
}


NO_RANGE = (-math.inf, math.inf)


def range_of(name: str, reward: bool = False) -> tuple[float, float]:
    """The least and the largest value that a metric can have, infinite where that is not known.

    Args:
        name: of the metric.
        reward: as a reward, which is 1 − errors / length of the metrics that count errors.
    """
    return (-math.inf, 1.0) if reward and name in ("edit", *_RATES) else RANGES.get(name, NO_RANGE)
