"""From plain text to words, as the reference implementations cut it.

A tokeniser is any function from a text to a list of words (or of token ids), so a new one needs
no registration: pass it as `tokenize=`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Tokenize = Callable[[str], Sequence[str] | Sequence[int]]


def whitespace(text: str) -> list[str]:
    """Words between any run of white space."""
    return text.split()


def single_space(text: str) -> list[str]:
    """Words between single blanks, empty ones too, as pycocoevalcap's ROUGE-L has them."""
    return text.split(" ")


def characters(text: str) -> list[str]:
    """Every character, blanks included: the unit of the character error rate."""
    return list(text)


def letters(text: str) -> list[str]:
    """Every character that is not white space: the unit of chrF."""
    return list("".join(text.split()))


def lowercase(text: str) -> list[str]:
    """Lower-cased words between white space: the default of TER (Tercom)."""
    return text.lower().split()


_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# ASCII symbols that are words of their own everywhere; "'", ",", "-" and "." depend on neighbours.
_SYMBOLS = re.compile(r"([!-&(-+/:-@\[-`{-~ ])")
_AFTER_NON_DIGIT = re.compile(r"([^0-9])([.,])")
_BEFORE_NON_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")


def mteval_13a(text: str) -> list[str]:
    """The tokenisation "13a" of WMT's mteval script, sacreBLEU's default."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, symbol in _ENTITIES:
        text = text.replace(entity, symbol)
    text = _SYMBOLS.sub(r" \1 ", f" {text} ")
    text = _AFTER_NON_DIGIT.sub(r"\1 \2 ", text)
    text = _BEFORE_NON_DIGIT.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


# Penn Treebank rules for English, in the order in which they are tried at each position.
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|jr|sr|st|vs|prof|gen|rep|sen|gov|capt|lt|col|sgt|ave|blvd|rd|etc|inc|co|corp|"
    "ltd|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mt|ft|ph\\.d"
)
_ENDING = r"(?:n['’]t|['’](?:s|re|ve|ll|d|m))(?!\w)"
_PTB = re.compile(
    r"(?:https?://|www\.)[^\s\"<>|()]+[^\s\"<>|.!?(){},-]"  # addresses
    r"|[\w.+-]+@\w+(?:[.-]\w+)+"
    r"|[#@][a-z_]\w*"  # tags
    r"|<[^>\s]+>"
    r"|'(?:tis|twas)\b|'n'|y'(?=all\b)"
    r"|can(?=not\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\b)|gim(?=me\b)|lem(?=me\b)"
    rf"|{_ENDING}|'\d\ds?\b"
    r"|(?:[a-z]\.){2,}|[a-z]\.(?!\w)"  # u.s.
    rf"|(?:{_ABBREVIATIONS})\.(?!\w)|no\.(?=\s+\d)"
    r"|\d+(?:[.:]\d+)*(?=[ap]m\b)"  # 12:45 pm
    r"|[+-]?\d+(?:[.,:/-]\d+)*(?![\w-])|[+-]?\.\d+"
    rf"|[^\W_]+?(?={_ENDING})"
    r"|o'clock|ma'am"
    rf"|[^\W_](?:[\w&]*\w)?(?:[-/.][^\W_]\w*|['’](?!n['’])(?!(?:s|re|ve|ll|d|m)(?!\w))[^\W_]\w*)*?"
    rf"(?=n['’]t(?!\w)|(?![\w&]|[-/.][^\W_])(?!['’][^\W_])|{_ENDING}|'n')"
    r"|\.\.+|--+|[?!]+|\S"
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_PUNCTUATION = re.compile(r"['\"`“”‘’.?!,:;…-]|\.+|-+|''|``")


def penn_treebank(text: str) -> list[str]:
    """Lower-cased Penn Treebank words without punctuation, as captions are prepared for CIDEr.

    Follows Stanford's PTBTokenizer, as pycocoevalcap runs it, on plain English; no Java. Brackets
    stay, as "-lrb-" and so on: pycocoevalcap means to drop them but looks for capitals.
    """
    words = _PTB.findall(text.lower())
    return [_BRACKETS.get(word, word) for word in words if not _PUNCTUATION.fullmatch(word)]
