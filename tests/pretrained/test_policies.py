"""Pretrained models under the protocol of a policy: every family, both kinds of attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import rlseq
from rlseq.engine.beam import Beam
from rlseq.engine.decode import Greedy, Sample
from rlseq.engine.rollout import evaluate_frozen
from rlseq.policies import build_policy
from rlseq.policies.spec import TokenSpec
from rlseq.policies.testing import check_policy
from rlseq.policy_gradient.exact import expected_gradient, gradient
from tests.pretrained.models import model_of, pairs

ENCODER_DECODERS = ["t5", "t5-v1.1", "mt5", "bart", "mbart", "marian", "pegasus", "m2m100"]
CAUSAL = ["gpt2", "llama", "qwen2", "qwen3"]
FAMILIES = [*ENCODER_DECODERS, *CAUSAL]
STEPS = 1e-5  # nats by which `evaluate` and `step` may differ in float32


def policy_of(model: Any, env: Any, **sizes: Any) -> Any:
    return rlseq.make_policy("hf", env, model=model, **sizes)


EAGER = ["t5", "bart", "gpt2", "llama"]  # whose code of attention the others share


@pytest.mark.parametrize(
    ("family", "attention"),
    [*((family, "sdpa") for family in FAMILIES), *((family, "eager") for family in EAGER)],
)
def test_every_family_keeps_the_protocol(family: str, attention: str) -> None:
    env, words = pairs()
    model = model_of(family, words)
    model.set_attn_implementation(attention)
    policy = policy_of(model, env, value=True, attention=attention)
    check_policy(policy, env, tolerance=STEPS)
    batch = rlseq.rollout(policy, env)
    ratio = ((evaluate_frozen(policy, batch).log_probs - batch.log_probs) * batch.mask).exp()
    assert float((ratio - 1).abs().max()) < 1e-4


@pytest.mark.parametrize("family", CAUSAL)
def test_a_causal_model_writes_without_a_source(family: str) -> None:
    env = rlseq.make("rlseq/Text-v0", num_envs=5, seed=0)
    check_policy(policy_of(model_of(family, len(env.vocab)), env), env, tolerance=STEPS)


@pytest.mark.parametrize("family", ["t5", "bart", "m2m100"])
def test_a_prefix_of_several_tokens_is_read_before_writing(family: str) -> None:
    """A forced first token, a language code, say: it is read, and no action."""
    env, words = pairs()
    env = env.replace(vocab=replace(env.vocab, bos=5))
    tokens = replace(TokenSpec.of(env), prefix=(0, 5))
    policy = build_policy("hf", tokens, 0, "cpu", {"model": model_of(family, words)})
    check_policy(policy, env, tolerance=STEPS)
    batch = rlseq.rollout(policy, env, decode=Greedy())
    given = {"forced_bos_token_id": 5, "max_new_tokens": env.max_len + 1}
    assert texts_of(batch) == generated(policy.model, batch, **given, skip=2)


@pytest.mark.parametrize("family", ["t5", "t5-v1.1", "bart", "m2m100", "gpt2", "llama"])
def test_the_exact_gradient(family: str, tiny: Any) -> None:
    env, _ = tiny(sources=2, vocab_size=2)
    model = model_of(family, max(env.vocab.num_ids, env.source_vocab.num_ids))
    policy = policy_of(model, env).double()
    agent = rlseq.make_agent("reinforce", policy, baseline="none", value_weight=0.0)
    assert tiny.error(expected_gradient(agent, env, rows=1), gradient(policy, env)) < 1e-4


# ── the same texts as `generate` ─────────────────────────────────────────────────────────────────────────


def texts_of(batch: Any) -> list[list[int]]:
    """Return the tokens of every row, without those after its end."""
    rows = zip(batch.actions.tolist(), batch.lengths.tolist(), strict=True)
    return [row[:n] for row, n in rows]


def generated(model: Any, batch: Any, skip: int = 1, **options: Any) -> list[list[int]]:
    """Return the greedy texts of `generate`, row by row, so that nothing is padded."""
    found = []
    for source in batch.context["source"]:
        source = source[source != 0].unsqueeze(0)
        options = {"do_sample": False, "num_beams": 1, "pad_token_id": 0, **options}
        whole = model.generate(input_ids=source, attention_mask=torch.ones_like(source), **options)[0]
        found.append(whole[skip if model.config.is_encoder_decoder else source.shape[1] :].tolist())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_texts_are_those_of_generate(family: str) -> None:
    env, words = pairs()
    assert words == len(env.vocab)
    policy = policy_of(model_of(family, words), env)
    batch = rlseq.rollout(policy, env, decode=Greedy())
    assert texts_of(batch) == generated(policy.model, batch, max_new_tokens=env.max_len)


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama"])
def test_the_best_beam_has_the_score_of_generate(family: str) -> None:
    env, words = pairs()
    policy = policy_of(model_of(family, words), env)
    batch = rlseq.rollout(policy, env, decode=Beam(4))
    beams = {"num_beams": 4, "length_penalty": 0.0, "max_new_tokens": env.max_len, "early_stopping": "never"}
    theirs = generated(policy.model, batch, **beams)
    width = env.max_len
    actions = torch.tensor([row + [0] * (width - len(row)) for row in theirs])
    log_probs = policy.evaluate(actions, batch.context).log_probs.detach()
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in theirs])
    torch.testing.assert_close((log_probs * mask).sum(1), batch.log_probs.sum(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_samples_have_the_distribution_of_generate(family: str) -> None:
    """Chi-square of the first two tokens of 4,000 samples each; at p = 0.001 by a fixed seed."""
    env, words = pairs(4000)
    policy = policy_of(model_of(family, words), env)
    index = torch.zeros(4000, dtype=torch.int64)
    ours = rlseq.rollout(policy, env, decode=Sample(), index=index)
    source = ours.context["source"][:1]
    source = source[source != 0].expand(4000, -1)
    theirs = policy.model.generate(
        input_ids=source, attention_mask=torch.ones_like(source), do_sample=True, top_k=0, max_new_tokens=2,
        pad_token_id=0,
    )  # fmt: skip
    theirs = theirs[:, 1 if policy.model.config.is_encoder_decoder else source.shape[1] :]
    theirs = torch.nn.functional.pad(theirs, (0, 2 - theirs.shape[1]))
    counts = [
        torch.bincount(two[:, 0] * words + two[:, 1], minlength=words**2).double()
        for two in (ours.actions[:, :2], theirs)
    ]
    both = counts[0] + counts[1]
    often = both >= 10
    statistic = float(((counts[0] - counts[1]) ** 2 / both)[often].sum())
    degrees = int(often.sum())
    assert degrees > 5
    assert statistic < degrees + 3.1 * (2 * degrees) ** 0.5


# ── caches, groups, prefixes ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["t5", "m2m100", "gpt2"])
def test_completions_go_on_from_rows_at_different_places(family: str) -> None:
    env, words = pairs(4)
    policy = policy_of(model_of(family, words), env)
    batch = rlseq.rollout(policy, env)
    found = rlseq.complete(policy, env, batch, samples=2)
    scored = evaluate_frozen(policy, found).log_probs
    written_here = found.log_probs != 0
    torch.testing.assert_close(scored[written_here], found.log_probs[written_here], atol=STEPS, rtol=0)


def test_the_encoder_reads_each_source_once() -> None:
    env, words = pairs(8)
    policy = policy_of(model_of("t5", words), env)
    rows: list[int] = []
    policy.inner.get_encoder().register_forward_hook(lambda *call: rows.append(len(call[2][0])))
    batch = rlseq.rollout(policy, env, repeat=4)
    policy.evaluate(batch.actions, batch.context)
    assert rows == [2, 2]


def test_a_causal_model_reads_each_prompt_once() -> None:
    """The texts of a prompt share its keys and values, with the gradient of rows that share nothing."""
    env, words = pairs(8)
    policy = policy_of(model_of("gpt2", words), env)
    batch = rlseq.rollout(policy, env, repeat=4)
    rows: list[int] = []
    policy.decoder.h[0].register_forward_hook(lambda *call: rows.append(len(call[1][0])))
    gradients = []
    for order in (torch.arange(8), torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])):
        policy.zero_grad()
        part = batch.take(order)
        found = policy.evaluate(part.actions, part.context).log_probs
        (found * part.mask).sum().backward()
        gradients.append([p.grad.clone() for p in policy.parameters() if p.grad is not None])
    assert rows == [2, 8, 8, 8]  # prompts, texts; then prompts of which no neighbours are equal
    for shared, apart in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, apart, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bart", "qwen3"])
def test_activations_computed_again_give_the_same_gradient(family: str) -> None:
    env, words = pairs()
    gradients = []
    for checkpointing in (False, True):
        policy = policy_of(model_of(family, words), env, checkpointing=checkpointing)
        batch = rlseq.rollout(policy, env.replace(generator=torch.Generator().manual_seed(3)))
        policy.evaluate(batch.actions, batch.context).log_probs.sum().backward()
        gradients.append([p.grad for p in policy.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_compiled_rollouts_write_the_same(family: str) -> None:
    env, words = pairs()
    one = {"num_layers": 1} if family == "t5" else {"num_hidden_layers": 1}  # as compilers are slow
    policy = policy_of(model_of(family, words, **one), env)
    plain, compiled = (
        rlseq.rollout(policy, env.replace(generator=torch.Generator().manual_seed(3)), compile=compile)
        for compile in (False, True)
    )
    assert torch.equal(plain.actions, compiled.actions)
    torch.testing.assert_close(plain.log_probs, compiled.log_probs, atol=STEPS, rtol=0)


def test_bfloat16_has_a_tolerance_of_its_own() -> None:
    env, words = pairs()
    policy = policy_of(model_of("t5", words).bfloat16(), env)
    agent = rlseq.make_agent("rloo", policy, samples=2)
    metrics = agent.update(agent.collect(env))
    assert metrics["loss"].isfinite()
