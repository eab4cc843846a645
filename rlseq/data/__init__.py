"""Data: files become a corpus of pairs, encoded and kept."""

from __future__ import annotations

from rlseq.data.encode import Reading as Reading
from rlseq.data.encode import load as load
from rlseq.data.formats import Pair as Pair
from rlseq.data.inspection import inspect as inspect
from rlseq.data.locate import Origin as Origin
