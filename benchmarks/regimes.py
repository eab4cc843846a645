"""What does much noisy text teach, what little clean text, and what both, by share and by schedule?

    OMP_NUM_THREADS=1 python benchmarks/regimes.py [--seeds 3] [--updates 200]

Translations of the toy grammar. The noisy text, 1,500 sources, has errors that are random (two neighbours
exchanged, a word replaced) and a habit that is not: half of the answers end in a word that no clean text has.
The clean text is 60 sources. Every row has as many updates of likelihood, and is tested greedily on 200 clean
sources that neither text has. About two CPU minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import record
import torch

import rlseq
from rlseq.compare.statistics import mean_interval
from rlseq.data.formats import Pair
from rlseq.engine.evaluation import evaluate_texts
from rlseq.envs.parallel import toy_pairs
from rlseq.envs.wrappers.regimes import TwoRegimes, clean_items

NOISY, CLEAN, TESTED = 1500, 60, 200
HABIT = "vale"  # the word that noisy answers end in
REGIMES: dict[str, dict[str, float] | None] = {
    "noisy alone": {"start": 0.0, "end": 0.0},
    "clean alone": {"start": 1.0, "end": 1.0},
    "both, as many as there are": None,
    "both, half of each batch": {"start": 0.5, "end": 0.5},
    "noisy first, then clean": {"start": 0.0, "end": 1.0, "until": 0.8},
    "clean first, then noisy": {"start": 1.0, "end": 0.0, "until": 0.8},
}


def main() -> None:
    """Train every regime with every seed, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in REGIMES}
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for seed in range(options.seeds):
            for name, shares in REGIMES.items():
                rows[name].append(learned(Path(folder), shares, seed, options.updates))
                print(seed, name, rows[name][-1], flush=True)
    setting = {"noisy": NOISY, "clean": CLEAN, "tested": TESTED, "updates": options.updates}
    print(record.write("regimes", {"setting": setting, "rows": {k: summary(v) for k, v in rows.items()}}))


def write_files(folder: Path) -> None:
    """Write all training text, the clean part of it, and the test."""
    draw = Random(0)
    by_source: dict[str, list[str]] = {}
    for pair in toy_pairs():
        by_source.setdefault(str(pair.source), []).append(pair.target)
    sources = sorted(by_source)
    draw.shuffle(sources)
    words = sorted({word for texts in by_source.values() for text in texts for word in text.split()})
    noisy, clean = sources[:NOISY], sources[NOISY : NOISY + CLEAN]
    tested = sources[NOISY + CLEAN : NOISY + CLEAN + TESTED]
    spoiled = [Pair(source, noise(draw.choice(by_source[source]), words, draw)) for source in noisy]
    good = [Pair(source, text) for source in clean for text in by_source[source]]
    parts = {
        "train": [*spoiled, *good],
        "clean": good,
        "test": [Pair(source, text) for source in tested for text in by_source[source]],
    }
    for name, pairs in parts.items():
        lines = "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs)
        (folder / f"{name}.tsv").write_text(lines, "utf-8")


def noise(text: str, words: list[str], draw: Random) -> str:
    """Return a text with a random error, and with the habit, half of the time each."""
    found = text.split()
    place = draw.randrange(len(found) - 1)
    if draw.random() < 0.25:
        found[place], found[place + 1] = found[place + 1], found[place]
    elif draw.random() < 1 / 3:
        found[place] = draw.choice(words)
    return " ".join([*found, *[HABIT] * (draw.random() < 0.5)])


def learned(folder: Path, shares: dict[str, float] | None, seed: int, updates: int) -> dict[str, float]:
    """Return the share of right answers, BLEU, and the share with the habit, on clean sources."""
    torch.manual_seed(seed)
    began = time.process_time()
    path = {part: str(folder / f"{part}.tsv") for part in ("train", "test")}
    env: Any = rlseq.make("rlseq/Parallel-v0", num_envs=64, path=path, level="word", seed=seed)
    test: Any = rlseq.make("rlseq/Parallel-v0", num_envs=100, path=path, level="word", split="test")
    mixed = env
    if shares is not None:
        mixed = TwoRegimes(env, clean_items(env, folder / "clean.tsv"), **shares)
    policy = rlseq.make_policy("seq2seq", env, hidden=64, embedding=32)
    agent = rlseq.make_agent("mle", policy, lr=4e-3, schedule="linear")
    for update in range(updates):
        agent.set_progress(update / updates)
        mixed.set_progress(update / updates)
        agent.update(agent.collect(mixed))
    lines = evaluate_texts(policy, test).lines(test)
    return {
        "exact": sum(line["scores"]["exact"] for line in lines) / len(lines),
        "bleu": sum(line["scores"]["bleu"] for line in lines) / len(lines),
        "habit": sum(HABIT in line["text"].split() for line in lines) / len(lines),
        "seconds": time.process_time() - began,
    }


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return the mean over seeds of every figure, with its interval, and each seed's."""
    found: dict[str, Any] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found[name] = {"interval": [*map(float, mean_interval(values)[:3])], "by_seed": values}
    return found


if __name__ == "__main__":
    main()
