"""Quatrains of the Tang: what rewards of form, and a discriminator, add to likelihood, and what they cost.

    git clone --depth 1 https://github.com/chinese-poetry/chinese-poetry
    pip install 'rlseq[poems]'
    python benchmarks/recipes/poems.py chinese-poetry [--seconds 14]

Its folder `全唐诗` holds the Complete Tang Poems as JSON; of these the quatrains with seven characters a line
are used, each once, and nothing of them is in this repository. An LSTM learns by likelihood, and goes on
from there for as many CPU seconds each: by likelihood ("longer"), by RLOO with a constant reward, with the
three rules of form, and with the rules and BLEU-3, and against a discriminator that has never heard of the
rules; all of it with several seeds. 500 samples of each are judged, BLEU-3 against held-out poems.
Differences to "longer" have intervals over samples and over seeds, and a test by approximate randomisation;
the monitor of exploited rewards compares each with likelihood. Writes results/poems.json, and the picture
docs/images/poems.svg of the first sample of each.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import record
import torch
from recipes.seeds import compared, means, of_all_samples, scores_of, trained

import rlseq
from rlseq.data.poems import from_package, verses_of
from rlseq.discriminators import Adversary
from rlseq.engine.evaluation import evaluate_texts
from rlseq.metrics import Constant
from rlseq.policy_gradient.baselines import mean
from rlseq.training.experiment_envs import metric
from rlseq.training.reward_hacking import diversity_metrics, reward_hacking_alarms
from rlseq.vocab import UNK

LINES, SYLLABLES = 4, 7
OPTIONS: dict[str, Any] = {"lines": LINES, "syllables": SYLLABLES, "min_count": 5}
REWARDS: dict[str, Any] = {
    "constant": Constant(),
    "form": "form",
    "form and BLEU-3": "form + bleu_3",
    "discriminator": "form",  # which it does not see
}
FIGURES = ("form", "lines", "tones", "rhyme", "bleu_3", "copied", "length")
TESTED = 500  # samples
LIKELIHOOD = 3  # times as long as every other stage
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "poems.svg"
CHARACTER = 24  # width in the picture
TONES = {True: "#2c7fb8", False: "#d95f0e", None: "#5c6573"}  # level, oblique, unknown


def quatrains_of(folder: Path) -> list[str]:
    """Return the quatrains of a clone of the repository, each once, in the order of its files."""
    paths = sorted((folder / "全唐诗").glob("poet.tang.*.json"), key=lambda path: int(path.suffixes[-2][1:]))
    poems = ("".join(poem["paragraphs"]) for path in paths for poem in json.loads(path.read_text("utf-8")))
    right = (
        poem
        for poem in poems
        if [len(line) for line in verses_of(poem)] == [SYLLABLES] * LINES
        and re.fullmatch(r"[\u4e00-\u9fff，。！？；、：]+", poem)
    )
    return list(dict.fromkeys(right))


def task(path: Path, split: str = "train", rows: int = 64, seed: int = 0, **options: Any) -> Any:
    """Return a part of the poems."""
    return rlseq.make(
        "rlseq/Poems-v0", num_envs=rows, seed=seed, path=str(path), split=split, **OPTIONS, **options
    )


def by_reward(policy: Any, env: Any) -> Any:
    """Return the agent that trains on the reward of the task."""
    return rlseq.make_agent("rloo", policy, lr=1e-3, samples=16)


def by_discriminator(policy: Any, env: Any) -> Any:
    """Return the agent whose reward is a discriminator of poems."""
    judge = rlseq.make_discriminator("gru", env, hidden=96, embedding=48)
    adversary = Adversary(judge, lr=1e-3, texts=256)
    rounds = {"pretraining": 4, "g": 2, "d": 1, "k": 1}
    return rlseq.make_agent("adversarial", policy, lr=1e-3, baseline=mean, adversary=adversary, **rounds)


AGENTS: dict[str, Callable[[Any, Any], Any]] = {"discriminator": by_discriminator}


def sampled(policy: Any, test: Any, seed: int) -> Any:
    """Return samples and their scores."""
    torch.manual_seed(seed)
    return evaluate_texts(policy, test, "sample", limit=TESTED)


def figures(found: Any) -> dict[str, float]:
    """Return means over samples, and figures of all of them together."""
    every = found.means()
    return {**{name: every[name] for name in FIGURES}, **diversity_metrics(found)}


def learned(path: Path, test: Any, seconds: float, seed: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Train and sample every stage with a seed; return the updates of each, and its samples."""
    torch.manual_seed(seed)
    train = task(path, seed=seed)
    policy = rlseq.make_policy("lstm", train, hidden=192, embedding=96)
    updates = {"likelihood": trained(rlseq.make_agent("mle", policy, lr=4e-3), train, LIKELIHOOD * seconds)}
    start, samples = deepcopy(policy.state_dict()), {"likelihood": sampled(policy, test, seed)}
    updates["longer"] = trained(rlseq.make_agent("mle", policy, lr=1e-3), train, seconds)
    samples["longer"] = sampled(policy, test, seed)
    for name, reward in REWARDS.items():
        policy.load_state_dict(start)
        env = task(path, seed=seed, reward=reward)
        updates[name] = trained(AGENTS.get(name, by_reward)(policy, env), env, seconds)
        samples[name] = sampled(policy, test, seed)
        print(seed, name, figures(samples[name]), flush=True)
    return updates, samples


def report(seeds: Sequence[dict[str, Any]], test: Any) -> dict[str, Any]:
    """Return figures of all stages, their differences to longer likelihood, alarms by seed, and poems."""
    stages = {}
    before = [figures(one["likelihood"]) for one in seeds]
    for name in seeds[0]:
        samples, longer = ([one[stage] for one in seeds] for stage in (name, "longer"))
        now = [figures(found) for found in samples]
        differences = {
            figure: compared(scores_of(samples, figure), scores_of(longer, figure), of_all_samples)
            for figure in ("form", "bleu_3")
        }
        alarms = [reward_hacking_alarms([*pair], "form") for pair in zip(before, now, strict=True)]
        stages[name] = {
            "sample": {**means(now), "against longer": differences, "alarms": alarms},
            "texts": [line["text"] for line in samples[0].lines(test)[:3]],
        }
    return stages


def picture(poems: dict[str, str]) -> str:
    """Return poems beside each other, their characters in the colours of their tones."""
    wide, high = CHARACTER * (SYLLABLES + 2), CHARACTER * (LINES + 2)
    drawn = []
    for number, (name, poem) in enumerate(poems.items()):
        left, top = (number % 3) * wide, (number // 3) * high
        drawn.append(f'<text x="{left}" y="{top + 14}" font-size="13" fill="#5c6573">{name}</text>')
        for row, line in enumerate(verses_of(poem.replace(UNK, "□"))[: LINES + 1]):
            for column, character in enumerate(line[: SYLLABLES + 1]):
                read = from_package(character)
                x, y = left + CHARACTER * column, top + 16 + CHARACTER * (row + 1)
                colour = TONES[read.level if read else None]
                drawn.append(f'<text x="{x}" y="{y}" font-size="20" fill="{colour}">{character}</text>')
    width, height = 3 * wide, -(-len(poems) // 3) * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="serif">{"".join(drawn)}</svg>\n'
    )


def main() -> None:
    """Train, test, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=14, help="of each stage; likelihood takes three times as many"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "poems.txt"
        path.write_text("\n".join(quatrains_of(options.folder)) + "\n", "utf-8")
        train, test = task(path), task(path, "test", 250)
        test.metrics = {name: metric(test, name) for name in FIGURES[:-1]}
        updates, samples = zip(
            *(learned(path, test, options.seconds, seed) for seed in range(options.seeds)), strict=True
        )
        found = {
            "seconds_of_each_stage": options.seconds,
            "seeds": options.seeds,
            "poems": {"train": train.size, "test": test.size, "characters": len(train.vocab.words)},
            "updates": {stage: [one[stage] for one in updates] for stage in updates[0]},
            "stages": report(samples, test),
        }
    PICTURE.write_text(picture({name: stage["texts"][0] for name, stage in found["stages"].items()}), "utf-8")
    print(record.write("poems", found))


if __name__ == "__main__":
    main()
