"""Compiled and captured steps write what plain ones write; without a compiler, there is one warning."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.engine import compiled
from rlseq.engine.rollout import decode_loop, decode_step, draw_uniforms, evaluate_actions
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Rollout
from rlseq.vocab import Vocab

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SIZES: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 16, "embedding": 8},
    "transformer": {"hidden": 16, "layers": 1, "heads": 2},
}


def make(name: str = "lstm", rows: int = 12, id: str = "rlseq/Copy-v0", device: str = "cpu") -> Any:
    env = rlseq.make(id, num_envs=rows, seed=5, device=device)
    return env, rlseq.make_policy(name, env, **SIZES[name])


def same(a: Rollout, b: Rollout) -> None:
    assert torch.equal(a.mask, b.mask)
    assert torch.equal(a.actions, b.actions)
    assert torch.equal(a.rewards, b.rewards)
    torch.testing.assert_close(a.log_probs, b.log_probs, rtol=0, atol=1e-5)


def both(policy: Any, make_env: Any, **arguments: Any) -> None:
    """The same numbers, compiled and not, from tasks of one seed."""
    same(
        rlseq.rollout(policy, make_env(), **arguments),
        rlseq.rollout(policy, make_env(), compile=True, **arguments),
    )


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_compiled_steps_write_the_same(name: str) -> None:
    _, policy = make(name)
    both(policy, lambda: make(name)[0])
    with torch.no_grad():  # as an optimiser does; compiled code must see it
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    both(policy, lambda: make(name)[0])


def test_everything_that_a_rollout_can_do_is_compiled_too() -> None:
    _, policy = make()
    forced = torch.full((12, 2), 3)
    decode = rlseq.Sample(0.8, top_k=4)
    both(policy, lambda: make()[0], decode=decode, forced=forced, repeat=3)
    batch = rlseq.rollout(policy, make()[0], decode=decode, compile=True)
    assert batch.behaviour.support is not None
    assert (evaluate_actions(policy, batch).log_probs - batch.log_probs)[batch.mask].abs().max() < 1e-5


def test_completions_are_compiled_too() -> None:
    env, policy = make()
    batch = rlseq.rollout(policy, env)
    state = env.generator.get_state()
    plain = rlseq.complete(policy, env, batch, samples=2)
    env.generator.set_state(state)
    same(plain, rlseq.complete(policy, env, batch, samples=2, compile=True))


def test_blocks_do_not_shrink_where_each_size_would_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlseq.engine.device.BLOCK", 32)  # 4 rows of 8 words
    env, _ = make()
    seen: list[Any] = []
    compiled.in_whole_blocks(lambda *a: seen.append(a), env, torch.zeros(12), (), [12, 9, 5, 4, 1])  # type: ignore[arg-type]
    assert seen[0][3] == [12, 12, 8, 4, 4]


def test_without_a_compiler_there_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.utils import fresh_cache

    compiled.compiler_works.cache_clear()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/no/such/compiler",))
    torch.compiler.reset()
    _, policy = make()
    try:
        with fresh_cache():
            with pytest.warns(RuntimeWarning, match="torch.compile does not work here") as caught:
                both(policy, lambda: make()[0])
            assert len(caught) == 1
            both(policy, lambda: make()[0])  # no second warning: warnings are errors here
    finally:
        compiled.compiler_works.cache_clear()
        torch.compiler.reset()


class Alternating(SequenceEnv):
    """Even words on even steps, odd words on odd steps."""

    def legal(self) -> Tensor:
        words = torch.arange(len(self.vocab), device=self.device)
        return words % 2 == (self.length % 2).unsqueeze(1)


def alternating(device: str = "cpu") -> SequenceEnv:
    return Alternating(
        vocab=Vocab.numbered(8),
        max_len=6,
        reward=lambda t, m, c: t[:, 0].float(),
        num_envs=12,
        seed=1,
        device=device,
    )


def again(run: Any) -> Any:
    """In place of a CUDA graph: run once more, on the same memory."""
    written = run()

    def replay() -> None:
        for old, new in zip(written, run(), strict=True):
            if old is not None:
                old.copy_(new)

    return written, replay


@pytest.mark.parametrize("make_env", [lambda: make("transformer")[0], alternating])
def test_replays_read_new_inputs_and_leave_old_results(make_env: Any) -> None:
    """All of the capture but CUDA: memory of its own, inputs copied in, results copied out."""
    env, twin = make_env(), make_env()
    policy = rlseq.make_policy("transformer", env, **SIZES["transformer"])
    decode, results, captures = rlseq.Sample(), [], []

    def capture(run: Any) -> Any:
        captures.append(run)
        return again(run)

    for _ in range(3):
        started = []
        for each in (env, twin):
            context = each.begin()
            token = torch.full((12,), each.vocab.bos)
            at_work = [12] * each.max_len
            started.append((token, policy.start(context), at_work, draw_uniforms(each, each.max_len), None))
        with torch.no_grad():
            loop = partial(decode_loop, partial(decode_step, policy, decode))
            got = compiled.replayed(loop, (policy, decode), env, started[0], capture)
            wanted = loop(twin, *started[1])
        torch.testing.assert_close(got[0][env.mask], wanted[0][twin.mask])
        for name in ("tokens", "length", "done"):
            assert torch.equal(getattr(env, name), getattr(twin, name))
        assert (got[1] is None) == (wanted[1] is None)
        results.append((got[0], got[0].clone()))
    assert len(captures) == 1
    assert all(torch.equal(kept, copy) for kept, copy in results)
    with torch.no_grad():
        policy.head.weight.data = (
            policy.head.weight.data.clone()
        )  # moved: the old graph would read old memory
    compiled.replayed(loop, (policy, decode), env, started[0], capture)
    assert len(captures) == 2


@gpu
@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_a_captured_graph_writes_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, policy = make(name, device="cuda")
    captures, captured = [], compiled.captured

    def counted(run: Any) -> Any:
        captures.append(run)
        return captured(run)

    monkeypatch.setattr(compiled, "captured", counted)
    for _ in range(2):
        both(policy, lambda: make(name, device="cuda")[0])
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(1.5)
    assert captures
    both(policy, lambda: make(name, device="cuda")[0], decode=rlseq.Greedy())
    both(policy, lambda: make(name, device="cuda")[0], autocast=torch.bfloat16)


@gpu
@pytest.mark.parametrize("compile", [False, True])
def test_no_step_waits_for_the_device(compile: bool) -> None:
    env, policy = make("transformer", rows=64, device="cuda")
    rlseq.rollout(policy, env, compile=compile)  # captured, and libraries loaded
    with torch.no_grad():
        context = env.begin()
        state, token = policy.start(context), torch.full((64,), env.vocab.bos, device="cuda")
        at_work = [64] * env.max_len
        uniform = draw_uniforms(env, env.max_len)
        torch.cuda.set_sync_debug_mode("error")
        try:
            rlseq.engine.rollout.make_decode_loop(policy, rlseq.Sample(), compile)(
                env, token, state, at_work, uniform
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert env.done.all()


@gpu
def test_what_cannot_be_captured_says_why() -> None:
    class Looks(Alternating):
        def legal(self) -> Tensor:
            assert self.length.sum() >= 0, "this waits"
            return super().legal()

    env = Looks(
        vocab=Vocab.numbered(8), max_len=6, reward=lambda t, m, c: t[:, 0].float(), num_envs=12, device="cuda"
    )
    policy = rlseq.make_policy("lstm", env, **SIZES["lstm"])
    with pytest.raises(RuntimeError, match="cannot be captured"):
        rlseq.rollout(policy, env, compile=True)
