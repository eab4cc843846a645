"""The settings of `rlseq tune`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from rlseq.utils.arguments import Checked, PositiveInt, Seed, Tokens

FREE_OF_TUNE = ("trials", "seeds", "imports", "out", "quiet")  # which the same tune may change


@dataclass(frozen=True)
class TuneConfig(Checked):
    """The settings of a search for hyper-parameters; keywords, flags and docs are generated from these."""

    env: str
    """Id of the task (`rlseq envs`)."""
    agent: str
    """Name of the agent (`rlseq agents`)."""
    trials: PositiveInt = 50
    """Number of settings to try, by all workers together; the same command with more continues the search."""
    budget_tokens: Tokens = 200_000
    """Length of the training of a trial: tokens that are generated or imitated."""
    search: tuple[str, ...] = ()
    """Hyper-parameters to search, each a name or a name with limits, `lr=1e-4:1e-2`; by default all of the
    agent that declare a range."""
    hyper: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters that are given, `schedule=linear`; they are not searched."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task, such as `num_envs=128`."""
    policy: str = "lstm"
    """Name of the policy; on the command line with its sizes, `lstm hidden=64`."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the policy."""
    start: str | None = None
    """A run or a saved model that every trial starts from; its task and policy are taken over."""
    evaluations: PositiveInt = 5
    """Number of evaluations of a trial, after each of which a poor one is ended."""
    texts: PositiveInt | None = 500
    """The largest number of dev items in an evaluation, drawn by a fixed seed; all items if None."""
    prune: bool = True
    """End a trial early where its reward is below the median of the others at the same evaluation."""
    seeds: PositiveInt = 3
    """Number of further seeds with which the best settings and the defaults are trained in the end."""
    seed: Seed = 0
    """Seed of all trials and of the search; the further seeds follow it."""
    imports: tuple[str, ...] = ()
    """Modules of your own to import first; the names that they register are known then."""
    out: str | PathLike[str] = "runs/tune"
    """Folder of the search. The same command in several terminals, or on machines that share the folder,
    works on it together."""
    quiet: bool = False
    """Print no lines about the trials."""

    def plain(self) -> dict[str, Any]:
        """Return the settings that must stay the same, as JSON holds them."""
        found: dict[str, Any] = json.loads(
            json.dumps({name: value for name, value in vars(self).items() if name not in FREE_OF_TUNE})
        )
        return found
