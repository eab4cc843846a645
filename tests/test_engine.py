"""The engine: forced prefixes, groups, stored probabilities, and that nothing moves between rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.engine.references import sample_references
from rlseq.engine.rollout import evaluate_actions
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import Context, Rollout
from rlseq.utils.modules import eval_mode
from rlseq.vocab import Vocab


def make(id: str = "rlseq/Copy-v0", rows: int = 12, **options: Any) -> SequenceEnv:
    return rlseq.make(id, num_envs=rows, **options)


def policy_for(env: SequenceEnv, name: str = "lstm") -> Any:
    return rlseq.make_policy(name, env, hidden=16, embedding=8)


@pytest.mark.parametrize("id", ["rlseq/Copy-v0", "rlseq/Enumerable-v0", "rlseq/Oracle-v0"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("decode", [rlseq.Sample(), rlseq.Sample(0.7), rlseq.Greedy()])
def test_evaluate_reproduces_the_stored_log_probabilities(id: str, name: str, decode: Any) -> None:
    env = make(id, rows=32)
    policy = policy_for(env, name)
    batch = rlseq.rollout(policy, env, decode=decode)
    again = evaluate_actions(policy, batch).log_probs.detach() * batch.mask
    assert (again - batch.log_probs).abs().max() < 1e-5
    assert (batch.log_probs[batch.mask] < 0).all()


def test_the_layout_of_a_rollout() -> None:
    env = make(rows=64)
    batch = rlseq.rollout(policy_for(env), env)
    assert batch.actions.shape == batch.mask.shape == batch.rewards.shape == (64, env.max_len)
    ended = [row.index(0) + 1 if 0 in row else env.max_len for row in batch.actions.tolist()]
    assert batch.lengths.tolist() == ended, "an episode lasts up to and with its first EOS"
    assert (batch.mask.long().diff(dim=1) <= 0).all(), "the mask is a prefix"
    assert (batch.ends.sum(1) == 1).all()
    assert batch.ends.long().argmax(1).tolist() == [n - 1 for n in ended]
    assert (batch.rewards[~batch.ends] == 0).all()
    assert (batch.actions[~batch.mask] == 0).all()


def test_the_same_seed_gives_the_same_rollout_bit_for_bit() -> None:
    def one(seed: int) -> Rollout:
        env = make(seed=seed)
        return rlseq.rollout(policy_for(env), env)

    first, second, other = one(3), one(3), one(4)
    for name in ("actions", "log_probs", "rewards"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.actions, other.actions)


def test_repeat_gives_groups_of_one_context_and_different_texts() -> None:
    env = make(rows=12)
    batch = rlseq.rollout(policy_for(env), env, repeat=4)
    groups = batch.context["source"].view(3, 4, -1)
    assert (groups == groups[:, :1]).all()
    assert len({tuple(row) for row in batch.actions[:4].tolist()}) > 1


def test_index_chooses_the_contexts() -> None:
    env = make(rows=4)
    index = torch.tensor([7, 7, 0, 2])
    batch = rlseq.rollout(policy_for(env), env, index=index)
    assert torch.equal(batch.context["source"], env.items["source"][index])


def test_forced_prefixes_stay_in_their_rows_and_steps() -> None:
    """Every forced token is a code of its row and step, so any permutation shows."""
    rows, steps = 9, 11
    env = SequenceEnv(
        vocab=Vocab.numbered(200, eos=None),
        max_len=steps,
        reward=lambda t, m, c: t[:, 0].float(),
        num_envs=rows,
    )
    policy = policy_for(env)
    code = torch.arange(rows).unsqueeze(1) * 20 + torch.arange(steps)
    forced_steps = torch.arange(rows)
    batch = rlseq.rollout(policy, env, forced=code, forced_steps=forced_steps)
    for row in range(rows):
        assert batch.actions[row, :row].tolist() == code[row, :row].tolist()
        assert batch.actions[row, row:].tolist() != code[row, row:].tolist()
    assert batch.rewards[1:, -1].tolist() == code[1:, 0].tolist()
    again = evaluate_actions(policy, batch).log_probs
    assert (again - batch.log_probs).abs().max() < 1e-5, "forced tokens are scored by the policy too"


def test_completions_of_a_sampled_prefix_keep_it() -> None:
    """Monte-Carlo search: K completions of every row's first t tokens, on the same contexts."""
    env, samples, t = make("rlseq/Oracle-v0", rows=6, vocab_size=50), 4, 9
    policy = policy_for(env)
    start = rlseq.rollout(policy, env)
    wide = make("rlseq/Oracle-v0", rows=24, vocab_size=50)
    prefix = start.actions[:, :t].repeat_interleave(samples, 0)
    index = start.context["index"].repeat_interleave(samples)
    batch = rlseq.rollout(policy, wide, forced=prefix, index=index)
    assert torch.equal(batch.actions[:, :t], prefix)
    assert torch.equal(batch.context["index"], index)
    tails = {tuple(row) for row in batch.actions[:samples, t:].tolist()}
    assert len(tails) == samples


def test_teacher_forcing_is_all_tokens_forced() -> None:
    env = make()
    policy = policy_for(env)
    index = torch.arange(12)
    reference = env.items["references"][:12, 0]
    batch = rlseq.rollout(policy, env, forced=reference, index=index)
    assert torch.equal(batch.actions, reference)
    assert batch.returns.tolist() == [1.0] * 12


def test_demonstrations_are_references() -> None:
    env = make()
    batch = sample_references(env)
    assert torch.equal(batch.actions, env.items["references"][batch.context["index"], 0])
    assert batch.mask.all()
    with pytest.raises(ValueError, match="no references"):
        sample_references(make("rlseq/Enumerable-v0"))


def test_a_task_may_restrict_the_tokens_and_evaluate_knows() -> None:
    class Alternating(SequenceEnv):
        """Even words on even steps, odd words on odd steps."""

        def legal(self) -> Tensor:
            words = torch.arange(len(self.vocab))
            return words % 2 == (self.length % 2).unsqueeze(1)

    env = Alternating(
        vocab=Vocab.numbered(10, eos=None), max_len=5, reward=lambda t, m, c: t.sum(1).float(), num_envs=20
    )
    policy = policy_for(env)
    batch = rlseq.rollout(policy, env)
    assert (batch.actions % 2 == torch.arange(5) % 2).all()
    assert (evaluate_actions(policy, batch).log_probs - batch.log_probs).abs().max() < 1e-5
    assert (policy.evaluate(batch.actions, batch.context).log_probs - batch.log_probs).abs().max() > 0.1


def test_dead_ends_are_named() -> None:
    class DeadEnd(SequenceEnv):
        """Nothing may follow word 1."""

        def legal(self) -> Tensor:
            return (self.tokens != 1).all(1, keepdim=True).expand(-1, len(self.vocab))

    env = DeadEnd(
        vocab=Vocab.numbered(3, eos=None), max_len=4, reward=lambda t, m, c: t[:, 0].float(), num_envs=4
    )
    forced = torch.tensor([[0], [1], [0], [0]])
    with pytest.raises(ValueError, match=r"no token is legal in rows \[.*1"):
        rlseq.rollout(policy_for(env), env, forced=forced)


def test_dense_rewards_stay_where_they_were_earned() -> None:
    def each(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        return tokens.float() + 10 * torch.arange(tokens.shape[1])

    env = SequenceEnv(vocab=Vocab.numbered(6), max_len=7, reward=each, num_envs=30)
    batch = rlseq.rollout(policy_for(env), env)
    wanted = (batch.actions.float() + 10 * torch.arange(7)) * batch.mask
    assert torch.equal(batch.rewards, wanted)


def test_dropout_is_off_and_the_mode_is_restored() -> None:
    env = make()
    policy = policy_for(env)
    modes: list[bool] = []
    step = policy.step

    def spy(*arguments: Any) -> Any:
        modes.append(policy.training)
        return step(*arguments)

    policy.step = spy
    rlseq.rollout(policy, env)
    assert modes
    assert not any(modes)
    assert policy.training


def test_a_policy_in_double_precision_writes_too() -> None:
    env = make()
    policy = policy_for(env).double()
    batch = rlseq.rollout(policy, env)
    assert batch.log_probs.dtype == torch.float32
    rlseq.testing.check_policy(policy, env)
    rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1)


def test_modules_keep_their_own_modes() -> None:
    policy = policy_for(make())
    policy.frozen, policy.rnn = nn.Dropout().eval(), nn.LSTM(2, 2)
    policy.deep = nn.LSTM(2, 2, num_layers=2, dropout=0.5)
    before = [module.training for module in policy.modules()]
    with eval_mode(policy):
        assert not policy.training
        assert not policy.dropout.training
        assert not policy.deep.training
        assert policy.rnn.training  # or cuDNN would refuse to differentiate it
    assert [module.training for module in policy.modules()] == before
    assert not policy.frozen.training


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"forced": torch.zeros(12, 7, dtype=torch.int64)}, ValueError, r"F ≤ T=6 tokens, got \(12, 7\)"),
        ({"forced": torch.zeros(3, 2, dtype=torch.int64)}, ValueError, r"B=12 rows"),
        ({"forced": torch.zeros(12, 2)}, TypeError, "token ids"),
        ({"forced": torch.full((12, 2), 8)}, ValueError, r"0 … 7"),
        (
            {"forced": torch.zeros(12, 2, dtype=torch.int64), "forced_steps": 3},
            ValueError,
            r"forced_steps must",
        ),
        ({"forced": [[1, 2]] * 3}, ValueError, r"B=12 rows .*got \(3, 2\)"),
        ({"forced": [[1, 2]] * 12, "forced_steps": 1.5}, TypeError, "forced_steps must be integers"),
        ({"forced": [[1, 2]] * 12, "forced_steps": [1, 2]}, ValueError, r"one number or \(12,\), got \(2,\)"),
        ({"forced_steps": 3}, ValueError, "without forced tokens"),
        ({"decode": "greedy"}, TypeError, r"decode must be Sample\(…\).* got 'greedy'"),
        ({"repeat": 5}, ValueError, r"divides num_envs=12"),
        ({"index": torch.tensor([0] * 11 + [10_000])}, ValueError, r"0 … 9999"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    env = make()
    env.begin()
    before = env.tokens.clone(), env.generator.get_state(), dict(env.context)
    with pytest.raises(error, match=message):
        rlseq.rollout(policy_for(env), env, **arguments)
    assert torch.equal(env.tokens, before[0])
    assert torch.equal(env.generator.get_state(), before[1])
    assert env.context == before[2]


def test_lists_will_do() -> None:
    env, forced, steps = make(), [[3, 4]] * 12, [2, 1] * 6
    policy, more = policy_for(env), dict[str, Any](forced=forced, forced_steps=steps)
    batch = rlseq.rollout(policy, env, decode=rlseq.Greedy(), **more)
    assert (batch.actions[:, 0] == 3).all()
    assert (batch.actions[::2, 1] == 4).all()
    more = {
        "forced": torch.tensor(forced),
        "forced_steps": torch.tensor(steps),
        "index": batch.context["index"],
    }
    again = rlseq.rollout(policy, env, decode=rlseq.Greedy(), **more)
    assert torch.equal(again.actions, batch.actions)


def test_anything_that_is_not_a_task_is_refused() -> None:
    import gymnasium as gym

    assert sequence_env(gym.make_vec("rlseq/Copy-v0", num_envs=2)).num_envs == 2
    assert sequence_env(gym.make("rlseq/Copy-v0")).num_envs == 1
    with pytest.raises(TypeError, match="expected a task that writes texts"):
        sequence_env(gym.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[:, :-1], r"logits \[B, V\] = \(12, 8\), got \(12, 7\)"),
        (lambda logits: logits.index_fill(0, torch.tensor([3]), torch.nan), r"NaN or infinity in rows \[3\]"),
    ],
)
def test_a_policy_whose_logits_are_none_is_stopped(change: Any, message: str) -> None:
    env = make()
    policy = policy_for(env)
    step = policy.step

    def broken(token: Tensor, state: Any) -> Any:
        logits, state = step(token, state)
        return change(logits), state

    policy.step = broken
    with pytest.raises(ValueError, match=message):
        rlseq.rollout(policy, env)


def test_a_policy_elsewhere_than_its_task_is_told_where_to_go() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=4)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8).to("meta")
    random = env.generator.get_state()
    with pytest.raises(
        ValueError, match=r"the policy is on meta, the task on cpu; move it with policy.to\('cpu'\)"
    ):
        rlseq.rollout(policy, env)
    assert torch.equal(env.generator.get_state(), random)


@pytest.mark.parametrize("words", [4, 20])
def test_a_policy_for_other_words_is_refused(words: int) -> None:
    made, other = (rlseq.make("rlseq/Copy-v0", num_envs=4, vocab_size=n) for n in (8, words))
    policy = rlseq.make_policy("gru", made, hidden=8, embedding=4)
    wanted = f"the policy writes {len(made.vocab)} words, the task has {len(other.vocab)}"
    with pytest.raises(ValueError, match=wanted):
        rlseq.rollout(policy, other)
    with pytest.raises(ValueError, match=wanted):
        rlseq.train(rlseq.make_agent("mle", policy), other, updates=1)
