"""Text in, text out: what a policy writes for given sources, best first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlseq.engine.beam import Beam, beam_search
from rlseq.engine.checks import check_words
from rlseq.engine.decode import Decode, Greedy, checked_decoder
from rlseq.engine.mbr import MBR
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.mdp.task import TOKEN_BYTES, no_reward
from rlseq.types import Counts, Rollout
from rlseq.utils.arguments import PositiveInt, checked_arguments, shown
from rlseq.utils.errors import pick
from rlseq.utils.memory import check_fits
from rlseq.vocab import Subwords, TokenizerVocab

NAMED = 3  # sources that a warning names


class Candidate(NamedTuple):
    """A text, and its log-probability (of a beam with its length penalty; of MBR its expected utility)."""

    text: str
    score: float


Source = Any  # a text, or what else the task observes: an array, or the path of a picture


@checked_arguments
@torch.no_grad()
def generate(
    policy: Any,
    env: Any,
    sources: Sequence[Source] | str | None = None,
    decode: Decode | Beam | MBR = Beam(),
    n: PositiveInt = 1,
    *,
    too_long: str = "cut",
) -> list[list[Candidate]]:
    """Return the n best texts for every source; no reward is computed, so that no references are needed.

    Args:
        policy: writes.
        env: the task, for its words; its episodes are left alone.
        sources: texts, or pictures of a task that observes these; a string is one source. None of a task that
            reads nothing.
        decode: `Beam(width)`, `Sample(temperature)` for n different draws, `Greedy()`, or `MBR(samples,
            utility)` for the n samples that agree best with all.
        n: texts a source.
        too_long: "cut" shortens sources that are longer than any in training, with a warning; "refuse" is an
            error.
    """
    env = sequence_env(env)
    check_words(policy, env)
    sources = [sources] if isinstance(sources, str) else sources
    decode = checked_decoder(decode)
    _check_number(decode, n)
    task = _task_about(env, sources, too_long)
    rows, drawn = task.num_envs, decode.samples + decode.beam if isinstance(decode, MBR) else n
    check_fits(rows * drawn * env.max_len * TOKEN_BYTES, n=drawn, max_len=env.max_len)
    if isinstance(decode, Beam):
        found = beam_search(
            policy, task, decode, index=torch.zeros(rows, dtype=torch.int64, device=env.device)
        )
        tokens, mask, scores = found.tokens[:, :n], found.mask[:, :n], found.scores[:, :n]
    elif isinstance(decode, MBR):
        tokens, mask, scores = _agreeing(policy, task, decode, n)
    else:
        tokens, mask, scores = _drawn(policy, task, decode, n)
    return [
        sorted(
            map(Candidate, env.texts(tokens[row], mask[row]), scores[row].tolist()),
            key=lambda candidate: -candidate.score,
        )
        for row in range(rows)
    ]


def _check_number(decode: Decode | Beam | MBR, n: int) -> None:
    """Refuse more texts for a source than a decoder finds."""
    if isinstance(decode, Greedy) and n > 1:
        raise ValueError(f"the greedy text is one, got n={n}; use Beam({n}) or Sample()")
    if isinstance(decode, Beam) and n > decode.width:
        raise ValueError(f"a beam of width {decode.width} finds as many texts, got n={n}; use Beam({n})")
    if isinstance(decode, MBR) and n > decode.samples:
        raise ValueError(f"MBR ranks its {decode.samples} samples, got n={n}; use MBR(samples={n})")


@checked_arguments
@torch.no_grad()
def score(
    policy: Any, env: Any, sources: Sequence[Source] | None, targets: Sequence[str], *, too_long: str = "cut"
) -> list[float]:
    """Return log p(target | source) of every target, its end included, unless it has max_len tokens without.

    Args:
        policy: scores.
        env: the task, for its words.
        sources: one for each target; None of a task that reads nothing.
        targets: texts.
        too_long: "cut" or "refuse", of sources; a target that the task cannot write is always refused.
    """
    env = sequence_env(env)
    if sources is not None and len(sources) != len(targets):
        raise ValueError(
            f"every target needs its source, got {len(sources)} sources and {len(targets)} targets"
        )
    if not targets:
        return []
    coded = env.vocab.encode_batch(targets)
    _warn_of_unknown(env.vocab, targets, coded)
    eos, most = env.vocab.eos, env.max_len
    for target, ids in zip(targets, coded, strict=True):
        if len(ids) > most or (eos is None and len(ids) < most):
            raise ValueError(
                f"the task writes {'exactly' if eos is None else 'at most'} {most} {_units(env.vocab)}, got "
                f"a target of {len(ids)}: {target[:80]!r}"
            )
        if eos in ids:
            raise ValueError(f"a target cannot have the word {env.vocab.words[eos]!r} in it: {target[:80]!r}")
    if sources is None and not reads(env):
        sources = [None] * len(targets)
    task = _task_about(env, sources, too_long)
    written = [ids + [eos or 0] * (most - len(ids)) for ids in coded]  # nothing counts after the first EOS
    nothing = torch.zeros(len(targets), dtype=torch.int64, device=env.device)
    with env.preserved():
        found = rollout(policy, task, forced=written, index=nothing)
    for step in range(most):
        states = torch.arange(len(targets), device=env.device) * most + step
        allowed = found.behaviour.at(states, most).support
        if not isinstance(allowed, Tensor):
            break
        legal = allowed.expand(len(targets), -1).gather(1, found.actions[:, step, None]).squeeze(1)
        for row in (found.mask[:, step] & ~legal).nonzero().flatten().tolist():
            raise ValueError(f"a target has tokens that are not legal at their places: {targets[row][:80]!r}")
    return found.log_probs.sum(1).tolist()


def reads(env: SequenceEnv) -> bool:
    """Return whether policies read a source, a text or a picture, before they write."""
    return env.source_vocab is not None or bool(env.observed)


def _task_about(env: Any, sources: Sequence[Source] | None, too_long: str = "cut") -> Any:
    """Return the task with one row about each source, and without a reward.

    Args:
        env: the task; a task that reads nothing has one row where sources are None.
        sources: texts, arrays, or paths of pictures.
        too_long: "cut" or "refuse".
    """
    pick({"cut": None, "refuse": None}, too_long, "too_long")
    read = _read(env, sources, too_long)
    rows = len(next(iter(read.values()))) if read else len(sources or [None])

    def contexts(index: Tensor) -> dict[str, Tensor]:
        """The sources in their order, each as often as rows are asked for."""
        return {name: value.repeat_interleave(len(index) // rows, 0) for name, value in read.items()}

    return env.replace(reward=no_reward, counts=Counts(), num_envs=rows, contexts=contexts)


def _read(env: Any, sources: Sequence[Source] | None, too_long: str) -> dict[str, Tensor]:
    """Sources as contexts, `[rows, …]`."""
    name = type(env).__name__
    if not reads(env):
        if sources is not None and any(source is not None for source in sources):
            raise ValueError(f"{name} writes from nothing; leave sources out")
        first = torch.zeros(1, dtype=torch.int64, device=env.device)
        needed = set(env.contexts(first)) - {"index", "references", "reference_lengths"}
        if needed:
            raise ValueError(
                f"{name} writes about {', '.join(sorted(needed))}, which it does not declare as observed; "
                "rlseq.rollout(policy, env, decode=…, index=…) writes about its items"
            )
        return {}
    wanted = "texts to write about" if env.source_vocab is not None else " and ".join(sorted(env.observed))
    if isinstance(sources, (str, bytes)) or not isinstance(sources, Sequence) or not len(sources):
        raise ValueError(f"{name} reads a source; give {wanted} as a list of sources, got {shown(sources)}")
    if env.source_vocab is not None and env.observed:
        raise ValueError(f"{name} reads a text and {', '.join(env.observed)}; use rlseq.rollout(…, index=…)")
    if env.source_vocab is not None:
        return {"source": ids_of_sources(env, sources, too_long)}
    if len(env.observed) > 1:
        raise ValueError(f"{name} observes {wanted}; use rlseq.rollout(policy, env, decode=…, index=…)")
    (item,) = env.observed
    one = env.items[item][0]
    read = []
    for place, array in enumerate(map(env.as_source, sources), 1):
        try:
            read.append(torch.as_tensor(array).to(env.device, one.dtype))
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"source {place} must be an array of numbers, got {shown(array)}") from None
        if read[-1].shape != one.shape:
            raise ValueError(
                f"source {place} must have shape {tuple(one.shape)}, got {tuple(read[-1].shape)}"
            )
    return {item: torch.stack(read)}


def ids_of_sources(env: Any, sources: Sequence[Source], too_long: str) -> Tensor:
    """Return sources as ids `[rows, S]`; `too_long` is "cut" or "refuse"."""
    vocab, width = env.source_vocab, env.items["source"].shape[1]
    strange = [source for source in sources if not isinstance(source, str)]
    if strange:
        raise TypeError(f"sources must be texts, got {shown(strange[0])}")
    texts = [env.as_source(text) for text in sources]
    if not all(texts):
        raise ValueError(f"source {texts.index('') + 1} is empty; give a text to write about")
    try:
        coded = vocab.encode_batch(texts)
    except ValueError as error:  # a vocabulary without an id for unknown words
        raise ValueError(f"sources cannot be read: {error}") from None
    _warn_of_unknown(vocab, texts, coded)
    longest = max(map(len, coded))
    if longest > width:
        said = f"the longest source of training has {width} {_units(vocab)}, got a source of {longest}"
        if too_long == "refuse":
            raise ValueError(f"{said}; shorten it, or choose too_long='cut'")
        warnings.warn(f"{said}: longer sources are cut", stacklevel=5)
    rows = [vocab.cut(row, width) for row in coded]
    return torch.tensor([row + [vocab.pad] * (width - len(row)) for row in rows], device=env.device)


def _warn_of_unknown(vocab: Any, texts: Sequence[str], coded: Sequence[list[int]]) -> None:
    """Warn of texts with words that the vocabulary does not have, which are all read as one and the same."""
    strange = [(text, ids) for text, ids in zip(texts, coded, strict=True) if vocab.unk in ids]
    if not strange:
        return
    first = f"in {strange[0][0]!r:.60}" + (f" and {len(strange) - 1} more" if len(strange) > 1 else "")
    if isinstance(vocab, (Subwords, TokenizerVocab)):
        warnings.warn(f"the tokenizer does not know all pieces {first}", stacklevel=5)
        return
    pairs = (pair for text, ids in strange for pair in zip(vocab.split(text), ids, strict=False))
    named = list(dict.fromkeys(repr(unit) for unit, id in pairs if id == vocab.unk))
    listed = ", ".join(named[:NAMED]) + (", …" if len(named) > NAMED else "")
    warnings.warn(f"{_units(vocab)} that were never read in training: {listed} ({first})", stacklevel=5)


def _units(vocab: Any) -> str:
    """The name of the tokens of a vocabulary."""
    if isinstance(vocab, (Subwords, TokenizerVocab)):
        return "pieces"
    return "words" if vocab.separator else "characters"


def _sampled(policy: Any, task: Any, decode: Decode, n: int) -> Rollout:
    """N texts for each source."""
    rows = task.num_envs
    nothing = torch.zeros(rows, dtype=torch.int64, device=task.device)
    return rollout(policy, task.replace(num_envs=rows * n), decode=decode, repeat=n, index=nothing)


def _drawn(policy: Any, task: Any, decode: Decode, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Texts `[B, n, T]` token by token, their masks and log-probabilities."""
    batch, shape = _sampled(policy, task, decode, n), (task.num_envs, n, task.max_len)
    return batch.actions.view(shape), batch.mask.view(shape), batch.log_probs.view(shape).sum(2)


def _agreeing(policy: Any, task: Any, decode: MBR, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The n texts with the largest expected utility, their masks and utilities; equal texts come last."""
    items = torch.zeros(task.num_envs, dtype=torch.int64, device=task.device)
    tokens, mask, _, scores = decode.candidates(policy, task, items)
    equal = (tokens.unsqueeze(1) == tokens.unsqueeze(2)).all(3)  # a text is 0 behind its end
    again = (equal & (mask.unsqueeze(1) == mask.unsqueeze(2)).all(3)).tril(-1).any(2)
    below = scores.max() - scores.min() + 1
    best = (scores - again * below).argsort(dim=1, descending=True, stable=True)[:, :n]
    of_best = best.unsqueeze(2).expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, of_best), mask.gather(1, of_best), scores.gather(1, best)
