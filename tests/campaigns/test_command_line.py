"""Whatever is typed, the command answers with a status and a message, and what it refuses changes no file."""

from __future__ import annotations

import hashlib
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from rlseq.agents import AGENTS
from rlseq.cli import main
from tests.campaigns.conftest import Campaign

STATUSES = {0, 1, 2, 130}
LONGEST = 10_000  # characters of an answer; `tyro` lists all flags that may have been meant
COMMANDS = [
    "envs",
    "agents",
    "policies",
    "metrics",
    "train",
    "evaluate",
    "generate",
    "compare",
    "report",
    "data",
]
TASK = [
    "--env",
    "rlseq/Copy-v0",
    "--option",
    "length=3",
    "items=20",
    "num_envs=4",
    "--policy",
    "gru",
    "hidden=4",
]
NUMBERS = [
    *("0", "-1", "1", "2", "3", "nan", "inf", "-inf", "1e400", "1e-400", "1e18", "1e300", "0.5", "1_0", "٣"),
    *("", " ", "one", "0x10", "1e", "9" * 30, "true", "none", "--", "-"),
]
TEXTS = [
    *(
        "",
        " ",
        "a",
        "x/[/x]",
        "[red]",
        "[/]",
        "a\nb",
        "\x1b[31m",
        "é",
        "\u202e",
        "\ud800",
        "a\0b",
        "~",
        "*",
        "%s",
    ),
    *(
        "{}",
        "{0}",
        "$HOME",
        "`id`",
        "..",
        "/",
        ".",
        "-",
        "--",
        "--help=x",
        "a=b",
        "=",
        "=b",
        "a=",
        "x" * 300,
        "None",
    ),
    *(
        "y" * 5000,
        "mle",
        "scst",
        "rlseq/Copy-v0",
        "rlseq/Nothing-v0",
        "bleu",
        "lstm",
        "run",
        "file",
        "folder",
    ),
    *(
        "broken.yaml",
        "list.yaml",
        "bomb.yaml",
        "deep.json",
        "binary",
        "empty",
        "link",
        "nothing/at/all",
        "CON",
    ),
]
VALUES = [
    *(
        "1e400",
        "nan",
        "-1",
        "0",
        "true",
        "none",
        "[1,2]",
        "(1,",
        "{'a':1}",
        "{1}",
        "b'x'",
        "1j",
        "'",
        "[",
        "9" * 25,
    ),
    *("x", "", "[[]]", "[" * 500, "...", "__import__('os')", "0.5", "3", "1_000", "'3'", "[None]"),
]
NAMES = [
    "length",
    "items",
    "num_envs",
    "seed",
    "device",
    "hidden",
    "lr",
    "vocab_size",
    "data_seed",
    "reward",
    "x",
]
CONFIG = {
    "envs": {"rlseq/Copy-v0": {"items": 20, "length": 3, "num_envs": 4}},
    "agents": {"mle": {}},
    "seeds": 1,
    "budget_tokens": 40,
    "policy": {"name": "gru", "hidden": 4},
    "evaluations": 1,
    "texts": 5,
}
PLAIN: list[Any] = [
    *(None, True, 0, -1, 1.5, float("inf"), float("nan"), 10**30, "", "x", "\ud800", "../x", "/tmp/x"),
    *(
        [],
        {},
        [[]],
        [None],
        {"a": 1},
        {"": {}},
        {"../..": {}},
        {"mle": None},
        {"mle": {"lr": "x"}},
        ["mle", "mle"],
    ),
    *(
        {"mle": {"lr": float("nan")}},
        {"x": {"agent": "scts"}},
        {"x": {"agent": 3}},
        {"name": 3},
        {"name": "ltsm"},
    ),
    *(
        {"rlseq/Copy-v0": {"length": "x"}},
        {"rlseq/Copy-v0": {"items": -1}},
        {"rlseq/Copy-v0": 3},
        "rlseq/Copy-v0",
    ),
    *(
        {"name": "gru", "hidden": -1},
        {"name": "gru", "hidden": "x"},
        {"sb3-ppo": {"n_steps": "x"}},
        ["sb3-ppo"],
    ),
]


def planted(place: Path) -> None:
    """Files of every kind that a command may be pointed to."""
    (place / "file").write_text("a b\tc d\n", "utf-8")
    (place / "folder").mkdir()
    (place / "folder" / "run.json").write_text("[]", "utf-8")
    (place / "broken.yaml").write_text("a: [1\nb: }", "utf-8")
    (place / "list.yaml").write_text("- 1\n- 2\n", "utf-8")
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (place / "bomb.yaml").write_text("\n".join(bomb), "utf-8")
    (place / "deep.json").write_text("[" * 20_000, "utf-8")
    (place / "binary").write_bytes(bytes(range(256)))
    (place / "empty").write_bytes(b"")
    (place / "link").symlink_to("nowhere")


def typed(words: list[str], stdin: str = "") -> tuple[int, str, str]:
    """Run a command here: its status, its output and its errors."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main(words)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.stdin = before
    return 0, out.getvalue(), err.getvalue()


def tree(place: Path) -> dict[str, str]:
    """Every file, folder and link below a folder, by its content."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def drawn_flags(draw: random.Random, command: str) -> list[str]:
    """Flags of a command, some of which it has, with values of which few are right."""
    numbers = ["--budget-tokens", "--evaluations", "--texts", "--seed", "--seeds", "--lr", "--n", "--width"]
    numbers += ["--temperature", "--jobs", "--start-tokens", "--max-len", "--decode.temperature", "--clip"]
    texts = ["--env", "--agents", "--metrics", "--rewards", "--pooled", "--control", "--start", "--decode"]
    texts += [
        "--config",
        "--policy",
        "--reward",
        "--level",
        "--wandbx",
        "--resume",
        "--best",
        "--schedule",
        "-x",
    ]
    pairs = ["--option", "--hyper", "--start-hyper", "--mle-option", "--policy"]
    words = []
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        kind = draw.randrange(4)
        if kind == 0:
            words += [draw.choice(numbers), draw.choice(NUMBERS)]
        elif kind == 1:
            words += [draw.choice(texts), draw.choice(TEXTS)]
        elif kind == 2:
            first = ["gru"] if (flag := draw.choice(pairs)) == "--policy" else []
            words += [flag, *first, f"{draw.choice(NAMES)}={draw.choice(VALUES)}"]
        else:
            words += [draw.choice(TEXTS)]
    return words


def drawn(draw: random.Random, place: Path) -> list[str]:
    """A command that mostly cannot be; trained runs are tiny, in case it can."""
    command = draw.choice(COMMANDS)
    words = [command]
    if command == "train":
        words += [draw.choice([*AGENTS, *TEXTS[:5], "scts"]), *TASK]
        words += ["--budget-tokens", "8", "--evaluations", "1", "--texts", "2", "--out", "out"]
    elif command == "compare":
        if draw.random() < 0.5:
            name = draw.choice([*CONFIG, "control", "start", "metrics", "temperatures", "rewards"])
            content = {**CONFIG, name: draw.choice(PLAIN)}
            (place / "config.json").write_text(json.dumps(content), "utf-8")
            return [command, "--config", "config.json", "--jobs", "1", "--out", "out"]
        words += [*TASK, "--agents", "mle", "--seeds", "1", "--budget-tokens", "8", "--evaluations", "1"]
        words += ["--texts", "2", "--jobs", "1", "--out", "out"]
    elif command == "data":
        words += ["inspect", draw.choice(TEXTS)]
    else:
        words += [draw.choice(TEXTS)] if draw.random() < 0.9 else []
    words += drawn_flags(draw, command)
    if draw.random() < 0.2 and "--out" in words:
        words[words.index("--out") + 1] = draw.choice([*TEXTS[:15], "file", "link", "z" * 300])
    return words


@contextmanager
def not_trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands that can be end where training would begin: what is typed is tried, not what is learned."""
    from rlseq.compare import run as runner
    from rlseq.training import experiment

    def stop(*given: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", stop)
        patch.setattr(runner, "run_all", stop)
        yield


def check(words: list[str], answer: tuple[int, str, str]) -> int:
    status, _, err = answer
    assert status in STATUSES, (words, answer)
    assert "Traceback" not in err, (words, err)
    assert "a bug in rlseq" not in err, (words, err)
    if status == 2:
        assert err.strip(), words
    assert len(err) <= LONGEST + 10 * len(" ".join(words)), (words, len(err))
    return status


def test_no_command_ends_in_a_traceback_and_refusals_change_nothing(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(campaign.seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    planted(tmp_path)
    statuses: Counter[int] = Counter()
    trials = campaign.trials(share=100, whole=4000)
    with not_trained(monkeypatch):
        for _ in range(trials):
            words = drawn(draw, tmp_path)
            before = tree(tmp_path)
            status = check(words, typed(words, draw.choice(["", "a b\n", "\n\n"])))
            statuses[status] += 1
            if status == 2:
                assert tree(tmp_path) == before, words
    assert statuses[2] > trials / 2
    assert statuses[0] or statuses[130]
    counts = {f"status_{status}": n for status, n in sorted(statuses.items())}
    campaign.record(
        "command_line", {"commands": trials, **counts, "tracebacks": 0, "files_changed_by_refusals": 0}
    )
