"""Noise as an input of policies: who draws it, who reads it, who keeps it, and who is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlseq
from rlseq.engine.completions import complete
from rlseq.engine.rollout import evaluate_actions
from rlseq.mdp.task_spec import TaskSpec
from rlseq.policies.noise import WithNoise
from rlseq.policies.spec import TokenSpec
from rlseq.policies.testing import check_policy
from rlseq.training.model import VALUE_HEAD, give_weights
from rlseq.types import BasePolicy

SMALL: dict[str, Any] = {"hidden": 16, "embedding": 8}


def noisy(rows: int = 8, **options: Any) -> Any:
    """A task that draws noise."""
    return rlseq.make("rlseq/Copy-v0", num_envs=rows, vocab_size=4, length=3, noise=3, **options)


@pytest.mark.parametrize("name", ["lstm", "gru", "seq2seq", "transformer", "captioner"])
def test_a_policy_reads_noise_at_every_step(name: str) -> None:
    """`step` and `evaluate` agree, and each of the words depends on z."""
    env: Any = noisy()
    if name == "captioner":
        env = rlseq.make("rlseq/Captions-v0", num_envs=8, scenes=20, noise=3)
    policy = rlseq.make_policy(name, env, value=True, **SMALL)
    check_policy(policy, env)
    batch = rlseq.rollout(policy, env)
    other = {**batch.context, "noise": batch.context["noise"] + 1}
    change = policy.evaluate(batch.actions, other).log_probs - batch.log_probs
    assert (change[batch.mask].abs() > 1e-6).all()


def test_a_group_shares_its_noise_and_texts_do_not() -> None:
    env = noisy()
    z = rlseq.rollout(rlseq.make_policy("gru", env, **SMALL), env, repeat=2).context["noise"]
    assert z.shape == (8, 3)
    assert torch.equal(z[::2], z[1::2])
    assert not torch.equal(z[:2], z[2:4])
    assert rlseq.make("rlseq/Copy-v0").context_of(torch.arange(1)).keys().isdisjoint({"noise"})


def test_a_completion_goes_on_under_the_noise_of_its_text() -> None:
    env = noisy()
    policy = rlseq.make_policy("gru", env, **SMALL)
    batch = rlseq.rollout(policy, env)
    completed = complete(policy, env, batch, samples=2, prefixes=[1])
    assert torch.equal(completed.context["noise"], batch.context["noise"].repeat_interleave(2, 0))
    written = completed.mask & (torch.arange(env.max_len) >= 1)
    again = evaluate_actions(policy, completed).log_probs
    torch.testing.assert_close(again[written], completed.log_probs[written])


def test_a_replay_keeps_the_noise_under_which_a_text_was_written() -> None:
    env = noisy(32)
    agent: Any = rlseq.make_agent("dqn", rlseq.make_policy("gru", env, **SMALL))
    batch = agent.collect(env)
    kept = agent.replay.rows
    same = (batch.context["noise"].unsqueeze(1) == kept["context/noise"][:32]).all(2)
    assert same.any(1).all()
    assert torch.equal(kept["context/index"][same.int().argmax(1)], batch.context["index"])


def test_noise_is_observed_and_kept_with_a_model(tmp_path: Path) -> None:
    env = noisy(seed=1)
    seen, _ = env.reset(seed=1)
    assert torch.equal(seen["noise"], env.context["noise"])
    assert env.single_observation_space["noise"].shape == (3,)
    policy = rlseq.make_policy("gru", env, **SMALL)
    rlseq.train(rlseq.make_agent("mle", policy), env, updates=1, out=tmp_path / "run", probe=False)
    loaded: Any = rlseq.load(tmp_path / "run")
    assert loaded.env.noise == 3
    assert isinstance(loaded.policy, WithNoise)
    assert len(loaded.generate(["a b a"], n=2, decode=rlseq.Sample())[0]) == 2
    stored = TaskSpec.of(env).to_json()
    del stored["noise"]  # as earlier versions wrote it
    assert TaskSpec.from_json(stored).noise == 0


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_policy_without_an_input_for_noise_is_refused() -> None:
    env, plain = noisy(), rlseq.make("rlseq/Copy-v0", num_envs=8, vocab_size=4, length=3)
    for task, other, message in ((env, plain, "has no input for it; make"), (plain, env, "with noise=3")):
        policy = rlseq.make_policy("gru", other, **SMALL)
        with pytest.raises(ValueError, match=message):
            rlseq.rollout(policy, task)
        with pytest.raises(ValueError, match=message):
            rlseq.train(rlseq.make_agent("reinforce", policy), task, updates=1)


def test_a_policy_that_cannot_be_given_noise_is_refused() -> None:
    class Blind(BasePolicy):
        def __init__(self, words: TokenSpec) -> None:
            super().__init__()
            self.words, self.weight = words, nn.Parameter(torch.zeros(words.written))

    with pytest.raises(ValueError, match="Blind has no input for noise"):
        WithNoise(Blind(TokenSpec.of(noisy())), 3)


def test_texts_under_noise_are_not_enumerated() -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=4, noise=2)
    with pytest.raises(ValueError, match="without noise=2"):
        rlseq.exact.gradient(rlseq.make_policy("gru", env, **SMALL), env)
    with pytest.raises((TypeError, ValueError), match="noise"):
        rlseq.make("rlseq/Copy-v0", noise=-1)


def test_a_value_head_may_be_new_under_noise_too() -> None:
    env = noisy()
    without, with_head = (rlseq.make_policy("lstm", env, value=value, **SMALL) for value in (False, True))
    give_weights("start", without.state_dict(), with_head, VALUE_HEAD)
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_head.state_dict()[name])
