"""One row a metric: whatever makes, lists, ranks, bounds or scales a metric asks its row.

A metric of one's own is one row more: `rlseq.metrics.register("my_metric", MyMetric, better="lower")`.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

from rlseq.metrics.bleu import BLEU, COCO
from rlseq.metrics.chrf import ChrF, ChrFPlusPlus
from rlseq.metrics.cider import CIDEr, CIDErD
from rlseq.metrics.diversity import Commonness, DistinctN, Length, Repetition, SelfBLEU
from rlseq.metrics.edit import EditDistance, ErrorRate, Exact, TokenErrorRate
from rlseq.metrics.encode import Line, References, check_references
from rlseq.metrics.external import METEOR, SPICE, Unavailable
from rlseq.metrics.positional import accuracy
from rlseq.metrics.rouge import ROUGEL, ROUGEN
from rlseq.metrics.ter import TER
from rlseq.metrics.tokenize import Tokenize, characters, tercom, whitespace
from rlseq.utils.arguments import Checked
from rlseq.utils.errors import check_options, enter, pick

MetricFactory = Callable[..., Any]
Bounds = tuple[float, float]
Better = Literal["higher", "lower", "neither"]
Reads = Literal["tokens", "words", "characters", "texts"]

NO_RANGE: Bounds = (-math.inf, math.inf)
SHARE: Bounds = (0.0, 1.0)
PERCENT: Bounds = (0.0, 100.0)
COUNT: Bounds = (0.0, math.inf)
CONTROLS = ("constant", "shuffled")  # rewards of control runs, which no metric may be called


@dataclass(frozen=True)
class MetricRow(Checked):
    """The facts about a metric beside its formula.

    Args:
        name: by which tasks, `--reward` and `--metrics` find it.
        make: a class whose objects are metrics, made of `references` if it has that parameter, or a
            `functools.partial` of one; or a function `(tokens, mask, context) -> [B]`, which is the metric;
            None for a figure that a task or an evaluation computes itself.
        better: "higher", "lower", or "neither" where the figure describes texts without grading them.
        range: the least and the largest value, on any scale on which it is reported.
        unit: of the figure, where it is no share and no score.
        reads: "tokens" as the task writes them, "words" or "characters" of the text, or whole "texts".
        scale: factor of the metric as a reward by name, which makes the reward 1 at best.
        all_items: the score of one item depends on the references of all, so that a batch does not suffice.
    """

    name: str
    make: MetricFactory | None = None
    better: Better = "higher"
    range: tuple[Any, Any] = NO_RANGE
    unit: str = ""
    reads: Reads = "tokens"
    scale: float = 1.0
    all_items: bool = False

    @property
    def kind(self) -> Any:
        """The class, or the function, without the settings of a partial."""
        return getattr(self.make, "func", self.make)

    @property
    def options(self) -> set[str]:
        """Names of the parameters of `make`."""
        return set(inspect.signature(self.make).parameters) if self.make else set()

    @property
    def needs_references(self) -> bool:
        """Whether it compares texts with references; else it judges texts alone, or reads the context."""
        return isinstance(self.kind, type) and "references" in self.options

    @property
    def tokenize(self) -> Tokenize:
        """The function from a text to the units that are compared, as in the reference implementation."""
        default = getattr(self.kind, "words", whitespace)
        chosen: Tokenize = getattr(self.make, "keywords", {}).get("tokenize", default)
        return chosen

    @property
    def sign(self) -> int:
        """1 where higher is better, −1 where lower is, 0 where neither is."""
        return {"higher": 1, "lower": -1, "neither": 0}[self.better]

    @property
    def reward_range(self) -> Bounds:
        """The range as a reward, which is 1 − errors where lower is better."""
        return (1 - self.range[1], 1 - self.range[0]) if self.better == "lower" else self.range

    def fit(self, references: Any = None, **options: Any) -> Any:
        """Make the metric, of references where it needs them, with those options that it has."""
        if not isinstance(self.kind, type):
            return self.make
        assert self.make is not None
        known = {name: value for name, value in options.items() if name in self.options}
        return self.make(references, **known) if self.needs_references else self.make(**known)

    def __str__(self) -> str:
        """Return the row in one line, as `rlseq metrics NAME` shows it."""
        low, high = self.range
        by_word = self.reads == "tokens" and self.needs_references
        reads = f"reads {self.reads}" + ", or words where these are pieces of words" * by_word
        parts = [f"{self.better} is better", reads, f"{low:g} … {high:g} {self.unit}".strip()]
        parts += [f"× {self.scale:g} as a reward"] if self.scale != 1 else []
        parts += [] if self.needs_references else ["needs no references"]
        return "; ".join(parts)


_ROWS = (
    MetricRow("accuracy", accuracy, range=SHARE),
    MetricRow("bleu", BLEU, range=PERCENT, reads="words", scale=0.01),
    *(
        MetricRow(f"bleu_{n}", partial(BLEU, order=n), range=PERCENT, reads="words", scale=0.01)
        for n in range(1, 5)
    ),
    *(
        MetricRow(f"bleu_{n}_coco", partial(BLEU, order=n, definition=COCO), range=SHARE, reads="words")
        for n in range(1, 5)
    ),
    MetricRow("cer", partial(ErrorRate, tokenize=characters), "lower", COUNT, reads="characters"),
    MetricRow("chrf", ChrF, range=PERCENT, reads="characters", scale=0.01),
    MetricRow("chrf++", ChrFPlusPlus, range=PERCENT, reads="texts", scale=0.01),
    MetricRow("cider", CIDEr, range=(0.0, 10.0), reads="words", scale=0.1, all_items=True),
    MetricRow("cider_d", CIDErD, range=(0.0, 10.0), reads="words", scale=0.1, all_items=True),
    MetricRow("commonness", Commonness, "neither", SHARE),
    *(MetricRow(f"distinct_{n}", partial(DistinctN, order=n), "neither", SHARE) for n in range(1, 5)),
    MetricRow("copied", None, "lower", SHARE),  # training texts, word for word
    MetricRow("edit", EditDistance, "lower", COUNT, "edits"),  # the short name, of rewards
    MetricRow("edit_distance", EditDistance, "lower", COUNT, "edits"),
    MetricRow("exact", Exact, range=SHARE),
    MetricRow("length", Length, "neither", COUNT, "tokens"),
    MetricRow("meteor", METEOR, range=SHARE, reads="texts"),
    MetricRow("nll_oracle", None, "lower", COUNT, "nats a token"),
    MetricRow("peakiness", None, "neither", SHARE),
    MetricRow("per", ErrorRate, "lower", COUNT),
    MetricRow("repetition", partial(Repetition, order=2), "neither", SHARE),
    *(MetricRow(f"repetition_{n}", partial(Repetition, order=n), "neither", SHARE) for n in range(1, 5)),
    MetricRow("rouge_l", ROUGEL, range=SHARE, reads="words"),
    *(MetricRow(f"rouge_{n}", partial(ROUGEN, order=n), range=SHARE, reads="words") for n in range(1, 5)),
    MetricRow("self_bleu", SelfBLEU, "neither", PERCENT),
    MetricRow("spice", SPICE, range=SHARE, reads="texts"),
    MetricRow("ter", TER, "lower", COUNT, "%", reads="words"),
    MetricRow(
        *("ter_normalized", partial(TER, tokenize=tercom(normalized=True)), "lower", COUNT, "%"),
        reads="words",
    ),
    MetricRow("token_error_rate", TokenErrorRate, "lower", SHARE),
    MetricRow("wer", ErrorRate, "lower", COUNT, reads="words"),
)
METRICS: dict[str, MetricRow] = {row.name: row for row in _ROWS}
# Shares of answers that break a rule of Chat; a metric of the same name may be registered.
BROKEN_RULES = {
    rule: MetricRow(rule, None, "lower", SHARE) for rule in ("generic", "loops", "off_topic", "short")
}


def register(name: str, metric: MetricFactory | None = None, **facts: Any) -> None:
    """Make a metric known by its name, to tasks, comparisons, reports and the command line.

    Args:
        name: letters, digits and `_ + . -`.
        metric: a subclass of `Metric` or of `SetMetric`, or another class whose objects can be called with
            `(tokens, mask, context)`; a `functools.partial` of one; or such a function itself.
        **facts: `better`, `range`, `unit`, `reads`, `scale` and `all_items`, the fields of `MetricRow`.
    """
    check_options(facts, [field.name for field in fields(MetricRow)][2:], "register")
    row = MetricRow(name, metric, **facts)
    if name in ("reward", *CONTROLS):
        raise ValueError(f"{name!r} is the name of something else than a metric; choose another")
    if not row.range[0] < row.range[1]:
        raise ValueError(f"range must be a least and a larger value, got {row.range}")
    _check(row)
    enter(METRICS, name, row, "metric", row.kind)


def _check(row: MetricRow) -> None:
    """Refuse a class or function that cannot score texts."""
    kind, named = row.kind, getattr(row.kind, "__name__", repr(row.kind))
    if isinstance(kind, type):
        missing = [n for n in dir(kind) if getattr(getattr(kind, n), "__isabstractmethod__", False)]
        if missing or not any("__call__" in vars(base) for base in kind.__mro__):
            raise TypeError(
                f"{named} must define {', '.join(missing) or '__call__(tokens, mask, context)'} to be a "
                "metric; a subclass of rlseq.metrics.Metric has all else"
            )
    elif row.make is not None:
        try:
            inspect.signature(row.make).bind(None, None, None)
        except TypeError as error:
            raise TypeError(
                f"the metric {row.name!r} must be a class, or a function (tokens, mask, context) -> [B]; "
                f"{named} cannot be called so: {error}"
            ) from None


def row_of(name: str) -> MetricRow:
    """Return the row of a metric; for a name without one, a row by which higher is better."""
    return METRICS.get(name) or BROKEN_RULES.get(name) or MetricRow(name)


class Report(dict[str, float]):
    """Corpus figures by metric name; `signatures` says how each was computed, `skipped` why not."""

    def __init__(self) -> None:
        super().__init__()
        self.signatures: dict[str, str] = {}
        self.skipped: dict[str, str] = {}


def evaluate(
    hypotheses: Sequence[Line],
    references: References,
    metrics: Sequence[str] = ("bleu", "cider_d", "rouge_l"),
    **options: Any,
) -> Report:
    """Return the corpus figure of every metric named; one that cannot run here is skipped by name.

    Args:
        hypotheses: one sequence for each item, as texts or id lists.
        references: `references[i]` is the list of the references of item i.
        metrics: names of rows of `METRICS`.
        options: for every metric that has them, such as `eos=2` or `tokenize=...`.
    """
    check_references(references)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    of_texts = {name: row for name, row in METRICS.items() if hasattr(row.kind, "corpus")}
    rows = [pick(of_texts, name, "metric") for name in names]
    unknown = set(options).difference(*(row.options for row in rows))
    if unknown:
        raise TypeError(f"no metric of {names} has the option {sorted(unknown)[0]!r}")
    report = Report()
    for row in rows:
        try:
            metric = row.fit(references, **options)
        except Unavailable as reason:
            report.skipped[row.name] = str(reason)
            warnings.warn(f"{row.name} is skipped: {reason}", stacklevel=2)
            continue
        report[row.name] = metric.corpus(hypotheses)
        report.signatures[row.name] = metric.signature
    return report
