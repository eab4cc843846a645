"""What a comparison writes names neither the machine nor the folders of the person who made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rlseq
from tests.test_places import named_in, private


def test_a_comparison_names_no_machine_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(rlseq.SequenceEnv):
        """Raises for one seed, with a path in the error."""

        def __init__(self, **options: Any) -> None:
            super().__init__(vocab=rlseq.Vocab.numbered(4), max_len=3, reward=self.pay, **options)
            self.calls = 0

        def pay(self, tokens: Any, mask: Any, context: Any) -> Any:
            self.calls += 1
            if self.calls > 1 and self.seed == 1:
                raise OSError(f"cannot read {tmp_path}/data/secret.txt")
            return mask.sum(1).float()

    rlseq.register("tests/Broken-v0", Broken)
    out = tmp_path / "results of mine"
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin" / "rlseq"), "compare", "--out", str(out)])
    found = rlseq.compare(
        "tests/Broken-v0", "reinforce", seeds=2, budget_tokens=200, start=None, texts=20, jobs=1, out=out,
        policy={"name": "gru", "hidden": 8, "embedding": 4},
    )  # fmt: skip
    found.save()
    (failure,) = found.results["failed"]
    assert "cannot read secret.txt" in failure["error"]
    assert "test_private.py" in failure["error"]
    assert named_in(out, *private(tmp_path), str(Path(rlseq.__file__).parent.parent)) == []
