"""Retrieval: answers to questions are forced, and questions are paid for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq


def made(rows: int, **options: Any) -> Any:
    return rlseq.make("rlseq/Retrieval-v0", num_envs=rows, **options)


def test_a_question_is_answered_by_the_table_whatever_is_written() -> None:
    env = made(2)
    env.begin(index=torch.tensor([0, 1]))
    wanted = env.context["wanted"]
    for word in ("p3", "d1", "p1", "no"):
        env.append(torch.full((2,), env.vocab.words.index(word)))
    document = env.documents + wanted
    env.append(document)
    assert env.legal().nonzero().tolist() == [[0, 0], [1, 0]]
    env.append(torch.zeros(2, dtype=torch.int64))
    assert env.done.all()
    for row, text in enumerate(env.texts(env.tokens, env.mask)):
        answers = ["yes" if has else "no" for has in env.table[wanted[row]][[2, 0]].tolist()]
        assert text == f"p3 {answers[0]} p1 {answers[1]} d{int(wanted[row]) + 1}"
    assert env.score().sum(1).tolist() == pytest.approx([1 - 2 * 0.05] * 2)


def test_what_is_read_is_true_of_what_is_wanted() -> None:
    env = made(100)
    env.begin(index=torch.arange(100))
    for row, source in enumerate(env.sources()):
        for fact in source.split():
            name, answer = fact.split("=")
            assert bool(env.table[env.context["wanted"][row], int(name[1:]) - 1]) == (answer == "yes")


def test_every_policy_s_dialogue_names_a_document_and_asks_nothing_twice() -> None:
    env = made(64)
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=4)
    batch = rlseq.rollout(policy, env)
    assert ((batch.actions >= env.documents).sum(1) == 1).all()
    for row in batch.actions.tolist():
        asked = [word for word in row if env.first <= word < env.documents]
        assert len(asked) == len(set(asked))
    rlseq.testing.check_policy(policy, env)


def test_known_properties_of_the_test_are_in_no_training_item() -> None:
    train, test = (
        {tuple(row) for row in made(1, split=s).items["source"].tolist()} for s in ("train", "test")
    )
    assert test
    assert not train & test
