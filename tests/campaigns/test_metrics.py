"""Every metric against its reference implementation on random corpora of odd shapes.

One trial is one corpus: the figures of the batched metrics, of texts and of token ids, are compared with
sacreBLEU, pycocoevalcap, rapidfuzz or a slow version here; the prefix path, the order of rows and padding are
compared with the metric itself. The Penn Treebank words are compared with those of Stanford's Java program.
"""

from __future__ import annotations

import math
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.bleu import BLEU as TheirBLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER as TheirTER

from rlseq.metrics import (
    BLEU,
    COCO,
    MIXER,
    ROUGEL,
    ROUGEN,
    TER,
    ChrF,
    ChrFPlusPlus,
    CIDEr,
    CIDErD,
    Commonness,
    DistinctN,
    EditDistance,
    ErrorRate,
    Exact,
    Repetition,
    SelfBLEU,
    TokenErrorRate,
    add_k,
    all_orders,
    floor,
    tercom,
    unavailable,
)
from rlseq.metrics import (
    sacrebleu as smoothed,
)
from rlseq.metrics.tokenize import whitespace
from rlseq.metrics.treebank import penn_treebank

F64 = torch.float64
Corpus = tuple[list[str], list[list[str]]]


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


VOCABULARIES = [
    words("a b"),
    words("a b c d e f"),
    words("the a man dog sits on in red big street it's don't 3.5 1,000 $5 (very) of. U.S. -- &amp; near,"),
    words("naïve 東京 ひら Привет é 😀 — don’t ½ ß İ a\u0301 x"),
]


def random_corpus(draw: random.Random) -> Corpus:
    """Two to six items with one to five references; some texts empty, equal, repetitive or long."""
    kinds = draw.choice(VOCABULARIES)

    def line(longest: int) -> list[str]:
        shape = draw.random()
        if shape < 0.05:
            return []
        if shape < 0.15:
            return [draw.choice(kinds)]
        if shape < 0.25:
            return [draw.choice(kinds)] * draw.randint(2, longest)
        if shape < 0.28:
            return draw.choices(kinds, k=draw.randint(60, 90))
        return draw.choices(kinds, k=draw.randint(1, longest))

    references, hypotheses = [], []
    for _ in range(draw.randint(2, 6)):
        refs = [line(12) or [kinds[0]] for _ in range(draw.randint(1, 5))]
        near = [word for word in draw.choice(refs) if draw.random() < 0.8]
        hypotheses.append(" ".join(draw.choice([line(16), near, draw.choice(refs), near[::-1]])))
        references.append([" ".join(ref) for ref in refs])
    return hypotheses, references


def streams(references: list[list[str]]) -> list[list[Any]]:
    """sacreBLEU wants the k-th references of all items together, None where there is none."""
    most = max(map(len, references))
    return [[refs[k] if k < len(refs) else None for refs in references] for k in range(most)]


def agree(metric: Any, corpus: Corpus, scores: Sequence[float], whole: float) -> None:
    """Sentence scores and the corpus figure are equal to 1e-9."""
    assert metric.score(corpus[0]).tolist() == pytest.approx(list(scores), abs=1e-9)
    assert metric.corpus(corpus[0]) == pytest.approx(whole, abs=1e-9)


def with_sacrebleu(corpus: Corpus, draw: random.Random) -> None:
    hypotheses, references = corpus
    value = draw.choice([0.01, 0.1, 1.0])
    order = draw.randint(1, 5)
    smooth, method = draw.choice([(floor(value), "floor"), (add_k(value), "add-k")])
    options: dict[str, Any] = {"smooth_method": method, "smooth_value": value, "max_ngram_order": order}
    words = draw.choice([1, 2])
    tokenizer: dict[str, Any] = {
        name: draw.random() < 0.5 for name in ("normalized", "no_punct", "asian_support", "case_sensitive")
    }
    pairs: list[tuple[Any, Any, Any]] = [
        (BLEU(references, dtype=F64), TheirBLEU(effective_order=True), TheirBLEU()),
        (
            BLEU(references, order=order, definition=smoothed(smooth), dtype=F64),
            TheirBLEU(effective_order=True, **options),
            TheirBLEU(**options),
        ),
        (ChrF(references, dtype=F64), CHRF(), CHRF()),
        (ChrF(references, mean=all_orders, dtype=F64), CHRF(eps_smoothing=True), CHRF(eps_smoothing=True)),
        (
            ChrFPlusPlus(references, word_order=words, dtype=F64),
            CHRF(word_order=words),
            CHRF(word_order=words),
        ),
    ]
    if (
        max(len(line.split()) for refs in [hypotheses, *references] for line in refs) < 40
    ):  # else TER takes long
        theirs = TheirTER(**tokenizer)
        pairs.append((TER(references, tokenize=tercom(**tokenizer), dtype=F64), theirs, theirs))
    for metric, sentence, whole in pairs:
        scores = [sentence.sentence_score(h, r).score for h, r in zip(*corpus, strict=True)]
        agree(metric, corpus, scores, whole.corpus_score(hypotheses, streams(references)).score)


def with_pycocoevalcap(corpus: Corpus, draw: random.Random) -> None:
    hypotheses, references = corpus
    theirs = dict(enumerate(references)), {i: [line] for i, line in enumerate(hypotheses)}
    if any(line.strip() for line in hypotheses):
        wholes, sentences = Bleu(4).compute_score(*theirs, verbose=0)
        for order in range(1, 5):
            metric = BLEU(references, order=order, definition=COCO, tokenize=whitespace, dtype=F64)
            agree(metric, corpus, sentences[order - 1], wholes[order - 1])
    whole, scores = Cider().compute_score(*theirs)
    agree(CIDErD(references, dtype=F64), corpus, scores, whole)
    whole, scores = Rouge().compute_score(*theirs)
    agree(ROUGEL(references, dtype=F64), corpus, scores, whole)


def with_rapidfuzz(corpus: Corpus, draw: random.Random) -> None:
    nearest = [
        min((Levenshtein.distance(h.split(), ref.split()), -len(ref.split())) for ref in refs)
        for h, refs in zip(*corpus, strict=True)
    ]
    distances = [distance for distance, _ in nearest]
    agree(EditDistance(corpus[1], dtype=F64), corpus, distances, sum(distances) / len(distances))
    rates = [distance / -length for distance, length in nearest]
    agree(
        ErrorRate(corpus[1], dtype=F64), corpus, rates, sum(distances) / sum(-length for _, length in nearest)
    )


def grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def with_slow_versions(corpus: Corpus, draw: random.Random) -> None:
    """ROUGE-N, CIDEr, exact match, Hamming and the figures of sets by their formulas."""
    lines = [line.split() for line in corpus[0]]
    items = [[ref.split() for ref in refs] for refs in corpus[1]]
    n = draw.randint(1, 4)
    mean: Callable[[list[float]], float] = lambda values: sum(values) / len(values)  # noqa: E731
    rouge = []
    for line, refs in zip(lines, items, strict=True):
        own = grams(line, n)
        both = [(sum((own & grams(ref, n)).values()), sum(grams(ref, n).values())) for ref in refs]
        rouge.append(max(2 * hit / max(1, own.total() + total) for hit, total in both))
    agree(ROUGEN(corpus[1], order=n, dtype=F64), corpus, rouge, mean(rouge))
    exact = [float(line in refs) for line, refs in zip(lines, items, strict=True)]
    agree(Exact(corpus[1], dtype=F64), corpus, exact, mean(exact))
    wrong = [
        min(
            1 - sum(a == b for a, b in zip(line, ref, strict=False)) / max(len(line), len(ref), 1)
            for ref in refs
        )
        for line, refs in zip(lines, items, strict=True)
    ]
    agree(TokenErrorRate(corpus[1], dtype=F64), corpus, wrong, mean(wrong))
    plain = [slow_cider(line, refs, items) for line, refs in zip(lines, items, strict=True)]
    agree(CIDEr(corpus[1], dtype=F64), corpus, plain, mean(plain))
    totals = [max(1, grams(line, n).total()) for line in lines]
    distinct = [len(grams(line, n)) / total for line, total in zip(lines, totals, strict=True)]
    union: Counter[tuple[str, ...]] = sum((grams(line, n) for line in lines), Counter())
    agree(DistinctN(order=n, dtype=F64), corpus, distinct, len(union) / max(1, union.total()))
    repeated = [
        (grams(line, n).total() - len(grams(line, n))) / total
        for line, total in zip(lines, totals, strict=True)
    ]
    agree(Repetition(order=n, dtype=F64), corpus, repeated, mean(repeated))
    shares = [lines.count(line) / len(lines) for line in lines]
    agree(Commonness(dtype=F64), corpus, shares, max(shares))
    others = [[" ".join(o) for o in lines[:i] + lines[i + 1 :]] for i in range(len(lines))]
    texts = [" ".join(line) for line in lines]
    alike = [sacrebleu.sentence_bleu(h, r, tokenize="none").score for h, r in zip(texts, others, strict=True)]
    agree(SelfBLEU(dtype=F64), (texts, others), alike, mean(alike))


def slow_cider(line: list[str], refs: list[list[str]], items: list[list[list[str]]]) -> float:
    total = 0.0
    for n in range(1, 5):
        df = Counter(gram for item in items for gram in {g for ref in item for g in grams(ref, n)})
        weigh: Callable[[list[str]], dict[tuple[str, ...], float]] = lambda words: {  # noqa: E731
            g: count * (math.log(len(items)) - math.log(max(1, df[g])))  # noqa: B023
            for g, count in grams(words, n).items()  # noqa: B023
        }
        own = weigh(line)
        for ref in refs:
            other = weigh(ref)
            norm = math.hypot(*own.values()) * math.hypot(*other.values())
            total += sum(own[g] * other.get(g, 0.0) for g in own) / norm if norm > 0 else 0.0
    return 10 * total / 4 / len(refs)


CHECKS = [with_sacrebleu, with_pycocoevalcap, with_rapidfuzz, with_slow_versions]


def test_metrics_equal_their_reference_implementations(campaign: Any) -> None:
    trials = campaign.trials(40, 2_000)
    for trial in range(trials):
        draw = random.Random(f"{campaign.seed}/{trial}")
        corpus = random_corpus(draw)
        for check in CHECKS:
            try:
                check(corpus, draw)
            except AssertionError as error:
                raise AssertionError(f"trial {trial}, {check.__name__}, {corpus}: {error}") from error
    campaign.record("metrics", {"corpora": trials, "checks": trials * len(CHECKS), "differences": 0})


def reward_metrics(references: list[list[list[int]]], eos: int | None, dtype: torch.dtype) -> list[Any]:
    makes: list[Callable[..., Any]] = [
        BLEU,
        ChrF,
        CIDEr,
        CIDErD,
        ROUGEL,
        ROUGEN,
        EditDistance,
        ErrorRate,
        Exact,
    ]
    found = [make(references, eos=eos, dtype=dtype) for make in [*makes, TokenErrorRate]]
    for definition in (COCO, MIXER, smoothed(floor()), smoothed(add_k())):
        found.append(BLEU(references, definition=definition, eos=eos, dtype=dtype))
    return found


def check_ids(draw: random.Random, dtype: torch.dtype) -> int:
    """Rewards of token ids: equal to scores of id lists, of prefixes, of other rows and of other padding."""
    top, eos = draw.choice([(3, 0), (9, 0), (2**31 - 2, 7)])

    def line(low: int) -> list[int]:
        return [draw.randint(0, min(top, 9)) * (top // min(top, 9)) for _ in range(draw.randint(low, 12))]

    references = [[line(1) for _ in range(draw.randint(1, 4))] for _ in range(draw.randint(2, 5))]
    ends = draw.choice([None, eos])
    rows = draw.choices(range(len(references)), k=draw.randint(1, 8))
    lines = [
        draw.choice([line(1), draw.choice(references[row])]) + [eos] * (draw.random() < 0.5) for row in rows
    ]
    width = max(map(len, lines))
    tokens = torch.tensor([row + [draw.randint(0, 9)] * (width - len(row)) for row in lines])
    mask = torch.arange(width) < torch.tensor([len(row) for row in lines])[:, None]
    index = torch.tensor(rows)
    wide = torch.nn.functional.pad(tokens, (0, 3), value=5), torch.nn.functional.pad(mask, (0, 3))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(draw.randint(0, 2**31)))
    close = 1e-9 if dtype == F64 else 2e-3  # scales go up to 100
    metrics = reward_metrics(references, ends, dtype)
    for metric in metrics:
        context = {"index": index}
        reward = metric(tokens, mask, context)
        assert torch.isfinite(reward).all(), metric.signature
        assert torch.equal(metric(*wide, context), reward), metric.signature
        shuffled = metric(tokens[order], mask[order], {"index": index[order]})
        assert torch.equal(shuffled, reward[order]), metric.signature
        gains = metric.increments(tokens, mask, context)
        assert not gains[~mask].any(), metric.signature
        for step in range(1, width + 1):
            so_far = metric(tokens[:, :step], mask[:, :step], context)
            assert gains[:, :step].sum(1).tolist() == pytest.approx(so_far.tolist(), abs=close), (
                metric.signature
            )
        value = metric.value(tokens, mask, context)
        for i, row in enumerate(rows):
            alone = metric.value(tokens[i : i + 1], mask[i : i + 1], {"index": torch.tensor([row])})
            assert torch.equal(alone, value[i : i + 1]), metric.signature
    return len(metrics)


def test_rewards_do_not_depend_on_padding_order_or_company(campaign: Any) -> None:
    trials, checked = campaign.trials(25, 800), 0
    for trial in range(trials):
        draw = random.Random(f"{campaign.seed}/ids/{trial}")
        try:
            checked += check_ids(draw, draw.choice([F64, torch.float32]))
        except AssertionError as error:
            raise AssertionError(f"trial {trial}: {error}") from error
    campaign.record("metric_rewards", {"batches": trials, "metrics": checked, "differences": 0})


COMMON = words(
    "a the man woman dog cat is are sitting standing riding on in of with and two red small horse "
    "wave street table plate food pizza near next to building clock tower at night people group young "
    "holding playing ball white black train bus parked side road old tall can not "
)
NAMES = words(
    "John Mary Smith London Paris NASA UNESCO Obama Microsoft McDonald's O'Neil D'Angelo José Zoë "
    "Müller São Beyoncé Toyota FBI iPhone Q&A AT&T R&B H&M U.S. U.K. U.S.A. Ph.D. J.K. A. B. "
)
ODD = words(
    "don't can't won't isn't couldn't I'm they're we've she'll he'd it's John's dogs' boss's don’t "
    "it’s can’t we’re I’m John’s dogs’ DON'T CAN'T IT'S cannot gonna gotta wanna lemme gimme Cannot "
    "Gonna 'tis 'twas y'all o'clock ma'am rock'n'roll 'n' ol' 'em ’em goin' somethin' c'mon y'know "
    "'til 'cause 10am 5pm 10:30am 10:30 7:45pm 5p.m. 5 a.m. p.m. 3D 2nd 21st 1st 4x4 7th 80s 1980s "
    "'80s ’90s 90's 5k 10km 100ft 5lb 6'2\" 5' 1,000 1,000,000 3.14 .5 5.5 -5 +5 2,5 12 2014 ½ ¼ ¾ ⅓ ⅔ "
    "⅛ 1½ 1/2 3/4 11/12/2014 9/11 24/7 2-1/2 50% 5.5% 100%. $5 $1,000.50 £5 €10 5¢ ¥100 US$5 C$20 $5M "
    "#1 No. no. No.5 Nos. Fig. fig. Art. pp. p. Mr. Mrs. Dr. St. Jr. Sr. Inc. Co. Corp. Ltd. Ave. "
    "Blvd. Jan. Feb. Sept. Dec. Mon. Tues. Sat. etc. vs. e.g. i.e. approx. Calif. Wash. Miss. Gen. "
    "Sen. Gov. Prof. jan. mr. dr. st. ave. wash. — – -- - --- … ... .... .. well-known t-shirt "
    "T-shirt 3-year-old mother-in-law 10-foot x-ray e-mail half- -half F-16 B-52 Jean-Luc U.S.-based "
    "3.5-inch 1,000-seat Müller-Lyer black–white 1990–1995 red—blue 5-6 10-12 555-1234 1-800-555-1234 "
    "cat/dog and/or km/h w/o w/ a/b/c he/she/it him/her either/or 1/a ( ) (a (red) (5) (b) [1] [sic] "
    "{x} <b> <br/> < > << >> http://example.com/a?b=c https://x.io www.foo.org foo.com bbc.co.uk "
    "www.a.com/b me@foo.com foo@bar.co.uk @user #tag #1tag file.txt a.b 😀 🐶 👍🏽 ❤ ❤️ ★ ™ © ® ° 5°C • · "
    "§ → ✓ ☺ :) :( :-) ;) :D <3 :P =) café naïve résumé Zürich façade El Niño piñata crêpe 東京 日本語 "
    'Привет Ελληνικά * ** *star* _ __ a_b & &amp; &quot; &lt;b&gt; ~ ^ = == + a+b ++ | \\ # @ % ` `` " '
    "'' ' “ ” ‘ ’ « » \"quoted\" 'quoted' “quoted” ‘quoted’ \"a 'b ! !! !!! ? ?? ?! !? . , ; : ,, ;; "
    "yes! what? so, then; now: USA NYC ALL CAPS WOW!!! MP3 A1 v2 v2.0 C++ C# .NET iOS8 R2-D2 Yahoo! "
    "wow!yes end.The a,b one,two x:y a;b 5'10\" 2x4 2x "
)
ENDS = [".", ".", " .", "!", "?", "...", "", "", ";", " ", "?!"]


def sentence(draw: random.Random) -> str:
    """Up to 14 words of captions and news, among them numbers, marks, abbreviations and other scripts."""
    line = []
    for _ in range(draw.randint(1, 14)):
        word = draw.choice(draw.choices([COMMON, NAMES, ODD], [5, 1, 4])[0])
        change = draw.random()
        if change < 0.06:
            word = word.capitalize()
        elif change < 0.08:
            word = word.upper()
        elif change < 0.12:
            word += draw.choice([",", ".", "'s", "’s", ";", ":", "!", "?", '"', "'", ")"])
        elif change < 0.15:
            word = draw.choice(['"', "'", "(", "“", "‘", "-", "$"]) + word
        elif change < 0.17:
            word += draw.choice(["-", "/", "—", "–", "--", "...", "…"]) + draw.choice([*COMMON, *NAMES])
        line.append(word)
    return " ".join(line) + draw.choice(ENDS)


def stanford(lines: list[str]) -> list[list[str]]:
    """The words of each line as pycocoevalcap has them from Java."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase"]
    text = "\n".join(lines)
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=True, timeout=300)
    drop = set(ptbtokenizer.PUNCTUATIONS)
    kept = [
        [word for word in line.rstrip().split(" ") if word not in drop] for line in done.stdout.split("\n")
    ]
    return [" ".join(words).split() for words in kept[: len(lines)]]


@pytest.mark.skipif(unavailable("meteor") is not None, reason=str(unavailable("meteor")))
def test_treebank_words_are_those_of_java(campaign: Any) -> None:
    """At most three of a thousand sentences differ; most have marks in odd places."""
    draw = random.Random(f"{campaign.seed}/ptb")
    lines = [sentence(draw) for _ in range(campaign.trials(1_000, 5_000))]
    pairs = zip(lines, stanford(lines), strict=True)
    different = [(line, words, penn_treebank(line)) for line, words in pairs if penn_treebank(line) != words]
    assert len(different) <= 3 * len(lines) / 1_000, different
    campaign.record("treebank_words", {"sentences": len(lines), "different": len(different)})
