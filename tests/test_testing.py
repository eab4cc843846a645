"""`check_policy` catches the mistakes that policies make."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.policies.head import Head
from rlseq.policies.spec import TokenSpec
from rlseq.policies.testing import check_policy
from rlseq.types import RAW, Behaviour, Context, Evaluation


class Good(nn.Module):
    """The mean of the words so far, and of the source: simple enough to be broken in every way."""

    def __init__(self, env: Any) -> None:
        super().__init__()
        self.words = TokenSpec.of(env)
        self.embedding, self.head = nn.Embedding(self.words.read, 8), Head(8, self.words.written, True)
        self.source_embedding = nn.Embedding(self.words.source or 1, 8)

    def start(self, context: Context) -> Any:
        return torch.zeros(len(context["index"]), 8), self.source(context), context["index"].double() * 0

    def source(self, context: Context) -> Tensor:
        present = self.words.present(context["source"]).unsqueeze(2)
        read: Tensor = self.source_embedding(context["source"]) * present
        return read.sum(1) / present.sum(1)

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        total, source, count = state
        total, count = total + self.embedding(token), count + 1
        return self.head(total / count.unsqueeze(1).float() + source), (total, source, count)

    def features(self, read: Tensor, source: Tensor) -> Tensor:
        total: Tensor = self.embedding(read).cumsum(1)
        return total / torch.arange(1, read.shape[1] + 1).unsqueeze(1) + source.unsqueeze(1)

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        features = self.features(self.words.before(actions), self.source(context))
        return self.head.evaluate(features, actions, behaviour)


class WithoutBehaviour(Good):
    def evaluate(self, actions: Tensor, context: Context) -> Evaluation:  # type: ignore[override]
        return super().evaluate(actions, context)


class NotShifted(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        return self.head.evaluate(self.features(actions, self.source(context)), actions, behaviour)


class ValueOfTheNextState(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        late = self.head.evaluate(self.features(actions, self.source(context)), actions, behaviour)
        return super().evaluate(actions, context, behaviour)._replace(values=late.values)


class MeanOverBatch(Good):
    def features(self, read: Tensor, source: Tensor) -> Tensor:
        features = super().features(read, source)
        return features - features.mean(0)


class MeanOverBatchInStep(Good):
    """Agrees with itself in the batch it is tried on, but not in another."""

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = super().step(token, state)
        return logits - logits.mean(0), state

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        state, token, log_probs, entropy = self.start(context), self.words.before(actions), [], []
        for t in range(actions.shape[1]):
            logits, state = self.step(token[:, t], state)
            log_p = logits.log_softmax(-1)
            log_probs.append(log_p.gather(1, actions[:, t : t + 1]).squeeze(1))
            entropy.append(-(log_p.exp() * log_p).sum(1))
        return Evaluation(torch.stack(log_probs, 1), torch.stack(entropy, 1))


class ReadsSourcePadding(Good):
    def source(self, context: Context) -> Tensor:
        mean: Tensor = self.source_embedding(context["source"]).mean(1)
        return mean


class ReadsAfterTheEnd(Good):
    def features(self, read: Tensor, source: Tensor) -> Tensor:
        mean: Tensor = self.embedding(read).mean(1, keepdim=True)
        return super().features(read, source) + mean


class ValueReadsAfterTheEnd(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        seen = super().evaluate(actions, context, behaviour)
        assert seen.values is not None
        return seen._replace(values=seen.values + actions.float().mean(1, keepdim=True))


class ValueOfWrongShape(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        seen = super().evaluate(actions, context, behaviour)
        assert seen.values is not None
        return seen._replace(values=seen.values.unsqueeze(2))


class NaNValue(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        seen = super().evaluate(actions, context, behaviour)
        return seen._replace(values=seen.log_probs * torch.nan)


class WrongEntropy(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        seen = super().evaluate(actions, context, behaviour)
        return seen._replace(entropy=-seen.log_probs)


class ForgetsTemperature(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        return super().evaluate(actions, context, Behaviour(1.0, behaviour.support))


class ForgetsSupport(Good):
    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        return super().evaluate(actions, context, Behaviour(behaviour.temperature))


class KeepsStateToItself(Good):
    def start(self, context: Context) -> Any:
        self.total, *state = super().start(context)
        return state

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, (self.total, *state) = super().step(token, (self.total, *state))
        return logits, state


class StateOfAnotherLayout(Good):
    """Layers first, as PyTorch's own LSTM has it."""

    def start(self, context: Context) -> Any:
        return tuple(part.unsqueeze(0) for part in super().start(context))

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = super().step(token, tuple(part.squeeze(0) for part in state))
        return logits, tuple(part.unsqueeze(0) for part in state)


class DropsOut(Good):
    """A dropout that does not know evaluation mode."""

    def features(self, read: Tensor, source: Tensor) -> Tensor:
        return nn.functional.dropout(super().features(read, source), 0.5)


@pytest.fixture
def env() -> Any:
    return rlseq.make("rlseq/Copy-v0", num_envs=8, seed=0, vocab_size=6, length=4)


@pytest.mark.parametrize("kind", [Good, WithoutBehaviour])
def test_good(env: Any, kind: Any) -> None:
    torch.manual_seed(0)
    check_policy(kind(env), env)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NotShifted, "`evaluate` and `step` disagree"),
        (WrongEntropy, "`evaluate` and `step` disagree: entropy"),
        (ReadsAfterTheEnd, "disagree"),
        (DropsOut, "disagree"),
        (MeanOverBatch, "disagree"),
        (ValueOfTheNextState, "later actions matter: values"),
        (ValueReadsAfterTheEnd, "actions matter: values"),
        (ReadsSourcePadding, "what fills up the source matters"),
        (ValueOfWrongShape, r"values must be \[B, T\] = \(8, 5\), got \(8, 5, 1\)"),
        (NaNValue, "values must be finite"),
        (ForgetsTemperature, "under temperature and support"),
        (ForgetsSupport, "under temperature and support"),
        (KeepsStateToItself, "copied rows of a state do not go on alike"),
    ],
)
def test_broken(env: Any, broken: Any, message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=message):
        check_policy(broken(env), env)


class StateInADict(Good):
    def start(self, context: Context) -> Any:
        return {"memory": super().start(context)}


class NoState(Good):
    def start(self, context: Context) -> Any:
        return None


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (
            StateOfAnotherLayout,
            ValueError,
            r"must have B = \d+ rows, got shape \(1, \d+, .*put the rows first",
        ),
        (StateInADict, TypeError, "tensor or a tuple of states.*got dict"),
        (NoState, TypeError, r"got NoneType; without memory it is \(\)"),
    ],
)
def test_states_whose_rows_cannot_be_forked(env: Any, broken: Any, error: Any, message: str) -> None:
    policy = broken(env)
    batch = rlseq.rollout(Good(env), env)
    for use in (
        lambda: check_policy(policy, env),
        lambda: rlseq.rollout(policy, env),
        lambda: rlseq.rollout(policy, env, repeat=4),
        lambda: rlseq.beam_search(policy, env, rlseq.Beam(2)),
        lambda: rlseq.complete(policy, env, batch, samples=2),
    ):
        with pytest.raises(error, match=message):
            use()


def test_a_mean_over_the_batch_in_both_views() -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=8, seed=0, sources=3, ends=False)
    with pytest.raises(AssertionError, match="the other rows of the batch matter"):
        check_policy(MeanOverBatchInStep(env), env)


def test_the_mode_is_left_as_it_was(env: Any) -> None:
    policy = Good(env).train()
    check_policy(policy, env)
    assert policy.training
