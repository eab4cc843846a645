"""Write the tables of the docs from the committed JSON, so that no number in them is typed.

    python benchmarks/tables.py [--check]

Fills every region between `<!-- table: NAME -->` and `<!-- end -->` in README.md and in docs/.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tabled.agents import (
    control,
    coverage,
    demo,
    items,
    learning,
    relaxed,
    searched,
    solve_copy,
    sparse,
    stale,
    tuned,
    values,
    variance,
    verdicts,
    warmup,
)
from tabled.campaigns import campaigns
from tabled.engine import (
    completions,
    loading,
    matmul,
    overlap,
    padding,
    pretrained,
    ranks,
    rewards,
    throughput,
    updates,
)
from tabled.families import families
from tabled.imitation import dagger, gail
from tabled.referee import audit, mbr, peers
from tabled.settings import comparison, fit, labelling, reward_model, training, tune
from tabled.tasks import (
    all_tasks,
    boxes,
    captions,
    chat,
    feedback,
    finetune,
    ggan,
    oracle,
    poems,
    pretrain,
    recipes,
    regimes,
    tasks,
    tunes,
)
from tabled.unpaired import molecules, smiles, style, summaries

ROOT = Path(__file__).parent.parent
REGION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)

TABLES: dict[str, Callable[[], str]] = {
    "comparison": comparison,
    "all-tasks": all_tasks,
    "audit": audit,
    "completions": completions,
    "boxes": boxes,
    "campaigns": campaigns,
    "captions": captions,
    "chat": chat,
    "style": style,
    "control": control,
    "control-trpo": partial(control, "control-trpo"),
    "control-values": partial(control, "control-values"),
    "coverage": coverage,
    "dagger": dagger,
    "demo": demo,
    **{f"families-{task}": partial(families, task) for task in ("copy", "cartpole", "oracle", "g2p")},
    "feedback": feedback,
    "finetune": finetune,
    "fit": fit,
    "gail": gail,
    "gans": partial(oracle, "gans"),
    "ggan": ggan,
    "items": items,
    "label": labelling,
    "learning": learning,
    "loading": loading,
    "matmul": matmul,
    "mbr": mbr,
    "molecules": molecules,
    "oracle": oracle,
    "overlap": overlap,
    "padding": padding,
    "peers": peers,
    "poems": poems,
    "pretrain": pretrain,
    "pretrained": pretrained,
    "ranks": ranks,
    "recipes": recipes,
    "regimes": regimes,
    "relaxed": relaxed,
    "reward-model": reward_model,
    "rewards": rewards,
    "smiles": smiles,
    "solve-copy": solve_copy,
    "sparse": sparse,
    "stale": stale,
    "summaries": summaries,
    "tasks": tasks,
    "throughput": throughput,
    "training": training,
    "tune": tune,
    "tunes": tunes,
    "tuned": tuned,
    "tuned-g2p": searched,
    "updates": updates,
    "values": values,
    "variance": variance,
    "verdicts": verdicts,
    "warmup": warmup,
}


def filled(page: str) -> str:
    """A page with its regions written anew."""
    return REGION.sub(lambda m: m.group(1) + TABLES[m.group(2)]() + m.group(3), page)


def main() -> int:
    """Fill all pages; with --check only say which are not what the results say."""
    stale = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page = path.read_text("utf-8")
        if filled(page) == page:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is not what benchmarks/results says; run benchmarks/tables.py")
        else:
            path.write_text(filled(page), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
