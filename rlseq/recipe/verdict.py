"""The result of a fit in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlseq.compare.verdicts import ALPHA
from rlseq.metrics.registry import row_of
from rlseq.recipe.source_use import hardly_used
from rlseq.utils.files import Json

LITTLE, AT_MOST = 0.002, 0.05  # shares of a score: a gain that is none, and the most that may be overlooked
FEW_ERRORS = 0.02  # a text, with which nothing is left to gain
NOTHING, NO_ERRORS, NO_TIME = "nothing to gain", "no errors", "no time"
FEW_UPDATES = 100  # on the reward
FEW_TESTED = 200  # items of test, below which only large differences can be shown


def nothing_to_gain(risk: Mapping[str, Any], reward: str) -> bool:
    """Return whether the samples that agree best are no better than greedy texts, or these have no errors."""
    sign, greedy, change = row_of(reward).sign, risk["greedy"], risk["change"]
    if hardly_any_errors(reward, greedy):
        return True
    best = max(sign * change["low"], sign * change["high"])
    return bool(sign * change["estimate"] <= LITTLE * abs(greedy) and best <= AT_MOST * abs(greedy))


def hardly_any_errors(reward: str, score: float) -> bool:
    """Return whether a score counts errors, and there are fewer than one in fifty texts."""
    return row_of(reward).sign < 0 and score < FEW_ERRORS


def noun(reward: str) -> str:
    """The name of a score in a sentence."""
    return "errors" if row_of(reward).sign < 0 else reward


def in_words(results: Json) -> str:
    """Return what happened: what the reward added, what was kept, and how good it is."""
    return " ".join(filter(None, (_of_reward(results), _of_kept(results), _of_model(results))))


def _of_reward(results: Json) -> str:
    """Return what the reward added."""
    reward = results["reward"]["name"]
    if results["stopped"] == NOTHING:
        percent = 100 * results["risk"]["change"]["relative"]
        return (
            f"Nothing to gain: samples are no better than the greedy text (least risk {percent:+.1f} % "
            f"{noun(reward)}), so training stopped after likelihood."
        )
    if results["stopped"] == NO_ERRORS:
        return (
            "Nothing to gain: the greedy texts of likelihood have hardly any errors on dev, so training "
            "stopped after likelihood."
        )
    if results["stopped"] == NO_TIME:
        return (
            "There was no time for a reward, so training stopped after likelihood: give more minutes, and "
            "another folder (--out)."
        )
    longer = results["changed"]["longer"]
    before = results["test"]["longer"][reward]
    if not longer["estimate"]:
        return "The reward changed nothing: it scores as continued likelihood training on every test item."
    percent, p = 100 * abs(longer["relative"]), longer["p"]
    better = longer["estimate"] * results["better"] > 0
    words = ("lowered", "raised") if results["better"] < 0 else ("raised", "lowered")
    by = f"{percent:.1f} %" if before else f"{abs(longer['estimate']):.3g}"
    tested = f"against continued likelihood training on {longer['n']:,} test items"
    if p > ALPHA or longer["low"] <= 0 <= longer["high"]:
        return (
            f"No gain was shown: the reward {words[not better]} {noun(reward)} by {by} (p = {p:.2g}) "
            f"{tested}, which may be chance."
        )
    shown = f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
    return f"The reward {words[not better]} {noun(reward)} by {by} ({shown}) {tested}."


def _of_kept(results: Json) -> str:
    """Return which weights were kept."""
    kept, earned = results["kept"], results["earned on dev"]
    names = {
        "reward": "trained on the reward",
        "longer": "of continued likelihood",
        "likelihood": "of likelihood",
    }
    if len(earned) == 1:
        return ""
    return f"The weights {names[kept]} are kept, as they earn most on dev ({earned[kept]:.4f})."


def _of_model(results: Json) -> str:
    """Return how good the model is on test."""
    test, reward = results["test"][results["kept"]], results["reward"]["name"]
    said = f"On test, the greedy text has {test[reward]:.3g} {noun(reward)} on average"
    return f"{said}, and {100 * test['exact']:.1f} % are exactly a reference."


def limits(results: Json) -> list[str]:
    """Return what limits the verdict, a sentence each."""
    said = []
    read = results["source use"]
    if hardly_used(read):
        said.append(
            f"The model hardly uses its sources: a reference has {read['own']:.2f} nats per token given its "
            f"own source, and {read['exchanged']:.2f} given that of another item. It writes little more "
            "than common texts; it needs more training, more pairs, or a pretrained model (--model)."
        )
    if not results["converged"] and results["stopped"] != NO_ERRORS:
        said.append(
            "Likelihood was ended by its time or its number of updates before dev had stopped improving: "
            "with more of them figures may be better, and a gain of the reward may be one of more training."
        )
    updates = results["stages"].get("reward", {}).get("updates", 0)
    if updates and updates < FEW_UPDATES:
        said.append(
            f"The reward had {updates} updates only; for a fair trial give more minutes, and another folder "
            "(--out)."
        )
    n = results["selection"]["texts"]
    if n < FEW_TESTED:
        said.append(f"The test has {n} items only, so that no difference but a large one can be shown.")
    return said


def models(results: Json) -> list[tuple[str, dict[str, Any]]]:
    """Return the models in the order in which they were trained, with their scores on test."""
    return [
        (name, results["test"][name])
        for name in ("likelihood", "longer", "reward")
        if name in results["test"]
    ]
