"""A pretrained model on pairs of texts: what does a reward add to likelihood, with equal budgets?

    python benchmarks/finetune.py PAIRS --model MODEL [--setting synopses] [--seeds 3] [--tokens 60000]

PAIRS is a folder of train.tsv, dev.tsv and test.tsv (recipes/synopses.py writes one), MODEL a folder that
`save_pretrained` has written (pretrain.py writes one). Every arm starts from MODEL and writes or imitates as
many tokens, its step size falling to zero; its last weights are scored, greedily, on test items that nothing
was chosen by. In the scores the end of a text is no word; in the reward it is one where a setting says so: an
undertrained model then learns to write texts of three words, whose end is right. Besides likelihood that goes
on, the controls are a reward that says nothing (a constant, with which RLOO must not move), rewards that are
dealt to other texts, and no training at all: of several samples of MODEL the one that is nearest to the
others (minimum Bayes risk).

Differences have paired intervals over items (the mean of the seeds of each item) and intervals over seeds,
and a test by approximate randomisation over items, adjusted by Holm's method. What is finished is not done
again, what was interrupted goes on. Writes finetune.json into the folder, and of the pairs of synopses.py
(--commit-as NAME) results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from rapidfuzz.distance import LCSseq, Levenshtein
from rapidfuzz.process import cdist

import rlseq
from rlseq.compare import statistics
from rlseq.engine.checks import named_functions
from rlseq.engine.evaluation import evaluate_texts, items_tested
from rlseq.metrics import Constant, Shuffled, evaluate
from rlseq.metrics.fitting import named_metric
from rlseq.utils.places import command_line

SHOWN = 8
RISK = "start, least risk"
Scores = dict[str, list[float]]


@dataclass(frozen=True)
class Setting:
    """The sizes of a run."""

    reward: str = "rouge_l"
    end: bool = False  # does the end of a text count as a word in the reward?
    compared: str = "rouge_l"  # the metric of every item by which sides are compared
    metrics: tuple[str, ...] = ("rouge_l", "bleu", "chrf", "exact", "length", "reward")  # of every item
    pooled: tuple[str, ...] = ("bleu", "chrf", "distinct_1", "distinct_2")  # of all texts together
    tokens: int = 60_000  # that each arm writes or imitates
    rows: int = 32  # texts of a batch
    max_len: int = 24
    max_source_len: int = 32
    prompt: str | None = None  # around a source, which a causal model needs
    test: int = 1000  # items
    samples: int = 16  # of each item, for minimum Bayes risk
    lr: float = 3e-4  # of the first update
    lr_adapters: float = 2e-3  # where only adapters are trained
    adapters: dict[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32})


@dataclass(frozen=True)
class Arm:
    """A way of training."""

    agent: str
    judged: Callable[[Any, int], Any] = lambda reward, _seed: reward  # what is made of the reward
    adapters: bool = False
    step: float = 1.0  # factor of the step size


SETTINGS = {
    "synopses": Setting(),  # of packages, from their descriptions: recipes/synopses.py
    "vowels": Setting(  # words without their vowels, which have several right answers: recipes/words.py
        reward="cer",
        end=True,
        compared="cer",
        metrics=("cer", "exact", "chrf", "length", "reward"),
        pooled=("cer", "exact", "chrf", "distinct_1"),
        rows=64,
        max_len=16,
        max_source_len=12,
        test=2000,
        tokens=40_000,
        lr=1e-4,
        lr_adapters=1e-3,
    ),
}
ARMS = {
    "likelihood": Arm("mle", step=0.1),  # at the step size of rewards it unlearns what it knew
    "likelihood, 0.3": Arm("mle", step=0.3),
    "likelihood, same step": Arm("mle"),
    "rloo": Arm("rloo"),
    "scst": Arm("scst"),
    "rloo, adapters": Arm("rloo", adapters=True),
    "rloo, shuffled reward": Arm("rloo", lambda reward, seed: Shuffled(reward, seed=seed)),
    "rloo, constant reward": Arm("rloo", lambda _reward, _seed: Constant()),
}


@dataclass(frozen=True)
class Experiment:
    """The runs of a setting, in a folder."""

    pairs: str
    model: str
    folder: Path
    setting: Setting

    def task(self, split: str, rows: int | None = None, seed: int = 0) -> Any:
        """A split of the pairs."""
        setting = self.setting
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="sources have up to")  # as pretrain.py cuts them
            warnings.filterwarnings("ignore", message="left out .* references")
            env: Any = rlseq.make(
                "rlseq/Parallel-v0",
                rows or setting.rows,
                seed=seed,
                path=self.pairs,
                split=split,
                reward=setting.reward,
                tokenizer=self.model,
                prompt=setting.prompt,
                max_len=setting.max_len,
                max_source_len=setting.max_source_len,
            )
        env.metrics = {setting.compared: named_metric(setting.compared, env.corpus), **env.metrics}
        if not setting.end:
            env.parts = {setting.reward: env.metrics[setting.reward]}
        return env

    def policy(self, env: Any, adapters: bool = False) -> Any:
        """The model that all arms start from."""
        options: dict[str, Any] = {"peft": self.setting.adapters} if adapters else {}
        return rlseq.make_policy("hf", env, model=self.model, **options)

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result that is kept under a name; compute it if there is none."""
        path = self.place(name)
        if not path.exists():
            found = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".draft").write_text(json.dumps(found), encoding="utf-8")
            path.with_suffix(".draft").replace(path)
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return result

    def place(self, name: str) -> Path:
        """Return the file of what was found under a name."""
        return self.folder / f"{slug(name)}.json"

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """One arm, from the start to its scores on test."""
        arm, setting = ARMS[name], self.setting
        torch.manual_seed(seed)
        env = self.task("train", seed=seed)
        env.parts = {part: arm.judged(reward, seed) for part, reward in env.parts.items()}
        policy = self.policy(env, arm.adapters)
        lr = arm.step * (setting.lr_adapters if arm.adapters else setting.lr)
        agent = rlseq.make_agent(arm.agent, policy, lr=lr, schedule="linear")
        alarms: list[str] = []
        start = time.monotonic()
        history = rlseq.train(
            agent,
            env,
            budget_tokens=setting.tokens,
            eval_env=self.task("dev", 250, seed),  # for the alarms: no weights are chosen by it
            eval_every=setting.tokens // 2,
            eval_texts=250,
            out=self.folder / "runs" / f"{slug(name)}-{seed}",
            alarms=alarms.append,
            probe=False,
            quiet=True,
        )
        seconds = time.monotonic() - start
        trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
        return {
            **self.scored(policy),
            "updates": len(history),
            "tokens": env.counts.as_dict()["tokens"],
            "seconds": seconds,
            "trained": trained,
            "alarms": alarms,
            "curve": [row.get("reward", row.get("nll")) for row in history],
        }

    def scored(self, policy: Any) -> dict[str, Any]:
        """The greedy texts of test, and the scores of each."""
        test = self.task("test", 250)
        found = evaluate_texts(policy, test, limit=self.setting.test)
        return {
            "scores": {name: found.scores[name].double().tolist() for name in self.setting.metrics},
            "texts": [line["text"] for line in found.lines(test)],
            "pooled": found.pooled(test, self.setting.pooled),
        }

    def start(self) -> dict[str, Any]:
        """Return the texts of the model itself, with the sources and references of all items."""
        test = self.task("test", 250)
        policy = self.policy(test)
        lines = evaluate_texts(policy, test, limit=self.setting.test, metrics={}).lines(test)
        items = [{key: line[key] for key in ("source", "references")} for line in lines]
        return {**self.scored(policy), "items": items}

    def least_risk(self) -> dict[str, Any]:
        """The samples of the model that are nearest to the others; and what samples, and the best, earn."""
        number, rows = self.setting.samples, self.setting.rows // 4
        torch.manual_seed(0)
        env = self.task("test", rows * number)
        policy = self.policy(env)
        references = [item["references"] for item in self.kept("start", self.start)["items"]]
        scores: Scores = {name: [] for name in self.setting.metrics}
        texts, earned = list[str](), list[list[float]]()
        for index in torch.split(items_tested(env.size, self.setting.test), rows):
            filled = torch.cat([index, index.new_zeros(rows - len(index))])
            batch = rlseq.rollout(policy, env, repeat=number, index=filled)
            written = env.texts(batch.actions, batch.mask)
            groups = [written[i * number : (i + 1) * number] for i in range(len(index))]
            at = torch.tensor(
                [i * number + NEAREST[self.setting.reward](group) for i, group in enumerate(groups)]
            )
            texts += [written[row] for row in at.tolist()]
            for name, metric in named_functions(env.metrics).items():
                if name in scores:
                    value = getattr(metric, "value", metric)(batch.actions, batch.mask, batch.context)
                    scores[name] += value[at].double().tolist()
            scores["length"] += batch.lengths[at].tolist()
            scores["reward"] += batch.returns[at].tolist()
            earned += batch.returns.view(-1, number)[: len(index)].tolist()
        return {
            "scores": scores,
            "texts": texts,
            "pooled": dict(evaluate(texts, references, self.setting.pooled)),
            "reward of samples": float(np.mean(earned)),
            "reward of the best sample": float(np.mean([max(group) for group in earned])),
        }

    def claim(self) -> None:
        """Refuse a folder that has runs of another experiment."""
        path = self.folder / "experiment.json"
        own = json.loads(json.dumps({"pairs": self.pairs, "model": self.model, **asdict(self.setting)}))
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(own, indent=2), encoding="utf-8")
        there = json.loads(path.read_text("utf-8"))
        differs = [name for name in own if there.get(name) != own[name]]
        if differs:
            was = ", ".join(f"{name}={there.get(name)!r} (now {own[name]!r})" for name in differs)
            raise ValueError(f"{self.folder} has runs with {was}; name another --folder")

    def report(self, arms: Sequence[str], seeds: Sequence[int], finished: bool = False) -> dict[str, Any]:
        """Do what is missing, and compare all runs.

        Args:
            arms: names of `ARMS`.
            seeds: of each arm.
            finished: do nothing of what is missing, and compare the runs that there are.
        """
        self.claim()
        start = self.kept("start", self.start)
        sides: dict[str, list[dict[str, Any]]] = {"start": [start]}
        if not finished or self.place("least-risk").exists():
            sides[RISK] = [self.kept("least-risk", self.least_risk)]
        for seed in seeds:
            for name in arms:
                if not finished or self.place(f"{name} {seed}").exists():
                    run = self.kept(f"{name} {seed}", partial(self.run, name, seed))
                    sides.setdefault(name, []).append(run)
                    print(
                        f"{name}, seed {seed}: {np.mean(run['scores'][self.setting.compared]):.4f}",
                        flush=True,
                    )
        return summary(sides, self.setting, start["items"])


def slug(name: str) -> str:
    """Return a name as it is written in paths."""
    return name.replace(", ", "-").replace(" ", "-")


def nearest_by_rouge(texts: Sequence[str], beta: float = 1.2) -> int:
    """Return which text has the highest mean ROUGE-L against the others, as the reward computes it."""
    words = [text.split() for text in texts]
    common = cdist(words, words, scorer=LCSseq.similarity).astype(float)
    lengths = np.array([max(len(row), 1) for row in words], float)
    precision, recall = common / lengths[:, None], common / lengths[None]
    score = (1 + beta**2) * precision * recall / np.maximum(recall + beta**2 * precision, 1e-12)
    np.fill_diagonal(score, 0)
    return int(score.sum(1).argmax())


def nearest_by_edits(texts: Sequence[str]) -> int:
    """Return which text has the smallest mean edit distance to all, in characters."""
    return int(cdist(texts, texts, scorer=Levenshtein.distance).sum(1).argmin())


NEAREST: dict[str, Callable[[Sequence[str]], int]] = {"rouge_l": nearest_by_rouge, "cer": nearest_by_edits}


def items_of(runs: Sequence[dict[str, Any]], metric: str) -> np.ndarray[Any, Any]:
    """Return the scores of all seeds, [seeds, items]."""
    return np.array([run["scores"][metric] for run in runs])


def summary(
    sides: dict[str, list[dict[str, Any]]], setting: Setting, items: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return figures of every side, their differences, and samples.

    Args:
        sides: by name the runs of all seeds; one run where there is no seed.
        setting: of the experiment.
        items: sources and references.
    """
    compared = setting.compared
    found: dict[str, Any] = {}
    for name, runs in sides.items():
        found[name] = {
            "runs": len(runs),
            **{metric: float(items_of(runs, metric).mean()) for metric in setting.metrics},
            "pooled": {m: float(np.mean([run["pooled"][m] for run in runs])) for m in setting.pooled},
            "by seed": items_of(runs, compared).mean(1).tolist(),
            **{
                key: [run[key] for run in runs]
                for key in ("updates", "tokens", "seconds", "trained", "alarms", "curve")
                if key in runs[0]
            },
            **{key: value for key, value in runs[0].items() if key.startswith("reward of")},
        }
    against = {
        other: {
            name: difference(items_of(runs, compared), items_of(sides[other], compared))
            for name, runs in sides.items()
            if name not in ("start", other)
        }
        for other in ("start", "likelihood")
        if other in sides
    }
    for differences in against.values():
        for row, p in zip(
            differences.values(), statistics.holm([d["p"] for d in differences.values()]), strict=True
        ):
            row["p, Holm"] = p
    samples = [
        {**item, **{name: runs[0]["texts"][row] for name, runs in sides.items()}}
        for row, item in enumerate(items[:SHOWN])
    ]
    return {"setting": asdict(setting), "compared": compared, "items": len(items), "sides": found} | {
        "against": against,
        "samples": samples,
    }


def difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the difference of two sides: over items, each with the mean of its seeds, and over seeds."""
    over_items = statistics.paired_difference(a.mean(0), b.mean(0))
    found = {
        "estimate": float(over_items.estimate),
        "over items": [float(over_items.low), float(over_items.high)],
        "p": statistics.approximate_randomisation(a.mean(0), b.mean(0)),
    }
    if len(a) > 1:
        seeds = a.mean(1)
        over_seeds = (
            statistics.welch(seeds, b.mean(1))[0]
            if len(b) > 1
            else statistics.mean_interval(seeds - b.mean(1)[0])
        )
        found["over seeds"] = [float(over_seeds.low), float(over_seeds.high)]
    return found


def lines_of(report: dict[str, Any]) -> Iterator[str]:
    """Yield a report in a few lines."""
    for name, side in report["sides"].items():
        yield f"{name:<24} {report['compared']} {side[report['compared']]:.4f}, {side['length']:.1f} tokens"
    for other, differences in report["against"].items():
        for name, row in differences.items():
            low, high = row["over items"]
            yield (
                f"{name}, against {other}: {row['estimate']:+.4f} ({low:+.4f} to {high:+.4f} over items), "
                f"p = {row['p, Holm']:.4f}"
            )


def main(settings: Mapping[str, Setting] = SETTINGS) -> None:
    """Run what is asked for, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--model", required=True)
    parser.add_argument("--setting", choices=settings, default="synopses", help="sizes of everything")
    parser.add_argument("--lr", type=float, help="in place of that of the setting")
    parser.add_argument("--lr-adapters", type=float)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, help="of each run")
    parser.add_argument("--prompt", help="a text with {source}, for a causal model")
    parser.add_argument("--folder", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument(
        "--finished", action="store_true", help="compare the runs that there are, run nothing"
    )
    parser.add_argument("--commit-as", help="write the results into benchmarks/results under this name, too")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    own = {name: getattr(options, name) for name in ("tokens", "lr", "lr_adapters", "prompt")}
    setting = settings[options.setting]
    setting = replace(setting, **{name: value for name, value in own.items() if value is not None})
    experiment = Experiment(options.pairs, options.model, options.folder, setting)
    try:
        report = experiment.report(options.arms, range(options.seeds), options.finished)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(*lines_of(report), sep="\n")
    command = command_line(["python", *sys.argv])
    record.write("finetune", report, options.folder, command)
    if options.commit_as:
        print(record.write(options.commit_as, report, command=command))


if __name__ == "__main__":
    main()
