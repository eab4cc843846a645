"""The speed of rewards: rlseq's batched metrics against the reference implementations.

    python benchmarks/rewards.py [--threads 2]

One run, one machine, the same sentences for everyone. Contenders take turns, so that a disturbance
hits both; every figure is a median. The reference implementations get what suits them best:
sacreBLEU needs no tokenisation, rapidfuzz gets sequences ready made as strings of one character a
token and as many workers as rlseq has threads, and pycocoevalcap is called as everyone calls it.
rlseq starts from the tensors that an environment holds, its references being fitted before, as they
are in training. One thread unless told otherwise: a second one saves little on small tensors and
loses much on a busy machine; the clock of one thread is the processor's.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import record
import torch
from torch import Tensor

from rlseq.metrics import BLEU, ROUGEL, TER, ChrF, CIDErD, EditDistance

EOS, REFERENCES, VOCABULARY = 0, 5, 5_000
PROMISED_FROM_TEXT = {"cider_d from text": 60.0, "bleu from text": 15.0}
Lines = list[list[int]]
Call = Callable[[], Any]


def sentences(rows: int, seed: int = 0) -> tuple[Lines, list[Lines]]:
    """Captions of 8–15 tokens with Zipf's frequencies; hypotheses are spoilt references."""
    draw = random.Random(seed)
    weights = [1 / rank for rank in range(1, VOCABULARY)]
    pool = iter(draw.choices(range(1, VOCABULARY), weights, k=rows * (REFERENCES + 1) * 16))

    def line() -> list[int]:
        return [next(pool) for _ in range(draw.randint(8, 15))]

    references = []
    for _ in range(rows):
        first = line()
        references.append([first, *(spoil(draw, first, pool) for _ in range(REFERENCES - 1))])
    return [spoil(draw, draw.choice(refs), pool) for refs in references], references


def spoil(draw: random.Random, line: list[int], pool: Any) -> list[int]:
    """About half of the words replaced, some dropped."""
    kept = [token if draw.random() < 0.55 else next(pool) for token in line]
    return [token for token in kept if draw.random() < 0.95] or line


def as_tensors(hypotheses: Lines, device: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Tokens and mask [B, T] with EOS, and the items."""
    lengths = torch.tensor([len(line) + 1 for line in hypotheses])
    tokens = torch.full((len(hypotheses), int(lengths.max())), EOS)
    for row, line in enumerate(hypotheses):
        tokens[row, : len(line)] = torch.tensor(line)
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    index = {"index": torch.arange(len(hypotheses), device=device)}
    return tokens.to(device), mask.to(device), index


def medians(contenders: dict[str, Call], repeats: int) -> dict[str, float]:
    """Milliseconds of each contender, who take turns."""
    for call in contenders.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(repeats):
        for name, call in contenders.items():
            start = clock()
            call()
            times[name].append(1e3 * (clock() - start))
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


def text(line: list[int]) -> str:
    """Words for the implementations that want words, with EOS as one of them."""
    return " ".join(f"w{token}" for token in [*line, EOS])


def cider(hypotheses: Lines, references: list[Lines]) -> tuple[Call, Call]:
    """CIDEr-D and pycocoevalcap's Cider."""
    from pycocoevalcap.cider.cider import Cider

    ours, call = CIDErD(references, eos=EOS), as_tensors(hypotheses, "cpu")
    gts = {i: [text(ref) for ref in refs] for i, refs in enumerate(references)}
    res = {i: [text(line)] for i, line in enumerate(hypotheses)}
    return lambda: ours(*call), lambda: Cider().compute_score(gts, res)


def bleu(hypotheses: Lines, references: list[Lines]) -> tuple[Call, Call]:
    """Sentence BLEU and sacreBLEU's sentence score without tokenisation."""
    from sacrebleu.metrics.bleu import BLEU as Theirs

    ours, call = BLEU(references, eos=EOS), as_tensors(hypotheses, "cpu")
    theirs = Theirs(effective_order=True, tokenize="none")
    refs = [[text(ref) for ref in item] for item in references]
    both = list(zip([text(line) for line in hypotheses], refs, strict=True))
    return lambda: ours(*call), lambda: [theirs.sentence_score(*pair) for pair in both]


def plain_text(line: list[int]) -> str:
    """A sentence with a capital and a full stop, which 13a cuts."""
    return f"The {' '.join(f'w{token}' for token in line)}."


def from_texts(references: list[Lines], rounds: int) -> dict[str, tuple[Call, Call]]:
    """CIDEr-D and BLEU from texts, other ones in every round, but of words that are known.

    Both cut BLEU's texts by 13a; rlseq remembers words that it has cut, sacreBLEU texts.
    """
    from pycocoevalcap.cider.cider import Cider
    from sacrebleu.metrics.bleu import BLEU as Theirs

    draw = random.Random(1)
    pool = iter(draw.choices(range(1, VOCABULARY), k=rounds * len(references) * 20))
    refs = [[plain_text(ref) for ref in item] for item in references]
    written = [
        [plain_text(spoil(draw, draw.choice(item), pool)) for item in references] for _ in range(rounds)
    ]
    cider, bleu, theirs = CIDErD(refs), BLEU(refs), Theirs(effective_order=True)
    gts = dict(enumerate(refs))

    def coco(lines: list[str]) -> None:
        Cider().compute_score(gts, {i: [line] for i, line in enumerate(lines)})

    def sentences_of(lines: list[str]) -> None:
        for pair in zip(lines, refs, strict=True):
            theirs.sentence_score(*pair)

    def in_turn(score: Callable[[list[str]], Any]) -> Call:
        left = iter(written)
        return lambda: score(next(left))

    return {
        "cider_d from text": (in_turn(cider.score), in_turn(coco)),
        "bleu from text": (in_turn(bleu.score), in_turn(sentences_of)),
    }


def edit(hypotheses: Lines, references: list[Lines]) -> tuple[Call, dict[str, Call]]:
    """Edit distance, and the ways to ask rapidfuzz for the same distances."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    ours, call = EditDistance(references, eos=EOS), as_tensors(hypotheses, "cpu")
    workers = torch.get_num_threads()
    left = [[*line, EOS] for line in hypotheses for _ in range(REFERENCES)]
    right = [[*ref, EOS] for refs in references for ref in refs]
    letters = [["".join(chr(200 + token) for token in line) for line in side] for side in (left, right)]

    def theirs(sides: list[Any]) -> Call:
        return lambda: cpdist(*sides, scorer=Levenshtein.distance, workers=workers)

    return lambda: ours(*call), {
        "strings": theirs(letters),
        "id lists": theirs([left, right]),
    }


def against_references(rows: int, repeats: int) -> dict[str, Any]:
    """The ratios that the project promises."""
    data = sentences(rows)
    found: dict[str, Any] = {}
    for name, make, promised in (("cider_d", cider, 30.0), ("bleu", bleu, 10.0)):
        ours, theirs = make(*data)
        times = medians({"rlseq": ours, "reference": theirs}, repeats)
        ratio = times["reference"] / times["rlseq"]
        found[name] = {"ms": times, "ratio": round(ratio, 2), "promised": promised}
    for name, (ours, theirs) in from_texts(data[1], repeats + 1).items():
        times = medians({"rlseq": ours, "reference": theirs}, repeats)
        ratio = times["reference"] / times["rlseq"]
        found[name] = {"ms": times, "ratio": round(ratio, 2), "promised": PROMISED_FROM_TEXT[name]}
    mine, ways = edit(*data)
    times = medians({"rlseq": mine, **ways}, 5 * repeats)
    best = min(value for name, value in times.items() if name != "rlseq")
    found["edit_distance"] = {
        "ms": times,
        "ratio": round(best / times["rlseq"], 2),
        "promised": 0.5,
    }
    return found


ALL: dict[str, Callable[..., Any]] = {
    "bleu": BLEU,
    "cider_d": CIDErD,
    "rouge_l": ROUGEL,
    "chrf": ChrF,
    "edit_distance": EditDistance,
    "ter": TER,
}


def scaling(rows: int, repeats: int, device: str) -> dict[str, Any]:
    """Milliseconds at one, two and four times the rows, and of the increments at one."""
    found: dict[str, Any] = {}
    for name, make in ALL.items():
        calls: dict[str, Call] = {}
        for factor in (1, 2, 4) if name != "ter" else (1,):
            hypotheses, references = sentences(factor * rows)
            metric, call = make(references, eos=EOS), as_tensors(hypotheses, device)
            calls[f"{factor * rows} rows"] = _synchronised(metric, call, device)
            if factor == 1 and name != "ter":
                calls["increments"] = _synchronised(metric.increments, call, device)
        found[name] = medians(calls, repeats if name != "ter" else 1)
    return found


def _synchronised(metric: Callable[..., Tensor], call: tuple[Any, ...], device: str) -> Call:
    def timed() -> None:
        metric(*call)
        if device == "cuda":
            torch.cuda.synchronize()

    return timed


def main() -> None:
    """Measures, prints a table and writes the JSON that the docs are made from."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=2_500)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"rows": options.rows, "references": REFERENCES}
    report["ratios"] = against_references(options.rows, options.repeats)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        report[f"ms_{device}"] = scaling(options.rows, options.repeats, device)
    for name, found in report["ratios"].items():
        print(f"{name:14} {found['ratio']:8.2f}x  (promised {found['promised']:g}x)  {found['ms']}")
    for device in ("cpu", "cuda"):
        for name, times in report.get(f"ms_{device}", {}).items():
            print(f"{name:14} {device}  {times}")
    print(record.write(f"rewards-{platform.machine()}-{options.threads}-threads", report))


if __name__ == "__main__":
    main()
