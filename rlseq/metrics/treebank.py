"""Penn Treebank words of English as Stanford's PTBTokenizer (CoreNLP 3.4.1) cuts them, without Java.

The tokenizer of the caption metrics (pycocoevalcap) is a longest-match lexer: at each position all rules
are tried, the longest match is the next token, and of equally long ones that of the first rule. The rules
here follow what the program does, which `tests/campaigns/test_metrics.py` compares on random sentences.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

SplitMatch = Callable[[re.Match[str]], Sequence[str]]


class TokenRule(NamedTuple):
    """A kind of token; where a text lacks the characters that it needs, looking for it would waste time."""

    pattern: re.Pattern[str]  # its extent counts a group named "ahead", which is looked ahead at
    tokens: SplitMatch
    needs: str = ""


# characters that are part of words, besides letters
_MARKS = (
    "\u00ad\u02c2-\u02c5\u02d2-\u02df\u02e5-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065e\u0901-\u0903"
    "\u093c-\u094e"
)
_NUMERALS = "²³¹¼-¾⁰-₉⅐-ↈ①-⒛⓪-⓿❶-➓"  # numbers that are no digits; Python counts them among word characters
_LETTER = rf"(?:[^\W\d_{_NUMERALS}]|[{_MARKS}]|&[aeiouAEIOU](?:acute|grave|uml);)"
_ALNUM = rf"(?:{_LETTER}|\d)"
_APOS = "(?:['\x92’]|&apos;)"
_HYPHENS = "-\u058a\u2010\u2011"
_END = rf"{_APOS}(?i:[msd]|re|ve|ll)"
_NOT = "[nN](?:['`\x91\x92‘’‛]|&apos;)[tT]"
_PATH = r"[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},-]"
_NAME = r"[A-Za-z][A-Za-z0-9_:.-]*"
_VALUE = rf"(?:'[^'\n]*'|\"[^\"\n]*\"|{_NAME})"
_PHRASE = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_SITE = (
    r"(?:www\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
    r"|(?:[^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+(?:com|net|org|edu))"
)
_HOST = r"[^ \t\n\f\r\"<>|().\u00a0]+"
_AREA = r"(?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
_PHONE = (
    rf"{_AREA}[0-9]{{3,4}}[- \u00a0]?[0-9]{{3,5}}"
    r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_SECOND = rf"(?:[dDoOlL]{_APOS}{_ALNUM}+|[A-Za-z](?:\.[A-Za-z])+\.|{_ALNUM}+)"  # a later part of a compound
_COMPOUND = rf"(?:[dDoOlL]{_APOS})?{_ALNUM}(?:{_ALNUM}|[.,_])*(?:[{_HYPHENS}]{_SECOND})+"
_ELISION = rf"(?i:{_APOS}n(?:{_APOS}|(?![a-z]))|[ldj]{_APOS}|(?:dunkin|somethin|ol){_APOS}|{_APOS}em)"

# abbreviations that keep their period, in any case, only in capitals, and only before a number
_ANY_CASE = (
    "adj adm adv al ala alex apr ariz assn assoc asst attys? aug ave bancorp bhd bldg blvd brig bros calif "
    "capt cf cie cmdr comdr co col colo conn corp cos cpl ct dak dec dept det drs? elec ens esq est etc ext "
    "feb fla fri ft ga gen govs? hon inc ind insp intl invt jan jos jr jul jun kans? ky lieut lt ltd maj mar "
    "md messrs mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc "
    "plc pres profs? pvt rd reps? rev rt sens? sept? seq sfc sgt spc sr st ste supts? sys tel tenn thu thurs "
    "treas tues? univ va vs vt wed wisc? wm wyo ptes? ptys? sq ed\\.d ph\\.d"
)
_CAPITALS = "Ark Ill La Mass Miss Ore Pa Tex Wash Az Del"
_STARTERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More "
    "Now Once One Other Our She Since So Some Such That The Their Then There These They This We What When "
    "While Yet You Mr\\. Ms\\."
)  # after a letter and a period, these begin a new sentence
_BEFORE_NUMBER = "art ca figs? nos? op pp prop"


def _any_of(words: str, extra: str = "") -> str:
    return f"(?:{'|'.join([*words.split(), *extra.split()])})"


_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN = {"¢": "cents", "£": "#", "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_WRITTEN |= dict.fromkeys("\x80¤₠€", "$")
_QUOTES = {
    mark: plain
    for plain, marks in {"`": "\x91‘‛‹", "'": "\x92’›", "``": "\x93«“", "''": "\x94»”"}.items()
    for mark in marks
}
# marks that are words; any other character that is no letter is dropped, and so is punctuation
_SYMBOLS = (
    r"#-&*+/<->@\\^_|~¡¥-©¬®-´¶-¹¿×÷\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3"
    r"\u05f4\u060c\u061b\u061e\u061f\u066a\u06d4\u0964\u0965\u0e3f\u1fbd‖‗‚„-•‰-‸※‾-\u2042⁄⁰⁴-⁾₀-₎₤℀℁℃-℆℈℉℔№-℘℞-℣℥℧℩℮℺℻"
    "⅀-⅄⅊-⅍⅏⅕-⅞\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65￠￡￥￦"
)


def _whole(match: re.Match[str]) -> Sequence[str]:
    """Return the match as one word."""
    return [match.group()]


def _parts(match: re.Match[str]) -> Sequence[str]:
    """Return every group that matched as a word."""
    return [part for part in match.groups() if part is not None]


def _ending(match: re.Match[str]) -> Sequence[str]:
    """Return an ending such as 's or n't, with a straight apostrophe."""
    return [re.sub(f"{_APOS}|[`‘‛]", "'", match.group())]


def _written(match: re.Match[str]) -> Sequence[str]:
    """Return a currency or a fraction as the treebank writes it, brackets by name."""
    text = _WRITTEN.get(match.group(), match.group())
    return ["".join(_BRACKETS.get(letter, letter) for letter in text)]


def _plain(match: re.Match[str]) -> Sequence[str]:
    """Return the match, with the characters that its entities stand for."""
    return [html.unescape(match.group().lower())]


def _quoted(match: re.Match[str]) -> Sequence[str]:
    """Return several quotation marks in a row as one word of straight marks."""
    return ["".join(_QUOTES[mark] for mark in match.group())]


def _nothing(match: re.Match[str]) -> Sequence[str]:
    """Return no word, for punctuation."""
    return []


_RULES: list[TokenRule] = [
    TokenRule(re.compile(pattern), tokens, *needs)
    for pattern, tokens, *needs in (
        (r"(?i:(can)(not)|(gon)(na)|(got)(ta)|(lem)(me)|(gim)(me)|(wan)(na)|('t)(is|was))", _parts),
        (rf"<(?:[!?][A-Za-z-][^>\n]*|/?{_NAME}(?:[ ]+{_NAME}(?:[ ]*=[ ]*{_VALUE})?)*[ ]*/?)[ ]*>", _whole),
        (r"(?i:&(?:amp|lt|gt|quot|apos);)", _plain),
        (r"&(?:MD|mdash|ndash|nbsp|odq|cdq);", _nothing),
        (r"&(?:HT|TL|UR|LR|QC|QL|QR|#[0-9]+);", _whole),
        (rf"{_LETTER}+(?=(?P<ahead>{_END}))", _whole),
        (rf"[A-Za-z]*[A-MO-Za-mo-z](?=(?P<ahead>{_NOT}))", _whole),
        (rf"{_LETTER}+", _whole),
        (_ELISION, _whole),
        (rf"(?i:c{_APOS}mon|{_APOS}[2-9]0s|{_APOS}till?|{_APOS}cause|cont'd\.?|nor'easter)", _whole),
        (rf"(?i:e'er|s'mores|ev'ry|li'l|nat'l)|{_LETTER}+[aeiouyAEIOUY]{_APOS}[aeiouA-Z]{_LETTER}*", _whole),
        (rf"[yY]{_APOS}(?=(?P<ahead>{_LETTER}))", _whole),
        (rf"(?i:https?://){_PATH}", _whole),
        (rf"{_SITE}(?:/{_PATH})?", _whole),
        (rf"<?[a-zA-Z0-9][^ \t\n\f\r\"<>|()\u00a0]*@(?:{_HOST}\.)*{_HOST}>?", _whole, "@"),
        (rf"@[a-zA-Z_][a-zA-Z_0-9]*|\#{_LETTER}(?:{_ALNUM}|_)*", _whole),
        (rf"{_END}(?=(?P<ahead>[^A-Za-z]|$))", _ending),
        (_NOT, _ending),
        (r"[+-]?(?:\d*(?:[.:,\u00ad\u066b\u066c]\d+)+|\d+)", _whole),
        (r"[⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+)", _whole),
        (r"(?:\d{1,4}[- \u00a0])?\d{1,4}(?:\\?/|⁄)\d{1,4}", _whole),
        (rf"{_LETTER}+(?:[.!?]{_LETTER}+)+", _whole),
        (rf"(?:[dDoOlL]{_APOS}{_ALNUM})?{_ALNUM}+(?:_{_ALNUM}+)*", _whole),
        (r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", _plain),
        (r"C\+\+|[CF]\#", _whole),
        (rf"{_PHRASE}(?:\\?/{_PHRASE}){{1,2}}", _whole),
        (_COMPOUND, _whole, _HYPHENS),
        (rf"(?i:{_any_of(_ANY_CASE)})\.|{_any_of(_CAPITALS, _CAPITALS.upper())}\.", _whole),
        (rf"(?i:{_any_of(_BEFORE_NUMBER)})\.(?=(?P<ahead>[ \t]?\d))", _whole),
        (r"(?:Canada|Sino|Korean|EU|Japan|non)-U\.S\.|U\.S\.-(?:U\.K|U\.S\.S\.R)\.", _whole),
        (rf"[A-Za-z](?=(?P<ahead>\.[ ]+{_any_of(_STARTERS, _STARTERS.upper())}[ ]))", _whole),
        (rf"{_LETTER}+\.(?=(?P<ahead>[,;:、]))", _whole),
        (r"[A-Za-z](?:\.[A-Za-z])*\.", _whole),
        (rf"{_APOS}\d\d(?=(?P<ahead>[ ]|$))", _whole),
        (_PHONE, _written),
        (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", _written),
        (r"[-^x=~<>']_[-^x=~<>']|[\^x=~<>]\.[\^x=~<>]", _whole),
        (r"[A-Z]*\$", _whole),
        (r"[¢£¼½¾⅓⅔\x80¤₠€()\[\]{}]", _written),
        (r"[?!]{2,}|\*{2,3}|_+|<<|>>", _whole),
        (rf"[{_SYMBOLS}]", _whole),
        (rf"[{''.join(_QUOTES)}]{{2,}}", _quoted),
        (r"''|``|-{5,}", _whole),
        (r"-{2,}|\.{2,}|(?:\.[ \u00a0]){2,4}\.|.", _nothing),
    )
]  # fmt: skip
_FAST = re.compile(r"([A-Za-z]+)(?=[ ]|$)")
_SPLIT = {"cannot", "gonna", "gotta", "lemme", "gimme", "wanna"}


def penn_treebank(text: str) -> list[str]:
    """Return lower-cased Penn Treebank words without punctuation, as captions are prepared for CIDEr.

    As pycocoevalcap runs Stanford's PTBTokenizer, on plain English; no Java. Brackets stay, as "-lrb-" and
    so on: pycocoevalcap means to drop them but looks for capitals. A token with a blank, such as "3 1/2",
    counts as the words that the metrics of pycocoevalcap split it into.
    """
    words: list[str] = []
    rules = [rule for rule in _RULES if not rule.needs or any(mark in text for mark in rule.needs)]
    at = 0
    while at < len(text):
        plain = _FAST.match(text, at)
        if text[at].isspace():
            at += 1
        elif plain and plain[1].lower() not in _SPLIT:  # most words; no rule has a longer match for them
            words.append(plain[1].lower())
            at = plain.end()
        else:
            match, tokens = _longest(rules, text, at)
            words += [part for token in tokens(match) for part in token.lower().replace("\u00ad", "").split()]
            at = match.end()
    return [word for word in words if word not in _PUNCTUATION]


_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", '"'])


def _longest(rules: Sequence[TokenRule], text: str, at: int) -> tuple[re.Match[str], SplitMatch]:
    """Return the longest match of all rules, the first of equally long ones."""
    best: tuple[re.Match[str], SplitMatch] | None = None
    extent = -1
    for pattern, tokens, _ in rules:
        if found := pattern.match(text, at):
            end = found.end("ahead") if "ahead" in pattern.groupindex else found.end()
            if end > extent:
                best, extent = (found, tokens), end
    assert best is not None  # the last rule matches any character
    return best
