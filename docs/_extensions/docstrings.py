"""Prepare docstrings, which are written as plain text, for reStructuredText."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any


def prepare(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring by lines that reStructuredText reads as they are meant."""
    lines[:] = prepared(lines)
    if what in ("attribute", "property"):
        app.prepared_lines = list(lines)


def restore(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon makes of attributes: it takes the text before a colon for their type."""
    if what in ("attribute", "property"):
        lines[:] = app.prepared_lines


def prepared(lines: Sequence[str]) -> Iterator[str]:
    """Show indented formulas as they are, bars such as |h| as bars, and settings as keywords."""
    before, literal = 0, False  # the indentation of the text before
    for last, line in zip(["", *lines], lines, strict=False):
        depth = len(line) - len(line.lstrip())
        if line.strip():
            if not last.strip() and depth >= before + 4 and not literal:
                yield from (" " * before + "::", "")
                literal = True
            elif depth < before + 4:
                literal = False
            before = before if literal else depth
        line = re.sub(r"^Keywords, the fields of \w+:$", "Keyword Args:", line)
        yield line if literal else _bars_escaped(line)


def _bars_escaped(line: str) -> str:
    """Escape bars outside code, which would begin a substitution."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, text: str | None, out: str | None
) -> Any:
    """Return a signature without the bounds of numbers; of a dataclass names and defaults alone."""
    if what == "class" and is_dataclass(obj):
        shown = (_shown(p) for p in inspect.signature(obj).parameters.values())
        return f"({', '.join(shown)})", None
    return (text and _BOUNDS.sub(r"\1", text)), out


_BOUNDS = re.compile(r"(?:~?typing\.)?Annotated\[([^,\[\]]+), [^\[\]]*?\([^()]*\)\]")


def _shown(parameter: inspect.Parameter) -> str:
    """Return the name of a parameter with its default, where that can be written briefly."""
    default = parameter.default
    if default is inspect.Parameter.empty:
        return parameter.name
    brief = repr(default) if isinstance(default, int | float | str | tuple | type(None)) else "..."
    return f"{parameter.name}={getattr(default, '__name__', brief)}"


def setup(app: Any) -> dict[str, Any]:
    """Register what is done before and after napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", prepare, priority=100)
    app.connect("autodoc-process-docstring", restore, priority=900)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
