"""Agents that learn values of actions: their fixed points are those of dynamic programming, and nothing else.

Every text of a small task is kept in the replay, so that the only thing left to find is the solution of the
Bellman equation, which a loop over prefixes computes by itself.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.adapters import GymEnv
from rlseq.engine import relaxed
from rlseq.engine.decode import EpsilonGreedy, acting_logits
from rlseq.engine.rollout import rollout
from rlseq.envs.enumerable import Enumerable
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.policies.control_heads import KeptLogits
from rlseq.policy_gradient.exact import texts
from rlseq.types import RAW, Behaviour, Context, Evaluation, Rollout
from rlseq.value_based import action_values
from rlseq.value_based.action_values import ActionValues, dueling, maximum, soft_dueling
from rlseq.value_based.exploration import fallen
from rlseq.value_based.pathwise import mean_action
from rlseq.value_based.replay import Replay
from rlseq.value_based.target import TargetCopy
from rlseq.vocab import Vocab

TAU = 0.5


class Table(nn.Module):
    """A number for every word after every prefix of every source, and V of every prefix."""

    def __init__(self, env: SequenceEnv, value: bool = False) -> None:
        super().__init__()
        self.vocab_size = len(env.vocab)
        nodes = sum(self.vocab_size**t for t in range(env.max_len + 1))
        generator = torch.Generator().manual_seed(1)
        self.logits = nn.Parameter(torch.randn(env.size, nodes, self.vocab_size, generator=generator))
        self.value = nn.Parameter(torch.zeros(env.size, nodes)) if value else None

    def start(self, context: Context) -> Any:
        return context["index"], torch.full_like(context["index"], -1)

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        index, node = state
        node = torch.where(node < 0, 0, node * self.vocab_size + token + 1)
        return self.logits[index, node], (index, node)

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        node, nodes = torch.zeros_like(actions[:, 0]), []
        for t in range(actions.shape[1]):
            nodes.append(node)
            node = node * self.vocab_size + actions[:, t] + 1
        index, node = context["index"].unsqueeze(1), torch.stack(nodes, 1)
        z = acting_logits(self.logits[index, node], behaviour)
        log_p = z.log_softmax(2)
        log_probs = log_p.gather(2, actions.unsqueeze(2)).squeeze(2)
        values = None if self.value is None else self.value[index, node]
        return Evaluation(log_probs, -(log_p.exp() * log_p).sum(2), values, None, KeptLogits(z, z))


class Restricted(Enumerable):
    """No word may stand beside itself, and at the end word 0 may not either."""

    def legal(self) -> Tensor:
        last = self.tokens.gather(1, (self.length - 1).clamp(min=0).unsqueeze(1))
        repeated = (torch.arange(len(self.vocab)) == last) & (self.length > 0).unsqueeze(1)
        return ~repeated


def task(restricted: bool = False, **options: Any) -> Enumerable:
    cls = Restricted if restricted else Enumerable
    return cls(**{"sources": 2, "vocab_size": 3, "length": 3, "num_envs": 16, **options})


def everything(env: SequenceEnv, policy: Any) -> Rollout:
    """Every text that can be written, one row each, as an agent would draw it from a full replay."""
    words, mask = texts(env)
    index = torch.arange(env.size).repeat_interleave(len(words))
    words = words.repeat(env.size, 1)
    wide = env.replace(num_envs=len(words))
    batch = rollout(policy, wide, forced=words, index=index)
    support = env.allowed_everywhere(words, batch.context)
    batch = replace(batch, behaviour=RAW._replace(support=support))
    if not isinstance(support, Tensor):
        return batch
    legal = support.gather(2, words.unsqueeze(2)).squeeze(2) | ~mask.repeat(env.size, 1)
    return batch.take(legal.all(1))


def by_dynamic_programming(env: SequenceEnv, value: Any) -> dict[tuple[int, ...], Tensor]:
    """Q of every word after every prefix (index, word, …), from the end to the beginning.

    Args:
        env: a task with few texts.
        value: V of a state from Q of its legal words.
    """
    found: dict[tuple[int, ...], Tensor] = {}

    def q(prefix: tuple[int, ...]) -> Tensor:
        item, *written = prefix
        legal = [*range(len(env.vocab))]
        if isinstance(env, Restricted) and written:
            legal = [word for word in legal if word != written[-1]]
        answers = torch.full((len(env.vocab),), float("nan"))
        for word in legal:
            longer = [*written, word]
            if word == env.vocab.eos or len(longer) == env.max_len:
                tokens = torch.tensor([longer + [0] * (env.max_len - len(longer))])
                mask = torch.arange(env.max_len).unsqueeze(0) < len(longer)
                context = {**env.contexts(torch.tensor([item])), "index": torch.tensor([item])}
                answers[word] = env.total_reward(tokens, mask, context).sum()
            else:
                answers[word] = value(q((*prefix, word)))
        found[prefix] = answers
        return answers[legal]

    for item in range(env.size):
        q((item,))
    return found


def learned(agent: Any, env: SequenceEnv, steps: int = 320) -> Any:
    """The agent after so many gradient steps on everything that can be written."""
    batch = everything(env, agent.policy)
    for _ in range(steps):
        agent.learn(batch)
    return agent


@torch.no_grad()
def off(agent: Any, exact: dict[tuple[int, ...], Tensor], scale: float = 1.0) -> float:
    """The largest difference of an agent's values from the exact ones, over all prefixes and legal words."""
    worst, words = 0.0, agent.policy.vocab_size
    for (item, *written), answers in exact.items():
        node = 0
        for word in written:
            node = node * words + word + 1
        legal = ~answers.isnan()
        z = agent.policy.logits[item, node][legal]
        v = None if agent.policy.value is None else agent.policy.value[item, node].unsqueeze(-1)
        worst = max(worst, float((scale * agent.form(z, v) - answers[legal]).abs().max()))
    return worst


FAST: dict[str, Any] = {"lr": 0.1, "target_every": 60, "clip_norm": 100.0}


@pytest.mark.parametrize(
    ("hyper", "restricted"),
    [
        ({}, False),
        ({"backup": "double"}, True),
        ({"form": "dueling"}, True),
        ({"target_every": 1, "target_share": 0.05}, False),
    ],
)
def test_dqn_finds_the_values_of_dynamic_programming(hyper: Any, restricted: bool) -> None:
    env = task(restricted)
    agent = rlseq.make_agent("dqn", Table(env, value="form" in hyper), **{**FAST, **hyper})
    exact = by_dynamic_programming(env, lambda q: q.max())
    assert off(agent, exact) > 0.5
    assert off(learned(agent, env), exact) < 0.01


@pytest.mark.parametrize("form", ["plain", "soft_dueling"])
def test_soft_values_are_those_of_dynamic_programming(form: str) -> None:
    env = task(restricted=True)
    agent = rlseq.make_agent("soft_q", Table(env, value=True), temperature=TAU, form=form, **FAST)
    exact = by_dynamic_programming(env, lambda q: TAU * (q / TAU).logsumexp(0))
    assert off(agent, exact, TAU) > 0.5
    assert off(learned(agent, env), exact, TAU) < 0.01


def test_a_soft_policy_writes_texts_as_often_as_their_rewards_say() -> None:
    """π(y) ∝ exp(R(y) / τ), and beside a reference ∝ π₀(y) exp(R(y) / τ): no values are needed for that."""
    env = task()
    for name in ("soft_q", "g_learning"):
        policy = Table(env, value=True)
        before = everything(env, policy)
        agent = learned(rlseq.make_agent(name, policy, temperature=TAU, **FAST), env)
        after = everything(env, agent.policy)
        prior = before.log_probs.sum(1) if name == "g_learning" else torch.zeros(len(before.mask))
        wanted = (prior + before.returns / TAU).view(env.size, -1).softmax(1)
        found = after.log_probs.sum(1).exp().view(env.size, -1)
        assert float((before.log_probs.sum(1).exp().view(env.size, -1) - wanted).abs().max()) > 0.1
        assert float((found - wanted).abs().max()) < 0.005, name


# ── mistakes that the fixed point shows ──────────────────────────────────────────────────────────────────


def unfrozen(agent: Any) -> None:
    """The copy is the policy itself."""
    agent.target.network = agent.policy


def of_what_was_done(agent: Any) -> None:
    """The next value is that of the action that was taken: what SARSA learns, the value of the behaviour."""
    agent.backup = lambda online, target: target.of(target.batch.actions)


def never_over(agent: Any) -> None:
    """What follows the end counts, too."""
    honest = agent.targets
    agent.targets = lambda batch, online: honest(
        replace(batch, ends=torch.zeros_like(batch.ends), mask=batch.mask), online
    )


def of_the_same_state(agent: Any) -> None:
    """The value of the state before the action, in place of that after it."""
    agent.values_of_states = lambda online, target: torch.roll(maximum(online, target), 1, 1)


@pytest.mark.parametrize("mistake", [of_what_was_done, never_over, of_the_same_state])
def test_a_wrong_target_has_another_fixed_point(mistake: Any) -> None:
    env = task()
    agent = rlseq.make_agent("dqn", Table(env), **FAST)
    mistake(agent)
    assert off(learned(agent, env), by_dynamic_programming(env, lambda q: q.max())) > 0.3


def test_the_target_is_frozen_between_two_copies() -> None:
    """The targets of a batch stay as they are until the copy is due, and then they change."""

    def moved(agent: Any, steps: int) -> float:
        batch = everything(env, agent.policy)
        before = agent.targets(batch, None)
        for _ in range(steps):
            agent.learn(batch)
        return float((agent.targets(batch, None) - before).abs().max())

    env, hyper = task(), {**FAST, "target_every": 4}
    assert moved(rlseq.make_agent("dqn", Table(env), **hyper), 3) == 0
    assert moved(rlseq.make_agent("dqn", Table(env), **hyper), 4) > 0.1
    wrong = rlseq.make_agent("dqn", Table(env), **hyper)
    unfrozen(wrong)
    assert moved(wrong, 3) > 0.1


# ── worked examples ──────────────────────────────────────────────────────────────────────────────────────


def test_dueling_values_have_the_mean_of_v() -> None:
    """z = (7, 3, 2) has the mean 4: A = (3, −1, −2), and with V = 1 Q = (4, 0, −1)."""
    z, v = torch.tensor([7.0, 3.0, 2.0]), torch.tensor([1.0])
    assert dueling(z, v).tolist() == [4, 0, -1]
    masked = acting_logits(torch.tensor([7.0, 9.0, 3.0, 2.0]), RAW._replace(support=torch.arange(4) != 1))
    assert dueling(masked, v)[[0, 2, 3]].tolist() == [4, 0, -1]
    assert int(dueling(masked, v).argmax()) == 0
    assert float(soft_dueling(z, v).logsumexp(0)) == pytest.approx(1)


def test_the_immediate_reward_alone_teaches_to_fire() -> None:
    """A word that pays at once, and one that pays more later: γ = 0 fires, γ = 1 waits."""

    def pay(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        fired, aimed = (tokens == 0).float(), torch.nn.functional.pad((tokens == 1).float(), (1, 0))[:, :-1]
        return fired * (0.1 + aimed)  # a shot hits only after aiming

    env = SequenceEnv(vocab=Vocab.numbered(2, eos=None), max_len=2, reward=pay, num_envs=16, seed=0)
    written = {}
    for gamma in (0.0, 1.0):
        agent = learned(rlseq.make_agent("dqn", Table(env), gamma=gamma, **FAST), env)
        written[gamma] = rlseq.rollout(agent.policy, env, decode=rlseq.Greedy()).actions[0].tolist()
    assert written == {0.0: [0, 0], 1.0: [1, 0]}


def test_a_good_word_does_not_suffer_from_a_bad_ending() -> None:
    """'I don't know' is bad, 'I am John' is good: Q of 'I' is that of its best ending, however rare.

    Sampled returns blame 'I' where bad endings are frequent; the value of the best ending does not.
    """
    i, other, bad, good = 0, 1, 2, 3

    def fit(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        first, second = tokens.unbind(1)
        return torch.where(first == i, (second == good).float() - (second == bad).float(), -0.1)

    env = SequenceEnv(vocab=Vocab.numbered(4, eos=None), max_len=2, reward=fit, num_envs=16, seed=0)
    policy = Table(env)
    with torch.no_grad():
        policy.logits.zero_()
        policy.logits[0, 1 + i, bad] = 3  # after 'I', nearly always the bad ending
    gradient = rlseq.exact.gradient(policy, env)["logits"]
    assert gradient[0, 0, i] < 0 < gradient[0, 0, other]
    agent = learned(rlseq.make_agent("dqn", policy, **FAST), env)
    first = agent.policy.logits[0, 0].detach()
    assert float(first[i]) == pytest.approx(1, abs=0.01)
    assert float(first[other]) == pytest.approx(-0.1, abs=0.01)


def test_the_maximum_overestimates_what_two_estimates_do_not() -> None:
    """All values are 0, and estimates of them noise: the larger of the own estimates is above 0."""

    class Noise(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.z = torch.randn(4000, 2, 5, generator=torch.Generator().manual_seed(seed))

        def evaluate(self, actions: Tensor, context: Context) -> Evaluation:
            return Evaluation(self.z[..., 0], self.z[..., 0], None, None, KeptLogits(self.z, self.z))

    batch = replace(rows_of(*[0] * 4000), context={})
    one, other = (ActionValues(Noise(seed), batch, action_values.plain) for seed in (0, 1))
    assert float(maximum(one, other).mean()) > 1
    assert abs(float(action_values.double(one, other).mean())) < 0.05


# ── the replay and the copy ──────────────────────────────────────────────────────────────────────────────


def rows_of(*numbers: int) -> Rollout:
    """Texts of two words, with the same number in all their fields."""
    x = torch.tensor(numbers).unsqueeze(1).expand(-1, 2).clone()
    real = torch.ones_like(x, dtype=torch.bool)
    return Rollout(x, real, x.float(), x.float(), None, real, None, {"index": x[:, 0], "image": x})


def test_a_replay_keeps_the_last_rows_and_no_more() -> None:
    replay = Replay(capacity=7)  # three texts of two words
    for numbers, kept in (((0,), {0}), ((1, 2), {0, 1, 2}), ((3,), {1, 2, 3}), (tuple(range(9)), {6, 7, 8})):
        replay.add(rows_of(*numbers), context=("index",))
        drawn = replay.draw(200)
        assert {*drawn.actions[:, 0].tolist()} == kept
        assert len(replay) == len(kept)
        assert drawn.context.keys() == {"index"}
        for field in (drawn.rewards[:, 1], drawn.log_probs[:, 0], drawn.context["index"]):
            assert field.tolist() == drawn.actions[:, 0].tolist()


def test_a_replay_draws_all_rows_equally_often() -> None:
    replay = Replay(capacity=20)
    replay.add(rows_of(*range(10)), context=("index",))
    counts = torch.bincount(replay.draw(20_000).actions[:, 0], minlength=10)
    assert (counts - 2000).abs().max() < 250
    assert not torch.equal(replay.draw(5).actions, replay.draw(5).actions)


def test_a_replay_that_goes_on_draws_the_same() -> None:
    replay, other = Replay(capacity=7), Replay(capacity=7)
    replay.add(rows_of(1, 2), context=("index",))
    replay.draw(3)
    other.load_state_dict({**replay.state_dict(), "rows": dict(replay.state_dict()["rows"])})
    assert all(len(part) == 2 for part in replay.state_dict()["rows"].values())  # no more than is kept
    for each in (replay, other):
        each.add(rows_of(5, 6), context=("index",))
    assert torch.equal(replay.draw(50).actions, other.draw(50).actions)
    empty = Replay(capacity=7)
    empty.load_state_dict(Replay(capacity=7).state_dict())
    assert len(empty) == 0


def test_a_replayed_text_comes_with_its_source_and_what_was_allowed() -> None:
    env = task(restricted=True)
    agent = rlseq.make_agent("dqn", Table(env))
    for _ in range(3):
        batch = agent.collect(env)
    support = batch.behaviour.support
    assert isinstance(support, Tensor)
    assert support.gather(2, batch.actions.unsqueeze(2)).squeeze(2)[batch.mask].all()
    assert support.float().mean() < 0.9
    assert torch.equal(batch.context["source"], env.items["source"][batch.context["index"]])
    context, done = batch.context, torch.ones(len(batch.mask), dtype=torch.bool)
    assert torch.equal(batch.rewards, env.total_reward(batch.actions, batch.mask, context, done))
    assert len(batch.mask) == 4 * 64
    assert len(batch.episodes.returns) == env.num_envs


def test_a_replay_that_cannot_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"capacity=10,000,000,000,000 would need .* of memory"):
        Replay(capacity=10**13).add(rows_of(1), context=("index",))


def test_a_copy_follows_by_its_share() -> None:
    network: Any = nn.BatchNorm1d(1)  # weights, and statistics, of which no share is taken
    copies: Any = TargetCopy(network, every=2, share=1.0), TargetCopy(network, every=1, share=0.25)
    with torch.no_grad():
        network.weight.fill_(5.0)  # from 1
        network.running_mean.fill_(3.0)
    seen = []
    for _ in range(2):
        for copy in copies:
            copy.follow(network)
        seen.append([float(copy.network.weight) for copy in copies])
    assert seen == [[1, 2], [5, 2.75]]
    assert all(float(copy.network.running_mean) == 3 for copy in copies)


# ── acting ───────────────────────────────────────────────────────────────────────────────────────────────


def test_exploration_falls() -> None:
    assert [fallen(0.1, 0.5, done) for done in (0, 0.25, 0.5, 1)] == [1, pytest.approx(0.55), 0.1, 0.1]
    assert fallen(0.1, 0.0, 0.0) == 0.1


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_words_are_drawn_as_they_say(epsilon: float) -> None:
    logits = torch.tensor([0.1, 2.0, 0.0, 5.0]).expand(40_000, 4)
    logits = acting_logits(logits, RAW._replace(support=torch.tensor([True, True, True, False])))
    uniform = torch.rand(len(logits), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, log_norm = EpsilonGreedy(epsilon).choose(logits, uniform)
    shares = torch.bincount(tokens, minlength=4) / len(tokens)
    wanted = torch.tensor([epsilon / 3, epsilon / 3 + 1 - epsilon, epsilon / 3, 0])
    assert torch.allclose(shares, wanted, atol=0.01)
    assert float(log_norm[0]) == pytest.approx(float(logits[0].logsumexp(0)), abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_epsilon_greedy_actions_are_drawn_as_they_say(epsilon: float) -> None:
    env = GymEnv("CartPole-v1", 8, 500, seed=0)
    policy = rlseq.make_policy("mlp", env)
    with torch.no_grad():
        policy.actor.bias.copy_(torch.tensor([0.0, 9.0]))
    batch = rlseq.rollout(policy, env, decode=EpsilonGreedy(epsilon))
    assert float(batch.actions.float().mean()) == pytest.approx(1 - epsilon / 2, abs=0.03)


def test_dqn_explores_less_and_less_and_soft_q_by_its_policy() -> None:
    policy = Table(task())
    agent: Any = rlseq.make_agent("dqn", policy, epsilon=0.1, exploration=0.5)
    assert agent.acting() == EpsilonGreedy(1.0)
    agent.set_progress(0.9)
    assert agent.acting() == EpsilonGreedy(0.1)
    agent = rlseq.make_agent("dqn", policy, explore="boltzmann", temperature=0.2)
    assert agent.acting() == rlseq.Sample(temperature=0.2)
    agent = rlseq.make_agent("soft_q", policy, temperature=0.2)
    assert agent.acting() == rlseq.Sample()


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["dqn", "soft_q"])
def test_texts_are_learned_from_a_reward_alone(name: str) -> None:
    env, test = (rlseq.make("rlseq/Copy-v0", num_envs=32, vocab_size=3, length=2, seed=s) for s in (0, 1))
    policy = rlseq.make_policy("gru", env, hidden=16, embedding=8)
    agent = rlseq.make_agent(name, policy, lr=1e-2, target_every=30)
    before = rlseq.evaluate(policy, test)["reward"]
    rlseq.train(agent, env, updates=60, quiet=True)
    assert before < 0.5
    assert rlseq.evaluate(policy, test)["reward"] > 0.85


def test_a_run_goes_on_from_its_replay_and_its_copy(tmp_path: Path) -> None:
    """The rest of a run is the same, bit for bit, although it learns from what was done before."""

    def run(folder: str, *lengths: int) -> list[dict[str, float]]:
        for updates in lengths:
            env = task(seed=3)
            policy = rlseq.make_policy("gru", env, hidden=8, embedding=4, value=True)
            agent = rlseq.make_agent("dqn", policy, **hyper)
            found = rlseq.train(agent, env, updates, out=tmp_path / folder, quiet=True, alarms="ignore")
        return found

    # ε follows the share of training that is done, which differs; Boltzmann exploration does not.
    hyper: Any = {"capacity": 100, "rows": 8, "target_every": 7, "form": "dueling", "explore": "boltzmann"}
    assert run("whole", 12) == run("parts", 5, 12)
    written = [*(tmp_path / "whole" / "checkpoints").glob("*.safetensors")]
    assert max(path.stat().st_size for path in written) < 50_000


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["dqn", "soft_q", "g_learning"])
def test_vectors_have_no_list_of_values(name: str) -> None:
    env = GymEnv("Pendulum-v1", 2, 8)
    agent = rlseq.make_agent(name, rlseq.make_policy("mlp", env, value=True))
    with pytest.raises(ValueError, match=r"must be Discrete, got Box.*; for vectors take ddpg"):
        rlseq.train(agent, env, updates=1, quiet=True)


def test_values_that_need_v_are_refused_without_it() -> None:
    policy = rlseq.make_policy("gru", task(), hidden=8, embedding=4)
    for name, form in (("dqn", "dueling"), ("soft_q", "soft_dueling"), ("g_learning", "soft_dueling")):
        with pytest.raises(ValueError, match=rf"{form} values needs V.*value=True.*form='plain'"):
            rlseq.make_agent(name, policy, form=form)


def test_a_policy_that_shows_no_logits_is_told_so(tiny: Any) -> None:
    env, policy = tiny()
    honest = policy.evaluate
    policy.evaluate = lambda *given: honest(*given)._replace(logits=None)
    agent = rlseq.make_agent("dqn", policy)
    with pytest.raises(ValueError, match="let its `evaluate` return `logits`"):
        agent.update(agent.collect(env))


# ── other environments ───────────────────────────────────────────────────────────────────────────────────


def test_a_time_limit_is_no_end_and_a_fall_is_one() -> None:
    """Targets of CartPole by hand: r + γ max Q̂ of what was reached, unless the pole or the cart is gone."""
    env = GymEnv("CartPole-v1", 4, 60, seed=0, max_episode_steps=15)
    policy = rlseq.make_policy("mlp", env)
    agent: Any = rlseq.make_agent("dqn", policy, gamma=0.9, rows=300, gradient_steps=1)
    batch = agent.collect(env)
    reached = batch.reached.squeeze(1)
    fallen = (reached[:, 0].abs() > 2.4) | (reached[:, 2].abs() > 0.2094)
    late = batch.ends.squeeze(1) & ~fallen
    assert fallen.sum() > 5
    assert late.sum() > 5
    after = policy.step(reached, ())[0].amax(1) * ~fallen
    found = agent.targets(batch, ActionValues(policy, batch, agent.form))
    assert torch.allclose(found.squeeze(1), 1 + 0.9 * after.detach(), atol=1e-6)


def test_what_was_reached_is_seen_next() -> None:
    env = GymEnv("CartPole-v1", 2, 40, seed=0)
    batch = rlseq.rollout(rlseq.make_policy("mlp", env), env)
    assert batch.reached is not None
    on = batch.mask[:, :-1] & ~batch.ends[:, :-1]
    assert torch.equal(batch.reached[:, :-1][on], batch.context["observation"][:, 1:][on])


# ── vectors ──────────────────────────────────────────────────────────────────────────────────────────────


class Push(gym.Env[Any, Any]):
    """One step, paid −(a − target)², where the target is what is observed."""

    observation_space: Any = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space: Any = gym.spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-1, 1)
        return np.array([self.target], np.float32), {}

    def step(self, action: Any) -> Any:
        return np.array([0.0], np.float32), -float((action[0] - self.target) ** 2), True, False, {}


def push(seed: int = 0) -> GymEnv:
    return GymEnv(gym.vector.SyncVectorEnv([Push] * 8), steps=8, seed=seed)


DDPG: dict[str, Any] = {"noise": 0.5, "lr": 5e-3, "critic_lr": 5e-3, "critic_hidden": 32}


@torch.no_grad()
def distance(policy: Any) -> float:
    """How far the mean action is from the best, at most; actions of −2 … 2 are −1 … 1 to a policy."""
    seen = torch.linspace(-1, 1, 21).unsqueeze(1)
    return float((2 * mean_action(policy, seen) - seen).abs().max())


@pytest.mark.parametrize(
    ("mistake", "good"), [(None, True), ("uphill", False), ("action unseen", False)], ids=str
)
def test_ddpg_finds_the_best_vector(mistake: str | None, good: bool) -> None:
    env = push()
    policy = rlseq.make_policy("mlp", env, hidden=32)
    agent: Any = rlseq.make_agent("ddpg", policy, **DDPG)
    if mistake == "uphill":  # the policy lowers Q
        honest = agent.loss
        agent.loss = lambda batch: (-honest(batch)[0], {})
    if mistake == "action unseen":  # Q hears of no action
        agent.critic.of = lambda observed, actions: type(agent.critic).of(agent.critic, observed, 0 * actions)
    for _ in range(90 if good else 30):
        agent.update(agent.collect(env))
    assert (distance(policy) < 0.25) is good


def test_ddpg_targets_are_those_of_the_copies() -> None:
    env = GymEnv("Pendulum-v1", 2, 40, seed=0, max_episode_steps=25)
    policy = rlseq.make_policy("mlp", env)
    agent: Any = rlseq.make_agent("ddpg", policy, gamma=0.9, rows=50, gradient_steps=1)
    batch = agent.collect(env)
    before = agent.targets(batch)
    with torch.no_grad():
        reached = batch.reached.squeeze(1)
        after = agent.critic.of(reached, mean_action(policy, reached).clamp(-1, 1))
        for p in (*policy.parameters(), *agent.critic.parameters()):
            p.add_(1.0)
    assert batch.ends.any()  # by the time limit alone: nothing is masked
    assert torch.allclose(before.squeeze(1), batch.rewards.squeeze(1) + 0.9 * after, atol=1e-5)
    assert torch.equal(agent.targets(batch), before)


def test_ddpg_goes_on_from_its_state() -> None:
    """All parts of its state: two agents with the same one learn the same from the same."""
    env = push()
    first: Any = rlseq.make_agent("ddpg", rlseq.make_policy("mlp", env, hidden=8), **DDPG)
    other: Any = rlseq.make_agent("ddpg", rlseq.make_policy("mlp", env, hidden=8, seed=9), **DDPG)
    for _ in range(3):
        first.update(first.collect(env))
    other.policy.load_state_dict(first.policy.state_dict())
    other.load_state_dict(deepcopy(first.state_dict()))
    logs = []
    for agent in (first, other):
        batch = agent.replay.draw(64)
        logs.append([{name: float(value) for name, value in agent.learn(batch).items()} for _ in range(3)])
    assert logs[0] == logs[1]


# ── relaxed words ────────────────────────────────────────────────────────────────────────────────────────

WORDS: dict[str, Any] = {"relaxation": "straight_through", "gamma": 1.0, "critic_lr": 0.1, "clip_norm": 100.0}


def expected_word(z: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A relaxed word without noise."""
    return z.softmax(-1)


def test_the_critic_of_words_finds_the_values_of_dynamic_programming() -> None:
    """Those of the policy, which is uniform and does not learn here, and not of the best one."""
    env = task(restricted=True)
    policy: Any = Table(env)
    torch.nn.init.zeros_(policy.logits)
    hyper = {"lr": 1e-12, "target_every": 60, "target_share": 1.0, "relaxation": expected_word}
    agent: Any = learned(rlseq.make_agent("ddpg", policy, **WORDS | hyper), env)
    exact = by_dynamic_programming(env, lambda q: q.mean())
    agent.policy, agent.form = agent.critic, action_values.plain
    assert off(agent, exact) < 0.01


def test_the_slope_along_relaxed_words_is_that_of_the_expected_value() -> None:
    """Q is linear in a word, so that straight-through words give the gradient of Σ_w π(w|s) Q(s, w)."""
    env = task(restricted=True)
    policy: Any = Table(env)
    agent: Any = rlseq.make_agent("ddpg", policy, **WORDS)
    agent.critic.logits.data.normal_(generator=torch.Generator().manual_seed(2))
    batch = everything(env, policy)
    agent.loss(batch)[0].backward()
    found, policy.logits.grad = policy.logits.grad, None

    def expected(z: Tensor, q: Tensor) -> Tensor:
        return (z.softmax(-1) * q).sum(-1)

    q = ActionValues(agent.critic, batch, action_values.plain).reduce(lambda q: q.detach())
    value = ActionValues(policy, batch, action_values.plain).reduce(expected, q)
    (-(value * batch.mask).sum() / batch.mask.sum()).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, policy.logits.grad)
    assert float(found.abs().max()) > 0.01


def test_targets_of_words_are_those_of_the_copies_and_their_noise() -> None:
    env = task()
    policy: Any = Table(env)
    agent: Any = rlseq.make_agent("ddpg", policy, **WORDS | {"gamma": 0.9, "relaxation": "gumbel_softmax"})
    agent.critic_target.network.logits.data.normal_(generator=torch.Generator().manual_seed(2))
    batch = everything(env, policy)
    found = agent.targets(batch)
    shape = (*batch.mask.shape, 3)
    noise = relaxed.gumbel_noise(shape, torch.Generator().manual_seed(agent.seed + 1))
    networks = policy, agent.critic_target.network
    z, q = (ActionValues(n, batch, action_values.plain).reduce(lambda z: z) for n in networks)
    after = ((z + noise).softmax(-1) * q).sum(-1)[:, 1:] * ~batch.ends[:, :-1]
    wanted = batch.rewards + 0.9 * torch.nn.functional.pad(after, (0, 1))
    assert torch.allclose((found - wanted) * batch.mask, torch.zeros(()), atol=1e-5)
    agent.critic_target.follow(agent.critic)
    assert not torch.allclose(found, agent.targets(batch))  # other noise in the next step


def test_ddpg_learns_to_write() -> None:
    env, test = (rlseq.make("rlseq/Copy-v0", num_envs=32, vocab_size=3, length=2, seed=s) for s in (0, 1))
    policy = rlseq.make_policy("gru", env, hidden=16, embedding=8)
    hyper = {"relaxation": "straight_through_gumbel", "lr": 1e-2, "critic_lr": 1e-2, "target_share": 0.1}
    agent: Any = rlseq.make_agent("ddpg", policy, rows=32, **WORDS | hyper)
    assert not any(p.any() for p in agent.critic.head.parameters())  # Q begins at 0
    before = rlseq.evaluate(policy, test)["reward"]
    for _ in range(40):
        agent.update(agent.collect(env))
    assert before < 0.3
    assert rlseq.evaluate(policy, test)["reward"] > 0.7


def test_a_run_of_relaxed_words_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def run(folder: str, *lengths: int) -> list[dict[str, float]]:
        for updates in lengths:
            env = task(seed=3)
            policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
            agent = rlseq.make_agent("ddpg", policy, relaxation="straight_through_gumbel", rows=8)
            found = rlseq.train(agent, env, updates, out=tmp_path / folder, quiet=True, alarms="ignore")
        return found

    assert run("whole", 8) == run("parts", 3, 8)


def test_ddpg_refuses_words_choices_and_vectors_without_bounds(tiny: Any) -> None:
    env, policy = tiny()
    with pytest.raises(ValueError, match=r"words of this Recurrent have none unless .*relaxation=.*dqn"):
        rlseq.make_agent("ddpg", policy)
    choices = GymEnv("CartPole-v1", 2, 8)
    with pytest.raises(TypeError, match="neither of which this MLP chooses; for choices take dqn"):
        rlseq.make_agent("ddpg", rlseq.make_policy("mlp", choices))
    with pytest.raises(ValueError, match="relaxation is for words, and this MLP chooses vectors"):
        rlseq.make_agent("ddpg", rlseq.make_policy("mlp", push()), relaxation="straight_through")
    agent = rlseq.make_agent("ddpg", rlseq.make_policy("mlp", push()))
    for other in (env, choices):
        with pytest.raises(ValueError, match=r"best vector between bounds, got actions Discrete.*take dqn"):
            rlseq.train(agent, other, updates=1, quiet=True)

    class Endless(Push):
        action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    with pytest.raises(ValueError, match=r"for vectors without bounds .*RescaleAction"):
        agent.check(GymEnv(gym.vector.SyncVectorEnv([Endless])))
