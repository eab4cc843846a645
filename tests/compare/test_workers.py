"""Workers that share the folder of a comparison: every run once, whoever ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlseq.cli import main
from rlseq.compare import claims
from rlseq.compare.claims import claimed, failure_of_run, forget_failures, last_claim
from rlseq.compare.workers import by_slurm, check_executor, slurm_script, work

WORK = Path(__file__).with_name("ten_workers.py")
OF_THE_CLOCK = ("seconds", "seconds_of_runs", "tokens_per_second", "jobs", "command", "checksum")


def without_seconds(tree: Any) -> Any:
    """Return results without what differs between two equal comparisons."""
    if isinstance(tree, dict):
        return {name: without_seconds(part) for name, part in tree.items() if name not in OF_THE_CLOCK}
    return [without_seconds(part) for part in tree] if isinstance(tree, list) else tree


def test_ten_workers_of_which_three_are_killed_make_every_run_as_one_process_does(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORK.parents[2])}
    done = subprocess.run(
        [sys.executable, str(WORK), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "claims.json").read_text())
    assert min(numbers) == 1
    assert max(numbers) > 1  # of a run whose worker was killed
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("workers", "local")]
    assert results[0]["failed"] == []
    assert without_seconds(results[0]) == without_seconds(results[1])


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_claimed_by_one_worker_until_its_claim_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = claimed(tmp_path)
    assert first is not None
    assert claimed(tmp_path) is None
    assert first.touch()
    monkeypatch.setattr(claims, "EXPIRES", -1.0)
    second = claimed(tmp_path)
    assert second is not None
    assert second.number == 2
    assert not first.touch()  # it learns that another worker has the run
    second.release()
    assert last_claim(tmp_path) == first


def test_a_run_that_loses_three_workers_fails_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "EXPIRES", -1.0)
    assert [claimed(tmp_path) is None for _ in range(4)] == [False, False, False, True]
    assert "lost 3 workers" in str(failure_of_run(tmp_path))
    assert claimed(tmp_path) is None
    forget_failures(tmp_path)
    assert failure_of_run(tmp_path) is None
    assert claimed(tmp_path) is not None


def test_a_worker_needs_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="holds no comparison for workers"):
        work(tmp_path)
    with pytest.raises(SystemExit):
        main(["compare", "--worker", str(tmp_path), "--seeds", "2"])
    assert "leave out seeds" in capsys.readouterr().err


# ── clusters ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_script_for_slurm_is_printed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", "rlseq/Copy-v0", "--agents", "mle", "--jobs", "3", "--out", str(tmp_path / "c")]
    main(["compare", *words, "--executor", "slurm", "--dry-run", "--slurm", "time=2:00:00", "gres=gpu:1"])
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n#SBATCH --array=0-2\n")
    assert "#SBATCH --time=2:00:00\n#SBATCH --gres=gpu:1\n" in script
    assert f"-m rlseq compare --worker {tmp_path / 'c'}" in script
    assert not (tmp_path / "c").exists()


def test_options_of_slurm_are_checked() -> None:
    with pytest.raises(ValueError, match="name=value, without blanks"):
        slurm_script(Path("c"), 1, ["time=1\n#SBATCH x"])


def test_a_script_is_submitted_by_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no sbatch here"):
        check_executor("slurm")
    (tmp_path / "sbatch").write_text('#!/bin/sh\necho "Submitted batch job 7 of $1"\n')
    (tmp_path / "sbatch").chmod(0o755)
    by_slurm(tmp_path, "#!/bin/bash\n")
    assert "Submitted batch job 7 of" in capsys.readouterr().err
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho no account >&2; exit 1\n")
    with pytest.raises(ValueError, match="no account"):
        by_slurm(tmp_path, "#!/bin/bash\n")
