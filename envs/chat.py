"""Dialogue: answer what was said, for one turn or several, judged by rules that a person could write down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from random import Random
from typing import ClassVar

from typing_extensions import Unpack

from rlseq.data.encode import Level, Reading, load
from rlseq.data.formats import Pair
from rlseq.data.locate import Origin, Where, find
from rlseq.data.threads import TURN, pairs_of_thread, thread_formats
from rlseq.envs.chat_rules import CHAT_RULES, Rules
from rlseq.envs.corpus_task import FileOptions, given_words
from rlseq.envs.dialogues import USERS, Dialogues, User
from rlseq.types import HeldOut, Reward, RewardLike
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.errors import pick


class Chat(Dialogues):
    """Answer what was said. Reward: 1 less a point for each rule that an answer breaks.

    The rules: it loops, it is generic ("i do not know"), it is shorter than two words, it is off topic. With
    several turns a text is a dialogue, `answer <turn> question <turn> answer`, and its reward the mean of its
    answers; the other side's words are the only legal ones in its turns.

    Args:
        path: threads as .tsv, .jsonl or chatterbot's .yml (docs/tasks/chat.md); a small grammar of questions
            and answers, one in ten of them generic, when not given.
        split: "train", "dev" or "test".
        turns: answers in an episode.
        user: the other side, from the second turn on: "recorded" goes on as the thread did, "asks_again"
            repeats its question after an answer that breaks a rule, "self" lets the policy speak for both; or
            any function of the turns so far that returns a text, or None to end.
        reward: "rules"; a name of `rlseq metrics`, such as "chrf" or "bleu", or any reward.
        generic: answers that count as generic; when not given, those of the grammar, or in a file those to
            one question in fifty, and to five at least.
        level: "char", "word" or "bpe"; words where there are several turns.
        **options: see `FileOptions`, and of a pretrained model's tokenizer docs/guides/tokenizers.md.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        turns: PositiveInt = 1,
        user: str | User = "recorded",
        reward: RewardLike = "rules",
        generic: Sequence[str] | None = None,
        level: Level = None,
        **options: Unpack[FileOptions],
    ) -> None:
        if turns > 1 and level not in (None, "word"):
            raise ValueError(f"several turns are written in words, level='word', got level={level!r}")
        if turns > 1 and options.get("tokenizer") is not None:
            raise ValueError(f"a tokenizer goes with turns=1, got turns={turns}: it has no word {TURN}")
        self.turns, self.user, self.said = turns, user if callable(user) else pick(USERS, user, "user"), {}
        toy = Origin(lambda: iter(toy_pairs_of_turns(turns)))
        origins = {"all": toy} if path is None else find(path, thread_formats(turns))
        words = given_words(options.get("words"), options, True, level=level)
        skip_bad = options.get("skip_bad", False)
        reading = Reading("word" if turns > 1 else level, skip_bad=skip_bad, words=words)
        corpus = load(origins, split, reading)
        generic = GENERIC if path is None and generic is None else generic
        rules = Rules(corpus, generic, turns, self.user == "self")
        own: dict[str, Reward] = {"rules": rules, **{name: rules.broken(name) for name in CHAT_RULES}}
        reported = ("rules", *CHAT_RULES, "distinct_2")
        super().__init__(corpus, reward=reward, metrics=reported, own=own, **options)
        rules.corpus = self.corpus  # whose items are those of contexts: longer references are left out
        self.rules = rules


# ── the embedded default ─────────────────────────────────────────────────────────────────────────────

SPOKEN = """
OPENINGS = well maybe surely perhaps certainly probably yes hm oh listen naturally clearly indeed right so
MANNERS  = old young quiet tall clever kind merry proud
PEOPLE   = sailor teacher child baker poet farmer stranger queen
"""
OPENINGS, MANNERS, PEOPLE = (line.split(" = ")[1].split() for line in SPOKEN.strip().splitlines())
QUESTIONS = {  # and how their answers end
    "where is the {}": "in the harbour|in the garden|in the market|in the forest|in the kitchen",
    "what does the {} buy": "a boat|a lamp|a letter|an apple|a violin",
    "when does the {} sleep": "at noon|at night|at dawn|at times|at last",
    "how is the {} today": "quite happy|quite tired|quite ill|quite busy|quite angry",
    "what does the {} read": "about ships|about birds|about love|about war|about gold",
    "who knows the {}": "his mother|his brother|his aunt|his cousin|his uncle",
    "how does the {} travel": "by boat|by train|by bus|by horse|by sledge",
    "why does the {} sing": "for joy|for money|for fun|for bread|for fame",
}
GENERIC = ("i do not know", "i am sorry")  # of ten generic answers, nine and one
ANSWERS = 8  # to a question


@lru_cache(maxsize=4)
def toy_pairs_of_turns(turns: int, seed: int = 0) -> tuple[Pair, ...]:
    """Draw dialogues about every question; answers begin in fifteen ways, and one in ten is generic."""
    draw = Random(seed)
    found: list[Pair] = []
    every = [(f, f"{k} {p}") for f, k, p in product(QUESTIONS, MANNERS, PEOPLE)]
    for form, who in every:
        for _ in range(ANSWERS):
            thread: list[str] = []
            for asked, whom in [(form, who), *draw.choices(every, k=turns - 1)]:
                thread += [asked.format(whom), _answer(asked, draw)]
            found += pairs_of_thread(thread, turns)
    return tuple(found)


def _answer(form: str, draw: Random) -> str:
    if draw.random() < 0.1:
        return GENERIC[draw.random() < 0.1]
    return f"{draw.choice(OPENINGS)} {draw.choice(QUESTIONS[form].split('|'))}"
