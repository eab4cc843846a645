"""Image → caption: rendered scenes that need no download, or COCO-format captions of images or features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data import coco
from rlseq.data import scenes as rendered
from rlseq.data.images import Images, Pictures
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.metrics import BLEU, COCO, METEOR, ROUGEL, CIDErD, EditDistance
from rlseq.metrics.fitting import Lazy
from rlseq.types import Reward
from rlseq.utils.errors import pick
from rlseq.vocab import Vocab

Told = Sequence[Sequence[Sequence[str]]]  # captions by picture, as words
EOS, UNKNOWN = "<eos>", "<unk>"
END = "eos"  # what METEOR reads for EOS
METRICS: dict[str, Callable[..., Any]] = {
    "cider_d": CIDErD,
    "bleu": partial(BLEU, definition=COCO),
    "rouge_l": ROUGEL,
    "edit_distance": EditDistance,
}
SPLITS = {"train": 0, "dev": 1, "test": 2}  # of scenes


class Captions(SequenceEnv):
    """Say what is in a picture. Reward: CIDEr-D against the picture's captions, EOS counted as a word.

    Args:
        path: COCO's `captions_*.json` or Karpathy's `dataset_*.json`; without, scenes are rendered.
        images: folder of the files; each is decoded when it is first used, then kept as uint8.
        features: `.npz` or `.h5`, held in memory, instead of images.
        split: "train", "dev" or "test"; of a file also "all".
        reward: "cider_d", "bleu", "rouge_l", "edit_distance", "meteor" (needs Java), or any callable.
        vocab: of another file; else the words of this file's training captions.
        min_count: rarer words are unknown.
        max_len: T; longer captions are cut for likelihood, never for rewards; by default the longest fits.
        image_size: pixels a side, of image files.
        skip_bad: leave out what is bad in files; `env.skipped` counts it by kind.
        scenes: number of rendered scenes, with five captions each.
        data_seed: of the scenes; splits of one seed are drawn apart.
        **options: see `EnvOptions`.
    """

    held_out: ClassVar[Mapping[str, Any] | None] = {"split": "test"}

    def __init__(
        self,
        *,
        path: str | None = None,
        images: str | None = None,
        features: str | None = None,
        split: str = "train",
        reward: str | Reward | Mapping[str, Reward] = "cider_d",
        vocab: Vocab | None = None,
        min_count: int = 1,
        max_len: int | None = None,
        image_size: int = 64,
        skip_bad: bool = False,
        scenes: int = 1000,
        data_seed: int = 0,
        **options: Unpack[EnvOptions],
    ) -> None:
        longest = 1 if max_len is None else max_len
        _check_numbers(1, min_count=min_count, image_size=image_size, scenes=scenes, max_len=longest)
        _check_numbers(0, data_seed=data_seed)
        if vocab is not None and (not isinstance(vocab, Vocab) or vocab.eos is None):
            raise ValueError(
                f"vocab must be an rlseq.Vocab with an end, such as train.vocab, got {vocab!r:.80}"
            )
        if path is None:
            if images is not None or features is not None:
                raise ValueError("images and features belong to an annotation file; pass path=FILE.json, too")
            source = _scenes(scenes, split, data_seed)
        else:
            source = _files(path, images, features, split, min_count, image_size, coco.Bad(skip_bad))
        vocab = _of_words(source.words, min_count) if vocab is None else vocab
        self.pictures, self.names, self.skipped = source.pictures, source.names, source.skipped
        self.observed = {self.pictures.item: self.pictures.range}
        references, max_len = _ids(source.captions, vocab), max_len or source.longest + 1
        metrics = {name: partial(make, references, eos=vocab.eos) for name, make in METRICS.items()}
        rewards = {**metrics, "meteor": partial(_meteor, source.captions, vocab)}
        super().__init__(
            vocab=vocab,
            max_len=max_len,
            reward={reward: pick(rewards, reward, "reward")()} if isinstance(reward, str) else reward,
            items={
                **_padded(references, vocab, max_len),
                # Its shape and type; the pictures themselves come by `contexts`.
                self.pictures.item: torch.zeros(1, *self.pictures.shape, dtype=self.pictures.dtype),
            },
            **options,
        )
        self.pictures.to(self.device)
        self.metrics = {name: Lazy(name, make) for name, make in metrics.items()}

    @property
    def size(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """Pictures and their captions."""
        told = {name: self.items[name][index] for name in ("references", "reference_lengths")}
        return {self.pictures.item: self.pictures(index), **told}

    def sources(self) -> list[str]:
        """The names of the pictures."""
        return [self.names[item] for item in self.context["index"].tolist()]


# ── where pictures and captions come from ────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Source:
    captions: Told
    pictures: Pictures
    names: Sequence[str]  # of pictures, for people
    words: Sequence[str]  # that can be written, EOS first
    longest: int  # words of a caption
    skipped: Counter[str] = field(default_factory=Counter)


def _scenes(scenes: int, split: str, data_seed: int) -> _Source:
    part = pick(SPLITS, split, "split of scenes")
    seed, tongue = np.random.SeedSequence([data_seed, part]).generate_state(2).tolist()
    seen = rendered.draw(scenes, seed)
    return _Source(
        captions=rendered.tell(seen, tongue),
        pictures=Images(rendered.render(seen)),
        names=[f"scene {n}" for n in range(scenes)],
        words=(EOS, *rendered.words()),
        longest=rendered.longest(),
    )


def _files(
    path: str,
    images: str | None,
    features: str | None,
    split: str,
    min_count: int,
    image_size: int,
    bad: coco.Bad,
) -> _Source:
    everything = coco.read(path, bad)
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
    learned = [caption for picture in train for caption in picture.captions]
    return _Source(
        captions=[picture.captions for picture in chosen],
        pictures=pictures,
        names=[picture.file for picture in chosen],
        words=(EOS, UNKNOWN, *_frequent(learned, min_count)),
        longest=max(map(len, learned)),
        skipped=bad.skipped,
    )


def _frequent(captions: Sequence[Sequence[str]], min_count: int) -> list[str]:
    """Words that occur at least so often, the most frequent first."""
    counts = Counter(word for caption in captions for word in caption)
    often = [(-count, word) for word, count in counts.items() if count >= min_count]
    return [word for _, word in sorted(often) if word not in (EOS, UNKNOWN)]


def _of_words(words: Sequence[str], min_count: int) -> Vocab:
    if set(words) <= {EOS, UNKNOWN}:
        raise ValueError(
            f"min_count={min_count} leaves no word of the training captions but {EOS} and {UNKNOWN}; lower it"
        )
    return Vocab(tuple(words))


# ── what they are to likelihood, and to rewards ──────────────────────────────────────────────────────


def _ids(captions: Told, vocab: Vocab) -> list[list[list[int]]]:
    """Captions as ids. Unknown words have ids beyond V: who writes `<unk>` must not be paid for it."""
    ids = {word: i for i, word in enumerate(vocab.words)}
    for written in (EOS, UNKNOWN):
        ids.pop(written, None)
    beyond: dict[str, int] = {}

    def id_of(word: str) -> int:
        return ids[word] if word in ids else beyond.setdefault(word, len(vocab) + len(beyond))

    told = [[[id_of(word) for word in caption] for caption in picture] for picture in captions]
    if beyond and UNKNOWN not in vocab.words:
        missing = next(iter(beyond))
        raise ValueError(f"the vocabulary has neither {missing!r} nor {UNKNOWN!r}, which stands for it")
    return told


def _padded(references: list[list[list[int]]], vocab: Vocab, max_len: int) -> dict[str, Tensor]:
    """References `[N, R, T]`, closed by EOS, cut to T, unknown words as `<unk>`; and their lengths."""
    shape = len(references), max(map(len, references))
    ids, lengths = np.full((*shape, max_len), vocab.pad), np.zeros(shape, dtype=np.int64)
    for item, captions in enumerate(references):
        for number, caption in enumerate(captions):
            closed = [*caption, vocab.eos][:max_len]
            ids[item, number, : len(closed)], lengths[item, number] = closed, len(closed)
    if UNKNOWN in vocab.words:
        ids[ids >= len(vocab)] = vocab.words.index(UNKNOWN)
    return {"references": torch.from_numpy(ids), "reference_lengths": torch.from_numpy(lengths)}


def _meteor(captions: Told, vocab: Vocab) -> METEOR:
    """METEOR on texts in which the end is a word, so that a text that breaks off lacks one."""
    words = (*vocab.words[: vocab.eos], END, *vocab.words[(vocab.eos or 0) + 1 :])
    references = [[" ".join([*caption, END]) for caption in picture] for picture in captions]
    return METEOR(references, detokenize=lambda ids: " ".join(words[i] for i in ids))


def _check_numbers(least: int, **numbers: Any) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ValueError(f"{name} must be an integer ≥ {least}, got {number!r}")
