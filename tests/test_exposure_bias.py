"""Exposure bias of policies whose errors are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.types import Context

LENGTH = 4


class Copier(nn.Module):
    """Copies, but for the first word; once a word is not that of the source, all that follow are wrong."""

    def __init__(self, spoils: bool) -> None:
        super().__init__()
        self.spoils, self.unused = spoils, nn.Parameter(torch.zeros(1))

    evaluate: Any = None  # nobody asks it

    def start(self, context: Context) -> Any:
        source = torch.nn.functional.pad(context["source"], (0, 2))
        nothing = torch.zeros_like(source[:, 0])
        return source, nothing, nothing.bool()

    def step(self, token: Tensor, state: Any) -> Any:
        source, place, lost = state
        if int(place[0]):
            lost = lost | (token != source.gather(1, (place - 1).unsqueeze(1)).squeeze(1))
        right = source.gather(1, place.unsqueeze(1)).squeeze(1)
        wrong = (lost & self.spoils) | (place == 0)
        word = torch.where(wrong, right % 4 + 1, right)
        return 50.0 * nn.functional.one_hot(word, 6), (source, place + 1, lost)


@pytest.mark.parametrize("spoils", [True, False])
def test_errors_that_follow_from_errors_are_told_from_others(spoils: bool) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=8, vocab_size=6, length=LENGTH, items=100)
    before = env.counts.as_dict(), env.generator.get_state()
    rows = rlseq.exposure_bias(Copier(spoils), env, limit=40)
    assert [row.position for row in rows] == [1, 2, 3, 4, 5]
    assert [row.reference for row in rows] == [1, 0, 0, 0, 0]
    assert [row.own for row in rows] == ([1] * 5 if spoils else [1, 0, 0, 0, 0])
    assert [row.own_texts for row in rows] == [row.reference_texts for row in rows] == [40] * 5
    wanted = [0.0 if spoils else 0.8, 1, 1, 1, 1]
    assert [row.continued for row in rows] == pytest.approx(wanted)
    assert before[0] == env.counts.as_dict()
    assert torch.equal(before[1], env.generator.get_state())


def test_a_task_without_an_expert_is_refused() -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=2)
    with pytest.raises(ValueError, match="no references, from which an expert"):
        rlseq.exposure_bias(rlseq.make_policy("gru", env, hidden=4, embedding=4), env)
