"""A check of discriminators of your own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlseq.discriminators.texts import SOURCES, TextBatch, mismatched, real_texts
from rlseq.mdp.sequence_env import sequence_env
from rlseq.utils.modules import eval_mode

TEXTS_CHECKED = 32


@torch.no_grad()
def check_discriminator(discriminator: Any, env: Any, tolerance: float = 1e-4) -> None:
    """Raise `AssertionError` unless a discriminator scores each text by its tokens and its source alone.

    Checks, on real texts of the task, that a row depends neither on other rows nor on what follows its end;
    that `steps` scores every prefix as a text; and, where the task has a source, that the score changes with
    it: a discriminator that ignores the source teaches a generator to ignore it, too.
    """
    env = sequence_env(env)
    texts = real_texts(env, TEXTS_CHECKED)
    with eval_mode(discriminator):
        judged = discriminator(*texts)
        _same(discriminator(*texts.take(slice(1, 2))), judged[1:2], tolerance, "batch-mates matter")
        others = texts._replace(tokens=texts.tokens.where(texts.mask, (texts.tokens + 1) % len(env.vocab)))
        _same(discriminator(*others), judged, tolerance, "what follows the end matters")
        _prefixes(discriminator, texts, tolerance)
        if any(name in texts.context for name in SOURCES):
            _source(discriminator, texts, tolerance)


def _prefixes(discriminator: Any, texts: TextBatch, tolerance: float) -> None:
    steps = discriminator.steps(*texts)
    place = torch.arange(texts.mask.shape[1], device=texts.mask.device)
    for t in range(texts.mask.shape[1]):
        prefix = texts._replace(mask=texts.mask & (place <= t))
        real = texts.mask[:, t]
        got = discriminator(*prefix)[real]
        _same(got, steps[real, t], tolerance, f"`steps` judges another prefix at {t}")


def _source(discriminator: Any, texts: TextBatch, tolerance: float) -> None:
    wrong = mismatched(texts)
    others = {name: wrong.context[name].roll(-1, 0) for name in SOURCES if name in wrong.context}
    right = wrong._replace(context={**wrong.context, **others})
    change = (discriminator(*wrong) - discriminator(*right)).abs().max()
    assert change > tolerance, (
        "the discriminator ignores the source: its judgement is the same under another one; "
        "let it read context['source'], or the picture (of ours: source=True)"
    )


def _same(got: Tensor, wanted: Tensor, tolerance: float, message: str) -> None:
    gap = float((got - wanted).abs().max()) if got.numel() else 0.0
    assert gap <= tolerance, f"{message}: logits differ by {gap:.2g}"
