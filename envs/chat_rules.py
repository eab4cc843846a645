"""Rules that judge answers: loops, generic answers, short ones, and those that are off topic."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from rlseq.data.corpus import Corpus
from rlseq.data.threads import TURN
from rlseq.types import Context, Reward

LEAST_WORDS = 2
EVERYWHERE = 0.2  # share of the questions in whose answers a word occurs that tells of no topic
OFTEN, LEAST_OFTEN = 1 / 50, 5  # share and number of the questions that a generic answer answers
JudgeAnswer = Callable[
    ["Rules", list[str], str], bool
]  # (earlier turns, answer) -> whether it breaks the rule


class Rules:
    """A reward of 1 less a point for each rule that an answer breaks; of several answers the mean.

    Args:
        corpus: whose answers tell what is on topic, and which ones are generic.
        generic: answers that are; when not given, those to one question in fifty, and to five at least.
        turns: answers of a dialogue; one that is missing is judged as an empty one.
        every: judge both sides, as where a policy speaks for both.
    """

    def __init__(self, corpus: Corpus, generic: Sequence[str] | None, turns: int, every: bool) -> None:
        self.corpus, self.given = corpus, generic
        self.step, self.judged = (1, 2 * turns - 1) if every else (2, turns)

    @cached_property
    def questions(self) -> list[str]:
        """The source of every item as text."""
        assert self.corpus.sources is not None
        assert self.corpus.source_vocab is not None
        ids, ends = (part.tolist() for part in (self.corpus.sources.ids, self.corpus.sources.ends))
        rows = [ids[start:end] for start, end in pairwise(ends)]
        return [self.corpus.source_vocab.decode(row) for row in rows]

    @cached_property
    def answers(self) -> dict[str, set[str]]:
        """The recorded answers to every question."""
        found = defaultdict[str, set[str]](set)
        for question, texts in zip(self.questions, self.corpus.texts(), strict=True):
            for text in texts:
                turns = turns_of(question, text)
                for asked, answer in zip(turns[::2], turns[1::2], strict=False):
                    found[asked].add(answer)
        return dict(found)

    @cached_property
    def generic(self) -> frozenset[str]:
        """The answers that count as generic."""
        if self.given is not None:
            return frozenset(self.given)
        counts = Counter(answer for answers in self.answers.values() for answer in answers)
        least = max(LEAST_OFTEN, OFTEN * len(self.answers))
        return frozenset(answer for answer, count in counts.items() if count >= least)

    @cached_property
    def topics(self) -> dict[str, set[str]]:
        """The words of the answers to every question that tell of a topic."""
        words = {
            question: {word for answer in answers - self.generic for word in answer.split()}
            for question, answers in self.answers.items()
        }
        counts = Counter(word for some in words.values() for word in some)
        common = {word for word, count in counts.items() if count > EVERYWHERE * len(words)}
        return {question: some - common for question, some in words.items()}

    def count(self, earlier: list[str], answer: str) -> int:
        """Return how many rules an answer breaks, after the turns before it."""
        return sum(rule(self, earlier, answer) for rule in CHAT_RULES.values())

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return 1 less the number of rules broken, `[B]`."""
        return 1 - self._mean(self.count, tokens, mask, context)

    def broken(self, name: str) -> Reward:
        """Return the share of answers that break a rule, as a metric."""
        rule = CHAT_RULES[name]
        return lambda tokens, mask, context: self._mean(
            lambda earlier, answer: rule(self, earlier, answer), tokens, mask, context
        )

    def _mean(
        self, judge: Callable[[list[str], str], float], tokens: Tensor, mask: Tensor, context: Context
    ) -> Tensor:
        texts = self.corpus.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist())
        rows = zip(context["index"].tolist(), texts, strict=True)
        sums = [sum(float(judge(*pair)) for pair in self._pairs(item, text)) for item, text in rows]
        return torch.tensor(sums, device=tokens.device) / self.judged

    def _pairs(self, item: int, text: str) -> Iterator[tuple[list[str], str]]:
        """Yield every turn that is judged, and those before it."""
        turns = turns_of(self.questions[item], text)
        for n in range(1, 1 + self.step * self.judged, self.step):
            yield turns[:n], turns[n] if n < len(turns) else ""


def turns_of(question: str, text: str) -> list[str]:
    """Return the turns of a dialogue, its first question among them."""
    return [question, *(turn.strip() for turn in text.split(TURN))]


def loops(rules: Rules, earlier: list[str], answer: str) -> bool:
    """Return whether a word follows itself, two words come twice in the same order, or a turn comes again."""
    words = answer.split()
    pairs = list(pairwise(words))
    again = bool(answer) and answer in earlier
    return again or len(set(pairs)) < len(pairs) or any(a == b for a, b in pairs)


def generic(rules: Rules, earlier: list[str], answer: str) -> bool:
    """Return whether an answer fits any question."""
    return answer in rules.generic


def short(rules: Rules, earlier: list[str], answer: str) -> bool:
    """Return whether an answer has fewer than two words."""
    return len(answer.split()) < LEAST_WORDS


def off_topic(rules: Rules, earlier: list[str], answer: str) -> bool:
    """Return whether an answer shares no topical word with the recorded answers, where there are any."""
    topic = rules.topics.get(earlier[-1]) if earlier else None
    return topic is not None and not topic.intersection(answer.split())


CHAT_RULES: dict[str, JudgeAnswer] = {
    "loops": loops,
    "generic": generic,
    "short": short,
    "off_topic": off_topic,
}
