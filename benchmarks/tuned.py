"""What do `rlseq train AGENT --env ID` reach with nothing else, with the tuned settings of the package?

    python benchmarks/tuned.py [rlseq/Copy-v0 …]

Every agent that a file in rlseq/training/tuned has settings for is trained by that very command, and tested
on held-out sources, greedily before and after, and by samples after. Agents that were tuned after likelihood
start from the run of `mle`. Seconds are of one processor core. Writes results/tuned.json, which
keeps the tasks that are not named.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import record

import rlseq
from rlseq.cli import main as command
from rlseq.training.experiment_envs import held_out
from rlseq.training.run_folder import read_results
from rlseq.training.tuned_settings import tuned_settings

TASKS = tuple(
    f"rlseq/{path.name.removesuffix('.yaml')}" for path in (files("rlseq.training") / "tuned").iterdir()
)
SAMPLED = 1000  # items at most on which samples are tested
LIKELIHOOD = "runs/likelihood"  # the folder of the start in the commands that are recorded


def measured(id: str) -> dict[str, Any]:
    """Return what every agent of a task reaches, by the command."""
    tuned, found = tuned_settings(id), {}
    with tempfile.TemporaryDirectory() as folder:
        untrained = _untrained(id)
        for agent in tuned.agents:
            found[agent] = {
                "command": f"rlseq train {agent} --env {id}",
                "settings": dict(tuned.agents[agent]),
                "before": untrained,
                **trained([agent, "--env", id], Path(folder) / agent),
            }
        for agent in tuned.after_likelihood:
            found[f"{agent}, after likelihood"] = {
                "command": f"rlseq train {agent} --start {LIKELIHOOD}",
                "settings": dict(tuned.after_likelihood[agent]),
                "before": found["mle"]["reward"],
                **trained([agent, "--start", f"{folder}/mle"], Path(folder) / f"{agent}-after"),
            }
    return found


def trained(words: list[str], out: Path) -> dict[str, Any]:
    """Run a command; return the reward on held-out sources, its curve, and the seconds."""
    began = time.process_time()
    command(["train", *words, "--out", str(out), "--quiet"])
    results, model = read_results(out), rlseq.load(out)
    test = model.task(**held_out(model.run.env), num_envs=250)
    sampled = rlseq.evaluate(model.policy, test, limit=SAMPLED, decode="sample")
    return {
        "commit": record.commit(),  # a file keeps the tasks that were measured before
        "reward": round(results["final"]["reward"], 4),
        "sampled": round(sampled["reward"], 4),
        "curve": [[row["tokens"], round(row["eval_reward"], 4)] for row in results["curve"]],
        "seconds": round(time.process_time() - began, 1),
    }


def _untrained(id: str) -> float:
    test = rlseq.make(id, num_envs=250, **held_out(id))
    tuned = tuned_settings(id)
    policy = rlseq.make_policy(tuned.policy or "lstm", test, **tuned.sizes)
    return round(rlseq.evaluate(policy, test)["reward"], 4)


def main() -> None:
    """Measure the tasks that are named, and keep the results of the others."""
    path = record.RESULTS / "tuned.json"
    found = json.loads(path.read_text("utf-8"))["results"] if path.exists() else {}
    for id in sys.argv[1:] or TASKS:
        found[id] = measured(id)
        for name, run in found[id].items():
            print(id, name, run["before"], run["reward"], run["seconds"], flush=True)
        print(record.write("tuned", found))


if __name__ == "__main__":
    main()
