"""What the captioner promises beyond the protocol, which tests/test_policies.py examines."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import rlseq
from rlseq.policies import Att2in, Transformer
from rlseq.policies.encoders import ConvNet, Regions
from rlseq.policies.spec import TokenSpec
from rlseq.policies.testing import check_policy

DECODERS: dict[str, Any] = {"att2in": Att2in, "transformer": partial(Transformer, heads=3, layers=2)}


def task(num_envs: int = 6) -> Any:
    return rlseq.make("rlseq/Captions-v0", num_envs=num_envs, scenes=12, seed=1)


def captioner(env: Any, **options: Any) -> Any:
    return rlseq.make_policy("captioner", env, hidden=12, embedding=6, **options)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("extra", [{}, {"value": True, "dropout": 0.3}])
def test_every_decoder_keeps_the_protocol(decoder: str, extra: dict[str, Any]) -> None:
    env = task()
    check_policy(captioner(env, decoder=DECODERS[decoder], **extra), env)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_picture_is_read_once_for_a_group(decoder: str) -> None:
    env, seen = task(), []
    policy = captioner(env, decoder=DECODERS[decoder])
    policy.reader.register_forward_hook(lambda module, context, read: seen.append(len(read[0])))
    rlseq.rollout(policy, env, repeat=3)
    assert seen == [2]


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_picture_matters_and_gradients_reach_all_of_the_reader(decoder: str) -> None:
    env = task()
    policy = captioner(env, decoder=DECODERS[decoder])
    batch = rlseq.rollout(policy, env)
    seen = policy.evaluate(batch.actions, batch.context).log_probs
    others = {**batch.context, "image": batch.context["image"].flip(0)}
    assert (policy.evaluate(batch.actions, others).log_probs - seen).abs().max() > 1e-4
    seen.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.reader.parameters())


def test_att2in_against_its_equations() -> None:
    """A slow loop over rows, regions and steps."""
    env = task(2)
    policy = captioner(env).double()
    batch = rlseq.rollout(policy, env)
    got = policy.evaluate(batch.actions, batch.context).log_probs
    x, _ = policy.reader(batch.context)
    size = policy.hidden
    k, v = policy.keys_values.weight.split([size, 2 * size])
    for row in range(2):
        h = c = torch.zeros(size, dtype=torch.float64)
        word = env.vocab.bos
        for t in range(int(batch.lengths[row])):
            scores = torch.stack([policy.weigh((k @ r + policy.query(h)).tanh())[0] for r in x[row]])
            looked = v @ sum(a * r for a, r in zip(scores.softmax(0), x[row], strict=True))
            z = policy.read_word(policy.embedding.weight[word]) + policy.recall(h)
            i, f, o = z[: 3 * size].sigmoid().split(size)
            candidates = z[3 * size :] + looked
            c = i * torch.maximum(candidates[:size], candidates[size:]) + f * c
            h = o * c.tanh()
            word = int(batch.actions[row, t])
            torch.testing.assert_close(got[row, t], policy.head(h[None])[0].log_softmax(0)[word])


def test_bytes_and_floats_are_the_same_image() -> None:
    reader = ConvNet((3, 20, 28), 8).eval()
    image = torch.randint(256, (2, 3, 20, 28), dtype=torch.uint8)
    x, present = reader({"image": image})
    assert x.shape == (2, 5 * 7, 8)
    assert present.all()
    torch.testing.assert_close(reader({"image": image / 255})[0], x)
    torch.testing.assert_close(reader({"image": image[:1]})[0], x[:1])  # alone as in company


def test_small_images_need_no_convolution() -> None:
    assert ConvNet((1, 4, 3), 8)({"image": torch.rand(2, 1, 4, 3)})[0].shape == (2, 12, 8)


def test_regions_that_are_not_there_are_not_looked_at() -> None:
    features = torch.randn(2, 3, 5)
    features[0, 1:] = 0
    _, present = Regions((3, 5), 8)({"features": features})
    assert present.tolist() == [[True, False, False], [True, True, True]]
    words = TokenSpec(written=7, read=7, length=4, observed={"features": (3, 5)})
    actions = torch.randint(7, (1, 4))
    for decoder in (Att2in, Transformer):
        policy = decoder(words, hidden=8, embedding=4).eval()
        both = [
            policy.evaluate(
                actions, {"features": features[:1, :n], "index": torch.zeros(1, dtype=torch.int64)}
            )
            for n in (1, 3)
        ]
        torch.testing.assert_close(both[0].log_probs, both[1].log_probs)


def test_what_captioner_cannot_read() -> None:
    with pytest.raises(ValueError, match=r"this task shows none \(image or features\); use seq2seq or tra"):
        rlseq.make_policy("captioner", rlseq.make("rlseq/Copy-v0"))
    with pytest.raises(ValueError, match=r"this task has none; use lstm"):
        rlseq.make_policy("seq2seq", task())
    two = TokenSpec(written=5, read=5, source=4, observed={"image": (3, 9, 9)})
    with pytest.raises(ValueError, match=r"one source or one picture, this task shows \['image', 'source'\]"):
        Transformer(two, hidden=8)


@pytest.mark.parametrize("decoder", DECODERS)
def test_captions_without_work_on_padding_have_the_same_scores_and_gradients(decoder: str) -> None:
    env = task(8)
    policy = captioner(env, decoder=DECODERS[decoder], value=True).double()
    batch = rlseq.rollout(policy, env)
    mask = torch.arange(env.max_len) < (torch.arange(8) * 5 % 8 + 1).unsqueeze(1)
    found = {}
    for name, given in (("packed", mask), ("whole", None)):
        evaluation = policy.evaluate(batch.actions, batch.context, mask=given)
        scores = evaluation.log_probs.where(mask, 0.0) + evaluation.values.where(mask, 0.0)
        found[name] = scores, torch.autograd.grad(scores.sin().sum(), [*policy.parameters()])
    torch.testing.assert_close(found["packed"], found["whole"])
