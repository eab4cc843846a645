"""The commands `rlseq fit` and `rlseq tune`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from rlseq.cli.options import (
    SeveralWords,
    check_setting_names,
    fields_of,
    flag,
    flags,
    form,
    names_and_flags,
    parsed,
    settings,
    words_and_config,
)
from rlseq.recipe.config import FitConfig
from rlseq.recipe.fit import run_fit
from rlseq.recipe.tune import run_tune
from rlseq.recipe.tune_config import TuneConfig
from rlseq.utils.settings import descriptions

FLAGS = {"options": "option"}
Config = TypeVar("Config", FitConfig, TuneConfig)


def fit(words: Sequence[str], text: str) -> None:
    """Fit a model to pairs; every setting is a flag, and `--config` reads them, and the path, from a file."""
    words, file, found = words_and_config(words)
    paths, words = names_and_flags(words)
    form_of_fit = _form(FitConfig)
    path = found.pop("path", None)
    check_setting_names(file, found, [field.name for field in fields(form_of_fit)])
    given = parsed(form_of_fit, words, "rlseq fit PATH", text, found)
    if paths:
        path = paths[0] if len(paths) == 1 else paths
    if path is None:
        raise ValueError("name the data: rlseq fit pairs.tsv")
    fitted = run_fit(path, _config(FitConfig, given))
    limits = "".join(f"{remark}\n" for remark in fitted.results["remarks"])
    sys.stdout.write(f"{fitted.verdict}\n{limits}Page: {fitted.page}\n")
    source, folder = fitted.results["samples"][0]["source"], fitted.folder
    sys.stdout.write(
        f"Generate with: rlseq generate {folder} {shlex.quote(source)}\n"
        f"Continue from likelihood with another agent: rlseq train scst --start {folder}/stages/likelihood\n"
    )


def tune(words: Sequence[str], text: str) -> None:
    """Search hyper-parameters; every setting is a flag."""
    given = parsed(_form(TuneConfig), words, "rlseq tune", text, {})
    if not given.env or not given.agent:
        raise ValueError("name a task and an agent: rlseq tune --env rlseq/G2P-v0 --agent rloo")
    found = run_tune(_config(TuneConfig, given))
    again = found.results["again"]
    lines = [f"{name:20s} {row['mean']:10.4f}\n" for name, row in again.items()]
    sys.stdout.write("".join(lines) + f"{found.settings}\n{found.page}\n")


def _form(cls: type) -> Any:
    """Return the flags of a configuration; sizes are typed behind the policy."""
    policy = flag("policy", SeveralWords, descriptions(cls)["policy"])
    return form(cls.__name__.removesuffix("Config"), [policy], flags(cls, FLAGS, ("sizes",)))


def _config(cls: type[Config], given: Any) -> Config:
    """Return the configuration that was typed."""
    policy, *sizes = given.policy or (cls.policy,)
    typed: dict[str, Any] = {
        "policy": policy,
        "sizes": settings(sizes, "policy"),
        "hyper": settings(given.hyper, "hyper"),
        "options": settings(given.option, "option"),
    }
    return cls(**fields_of(cls, given, FLAGS) | typed)
