"""Metrics and alarms that show whether a policy exploits its reward.

Signs are a trained metric that rises while others fall, texts that become alike or repetitive, and a policy
that becomes almost deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rlseq.engine.evaluation import EvaluatedTexts, subset
from rlseq.metrics.diversity import Commonness, DistinctN, Repetition, SelfBLEU
from rlseq.metrics.ngrams import PAD
from rlseq.metrics.registry import row_of

MOST_COMPARED = 500  # texts that are compared with each other, drawn at random where there are more


def diversity_metrics(found: EvaluatedTexts) -> dict[str, float]:
    """Return metrics of a set of texts that are usually not trained on.

    Peakiness is the mean probability of the tokens written; of greedy texts that of the likeliest token,
    which training on a reward can raise without learning anything (Choshen et al. 2020).
    """
    some = subset(len(found.index), MOST_COMPARED).to(found.index.device)
    ids = torch.where(found.mask, found.actions, PAD)[some]
    figures = {
        "repetition": Repetition(order=2).pool(ids),
        "distinct_2": DistinctN(order=2).pool(ids),
        "commonness": Commonness().pool(ids),
        "peakiness": found.log_probs.exp()[found.mask].double().mean(),
    }
    if len(ids) > 1:
        figures["self_bleu"] = SelfBLEU().pool(ids)
    return {name: float(value) for name, value in figures.items()}


def reward_hacking_alarms(
    curve: Sequence[Mapping[str, float]], trained: str = "reward", tolerance: float = 0.1
) -> list[str]:
    """Return a message for each metric that became worse while the trained reward became better.

    Compares the last evaluation with the first. The alarm is raised where the reward rose and a held-out
    metric lost more than `tolerance` of its first value, or where repetition or commonness rose by 0.2.

    Args:
        curve: evaluations in order: metrics, and the figures of `diversity_metrics`.
        trained: the metric that was trained on.
        tolerance: relative loss of a metric that is not yet alarming.
    """
    first, last = (curve[0], curve[-1]) if len(curve) > 1 else ({}, {})
    sign = -1 if row_of(trained).better == "lower" else 1
    if not sign * (last.get(trained, 0.0) - first.get(trained, 0.0)) > 0:
        return []
    alarms = []
    rise = f"{trained} went from {first[trained]:.3f} to {last[trained]:.3f}"
    for name in first.keys() & last.keys():
        change = last[name] - first[name]
        if name in ("repetition", "commonness") and change > 0.2:
            alarms.append(f"{rise}, but {name} from {first[name]:.2f} to {last[name]:.2f}")
        elif name != trained and -row_of(name).sign * change > tolerance * abs(first[name]):
            alarms.append(f"{rise}, but {name} from {first[name]:.3f} to {last[name]:.3f}")
    return sorted(alarms)
