"""Ten changes that CONTRIBUTING describes, in a module of a user's own, without a change of the library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlseq.cli.options import flags
from rlseq.compare.plan import ComparisonConfig

ROOT = Path(__file__).parent.parent
MODULE = '''
"""A metric, a reward, a task, an agent, a policy, a baseline, a decoding, a format and a statistic."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

import rlseq
from rlseq.agents import REINFORCE
from rlseq.compare.statistics import BESIDE_MEAN, Interval
from rlseq.data.formats import Pair
from rlseq.data.locate import PAIRS
from rlseq.engine.evaluation import DECODERS
from rlseq.envs.copy import Copy
from rlseq.policies.recurrent import Recurrent
from rlseq.policy_gradient.baselines import BASELINES


def half_full(tokens, mask, context):
    """The share of the places of a text that it uses."""
    return mask.float().mean(1)


def first_word(tokens, mask, context):
    """1 where a text begins with word 1."""
    return (tokens[:, 0] == 1).float()


rlseq.metrics.register("half_full", half_full, range=(0.0, 1.0))
rlseq.metrics.register("first_word", first_word, range=(0.0, 1.0))  # a reward by name, too


class Echo(Copy):
    """Copy, under another name."""


rlseq.register("own/Echo-v0", Echo)


@dataclass(eq=False)
class Patient(REINFORCE):
    """REINFORCE with a setting of its own."""

    patience: int = 3  # updates that nobody counts


rlseq.agents.register("patient", Patient)
rlseq.policies.register("narrow", partial(Recurrent, nn.GRU))


def half_of_mean(returns, batch):
    """Half of the mean return."""
    return returns.mean().expand_as(returns) / 2


BASELINES["half_of_mean"] = half_of_mean


@dataclass(frozen=True)
class Second:
    """Always the second most likely token."""

    temperature = 1.0

    def support(self, logits):
        """All tokens."""
        return None

    def choose(self, logits, uniform):
        """The second of the ranking."""
        return logits.topk(2).indices[:, 1], logits.logsumexp(1)


DECODERS["second"] = Second()


def bars(path):
    """Pairs with a bar between source and target, one a line."""
    for line in path.read_text("utf-8").splitlines():
        yield Pair(*line.split("|"))


PAIRS[".bars"] = bars


def best_of(scores):
    """The best run."""
    best = np.asarray(scores, float).max()
    return Interval(best, best, best, 1)


BESIDE_MEAN["best"] = ("best", best_of)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module, and a file in the format that it adds."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "ten.py").write_text(MODULE, "utf-8")
    (folder / "pairs.bars").write_text(
        "".join(f"{n:03d}|{n % 7}{n % 5}{n % 3}\n" for n in range(100)), "utf-8"
    )
    return folder


def command(place: Path, *words: str) -> str:
    """Run a command in a process of its own; its output."""
    found = subprocess.run(
        [sys.executable, "-m", "rlseq", *words, "--import", "ten"],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


POLICY = ("--policy", "narrow", "hidden=4")
TASK = ("--env", "own/Echo-v0", "--option", "items=20", "length=3", "num_envs=4", *POLICY)
SHORT = ("--budget-tokens", "40", "--evaluations", "1", "--texts", "4")


def test_metric_reward_task_agent_policy_baseline_and_decoding(place: Path) -> None:
    own = {"metrics": "half_full", "envs": "own/Echo-v0", "agents": "patient", "policies": "narrow"}
    for table, name in own.items():
        assert name in command(place, table)
    more = ["--reward", "first_word", "--metrics", "half_full"]
    more += ["--baseline", "half_of_mean", "--patience", "4"]
    assert "half_full" in command(place, "train", "patient", *TASK, *SHORT, *more, "--out", "run")
    config = json.loads((place / "run" / "config.json").read_text("utf-8"))
    assert config["run"]["hyper"] == {"baseline": "half_of_mean", "patience": 4}
    assert "reward" in command(place, "evaluate", "run", "--decode", "second", "--texts", "4")
    assert len(command(place, "generate", "run", "a b c", "--decode", "second").splitlines()) == 1


def test_a_file_format(place: Path) -> None:
    words = ("--env", "rlseq/Parallel-v0", "--option", "path=pairs.bars", "num_envs=4", *POLICY)
    assert "edit_distance" in command(place, "train", "mle", *words, *SHORT, "--out", "pairs")


def test_a_statistic_of_the_report(place: Path) -> None:
    words = ("--agents", "patient", "--start", "none", "--seeds", "2", "--out", "compared")
    shown = command(place, "compare", *TASK, *SHORT, *words)
    assert "best" in shown
    results = json.loads((place / "compared" / "results.json").read_text("utf-8"))
    agent = results["tasks"][0]["agents"][0]
    assert agent["scores"]["reward"]["best"]["estimate"] >= agent["scores"]["reward"]["estimate"]
    assert ">best" in (place / "compared" / "report.html").read_text("utf-8")


@dataclass(frozen=True)
class Louder(ComparisonConfig):
    """A comparison with a setting more."""

    loudness: int = 3
    """How loud it is."""


def test_a_flag_of_compare_is_a_documented_field() -> None:
    found: dict[str, Any] = {name: (kind, default) for name, kind, default in flags(Louder, {})}
    kind, default = found["loudness"]
    assert default.default_factory() == 3
    assert "How loud it is." in str(kind)


def test_contributing_names_at_most_two_files_for_each_change() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (a [^|]+) \| ([^|]*) \|", text, flags=re.M)
    changes = {
        name: set(re.findall(r"`((?:rlseq|envs|agents)/[\w/<>]+\.py)`", files)) for name, files in rows
    }
    assert len(changes) >= 10
    for name, files in changes.items():
        assert 1 <= len(files) <= 2, (name, files)
        for named in files:
            assert "<" in named or (ROOT / named).is_file(), named
