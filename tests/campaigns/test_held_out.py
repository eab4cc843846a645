"""Campaign: no test source is a training source, and a limited evaluation is an unbiased sample."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.engine.evaluation import evaluate_texts, items_tested, subset
from rlseq.mdp.registry import ids
from rlseq.training.experiment_envs import held_out

KINDS = sorted(id for id in ids() if id.startswith("rlseq/") and held_out(id))


def options_of(id: str, draw: random.Random, folder: Path) -> dict[str, Any]:
    """Some options of a task, at random."""
    name = id.split("/")[1].split("-")[0]
    if name in ("Copy", "Reverse"):
        return {
            "vocab_size": draw.randint(5, 12),
            "length": draw.randint(2, 8),
            "items": draw.choice((20, 1000, 10_000, 30_000)),
            "data_seed": draw.randrange(1000),
        }
    if name == "HMM":
        return {
            "letters": draw.randint(6, 26),
            "labels": draw.randint(2, 5),
            "length": draw.randint(4, 20),
            "items": draw.choice((20, 1000, 10_000)),
            "data_seed": draw.randrange(1000),
            "model_seed": draw.randrange(1000),
        }
    if name == "Oracle":
        return {"vocab_size": 1000, "references": 500, "data_seed": draw.randrange(1000)}
    if name == "Retrieval":
        return {"documents": draw.randint(4, 20), "data_seed": draw.randrange(1000)}
    if name in ("Boxes", "Captions"):
        return {"scenes": draw.choice((20, 100, 300)), "data_seed": draw.randrange(1000)}
    if name == "Numbers":
        languages = ("digits", "cs", "de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv")
        source, target = draw.sample(languages, 2)
        return {"source": source, "target": target, "below": draw.choice((20, 100, 1000))}
    if name == "Music":
        return {"opening": draw.randint(1, 3)}
    if name == "Poems":
        return {}
    if name == "Molecules":
        chains = ["".join(draw.choices("CNOS", k=draw.randint(1, 6))) for _ in range(300)]
        (folder / "molecules.smi").write_text("\n".join(chains) + "\n", "utf-8")
        return {"path": folder / "molecules.smi"}
    if name == "Style":
        corpora = {name: pairs(folder / f"{name}.txt", draw, texts=True) for name in ("path", "target")}
        return {} if draw.random() < 0.2 else corpora
    if name == "G2P":
        return {"path": dictionary(folder / "words.dict", draw)}
    return {} if draw.random() < 0.2 else {"path": pairs(folder / "file.tsv", draw, texts=name == "Text")}


def dictionary(path: Path, draw: random.Random) -> Path:
    """Words with one or two pronunciations, sorted as dictionaries are."""
    words = sorted({"".join(draw.choices("abcdefg", k=draw.randint(2, 6))) for _ in range(300)})
    lines = []
    for word in words:
        lines.append(f"{word} {' '.join(word.upper())}\n")
        if draw.random() < 0.3:
            lines.append(f"{word}(2) {' '.join(reversed(word.upper()))}\n")
    path.write_text("".join(lines), "utf-8")
    return path


def pairs(path: Path, draw: random.Random, texts: bool) -> Path:
    """A file in which sources occur several times, with several references."""
    words = ["".join(draw.choices("abcd", k=draw.randint(1, 6))) for _ in range(draw.randint(60, 600))]
    lines = [word if texts else f"{word}\t{draw.choice('xyz')}{word}" for word in words]
    path = path.with_suffix(".txt") if texts else path
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def read_of(env: Any) -> Iterator[bytes]:
    """Everything that is read of each item, or, where nothing is, the texts to write."""
    context = env.contexts(torch.arange(env.size, device=env.device))
    names = ["source"] if env.source_vocab is not None else list(env.observed) or ["references"]
    for item in range(env.size):
        yield b"".join(context[name][item].numpy().tobytes() for name in names)


def test_no_test_source_is_a_training_source(campaign: Any, tmp_path: Path) -> None:
    trials = campaign.trials(3, 60)
    counts = {}
    for id in KINDS:
        folder = tmp_path / id.replace("/", "-")
        folder.mkdir()
        draw = random.Random(f"{id} {campaign.seed}")
        own: list[dict[str, Any]] = (
            [{}] if campaign.whole or id != "rlseq/Oracle-v0" else []
        )  # its default takes seconds
        found = [apart(id, options) for options in own]
        found += [apart(id, options_of(id, draw, folder)) for _ in range(trials - len(own))]
        counts[id] = {name: sum(count[name] for count in found) for name in found[0]}
    campaign.record("held-out-sources", {"trials": trials * len(KINDS), "in both": 0, "sources": counts})


def apart(id: str, options: dict[str, Any]) -> dict[str, int]:
    """The numbers of different sources, of which none may be in both parts."""
    train, test = (rlseq.make(id, **options, **split) for split in ({}, held_out(id)))
    trained, tested = set(read_of(train)), set(read_of(test))
    assert tested, (id, options)
    assert not trained & tested, (id, options)
    return {"training": len(trained), "test": len(tested)}


def test_a_limited_evaluation_is_unbiased(campaign: Any) -> None:
    trials = campaign.trials(200, 20_000)
    sizes = {id: limited(id, trials, campaign.seed) for id in KINDS}
    campaign.record("limited-evaluations", {"subsets": trials * len(KINDS), "items": sizes})


def limited(id: str, trials: int, seed: int) -> int:
    """The mean over a limited test is within its standard error of the mean over all items.

    The score is what most depends on the order of items: the place of the item, and the length of its source.
    """
    small = {"vocab_size": 1000, "references": 500} if id == "rlseq/Oracle-v0" else {}
    env = rlseq.make(id, num_envs=500, **small, **held_out(id))
    place = torch.arange(env.size).double()
    scores = {"place": place, "length": lengths(env)}
    for limit in sorted({2, env.size // 20 + 2, env.size // 4 + 2, env.size // 2 + 1}):
        drawn = items_tested(env.size, limit)
        assert len(set(drawn.tolist())) == min(limit, env.size)
        for name, score in scores.items():
            error = standard_error(score, limit)
            assert abs(float(score[drawn].mean() - score.mean())) <= 4.5 * error + 1e-9, (id, name, limit)
    means = torch.stack([place[subset(env.size, 20, seed + n)].mean() for n in range(trials)])
    assert abs(float(means.mean() - place.mean())) <= 4.5 * standard_error(place, 20) / trials**0.5, id
    return int(env.size)


@pytest.mark.parametrize("id", ["rlseq/G2P-v0", "rlseq/Numbers-v0", "rlseq/Copy-v0"])
def test_policies_are_judged_on_the_same_items(id: str) -> None:
    test = rlseq.make(id, num_envs=20, **held_out(id))
    seen = [
        evaluate_texts(
            rlseq.make_policy("gru", test, hidden=width, embedding=4), test, decode, limit=30
        ).index
        for width, decode in ((4, "greedy"), (8, "sample"))
    ]
    assert seen[0].equal(seen[1])
    assert seen[0].equal(items_tested(test.size, 30))


def lengths(env: Any) -> torch.Tensor:
    """The length of each item's first reference, or of its source where it has none."""
    context = env.contexts(torch.arange(env.size))
    if "reference_lengths" in context:
        found: torch.Tensor = context["reference_lengths"][:, 0]
    else:
        found = (context["source"] != env.source_vocab.pad).sum(1)
    return found.double()


def standard_error(score: torch.Tensor, limit: int) -> float:
    """Of the mean of `limit` items, drawn without replacement."""
    share = 1 - min(limit, len(score)) / len(score)
    return float(score.std()) * math.sqrt(share / min(limit, len(score)))
