"""Files of labels: a line of JSON for each, written whole, so that no label is lost.

    {"source": "where is the sailor", "texts": ["in the harbour", "i do not know"], "better": 0}
    {"source": "where is the sailor", "texts": ["in the harbour"], "score": 4}

`better` is the place of the better text, from 0, or null where neither is. Other names, such as the `run` and
the `item` of the task, are kept. Questions have the same form without an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlseq.data.formats import DataError, Problem, lines
from rlseq.utils.files import locked, make_folder, sign, write_whole

MOST_NAMED = 5  # problems that an error lists
Answer = int | float | None  # the place of the better text, None for neither; or a score
BETTER, SCORE = "better", "score"


@dataclass(frozen=True)
class Question:
    """One text to be scored, or two to be compared.

    Args:
        source: that the texts are about; empty where the task has none.
        texts: one or two.
        more: what else is known of them: the run that wrote them, the item of the task.
    """

    source: str
    texts: tuple[str, ...]
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """The name of its answer in a file."""
        return BETTER if len(self.texts) == 2 else SCORE

    def line(self, **answer: Answer) -> str:
        """Return the question, and its answer where there is one, as a line of a file."""
        row = {**self.more, "source": self.source, "texts": list(self.texts), **answer}
        return json.dumps(row, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Label:
    """The answer to a question, and where it stands."""

    question: Question
    answer: Answer
    path: Path
    number: int

    def problem(self, what: str) -> Problem:
        """Return something that is wrong with it."""
        return Problem(self.path, self.number, what)


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file; refuse it with the lines that cannot be used."""
    return without_problems([_question(path, *row) for row in _rows(path)])


def read_labels(path: Path) -> list[Label]:
    """Return the labels of a file, all of pairs or all scores; refuse lines that cannot be used."""
    found = without_problems([_label(path, *row) for row in _rows(path)])
    if not found:
        raise DataError(f"{path} has no labels; `rlseq label RUN` asks for some")
    first = found[0]
    other = [
        row.problem(f"expected {first.question.key!r} as in line {first.number}, got {row.question.key!r}")
        for row in found
        if row.question.key != first.question.key
    ]
    return without_problems([*found, *other])


def without_problems(rows: Sequence[Any]) -> list[Any]:
    """Return rows, or refuse a file with the problems among them."""
    problems = [row for row in rows if isinstance(row, Problem)]
    if problems:
        more = len(problems) - MOST_NAMED
        named = [str(problem) for problem in problems[:MOST_NAMED]] + [f"and {more} more"] * (more > 0)
        raise DataError("\n".join(named))
    return list(rows)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the number and the JSON of every line, or what is wrong with it."""
    for number, line in lines(path):
        if isinstance(line, Problem):
            yield number, line
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, Problem(path, number, f"expected a JSON object, got {line!r:.40} ({error!s:.60})")


def _question(path: Path, number: int, row: Any) -> Question | Problem:
    """Return the question of a line, or what is wrong with it."""
    if isinstance(row, Problem):
        return row
    if not isinstance(row, dict):
        return Problem(path, number, f"expected a JSON object, got {row!r:.40}")
    source, texts = row.get("source", ""), row.get("texts")
    if not isinstance(texts, list) or len(texts) not in (1, 2) or not all(isinstance(t, str) for t in texts):
        return Problem(path, number, f"expected 'texts', a list of one or two texts, got {texts!r:.60}")
    if not isinstance(source, str):
        return Problem(path, number, f"expected 'source', a text, got {source!r:.60}")
    more = {n: value for n, value in row.items() if n not in ("source", "texts", BETTER, SCORE)}
    return Question(source, tuple(texts), more)


def _label(path: Path, number: int, row: Any) -> Label | Problem:
    """Return the label of a line, or what is wrong with it."""
    question = _question(path, number, row)
    if isinstance(question, Problem):
        return question
    key, answer = question.key, row.get(question.key)
    if key not in row:
        return Problem(path, number, f"expected {key!r} beside {len(question.texts)} texts, got {list(row)}")
    if isinstance(answer, bool) or not isinstance(answer, (int, float, type(None))):
        return Problem(path, number, f"expected a number as {key!r}, got {answer!r:.40}")
    if key == BETTER and answer not in (0, 1, None):
        what = f"expected 0, 1 or null as 'better', got {answer}: there are two texts, numbered from 0"
        return Problem(path, number, what)
    if key == SCORE and (answer is None or not abs(answer) < 1e9):
        return Problem(path, number, f"expected a finite number as 'score', got {answer}")
    return Label(question, answer, path, number)


class LabelFile:
    """The answers to questions, in a file that only this process writes.

    Every answer is written before the next is asked for: the file is replaced as a whole.

    Args:
        path: the file, which may have answers already; those to other questions are refused.
        questions: to be answered.
    """

    def __init__(self, path: Path, questions: Sequence[Question]) -> None:
        make_folder(path.parent)
        self.path, self.questions = path, questions
        self._lock = locked(path.with_name(f".{path.name}.lock"))
        sign(self._lock)
        try:
            self.answers = self._answers_so_far()
        except BaseException:
            self.close()
            raise

    def _answers_so_far(self) -> dict[int, Answer]:
        """Return the answers in the file by the place of their question."""
        if not self.path.exists() or not self.path.stat().st_size:
            return {}
        places = {question: place for place, question in enumerate(self.questions)}
        rows = read_labels(self.path)
        without_problems([row if row.question in places else _not_there(row) for row in rows])
        return {places[row.question]: row.answer for row in rows}

    @property
    def open(self) -> int | None:
        """The first question without an answer; None where all have one."""
        return next((place for place in range(len(self.questions)) if place not in self.answers), None)

    def answer(self, place: int, answer: Answer) -> None:
        """Keep an answer, in place of an earlier one to the same question."""
        self.answer_several({place: answer})

    def answer_several(self, answers: Mapping[int, Answer]) -> None:
        """Keep several answers, all of them or none."""
        self._write({**self.answers, **answers})

    def take_back(self, place: int) -> None:
        """Remove an answer."""
        self._write({other: answer for other, answer in self.answers.items() if other != place})

    def _write(self, answers: dict[int, Answer]) -> None:
        """Write all answers; they count when they are written."""
        rows = [(self.questions[place], answer) for place, answer in answers.items()]
        write_whole(self.path, "".join(q.line(**{q.key: answer}) for q, answer in rows).encode())
        self.answers = answers

    def close(self) -> None:
        """Let other processes write the file."""
        self._lock.close()


def _not_there(label: Label) -> Problem:
    """Return the problem of a label of texts that are not asked about."""
    texts = " | ".join(label.question.texts)
    return label.problem(
        f"a label of texts that are not among the questions, {label.question.source!r:.40}: {texts!r:.60}; "
        "move it to another file, or label into another one (--out)"
    )
