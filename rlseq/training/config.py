"""The settings of `rlseq.train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

from rlseq.training.run_folder import RunFolder
from rlseq.utils.arguments import Checked, PositiveInt


@dataclass(frozen=True)
class TrainConfig(Checked):
    """What `rlseq.train` can be told beside the agent, the tasks and the number of updates."""

    eval_every: PositiveInt | None = None
    """Updates between two evaluations, 100 when not given; with a budget of tokens the tokens between them, a
    tenth of the budget when not given."""
    budget_tokens: PositiveInt | None = None
    """Stop when this many tokens have been written or imitated, instead of after a number of updates."""
    eval_texts: PositiveInt | None = None
    """The most items of an evaluation, drawn at random by a fixed seed; all when not given."""
    out: str | PathLike[str] | RunFolder | None = None
    """The folder of the run; nothing is written when not given."""
    resume: bool = True
    """Go on with the run that is in the folder; False refuses a folder that has one."""
    wandb_project: str | None = None
    """A project of Weights & Biases that receives the metrics, too."""
    trackio_project: str | None = None
    """A project of trackio (a tracker whose files stay on this machine) that receives the metrics, too."""
    alarms: str | Callable[[str], None] = "warn"
    """What to do where the reward, or metrics later on, make no sense: "warn", "stop", "ignore", or a
    function that is called with the message."""
    probe: bool = True
    """At evaluations, compare the policy of a policy gradient with its greedy texts and its start, and
    measure the noise of its gradient; this takes the time of three updates."""
    quiet: bool = False
    """Print no lines at evaluations, and show no progress bar."""
    on_update: Callable[[dict[str, float]], None] | None = None
    """A function that is called with the metrics of every update; each time it waits for the device."""
