"""Questions about texts: drawn from the policies of one run or two, and texts as a reward reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from rlseq.discriminators.texts import TextBatch
from rlseq.engine.decode import Sample
from rlseq.engine.generation import ids_of_sources
from rlseq.engine.rollout import rollout
from rlseq.feedback.labels import Question
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task import no_reward
from rlseq.training.model import Model
from rlseq.vocab.words import UNK

TOGETHER = 64  # items whose texts are drawn at a time
PASSES = 10  # over the items, before too few different texts are an error


def draw_questions(
    writers: Mapping[str, Model],
    env: SequenceEnv,
    number: int,
    *,
    texts: int,
    temperature: float,
    seed: int,
    known: Collection[Question] = (),
) -> list[Question]:
    """Return questions about random items, none of them twice.

    Args:
        writers: models by the name of their run: one, which writes all texts of a question; or two, which
            write one each, and are shown in random order.
        env: the task that has the items.
        number: of questions.
        texts: of a question, one or two.
        temperature: of the samples.
        seed: of items and samples.
        known: questions that are not drawn again.
    """
    if env.observed:
        raise ValueError(
            f"{type(env).__name__} observes {', '.join(sorted(env.observed))}, and only texts can be shown "
            "beside texts; label the texts of a task whose sources are texts"
        )
    generator = torch.Generator().manual_seed(seed)
    found = dict.fromkeys(known)
    env.reseed(seed)
    names = [list(writers)[place % len(writers)] for place in range(texts)]
    for _ in range(PASSES):
        for items in torch.split(torch.randperm(env.size, generator=generator), TOGETHER):
            columns = [_written(writers[name], env, items.to(env.device), temperature) for name in names]
            for question in _about(items, _sources(env, items), names, columns, generator):
                if all(reads_back(env, text) for text in question.texts):
                    found.setdefault(question)
                if len(found) == len(known) + number:
                    return list(found)[len(known) :]
    raise ValueError(
        f"{PASSES} samples for each of {env.size:,} items made {len(found) - len(known):,} questions with "
        f"different texts, not {number:,}; ask for fewer (--number), or draw at a higher --temperature"
    )


def reads_back(env: SequenceEnv, text: str) -> bool:
    """Return whether a reward model can read a text as it was written; of characters, `<unk>` is five."""
    ids = list(env.vocab.encode(text))
    return len(ids) <= env.max_len and (UNK not in text or env.vocab.decode(ids) == text)


def _written(writer: Model, env: SequenceEnv, items: Tensor, temperature: float) -> list[str]:
    """Return a sample about each item."""
    task = env.replace(reward=no_reward, num_envs=len(items))
    batch = rollout(writer.policy, task, decode=Sample(temperature), index=items)
    return env.texts(batch.actions, batch.mask)


def _sources(env: SequenceEnv, items: Tensor) -> list[str]:
    """Return the source of each item as text."""
    task = env.replace(num_envs=len(items))
    task.begin(index=items.to(env.device))
    return task.sources()


def _about(
    items: Tensor,
    sources: Sequence[str],
    names: Sequence[str],
    columns: Sequence[Sequence[str]],
    generator: torch.Generator,
) -> Iterator[Question]:
    """Yield a question about each item whose texts differ, with its texts in random order."""
    orders = torch.rand(len(items), len(names), generator=generator).argsort(1).tolist()
    rows = zip(items.tolist(), sources, zip(*columns, strict=True), orders, strict=True)
    for item, source, texts, order in rows:
        if len(set(texts)) == len(texts):
            more = {"item": item, "runs": [names[place] for place in order]}
            yield Question(source, tuple(texts[place] for place in order), more)


def batch_of(env: SequenceEnv, sources: Sequence[str], texts: Sequence[str]) -> TextBatch:
    """Return texts and their sources as ids, as a reward reads them: with the end, where there is room.

    Args:
        env: the task, whose words they are made of; it needs no data.
        sources: one for each text; they are left out where the task has none.
        texts: of at most as many tokens as the task writes.
    """
    eos = env.vocab.eos
    ends = [] if eos is None else [eos]
    rows = [(ids + ends)[: env.max_len] for ids in env.vocab.encode_batch(texts)]
    lengths = torch.tensor([len(row) for row in rows], device=env.device)
    tokens = torch.tensor([row + [0] * (env.max_len - len(row)) for row in rows], device=env.device)
    mask = torch.arange(env.max_len, device=env.device) < lengths.unsqueeze(1)
    context = {} if env.source_vocab is None else {"source": ids_of_sources(env, sources, "cut")}
    return TextBatch(tokens, mask, context)
