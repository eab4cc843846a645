"""Preflight: what it measures, and what it warns of."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import rlseq
from rlseq.envs.corpus_task import CorpusTask
from rlseq.metrics import BLEU
from rlseq.training.preflight import preflight_warnings


def flight(env: Any, **sizes: Any) -> rlseq.Preflight:
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rlseq.preflight(env, policy, **sizes)


def toy(**options: Any) -> CorpusTask:
    return rlseq.make("rlseq/Parallel-v0", num_envs=4, **options)  # type: ignore[return-value]


def test_the_order_of_a_reward_that_makes_sense() -> None:
    mean = flight(toy()).means
    assert mean["references"] == pytest.approx(1)
    assert 0.7 < mean["references by the others"] < 1
    for bad in ("random", "empty", "greedy", "samples", "best constant"):
        assert mean[bad] < 0.3, bad
    assert mean["empty"] < mean["best constant"]


def test_references_by_the_others_by_hand() -> None:
    env = toy(reward="edit")
    found = flight(env, limit=40).rewards["references by the others"]
    task = env.corpus
    context = rlseq.training.preflight._apart(env, 40).begin()
    texts = [item for item in task.texts(context["index"]) if len(item) > 1]
    metric = rlseq.metrics.EditDistance([item[1:] for item in texts])
    distance = metric.score([item[0] for item in texts])
    near = [min(len(t.split()) + 1 for t in item[1:]) for item in texts]
    assert torch.allclose(found, 1 - distance / torch.tensor(near), atol=0.03)


def test_a_reward_made_of_others_is_fitted_again_too() -> None:
    plain, made = toy(), toy()
    bleu = made.parts["bleu"]
    assert isinstance(bleu, rlseq.metrics.Composable)
    made.parts = {"made": (0.5 * bleu + 0.5 * bleu).clip(0, 1)}
    alone, sum_ = (flight(env).rewards["references by the others"] for env in (plain, made))
    torch.testing.assert_close(alone, sum_)


def test_a_metric_that_was_fitted_elsewhere_cannot_be_fitted_again() -> None:
    env = toy()
    env.parts = {"bleu": BLEU(env.corpus.table(), eos=env.vocab.eos) / 100}
    assert "references by the others" not in flight(env).rewards


def test_captions_are_judged_by_the_others() -> None:
    env = rlseq.make("rlseq/Captions-v0", num_envs=4, scenes=40)
    policy = rlseq.make_policy("captioner", env, hidden=8, embedding=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean = rlseq.preflight(env, policy).means
    assert mean["random"] < mean["references by the others"] < mean["references"]


def test_the_task_is_left_as_it_was() -> None:
    env, other = toy(seed=3), toy(seed=3)
    env.reset()
    other.reset()
    before = env.context
    flight(env)
    assert env.context is before
    assert torch.equal(env.begin()["index"], other.begin()["index"])


def test_a_reward_on_another_vocabulary_is_found() -> None:
    env = toy()
    table, words = env.corpus.table(), len(env.vocab)
    other = [
        [[(i + 7) % words for i in row[:n]]]
        for row, n in zip(table.ids.tolist(), table.lengths.tolist(), strict=True)
    ]
    env.parts = {"bleu": BLEU(other[: len(env.corpus)])}
    assert any("hardly earn more than random text" in line for line in flight(env).warnings)


def test_a_wrong_sign_is_found() -> None:
    env = toy()
    right = env.parts["bleu"]
    env.parts = {"bleu": lambda tokens, mask, context: -right(tokens, mask, context)}
    found = flight(env)
    assert any("hardly earn more than random text" in line for line in found.warnings)
    assert "hardly earn more than random text" in str(found).replace("\n", " ")


def test_a_constant_reward_is_found() -> None:
    env = toy(reward=lambda tokens, mask, context: torch.ones(len(tokens)))
    lines = flight(env).warnings
    assert any("all samples earn the same" in line for line in lines)
    assert any("an empty text earns 1.000" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"references": 0.1}, "references (0.100) hardly earn more than random"),
        ({"references by the others": 0.1}, "judged by the others"),
        ({"best constant": 0.7}, "one constant answer (0.700) beats the policy (0.600)"),
        ({"empty": 0.55}, "an empty text earns 0.550"),
        ({"empty": 0.65}, "an empty text earns 0.650"),
    ],
)
def test_complaints(change: dict[str, float], words: str | None) -> None:
    mean = {"references": 1.0, "references by the others": 0.8, "greedy": 0.6, "samples": 0.4, "random": 0.1}
    found = preflight_warnings({**mean, "best constant": 0.3, "empty": 0.0, **change}, spread=0.2, noise=0.1)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
    assert preflight_warnings({**mean, "best constant": 0.3}, spread=0.0, noise=0.1)[0].startswith(
        "all samples earn the same"
    )


@pytest.mark.parametrize("id", ["rlseq/Enumerable-v0", "rlseq/HMM-v0", "rlseq/Text-v0", "rlseq/Copy-v0"])
def test_tasks_without_references_or_without_an_end(id: str) -> None:
    env: Any = rlseq.make(id)
    rewards = flight(env, limit=16).rewards
    assert ("references" in rewards) == (id != "rlseq/Enumerable-v0")
    assert ("empty" in rewards) == (env.vocab.eos is not None)
    assert all(len(values) == len(rewards["random"]) for values in rewards.values())


def test_it_is_loud() -> None:
    env = toy(reward=lambda tokens, mask, context: torch.zeros(len(tokens)))
    with pytest.warns(UserWarning, match="preflight: ") as said:
        rlseq.preflight(env, rlseq.make_policy("gru", env, hidden=8, embedding=8))
    assert len(said) >= 2
