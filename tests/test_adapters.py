"""Any Gymnasium environment: what is collected from it, in every autoreset mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

import rlseq
from rlseq.adapters.gym_env import GymEnv
from rlseq.agents.a2c import A2C
from rlseq.policies.mlp import MLP
from rlseq.policies.normalize import ReturnScale
from rlseq.policy_gradient.losses import per_token
from rlseq.policy_gradient.returns import lambda_return, reward_to_go
from rlseq.types import RAW, Behaviour, Evaluation, Rollout

MODES = list(AutoresetMode)
GAMMA = 0.9


class Corridor(gym.Env[Any, Any]):
    """Observes its step, pays it, and is over after the third; a time limit may cut it off before."""

    observation_space: Any = gym.spaces.Box(0, 10, (1,), np.float32)
    action_space: Any = gym.spaces.Discrete(2, start=5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return np.array([0.0], np.float32), {}

    def step(self, action: Any) -> Any:
        assert action in (5, 6)
        self.at += 1
        return np.array([self.at], np.float32), float(self.at), self.at == 3, False, {}


class Known(nn.Module):
    """Acts by the sign of one number that it sees, surely; V(s) = 10 + the sum of what it sees."""

    def start(self, context: Any) -> Any:
        return ()

    def step(self, observation: Tensor, state: Any) -> Any:
        side = observation[:, -2:][:, :1]  # of CartPole the angle, of the corridor the place
        return 1e6 * torch.cat([-side, side], 1), state

    def evaluate(self, actions: Tensor, context: Any, behaviour: Behaviour = RAW) -> Evaluation:
        log_p = self.step(context["observation"].flatten(0, 1), ())[0].log_softmax(1)
        log_probs = log_p.gather(1, actions.reshape(-1, 1)).view(actions.shape)
        return Evaluation(log_probs, torch.zeros_like(log_probs), 10 + context["observation"].sum(2))


def corridor(mode: AutoresetMode, limit: int | None, rows: int = 2, steps: int = 7, **kwargs: Any) -> GymEnv:
    def make() -> gym.Env[Any, Any]:
        return Corridor() if limit is None else gym.wrappers.TimeLimit(Corridor(), limit)

    return GymEnv(SyncVectorEnv([make] * rows, autoreset_mode=mode), steps=steps, **kwargs)


def collected(env: GymEnv, policy: Any = None) -> Rollout:
    stretch = rlseq.rollout(policy or Known(), env)
    assert stretch.last_episodes is not None
    return stretch


@pytest.mark.parametrize("mode", MODES)
def test_what_is_over_is_worth_nothing_and_what_is_cut_off_is_worth_v(mode: AutoresetMode) -> None:
    over, cut = collected(corridor(mode, None)), collected(corridor(mode, 2))
    skips = mode is AutoresetMode.NEXT_STEP  # a step that only resets
    assert over.mask[0].tolist() == ([1, 1, 1, 0, 1, 1, 1] if skips else [1] * 7)
    assert over.ends[0].tolist() == ([0, 0, 1, 0, 0, 0, 1] if skips else [0, 0, 1, 0, 0, 1, 0])
    assert over.rewards[0].tolist() == ([1, 2, 3, 0, 1, 2, 3] if skips else [1, 2, 3, 1, 2, 3, 1])
    assert over.bootstrap is not None
    assert cut.bootstrap is not None
    assert over.bootstrap[0].tolist() == ([0] * 7 if skips else [0] * 6 + [11])  # the stretch cuts the third
    assert cut.bootstrap[0].tolist() == ([0, 12, 0, 0, 12, 0, 11] if skips else [0, 12, 0, 12, 0, 12, 11])
    assert cut.values is not None
    assert cut.values[0, :2].tolist() == [10, 11]
    # by hand: 1 + γ·2 + γ²·V(2), and 1 + γ·2 + γ²·3
    returns = reward_to_go(cut.rewards, cut.ends, GAMMA, cut.bootstrap)
    assert returns[0, 0].item() == pytest.approx(1 + 0.9 * 2 + 0.81 * 12)
    returns = reward_to_go(over.rewards, over.ends, GAMMA, over.bootstrap)
    assert returns[0, 0].item() == pytest.approx(1 + 0.9 * 2 + 0.81 * 3)
    # λ-return at the first state, λ = ½: V₀ + δ₀ + ½γδ₁ with δ₁ = 2 + γ·12 − 11
    returns = lambda_return(cut.rewards, cut.values, cut.ends, GAMMA, 0.5, cut.bootstrap)
    assert returns[0, 0].item() == pytest.approx(1 + 0.9 * 11 + 0.45 * (2 + 0.9 * 12 - 11))


def by_hand(row: int, steps: int, limit: int, lam: float) -> tuple[list[float], list[float], list[float]]:
    """Rewards, λ-returns and end flags of one row of CartPole, one step at a time."""
    env = gym.make("CartPole-v1", max_episode_steps=limit)
    seen, _ = env.reset(seed=row)
    rewards, deltas, ends, values = [], [], [], []
    for _ in range(steps):
        value, action = 10 + float(seen.sum()), int(seen[2] > 0)
        seen, reward, terminated, truncated, _ = env.step(action)
        following = 0.0 if terminated else 10 + float(seen.sum())
        rewards.append(float(reward))
        ends.append(float(terminated or truncated))
        deltas.append(float(reward) + GAMMA * following - value)
        values.append(value)
        if terminated or truncated:
            seen, _ = env.reset()
    sums, later = [0.0] * steps, 0.0
    for t in reversed(range(steps)):
        later = deltas[t] + GAMMA * lam * (1 - ends[t]) * later
        sums[t] = values[t] + later
    return rewards, sums, ends


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_a_slow_loop(mode: AutoresetMode) -> None:
    limit, lam, rows = 36, 0.8, 3
    makers = [lambda: gym.make("CartPole-v1", max_episode_steps=limit)] * rows
    env = GymEnv(SyncVectorEnv(makers, autoreset_mode=mode), steps=200)
    stretch = collected(env)
    assert stretch.values is not None
    returns = lambda_return(stretch.rewards, stretch.values, stretch.ends, GAMMA, lam, stretch.bootstrap)
    cut = [episode.cut for episode in env.last]
    assert any(cut)
    assert not all(cut)
    for row in range(rows):
        real = stretch.mask[row]
        rewards, wanted, ends = by_hand(row, int(real.sum()), limit, lam)
        assert stretch.rewards[row][real].tolist() == rewards
        assert stretch.ends[row][real].float().tolist() == ends
        torch.testing.assert_close(returns[row][real], torch.tensor(wanted))


@pytest.mark.parametrize("mode", MODES)
def test_episodes_go_on_from_one_stretch_to_the_next(mode: AutoresetMode) -> None:
    env = corridor(mode, None, steps=5)
    parts = [collected(env) for _ in range(3)]
    whole = collected(corridor(mode, None, steps=15))
    for name in ("mask", "rewards", "ends", "values", "actions"):
        torch.testing.assert_close(
            torch.cat([getattr(part, name) for part in parts], 1), getattr(whole, name)
        )
    assert parts[0].episodes.returns.tolist() == [6, 6]  # 1 + 2 + 3, not what five steps paid
    assert parts[2].episodes.lengths.tolist() == whole.episodes.lengths.tolist()


def test_the_native_cartpole_is_the_one_of_one_row() -> None:
    native = collected(GymEnv("CartPole-v1", 4, steps=50))
    assert native.mask.sum() < 200
    assert (native.mask == torch.cat([torch.ones(4, 1).bool(), ~native.ends[:, :-1]], 1)).all()
    assert (native.rewards == native.mask).all()
    assert native.bootstrap is not None
    assert (native.bootstrap[:, :-1] == 0).all()


def test_without_v_nothing_is_said_of_what_is_cut_off() -> None:
    env = GymEnv("CartPole-v1", 2, steps=5)
    stretch = collected(env, rlseq.make_policy("mlp", env))
    assert stretch.values is None
    assert stretch.bootstrap is None
    rlseq.make_agent("reinforce", rlseq.make_policy("mlp", env)).update(stretch)


def test_the_same_seed_gives_the_same_stretch() -> None:
    def first(seed: int) -> list[float]:
        env = GymEnv("Pendulum-v1", 2, steps=5, seed=seed)
        found: list[float] = collected(env, rlseq.make_policy("mlp", env)).actions.flatten().tolist()
        return found

    assert first(1) == first(1) != first(2)


def test_an_evaluation_counts_as_many_episodes_of_every_row() -> None:
    class Unequal(Corridor):
        """Every other episode is over after one step: the first to end would all be short."""

        begun = 0

        def reset(self, **kwargs: Any) -> Any:
            self.begun += 1
            return super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            observed, reward, over, cut, info = super().step(action)
            return observed, reward, over or self.begun % 2 == 0, cut, info

    for mode in MODES:
        env = GymEnv(SyncVectorEnv([Unequal, Corridor], autoreset_mode=mode), steps=7)
        scores = rlseq.evaluate(Known(), env, limit=8)  # 6, 1, 6, 1 and four times 6
        assert scores == {"reward": (6 + 1 + 6 + 1 + 4 * 6) / 8, "length": (3 + 1 + 3 + 1 + 4 * 3) / 8}
        assert collected(env).rewards[0, 0] == 1  # and the next stretch begins afresh


def test_bounds_are_what_one_stands_for_and_what_is_done_stays_within() -> None:
    seen: list[Any] = []

    class Watched(gym.vector.VectorWrapper):
        def step(self, actions: Any) -> Any:
            seen.append(actions)
            return super().step(actions)

    env = GymEnv(Watched(gym.make_vec("Pendulum-v1", num_envs=3)), steps=20)
    batch = collected(env, rlseq.make_policy("mlp", env))
    done = torch.from_numpy(np.stack(seen, 1))
    torch.testing.assert_close(done, (2 * batch.actions).clamp(-2, 2))  # Pendulum's bounds are ±2
    assert (batch.actions.abs() > 1).any()


def test_the_mean_is_what_greedy_does_and_a_temperature_widens() -> None:
    env = GymEnv("Pendulum-v1", 50, steps=40)
    policy = rlseq.make_policy("mlp", env)

    def noise(decode: Any) -> Tensor:
        batch = rlseq.rollout(policy, env, decode=decode)
        means = policy.trunks(batch.context["observation"].flatten(0, 1))[0] @ policy.actor.weight.t()
        off: Tensor = (batch.actions - means.view(batch.actions.shape)).detach()
        return off

    assert noise(rlseq.Greedy()).abs().max() < 1e-5
    assert noise(rlseq.Sample()).std().item() == pytest.approx(1, abs=0.05)
    assert noise(rlseq.Sample(4.0)).std().item() == pytest.approx(2, abs=0.1)


def test_top_k_travels_with_the_stretch() -> None:
    env = GymEnv("Acrobot-v1", 4, steps=6)
    policy = rlseq.make_policy("mlp", env, value=True)
    agent = rlseq.make_agent("ppo", policy, decode=rlseq.Sample(0.5, top_k=2), epochs=1, minibatches=2)
    batch = agent.collect(env)
    assert isinstance(batch.behaviour.support, Tensor)
    assert (batch.behaviour.support.sum(2) == 2).all()
    agent.update(batch)  # which checks that the first ratio is 1


def test_a_step_is_learned_from_alone_with_the_same_gradient() -> None:
    env = GymEnv("CartPole-v1", 4, steps=30)
    policy = rlseq.make_policy("mlp", env, value=True)
    agent = A2C(policy, aggregate=per_token, entropy=0.1)
    batch = agent.with_advantages(agent.collect(env))
    assert not batch.mask.all()
    units = agent.with_token_weights(batch.as_transitions())
    assert units.actions.shape == (int(batch.mask.sum()), 1)
    grads = [torch.autograd.grad(agent.loss(b)[0], tuple(policy.parameters())) for b in (batch, units)]
    torch.testing.assert_close(*grads)
    assert torch.equal(batch.weights, per_token(batch.mask))


def test_what_is_reported_are_returns_as_paid() -> None:
    env = corridor(AutoresetMode.SAME_STEP, None, rewards=lambda rewards, ends: rewards * 100)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("mlp", env))
    batch = agent.collect(env)
    assert batch.rewards[0].tolist() == [100, 200, 300, 100, 200, 300, 100]
    assert agent.update(batch)["reward"] == 6


def test_rewards_are_scaled_by_the_deviation_of_returns() -> None:
    scale, rows = ReturnScale(0.5), np.random.default_rng(0).normal(size=(3, 2, 6)).astype(np.float32)
    ends = np.zeros((3, 2, 6), bool)
    ends[0, 0, 2] = ends[1, 1, 5] = True
    running, seen = np.zeros(2), []
    for rewards, over in zip(rows, ends, strict=True):
        for t in range(6):
            running = 0.5 * running + rewards[:, t]
            seen.extend(running)
            running[over[:, t]] = 0
        scaled = scale(torch.from_numpy(rewards), torch.from_numpy(over))
        torch.testing.assert_close(scaled, torch.from_numpy(rewards / np.std(seen)).float())
    again = ReturnScale(0.5)
    again.load_state_dict(scale.state_dict())
    assert again.seen.count == len(seen)


@pytest.mark.parametrize("name", ["reinforce", "a2c", "ppo"])
@pytest.mark.parametrize("id", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"])
def test_the_agents_of_texts_train(id: str, name: str) -> None:
    env = GymEnv(id, 3, steps=8)
    policy = rlseq.make_policy("mlp", env, hidden=8, value=True, standardise=True)
    agent = rlseq.make_agent(name, policy, baseline="value", kl=0.1, kl_reward=0.1, entropy=0.01)
    before = [p.clone() for p in policy.parameters()]
    history = rlseq.train(agent, env, updates=3, eval_env=GymEnv(id, 3, seed=1) if "C" in id[:1] else None)
    assert all(np.isfinite(row["loss"]) for row in history)
    assert history[-1]["kl_reference"] > 0
    assert any((p != q).any() for p, q in zip(policy.parameters(), before, strict=True))


def test_ppo_learns_cartpole() -> None:
    env = GymEnv("CartPole-v1", 16, steps=64)
    policy = rlseq.make_policy("mlp", env, value=True)
    agent = rlseq.make_agent("ppo", policy, lr=3e-3, gamma=0.98, lam=0.8, epochs=10, minibatches=4)
    first = rlseq.evaluate(policy, GymEnv("CartPole-v1", 20, seed=1), "sample", limit=20)["reward"]
    assert first < 60
    rlseq.train(agent, env, updates=20)
    assert rlseq.evaluate(policy, GymEnv("CartPole-v1", 20, seed=1), limit=20)["reward"] > 150


def test_a_run_has_a_folder(tmp_path: Any) -> None:
    def history(updates: int, out: Any) -> Any:
        env = GymEnv("CartPole-v1", 4, steps=25)
        agent = rlseq.make_agent("a2c", rlseq.make_policy("mlp", env, value=True, standardise=True))
        other = GymEnv("CartPole-v1", 4, seed=1)
        return rlseq.train(agent, env, updates, other, eval_every=2, out=out, eval_texts=5), agent

    first, _ = history(2, tmp_path)
    both, agent = history(4, tmp_path)
    assert [row["update"] for row in both] == [1, 2, 3, 4]
    assert both[:2] == first
    assert both[3]["eval_reward"] > 5
    assert 150 < both[1]["tokens"] <= 200  # steps, but those that only reset
    assert agent.policy.scale.count == both[3]["tokens"]


def wrapped(space: gym.Space[Any]) -> Callable[[], Any]:
    class Odd(Corridor):
        action_space: Any = space

    return lambda: GymEnv(SyncVectorEnv([Odd]))


def observing(space: gym.Space[Any]) -> Callable[[], Any]:
    class Odd(Corridor):
        observation_space: Any = space

    return lambda: GymEnv(SyncVectorEnv([Odd]))


CART = GymEnv("CartPole-v1", 2, steps=4)
PENDULUM = GymEnv("Pendulum-v1", 2, steps=4)


def mlp(env: GymEnv = CART) -> MLP:
    policy: MLP = rlseq.make_policy("mlp", env)
    return policy


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: GymEnv(gym.make("CartPole-v1")), "gymnasium.make_vec"),
        (lambda: GymEnv(gym.make_vec("CartPole-v1"), 4), "made already"),
        (lambda: GymEnv("CartPole-v1", 0), "num_envs"),
        (lambda: GymEnv("CartPole-v1", steps=1), "steps must be ≥ 2"),
        (wrapped(gym.spaces.MultiDiscrete([2, 2])), "TransformAction"),
        (observing(gym.spaces.Dict(a=gym.spaces.Box(0, 1, (2,)))), "FlattenObservation"),
        (observing(gym.spaces.Tuple([gym.spaces.Box(0, 1, (2,))])), "FlattenObservation"),
        (observing(gym.spaces.Text(4)), "FlattenObservation"),
        (observing(gym.spaces.Discrete(4)), "FlattenObservation"),
        (lambda: rlseq.make_policy("mlp", rlseq.make("rlseq/Copy-v0")), "lstm"),
        (lambda: rlseq.make_policy("lstm", CART), 'make_policy\\("mlp"'),
        (lambda: rlseq.make_policy("mlp", gym.make_vec("CartPole-v1")), "adapters.GymEnv"),
        (lambda: rlseq.make_agent("mle", mlp()).collect(CART), "SequenceEnv"),
        (lambda: rlseq.make_agent("reinforce", mlp(), mle=0.1).collect(CART), "leave them at 1 and 0"),
        (lambda: rlseq.make_agent("rloo", mlp(), samples=2).collect(CART), "leave them at 1 and 0"),
        (
            lambda: rlseq.make_agent(
                "ppo", mlp(), minibatches=9, credit="reward_to_go", baseline="mean"
            ).collect(CART),
            "too few",
        ),
        (lambda: rlseq.rollout(mlp(), CART, repeat=2), "repeat is for texts"),
        (lambda: rlseq.make_agent("scst", mlp()).collect(CART), "SequenceEnv"),
        (lambda: rlseq.make_agent("a2c", mlp()), "value=True"),
        (lambda: rlseq.rollout(mlp(), CART, forced=torch.zeros(2, 1).long()), "forced is for texts"),
        (lambda: rlseq.rollout(mlp(), CART, decode=rlseq.Beam(2)), "Sample\\("),
        (lambda: rlseq.rollout(mlp(PENDULUM), PENDULUM, decode=rlseq.Sample(top_k=2)), "Greedy"),
        (lambda: rlseq.evaluate(mlp(), CART, limit=0), "limit must be"),
        (lambda: rlseq.evaluate(mlp(), CART, metrics={"x": lambda *_: torch.zeros(1)}), "metrics"),
    ],
)
def test_mistakes_say_how_to_mend_them(mistake: Callable[[], Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        mistake()


def test_nan_is_refused() -> None:
    policy = mlp()
    with torch.no_grad():
        policy.actor.bias[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        rlseq.rollout(policy, GymEnv("CartPole-v1", 2, steps=4))


def test_a_policy_that_remembers_is_refused() -> None:
    class Remembering(Known):
        def start(self, context: Any) -> Any:
            return (torch.zeros(2, 1),)

    with pytest.raises(TypeError, match="state is"):
        collected(corridor(AutoresetMode.SAME_STEP, None), Remembering())


def test_an_environment_that_does_not_say_how_it_resets_is_refused() -> None:
    env = gym.make_vec("Pendulum-v1", num_envs=1)
    env.metadata = {}
    with pytest.raises(ValueError, match="autoreset_mode"):
        GymEnv(env)


def test_a_stretch_is_a_rollout() -> None:
    stretch = collected(corridor(AutoresetMode.NEXT_STEP, 2))
    changed = replace(stretch, samples=1)
    assert changed.last_episodes == stretch.last_episodes
