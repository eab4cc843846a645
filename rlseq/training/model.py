"""`load`: a trained model that works without the data and the task of its training."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from rlseq.engine.beam import Beam
from rlseq.engine.decode import Decode
from rlseq.engine.generation import Candidate, Source, generate, reads, score
from rlseq.engine.mbr import MBR
from rlseq.mdp.registry import ids, task_class
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task_spec import TaskSpec
from rlseq.policies import build_policy
from rlseq.policies.mlp import ControlSpec
from rlseq.policies.spec import TokenSpec
from rlseq.training.experiment_envs import task_with_words
from rlseq.training.fingerprint import configuration, described_policy, differences
from rlseq.training.run_config import RunConfig
from rlseq.training.run_folder import MODEL as DESCRIPTION
from rlseq.training.run_folder import read_run, read_state, read_words
from rlseq.utils.arguments import PositiveInt, checked_arguments, shown
from rlseq.utils.files import Damaged, Json, checksum, make_folder, read_json, sealed, unsealed, write_whole
from rlseq.utils.imports import import_modules
from rlseq.utils.version import __version__

MODEL_SCHEMA = "rlseq.model/1"
WEIGHTS = "weights.safetensors"  # the other file of a saved model
DIFFERENCES_LISTED = 5  # differences that a message names
VALUE_HEAD = ("head.value.weight", "head.value.bias")  # which a policy may lack


@dataclass(frozen=True, eq=False)
class Model:
    """A trained policy with its vocabularies, as `rlseq.load` returns it.

    Args:
        policy: the network.
        env: the task without its data, for which the policy writes; None for a policy that acts in another
            Gymnasium environment.
        run: the configuration of the run: id and options of the task, agent, name and sizes of the policy.
        words: the vocabularies and sizes of the task as plain values.
    """

    policy: Any
    env: SequenceEnv | None
    run: RunConfig
    words: Mapping[str, Any]

    def generate(
        self,
        sources: Sequence[Source] | str | None = None,
        decode: Decode | Beam | MBR = Beam(),
        n: PositiveInt = 1,
        *,
        too_long: str = "cut",
    ) -> list[list[Candidate]]:
        """Return the n best texts for every source; see `rlseq.generate`."""
        return generate(self.policy, self._writes(), sources, decode, n, too_long=too_long)

    def score(
        self, sources: Sequence[Source] | None, targets: Sequence[str], *, too_long: str = "cut"
    ) -> list[float]:
        """Return log p(target | source) of every target; sources are None if the task has no sources."""
        return score(self.policy, self._writes(), sources, targets, too_long=too_long)

    def task(self, **options: Any) -> SequenceEnv:
        """Return a task with data and the vocabularies of the model, to test or train the policy further.

        Args:
            **options: options of the task that replace those of the run, such as `path="new.tsv"`.
        """
        self._writes()
        if not self.run.env:
            raise ValueError(
                "the task of this run was not made by rlseq.make, so that its id is not known; make it, and "
                "use model.policy"
            )
        needed = [name for name in self.run.unrecorded if name not in options]
        if needed:
            raise ValueError(
                f"the task of this run was made with {', '.join(needed)}, which no file can hold; give it "
                f"again: task({needed[0]}=…)"
            )
        device = next(self.policy.parameters()).device
        options = self.run.with_options({"device": device, **options})
        made: SequenceEnv = task_with_words(self.run.env, options, self.spec)
        return made

    @checked_arguments
    def save(self, path: str | PathLike[str]) -> Path:
        """Save the model without optimiser and history, as a folder or as a file whose name ends with `.zip`.

        Returns:
            The path, from which `rlseq.load` reads the model wherever rlseq is installed.
        """
        path = Path(path)
        files, archive = self._files(), path.suffix == ".zip"
        if path.exists() and (path.is_dir() == archive or not _is_model_or_empty(path)):
            raise FileExistsError(
                17, "the path exists and is not a saved model; choose another path", str(path)
            )
        make_folder(path.parent if archive else path)
        if archive:
            write_whole(path, _zipped(files))
        else:
            self.write(path)
        return path

    def write(self, folder: Path) -> None:
        """Write the files of the model into a folder, whatever else is in it."""
        for name, data in self._files().items():
            write_whole(folder / name, data)

    def _files(self) -> dict[str, bytes]:
        """The files of the model by name, its description last."""
        state = self.policy.state_dict()
        weights = write_tensors({name: value.cpu().clone().contiguous() for name, value in state.items()})
        description = {
            "schema": MODEL_SCHEMA,
            "rlseq": __version__,
            "run": self.run.plain(),
            "words": dict(self.words),
            "policy": described_policy(self.policy),
            "weights": checksum(weights),
        }
        return {WEIGHTS: weights, DESCRIPTION: sealed(description)}

    def save_pretrained(self, path: str | PathLike[str], *, merge: bool = False) -> Path:
        """Write a policy "hf" as a folder from which transformers loads model, tokenizer and settings.

        Args:
            path: the folder, new or empty.
            merge: add adapters to the weights of the model; else they are saved alone, as peft loads them.
        """
        if not hasattr(self.policy, "save_pretrained"):
            raise ValueError(
                f"the policy is a {type(self.policy).__name__} and no pretrained model; use save(path)"
            )
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(17, "there is something else already; choose a new folder", str(path))
        vocab = self.spec.vocab
        self.policy.save_pretrained(path, vocab, self.spec.max_len, merge=merge)
        return path

    @property
    def spec(self) -> TaskSpec:
        """The vocabularies and sizes of the task."""
        self._writes()
        return TaskSpec.from_json(self.words)

    @property
    def reads(self) -> bool:
        """Whether the policy is conditioned on a source, a text or an image."""
        return reads(self._writes())

    def _writes(self) -> SequenceEnv:
        """Return the task without data; refuse a policy that does not generate texts."""
        if self.env is None:
            raise ValueError(
                "the policy acts in a Gymnasium environment and writes no texts; use model.policy"
            )
        return self.env


@checked_arguments
def load(
    path: str | PathLike[str], *, best: bool = False, policy: Any = None, device: str | torch.device = "cpu"
) -> Model:
    """Return the trained model of a run's folder, or of a folder or `.zip` that `Model.save` has written.

    Neither the data nor the task of the training are needed.

    Args:
        path: the folder of a run, or a saved model.
        best: the weights of the run's best evaluation, in place of its last ones.
        policy: a network that takes the weights, where the policy was not made by `rlseq.make_policy`.
        device: where the model is.
    """
    path = Path(path)
    if not isinstance(policy, torch.nn.Module | None):
        raise TypeError(f"policy must be a network that takes the weights (nn.Module), got {shown(policy)}")
    if not path.exists():
        raise FileNotFoundError(2, "there is no such run or saved model", str(path))
    is_run = path.is_dir() and not (path / DESCRIPTION).exists()
    if best and not is_run:
        raise ValueError(
            f"{path} is a saved model, which has one set of weights; best applies to the folder of a run"
        )
    try:
        found = _of_run(path, best) if is_run else _saved(path)
    except (AttributeError, KeyError, RuntimeError, SafetensorError, TypeError, zipfile.BadZipFile) as error:
        raise Damaged(f"{path} is not a saved model or a run, or was changed ({_why(error)})") from error
    import_modules(found.run.imports)
    env = _without_data(found, device)
    if policy is None:
        policy = _policy(found, env, device)
    give_weights(str(found.path), found.weights, policy)
    return Model(policy.eval(), env, found.run, found.words)


@dataclass(frozen=True)
class _Found:
    """The content of a run's folder, or of a saved model."""

    path: Path
    run: RunConfig
    words: Json
    spec: TaskSpec | ControlSpec  # the words, read
    policy: Json  # class and shapes
    weights: Mapping[str, Tensor]


def _of_run(path: Path, best: bool) -> _Found:
    """Return the model in the folder of a run."""
    if not (path / "config.json").exists():
        raise ValueError(
            f"{path} is neither a run nor a saved model: it has neither config.json nor {DESCRIPTION}"
        )
    config, words = configuration(path), read_words(path)
    run = RunConfig.of(read_run(path), path / "run.json")
    return _Found(path, run, words, _spec(words), config["policy"], read_state(path, best)["policy"])


def _saved(path: Path) -> _Found:
    """Return a model that `Model.save` has written."""
    if path.is_dir():
        return _described(path, path)
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise Damaged(f"{path} is not a saved model: it is compressed")
        return _described(path, zipfile.Path(archive))


def _described(path: Path, files: Any) -> _Found:
    """Return the model in a folder or in an opened archive."""
    described = unsealed(read_json(files / DESCRIPTION), path / DESCRIPTION)
    if described["schema"] != MODEL_SCHEMA:
        raise Damaged(f"{path} has schema {described['schema']!r}, this version reads {MODEL_SCHEMA!r}")
    try:
        weights = (files / WEIGHTS).read_bytes()
    except OSError as error:
        raise Damaged(f"{path / WEIGHTS} cannot be read ({error})") from error
    if described["weights"] != checksum(weights):
        raise Damaged(f"{path}: {WEIGHTS} was changed after it was written (its checksum differs)")
    run, words = RunConfig.of(described["run"], path / DESCRIPTION), described["words"]
    return _Found(path, run, words, _spec(words), described["policy"], read_tensors(weights))


def _spec(words: Json) -> TaskSpec | ControlSpec:
    """Return the vocabularies and sizes of a task, or the observations and actions of one without words."""
    if "control" in words:
        return ControlSpec(**words["control"])
    spec = TaskSpec.from_json(words)
    spec.items()  # whose shapes and types must be possible
    return spec


def _why(error: Exception) -> str:
    """Return in one line why files cannot be read."""
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _without_data(found: _Found, device: str | torch.device) -> SequenceEnv | None:
    """Return the task of a model without its items; None if it has no vocabulary."""
    if isinstance(found.spec, ControlSpec):
        return None
    cls = task_class(found.run.env) if found.run.env in ids() else SequenceEnv
    return found.spec.env(cls, found.run.options, device=device, seed=found.run.seed)


def _policy(found: _Found, env: Any, device: str | torch.device) -> Any:
    """Return a new policy with the name and the sizes of that of the run."""
    if found.run.stock:
        from rlseq.adapters.sb3_agent import stock_agent

        return stock_agent(found.run.algorithm, env, **found.run.hyper).policy
    if not found.run.policy:
        raise ValueError(
            f"the policy of {found.path}, a {found.policy['class']}, was not made by rlseq.make_policy from "
            "names and numbers alone; make it, and pass it: rlseq.load(path, policy=…)"
        )
    spec = found.spec if isinstance(found.spec, ControlSpec) else TokenSpec.of(env)
    remade = {name: value for name, value in found.policy.items() if name not in ("class", "parameters")}
    return build_policy(found.run.policy, spec, found.run.seed, device, found.run.policy_sizes | remade)


def give_weights(path: str, weights: Mapping[str, Tensor], policy: Any, new: Sequence[str] = ()) -> None:
    """Load weights into a policy, or refuse weights of another policy.

    Args:
        path: the file or folder of the weights, for errors.
        weights: the weights by parameter.
        policy: the policy that receives them.
        new: the ends of the names of parameters that may keep their initial weights if there are none.
    """
    own = policy.state_dict()
    kept = {name: value for name, value in own.items() if name.endswith(tuple(new)) and name not in weights}
    weights = {**kept, **weights}
    stored = {name: list(value.shape) for name, value in weights.items()}
    differ = [f"\n  {line}" for line in differences(stored, described_policy(policy)["parameters"], "policy")]
    if differ:
        raise ValueError(
            f"the weights of {path} are of another policy:{''.join(differ[:DIFFERENCES_LISTED])}\n"
            "use the policy and the sizes that it was trained with"
        )
    policy.load_state_dict(weights)


def _is_model_or_empty(path: Path) -> bool:
    """Return whether a model may be written there: over another model, or into an empty folder."""
    if path.is_dir():
        return (path / DESCRIPTION).exists() or not any(path.iterdir())
    return zipfile.is_zipfile(path) and zipfile.Path(path, DESCRIPTION).exists()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files, uncompressed and without dates, so that equal models are equal files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()
