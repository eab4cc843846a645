"""Tokenisers: from plain text to words, as the reference implementations do it.

A tokeniser is any function from a text to a list of words (or of token ids), so a new one needs
no registration: pass it as `tokenize=`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

Tokenize = Callable[[str], Sequence[str] | Sequence[int]]


def whitespace(text: str) -> list[str]:
    """Return words between runs of white space."""
    return text.split()


def single_space(text: str) -> list[str]:
    """Return words between single blanks, empty ones too, as pycocoevalcap's ROUGE-L does."""
    return text.split(" ")


def characters(text: str) -> list[str]:
    """Return all characters, blanks included: the unit of the character error rate."""
    return list(text)


def letters(text: str) -> list[str]:
    """Return all characters that are not white space: the unit of chrF."""
    return list("".join(text.split()))


def lowercase(text: str) -> list[str]:
    """Return lower-cased words between white space: the default of TER (Tercom)."""
    return text.lower().split()


_ASCII_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def end_marks(text: str) -> list[str]:
    """Return the words of chrF++: between white space, a mark at the end, or else at the start, apart."""
    words: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _ASCII_MARKS:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _ASCII_MARKS:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# ASCII symbols that are words of their own everywhere; "'", ",", "-" and "." depend on neighbours.
_SYMBOLS = re.compile(r"([!-&(-+/:-@\[-`{-~ ])")
_AFTER_NON_DIGIT = re.compile(r"([^0-9])([.,])")
_BEFORE_NON_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")


def mteval_13a(text: str) -> list[str]:
    """Return the tokens "13a" of WMT's mteval script, sacreBLEU's default."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, symbol in _ENTITIES:
        text = text.replace(entity, symbol)
    text = _SYMBOLS.sub(r" \1 ", f" {text} ")
    text = _AFTER_NON_DIGIT.sub(r"\1 \2 ", text)
    text = _BEFORE_NON_DIGIT.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


# Tokenisers that cut what stands between white space as if it stood alone; only 13a joins words over the end
# of a line.
BETWEEN_BLANKS = (whitespace, lowercase, end_marks, letters, mteval_13a)

_TERCOM_SYMBOLS = re.compile(r"([{-~\[-` -&(-+:-@/])")
_POSSESSIVE = re.compile(r"'s(?= |$)")
_HAN = re.compile(
    "([\u4e00-\u9fff\u3400-\u4dbf\u31c0-\u31ef\u2e80-\u2eff\u3200-\u3f22\uf900-\ufaff\ufe30-\ufe4f])"
)
# Tercom as sacreBLEU ports it: a text that is Hiragana or Katakana as a whole, or from its second letter on
_KANA = [
    re.compile(f"(^|^[{r}])([{r}]+)(?=$|^[{r}])") for r in ("\u3040-\u309f", "\u30a0-\u30ff", "\u31f0-\u31ff")
]
_ASIAN_MARKS = re.compile(
    "([\u3001\u3002\u3008-\u3011\u3014-\u301f\uff61-\uff65\u30fb\uff0e\uff0c\uff1f\uff1a\uff1b\uff01\uff02\uff08\uff09])"
)
_MARKS = re.compile(r"[.,?:;!\"()]")


def tercom(
    *,
    normalized: bool = False,
    no_punct: bool = False,
    asian_support: bool = False,
    case_sensitive: bool = False,
) -> Tokenize:
    """Return the tokenizer of TER with sacreBLEU's options, to be passed as `TER(tokenize=…)`.

    Args:
        normalized: separate punctuation from words, and replace XML entities and line breaks.
        no_punct: remove punctuation.
        asian_support: with `normalized`, also split East Asian text into characters; with `no_punct`, also
            remove its punctuation.
        case_sensitive: keep capitals.
    """
    steps: list[Callable[[str], str]] = []
    if not case_sensitive:
        steps.append(str.lower)
    if normalized:
        steps += [_western, _asian] if asian_support else [_western]
    if no_punct:
        steps.append(partial(_MARKS.sub, ""))
        steps += [partial(_ASIAN_MARKS.sub, "")] if asian_support else []

    def tokenize(text: str) -> list[str]:
        text = text.rstrip()
        for step in steps:
            text = step(text)
        return text.split()

    options = {"norm": normalized, "nopunct": no_punct, "asian": asian_support, "case": case_sensitive}
    tokenize.__name__ = "+".join(["tercom", *(name for name, given in options.items() if given)])
    return tokenize


def _western(text: str) -> str:
    """Separate punctuation as Tercom does for languages of the West."""
    text = text.replace("\n-", "").replace("\n", " ")
    for entity, symbol in _ENTITIES:
        text = text.replace(entity, symbol)
    text = _TERCOM_SYMBOLS.sub(r" \1 ", f" {text} ")
    text = _POSSESSIVE.sub(" 's", text)
    text = _AFTER_NON_DIGIT.sub(r"\1 \2 ", text)
    text = _BEFORE_NON_DIGIT.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text)


def _asian(text: str) -> str:
    """Separate the characters and the punctuation of East Asian text as Tercom does."""
    text = _HAN.sub(r" \1 ", text)
    for kana in _KANA:
        text = kana.sub(r"\1 \2 ", text)
    return _ASIAN_MARKS.sub(r" \1 ", text)
