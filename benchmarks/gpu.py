"""All measurements that need a GPU, in at most ten minutes.

    python benchmarks/gpu.py [--minutes 10] [--parts throughput updates profile seqgan]

* throughput: what the engine writes in a second, beside a plain loop, stable-baselines3, `generate` and the
  hardware (`throughput.py`), for 64, 512 and 4,096 rows;
* updates: a whole update of GRPO beside TRL's, and texts beside `generate` (`pretrained.py`), where these
  libraries are installed;
* profile: kernels of an update, the time in which the GPU does something, and the longest gaps in between;
* seqgan: rows of SeqGAN's table in its full profile, texts of 20 and of 40 words (`oracle.py`).

The parts share the minutes. What does not fit is named in the results, and so is what fails; the file is
written anew after every measurement, so that an interrupted run leaves what it has measured. Rows of SeqGAN's
table that were finished are kept under runs/ and not run again. No GPU has run this; the tests run all but
"updates", with tiny sizes, on a pretended one.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import oracle
import record
import throughput
import torch
from torch.profiler import ProfilerActivity

import rlseq
from rlseq.envs.oracle import Oracle

Measurement = tuple[str, Callable[[], Any]]
LENGTHS = {20: 32, 40: 64}  # units of the published oracle by words of a text
LONGEST_GAPS = 10


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements."""

    rows: tuple[int, ...] = (64, 512, 4096)
    repeats: int = 5
    others: bool = True  # measure other libraries and the hardware, too
    profiled_rows: int = 512
    profiled_updates: int = 5
    lengths: tuple[int, ...] = (20, 40)
    seqgan: oracle.Profile = oracle.PROFILES["full"]
    seqgan_rows: tuple[str, ...] = ("oracle", "mle", "seqgan")


SHARES = {"throughput": 0.3, "updates": 0.2, "profile": 0.05, "seqgan": 0.45}  # of the minutes


def throughputs(sizes: Sizes) -> Iterator[Measurement]:
    """Yield the models and numbers of rows that write."""
    for rows in sizes.rows:
        for name in throughput.SIZES:
            yield (
                f"{name}, {rows} rows",
                partial(throughput.one_model, name, rows, "cuda", sizes.repeats, others=sizes.others),
            )


def updates(sizes: Sizes) -> Iterator[Measurement]:
    """Yield whole updates beside TRL, and texts beside `generate`."""
    if not sizes.others:
        return
    import pretrained  # which needs transformers

    for name, library in pretrained.LIBRARIES.items():
        yield f"grpo, {name}", partial(library, "cuda", time.perf_counter)
    for rows in (16, 64):
        yield (
            f"gpt2-small, {rows} rows",
            partial(pretrained.written, "gpt2-small", rows, 32, sizes.repeats, "cuda", time.perf_counter),
        )


def profiles(sizes: Sizes) -> Iterator[Measurement]:
    """Yield the models whose updates are looked at kernel by kernel."""
    for name in throughput.SIZES:
        for compile in ("off", "rollout"):
            yield f"{name}, compile={compile}", partial(profiled, name, compile, sizes)


def profiled(name: str, compile: str, sizes: Sizes) -> dict[str, Any]:
    """Return kernels and gaps of an update of REINFORCE."""
    env, policy = throughput.setting(name, sizes.profiled_rows, "cuda")
    agent = rlseq.make_agent("reinforce", policy, compile=compile)

    def learn() -> None:
        with agent.computing():
            agent.update(agent.collect(env))

    for _ in range(2):  # captures, and choices of libraries
        learn()
    torch.cuda.synchronize()
    started = time.perf_counter()
    gpu = {ProfilerActivity.CUDA} & torch.profiler.supported_activities()  # type: ignore[no-untyped-call]
    with torch.profiler.profile(activities=gpu or {ProfilerActivity.CPU}) as seen:
        for _ in range(sizes.profiled_updates):
            learn()
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    kernels = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in seen.events()
        if event.device_type.name == "CUDA"
    ]
    return {"seconds": seconds / sizes.profiled_updates, **busy(kernels, sizes.profiled_updates)}


def busy(kernels: Sequence[tuple[float, float, str]], updates: int) -> dict[str, Any]:
    """Return the number of kernels, the seconds in which one of them runs, and the longest gaps.

    Args:
        kernels: start and end in microseconds, and name.
        updates: in which they ran.
    """
    total, reached, before = 0.0, None, ""
    gaps: list[dict[str, Any]] = []
    by_name: dict[str, float] = {}
    for start, end, name in sorted(kernels):
        by_name[name] = by_name.get(name, 0.0) + end - start
        if reached is not None and start > reached:
            gaps.append({"microseconds": start - reached, "after": before, "before": name})
        total += max(0.0, end - max(start, reached or start))
        if reached is None or end > reached:
            reached, before = end, name
    whole = reached - min(start for start, _, _ in kernels) if reached is not None else 0.0
    gaps.sort(key=lambda gap: -gap["microseconds"])
    return {
        "kernels": len(kernels) / updates,
        "busy_seconds": total / 1e6 / updates,
        "share_of_gaps": 1 - total / whole if whole else None,
        "longest_gaps": gaps[:LONGEST_GAPS],
        "longest_kernels": dict(sorted(by_name.items(), key=lambda pair: -pair[1])[:LONGEST_GAPS]),
    }


def seqgan(sizes: Sizes, folder: Path = oracle.ROOT / "runs") -> Iterator[Measurement]:
    """Yield the rows of SeqGAN's table, the first seed of each length; those that are there are read."""
    for length in sizes.lengths:
        place = folder / f"oracle-gpu-{length}-{sizes.seqgan.evaluated}"
        made: list[oracle.Bench] = []
        for name in sizes.seqgan_rows:
            yield f"{name}, {length} words", partial(row_of_table, name, length, sizes.seqgan, place, made)


def row_of_table(
    name: str, length: int, profile: oracle.Profile, folder: Path, made: list[oracle.Bench]
) -> Any:
    """Return a row of SeqGAN's table; `made` keeps the task between the rows of a length."""
    file = folder / f"{name}-0.json"
    if not file.exists() and not made:
        folder.mkdir(parents=True, exist_ok=True)
        task = Oracle(0, length=length, hidden=LENGTHS[length], device=profile.device)
        made.append(oracle.Bench(task, profile, folder, 0))
    if not file.exists():
        oracle.run(made[0], [name])
    return json.loads(file.read_text("utf-8"))


PARTS: dict[str, Callable[[Sizes], Iterator[Measurement]]] = {
    "throughput": throughputs,
    "updates": updates,
    "profile": profiles,
    "seqgan": seqgan,
}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when a time is over."""

    def over(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measured(parts: Sequence[str], minutes: float, sizes: Sizes, save: Callable[[Any], Any]) -> Any:
    """Measure parts, each in its share of the minutes and in what earlier ones have left.

    Args:
        parts: names of `PARTS`.
        minutes: for all of them.
        sizes: how much is measured.
        save: takes all results so far, after every measurement.
    """
    results: dict[str, Any] = {"minutes": minutes, "left_out": [], "failed": {}}
    end, shares = time.perf_counter(), sum(SHARES[part] for part in parts)
    for part in parts:
        end += 60 * minutes * SHARES[part] / shares
        results[part] = {}
        try:
            measurements = list(PARTS[part](sizes))
        except ImportError as error:
            results["failed"][part] = str(error)
            continue
        for name, run in measurements:
            print(f"{part}: {name}", file=sys.stderr, flush=True)
            try:
                with limited(end - time.perf_counter()):
                    results[part][name] = run()
            except TimeoutError:
                results["left_out"].append(f"{part}: {name}")
            except Exception as error:  # of other libraries, say, which ends nothing else
                results["failed"][f"{part}: {name}"] = f"{type(error).__name__}: {error}"[:500]
            save(results)
    return results


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this machine has no CUDA device; the tests run this script on a pretended one")
    results = measured(given.parts, given.minutes, Sizes(), partial(record.write, "gpu"))
    print(record.write("gpu", results))
    print(*[f"left out: {name}" for name in results["left_out"]], sep="\n")
    print(*[f"failed: {name}: {why}" for name, why in results["failed"].items()], sep="\n")


if __name__ == "__main__":
    main()
