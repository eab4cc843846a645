"""Metrics of tokens that are pieces: the reference implementations' numbers on the text that they make."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rapidfuzz.distance import Levenshtein
from torch import Tensor

import rlseq
from rlseq.metrics.fitting import named_metric, named_reward
from rlseq.metrics.tokenize import mteval_13a

Folder = Callable[[str], Path]
TARGETS = [
    "The small dog, isn't it? Yes!",
    "el perro  pequeño - ve 123,456.7 casas.",
    "now the old teacher wants the boat; never the car",
    "a red car (and a green tree) today .",
    "der Baum & die Straße: 5-6 = -1",
]
WRITTEN = [
    "The small dog isn't it? Yes",
    "el perro pequeño ve 123,456.7 casas .",
    "the teacher wants the old boat",
    "a red car (and a tree) today.",
    "",
    "dog dog dog dog dog",
    "der Baum & die Straße: 5-6 = -1",
]
KINDS = ["t5", "gpt2", "llama", "bpe"]


@pytest.fixture(scope="module", params=KINDS)
def env(folder: Folder, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("texts") / "pairs.tsv"
    rows = [f"s{n}\t{TARGETS[n % 5]}\t{TARGETS[(n + 2) % 5]}\n" for n in range(20)]
    path.write_text("".join(rows), "utf-8")
    words = {"level": "bpe"} if request.param == "bpe" else {"tokenizer": folder(request.param)}
    return rlseq.make("rlseq/Parallel-v0", path={"train": path}, num_envs=len(WRITTEN), **words)


@pytest.fixture
def written(env: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Texts and random tokens, as a policy writes them."""
    rows = [[*env.vocab.encode(text), env.vocab.eos] for text in WRITTEN]
    draw = torch.Generator().manual_seed(0)
    rows += [torch.randint(len(env.vocab), (n,), generator=draw).tolist() for n in (3, 17, 40, 40)]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [env.vocab.pad] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    return tokens, mask, {"index": torch.arange(len(rows)) % env.size}


def texts_of(env: Any, written: Any) -> tuple[list[str], list[list[str]]]:
    tokens, mask, context = written
    return env.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist()), env.corpus.texts(context["index"])


def edits(text: str, references: list[str]) -> int:
    return min(Levenshtein.distance(text.split(), reference.split()) for reference in references)


REFERENCE: dict[str, Callable[[str, list[str]], float]] = {
    "bleu": lambda text, refs: sacrebleu.sentence_bleu(text, refs).score,
    "chrf": lambda text, refs: sacrebleu.sentence_chrf(text, refs).score,
    "ter": lambda text, refs: sacrebleu.sentence_ter(text, refs).score,
    "rouge_l": lambda text, refs: Rouge().calc_score([text], refs),
    "edit_distance": edits,
    "exact": lambda text, refs: float(any(text.split() == reference.split() for reference in refs)),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_reported_metrics_are_those_of_the_reference_implementation(
    env: Any, written: Any, name: str
) -> None:
    metric = named_metric(name, env.corpus)
    ours = getattr(metric, "value")(*written)  # noqa: B009  (a figure, where the reward is another)
    theirs = [REFERENCE[name](text, refs) for text, refs in zip(*texts_of(env, written), strict=True)]
    torch.testing.assert_close(ours, torch.tensor(theirs, dtype=ours.dtype), rtol=1e-4, atol=1e-3)


def test_cider_is_that_of_pycocoevalcap(env: Any, written: Any) -> None:
    """Its weights come from the references of the whole part, here of all items once."""
    tokens, mask, _ = written
    some = [row % len(tokens) for row in range(env.size)]
    own = {"index": torch.arange(env.size)}
    texts = texts_of(env, (tokens[some], mask[some], own))
    ours = getattr(named_metric("cider_d", env.corpus), "value")(tokens[some], mask[some], own)  # noqa: B009
    references = dict(enumerate(texts[1]))
    theirs = Cider().compute_score(references, {n: [text] for n, text in enumerate(texts[0])})[1]
    torch.testing.assert_close(ours.double(), torch.tensor(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("env", ["t5"], indirect=True)  # it takes half a minute to start
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program")
def test_meteor_is_that_of_the_texts(env: Any, written: Any) -> None:
    texts, references = texts_of(env, written)
    ours = getattr(named_metric("meteor", env.corpus), "value")(*written)  # noqa: B009
    theirs = rlseq.metrics.METEOR(references).score(texts)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_end_is_a_word_of_rewards(env: Any, written: Any) -> None:
    tokens, mask, _ = written
    ended = [bool(row.any()) for row in (tokens == env.vocab.eos) & mask]
    texts, references = texts_of(env, written)

    def closed(text: str, end: bool = True) -> str:
        return " ".join([*mteval_13a(text), *["<end>"] * end])

    told = [closed(*one) for one in zip(texts, ended, strict=True)]
    theirs = [
        sacrebleu.sentence_bleu(text, [*map(closed, refs)], tokenize="none").score / 100
        for text, refs in zip(told, references, strict=True)
    ]
    ours = named_reward("bleu", env.corpus)(*written)
    torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-4, atol=1e-4)
    edit = named_reward("edit", env.corpus)(*written)
    for got, text, end, refs in zip(edit.tolist(), texts, ended, references, strict=True):
        words = [*text.split(), *["<end>"] * end]
        assert got <= 1.0
        assert (got == 1.0) == (words in [[*reference.split(), "<end>"] for reference in refs])
