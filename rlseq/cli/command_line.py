"""The `rlseq` command: its subcommands, their help, and the exit status.

Torch is imported only by the commands that need it, so that `rlseq --help` answers at once.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from rlseq.cli.options import Decoding, DecodingFlags, Imports, tokens
from rlseq.utils.errors import pick
from rlseq.utils.imports import import_modules
from rlseq.utils.processors import limit_threads
from rlseq.utils.version import __version__

ABOUT = "Train sequence models by likelihood and by rewards, and compare algorithms."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    The exit status is 0 after success, 2 if the command is refused, 1 if it fails while it runs, and 130
    after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    formatted, warnings.formatwarning = warnings.formatwarning, _warning
    _open_streams()
    try:
        _check_text(words)
        _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("rlseq: stopped; the same command resumes it\n")
        sys.exit(130)
    except BrokenPipeError:  # the reader has closed the pipe, as in `rlseq … | head`
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
    """Run the subcommand that is named first, after importing the modules that `--import` names."""
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
    if command in TAKES_WORDS:
        command(rest)
    else:
        import tyro

        tyro.cli(command, prog=f"rlseq {name}", args=rest)


def _overview() -> str:
    """Return the help of `rlseq`: a line for every command."""
    first = {name: (inspect.getdoc(command) or "").splitlines()[0] for name, command in COMMANDS.items()}
    lines = "".join(f"  {name:13s} {text}\n" for name, text in first.items())
    return (
        f"usage: rlseq COMMAND …\n\n{ABOUT}\n\n{lines}\n"
        "`rlseq COMMAND --help` describes a command; `rlseq --version` prints the version.\n"
    )


def _imported(words: Sequence[str]) -> list[str]:
    """Return the modules that `--import` names."""
    following = [after for word, after in pairwise(words) if word == "--import"]
    return following + [word.partition("=")[2] for word in words if word.startswith("--import=")]


def _open_streams() -> None:
    """Open closed standard streams on the null device; escape characters that a stream cannot encode."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for name, errors in (("stdin", "strict"), ("stdout", "backslashreplace"), ("stderr", "backslashreplace")):
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors=errors)


def _check_text(words: Sequence[str]) -> None:
    """Refuse arguments that are not valid text, because they could be neither recorded nor shown."""
    for place, word in enumerate(words, 1):
        if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
            raise ValueError(f"word {place} of the command must be text in UTF-8, got {word!a:.80}")


def _close_output() -> None:
    """Flush standard output; replace it if that fails, so that Python does not fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warning(message: Warning | str, *where: object, **line: object) -> str:
    """Return a warning as one line, without its file and line number."""
    return f"warning: {message}\n"


LISTED = {"envs": "tasks", "agents": "agents", "policies": "policies", "metrics": "metrics"}


def _named(what: Literal["envs", "agents", "policies", "metrics"]) -> Any:
    """Return a command that lists the entries of a table, or describes one of them."""

    def show(name: str | None = None, /, imports: Imports = ()) -> None:
        from rlseq.cli.listing import list_or_show

        sys.stdout.write(list_or_show(what, name))

    show.__doc__ = f"List the {LISTED[what]}, or describe the named one with its options."
    return show


def _fit(words: Sequence[str]) -> None:
    """Train a model on a file of pairs, by likelihood and then by a reward, and test it.

    `rlseq fit pairs.tsv`: level of the texts, reward and sizes are chosen by the data unless they are given.
    The same command resumes a run that was interrupted.
    """
    from rlseq.cli.fitting import fit

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
        from rlseq.cli.training import train

        train(words[0], words[1:])


def _help_of_train() -> str:
    """Return the help of `rlseq train` without an agent: usage, the flags used most, and the agents."""
    from rlseq.cli.listing import list_or_show

    lines = list_or_show("agents", None).splitlines()
    agents = "\n".join(line for line in lines if not line.startswith("sb3-"))  # which only compare trains
    return (
        f"usage: rlseq train AGENT --env TASK [OPTIONS]\n\n{inspect.getdoc(_train)}\n\n"
        f"agents (`rlseq agents AGENT` describes one):\n\n{agents}\n\n"
        "example: rlseq train reinforce --env rlseq/Copy-v0 --budget-tokens 1e6 --out runs/copy\n"
    )


def _resume(
    run: Path,
    /,
    budget_tokens: float | None = None,
    quiet: bool = False,
    imports: Imports = (),
) -> None:
    """Continue a run with the settings in its folder: to its end, or beyond it to a larger budget.

    Runs of a comparison can be continued, too; continue a copy, because the comparison refuses a run of
    another budget. A schedule of the step size is stretched over the new budget.

    Args:
        run: the folder of the run.
        budget_tokens: the length of the whole training, in tokens that are generated or imitated; when not
            given, that of the run.
        quiet: print no line after an evaluation.
        imports: modules of your own to import first, beside those of the run.
    """
    from rlseq.cli.training import resume

    resume(run, budget_tokens, quiet, imports)


def _evaluate(
    run: Path,
    /,
    option: tuple[str, ...] = (),
    decode: str = "greedy",
    decoding: DecodingFlags = Decoding(),
    metrics: tuple[str, ...] = (),
    pooled: tuple[str, ...] = (),
    texts: int | None = None,
    best: bool = False,
    memorisation: bool = False,
    imports: Imports = (),
) -> None:
    """Test a trained policy on the held-out items of its task, or on training items if it has no others.

    Scores go to standard output, one a line; a line on standard error names the items.

    Args:
        run: the folder of a run, or a saved model.
        option: options of the task, such as path=new.tsv for a test on other data; the vocabulary of the run
            is kept.
        decode: the decoding: greedy, sample, beam, or mbr (minimum Bayes risk).
        decoding: the settings of the decodings.
        metrics: metrics to report beside the reward, as means over items; by default those of the task.
        pooled: corpus-level metrics, computed over all texts together as in papers: bleu, chrf, per, …
        texts: the largest number of items, drawn at random by a fixed seed; by default all items.
        best: use the best checkpoint instead of the last. It was selected on these items, so its score is
            biased upwards.
        memorisation: compare 400 samples with the training texts: copies, distances to the nearest, the same
            of held-out references, and how many different texts the policy writes.
        imports: modules of your own to import first.
    """
    from rlseq.cli.testing import evaluate

    evaluate(run, option, decode, decoding, metrics or None, pooled, texts, best, memorisation)


def _generate(
    run: Path,
    texts: tuple[str, ...] = (),
    /,
    n: int = 1,
    decode: str = "beam",
    decoding: DecodingFlags = Decoding(),
    best: bool = False,
    imports: Imports = (),
    too_long: Literal["cut", "refuse"] = "cut",
) -> None:
    """Generate texts for sources, which are given as arguments or as lines of standard input.

    Neither the data nor the task of the run are needed.

    Args:
        run: the folder of a run, or a saved model.
        texts: sources; paths of image files if the policy reads images.
        n: number of texts for each source, best first, with their log-probabilities.
        decode: the decoding: greedy, sample, beam, or mbr (minimum Bayes risk).
        decoding: the settings of the decodings.
        best: use the best checkpoint instead of the last.
        imports: modules of your own to import first.
        too_long: cut sources that are longer than any in training, with a warning, or refuse them.
    """
    from rlseq.cli.testing import generate

    if decode == "beam":
        decoding = replace(decoding, width=max(decoding.width, n))
    generate(run, texts, n, decode, decoding, best, too_long)


def _save(
    run: Path, path: Path, /, best: bool = False, transformers: bool = False, merge: bool = False
) -> None:
    """Save the model of a run as a folder or a .zip file: policy and vocabulary, without optimiser.

    Args:
        run: the folder of a run.
        path: the folder or .zip file to write; `rlseq generate`, `rlseq evaluate`, `--start` and `rlseq.load`
            read it.
        best: use the best checkpoint instead of the last.
        transformers: write a pretrained model as transformers loads it, with its tokenizer and settings.
        merge: with --transformers, add adapters to the weights of the model.
    """
    from rlseq.training.model import load

    if merge and not transformers:
        raise ValueError("--merge needs --transformers")
    model = load(run, best=best)
    saved = model.save_pretrained(path, merge=merge) if transformers else model.save(path)
    sys.stdout.write(f"{saved}\n")


def _convert(folder: Path, path: Path, /, best: bool = False) -> None:
    """Save the model of a run made by an earlier version of rlseq, whose data must still be available.

    Args:
        folder: the folder of the run.
        path: the new folder or .zip file to write.
        best: use the best checkpoint instead of the last.
    """
    from rlseq.training.convert import convert

    sys.stdout.write(f"{convert(folder, path, best)}\n")


def _compare(words: Sequence[str]) -> None:
    """Compare agents: train each with the same budget on several seeds, test them, and write a report.

    The same command resumes an interrupted comparison and trains only the runs that are missing.
    """
    from rlseq.cli.comparing import compare

    compare(words, inspect.getdoc(_compare) or "")


def _tune(words: Sequence[str]) -> None:
    """Search hyper-parameters of an agent on a task, by the reward on dev items.

    Needs Optuna (`pip install 'rlseq[tune]'`). The same command in another terminal works on the same search,
    and resumes one that was interrupted. The result is a file of settings, which `--settings` of `rlseq
    train`, `rlseq fit` and `rlseq compare` takes, and a page.
    """
    from rlseq.cli.fitting import tune

    tune(words, inspect.getdoc(_tune) or "")


def _label(words: Sequence[str]) -> None:
    """Show texts of a run in a browser or the terminal, and write which of two is better, or scores.

    `rlseq label RUN` shows two samples of its policy for each source, `rlseq label RUN OTHER` one of each
    run. Every answer is written before the next question; the same command continues.
    """
    from rlseq.cli.feedback import label_texts

    label_texts(words, inspect.getdoc(_label) or "")


def _reward_model(words: Sequence[str]) -> None:
    """Learn a reward from labels, and test it on labels that were held out.

    `rlseq reward-model runs/chat/labels.jsonl --out runs/judge`; then a policy is trained on it:
    `rlseq train rloo --start runs/chat --reward path=runs/judge`.
    """
    from rlseq.cli.feedback import reward_model

    reward_model(words, inspect.getdoc(_reward_model) or "")


def _report(folder: Path, /, imports: Imports = ()) -> None:
    """Write the report of a run or of a comparison: an HTML page and tables.

    Args:
        folder: the folder of a run or of a comparison.
        imports: modules of your own to import first.
    """
    from rlseq.cli.comparing import report

    report(folder)


def _doctor() -> None:
    """Print versions, devices and optional packages, with the command that installs a missing one."""
    from rlseq.cli.doctor import doctor

    doctor()


def _demo(
    out: Path = Path("runs/demo"), seeds: int = 4, budget_tokens: float = 8e5, quiet: bool = False
) -> None:
    """Compare likelihood training on few references with three policy gradients, in about two minutes.

    Args:
        out: the folder of the comparison; the same command resumes it.
        seeds: the number of runs of every agent.
        budget_tokens: the number of tokens in every run.
        quiet: print no lines about the runs and show no progress bar.
    """
    from rlseq.cli.demo import demo

    demo(out, seeds, tokens("budget_tokens", budget_tokens), quiet=quiet)


def _audit(words: Sequence[str]) -> None:
    """Compare the mean gradient of an estimator with exact gradients: `rlseq audit module:function`.

    The estimator is a function that returns a loss, and is called with the arguments that its parameters
    name; or the name of an agent.
    """
    from rlseq.cli.auditing import print_audit

    print_audit(words, inspect.getdoc(_audit) or "")


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
    """Check a data file: `rlseq data inspect PATH` prints counts and problems.

    The exit status is 1 if the file cannot be used.

    Args:
        action: the only action, inspect.
        path: a file or folder, or aligned files, the source first.
        level: the unit in which lengths are counted: "char" or "word".
        max_len: count the texts that are longer than this.
        texts: read one text a line, as rlseq/Text-v0 does.
        tokenizer: the path or the name of a pretrained tokenizer, whose tokens are counted.
        prompt: for a tokenizer, the text around a source, with {source} in it, or "chat".
        languages: for a multilingual tokenizer, the languages of sources and of references.
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
    "resume": _resume,
    "evaluate": _evaluate,
    "generate": _generate,
    "save": _save,
    "convert": _convert,
    "compare": _compare,
    "tune": _tune,
    "report": _report,
    "label": _label,
    "reward-model": _reward_model,
    "audit": _audit,
    "data": _data,
    "doctor": _doctor,
    "demo": _demo,
}
TAKES_WORDS = (_fit, _train, _compare, _tune, _label, _reward_model, _audit)  # and reads its flags itself
