"""A metric on a corpus, against slow loops and sacreBLEU."""

from __future__ import annotations

import pytest
import sacrebleu
import torch
from torch import Tensor

from rlseq.data.corpus import Corpus
from rlseq.data.encode import Reading, load
from rlseq.data.formats import Pair
from rlseq.data.locate import Origin
from rlseq.metrics import BLEU, ChrF, EditDistance, Exact
from rlseq.metrics.fitting import LazyMetric, ReadTokens, ReadWords
from rlseq.metrics.tokenize import whitespace
from rlseq.training import experiment_envs as tasks

TRAIN = [
    ("a", "the cat sits on the mat"),
    ("a", "a cat is on the mat"),
    ("b", "two dogs run"),
    ("c", "the end"),
]
TEST = [("d", "the zebra sits on the cat"), ("d", "a zebra runs"), ("e", "zebra zebra dogs")]
WRITTEN = ["the cat sits on the cat", "two dogs run", "the dogs", ""]


def corpus(level: str, part: str = "train") -> Corpus:
    origins = {
        name: Origin(lambda pairs=pairs: iter([Pair(*pair) for pair in pairs]))  # type: ignore[misc]
        for name, pairs in (("train", TRAIN), ("test", TEST))
    }
    return load(origins, part, Reading(level))


def text(made: Corpus, texts: list[str], ended: bool = True) -> tuple[Tensor, Tensor]:
    rows = [made.vocab.encode(text) + [0] * ended for text in texts]
    width = max(map(len, rows)) + 1
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return tokens, torch.arange(width) < torch.tensor([[len(row)] for row in rows])


def levenshtein(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@pytest.mark.parametrize("level", ["char", "word"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_edits_are_those_of_the_texts_even_where_words_are_unknown(level: str, part: str) -> None:
    made = corpus(level, part)
    split = made.vocab.split
    references = made.texts()
    metric = LazyMetric("edit", EditDistance, ReadTokens(made))
    for item, texts in enumerate(references):
        tokens, mask = text(made, WRITTEN)
        context = {"index": torch.full((len(WRITTEN),), item)}
        wanted = [min(levenshtein(split(w), split(t)) for t in texts) for w in WRITTEN]
        assert metric.value(tokens, mask, context).tolist() == wanted


def test_writing_unknown_is_never_right() -> None:
    made = corpus("word", "test")
    tokens = torch.tensor([[1, 1, made.vocab.encode("dogs")[0], 0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    context = {"index": torch.tensor([1])}
    assert torch.equal(made.contexts(context["index"], 1, 4)["references"][0, 0], tokens[0]), (
        "as likelihood sees it"
    )
    assert LazyMetric("exact", Exact, ReadTokens(made))(tokens, mask, context).tolist() == [0.0]
    assert LazyMetric("edit", EditDistance, ReadTokens(made)).value(tokens, mask, context).tolist() == [2.0]


@pytest.mark.parametrize("level", ["char", "word", "bpe"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_reported_bleu_and_chrf_are_sacrebleu_s_of_the_texts(level: str, part: str) -> None:
    made = corpus(level, part)
    tokens, mask = text(made, WRITTEN)
    read = made.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist())
    bleu, chrf = (LazyMetric(m.name, m, ReadWords(made, m.words, ends=False)) for m in (BLEU, ChrF))
    for item, references in enumerate(made.texts()):
        context = {"index": torch.full((len(WRITTEN),), item)}
        ours = torch.stack([metric.value(tokens, mask, context) for metric in (bleu, chrf)], 1)
        theirs = [
            [f(w, references).score for f in (sacrebleu.sentence_bleu, sacrebleu.sentence_chrf)] for w in read
        ]
        torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-4, atol=1e-3)


def test_the_end_is_a_word_of_a_reward() -> None:
    made = corpus("char")
    metric = LazyMetric("bleu", BLEU, ReadWords(made, whitespace, ends=True), scale=0.01)
    context = {"index": torch.tensor([1])}
    whole, cut = (metric(*text(made, ["two dogs run"], ended), context).item() for ended in (True, False))
    assert whole == pytest.approx(1.0)
    assert 0 < cut < 0.8
    as_words = BLEU([["two dogs run E"]], tokenize=whitespace).score(["two dogs run"]) / 100
    assert cut == pytest.approx(float(as_words))


@pytest.mark.parametrize("read", [ReadTokens, lambda made: ReadWords(made, whitespace, ends=True)])
def test_fitted_on_a_batch_is_fitted_on_all(read: object) -> None:
    made = corpus("word")
    tokens, mask = text(made, WRITTEN)
    context = {"index": torch.tensor([2, 0, 2, 1])}
    for metric in (BLEU, ChrF, EditDistance):
        once, each = (LazyMetric("m", metric, read(made), once=once) for once in (True, False))  # type: ignore[operator]
        assert torch.equal(once(tokens, mask, context), each(tokens, mask, context))
        assert torch.equal(once.value(tokens, mask, context), each.value(tokens, mask, context))


def test_increments_sum_to_the_scaled_reward() -> None:
    made = corpus("word")
    metric = LazyMetric("bleu", BLEU, ReadTokens(made), scale=0.01)
    tokens, mask = text(made, WRITTEN)
    context = {"index": torch.tensor([0, 1, 2, 0])}
    torch.testing.assert_close(metric.increments(tokens, mask, context).sum(1), metric(tokens, mask, context))
    with pytest.raises(TypeError, match="reads words, so that it cannot be paid token by token"):
        LazyMetric("bleu", BLEU, ReadWords(made, whitespace, ends=True)).increments(tokens, mask, context)


def test_it_is_a_reward_like_any_other_and_fitted_late() -> None:
    made = corpus("word")
    fits: list[int] = []

    def make(references: object, eos: int | None) -> BLEU:
        fits.append(1)
        return BLEU(references, eos=eos)  # type: ignore[arg-type]

    metric = LazyMetric("bleu", make, ReadTokens(made))
    assert not fits
    total = 0.5 * metric + metric
    tokens, mask = text(made, WRITTEN)
    context = {"index": torch.tensor([0, 1, 2, 0])}
    torch.testing.assert_close(total(tokens, mask, context), 1.5 * metric(tokens, mask, context))
    assert len(fits) == 1
    assert metric.signature.startswith("bleu|")


def test_a_sum_that_is_reported_is_the_sum_of_the_rewards() -> None:
    """The task reports chrF of 100, and its reward by name is 1 at best."""
    asked = "chrf + 0.5*exact"
    env = tasks.testing_env("rlseq/Parallel-v0", {}, None, trained_on=asked)
    context = env.context_of(torch.arange(4))
    tokens, lengths = context["references"][:, 0], context["reference_lengths"][:, 0]
    mask = torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)
    assert env.metrics["chrf"].value(tokens, mask, context).tolist() == pytest.approx([100.0] * 4)
    assert env.metrics[asked](tokens, mask, context).tolist() == pytest.approx([1.5] * 4)
