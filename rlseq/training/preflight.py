"""Checks of a reward before training: its values for texts of known quality, and warnings about them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.decode import Greedy, Sample
from rlseq.engine.rollout import rollout
from rlseq.mdp.checks import WrongShape
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.metrics.algebra import without_first_reference
from rlseq.types import Context, Counts
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.ranks import ALONE

CONSTANT_ANSWERS = 24  # answers tried as the best constant one
TokensAndMask = tuple[Tensor, Tensor]  # tokens and mask, `[B, T]` each


@dataclass
class Preflight:
    """The rewards of known kinds of text, `[N]` each, and warnings about them; it can be printed."""

    rewards: dict[str, Tensor]
    constant: str
    warnings: list[str] = field(default_factory=list)

    @property
    def means(self) -> dict[str, float]:
        """The mean reward of each kind."""
        return {name: float(values.mean()) for name, values in self.rewards.items()}

    def __rich__(self) -> Any:
        from rich.console import Group  # imported here, because training computes rewards too and prints none
        from rich.markup import escape
        from rich.table import Table

        table = Table(title="preflight: what the reward pays", title_justify="left")
        for name in ("texts", "mean", "spread", "least", "most"):
            table.add_column(name, justify="left" if name == "texts" else "right")
        for name, values in self.rewards.items():
            figures = values.mean(), values.std(correction=0), values.min(), values.max()
            table.add_row(name, *(f"{float(figure):.3f}" for figure in figures))
        verdict = [f"[bold red]{escape(line)}[/]" for line in self.warnings] or ["nothing looks wrong"]
        return Group(table, escape(f"best constant answer: {self.constant!r:.80}"), *verdict)

    def __str__(self) -> str:
        from rich.console import Console

        out = StringIO()
        Console(file=out, width=110).print(self)
        return out.getvalue()


@checked_arguments
@torch.no_grad()
def preflight(env: Any, policy: Any, limit: PositiveInt = 256) -> Preflight:
    """Compute the rewards of references, texts of the policy and worthless texts; warn of a wrong order.

    The task and its random numbers are not changed.

    Args:
        env: the task.
        policy: the policy before training.
        limit: number of texts of each kind.
    """
    task, context, references, rewards = _good(env, limit)
    if references is not None and (others := _left_out(task, context, references)) is not None:
        rewards["references by the others"] = others
    greedy = rollout(policy, task, decode=Greedy(), index=context["index"])
    rewards["greedy"] = greedy.returns
    text, constant = _best_constant(task, context, references or (greedy.actions, greedy.mask))
    rewards |= {"best constant": constant, **_worthless(task, policy, context, references)}
    found = Preflight({name: values.cpu() for name, values in rewards.items()}, text)
    found.warnings = preflight_warnings(found.means, *_spreads(rewards))
    for line in found.warnings:
        warnings.warn(f"preflight: {line}", stacklevel=2)
    return found


@torch.no_grad()
def reward_warnings(env: Any, policy: Any, limit: int = 64) -> list[str]:
    """Return warnings about a reward, at the cost of two batches; `train` calls it before it begins.

    Args:
        env: the task.
        policy: the policy before training.
        limit: number of texts of each kind.
    """
    task, context, references, rewards = _good(env, limit)
    rewards |= _worthless(task, policy, context, references)
    means = {name: float(values.mean()) for name, values in rewards.items()}
    found = reward_only_warnings(means, *_spreads(rewards))
    if references is not None and means["references"] <= _floor(means, _spreads(rewards)[1]):
        text, constant = _best_constant(task, context, references)
        if float(constant.mean()) > means["references"]:
            found.append(f"the answer {text!r:.80} to every source earns {float(constant.mean()):.3f}")
    return found


def _good(env: Any, limit: int) -> tuple[SequenceEnv, Context, TokensAndMask | None, dict[str, Tensor]]:
    """Return a copy of the task, some of its contexts, their references, and the rewards of these."""
    task = _apart(sequence_env(env), limit)
    context = dict(task.begin())
    references = _references(task, context)
    rewards = {} if references is None else {"references": _paid(task, references, context)}
    return task, context, references, rewards


def _worthless(
    task: SequenceEnv, policy: Any, context: Context, references: TokensAndMask | None
) -> dict[str, Tensor]:
    """Return the rewards of samples of a policy, of random text, and of an empty text."""
    with _counting(task):
        samples = rollout(policy, task, decode=Sample(), index=context["index"])
    random = _random(task, references or (samples.actions, samples.mask))
    paid = {"samples": samples.returns, "random": _paid(task, random, context)}
    if task.vocab.eos is not None:
        end = torch.full((task.num_envs, 1), task.vocab.eos, device=task.device)
        paid["empty"] = _paid(task, _fitted(task, end, torch.ones_like(end[:, 0])), context)
    return paid


def _paid(task: SequenceEnv, texts: TokensAndMask, context: Context) -> Tensor:
    """Return the rewards of texts, `[N]`."""
    with _counting(task):
        return task.total_reward(*texts, context).sum(1)


@contextmanager
def _counting(task: SequenceEnv) -> Iterator[None]:
    """Add to an error about the shape of a reward how many texts were judged, and why."""
    try:
        yield
    except WrongShape as error:
        raise ValueError(
            f"{error}. Before training, the reward is tried on {task.num_envs} texts, whatever the num_envs "
            "of the task: a reward must judge any number of texts, so take the number from tokens.shape[0]"
        ) from error


def _spreads(rewards: dict[str, Tensor]) -> tuple[float, float]:
    return float(rewards["samples"].std(correction=0)), float(rewards["random"].std(correction=0))


def preflight_warnings(mean: dict[str, float], spread: float, noise: float) -> list[str]:
    """Return warnings about mean rewards, by the spread among samples, and among random texts."""
    found = reward_only_warnings(mean, spread, noise)
    if mean["best constant"] > mean["greedy"]:
        found.append(
            f"one constant answer ({mean['best constant']:.3f}) beats the policy ({mean['greedy']:.3f}); "
            "train it by likelihood first, or it may learn that answer"
        )
    if mean.get("empty", -1e9) >= mean["greedy"]:
        found.append(_empty_pays(mean["empty"]))
    return list(dict.fromkeys(found))


def reward_only_warnings(mean: dict[str, float], spread: float, noise: float) -> list[str]:
    """Return the warnings that concern only the reward, independently of the policy."""
    floor = _floor(mean, noise)
    best = mean.get("references")
    found = []
    if best is not None and best <= floor:
        found.append(
            f"references ({best:.3f}) hardly earn more than random text ({mean['random']:.3f}): are "
            "they right under this reward at all, is it fitted on another vocabulary or another split, or is "
            "its sign wrong?"
        )
    if mean.get("references by the others", 1e9) <= floor:
        found.append("a reference, judged by the others, hardly earns more than random text")
    if spread == 0:
        found.append("all samples earn the same, so that there is nothing to learn from")
    empty = mean.get("empty")
    if empty is not None and best is not None and empty >= 0.5 * best > 0:
        found.append(_empty_pays(empty))
    return found


def _floor(mean: dict[str, float], noise: float) -> float:
    """Return the mean reward below which references hardly earn more than random texts."""
    return mean["random"] + noise / 2


def _empty_pays(empty: float) -> str:
    return f"an empty text earns {empty:.3f}: the policy may learn to write nothing"


def _apart(env: SequenceEnv, limit: int) -> SequenceEnv:
    """Return the same task with episodes and random numbers of its own."""
    return env.replace(
        num_envs=min(limit, max(env.size, 32)),
        generator=torch.Generator(env.device).manual_seed(env.seed),
        counts=Counts(),
        rank=ALONE,
    )


def _fitted(task: SequenceEnv, tokens: Tensor, lengths: Tensor) -> TokensAndMask:
    """Return texts padded or cut to the largest length of the task."""
    room = task.max_len - tokens.shape[1]
    tokens = torch.nn.functional.pad(tokens, (0, max(room, 0)))[:, : task.max_len]
    mask = torch.arange(task.max_len, device=tokens.device) < lengths.clamp(min=1).unsqueeze(1)
    return tokens.where(mask, 0), mask


def _references(task: SequenceEnv, context: Context) -> TokensAndMask | None:
    """Return the first reference of every item."""
    if "references" not in context:
        return None
    return _fitted(task, context["references"][:, 0], context["reference_lengths"][:, 0])


def _left_out(task: SequenceEnv, context: Context, references: TokensAndMask) -> Tensor | None:
    """Return the reward of the first reference of every item, judged by the others; None if impossible."""
    several = (context["reference_lengths"] > 0).sum(1) > 1
    if not several.any():
        return None
    some = {name: value[several] for name, value in context.items()}
    tokens, mask = (part[several] for part in references)
    some |= {name: some[name][:, 1:] for name in ("references", "reference_lengths")}
    left = {name: without_first_reference(part, some["index"]) for name, part in task.parts.items()}
    parts = {name: part for name, part in left.items() if part is not None}
    if len(parts) < len(left):
        return None
    return task.replace(reward=parts).total_reward(tokens, mask, some).sum(1)


def _best_constant(task: SequenceEnv, context: Context, texts: TokensAndMask) -> tuple[str, Tensor]:
    """Return the frequent text with the largest mean reward over all contexts, and its rewards."""
    tokens, mask = texts
    rows, counts = torch.unique(tokens.where(mask, -1), dim=0, return_counts=True)
    rows = rows[counts.argsort(descending=True, stable=True)[:CONSTANT_ANSWERS]]
    constants = [(row.clamp(min=0).expand_as(tokens), (row >= 0).expand_as(mask)) for row in rows]
    earned = [task.total_reward(*constant, context).sum(1) for constant in constants]
    best = max(range(len(earned)), key=lambda number: float(earned[number].mean()))
    return task.texts(*(part[:1] for part in constants[best]))[0], earned[best]


def _random(task: SequenceEnv, texts: TokensAndMask) -> TokensAndMask:
    """Return random words with the lengths of given texts, which end where these do."""
    tokens, mask = texts
    drawn = torch.randint(len(task.vocab), tokens.shape, generator=task.generator, device=task.device)
    if task.vocab.eos is not None:
        eos = task.vocab.eos
        drawn = torch.where(drawn == eos, (eos + 1) % len(task.vocab), drawn)
        drawn = torch.where(tokens == eos, eos, drawn)
    return drawn.where(mask, 0), mask
