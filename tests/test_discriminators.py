"""Discriminators: readers against slow loops, objectives by hand, and what they learn to tell apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlseq
from rlseq.discriminators import READERS, Adversary, Ranker, check_discriminator, make_discriminator
from rlseq.discriminators.adversary import random_prefix
from rlseq.discriminators.mode_collapse import ModeCollapse
from rlseq.discriminators.network import WINDOWS, CNNReader
from rlseq.discriminators.objectives import (
    GAN,
    ClipWeights,
    GradientPenalty,
    OutputL2,
    log_probability,
    logit,
    lsgan,
    odds,
    probability,
    spectral,
    surprise,
    wgan,
)
from rlseq.discriminators.ranker import rank
from rlseq.discriminators.texts import TextBatch, mismatched, real_texts
from rlseq.types import Context, SoftTokens


def copying(rows: int = 32, **options: Any) -> Any:
    return rlseq.make(
        "rlseq/Copy-v0", num_envs=rows, **{"vocab_size": 6, "length": 4, "items": 300, **options}
    )


def oracle(rows: int = 32) -> Any:
    return rlseq.make("rlseq/Oracle-v0", num_envs=rows, vocab_size=20, length=6, hidden=8, references=500)


def small(name: str, env: Any, **sizes: Any) -> Any:
    own = {"share": 0.05} if name == "cnn" else {"hidden": 16}
    return make_discriminator(name, env, embedding=16, **{**own, **sizes})


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("task", [copying, oracle])
def test_every_reader_passes_the_proof(name: str, task: Any) -> None:
    check_discriminator(small(name, task()), task())


def test_a_discriminator_that_ignores_its_source_is_caught() -> None:
    env = copying()
    blind = small("gru", env, source=False)
    with pytest.raises(AssertionError, match="ignores the source"):
        check_discriminator(blind, env)


@pytest.mark.parametrize("task", [copying, oracle])
def test_soft_words_are_read_and_pass_a_gradient_on(task: Any) -> None:
    """What relaxations of sampling need: D of a distribution over words."""
    env = task()
    d = small("cnn", env).eval()
    texts = real_texts(env, 8)
    weights = F.one_hot(texts.tokens, len(env.vocab)).float().requires_grad_()
    every = torch.arange(len(env.vocab)).expand_as(weights)
    logits = d(SoftTokens(every, weights), texts.mask, texts.context)
    torch.testing.assert_close(logits, d(*texts))
    logits.sum().backward()
    assert weights.grad is not None
    assert float(weights.grad.abs().sum()) > 0


class Peeking(nn.Module):
    """Wrong: reads what follows the end."""

    def __init__(self, honest: Any) -> None:
        super().__init__()
        self.honest = honest

    def forward(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        logits: Tensor = self.honest(tokens, torch.ones_like(mask), context)
        return logits

    def steps(self, *texts: Any) -> Tensor:
        steps: Tensor = self.honest.steps(*texts)
        return steps


class Mixing(Peeking):
    """Wrong: a row depends on its batch-mates."""

    def forward(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        logits: Tensor = self.honest(tokens, mask, context)
        return logits - logits.mean(0)


class Late(Peeking):
    """Wrong: prefixes are judged one word late."""

    def forward(self, *texts: Any) -> Tensor:
        logits: Tensor = self.honest(*texts)
        return logits

    def steps(self, *texts: Any) -> Tensor:
        return super().steps(*texts).roll(1, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(Peeking, "another prefix|follows the end"), (Mixing, "batch-mates"), (Late, "another prefix")],
)
def test_the_proof_can_fail(wrong: Any, message: str) -> None:
    env = copying()
    with pytest.raises(AssertionError, match=message):
        check_discriminator(wrong(small("gru", env)), env)


def test_the_cnn_is_the_published_one_for_20_words_and_scales_to_others() -> None:
    assert CNNReader(64, 20).width == 1720
    assert CNNReader(64, 40).width == 2040
    assert CNNReader(64, 6).width == 100 + 4 * 200 + 100
    assert WINDOWS[0] == (1, 100)


def test_the_cnn_against_a_slow_loop() -> None:
    reader = CNNReader(3, 5, windows=[(1, 2), (3, 2), (5, 1)])
    x = torch.randn(4, 5, 3)
    mask = torch.arange(5) < torch.tensor([5, 3, 2, 1]).unsqueeze(1)
    wanted = []
    for row, length in zip(x, mask.sum(1).tolist(), strict=True):
        found = []
        for conv in reader.filters:
            assert isinstance(conv, nn.Conv1d)
            assert conv.bias is not None
            width = conv.kernel_size[0]
            best = torch.zeros(conv.out_channels)
            for start in range(length - width + 1):
                window = torch.einsum("nek,ke->n", conv.weight, row[start : start + width]) + conv.bias
                best = torch.maximum(best, window.clamp(min=0))
            found.append(best)
        h = torch.cat(found)
        gate = torch.sigmoid(reader.highway.gate(h))
        wanted.append(gate * reader.highway.change(h).clamp(min=0) + (1 - gate) * h)
    torch.testing.assert_close(reader.end(x, mask), torch.stack(wanted))


@pytest.mark.parametrize(
    ("name", "sizes", "error", "message"),
    [
        ("cmn", {}, ValueError, "unknown discriminator 'cmn'; did you mean 'cnn'"),
        ("gru", {"share": 1}, TypeError, "no option 'share'"),
        ("cnn", {"windows": [(9, 10)]}, ValueError, r"no window of \[9\] fits into 5 words"),
        ("gru", {"outputs": 3}, ValueError, "outputs must be 1, or 2"),
        ("gru", {"outputs": 2, "source": False}, ValueError, "outputs must be 1, or 2"),
    ],
)
def test_mistakes_in_making_one(name: str, sizes: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make_discriminator(name, copying(), **sizes)


# ── values and objectives, by hand ──────────────────────────────────────────────────────────────────────


def test_values_by_hand() -> None:
    z = torch.tensor([[0.0], [math.log(3)]])  # D = 1/2, 3/4
    torch.testing.assert_close(probability(z), torch.tensor([0.5, 0.75]))
    torch.testing.assert_close(log_probability(z), torch.tensor([0.5, 0.75]).log())
    torch.testing.assert_close(surprise(z), torch.tensor([2.0, 4.0]).log())
    torch.testing.assert_close(logit(z), log_probability(z) + surprise(z))
    torch.testing.assert_close(odds(z), torch.tensor([1.0, 3.0]))
    assert torch.isfinite(odds(torch.tensor([[1000.0]]))).all()


def test_with_two_outputs_a_value_wants_both() -> None:
    z = torch.tensor([[0.0, math.log(3)]])
    torch.testing.assert_close(probability(z), torch.tensor([0.375]))
    torch.testing.assert_close(log_probability(z), torch.tensor([0.375]).log())
    torch.testing.assert_close(surprise(z), -torch.tensor([0.625]).log())


def test_objectives_by_hand() -> None:
    high, low = torch.tensor([0.0, math.log(3)]), torch.tensor([-math.log(3)])
    assert float(GAN()(high, low)) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2 + math.log(4 / 3))
    smooth = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert float(GAN(0.1)(high[1:], low)) == pytest.approx(smooth + math.log(4 / 3), rel=1e-5)
    assert float(lsgan(torch.tensor([1.0, 3.0]), torch.tensor([0.5]))) == pytest.approx(2.25)
    assert float(wgan(torch.tensor([1.0, 3.0]), torch.tensor([0.5]))) == pytest.approx(-1.5)
    with pytest.raises(ValueError, match="smoothing must be a number in"):
        GAN(0.7)


class Linear(nn.Module):
    """D(x) = Σₜ w·xₜ: its slope is known."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(words, 3), nn.Linear(3, 1)

    def embed(self, tokens: Tensor, context: Context) -> Tensor:
        x: Tensor = self.table(tokens)
        return x

    def judge(self, x: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.head((x * mask.unsqueeze(2)).sum(1))
        return logits


def test_the_gradient_penalty_by_hand() -> None:
    env, d = copying(), Linear(6)
    texts = real_texts(env, 8)
    slope = float(d.head.weight.detach().norm()) * 5**0.5  # five words each
    penalty = GradientPenalty(10.0)(d, texts, texts.take(torch.arange(7)))  # type: ignore[arg-type]
    assert float(penalty.detach()) == pytest.approx(10 * (slope - 1) ** 2, rel=1e-4)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert d.head.weight.grad is not None


def test_the_penalty_on_the_output_is_on_nothing_else() -> None:
    env = copying()
    d = small("gru", env)
    texts = real_texts(env, 4)
    wanted = 0.1 * float((d.head.weight.square().sum() + d.head.bias.square().sum()).detach())
    assert float(OutputL2(0.2)(d, texts, texts).detach()) == pytest.approx(wanted)


def test_constraints_hold_after_learning() -> None:
    env = copying()
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8)
    clipped = Adversary(
        small("gru", env), value=logit, objective=wgan, constrain=ClipWeights(0.02), texts=64, lr=0.1
    )
    clipped.learn(policy, env)
    assert max(float(p.detach().abs().max()) for p in clipped.discriminator.parameters()) == pytest.approx(
        0.02
    )
    bounded = Adversary(spectral(small("cnn", env)), value=logit, objective=wgan, texts=64, lr=0.1)
    bounded.learn(policy, env, epochs=5)
    highway: Any = bounded.discriminator.reader.highway
    largest = torch.linalg.matrix_norm(highway.gate.weight.detach(), 2)
    assert float(largest) < 1.2


# ── learning ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("objective", [GAN(), GAN(0.1), lsgan])
@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_it_learns_to_tell_noise_from_real_texts(name: str, objective: Any) -> None:
    env = oracle()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    adversary = Adversary(small(name, env), objective=objective, lr=3e-3, texts=500)
    adversary.learn(policy, env, epochs=2)
    assert adversary.learn(policy, env, regenerations=2)["d_order"] > 0.7


def test_a_critic_with_a_gradient_penalty_learns_too() -> None:
    env = oracle()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    critic = Adversary(
        small("cnn", env), value=logit, objective=wgan, penalties=[GradientPenalty()], lr=3e-3, texts=500
    )
    critic.learn(policy, env, epochs=2)
    assert critic.learn(policy, env)["d_order"] > 0.7


def gap(adversary: Adversary, env: Any) -> tuple[Tensor, Tensor]:
    """Mean logits of real pairs and of mismatched ones."""
    texts = real_texts(env, 300)
    wrong = mismatched(texts)
    with torch.no_grad():
        return adversary.discriminator(*texts).mean(0), adversary.discriminator(*wrong).mean(0)


class Real(nn.Module):
    """A perfect generator of `Copy`."""

    def start(self, context: Context) -> Any:
        return (F.pad(context["source"], (0, 1)), torch.zeros_like(context["index"]))

    def step(self, token: Tensor, state: Any) -> Any:
        source, place = state
        word = source.gather(1, place.clamp(max=source.shape[1] - 1).unsqueeze(1)).squeeze(1)
        return 50.0 * F.one_hot(word, 6).float(), (source, place + 1)


def test_mismatched_pairs_lower_d_of_the_wrong_source() -> None:
    """The generator is perfect, so that only mismatched pairs can teach what a source is for."""
    env = copying()
    found = {}
    for mismatch in (True, False):
        adversary = Adversary(small("cnn", env), mismatch=mismatch, lr=1e-2, texts=200, batch=32)
        adversary.learn(Real(), env, epochs=8)
        right, wrong = gap(adversary, env)
        found[mismatch] = float(right - wrong)
    assert found[True] > 3
    assert abs(found[False]) < 1


def test_with_two_outputs_a_wrong_source_lowers_only_the_match() -> None:
    env = copying()
    adversary = Adversary(small("cnn", env, outputs=2), lr=1e-2, texts=200, batch=32)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8)
    adversary.learn(policy, env, epochs=8)
    right, wrong = gap(adversary, env)
    assert float(right[1] - wrong[1]) > 3
    assert abs(float(right[0] - wrong[0])) < 0.3 * float(right[1] - wrong[1])
    texts = real_texts(env, 50)
    assert float(adversary(*texts).mean() - adversary(*mismatched(texts)).mean()) > 0.2


def test_a_random_prefix_is_a_prefix_of_any_length() -> None:
    mask = torch.arange(4) < torch.tensor([4, 2] * 500).unsqueeze(1)
    cut = random_prefix(mask, torch.Generator().manual_seed(0))
    assert (cut[:, 1:] <= cut[:, :-1]).all()
    assert (cut <= mask).all()
    assert torch.unique(cut[::2].sum(1), return_counts=True)[1].min() > 90
    assert torch.unique(cut.sum(1)).tolist() == [1, 2, 3, 4]


def test_memory_keeps_texts_of_past_policies() -> None:
    env = oracle()
    first, then = (rlseq.make_policy("lstm", env, hidden=8, embedding=8, seed=seed) for seed in (0, 1))
    with torch.no_grad():
        first.head.weight[:, -1] = torch.tensor([100.0] + [0.0] * 19)  # writes word 0 alone
    adversary = Adversary(small("gru", env), memory=60, texts=60)
    with pytest.warns(ModeCollapse):
        adversary.learn(first, env)
    assert adversary.past is not None
    assert len(adversary.past.tokens) == 60
    adversary.learn(then, env)
    share = float((adversary.past.tokens == 0).all(1).float().mean())
    assert 0.2 < share < 0.8, "about half are the first policy's"


def test_a_frozen_one_does_not_move() -> None:
    env = oracle()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    adversary = Adversary(small("gru", env), texts=64)
    before = adversary.discriminator.head.weight.clone()
    adversary.freeze()
    assert adversary.learn(policy, env) == {}
    assert torch.equal(adversary.discriminator.head.weight, before)


# ── mode collapse ───────────────────────────────────────────────────────────────────────────────────────


def test_alarms_fire_on_a_collapsed_generator_and_on_no_other() -> None:
    env = oracle()
    collapse = Adversary(small("gru", env)).collapse
    texts, others = real_texts(env, 256), real_texts(env, 256)
    figures = collapse(texts, others)  # no warning, or pytest fails
    assert figures["distinct_texts"] > 0.6
    one = others.take(torch.zeros(256, dtype=torch.int64))
    with pytest.warns(ModeCollapse) as said:
        figures = collapse(texts, one)
    assert "0% of its texts are distinct" in str(said[0].message)
    assert "Self-BLEU is 100" in str(said[1].message)
    assert float(figures["distinct_texts"]) == pytest.approx(1 / 256)
    assert float(figures["self_bleu"]) == pytest.approx(100)


def test_alike_but_not_equal_texts_alarm_by_self_bleu_alone() -> None:
    env = oracle()
    texts = real_texts(env, 256)
    one = texts.tokens[:1].repeat(256, 1)
    one[:, 0] = torch.arange(256) % 20
    one[:, 5] = torch.arange(256) // 20
    with pytest.warns(ModeCollapse) as said:
        Adversary(small("gru", env)).collapse(texts, TextBatch(one, texts.mask, texts.context))
    assert ["Self-BLEU" in str(w.message) for w in said] == [True]


# ── ranks ───────────────────────────────────────────────────────────────────────────────────────────────


def test_ranks_by_hand() -> None:
    like = torch.tensor([[1.0, 0.0]])
    rivals = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    s = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    e = math.exp(2.0)
    others = 1 + e + 1 / e
    wanted = torch.tensor([e / (e + others), 1 / (1 + others)])
    torch.testing.assert_close(rank(s, like, rivals, 2.0), wanted)


def test_a_ranker_learns_that_real_texts_rank_higher() -> None:
    env = oracle()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    ranker = Ranker(small("cnn", env), lr=3e-3, texts=500)
    ranker.learn(policy, env, epochs=3)
    assert ranker.learn(policy, env)["d_order"] > 0.7
    judged = ranker(*real_texts(env, 10))
    assert judged.shape == (10,)
    assert (judged < 0).all()
    steps = ranker.steps(*real_texts(env, 10))
    assert steps.shape == (10, 6)


def test_a_ranker_says_what_it_needs() -> None:
    env = oracle()
    with pytest.raises(ValueError, match=r"call its `begin\(env\)` or `learn` first"):
        Ranker(small("cnn", env))(*real_texts(env, 10))
    with pytest.raises(ValueError, match="source=False"):
        Ranker(small("cnn", copying()))


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────


def emptied(env: Any) -> Any:
    env.items["reference_lengths"][7] = 0
    return env


def alike(env: Any) -> Any:
    env.items["source"][:] = 1
    return env


@pytest.mark.parametrize(
    ("made_for", "used_on", "message"),
    [
        (
            copying,
            lambda: copying(vocab_size=7),
            "reads other texts than Copy has: written=6, the task's is 7",
        ),
        (copying, lambda: copying(length=5), "reads 5 words, the task has 6"),
        (copying, lambda: emptied(copying()), "1 of 300 items have no real text"),
        (copying, lambda: rlseq.make("rlseq/Enumerable-v0"), "reads other texts"),
        (copying, lambda: alike(copying()), "different sources"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_and_nothing_moves(
    made_for: Any, used_on: Any, message: str
) -> None:
    adversary, env = Adversary(small("gru", made_for()), texts=16), used_on()
    before = [p.clone() for p in adversary.discriminator.parameters()]
    policy = rlseq.make_policy("gru", env, hidden=4, embedding=4)
    with pytest.raises(ValueError, match=message):
        adversary.learn(policy, env)
    assert all(map(torch.equal, before, adversary.discriminator.parameters()))


def test_settings_that_make_no_sense() -> None:
    env = copying()
    with pytest.raises(ValueError, match="texts must be an integer ≥ 1, got 0"):
        Adversary(small("gru", env), texts=0)
    with pytest.raises(ValueError, match="lr must be a finite number > 0"):
        Adversary(small("gru", env), lr=0)
    with pytest.raises(ValueError, match="leave mismatch=True"):
        Adversary(small("gru", env, outputs=2), mismatch=False)
