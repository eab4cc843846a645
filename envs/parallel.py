"""Any source → any text: translation, summarisation, normalisation, on the user's own files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from random import Random
from typing import ClassVar

from typing_extensions import Unpack

from rlseq.data.encode import Level, load
from rlseq.data.formats import Pair
from rlseq.data.locate import Origin, Where, find
from rlseq.envs.corpus_task import CorpusOptions, CorpusTask, reading_of
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import checked_arguments

REPORTED = ("edit_distance", "exact", "bleu", "chrf", "rouge_l")


class Parallel(CorpusTask):
    """Read a text, write another: pairs from files, or from a toy grammar with several valid translations.

    Args:
        path: a TSV or JSONL file, a folder of train, dev and test, a list of aligned files, or a mapping of
            parts (docs/guides/data.md).
        split: "train", "dev" or "test".
        reward: a name of `rlseq metrics`, such as "edit", "exact", "bleu", "chrf", "rouge_l", "ter" or
            "cider_d", or any reward; "edit" where characters are read, else "bleu", when not given.
        level: "char", "word" or "bpe", or one for sources and one for references; words where training knows
            98 % of those of dev, else characters or subwords, when not given (`rlseq data inspect`).
        stream: leave tokens on disk, and fit metrics on the items of each batch.
        **options: see `CorpusOptions`, and of a pretrained model's tokenizer docs/guides/tokenizers.md.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        reward: RewardLike | None = None,
        level: Level = None,
        stream: bool = False,
        **options: Unpack[CorpusOptions],
    ) -> None:
        origins = {"all": Origin(lambda: iter(toy_pairs()))} if path is None else find(path)
        corpus = load(origins, split, reading_of(options, level, reads=True))
        if reward is None:
            reward = "edit" if corpus.notes["level"][0] == "char" else "bleu"
        super().__init__(corpus, reward=reward, metrics=REPORTED, stream=stream, **options)


# ── the embedded default ─────────────────────────────────────────────────────────────────────────────

NOUNS = {  # English: its Spanish names, each with its article
    "dog": ("el perro", "el can"),
    "house": ("la casa", "la vivienda"),
    "car": ("el coche", "el auto"),
    "teacher": ("la maestra", "la profesora"),
    "boat": ("el barco", "la barca"),
    "girl": ("la niña", "la chica"),
    "tree": ("el árbol",),
    "moon": ("la luna",),
    "cat": ("el gato",),
    "table": ("la mesa",),
}
ADJECTIVES = {  # as they follow el, and la
    "small": ("pequeño", "pequeña"),
    "red": ("rojo", "roja"),
    "old": ("viejo", "vieja"),
    "beautiful": ("hermoso", "hermosa"),
    "big": ("grande", "grande"),
    "green": ("verde", "verde"),
}
VERBS = {
    "sees": ("ve", "mira"),
    "finds": ("encuentra", "halla"),
    "wants": ("quiere", "desea"),
    "draws": ("dibuja",),
    "remembers": ("recuerda",),
}
WHEN = {"today": "hoy", "now": "ahora", "never": "nunca", "always": "siempre"}  # first, or before the verb


@lru_cache(maxsize=1)
def toy_pairs(sources: int = 2000, seed: int = 0) -> tuple[Pair, ...]:
    """Draw different sentences of the toy grammar, with every translation that it allows."""
    draw = Random(seed)
    sentences = sorted(product(ADJECTIVES, NOUNS, VERBS, NOUNS, WHEN))
    return tuple(pair for sentence in draw.sample(sentences, sources) for pair in translations(*sentence))


def translations(adjective: str, subject: str, verb: str, thing: str, when: str) -> Iterator[Pair]:
    """Yield all translations: synonyms and the place of the adverb vary, gender agrees."""
    source = f"{when} the {adjective} {subject} {verb} the {thing}"
    for who, does, what in product(NOUNS[subject], VERBS[verb], NOUNS[thing]):
        who = f"{who} {ADJECTIVES[adjective][who.startswith('la ')]}"
        yield Pair(source, f"{WHEN[when]} {who} {does} {what}")
        yield Pair(source, f"{who} {WHEN[when]} {does} {what}")
