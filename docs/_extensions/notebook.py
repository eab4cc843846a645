"""Notebooks as pages: cells of text as they are, cells of code with the outputs that are stored.

python docs/_extensions/notebook.py docs/start/first-model.ipynb  # runs it, and stores its outputs
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]


def markdown(notebook: Notebook) -> str:
    """Return a notebook as Markdown."""
    return "\n\n".join(_cell(cell) for cell in notebook["cells"]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    outputs = ["".join(output["text"]).rstrip() for output in cell["outputs"]]
    return "\n\n".join([f"```python\n{source}\n```", *(f"````text\n{text}\n````" for text in outputs)])


def executed(notebook: Notebook) -> Notebook:
    """Return a notebook whose cells have the outputs of this run: what they print."""
    names: dict[str, Any] = {}
    cells = [cell if cell["cell_type"] == "markdown" else _run(cell, names) for cell in notebook["cells"]]
    return {**notebook, "cells": cells}


def _run(cell: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec("".join(cell["source"]), names)
    text = printed.getvalue().splitlines(keepends=True)
    outputs = [{"name": "stdout", "output_type": "stream", "text": text}] if text else []
    return {**cell, "outputs": outputs}


def main(path: Path) -> None:
    """Run a notebook in an empty folder, and store its outputs in it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = executed(json.loads(path.read_text("utf-8")))
        os.chdir(path.parent)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Register a parser of notebooks with Sphinx."""
    from myst_parser.parsers.sphinx_ import MystParser

    class NotebookParser(MystParser):
        """Parses the Markdown of a notebook."""

        supported = ("notebook",)

        def parse(self, inputstring: str, document: Any) -> None:
            """Fill a document with a notebook's content."""
            super().parse(markdown(json.loads(inputstring)), document)

    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]).resolve())
