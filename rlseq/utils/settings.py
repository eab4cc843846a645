"""Settings stated once, as documented fields of a dataclass, from which keywords, help and flags are made."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar

from typing_extensions import get_original_bases, is_typeddict

from rlseq.utils.errors import check_options

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])


def descriptions(cls: type) -> dict[str, str]:
    """Return the text beside each field of a dataclass: the string below it, or the comment behind it.

    The keys of a `TypedDict` are its fields.
    """
    bases = _typed_dicts(cls) if is_typeddict(cls) else filter(is_dataclass, reversed(cls.__mro__))
    return {name: text for base in bases for name, text in _stated_in(base).items()}


@cache
def _stated_in(base: type) -> Mapping[str, str]:
    """Return the text beside each field that a class states itself."""
    try:
        source = textwrap.dedent(inspect.getsource(base))
    except OSError:  # a class that was typed into an interpreter has no source
        return {}
    found: dict[str, str] = {}
    (tree,), lines = ast.parse(source).body, source.splitlines()
    assert isinstance(tree, ast.ClassDef)
    for node, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comments = re.findall(r"  # (.+)", "\n".join(lines[node.lineno - 1 : node.end_lineno]))
            text = _string(below)
            found[node.target.id] = " ".join((text or " ".join(comments)).split())
    return found


def configured(cls: Callable[..., C], config: C | None, settings: Mapping[str, Any], function: str) -> C:
    """Return a configuration, the default one when None is given, with the fields that keywords replace."""
    check_options(settings, inspect.signature(cls).parameters, function)
    return cls(**{**({} if config is None else vars(config)), **settings})


def takes_fields_of(cls: type) -> Callable[[F], F]:
    """Show the fields of a dataclass as keywords of a function, in its signature and its help."""

    def documented(function: F) -> F:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {p.name for p in named}
        settings = [p for p in inspect.signature(cls).parameters.values() if p.name not in taken]
        keywords = [p.replace(kind=p.KEYWORD_ONLY) for p in settings]
        vars(function)["__signature__"] = own.replace(parameters=[*named, *keywords])
        listed = "".join(
            textwrap.fill(f"{name}: {text}", 100, initial_indent="    ", subsequent_indent=" " * 8) + "\n"
            for name, text in descriptions(cls).items()
        )
        function.__doc__ = f"{inspect.getdoc(function)}\n\nKeywords, the fields of {cls.__name__}:\n{listed}"
        return function

    return documented


def _typed_dicts(cls: Any) -> list[type]:
    """Return a `TypedDict` after those that it is made from, which its `__mro__` does not have."""
    above = [base for base in get_original_bases(cls) if is_typeddict(base)]
    return [*(found for base in above for found in _typed_dicts(base)), cls]


def _string(node: ast.stmt | None) -> str:
    """The text of a statement that is a string, or nothing."""
    text = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else ""
    return text if isinstance(text, str) else ""
