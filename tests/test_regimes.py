"""Two regimes of data: shares of noisy and clean text, from Python and by command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli import main
from rlseq.envs.wrappers.curriculum import with_curriculum
from rlseq.envs.wrappers.regimes import TwoRegimes, clean_items
from rlseq.training.experiment import run

CLEAN = ["a b\tc d", "b a\td c", "a a\tc c", "b b\td d"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Much noisy text with the clean text among it, and the clean text alone."""
    both, clean = tmp_path / "train.tsv", tmp_path / "clean.tsv"
    noisy = [f"a b {'a' * n}\tc x {'c' * n}" for n in range(1, 40)]
    both.write_text("\n".join([*noisy, *CLEAN]) + "\n", "utf-8")
    clean.write_text("\n".join([*CLEAN, "z z\tnever seen"]) + "\n", "utf-8")
    return both, clean


def task(path: Path, **options: Any) -> Any:
    return rlseq.make("rlseq/Parallel-v0", path={"train": str(path)}, level="word", **options)


def test_clean_items_are_told_by_their_sources(files: tuple[Path, Path]) -> None:
    env: Any = task(files[0])
    found = clean_items(env, str(files[1]))
    texts = env.corpus.texts(found.nonzero().flatten())
    assert sorted(text for item in texts for text in item) == ["c c", "c d", "d c", "d d"]


def test_texts_without_sources_are_told_by_themselves(tmp_path: Path) -> None:
    path, clean = tmp_path / "all.txt", tmp_path / "clean.txt"
    path.write_text("\n".join(["one two", "two one", *(f"w{n % 7} one" for n in range(7))]), "utf-8")
    clean.write_text("two one\nthree\n", "utf-8")
    env: Any = rlseq.make("rlseq/Text-v0", path={"train": str(path)}, level="word")
    found = clean_items(env, clean)
    assert [env.corpus.texts(torch.tensor([int(n)])) for n in found.nonzero()] == [[["two one"]]]


@pytest.mark.parametrize(("done", "share"), [(0.0, 0.2), (0.25, 0.5), (0.5, 0.8), (1.0, 0.8)])
def test_the_share_of_clean_items_follows_the_schedule(
    files: tuple[Path, Path], done: float, share: float
) -> None:
    env = task(files[0], num_envs=2000)
    which = clean_items(env, files[1])
    mixed = TwoRegimes(env, which, start=0.2, end=0.8, until=0.5)
    mixed.set_progress(done)
    drawn = mixed.begin()["index"]
    assert float(which[drawn].float().mean()) == pytest.approx(share, abs=0.04)
    assert len(drawn[which[drawn]].unique()) == 4
    assert len(drawn[~which[drawn]].unique()) == env.size - 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the curriculum regimes needs clean"),
        ({"clean": torch.ones(3).bool()}, r"for each of 43 items, got torch.bool of shape \(3,\)"),
        ({"clean": torch.zeros(43).bool()}, "0 of 43 training items are clean by the tensor"),
        ({"clean": "other.tsv"}, "0 of 43 training items are clean by .*must hold the clean text, too"),
        ({"clean": "none.tsv"}, "none.tsv"),
        ({"clean": torch.ones(43).bool(), "start": 2.0}, "start must be"),
        ({"share": 0.5}, "has no option 'share'"),
    ],
)
def test_what_cannot_be_is_refused(
    files: tuple[Path, Path],
    settings: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.tsv").write_text("nobody said this\tno\n", "utf-8")
    with pytest.raises((ValueError, OSError, TypeError), match=message):
        with_curriculum(task(files[0]), "regimes", **settings)


def test_likelihood_by_command_that_was_stopped_ends_as_it_would_have(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["update"] == 20:
            raise KeyboardInterrupt

    def weights(name: str) -> list[torch.Tensor]:
        return list(rlseq.load(tmp_path / name).policy.state_dict().values())

    both, clean = files
    words = f"train mle --env rlseq/Parallel-v0 --option path={both} level=word num_envs=8 --policy lstm "
    words += f"hidden=8 embedding=4 --quiet --texts 5 --curriculum regimes clean={clean} start=0.0 until=0.5"
    main([*words.split(), "--budget-tokens", "800", "--out", str(tmp_path / "whole")])
    job = rlseq.load(tmp_path / "whole").run
    assert job.curriculum == {"name": "regimes", "clean": str(clean), "start": 0.0, "until": 0.5}
    with pytest.raises(KeyboardInterrupt):
        run(replace(job, folder=str(tmp_path / "stopped")), quiet=True, on_update=stop, first_test=False)
    main(["resume", str(tmp_path / "stopped"), "--quiet"])
    assert all(map(torch.equal, weights("stopped"), weights("whole")))
