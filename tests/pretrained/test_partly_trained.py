"""Adapters and frozen parts: only some weights are trained, and saved; the base is the reference."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.engine.rollout import evaluate_frozen
from rlseq.policies.pretrained.base import FROZEN
from rlseq.policies.testing import check_policy
from rlseq.policy_gradient.exact import expected_gradient, gradient
from rlseq.training.checkpoint import read, steps
from tests.pretrained.models import model_of, pairs

peft: Any = pytest.importorskip("peft")
LORA = {"r": 2, "lora_alpha": 4}


def with_lora(family: str, **sizes: Any) -> tuple[Any, Any]:
    env, words = pairs()
    settings = peft.LoraConfig(target_modules="all-linear", exclude_modules=["lm_head"], **LORA)
    return env, rlseq.make_policy("hf", env, model=model_of(family, words), peft=settings, **sizes)


def stir(policy: Any) -> None:
    """Give adapters weights that change what the base computes."""
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama"])
def test_adapters_keep_the_protocol(family: str) -> None:
    env, policy = with_lora(family, value=True)
    stir(policy)
    check_policy(policy, env, tolerance=1e-5)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_the_exact_gradient_of_adapters(family: str, tiny: Any) -> None:
    env, _ = tiny(sources=2, vocab_size=2)
    model = model_of(family, max(env.vocab.num_ids, env.source_vocab.num_ids))
    policy = rlseq.make_policy("hf", env, model=model, peft=LORA)
    stir(policy)
    policy = policy.double()
    agent = rlseq.make_agent("reinforce", policy, baseline="none", value_weight=0.0)
    assert tiny.error(expected_gradient(agent, env, rows=1), gradient(policy, env)) < 1e-4


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("trpo", {"credit": "reward_to_go", "baseline": "mean", "kl_target": 0.02}),
        ("es", {"only": "*lora*", "population": 2}),
    ],
)
def test_adapters_alone_take_exact_steps_and_are_perturbed(name: str, hyper: dict[str, Any]) -> None:
    env, policy = with_lora("t5")
    stir(policy)
    before = {name: p.clone() for name, p in policy.named_parameters()}
    agent = rlseq.make_agent(name, policy, **hyper)
    for _ in range(2):
        metrics = agent.update(agent.collect(env))
        assert name != "trpo" or 0 < float(metrics["kl_step"]) <= 0.02
    changed = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora" in name for name in changed)


def test_a_state_holds_the_adapters_and_refuses_another_base() -> None:
    env, policy = with_lora("t5", value=True)
    state = policy.state_dict()
    assert all("lora_" in name or name.startswith("value.") or name == FROZEN for name in state)
    assert sum(value.numel() for value in state.values()) < 0.3 * sum(p.numel() for p in policy.parameters())
    _, other = with_lora("t5", value=True)
    stir(other)
    policy.load_state_dict(other.state_dict())
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in other.state_dict().items())
    words = max(env.vocab.num_ids, env.source_vocab.num_ids)
    model = model_of("t5", words)
    model.shared.weight.data[0, 0] += 1
    settings = peft.LoraConfig(target_modules="all-linear", exclude_modules=["lm_head"], **LORA)
    changed = rlseq.make_policy("hf", env, model=model, peft=settings, value=True)
    with pytest.raises(ValueError, match=r"frozen weights .* are others .* use the same model"):
        changed.load_state_dict(state)


def test_the_base_is_the_reference_at_no_cost() -> None:
    env, policy = with_lora("t5")
    agent: Any = rlseq.make_agent("grpo", policy, samples=2, kl=0.1, lr=1e-2)
    assert not any(True for _ in agent.reference.parameters())
    before = evaluate_frozen(policy, rlseq.rollout(policy, env))
    assert before.log_probs.isfinite().all()
    first = agent.update(agent.collect(env))
    assert float(first["kl_reference"]) == pytest.approx(0, abs=1e-6)
    for _ in range(3):
        metrics = agent.update(agent.collect(env))
    assert float(metrics["kl_reference"]) > 1e-5
    batch = rlseq.rollout(policy, env)
    _, fresh = with_lora("t5")
    torch.testing.assert_close(agent.reference.evaluate(batch.actions, batch.context).log_probs,
                               fresh.evaluate(batch.actions, batch.context).log_probs)  # fmt: skip
    assert agent.state_dict()["reference"] == {}


def test_trained_adapters_are_copied_for_the_reference() -> None:
    """A reference is the policy as it is when the agent is made, not the base below its adapters."""
    env, policy = with_lora("t5")
    stir(policy)
    agent: Any = rlseq.make_agent("grpo", policy, samples=2, kl=0.1, lr=1e-2)
    batch = rlseq.rollout(policy, env)
    wanted = policy.evaluate(batch.actions, batch.context).log_probs.detach()
    for _ in range(3):
        agent.update(agent.collect(env))
    torch.testing.assert_close(agent.reference.evaluate(batch.actions, batch.context).log_probs, wanted)
    moved = policy.evaluate(batch.actions, batch.context).log_probs
    assert float((moved - wanted).abs().max().detach()) > 1e-3
    assert not any("reference" in name for name in policy.state_dict())
    kept = agent.state_dict()["reference"]
    _, again = with_lora("t5")
    second: Any = rlseq.make_agent("grpo", again, samples=2, kl=0.1)
    again.load_state_dict(policy.state_dict())
    second.reference.load_state_dict(kept)
    torch.testing.assert_close(second.reference.evaluate(batch.actions, batch.context).log_probs, wanted)


@pytest.mark.parametrize("part", ["encoder", "decoder", "embeddings"])
def test_frozen_parts_do_not_move(part: str) -> None:
    env, words = pairs()
    policy = rlseq.make_policy("hf", env, model=model_of("bart", words), freeze=part)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    agent = rlseq.make_agent("rloo", policy, samples=2, lr=1e-2)
    agent.update(agent.collect(env))
    moved = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(p.requires_grad is False for name, p in policy.named_parameters() if name in moved)
    if part != "embeddings":
        assert not any(f".{part}.layers." in name for name in moved)


RUN = """
import torch, rlseq, peft
from tests.pretrained.models import model_of, pairs
torch.set_num_threads(1)
env, words = pairs(8)
settings = peft.LoraConfig(target_modules="all-linear", exclude_modules=["lm_head"], r=2)
policy = rlseq.make_policy("hf", env, model=model_of("t5", words), peft=settings, value=True)
agent = rlseq.make_agent("ppo", policy, kl=0.1, lr=1e-2, epochs=2, minibatches=2)
rlseq.train(agent, env, updates=12, eval_env=pairs(8, split="dev")[0], eval_every=3, out={out!r},
            on_update=lambda row: print(row["update"], flush=True), probe=False)
"""


def weights_of(folder: Path) -> Any:
    return read(folder / "checkpoints", steps(folder / "checkpoints")[-1])["policy"]


def test_a_killed_run_with_adapters_ends_bit_identical(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    root = Path(__file__).parents[2]

    def start(folder: Path) -> subprocess.Popen[str]:
        code = RUN.replace("{out!r}", repr(str(folder)))
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], cwd=root, stdout=subprocess.PIPE, text=True
        )

    with start(whole) as process:
        process.communicate()
    assert process.returncode == 0
    with start(broken) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("8"))
        process.send_signal(signal.SIGKILL)
    with start(broken) as process:
        process.communicate()
    one, other = weights_of(whole), weights_of(broken)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert sum(value.numel() for value in one.values()) < 10_000
