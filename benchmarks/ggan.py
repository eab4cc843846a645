"""Captions by likelihood, by a reward and by G-GAN: the shape of G-GAN's table (Dai et al. 2017), on scenes.

    python benchmarks/ggan.py [--profile quick] [--seed 0]

All policies read noise z and start from the same likelihood. Every row has one caption of each test scene:

* n-gram metrics compare it with four references of the scene; the row of people is the fifth reference;
* three evaluators of picture and text score it, none of which trained a policy: they see scenes of their own,
  and learn to tell references from mismatched references and from captions by likelihood (E-NGAN), by G-GAN
  (E-GAN) or by all policies (E-all). The paper's evaluators are those with which its policies were trained;
* diversity: the share of different captions among five for the same scene, each under a z of its own.

Controls: likelihood that samples its words, which is diverse at no cost, and a policy gradient whose reward
is ½ for every text. What is finished is kept under runs/, and not done again. Writes
results/ggan-PROFILE.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import oracle
import record
import torch
from safetensors.torch import load_file, save_file

import rlseq
from rlseq.discriminators import Adversary, make_discriminator
from rlseq.discriminators.texts import TextBatch, WriteTexts, generated_texts, joined, rewarded
from rlseq.engine.decode import Decode

DRAWS = 5  # captions of a scene, each under a z of its own
METRICS = ["bleu_4_coco", "rouge_l", "cider_d"]


@dataclass(frozen=True)
class Profile:
    """The sizes of a run."""

    scenes: int = 4000  # to train on; as many others train the evaluators of the table
    tested: int = 500
    noise: int = 16
    hidden: int = 96
    embedding: int = 64
    likelihood: int = 1200  # updates, at a step size of 3e-3 that falls to 0
    rewarded: int = 250  # updates on CIDEr-D, at 1e-3
    adversarial: int = 160  # updates of G-GAN and of the control, at 5e-4
    completions: int = 2
    every: int = 3
    pretraining: int = 200  # steps of G-GAN's evaluator before the first update
    evaluator: int = 250  # steps of each evaluator of the table


PROFILES = {
    "proof": Profile(60, 20, 4, 16, 8, 4, 2, 2, 1, 6, 2, 2),
    "quick": Profile(3000, 300, 8, 64, 48, 600, 120, 70, 2, 4, 80, 100),
    "cpu": Profile(),
}


class Bench:
    """The policies, made one after the other."""

    def __init__(self, profile: Profile, seed: int, folder: Path) -> None:
        self.profile, self.seed, self.folder = profile, seed, folder
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        ways = {"RL on CIDEr-D": self.on_cider, "G-GAN": self.ggan, "constant reward": self.constant}
        self.policies = {"likelihood": self.policy()}
        self.finished("likelihood", self.policies["likelihood"], self.likelihood)
        for name, learn in ways.items():
            self.policies[name] = deepcopy(self.policies["likelihood"])
            self.finished(name, self.policies[name], learn)

    def finished(self, name: str, network: Any, learn: Callable[[Any], None]) -> None:
        """Train a network, or take its weights where that has been done; note the processor time."""
        weights, spent = (self.folder / f"{name}{end}" for end in (".safetensors", ".seconds"))
        if not weights.exists():
            start = time.process_time()
            learn(network)
            spent.write_text(str(round(time.process_time() - start, 1)), encoding="utf-8")
            save_file(network.state_dict(), weights)
        network.load_state_dict(load_file(weights))
        self.seconds[name] = float(spent.read_text("utf-8"))
        print(f"{name}: {self.seconds[name]} s", flush=True)

    def task(self, split: str = "train", data_seed: int = 0) -> Any:
        """Return scenes of a split, 64 at a time."""
        scenes = self.profile.tested if split == "test" else self.profile.scenes
        options = {"scenes": scenes, "split": split, "data_seed": data_seed, "noise": self.profile.noise}
        return rlseq.make("rlseq/Captions-v0", num_envs=64, seed=self.seed, **options)

    def policy(self) -> Any:
        """Return a captioner that has learned nothing yet."""
        sizes = {"hidden": self.profile.hidden, "embedding": self.profile.embedding}
        return rlseq.make_policy("captioner", self.task(), **sizes)

    def likelihood(self, policy: Any) -> None:
        """Train on references."""
        agent = rlseq.make_agent("mle", policy, lr=3e-3, schedule="linear")
        self.train(agent, self.task(), self.profile.likelihood)

    def on_cider(self, policy: Any) -> None:
        """Train on CIDEr-D, the task's own reward."""
        self.train(rlseq.make_agent("scst", policy, lr=1e-3), self.task(), self.profile.rewarded)

    def ggan(self, policy: Any) -> None:
        """Train on an evaluator, which learns beside the policy."""
        p, env = self.profile, self.task()
        adversary = self.evaluator(env, seed=0, texts=64)
        options = {"completions": p.completions, "every": p.every, "pretraining": p.pretraining}
        agent = rlseq.make_agent("ggan", policy, lr=5e-4, adversary=adversary, **options)
        self.train(agent, env, p.adversarial)

    def constant(self, policy: Any) -> None:
        """Train on ½ for every text, without a baseline."""
        agent = rlseq.make_agent("reinforce", policy, lr=5e-4, baseline="none")
        self.train(agent, rewarded(self.task(), oracle.half), self.profile.adversarial)

    def train(self, agent: Any, env: Any, updates: int) -> None:
        """Train without the checks that cost time."""
        rlseq.train(agent, env, updates=updates, alarms="ignore", probe=False)

    def evaluator(self, env: Any, seed: int, **options: Any) -> Adversary:
        """Return an evaluator of picture and text that has learned nothing yet."""
        sizes = {"hidden": self.profile.hidden, "embedding": self.profile.embedding}
        judge = make_discriminator("gru", env, seed=seed, **sizes)
        return Adversary(judge, lr=1e-3, **options)


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────


def evaluators(bench: Bench) -> dict[str, Adversary]:
    """Return the evaluators of the table, trained on scenes of their own against finished policies."""
    env, made = bench.task(data_seed=1), bench.policies
    against = {"E-NGAN": [made["likelihood"]], "E-GAN": [made["G-GAN"]], "E-all": list(made.values())}
    found = {}
    for number, (name, policies) in enumerate(against.items(), 1):
        evaluator = bench.evaluator(env, seed=number, texts=64 * bench.profile.evaluator)
        bench.finished(name, evaluator.discriminator, partial(_taught, evaluator, env, written_by(policies)))
        evaluator.freeze()
        found[name] = evaluator
    return found


def _taught(evaluator: Adversary, env: Any, written: WriteTexts, _: Any) -> None:
    evaluator.learn(None, env, generated=written)


def written_by(policies: Sequence[Any]) -> WriteTexts:
    """Return what writes equally many samples of several policies."""

    def write(_: Any, env: Any, number: int) -> TextBatch:
        share = -(-number // len(policies))
        return joined([generated_texts(policy, env, share) for policy in policies])

    return write


@torch.no_grad()
def captions(policy: Any, env: Any, decode: Decode) -> list[TextBatch]:
    """Return captions of every scene, `DRAWS` times, each time under another z."""
    items = torch.arange(env.size)
    env = env.replace(num_envs=len(items))
    return [TextBatch.of(rlseq.rollout(policy, env, decode=decode, index=items)) for _ in range(DRAWS)]


def people(env: Any) -> tuple[list[TextBatch], list[list[str]]]:
    """Return the references of every scene, one after the other; and as texts, all but the first."""
    items = torch.arange(env.size)
    context = env.replace(num_envs=len(items)).begin(index=items)
    place = torch.arange(env.max_len)
    batches = []
    for which in range(DRAWS):
        mask = place < context["reference_lengths"][:, which].unsqueeze(1)
        batches.append(TextBatch(context["references"][:, which, : env.max_len], mask, context))
    texts = [env.texts(batch.tokens, batch.mask) for batch in batches[1:]]
    return batches, [list(each) for each in zip(*texts, strict=True)]


def row(env: Any, found: list[TextBatch], references: Any, judges: Mapping[str, Adversary]) -> dict[str, Any]:
    """Return what the table says of some captions."""
    texts = [env.texts(batch.tokens, batch.mask) for batch in found]
    report = rlseq.metrics.evaluate(texts[0], references, metrics=METRICS)
    different = [len(set(each)) for each in zip(*texts, strict=True)]
    return {
        **{name: float(report[name]) for name in METRICS},
        **{name: float(judge(*found[0]).mean()) for name, judge in judges.items()},
        "different": sum(different) / len(different) / DRAWS,
        "texts": len(set(texts[0])) / len(texts[0]),
        "length": float(found[0].mask.sum(1).float().mean()),
        "samples": [each[:2] for each in texts],
    }


def table(bench: Bench) -> dict[str, Any]:
    """Return all rows."""
    env, judges = bench.task("test"), evaluators(bench)
    human, references = people(env)
    greedy, sample = rlseq.Greedy(), rlseq.Sample()
    ways: dict[str, tuple[Any, Decode]] = {
        f"{name}, greedy": (policy, greedy) for name, policy in bench.policies.items()
    }
    ways |= {f"{name}, samples": (bench.policies[name], sample) for name in ("likelihood", "G-GAN")}
    texts = {name: captions(policy, env, how) for name, (policy, how) in ways.items()}
    texts = {"people": human, **texts}
    return {name: row(env, found, references, judges) for name, found in texts.items()}


def main() -> None:
    """Train, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(__file__).parents[1] / "runs" / f"ggan-{given.profile}-{given.seed}"
    bench = Bench(PROFILES[given.profile], given.seed, folder)
    rows = table(bench)
    for name, found in rows.items():
        print(name, {key: round(value, 3) for key, value in found.items() if key != "samples"}, flush=True)
    results = {"profile": asdict(bench.profile), "seed": given.seed, "seconds": bench.seconds, "rows": rows}
    if given.profile != "proof":
        print(record.write(f"ggan-{given.profile}", results))


if __name__ == "__main__":
    main()
