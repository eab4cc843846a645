"""Conversion of runs made by earlier versions into models."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from rlseq.mdp.task_spec import TaskSpec
from rlseq.policies import make_policy
from rlseq.training import checkpoint
from rlseq.training.experiment_envs import training_env
from rlseq.training.fingerprint import EARLIER, digest_of_words
from rlseq.training.model import Model, give_weights
from rlseq.training.run_config import RunConfig
from rlseq.utils.files import Damaged, read_json


def convert(folder: str | PathLike[str], path: str | PathLike[str], best: bool = False) -> Path:
    """Save the model of a run made by an earlier version, as `Model.save` does.

    Those versions stored checksums of the vocabularies in place of the words. The task is therefore made
    again, so its data must be where they were, with the same words.

    Args:
        folder: of the run.
        path: of the model: a new folder, or a file that ends with `.zip`.
        best: the weights of the best evaluation, in place of the last ones.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if config.get("schema") not in EARLIER:
        raise ValueError(
            f"{folder} has schema {config.get('schema')!r}; only {', '.join(EARLIER)} are converted"
        )
    if not (folder / "job.json").exists():
        raise ValueError(
            f"{folder} was made in Python by an earlier version, which did not keep the task and the policy; "
            "make both, and have the policy load rlseq.checkpoint.read(folder, step)['policy']"
        )
    job = {name: value for name, value in read_json(folder / "job.json").items() if name != "checksum"}
    run = RunConfig.of(job, folder / "job.json")
    env = training_env(run.env, {**run.options, **run.training_options}, run.reward, run.seed)
    for name in ("vocab", "source_vocab"):
        there, here = config["env"].get(name), getattr(env, name)
        if there is not None and there["sha256"] != digest_of_words(here.words):
            raise Damaged(f"the data of {folder} have changed: {run.env} has another {name} than the run had")
    results = read_json(folder / "results.json")
    step = results["best"]["update"] if best else max(checkpoint.steps(folder / "checkpoints"), default=None)
    if step is None:
        raise ValueError(f"{folder} has no checkpoint")
    policy = make_policy(run.policy, env, **run.policy_sizes)
    give_weights(str(folder), checkpoint.read(folder / "checkpoints", step)["policy"], policy)
    return Model(policy, env, run, TaskSpec.of(env).to_json()).save(path)
