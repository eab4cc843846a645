"""What was allowed is kept once where it is the same for all, and step by step where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.engine.categorical import FORBIDDEN
from rlseq.engine.decode import acting_logits
from rlseq.engine.generation import score
from rlseq.engine.rollout import SupportRecorder, evaluate_actions
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import RuleSupport
from rlseq.vocab import Vocab

ALL = torch.arange(2)


def test_one_mask_stays_one_mask() -> None:
    allowed, mask = SupportRecorder(2, 3), torch.tensor([True, False, True])
    for t in range(3):
        allowed.note(ALL, torch.full((2,), t), mask)
    assert allowed.mask is not None
    assert allowed.mask.tolist() == mask.tolist()


def test_everything_is_no_mask() -> None:
    allowed = SupportRecorder(2, 3)
    allowed.note(ALL, torch.zeros(2, dtype=torch.int64), None)
    assert allowed.mask is None


def test_what_changes_is_kept_by_row_and_place() -> None:
    allowed, mask = SupportRecorder(2, 3), torch.tensor([True, False, True])
    other = torch.tensor([[True, True, False], [False, True, True]])
    for t, support in enumerate((mask, other, None)):
        allowed.note(ALL, torch.full((2,), t), support)
    wanted = torch.stack([mask.expand(2, -1), other, torch.ones(2, 3).bool()], 1)
    assert allowed.mask is not None
    assert torch.equal(allowed.mask, wanted)


def test_what_starts_late_was_everything_before() -> None:
    allowed, mask = SupportRecorder(2, 2), torch.tensor([True, False])
    allowed.note(ALL, torch.zeros(2, dtype=torch.int64), None)
    allowed.note(ALL[1:], torch.ones(1, dtype=torch.int64), mask)
    assert allowed.mask is not None
    assert allowed.mask.tolist() == [[[True, True], [True, True]], [[True, True], [True, False]]]


class NoThree(SequenceEnv):
    """Word 3 is never allowed: the task says so with one tensor."""

    words = torch.arange(9) != 3

    def legal(self) -> Tensor:
        return self.words


def test_a_constant_mask_of_a_task_takes_no_memory_and_is_scored() -> None:
    env = NoThree(vocab=Vocab.numbered(9), max_len=5, reward=lambda t, m, c: t[:, 0].float(), num_envs=200)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    batch = rlseq.rollout(policy, env)
    assert isinstance(batch.behaviour.support, Tensor)
    assert batch.behaviour.support.tolist() == env.words.tolist()
    assert not (batch.actions == 3).any()
    seen = evaluate_actions(policy, batch)
    assert ((seen.log_probs - batch.log_probs) * batch.mask).abs().max() < 1e-5
    whole = batch.behaviour._replace(support=env.words.expand(200, 5, 9).clone())
    spelt_out = policy.evaluate(batch.actions, batch.context, whole)
    torch.testing.assert_close(seen.log_probs, spelt_out.log_probs.where(batch.mask, 0.0))
    more = rlseq.complete(policy, env, batch, samples=2)
    assert isinstance(more.behaviour.support, Tensor)
    assert more.behaviour.support.tolist() == env.words.tolist()


def test_a_constant_mask_that_forbids_everything_is_refused() -> None:
    class Nothing(NoThree):
        words = torch.zeros(9, dtype=torch.bool)

    env = Nothing(vocab=Vocab.numbered(9), max_len=5, reward=lambda t, m, c: t[:, 0].float(), num_envs=4)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    with pytest.raises(ValueError, match=r"no token is legal in rows \[0, 1, 2, 3\]"):
        rlseq.rollout(policy, env)


class Alternating(SequenceEnv):
    """Even words, then odd ones: the task writes every mask into the same tensor."""

    def __init__(self) -> None:
        super().__init__(vocab=Vocab.numbered(4, eos=None), max_len=3, reward=_nothing, num_envs=8)
        self.words = torch.ones(4, dtype=torch.bool)

    def legal(self) -> Tensor:
        self.words[:] = torch.arange(4) % 2 == self.length[0] % 2
        return self.words


def _nothing(tokens: Tensor, mask: Tensor, context: object) -> Tensor:
    return torch.zeros(len(tokens))


def test_masks_made_afresh_are_told_apart() -> None:
    """The second may lie where the first was before it was freed."""
    allowed = SupportRecorder(2, 3)
    for t in range(3):
        allowed.note(ALL, torch.full((2,), t), torch.arange(3) == t)
    assert allowed.mask is not None
    assert torch.equal(allowed.mask, torch.eye(3, dtype=torch.bool).expand(2, 3, 3))


def test_a_mask_that_is_written_anew_in_place_is_another_mask() -> None:
    env = Alternating()
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    batch = rlseq.rollout(policy, env)
    assert (batch.actions % 2 == torch.tensor([0, 1, 0])).all()
    torch.testing.assert_close(evaluate_actions(policy, batch).log_probs, batch.log_probs)


class Rises(SequenceEnv):
    """Every word is followed by 0, which ends the text, or by a greater one: a rule of what was written."""

    def __init__(self) -> None:
        super().__init__(vocab=Vocab.numbered(9), max_len=6, reward=_first_word, num_envs=200, seed=3)

    def legal(self) -> Any:
        return self.greater

    def greater(self, tokens: Tensor, length: Tensor) -> Tensor:
        last = tokens.gather(1, (length - 1).clamp(min=0).unsqueeze(1)).where(length.unsqueeze(1) > 0, 0)
        words = torch.arange(9)
        return (words > last) | (words == 0)


class RisesRecorded(Rises):
    """The same, as masks."""

    def legal(self) -> Any:
        return self.greater(self.tokens, self.length)


def _first_word(tokens: Tensor, mask: Tensor, context: object) -> Tensor:
    return tokens[:, 0].float()


def test_a_rule_is_remembered_in_place_of_its_masks_and_gives_the_same_numbers() -> None:
    seen = {}
    for kind in (Rises, RisesRecorded):
        env = kind()
        policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8, seed=0)
        batch = rlseq.rollout(policy, env, decode=rlseq.Sample(1.5)).take(torch.arange(199, -1, -3)).trimmed()
        more = rlseq.complete(policy, env, batch, samples=2, prefixes=[2, 4])
        found = evaluate_actions(policy, batch)
        again = evaluate_actions(policy, more).log_probs.where(more.log_probs < 0, 0)  # where it was written
        assert found.logits is not None
        kl = found.logits.reduce(lambda z: z.log_softmax(-1).amax(-1))
        loss = (found.log_probs.where(batch.mask, 0) + (found.entropy + kl) * batch.mask).sum()
        (gradient,) = torch.autograd.grad(loss, policy.head.weight)
        real = [part.where(batch.mask, 0) for part in (batch.actions, found.log_probs, found.entropy, kl)]
        seen[kind] = batch, [*real, batch.log_probs, more.actions, more.log_probs, again, gradient]
    (ruled, numbers), (recorded, wanted) = seen[Rises], seen[RisesRecorded]
    for number, same in zip(numbers, wanted, strict=True):
        assert torch.equal(number, same)
    rule, masks = ruled.behaviour.support, recorded.behaviour.support
    assert isinstance(rule, RuleSupport)
    assert isinstance(masks, Tensor)
    kept = ruled.mask.unsqueeze(2)
    assert torch.equal(rule.masks(ruled.mask.shape[1]) & kept, masks & kept)


def test_a_policy_that_makes_all_logits_is_given_the_rule_by_acting_logits() -> None:
    env = Rises()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    batch = rlseq.rollout(policy, env)
    logits = torch.zeros(*batch.actions.shape, 9)
    rule = batch.behaviour.support
    assert isinstance(rule, RuleSupport)
    assert torch.equal(acting_logits(logits, batch.behaviour) == 0, rule.masks(6))


@pytest.mark.parametrize("kind", [Rises, RisesRecorded])
def test_texts_that_are_not_legal_are_not_scored(kind: type[Rises]) -> None:
    env = kind()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    assert len(score(policy, env, None, ["a b c", "d h"])) == 2
    with pytest.raises(ValueError, match="not legal at their places: 'd b'"):
        score(policy, env, None, ["a b c", "d b"])


def test_a_rule_that_forbids_everything_is_refused() -> None:
    class Stuck(Rises):
        def greater(self, tokens: Tensor, length: Tensor) -> Tensor:
            return super().greater(tokens, length) & (torch.arange(9) > 0)

    env = Stuck()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    with pytest.raises(ValueError, match=r"no token is legal in rows \["):
        rlseq.rollout(policy, env)


def test_a_decoder_that_truncates_at_some_steps_only_is_refused_beside_a_rule() -> None:
    class Sometimes(rlseq.Sample):
        steps = 0

        def support(self, logits: Tensor) -> Tensor | None:
            Sometimes.steps += 1
            return None if Sometimes.steps < 3 else logits > FORBIDDEN

    env = Rises()
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    with pytest.raises(ValueError, match="at every step or at none, where `legal` is a function"):
        rlseq.rollout(policy, env, decode=Sometimes())
