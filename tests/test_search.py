"""Completions of every prefix, and beam search, against slow loops and exhaustive search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.engine.beam import beam_search
from rlseq.engine.completions import complete
from rlseq.policy_gradient.exact import texts
from rlseq.types import Context


def setting(
    id: str = "rlseq/Enumerable-v0", rows: int = 6, name: str = "lstm", **options: Any
) -> tuple[Any, Any]:
    env = rlseq.make(id, num_envs=rows, **options)
    policy = rlseq.make_policy(name, env, hidden=16, embedding=8)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(2)
    return env, policy


def exhaustive(env: Any, policy: Any, item: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Every text of an item and its score, best first."""
    tokens, mask = texts(env)
    index = torch.full((len(tokens),), item)
    seen = policy.evaluate(tokens, {**env.contexts(index), "index": index}).log_probs.detach()
    scores = (seen * mask).sum(1) / ((5 + mask.sum(1)) / 6) ** alpha
    scores, order = scores.sort(descending=True)
    return tokens[order], scores


@pytest.mark.parametrize("options", [{}, {"ends": False}, {"sources": 3, "vocab_size": 4}])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_wide_beam_is_exhaustive_search(options: Any, alpha: float) -> None:
    env, policy = setting(**options)
    every = len(texts(env)[0])
    index = torch.arange(6) % env.size
    best = beam_search(policy, env, rlseq.Beam(every, length_penalty=alpha), index=index)
    for row, item in enumerate(index.tolist()):
        tokens, scores = exhaustive(env, policy, item, alpha)
        torch.testing.assert_close(best.scores[row], scores, atol=1e-5, rtol=0)
        if (scores.diff() < -1e-5).all():
            assert torch.equal(best.tokens[row], tokens)


def test_a_beam_of_one_is_greedy() -> None:
    env, policy = setting("rlseq/Copy-v0")
    index = torch.arange(6)
    greedy = rlseq.rollout(policy, env, decode=rlseq.Greedy(), index=index)
    beam = rlseq.rollout(policy, env, decode=rlseq.Beam(1), index=index)
    assert torch.equal(greedy.actions, beam.actions)
    torch.testing.assert_close(greedy.log_probs, beam.log_probs)
    assert torch.equal(greedy.rewards, beam.rewards)


def test_a_beam_finds_likelier_texts_and_scores_them_truly() -> None:
    env, policy = setting("rlseq/Copy-v0", rows=40)
    index = torch.arange(40)
    greedy = rlseq.rollout(policy, env, decode=rlseq.Greedy(), index=index)
    best = beam_search(policy, env, rlseq.Beam(8), index=index)
    assert (best.scores[:, 0] >= greedy.log_probs.sum(1) - 1e-5).all()
    assert (best.scores.diff(dim=1) <= 0).all()
    for n in range(8):
        tokens, mask = best.tokens[:, n], best.mask[:, n]
        again = policy.evaluate(tokens, env.context).log_probs.detach() * mask
        torch.testing.assert_close(again, best.log_probs[:, n], atol=1e-4, rtol=0)
    assert all(len({tuple(t) for t in row}) == 8 for row in best.tokens.tolist()), "n different texts"


def test_groups_write_different_things() -> None:
    env, policy = setting("rlseq/Copy-v0", rows=30)
    index = torch.arange(30)

    def first_tokens(beam: rlseq.Beam) -> int:
        return sum(
            len(set(row)) for row in beam_search(policy, env, beam, index=index).tokens[:, :, 0].tolist()
        )

    assert first_tokens(rlseq.Beam(6, groups=6, diversity=100.0)) == 30 * 6
    assert first_tokens(rlseq.Beam(6)) < 30 * 6


def test_a_finished_group_is_not_avoided() -> None:
    """Group 1 must not end with group 0 at the first step; at the second nobody else does, so it may."""

    class Ends(torch.nn.Module):
        """Likes to end, always."""

        def start(self, context: Context) -> Tensor:
            return torch.zeros(len(context["index"]), 1)

        def step(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return torch.tensor([[2.0, 0.0]]).expand(len(token), 2), state

    env = rlseq.make("rlseq/Enumerable-v0", vocab_size=2, length=4)
    found = beam_search(Ends(), env, rlseq.Beam(2, groups=2, diversity=100.0))  # type: ignore[arg-type]
    assert found.mask[0].sum(1).tolist() == [1, 2]
    assert found.tokens[0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]


def test_evaluation_by_beam() -> None:
    env, policy = setting("rlseq/Copy-v0", items=50)
    scores = rlseq.evaluate(policy, env, decode="beam")
    assert set(scores) >= {"reward", "length", "accuracy", "exact"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rlseq.Beam(0), "width must be an integer ≥ 1, got 0"),
        (lambda: rlseq.Beam(6, groups=4), "groups must divide"),
        (
            lambda: rlseq.Beam(2, length_penalty=float("nan")),
            "length_penalty must be a finite number, got nan",
        ),
        (lambda: rlseq.Beam(2, diversity=-0.5), "diversity must be a finite number ≥ 0, got -0.5"),
        (lambda: rlseq.rollout(*reversed(setting()), decode=rlseq.Beam(16)), "only 15 texts can be written"),
        (
            lambda: rlseq.rollout(
                *reversed(setting()), decode=rlseq.Beam(2), forced=torch.zeros(6, 1).long()
            ),
            "forced, compile and autocast go with",
        ),
    ],
)
def test_beams_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def code(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A reward that tells which text it judges."""
    return (tokens * mask * 10.0 ** torch.arange(tokens.shape[1])).sum(1)


@pytest.mark.parametrize("id", ["rlseq/Oracle-v0", "rlseq/Copy-v0"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_completions_keep_their_prefix_their_context_and_their_place(id: str, name: str) -> None:
    env, policy = setting(id, rows=5, name=name, vocab_size=9, length=6)
    env.parts = {"code": code}
    batch = rlseq.rollout(policy, env)
    samples, steps = 3, env.max_len - 1
    done = complete(policy, env, batch, samples=samples)
    assert torch.equal(done.returns, code(done.actions, done.mask, {}))
    actions = done.actions.view(steps, 5, samples, -1)
    context = done.context["index"].view(steps, 5, samples)
    for t in range(steps):
        prefix = batch.actions[:, None, : t + 1].expand(-1, samples, -1)
        assert torch.equal(actions[t, :, :, : t + 1], prefix)
        assert torch.equal(context[t], batch.context["index"].unsqueeze(1).expand(-1, samples))
        ended = batch.lengths <= t + 1
        assert torch.equal(actions[t][ended], batch.actions[ended].unsqueeze(1).expand(-1, samples, -1))
    assert len({tuple(row) for row in actions[0].flatten(0, 1).tolist()}) > 5
    new = done.mask & (
        torch.arange(env.max_len) > torch.arange(steps).repeat_interleave(5 * samples).unsqueeze(1)
    )
    again = policy.evaluate(done.actions, done.context).log_probs.detach()
    torch.testing.assert_close(done.log_probs * new, again * new, atol=1e-5, rtol=0)
    assert not (done.log_probs * ~new).any()


def test_completions_are_samples_of_the_policy() -> None:
    """The mean reward of many completions is the exact action value, prefix by prefix."""
    env, policy = setting(rows=4, ends=False)
    batch = rlseq.rollout(policy, env)
    samples = 4000
    values = complete(policy, env, batch, samples=samples).returns.view(2, 4, samples)
    tokens, mask = texts(env)
    context = {"index": torch.zeros(len(tokens), dtype=torch.int64)}
    probs = (policy.evaluate(tokens, context).log_probs.detach() * mask).sum(1).exp()
    rewards = env.look_up(tokens, mask, context)
    for t in range(2):
        for b in range(4):
            fits = (tokens[:, : t + 1] == batch.actions[b, : t + 1]).all(1)
            exact = float((probs * rewards)[fits].sum() / probs[fits].sum())
            error = 4.5 * float(values[t, b].std()) / samples**0.5 + 1e-6
            assert abs(float(values[t, b].mean()) - exact) < error


def test_completions_leave_the_task_alone() -> None:
    env, policy = setting("rlseq/Copy-v0")
    batch = rlseq.rollout(policy, env)
    before = env.tokens.clone(), env.length.clone(), env.context
    complete(policy, env, batch, samples=2)
    assert torch.equal(env.tokens, before[0])
    assert torch.equal(env.length, before[1])
    assert env.context is before[2]


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Any:
        env, policy = setting("rlseq/Copy-v0", rows=23)
        batch = rlseq.rollout(policy, env, decode=rlseq.Sample(top_k=4))
        return batch, complete(policy, env, batch, samples=3)

    whole, parts = run(), None
    monkeypatch.setattr("rlseq.engine.device.BLOCK", 40)
    parts = run()
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a.actions, b.actions)
        torch.testing.assert_close(a.log_probs, b.log_probs)
        assert torch.equal(a.rewards, b.rewards)
    real = whole[0].mask  # rows that are finished leave a block, and nothing is recorded of them
    assert torch.equal(whole[0].behaviour.support[real], parts[0].behaviour.support[real])


def test_what_cannot_be_completed() -> None:
    env, policy = setting("rlseq/Copy-v0")
    batch = rlseq.rollout(policy, env)
    with pytest.raises(ValueError, match="samples must be an integer ≥ 1, got 0"):
        complete(policy, env, batch, samples=0)
    from dataclasses import replace

    with pytest.raises(ValueError, match="needs finished texts"):
        complete(policy, env, replace(batch, ends=torch.zeros_like(batch.ends)), samples=1)


@pytest.mark.parametrize(
    "decode", [rlseq.Sample(top_k=3), rlseq.Sample(0.8, top_p=0.6), rlseq.Sample(2.0, 5, 0.9)]
)
def test_a_truncated_distribution_is_stored_and_scored(decode: rlseq.Sample) -> None:
    from rlseq.engine.rollout import evaluate_actions

    env, policy = setting("rlseq/Copy-v0", rows=200)
    batch = rlseq.rollout(policy, env, decode=decode)
    support = batch.behaviour.support
    assert isinstance(support, Tensor)
    assert support.shape == (200, 6, 8)
    kept = support.sum(2)[batch.mask]
    assert kept.min() >= 1
    assert kept.max() <= (decode.top_k or 8)
    assert support.gather(2, batch.actions.unsqueeze(2)).squeeze(2)[batch.mask].all()
    again = evaluate_actions(policy, batch).log_probs.detach()
    torch.testing.assert_close(again * batch.mask, batch.log_probs, atol=1e-5, rtol=0)


def test_the_nucleus_is_the_smallest_set_that_reaches_p() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for p, kept in ((0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (0.96, 4)):
        support = rlseq.Sample(top_p=p).support(logits)
        assert support is not None
        assert int(support.sum()) == kept, p
    assert (
        rlseq.Sample(top_p=1.0).support(logits) is None
    )  # in float32, a sum over many words may pass 1 early
    with pytest.raises(ValueError, match=r"top_p must be a number in \(0, 1\] or None"):
        rlseq.Sample(top_p=0.0)
    with pytest.raises(ValueError, match="top_k must be an integer ≥ 1"):
        rlseq.Sample(top_k=0)
