"""Numbers of waits for a GPU, and of kernels, in the rollouts and updates of every agent.

    python benchmarks/pretended_device.py [--agents reinforce ppo]

No GPU is needed: a CUDA device is pretended (`tests/pretended`), which counts and does not time. Tasks and
networks are small, as the counts do not depend on their sizes.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.pretended import guard

if __name__ == "__main__":
    guard.load()  # before torch is imported

import record

import rlseq
from rlseq.agents import AGENTS
from tests.pretended import cuda, fusion
from tests.pretended.exercises import Trial, answers, beside_the_step, counted

POLICIES = ("lstm", "gru", "seq2seq", "transformer")
MOST_KERNELS = {"lstm": 15, "transformer, 4 layers": 45}  # of a token, compiled
LENGTHS = (3, 6)  # of texts, fewer than the steps between two looks at whether all are done


def rollouts(policy: str) -> dict[str, Any]:
    """Return how often the host waits in a rollout, and the number of kernels that one more token needs."""
    found = []
    for length in LENGTHS:
        env = rlseq.make("rlseq/Copy-v0", num_envs=8, seed=0, device="cuda", vocab_size=4, length=length)
        made = rlseq.make_policy(policy, env, hidden=8)
        (waits, kernels), _ = counted(lambda made=made, env=env: rlseq.rollout(made, env))  # type: ignore[misc]
        found.append((waits, kernels))
    (waits, few), (_, many) = found
    return {"waits": waits, "kernels_per_token": (many - few) / (LENGTHS[1] - LENGTHS[0])}


def compiled(steps: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return the kernels of a token where steps, which sample and append, too, are compiled; and the bar."""
    beside = beside_the_step()
    return {
        name: {
            "step": step,
            "beside_the_step": beside,
            "kernels_per_token": sum(step.values()) + beside,
            "at_most": MOST_KERNELS[name],
        }
        for name, step in steps.items()
    }


def updates(agents: Sequence[str]) -> dict[str, Any]:
    """Return how often the host waits in a batch and in an update of each agent, and the kernels."""
    found = {}
    for name in agents:
        trial = Trial(name)
        answer = answers([trial])[trial.name]
        found[name] = answer
        waits = "failed" if "error" in answer else [sum(answer[k].values()) for k in ("collect", "update")]
        print(name, waits, flush=True)
    return found


def main() -> None:
    """Count, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    written = [name for name, agent in AGENTS.items() if agent.writes_texts]
    parser.add_argument("--agents", nargs="+", choices=written, default=written)
    names = parser.parse_args().agents
    warnings.simplefilter("ignore")  # of discriminators that have hardly learned
    machine = record.machine()  # before there seems to be a GPU
    record.machine = lambda: machine
    cuda.replace_cuda()
    steps = {name: fusion.compiled_step(*how) for name, how in fusion.POLICIES.items()}
    cuda.install()
    found = {"rollouts": {name: rollouts(name) for name in POLICIES}, "compiled": compiled(steps)}
    results = {**found, "updates": updates(names)}
    print(record.write("pretended-device", results))


if __name__ == "__main__":
    main()
