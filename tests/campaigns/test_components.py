"""Components of the user that fail late: the run ends with an error that names them, and can be resumed.

Every component works for six updates and then fails in one way. The run must end with the component's own
error, or with one that names the component. Its folder says `failed`, holds the rows before the failure, and
a run that is resumed with the repaired component has the weights and rows of one that was never interrupted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.discriminators import Adversary
from rlseq.types import Evaluation
from tests.campaigns.conftest import Campaign

UPDATES, EVERY, LATE = 9, 3, 7  # updates of a run, between two checkpoints, and until a component fails


class Own(Exception):
    """An error that the component of a user raises."""


def raises(*given: Any) -> Any:
    """Fail as code of a user does."""
    raise Own("of the user")


def writes(name: str, *path: Any) -> Callable[..., Any]:
    """Return a way to fail that writes into one of the inputs."""

    def fail(answer: Any, inputs: dict[str, Any]) -> Any:
        tensor = inputs[name]
        for key in path:
            tensor = tensor[key]
        tensor.zero_()
        return answer

    return fail


def first(change: Callable[[Tensor], Any]) -> Callable[..., Any]:
    """Return a way to fail that changes the answer, or its first tensor where it has several."""

    def fail(answer: Any, inputs: dict[str, Any]) -> Any:
        if isinstance(answer, Evaluation):
            return answer._replace(log_probs=change(answer.log_probs))
        if isinstance(answer, tuple):
            return change(answer[0]), answer[1]
        if isinstance(answer, dict):
            return {**answer, "source": change(answer["source"])}
        return change(answer)

    return fail


def is_instead(value: Any) -> Callable[..., Any]:
    """Return a way to fail that answers something else."""
    return lambda answer, inputs: value


class Late:
    """A function of a component that fails, from some update on, in one way."""

    def __init__(self, whole: Callable[..., Any], names: tuple[str, ...], fail: Callable[..., Any]) -> None:
        self.whole, self.names, self.fail, self.broken = whole, names, fail, False

    def __call__(self, *given: Any, **more: Any) -> Any:
        answer = self.whole(*given, **more)
        return self.fail(answer, dict(zip(self.names, given, strict=False))) if self.broken else answer


OTHERS = {
    "raises": (raises, Own, "of the user"),
    "a float": (is_instead(1.5), (TypeError, ValueError), "got (float|1.5)"),
    "None": (is_instead(None), (TypeError, ValueError), "got None"),
    "a string": (is_instead("text"), (TypeError, ValueError), "got ('text'|str)"),
}
NAN = first(lambda value: value * float("nan"))
NARROW = first(lambda value: value[:1])
INTEGERS = first(lambda value: value.long())
# component -> failure -> how it fails, the error, and the message, which names the component
FAILURES: dict[str, dict[str, tuple[Callable[..., Any], Any, str]]] = {
    "reward": {
        "NaN": (NAN, ValueError, "must be finite"),
        "shape": (NARROW, ValueError, "must return shape"),
        "changes tokens": (writes("tokens"), ValueError, "changed the tokens"),
        "changes mask": (writes("mask"), ValueError, "changed the mask"),
        "changes source": (writes("context", "source"), ValueError, "changed the context 'source'"),
        "changes index": (writes("context", "index"), ValueError, "changed the context 'index'"),
    },
    "step": {
        "NaN": (NAN, ValueError, "NaN"),
        "shape": (NARROW, ValueError, r"got \("),
        "dtype": (INTEGERS, TypeError, "got a tensor of torch.int64"),
    },
    "start": {"changes source": (writes("context", "source"), ValueError, "changed the context 'source'")},
    "evaluate": {
        "NaN": (NAN, RuntimeError, "nothing was learned"),
        "shape": (first(lambda value: value[:, :1]), ValueError, r"got \("),
        "dtype": (INTEGERS, TypeError, "got a tensor of torch.int64"),
        "changes actions": (writes("actions"), ValueError, "changed the actions"),
        "changes source": (writes("context", "source"), ValueError, "changed the context 'source'"),
    },
    "contexts": {
        "shape": (NARROW, ValueError, "context 'source' must be"),
        "dtype": (first(lambda value: value.float()), TypeError, "context 'source' must be"),
        "changes index": (writes("index"), ValueError, "changed the index"),
    },
    "schedule": {
        "NaN": (NAN, ValueError, "got nan"),
        "negative": (is_instead(-1.0), ValueError, "got -1.0"),
        "shape": (is_instead(torch.ones(2)), ValueError, "got tensor"),
    },
    "discriminator": {
        "NaN": (NAN, ValueError, "NaN|must be finite"),
        "shape": (NARROW, ValueError, r"got \("),
        "dtype": (INTEGERS, TypeError, "got a tensor of torch.int64"),
    },
    "on_update": {},
}
NAMED = {  # how an error names a component
    "reward": "reward 'reward'",
    "step": "policy",
    "start": "policy",
    "evaluate": "policy's evaluate|norm of the gradient",
    "contexts": "context",
    "schedule": "schedule",
    "discriminator": "discriminator",
    "on_update": "",
}
INPUTS = {
    "reward": ("tokens", "mask", "context"),
    "step": ("token", "state"),
    "start": ("context",),
    "evaluate": ("actions", "context"),
    "contexts": ("index",),
}
FINE = {"on_update": {"a float", "None", "a string"}, "schedule": {"a float"}}  # answers that are no failures


def ways_of(component: str) -> list[str]:
    """Return the names of the ways in which a component can fail."""
    return [name for name in {**OTHERS, **FAILURES[component]} if name not in FINE.get(component, ())]


class Setting:
    """A task, a policy and an agent, one function of which is replaced."""

    def __init__(self, component: str, fail: Callable[..., Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.env = rlseq.make("rlseq/Copy-v0", length=2, items=4, num_envs=4, seed=seed)
        self.env.parts = {"reward": rlseq.rewards.accuracy}
        self.policy = rlseq.make_policy("seq2seq", self.env, hidden=4, embedding=4)
        self.told: list[dict[str, float]] = []
        self.late = Late(self.part(component), INPUTS.get(component, ()), fail)
        options: dict[str, Any] = {"schedule": self.late} if component == "schedule" else {}
        if component == "discriminator":
            judge = rlseq.make_discriminator("cnn", self.env, embedding=4)
            self.late.whole = judge.forward
            judge.forward = self.late  # type: ignore[method-assign]
            options = {"adversary": Adversary(judge, texts=4, batch=4), "pretraining": 1, "d": 1, "k": 1}
        self.agent = rlseq.make_agent(
            "adversarial" if component == "discriminator" else "reinforce", self.policy, lr=1e-2, **options
        )
        self.place(component)
        self.on_update = self.late if component == "on_update" else None
        self.breaks, pace = True, self.agent.set_progress

        def paced(done: float) -> None:
            self.late.broken = self.breaks and round(done * UPDATES) >= LATE - 1
            pace(done)

        self.agent.set_progress = paced  # type: ignore[method-assign]

    def part(self, component: str) -> Callable[..., Any]:
        """Return the function that is replaced."""
        parts: dict[str, Callable[..., Any]] = {
            "reward": rlseq.rewards.accuracy,
            "contexts": self.env.contexts,
            "schedule": lambda done: 1.0,
            "on_update": self.told.append,
        }
        if component in parts:
            return parts[component]
        found: Callable[..., Any] = getattr(self.policy, component, self.told.append)
        return found

    def place(self, component: str) -> None:
        """Put the function that fails in place of the one that works."""
        if component == "reward":
            self.env.parts = {"reward": self.late}
        elif component == "contexts":
            self.env.contexts = self.late  # type: ignore[method-assign]
        elif component in ("step", "start", "evaluate"):
            setattr(self.policy, component, self.late)

    def train(self, out: Path, breaks: bool) -> list[dict[str, float]]:
        """Train, with a component that breaks or one that does not."""
        self.breaks = breaks
        settings = rlseq.TrainConfig(
            eval_every=EVERY, on_update=self.on_update, out=out, alarms="ignore", probe=False
        )
        return rlseq.train(self.agent, self.env, UPDATES, self.env, config=settings)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the policy."""
        return {name: value.clone() for name, value in self.policy.state_dict().items()}


def rows(out: Path) -> list[dict[str, float]]:
    """Return the rows of a run's folder without the time that they took."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{name: v for name, v in json.loads(line).items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("component", FAILURES)
def test_a_component_that_fails_late(component: str, campaign: Campaign, tmp_path: Path) -> None:
    failures = {**OTHERS, **FAILURES[component]}
    whole = Setting(component, raises, campaign.seed)
    history = whole.train(tmp_path / "whole", breaks=False)
    weights, counts = whole.weights(), Counter[str]()
    for name in ways_of(component):
        fail, error, message = failures[name]
        out = tmp_path / name.replace(" ", "_")
        with pytest.raises(error) as caught:
            Setting(component, fail, campaign.seed).train(out, breaks=True)
        if error is not Own:
            caught.match(message)
            caught.match(NAMED[component])
        results = json.loads((out / "results.json").read_text())
        assert results["status"] == "failed", (component, name)
        assert str(caught.value)[:40] in results["error"], (component, name)
        before = LATE if component == "on_update" else LATE - 1  # it is told of an update that is done
        assert rows(out) == history[:before], (component, name)
        again = Setting(component, fail, campaign.seed + 1)  # whatever it starts from, it is restored
        again.env.reseed(campaign.seed)
        assert again.train(out, breaks=False) == history, (component, name)
        assert rows(out) == rows(tmp_path / "whole"), (component, name)
        assert all(torch.equal(value, weights[key]) for key, value in again.weights().items())
        counts[getattr(error, "__name__", "TypeError or ValueError")] += 1
    campaign.record(f"components_{component}", dict(counts))
