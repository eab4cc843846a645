"""The commands that list what has a name: `rlseq envs`, `agents`, `policies` and `metrics`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rlseq.agents import AGENTS
from rlseq.cli.options import flags
from rlseq.compare.plan import SB3_AGENTS
from rlseq.mdp.registry import ids, option_names, options_passed_on, task_class
from rlseq.metrics.registry import METRICS
from rlseq.policies import POLICIES
from rlseq.utils.arguments import keyword_names
from rlseq.utils.errors import pick
from rlseq.utils.settings import descriptions


def list_or_show(what: str, name: str | None) -> str:
    """Return the names of a table with a line each, or the description of one of them."""
    tables: dict[str, Mapping[str, Any]] = {
        "envs": {id: task_class(id) for id in ids()},
        "agents": AGENTS,
        "policies": POLICIES,
        "metrics": {name: row.make for name, row in METRICS.items() if row.make},
    }
    table = tables[what]
    if name is None:
        lines = {key: inspect.getdoc(getattr(value, "func", value)) or " " for key, value in table.items()}
        if what == "agents":
            lines |= dict.fromkeys(
                SB3_AGENTS, "An agent of stable-baselines3 with its own network, as a control in comparisons."
            )
        width = max(map(len, lines))
        return "".join(f"{key:{width}s}  {text.splitlines()[0]}\n" for key, text in lines.items())
    found = pick(table, name, what.rstrip("s"))
    text = inspect.getdoc(getattr(found, "func", found)) or ""
    if what == "agents":
        texts = descriptions(found)
        rows = [(name, default.default_factory()) for name, _, default in flags(found, {}, ("policy",))]
        text += "\n\n" + "".join(f"  {name:14s} {default!s:16.16s} {texts[name]}\n" for name, default in rows)
    elif what == "metrics":
        text += f"\n\n  {METRICS[name]}"
    elif what == "policies":
        text += f"\n\n  sizes: {', '.join(sorted(keyword_names(found)))}"
    elif what == "envs":
        texts = {name: text for cls in options_passed_on(found) for name, text in descriptions(cls).items()}
        text += f"\n\n  options: {', '.join(sorted(option_names(found)))}\n\n"
        text += "".join(f"  {name:14s} {texts[name]}\n" for name in texts)
    return text.rstrip() + "\n"
