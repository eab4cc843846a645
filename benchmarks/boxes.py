"""Boxes chosen by a policy against greedy and soft NMS, on rendered scenes with overlapping objects.

    OMP_NUM_THREADS=1 python benchmarks/boxes.py [--seeds 3]

The rules see boxes and scores; the best of their thresholds on the training scenes is tested. A policy also
sees the colour inside, as the head of a detector sees the picture: it learns by likelihood of the best
candidates and then by a policy gradient on the reward, for which likelihood for as long is the control. About
40 CPU seconds a seed.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

import record
import torch
import torch.nn.functional as F
from recipes.seeds import trained
from torch import Tensor, nn

import rlseq
from rlseq.data.boxes import BoxScenes, greedy_nms, iou, soft_nms, suppress
from rlseq.engine.decode import acting_logits
from rlseq.metrics.boxes import average_precision, f1
from rlseq.policies.spec import TokenSpec
from rlseq.types import RAW, BasePolicy, Behaviour, Context, Evaluation

ID = "rlseq/Boxes-v0"
OVERLAPS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
WIDTHS = (0.1, 0.2, 0.3, 0.5, 0.8)
LEAST = (0.0, *(n / 20 for n in range(4, 15)))
State = tuple[Tensor, Tensor, Tensor]


class Chooser(BasePolicy):
    """A policy over candidates that scores each by itself, its neighbours, and the boxes chosen before it.

        logit(b | C) = u(b, Σ_c φ(b, c)) + Σ_{c ∈ C} w(b, c),   logit(stop) = 0

    φ and w see overlap, difference of scores, and difference of what is inside.
    """

    def __init__(self, words: TokenSpec, *, hidden: int = 32) -> None:
        super().__init__()
        self.words = words
        width = words.observed["features"][1]
        self.pairs = nn.Sequential(nn.Linear(width - 2, hidden), nn.ReLU(), nn.Linear(hidden, hidden + 1))
        self.alone = nn.Sequential(nn.Linear(width + hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def start(self, context: Context) -> State:
        """Score all candidates and all pairs."""
        x = context["features"]
        unlike = x[..., 5:].unsqueeze(2) - x[..., 5:].unsqueeze(1)
        surer = x[..., 4:5].unsqueeze(1) - x[..., 4:5].unsqueeze(2)
        overlap = iou(x[..., :4], x[..., :4]).unsqueeze(3)
        near = self.pairs(torch.cat([overlap, surer, overlap * surer, unlike.abs()], 3))
        around = (near[..., 1:].relu() * (overlap > 0.05)).sum(2)
        alone = self.alone(torch.cat([x, around], 2)).squeeze(2)
        return alone, near[..., 0] * (overlap.squeeze(3) > 0.05), torch.zeros_like(alone)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Note what was chosen."""
        alone, pairs, chosen = state
        chosen = chosen + F.one_hot(token, chosen.shape[1] + 1)[:, 1:]
        logits = alone + (pairs @ chosen.unsqueeze(2)).squeeze(2)
        return F.pad(logits, (1, 0)), (alone, pairs, chosen)

    def evaluate(
        self, actions: Tensor, context: Context, behaviour: Behaviour = RAW, inputs: Any = None
    ) -> Evaluation:
        """Score sequences; what was chosen before each step is known at once."""
        alone, pairs, _ = self.start(context)
        before = self.words.before(actions if inputs is None else inputs)
        chosen = F.one_hot(before, alone.shape[1] + 1)[..., 1:].cumsum(1).to(alone.dtype)
        logits = F.pad(alone.unsqueeze(1) + chosen @ pairs.transpose(1, 2), (1, 0))
        log_probs = acting_logits(logits, behaviour).log_softmax(2)
        entropy = -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(2)
        return Evaluation(log_probs.gather(2, actions.unsqueeze(2)).squeeze(2), entropy)


def main() -> None:
    """Test the rules and the policies, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--likelihood", type=float, default=6, help="seconds of likelihood before the reward")
    parser.add_argument("--reward", type=float, default=8, help="seconds of the reward, and of its control")
    options = parser.parse_args()
    torch.set_num_threads(1)
    test: Any = rlseq.make(ID, num_envs=500, split="test")
    train: Any = rlseq.make(ID, num_envs=64)
    scenes = test.scenes.take(torch.arange(test.num_envs))
    scores = {
        f"{name}, tuned for {FIGURES[figure]}": [ruled(scenes, *tuned(train.scenes, decays, figure))]
        for name, decays in RULES.items()
        for figure in FIGURES
    }
    for seed in range(options.seeds):
        for name, found in learned(seed, test, options).items():
            scores.setdefault(name, []).append(found)
            print(
                seed, name, {key: round(float(value.mean()), 4) for key, value in found.items()}, flush=True
            )
    print(record.write("boxes", summary(scores)))


RULES = {"greedy NMS": [*map(greedy_nms, OVERLAPS)], "soft NMS": [*map(soft_nms, WIDTHS)]}
FIGURES = {"f1": "F1", "ap": "AP"}


def tuned(scenes: BoxScenes, decays: Any, figure: str) -> tuple[Any, float]:
    """The rule and the least score with the highest figure on scenes."""
    return max(product(decays, LEAST), key=lambda found: float(ruled(scenes, *found)[figure].mean()))


def ruled(scenes: BoxScenes, decay: Any, least: float) -> dict[str, Tensor]:
    """Scores of a rule on every scene."""
    tokens = suppress(scenes.candidates, decay, least) + 1
    objects = (scenes.objects[..., 2:] > 0).any(2).sum(1)
    return judged(tokens, tokens > 0, {"overlap": scenes.overlap, "objects": objects})


def judged(tokens: Tensor, mask: Tensor, context: Context) -> dict[str, Tensor]:
    """F1 and average precision, `[S]` each."""
    return {"f1": f1(tokens, mask, context), "ap": average_precision(tokens, mask, context)}


def learned(seed: int, test: Any, options: Any) -> dict[str, dict[str, Tensor]]:
    """Scores of policies after likelihood, and after more likelihood or a reward from there."""
    torch.manual_seed(seed)
    start = rlseq.make_policy("chooser", rlseq.make(ID, seed=seed))
    trained(
        rlseq.make_agent("mle", start, lr=3e-3), rlseq.make(ID, num_envs=64, seed=seed), options.likelihood
    )
    found = {}
    for name, agent, reward in (
        ("likelihood", "mle", "f1"),
        ("policy gradient, F1", "rloo", "f1"),
        ("policy gradient, F1 by box", "rloo", "f1_steps"),
        ("policy gradient, AP", "rloo", "ap"),
    ):
        env = rlseq.make(ID, num_envs=64, seed=seed, reward=reward)
        policy = rlseq.make_policy("chooser", env)
        policy.load_state_dict(start.state_dict())
        trained(rlseq.make_agent(agent, policy, lr=1e-3), env, options.reward)
        batch = rlseq.rollout(policy, test, decode=rlseq.Greedy(), index=torch.arange(test.num_envs))
        found[name] = judged(batch.actions, batch.mask, batch.context)
    return found


def summary(scores: Any) -> dict[str, Any]:
    """Means over scenes, and differences from the rules tuned for the same figure, with intervals."""
    found: dict[str, Any] = {}
    for name, runs in scores.items():
        found[name] = {}
        for figure, title in FIGURES.items():
            values = torch.stack([run[figure] for run in runs]).mean(0)
            against = {rule: values - scores[f"{rule}, tuned for {title}"][0][figure] for rule in RULES}
            found[name][figure] = {
                "mean": float(values.mean()),
                "by_seed": [float(run[figure].mean()) for run in runs],
                "against": {rule: interval(differences) for rule, differences in against.items()},
            }
    return {"methods": found}


def interval(differences: Tensor) -> list[float]:
    """Mean and 95 % interval of differences."""
    mean, error = float(differences.mean()), float(differences.std()) / len(differences) ** 0.5
    return [mean, mean - 1.96 * error, mean + 1.96 * error]


if __name__ == "__main__":
    rlseq.policies.register("chooser", Chooser)
    main()
