"""Texts that are kept with results, without the absolute paths of the machine on which they were made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

# A path stands alone or in quotes: "a/b" and "https://a/b" are not absolute paths.
QUOTED = re.compile(r"""(["'`])(/[^"'`\n]+/[^"'`\n]*)\1""")
BARE = re.compile(r"""(?<![\w.:/~*<\\-])/(?:[^\s"'`<>:;,|()\[\]{}/]+/)+[^\s"'`<>:;,|()\[\]{}/]*""")


def without_places(text: str) -> str:
    """A text in which every absolute path is relative to the working folder, or is the name alone elsewhere.

    Args:
        text: for example a traceback, which names the files of libraries by their absolute paths.
    """
    text = QUOTED.sub(lambda m: m.group(1) + _relative(m.group(2)) + m.group(1), text)
    return BARE.sub(lambda m: _relative(m.group()), text)


def command_line(words: Sequence[str]) -> str:
    """Return a command to be kept, and pasted: the program by name, arguments without absolute paths."""
    program, *arguments = words or [""]
    return shlex.join([Path(program).name, *map(_argument, arguments)])


def _argument(word: str) -> str:
    """An argument, with the path after `--option=` made relative even where it has blanks."""
    option, separator, value = word.rpartition("=")
    return option + separator + _relative(value) if value.startswith("/") else without_places(word)


def _relative(path: str) -> str:
    """A path below the working folder from there; the name of any other absolute path."""
    here, place = PurePosixPath(Path.cwd()), PurePosixPath(path)
    return str(place.relative_to(here)) if place.is_relative_to(here) else place.name
