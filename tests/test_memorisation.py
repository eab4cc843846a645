"""Nearest training texts against a slow search, and estimates of the number of different texts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import rlseq
from rlseq.engine import memorisation as module
from rlseq.engine.evaluation import items_tested
from rlseq.engine.memorisation import birthday_support, equal_pairs, memorisation, nearest_neighbours
from rlseq.metrics.ngrams import PAD


def distance(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def oracle(**options: Any) -> Any:
    sizes = {"vocab_size": 6, "length": 7, "hidden": 8, "references": 60}
    return rlseq.make("rlseq/Oracle-v0", num_envs=50, **{**sizes, **options})


def test_the_nearest_training_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several parts, and for texts of several lengths."""
    monkeypatch.setattr(module, "NEIGHBOURS_TOGETHER", 17)
    env = oracle()
    texts = torch.randint(6, (30, 7))
    texts[torch.arange(7) >= torch.randint(1, 8, (30, 1))] = PAD
    known = env.items["references"][:, 0].tolist()
    for text, found in zip(texts.tolist(), nearest_neighbours(env, texts), strict=True):
        words = [w for w in text if w != PAD]
        far = [distance(words, other) for other in known]
        assert found.distance == min(far)
        assert found.rate == min(far) / 7
        named = [env.vocab.decode(other) for other, d in zip(known, far, strict=True) if d == min(far)]
        assert found.nearest in named
        assert found.text == env.vocab.decode(words)


class Parrot(torch.nn.Module):
    """Writes one of the first training texts."""

    def __init__(self, texts: torch.Tensor) -> None:
        super().__init__()
        self.texts, self.unused = texts, torch.nn.Parameter(torch.zeros(1))

    evaluate: Any = None  # nobody asks it

    def start(self, context: Any) -> Any:
        which = torch.arange(len(context["index"])) % len(self.texts)
        return self.texts[which], torch.zeros_like(which)

    def step(self, token: Any, state: Any) -> Any:
        words, place = state
        return 50.0 * torch.nn.functional.one_hot(words.gather(1, place.unsqueeze(1))[:, 0], 6), (
            words,
            place + 1,
        )


def test_a_policy_that_repeats_its_training_texts_is_told_from_one_that_does_not() -> None:
    env, held_out = oracle(), oracle(split="test")
    before = env.counts.as_dict(), env.generator.get_state()
    parrot = memorisation(Parrot(env.items["references"][:10, 0]), env, held_out, limit=50)
    assert parrot.copies == 1.0
    assert parrot.rate == 0.0
    assert parrot.pairs == 10 * (5 * 4 // 2)
    assert parrot.support == pytest.approx(50 * 49 / 2 / 100)
    other = memorisation(rlseq.make_policy("gru", env, hidden=8, embedding=4), env, held_out, limit=50)
    assert other.copies < 0.2
    assert 0 < parrot.held_out_rate == other.held_out_rate < 1
    assert [each.rate for each in other.neighbours] == sorted(each.rate for each in other.neighbours)
    assert before[0] == env.counts.as_dict()
    assert torch.equal(before[1], env.generator.get_state())


def test_texts_about_held_out_sources_are_compared_with_training_texts() -> None:
    """The right text for a training source is no copy, and a part of the training texts may do."""
    sizes = {"vocab_size": 6, "length": 4, "items": 80, "num_envs": 40}
    env, held_out = (rlseq.make("rlseq/Copy-v0", split=split, **sizes) for split in ("train", "test"))
    right = Parrot(held_out.items["references"][items_tested(held_out.size, 40), 0])
    found = memorisation(right, env, held_out, limit=40, known=30)
    assert (found.known, found.copies, found.held_out_copies) == (30, 0.0, 0.0)
    assert found.rate == pytest.approx(found.held_out_rate)
    nearer = memorisation(right, env, held_out, limit=40)
    assert nearer.known == 80
    assert 0 < nearer.rate < found.rate
    own = memorisation(Parrot(env.items["references"][:, 0]), env, limit=40)
    assert own.copies == 1.0
    assert math.isnan(own.held_out_rate)


def test_the_birthday_estimate_of_the_worked_example() -> None:
    """400 samples hold a duplicate with a chance of ½: 115,416 texts; the paper's N² is 160,000."""
    assert birthday_support(400) == pytest.approx(115_416, abs=1)
    assert 400**2 / birthday_support(400) == pytest.approx(2 * math.log(2))
    chance = 1 - math.prod(1 - k / 115_416 for k in range(400))
    assert chance == pytest.approx(0.5, abs=0.002)


def test_the_number_of_texts_is_estimated_from_equal_pairs() -> None:
    drawn = torch.randint(5000, (3000,)).tolist()
    pairs = equal_pairs((each,) for each in drawn)
    assert 3000 * 2999 / 2 / pairs == pytest.approx(5000, rel=0.15)


def test_without_references_nothing_can_be_copied() -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=4)
    with pytest.raises(ValueError, match="no references"):
        memorisation(rlseq.make_policy("gru", env, hidden=4, embedding=4), env)
