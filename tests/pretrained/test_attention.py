"""Attention of one query: equal to that of transformers, and used where it applies only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import rlseq
from tests.pretrained.models import model_of

attention: Any = pytest.importorskip("rlseq.policies.pretrained.attention")
kernel: Any = pytest.importorskip("transformers.integrations.sdpa_attention").sdpa_attention_forward


def drawn(heads: int, groups: int, queries: int = 1, dtype: torch.dtype = torch.float32) -> list[Any]:
    """A layer, queries, keys and values of 3 rows, and a mask of 7 keys, of which 2 are hidden."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, heads, queries, 8), (3, groups, 7, 8), (3, groups, 7, 8))
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    mask = torch.zeros(3, 1, queries, 7, dtype=dtype)
    mask[1, :, :, 2:4] = torch.finfo(dtype).min
    return [SimpleNamespace(num_key_value_groups=heads // groups, is_causal=True), q, k, v, mask]


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("more", [{}, {"scaling": 0.5}, {"scaling": 1.0, "per_head": True}])
def test_one_query_attends_as_the_kernel_does(heads: int, groups: int, more: dict[str, Any]) -> None:
    given = drawn(heads, groups)
    if more.get("per_head"):
        given[4] = given[4] + torch.randn(1, heads, 1, 7)
    named = {"scaling": more["scaling"]} if more else {}
    wanted = kernel(*given, **named)[0]
    torch.testing.assert_close(attention.attend(*given, **named)[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changed", ["queries", "dtype", "dropout", "mask"])
def test_every_other_call_is_left_to_the_kernel(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *_, **__: left.append(True))
    given = drawn(
        4, 4, 2 if changed == "queries" else 1, torch.bfloat16 if changed == "dtype" else torch.float32
    )
    if changed == "mask":
        given[4] = given[4] == 0
    attention.attend(*given, dropout=0.1 if changed == "dropout" else 0.0)
    assert left == [True]


def test_a_model_that_was_a_policy_before_can_be_one_again() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=2, length=2)
    model = model_of("gpt2", len(env.vocab) + 1)
    for _ in range(2):
        policy = rlseq.make_policy("hf", env, model=model)
        assert policy.inner.config._attn_implementation == attention.SPED_UP
    model.set_attn_implementation("eager")
    rlseq.make_policy("hf", env, model=model)
    assert model.config._attn_implementation == "eager", "as it was asked for"
