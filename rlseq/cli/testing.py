"""The commands `rlseq evaluate` and `rlseq generate`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rlseq.cli.options import Decoding, settings
from rlseq.engine.evaluation import DECODERS, evaluate_texts, selection
from rlseq.engine.memorisation import memorisation as compared_with_training
from rlseq.training.experiment_envs import ALWAYS, held_out_options, metric, number_tested, tested_on
from rlseq.training.fingerprint import configuration, describe_task
from rlseq.training.model import Model, load
from rlseq.utils.errors import pick


def evaluate(
    run: Path,
    option: Sequence[str],
    decode: str,
    decoding: Decoding,
    metrics: Sequence[str] | None,
    pooled: Sequence[str],
    texts: int | None,
    best: bool,
    memorisation: bool,
) -> None:
    """Print the scores of the policy of a run, on held-out data of its task or on other data."""
    other = settings(option, "option")
    model = load(run, best=best, device=other.get("device", "cpu"))
    held_out = held_out_options(model.run.env) if model.run.env else {}
    env = model.task(**{**held_out, **other})
    metrics = model.run.metrics if metrics is None else metrics
    chosen = None if metrics is None else {name: metric(env, name) for name in metrics if name not in ALWAYS}
    found = evaluate_texts(model.policy, env, _decoder(model, decode, decoding), chosen, texts)
    scores = found.means()
    if pooled:
        scores |= {f"pooled_{name}": value for name, value in found.pooled(env, pooled).items()}
    if memorisation:
        scores |= compared_with_training(model.policy, model.task(**model.run.training_options), env).means()
    say_tested(model.run.env, env, texts, " ".join(option))
    if not other:
        _say_changed(run, model)
    sys.stdout.write(scores_in_lines(scores))


def generate(
    run: Path,
    sources: Sequence[str],
    n: int,
    decode: str,
    decoding: Decoding,
    best: bool,
    too_long: str,
) -> None:
    """Print texts of the policy of a run, one a line; several for a source with their rank and score."""
    model = load(run, best=best)
    decoder = _decoder(model, decode, decoding)
    if model.reads and model.spec.source_vocab is not None:
        for name in filter(_is_file, sources):
            warnings.warn(
                f"{name!r} is taken as a source; to read sources from that file: < {name}", stacklevel=2
            )
    given: Sequence[str] | None = sources or None
    if model.reads and not sources:
        given = _lines()
    for found in model.generate(given, decoder, n, too_long=too_long):
        for place, (text, score) in enumerate(found, 1):
            sys.stdout.write(text + "\n" if n == 1 else f"{place}\t{score:.3f}\t{text}\n")


def scores_in_lines(scores: Mapping[str, float]) -> str:
    """Return a line for each score."""
    return "".join(f"{name:16s} {value:10.4f}\n" for name, value in scores.items())


def say_tested(id: str, env: Any, texts: int | None, other: str = "") -> None:
    """Write to standard error which items a policy was tested on; scores go to standard output."""
    items = f"items of {other}" if other else tested_on(id)
    sys.stderr.write(f"rlseq: tested on {number_tested(selection(env.size, texts))}{items}\n")


def _decoder(model: Model, name: str, given: Decoding) -> Any:
    """Return a decoder by name with its settings; refuse settings that it does not have."""
    decoder: Any = pick(DECODERS, name, "decoder")
    _check_decoding(name, given)
    reward = model.run.options.get("reward")
    typed = {**vars(given), "utility": given.utility or (reward if isinstance(reward, str) else "")}
    return replace(decoder, **{f.name: typed[f.name] for f in fields(decoder) if f.name in typed})


def _check_decoding(name: str, given: Decoding) -> None:
    """Refuse a setting that was typed for another decoding, as it would change nothing."""
    decoders: dict[str, Any] = {**DECODERS}
    having = {decoding: {each.name for each in fields(decoder)} for decoding, decoder in decoders.items()}
    for each in fields(given):
        if each.name not in having[name] and getattr(given, each.name) != each.default:
            others = " or ".join(decoding for decoding, names in having.items() if each.name in names)
            flag = each.name.replace("_", "-")
            raise ValueError(
                f"--decode {name} has no setting --{flag}; leave it out, or take --decode {others}"
            )


def _say_changed(run: Path, model: Model) -> None:
    """Write a line to standard error if the data of a run have changed since its training."""
    if not (run / "config.json").exists():
        return
    env = model.task(**model.run.training_options)
    if configuration(run)["env"].get("data") != describe_task(env).get("data"):
        sys.stderr.write(
            f"rlseq: the data are not those on which {run} was trained: other files, or changed ones\n"
        )


def _is_file(source: str) -> bool:
    """Return whether a source is the name of a file, which was probably meant to be read."""
    try:
        return bool(Path(source).suffix) and Path(source).is_file()
    except (OSError, ValueError):  # too long for a name, or with characters that no name may have
        return False


def _lines() -> list[str]:
    """Return the lines of standard input; an empty line between others is kept, and refused later."""
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise ValueError("no sources: give them after the run, or one a line on standard input")
    return text.rstrip().split("\n")
