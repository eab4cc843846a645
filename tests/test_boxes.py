"""Sets of boxes: matching, rules of suppression, files, and the credit of a member of a set."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlseq
from rlseq.data.boxes import greedy_nms, iou, soft_nms, suppress
from rlseq.data.formats import DataError
from rlseq.metrics.boxes import average_precision, f1, f1_steps, hits
from rlseq.policy_gradient.sets import factorised_loss, member_credits, set_log_probs

GOOD: dict[str, Any] = {
    "size": [100, 50],
    "objects": [[0, 0, 50, 25], [60, 0, 100, 25]],
    "candidates": [[0, 0, 50, 20, 0.6], [60, 5, 100, 25, 0.9], [0, 30, 20, 50, 0.3]],
}


def boxes(path: Path, *entries: Any, **options: Any) -> Any:
    file = path / "boxes.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    return rlseq.make("rlseq/Boxes-v0", path=str(file), num_envs=2, **options)


def test_overlap_is_intersection_over_union() -> None:
    a = torch.tensor([[[0.0, 0, 2, 2]]])
    assert iou(a, torch.tensor([[[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]]])).tolist() == [
        [[pytest.approx(1 / 7), 1, 0]]
    ]


def test_an_object_is_found_once_and_by_the_first_box() -> None:
    overlap = torch.tensor([[[0.9, 0.0], [0.8, 0.6], [0.0, 0.4]]])
    tokens, mask = torch.tensor([[1, 2, 3, 0]]), torch.ones(1, 4, dtype=torch.bool)
    assert hits(tokens, mask, overlap, 0.5).tolist() == [[True, True, False, False]]
    assert hits(tokens, mask, overlap, 0.7).tolist() == [[True, False, False, False]]
    context = {"overlap": overlap, "objects": torch.tensor([2])}
    assert f1(tokens, mask, context).tolist() == pytest.approx([4 / 5])
    assert f1_steps(tokens, mask, context).sum(1).tolist() == pytest.approx([4 / 5])
    one = average_precision(tokens[:, :1], mask[:, :1], context)
    assert one.tolist() == pytest.approx([0.9 / 2])  # found at nine of ten overlaps, half of the objects


def test_the_rules_suppress_what_overlaps() -> None:
    candidates = torch.tensor([[[0, 0, 0.5, 0.5, 0.9], [0, 0, 0.5, 0.4, 0.8], [0.6, 0.6, 1, 1, 0.3]]])
    assert suppress(candidates, greedy_nms(0.5), 0.1).tolist() == [[0, 2, -1]]
    assert suppress(candidates, greedy_nms(0.9), 0.1).tolist() == [[0, 1, 2]]
    assert suppress(candidates, soft_nms(0.5), 0.1).tolist() == [[0, 2, 1]]
    assert suppress(candidates, soft_nms(0.5), 0.4).tolist() == [[0, -1, -1]]


def test_references_find_all_that_can_be_found_and_no_number_comes_twice() -> None:
    env = rlseq.make("rlseq/Boxes-v0", num_envs=64, scenes=64)
    context = env.begin(index=torch.arange(64))
    tokens, lengths = context["references"][:, 0], context["reference_lengths"]
    mask = torch.arange(tokens.shape[1]) < lengths
    found = hits(tokens, mask, context["overlap"], 0.5)
    assert (found == (mask & (tokens > 0))).float().mean() > 0.98  # but for boxes that two objects share
    assert float(f1(tokens, mask, context).mean()) > 0.9
    env, policy = env.take(slice(8)), rlseq.make_policy("captioner", env, hidden=8, embedding=4)
    batch = rlseq.rollout(policy, env)
    written = [row[row > 0].tolist() for row in batch.actions]
    assert all(len(row) == len(set(row)) for row in written)
    torch.testing.assert_close(batch.rewards.sum(1), f1(batch.actions, batch.mask, batch.context))


def test_scenes_of_the_test_are_others_and_the_first_ones_stay() -> None:
    train, test = (rlseq.make("rlseq/Boxes-v0", scenes=20, split=split) for split in ("train", "test"))
    assert not torch.isin(train.items["features"][..., 0], test.items["features"][..., 0]).all(1).any()


def test_a_file_is_read_and_its_tenth_lines_are_the_test(tmp_path: Path) -> None:
    env = boxes(tmp_path, *[GOOD] * 20)
    assert env.size == 18
    assert rlseq.make("rlseq/Boxes-v0", path=str(tmp_path / "boxes.jsonl"), split="test").size == 2
    features = env.items["features"][0]
    assert features[0].tolist() == pytest.approx([0.6, 0.1, 1.0, 0.5, 0.9])  # the surest first, in shares
    assert env.vocab.decode(env.items["references"][0, 0, :2].tolist()) == "1 2"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"candidates": [[0, 0, 120, 20, 0.5]]}, r"boxes.jsonl:2: expected candidate boxes .* inside"),
        ({"objects": [[0, 0, 10, 60]]}, r"boxes.jsonl:2: expected object boxes .* inside"),
        ({"objects": [[10, 0, 5, 5]]}, r"boxes.jsonl:2: expected object boxes"),
        ({"objects": []}, "at least one"),
        ({"candidates": [[0, 0, 10, 20]]}, "expected candidates of 5 numbers"),
        ({"size": 3}, r"boxes.jsonl:2: expected a size"),
        ({"candidates": "none"}, r"boxes.jsonl:2: expected size, objects and candidates"),
    ],
)
def test_bad_lines_are_named_and_can_be_skipped(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        boxes(tmp_path, GOOD, {**GOOD, **change})
    with pytest.warns(UserWarning, match=r"skipped 1 line: .*:4: "):
        assert boxes(tmp_path, *[GOOD] * 3, {**GOOD, **change}, skip_bad=True).size == 3


# ── the credit of a member ───────────────────────────────────────────────────────────────────────────


def test_the_gradient_of_sets_is_that_of_their_members() -> None:
    """All sets of four boxes, with the chances of a distribution, and with one product alone (SCOPE R14)."""
    torch.manual_seed(0)
    members = torch.tensor(list(product([False, True], repeat=4)))
    rewards, logits = torch.rand(16), torch.randn(4, requires_grad=True)
    chances = set_log_probs(logits, members).exp()
    assert float(chances.detach().sum()) == pytest.approx(1)
    (exact,) = torch.autograd.grad((chances * rewards).sum(), logits)

    credits = member_credits(chances.detach(), rewards, members)
    (by_member,) = torch.autograd.grad(-factorised_loss(logits, credits), logits)
    torch.testing.assert_close(by_member, exact)

    written = (members * torch.nn.functional.logsigmoid(logits)).sum(1)  # ∏_{b∈a} p_b alone
    assert float(written.detach().exp().sum()) > 1.5
    (whole,) = torch.autograd.grad((written.exp() * rewards).sum(), logits)
    within, nothing = member_credits(written.detach().exp(), rewards, members)[0], torch.zeros(4)
    (parts,) = torch.autograd.grad(-factorised_loss(logits, (within, nothing)), logits)
    torch.testing.assert_close(parts, whole)  # the identity of the source holds,
    assert not torch.allclose(whole, exact, atol=0.1)  # but of another sum


def test_samples_estimate_the_credits() -> None:
    torch.manual_seed(1)
    members = torch.tensor(list(product([False, True], repeat=3)))
    rewards, logits = torch.rand(8), torch.randn(3)
    chances = set_log_probs(logits, members).exp()
    drawn = torch.multinomial(chances, 20_000, replacement=True)
    sampled = member_credits(torch.full((20_000,), 1 / 20_000), rewards[drawn], members[drawn])
    for found, exact in zip(sampled, member_credits(chances, rewards, members), strict=True):
        torch.testing.assert_close(found, exact, atol=0.02, rtol=0)


def test_a_trained_policy_chooses_among_given_candidates(tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Boxes-v0", scenes=20, num_envs=8)
    policy = rlseq.make_policy("captioner", env, hidden=8)
    rlseq.train(
        rlseq.make_agent("reinforce", policy), env, 1, out=tmp_path / "run", quiet=True, alarms="ignore"
    )
    features = env.items["features"][3].numpy().copy()
    features[4:] = 0  # four candidates
    np.save(tmp_path / "features.npy", features)
    model = rlseq.load(tmp_path / "run")
    for source in (features, tmp_path / "features.npy"):
        ((found,),) = model.generate([source])
        numbers = [int(word) for word in found.text.split()]
        assert set(numbers) <= {1, 2, 3, 4}
        assert len(set(numbers)) == len(numbers)
    (tmp_path / "other.npy").write_text("no numbers", "utf-8")
    with pytest.raises(ValueError, match=r"other\.npy cannot be read as an array, a file \.npy of numbers"):
        model.generate([tmp_path / "other.npy"])
