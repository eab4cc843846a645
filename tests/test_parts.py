"""A batch that is scored in parts has the scores, gradients and logits of the whole."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.engine import rollout as engine
from rlseq.engine.decode import Sample
from rlseq.engine.parts import JoinedLogits, parts_of
from rlseq.engine.rollout import evaluate_actions
from rlseq.policies.head import LinearLogits
from rlseq.types import Evaluation, Rollout, SoftTokens

NAMES = ("lstm", "gru", "seq2seq", "transformer")
ALL_NAMES = (*NAMES, "in parts")


def uneven(name: str = "in parts", rows: int = 40) -> tuple[Any, Rollout]:
    """A policy, which packs or is scored in parts, and texts of which few are long."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=rows, length=23, shortest=1)
    torch.manual_seed(0)
    kind = "transformer" if name == "in parts" else name
    policy = rlseq.make_policy(kind, env, hidden=16, embedding=8, value=True)
    if name == "in parts":
        policy.packs = False
    batch = rlseq.rollout(policy, env, decode=Sample(temperature=0.7))
    lengths = torch.arange(rows) % 5 + 1
    lengths[::8] = 24
    mask = batch.mask & (torch.arange(24) < lengths.unsqueeze(1))
    return policy, replace(batch, mask=mask)


def whole(policy: Any, batch: Rollout, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    with monkeypatch.context() as patch:
        patch.setattr(engine, "parts_of", lambda mask: None)
        patch.setattr(policy, "packs", False)
        return evaluate_actions(policy, batch)


def gradient(policy: Any, evaluation: Any, mask: Tensor) -> Tensor:
    loss = (evaluation.log_probs.sin() + evaluation.entropy + evaluation.values).where(mask, 0.0).sum()
    found = torch.autograd.grad(loss, [*policy.parameters()], allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize("name", ALL_NAMES)
def test_scores_and_gradients_are_those_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = uneven(name)
    parts = parts_of(batch.mask)
    assert parts is not None
    assert len(parts.rows) > 1
    assert sum(map(len, parts.rows)) == len(batch.actions)
    found, wanted = evaluate_actions(policy, batch), whole(policy, batch, monkeypatch)
    assert isinstance(found.logits, LinearLogits if policy.packs else JoinedLogits)
    for name in ("log_probs", "entropy", "values", "top"):
        one, other = getattr(found, name), getattr(wanted, name)
        torch.testing.assert_close(one.where(batch.mask, 0.0), other.where(batch.mask, 0.0))
    torch.testing.assert_close(
        gradient(policy, found, batch.mask), gradient(policy, wanted, batch.mask), rtol=1e-4, atol=1e-5
    )


def test_logits_of_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = uneven()
    found, wanted = evaluate_actions(policy, batch), whole(policy, batch, monkeypatch)
    assert found.logits is not None
    assert wanted.logits is not None
    numbers = torch.rand(batch.mask.shape)
    for what in (lambda z, n: z.logsumexp(-1) * n, lambda z, n: z[:, :3] * n.unsqueeze(-1)):
        one, two = (logits.reduce(what, numbers) for logits in (found.logits, wanted.logits))
        real = batch.mask if one.ndim == 2 else batch.mask.unsqueeze(-1)
        torch.testing.assert_close(one.where(real, 0.0), two.where(real, 0.0))
    torch.testing.assert_close(
        found.logits.features[batch.mask], wanted.logits.features[batch.mask], rtol=1e-4, atol=1e-5
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1
    later, later_whole = (
        f(policy, batch).logits for f in (evaluate_actions, partial(whole, monkeypatch=monkeypatch))
    )
    assert later is not None
    assert later_whole is not None
    one, two = later.divergence(found.logits), later_whole.divergence(wanted.logits)
    torch.testing.assert_close(one[batch.mask], two[batch.mask], rtol=1e-4, atol=1e-5)
    shorter = evaluate_actions(policy, batch.take(slice(20))).logits
    assert shorter is not None
    with pytest.raises(TypeError, match="of another"):
        found.logits.divergence(shorter)


@pytest.mark.parametrize("restricted", [False, True])
def test_logits_of_parts_are_compared_with_those_of_a_policy_that_packs(restricted: bool) -> None:
    """Of a teacher and a student, say; both ways, and where some words were not allowed."""
    policy, batch = uneven()
    student, _ = uneven("lstm")
    if restricted:
        allowed = torch.rand(*batch.mask.shape, policy.words.written) < 0.7
        allowed.scatter_(2, batch.actions.unsqueeze(2), True)
        batch = replace(batch, behaviour=batch.behaviour._replace(support=allowed))
    in_parts, packed = evaluate_actions(policy, batch).logits, evaluate_actions(student, batch).logits
    policy.packs = True
    both_packed = evaluate_actions(policy, batch).logits
    assert isinstance(in_parts, JoinedLogits)
    assert isinstance(packed, LinearLogits)
    assert both_packed is not None
    for found, wanted in (
        (in_parts.divergence(packed), both_packed.divergence(packed)),
        (packed.divergence(in_parts), packed.divergence(both_packed)),
    ):
        torch.testing.assert_close(found[batch.mask], wanted[batch.mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["in parts", "transformer", "lstm"])
@pytest.mark.parametrize("ndim", [1, 3])
def test_what_was_allowed_is_divided_too(name: str, ndim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = uneven(name)
    words = policy.words.written
    allowed = torch.ones(*batch.mask.shape, words, dtype=torch.bool)
    allowed[..., ::3] = False
    allowed.scatter_(2, batch.actions.unsqueeze(2), True)
    support = allowed if ndim == 3 else torch.arange(words) >= 0
    batch = replace(batch, behaviour=batch.behaviour._replace(support=support))
    found, wanted = evaluate_actions(policy, batch), whole(policy, batch, monkeypatch)
    torch.testing.assert_close(found.log_probs[batch.mask], wanted.log_probs[batch.mask])


@pytest.mark.parametrize("name", ["in parts", "transformer"])
def test_what_is_read_instead_of_the_actions_is_divided_too(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, batch = uneven(name)
    words = batch.actions.unsqueeze(2).expand(-1, -1, 2)
    for inputs in (batch.actions.flip(1), SoftTokens(words, torch.full(words.shape, 0.5))):
        read = replace(batch, inputs=inputs)
        found, wanted = evaluate_actions(policy, read), whole(policy, read, monkeypatch)
        torch.testing.assert_close(found.log_probs[batch.mask], wanted.log_probs[batch.mask])


def test_parts_cost_least_and_a_batch_of_equal_lengths_stays_whole() -> None:
    full = torch.ones(64, 20, dtype=torch.bool)
    assert parts_of(full) is None
    assert parts_of(full[:1]) is None
    short = full & (torch.arange(20) < 3)
    short[0] = True
    parts = parts_of(short)
    assert parts is not None
    assert parts.widths == [20, 3]
    assert [len(rows) for rows in parts.rows] == [1, 63]
    nothing = parts_of(torch.zeros(64, 20, dtype=torch.bool))
    assert nothing is not None, "64 rows of one step instead of 20"
    assert set(nothing.widths) == {1}


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_batch_without_texts_is_refused_and_one_without_real_words_is_scored(name: str) -> None:
    policy, batch = uneven(name)
    with pytest.raises(ValueError, match="one text at least"):
        evaluate_actions(policy, batch.take(slice(0)))
    empty = replace(batch, mask=torch.zeros_like(batch.mask))
    assert evaluate_actions(policy, empty).log_probs.shape == batch.mask.shape
