"""Simulated labellers: answers by a metric of the task, some of them wrong, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlseq.feedback.labels import Answer, LabelFile, Question
from rlseq.feedback.questions import batch_of
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.metrics.registry import row_of
from rlseq.training.experiment_envs import metric


def metric_of_texts(env: SequenceEnv, questions: Sequence[Question], name: str) -> Tensor:
    """Return a metric of the texts of questions, higher for better ones: `[N, texts]`."""
    index = torch.tensor([question.more["item"] for question in questions], device=env.device)
    context = {**env.contexts(index), "index": index}
    judge, sign = metric(env, name), row_of(name).sign or 1
    columns = []
    for texts in zip(*(question.texts for question in questions), strict=True):
        batch = batch_of(env, [question.source for question in questions], texts)
        columns.append(sign * judge(batch.tokens, batch.mask, context).float())
    return torch.stack(columns, 1)


def pair_answers(values: Tensor, noise: float, generator: torch.Generator) -> list[Answer]:
    """Return which of two texts `[N, 2]` has more, at times the wrong one; None where both have the same."""
    wrong = torch.rand(len(values), generator=generator) < noise
    better = (values[:, 1] > values[:, 0]).cpu() ^ wrong
    equal = values[:, 0] == values[:, 1]
    return [None if tie else int(place) for tie, place in zip(equal.tolist(), better.tolist(), strict=True)]


def score_answers(values: Tensor, best: int, noise: float, generator: torch.Generator) -> list[Answer]:
    """Return scores 1 … best of texts `[N]`, linear in their values; random with probability `noise`."""
    low, high = values.min(), values.max()
    scores = 1 + ((values - low) / (high - low).clamp(min=1e-12) * (best - 1)).round().cpu()
    random = torch.randint(1, best + 1, scores.shape, generator=generator)
    wrong = torch.rand(len(values), generator=generator) < noise
    return [int(score) for score in torch.where(wrong, random, scores)]


def answer_all(
    file: LabelFile, env: SequenceEnv, name: str, best: int | None, noise: float, seed: int
) -> None:
    """Answer all questions that are open, by a metric.

    Args:
        file: has the questions, and takes the answers.
        env: the task.
        name: of the metric.
        best: the best score; None where pairs are compared.
        noise: probability of a wrong answer, or of a random score.
        seed: of the wrong answers.
    """
    generator = torch.Generator().manual_seed(seed)
    values = metric_of_texts(env, file.questions, name)
    if best is None:
        answers = pair_answers(values, noise, generator)
    else:
        answers = score_answers(values[:, 0], best, noise, generator)
    file.answer_several({n: answer for n, answer in enumerate(answers) if n not in file.answers})
