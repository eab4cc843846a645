"""Answers that need no learning, as baselines of tasks: a constant, the source, the nearest training item's.

A rule makes a plan, the tokens of a text for every item. A plan is written as a policy writes: where its
token is not legal, the first legal one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import rlseq
from rlseq.data.boxes import soft_nms, suppress
from rlseq.engine.evaluation import EvaluatedTexts, evaluate_texts
from rlseq.types import BasePolicy, Context

KNOWN = 2000  # training items among which the nearest is looked for
CONSTANTS = 8  # frequent references that are tried as the answer to everything
HASHED = 4096  # columns for the words and pairs of words of a source
State = tuple[Tensor, Tensor]


class Planned(BasePolicy):
    """Writes a plan `[N, T]`, item by item; a plan of zeros everywhere, `likes=0`, gives uniform samples."""

    def __init__(self, plan: Tensor, words: int, likes: float = 30.0) -> None:
        super().__init__()
        self.plan, self.words, self.likes = plan, words, likes

    def start(self, context: Context) -> State:
        """Look up the plans of the items."""
        plan = self.plan[context["index"].clamp(max=len(self.plan) - 1)]
        return plan, torch.zeros(len(plan), dtype=torch.int64)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Prefer the next token of the plan."""
        plan, place = state
        planned = plan.gather(1, place.unsqueeze(1)).squeeze(1)
        logits = self.likes * F.one_hot(planned, self.words).float()
        return logits, (plan, (place + 1).clamp(max=plan.shape[1] - 1))


def baselines(id: str, test: Any, limit: int, rules: Any = ()) -> dict[str, EvaluatedTexts]:
    """Return the texts of every rule that goes with a task, by the name of the rule."""
    train = rlseq.make(id, num_envs=100)
    plans = {name: plan for make in (constants, copies, nearest, *rules) for name, plan in make(train, test)}
    nothing = torch.zeros(1, test.max_len, dtype=torch.int64)
    uniform = Planned(nothing, len(test.vocab), likes=0.0)
    found = {"random words": evaluate_texts(uniform, test, "sample", limit=limit)}
    for name, plan in plans.items():
        found[name] = evaluate_texts(Planned(plan, len(test.vocab)), test, limit=limit)
    return found


def constants(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the best constant answer on training items: a frequent reference, or one word again and again."""
    known = some(train)
    if "references" in known:
        rows, counts = torch.unique(fitted(known["references"][:, 0], test), dim=0, return_counts=True)
        tried = rows[counts.argsort(descending=True, stable=True)[:CONSTANTS]]
    elif len(test.vocab) <= 64:
        tried = torch.arange(len(test.vocab)).unsqueeze(1).expand(-1, test.max_len)
    else:
        return
    policies = [Planned(row.unsqueeze(0), len(test.vocab)) for row in tried]
    earned = [rlseq.evaluate(policy, train, limit=100)["reward"] for policy in policies]
    best = max(range(len(tried)), key=earned.__getitem__)
    yield "one constant answer", tried[best].unsqueeze(0)


def copies(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the source itself, where most of its words can be written."""
    items = test.contexts(torch.arange(test.size))
    if "source" not in items or test.source_vocab is None:
        return
    lengths = (items["source"] != test.source_vocab.pad).sum(1).tolist()
    texts = test.source_vocab.decode_batch(items["source"].tolist(), lengths)
    known, eos = set(test.vocab.words), test.vocab.eos or 0
    words = [[word for word in text.split() if word in known] for text in texts]
    if 2 * sum(map(len, words)) > sum(len(text.split()) for text in texts):
        ids = [[test.vocab.words.index(word) for word in row] + [eos] for row in words]
        yield "the source", torch.stack([fitted(torch.tensor([row]), test)[0] for row in ids])


def nearest(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the reference of the training item whose source is the most similar, or of any item."""
    known = some(train)
    if "references" not in known:
        return
    plans = fitted(known["references"][:, 0], test)
    items = test.contexts(torch.arange(test.size))
    seen = [features(context, test) for context in (items, known)]
    if seen[0] is None or seen[1] is None:
        yield "a training text", plans[torch.arange(test.size) % len(plans)]
        return
    alike = F.normalize(seen[0]) @ F.normalize(seen[1]).T
    yield "answer to the nearest training item", plans[alike.argmax(1)]


def some(train: Any) -> Context:
    """Return items of the training task, drawn by a fixed seed."""
    order = torch.randperm(train.size, generator=torch.Generator().manual_seed(0))
    return dict(train.contexts(order[:KNOWN]))


def features(context: Context, test: Any) -> Tensor | None:
    """Return what is observed of items as vectors: counts of words and of pairs of words, or numbers."""
    if test.observed:
        seen = [context[name].flatten(1).float() for name in test.observed]
        whole = torch.cat(seen, 1)
        return whole - whole.mean(1, keepdim=True)
    if "source" not in context or test.source_vocab is None:
        return None
    source = context["source"].long()
    pairs = source[:, :-1] * 7919 + source[:, 1:] * 104_729 + 1
    counts = torch.zeros(len(source), HASHED)
    for codes in (source, pairs):
        there = (source[:, : codes.shape[1]] != test.source_vocab.pad).float()
        counts.scatter_add_(1, codes % HASHED, there)
    return counts


def fitted(tokens: Tensor, test: Any) -> Tensor:
    """Return texts with T columns, ends after them."""
    room = max(0, test.max_len - tokens.shape[1])
    return F.pad(tokens, (0, room), value=test.vocab.eos or 0)[:, : test.max_len]


# ── rules of single tasks ────────────────────────────────────────────────────────────────────────────


def soft_suppression(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the boxes that soft NMS keeps, with the least score of those tried that is best in training."""

    def plan(scenes: Any, least: float) -> Tensor:
        return fitted(suppress(scenes.candidates, soft_nms(0.3), least) + 1, test)

    def earned(least: float) -> float:
        policy = Planned(plan(train.scenes, least), len(test.vocab))
        return rlseq.evaluate(policy, train, limit=200)["reward"]

    yield "soft NMS", plan(test.scenes, max((0.3, 0.4, 0.5, 0.6), key=earned))


def first_sentence(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield keeping the first sentence alone."""
    plan = torch.full((1, test.max_len), test.vocab.words.index("drop"))
    plan[0, 0] = test.vocab.words.index("keep")
    yield "the first sentence", plan


def backwards(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the source from its end to its beginning."""
    source = test.contexts(torch.arange(test.size))["source"]
    lengths = (source != test.source_vocab.pad).sum(1, keepdim=True)
    place = lengths - 1 - torch.arange(source.shape[1])
    yield "the source backwards", fitted(source.gather(1, place.clamp(min=0)).where(place >= 0, 0), test)


def likeliest_label(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield for every letter of the source the label that it has most often in training."""
    known = some(train)
    pairs = known["source"] * len(test.vocab) + known["references"][:, 0]
    counts = pairs.flatten().bincount(minlength=test.source_vocab.num_ids * len(test.vocab))
    label = counts.view(-1, len(test.vocab)).argmax(1)
    yield "likeliest label of each letter", label[test.contexts(torch.arange(test.size))["source"]]


def first_that_fits(train: Any, test: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the first document that has the properties which are read, without a question."""
    read = test.contexts(torch.arange(test.size))["source"] - 1  # [N, 2]: 2 × property + answer
    has = test.table.T[read // 2].long()  # [N, 2, documents]
    fits = (has == (read % 2).unsqueeze(2)).all(1)
    yield "the first document that fits", fitted((test.documents + fits.int().argmax(1)).unsqueeze(1), test)


Rule = Callable[[Any, Any], Iterator[tuple[str, Tensor]]]
