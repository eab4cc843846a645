"""Relaxed samples and the agents that learn through a discriminator: exact gradients, samples, refusals."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2
from torch import Tensor, nn

import rlseq
from rlseq.agents.continuous import CRITIC_INPUTS, CRITICS, Embeddings, States, Words, wgan_spectral
from rlseq.agents.gumbel import Gumbel
from rlseq.discriminators import Adversary, Discriminator, make_discriminator
from rlseq.discriminators.network import RecurrentReader
from rlseq.discriminators.objectives import GradientPenalty, closeness, log_probability, logit, wgan
from rlseq.discriminators.texts import TextBatch, real_texts
from rlseq.engine.relaxed import (
    RELAXATIONS,
    Relaxation,
    gumbel_noise,
    gumbel_softmax,
    relaxed_rollout,
    straight_through,
    straight_through_gumbel,
)
from rlseq.policies.spec import TokenSpec
from rlseq.types import Context

HARD = [straight_through, straight_through_gumbel]


def reward(env: Any, words: Tensor, index: Tensor) -> Tensor:
    """Σ_y R(y) ∏ₜ p(yₜ), over all y of T words: R where p is one-hot."""
    every = torch.cartesian_prod(*[torch.arange(len(env.vocab))] * env.max_len).view(-1, env.max_len)
    ended = every == env.vocab.eos if env.vocab.eos is not None else torch.zeros_like(every, dtype=torch.bool)
    written = ended.cumsum(1) - ended.int() == 0
    paid = [
        env.look_up(every, written, {"index": torch.full((len(every),), item)}) for item in range(env.size)
    ]
    chance = torch.ones(len(words), len(every), dtype=words.dtype)
    for t in range(env.max_len):
        chance = chance * words[:, t, every[:, t]]
    return (chance * torch.stack(paid)[index].to(words.dtype)).sum(1)


def estimate(policy: Any, env: Any, how: Relaxation, temperature: float, rows: int) -> Tensor:
    """One estimate of the gradient of the expected reward, from so many texts."""
    batch = relaxed_rollout(policy, env.replace(num_envs=rows), how, temperature)
    assert isinstance(batch.inputs, Tensor)
    value = reward(env, batch.inputs, batch.context["index"]).mean()
    return flat(policy, torch.autograd.grad(value, list(policy.parameters()), allow_unused=True))


def flat(policy: Any, grads: Any) -> Tensor:
    pairs = zip(grads, policy.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]).double()


def exact(policy: Any, env: Any) -> Tensor:
    return flat(policy, rlseq.exact.gradient(policy, env).values())


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", HARD)
def test_texts_of_straight_through_words_are_samples_of_the_policy(tiny: Any, how: Relaxation) -> None:
    env, policy = tiny(rows=4000)
    with torch.no_grad():
        batch = relaxed_rollout(policy, env, how, 0.5)
    whole = tiny.whole(policy, env)
    row = whole.of(batch, torch.arange(len(whole.tokens)).unsqueeze(1)).squeeze(1)
    expected = whole.chance * len(row)
    counts = torch.bincount(row, minlength=len(expected))
    frequent = expected > 5
    pairs = [(counts[frequent], expected[frequent]), (counts[~frequent].sum(), expected[~frequent].sum())]
    statistic = sum(((n - e).square() / e).sum() for n, e in pairs)
    assert chi2.sf(float(statistic), int(frequent.sum())) > 1e-4
    torch.testing.assert_close(batch.log_probs, whole.of(batch, whole.log_probs))
    assert isinstance(batch.inputs, Tensor)
    assert torch.equal(batch.inputs[batch.mask], F.one_hot(batch.actions[batch.mask], 3).float())


def test_a_gumbel_softmax_word_is_a_sample_rounded_off(tiny: Any) -> None:
    """Its largest entry is drawn from softmax(z), whatever τ; as τ falls it becomes that word alone."""
    z = torch.tensor([0.5, -1.0, 2.0, 0.0]).expand(20_000, 4)
    noise = gumbel_noise((20_000, 4), torch.Generator().manual_seed(0))
    expected = z[0].softmax(0) * len(z)
    for tau, certainty in ((5.0, 0.5), (0.01, 0.98)):
        y = gumbel_softmax(z, noise, tau)
        counts = torch.bincount(y.argmax(1), minlength=4)
        assert chi2.sf(float(((counts - expected).square() / expected).sum()), 3) > 1e-4
        assert (float(y.amax(1).mean()) > certainty) == (tau < 1)
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)


def test_words_that_are_not_legal_have_no_weight() -> None:
    env: Any = rlseq.make("rlseq/Copy-v0", num_envs=32, vocab_size=4, length=3)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    legal = torch.tensor([True, False, True, True])
    env.legal = lambda: legal
    batch = relaxed_rollout(policy, env, gumbel_softmax, 1.0)
    assert isinstance(batch.inputs, Tensor)
    assert (batch.inputs[:, :, 1] == 0).all()
    assert not (batch.actions[batch.mask] == 1).any()
    torch.testing.assert_close(batch.inputs[batch.mask].sum(1), torch.ones(int(batch.mask.sum())))
    assert isinstance(batch.behaviour.support, Tensor)
    assert torch.equal(batch.behaviour.support, legal)
    assert env.counts.as_dict()["generated_tokens"] == int(batch.mask.sum())


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_straight_through_words_have_the_derivative_of_soft_ones(tau: float) -> None:
    """∂yᵢ/∂zⱼ = pᵢ (1ᵢⱼ − pⱼ) / τ, with p = softmax(z/τ), or softmax((z + g)/τ)."""
    z, noise = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    for how, p in (
        (straight_through, (z / tau).softmax(0)),
        (straight_through_gumbel, ((z + noise) / tau).softmax(0)),
    ):
        word = how(z, noise, tau)
        assert torch.equal(word, F.one_hot((z + noise).argmax(), 5).double())
        found = torch.func.jacrev(how)(z, noise, tau)
        torch.testing.assert_close(found, (torch.diag(p) - p.outer(p)) / tau)


def test_the_gradient_of_soft_texts_is_that_of_finite_differences(tiny: Any) -> None:
    """With its noise fixed; a policy that read its words detached would fail."""
    env, policy = tiny(rows=64, sources=0, ends=False)
    policy = policy.double()
    state = env.generator.get_state()

    def value() -> Tensor:
        env.generator.set_state(state)
        batch = relaxed_rollout(policy, env, gumbel_softmax, 0.7)
        assert isinstance(batch.inputs, Tensor)
        return reward(env, batch.inputs, batch.context["index"]).mean()

    found = torch.autograd.grad(value(), list(policy.parameters()), allow_unused=True)
    for slope, p in zip(found, policy.parameters(), strict=True):
        if slope is None:
            continue
        direction = torch.randn_like(p)
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                p.add_(direction, alpha=step)
                ends.append(float(value()))
                p.sub_(direction, alpha=step)
        assert float((slope * direction).sum()) == pytest.approx(
            (ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-7
        )


def test_straight_through_is_exact_for_a_single_word(tiny: Any) -> None:
    """The reward of one word is linear in it, so that every estimate is the exact gradient itself."""
    env, policy = tiny(length=1, sources=0)
    for _ in range(2):
        found = estimate(policy, env, straight_through, 1.0, 2)
        torch.testing.assert_close(found, exact(policy, env), rtol=1e-4, atol=1e-6)
    assert float((estimate(policy, env, straight_through, 0.5, 2) - exact(policy, env)).norm()) > 0.1


def bias_and_spread(policy: Any, env: Any, how: Relaxation, tau: float) -> tuple[float, float]:
    """‖E[ĝ] − ∇J‖ / ‖∇J‖ without its noise, and the standard deviation of estimates of 1,000 texts."""
    wanted = exact(policy, env)
    found = torch.stack([estimate(policy, env, how, tau, 1000) for _ in range(15)])
    variance = float(found.var(0).sum())
    off = float((found.mean(0) - wanted).square().sum()) - variance / len(found)
    return max(0.0, off) ** 0.5 / float(wanted.norm()), variance**0.5


def test_a_lower_temperature_has_less_bias_and_more_variance(tiny: Any) -> None:
    env, policy = tiny()
    for how in (gumbel_softmax, straight_through_gumbel):
        (far, steady), (near, noisy) = (bias_and_spread(policy, env, how, tau) for tau in (2.0, 0.5))
        assert far > 0.4 > 0.3 > near, (far, near)
        assert noisy > 2 * steady


@pytest.mark.parametrize("name", ["gru", "lstm", "transformer"])
def test_a_one_hot_distribution_is_read_as_its_word(name: str) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=8, vocab_size=5, length=3)
    policy = rlseq.make_policy(name, env, hidden=8)
    batch = rlseq.rollout(policy, env)
    soft = F.one_hot(batch.actions, len(env.vocab)).float()
    wanted = policy.evaluate(batch.actions, batch.context)
    found = policy.evaluate(batch.actions, batch.context, inputs=soft)
    torch.testing.assert_close(found.log_probs, wanted.log_probs)


# ── the agents ───────────────────────────────────────────────────────────────────────────────────────────


def small(env: Any, name: str = "gru", **sizes: Any) -> Any:
    own = {"share": 0.05} if name == "cnn" else {"hidden": 8}
    return make_discriminator(name, env, embedding=8, **{**own, **sizes})


def oracle(rows: int = 16) -> Any:
    return rlseq.make("rlseq/Oracle-v0", num_envs=rows, vocab_size=20, length=6, hidden=8, references=200)


def gru(env: Any) -> Any:
    return rlseq.make_policy("gru", env, hidden=8, embedding=6)


BRIEF = {"pretraining": 1, "d": 1, "k": 1}


def test_the_loss_is_minus_the_reward_and_reaches_the_policy_alone() -> None:
    env = oracle()
    policy, adversary = gru(env), Adversary(small(env), value=log_probability)
    agent = rlseq.make_agent("gumbel", policy, adversary=adversary, pretraining=0, d=0)
    batch = agent.collect(env)
    loss, metrics = agent.loss(batch)
    words = adversary(batch.actions, batch.mask, batch.context).mean()
    assert float(loss.detach()) == pytest.approx(-float(words), rel=1e-5)
    assert float(metrics["reward"]) == pytest.approx(float(words), rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in adversary.discriminator.parameters())
    assert all(p.requires_grad for p in adversary.discriminator.parameters())
    assert float(policy.head.weight.grad.abs().sum()) > 0


def test_a_wasserstein_generator_takes_no_logarithm() -> None:
    """It minimises −mean D of distributions, and no log (S2 of the sources adds one)."""
    env = oracle()
    policy = gru(env)
    agent: Any = rlseq.make_agent("continuous", policy, pretraining=0, d=0)
    batch = agent.collect(env)
    state, token, steps = policy.start(batch.context), torch.full_like(batch.actions[:, 0], env.vocab.bos), []
    for t in range(env.max_len):
        logits, state = policy.step(token, state)
        steps.append(logits.softmax(1))
        token = batch.actions[:, t]
    d = agent.adversary.discriminator.eval()
    wanted = -d(torch.stack(steps, 1), batch.mask, batch.context).mean()
    found, _ = agent.loss(batch)
    torch.testing.assert_close(found, wanted)
    for slope, same in zip(
        torch.autograd.grad(found, list(policy.parameters())),
        torch.autograd.grad(wanted, list(policy.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(slope, same, rtol=1e-4, atol=1e-6)


def test_what_a_critic_may_read() -> None:
    env = oracle()
    policy = gru(env)
    texts = real_texts(env, 4)
    own, real = Words()(policy, texts), Words().real(policy, texts)
    assert torch.equal(real, texts.tokens)
    table = policy.embedding.weight
    expected = own @ table[:20]
    torch.testing.assert_close(Embeddings()(policy, texts), expected)
    torch.testing.assert_close(Embeddings().real(policy, texts), table[texts.tokens])
    slopes = torch.autograd.grad(Embeddings()(policy, texts).sum(), [table, policy.head.weight])
    through = torch.autograd.grad((own @ table[:20].detach()).sum(), [table, policy.head.weight])
    torch.testing.assert_close(slopes, through)
    states = States()(policy, texts)
    torch.testing.assert_close(policy.head(states.flatten(0, 1)).softmax(1), own.flatten(0, 1))
    assert [kind.width(policy) for kind in CRITIC_INPUTS.values()] == [None, 6, 8]


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        *(("gumbel", {"relaxation": name, "mle": 0.1}) for name in RELAXATIONS),
        *(("continuous", {"critic": name}) for name in CRITICS),
        *(("continuous", {"critic_input": name}) for name in ("embeddings", "states")),
    ],
)
def test_every_choice_goes_on_from_a_checkpoint_bit_by_bit(name: str, hyper: Any) -> None:
    def fresh() -> tuple[Any, Any, Any]:
        env = rlseq.make("rlseq/Copy-v0", num_envs=16, vocab_size=5, length=3, items=100)
        policy = gru(env)
        agent: Any = rlseq.make_agent(name, policy, **hyper, **BRIEF)
        agent.adversary.texts, agent.adversary.memory = 20, 10
        return env, policy, agent

    def run(env: Any, agent: Any, first: int) -> list[float]:
        torch.manual_seed(5)  # dropout of the discriminator
        losses = []
        for update in (first, first + 1):
            agent.set_progress(update / 4)
            losses.append(float(agent.update(agent.collect(env))["loss"]))
        return losses

    env, policy, agent = fresh()
    run(env, agent, 0)
    kept = deepcopy((policy.state_dict(), agent.state_dict(), env.generator.get_state()))
    wanted = run(env, agent, 2)
    env, policy, agent = fresh()
    policy.load_state_dict(kept[0])
    agent.load_state_dict(kept[1])
    env.generator.set_state(kept[2])
    assert run(env, agent, 2) == wanted


@pytest.mark.parametrize("name", ["gumbel", "continuous"])
def test_a_frozen_discriminator_is_pleased_more_and_more(name: str) -> None:
    env = oracle(64)
    policy = gru(env)
    judge = small(env, "cnn")
    with torch.no_grad():
        for p in judge.parameters():
            p.mul_(2)
    adversary = Adversary(judge, value=logit)
    adversary.freeze()
    agent = rlseq.make_agent(name, policy, adversary=adversary, lr=2e-2)

    def pleased() -> float:
        texts = rlseq.rollout(policy, env.replace(num_envs=500))
        return float(adversary(texts.actions, texts.mask, texts.context).mean())

    before = pleased()
    for _ in range(30):
        agent.update(agent.collect(env))
    assert pleased() > before + 0.5, name


def test_the_temperature_falls_geometrically(tiny: Any) -> None:
    _, policy = tiny()
    agent = Gumbel(policy, temperature=4.0, final_temperature=1.0)
    found = []
    for done in (0.0, 0.5, 1.0):
        agent.set_progress(done)
        found.append(agent.tau)
    assert found == pytest.approx([4.0, 2.0, 1.0])


# ── critics ──────────────────────────────────────────────────────────────────────────────────────────────


class Linear(nn.Module):
    """D(x) = Σₜ w·xₜ of distributions: its slope is known."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(words))

    def embed(self, tokens: Tensor, context: Context) -> Tensor:
        return tokens

    def judge(self, x: Tensor, mask: Tensor) -> Tensor:
        return ((x @ self.weight) * mask).sum(1, keepdim=True)


def test_the_gradient_penalty_of_distributions_is_on_their_own_slope() -> None:
    env = oracle()
    d, texts = Linear(20), real_texts(env, 8)
    soft = texts._replace(tokens=torch.rand(8, 6, 20).softmax(2))
    slope = float(d.weight.detach().norm()) * 6**0.5
    for pair in ((texts, soft), (soft, texts), (soft, soft)):
        penalty = GradientPenalty(10.0)(d, *pair)  # type: ignore[arg-type]
        assert float(penalty.detach()) == pytest.approx(10 * (slope - 1) ** 2, rel=1e-4)


def test_a_critic_of_least_squares_asks_for_ones() -> None:
    torch.testing.assert_close(closeness(torch.tensor([[0.0], [1.0], [3.0]])), torch.tensor([-1.0, 0, -4]))


def softened(texts: TextBatch, words: int, sure: float) -> TextBatch:
    """The same words, each with a probability; the rest is spread over all."""
    one_hot = F.one_hot(texts.tokens, words).float()
    return texts._replace(tokens=sure * one_hot + (1 - sure) / words)


def test_a_discriminator_tells_soft_texts_by_their_softness_and_a_lipschitz_critic_cannot() -> None:
    """G10 of the sources: a perfect generator that is unsure is seen through; a bounded slope forgives it.

    Of a critic with slope at most 1, the gap is at most the distance between the texts, Σₜ ‖one-hot − soft‖.
    """
    env = oracle()
    sizes: dict[str, Any] = {"windows": [(1, 32)], "dropout": 0.0}
    plain = Adversary(make_discriminator("cnn", env, embedding=16, **sizes), lr=1e-2)
    bounded = wgan_spectral(make_discriminator("cnn", env, embedding=16, **sizes))
    gaps = []
    for adversary in (plain, bounded):
        for _ in range(60):
            real, other = real_texts(env, 64), real_texts(env, 64)
            adversary._step(real, softened(other, 20, 0.9))
        real = real_texts(env, 200)
        soft = softened(real, 20, 0.9)
        with torch.no_grad():
            d = adversary.discriminator.eval()
            gaps.append(float((d(*real) - d(*soft)).mean()))
    distance = float((F.one_hot(real.tokens, 20) - soft.tokens).norm(dim=2).sum(1).mean())
    assert gaps[0] > 3 * distance
    assert gaps[1] <= distance


def test_spectral_normalisation_bounds_the_table_of_words() -> None:
    env = oracle()
    adversary = wgan_spectral(small(env, "cnn"))
    adversary.texts = 64
    adversary.learn(gru(env), env, epochs=10)
    weight = adversary.discriminator.embedding.weight.detach()
    assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1.0, abs=0.15)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────


class Deaf(nn.Module):
    """A policy whose table reads ids alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 4), nn.Linear(4, 20)

    evaluate: Any = None

    def start(self, context: Context) -> Any:
        return (torch.zeros(len(context["index"]), 1),)

    def step(self, token: Tensor, state: Any) -> Any:
        return self.out(self.table(token)), state


class Blind(Discriminator):
    """A discriminator whose table reads ids alone."""

    def embed(self, tokens: Any, context: Context) -> Tensor:
        return F.embedding(tokens, self.embedding.weight)


def test_a_policy_or_a_discriminator_that_cannot_read_soft_texts_is_refused() -> None:
    env = oracle()
    agent: Any = rlseq.make_agent("gumbel", Deaf(), adversary=Adversary(small(env)))
    with pytest.raises(TypeError, match=r"Deaf does not read distributions over words: .*TokenEmbedding"):
        agent.collect(env)
    agent = rlseq.make_agent("gumbel", rlseq.make_policy("transformer", env, hidden=8))
    with pytest.raises(ValueError, match=r"writes its cache in place.*\"gru\".*\"continuous\""):
        agent.collect(env)
    blind = Blind(TokenSpec.of(env), partial(RecurrentReader, nn.GRU))
    for name in ("gumbel", "continuous"):
        agent = rlseq.make_agent(name, gru(env), adversary=Adversary(blind))
        with pytest.raises(TypeError, match=r"Blind does not read distributions over words: .*make_disc"):
            agent.collect(env)
    assert env.counts.as_dict()["tokens"] == 0


def test_a_critic_of_other_vectors_is_refused() -> None:
    env = oracle()
    for width, made in ((None, "words"), (5, "vectors of width 5")):
        adversary = Adversary(small(env, vectors=width), objective=wgan)
        agent: Any = rlseq.make_agent("continuous", gru(env), critic_input="states", adversary=adversary)
        with pytest.raises(ValueError, match=f"vectors of width 8, got one that reads {made}; make it with"):
            agent.collect(env)
    d = small(env, vectors=5)
    texts = real_texts(env, 2)
    with pytest.raises(TypeError, match="reads vectors of width 5, got words; make it without vectors=5"):
        d(*texts)
    with pytest.raises(ValueError, match="reads vectors of width 5, got 7; make it with vectors=7"):
        d(torch.zeros(2, 6, 7), texts.mask, texts.context)


class Bare(Deaf):
    """A policy without logits, table or head under the usual names."""

    def evaluate(self, actions: Tensor, context: Context) -> Any:
        zeros = torch.zeros(actions.shape)
        return rlseq.types.Evaluation(zeros, zeros)


def test_a_policy_without_what_the_critic_reads_is_refused() -> None:
    env = oracle()
    agent: Any = rlseq.make_agent("continuous", Bare(), adversary=Adversary(small(env)), pretraining=0)
    with pytest.raises(ValueError, match=r"Bare\.evaluate returns no `logits`"):
        agent.loss(agent.collect(env))
    for name, lacking in (("embeddings", "no table of embeddings"), ("states", "no `head`")):
        with pytest.raises(ValueError, match=f"Bare has {lacking}.*critic_input="):
            rlseq.make_agent("continuous", Bare(), critic_input=name)
    with pytest.raises(TypeError, match="critic_input must be a CriticInput, got 'states'"):
        rlseq.agents.Continuous(gru(env), critic_input="states")  # type: ignore[arg-type]
