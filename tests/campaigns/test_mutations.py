"""The table of planted errors still fits the library, and a few of them are planted.

All of them: `python tests/campaigns/mutations.py`.
"""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.mutations import MUTATIONS, copied, problems, tried

QUICK = ["step-first-group", "e2e-uniform", "scheduled-reversed"]


def test_every_error_can_still_be_planted() -> None:
    assert problems() == []
    names = [m.name for m in MUTATIONS]
    assert len(set(names)) == len(names) >= 60


def test_quick_errors_are_noticed_and_no_error_is_not(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    for mutation in MUTATIONS:
        if mutation.name in QUICK:
            result = tried(mutation, copy, seed=0)
            assert result["killed"], f"{mutation.name} survived: {result['by']}"
    harmless = MUTATIONS[0]._replace(planted=MUTATIONS[0].original + "  ")
    assert not tried(harmless, copy, seed=0)["killed"]
