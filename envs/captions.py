"""Image → caption: rendered scenes that need no download, or COCO-format captions of images or features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data import coco
from rlseq.data import scenes as rendered
from rlseq.data.archives import read_array
from rlseq.data.corpus import Corpus
from rlseq.data.images import Images, Pictures, read_image
from rlseq.envs.corpus_task import CorpusTask, TextOptions, given_words
from rlseq.metrics.fitting import LazyMetric, read_words_or_tokens
from rlseq.metrics.registry import METRICS
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import PositiveInt, Seed, checked_arguments
from rlseq.utils.errors import pick
from rlseq.vocab import EOS, UNK, TokenizerVocab, Vocab, whole_words

# What is reported, by the names of rows of `rlseq.metrics`; BLEU as COCO has it.
REPORTED = {
    "cider_d": "cider_d",
    "bleu": "bleu_4_coco",
    "rouge_l": "rouge_l",
    "edit_distance": "edit_distance",
}
SPLITS = {"train": 0, "dev": 1, "test": 2}  # of scenes


class Captions(CorpusTask):
    """Describe a picture. Reward: CIDEr-D against the picture's captions, EOS counted as a word.

    Args:
        path: COCO's `captions_*.json` or Karpathy's `dataset_*.json`; without, scenes are rendered.
        images: folder of the files; each is decoded when it is first used, then kept as uint8.
        features: `.npz` or `.h5`, held in memory, instead of images.
        split: "train", "dev" or "test"; of a file also "all".
        reward: "cider_d", "bleu", "rouge_l", "edit_distance" (on their own scales), another name of
            `rlseq metrics`, such as "meteor" (needs Java), or any callable.
        vocab: of another file; else the words of this file's training captions.
        min_count: rarer words are unknown.
        max_len: T; longer captions are cut for likelihood, never for rewards; by default the longest fits.
        image_size: pixels a side, of image files.
        skip_bad: leave out what is bad in files; `env.skipped` counts it by kind.
        scenes: number of rendered scenes, with five captions each.
        data_seed: of the scenes; splits of one seed are drawn apart.
        **options: of a pretrained model's tokenizer, see `TextOptions` and docs/guides/tokenizers.md;
            and those of all tasks.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: str | None = None,
        images: str | None = None,
        features: str | None = None,
        split: str = "train",
        reward: RewardLike = "cider_d",
        vocab: Vocab | None = None,
        min_count: PositiveInt = 1,
        max_len: PositiveInt | None = None,
        image_size: PositiveInt = 64,
        skip_bad: bool = False,
        scenes: PositiveInt = 1000,
        data_seed: Seed = 0,
        **options: Unpack[TextOptions],
    ) -> None:
        if vocab is not None and vocab.eos is None:
            raise ValueError(f"vocab must be a Vocab with an end, got {vocab!r:.80}; take that of training")
        if path is None:
            if images is not None or features is not None:
                raise ValueError("images and features belong to an annotation file; pass path=FILE.json, too")
            source = _scenes(scenes, split, data_seed)
        else:
            source = _files(path, images, features, split, vocab, min_count, image_size, coco.Bad(skip_bad))
        words, longest = source.vocab if vocab is None else vocab, source.longest + 1
        if not isinstance(vocab, TokenizerVocab):  # which is that of a trained policy
            chosen = {"vocab": vocab, "min_count": min_count if min_count > 1 else None}
            given = given_words(None, options, False, **chosen)
            words = words if given is None else given.vocab
        if isinstance(words, TokenizerVocab):
            longest = max(map(len, words.encode_batch(source.learned()))) + 1
        if words.unk is None and UNK in words.words:
            words = replace(words, unk=words.words.index(UNK))
        corpus = Corpus.of_texts(words, source.captions, max_len or longest)
        self.pictures, self.names, self.skipped = source.pictures, source.names, source.skipped
        self.observed = {self.pictures.item: self.pictures.range}
        # Its shape and type; the pictures themselves come by `contexts`.
        shape = torch.zeros(1, *self.pictures.shape, dtype=self.pictures.dtype)
        read = read_words_or_tokens(corpus)
        own = {name: LazyMetric(name, METRICS[row].fit, read) for name, row in REPORTED.items()}
        super().__init__(
            corpus, reward=reward, metrics=tuple(own), own=own, items={self.pictures.item: shape}, **options
        )
        self.pictures.to(self.device)

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """Return pictures and their captions."""
        return {self.pictures.item: self.pictures(index), **super().contexts(index)}

    def length_bucket(self, rows: int) -> Tensor:
        """Draw items at random: the captions of a picture are of many lengths."""
        return torch.randint(self.size, (rows,), generator=self.generator, device=self.device)

    def as_source(self, source: Any) -> Any:
        """Return a picture as an array: one that is given, an image file, cut and scaled, or `.npy`."""
        (item,) = self.observed
        file = isinstance(source, (str, PathLike))
        if item == Images.item:
            return read_image(Path(source), self.items[item].shape[-1]) if file else source
        features = read_array(Path(source)) if file else source
        return np.asarray(features)[None] if np.ndim(features) == 1 else features  # one region, as in files

    def sources(self) -> list[str]:
        """The names of the pictures."""
        return [self.names[item] for item in self.context["index"].tolist()]


# ── where pictures and captions come from ────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Source:
    captions: Sequence[Sequence[str]]  # by picture
    pictures: Pictures
    names: Sequence[str]  # of pictures, for people
    vocab: Vocab
    longest: int  # words of a caption
    learned: Callable[[], list[str]]  # captions of training
    skipped: Counter[str] = field(default_factory=Counter)


def _scenes(scenes: int, split: str, data_seed: int) -> _Source:
    part = pick(SPLITS, split, "split of scenes")
    seed, tongue = np.random.SeedSequence([data_seed, part]).generate_state(2).tolist()
    seen = rendered.draw(scenes, seed)

    def learned() -> list[str]:
        drawn, told = np.random.SeedSequence([data_seed, SPLITS["train"]]).generate_state(2).tolist()
        return [
            " ".join(words) for five in rendered.tell(rendered.draw(scenes, drawn), told) for words in five
        ]

    return _Source(
        captions=[[" ".join(words) for words in told] for told in rendered.tell(seen, tongue)],
        pictures=Images(rendered.render(seen)),
        names=[f"scene {n}" for n in range(scenes)],
        vocab=Vocab((EOS, *rendered.all_words())),
        longest=rendered.longest(),
        learned=learned,
    )


def _files(
    path: str,
    images: str | None,
    features: str | None,
    split: str,
    vocab: Vocab | None,
    min_count: int,
    image_size: int,
    bad: coco.Bad,
) -> _Source:
    everything = coco.read_annotations(path, bad)
    train, chosen = coco.of_split(everything, "train"), coco.of_split(everything, split)
    if not train or not chosen:
        raise ValueError(f"{path} has no picture of split {split if train else 'train'!r}")
    pictures: Pictures
    if images is not None and features is None:
        chosen, pictures = coco.with_images(chosen, images, image_size, bad)
    elif features is not None and images is None:
        chosen, pictures = coco.with_features(chosen, features, bad)
    else:
        raise ValueError(f"captions of {path} need their pictures: either images=FOLDER or features=FILE")
    learned = [" ".join(caption) for picture in train for caption in picture.captions]
    return _Source(
        captions=[[" ".join(words) for words in picture.captions] for picture in chosen],
        pictures=pictures,
        names=[picture.file for picture in chosen],
        vocab=whole_words(learned, min_count) if vocab is None else vocab,
        longest=max(len(text.split()) for text in learned),
        learned=lambda: learned,
        skipped=bad.skipped,
    )
