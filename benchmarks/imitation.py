"""Imitation beyond likelihood: DAgger at equal labels, and GAIL with few demonstrations.

    python benchmarks/imitation.py [--parts dagger gail] [--seeds 0 1 2]

`dagger`: on pronunciations (a twelfth of the dictionary) and on numbers in French, likelihood gives a policy;
from its weights likelihood, scheduled sampling and DAgger go on with as many labels each, the words of
references or of the expert that are learned from for the first time in a batch. Wrong words are counted by
position, after prefixes of references and after the policy's own.

`gail`: likelihood learns from 5, 50 or 500 demonstrations, and is stopped where the held-out reward is best,
which favours it. From there go on: likelihood; GAIL on the sources of the demonstrations; GAIL on all
sources, of which the discriminator knows the demonstrated ones; and as a control GAIL whose discriminator
never learns.

Every run is kept in results/imitation.json as it ends; the same command at the same commit makes the others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import record
import torch

import rlseq
from rlseq.agents.gail import GAIL
from rlseq.discriminators import Adversary
from rlseq.discriminators.adversary import random_prefix
from rlseq.discriminators.objectives import surprise
from rlseq.envs.g2p import the_dictionary

ROWS, TESTED = 64, 300  # texts of a batch; items of a test
PART = 12  # one word in so many of the dictionary
Job = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Labelled:
    """A task of the part `dagger`."""

    id: str
    start: int  # labels of the first policy
    labels: int  # labels of every agent that goes on
    options: dict[str, Any] = field(default_factory=dict)
    hidden: int = 64
    lr: float = 2e-3  # of the first policy
    lr_on: float = 1e-3  # of the agents that go on; it falls to zero
    agents: tuple[str, ...] = ("mle", "scheduled_sampling", "dagger")


@dataclass(frozen=True)
class Demonstrated:
    """A task of the part `gail`."""

    id: str
    policy: str
    demonstrations: str  # the option of the task for their number
    options: dict[str, Any] = field(default_factory=dict)
    numbers: tuple[int, ...] = (5, 50, 500)
    hidden: int = 48
    updates: int = 150  # of likelihood, at most, and of every agent that goes on
    every: int = 15  # updates between two tests of likelihood
    lr: float = 3e-3  # of likelihood
    lr_on: float = 3e-4  # of the agents that go on
    lessons: dict[str, Any] = field(default_factory=lambda: {"pretraining": 20, "d": 1, "k": 1})
    texts: int = 128  # of a lesson


LABELLED = {
    "g2p": Labelled("rlseq/G2P-v0", start=200_000, labels=200_000),
    "numbers": Labelled("rlseq/Numbers-v0", start=200_000, labels=200_000, options={"below": 1000}),
}
DEMONSTRATED = {
    "copy": Demonstrated("rlseq/Copy-v0", "seq2seq", "items", {"vocab_size": 8, "length": 5}),
    "oracle": Demonstrated(
        "rlseq/Oracle-v0", "lstm", "references", {"vocab_size": 50, "length": 10, "hidden": 16}
    ),
}


# ── DAgger ───────────────────────────────────────────────────────────────────────────────────────────────


def labelled(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return every agent's scores and wrong words by position."""
    setting = LABELLED[name]
    options = {**setting.options, **({"path": dictionary(folder)} if name == "g2p" else {})}
    env = rlseq.make(setting.id, num_envs=ROWS, seed=seed, **options)
    test = rlseq.make(setting.id, num_envs=200, split="test", **options)
    torch.manual_seed(seed)
    policy = rlseq.make_policy("seq2seq", env, hidden=setting.hidden, embedding=32)
    found = {"start": {**learned("mle", policy, env, setting.start, setting.lr), **measured(policy, test)}}
    weights = {key: value.clone() for key, value in policy.state_dict().items()}
    for agent in setting.agents:
        policy.load_state_dict(weights)
        env = rlseq.make(setting.id, num_envs=ROWS, seed=1000 + seed, **options)
        spent = learned(agent, policy, env, setting.labels, setting.lr_on, schedule="linear")
        found[agent] = {**spent, **measured(policy, test)}
    return found


def dictionary(folder: Path) -> Path:
    """Write a part of the pronouncing dictionary; all pronunciations of a word stay together."""
    path, words = folder / "part.dict", dict[str, int]()
    lines = the_dictionary().read_text("utf-8").splitlines(keepends=True)
    numbered = [words.setdefault(line.split()[0].split("(")[0], len(words)) for line in lines]
    path.write_text("".join(x for x, n in zip(lines, numbered, strict=True) if n % PART == 0), "utf-8")
    return path


def learned(name: str, policy: Any, env: Any, labels: int, lr: float, **hyper: Any) -> dict[str, Any]:
    """Train with a number of labels; return what it took."""
    agent, started, updates = rlseq.make_agent(name, policy, lr=lr, **hyper), time.process_time(), 0
    while (done := env.counts.as_dict()["reference_tokens"]) < labels:
        agent.set_progress(done / labels)
        agent.update(agent.collect(env))
        updates += 1
    seconds = round(time.process_time() - started, 1)
    return {"updates": updates, "seconds": seconds, **env.counts.as_dict()}


def measured(policy: Any, test: Any) -> dict[str, Any]:
    """Return the scores of greedy texts, and the policy's wrong words by position."""
    rows = rlseq.exposure_bias(policy, test, limit=TESTED)
    return {**rlseq.evaluate(policy, test, limit=TESTED), "positions": [row._asdict() for row in rows]}


# ── GAIL ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class OnAllSources(GAIL):
    """GAIL that writes about all sources of a task, and whose discriminator learns from those of another."""

    demonstrations: Any = None  # the task whose references are demonstrations

    def new_round(self, env: Any) -> None:
        """Train the discriminator on demonstrations, and on texts about their sources."""
        super().new_round(self.demonstrations)


def demonstrated(name: str, seed: int, number: int) -> dict[str, Any]:
    """Return the held-out scores of every agent that knows so many demonstrations."""
    setting = DEMONSTRATED[name]

    def task(shift: int, **more: Any) -> Any:
        few = {setting.demonstrations: number, "num_envs": ROWS, "seed": seed + shift}
        return rlseq.make(setting.id, **{**setting.options, **few, **more})

    test = task(0, num_envs=200, split="test", **{setting.demonstrations: 1000})
    torch.manual_seed(seed)
    policy = rlseq.make_policy(setting.policy, task(0), hidden=setting.hidden, embedding=24)
    found = {"mle": best_likelihood(setting, policy, task(0), test)}
    weights = {key: value.clone() for key, value in policy.state_dict().items()}
    for agent, make in going_on(setting, task).items():
        policy.load_state_dict(weights)
        torch.manual_seed(seed)
        made, env = make(policy)
        found[agent] = {**updated(made, env, setting.updates), **scored(policy, test)}
    return found


def best_likelihood(setting: Demonstrated, policy: Any, env: Any, test: Any) -> dict[str, Any]:
    """Train by likelihood; leave the policy where the held-out reward was best."""
    agent, kept = rlseq.make_agent("mle", policy, lr=setting.lr), policy.state_dict()
    best: dict[str, Any] = {"reward": float("-inf")}
    for update in range(setting.every, setting.updates + 1, setting.every):
        updated(agent, env, setting.every)
        scores = scored(policy, test)
        if scores["reward"] > best["reward"]:
            best = {"updates": update, **scores}
            kept = {key: value.clone() for key, value in policy.state_dict().items()}
    policy.load_state_dict(kept)
    return best


def going_on(setting: Demonstrated, task: Callable[..., Any]) -> dict[str, Callable[[Any], tuple[Any, Any]]]:
    """Return what makes every agent that starts from likelihood, and its task."""

    def gail(policy: Any, cls: type[GAIL] = GAIL, **given: Any) -> GAIL:
        judge = rlseq.make_discriminator("gru", task(0), hidden=setting.hidden, embedding=24)
        adversary = Adversary(judge, value=surprise, view=random_prefix, lr=1e-3, texts=setting.texts)
        return cls(policy, adversary=adversary, lr=setting.lr_on, **{**setting.lessons, **given})

    rows: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "mle, longer": lambda policy: (rlseq.make_agent("mle", policy, lr=setting.lr_on), task(1000)),
        "gail": lambda policy: (gail(policy), task(1000)),
        "gail, untrained discriminator": lambda policy: (gail(policy, pretraining=0, d=0), task(1000)),
    }
    if "source" in task(0).items:
        every = {setting.demonstrations: 10_000}
        rows["gail, all sources"] = lambda policy: (
            gail(policy, OnAllSources, demonstrations=task(2000)),
            task(1000, **every),
        )
    return rows


def updated(agent: Any, env: Any, updates: int) -> dict[str, Any]:
    """Make updates; return what they took."""
    started = time.process_time()
    for _ in range(updates):
        agent.update(agent.collect(env))
    return {"updates": updates, "seconds": round(time.process_time() - started, 1), **env.counts.as_dict()}


def scored(policy: Any, test: Any) -> dict[str, float]:
    """Return held-out scores: of greedy texts where a source tells the text, of samples elsewhere."""
    decode = "greedy" if "source" in test.items else "sample"
    return rlseq.evaluate(policy, test, decode, limit=TESTED)


# ── all runs ─────────────────────────────────────────────────────────────────────────────────────────────


def kept(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the runs of the same settings and commit that are done, by name."""
    path = record.RESULTS / "imitation.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    same = before.get("commit") == record.COMMIT and before["results"]["settings"] == settings
    return dict(before["results"]["runs"]) if same else {}


def jobs(parts: Sequence[str], seeds: Sequence[int], folder: Path) -> Iterator[tuple[str, Job]]:
    """Yield every run by name."""
    for seed in seeds:
        for name in LABELLED if "dagger" in parts else ():
            yield f"{name}, seed {seed}", partial(labelled, name, seed, folder)
        for name, setting in DEMONSTRATED.items() if "gail" in parts else ():
            for number in setting.numbers:
                yield (
                    f"{name}, {number} demonstrations, seed {seed}",
                    partial(demonstrated, name, seed, number),
                )


def main() -> None:
    """Make all runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["dagger", "gail"], choices=["dagger", "gail"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = {name: asdict(setting) for name, setting in LABELLED.items()}
    every |= {name: asdict(setting) for name, setting in DEMONSTRATED.items()}
    settings = json.loads(json.dumps(every))
    runs = kept(settings)
    with tempfile.TemporaryDirectory() as folder:
        for name, job in jobs(options.parts, options.seeds, Path(folder)):
            if name in runs:
                continue
            runs[name] = job()
            short = {agent: round(found["reward"], 4) for agent, found in runs[name].items()}
            print(f"{name} {short} {time.process_time():.0f} s", flush=True)
            record.write("imitation", {"settings": settings, "runs": runs})


if __name__ == "__main__":
    main()
