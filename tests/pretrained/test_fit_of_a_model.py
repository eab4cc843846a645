"""`rlseq fit --model`: a pretrained model is trained on pairs, tested, and loaded again without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rlseq
from rlseq.cli import main
from tests.pretrained.conftest import Folder
from tests.pretrained.tiny import with_weights


@pytest.mark.filterwarnings("ignore:the test has:UserWarning")
def test_a_pretrained_model_is_fitted_to_pairs(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nouns = ["dog", "house", "boat", "car", "teacher"]
    pairs = [
        f"the {a} sees the {b} and the {c}\tel {b} ve, {a}." for a in nouns for b in nouns for c in nouns
    ]
    path, out = tmp_path / "pairs.tsv", tmp_path / "run"
    path.write_text("\n".join(pairs) + "\n", "utf-8")
    short = ["--rows", "16", "--updates", "4", "--reward-updates", "2", "--quiet"]
    model = with_weights(folder("t5"), tmp_path / "model")
    main(["fit", str(path), "--model", str(model), *short, "--out", str(out)])
    assert "rlseq: " not in capsys.readouterr().err, "--quiet"
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["policy"][0] == "hf"
    path.unlink()
    texts = rlseq.load(out).generate(["the dog sees the boat"])
    assert len(texts) == 1
    assert (out / "report.html").exists()
