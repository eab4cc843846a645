"""The three families of GANs of words, on SeqGAN's synthetic benchmark, in one table.

    python benchmarks/gans.py [--profile full] [--seeds 0 1] [--rows mle oracle]

* reinforcement: the discriminator's score is a reward (SeqGAN; the control is a constant reward);
* gumbel: its gradient passes through relaxed samples;
* continuous: its gradient passes through the distributions, embeddings or hidden states that it reads.

Columns, files and options are those of `oracle.py`. Every row but `mle` starts from the likelihood policy of
its seed, which is stopped near its best NLL_test, and takes equally many generator steps and discriminator
lessons. A row is of use only where it lies below the temperature curve of `mle`, which costs nothing.
The row "continuous, words, GAN" is the control that the sources warn of: an unbounded discriminator, which
tells distributions from words by their softness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import oracle
from oracle import Bench, Profile, Row
from safetensors.torch import load_file

import rlseq
from rlseq.agents.continuous import CRITIC_INPUTS, CRITICS
from rlseq.discriminators import Adversary
from rlseq.discriminators.objectives import OutputL2, log_probability
from rlseq.discriminators.texts import rewarded
from rlseq.engine.relaxed import RELAXATIONS

G = 4  # generator steps of a round
COLDER = (0.65, 0.6, 0.55, 0.5)  # temperatures below those of `oracle.py`: some critics lead as far

PROFILES = {
    "proof": Profile(300, 1, 4, 2, 10, 0.05, 8, 64, 1, 1, 1e-3, 1, (0,)),
    "cpu": Profile(2_000, 2, 80, 8, 4, 0.25, 32, 512, 1, 2, 1e-3, 5, (0,)),
    "full": Profile(10_000, 2, 2_000, 16, 1, 1.0, 64, 4_992, 5, 3, 1e-4, 50, (0, 1, 2, 3), "cuda"),
}


@dataclass
class Families(Bench):
    """One seed of the comparison of families."""

    rate: float = 1e-3  # step size of every generator

    def rows(self) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
        """Yield every row by name, and what makes it."""
        yield "oracle", lambda: self.counted(self.oracle.sample)
        yield "mle", self.mle
        yield "mle, colder", self.colder
        yield (
            "reinforcement, constant reward",
            lambda: self.learn("reinforce", env=rewarded(self.env, oracle.half), baseline="none"),
        )
        for baseline in ("none", "mean"):
            yield f"reinforcement, seqgan, baseline {baseline}", self.seqgan(baseline)
        for name in RELAXATIONS:
            yield f"gumbel, {name}", self.gumbel(name)
        yield "continuous, words, GAN", self.continuous("words", self.classic)
        for name in CRITICS:
            yield f"continuous, words, {name}", self.continuous("words", CRITICS[name])
        for read, hyper in {"embeddings": {}, "states": {"mle": 1.0}}.items():
            yield f"continuous, {read}, wgan_gp", self.continuous(read, CRITICS["wgan_gp"], **hyper)

    def colder(self) -> Iterator[Row]:
        """Yield the rest of likelihood's temperature curve."""
        policy = self.policy()
        policy.load_state_dict(load_file(self.folder / f"mle-{self.seed}.safetensors"))
        for temperature in COLDER:
            found = {**self.judged(policy, temperature), "temperature": temperature}
            yield {**found, "method": "mle, stopped early / τ"}

    def seqgan(self, baseline: str) -> Callable[[], Iterator[Row]]:
        """Return what learns from completions."""
        p = self.profile
        options: dict[str, Any] = {"completions": p.completions, "every": p.every, "baseline": baseline}
        return lambda: self.learn("seqgan", adversary=self.taught(Adversary(self.judge())), **options)

    def gumbel(self, relaxation: str) -> Callable[[], Iterator[Row]]:
        """Return what learns through relaxed samples."""

        def make() -> Iterator[Row]:
            adversary = self.taught(Adversary(self.judge(), value=log_probability))
            return self.learn("gumbel", adversary=adversary, relaxation=relaxation)

        return make

    def continuous(
        self, read: str, critic: Callable[..., Adversary], **hyper: Any
    ) -> Callable[[], Iterator[Row]]:
        """Return what learns through a critic of distributions or other vectors."""

        def make() -> Iterator[Row]:
            judge = self.judge(vectors=CRITIC_INPUTS[read].width(self.policy()))
            adversary = self.taught(critic(judge))
            return self.learn("continuous", adversary=adversary, critic_input=read, **hyper)

        return make

    @staticmethod
    def classic(judge: Any) -> Adversary:
        """Return the ordinary adversary, with the reward log D."""
        return Adversary(judge, value=log_probability, penalties=[OutputL2(0.2)])

    def judge(self, vectors: int | None = None) -> Any:
        """Return a discriminator."""
        p = self.profile
        sizes: dict[str, Any] = {"embedding": p.embedding, "share": p.share, "vectors": vectors}
        return rlseq.make_discriminator("cnn", self.env, **sizes)

    def taught(self, adversary: Adversary) -> Adversary:
        """Return an adversary with the lessons of the profile."""
        return replace(adversary, texts=self.profile.texts, lr=self.profile.rate)

    def learn(self, name: str, env: Any = None, **options: Any) -> Iterator[Row]:
        """Learn from `mle` on, with the step size of all, and equal rounds where there is an adversary."""
        rounds = {"g": G, **self.schedule} if "adversary" in options else {}
        return super().learn(name, env, lr=self.rate, **options, **rounds)


if __name__ == "__main__":
    oracle.main("gans", Families, PROFILES, __doc__)
