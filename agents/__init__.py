"""Agents: one algorithm a file; `make_agent` makes them by name, `register` names one of your own."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any

from rlseq.agents.a2c import A2C as A2C
from rlseq.agents.a3c import A3C as A3C
from rlseq.agents.adversarial import Adversarial as Adversarial
from rlseq.agents.all_action import AllAction as AllAction
from rlseq.agents.black_box import SHAPINGS, WAYS
from rlseq.agents.cem import CEM as CEM
from rlseq.agents.continuous import CRITIC_INPUTS, CRITICS
from rlseq.agents.continuous import Continuous as Continuous
from rlseq.agents.dagger import EXPERTS
from rlseq.agents.dagger import DAgger as DAgger
from rlseq.agents.ddpg import DDPG as DDPG
from rlseq.agents.dpo import CPO as CPO
from rlseq.agents.dpo import DPO as DPO
from rlseq.agents.dqn import DQN as DQN
from rlseq.agents.dro import DRO as DRO
from rlseq.agents.dual import Dual as Dual
from rlseq.agents.dual import Unpaired as Unpaired
from rlseq.agents.e2e import E2E as E2E
from rlseq.agents.e2e import UNROLLS
from rlseq.agents.es import ES as ES
from rlseq.agents.finite_differences import FiniteDifferences as FiniteDifferences
from rlseq.agents.gail import GAIL as GAIL
from rlseq.agents.gail import PAYS
from rlseq.agents.gail import MaxEntIRL as MaxEntIRL
from rlseq.agents.ggan import GGAN as GGAN
from rlseq.agents.gkd import DISTANCES
from rlseq.agents.gkd import GKD as GKD
from rlseq.agents.grpo import DAPO as DAPO
from rlseq.agents.grpo import GRPO as GRPO
from rlseq.agents.grpo import DrGRPO as DrGRPO
from rlseq.agents.grpo import ReinforcePP as ReinforcePP
from rlseq.agents.gumbel import Gumbel as Gumbel
from rlseq.agents.mixer import MIXER as MIXER
from rlseq.agents.mle import MLE as MLE
from rlseq.agents.mrt import MRT as MRT
from rlseq.agents.mrt import MRTCorrected as MRTCorrected
from rlseq.agents.pg_bleu import PGBLEU as PGBLEU
from rlseq.agents.ppo import PPO as PPO
from rlseq.agents.ppo import PPOKL as PPOKL
from rlseq.agents.ppo import VinePPO as VinePPO
from rlseq.agents.ratios import CISPO as CISPO
from rlseq.agents.ratios import DPPO as DPPO
from rlseq.agents.ratios import GMPO as GMPO
from rlseq.agents.ratios import GSPO as GSPO
from rlseq.agents.ratios import SAPO as SAPO
from rlseq.agents.reinforce import REINFORCE as REINFORCE
from rlseq.agents.rloo import RLOO as RLOO
from rlseq.agents.scheduled_sampling import READINGS
from rlseq.agents.scheduled_sampling import ScheduledSampling as ScheduledSampling
from rlseq.agents.scst import SCST as SCST
from rlseq.agents.seqgan import REGS as REGS
from rlseq.agents.seqgan import MaliGAN as MaliGAN
from rlseq.agents.seqgan import RankGAN as RankGAN
from rlseq.agents.seqgan import SeqGAN as SeqGAN
from rlseq.agents.soft_q import GLearning as GLearning
from rlseq.agents.soft_q import SoftQ as SoftQ
from rlseq.agents.trpo import TRPO as TRPO
from rlseq.engine.relaxed import RELAXATIONS
from rlseq.policy_gradient import factors
from rlseq.policy_gradient.agent import Agent as Agent
from rlseq.policy_gradient.q_estimates import ACTION_VALUES
from rlseq.utils.arguments import checked_arguments
from rlseq.utils.errors import check_options, enter, pick
from rlseq.value_based.action_values import BACKUPS, FORMS
from rlseq.value_based.exploration import EXPLORATIONS

AGENTS: dict[str, type[Agent]] = {
    "a2c": A2C,
    "a3c": A3C,
    "adversarial": Adversarial,
    "all_action": AllAction,
    "cem": CEM,
    "cispo": CISPO,
    "continuous": Continuous,
    "cpo": CPO,
    "dagger": DAgger,
    "dapo": DAPO,
    "ddpg": DDPG,
    "dpo": DPO,
    "dppo": DPPO,
    "dqn": DQN,
    "dr_grpo": DrGRPO,
    "dro": DRO,
    "dual": Dual,
    "e2e": E2E,
    "es": ES,
    "finite_differences": FiniteDifferences,
    "g_learning": GLearning,
    "gail": GAIL,
    "ggan": GGAN,
    "gkd": GKD,
    "gmpo": GMPO,
    "grpo": GRPO,
    "gspo": GSPO,
    "gumbel": Gumbel,
    "maligan": MaliGAN,
    "max_ent_irl": MaxEntIRL,
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
    "reinforce_pp": ReinforcePP,
    "rloo": RLOO,
    "sapo": SAPO,
    "scheduled_sampling": ScheduledSampling,
    "scst": SCST,
    "seqgan": SeqGAN,
    "soft_q": SoftQ,
    "trpo": TRPO,
    "unpaired": Unpaired,
    "vineppo": VinePPO,
}

# The names that stand for functions, by field.
FUNCTIONS: dict[str, Mapping[str, Any]] = {
    **factors.FACTORS,
    "action_values": ACTION_VALUES,
    "backup": BACKUPS,
    "critic": CRITICS,
    "critic_input": CRITIC_INPUTS,
    "directions": WAYS,
    "distance": DISTANCES,
    "expert": EXPERTS,
    "explore": EXPLORATIONS,
    "form": FORMS,
    "pay": PAYS,
    "reading": READINGS,
    "relaxation": RELAXATIONS,
    "fitness_shaping": SHAPINGS,
    "unroll": UNROLLS,
}


@checked_arguments
def make_agent(name: str, policy: Any, **hyper: Any) -> Agent:
    """Make an agent by name.

    Args:
        name: one of `AGENTS`.
        policy: learns.
        **hyper: the fields of the agent's dataclass; a function may be given by its name, as
            `baseline="mean"` (`FUNCTIONS` holds the names).
    """
    cls = pick(AGENTS, name, "agent")
    check_options(hyper, {field.name for field in fields(cls) if field.name != "policy"}, cls.__name__)
    return cls(policy, **{field: _function(field, value) for field, value in hyper.items()})


def function_name(field: str, function: Any) -> str | None:
    """Return the name that stands for a function as the value of a field; None where there is none."""
    known = FUNCTIONS.get(field, {})
    # By their `repr`, because a baseline that learns is equal to no copy of itself.
    return next((name for name, other in known.items() if repr(other) == repr(function)), None)


def _function(field: str, value: Any) -> Any:
    """Return a copy of the function that a name stands for; other values as they are."""
    if value is None and "none" in FUNCTIONS.get(field, ()):
        value = "none"  # as words of the command line and YAML are read
    if field not in FUNCTIONS or not isinstance(value, str):
        return value
    return deepcopy(pick(FUNCTIONS[field], value, field))  # a copy, because a baseline may learn


def register(name: str, agent: type[Agent]) -> None:
    """Make an agent known by its name, to `make_agent`, comparisons and the command line.

    Args:
        name: letters, digits and `_ + . -`.
        agent: a dataclass, and a subclass of `Agent`; its fields are the hyper-parameters.
    """
    if not (isinstance(agent, type) and issubclass(agent, Agent) and is_dataclass(agent)):
        raise TypeError(
            f"an agent must be a subclass of rlseq.agents.Agent with @dataclass(eq=False), got {agent!r:.80}"
        )
    if name == "start" or name.startswith("sb3-"):
        raise ValueError(f"{name!r} means something else in comparisons; choose another name")
    enter(AGENTS, name, agent, "agent", agent)
