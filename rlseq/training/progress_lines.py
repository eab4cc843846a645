"""The lines that training prints at its beginning and at every evaluation: scores, speed and time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# The names of a figure in a row of metrics, by its name in the line; the first that the row has is shown.
LINE_FIGURES: dict[str, Sequence[str]] = {
    "reward": ("eval_reward", "reward"),
    "nll": ("nll",),
    "entropy": ("entropy",),
    "length": ("eval_length", "length"),
}


@dataclass(frozen=True)
class Pace:
    """The state of a run when the present call to `train` began, from which speed and time left are measured.

    Args:
        done: updates or tokens that were done by then.
        tokens: tokens written or imitated by then.
        seconds: seconds of training by then, evaluations apart.
        began: the clock at that time.
    """

    done: int
    tokens: int
    seconds: float
    began: float = field(default_factory=time.perf_counter)

    def speed(self, tokens: int, seconds: float) -> float:
        """Return the tokens per second of training since then."""
        return (tokens - self.tokens) / max(seconds - self.seconds, 1e-9)

    def left(self, done: int, limit: int) -> float:
        """Return the seconds until the limit at the pace so far, evaluations included."""
        spent = time.perf_counter() - self.began
        return spent * max(0, limit - done) / max(1, done - self.done)


def preparation_line(name: str, learned: Sequence[str]) -> str:
    """Return the line that is printed before the first update, where much is learned before it."""
    return f"{name}: before the first update {', and '.join(learned)}"


def opening_line(name: str, limit: int, every: int, unit: str, done: int = 0) -> str:
    """Return the line that is printed after the first update; `done` is where a resumed run continues."""
    resumed = f", resumed after {done:,}" if done else ""
    return f"{name}: {limit:,} {unit}, an evaluation every {every:,} {unit}{resumed}"


def evaluation_line(
    row: Mapping[str, float], share: float, metrics: Iterable[str], speed: str, left: float
) -> str:
    """Return the line that is printed after an evaluation.

    Args:
        row: the metrics of the last update, with the scores of the evaluation as `eval_…`.
        share: the part of the training that is done, 0 … 1.
        metrics: the task's own metrics; the first that is not the reward again is shown.
        speed: with its unit.
        left: seconds until the end.
    """
    found = {
        name: next((row[key] for key in keys if key in row), None) for name, keys in LINE_FIGURES.items()
    }
    scores = ((name, row.get(f"eval_{name}")) for name in metrics)
    main = dict([next(((name, score) for name, score in scores if score != found["reward"]), ("", None))])
    figures = [
        f"{name} {_short(value)}"
        for name, value in {"reward": found["reward"], **main, **found}.items()
        if value is not None
    ]
    end = f"{clock(left)} left" if share < 1 else "finished"
    return " · ".join([f"update {row['update']:,.0f} ({share:.0%})", *figures, speed, end])


def clock(seconds: float) -> str:
    """Return a duration as `0:42`, `12:05` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(value: float) -> str:
    """Return a number with three digits after the point, one where it is large."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
