"""The experiment on a pretrained model: every arm runs, what is finished is kept, and the sums are right."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import finetune
import pretrain

QUIET = pytest.mark.filterwarnings("ignore:preflight", "ignore:left out", "ignore:.is_gradient_checkpointing")
TINY = finetune.Setting(tokens=200, rows=8, test=10, samples=2, max_len=8, max_source_len=16)


def made(name: str, tmp_path: Path) -> Path:
    """A tiny model that has learned a few updates, beside its pairs."""
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    folder = tmp_path / "pairs"
    folder.mkdir()
    for part, colours in {"train": "red green blue", "dev": "old", "test": "new small"}.items():
        things = "house", "boat", "tree", "moon", "star", "bird"
        lines = [f"the {c} {thing} of a friend\t{c} {thing}\n" for c in colours.split() for thing in things]
        (folder / f"{part}.tsv").write_text("".join(lines), "utf-8")
    size: dict[str, Any] = {
        "vocabulary": {"t5": 50, "llama": 300}[name],
        "width": 16,
        "layers": 1,
        "heads": 2,
        "rows": 6,
        "updates": 4,
    }
    kind = pretrain.KINDS[name]
    kind = replace(kind, setting=replace(kind.setting, **size))
    pretrain.pretrain(kind, folder, tmp_path / "model", minutes=1)
    return tmp_path / "model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny T5."""
    return made("t5", tmp_path)


def run(model: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> dict[str, Any]:
    """The report in the folder, after one more run."""
    pairs, folder = str(model.parent / "pairs"), model.parent / "runs"
    words = ["finetune.py", pairs, "--model", str(model), "--folder", str(folder), "--seeds", "2", *flags]
    monkeypatch.setattr(sys, "argv", words)
    finetune.main({"synopses": TINY, "other": replace(TINY, lr=1.0)})
    found: dict[str, Any] = json.loads((folder / "finetune.json").read_text("utf-8"))["results"]
    return found


@QUIET
def test_every_arm_runs_and_is_compared(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = run(model, monkeypatch)
    assert set(found["sides"]) == {"start", finetune.RISK, *finetune.ARMS}
    start, constant = found["sides"]["start"], found["sides"]["rloo, constant reward"]
    assert constant["by seed"] == [start["rouge_l"]] * 2  # without advantages nothing moves
    for name in finetune.ARMS:
        side = found["sides"][name]
        assert min(side["tokens"]) >= 200
        for other in {"start", "likelihood"} - {name}:
            gap = side["rouge_l"] - found["sides"][other]["rouge_l"]
            assert found["against"][other][name]["estimate"] == pytest.approx(gap, abs=1e-6)
    adapted, whole = (found["sides"][name]["trained"][0] for name in ("rloo, adapters", "rloo"))
    assert adapted < whole / 2
    assert (
        found["sides"][finetune.RISK]["reward of the best sample"]
        >= (found["sides"][finetune.RISK]["reward of samples"])
    )
    assert "rloo, against likelihood" in capsys.readouterr().out

    def refused(*_of: Any) -> None:
        pytest.fail("what is finished is done again")

    monkeypatch.setattr(finetune.Experiment, "run", refused)
    assert run(model, monkeypatch) == found
    (model.parent / "runs" / "scst-1.json").unlink()
    assert run(model, monkeypatch, "--finished")["sides"]["scst"]["runs"] == 1
    with pytest.raises(SystemExit):
        run(model, monkeypatch, "--setting", "other")
    assert "has runs with lr=0.0003 (now 1.0)" in capsys.readouterr().err


@QUIET
def test_a_causal_model_reads_its_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is that of the pre-training, and does not count as written."""
    causal = made("llama", tmp_path)
    flags = ["--prompt", "{source}" + pretrain.KINDS["llama"].prompt, "--arms", "rloo", "--seeds", "1"]
    found = run(causal, monkeypatch, *flags)
    assert found["setting"]["prompt"].endswith(pretrain.KINDS["llama"].prompt)
    assert found["sides"]["rloo"]["length"] <= TINY.max_len


def test_the_nearest_text_is_nearest_by_the_reward() -> None:
    assert finetune.nearest_by_rouge(["a b c", "a b d", "x y", "a b"]) == 3
    assert finetune.nearest_by_rouge(["", "a", "a"]) in (1, 2)
    assert finetune.nearest_by_edits(["abcd", "abc", "abx", "zzz"]) == 1


def test_differences_pair_items_and_seeds() -> None:
    a, b = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 2.0]])
    found = finetune.difference(a, b)
    assert found["estimate"] == pytest.approx(7 / 6)
    assert found["over seeds"][0] < 7 / 6 < found["over seeds"][1]
    assert "over seeds" not in finetune.difference(b, b)
