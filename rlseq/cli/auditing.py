"""The command `rlseq audit`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from rlseq.agents import FUNCTIONS
from rlseq.auditing.audit import audit
from rlseq.auditing.estimators import ABOUT_ARGUMENTS
from rlseq.auditing.texts import AuditConfig
from rlseq.cli.options import Imports, SeveralWords, fields_of, flag, flags, form, parsed, settings
from rlseq.utils.errors import hint
from rlseq.utils.imports import import_modules


def print_audit(words: Sequence[str], text: str) -> None:
    """Audit the estimator that is the first word, with the settings of the flags; print the answer."""
    known = "".join(f"\n  {name:22s}{about}" for name, about in ABOUT_ARGUMENTS.items())
    own = [
        flag("objective", str, "Name of an objective or agent, or module:function.", "expected reward"),
        flag("hyper", SeveralWords, "Hyper-parameters of an agent, such as `scale=none`."),
        flag("json", bool, "Print the answer as JSON.", False),
        flag("imports", Imports, ""),
    ]
    names, words = [word for word in words[:1] if not word.startswith("-")], list(words)
    form_of_audit = form("Audit", flags(AuditConfig, {}), own)
    about = f"{text}\n\nArguments that a function may ask for:{known}"
    given = parsed(form_of_audit, words[len(names) :], "rlseq audit ESTIMATOR", about, {})
    if not names:
        raise ValueError("name the estimator first: rlseq audit losses:my_loss, or rlseq audit rloo")
    found = audit(
        function_of(names[0]),
        function_of(given.objective),
        _hyper(given.hyper),
        **fields_of(AuditConfig, given, {}),
    )
    sys.stdout.write(f"{json.dumps(found.as_dict(), indent=2) if given.json else found}\n")


def function_of(name: str) -> Any:
    """Return the function of `module:function`; any other name as it is."""
    module, colon, function = name.partition(":")
    if not colon:
        return name
    import_modules([module])
    found = sys.modules[module]
    try:
        return attrgetter(function)(found)
    except AttributeError:
        raise ValueError(
            f"{module} has no function {function!r}{hint(function, _functions(found))}"
        ) from None


def _hyper(pairs: Sequence[str]) -> dict[str, Any]:
    """Return hyper-parameters as they were typed; "none" is a name where a function has it."""
    return {
        name: "none" if value is None and "none" in FUNCTIONS.get(name, ()) else value
        for name, value in settings(pairs, "hyper").items()
    }


def _functions(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
