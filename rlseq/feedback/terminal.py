"""Questions in the terminal: a text, or two of them, and a line for the answer."""

from __future__ import annotations

import sys

from rlseq.feedback.labels import LabelFile, Question

NEITHER, BACK, STOP = "0", "u", "q"


def ask_all(file: LabelFile, best: int | None) -> None:
    """Ask all open questions in turn; "u" goes back by one, "q" or the end of the input stops.

    Args:
        file: has the questions, and takes the answers.
        best: the best score; None where pairs are compared.
    """
    answers = [NEITHER, "1", "2"] if best is None else [str(score) for score in range(1, best + 1)]
    asked: list[int] = []
    while (place := file.open) is not None:
        sys.stdout.write(question_text(file.questions[place], len(file.answers) + 1, len(file.questions)))
        said = _reply(answers)
        if said == STOP:
            break
        if said == BACK:
            if asked:
                file.take_back(asked.pop())
            continue
        file.answer(place, answer_of(said, best))
        asked.append(place)
    sys.stdout.write(f"{len(file.answers)} of {len(file.questions)} answered\n")


def question_text(question: Question, number: int, of: int) -> str:
    """Return a question as text."""
    source = f"  {question.source}\n" if question.source else ""
    texts = "".join(f"  {n}: {text or '∅'}\n" for n, text in enumerate(question.texts, 1))
    return f"\n[{number}/{of}]\n{source}{texts}"


def answer_of(key: str, best: int | None) -> int | None:
    """Return the answer that a key means: 1 and 2 the first and the second text, 0 neither; or a score."""
    if best is not None:
        return int(key)
    return None if key == NEITHER else int(key) - 1


def _reply(answers: list[str]) -> str:
    """Return a line that is an answer, or goes back, or stops."""
    about = "1 or 2 is better, 0 neither" if answers[0] == NEITHER else f"score {answers[0]} to {answers[-1]}"
    while True:
        sys.stdout.write(f"{about}; u goes back, q stops: ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        said = line.strip().lower() if line else STOP
        if said in (*answers, BACK, STOP):
            return said
