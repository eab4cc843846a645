"""Train on each metric in turn, and score on all: the shape of SCST's table (Rennie et al. 2017), on scenes.

    python benchmarks/recipes/captions.py [--agent scst] [--folder runs/captions] [--threads 2]

Likelihood first (XE); from its best checkpoint, training by reward on CIDEr-D, BLEU, ROUGE-L and METEOR (edit
distance where there is no Java). Every stage is a run folder: what is finished is not done again, and what
was interrupted goes on. Scored are the last weights of every stage, on test scenes that nothing was chosen
by, with the reference definitions of the metrics, where EOS is no word. Writes results/captions.json and
docs/images/captions-matrix.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

import record

import rlseq
from rlseq.metrics import unavailable
from rlseq.training import checkpoint

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "captions-matrix.png"
COLUMNS = {"cider_d": "CIDEr-D", "bleu_4_coco": "BLEU-4", "rouge_l": "ROUGE-L", "meteor": "METEOR"}
METEOR_IS_HERE = unavailable("meteor") is None
if not METEOR_IS_HERE:
    del COLUMNS["meteor"]
    COLUMNS["edit_distance"] = "edit distance ↓"
REWARDS = ("cider_d", "bleu", "rouge_l", "meteor" if METEOR_IS_HERE else "edit_distance")


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run."""

    scenes: int = 8000  # to train on
    held_out: int = 500  # for dev, and for test
    rows: int = 64
    hidden: int = 96
    likelihood: int = 1500  # updates
    rewards: int = 300  # updates, on each metric
    lr: float = 3e-3  # of likelihood
    lr_rewards: float = 1e-3


@dataclass(frozen=True)
class Recipe:
    """The stages, in folders of their own."""

    folder: Path
    agent: str
    sizes: Sizes

    def task(self, split: str, reward: str = "cider_d") -> Any:
        """Scenes of a split."""
        scenes = self.sizes.scenes if split == "train" else self.sizes.held_out
        rows = self.sizes.rows if split == "train" else 250
        return rlseq.make("rlseq/Captions-v0", num_envs=rows, scenes=scenes, split=split, reward=reward)

    def policy(self) -> Any:
        """A captioner with its first weights."""
        return rlseq.make_policy("captioner", self.task("dev"), hidden=self.sizes.hidden, embedding=64)

    def likelihood(self) -> Any:
        """The policy of highest CIDEr-D on dev."""
        policy, folder = self.policy(), self.folder / "xe"
        agent = rlseq.make_agent("mle", policy, lr=self.sizes.lr)
        self._train(agent, self.task("train"), self.sizes.likelihood, folder, self.task("dev"))
        best = json.loads((folder / "results.json").read_text(encoding="utf-8"))["best"]["update"]
        policy.load_state_dict(checkpoint.read(folder / "checkpoints", best)["policy"])
        return policy

    def rewarded(self, reward: str) -> Any:
        """That policy, trained on a metric."""
        policy = self.likelihood()
        agent = rlseq.make_agent(self.agent, policy, lr=self.sizes.lr_rewards)
        self._train(agent, self.task("train", reward), self.sizes.rewards, self.folder / reward)
        return policy

    def _train(self, agent: Any, env: Any, updates: int, out: Path, dev: Any = None) -> None:
        rlseq.train(agent, env, updates, dev, eval_every=250, out=out, probe=False)

    def scores(self, policy: Any, decode: Any) -> dict[str, Any]:
        """Every column, on test; and a few texts."""
        env, texts = self.task("test"), []
        for first in range(0, env.size, env.num_envs):
            items = torch.arange(first, first + env.num_envs)
            batch = rlseq.rollout(policy, env, decode=decode, index=items)
            texts += env.texts(batch.actions, batch.mask)
        references = env.corpus.texts()
        report = rlseq.metrics.evaluate(texts, references, metrics=(*COLUMNS, "length"))
        return {**report, "signatures": report.signatures, "texts": texts[:5], "references": references[:5]}


def table(recipe: Recipe) -> dict[str, Any]:
    """Rows by what they were trained on."""
    rows = {
        "XE, greedy": recipe.scores(recipe.likelihood(), rlseq.Greedy()),
        "XE, beam 3": recipe.scores(recipe.likelihood(), rlseq.Beam(3)),
    }
    for reward in REWARDS:
        rows[reward] = recipe.scores(recipe.rewarded(reward), rlseq.Greedy())
        print(reward, {name: round(rows[reward][name], 3) for name in (*COLUMNS, "length")}, flush=True)
    return rows


def picture(rows: dict[str, Any]) -> Figure:
    """The table, each column shaded by rank and its best printed in bold."""
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = figure.subplots()
    values = torch.tensor([[row[name] for name in COLUMNS] for row in rows.values()])
    better = torch.tensor([-1.0 if name == "edit_distance" else 1.0 for name in COLUMNS])
    shares = values * better
    shares = (shares - shares.amin(0)) / (shares.amax(0) - shares.amin(0))
    axes.imshow(shares.numpy(), cmap="Blues", vmin=-0.2, vmax=1.6, aspect="auto")
    for i, line in enumerate(values.tolist()):
        for j, value in enumerate(line):
            best = "bold" if shares[i, j] == 1 else "normal"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", weight=best)
    axes.set_xticks(range(len(COLUMNS)), list(COLUMNS.values()))
    axes.set_yticks(range(len(rows)), [name if "XE" in name else f"RL on {name}" for name in rows])
    axes.xaxis.tick_top()
    axes.set_xlabel("scored on 500 test scenes (rows: trained on)")
    return figure


def main() -> None:
    """All stages, the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agent", default="scst", help="what trains on rewards: scst, rloo, reinforce, …")
    parser.add_argument("--folder", type=Path, default=Path("runs/captions"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe(options.folder, options.agent, Sizes())
    rows = table(recipe)
    seconds = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["seconds"]
        for path in sorted(options.folder.glob("*/results.json"))
    }
    result = {
        "agent": options.agent,
        "sizes": vars(recipe.sizes),
        "seconds": seconds,
        "columns": COLUMNS,
        "rows": rows,
    }
    print(record.write("captions", result))
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    picture(rows).savefig(IMAGE, dpi=120)


if __name__ == "__main__":
    main()
