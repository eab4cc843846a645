"""Read notebooks as pages: cells of text as they are, cells of code with the outputs that are stored."""

from __future__ import annotations

import json
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser


def markdown(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown."""
    return "\n\n".join(_cell(cell) for cell in notebook["cells"]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *map(_output, cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    """Return an output: a picture where there is one, else its text."""
    data = output.get("data", {})
    if "image/svg+xml" in data:
        return "```{raw} html\n" + "".join(data["image/svg+xml"]) + "\n```"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"````text\n{text.rstrip()}\n````"


class NotebookParser(MystParser):
    """Parses the Markdown of a notebook."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: Any) -> None:
        """Fill a document with a notebook's content."""
        super().parse(markdown(json.loads(inputstring)), document)


def setup(app: Any) -> dict[str, Any]:
    """Register the parser with Sphinx."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
