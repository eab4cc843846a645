"""Directives that describe agents, tasks, metrics and policies from the code: see `tabled.catalogue`.

```{agent} rloo
lr: 1e-6
```

```{measured}
:estimators: RLOO, K = 2; RLOO, K = 4
:curves: rloo; scst
```
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from tabled import catalogue


class Described(SphinxDirective):
    """Inserts Markdown that is made when the documentation is built."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True

    def text(self) -> str:
        """Return the Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the Markdown."""
        found: list[nodes.Node] = self.parse_text_to_nodes(self.text())
        return found


class Agent(Described):
    """The settings of an agent, beside those of its paper, which are given a line each, `name: value`."""

    def text(self) -> str:
        """Return the Markdown."""
        published = dict(line.split(": ", 1) for line in self.content if line.strip())
        return catalogue.agent(self.arguments[0], published)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(";")]


class Measured(Described):
    """Measurements of committed results, by the names that they have there."""

    option_spec: ClassVar = {"estimators": _names, "curves": _names, "oracle": _names}

    def text(self) -> str:
        """Return the Markdown."""
        made = {"estimators": catalogue.estimators, "curves": catalogue.curves, "oracle": catalogue.oracle}
        return "\n".join(
            make(self.options[option]) for option, make in made.items() if option in self.options
        )


def of(function: Any) -> type[Described]:
    """Return a directive that inserts the Markdown of a function of its argument."""

    class Made(Described):
        def text(self) -> str:
            return str(function(*self.arguments))

    return Made


def setup(app: Any) -> dict[str, Any]:
    """Register the directives with Sphinx."""
    app.add_directive("agent", Agent)
    app.add_directive("measured", Measured)
    for name in ("task", "metric", "policy", "extras", "settings"):
        app.add_directive(name, of(getattr(catalogue, name)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
