"""Flags of a command from the documented fields of dataclasses, and settings from words and files."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass
from functools import reduce
from inspect import isfunction
from itertools import chain
from operator import or_
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import tyro
from typing_extensions import get_type_hints
from tyro.conf import UseAppendAction, arg

from rlseq.utils.arguments import Range, Tokens, check_fields, checked, rule_of
from rlseq.utils.errors import check_options, hint, in_one_line, ours
from rlseq.utils.settings import descriptions

LARGEST = 1_000_000  # bytes of a file of settings
MOST_VALUES = 10_000  # values in it
PLAIN = (bool, int, float, str)
IMPORT = "Import a module of your own first, so that the tasks, agents and metrics it registers are known"
Imports = Annotated[tuple[str, ...], arg(name="import", help=IMPORT), UseAppendAction]
SeveralWords = tuple[str, ...]
TypedTokens = Annotated[float, Range(1, 1e18)]
Flag = tuple[str, Any, Any]  # as `make_dataclass` takes it: name, type, default


@dataclass(frozen=True)
class Decoding:
    """The settings of the decodings, each of which takes those that it has."""

    width: int = 5
    """Number of hypotheses in the beam."""
    temperature: float = 1.0
    """Temperature of sampling, by which logits are divided."""
    top_k: int | None = None
    """Sample among this many tokens only, the most likely ones."""
    top_p: float | None = None
    """Sample among the fewest tokens whose probabilities have this sum."""
    samples: int = 32
    """Number of samples that mbr compares with each other."""
    utility: str = ""
    """Metric by which mbr compares them; the reward of the run when not given."""
    beam: int = 0
    """Number of texts of a beam search that are candidates of mbr beside the samples."""


DecodingFlags = Annotated[Decoding, arg(name="")]


def form(name: str, *parts: Iterable[Flag]) -> Any:
    """Return a dataclass of flags, as tyro reads it; of two with the same name the first is taken."""
    found: dict[str, Flag] = {}
    for flag in chain(*parts):
        found.setdefault(flag[0], flag)
    return make_dataclass(name, found.values())


def flags(cls: type, renamed: Mapping[str, str], without: Collection[str] = ()) -> Iterator[Flag]:
    """Yield the fields of a dataclass that can be typed as flags, with their descriptions.

    Args:
        cls: the dataclass.
        renamed: the name of a flag by the name of its field, where they differ.
        without: fields that are no flags.
    """
    hints, texts = get_type_hints(cls, include_extras=True), descriptions(cls)
    for each in fields(cls):
        default, name = default_of(each), renamed.get(each.name, each.name)
        kind = Imports if name == "imports" else type_of_flag(hints[each.name], default)
        if each.name not in without and kind is not None:
            yield flag(name, kind, texts.get(each.name, ""), default)


def flag(name: str, kind: Any, text: str, default: Any = None) -> Flag:
    """Return a flag; one of several words has a tuple of them as its default."""
    if kind in (SeveralWords, Imports):
        default = (default,) if isinstance(default, str) else tuple(default or ())
    elif kind is str:
        default = default or ""
    described = kind if kind is Imports else Annotated[kind, arg(help=text)]
    return name, described, field(default_factory=lambda: default)


def default_of(each: Field[Any]) -> Any:
    """Return the default of a field, of a function its name, None where the field has none."""
    from rlseq.agents import FUNCTIONS, function_name  # here, as it takes torch seconds to load

    default = each.default if each.default_factory is MISSING else each.default_factory()
    if default is MISSING:
        return None
    own = default.__name__ if each.name in FUNCTIONS and isfunction(default) else default
    return function_name(each.name, default) or own


def type_of_flag(hint: Any, default: Any) -> Any:
    """Return the type as which a setting is typed, None where that cannot be done.

    Numbers, names and truth values are typed as they are, a number of tokens also as 1e6. Sequences, and
    options by name, are several words. A dataclass has a flag for each of its fields.
    """
    if is_dataclass(default):
        return type(default)
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = [get_args(part)[0] if get_origin(part) is Annotated else part for part in parts]
    if any(get_origin(part) in (Sequence, Mapping, tuple) for part in plain):
        return SeveralWords
    if Tokens in parts:
        plain[parts.index(Tokens)] = TypedTokens
    kinds = [part for part in plain if part in (*PLAIN, NoneType, TypedTokens)]
    if kinds in ([], [NoneType]):
        return str if isinstance(default, str) else None  # the name of a function
    return reduce(or_, kinds)


def names_and_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words before the first flag, and the rest."""
    first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:first]), list(words[first:])


def parsed(form: Any, words: Sequence[str], prog: str, text: str | None, found: Mapping[str, Any]) -> Any:
    """Return the flags of a form as they were typed; a file has `found` the values of those that were not."""
    _check_flags(words, [each.name for each in fields(form)])
    default = form(**{name: _from_file(form, name, value) for name, value in found.items()})
    check_fields(default)
    given = tyro.cli(form, prog=prog, description=text, args=words, default=default)
    check_fields(given)
    return given


def _check_flags(words: Sequence[str], known: Collection[str]) -> None:
    """Refuse flags that are names of other libraries, with ours; tyro refuses all other unknown flags."""
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        meant = ours(name, known) if word.startswith("--") and name not in known else None
        if meant is not None:
            field, _, part = meant.partition("=Sample(")
            flag = f"{field}.{part.partition('=')[0]}" if part else field
            raise ValueError(
                f"unknown flag {word.partition('=')[0]}; did you mean --{flag.replace('_', '-')}?"
            )


def _from_file(form: Any, name: str, value: Any) -> Any:
    """Return a value from a file as the type of its field: a list as a tuple, a mapping as a dataclass."""
    default = getattr(form(), name)
    if is_dataclass(default) and isinstance(value, Mapping):
        check_options(value, [field.name for field in fields(default)], name)
        cls: Any = type(default)
        return cls(**value)
    return tuple(value) if isinstance(value, list) else value


def fields_of(cls: type, given: Any, renamed: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a dataclass from flags: no words as None where that is the default."""
    found = {}
    for each in fields(cls):
        value = getattr(given, renamed.get(each.name, each.name), MISSING)
        if value is not MISSING:
            value = int(value) if isinstance(value, float) and "Tokens" in str(each.type) else value
            found[each.name] = None if value == () and default_of(each) is None else value
    return found


def tokens(name: str, number: float) -> int:
    """Return a number of tokens that was typed as a float, such as 1e6."""
    return int(checked(name, number, rule_of(TypedTokens)))


def settings(pairs: Sequence[str], what: str) -> dict[str, Any]:
    """Return pairs `name=value` as a dictionary: numbers as numbers, other values as text."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{what} must be name=value, got {pair!r}")
        found[name.replace("-", "_")] = literal(value)
    return found


def named_settings(words: Sequence[str], what: str) -> dict[str, Any]:
    """Return a name and its settings, as in `by_success wanted=0.6`, as a dictionary; of no words none."""
    return {"name": words[0], **settings(words[1:], what)} if words else {}


def literal(text: str) -> Any:
    """Return a Python or JSON literal of numbers, strings, lists and dictionaries, or the text itself."""
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of text that nearly is Python
            found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return found if _is_plain(found) else text


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, PLAIN)


def read_config(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the settings in a YAML or JSON file."""
    import yaml

    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path} is too large for a file of settings: more than {LARGEST:,} bytes")
    try:
        found = yaml.safe_load(data)
        values = _counted(found)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as YAML or JSON: {in_one_line(error)}") from None
    if values > MOST_VALUES:
        raise ValueError(f"{path} holds more than {MOST_VALUES:,} values, repetitions by aliases included")
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} must hold names and values, got {type(found).__name__}")
    return dict(found)


def words_and_config(words: Sequence[str]) -> tuple[list[str], str, dict[str, Any]]:
    """Return the words without `--config FILE`, the file, and the settings that it holds."""
    if "--config" not in words:
        return list(words), "", {}
    at = words.index("--config")
    if at + 1 == len(words):
        raise ValueError("--config needs a file")
    return [*words[:at], *words[at + 2 :]], words[at + 1], read_config(words[at + 1])


def check_setting_names(path: str | PathLike[str], found: Iterable[str], known: Collection[str]) -> None:
    """Refuse a file of settings with one that does not exist."""
    for name in found:
        if name not in known:
            raise ValueError(f"{path}: unknown setting {name!r:.60}{hint(name, known)}")


def _counted(value: Any, count: int = 0) -> int:
    """Return the number of values in a tree, or a number above the limit; refuse values that JSON lacks."""
    if count > MOST_VALUES:
        return count
    if isinstance(value, Mapping):
        for name, part in value.items():
            count = _counted(part, _counted(name, count))
        return count
    if isinstance(value, list):
        for part in value:
            count = _counted(part, count)
    elif value is not None and not isinstance(value, PLAIN):
        raise ValueError(f"a {type(value).__name__} ({value}) is neither a number nor text; put it in quotes")
    elif isinstance(value, str):
        value.encode()  # refuses half of a surrogate pair, which could not be written
    return count + 1
