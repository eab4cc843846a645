"""Likelihood, then a reward, on a text task: what does the second add, and is it more than chance?

    python benchmarks/recipes/text.py NAME [--folder runs/recipes] [--threads 2]

Likelihood stops where pairs of dev are likeliest; from those weights RLOO goes on with the task's reward,
its step size falling to zero, and the weights that earn most on dev are kept. Both are scored on the same
test items, which nothing was chosen by, greedy and with a beam; the difference has a paired bootstrap over
items, and a test by approximate randomisation. What a reward has to win is measured before: do the samples
to which all others are nearest make fewer errors than greedy texts (recipes/risk.py)? "vowels" is a
stranger's data: a TSV of 7,000 pairs that the script writes, words of the dictionary without their vowels
and with them, to which several words are often right. Writes results/recipe-NAME.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import record
from recipes.risk import least_risk
from recipes.stages import likelihood, rewarded, seconds

import rlseq
from rlseq.compare import statistics
from rlseq.evaluation import judged

SHOWN = 8
RISK = 2000, 32  # items, samples of each
ALMOST_NOTHING = 0.02  # errors a text
DECODERS: dict[str, Any] = {"greedy": rlseq.Greedy(), "beam": rlseq.Beam(5)}


@dataclass(frozen=True)
class Setting:
    """A task, and how much of everything."""

    id: str
    compared: str  # the figure of every item by which the two are compared; less is better
    pooled: tuple[str, ...]  # figures of all items at once, by their reference definitions
    stages: tuple[tuple[int, float], ...]  # of likelihood: updates, and their step size
    updates: int  # on the reward
    lr: float  # of the first of them; it falls to zero
    options: dict[str, Any] = field(default_factory=dict)  # of the task
    hidden: int = 128
    rows: int = 256  # of a batch
    samples: int = 4  # K of RLOO
    dropout: float = 0.0
    test: int | None = None  # items; all when not given


SETTINGS = {
    "g2p": Setting(
        *("rlseq/G2P-v0", "edit_distance", ("per", "exact")),
        stages=((5000, 2e-3), (3000, 3e-4)),
        updates=2500,
        lr=3e-4,
    ),
    # With one step size throughout, as likelihood is often left: how much of a gain is only its fall?
    "g2p-one-rate": Setting(
        *("rlseq/G2P-v0", "edit_distance", ("per", "exact")),
        stages=((5000, 2e-3),),
        updates=2000,
        lr=3e-4,
    ),
    "vowels": Setting(
        *("rlseq/Parallel-v0", "edit_distance", ("cer", "exact")),
        stages=((1500, 2e-3), (500, 3e-4)),
        updates=4000,
        lr=3e-4,
        dropout=0.3,
    ),
    "parallel": Setting(
        *("rlseq/Parallel-v0", "edit_distance", ("bleu", "chrf", "exact")),
        stages=((500, 2e-3),),
        updates=200,
        lr=3e-4,
        rows=128,
    ),
    "numbers": Setting(
        *("rlseq/Numbers-v0", "edit_distance", ("cer", "exact")),
        stages=((1500, 2e-3), (500, 3e-4)),
        updates=500,
        lr=3e-4,
        rows=128,
        test=1000,
    ),
}


@dataclass(frozen=True)
class Recipe:
    """The stages of a setting, in a folder."""

    name: str
    setting: Setting
    folder: Path

    def task(self, split: str, rows: int | None = None) -> Any:
        """A split."""
        setting = self.setting
        options = dict(setting.options)
        if self.name == "vowels":
            options["path"] = vowels(self.folder / "vowels.tsv")
        return rlseq.make(setting.id, num_envs=rows or setting.rows, split=split, **options)

    def run(self) -> dict[str, Any]:
        """Train, and compare."""
        setting, train = self.setting, self.task("train")
        policy = rlseq.make_policy(
            "seq2seq", train, hidden=setting.hidden, embedding=64, dropout=setting.dropout
        )
        found = {"dev nll": likelihood(policy, train, self.task("dev", 2000), self.folder, setting.stages)}
        before = self.scored(policy)
        found["risk"] = least_risk(policy, partial(self.task, "test"), *RISK)
        agent = rlseq.make_agent("rloo", policy, lr=setting.lr, samples=setting.samples, schedule="linear")
        rewarded(agent, train, self.task("dev", 250), self.folder / "rloo", setting.updates)
        after = self.scored(policy)
        return {**found, "before": before, "after": after, "seconds": seconds(self.folder)}

    def scored(self, policy: Any) -> dict[str, Any]:
        """The texts of test by every decoder, and their scores."""
        test = self.task("test", 250)
        return {
            name: judged(policy, test, decode, limit=self.setting.test) for name, decode in DECODERS.items()
        }

    def report(self, found: dict[str, Any]) -> dict[str, Any]:
        """What is kept of it: figures, not texts."""
        test, columns = self.task("test", 250), {}
        for name in DECODERS:
            old, new = found["before"][name], found["after"][name]
            a, b = (side.scores[self.setting.compared].double().numpy() for side in (old, new))
            gain = statistics.paired_bootstrap(b, a)
            columns[name] = {
                "likelihood": self.figures(old, test),
                "rloo": self.figures(new, test),
                "difference": gain._asdict(),
                "relative": gain.estimate / float(a.mean()) if a.any() else 0.0,
                "p": statistics.approximate_randomisation(b, a),
                "verdict": verdict(gain, float(a.mean())),
            }
        lines = [side["greedy"].lines(test)[:SHOWN] for side in (found["before"], found["after"])]
        samples = [
            {k: old[k] for k in ("source", "references")} | {"likelihood": old["text"], "rloo": new["text"]}
            for old, new in zip(*lines, strict=True)
        ]
        return {
            "setting": asdict(self.setting),
            **{name: found[name] for name in ("dev nll", "risk")},
            "seconds": found["seconds"],
            **columns,
            "samples": samples,
        }

    def figures(self, side: Any, test: Any) -> dict[str, float]:
        """Means over items, and figures of all items at once."""
        pooled = side.pooled(test, self.setting.pooled)
        return {**side.means(), **{f"pooled {name}": value for name, value in pooled.items()}}


def verdict(gain: statistics.Interval, before: float) -> str:
    """What a difference in errors per text says."""
    if before < ALMOST_NOTHING:
        return f"likelihood leaves {before:.3f} errors a text: there is nothing to win, and RL adds nothing"
    interval = f"{100 * gain.low / before:+.1f} to {100 * gain.high / before:+.1f} %, {gain.n} items"
    if gain.low <= 0 <= gain.high:
        return f"RL adds nothing that these items could show ({interval})"
    return f"RL {'lowers' if gain.estimate < 0 else 'raises'} errors by {interval}"


def vowels(path: Path) -> Path:
    """A TSV of 7,000 words without their vowels, and with them; short ones, as these have most readings."""
    if not path.exists():
        words = sorted({word for word in dictionary_words() if word.isalpha() and 3 <= len(word) <= 7})
        pairs = [("".join(c for c in word if c not in "aeiouy"), word) for word in words]
        pairs = [pair for pair in pairs if len(pair[0]) > 1]
        Random(0).shuffle(pairs)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs[:7000]), "utf-8")
    return path


def dictionary_words() -> list[str]:
    """The words of the CMU dictionary."""
    from rlseq.envs.g2p import the_dictionary

    lines = the_dictionary().read_text("utf-8").splitlines()
    return [line.split()[0] for line in lines if line and "(" not in line.split()[0]]


def main() -> None:
    """Run what is asked for, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=list(SETTINGS))
    parser.add_argument("--folder", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    recipe = Recipe(options.name, SETTINGS[options.name], options.folder / options.name)
    report = recipe.report(recipe.run())
    for name in DECODERS:
        print(f"{name}: {report[name]['verdict']}")
    print(record.write(f"recipe-{options.name}", report))


if __name__ == "__main__":
    main()
