"""A small T5 and a small Llama, pre-trained by likelihood: the models that the demonstrations start from.

    python benchmarks/recipes/synopses.py PAIRS           # or your own train.tsv, dev.tsv and test.tsv
    python benchmarks/pretrain.py t5 --pairs PAIRS --out MODEL [--minutes 40] [--threads 2]

Trains a tokenizer on train.tsv, builds the model from its configuration with random weights, and fits it with
the model's own `forward`: AdamW with warm-up and linear decay, clipped gradients, dropout 0.1, batches of
texts of similar lengths. A run that was killed goes on from its last checkpoint (every two minutes) with the
weights that it would have had. MODEL, outside the repository, is a folder as `save_pretrained` writes it, so
plain transformers loads it; the curve, and the scores on dev, go to results/pretrain-NAME.json.

The learning rate falls to zero at the last update, or when the minutes are used up, whichever is first. With
time enough for all updates, the same tokenizer gives the same weights; two fits of the unigram tokenizer
differ in a few pieces, as its library draws the order of its tables anew.

On one core of an AMD EPYC, t5 saw 429,000 pairs in 36 minutes, and
t5-letters (words without their vowels, which recipes/words.py writes) 125,000 in 6. Where cores are busy,
OMP_WAIT_POLICY=PASSIVE keeps threads from using them up by waiting.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor

from rlseq.metrics import evaluate
from rlseq.training import checkpoint
from rlseq.utils.errors import need
from rlseq.utils.places import command_line

IGNORED = -100  # labels that transformers leaves out of the loss
SHOWN = 8
Pair = tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """The size of a model, and how it is trained."""

    vocabulary: int = 6000
    width: int = 256
    layers: int = 2  # of the encoder, and of the decoder
    heads: int = 4
    source: int = 32  # tokens at most, with EOS; longer sources are cut
    target: int = 24  # tokens at most, with EOS; pairs with longer targets are left out
    dropout: float = 0.1
    rows: int = 32  # of a batch
    updates: int = 14_000
    copies: float = (
        0.6  # of the updates, in which ever fewer rows have the beginning of their source as target
    )
    copied: int = 12  # tokens of such a target
    lr: float = 1e-3  # the highest
    lr_embedding: float = 10.0  # times lr, for the embedding, whose weights are larger
    warm_up: int = 300  # updates
    clip: float = 1.0  # of the gradient's norm
    bfloat16: bool = True  # in matrix products of training, where the processor computes in it
    look: int = 500  # updates between two looks at dev
    dev: int = 512  # pairs whose loss is looked at, and that are written at the end
    seed: int = 0


@dataclass(frozen=True)
class Kind:
    """The differences between an encoder–decoder and a causal model."""

    tokenizer: Callable[[Sequence[str], Setting], Any]
    model: Callable[[Any, Setting], Any]
    ends: bool  # does its tokenizer put EOS after a text?
    example: Callable[[list[int], list[int], list[int]], tuple[list[int], list[int]]]
    prompt: str  # between a source and its target where one model reads both
    setting: Setting


# ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────


def pieces(texts: Sequence[str], setting: Setting) -> Any:
    """Return a T5 tokenizer: the unigram model of SentencePiece, fitted to some texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import T5Tokenizer

    special = ["<pad>", "</s>", "<unk>"]
    fitted = Tokenizer(models.Unigram())
    fitted.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=setting.vocabulary, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    fitted.train_from_iterator(texts, trainer)
    vocabulary = [(piece, score) for piece, score in json.loads(fitted.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0)


def byte_pairs(texts: Sequence[str], setting: Setting) -> Any:
    """Return a byte-level BPE tokenizer, as GPT-2 and Llama 3 have it, fitted to some texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    fitted = Tokenizer(models.BPE())
    fitted.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fitted.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=setting.vocabulary,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fitted.train_from_iterator(texts, trainer)
    wrapped: Any = PreTrainedTokenizerFast  # whose constructor has no types
    return wrapped(tokenizer_object=fitted, pad_token="<pad>", eos_token="</s>", padding_side="left")


# ── models ───────────────────────────────────────────────────────────────────────────────────────────


def t5(tokenizer: Any, setting: Setting) -> Any:
    """Return a T5 with random weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "d_model": setting.width,
        "d_kv": setting.width // setting.heads,
        "d_ff": 4 * setting.width,
        "num_layers": setting.layers,
        "num_heads": setting.heads,
        "dropout_rate": setting.dropout,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    return T5ForConditionalGeneration(T5Config(**settings))


def llama(tokenizer: Any, setting: Setting) -> Any:
    """Return a Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=setting.width,
        intermediate_size=3 * setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        num_key_value_heads=setting.heads,
        max_position_embeddings=4 * (setting.source + setting.target),
        attention_dropout=setting.dropout,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


# ── pairs as ids ─────────────────────────────────────────────────────────────────────────────────────


Example = tuple[list[int], list[int]]  # input ids, and labels


def both_sides(source: list[int], target: list[int], _prompt: list[int]) -> Example:
    """Return what an encoder reads, and what its decoder writes."""
    return source, target


def one_sequence(source: list[int], target: list[int], prompt: list[int]) -> Example:
    """Return source, prompt and target as one text, all of which is learned."""
    return source + prompt + target, source + prompt + target


def examples(kind: Kind, tokenizer: Any, pairs: Sequence[Pair]) -> list[Example]:
    """Return the pairs as ids, without those whose targets are too long."""
    setting, end = kind.setting, [] if kind.ends else [tokenizer.eos_token_id]
    sources = tokenizer([source for source, _ in pairs], truncation=True, max_length=setting.source)
    targets = tokenizer([target for _, target in pairs])
    prompt = tokenizer(kind.prompt, add_special_tokens=False)["input_ids"]
    return [
        kind.example(source, target + end, prompt)
        for source, target in zip(sources["input_ids"], targets["input_ids"], strict=True)
        if len(target + end) <= setting.target
    ]


def read(path: Path) -> list[Pair]:
    """Return the pairs of a TSV file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [(source, target) for source, tab, target in (line.partition("\t") for line in lines) if tab]
    if not found:
        raise ValueError(f"{path} has no line with a source, a tab and a target")
    return found


def batch_of(rows: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """Return a batch for a model's `forward`."""
    inputs, labels = (_padded([row[side] for row in rows], value) for side, value in ((0, pad), (1, IGNORED)))
    lengths = torch.tensor([len(row[0]) for row in rows])
    seen = torch.arange(inputs.shape[1]) < lengths[:, None]
    return {"input_ids": inputs, "attention_mask": seen.long(), "labels": labels}


def _padded(rows: Sequence[list[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def order(lengths: Sequence[int], setting: Setting, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch, of rows of similar lengths; the seed and the epoch decide them."""
    draw = random.Random(f"{setting.seed} {epoch}")
    shuffled = draw.sample(range(len(lengths)), len(lengths))
    pool = 32 * setting.rows
    batches = [
        ranked[i : i + setting.rows]
        for start in range(0, len(shuffled), pool)
        for ranked in [sorted(shuffled[start : start + pool], key=lambda row: lengths[row])]
        for i in range(0, len(ranked), setting.rows)
    ]
    draw.shuffle(batches)
    return batches


def endless(lengths: Sequence[int], setting: Setting, skipped: int) -> Iterator[list[int]]:
    """Yield batches, epoch after epoch, from the one after so many."""
    epoch, skipped = divmod(skipped, len(order(lengths, setting, 0)))
    while True:
        yield from order(lengths, setting, epoch)[skipped:]
        epoch, skipped = epoch + 1, 0


def with_copies(rows: Sequence[Example], update: int, setting: Setting) -> list[Example]:
    """Return rows of which some have the beginning of their source as target.

    So few pairs do not teach attention to find a word in the source: without copies the model came to 5.24
    nats a token on dev, and to 5.26 with the sources of other pairs. Copies become rarer, from all to none.
    """
    share = 1 - update / (setting.copies * setting.updates) if setting.copies else 0.0
    draw = random.Random(f"{setting.seed} {update}")
    return [
        (source, source[:-1][: setting.copied] + source[-1:]) if draw.random() < share else (source, target)
        for source, target in rows
    ]


# ── training ─────────────────────────────────────────────────────────────────────────────────────────


def optimizer_of(model: Any, setting: Setting) -> torch.optim.AdamW:
    """Return AdamW, with a step size of its own for the embedding."""
    embedding = model.get_input_embeddings().weight
    others = [parameter for parameter in model.parameters() if parameter is not embedding]
    groups = [{"params": others, "scale": 1.0}, {"params": [embedding], "scale": setting.lr_embedding}]
    return torch.optim.AdamW(groups, lr=setting.lr, fused=True)


def rate(setting: Setting, update: int, spent: float) -> float:
    """Return the learning rate: it rises during the warm-up, then falls with updates or with time.

    Args:
        setting: of the run.
        update: the number of updates before this one.
        spent: the share of the minutes that is used up.
    """
    done = max(update / setting.updates, min(spent, 1.0))
    return setting.lr * min((update + 1) / setting.warm_up, 1.0) * (1 - done)


def loss_of(model: Any, rows: Sequence[Example], setting: Setting) -> float:
    """Return the mean nats per token of some pairs."""
    model.eval()
    total, tokens = 0.0, 0
    by_length = sorted(rows, key=lambda row: len(row[0]))
    with torch.no_grad():
        for start in range(0, len(rows), setting.rows):
            batch = batch_of(by_length[start : start + setting.rows], model.config.pad_token_id)
            labels = batch["labels"]
            # A causal model predicts each token but the first.
            count = int((labels if model.config.is_encoder_decoder else labels[:, 1:]).ne(IGNORED).sum())
            total += float(model(**batch).loss) * count
            tokens += count
    return total / tokens


@dataclass
class Run:
    """A model in training, with all that its next update depends on."""

    model: Any
    setting: Setting
    folder: Path  # of checkpoints
    minutes: float

    def __post_init__(self) -> None:
        self.optimizer = optimizer_of(self.model, self.setting)
        self.update, self.seconds, self.curve = 0, 0.0, list[dict[str, float]]()
        self.resume()

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        found = checkpoint.load(self.folder)
        if found:
            self.update, state = found
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            self.seconds, self.curve = state["seconds"], state["curve"]
            print(f"goes on after update {self.update}", flush=True)

    def save(self) -> None:
        """Write a checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "seconds": self.seconds,
            "curve": self.curve,
        }
        checkpoint.save(self.folder, self.update, state)

    def train(self, rows: Sequence[Any], dev: list[Any], every: float = 120) -> None:
        """Train to the last update, or until the minutes are used up; a checkpoint every so many seconds."""
        lengths = [len(row[0]) + len(row[1]) for row in rows]
        saved = self.seconds
        for chosen in endless(lengths, self.setting, self.update):
            if self.update >= self.setting.updates or self.seconds >= 60 * self.minutes:
                break
            start = time.monotonic()
            taught = with_copies([rows[row] for row in chosen], self.update, self.setting)
            loss = self.step(batch_of(taught, self.model.config.pad_token_id))
            self.update += 1
            if self.update % self.setting.look == 0:
                self.look(loss, dev)
            self.seconds += time.monotonic() - start
            if self.seconds - saved > every:
                self.save()
                saved = self.seconds
        if not self.curve or self.curve[-1]["update"] < self.update:
            self.look(float("nan"), dev)
        self.save()

    def step(self, batch: dict[str, Tensor]) -> float:
        """Make one update; returns the loss before it."""
        now = rate(self.setting, self.update, self.seconds / (60 * self.minutes))
        for group in self.optimizer.param_groups:
            group["lr"] = now * group["scale"]
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.setting.bfloat16):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.setting.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def look(self, loss: float, dev: list[Any]) -> None:
        """Note the loss on dev, and print it."""
        row = {"update": self.update, "train": loss, "dev": loss_of(self.model, dev, self.setting)}
        if self.model.config.is_encoder_decoder:
            half = len(dev) // 2  # neighbours are alike
            others = [
                (source, target)
                for (source, _), (_, target) in zip(dev[half:] + dev[:half], dev, strict=True)
            ]
            row["dev, sources of other pairs"] = loss_of(self.model, others, self.setting)
        self.curve.append(row)
        print(
            f"update {self.update}: nats per token",
            *(f"{name} {row[name]:.4f}" for name in row if name != "update"),
            f"{self.seconds:.0f} s",
            sep=", ",
            flush=True,
        )


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────


def written(model: Any, tokenizer: Any, kind: Kind, sources: Sequence[str]) -> list[str]:
    """Return what transformers' own greedy `generate` writes for some sources."""
    setting, found = kind.setting, list[str]()
    tokenizer.padding_side = "right" if model.config.is_encoder_decoder else "left"
    model.eval()
    for start in range(0, len(sources), setting.rows):
        cut = [
            tokenizer.decode(
                tokenizer(source, truncation=True, max_length=setting.source)["input_ids"],
                skip_special_tokens=True,
            )
            + kind.prompt
            for source in sources[start : start + setting.rows]
        ]
        inputs = tokenizer(cut, return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=setting.target, do_sample=False)
        new = ids if model.config.is_encoder_decoder else ids[:, inputs["input_ids"].shape[1] :]
        found += tokenizer.batch_decode(new, skip_special_tokens=True)
    return found


def pretrain(kind: Kind, pairs: Path, out: Path, minutes: float) -> dict[str, Any]:
    """Train a model, save it, and return the record of the run."""
    from transformers import AutoTokenizer

    setting = kind.setting
    torch.manual_seed(setting.seed)
    train, dev = read(pairs / "train.tsv"), read(pairs / "dev.tsv")
    work = out.with_name(f"{out.name}.run")
    fitted, draft = work / "tokenizer", work / "tokenizer.draft"
    if not fitted.exists():
        kind.tokenizer([text for pair in train for text in pair], setting).save_pretrained(draft)
        draft.replace(fitted)
    tokenizer = AutoTokenizer.from_pretrained(fitted)
    model = kind.model(tokenizer, setting)
    rows, held_out = (examples(kind, tokenizer, part) for part in (train, dev[: setting.dev]))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {len(rows)} pairs", flush=True)

    run = Run(model, setting, work / "checkpoints", minutes)
    run.train(rows, held_out)
    model.generation_config.max_new_tokens = setting.target
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)

    shown = dev[: setting.dev]
    texts = written(model, tokenizer, kind, [source for source, _ in shown])
    figures = evaluate(texts, [[target] for _, target in shown], ("rouge_l", "bleu", "chrf"))
    return {
        "setting": asdict(setting),
        "parameters": parameters,
        "pairs": {"train": len(rows), "left out": len(train) - len(rows), "dev": len(shown)},
        "updates": run.update,
        "seconds": round(run.seconds),
        "curve": run.curve,
        "dev": {"greedy": dict(figures)},
        "samples": [
            {"source": source, "reference": target, "text": text}
            for (source, target), text in list(zip(shown, texts, strict=True))[:SHOWN]
        ],
    }


LETTERS = Setting(  # of recipes/words.py: with so small a vocabulary nearly every piece is a letter
    vocabulary=30,
    width=128,
    source=12,
    target=16,
    rows=64,
    updates=3000,
    copies=0,
    lr=1e-3,
    lr_embedding=3.0,
    look=250,
    dev=500,
)
KINDS = {
    "t5-letters": Kind(pieces, t5, True, both_sides, "", LETTERS),
    "t5": Kind(pieces, t5, True, both_sides, "", Setting()),
    "llama-letters": Kind(byte_pairs, llama, False, one_sequence, "=", replace(LETTERS, vocabulary=258)),
    "llama": Kind(byte_pairs, llama, False, one_sequence, "\nSummary:\n", Setting(updates=3000, copies=0)),
}


def main() -> None:
    """Train what is asked for, and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=KINDS)
    parser.add_argument("--pairs", type=Path, required=True, help="a folder of train.tsv and dev.tsv")
    parser.add_argument("--out", type=Path, required=True, help="of the model; beside it, OUT.run")
    parser.add_argument("--minutes", type=float, default=40, help="of training, at most")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    need("transformers", "hf")
    torch.set_num_threads(options.threads)
    try:
        found = pretrain(KINDS[options.name], options.pairs, options.out, options.minutes)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(json.dumps(found["dev"]), *found["samples"], sep="\n")
    command = command_line(["python", *sys.argv])
    print(record.write(f"pretrain-{options.name}", found, command=command))


if __name__ == "__main__":
    main()
