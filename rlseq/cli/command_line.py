"""The `rlseq` command: what is typed, and how it ends.

Torch is not loaded before a command needs it, so that the list of commands is there at once.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from rlseq.cli.options import Imports
from rlseq.utils.errors import pick
from rlseq.utils.imports import import_modules
from rlseq.utils.processors import limit_threads
from rlseq.utils.version import __version__

ABOUT = "Train sequence models on rewards, and compare agents."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    The exit status is 0 after success, 2 where the command is refused, 1 where it failed while it ran, and
    130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    formatted, warnings.formatwarning = warnings.formatwarning, _warning
    _open_streams()
    try:
        _check_text(words)
        _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("rlseq: stopped; the same command goes on\n")
        sys.exit(130)
    except BrokenPipeError:  # nobody reads on, as in `rlseq … | head`
        sys.exit(1)
    except Exception as error:
        from rlseq.cli.failures import DEBUG, failure_of

        if os.environ.get(DEBUG):
            raise
        message, status = failure_of(error, words)
        sys.stderr.write(f"rlseq: {message}\n")
        sys.exit(status)
    finally:
        warnings.formatwarning = formatted
        _close_output()


def _run(words: list[str]) -> None:
    """Find the command and run it; modules of the user's own are imported first."""
    name, *rest = words or ["--help"]
    if name in ("-h", "--help"):
        sys.stdout.write(_overview())
        return
    if name in ("-V", "--version"):
        sys.stdout.write(f"rlseq {__version__}\n")
        return
    command = pick(COMMANDS, name, "command")
    limit_threads()
    import_modules(_imported(rest))
    if command in (_fit, _train, _compare):
        command(rest)
    else:
        import tyro

        tyro.cli(command, prog=f"rlseq {name}", args=rest)


def _overview() -> str:
    """Return the help of `rlseq`: a line for every command."""
    first = {name: (inspect.getdoc(command) or "").splitlines()[0] for name, command in COMMANDS.items()}
    lines = "".join(f"  {name:10s}{text}\n" for name, text in first.items())
    return f"usage: rlseq COMMAND …\n\n{ABOUT}\n\n{lines}\n`rlseq COMMAND --help` says more.\n"


def _imported(words: Sequence[str]) -> list[str]:
    """Return the modules that `--import` names."""
    following = [after for word, after in pairwise(words) if word == "--import"]
    return following + [word.partition("=")[2] for word in words if word.startswith("--import=")]


def _open_streams() -> None:
    """Open closed standard streams on the null device; escape what a stream cannot show."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for name, errors in (("stdin", "strict"), ("stdout", "backslashreplace"), ("stderr", "backslashreplace")):
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors=errors)


def _check_text(words: Sequence[str]) -> None:
    """Refuse words that are not valid text, which could be neither recorded nor shown."""
    for place, word in enumerate(words, 1):
        if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
            raise ValueError(f"word {place} of the command must be text in UTF-8, got {word!a:.80}")


def _close_output() -> None:
    """Flush standard output; where that fails, replace it, so that Python does not fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warning(message: Warning | str, *where: object, **line: object) -> str:
    """Return a warning as one line, without the place in the code."""
    return f"warning: {message}\n"


def _named(what: Literal["envs", "agents", "policies", "metrics"]) -> Any:
    """Return a command that lists names, or describes one of them."""

    def show(name: str | None = None, /, imports: Imports = ()) -> None:
        from rlseq.cli import commands

        sys.stdout.write(commands.list_or_show(what, name))

    show.__doc__ = f"List the {what}; with a name: describe it, with its options."
    return show


def _fit(words: Sequence[str]) -> None:
    """Train a model on a file of pairs: `rlseq fit pairs.tsv`; likelihood, then a reward, then a test.

    Everything is chosen by the data: the level of the texts, the reward, the sizes. The same command goes on
    after an interruption.
    """
    from rlseq.cli.commands import fit

    fit(words, inspect.getdoc(_fit) or "")


def _train(words: Sequence[str]) -> None:
    """Train one agent on one task.

    The agent is the first word; `rlseq train AGENT --help` lists every flag with its default: the settings of
    the run, then the hyper-parameters of the agent. These are used most:

      --env TASK                id of the task (`rlseq envs`)
      --option NAME=VALUE …     options of the task (`rlseq envs TASK`)
      --policy NAME [SIZE=N …]  policy and its sizes (`rlseq policies`)
      --start RUN               a run or a saved model to start from
      --budget-tokens N         length of the training
      --out FOLDER              folder of the run; the same command again resumes it
      --config FILE             settings from a YAML or JSON file, as the `command.yaml` of a run
    """
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_help_of_train())
    elif not words or words[0].startswith("-"):
        raise ValueError("name the agent first: rlseq train scst --env rlseq/Copy-v0")
    else:
        from rlseq.cli.commands import train

        train(words[0], words[1:])


def _help_of_train() -> str:
    """Return the help of `rlseq train` without an agent: usage, the flags used most, and the agents."""
    from rlseq.cli import commands

    lines = commands.list_or_show("agents", None).splitlines()
    agents = "\n".join(line for line in lines if not line.startswith("sb3-"))  # which only compare trains
    return (
        f"usage: rlseq train AGENT --env TASK [OPTIONS]\n\n{inspect.getdoc(_train)}\n\n"
        f"agents (`rlseq agents AGENT` describes one):\n\n{agents}\n\n"
        "example: rlseq train reinforce --env rlseq/Copy-v0 --budget-tokens 1e6 --out runs/copy\n"
    )


def _evaluate(
    run: Path,
    /,
    option: tuple[str, ...] = (),
    decode: str = "greedy",
    metrics: tuple[str, ...] = (),
    pooled: tuple[str, ...] = (),
    texts: int | None = None,
    best: bool = False,
    imports: Imports = (),
) -> None:
    """Score the texts of a trained policy on the held-out items of its task, else on training items.

    A line of standard error says which items.

    Args:
        run: the folder of a run, or a saved model.
        option: of the task, path=new.tsv, to test on other data; the words stay those of the run.
        decode: how texts are written: greedy, sample or beam.
        metrics: metrics to report beside the reward, means over items; the task's own when not given.
        pooled: metrics of all texts together, as papers report them: bleu, chrf, per, … (`rlseq metrics`).
        texts: the most items, drawn at random by a fixed seed; all when not given.
        best: use the best checkpoint instead of the last; it was chosen on the same items, so that its score
            is too high on average.
        imports: modules of your own to import first.
    """
    from rlseq.cli import commands

    commands.evaluate(run, option, decode, metrics or None, pooled, texts, best)


def _generate(
    run: Path,
    texts: tuple[str, ...] = (),
    /,
    n: int = 1,
    decode: str = "beam",
    width: int = 5,
    temperature: float = 1.0,
    best: bool = False,
    imports: Imports = (),
    too_long: Literal["cut", "refuse"] = "cut",
) -> None:
    """Write texts about sources: one source an argument, or a line of standard input.

    Neither the data nor the task of the run are needed.

    Args:
        run: the folder of a run, or a saved model.
        texts: sources; files of images where the policy reads these.
        n: number of texts for each source, best first, with their log-probabilities.
        decode: how texts are written: greedy, sample or beam.
        width: number of hypotheses in the beam.
        temperature: divisor of the logits in sampling.
        best: use the best checkpoint instead of the last.
        imports: modules of your own to import first.
        too_long: cut sources that are longer than any in training, with a warning, or refuse them.
    """
    from rlseq.cli import commands

    commands.generate(run, texts, n, decode, width, temperature, best, too_long)


def _save(
    run: Path, path: Path, /, best: bool = False, transformers: bool = False, merge: bool = False
) -> None:
    """Write the model of a run to a folder or a .zip: policy and words, without optimiser and history.

    Args:
        run: the folder of a run.
        path: of the model, which `rlseq generate`, `rlseq evaluate`, `--start` and `rlseq.load` read.
        best: use the best checkpoint instead of the last.
        transformers: write a pretrained model as transformers loads it, with its tokenizer and settings.
        merge: with --transformers, add adapters to the weights of the model.
    """
    from rlseq.training.model import load

    if merge and not transformers:
        raise ValueError("--merge goes with --transformers")
    model = load(run, best=best)
    saved = model.save_pretrained(path, merge=merge) if transformers else model.save(path)
    sys.stdout.write(f"{saved}\n")


def _convert(folder: Path, path: Path, /, best: bool = False) -> None:
    """Write the model of a run that an earlier version of rlseq has made; its data must still be there.

    Args:
        folder: of the run.
        path: of the model, a new folder or a .zip.
        best: the best checkpoint instead of the last.
    """
    from rlseq.training.convert import convert

    sys.stdout.write(f"{convert(folder, path, best)}\n")


def _compare(words: Sequence[str]) -> None:
    """Train agents with equal budgets and several seeds, and compare them: a table, and a page.

    The same command again goes on, and makes only what is missing.
    """
    from rlseq.cli.commands import compare

    compare(words, inspect.getdoc(_compare) or "")


def _report(folder: Path, /, imports: Imports = ()) -> None:
    """Write the page and the tables of a run, or those of a comparison again.

    Args:
        folder: the folder of a run or of a comparison.
        imports: modules of your own to import first.
    """
    from rlseq.cli.commands import report

    report(folder)


def _doctor() -> None:
    """Print versions, devices and optional parts; for what is missing the command that installs it."""
    from rlseq.cli.doctor import doctor

    doctor()


def _demo(out: Path = Path("runs/demo"), seeds: int = 4, budget_tokens: float = 8e5) -> None:
    """Compare likelihood from few references with three policy gradients, in five minutes.

    Args:
        out: folder of the comparison; the same command again goes on with it.
        seeds: number of runs of every agent.
        budget_tokens: tokens of every run.
    """
    from rlseq.cli.commands import tokens
    from rlseq.cli.demo import demo

    demo(out, seeds, tokens("budget_tokens", budget_tokens))


def _data(
    action: Literal["inspect"],
    path: tuple[Path, ...],
    /,
    level: str | None = None,
    max_len: int | None = None,
    texts: bool = False,
    tokenizer: str | None = None,
    prompt: str | None = None,
    languages: tuple[str, ...] = (),
) -> None:
    """`rlseq data inspect PATH`: count what is in a file, and what is wrong with it (then the status is 1).

    Args:
        action: inspect.
        path: a file or folder, or aligned files, the source first.
        level: count by "char" or "word".
        max_len: count what is longer.
        texts: a text a line, as rlseq/Text-v0 reads it.
        tokenizer: count the tokens of a pretrained model: the path or the name of its tokenizer.
        prompt: around a source, with {source}, or "chat", for a tokenizer.
        languages: of sources and of references, for a tokenizer that has several.
    """
    from rich import print as show

    from rlseq.data.inspection import inspect

    where = path[0] if len(path) == 1 else path
    counted: dict[str, Any] = {"level": level, "max_len": max_len, "texts": texts}
    found = inspect(where, **counted, tokenizer=tokenizer, prompt=prompt, languages=languages or None)
    show(found)
    if not found.usable:
        sys.exit(1)


COMMANDS: dict[str, Any] = {
    "envs": _named("envs"),
    "agents": _named("agents"),
    "policies": _named("policies"),
    "metrics": _named("metrics"),
    "fit": _fit,
    "train": _train,
    "evaluate": _evaluate,
    "generate": _generate,
    "save": _save,
    "convert": _convert,
    "compare": _compare,
    "report": _report,
    "data": _data,
    "doctor": _doctor,
    "demo": _demo,
}
