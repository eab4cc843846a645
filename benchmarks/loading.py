"""Seconds from a user's data to a task, the first time and from the cache.

    OMP_NUM_THREADS=1 python benchmarks/loading.py

Generated files of the usual sizes; each is loaded in a process of its own, with an empty cache, then again.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import record

CASES = {
    "7,000 word pairs, TSV": ("rlseq/Parallel-v0", "pairs.tsv"),
    "29,000 sentences × 5 references, aligned files": ("rlseq/Parallel-v0", "corpus.src"),
    "29,000 sentences × 5 references, JSONL": ("rlseq/Parallel-v0", "corpus.jsonl"),
    "126,000 words, CMU dictionary": ("rlseq/G2P-v0", None),
}


def main() -> None:
    """Generate, measure, write."""
    results: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        generate(Path(folder))
        for name, (id, path) in CASES.items():
            cache = {**os.environ, "RLSEQ_CACHE": str(Path(folder) / f"cache of {name}")}
            arguments = [sys.executable, __file__, id, *([str(Path(folder) / path)] if path else [])]
            first, again = (
                json.loads(subprocess.run(arguments, capture_output=True, check=True, env=cache).stdout)
                for _ in range(2)
            )
            results[name] = {"first": first, "again": again}
            print(name, first, again)
    print(record.write("loading", results))


def measure(id: str, path: str | None = None) -> dict[str, Any]:
    """CPU seconds to make a task and to judge its first batch, beyond those that imports take."""
    import rlseq
    import rlseq.envs.g2p
    import rlseq.envs.parallel
    from rlseq.engine.references import sample_references

    start = time.process_time()
    options: dict[str, Any] = {"path": path} if path else {}
    env: Any = rlseq.make(id, num_envs=64, **options)
    made = time.process_time()
    batch = sample_references(env)
    env.reward_parts(batch.actions, batch.mask, batch.context)
    judged = time.process_time()
    return {
        "items": env.size,
        "seconds_to_make": round(made - start, 3),
        "seconds_to_first_reward": round(judged - made, 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def generate(folder: Path) -> None:
    """A TSV of word pairs; aligned files and JSONL of sentences, some words more frequent than others."""
    draw = random.Random(0)
    words = sorted({"".join(draw.choices("abdegiklmnoprstu", k=draw.randint(3, 9))) for _ in range(12_000)})
    draw.shuffle(words)
    (folder / "pairs.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in words[:7000]))
    weights = [1 / (rank + 10) for rank in range(len(words))]
    files = [
        (folder / f"corpus.{name}").open("w") for name in ("src", *(f"ref.{n}" for n in range(5)), "jsonl")
    ]
    for _ in range(29_000):
        source = draw.choices(words, weights, k=draw.randint(6, 18))
        texts = [" ".join(w[::-1] for w in source if draw.random() < 0.9) or source[0] for _ in range(5)]
        for file, line in zip(files, (" ".join(source), *texts), strict=False):
            file.write(line + "\n")
        files[-1].write(json.dumps({"source": " ".join(source), "references": texts}) + "\n")
    for file in files:
        file.close()


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        main()
