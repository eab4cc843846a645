"""Likelihood, then a reward, on a text task: what does the second add, and is it more than chance?

    python benchmarks/recipes/text.py NAME [--seed 0] [--folder runs/recipes] [--threads 2]
    python benchmarks/recipes/text.py PATH [--seed 0] …

Likelihood stops where pairs of dev are likeliest. From those weights RLOO goes on with the task's reward,
its step size falling to zero, and the weights that earn most on dev are kept. As a control likelihood goes
on too, with the same updates and the same choice ("longer"): is it the reward that helps, or more training?
All are scored on the same test items, which nothing was chosen by, greedy and with a beam; differences have
a paired bootstrap over items, and a test by approximate randomisation. What a reward has to win is measured
before (rlseq/recipe/risk.py): do the samples to which all others are nearest make fewer errors than greedy
texts? "vowels" and "sounds" are pairs from files not seen during development (recipes/words.py). Of a NAME it
writes results/recipe-NAME.json, of the path of your own files report.json in its folder. `rlseq fit` does the
same for your own files with less to decide; this script has fixed settings, and tests with a beam, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import record
from recipes import words

import rlseq
from rlseq.data.cache import key_of
from rlseq.data.locate import find
from rlseq.engine.evaluation import evaluate_texts
from rlseq.recipe.difference import difference
from rlseq.recipe.risk import least_risk
from rlseq.recipe.stages import EVERY, Stage, likelihood, seconds, train_on_reward

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
    stages: tuple[Stage, ...]  # of likelihood
    updates: int  # on the reward
    lr: float  # of the first of them; it falls to zero
    options: dict[str, Any] = field(default_factory=dict)  # of the task
    files: Callable[[Path], Path] | None = None  # writes its data into a folder, and says where
    hidden: int = 128
    rows: int = 256  # of a batch
    samples: int = 4  # K of RLOO
    dropout: float = 0.0
    test: int | None = None  # items; all when not given


PAIRS = Setting(  # a few thousand pairs of short texts, from files
    *("rlseq/Parallel-v0", "edit_distance", ("cer", "exact")),
    stages=(Stage(1500, 2e-3), Stage(500, 3e-4)),
    updates=2000,
    lr=3e-4,
    dropout=0.3,
    options={"reward": "edit"},
)
SETTINGS = {
    "g2p": Setting(
        *("rlseq/G2P-v0", "edit_distance", ("per", "exact")),
        stages=(Stage(5000, 2e-3), Stage(3000, 3e-4)),
        updates=2500,
        lr=3e-4,
    ),
    # With one step size throughout, as likelihood is often left: how much of a gain is only its fall?
    "g2p-one-rate": Setting(
        *("rlseq/G2P-v0", "edit_distance", ("per", "exact")),
        stages=(Stage(5000, 2e-3),),
        updates=2000,
        lr=3e-4,
    ),
    "vowels": replace(PAIRS, files=partial(words.write, told=words.without_vowels)),
    "sounds": replace(PAIRS, files=partial(words.write, told=words.consonant_sounds)),
    "parallel": Setting(
        *("rlseq/Parallel-v0", "edit_distance", ("bleu", "chrf", "exact")),
        stages=(Stage(500, 2e-3),),
        updates=200,
        lr=3e-4,
        rows=128,
    ),
    "numbers": Setting(
        *("rlseq/Numbers-v0", "edit_distance", ("cer", "exact")),
        stages=(Stage(1500, 2e-3), Stage(500, 3e-4)),
        updates=500,
        lr=3e-4,
        rows=128,
        test=1000,
    ),
}


# From the likeliest weights, with the same step size, as many updates, and the same choice on dev.
GOING_ON: dict[str, Callable[[Any, Setting], Any]] = {
    "longer": lambda policy, setting: rlseq.make_agent("mle", policy, lr=setting.lr, schedule="linear"),
    "rloo": lambda policy, setting: rlseq.make_agent(
        "rloo", policy, lr=setting.lr, samples=setting.samples, schedule="linear"
    ),
}


@dataclass(frozen=True)
class Recipe:
    """The stages of a setting, in a folder."""

    setting: Setting
    folder: Path
    seed: int = 0

    def task(self, split: str, rows: int | None = None) -> Any:
        """A split."""
        setting, options = self.setting, dict(self.setting.options)
        if setting.files:
            options["path"] = setting.files(self.folder / "data")
        return rlseq.make(setting.id, rows or setting.rows, seed=self.seed, split=split, **options)

    def run(self) -> dict[str, Any]:
        """Train, and compare; figures, not texts."""
        setting, train = self.setting, self.task("train")
        policy = rlseq.make_policy(
            "seq2seq", train, hidden=setting.hidden, embedding=64, dropout=setting.dropout
        )
        pairs, dev = partial(self.task, "train"), self.task("dev", 2000)
        nll = likelihood(policy, pairs, dev, self.folder, setting.stages, every=EVERY)
        found: dict[str, Any] = {"dev nll": nll}
        likeliest = deepcopy(policy.state_dict())
        texts = {"likelihood": self.scored(policy)}
        found["risk"] = least_risk(policy, partial(self.task, "test"), *RISK, setting.compared)
        for name, make in GOING_ON.items():
            policy.load_state_dict(likeliest)
            agent = make(policy, setting)
            train_on_reward(
                agent, self.task("train"), self.task("dev", 250), self.folder / name, setting.updates
            )
            texts[name] = self.scored(policy)
        return self.report(found, texts)

    def scored(self, policy: Any) -> dict[str, Any]:
        """The texts of test by every decoder, and their scores."""
        test = self.task("test", 250)
        return {
            name: evaluate_texts(policy, test, decode, limit=self.setting.test)
            for name, decode in DECODERS.items()
        }

    def report(self, found: dict[str, Any], texts: dict[str, Any]) -> dict[str, Any]:
        """Return the figures, and the differences of the texts."""
        test = self.task("test", 250)
        lines = {name: side["greedy"].lines(test)[:SHOWN] for name, side in texts.items()}
        samples = [
            {key: line[key] for key in ("source", "references")}
            | {name: lines[name][i]["text"] for name in texts}
            for i, line in enumerate(lines["likelihood"])
        ]
        return {
            "setting": {name: value for name, value in asdict(self.setting).items() if name != "files"},
            "seed": self.seed,
            **found,
            "seconds": seconds(self.folder),
            **{
                way: self.compared({name: side[way] for name, side in texts.items()}, test)
                for way in DECODERS
            },
            "samples": samples,
        }

    def compared(self, sides: dict[str, Any], test: Any) -> dict[str, Any]:
        """The same items: what they are after each stage, and what RLOO changes against the other two."""
        errors = {name: side.scores[self.setting.compared].double().numpy() for name, side in sides.items()}
        found: dict[str, Any] = {name: self.figures(side, test) for name, side in sides.items()}
        for other in ("likelihood", "longer"):
            gain = difference(errors["rloo"], errors[other])
            found[f"against {other}"] = {**gain, "verdict": verdict(gain, float(errors[other].mean()))}
        return found

    def figures(self, side: Any, test: Any) -> dict[str, float]:
        """Means over items, and figures of all items at once."""
        pooled = side.pooled(test, self.setting.pooled)
        return {**side.means(), **{f"pooled {name}": value for name, value in pooled.items()}}


def verdict(gain: dict[str, Any], before: float) -> str:
    """Return a sentence on a difference in errors per text."""
    if before < ALMOST_NOTHING:
        return f"likelihood leaves {before:.3f} errors a text: there is nothing to win, and RL adds nothing"
    low, high = (100 * gain[end] / before for end in ("low", "high"))
    interval = f"{low:+.1f} to {high:+.1f} %, {gain['n']} items"
    if gain["low"] <= 0 <= gain["high"]:
        return f"RL adds nothing that these items could show ({interval})"
    return f"RL {'lowers' if gain['estimate'] < 0 else 'raises'} errors by {interval}"


def summary(report: dict[str, Any]) -> str:
    """Return a report in a few lines."""
    compared, risk = report["setting"]["compared"], report["risk"]
    lines = []
    for way in DECODERS:
        part = report[way]
        for name in ("likelihood", "longer"):
            old, new, gain = part[name][compared], part["rloo"][compared], part[f"against {name}"]
            lines.append(
                f"{way}, against {name}: {old:.3f} → {new:.3f} errors a text, p = {gain['p']:.4f}; "
                f"{gain['verdict']}"
            )
    if risk["greedy"]:
        change = 100 * (risk["least_risk"] / risk["greedy"] - 1)
        lines.append(
            f"the sample nearest to {risk['samples']} of likelihood's: {change:+.1f} % against greedy"
        )
    for sample in report["samples"][:3]:
        texts = ", ".join(sample["references"][:4])
        lines.append(f"  {sample['source']} → {sample['likelihood']} → {sample['rloo']}; right: {texts}")
    return "\n".join(lines)


def named(path: str) -> str:
    """A folder's name for the data of a path: other content is another run, whatever it is called."""
    files = [file for origin in find(path).values() for file in origin.files]
    return f"{Path(path).stem}-{key_of(files, {})[:8]}"


def main() -> None:
    """Run what is asked for, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", help=f"{', '.join(SETTINGS)}, or the path of your own files")
    parser.add_argument("--folder", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--seed", type=int, default=0, help="of weights, order of items and samples")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    setting = SETTINGS.get(options.name)
    own = replace(PAIRS, options={**PAIRS.options, "path": options.name})
    try:
        name = options.name if setting else named(options.name)
        name += f"-seed-{options.seed}" if options.seed else ""
        folder = options.folder / name
        recipe = Recipe(setting or own, folder, options.seed)
        for split in ("train", "dev", "test"):  # what is missing is said before anything is learned
            recipe.task(split)
    except (OSError, ValueError) as error:
        parser.error(f"{error}; recipes: {', '.join(SETTINGS)}")
    report = recipe.run()
    print(summary(report))
    if options.name in SETTINGS:
        print(record.write(f"recipe-{name}", report))
    else:
        print(record.write("report", report, folder))


if __name__ == "__main__":
    main()
