"""Tasks: one file each, one `register` line each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rlseq.mdp.registry import register

register("rlseq/Copy-v0", "rlseq.envs.copy:Copy")
register("rlseq/Reverse-v0", "rlseq.envs.copy:Reverse")
register("rlseq/Enumerable-v0", "rlseq.envs.enumerable:Enumerable")
register("rlseq/Captions-v0", "rlseq.envs.captions:Captions")
register("rlseq/Oracle-v0", "rlseq.envs.oracle:OracleEnv")
register("rlseq/Parallel-v0", "rlseq.envs.parallel:Parallel")
register("rlseq/G2P-v0", "rlseq.envs.g2p:G2P")
register("rlseq/Numbers-v0", "rlseq.envs.numbers:Numbers")
register("rlseq/Text-v0", "rlseq.envs.text:Text")
register("rlseq/HMM-v0", "rlseq.envs.hmm:Labels")
register("rlseq/Bandit-v0", "rlseq.envs.decisions:Bandit")
register("rlseq/CreditChain-v0", "rlseq.envs.decisions:CreditChain")
register("rlseq/PlayOrStudy-v0", "rlseq.envs.decisions:PlayOrStudy")
register("rlseq/TwoStates-v0", "rlseq.envs.decisions:TwoStates")
register("rlseq/Boxes-v0", "rlseq.envs.boxes:Boxes")
register("rlseq/Chat-v0", "rlseq.envs.chat:Chat")
register("rlseq/Summary-v0", "rlseq.envs.summary:Summary")
register("rlseq/Extract-v0", "rlseq.envs.extract:Extract")
register("rlseq/Molecules-v0", "rlseq.envs.molecules:Molecules")
register("rlseq/Style-v0", "rlseq.envs.style:Style")
register("rlseq/Retrieval-v0", "rlseq.envs.retrieval:Retrieval")
register("rlseq/Music-v0", "rlseq.envs.music:Music")
register("rlseq/Poems-v0", "rlseq.envs.poems:Poems")


def __getattr__(name: str) -> Any:
    """`rlseq.envs.oracle` and the like, imported when they are first named."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
