"""SeqGAN's synthetic benchmark (Yu et al. 2017), with the columns that it needs to mean something.

    python benchmarks/oracle.py [--profile full] [--oracle FILE.npz] [--length 40] [--seeds 0 1] [--rows mle]

A random LSTM over 5,000 words writes 10,000 texts of 20 words to learn from. Every row is scored by

* NLL_oracle, −mean log p_oracle of what it writes: quality, gamed by writing little;
* NLL_test, −mean log p_model of fresh texts of the oracle: coverage, infinite where anything is left out;
* the share of its texts copied from the training set, the share of them that are distinct, and Self-BLEU-4;
* the tokens that it read and wrote while learning, and processor seconds.

Adversarial rows start from the row `mle` of their seed, and spend beyond it. Seeds draw the training set, the
initial weights and all samples; the oracle stays. A finished row is a file under runs/, and is not run
again, so that an interrupted benchmark goes on, and several processes may share it (one a seed, say). The
results are written from all files that are there, with a plot of the plane (NLL_oracle, NLL_test).
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import plane
import record
import samplers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import rlseq
from rlseq.discriminators import Adversary, Ranker
from rlseq.discriminators.adversary import random_prefix
from rlseq.discriminators.mode_collapse import ModeCollapse
from rlseq.discriminators.objectives import OutputL2, odds
from rlseq.discriminators.texts import rewarded
from rlseq.envs.oracle import Oracle, OracleEnv
from rlseq.metrics import SelfBLEU
from rlseq.types import Behaviour

ROOT = Path(__file__).parent.parent
TEMPERATURES = (0.95, 0.9, 0.8, 0.7)
Row = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """The budgets of a run."""

    evaluated: int  # texts a row is scored by
    epochs: int  # of likelihood, 10,000 texts each
    rounds: int  # of adversarial training
    completions: int  # of every prefix that is completed
    every: int  # words from one of these to the next
    share: float  # of the published discriminator's filters
    embedding: int  # its width
    texts: int  # written for every regeneration
    d: int  # regenerations in a round
    k: int  # epochs from each
    rate: float  # step size of the discriminator
    pretraining: int  # regenerations before the first round
    seeds: tuple[int, ...]
    device: str = "cpu"


PROFILES = {
    "cpu": Profile(2_000, 12, 20, 8, 2, 0.25, 32, 500, 1, 2, 1e-3, 10, (0, 1)),
    # How far likelihood comes when it has the published number of epochs: `--rows oracle mle`.
    "likelihood": Profile(10_000, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (0,)),
    "full": Profile(100_000, 120, 200, 16, 1, 1.0, 64, 9_984, 5, 3, 1e-4, 50, (0, 1, 2, 3, 4, 5), "cuda"),
}


@dataclass
class Bench:
    """One seed: its training set, its test set, and where its rows are kept."""

    oracle: Oracle
    profile: Profile
    folder: Path
    seed: int
    env: OracleEnv = field(init=False)

    def __post_init__(self) -> None:
        device = self.profile.device
        options: dict[str, Any] = {
            "references": 10_000,
            "data_seed": self.seed,
            "seed": self.seed,
            "device": device,
        }
        self.env = OracleEnv(oracle=self.oracle, num_envs=64, **options)
        self.oracle = self.env.oracle
        self.training = self.env.items["references"][:, 0]
        draws = torch.Generator(device).manual_seed(1000 + self.seed)
        self.test = self.oracle.sample(self.profile.evaluated, draws)

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────

    def rows(self) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
        """Every row by name, and what makes it and the rows that fall off beside it."""
        words, length = self.oracle.vocab_size, self.oracle.length
        training = self.training.cpu()
        yield "oracle", lambda: self.counted(self.oracle.sample)
        yield "uniform", lambda: self.counted(samplers.uniform(words, length), math.log(words))
        for order in (1, 2, 3, 4):
            yield f"{order}-gram", lambda order=order: self.counted(samplers.ngram(training, order))  # type: ignore[misc]
        yield "copy", lambda: self.counted(samplers.copies(training))
        yield "mle", self.mle
        yield (
            "constant reward",
            lambda: self.learn("reinforce", env=rewarded(self.env, half), baseline="none"),
        )
        for name, value in {"seqgan": None, "maligan": odds}.items():
            yield name, lambda name=name, value=value: self.adversarial(name, value)  # type: ignore[misc]
        yield "seqgan, mean baseline", lambda: self.adversarial("seqgan", None, baseline="mean")
        yield "regs", self.regs
        yield "rankgan", self.rankgan
        searching = {"completions": self.profile.completions, "baseline": "mean"}
        yield "pg_bleu", lambda: self.learn("pg_bleu", **searching)
        yield "scheduled_sampling", self.scheduled_sampling

    def counted(self, sampler: samplers.Sampler, nll_test: float = math.inf) -> Iterator[Row]:
        """A sampler that is no model."""
        draws = torch.Generator("cpu").manual_seed(self.seed)
        if sampler == self.oracle.sample:
            draws = torch.Generator(self.profile.device).manual_seed(2000 + self.seed)
            nll_test = float(self.oracle.nll(self.test).mean())
        yield self.scored(sampler(self.profile.evaluated, draws).to(self.training.device), nll_test)

    def mle(self) -> Iterator[Row]:
        """Likelihood; as it is at the end, and as it was where it was best on NLL_test, both tempered."""
        policy = self.policy()
        agent = rlseq.make_agent("mle", policy, lr=1e-2, clip_norm=5.0)
        best, curve, start, before = math.inf, [], time.process_time(), self.written
        for epoch in range(self.profile.epochs):
            rlseq.train(agent, self.env, updates=len(self.training) // 64)
            curve.append(round(self.nll_test(policy, limit=2000), 4))
            if curve[-1] < best:
                best, early = curve[-1], {n: w.clone() for n, w in policy.state_dict().items()}
                stopped = epoch + 1
        spent = self.spent(start, before, self.profile.epochs)
        save_file(policy.state_dict(), self.folder / f"mle-{self.seed}.safetensors")
        yield from self.tempered(
            "mle", policy, {**spent, "epochs": self.profile.epochs, "nll_test_curve": curve}
        )
        policy.load_state_dict(early)
        share = stopped / self.profile.epochs
        cheaper = {"tokens": int(share * spent["tokens"]), "seconds": round(share * spent["seconds"], 1)}
        yield from self.tempered("mle, stopped early", policy, {**cheaper, "epochs": stopped})

    def tempered(self, name: str, policy: Any, spent: Row) -> Iterator[Row]:
        """A policy at temperature 1, and below."""
        yield {**self.judged(policy), **spent, "method": name}
        for temperature in TEMPERATURES:
            yield {**self.judged(policy, temperature), "method": f"{name} / τ", "temperature": temperature}

    def scheduled_sampling(self) -> Iterator[Row]:
        """Likelihood with some of the words read its own, up to a quarter."""
        policy, updates = self.policy(), self.profile.epochs * (len(self.training) // 64)
        agent = rlseq.make_agent("scheduled_sampling", policy, lr=1e-2, clip_norm=5.0, ramp=updates)
        start, before = time.process_time(), self.written
        rlseq.train(agent, self.env, updates=updates)
        spent = self.spent(start, before, self.profile.epochs)
        yield {**self.judged(policy), **spent}

    def adversarial(self, name: str, value: Any, **options: Any) -> Iterator[Row]:
        """Completions judged by a CNN, as published: no baseline, Adam 1e-2, gradients clipped at 5."""
        p = self.profile
        cnn = rlseq.make_discriminator("cnn", self.env, share=p.share, embedding=p.embedding)
        adversary = Adversary(
            cnn, penalties=[OutputL2(0.2)], texts=p.texts, lr=p.rate, **({"value": value} if value else {})
        )
        options = {**options, "completions": p.completions, "every": p.every}
        return self.learn(name, adversary=adversary, **options, **self.schedule)

    def regs(self) -> Iterator[Row]:
        """Every prefix judged by a GRU that has learned from prefixes."""
        gru = rlseq.make_discriminator("gru", self.env, hidden=self.profile.embedding * 2)
        adversary = Adversary(gru, view=random_prefix, texts=self.profile.texts, lr=self.profile.rate)
        return self.learn("regs", adversary=adversary, **self.schedule)

    def rankgan(self) -> Iterator[Row]:
        """Completions ranked among real texts; log ranks are below 0, so here a baseline is needed."""
        p = self.profile
        cnn = rlseq.make_discriminator("cnn", self.env, share=p.share, embedding=p.embedding, source=False)
        options = {"completions": p.completions, "every": p.every}
        return self.learn(
            "rankgan", adversary=Ranker(cnn, texts=p.texts, lr=p.rate), **options, **self.schedule
        )

    @property
    def schedule(self) -> dict[str, int]:
        """Of the discriminator."""
        return {"d": self.profile.d, "k": self.profile.k, "pretraining": self.profile.pretraining}

    def learn(self, name: str, env: Any = None, **options: Any) -> Iterator[Row]:
        """An agent that goes on from `mle`; five looks on the way."""
        policy, rounds = self.policy(), self.profile.rounds
        policy.load_state_dict(load_file(self.folder / f"mle-{self.seed}.safetensors"))
        agent = rlseq.make_agent(name, policy, clip_norm=5.0, **{"lr": 1e-2, **options})
        curve, start = [self.point(policy)], time.process_time()
        before = self.written
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ModeCollapse)
            for done in range(rounds):
                agent.set_progress(done / rounds)
                agent.update(agent.collect(env or self.env))
                if (done + 1) % max(1, rounds // 5) == 0:
                    stopped = time.process_time()
                    curve.append(self.point(policy))
                    start += time.process_time() - stopped  # looking is not learning
        spent = self.spent(start, before)
        alarms = len([w for w in said if issubclass(w.category, ModeCollapse)])
        yield {**self.judged(policy), **spent, "rounds": rounds, "alarms": alarms, "curve": curve}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────

    def policy(self) -> Any:
        """The published generator."""
        return rlseq.make_policy("lstm", self.env, hidden=32, embedding=32)

    def judged(self, policy: Any, temperature: float = 1.0) -> Row:
        """All columns of a policy."""
        texts = self.sampled(policy, temperature, self.profile.evaluated)
        return self.scored(texts, self.nll_test(policy, temperature))

    def point(self, policy: Any) -> list[float]:
        """NLL_oracle and NLL_test from fewer texts, on the way."""
        texts = self.sampled(policy, 1.0, 1000)
        return [round(float(self.oracle.nll(texts).mean()), 4), round(self.nll_test(policy, limit=1000), 4)]

    def sampled(self, policy: Any, temperature: float, number: int) -> Tensor:
        """Return texts of a policy, drawn with separate random numbers, so that looking changes nothing."""
        env = OracleEnv(oracle=self.oracle, num_envs=1000, references=1, seed=77, device=self.env.device)
        parts = [
            rlseq.rollout(policy, rewarded(env, half), decode=rlseq.Sample(temperature)).actions
            for _ in range(-(-number // 1000))
        ]
        return torch.cat(parts)[:number]

    @torch.no_grad()
    def nll_test(self, policy: Any, temperature: float = 1.0, limit: int | None = None) -> float:
        """−mean log p_model of the oracle's texts, nats per token."""
        nll = [
            -policy.evaluate(part, {"index": part[:, 0]}, Behaviour(temperature)).log_probs.mean(1)
            for part in torch.split(self.test[:limit], 1000)
        ]
        return float(torch.cat(nll).mean())

    def scored(self, texts: Tensor, nll_test: float) -> Row:
        """All columns of a set of texts."""
        training = set(map(tuple, self.training.tolist()))
        lines = list(map(tuple, texts.tolist()))
        nll = torch.cat([self.oracle.nll(part) for part in torch.split(texts, 1000)])
        compared = texts[:1000]
        alike = SelfBLEU()(compared, torch.ones_like(compared, dtype=torch.bool), {}).mean()
        return {
            "nll_oracle": round(float(nll.mean()), 4),
            "nll_test": round(nll_test, 4) if math.isfinite(nll_test) else None,
            "copies": sum(line in training for line in lines) / len(lines),
            "distinct": len(set(lines)) / len(lines),
            "self_bleu": round(float(alike), 3),
        }

    @property
    def written(self) -> int:
        """Tokens, so far."""
        return self.env.counts.as_dict()["generated_tokens"]

    def spent(self, start: float, before: int, epochs: int = 0) -> Row:
        """Tokens read and written, and processor seconds."""
        read = epochs * (len(self.training) // 64) * 64 * self.oracle.length
        return {"tokens": read + self.written - before, "seconds": round(time.process_time() - start, 1)}


def half(tokens: Tensor, mask: Tensor, context: Any) -> Tensor:
    """A constant reward."""
    return torch.full((len(tokens),), 0.5, device=tokens.device)


def run(bench: Bench, wanted: Sequence[str] | None) -> None:
    """Every row of a seed that is not there yet."""
    for name, make in bench.rows():
        file = bench.folder / f"{name}-{bench.seed}.json"
        if file.exists() or (wanted and name not in wanted):
            continue
        lines = [{"method": name, "seed": bench.seed, **row} for row in make()]
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(lines), encoding="utf-8")
        draft.replace(file)
        shown = {key: value for key, value in lines[0].items() if "curve" not in key}
        print(shown, flush=True)


def main(
    kind: str = "oracle",
    bench: type[Bench] = Bench,
    profiles: Mapping[str, Profile] = PROFILES,
    text: str | None = __doc__,
) -> None:
    """Run what is missing, and write all that is there."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=profiles, default="cpu")
    parser.add_argument(
        "--oracle", default="0", help="an .npz in the released format, or the seed of a random one"
    )
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--rows", nargs="+", help="names of rows; all when not given")
    given = parser.parse_args()
    profile = profiles[given.profile]
    # The published tasks: 32 units for 20 words, 64 for 40 (Guo et al. 2018).
    hidden = 32 if given.length <= 20 else 64
    if given.oracle.isdigit():
        which = f"seed-{given.oracle}"
        oracle = Oracle(int(given.oracle), length=given.length, hidden=hidden, device=profile.device)
    else:
        which = Path(given.oracle).stem
        oracle = Oracle.load(given.oracle, length=given.length, device=profile.device)
    name = f"{kind}-{given.profile}-{given.length}-{which}"
    folder = ROOT / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds or profile.seeds:
        run(bench(oracle, profile, folder, seed), given.rows)
    draws = torch.Generator(profile.device).manual_seed(0)
    rows = [row for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text("utf-8"))]
    entropy = round(oracle.entropy(profile.evaluated, draws), 4)
    results = {"oracle": which, "entropy": entropy, "profile": asdict(profile), "rows": rows}
    print(record.write(name, results), plane.draw(name, results))


if __name__ == "__main__":
    main()
