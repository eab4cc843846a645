"""`RewardModel`: the network of a discriminator that learns from labels which texts are better, as a reward.

    pairs:   P(text 1 is called better) = σ(r(x, y₁) − r(x, y₂))        (Bradley & Terry 1952)
    scores:  r(x, y) is regressed on the score

Labels of one source are held out together, so that accuracy is that on sources that were not learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from rlseq.discriminators import Discriminator, built_for
from rlseq.discriminators.objectives import logit
from rlseq.discriminators.texts import TextBatch
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.mdp.task_spec import TaskSpec
from rlseq.types import Context
from rlseq.utils.arguments import Checked, NonNegativeFloat, PositiveFloat, PositiveInt, Range, Seed
from rlseq.utils.files import (
    Damaged,
    checksum,
    make_folder,
    read_json,
    sealed,
    unsealed,
    write_whole,
)
from rlseq.utils.modules import eval_mode
from rlseq.utils.version import __version__

REWARD_SCHEMA = "rlseq.reward/1"
REWARD_FILE, WEIGHTS_OF_REWARD = "reward.json", "reward.safetensors"  # the files of a saved reward model
JUDGED_TOGETHER = 1024  # texts
NetworkFactory = Callable[[], Discriminator]


@dataclass(frozen=True)
class Judgements:
    """N answers of a labeller: texts `[N]`, two of each for pairs, and what was said of them.

    Args:
        texts: the first and the second text of every pair; or the one text that has a score.
        answers: `[N]`: 1 where the first text is better, 0 where the second is, ½ for neither; or scores.
        items: `[N]`: a number for every source; labels of one source are held out together.
    """

    texts: tuple[TextBatch, ...]
    answers: Tensor
    items: Tensor

    @property
    def pairs(self) -> bool:
        """Whether two texts were compared; else one had a score."""
        return len(self.texts) == 2

    def take(self, rows: Tensor) -> Judgements:
        """Return some of the answers."""
        return Judgements(tuple(part.take(rows) for part in self.texts), self.answers[rows], self.items[rows])


@dataclass(frozen=True)
class RewardLearning(Checked):
    """Settings by which a reward model learns from labels."""

    lr: PositiveFloat = 2e-3
    """Step size of Adam."""
    epochs: PositiveInt = 20
    """The most times that every label is learned from; how often is chosen on labels that are held out."""
    batch: PositiveInt = 32
    """Labels of a step."""
    weight_decay: NonNegativeFloat = 0.01
    """Decay of the weights, of AdamW."""
    folds: Annotated[int, Range(3)] = 5
    """Parts of the labels: each is judged once by a network that has learned from all others but one, on
    which the number of epochs is chosen."""
    seed: Seed = 0
    """Seed of initial weights, folds and batches."""


def bradley_terry(margin: Tensor, better: Tensor) -> Tensor:
    """Return the mean of −b log σ(r₁ − r₂) − (1 − b) log σ(r₂ − r₁), margin = r₁ − r₂ `[n]`."""
    return F.binary_cross_entropy_with_logits(margin, better)


def margins(network: Discriminator, judged: Judgements) -> Tensor:
    """Return r₁ − r₂ of pairs, or r of single texts: `[N]`."""
    values = [logit(network(*part)) for part in judged.texts]
    return values[0] - values[1] if judged.pairs else values[0]


def loss_of_labels(network: Discriminator, judged: Judgements) -> Tensor:
    """Return the loss of labels: Bradley and Terry's of pairs, the squared error of scores."""
    loss = bradley_terry if judged.pairs else F.mse_loss
    return loss(margins(network, judged), judged.answers)


@dataclass(frozen=True)
class CrossValidated:
    """Margins of all labels by networks that had not learned from their sources, and the epochs to take."""

    margins: Tensor
    epochs: int


def cross_validated(make: NetworkFactory, judged: Judgements, how: RewardLearning) -> CrossValidated:
    """Return how labels are judged that were not learned from: every fold once.

    Args:
        make: a new network.
        judged: all labels.
        how: the settings.
    """
    fold, found, epochs = _folds(judged.items, how), torch.zeros_like(judged.answers), []
    for number in range(how.folds):
        tested, chosen_on = fold == number, fold == (number + 1) % how.folds
        parts = (~(tested | chosen_on), chosen_on, tested)
        learned, dev, test = (judged.take(part.nonzero().squeeze(1)) for part in parts)
        found[tested], best = _judged_apart(make(), learned, dev, test, how)
        epochs.append(best)
    return CrossValidated(found, round(median(epochs)))


def _judged_apart(
    network: Discriminator, learned: Judgements, dev: Judgements, test: Judgements, how: RewardLearning
) -> tuple[Tensor, int]:
    """Return the margins of test labels after the number of epochs that is best on dev, and that number."""
    best, margins_then, epochs = float("inf"), margins(network, test).detach(), 1
    for epoch in _epochs(network, learned, how):
        with torch.no_grad(), eval_mode(network):
            loss = float(loss_of_labels(network, dev))
            if loss < best:
                best, margins_then, epochs = loss, margins(network, test), epoch
    if best == float("inf"):
        raise ValueError(f"the loss of the reward model is not finite; choose a smaller lr than {how.lr:g}")
    return margins_then, epochs


def trained(make: NetworkFactory, judged: Judgements, how: RewardLearning, epochs: int) -> Discriminator:
    """Return a network that has learned from all labels."""
    network = make()
    for epoch in _epochs(network, judged, how):
        if epoch == epochs:
            break
    return network


def _epochs(network: Discriminator, judged: Judgements, how: RewardLearning) -> Iterator[int]:
    """Train a network; yield the number of epochs after each of them."""
    optimizer = torch.optim.AdamW(network.parameters(), how.lr, weight_decay=how.weight_decay)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)  # of dropout, and of batches
        for epoch in range(1, how.epochs + 1):
            network.train()
            for rows in torch.split(torch.randperm(len(judged.answers)), how.batch):
                optimizer.zero_grad(set_to_none=True)
                loss_of_labels(network, judged.take(rows)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            yield epoch


def _folds(items: Tensor, how: RewardLearning) -> Tensor:
    """Return the fold of every label, `[N]`; those of one source have one fold."""
    sources, source = torch.unique(items, return_inverse=True)
    if len(sources) < how.folds:
        raise ValueError(
            f"labels of {len(sources)} sources cannot be divided into {how.folds} folds; label more, or "
            "choose fewer folds (three at least)"
        )
    generator = torch.Generator().manual_seed(how.seed)
    return (torch.randperm(len(sources), generator=generator) % how.folds)[source]


# ── the reward ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class RewardModel:
    """A reward that has learned from labels:  scale · r(x, y) + shift.

    Args:
        network: r.
        spec: the words and sizes of the task whose texts were labelled.
        made: the reader of the network by name, and its sizes.
        scale: of the reward; the spread of the scores, or 1 of pairs.
        shift: makes the mean reward of the labelled texts that of their scores, or 0 of pairs.
        report: accuracy on held-out labels, and how the model was made, as plain values.
    """

    network: Discriminator
    spec: TaskSpec
    made: Mapping[str, Any]
    scale: float
    shift: float
    report: Mapping[str, Any]

    @torch.no_grad()
    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every text, `[B]`."""
        texts = TextBatch(tokens, mask, context)
        parts = range(0, len(tokens), JUDGED_TOGETHER)
        with eval_mode(self.network):
            found = [self.network(*texts.take(slice(n, n + JUDGED_TOGETHER))) for n in parts]
        return self.scale * logit(torch.cat(found)) + self.shift

    @property
    def signature(self) -> str:
        """The checksum of the weights, by which a run knows its reward again."""
        return f"reward model {checksum(self._weights())}"

    def check(self, env: Any) -> None:
        """Refuse a task with other words, or with longer texts or sources, than those that were labelled."""
        env = sequence_env(env)
        for name in ("vocab", "source_vocab"):
            mine, theirs = getattr(self.spec, name), getattr(env, name)
            if (mine and mine.words) != (theirs and theirs.words):
                raise ValueError(
                    f"the reward model reads texts of another {name} than {type(env).__name__} has: "
                    f"{len(mine or ())} words against {len(theirs or ())}; train a policy from the run whose "
                    "texts were labelled (--start RUN), which has the same words, or label texts of this task"
                )
        self.network.check(env)
        longest = env.items["source"].shape[1] if env.source_vocab is not None else 0
        if longest > self.spec.source_length:
            raise ValueError(
                f"the reward model reads sources of {self.spec.source_length} tokens, the task has sources "
                f"of {longest}; choose max_source_len={self.spec.source_length}"
            )

    @classmethod
    def of(
        cls,
        network: Discriminator,
        spec: TaskSpec,
        made: Mapping[str, Any],
        judged: Judgements,
        report: Mapping[str, Any],
    ) -> RewardModel:
        """Return a reward on the scale of the scores; of pairs one whose mean over their texts is 0."""
        if judged.pairs:
            found = cls(network, spec, made, 1.0, 0.0, report)
            values = torch.cat([found(*part) for part in judged.texts])
            return cls(network, spec, made, 1.0, -float(values.mean()), report)
        scale, shift = standard(judged.answers)
        return cls(network, spec, made, scale, shift, report)

    # ── files ────────────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write the model into a folder, which is new, empty, or has a reward model, and return it."""
        folder = Path(folder)
        if folder.exists() and not (folder.is_dir() and _may_be_written(folder)):
            raise FileExistsError(17, "there is something else already; choose a new folder", str(folder))
        make_folder(folder)
        weights = self._weights()
        described = {
            "schema": REWARD_SCHEMA,
            "rlseq": __version__,
            "words": self.spec.to_json(),
            "made": dict(self.made),
            "scale": self.scale,
            "shift": self.shift,
            "report": dict(self.report),
            "weights": checksum(weights),
        }
        write_whole(folder / WEIGHTS_OF_REWARD, weights)
        write_whole(folder / REWARD_FILE, sealed(described))
        return folder

    def _weights(self) -> bytes:
        state = self.network.state_dict()
        return write_tensors({name: value.cpu().clone().contiguous() for name, value in state.items()})


def standard(scores: Tensor) -> tuple[float, float]:
    """Return the spread of scores, and their mean."""
    spread, mean = torch.std_mean(scores, correction=0)
    if not spread > 0:
        raise ValueError(f"all {len(scores)} scores are {float(mean):g}, so that there is nothing to learn")
    return float(spread), float(mean)


def _may_be_written(folder: Path) -> bool:
    """Return whether a folder is empty, or has a reward model."""
    return (folder / REWARD_FILE).exists() or not any(folder.iterdir())


def load_reward(path: str | PathLike[str], env: SequenceEnv | None = None) -> RewardModel:
    """Return the reward model in a folder, as `rlseq reward-model` writes it.

    Args:
        path: the folder.
        env: the task that it is to judge: it must have the words of the texts that were labelled.
    """
    path = Path(path)
    if not (path / REWARD_FILE).exists():
        raise FileNotFoundError(2, f"there is no reward model: no {REWARD_FILE} in that folder", str(path))
    found = unsealed(read_json(path / REWARD_FILE), path / REWARD_FILE)
    if found.get("schema") != REWARD_SCHEMA:
        raise Damaged(f"{path} has schema {found.get('schema')!r}, this version reads {REWARD_SCHEMA!r}")
    try:
        weights = (path / WEIGHTS_OF_REWARD).read_bytes()
        if checksum(weights) != found["weights"]:
            raise Damaged(
                f"{path}: {WEIGHTS_OF_REWARD} was changed after it was written (its checksum differs)"
            )
        spec = TaskSpec.from_json(found["words"])
        network = built_for(spec, found["made"])
        network.load_state_dict(read_tensors(weights))
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise Damaged(f"{path} cannot be read as a reward model ({error})") from error
    model = RewardModel(network, spec, found["made"], found["scale"], found["shift"], found["report"])
    if env is not None:
        model.check(env)
        network.to(sequence_env(env).device)
    return model
