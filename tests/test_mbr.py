"""Minimum Bayes risk: the utility matrix by pairs, the decoder, and learning from winners."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.engine.beam import Beam, beam_search
from rlseq.engine.mbr import MBR, expected_utility, utilities
from rlseq.metrics.fitting import named_reward
from rlseq.metrics.registry import METRICS, row_of
from rlseq.policy_gradient.exact import expected_gradient

EQUAL = 1e-4


def writer(rows: int = 12, **options: Any) -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Copy-v0", num_envs=rows, vocab_size=4, length=4, **options)
    return env, rlseq.make_policy("gru", env, hidden=8, embedding=4)


def edits(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_the_best_sample_is_that_of_the_formula() -> None:
    env, policy = writer()
    batch = rlseq.rollout(policy, env, repeat=4)
    texts = [row[:n] for row, n in zip(batch.actions.tolist(), batch.lengths.tolist(), strict=True)]
    found = utilities(batch, 4, "edit_distance", env.vocab)
    wanted = [
        [[-edits(texts[i], texts[j]) for j in range(s, s + 4)] for i in range(s, s + 4)] for s in (0, 4, 8)
    ]
    assert found.tolist() == wanted
    means = expected_utility(batch, 4, "edit_distance", env.vocab, without_itself=True)
    assert means[5] == pytest.approx(sum(wanted[1][1]) / 3)

    state = env.generator.get_state()
    index = torch.tensor([3, 1, 4])
    chosen = rlseq.rollout(policy, env.replace(num_envs=3), decode=MBR(4, "edit_distance"), index=index)
    env.generator.set_state(state)
    drawn = rlseq.rollout(policy, env, repeat=4, index=index)
    best = expected_utility(drawn, 4, "edit_distance", env.vocab).view(3, 4).argmax(1) + torch.arange(3) * 4
    assert torch.equal(chosen.actions, drawn.actions[best])
    assert torch.equal(chosen.log_probs, drawn.log_probs[best])
    assert torch.equal(chosen.rewards, drawn.rewards[best]), "paid by the task's own references"


def test_samples_may_be_of_likely_words_only() -> None:
    """The text is one of those that the decoder of the samples draws, and the best of them."""
    env, policy = writer(3)
    index, state = torch.tensor([3, 1, 4]), env.generator.get_state()
    chosen = rlseq.rollout(policy, env, decode=MBR(5, "edit_distance", 0.7, 3, 0.9), index=index)
    env.generator.set_state(state)
    wide = env.replace(num_envs=15)
    drawn = rlseq.rollout(policy, wide, decode=rlseq.Sample(0.7, 3, 0.9), repeat=5, index=index)
    best = expected_utility(drawn, 5, "edit_distance", env.vocab).view(3, 5).argmax(1) + torch.arange(3) * 5
    assert torch.equal(chosen.actions, drawn.actions[best])
    with pytest.raises(ValueError, match="top_p must be a number in"):
        MBR(top_p=0.0)


def test_texts_of_a_beam_are_candidates_too() -> None:
    """The samples alone are references; of samples and beam that with the fewest edits to them is written."""
    env, policy = writer(3)
    index, state = torch.tensor([3, 1, 4]), env.generator.get_state()
    chosen = rlseq.rollout(policy, env, decode=MBR(3, "edit_distance", beam=4), index=index)
    env.generator.set_state(state)
    drawn = rlseq.rollout(policy, env.replace(num_envs=9), repeat=3, index=index)
    found = beam_search(policy, env, Beam(4), index=index)
    for item in range(3):
        ours = slice(3 * item, 3 * item + 3)
        samples = [
            r[:n] for r, n in zip(drawn.actions[ours].tolist(), drawn.lengths[ours].tolist(), strict=True)
        ]
        beam = [row[m].tolist() for row, m in zip(found.tokens[item], found.mask[item], strict=True)]
        risks = [sum(edits(y, sample) for sample in samples) for y in [*samples, *beam]]
        wanted = [*samples, *beam][risks.index(min(risks))]
        assert chosen.actions[item][chosen.mask[item]].tolist() == wanted
    scored = policy.evaluate(chosen.actions, chosen.context).log_probs * chosen.mask
    torch.testing.assert_close(scored, chosen.log_probs, atol=1e-5, rtol=0)
    ((first, second, *_),) = rlseq.generate(policy, env, ["a b c"], MBR(2, "edit_distance", beam=4), n=2)
    assert first.score >= second.score


def test_utilities_are_scores_of_pairs() -> None:
    """BLEU of each text against each other as its only reference; its end is a word like any other."""
    env, policy = writer(6)
    batch = rlseq.rollout(policy, env, repeat=3)
    texts = [row[:n] for row, n in zip(batch.actions.tolist(), batch.lengths.tolist(), strict=True)]
    found = utilities(batch, 3, "bleu", env.vocab)
    for i in range(3):
        bleu = row_of("bleu").fit([[texts[j]] for j in range(3)])
        torch.testing.assert_close(found[0, i], bleu.score([texts[i]] * 3))
    others = expected_utility(batch, 3, "bleu", env.vocab, without_itself=True)
    assert others[1] == pytest.approx(float(found[0, 1, 0] + found[0, 1, 2]) / 2), "its own BLEU is no part"


@pytest.mark.parametrize(
    "metric", [n for n, row in METRICS.items() if row.needs_references and row.reads != "texts"]
)
def test_any_metric_that_compares_texts_is_a_utility(metric: str) -> None:
    env, policy = writer(6)
    found = utilities(rlseq.rollout(policy, env, repeat=3), 3, metric, env.vocab)
    assert found.shape == (2, 3, 3)
    assert found.isfinite().all()
    assert (found.diagonal(dim1=1, dim2=2) >= found.amax(2) - 1e-5).all() or metric == "cider", (
        "itself is best"
    )


def test_the_utility_of_a_sum_is_the_sum_of_utilities() -> None:
    """A part that compares nothing, such as the variety of a text, counts for the candidate alone."""
    env, policy = writer()
    batch = rlseq.rollout(policy, env, repeat=4)
    both = utilities(batch, 4, "bleu + 0.5*distinct_2", env.vocab)
    variety = named_reward("distinct_2", None)(batch.actions, batch.mask, {}).view(3, 4, 1)
    alone = 0.01 * utilities(batch, 4, "bleu", env.vocab)
    torch.testing.assert_close(both, alone + 0.5 * variety, check_dtype=False)
    assert len(set(variety.flatten().tolist())) > 1


def test_texts_are_generated_best_first() -> None:
    env, policy = writer()
    ((first, second, third),) = rlseq.generate(policy, env, ["a b c"], MBR(16, "edit_distance"), n=3)
    assert first.score >= second.score >= third.score
    assert len({first.text, second.text, third.text}) == 3
    with pytest.raises(ValueError, match=r"ranks its 2 samples, got n=3; use MBR\(samples=3\)"):
        rlseq.generate(policy, env, ["a b"], MBR(2, "bleu"), n=3)


def test_the_utility_is_that_of_the_reward() -> None:
    env, policy = writer(reward="bleu")
    assert rlseq.evaluate(policy, env, decode="mbr", limit=4)["reward"] >= 0
    with pytest.raises(ValueError, match=r"the reward of this task, .*, is not a single metric .*; name one"):
        rlseq.rollout(policy, writer()[0], decode=MBR())
    with pytest.raises(ValueError, match="length does not compare two texts"):
        rlseq.rollout(policy, env, decode=MBR(utility="length"))
    with pytest.raises(ValueError, match="samples must be"):
        MBR(1)


def test_the_worst_of_references_is_never_looked_at() -> None:
    """The same draw gives the same text whatever the task pays."""
    env, policy = writer()
    state = env.generator.get_state()
    one = rlseq.rollout(policy, env, decode=MBR(4, "bleu"), index=torch.arange(12))
    env.generator.set_state(state)
    env.parts = {"nothing": lambda tokens, mask, context: torch.zeros(len(tokens))}
    other = rlseq.rollout(policy, env, decode=MBR(4, "bleu"), index=torch.arange(12))
    assert torch.equal(one.actions, other.actions)


def test_fine_tuning_on_winners_follows_their_likelihood(tiny: Any) -> None:
    """Σ over groups of p(group) · log p of the winner by consensus, shared where several win."""
    env, policy = tiny(vocab_size=2, length=2)
    hyper = {"credit": rlseq.agents.FUNCTIONS["credit"]["consensus"].__class__("edit_distance")}
    agent: Any = rlseq.make_agent(
        "reinforce", policy, samples=3, baseline="none", scale="best_of_group", **hyper
    )
    whole = tiny.whole(policy, env)
    p, texts = whole.log_p.view(whole.shape), whole.shape[1]
    written = [row[:n] for row, n in zip(whole.tokens.tolist(), whole.mask.sum(1).tolist(), strict=True)]
    total: Tensor = torch.zeros(())
    for item in range(env.size):
        for group in torch.cartesian_prod(*[torch.arange(texts)] * 3).tolist():
            risk = [sum(edits(written[i], written[j]) for j in group) for i in group]
            winners = [i for i, cost in zip(group, risk, strict=True) if cost == min(risk)]
            chance = p[item, group].detach().sum().exp() / env.size
            total = total + chance * p[item, winners].mean()
    assert tiny.error(expected_gradient(agent, env), whole.slopes(policy, total)) < EQUAL
