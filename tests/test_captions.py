"""The captioning task, rendered and on one's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocoevalcap.cider.cider_scorer import CiderScorer

import rlseq
from rlseq.engine.references import sample_references
from rlseq.metrics import METEOR, unavailable
from rlseq.metrics.fitting import LazyMetric

ID = "rlseq/Captions-v0"
CAPTIONS = (
    ("a dog runs", "a brown dog is running"),
    ("two cats sleep", "cats"),
    ("a dog and a zebra", "a dog"),
)


def shown(env: Any, name: str = "references") -> Any:
    """What contexts have of all items."""
    return env.contexts(torch.arange(env.size))[name]


# ── rendered ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_default() -> None:
    env = rlseq.make(ID, num_envs=6, scenes=50)
    context = env.begin()
    assert (context["image"].shape, context["image"].dtype) == ((6, 3, 36, 36), torch.uint8)
    assert context["references"].shape == (6, 5, env.max_len)
    assert env.size == 50
    assert env.sources() == [f"scene {n}" for n in context["index"].tolist()]
    assert list(env.metrics) == ["cider_d", "bleu", "rouge_l", "edit_distance"]
    again = rlseq.make(ID, num_envs=6, scenes=50)
    assert all(torch.equal(value, context[name]) for name, value in again.begin().items())


def test_splits_and_seeds_are_other_scenes() -> None:
    sets: list[Any] = [
        rlseq.make(ID, scenes=30, **options).pictures.table  # type: ignore[attr-defined]
        for options in ({}, {"split": "dev"}, {"split": "test"}, {"data_seed": 1})
    ]
    seen = {image.numpy().tobytes() for pixels in sets for image in pixels}
    assert len(seen) == 4 * 30
    few: Any = rlseq.make(ID, scenes=7)
    assert torch.equal(few.pictures.table, sets[0][:7])


def test_the_reward_is_cider_d_with_the_end_as_a_word() -> None:
    """As pycocoevalcap computes it on texts in which EOS is written out."""
    env = rlseq.make(ID, num_envs=10, scenes=10, seed=1)
    references = [[" ".join([env.vocab.decode(r), "EOS"]) for r in item] for item in shown(env).tolist()]
    batch = sample_references(env)
    mask = batch.mask & (torch.arange(env.max_len) < 6)  # most break off
    got = env.reward_parts(batch.actions, mask, batch.context)["cider_d"].sum(1)
    scorer = CiderScorer(n=4, sigma=6.0)
    for text, row in zip(batch.actions.tolist(), mask.tolist(), strict=True):
        item = int(batch.context["index"][len(scorer.crefs)])
        words = [env.vocab.words[i] for i, real in zip(text, row, strict=True) if real]
        scorer += (" ".join(words).replace("<eos>", "EOS"), references[item])
    # df of the whole set, not of the rows: each item once
    whole = CiderScorer(n=4, sigma=6.0)
    for told in references:
        whole += (told[0], told)
    whole.compute_doc_freq()
    scorer.document_frequency, scorer.ref_len = whole.document_frequency, np.log(10.0)
    torch.testing.assert_close(
        got.double(), torch.tensor(np.array(scorer.compute_cider())), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("reward", "best"), [("bleu", 1.0), ("rouge_l", 1.0), ("edit_distance", 1.0)])
def test_other_rewards(reward: str, best: float) -> None:
    env = rlseq.make(ID, num_envs=8, scenes=20, reward=reward)
    batch = sample_references(env)
    right = env.reward_parts(batch.actions, batch.mask, batch.context)[reward].sum(1)
    torch.testing.assert_close(right, torch.full((8,), best))
    cut = batch.mask.clone()
    cut[torch.arange(8), batch.mask.sum(1) - 1] = False
    broken = env.reward_parts(batch.actions, cut, batch.context)[reward].sum(1)
    assert (broken <= right).all()  # BLEU forgives it where another reference is as short
    assert broken.mean() < right.mean() - 0.01


def test_a_reward_of_one_s_own_and_unknown_ones() -> None:
    env = rlseq.make(ID, scenes=5, reward=lambda tokens, mask, context: mask.sum(1))
    assert list(env.parts) == ["reward"]
    with pytest.raises(ValueError, match="unknown reward 'cidr_d'; did you mean 'cider_d'"):
        rlseq.make(ID, scenes=5, reward="cidr_d")


@pytest.mark.skipif(unavailable("meteor") is not None, reason=str(unavailable("meteor")))
def test_meteor_misses_the_end() -> None:
    env = rlseq.make(ID, num_envs=4, scenes=5, reward="meteor")
    batch = sample_references(env)
    cut = batch.mask.clone()
    cut[torch.arange(4), batch.mask.sum(1) - 1] = False
    whole, broken = (
        env.reward_parts(batch.actions, m, batch.context)["meteor"].sum(1) for m in (batch.mask, cut)
    )
    assert (whole > 0.99).all()
    assert (broken < whole).all()
    lazy: Any = env.parts["meteor"]
    meteor = lazy.metric
    assert isinstance(meteor, METEOR)
    meteor.close()


def test_metrics_are_fitted_when_they_are_asked() -> None:
    env = rlseq.make(ID, num_envs=5, scenes=5)
    lazy = env.metrics["bleu"]
    assert isinstance(lazy, LazyMetric)
    assert "metric" not in vars(lazy)
    scores = rlseq.evaluate(rlseq.make_policy("captioner", env, hidden=8, embedding=4), env)
    assert "metric" in vars(lazy)
    assert scores["cider_d"] == scores["reward"]
    assert scores["edit_distance"] > 1  # in words, not 1 − rate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "unknown split of scenes 'all'"),
        ({"images": "folder"}, "belong to an annotation file; pass path"),
        ({"scenes": 0}, "scenes must be an integer ≥ 1, got 0"),
        ({"data_seed": -1}, r"data_seed must be an integer in \[0.*, got -1"),
        ({"max_len": -3}, "max_len must be an integer ≥ 1 or None, got -3"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rlseq.make(ID, **options)


def test_likelihood_then_reward_improve() -> None:
    """Ten scenes learned by heart: the picture is seen, through images and attention alone."""
    env = rlseq.make(ID, num_envs=32, scenes=10, seed=0)
    policy = rlseq.make_policy("captioner", env, hidden=48, embedding=24)
    start = rlseq.evaluate(policy, env)["reward"]
    rlseq.train(rlseq.make_agent("mle", policy, lr=5e-3), env, updates=100, probe=False)
    likelihood = rlseq.evaluate(policy, env)["reward"]
    rlseq.train(rlseq.make_agent("rloo", policy, lr=1e-3), env, updates=60, probe=False)
    assert likelihood > start + 0.3
    assert rlseq.evaluate(policy, env)["reward"] > likelihood + 0.1


# ── files ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixty pictures, with captions, files and features."""
    images = [{"id": 10 + n, "file_name": f"p{n}.png"} for n in range(60)]
    notes = [
        {"image_id": 10 + n, "caption": caption} for n in range(60) for caption in CAPTIONS[n % len(CAPTIONS)]
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    (tmp_path / "images").mkdir()
    for n in range(60):
        Image.new("RGB", (20, 14), (n, n, n)).save(tmp_path / "images" / f"p{n}.png")
    features = np.random.default_rng(0).normal(size=(60, 3, 4)).astype(np.float32)
    np.savez(tmp_path / "all.npz", ids=np.arange(10, 70), features=features)
    np.savez(tmp_path / "each.npz", **{str(10 + n): features[n] for n in range(60)})
    return tmp_path


def files(data: Path, **options: Any) -> Any:
    return rlseq.make(ID, path=str(data / "captions.json"), **options)


def test_images_in_a_folder(data: Path) -> None:
    env = files(data, images=str(data / "images"), image_size=8, num_envs=4)
    assert env.size == 51  # of sixty; three and six are held out
    context = env.begin(index=torch.tensor([0, 5, 7, 50]))
    assert context["image"][:, 0, 0, 0].tolist() == [0, 5, 7, 56]
    assert env.pictures.known.sum() == 4
    assert env.sources()[3] == "p56.png"
    rlseq.testing.check_policy(rlseq.make_policy("captioner", env, hidden=8, embedding=4), env)


@pytest.mark.parametrize("name", ["all.npz", "each.npz"])
def test_features(data: Path, name: str) -> None:
    env = files(data, features=str(data / name), split="dev", num_envs=3)
    context = env.begin(index=torch.tensor([0, 1, 2]))
    wanted = np.load(data / "all.npz")["features"][[19, 39, 59]]
    np.testing.assert_array_equal(context["features"].numpy(), wanted)
    assert env.single_observation_space["features"].contains(wanted[0])
    for policy in ("captioner", "transformer"):
        rlseq.testing.check_policy(rlseq.make_policy(policy, env, hidden=8, embedding=4), env)


def test_the_vocabulary_is_that_of_training_in_every_split(data: Path) -> None:
    train, dev, every = (
        files(data, features=str(data / "all.npz"), split=s) for s in ("train", "dev", "all")
    )
    assert train.vocab == dev.vocab == every.vocab
    assert train.vocab.words[:4] == ("<eos>", "<unk>", "a", "dog")
    assert (train.max_len, every.size) == (6, 60)
    other = files(data, features=str(data / "all.npz"), vocab=rlseq.Vocab(("<eos>", "<unk>", "dog")))
    assert shown(other)[0].tolist() == [[1, 2, 1, 0, 0, 0], [1, 1, 2, 1, 1, 0]]
    with pytest.raises(ValueError, match="neither 'a' nor '<unk>'"):
        files(data, features=str(data / "all.npz"), vocab=rlseq.Vocab(("<eos>", "dog")))


@pytest.mark.parametrize("vocab", ["x", rlseq.Vocab(("a", "dog"), eos=None)])
def test_what_is_no_vocabulary_for_captions(data: Path, vocab: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"vocab must be a Vocab (or None|with an end), got"):
        files(data, features=str(data / "all.npz"), vocab=vocab)


def test_a_min_count_that_leaves_no_word(data: Path) -> None:
    with pytest.raises(ValueError, match="min_count=1000000 leaves no word of the training texts"):
        files(data, features=str(data / "all.npz"), min_count=10**6)
    known = rlseq.Vocab(("<eos>", "<unk>", "dog"))
    files(data, features=str(data / "all.npz"), min_count=10**6, vocab=known)  # which needs no counts


def test_rare_words_are_unknown_and_unpaid(data: Path) -> None:
    """Likelihood reads <unk>; whoever writes it matches nothing."""
    env = files(data, features=str(data / "all.npz"), min_count=18, num_envs=1, reward="rouge_l")
    assert "zebra" not in env.vocab.words
    assert "dog" in env.vocab.words
    reference = shown(env)[2, 0]  # a dog and a zebra
    unknown = env.vocab.words.index("<unk>")
    assert (reference == unknown).sum() == 2
    context = env.begin(index=torch.tensor([2]))
    right = torch.tensor([[env.vocab.words.index("a"), env.vocab.words.index("dog"), 0, 0, 0, 0]])
    mask = torch.arange(6) < 3
    assert float(env.reward_parts(right, mask.unsqueeze(0), context)["rouge_l"].sum()) == 1.0
    written = torch.full((1, 6), unknown)
    assert float(env.reward_parts(written, mask.unsqueeze(0), context)["rouge_l"].sum()) == 0.0


def test_long_captions_are_cut_for_likelihood_only(data: Path) -> None:
    env = files(data, features=str(data / "all.npz"), max_len=3, num_envs=1)
    assert env.vocab.decode(shown(env)[0, 0].tolist()) == "a dog runs"  # and no end
    assert shown(env, "reference_lengths")[:3].tolist() == [[3, 3], [3, 2], [3, 3]]
    assert env.parts["cider_d"].metric.bigrams.max() == 5  # "a brown dog is running <eos>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "need their pictures: either images=FOLDER or features=FILE"),
        ({"images": "images", "features": "all.npz"}, "either images=FOLDER or features=FILE"),
        ({"images": "nowhere"}, "is no folder; wanted the one that 'p0.png' is in"),
    ],
)
def test_pictures_that_are_not_given(data: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        files(data, **{name: str(data / value) for name, value in options.items()})


def test_missing_and_broken_images(data: Path) -> None:
    (data / "images" / "p3.png").unlink()
    (data / "images" / "p5.png").write_text("no image")
    with pytest.raises(ValueError, match=r"images has no file 'p3.png', of image 13; skip_bad=True"):
        files(data, images=str(data / "images"))
    env = files(data, images=str(data / "images"), skip_bad=True, image_size=8, num_envs=49)
    assert env.size == 49
    assert env.skipped == {"missing images": 1, "images that cannot be read": 1}
    shown = env.begin(index=torch.arange(49))
    assert shown["image"][:6, 0, 0, 0].tolist() == [0, 1, 2, 4, 6, 7]
    assert env.vocab.decode(shown["references"][3, 0].tolist()) == "two cats sleep"  # p4's, not p3's


def test_features_of_another_image_set(data: Path) -> None:
    np.savez(data / "other.npz", ids=np.arange(500, 520), features=np.zeros((20, 4)))
    message = r"other.npz has no features of 51 of 51 images, such as 10; it has 20 entries, such as '500'"
    with pytest.raises(ValueError, match=message):
        files(data, features=str(data / "other.npz"))
    with pytest.raises(ValueError, match=r"other.npz has none of the 51 images"):
        files(data, features=str(data / "other.npz"), skip_bad=True)
    np.savez(data / "some.npz", ids=np.arange(12, 30), features=np.ones((18, 4)))
    env = files(data, features=str(data / "some.npz"), skip_bad=True)
    assert (env.size, env.skipped["missing features"]) == (15, 36)


def test_features_of_wrong_form(data: Path) -> None:
    """One picture's NaN, another's width and a third's whole numbers."""
    arrays: dict[str, Any] = dict(np.load(data / "each.npz"))
    arrays |= {"13": np.full((3, 4), np.nan), "15": np.ones(5), "17": np.ones((3, 4), int)}
    np.savez(data / "bad.npz", **arrays)
    message = r"bad.npz: features must be finite, got NaN or infinity for '13'; skip_bad=True leaves out"
    with pytest.raises(ValueError, match=message):
        files(data, features=str(data / "bad.npz"))
    env = files(data, features=str(data / "bad.npz"), skip_bad=True, num_envs=48)
    assert (env.size, env.skipped) == (48, {"features of wrong form": 3})
    shown = env.begin(index=torch.arange(48))
    np.testing.assert_array_equal(shown["features"][3].numpy(), arrays["14"])
    assert env.vocab.decode(shown["references"][3, 0].tolist()) == "two cats sleep"
    np.savez(data / "none.npz", **dict.fromkeys(arrays, arrays["13"]))
    with pytest.raises(ValueError, match=r"none of the 51 images.*skipped: {'features of wrong form': 51}"):
        files(data, features=str(data / "none.npz"), skip_bad=True)
