"""Kills: at every storage operation, and at random moments, of training runs and of comparisons.

After each kill the same call goes on, and what it comes to is compared, bit for bit, with a run that nobody
killed. Run as a program (`python tests/campaigns/test_kills.py FOLDER SEED PLAN`), this file makes the
trials in a process of its own, from which children with one thread are forked, and prints the counts.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
AGENTS: dict[str, dict[str, Any]] = {
    "mle": {},
    "reinforce": {"baseline": "moving_average"},
    "scst": {},
    "ppo": {"minibatches": 2},
    "mixer": {},
    "seqgan": {"pretraining": 1, "d": 1, "k": 1, "completions": 2},
    "grpo": {"samples": 2},
    "reinforce, regression": {"baseline": "regression"},
}
UPDATES = 6
PASSING = {"seconds", "tokens_per_second", "seconds_of_runs", "command", "metrics", "checksum"}
KILLED = -signal.SIGKILL
Call = Callable[[Path], Any]


# ── the calls ────────────────────────────────────────────────────────────────────────────────────────────


def trained(agent: str, updates: int = UPDATES) -> Call:
    """A short training run of one agent into a folder."""

    def call(folder: Path) -> None:
        import rlseq

        name, hyper = agent.split(",")[0], dict(AGENTS[agent])
        env = rlseq.make("rlseq/Copy-v0", num_envs=8, items=20, length=3)
        fresh = rlseq.make("rlseq/Copy-v0", num_envs=8, items=10, length=3, data_seed=1)
        policy = rlseq.make_policy("gru", env, hidden=8, embedding=4, value=name == "ppo")
        learner: Any = rlseq.make_agent(name, policy, **hyper)
        if hasattr(learner, "adversary"):
            learner.adversary.texts = 16
        rlseq.train(learner, env, updates, fresh, eval_every=2, out=folder, alarms="ignore")

    return call


def compared(folder: Path) -> None:
    """A small comparison into a folder."""
    import rlseq

    options = {"length": 3, "items": 20, "num_envs": 8}
    rlseq.compare(
        {"rlseq/Copy-v0": options}, ["mle", "reinforce"], seeds=2, budget_tokens=200, evaluations=2,
        policy={"name": "gru", "hidden": 8, "embedding": 4}, texts=10, temperatures=True, jobs=2, out=folder,
    ).save()  # fmt: skip


# ── what they come to ────────────────────────────────────────────────────────────────────────────────────


def outcome(folder: Path) -> dict[str, Any]:
    """Every file that holds a result, without what depends on the time that it took."""
    kinds = {".json", ".jsonl", ".safetensors"}
    found = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.suffix in kinds}
    return {
        name: _content(path)
        for name, path in found.items()
        if path.name != "config.json" and (path.parent.name, path.suffix) != ("checkpoints", ".json")
    }


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return sha256(path.read_bytes()).hexdigest()
    lines = path.read_text("utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf-8")]
    return [_lasting(json.loads(line)) for line in lines]


def _lasting(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _lasting(value) for name, value in tree.items() if name not in PASSING}
    return [_lasting(part) for part in tree] if isinstance(tree, list) else tree


# ── kills ────────────────────────────────────────────────────────────────────────────────────────────────


class Storage:
    """Counts the storage operations of this process, and kills it before one of them.

    With the process goes what was written to files that grow and not yet synchronised, in part, as when the
    power fails; a write that is the one to be killed at leaves half of its bytes.
    """

    def __init__(self, kill_at: int | None, dice: random.Random) -> None:
        self.count, self.kill_at, self.dice = 0, kill_at, dice
        self.growing: dict[int, tuple[Path, int]] = {}  # handle -> path, bytes that are synchronised
        self.real = {name: getattr(os, name) for name in ("open", "write", "fsync", "ftruncate", "close")}
        for name in self.real:
            setattr(os, name, getattr(self, name))
        for name in ("replace", "unlink", "mkdir", "touch"):
            setattr(Path, name, self.before(getattr(Path, name)))
        io.open = Path.open.__globals__["io"].open = self.before_writing(io.open)

    def operation(self) -> None:
        """One more; the process may end here."""
        if self.count == self.kill_at:
            for path, safe in self.growing.values():
                size = path.stat().st_size if path.exists() else 0
                if size > safe:
                    os.truncate(path, self.dice.randint(safe, size))
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that is one storage operation."""

        def call(*given: Any, **named: Any) -> Any:
            self.operation()
            return function(*given, **named)

        return call

    def before_writing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """An `open` that is one where it is for writing."""

        def call(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
            if mode.strip("brt"):
                self.operation()
            return function(file, mode, *given, **named)

        return call

    def open(self, path: Any, flags: int, *given: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.operation()
        handle: int = self.real["open"](path, flags, *given, **named)
        if flags & os.O_APPEND:
            self.growing[handle] = Path(path), os.fstat(handle).st_size
        return handle

    def write(self, handle: int, data: Any) -> int:
        if self.count == self.kill_at:
            self.real["write"](handle, bytes(data)[: len(data) // 2])
        self.operation()
        return int(self.real["write"](handle, data))

    def fsync(self, handle: int) -> None:
        self.operation()
        self.real["fsync"](handle)
        if handle in self.growing:
            self.growing[handle] = self.growing[handle][0], os.fstat(handle).st_size

    def ftruncate(self, handle: int, size: int) -> None:
        self.operation()
        self.real["ftruncate"](handle, size)

    def close(self, handle: int) -> None:
        self.growing.pop(handle, None)
        self.real["close"](handle)


def ended(call: Call, folder: Path, kill_at: int | None = None, seed: int = 0) -> tuple[int, int]:
    """Make a call in a child; returns its status (or the signal, negative) and its storage operations."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 1
        try:
            storage = Storage(kill_at, random.Random(seed))
            call(folder)
            storage.real["write"](writing, str(storage.count).encode())
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    os.close(writing)
    _, how = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        operations = pipe.read() if os.WIFEXITED(how) else ""  # children that outlive it may hold the pipe
    return os.waitstatus_to_exitcode(how), int(operations or 0)


def resumed(call: Call, folder: Path) -> None:
    """The same call again; children of a killed comparison may need a moment to end."""
    for _ in range(20):
        if ended(call, folder)[0] == 0:
            return
        time.sleep(0.5)
    raise AssertionError(f"{folder} does not go on after a kill")


def at_operations(call: Call, folder: Path, trials: int, seed: int) -> dict[str, int]:
    """Kill a call at `trials` of its storage operations, all of them where there are no more."""
    folder.mkdir(parents=True)  # or the first call has more to make than later ones
    status, operations = ended(call, folder / "whole")
    assert status == 0
    wanted, dice = outcome(folder / "whole"), random.Random(seed)
    chosen = sorted(dice.sample(range(operations), min(trials, operations)))
    counts = {"operations": operations, "trials": len(chosen), "killed": 0, "exact": 0}
    for at in chosen:
        place = folder / f"at-{at}"
        counts["killed"] += ended(call, place, at, seed + at)[0] == KILLED
        resumed(call, place)
        found = outcome(place)
        assert found == wanted, f"operation {at} of {operations}: {differing(found, wanted)}"
        counts["exact"] += 1
    return counts


def at_random(call: Call, folder: Path, trials: int, seed: int) -> dict[str, int]:
    """Kill a call at random moments, again and again in one folder until it comes to its end."""
    started = time.perf_counter()
    assert ended(call, folder / "whole")[0] == 0
    lasts, dice = time.perf_counter() - started, random.Random(seed)
    wanted, counts = outcome(folder / "whole"), {"trials": trials, "killed": 0, "exact": 0}
    while counts["killed"] < trials:
        place = folder / f"after-{counts['killed']}"
        while not killed_within(call, place, dice.uniform(0.0, lasts)):
            counts["killed"] += 1
            if counts["killed"] == trials:
                resumed(call, place)
                break
        found = outcome(place)
        assert found == wanted, f"after {counts['killed']} kills: {differing(found, wanted)}"
        counts["exact"] += 1
    return counts


def killed_within(call: Call, folder: Path, seconds: float) -> bool:
    """Make a call in a child and kill it after some time; whether it ended before."""
    child = os.fork()
    if not child:
        status = 1
        try:
            call(folder)
            status = 0
        finally:
            os._exit(status)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


CALLS: dict[str, Call] = {**{name: trained(name) for name in AGENTS}, "compare": compared}


def main(folder: str, seed: str, plan: str) -> None:
    """Make the trials of a plan, JSON of kind → number, and print the counts."""
    import torch

    from rlseq.training import loop as training

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    vars(training)["tensorboard"] = lambda folder, update: (
        None
    )  # whose thread writes at other moments every time
    trained("mle")(Path(folder) / "first")  # so that no child has to import anything
    counts = {}
    for what, trials in json.loads(plan).items():
        how, call = (
            (at_random, trained("ppo", updates=16)) if what == "random" else (at_operations, CALLS[what])
        )
        counts[what] = how(call, Path(folder) / what, trials, int(seed))
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.exit()


# ── the campaign ─────────────────────────────────────────────────────────────────────────────────────────


SHARE = {"reinforce": 7, "seqgan": 7, "random": 4}  # with the tests
WHOLE = {**dict.fromkeys(AGENTS, 10_000), "compare": 60, "random": 100}


def test_kills(campaign: Any, tmp_path: Path) -> None:
    """Each kind of call, killed; every one of them must be killed, and come to the same in the end."""
    plan = json.dumps(WHOLE if campaign.whole else SHARE)
    command = [sys.executable, __file__, str(tmp_path), str(campaign.seed), plan]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    counts = json.loads(result.stdout)
    for what, count in counts.items():
        assert count["killed"] == count["trials"], what
        assert count["exact"], what
    campaign.record("kills", counts)
