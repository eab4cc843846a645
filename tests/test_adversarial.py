"""SeqGAN and its relatives: credit in its place, exact gradients, schedules, checkpoints."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

import rlseq
from rlseq.agents import AGENTS
from rlseq.agents.adversarial import Adversarial
from rlseq.agents.ppo import PPO
from rlseq.agents.seqgan import REGS, SeqGAN, follow
from rlseq.discriminators import Adversary, make_discriminator
from rlseq.discriminators.texts import rewarded
from rlseq.policy_gradient.baselines import MovingAverage, none
from rlseq.policy_gradient.credit import Completions, Stepwise, own_credit
from rlseq.policy_gradient.factors import bootstrapped, self_normalised
from rlseq.types import Context, Rollout

V, T, ROWS = 30, 6, 8


class Filler(nn.Module):
    """Writes the last word, always."""

    def __init__(self, words: int = V) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(words))
        with torch.no_grad():
            self.logits[-1] = 100.0

    evaluate: Any = None  # nobody asks it

    def start(self, context: Context) -> Any:
        return (torch.zeros(len(context["index"]), 1),)

    def step(self, token: Tensor, state: Any) -> Any:
        return self.logits.expand(len(token), -1), state


def oracle(rows: int = ROWS, **options: Any) -> Any:
    sizes = {"vocab_size": V, "length": T, "hidden": 8, "references": 200}
    return rlseq.make("rlseq/Oracle-v0", num_envs=rows, **{**sizes, **options})


def lstm(env: Any, **sizes: Any) -> Any:
    return rlseq.make_policy("lstm", env, **{"hidden": 8, "embedding": 8, **sizes})


def adversary_for(env: Any, name: str = "gru", **options: Any) -> Adversary:
    sizes = {"share": 0.05} if name == "cnn" else {"hidden": 8}
    return Adversary(make_discriminator(name, env, embedding=8, **sizes), **{"texts": 32, **options})


def coded(rows: int, filler: int, ends: Tensor | None = None) -> Rollout:
    """Texts whose first word is their row, and that hold no filler."""
    actions = torch.arange(1, T + 1).repeat(rows, 1)
    actions[:, 0] = torch.arange(rows) + 10
    mask = torch.ones(rows, T, dtype=torch.bool)
    last = torch.zeros_like(mask)
    last[:, -1] = True
    zeros = torch.zeros(rows, T)
    context = {"index": torch.arange(rows)}
    return Rollout(actions, mask, zeros, zeros, None, last, None, context)


def code(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """100 · row + words that are not filler: which text, cut after which step."""
    return 100.0 * (tokens[:, 0] - 10) + (tokens != V - 1).sum(1)


# ── credit ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("samples", [1, 3])
def test_rewards_belong_to_their_rows_and_steps(samples: int) -> None:
    env = rewarded(oracle(), code)
    batch = coded(ROWS, V - 1)
    batch = replace(batch, rewards=batch.ends * code(batch.actions, batch.mask, {}).unsqueeze(1))
    credit = Completions(samples, Filler()).prepare(batch, None, env).credit
    wanted = 100.0 * torch.arange(ROWS).unsqueeze(1) + torch.arange(1, T + 1)
    torch.testing.assert_close(credit, wanted)


def test_between_completed_prefixes_the_next_one_counts() -> None:
    env = rewarded(oracle(), code)
    batch = coded(ROWS, V - 1)
    batch = replace(batch, rewards=batch.ends * code(batch.actions, batch.mask, {}).unsqueeze(1))
    credit = Completions(2, Filler(), every=4).prepare(batch, None, env).credit
    assert credit is not None
    assert (credit[3] - 300).tolist() == [2, 2, 6, 6, 6, 6]
    only_whole = Completions(2, Filler(), every=T).prepare(batch, None, env).credit
    assert only_whole is not None
    assert (only_whole[3] - 300).tolist() == [6] * T


@pytest.mark.parametrize("task", ["oracle", "copy"])
def test_at_the_end_the_action_value_is_d_of_the_text(task: str) -> None:
    env = oracle() if task == "oracle" else rlseq.make("rlseq/Copy-v0", num_envs=40, items=50)
    agent = SeqGAN(lstm(env), adversary=adversary_for(env), completions=2, pretraining=0)
    batch = agent.collect(env)
    assert batch.credit is not None
    d = agent.adversary(batch.actions, batch.mask, batch.context)
    assert torch.equal(batch.credit[batch.ends], d)
    if task == "copy":
        assert (batch.lengths < env.max_len).any(), "some end before T"


def test_unfinished_texts_are_not_completed() -> None:
    env = oracle()
    batch = coded(ROWS, V - 1)
    batch.ends[2] = False
    with pytest.raises(ValueError, match="needs finished texts; some rows"):
        Completions(2).prepare(batch, lstm(env), env)


@pytest.mark.parametrize("prefixes", [[], [0, 1], [2, 1], [T]])
def test_prefixes_that_are_none(prefixes: list[int]) -> None:
    env, policy = oracle(), Filler()
    with pytest.raises(ValueError, match=f"prefixes must be lengths in ascending order, 1 … {T - 1}"):
        rlseq.complete(policy, env, coded(ROWS, V - 1), samples=1, prefixes=prefixes)


# ── the exact gradient ──────────────────────────────────────────────────────────────────────────────────


def setting() -> tuple[Any, Any, Adversary]:
    """A small task, a policy away from uniform, and a frozen judge with opinions."""
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=64, sources=2, length=3, vocab_size=3)
    policy = rlseq.make_policy("lstm", env, hidden=4, embedding=3)
    adversary = adversary_for(env)
    adversary.freeze()
    with torch.no_grad():
        for p in (*policy.parameters(), *adversary.discriminator.parameters()):
            p.mul_(3)
    return env, policy, adversary


def estimates(agent: Any, env: Any, batches: int = 160) -> Tensor:
    """Gradients of the objective from independent batches, `[batches, parameters]`."""
    rows = []
    for _ in range(batches):
        agent.policy.zero_grad(set_to_none=False)
        loss, _ = agent.loss(agent.with_advantages(agent.collect(env)))
        loss.backward()
        rows.append(torch.cat([-p.grad.flatten() for p in agent.policy.parameters()]).double())
    return torch.stack(rows)


def p_value(samples: Tensor, exact: Tensor) -> float:
    """Hotelling's test along the exact gradient and the directions that vary most; see test_agents.py."""
    half = len(samples) // 2
    _, _, directions = torch.linalg.svd(samples[:half] - samples[:half].mean(0), full_matrices=False)
    first = torch.cat([(exact / exact.norm()).unsqueeze(0), directions[:7]])
    error = (samples[half:] - exact) @ torch.linalg.qr(first.t())[0]
    statistic = half * error.mean(0) @ torch.linalg.solve(error.t().cov(), error.mean(0))
    return float(chi2.sf(float(statistic), 8))


@dataclass(frozen=True)
class Scrambled(Completions):
    """Wrong: credits are given to other rows, as in a well-known port."""

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        batch = super().prepare(batch, policy, env)
        assert batch.credit is not None
        return replace(batch, credit=batch.credit.roll(1, 0))


def gradients(credit: Any = own_credit, **options: Any) -> float:
    env, policy, adversary = setting()
    exact = rlseq.exact.gradient(policy, rewarded(env, adversary))
    agent = SeqGAN(policy, adversary=adversary, completions=2, credit=credit, **options)
    flat = torch.cat([g.flatten() for g in exact.values()]).double()
    return p_value(estimates(agent, env), flat)


@pytest.mark.parametrize(
    "options", [{}, {"baseline": none, "every": 2}], ids=["mean baseline", "every second prefix"]
)
def test_a_frozen_discriminator_gives_an_unbiased_policy_gradient(options: Any) -> None:
    assert gradients(**options) > 1e-4


@pytest.mark.parametrize("wrong", ["scrambled", "stepwise"])
def test_wrong_credit_fails_the_same_test(wrong: str) -> None:
    _, _, adversary = setting()
    credit: Any = Scrambled(2) if wrong == "scrambled" else Stepwise(adversary.steps)
    assert gradients(credit) < 1e-4


# ── rounds ──────────────────────────────────────────────────────────────────────────────────────────────


def weights(module: Any) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


def test_the_rollout_policy_is_a_moving_average() -> None:
    env = oracle()
    policy = lstm(env)
    agent = SeqGAN(policy, adversary=adversary_for(env), completions=1, d=0, pretraining=0, trail=0.8, lr=0.1)
    first = weights(policy)
    agent.update(agent.collect(env))
    second = weights(policy)
    assert same(weights(agent.rollout_policy), first), "it has not moved yet"
    agent.update(agent.collect(env))
    for slow, old, new in zip(weights(agent.rollout_policy), first, second, strict=True):
        torch.testing.assert_close(slow, 0.8 * old + 0.2 * new)
    assert getattr(agent.credit, "rollout_policy", None) is agent.rollout_policy, "it completes"
    follow(agent.rollout_policy, policy, 0.0)
    assert same(weights(agent.rollout_policy), weights(policy))


def test_the_schedule_g_d_k_and_baselines_that_forget() -> None:
    env = oracle()
    baseline = MovingAverage()
    agent = Adversarial(
        lstm(env), adversary=adversary_for(env), g=2, d=2, k=3, pretraining=1, baseline=baseline
    )
    learned, forgot = [], []
    learn = agent.adversary.learn

    def recorded(*given: Any, **how: Any) -> Any:
        learned.append((int(agent.count.updates), how["regenerations"], how["epochs"]))
        return learn(*given, **how)

    agent.adversary.learn = recorded
    for _ in range(5):
        agent.collect(env)
        forgot.append(float(baseline.weight) == 0)
        batch = agent.collect(env)  # looking twice teaches nobody
        metrics = agent.update(batch)
        assert ("d_loss" in metrics) == (int(agent.count.updates) % 2 == 1)
    assert learned == [(0, 1, 3), (2, 2, 3), (4, 2, 3)]
    assert forgot == [True, False, True, False, True]


@pytest.mark.parametrize("name", ["seqgan", "rankgan", "maligan", "regs", "pg_bleu", "gail", "max_ent_irl"])
def test_every_relative_goes_on_from_a_checkpoint_bit_by_bit(name: str) -> None:
    def fresh() -> tuple[Any, Any, Any]:
        env = oracle(rows=16)
        options: dict[str, Any] = {"lr": 1e-2}
        if name != "pg_bleu":
            made = AGENTS[name](lstm(env)).adversary  # type: ignore[attr-defined]
            adversary = replace(made, texts=20, memory=10)
            options |= {"adversary": adversary, "pretraining": 1, "d": 1, "k": 1}
        if name in ("seqgan", "rankgan", "maligan", "pg_bleu"):
            options |= {"completions": 2}
        return env, *_made(env, name, options)

    def run(env: Any, agent: Any, updates: int) -> list[float]:
        torch.manual_seed(5)  # dropout of the discriminator
        return [float(agent.update(agent.collect(env))["loss"]) for _ in range(updates)]

    env, policy, agent = fresh()
    run(env, agent, 2)
    kept = deepcopy((policy.state_dict(), agent.state_dict(), env.generator.get_state()))
    reward = getattr(agent, "reward", None)
    wanted = run(env, agent, 2)
    env, policy, agent = fresh()
    policy.load_state_dict(kept[0])
    agent.load_state_dict(kept[1])
    env.generator.set_state(kept[2])
    if reward is not None:
        agent.reward = reward
    assert run(env, agent, 2) == wanted


def _made(env: Any, name: str, options: Any) -> tuple[Any, Any]:
    policy = lstm(env)
    return policy, rlseq.make_agent(name, policy, **options)


@dataclass(eq=False)
class AdversarialPPO(PPO, Adversarial):
    """Inverse reinforcement learning in two words."""


def test_any_agent_can_use_one() -> None:
    env = oracle(rows=16)
    agent = AdversarialPPO(lstm(env, value=True), adversary=adversary_for(env), pretraining=1, d=1, k=1)
    assert agent.epochs == 4
    metrics = agent.update(agent.collect(env))
    assert "clip_fraction" in metrics
    assert "d_loss" in metrics
    before = rlseq.rollout(agent.policy, rewarded(env, agent.adversary))
    rlseq.make_agent("rloo", lstm(env), samples=4).update(
        rlseq.make_agent("rloo", lstm(env), samples=4).collect(rewarded(env, agent.adversary))
    )
    assert 0 <= float(before.returns.min()) <= float(before.returns.max()) <= 1


def test_conditional_seqgan_learns_to_copy_from_pairs_alone() -> None:
    """No reward but the discriminator's; the task's own only measures."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=64, vocab_size=4, length=2, items=100)
    policy = rlseq.make_policy("gru", env, hidden=32, embedding=16)
    cnn = make_discriminator("cnn", env, embedding=16, share=0.1)
    adversary = Adversary(cnn, lr=5e-3, texts=128)
    agent = rlseq.make_agent(
        "seqgan", policy, adversary=adversary, lr=1e-2, completions=2, pretraining=2, d=1, k=2, trail=0.0
    )
    before = rlseq.evaluate(policy, env, "sample", limit=300)["reward"]
    for _ in range(60):
        agent.update(agent.collect(env))
    assert rlseq.evaluate(policy, env, "sample", limit=300)["reward"] > before + 0.2


# ── factors ─────────────────────────────────────────────────────────────────────────────────────────────


def masked(rows: int, steps: int) -> Rollout:
    batch = coded(rows, V - 1)
    return replace(batch, mask=torch.ones(rows, steps, dtype=torch.bool))


def test_self_normalised_by_hand() -> None:
    q = torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    torch.testing.assert_close(self_normalised(q, masked(2, 2)), torch.tensor([[-0.5, 0.0], [0.5, 0.0]]))
    ended = replace(masked(2, 2), mask=torch.tensor([[True, True], [True, False]]))
    assert self_normalised(q, ended)[0].tolist() == [-0.5, 0.0]


def test_bootstrapped_ranks_by_hand() -> None:
    q = torch.tensor([[0.1], [0.3], [0.2], [100.0]])
    got = bootstrapped(q, masked(4, 1))[:, 0]
    wanted = torch.sigmoid(12 * (0.5 - torch.tensor([4, 2, 3, 1]) / 4)) - 0.5
    torch.testing.assert_close(got, wanted)
    ended = replace(masked(4, 1), mask=torch.tensor([[True], [True], [True], [False]]))
    best = bootstrapped(q, ended)[:3, 0]
    torch.testing.assert_close(best, torch.sigmoid(12 * (0.5 - torch.tensor([3, 1, 2]) / 3)) - 0.5)


def test_regs_is_paid_by_the_prefix() -> None:
    env = oracle()
    agent = REGS(lstm(env), pretraining=0)
    batch = agent.collect(env)
    steps = agent.adversary.steps(batch.actions, batch.mask, batch.context)
    torch.testing.assert_close(agent.credit(batch, 1.0), steps)
    torch.testing.assert_close(steps[:, -1], agent.adversary(batch.actions, batch.mask, batch.context))


def test_pg_bleu_is_paid_bleu_against_real_texts() -> None:
    env = oracle(rows=16)
    agent = rlseq.make_agent("pg_bleu", lstm(env), completions=1, references=5, order=2)
    batch = agent.collect(env)
    drawn = agent.reward  # type: ignore[attr-defined]
    torch.testing.assert_close(batch.returns, drawn(batch.actions, batch.mask, {"index": torch.arange(16)}))
    training = env.items["references"][:, 0]
    assert float(drawn(training, torch.ones_like(training, dtype=torch.bool), {}).max()) == pytest.approx(1.0)
    copying = rlseq.make("rlseq/Copy-v0", num_envs=16, items=20)
    agent = rlseq.make_agent("pg_bleu", rlseq.make_policy("gru", copying, hidden=8), completions=1)
    agent.collect(copying)
    demonstrations = rlseq.engine.references.sample_references(copying)
    paid = agent.reward(demonstrations.actions, demonstrations.mask, demonstrations.context)  # type: ignore[attr-defined]
    torch.testing.assert_close(paid, torch.ones(16))


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"g": 0}, "g must be an integer ≥ 1"),
        ({"d": -1}, "d must be an integer ≥ 0"),
        ({"trail": 1.0}, r"trail must be a number in \[0, 1\)"),
        ({"completions": 0}, "completions must be an integer ≥ 1"),
        ({"every": 0}, "every must be an integer ≥ 1"),
    ],
)
def test_hyper_parameters_that_make_no_sense(hyper: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rlseq.make_agent("seqgan", lstm(oracle()), **hyper)


def test_a_policy_that_does_not_say_what_it_writes_needs_an_adversary() -> None:
    with pytest.raises(ValueError, match="does not say what it writes"):
        rlseq.make_agent("seqgan", Filler())


@pytest.mark.parametrize("name", ["seqgan", "rankgan", "maligan", "regs", "pg_bleu", "adversarial"])
def test_a_task_without_real_texts_is_refused_and_nothing_is_trained(name: str) -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=4)
    policy = lstm(env)
    agent = rlseq.make_agent(name, policy)
    before = weights(policy)
    with pytest.raises(ValueError, match="has no references to learn from"):
        agent.collect(env)
    assert same(weights(policy), before)


def test_a_discriminator_of_another_task_is_refused_before_anything_is_written() -> None:
    env = oracle()
    agent = SeqGAN(lstm(env), adversary=adversary_for(oracle(vocab_size=V + 1)))
    state = env.generator.get_state()
    with pytest.raises(ValueError, match=f"written={V + 1}, the task's is {V}"):
        agent.collect(env)
    assert torch.equal(env.generator.get_state(), state)


# ── defaults as published ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["seqgan", "maligan", "pg_bleu"])
def test_no_baseline_where_the_paper_has_none(tiny: Any, name: str) -> None:
    env, policy = tiny(rows=8)
    brief = {} if name == "pg_bleu" else {"pretraining": 0, "d": 0}
    agent: Any = rlseq.make_agent(name, policy, scale="none", completions=2, **brief)
    batch = agent.with_advantages(agent.collect(env))
    assert torch.equal(batch.advantages, batch.targets)


def test_maligan_refuses_an_adversary_that_pays_no_odds(tiny: Any) -> None:
    env, policy = tiny(rows=8)
    with pytest.raises(ValueError, match=r"MaliGAN divides r = D/\(1 − D\).*got one that pays 'probability'"):
        rlseq.make_agent("maligan", policy, adversary=adversary_for(env))
