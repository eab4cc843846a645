"""Is what improves what was meant? Variety of texts, confidence of the policy, and the gap between metrics.

A policy that exploits its reward shows it: the trained metric rises while others fall, texts become alike or
repeat themselves, and the policy grows certain of what it writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rlseq.engine.evaluation import EvaluatedTexts, subset
from rlseq.metrics.diversity import Commonness, DistinctN, Repetition, SelfBLEU
from rlseq.metrics.ngrams import PAD
from rlseq.metrics.registry import LOWER_IS_BETTER, NOT_QUALITY

COMPARED = 500  # texts that are compared with each other, drawn at random where there are more


def diversity_metrics(found: EvaluatedTexts) -> dict[str, float]:
    """Figures of a set of texts that nobody trains.

    Peakiness is the mean probability of the tokens written; of greedy texts that of the likeliest token,
    which training on a reward can raise without learning anything (Choshen et al. 2020).
    """
    some = subset(len(found.index), COMPARED).to(found.index.device)
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
    """What has become worse while the trained reward became better, in words; empty when nothing has.

    Compares the last evaluation with the first. The alarm is raised where the reward rose and a held-out
    metric lost more than `tolerance` of its first value, or where repetition or commonness rose by 0.2.

    Args:
        curve: evaluations in order: metrics, and the figures of `diversity_metrics`.
        trained: the metric that was trained on.
        tolerance: relative loss of a metric that is not yet alarming.
    """
    sign = -1 if trained in LOWER_IS_BETTER else 1
    if len(curve) < 2 or not sign * (curve[-1].get(trained, 0.0) - curve[0].get(trained, 0.0)) > 0:
        return []
    first, last, alarms = curve[0], curve[-1], []
    rise = f"{trained} went from {first[trained]:.3f} to {last[trained]:.3f}"
    for name in first.keys() & last.keys():
        change = last[name] - first[name]
        if name in ("repetition", "commonness") and change > 0.2:
            alarms.append(f"{rise}, but {name} from {first[name]:.2f} to {last[name]:.2f}")
        elif name not in {*NOT_QUALITY, trained} and (
            change if name in LOWER_IS_BETTER else -change
        ) > tolerance * abs(first[name]):
            alarms.append(f"{rise}, but {name} from {first[name]:.3f} to {last[name]:.3f}")
    return sorted(alarms)
