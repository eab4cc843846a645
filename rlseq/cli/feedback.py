"""The commands `rlseq label` and `rlseq reward-model`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rlseq.cli.options import fields_of, flags, form, names_and_flags, parsed, settings
from rlseq.feedback.labelling import LabelConfig, label
from rlseq.feedback.training import RewardModelConfig, train_reward_model, words_on_accuracy

FLAGS_OF_LABEL = {"options": "option"}


def label_texts(words: Sequence[str], text: str) -> None:
    """Ask for labels, and print the file and what follows."""
    runs, words = names_and_flags(words)
    form_of_label = form("Label", flags(LabelConfig, FLAGS_OF_LABEL, ("other",)))
    given = parsed(form_of_label, words, "rlseq label RUN [OTHER]", text, {})
    if not 1 <= len(runs) <= 2:
        raise ValueError(f"name a run, or two: rlseq label runs/chat; got {len(runs)}")
    found = fields_of(LabelConfig, given, FLAGS_OF_LABEL) | {"options": settings(given.option, "option")}
    path = label(runs[0], LabelConfig(**found | {"other": runs[1] if len(runs) == 2 else None}))
    if not path.exists():
        sys.stderr.write("rlseq: nothing is labelled yet; the same command asks again\n")
        return
    sys.stdout.write(f"{path}\n")
    sys.stderr.write(f"rlseq: learn a reward from them: rlseq reward-model {path} --out runs/reward-model\n")


def reward_model(words: Sequence[str], text: str) -> None:
    """Train a reward model on labels, and print its folder and its accuracy on held-out labels."""
    paths, words = names_and_flags(words)
    form_of_model = form("RewardModel", flags(RewardModelConfig, {}))
    given = parsed(form_of_model, words, "rlseq reward-model LABELS", text, {})
    if len(paths) != 1:
        raise ValueError(f"name one file of labels: rlseq reward-model labels.jsonl; got {len(paths)}")
    found = fields_of(RewardModelConfig, given, {}) | {"sizes": settings(given.sizes, "sizes")}
    config = RewardModelConfig(**found)
    report = train_reward_model(paths[0], config).report
    accuracy = report["accuracy"]["estimate"]
    sys.stderr.write(f"rlseq: {words_on_accuracy(report)}\n")
    sys.stdout.write(
        f"{'accuracy':16s} {float('nan') if accuracy is None else accuracy:10.4f}\n{config.out}\n"
    )
