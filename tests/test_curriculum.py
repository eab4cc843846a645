"""Curricula: which items and prefixes training begins with, and that what is given is not learned from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.envs.wrappers.curriculum import BySchedule, BySuccess, Curriculum, EdgeOfSuccess, ReverseCurriculum
from rlseq.mdp.starts import Starts
from rlseq.policy_gradient.exact import gradient
from rlseq.training import checkpoint
from rlseq.types import Context


def copy(rows: int = 64, **options: Any) -> Any:
    sizes = {"vocab_size": 6, "length": 5, "shortest": 1, "items": 500}
    return rlseq.make("rlseq/Copy-v0", num_envs=rows, **{**sizes, **options})


def lengths(env: Any) -> Tensor:
    found: Tensor = env.begin()["reference_lengths"][:, 0]
    return found


@pytest.mark.parametrize("id", ["rlseq/Copy-v0", "rlseq/Reverse-v0"])
def test_sources_of_several_lengths_are_copied_without_their_padding(id: str) -> None:
    env = rlseq.make(id, num_envs=200, vocab_size=6, length=5, shortest=2)
    context = env.begin()
    assert set(lengths(env).tolist()) == {3, 4, 5, 6}
    for source, text in zip(context["source"].tolist(), context["references"][:, 0].tolist(), strict=True):
        words = [word for word in source if word]
        assert text[: len(words)] == (words if "Copy" in id else words[::-1])
        assert not any(text[len(words) :])


def test_short_items_come_first_by_schedule() -> None:
    env = Curriculum(copy(200), BySchedule(start=0.15, until=0.5))
    seen = []
    for done in (0.0, 0.25, 0.5, 1.0):
        env.set_progress(done)
        seen.append(int(lengths(env).max()))
    assert seen[0] == 2
    assert seen == sorted(seen)
    assert seen[2] == seen[3] == 6


def test_more_items_are_opened_by_success() -> None:
    env = Curriculum(copy(200, reward="exact"), BySuccess(start=0.1, wanted=0.5, factor=2.0))
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    batch = rlseq.rollout(policy, env)
    env.learn(batch)
    assert env.starts.pace.share == 0.1
    batch.rewards.fill_(1.0)
    for wanted in (0.2, 0.4, 0.8, 1.0, 1.0):
        env.learn(batch)
        assert env.starts.pace.share == wanted


class Given(Starts):
    """The first word of every text is 1."""

    gives_words = True

    def given(self, context: Context) -> tuple[Tensor, Tensor]:
        ones = torch.ones(len(context["index"]), 1, dtype=torch.int64)
        return ones, ones[:, 0]


@pytest.mark.parametrize("agent", ["reinforce", "rloo", "scst", "mrt_corrected"])
def test_the_gradient_is_that_of_the_words_that_the_policy_chose(tiny: Any, agent: str) -> None:
    """Exact: the expected reward of all texts that begin with the given word; with it, it is another."""
    env, policy = tiny(rows=4000, sources=0, ends=False)
    task = env.replace(starts=Given())
    whole = tiny.whole(policy, env)
    begins = (whole.tokens[:, 0] == 1).double()
    rest = whole.log_probs[:, 1:].sum(1)
    wanted = whole.slopes(policy, (begins * rest.exp() * whole.rewards.sum(1)).sum())
    hyper = {"samples": 2} if agent in ("rloo", "mrt_corrected") else {}
    made: Any = rlseq.make_agent(agent, policy, **hyper)
    batch = made.collect(task)
    assert bool((batch.actions[:, 0] == 1).all())
    assert batch.given.sum(1).tolist() == [1] * 4000
    loss, _ = made.loss(made.with_advantages(batch))
    named = dict(policy.named_parameters())
    grads = torch.autograd.grad(-loss, list(named.values()), allow_unused=True)
    got = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads, strict=True)}
    flat = [torch.cat([g[n].flatten() for n in named if "value" not in n]) for g in (got, wanted)]
    cosine = torch.nn.functional.cosine_similarity(flat[0].double(), flat[1].double(), 0)
    assert float(cosine) > 0.97
    everything = torch.cat([g.flatten() for n, g in gradient(policy, env).items() if "value" not in n])
    assert float(torch.nn.functional.cosine_similarity(everything, flat[1].float(), 0)) < 0.97


@pytest.mark.parametrize("agent", ["a2c", "ppo", "grpo", "dapo"])
def test_given_words_have_no_weight(tiny: Any, agent: str) -> None:
    env, policy = tiny(rows=64)
    made: Any = rlseq.make_agent(agent, policy)
    batch = made.with_advantages(made.collect(env.replace(starts=Given())))
    assert bool((batch.weights[batch.given] == 0).all())
    assert bool((batch.weights[:, 1:] > 0).any())


def test_given_words_count_as_those_of_references() -> None:
    env = copy(reward="exact").replace(starts=Given())
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    batch = rlseq.rollout(policy, env)
    assert env.counts.reference_tokens == 64
    assert env.counts.generated_tokens == batch.lengths.sum() - 64
    with pytest.raises(ValueError, match=r"gives words at the start .*env.replace\(starts=None\)"):
        rlseq.rollout(policy, env, forced=batch.actions)


def test_beginnings_move_back_from_the_end_at_the_edge_of_success() -> None:
    env = ReverseCurriculum(copy(shortest=None), low=0.3, high=0.8)
    edge: Any = env.starts
    assert edge.levels().tolist() == [1]
    for success, levels in (
        ([0.2, 0, 0, 0, 0, 0], [1]),
        ([0.5, 0, 0, 0, 0, 0], [1, 2]),
        ([0.9, 0.1, 0, 0, 0, 0], [2]),
        ([0.9, 0.9, 0.4, 0, 0, 0], [3, 4]),
        ([0.9] * 6, [6]),
    ):
        edge.success = torch.tensor(success)
        assert edge.levels().tolist() == levels
    edge.success = torch.tensor([0.9, 0.9, 0.4, 0, 0, 0])
    context = env.begin()
    words, steps = edge.given(context)
    assert set((6 - steps).tolist()) == {3, 4}
    assert torch.equal(words, context["references"][:, 0])
    assert torch.equal(edge.given(context)[1], steps)


def test_the_return_of_each_level_is_averaged() -> None:
    env = ReverseCurriculum(copy(shortest=None, reward="exact"), low=0.3, high=0.8)
    edge: Any = env.starts
    edge.success = torch.tensor([0.5, 0, 0, 0, 0, 0])
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    batch = rlseq.rollout(policy, env)
    left = edge.left(batch.context)
    batch.rewards.zero_()
    batch.rewards[left == 2, 0] = 1.0
    env.learn(batch)
    torch.testing.assert_close(edge.success, torch.tensor([0.4, 0.2, 0, 0, 0, 0]))


def test_an_evaluation_begins_as_always() -> None:
    env = copy(50, items=50)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    assert rlseq.evaluate(policy, ReverseCurriculum(env)) == rlseq.evaluate(policy, env)


@pytest.mark.parametrize("kind", ["easy", "reverse"])
def test_training_goes_on_from_a_checkpoint_bit_by_bit(kind: str, tmp_path: Any) -> None:
    def start() -> tuple[Any, Any]:
        env = copy(16, reward="accuracy")
        easy = Curriculum(env, BySuccess(wanted=0.0, start=0.05))
        policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
        return rlseq.make_agent("rloo", policy, lr=1e-2), easy if kind == "easy" else ReverseCurriculum(env)

    def go(agent: Any, env: Any) -> list[Tensor]:
        for _ in range(3):
            batch = agent.collect(env)
            agent.update(batch)
            env.learn(batch)
        return [p.detach().clone() for p in agent.policy.parameters()]

    agent, env = start()
    go(agent, env)
    checkpoint.save(tmp_path, 3, checkpoint.state_of(agent, env))
    wanted = go(agent, env)
    agent, env = start()
    checkpoint.restore(agent, env, checkpoint.read(tmp_path, 3))
    assert all(map(torch.equal, go(agent, env), wanted))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="shortest must be at most length=5, got 6"):
        copy(shortest=6)
    with pytest.raises(ValueError, match="low must be at most high"):
        ReverseCurriculum(copy(), low=0.9, high=0.1)
    for curriculum in (Curriculum, ReverseCurriculum):
        with pytest.raises(ValueError, match="no references"):
            curriculum(rlseq.make("rlseq/Enumerable-v0"))
    assert isinstance(ReverseCurriculum(copy()).starts, EdgeOfSuccess)
