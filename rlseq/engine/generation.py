"""Text in, text out: what a policy writes for given sources, best first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlseq.engine.beam import Beam, beam_search
from rlseq.engine.decode import Decode, Greedy, checked_decoder
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import sequence_env
from rlseq.mdp.task import CELL
from rlseq.types import Context, Counts
from rlseq.utils.arguments import PositiveInt, checked_arguments, shown
from rlseq.utils.memory import check_fits
from rlseq.vocab import Subwords

SHOWN = 3  # sources that a warning names


class Candidate(NamedTuple):
    """A text, and its log-probability under the policy (of a beam with its length penalty)."""

    text: str
    score: float


@checked_arguments
@torch.no_grad()
def generate(
    policy: Any,
    env: Any,
    sources: Sequence[str] | None = None,
    decode: Decode | Beam = Beam(),
    n: PositiveInt = 1,
) -> list[list[Candidate]]:
    """The n best texts for every source; nothing is judged, so no references are needed.

    Args:
        policy: writes.
        env: the task, for its words; its episodes are left alone.
        sources: texts; of a task without sources None, for n texts from nothing.
        decode: `Beam(width)`, `Sample(temperature)` for n different draws, or `Greedy()`.
        n: texts a source.
    """
    env = sequence_env(env)
    decode = checked_decoder(decode)
    if isinstance(decode, Greedy) and n > 1:
        raise ValueError(f"the greedy text is one, got n={n}; use Beam({n}) or Sample()")
    if isinstance(decode, Beam) and n > decode.width:
        raise ValueError(f"a beam of width {decode.width} finds as many texts, got n={n}; use Beam({n})")
    rows, task = _reading(env, sources)
    check_fits(rows * n * env.max_len * CELL, n=n, max_len=env.max_len)
    if isinstance(decode, Beam):
        found = beam_search(
            policy, task, decode, index=torch.zeros(rows, dtype=torch.int64, device=env.device)
        )
        tokens, mask, scores = found.tokens[:, :n], found.mask[:, :n], found.scores[:, :n]
    else:
        tokens, mask, scores = _drawn(policy, task, decode, n)
    return [
        sorted(
            map(Candidate, env.texts(tokens[row], mask[row]), scores[row].tolist()),
            key=lambda candidate: -candidate.score,
        )
        for row in range(rows)
    ]


def _reading(env: Any, sources: Sequence[str] | None) -> tuple[int, Any]:
    """The task about these sources, one row each."""
    task = env.replace(reward={"unjudged": _unjudged}, counts=Counts())
    if env.source_vocab is None:
        first = torch.zeros(1, dtype=torch.int64, device=env.device)
        seen = set(env.contexts(first)) - {"index", "references", "reference_lengths"}
        if seen:
            raise ValueError(
                f"{type(env).__name__} writes about {', '.join(sorted(seen))}, which no text can stand for; "
                "rlseq.rollout(policy, env, decode=…, index=…) writes about its items"
            )
        if sources is not None:
            raise ValueError(f"{type(env).__name__} writes from nothing; leave sources out")
        return 1, task.replace(num_envs=1, contexts=lambda index: {})
    if not sources:
        raise ValueError(f"{type(env).__name__} reads a source; give texts to write about as sources")
    width, pad = env.items["source"].shape[1], env.source_vocab.pad
    strange = next((source for source in sources if not isinstance(source, str)), None)
    if strange is not None:
        raise TypeError(f"sources must be texts, got {shown(strange)}")
    texts = [env.as_source(text) for text in sources]
    if not all(texts):
        raise ValueError(f"source {texts.index('') + 1} is empty; give a text to write about")
    coded = [env.source_vocab.encode(text) for text in texts]
    _say_unknown(env, texts, coded)
    longest = max(map(len, coded))
    if longest > width:
        raise ValueError(f"the task reads at most {width} {_units(env)}, got a source of {longest}")
    table = torch.tensor([row + [pad] * (width - len(row)) for row in coded], device=env.device)
    repeats = len(coded)

    def contexts(index: Tensor) -> dict[str, Tensor]:
        return {"source": table.repeat_interleave(len(index) // repeats, 0)}

    return repeats, task.replace(num_envs=repeats, contexts=contexts)


def _say_unknown(env: Any, texts: Sequence[str], coded: Sequence[list[int]]) -> None:
    """What the task has no word for is read as one and the same word; that is worth a warning."""
    unknown = env.source_vocab.unk
    strange = [text for text, ids in zip(texts, coded, strict=True) if unknown in ids]
    if strange:
        named = ", ".join(map(repr, strange[:SHOWN])) + (", …" if len(strange) > SHOWN else "")
        warnings.warn(
            f"{_units(env)} that {type(env).__name__} never read in training: {named}", stacklevel=3
        )


def _units(env: Any) -> str:
    if isinstance(env.source_vocab, Subwords):
        return "pieces"
    return "words" if env.source_vocab.separator else "characters"


def _drawn(policy: Any, task: Any, decode: Decode, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Texts `[B, n, T]` token by token, their masks and log-probabilities."""
    rows, task = task.num_envs, task.replace(num_envs=task.num_envs * n)
    nothing = torch.zeros(rows, dtype=torch.int64, device=task.device)
    batch = rollout(policy, task, decode=decode, repeat=n, index=nothing)
    shape = rows, n, task.max_len
    return batch.actions.view(shape), batch.mask.view(shape), batch.log_probs.view(shape).sum(2)


def _unjudged(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    return torch.zeros(len(tokens), device=tokens.device)
