"""Tokenizers of pretrained models as vocabularies: the words are the tokenizer's own ids.

A tokenizer is read once, from a path, a name or an object, and kept whole in the vocabulary, as the files
that its `save_pretrained` writes: a run stands on its own, without the model that it was started from.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from typing_extensions import Self

from rlseq.utils.arguments import PositiveInt
from rlseq.utils.errors import need
from rlseq.vocab.words import Pieces, Run, Vocab, blanks_of

BINARY = "data:;base64,"  # begins the content of a file that is no text
SANE = 10**6  # a tokenizer without a limit says that it reads 10³⁰ tokens
SLOT = "{source}"  # where a prompt template has the source
CHAT = "chat"  # the prompt that is the tokenizer's own chat template
PROBE = "7"  # a source of which the prompt around it is learned,
MANY = 50  # together with about as many others
CONCATENATING = ("Metaspace", "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip")  # kinds of decoders


@dataclass(frozen=True)
class TokenizerFiles:
    """The files that a tokenizer's `save_pretrained` writes: texts by name, in base64 what is no text."""

    contents: Mapping[str, str]

    @classmethod
    def of(cls, tokenizer: Any) -> TokenizerFiles:
        """Save a tokenizer."""
        with TemporaryDirectory(prefix="rlseq-") as folder:
            tokenizer.save_pretrained(folder)
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            return cls({str(path.relative_to(folder)): _content(path) for path in files})

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, as transformers reads it."""
        with TemporaryDirectory(prefix="rlseq-") as folder:
            for name, content in self.contents.items():
                path = Path(folder, name)
                if not path.resolve().is_relative_to(Path(folder).resolve()):
                    raise ValueError(f"a file of a tokenizer cannot be called {name!r}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_data(content))
            auto = need("transformers", "hf").AutoTokenizer
            return auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True)

    @cached_property
    def digest(self) -> str:
        """A checksum of all files."""
        return sha256(json.dumps(dict(self.contents), sort_keys=True).encode()).hexdigest()[:16]


def _content(path: Path) -> str:
    """Return a file as text; the folder in which a tokenizer lay before is no part of it."""
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return BINARY + b64encode(data).decode()
    if path.name != "tokenizer_config.json":
        return text
    settings = {
        name: value for name, value in json.loads(text).items() if name not in ("name_or_path", "is_local")
    }
    return json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)


def _data(content: str) -> bytes:
    return b64decode(content.removeprefix(BINARY)) if content.startswith(BINARY) else content.encode()


@dataclass(frozen=True)
class TokenizerVocab(Vocab):
    """The ids of a tokenizer, as a decoder with an encoder of its own writes them.

    Args:
        files: the tokenizer.
        prefix: tokens that the decoder reads before the first token that it writes: its start, and a token
            that the settings force to be first, such as a language code. None of them is an action.
        positions: the most tokens that the decoder can read; None where there is no limit.
        generation: the model's generation settings that are rules of writing.
    """

    files: TokenizerFiles = TokenizerFiles({})
    prefix: tuple[int, ...] = ()
    positions: PositiveInt | None = None
    generation: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer as an object of transformers, made of the stored files when it is first used."""
        return self.files.tokenizer

    @property
    def longest(self) -> int | None:
        """The most tokens of a text, EOS included, that the model has positions for."""
        return None if self.positions is None else self.positions - len(self.prefix) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a text as in the model's own targets, without EOS and without a forced first token."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, as `encode`."""
        return [self.inner(ids) for ids in target_ids(self.tokenizer, texts)]

    def inner(self, ids: list[int]) -> list[int]:
        """Ids of a target that are actions: those after the prefix, and before the EOS that closes it."""
        first = 1 if self.prefix and ids[:1] == [self.prefix[-1]] else 0
        end = len(ids) - ids[::-1].index(self.eos) - 1 if self.eos in ids[first:] else len(ids)
        return [id for id in ids[first:end] if id != self.eos]  # which a text may spell, but not write

    def encode_apart(self, text: str, oov_words: dict[str, int]) -> list[int]:
        """As `encode`: metrics compare the texts of tokens, which are kept beside the ids."""
        return self.encode(text)

    def encode_batch_apart(self, texts: Sequence[str], oov_words: dict[str, int]) -> list[list[int]]:
        """As `encode_batch`."""
        return self.encode_batch(texts)

    def split(self, text: str) -> list[str]:
        """The tokens of a text."""
        return [self.words[id] for id in self.encode(text)]

    def join(self, words: Iterable[str]) -> str:
        """The text of tokens."""
        return self.decode(self._ids[word] for word in words)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a sequence of ids, up to and without the first EOS, without special tokens."""
        return self.decode_batch([[*ids]])[0]

    def decode_batch(
        self, tokens: Sequence[Sequence[int]], lengths: Sequence[int] | None = None
    ) -> list[str]:
        """Texts of rows, of which the first `lengths` ids count."""
        rows = [row if lengths is None else row[: lengths[i]] for i, row in enumerate(tokens)]
        return self.texts_of([self._before_eos([*row]) for row in rows])

    def texts_of(self, rows: list[list[int]]) -> list[str]:
        """Texts of rows of ids."""
        if not rows:
            return []
        found: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return found

    def _before_eos(self, row: list[int]) -> list[int]:
        row = row[: row.index(self.eos)] if self.eos in row else row
        if row and not 0 <= min(row) <= max(row) < len(self):
            raise ValueError(f"ids must be 0 … {len(self) - 1}, got {min(row) if min(row) < 0 else max(row)}")
        return row

    @cached_property
    def pieces(self) -> Pieces | None:
        """How texts are made of pieces; None where they are no concatenation, as those of word pieces."""
        anchor = self._anchor if concatenates(self.tokenizer) else None
        if anchor is None:
            return None
        special = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        known = self.tokenizer.get_vocab()
        silent = [id in special or word not in known for id, word in enumerate(self.words)]
        texts = self._behind(anchor, [[id] for id in range(len(self))])
        starts, odd = blanks_of(texts)
        for id, word in enumerate(self.words):
            if word.startswith("<0x"):  # a byte, which beside others may be part of another letter
                starts[id] = False

        def read(runs: Sequence[Run]) -> list[str]:
            later = iter(self._behind(anchor, [ids for first, ids in runs if not first]))
            first = iter(self.texts_of([ids for first, ids in runs if first]))
            return [next(first) if begins else next(later).removeprefix(" ") for begins, _ in runs]

        return Pieces(starts, odd, silent, read)

    @property
    def _anchor(self) -> int | None:
        """A piece of letters alone, behind which the texts of others are seen."""
        alone = self.texts_of([[id] for id in range(len(self))])
        return next((id for id, text in enumerate(alone) if text.isalpha()), None)

    def _behind(self, anchor: int, rows: list[list[int]]) -> list[str]:
        """Texts of pieces as they are in the middle of a text."""
        (before,) = self.texts_of([[anchor]])
        return [text[len(before) :] for text in self.texts_of([[anchor, *row] for row in rows])]

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"kind": type(self).__name__, **own, "files": dict(self.files.contents)}

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        """The vocabulary that `to_json` has written."""
        own: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
        }
        files = own.pop("files")
        files = files if isinstance(files, TokenizerFiles) else TokenizerFiles(files)
        return cls(**{name: value for name, value in own.items() if name != "kind"}, files=files)


@dataclass(frozen=True)
class AnswerVocab(TokenizerVocab):
    """The ids of a tokenizer, as a causal model writes them behind a prompt, or from nothing.

    A text is encoded together with the end of the prompt and cut behind it, where the tokens of the prompt
    are the same with and without the text; else it is encoded alone, without special tokens.

    Args:
        before: the end of the prompt, behind its source, without blanks at its own end.
        lead: blanks that the template has at its end; they belong to what is written.
    """

    before: str = ""
    lead: str = ""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, as `encode`."""
        if not texts:
            return []
        alone = plain_ids(self.tokenizer, [self.lead + text for text in texts])
        if not self.before:
            return [self.inner(ids) for ids in alone]
        (start,) = plain_ids(self.tokenizer, [self.before])
        whole = plain_ids(self.tokenizer, [self.before + self.lead + text for text in texts])
        return [
            self.inner(ids[len(start) :] if ids[: len(start)] == start else own)
            for ids, own in zip(whole, alone, strict=True)
        ]

    def inner(self, ids: list[int]) -> list[int]:
        """Ids without EOS, which a text may spell, but not write."""
        return [id for id in ids if id != self.eos]

    def texts_of(self, rows: list[list[int]]) -> list[str]:
        """Texts of rows of ids, without the blanks that the template ends in."""
        return [text.removeprefix(self.lead) for text in super().texts_of(rows)]


@dataclass(frozen=True)
class SourceVocab(TokenizerVocab):
    """The ids of a tokenizer, as a model reads them: sources in their prompt, with special tokens.

    The id of padding is not among the words, because every token of the tokenizer may stand in a source.

    Args:
        prompt: the template, with `{source}`, or "chat" for the tokenizer's own.
        causal: the model writes behind the source, in the same sequence.
    """

    prompt: str = SLOT
    causal: bool = False

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several sources in their prompt; they are not cut."""
        if not texts:
            return []
        if self.prompt == CHAT:
            return plain_ids(self.tokenizer, [chat_text(self.tokenizer, text) for text in texts])
        return self._closed(source_ids(self.tokenizer, [self.prompt.replace(SLOT, text) for text in texts]))

    def _closed(self, rows: list[list[int]]) -> list[list[int]]:
        """A causal model goes on behind the source, so that no EOS may close it."""
        return [row[:-1] if self.causal and row[-1:] == [self.eos] else row for row in rows]

    @cached_property
    def _around(self) -> tuple[int, int]:
        """The numbers of ids before and behind the source that are the same whatever is read."""
        words = [self.words[i] for i in range(0, len(self), max(1, len(self) // MANY))]
        texts = [self.tokenizer.convert_tokens_to_string([word]).strip() for word in words]
        first, *others = self.encode_batch([PROBE, *(text for text in texts if text and text != PROBE)])
        ends = [(_same(first, other), _same(first[::-1], other[::-1])) for other in others]
        return min(before for before, _ in ends), min(behind for _, behind in ends)

    @property
    def kept(self) -> int:
        """The number of last ids that stay where a source is cut: the end of the prompt, and special ones."""
        return self._around[1]

    @property
    def least(self) -> int:
        """The number of ids of a prompt with a source of one token."""
        return sum(self._around) + 1

    def room(self, written: int) -> int | None:
        """The most ids of a source where `written` are to be written: None where there is no limit."""
        own = self.tokenizer.model_max_length
        limit = min(own if own < SANE else SANE, self.positions or SANE)
        if limit == SANE:
            return None
        return limit - (written - 1 if self.causal else 0)

    def decode_batch(
        self, tokens: Sequence[Sequence[int]], lengths: Sequence[int] | None = None
    ) -> list[str]:
        """Texts of sources without their prompt, to be shown; of a chat, between its fixed tokens."""
        head, tail = self._around
        rows = [[*row][: None if lengths is None else lengths[i]] for i, row in enumerate(tokens)]
        return [text.strip() for text in self.texts_of([row[head : len(row) - tail] for row in rows])]

    def texts_of(self, rows: list[list[int]]) -> list[str]:
        """Texts of rows of ids; Marian reads with another model of pieces than it writes with."""
        if not hasattr(self.tokenizer, "spm_source"):
            return super().texts_of(rows)
        return [
            self.tokenizer.decode(row, skip_special_tokens=True, use_source_tokenizer=True) for row in rows
        ]


KINDS = {cls.__name__: cls for cls in (TokenizerVocab, AnswerVocab, SourceVocab)}


def _same(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the first ids that are the same."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


# ── calls of a tokenizer ─────────────────────────────────────────────────────────────────────────────


def source_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts with special tokens."""
    return _ids_of(tokenizer, list(texts))


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts without special tokens but those that the texts spell."""
    return _ids_of(tokenizer, list(texts), add_special_tokens=False)


def target_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts as a model writes them, with special tokens: in its target language, for instance."""
    return _ids_of(tokenizer, text_target=list(texts)) if texts else []


def concatenates(tokenizer: Any) -> bool:
    """Return whether the text of pieces is the concatenation of their texts, but for its first blank."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None or tokenizer.clean_up_tokenization_spaces:
        return False
    decoder = json.loads(backend.decoder.__getstate__())
    steps = decoder.get("decoders", [decoder])
    return all(step["type"] in CONCATENATING and not step.get("stop") for step in steps)


def _ids_of(tokenizer: Any, *texts: list[str], **options: Any) -> list[list[int]]:
    """Call a tokenizer; it does not warn of long texts, which are cut and counted later."""
    found: list[list[int]] = tokenizer(
        *texts, **options, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    return found


def chat_text(tokenizer: Any, source: str) -> str:
    """A source as the message of a user, in the tokenizer's chat template, up to the answer."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": source}], add_generation_prompt=True, tokenize=False
    )
    return text
