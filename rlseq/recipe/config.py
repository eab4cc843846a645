"""The settings of `rlseq.fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from rlseq.engine.computing import OFF, Autocast, Compile
from rlseq.training.tuned_settings import settings_for
from rlseq.utils.arguments import Checked, PositiveFloat, PositiveInt, Seed


@dataclass(frozen=True)
class FitConfig(Checked):
    """The settings of `rlseq.fit` beside the path of the data; the data decide those that are not given."""

    out: str | PathLike[str] | None = None
    """Folder of the model, the page and the runs; `runs/` and the name of the file when not given."""
    minutes: PositiveFloat | None = None
    """Time that everything together may take; by default, training continues until dev stops improving."""
    reward: str | None = None
    """The metric to train on (`rlseq metrics`), or a sum, `"bleu + 0.5*distinct_2"`; chosen by what the texts
    look like when not given."""
    agent: str = "rloo"
    """The agent that trains on the reward (`rlseq agents`)."""
    hyper: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of the agent, `lr=1e-4`."""
    policy: str | None = None
    """Name of the policy; on the command line with its sizes, `seq2seq hidden=64`; seq2seq when not given."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the policy."""
    settings: str | PathLike[str] | None = None
    """A file of settings, as `rlseq tune` writes: policy, sizes, options and hyper-parameters of the agent,
    in place of which any of these may be given."""
    model: str | None = None
    """Folder of a pretrained model of Hugging Face, with its tokenizer, to start from."""
    level: str | None = None
    """Read texts by "char", "word" or "bpe"; chosen by the share of unknown words when not given."""
    max_len: PositiveInt | None = None
    """Tokens of a text, its end included; the longest reference when not given. Longer ones are left out."""
    skip_bad: bool = False
    """Pass over lines that cannot be used; they are counted, and a warning says so."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the task rlseq/Parallel-v0, `vocab_size=5000`."""
    rows: PositiveInt | None = None
    """Texts of a batch; as many as have about 8,000 tokens when not given."""
    updates: PositiveInt = 6000
    """The most updates of likelihood."""
    reward_updates: PositiveInt = 2000
    """The most updates on the reward, and of the continued likelihood training that it is compared with."""
    seed: Seed = 0
    """Seed of the division of the data, of initial weights and of samples."""
    device: str = "cpu"
    """Device of the model, `cuda` for a GPU."""
    compile: Compile = OFF
    """`compile` of the agents of all stages: "rollout", "all" or "auto" (docs/how/performance.md)."""
    autocast: Autocast = OFF
    """`autocast` of the agents of all stages: "bfloat16" or "auto"."""
    quiet: bool = False
    """Print no lines about the data, the choices and the training; warnings remain."""
    imports: tuple[str, ...] = ()
    """Modules of your own that are imported first, so that what they register has a name."""

    def __post_init__(self) -> None:
        """Replace a file of settings by what it holds."""
        super().__post_init__()
        if self.settings is None:
            return
        found = settings_for(self.settings, [self.agent], after_likelihood=True)
        options = {**found.options, **self.options}
        given = {
            "policy": self.policy or found.policy,
            "sizes": {**(found.sizes if self.policy in (None, found.policy) else {}), **self.sizes},
            "hyper": {**found.hyper(self.agent, after_likelihood=True), **self.hyper},
            "rows": self.rows or options.pop("num_envs", None),
            "options": options,
            "settings": None,
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
