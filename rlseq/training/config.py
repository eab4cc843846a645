"""The settings of `rlseq.train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

from rlseq.training.run_folder import RunFolder
from rlseq.utils.arguments import Checked, PositiveInt


@dataclass(frozen=True)
class TrainConfig(Checked):
    """Settings of `rlseq.train` beside the agent, the tasks and the number of updates."""

    eval_every: PositiveInt | None = None
    """Updates between two evaluations, by default 100. With a budget of tokens: tokens between two
    evaluations, by default a tenth of the budget."""
    budget_tokens: PositiveInt | None = None
    """Stop after this number of tokens, generated or imitated, instead of after a number of updates."""
    eval_texts: PositiveInt | None = None
    """The largest number of items in an evaluation, drawn at random by a fixed seed; by default all items."""
    out: str | PathLike[str] | RunFolder | None = None
    """The folder of the run; by default nothing is written."""
    resume: bool = True
    """Resume the run in the folder; False refuses a folder that already holds a run."""
    wandb_project: str | None = None
    """A project of Weights & Biases, to which the metrics are sent as well."""
    trackio_project: str | None = None
    """A project of trackio, a tracker with files on this machine, to which the metrics are sent as well."""
    alarms: str | Callable[[str], None] = "warn"
    """The response to signs of failure, in the reward before training and in the metrics during it: "warn",
    "stop" or "ignore"; in Python also a function that is called with the message."""
    probe: bool = True
    """At evaluations of a policy-gradient agent, also measure the gap between samples and greedy text, the
    divergence from the initial policy and the noise of the gradient; costs the time of three updates."""
    quiet: bool = False
    """Print no lines at evaluations and show no progress bar."""
    on_update: Callable[[dict[str, float]], None] | None = None
    """A function that is called with the metrics of every update; each call waits for the device."""
