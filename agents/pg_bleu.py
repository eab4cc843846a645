"""PG-BLEU: SeqGAN's generator with BLEU in the place of the discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rlseq.discriminators.texts import check_pool, real_texts, rewarded
from rlseq.mdp.sequence_env import sequence_env
from rlseq.metrics import BLEU
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline, none
from rlseq.policy_gradient.credit import Completions, Credit, own_credit
from rlseq.types import Reward
from rlseq.utils.arguments import NgramOrder, PositiveInt


@dataclass(eq=False)
class PGBLEU(PolicyGradient):
    """Q = mean BLEU of completions, against real texts drawn at random (Yu et al. 2017; Zhu et al. 2018).

    Without a source, all texts have the same references, drawn once; with one, each has its own.
    """

    completions: PositiveInt = 16  # N, number of completions of every prefix
    order: NgramOrder = 3  # longest n-gram of BLEU
    references: PositiveInt = 20  # real texts to compare with, where there is no source
    credit: Credit = own_credit  # value of an action; by completions when not given
    baseline: Baseline = none  # subtracted from the credit; the paper subtracts nothing (rlseq.baselines)
    uses_task_reward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reward: Reward | None = None

    def make_credit(self) -> Credit:
        """Make completions by the policy."""
        return Completions(self.completions)

    def check(self, env: Any) -> None:
        """Refuse a task that has no real texts."""
        super().check(env)
        check_pool(sequence_env(env))

    def paid_on(self, env: Any) -> Any:
        """Return the task with BLEU as its reward."""
        env = sequence_env(env)
        if self.reward is None:
            self.reward = self._bleu(env)
        return rewarded(env, self.reward)

    def _bleu(self, env: Any) -> Reward:
        if env.source_vocab is not None:
            return BLEU(references_as_lists(env), order=self.order, eos=env.vocab.eos) / 100
        # By the task's seed alone, so that a resumed run compares with the same texts.
        drawn = real_texts(env.replace(generator=generator_of(env)), self.references)
        lines = [row[keep].tolist() for row, keep in zip(drawn.tokens, drawn.mask, strict=True)]
        bleu = BLEU([lines], order=self.order, eos=env.vocab.eos) / 100
        return lambda tokens, mask, context: bleu(tokens, mask, {"index": torch.zeros_like(tokens[:, 0])})


def generator_of(env: Any) -> torch.Generator:
    """Return a random generator that depends on the task's seed alone."""
    return torch.Generator(env.device).manual_seed(env.seed)


def references_as_lists(env: Any) -> list[list[list[int]]]:
    """Return the references of every item as lists."""
    found = env.contexts(torch.arange(env.size, device=env.device))
    table = zip(found["references"].tolist(), found["reference_lengths"].tolist(), strict=True)
    return [[ids[:n] for ids, n in zip(*item, strict=True) if n] for item in table]
