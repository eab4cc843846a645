"""Import modules by name, so that the tasks, agents, policies and metrics that they register can be named."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from rlseq.utils.arguments import checked_arguments


@checked_arguments
def import_modules(imports: Sequence[str]) -> None:
    """Import each module; it may lie in the working folder, or wherever Python looks for modules."""
    for name in imports:
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)
        try:
            import_module(name)
        except Exception as error:
            step = traceback.extract_tb(error.__traceback__)[-1]
            missing = isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0])
            library = step.filename.startswith("<")  # a mistake in the syntax, whose message names the line
            place = f" (line {step.lineno} of {os.path.basename(step.filename)})"
            where = "" if missing or library else place
            advice = "; go to its folder, or add that to PYTHONPATH" if missing else ""
            raise ValueError(
                f"the module {name!r} cannot be imported: {type(error).__name__}: {error}{where}{advice}"
            ) from error
