"""Rows that are finished leave a rollout on a CPU; it writes what it would have written with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq
from rlseq.engine import rollout as engine
from rlseq.engine.completions import complete
from rlseq.engine.device import unfinished
from rlseq.policies.perturbed import PerturbedRows
from rlseq.policies.spec import TokenSpec
from rlseq.types import Context, Rollout, State


def written(keep: bool, monkeypatch: pytest.MonkeyPatch, name: str = "lstm", **given: Any) -> Rollout:
    """A rollout of a policy that ends most texts early."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=60, length=20, shortest=1, seed=3)
    torch.manual_seed(0)
    policy = rlseq.make_policy(name, env, hidden=16, embedding=8)
    with torch.no_grad():
        policy.head.weight[env.vocab.eos] += 0.3
    with monkeypatch.context() as patch:
        if keep:
            patch.setattr(engine, "unfinished", lambda done, step: None)
        return rlseq.rollout(policy, env, **given)


def agree(one: Rollout, other: Rollout) -> None:
    assert torch.equal(one.actions, other.actions)
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.rewards, other.rewards)
    torch.testing.assert_close(one.log_probs, other.log_probs)


@pytest.mark.parametrize("name", ["lstm", "gru", "seq2seq", "transformer"])
def test_the_texts_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = written(False, monkeypatch, name)
    agree(found, written(True, monkeypatch, name))
    assert found.lengths.float().mean() < 0.7 * found.lengths.max(), "or none leaves"


def test_forced_words_and_recorded_supports_are_those_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    forced, steps = torch.randint(1, 5, (60, 6)), torch.arange(60) % 7
    given: Any = {"forced": forced, "forced_steps": steps, "decode": rlseq.Sample(top_k=3)}
    found, wanted = written(False, monkeypatch, **given), written(True, monkeypatch, **given)
    agree(found, wanted)
    one, two = (batch.behaviour.support for batch in (found, wanted))
    assert isinstance(one, torch.Tensor)
    assert isinstance(two, torch.Tensor)
    assert torch.equal(one[found.mask], two[wanted.mask])


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_texts_that_have_ended_are_not_completed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=30, length=12, shortest=1, seed=3)
    torch.manual_seed(0)
    policy = rlseq.make_policy(name, env, hidden=16, embedding=8)
    batch = rlseq.rollout(policy, env)
    state = env.generator.get_state()
    found = complete(policy, env, batch, samples=2)
    monkeypatch.setattr(engine, "unfinished", lambda done, step: None)
    env.generator.set_state(state)
    agree(found, complete(policy, env, batch, samples=2))


def test_rows_leave_together_and_at_looks_only() -> None:
    done = torch.tensor([True, False, True, False])
    assert unfinished(done, 0) is None, "no look"
    found = unfinished(done, 1)
    assert found is not None
    assert found.tolist() == [1, 3]
    assert unfinished(torch.arange(10) == 0, 1) is None, "one of ten"


class Forgets(torch.nn.Module):
    """A policy without memory: a row of logits for every word that it reads."""

    def __init__(self, words: TokenSpec) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(words.read, words.written))

    def start(self, context: Context) -> State:
        return ()

    def step(self, token: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return self.table[token], ()


def test_rows_of_perturbed_policies_without_memory_stay_theirs() -> None:
    """The first policy ends at once, the second never: after the rows of one have left, the other goes on."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=40, length=12)
    quick, slow = (Forgets(TokenSpec.of(env)) for _ in range(2))
    with torch.no_grad():
        quick.table[:, env.vocab.eos] += 50
        slow.table[:, env.vocab.eos] -= 50
    both: Any = PerturbedRows((quick, slow))
    batch = rlseq.rollout(both, env)
    assert batch.lengths.tolist() == [1] * 20 + [env.max_len] * 20


class AfterOne(torch.nn.Module):
    """Ends a text after word 1, and goes on with word 2 after any other."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([[0.0, 0, 99], [99, 0, 0], [0, 0, 99]]))

    def start(self, context: Context) -> State:
        return ()

    def step(self, token: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return self.logits[token], ()


def test_no_row_may_be_left_before_the_longest_text_has_ended() -> None:
    """Completions of word 1 end at once and leave; those of two words are full one step before the last."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=4, vocab_size=3, length=4)
    assert (len(env.vocab), env.vocab.eos, env.max_len) == (3, 0, 5)
    policy: Any = AfterOne()
    texts = rlseq.rollout(policy, env, forced=torch.tensor([[1, 2, 2, 2, 2]] * 4), forced_steps=5)
    found = complete(policy, env, texts, samples=3, prefixes=[1, 2])
    assert found.actions.tolist() == [[1, 0, 0, 0, 0]] * 12 + [[1, 2, 2, 2, 2]] * 12
    assert found.lengths.tolist() == [2] * 12 + [5] * 12
