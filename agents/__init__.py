"""Agents: one algorithm a file, one line here each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rlseq.agents.a2c import A2C
from rlseq.agents.adversarial import Adversarial
from rlseq.agents.e2e import E2E
from rlseq.agents.grpo import DAPO, GRPO, DrGRPO
from rlseq.agents.mixer import MIXER
from rlseq.agents.mle import MLE
from rlseq.agents.mrt import MRT, MRTCorrected
from rlseq.agents.pg_bleu import PGBLEU
from rlseq.agents.ppo import PPO, PPOKL
from rlseq.agents.reinforce import REINFORCE
from rlseq.agents.rloo import RLOO
from rlseq.agents.scheduled_sampling import ScheduledSampling
from rlseq.agents.scst import SCST
from rlseq.agents.seqgan import REGS, MaliGAN, RankGAN, SeqGAN
from rlseq.policy_gradient.agent import Agent
from rlseq.utils.arguments import checked_arguments
from rlseq.utils.errors import check_options, pick

AGENTS: dict[str, type[Agent]] = {
    "a2c": A2C,
    "adversarial": Adversarial,
    "dapo": DAPO,
    "dr_grpo": DrGRPO,
    "e2e": E2E,
    "grpo": GRPO,
    "maligan": MaliGAN,
    "mixer": MIXER,
    "mle": MLE,
    "mrt": MRT,
    "mrt_corrected": MRTCorrected,
    "pg_bleu": PGBLEU,
    "ppo": PPO,
    "ppo_kl": PPOKL,
    "rankgan": RankGAN,
    "regs": REGS,
    "reinforce": REINFORCE,
    "rloo": RLOO,
    "scheduled_sampling": ScheduledSampling,
    "scst": SCST,
    "seqgan": SeqGAN,
}


@checked_arguments
def make_agent(name: str, policy: Any, **hyper: Any) -> Agent:
    """An agent by name; its hyper-parameters are the fields of its dataclass."""
    cls = pick(AGENTS, name, "agent")
    check_options(hyper, {field.name for field in fields(cls) if field.name != "policy"}, cls.__name__)
    return cls(policy, **hyper)


__all__ = [
    "A2C",
    "AGENTS",
    "DAPO",
    "E2E",
    "GRPO",
    "MIXER",
    "MLE",
    "MRT",
    "PGBLEU",
    "PPO",
    "PPOKL",
    "REGS",
    "REINFORCE",
    "RLOO",
    "SCST",
    "Adversarial",
    "DrGRPO",
    "MRTCorrected",
    "MaliGAN",
    "RankGAN",
    "ScheduledSampling",
    "SeqGAN",
    "make_agent",
]
