"""The answer of an audit, and its table for somebody who has never seen one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import Any, NamedTuple

from rlseq.auditing.texts import AuditConfig

EXACT = 1e-5  # relative error below which two gradients are equal; agents compute in float32
WIDTH = 100
NONE = 1e-6  # relative changes below this are rounding
Explained = tuple[str, str, str]  # name, value, explanation


class Followed(NamedTuple):
    """An objective, and by how much its gradient is multiplied."""

    objective: str
    factor: float


@dataclass(frozen=True)
class Audit:
    """The answer of an audit; `print` shows it with explanations."""

    estimator: str  # name of the function or of the agent
    objective: str  # with which it was compared
    asks: tuple[str, ...]  # arguments of the function; none for an agent
    config: AuditConfig  # the task
    batches: int  # that were enumerated
    texts: int  # in a batch
    bias: float  # ‖E[g] − ∇J‖ / ‖∇J‖, ∇J the exact gradient of the objective
    along: float  # part of the bias in the direction of ∇J: −0.5 where E[g] is half as long
    across: float  # part of the bias at right angles to ∇J
    follows: tuple[Followed, ...]  # known objectives whose gradient E[g] is, up to a factor
    vanishes: bool  # E[g] is 0
    noise: float | None  # variance per text / ‖E[g]‖²: the number of texts at which noise equals signal
    noise_of_reinforce: float  # the same of −R Σ log π, for the expected reward
    off_policy: float | None  # bias when an older policy wrote the texts; None if nothing is asked about it
    padding: float | None = None  # relative change with further columns of padding
    batch_size: float | None = None  # factor when every text is in the batch twice
    micro_batches: float | None = None  # relative change when gradients of single groups are averaged
    longer_text: float | None = None  # weight of a word of a long text, by one of a text of one word
    beside_longer: float | None = None  # weight of a word beside longer texts, by that beside short ones
    float32: float | str | None = None  # relative change in this type, or the error
    bfloat16: float | str | None = None

    @property
    def unbiased(self) -> bool:
        """Whether the mean gradient is that of the objective, to rounding."""
        return self.bias < EXACT

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as plain values, for JSON."""
        return {**asdict(self), "follows": [each._asdict() for each in self.follows]}

    def __str__(self) -> str:
        """Return the table with explanations."""
        return explained(self)


def explained(audit: Audit) -> str:
    """Return the table of an audit as text."""
    config = audit.config
    asked = f"({', '.join(audit.asks)})" if audit.asks else ", an agent of rlseq"
    task = (
        f"All {audit.batches:,} batches of {audit.texts} texts that the {config.sampled_from} can write were "
        f"enumerated ({config.contexts} contexts, {config.vocab_size} words, at most {config.length} in a "
        f"text, {config.rewards} rewards, seed {config.seed}): gradients are exact, without noise."
    )
    lines = [
        f"Audit of {audit.estimator}{asked}",
        "",
        *wrap(task, WIDTH),
        "",
        *wrap(_answer(audit), WIDTH),
        "",
    ]
    for title, rows in (("", _bias(audit)), ("Changes of the gradient", _changes(audit))):
        shown = [line for row in rows for line in _line(row)]
        lines += [title, *shown, ""] if title and shown else [*shown, ""] if shown else []
    return "\n".join(lines).rstrip()


def _line(row: Explained) -> list[str]:
    name, value, text = row
    first, *rest = wrap(text, WIDTH - 32) or [""]
    return [f"  {name:16s} {value:>10s}   {first}".rstrip(), *(" " * 32 + line for line in rest)]


def _answer(audit: Audit) -> str:
    """Return what the mean gradient is, in a sentence."""
    start = "Answer: the mean gradient is "
    if audit.vanishes:
        return f"{start}0. Every step is noise."
    if audit.unbiased:
        return f"{start}that of the objective, {audit.objective}."
    same = [each for each in audit.follows if each.objective == audit.objective]
    if same:
        factor = same[0].factor
        uphill = "; the sign is wrong: a step goes away from it" if factor < 0 else ""
        return f"{start}{factor:.4g} times that of the objective, {audit.objective}{uphill}."
    if audit.follows:
        others = ", and ".join(f"{factor:.4g} times that of: {name}" for name, factor in audit.follows)
        return f"{start}not that of the objective, {audit.objective}. It is {others}."
    return f"{start}not that of the objective, {audit.objective}, and of no other that is known here."


def _bias(audit: Audit) -> Iterator[Explained]:
    yield "bias", _percent(audit.bias), f"of the gradient of: {audit.objective}"
    yield "  along", _percent(audit.along, sign=True), "in its direction: as a larger or smaller step size"
    yield "  across", _percent(audit.across), "in another direction: no step size mends that"
    if audit.noise is not None:
        yield (
            "noise",
            f"{audit.noise:.3g}",
            "texts at which the noise is as large as the mean gradient; REINFORCE without a baseline, for "
            f"the expected reward: {audit.noise_of_reinforce:.3g}",
        )
    if audit.off_policy is not None:
        yield "off policy", _percent(audit.off_policy), "bias where an older policy wrote the texts"


def _changes(audit: Audit) -> Iterator[Explained]:
    if audit.padding is not None:
        yield "padding", _percent(audit.padding), "with three more columns of padding"
    if audit.longer_text is not None:
        text = "weight of a word of a long text, by that of a text of one word"
        yield "length", f"× {audit.longer_text:.3g}", text
    if audit.beside_longer is not None:
        text = "weight of a word when the other texts of the batch become longer"
        yield "others' length", f"× {audit.beside_longer:.3g}", text
    if audit.batch_size is not None:
        yield "batch size", f"× {audit.batch_size:.3g}", "when every text is in the batch twice"
    if audit.micro_batches is not None:
        text = "when the gradients of single groups are averaged, not that of the batch taken"
        yield "micro-batches", _percent(audit.micro_batches), text
    for name, found in (("float32", audit.float32), ("bfloat16", audit.bfloat16)):
        if found is not None:
            fails = isinstance(found, str)
            yield (name, "fails", str(found)) if fails else (name, _rounding(float(found)), "against float64")


def _percent(share: float, sign: bool = False) -> str:
    """Return a share in per cent; what is rounding counts as 0."""
    percent = 0.0 if abs(share) < NONE else 100 * share
    form = ".1g" if 0 < abs(percent) < 0.1 else ".1f"
    return f"{percent:{'+' if sign and percent else ''}{form}} %"


def _rounding(share: float) -> str:
    return f"{100 * share:{'.1g' if share < 0.001 else '.1f'}} %"
