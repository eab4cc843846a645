"""`train_reward_model`: a reward from a file of labels, with its accuracy on labels that were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isnan
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlseq.compare.statistics import Interval, as_tree, share_interval, without_nan
from rlseq.data.formats import Problem
from rlseq.discriminators import built_for
from rlseq.discriminators.reward_model import (
    CrossValidated,
    Judgements,
    RewardLearning,
    RewardModel,
    cross_validated,
    margins,
    standard,
    trained,
)
from rlseq.feedback.labels import Answer, Label, read_labels, without_problems
from rlseq.feedback.questions import batch_of
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.training.model import Model, load
from rlseq.utils.imports import import_modules
from rlseq.utils.modules import eval_mode
from rlseq.utils.settings import configured, takes_fields_of

ACCURACY_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class RewardModelConfig(RewardLearning):
    """The settings of a reward model."""

    out: str = "runs/reward-model"
    """Folder of the reward model, which `--reward path=FOLDER` names."""
    run: str | None = None
    """The run whose texts were labelled, for its words; by default the one that the labels name."""
    reader: str = "gru"
    """Network that reads the texts: "gru", "lstm", "cnn" or "transformer"; it looks at the source, too."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the network, such as `hidden=64` (docs/api/discriminators.md)."""
    imports: tuple[str, ...] = ()
    """Modules of your own to import first."""


@takes_fields_of(RewardModelConfig)
def train_reward_model(
    labels: str | PathLike[str], config: RewardModelConfig | None = None, **settings: Any
) -> RewardModel:
    """Train a reward model on labels, save it, and return it.

    Its `report` has the accuracy on held-out labels: the share of pairs that it orders as the labels do, of
    scores the share of pairs of held-out texts with different scores.

    Args:
        labels: a file, as `rlseq label` writes it.
        config: the settings.
        **settings: fields of `RewardModelConfig`.
    """
    config = configured(RewardModelConfig, config, settings, "train_reward_model")
    import_modules(config.imports)
    path = Path(labels)
    rows = read_labels(path)
    spec = _model_of(rows, config, path).spec
    judged = judgements(rows, spec.env())
    made = {"reader": config.reader, "sizes": dict(config.sizes)}
    make = partial(built_for, spec, made, config.seed)
    learned = judged if judged.pairs else _standardised(judged)
    held_out = cross_validated(make, learned, config)
    network = trained(make, learned, config, held_out.epochs)
    report = {**_report(learned, held_out, network), "labels": str(path)}
    model = RewardModel.of(network, spec, made, judged, report)
    model.save(config.out)
    return model


def _model_of(rows: Sequence[Label], config: RewardModelConfig, path: Path) -> Model:
    """Return the model of the run whose texts were labelled."""
    named = config.run or next((row.question.more["runs"][0] for row in rows if _runs(row)), None)
    if named is None:
        raise ValueError(f"{path} names no run whose texts were labelled; name it, --run FOLDER")
    return load(named)


def _runs(row: Label) -> bool:
    """Return whether a label names the runs of its texts."""
    runs = row.question.more.get("runs")
    return isinstance(runs, list) and bool(runs) and isinstance(runs[0], str)


def judgements(rows: Sequence[Label], env: SequenceEnv) -> Judgements:
    """Return labels as a reward model learns from them; refuse texts that the task cannot read or write.

    Args:
        rows: labels, all of pairs or all scores.
        env: the task whose texts were labelled, with or without data.
    """
    without_problems([problem for row in rows for problem in _problems(row, env)])
    sources = [row.question.source for row in rows]
    texts = tuple(
        batch_of(env, sources, column) for column in zip(*(row.question.texts for row in rows), strict=True)
    )
    answers = [_first_is_better(row.answer) if len(texts) == 2 else float(row.answer or 0) for row in rows]
    return Judgements(texts, torch.tensor(answers), _numbers(sources))


def _first_is_better(answer: Answer) -> float:
    """Return 1 if the first text is better, 0 if the second is, ½ for neither."""
    return 0.5 if answer is None else 1.0 - answer


def _problems(row: Label, env: SequenceEnv) -> list[Problem]:
    """Return what is wrong with the texts of a label."""
    found = []
    if env.source_vocab is not None and not row.question.source:
        found.append("expected the source of the texts, got none")
    for text in row.question.texts:
        try:
            length = len(env.vocab.encode(text))
        except ValueError as error:
            found.append(f"{text!r:.60} cannot be written by the task: {error}")
            continue
        if length > env.max_len:
            found.append(f"{text!r:.60} has {length} tokens, the task writes {env.max_len} at most")
    return [row.problem(what) for what in found]


def _numbers(sources: Sequence[str]) -> Tensor:
    """Return a number for every source; where all are one, a number for every label."""
    places = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    if len(places) == 1:
        return torch.arange(len(sources))
    return torch.tensor([places[source] for source in sources])


def _standardised(judged: Judgements) -> Judgements:
    """Return scores with mean 0 and spread 1."""
    spread, mean = standard(judged.answers)
    return Judgements(judged.texts, (judged.answers - mean) / spread, judged.items)


# ── how good it is ───────────────────────────────────────────────────────────────────────────────────


def order_accuracy(margin: Tensor, judged: Judgements) -> Interval:
    """Return the share of labels whose order is right, with its interval; ties are not counted.

    Scores are compared in pairs of labels that are drawn once, each label in one pair.
    """
    if judged.pairs:
        decided = judged.answers != 0.5
        right = (margin > 0) == (judged.answers > 0.5)
    else:
        order = torch.randperm(len(margin), generator=torch.Generator().manual_seed(0))
        first, second = order[: len(order) // 2], order[len(order) // 2 : len(order) // 2 * 2]
        gap = judged.answers[first] - judged.answers[second]
        decided, right = gap != 0, (margin[first] > margin[second]) == (gap > 0)
    return share_interval(int((right & decided).sum()), int(decided.sum()))


def _report(judged: Judgements, held_out: CrossValidated, network: Any) -> dict[str, Any]:
    """Return the accuracy on held-out labels and on those that were learned from, as plain values."""
    with torch.no_grad(), eval_mode(network):
        seen = order_accuracy(margins(network, judged), judged)
    report = {
        "kind": "pairs" if judged.pairs else "scores",
        "number": len(judged.answers),
        "sources": len(set(judged.items.tolist())),
        "ties": int((judged.answers == 0.5).sum()) if judged.pairs else 0,
        "accuracy": as_tree(order_accuracy(held_out.margins, judged), ACCURACY_RANGE),
        "accuracy on labels learned from": as_tree(seen, ACCURACY_RANGE),
        "epochs": held_out.epochs,
    }
    found: dict[str, Any] = without_nan(report)
    return found


def above_chance(report: Mapping[str, Any]) -> bool:
    """Return whether the interval of the accuracy on held-out labels lies above one half."""
    low = report["accuracy"]["low"]
    return low is not None and not isnan(low) and low > 0.5


def words_on_accuracy(report: Mapping[str, Any]) -> str:
    """Return in words how good a reward model is, for a person who wants to train on it."""
    accuracy, seen = report["accuracy"], report["accuracy on labels learned from"]
    if accuracy["low"] is None:
        return "all labels are ties or equal scores, so that there is no order to learn"
    kind = "labels" if report["kind"] == "pairs" else "pairs of scores"
    interval = f"[{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
    said = (
        f"the reward model orders {accuracy['estimate']:.1%} of {accuracy['n']:,} held-out {kind} as they "
        f"were answered {interval}, and {seen['estimate']:.1%} of those that it learned from"
    )
    if above_chance(report):
        return said
    return (
        f"{said}. That is not above chance (50 %): a policy trained on it would learn its errors; label "
        "more, or check whether the labels agree with each other"
    )
