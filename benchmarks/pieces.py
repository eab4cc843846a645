"""The speed at which words are made of pieces: whole batches by runs of pieces, against decoded texts.

    python benchmarks/pieces.py

256 rows of 64 tokens, of tokenizers with 8,000 pieces trained on lines of the standard library, read by the
words of BLEU (13a). "Training": lines of which all words were met before, as when a task is trained for more
than an epoch. "New": in every round other lines of the same kind of text, full of names that no other line
has. "Random" tokens: a policy that has learned nothing. Both ways take turns; every figure is a median of
rows for a second of the processor's time.
"""

from __future__ import annotations

import json
import random
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import tokenizers
import torch
import transformers
from torch import Tensor

import rlseq
from rlseq.metrics.fitting import ReadWords
from rlseq.metrics.tokenize import mteval_13a

ROWS, WIDTH, PIECES, ROUNDS = 256, 64, 8_000, 20


def lines(most: int = 20_000) -> list[str]:
    """Comments and sentences of the standard library, in random order."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
            line = line.strip().strip("#").strip().replace("\t", " ")
            if 30 < len(line) < 250 and line.count(" ") > 5:
                found.append(line)
    random.Random(0).shuffle(found)
    return found[:most]


def t5(texts: list[str]) -> Any:
    """Pieces of a unigram model, as T5 has them."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=PIECES, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    pieces = json.loads(made.to_str())["model"]["vocab"]
    return transformers.T5TokenizerFast(vocab=[(piece, score) for piece, score in pieces])


def gpt2(texts: list[str]) -> Any:
    """Pairs of bytes, as GPT-2 has them."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    model = json.loads(made.to_str())["model"]
    return transformers.GPT2TokenizerFast(vocab=model["vocab"], merges=[tuple(x) for x in model["merges"]])


def rows_of(vocab: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Texts as tokens, cut to 64."""
    ids = [[*row[: WIDTH - 1], vocab.eos] for row in vocab.encode_batch(texts)]
    tokens = torch.tensor([row + [vocab.pad] * (WIDTH - len(row)) for row in ids])
    return tokens, torch.arange(WIDTH) < torch.tensor([[len(row)] for row in ids])


def measure(tokenizer: Any, texts: list[str]) -> dict[str, Any]:
    """Rows a second, decoded and by runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.tsv")
        path.write_text("".join(f"{n}\t{text}\n" for n, text in enumerate(texts[:5000])), "utf-8")
        env: Any = rlseq.make("rlseq/Parallel-v0", path={"train": path}, tokenizer=tokenizer)
    by_runs, decoding = (ReadWords(env.corpus, mteval_13a, True) for _ in range(2))
    vars(decoding)["runs"] = None
    for read in (by_runs, decoding):
        read.references(None)
    draw, results = random.Random(1), {}
    old, new = texts[:5000], texts[5000:]
    for place in range(0, len(old), ROWS):
        by_runs.written(*rows_of(env.vocab, old[place : place + ROWS]))
    for kind in ("training", "new", "random"):
        seconds: dict[str, list[float]] = {"runs": [], "decoding": []}
        for _ in range(ROUNDS):
            if kind != "random":
                tokens, mask = rows_of(env.vocab, draw.sample(old if kind == "training" else new, ROWS))
            else:
                tokens = torch.randint(3, len(env.vocab), (ROWS, WIDTH))
                mask = torch.ones_like(tokens, dtype=torch.bool)
            for name, read in (("runs", by_runs), ("decoding", decoding)):
                start = time.process_time()
                read.written(tokens, mask)
                seconds[name].append(time.process_time() - start)
        results[kind] = {name: round(ROWS / statistics.median(taken)) for name, taken in seconds.items()}
    return results


def main() -> None:
    """Measure, print and write the results."""
    torch.manual_seed(0)
    texts = lines()
    results = {make.__name__: measure(make(texts), texts) for make in (t5, gpt2)}
    print(json.dumps(results, indent=2))
    record.write("pieces", results)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
