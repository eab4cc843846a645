"""Readers of conversations: threads of turns, of which every second one is an answer.

A source is a turn; its reference is the turn after it, or several turns with `<turn>` between them, of which
the first, the third and so on are answers. Errors name the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from rlseq.data.formats import Pair, Problem, Records, lines
from rlseq.data.locate import Formats

TURN = "<turn>"
Thread = tuple[int, Any]  # the line where it begins, and its turns, as the file has them


def pairs_of_thread(turns: Sequence[str], answers: int) -> Iterator[Pair]:
    """Yield each turn and the next; or every 2 · answers turns, the first of them apart as the source."""
    if answers == 1:
        yield from (Pair(turn, following) for turn, following in pairwise(turns))
        return
    for start in range(0, len(turns) - 1, 2 * answers):
        later = turns[start + 1 : start + 2 * answers]
        yield Pair(turns[start], f" {TURN} ".join(later if len(later) % 2 else later[:-1]))


def read_threads(path: Path, threads: Iterator[Thread | Problem], answers: int) -> Records:
    """Yield the pairs of threads, or what is wrong with one."""
    for found in threads:
        if isinstance(found, Problem):
            yield found
            continue
        number, turns = found
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            yield Problem(path, number, f"expected a list of turns, each a text, got {turns!r:.60}")
        elif len(turns) < 2 or not all(turn.strip() for turn in turns):
            yield Problem(path, number, f"expected at least two turns, none of them empty, got {turns!r:.60}")
        elif any(TURN in turn for turn in turns):
            yield Problem(path, number, f"expected turns without {TURN}, which stands between them")
        else:
            yield from pairs_of_thread([turn.strip() for turn in turns], answers)


def tab_threads(path: Path, answers: int) -> Records:
    """Read a thread a line, its turns apart by tabs."""
    rows = ((n, line if isinstance(line, Problem) else line.split("\t")) for n, line in lines(path))
    return read_threads(path, (row[1] if isinstance(row[1], Problem) else row for row in rows), answers)


def json_threads(path: Path, answers: int) -> Records:
    """Read a thread a line: a list of turns, or `{"turns": […]}`."""

    def parsed(number: int, line: str) -> Thread | Problem:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            return Problem(path, number, f"expected a JSON list of turns, got {line!r:.40} ({error!s:.60})")
        return number, entry.get("turns") if isinstance(entry, dict) else entry

    rows = (line if isinstance(line, Problem) else parsed(n, line) for n, line in lines(path))
    return read_threads(path, rows, answers)


def yaml_threads(path: Path, answers: int) -> Records:
    """Read a YAML file as chatterbot-corpus has them: lists of turns under `conversations`."""
    found: list[Thread | Problem] = []
    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
        fields = {key.value: value for key, value in root.value}
        for thread in fields["conversations"].value:
            turns = [turn.value for turn in thread.value] if isinstance(thread.value, list) else thread.value
            found.append((thread.start_mark.line + 1, turns))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = [Problem(path, line, f"expected YAML, got {error.problem!s:.80}", fatal=True)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"expected lists of turns under 'conversations' ({type(error).__name__}: {error!s:.60})"
        found = [Problem(path, 1, what, fatal=True)]
    return read_threads(path, iter(found), answers)


def thread_formats(answers: int) -> Formats:
    """Return the readers of threads by suffix."""
    readers = {".tsv": tab_threads, ".jsonl": json_threads, ".yml": yaml_threads, ".yaml": yaml_threads}
    return {suffix: partial(reader, answers=answers) for suffix, reader in readers.items()}
