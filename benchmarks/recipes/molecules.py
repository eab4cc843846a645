"""Molecules of MOSES: what each reward adds to likelihood, and how much of the variety is left.

    pip download --no-deps molsets
    pip install 'rlseq[molecules]'
    python benchmarks/recipes/molecules.py molsets-*.whl [--seconds 22]

The wheel of `molsets` holds the molecules of MOSES (Polykovskiy et al. 2020); it is read as an archive, and
need not be installed. A policy learns by likelihood from 4,000 of them, and goes on from there for as many
CPU seconds each: by likelihood ("longer"), by RLOO with a constant reward, with the rules of size, rings and
other atoms, with the same where rdkit says which molecules are valid, and with uniqueness and diversity
beside them; all of it with several seeds. 500 samples of each are judged as one batch, validity by rdkit.
Differences to "longer" have intervals over molecules and over seeds, and a test by approximate randomisation;
the monitor of exploited rewards compares each with likelihood. Writes results/molecules.json, and the picture
docs/images/molecules.svg of the first valid samples.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import record
import torch
from recipes.seeds import compared, means, of_all_samples, scores_of, trained

import rlseq
from rlseq.engine.evaluation import evaluate_texts
from rlseq.metrics import Constant
from rlseq.training.reward_hacking import reward_hacking_alarms
from rlseq.utils.errors import need

FOLDER = "moses/dataset/data/"
READ = {"train": 4000, "test": 500}
JUDGES = ("rules", "valid", "novel", "unique", "diversity", "qed")
TESTED = ("rules", "qed")  # of each molecule alone, so that molecules are independent
RDKIT: dict[str, Any] = {"check": "rdkit"}
OWN = "rules, by valences"  # with the check of the package, which is the default
REWARDS: dict[str, dict[str, Any]] = {  # options of the task
    "constant": {"reward": Constant()},
    "rules": {"reward": "rules"},
    "rules, by rdkit": {"reward": "rules", **RDKIT},
    "rules, unique, diversity, by rdkit": {"reward": "rules + unique + diversity", **RDKIT},
}
LIKELIHOOD = 3  # times as long as every other stage
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "molecules.svg"
SHOWN, SIZE = 4, (170, 110)


def molecules_of(wheel: Path, part: str, count: int) -> list[str]:
    """Return molecules of a part, at equal distances."""
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(f"{FOLDER}{part}.csv.gz")).decode()
    rows = [line.split(",")[0] for line in text.splitlines()[1:]]
    return rows[:: max(1, len(rows) // count)][:count]


def written(wheel: Path, folder: Path) -> None:
    """Write the parts as files that the task reads."""
    for part, count in READ.items():
        (folder / f"{part}.smi").write_text("\n".join(molecules_of(wheel, part, count)) + "\n", "utf-8")


def task(folder: Path, split: str = "train", rows: int = 64, seed: int = 0, **options: Any) -> Any:
    """Return a part of the molecules."""
    return rlseq.make(
        "rlseq/Molecules-v0", num_envs=rows, seed=seed, path=str(folder), split=split, **options
    )


def sampled(policy: Any, test: Any, seed: int) -> Any:
    """Return as many samples as there are molecules in the test, and their scores."""
    torch.manual_seed(seed)
    return evaluate_texts(policy, test, "sample")


def real(test: Any) -> dict[str, float]:
    """Return the figures of the molecules of the test."""
    context = test.begin(index=torch.arange(test.size))
    tokens, lengths = context["references"][:, 0], context["reference_lengths"][:, 0]
    mask = torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)
    return {name: float(test.metrics[name](tokens, mask, context).mean()) for name in JUDGES}


def report(seeds: Sequence[dict[str, Any]], test: Any) -> dict[str, Any]:
    """Return figures of all stages, their differences to longer likelihood, alarms by seed, and molecules."""
    stages = {}
    before = [figures(one["likelihood"]) for one in seeds]
    for name in seeds[0]:
        samples, longer = ([one[stage] for one in seeds] for stage in (name, "longer"))
        now, trained_on = [figures(found) for found in samples], "rules" if "rdkit" in name else OWN
        stages[name] = {
            **means(now),
            "against longer": {
                judge: compared(scores_of(samples, judge), scores_of(longer, judge), of_all_samples)
                for judge in TESTED
            },
            "alarms": [reward_hacking_alarms([*pair], trained_on) for pair in zip(before, now, strict=True)],
            "molecules": [line["text"] for line in samples[0].lines(test) if line["scores"]["valid"]][:SHOWN],
        }
    return stages


def figures(found: Any) -> dict[str, float]:
    """Return the means of all judges, of the rules where rdkit is not asked, and of the length."""
    every = found.means()
    return {name: every[name] for name in (*JUDGES, OWN, "length")}


def slim(drawn: str) -> str:
    """Return the lines and letters of a drawing of rdkit, without the attributes that all of them share."""
    bonds = re.findall(r"<path class='bond[^>]* d='([^']*)'[^>]*stroke:(#\w+)", drawn)
    letters = re.findall(r"<path class='atom[^>]* d='([^']*)'[^>]*fill='(#\w+)'", drawn)
    return "".join(
        [f'<path d="{path}" stroke="{colour}" fill="none"/>' for path, colour in bonds]
        + [f'<path d="{path}" fill="{colour}"/>' for path, colour in letters]
    )


def picture(stages: dict[str, Sequence[str]]) -> str:
    """Return the first molecules of every stage in a row, drawn by rdkit."""
    chem, draw = need("rdkit.Chem", "molecules"), need("rdkit.Chem.Draw.rdMolDraw2D", "molecules")
    wide, high = SIZE
    rows = []
    for row, (name, molecules) in enumerate(stages.items()):
        top = row * (high + 24)
        rows.append(f'<text x="4" y="{top + 16}" font-size="13" fill="#5c6573">{name}</text>')
        for place, text in enumerate(molecules[:SHOWN]):
            board = draw.MolDraw2DSVG(wide, high)
            board.drawOptions().clearBackground = False
            board.DrawMolecule(chem.MolFromSmiles(text))
            board.FinishDrawing()
            drawn = slim(board.GetDrawingText())
            rows.append(f'<g transform="translate({place * wide} {top + 22})">{drawn}</g>')
    width, height = wide * SHOWN, len(stages) * (high + 24)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif">{"".join(rows)}</svg>\n'
    )


def learned(folder: Path, test: Any, seconds: float, seed: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Train and sample every stage with a seed; return the updates of each, and its samples."""
    torch.manual_seed(seed)
    train = task(folder, seed=seed)
    policy = rlseq.make_policy("lstm", train, hidden=192, embedding=64)
    updates = {"likelihood": trained(rlseq.make_agent("mle", policy, lr=4e-3), train, LIKELIHOOD * seconds)}
    start, samples = deepcopy(policy.state_dict()), {"likelihood": sampled(policy, test, seed)}
    updates["longer"] = trained(rlseq.make_agent("mle", policy, lr=1e-3), train, seconds)
    samples["longer"] = sampled(policy, test, seed)
    for name, asked in REWARDS.items():
        policy.load_state_dict(start)
        agent = rlseq.make_agent("rloo", policy, lr=1e-3, samples=16)
        updates[name] = trained(agent, task(folder, seed=seed, **asked), seconds)
        samples[name] = sampled(policy, test, seed)
        print(seed, name, samples[name].means(), flush=True)
    return updates, samples


def main() -> None:
    """Train, test, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=22, help="of each stage; likelihood takes three times as many"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(options.wheel, folder)
        train, test = task(folder), task(folder, "test", READ["test"], reward="qed", **RDKIT)
        test.metrics = {**test.metrics, OWN: train.metrics["rules"]}
        updates, samples = zip(
            *(learned(folder, test, options.seconds, seed) for seed in range(options.seeds)), strict=True
        )
        found = {
            "seconds_of_each_stage": options.seconds,
            "seeds": options.seeds,
            "molecules": {"train": train.size, "test": test.size},
            "updates": {stage: [one[stage] for one in updates] for stage in updates[0]},
            "real": {judge: round(value, 4) for judge, value in real(test).items()},
            "stages": report(samples, test),
        }
    shown = {
        "molecules of the test": molecules_of(options.wheel, "test", READ["test"])[:SHOWN],
        **{name: stage["molecules"] for name, stage in found["stages"].items()},
    }
    PICTURE.write_text(picture(shown), "utf-8")
    print(record.write("molecules", found))


if __name__ == "__main__":
    main()
