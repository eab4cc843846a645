"""Words for mistakes: what was wanted, what was got, and the nearest name that exists."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


# Names of other libraries (stable-baselines3, trl, CleanRL, RLlib, transformers) by ours.
NAMES_ELSEWHERE = {
    "lr": ("learning_rate", "step_size"),
    "entropy": ("ent_coef", "entropy_coef", "entropy_coeff", "entropy_coefficient", "entropy_beta"),
    "value_weight": ("vf_coef", "value_coef", "value_loss_coef", "vf_loss_coeff", "vf_coeff"),
    "epochs": ("n_epochs", "num_epochs", "ppo_epochs", "num_ppo_epochs", "update_epochs", "num_sgd_iter"),
    "minibatches": ("num_minibatches", "num_mini_batch", "num_mini_batches"),
    "micro_batches": ("gradient_accumulation_steps", "accumulation_steps"),
    "clip": ("clip_range", "cliprange", "clip_coef", "clip_eps", "clip_param", "eps_clip", "epsilon"),
    "lam": ("gae_lambda", "lambda", "lambda_", "lambd"),
    "gamma": ("discount", "discount_factor"),
    "clip_norm": ("max_grad_norm", "grad_clip", "gradient_clip", "gradient_clipping", "grad_norm_clip"),
    "kl": ("beta", "kl_coef", "kl_coeff", "init_kl_coef", "kl_penalty", "kl_weight", "kl_beta"),
    "samples": (
        "num_generations",
        "n_samples",
        "num_samples",
        "group_size",
        "rloo_k",
        "num_return_sequences",
    ),
    "schedule": ("lr_scheduler", "lr_scheduler_type", "lr_schedule"),
    "smoothing": ("label_smoothing", "label_smoothing_factor"),
    "decode=Sample(temperature=…)": ("temperature",),
    "decode=Sample(top_k=…)": ("top_k",),
    "decode=Sample(top_p=…)": ("top_p",),
    "num_envs": ("batch_size", "n_envs", "num_environments"),
    "max_len": ("max_length", "max_new_tokens", "max_completion_length", "max_tokens"),
    "hidden": ("hidden_size", "hidden_dim", "d_model"),
    "embedding": ("embedding_size", "embedding_dim", "embed_dim"),
    "layers": ("num_layers", "n_layers", "num_hidden_layers"),
    "heads": ("num_heads", "n_heads", "num_attention_heads"),
}


def hint(name: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'scst'?` where a known name is meant, and always the list of known names."""
    names = sorted(known)
    meant = ours(str(name), names) or next(iter(get_close_matches(str(name), names, n=1, cutoff=0.5)), None)
    asked = "" if meant is None else f" did you mean {meant if '=' in meant else repr(meant)}?"
    return f";{asked} known: {', '.join(names) or 'none'}"


def ours(name: str, known: Collection[str]) -> str | None:
    """Return the known name for which another library has this one; None if there is none."""
    plain = name.replace("-", "_").lower()
    meant = (ours for ours, others in NAMES_ELSEWHERE.items() if plain in others)
    return next((each for each in meant if each.partition("=")[0] in known), None)


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry called `name`, or a `ValueError` that suggests the nearest."""
    if not isinstance(name, str):
        raise TypeError(
            f"{what} must be a name, got {type(name).__name__}; known: {', '.join(sorted(table))}"
        )
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}{hint(name, table)}")
    return table[name]


def enter(table: MutableMapping[str, T], name: str, value: T, what: str, made: Any) -> None:
    """Add an entry to a table of names. The same definition again, as in a notebook, replaces the entry.

    Args:
        table: of all names.
        name: of the new entry.
        value: the entry.
        what: the kind of thing, for errors.
        made: the user's class or function.
    """
    if not re.fullmatch(r"\w[\w+.-]*", name):
        raise ValueError(f"the name of the {what} must be of letters, digits and _ + . -, got {name!r}")
    place = getattr(made, "__module__", ""), getattr(made, "__qualname__", "")
    if name in table and _PLACES.get((what, name)) != place:
        raise ValueError(f"the {what} {name!r} exists already; register yours by another name")
    _PLACES[what, name] = place
    table[name] = value


_PLACES: dict[tuple[str, str], tuple[str, str]] = {}  # where the user's entries are defined


def check_options(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Refuse keyword options that `owner` does not have."""
    known = set(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{owner} has no option {name!r}{hint(name, known)}")


def in_one_line(error: object, most: int = 200) -> str:
    """Return the message of another library in one line, without control characters, cut where it is long."""
    kind = type(error).__name__ if isinstance(error, BaseException) else ""
    text = printable(" ".join(str(error).split())) or kind
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """A text in which control characters, which a terminal obeys, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def need(module: str, extra: str) -> Any:
    """Import an optional module; where its package is missing, the error names what to install."""
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, package):
            raise
        raise ImportError(f"{package} is not installed here; pip install 'rlseq[{extra}]'") from None
