"""What the campaigns share: how many trials to make, from which seed, and where their counts are written.

With the tests, each campaign makes a bounded share of its trials. The whole of them is

    make campaign                               # or: RLSEQ_CAMPAIGN=full python -m pytest tests/campaigns
    RLSEQ_CAMPAIGN_SEED=7 make campaign         # the same trials with other inputs

and writes the counts of every campaign to `benchmarks/results/campaigns/NAME.json`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
WHOLE = os.environ.get("RLSEQ_CAMPAIGN") == "full"
SEED = int(os.environ.get("RLSEQ_CAMPAIGN_SEED", "0"))


@dataclass(frozen=True)
class Campaign:
    """How much of a campaign is run, and from which seed its inputs are drawn."""

    whole: bool
    seed: int

    def trials(self, share: int, whole: int) -> int:
        """The number of trials: `share` with the tests, `whole` in a full campaign."""
        return whole if self.whole else share

    def record(self, name: str, counts: dict[str, Any]) -> None:
        """Write the counts of a full campaign as JSON, with commit, machine and seed."""
        if not self.whole:
            return
        sys.path.insert(0, str(ROOT / "benchmarks"))
        try:
            import record
        finally:
            sys.path.pop(0)
        folder = ROOT / "benchmarks" / "results" / "campaigns"
        command = f"RLSEQ_CAMPAIGN_SEED={self.seed} make campaign"
        record.write(name, {"seed": self.seed, **counts}, folder, command)


@pytest.fixture(scope="session")
def campaign() -> Campaign:
    return Campaign(WHOLE, SEED)
