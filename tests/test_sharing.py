"""Texts of one source share its encoding, and samples a batch with greedy texts: nothing changes by it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.engine.beside import BesideGreedy
from rlseq.engine.rollout import evaluate_actions
from rlseq.policies import sharing
from rlseq.policies.encoders import ConvNet

TASKS: dict[str, dict[str, Any]] = {
    "rlseq/Copy-v0": {"vocab_size": 6, "length": 9, "shortest": 1},
    "rlseq/Captions-v0": {"scenes": 20},
}
POLICIES = (
    ("lstm", "rlseq/Copy-v0"),
    ("gru", "rlseq/Copy-v0"),
    ("seq2seq", "rlseq/Copy-v0"),
    ("transformer", "rlseq/Copy-v0"),
    ("transformer", "rlseq/Captions-v0"),
    ("captioner", "rlseq/Captions-v0"),
)


def made(name: str, id: str, rows: int = 24) -> tuple[Any, Any]:
    torch.manual_seed(0)
    env = rlseq.make(id, num_envs=rows, seed=1, **TASKS[id])
    return env, rlseq.make_policy(name, env, hidden=16)


def apart(policy: Any, read: Any, context: Any, entry: str) -> Any:
    """Every row by itself."""
    return read(context)


def scores_and_slopes(policy: Any, batch: Any) -> tuple[Tensor, Tensor]:
    found = evaluate_actions(policy, batch).log_probs.where(batch.mask, 0.0)
    slopes = torch.autograd.grad(
        found.sin().sum(), [*policy.parameters()], materialize_grads=True, allow_unused=True
    )
    return found.detach(), torch.cat([slope.flatten() for slope in slopes])


@pytest.mark.parametrize(("name", "id"), POLICIES)
def test_texts_of_one_source_share_its_encoding(name: str, id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env, policy = made(name, id)
    batch = rlseq.rollout(policy, env, repeat=4)
    read: list[int] = []
    first = next(
        m for m in policy.modules() if isinstance(m, (nn.Embedding, ConvNet)) and m not in own(policy)
    )
    handle = first.register_forward_hook(lambda module, given, found: read.append(rows_of(given[0])))
    found, slopes = scores_and_slopes(policy, batch)
    handle.remove()
    assert sum(read) < 24, "sources of one part are read once; those of different parts once in each"
    for module in ("recurrent", "seq2seq", "transformer", "captioner"):
        monkeypatch.setattr(sys.modules[f"rlseq.policies.{module}"], "each_once", apart)
    wanted, wanted_slopes = scores_and_slopes(policy, batch)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(slopes, wanted_slopes, rtol=1e-4, atol=1e-5)


def own(policy: Any) -> set[nn.Module]:
    """The tables of the words that are written."""
    return {*policy.embedding.modules()}


def rows_of(given: Any) -> int:
    return len(given if isinstance(given, Tensor) else next(iter(given.values())))


def test_with_dropout_every_row_has_its_own() -> None:
    env, _ = made("lstm", "rlseq/Copy-v0")
    policy = rlseq.make_policy("lstm", env, hidden=16, dropout=0.5)
    batch = rlseq.rollout(policy, env, repeat=4)
    policy.train()
    memory, _ = policy._read(batch.context)
    assert not torch.equal(memory[0][0], memory[0][1])


def test_runs_of_rows() -> None:
    rows = torch.tensor([[1, 2], [1, 2], [1, 3], [1, 2], [1, 2]])
    first, run = sharing.runs_of_rows(rows)
    assert first.tolist() == [0, 2, 3]
    assert run.tolist() == [0, 0, 1, 2, 2]
    first, _ = sharing.runs_of_rows(rows, torch.tensor([[0], [1], [1], [1], [1]]))
    assert first.tolist() == [0, 1, 2, 3]
    assert sharing.runs_of_rows(rows[:0])[0].tolist() == []


def test_running_averages_are_part_of_the_convolutions() -> None:
    torch.manual_seed(0)
    reader = ConvNet((3, 36, 36), 16)
    image = {"image": torch.rand(8, 3, 36, 36)}
    for _ in range(3):
        reader.train()(image)  # averages of their own
    reader.eval()
    found, _ = reader(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConvNet, "_convolved", lambda self, x: self.grid(x))
        wanted, _ = reader(image)
    torch.testing.assert_close(found, wanted)
    slopes = (torch.autograd.grad(x.sin().sum(), [*reader.parameters()]) for x in (found, wanted))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "id"), POLICIES)
@pytest.mark.parametrize(
    ("repeat", "decode"), [(1, rlseq.Sample()), (3, rlseq.Sample(temperature=0.7, top_k=4, top_p=0.9))]
)
def test_greedy_texts_beside_samples(name: str, id: str, repeat: int, decode: Any) -> None:
    """The samples are those of a rollout by itself, bit for bit, and so are the returns of greedy texts."""
    env, policy = made(name, id)
    both = rlseq.rollout(policy, env, decode=BesideGreedy(decode), repeat=repeat)
    counted, episodes = env.counts.as_dict(), env.episodes
    again, _ = made(name, id)
    alone = rlseq.rollout(policy, again, decode=decode, repeat=repeat)
    for field in ("actions", "mask", "rewards", "ends"):
        assert torch.equal(getattr(both, field), getattr(alone, field)), field
    torch.testing.assert_close(both.log_probs, alone.log_probs)
    index = alone.context["index"][::repeat]
    greedy = rlseq.rollout(policy, again.replace(num_envs=len(index)), decode=rlseq.Greedy(), index=index)
    assert both.greedy is not None
    torch.testing.assert_close(both.greedy, greedy.returns.repeat_interleave(repeat))
    assert counted == again.counts.as_dict()
    for one, other in zip(episodes.tensors(), again.episodes.tensors(), strict=True):
        assert torch.equal(one, other)
