"""Tunes of O'Neill's collection: what a reward of form adds to likelihood, and what it costs.

    pip download --no-deps music21
    python benchmarks/recipes/tunes.py music21-*.whl [--seconds 40]

The wheel of `music21` holds the 1850 tunes as ABC files; it is read as an archive, and need not be installed.
Of tunes with the same title only the first is used. A policy reads four bars and writes the next four. It
learns by likelihood, and goes on from there for as many CPU seconds each: by likelihood ("longer"), by RLOO
with a constant reward, with the three rules of form, and with the rules and BLEU-2; all of it with several
seeds. All are tested on the same held-out tunes, greedily and by one sample of each; differences to "longer"
have intervals over tunes, each with the mean of its seeds, and over seeds, and a test by approximate
randomisation; the monitor of exploited rewards compares each with likelihood. Writes results/tunes.json, and
the picture docs/images/tunes.svg of greedy texts for one tune.
"""

from __future__ import annotations

import argparse
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
from recipes.seeds import compared, means, of_same_items, scores_of, trained

import rlseq
from rlseq.engine.evaluation import evaluate_texts
from rlseq.envs.piano_roll import piano_roll
from rlseq.metrics import Constant
from rlseq.training.experiment_envs import metric
from rlseq.training.reward_hacking import diversity_metrics, reward_hacking_alarms

FOLDER = "music21/corpus/oneills1850/"
OPTIONS: dict[str, Any] = {"bars": 8, "opening": 4, "skip_bad": True, "min_count": 2}
REWARDS: dict[str, Any] = {
    "constant": Constant(),
    "form": "form",
    "form and BLEU-2": "form + bleu_2",
}
FIGURES = ("form", "key", "metre", "closure", "bleu_2", "copied", "length")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "tunes.svg"
WAYS = ("greedy", "sample")
SHOWN = 3


def tunes_of(wheel: Path) -> str:
    """Return the tunes of all files of the collection as one text, each title once."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith(FOLDER) and n.endswith(".abc"))
        text = "\n\n".join(archive.read(name).decode("utf-8", "replace") for name in names)
    found: dict[str, str] = {}
    for tune in re.split(r"(?m)^(?=X:)", text.replace("\r\n", "\n").replace("\r", "\n"))[1:]:
        title = re.search(r"(?m)^T:\s*(.*)", tune)
        found.setdefault(title[1].casefold().strip() if title else tune, tune.split("\n\n")[0].rstrip())
    return "\n\n".join(found.values()) + "\n"


def task(path: Path, split: str = "train", rows: int = 64, seed: int = 0, **options: Any) -> Any:
    """Return a part of the tunes."""
    return rlseq.make(
        "rlseq/Music-v0", num_envs=rows, seed=seed, path=str(path), split=split, **OPTIONS, **options
    )


def tested(policy: Any, test: Any) -> dict[str, Any]:
    """Return the texts of all test items by both ways of decoding."""
    torch.manual_seed(0)
    return {decode: evaluate_texts(policy, test, decode) for decode in WAYS}


def figures(found: Any) -> dict[str, float]:
    """Return means over tunes, and figures of all texts together."""
    return {**{name: found.means()[name] for name in FIGURES}, **diversity_metrics(found)}


def learned(path: Path, test: Any, seconds: float, seed: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Train every stage with a seed; return the updates of each, and its texts of the test."""
    torch.manual_seed(seed)
    train = task(path, seed=seed)
    policy = rlseq.make_policy("seq2seq", train, hidden=96, embedding=48, dropout=0.2)
    updates = {"likelihood": trained(rlseq.make_agent("mle", policy, lr=3e-3), train, 2 * seconds)}
    start, texts = deepcopy(policy.state_dict()), {"likelihood": tested(policy, test)}
    updates["longer"] = trained(rlseq.make_agent("mle", policy, lr=1e-3), train, seconds)
    texts["longer"] = tested(policy, test)
    for name, reward in REWARDS.items():
        policy.load_state_dict(start)
        agent = rlseq.make_agent("rloo", policy, lr=1e-3, samples=4)
        updates[name] = trained(agent, task(path, seed=seed, reward=reward), seconds)
        texts[name] = tested(policy, test)
        print(seed, name, figures(texts[name]["greedy"]), flush=True)
    return updates, texts


def report(seeds: Sequence[dict[str, dict[str, Any]]], test: Any) -> dict[str, Any]:
    """Return figures of all stages, their differences to longer likelihood, and alarms by seed."""
    stages: dict[str, Any] = {}
    for name in seeds[0]:
        stages[name] = {}
        for decode in WAYS:
            texts, longer = ([one[stage][decode] for one in seeds] for stage in (name, "longer"))
            before = [figures(one["likelihood"][decode]) for one in seeds]
            now = [figures(found) for found in texts]
            stages[name][decode] = {
                **means(now),
                "against longer": {
                    figure: compared(scores_of(texts, figure), scores_of(longer, figure), of_same_items)
                    for figure in ("form", "bleu_2")
                },
                "alarms": [reward_hacking_alarms([*pair], "form") for pair in zip(before, now, strict=True)],
            }
        stages[name]["texts"] = [line["text"] for line in seeds[0][name]["greedy"].lines(test)[:SHOWN]]
    lines = seeds[0]["likelihood"]["greedy"].lines(test)[:SHOWN]
    items = [{"source": line["source"], "references": line["references"]} for line in lines]
    return {"items": items, "stages": stages}


def picture(found: dict[str, Any]) -> str:
    """Return the texts for the first tune as piano rolls below each other, each with its name."""
    item, rows, height = found["items"][0], [], 0
    rolls = {"the tune": item["references"][0]}
    rolls |= {name: stage["texts"][0] for name, stage in found["stages"].items()}
    for name, text in rolls.items():
        drawn = piano_roll(item["source"], text)
        tall = int(re.search(r'viewBox="0 0 [\d.]+ (\d+)"', drawn)[1])  # type: ignore[index]
        rows.append(f'<text x="0" y="{height + 14}" font-size="13" fill="#5c6573">{name}</text>')
        rows.append(drawn.replace("<svg ", f'<svg y="{height + 20}" height="{tall}" ', 1))
        height += tall + 34
    width = max(float(w) for w in re.findall(r'viewBox="0 0 ([\d.]+)', "".join(rows)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" '
        f'height="{height}" font-family="sans-serif">{"".join(rows)}</svg>\n'
    )


def main() -> None:
    """Train, test, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=40, help="of each stage; likelihood takes twice as many"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tunes.abc"
        path.write_text(tunes_of(options.wheel), "utf-8")
        test = task(path, "test", 250)
        test.metrics = {name: metric(test, name) for name in FIGURES[:-1]}
        updates, texts = zip(
            *(learned(path, test, options.seconds, seed) for seed in range(options.seeds)), strict=True
        )
        found = {
            "seconds_of_each_stage": options.seconds,
            "seeds": options.seeds,
            "options": OPTIONS,
            "tunes": {"train": task(path).size, "test": test.size},
            "updates": {name: [one[name] for one in updates] for name in updates[0]},
            **report(texts, test),
        }
    PICTURE.write_text(picture(found), "utf-8")
    print(record.write("tunes", found))


if __name__ == "__main__":
    main()
