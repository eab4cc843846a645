"""`label`: texts of a policy are shown to a person, who says which is better, in a browser or terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

from rlseq.feedback.labels import LabelFile, Question, read_questions
from rlseq.feedback.page import serve
from rlseq.feedback.questions import draw_questions
from rlseq.feedback.simulated import answer_all
from rlseq.feedback.terminal import ask_all
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task import no_reward
from rlseq.training.experiment_envs import held_out_options
from rlseq.training.model import Model, load
from rlseq.utils.arguments import Checked, PositiveFloat, PositiveInt, Range, Seed, ShareBelowOne
from rlseq.utils.files import make_folder, write_whole
from rlseq.utils.imports import import_modules
from rlseq.utils.settings import configured, takes_fields_of


@dataclass(frozen=True)
class LabelConfig(Checked):
    """The settings of labelling."""

    other: str | None = None
    """A second run: every question then shows a text of each, in random order; by default two samples of the
    first."""
    out: str | None = None
    """The file of labels; by default `labels.jsonl` in the folder of the run. The same command continues
    it."""
    number: PositiveInt = 100
    """The number of questions."""
    scores: Annotated[int, Range(2, 9)] | None = None
    """Ask for a score of single texts, from 1 to this number; by default two texts are compared."""
    held_out: bool = False
    """Draw items that the task is tested on, in place of training items."""
    temperature: PositiveFloat = 1.0
    """Temperature of the samples."""
    seed: Seed = 0
    """Seed of items and samples."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task, such as `path=new.tsv`, in place of those of the run."""
    terminal: bool = False
    """Ask in the terminal, in place of a page in the browser."""
    port: Annotated[int, Range(0, 65535)] = 0
    """Port of the page, on this machine alone; a free one if 0."""
    simulate: str | None = None
    """A metric by which a simulated labeller answers at once, for trials (`rlseq metrics`)."""
    noise: ShareBelowOne = 0.1
    """Share of wrong answers of the simulated labeller."""
    imports: tuple[str, ...] = ()
    """Modules of your own to import first."""


@takes_fields_of(LabelConfig)
def label(run: str | PathLike[str], config: LabelConfig | None = None, **settings: Any) -> Path:
    """Ask which of two texts is better, or for scores, and return the file of the labels.

    The questions are kept beside the labels, so that the same call continues where the last one stopped.

    Args:
        run: the folder of a run, or a saved model.
        config: the settings.
        **settings: fields of `LabelConfig`.
    """
    config = configured(LabelConfig, config, settings, "label")
    import_modules(config.imports)
    names = [str(run), *([config.other] if config.other else [])]
    writers = {name: load(name) for name in names}
    path = _labels_of(Path(run), config)
    env = _task(writers, config)
    questions = _questions(writers, env, config, path)
    with closing(LabelFile(path, questions)) as file:
        if config.simulate is not None:
            answer_all(file, env, config.simulate, config.scores, config.noise, config.seed)
        elif config.terminal:
            ask_all(file, config.scores)
        else:
            serve(file, config.scores, config.port, title=names)
    return path


def _labels_of(run: Path, config: LabelConfig) -> Path:
    """Return the file of the labels."""
    if config.out is not None:
        return Path(config.out)
    if not run.is_dir():
        raise ValueError(f"{run} is no folder in which labels could lie; name a file, --out labels.jsonl")
    return run / "labels.jsonl"


def _task(writers: Mapping[str, Model], config: LabelConfig) -> SequenceEnv:
    """Return the task whose items are asked about; refuse two runs with other words."""
    (name, first), *others = writers.items()
    for other, model in others:
        if model.spec.vocab != first.spec.vocab or model.spec.source_vocab != first.spec.source_vocab:
            raise ValueError(
                f"{name} and {other} have other words, so that one reward model cannot read the texts of "
                "both; train the second from the first (--start)"
            )
    tested = held_out_options(first.run.env) if config.held_out else {}
    unread = {"reward": no_reward} if "reward" in first.run.unrecorded else {}
    return first.task(**{**unread, **tested, **config.options})


def _questions(
    writers: Mapping[str, Model], env: SequenceEnv, config: LabelConfig, path: Path
) -> list[Question]:
    """Return the questions of a file of labels: those asked before, and new ones where there are too few."""
    kept, texts = path.with_suffix(".questions.jsonl"), 2 if config.scores is None else 1
    known = read_questions(kept) if kept.exists() else []
    other = next((question for question in known if len(question.texts) != texts), None)
    if other is not None:
        asked = "pairs" if len(other.texts) == 2 else "single texts"
        raise ValueError(f"{kept} has questions about {asked}; label into another file (--out)")
    if known:
        sys.stderr.write(f"rlseq: {len(known)} questions of {kept}, drawn before, are kept\n")
    lacking = config.number - len(known)
    if lacking > 0:
        drawn = draw_questions(
            writers,
            env,
            lacking,
            texts=texts,
            temperature=config.temperature,
            seed=config.seed + len(known),
            known=known,
        )
        known = [*known, *drawn]
        make_folder(path.parent)
        write_whole(kept, "".join(question.line() for question in known).encode())
    return known
