"""Agents: one algorithm a file, one line here each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rlseq.agent import Agent
from rlseq.agents.mle import MLE
from rlseq.agents.reinforce import REINFORCE
from rlseq.errors import check_options, pick

AGENTS: dict[str, type[Agent]] = {
    "mle": MLE,
    "reinforce": REINFORCE,
}


def make_agent(name: str, policy: Any, **hyper: Any) -> Agent:
    """An agent by name; its hyper-parameters are the fields of its dataclass."""
    cls = pick(AGENTS, name, "agent")
    check_options(hyper, {field.name for field in fields(cls) if field.name != "policy"}, cls.__name__)
    return cls(policy, **hyper)


__all__ = ["AGENTS", "MLE", "REINFORCE", "make_agent"]
