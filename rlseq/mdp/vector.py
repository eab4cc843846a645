"""Gymnasium's view of a task: one token in, this step's reward out, rows that start again by themselves.

`step` is the task's own `append`, plus its `judge` on the rows that just ended; the engine never comes here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from operator import index as as_int
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor
from typing_extensions import Self

from rlseq.mdp.checks import autoreset_mode_of, checked_actions, checked_rows, reward_functions
from rlseq.mdp.episodes import Episodes
from rlseq.mdp.spaces import Info, Ranges, object_array, seen_as, with_masks
from rlseq.types import Context, Counts
from rlseq.vocab import Vocab

Observation = dict[str, Any]


class GymnasiumView(gym.vector.VectorEnv[Observation, Any, Any]):
    """`reset`, `step` and `render` of a `SequenceEnv`, which says what an episode is.

    Args:
        num_envs: B, episodes in lock-step.
        space: of one observation.
        vocab: the words.
        max_len: T.
        device: where contexts, tokens and rewards live.
        seed: of contexts and of sampling; None draws one.
        tensors: hand torch tensors across the boundary; False: NumPy.
        autoreset_mode: NextStep, SameStep or Disabled.
        render_mode: ansi, human or None.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 4}  # noqa: RUF012

    source_vocab: Vocab | None
    observed: Ranges = {}  # noqa: RUF012  (items shown beside the source, an image say: lowest, highest number)

    def __init__(
        self,
        num_envs: int,
        space: gym.spaces.Dict,
        vocab: Vocab,
        max_len: int,
        device: torch.device,
        seed: int | None,
        tensors: bool,
        autoreset_mode: str | AutoresetMode,
        render_mode: str | None,
    ) -> None:
        self.num_envs = checked_rows(num_envs)
        self.vocab, self.max_len, self.device, self.tensors = vocab, max_len, device, tensors
        self.episodes = self._no_episodes()
        self.generator = torch.Generator(device)
        self.reseed(seed)
        self.single_observation_space = space
        self.single_action_space = gym.spaces.Discrete(len(vocab))
        self.observation_space = batch_space(space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'ansi' or 'human', got {render_mode!r}")
        self.render_mode = render_mode
        self.counts = Counts()  # of all views of this task together
        self._dense: bool | None = None  # is the reward [B, T]? known from its first answer

    @property
    def context(self) -> dict[str, Tensor]:
        """The source, the references and the index of every row; empty before the first `begin`."""
        return self.episodes.context

    @property
    def tokens(self) -> Tensor:
        """The tokens written, `[B, T]`, padded."""
        return self.episodes.tokens

    @property
    def mask(self) -> Tensor:
        """True on the tokens written, EOS included, `[B, T]`."""
        return self.episodes.mask

    @property
    def length(self) -> Tensor:
        """The number of tokens written, `[B]`."""
        return self.episodes.length

    @property
    def done(self) -> Tensor:
        """True where the text has ended, `[B]`."""
        return self.episodes.done

    @abstractmethod
    def begin(self, *, repeat: int = 1, index: Tensor | None = None) -> dict[str, Tensor]:
        """Start every row afresh."""

    @abstractmethod
    def append(self, actions: Tensor) -> None:
        """The transition."""

    @abstractmethod
    def judge(
        self, tokens: Tensor, mask: Tensor, context: Context, done: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The parts of the reward."""

    @abstractmethod
    def allowed(self) -> Tensor | None:
        """The tokens allowed next."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start episodes: all rows, or those of `options={"reset_mask": rows}`.

        Other options: `{"repeat": K}` gives K consecutive rows the same context, `{"index": items}`
        chooses the contexts.

        All rows share one generator, which `seed` sets, so a row has no seed of its own: a list of seeds is
        refused.
        """
        options = dict(options or {})
        rows = options.pop("reset_mask", None)
        unknown = set(options) - {"repeat", "index"}
        if unknown:
            raise ValueError(f"unknown reset options {sorted(unknown)}; known: index, repeat, reset_mask")
        with self.rollback_on_error():
            if seed is not None:
                self.reseed(seed)
                super().reset(seed=seed)
            if rows is None:
                self.begin(**options)
            else:
                self._require_reset()
                self._restart(self._checked_mask(rows), **options)
            self._show()
            return self._observe(), self._info()

    def step(self, actions: Any) -> tuple[Observation, Any, Any, Any, Info]:
        """Write one token per row; rows that end are judged, and start again as `autoreset_mode` says."""
        self._require_reset()
        actions = checked_actions(actions, self.num_envs, len(self.vocab), self.device)
        finished = self.done.clone()
        if self.autoreset_mode is AutoresetMode.DISABLED and finished.any():
            rows = finished.nonzero().flatten().tolist()
            raise ValueError(f"rows {rows[:8]} are finished and cannot step; reset them first")
        with self.rollback_on_error():
            self.append(actions)
            ended = self.done & ~finished
            reward, info = self._judge_step(ended, ~finished)
            if self.autoreset_mode is AutoresetMode.NEXT_STEP and finished.any():
                self._restart(finished)
            self._show()
            if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
                info = self._final(ended, info)
                self._restart(ended)
            truncated = torch.zeros_like(ended)  # the horizon belongs to the task: it terminates
            outcome = (self._out(x) for x in (reward, ended, truncated))
            return self._observe(), *outcome, {**self._info(), **info}

    def action_masks(self) -> Any:
        """Legal tokens of every row, bool `[B, V]`, as sb3-contrib asks for them."""
        self._require_reset()
        return self._out(self._legal_rows().clone())  # the caller may write to it

    def render(self) -> Any:
        """Source and prefix of every row as text; `human` prints them."""
        self._require_reset()
        written = self.texts(self.tokens, self.mask)
        lines = tuple(f"{s} → {w}▏" if s else f"{w}▏" for s, w in zip(self.sources(), written, strict=True))
        if self.render_mode != "human":
            return lines
        print("\n".join(lines))  # noqa: T201  (what "human" means)
        return None

    def _show(self) -> None:
        """What Gymnasium means by "human": every state is shown, unasked."""
        if self.render_mode == "human":
            self.render()

    def with_view(self, *, tensors: bool, autoreset_mode: str | AutoresetMode) -> Self:
        """The same task with episodes of its own and another boundary; random numbers are shared."""
        mode = autoreset_mode_of(autoreset_mode)
        metadata = {**self.metadata, "autoreset_mode": mode}
        other = self.replace(tensors=tensors, autoreset_mode=mode, metadata=metadata)
        other.episodes = self._no_episodes()
        return other

    def take(self, rows: Tensor | slice) -> Self:
        """Return a task of some rows: indices copy them, as often as named; a slice shares memory."""
        return self.replace(episodes=self.episodes.take(rows))

    def replace(self, **changes: Any) -> Self:
        """Return the same task with some attributes changed; the others, random numbers too, are shared.

        Args:
            **changes: `reward`, as the constructor takes it; `episodes`, texts under way, whose number
                becomes `num_envs`; or any other attribute, such as `num_envs`, `generator` or `counts`.
        """
        if "reward" in changes:
            changes |= {"parts": reward_functions(changes.pop("reward")), "_dense": None}
        unknown = [name for name in changes if not hasattr(self, name)]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no attribute {unknown[0]!r} to replace")
        other = copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        if "episodes" in changes:
            other.num_envs = len(other.episodes)
        elif other.num_envs != self.num_envs:
            other.episodes = self._no_episodes()
        return other

    def _no_episodes(self) -> Episodes:
        """Return the state before the first `begin`."""
        return Episodes.begin({}, 0, self.max_len, self.vocab.pad, self.device)

    def as_source(self, text: str) -> str:
        """A text as the task reads its sources: without blanks around it."""
        return text.strip()

    def texts(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Sequences of ids as text."""
        return self.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist())

    def sources(self) -> list[str]:
        """Every row's source as text; empty where the task has none."""
        if self.source_vocab is None:
            return [""] * self.num_envs
        source, pad = self.context["source"], self.source_vocab.pad
        return self.source_vocab.decode_batch(source.tolist(), (source != pad).sum(1).tolist())

    def reseed(self, seed: int | None) -> None:
        """Set the generator of contexts and of sampling; None draws a seed."""
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        elif isinstance(seed, (Sequence, np.ndarray, Tensor)):
            raise TypeError(
                f"seed must be one integer, as all rows draw from one generator, got {seed!r:.60}; choose "
                "the items of rows by reset(options={'index': [...]}), or make an environment for each seed: "
                "gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(id)] * rows)"
            )
        self.seed = as_int(seed)
        self.generator.manual_seed(self.seed)

    @contextmanager
    def rollback_on_error(self) -> Iterator[None]:
        """Restore the episodes, the counts and the random numbers if what runs inside raises an error."""
        kept = self.episodes.clone(), self.generator.get_state(), dict(vars(self.counts))
        seeds = self.seed, self._np_random, self._np_random_seed
        try:
            yield
        except BaseException:
            self._restore(*kept)
            self.seed, self._np_random, self._np_random_seed = seeds
            raise

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Restore the episodes, the counts and the random numbers after whatever runs inside."""
        kept = self.episodes, self.generator.get_state(), dict(vars(self.counts))
        try:
            yield
        finally:
            self._restore(*kept)

    def _restore(self, episodes: Episodes, random: Tensor, counts: dict[str, Any]) -> None:
        self.episodes = episodes
        self.generator.set_state(random)
        vars(self.counts).update(counts)

    def _restart(self, rows: Tensor, repeat: int = 1, index: Tensor | None = None) -> None:
        """Begin anew in some rows and leave the others as they are."""
        before = self.episodes
        self.begin(repeat=repeat, index=index)
        self.episodes = self.episodes.where(rows, before)

    def _judge_step(self, ended: Tensor, live: Tensor) -> tuple[Tensor, Info]:
        """This step's reward `[B]`: dense rewards of live rows, terminal ones of rows that just ended."""
        reward = torch.zeros(self.num_envs, device=self.device)
        rows = (live if self._dense is not False else ended).nonzero().flatten()
        if len(rows) == 0:
            return reward, {}
        context = {name: value[rows] for name, value in self.context.items()}
        judged = self.judge(self.tokens[rows], self.mask[rows], context, self.done[rows])
        last = (self.length[rows] - 1).unsqueeze(1)
        for part in judged.values():
            reward[rows] += part.gather(1, last).squeeze(1)
        return reward, self._ending(ended, rows, judged) if ended.any() else {}

    def _ending(self, ended: Tensor, rows: Tensor, judged: Mapping[str, Tensor]) -> Info:
        """What the last `info` of an episode carries: its text, and the parts of its return."""
        just = ended.nonzero().flatten().tolist()
        texts = object_array(self.texts(self.tokens[just], self.mask[just]), just, self.num_envs)
        parts = {}
        for name, part in judged.items():
            total = torch.zeros(self.num_envs, device=self.device).index_copy(0, rows, part.sum(1))
            parts[name] = self._out(total * ended)
        return with_masks({"text": texts, "reward_parts": parts}, self._out(ended))

    def _final(self, ended: Tensor, info: Info) -> Info:
        """Same-step autoreset: the last observation and info move under `final_…`."""
        seen, just = self._observe(), ended.nonzero().flatten().tolist()
        last = [{name: value[row] for name, value in seen.items()} for row in just]
        final = {"final_obs": object_array(last, just, self.num_envs), "final_info": {**self._info(), **info}}
        return with_masks(final, self._out(ended))

    def _observe(self) -> Observation:
        seen = {"prefix": self.tokens, "length": self.length.unsqueeze(1)}
        if self.source_vocab is not None:
            seen["source"] = self.context["source"]
        seen |= {name: self.context[name] for name in self.observed}
        return {name: self._out(seen_as(value)) for name, value in seen.items()}

    def _info(self) -> Info:
        every = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        return with_masks({"action_mask": self._out(self._legal_rows().to(torch.int8))}, self._out(every))

    def _legal_rows(self) -> Tensor:
        legal = self.allowed()
        if legal is None:
            legal = torch.ones(1, dtype=torch.bool, device=self.device)
        legal = legal.expand(self.num_envs, len(self.vocab))
        stuck = ~(legal.any(1) | self.done)
        if stuck.any():
            rows = stuck.nonzero().flatten().tolist()
            raise ValueError(f"no token is legal in rows {rows[:8]}; `legal` must allow at least one")
        return legal

    def _checked_mask(self, rows: Any) -> Tensor:
        mask = torch.as_tensor(rows, device=self.device)
        if mask.dtype != torch.bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must be bool ({self.num_envs},) with at least one True, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        return mask

    def _require_reset(self) -> None:
        if not self.context:
            raise ValueError("the environment was never reset; call reset() first")

    def _out(self, value: Tensor) -> Any:
        return value if self.tensors else value.cpu().numpy()
