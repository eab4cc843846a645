"""`SequenceEnv`: a task with the interface of Gymnasium's vector environments.

`step` appends one token per row, returns the reward of this step, and starts finished rows again as
`autoreset_mode` says. It uses `append` and `reward_parts` of `Task`, as the engine does, which itself calls
neither `reset` nor `step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor
from typing_extensions import Self, TypedDict, Unpack

from rlseq.mdp.checks import autoreset_mode_of, checked_actions
from rlseq.mdp.spaces import Info, object_array, observation_space, seen_as, with_masks
from rlseq.mdp.task import Task
from rlseq.types import NOISE, Context, Reward, SteppedEnv
from rlseq.utils.arguments import NonNegativeInt, PositiveInt, Seed, checked_arguments
from rlseq.vocab import Vocab

Observation = dict[str, Any]


class EnvOptions(TypedDict, total=False):
    """Options that every task has, passed on by its constructor."""

    num_envs: PositiveInt  # B, episodes in lock-step; 1
    device: str | torch.device  # where contexts, tokens and rewards live; "cpu"
    seed: Seed | None  # of contexts and of sampling; None draws one
    noise: NonNegativeInt  # normal random numbers z that policies read with every context; 0
    tensors: bool  # True: torch tensors across `reset` and `step`; False: NumPy
    autoreset_mode: str | AutoresetMode  # NextStep (Gymnasium's default), SameStep or Disabled
    render_mode: str | None  # ansi or human


class SequenceEnv(Task, gym.vector.VectorEnv[Observation, Any, Any]):
    """A task: B episodes that write at most `max_len` tokens each.

    A subclass may override the first methods of `Task`: `size`, `contexts`, `legal`, and a few more.

    A task declares its held-out data as the class attribute `held_out`: options that make the same task with
    items that are not among its training items, such as `{"split": "test"}`. `rlseq train`,
    `rlseq evaluate` and `rlseq compare` test policies on these. Where it is None, they test policies on the
    training items, and say so in their output.

    Args:
        vocab: the words, and which of them starts, ends and pads a text.
        max_len: T; an episode ends at EOS or after T tokens.
        reward: `(tokens, mask, context) -> [B]` or `[B, T]`; a dict or a weighted sum of them is reported by
            its parts. A reward `[B, T]` is dense: its entry at t may depend on the first t tokens only.
        items: what episodes are about: tensors with one row per item; `source` is observed.
        source_vocab: words of `source`, where they are not `vocab`; no source contains its pad id.
        **options: see `EnvOptions`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 4}  # noqa: RUF012

    @checked_arguments
    def __init__(
        self,
        *,
        vocab: Vocab,
        max_len: PositiveInt,
        reward: Reward | Mapping[str, Reward],
        items: Context | None = None,
        source_vocab: Vocab | None = None,
        **options: Unpack[EnvOptions],
    ) -> None:
        device, seed, rows = options.get("device", "cpu"), options.get("seed"), options.get("num_envs", 1)
        super().__init__(vocab, max_len, reward, items, source_vocab, rows, device, seed)
        self.noise = options.get("noise", 0)
        self.tensors = options.get("tensors", True)
        self.autoreset_mode = autoreset_mode_of(options.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = options.get("render_mode")
        if self.render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'ansi' or 'human', got {self.render_mode!r}")
        self.single_observation_space = observation_space(
            vocab, max_len, self.source_vocab, self.items, self.observed, self.noise
        )
        self.single_action_space = gym.spaces.Discrete(len(vocab))
        self.observation_space = batch_space(self.single_observation_space, rows)
        self.action_space = batch_space(self.single_action_space, rows)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, the random numbers of Gymnasium too."""
        return {**super().state_dict(), "numpy": self._numpy.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        super().load_state_dict(state)
        self._numpy.state = state["numpy"]

    @property
    def _numpy(self) -> Any:
        return self.np_random.bit_generator

    def with_view(self, *, tensors: bool, autoreset_mode: str | AutoresetMode) -> Self:
        """Return the same task with episodes of its own and another boundary; random numbers are shared."""
        mode = autoreset_mode_of(autoreset_mode)
        metadata = {**self.metadata, "autoreset_mode": mode}
        other = self.replace(tensors=tensors, autoreset_mode=mode, metadata=metadata)
        other.episodes = self._no_episodes()
        return other

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start episodes: all rows, or those of `options={"reset_mask": rows}`.

        Other options: `{"repeat": K}` gives K consecutive rows the same context, `{"index": items}`
        chooses the contexts.

        All rows share one generator, which `seed` sets, so a list of seeds is refused.
        """
        if self.starts is not None and self.starts.gives_words:
            raise ValueError(
                "this task begins texts with words of references (ReverseCurriculum), which Gymnasium's "
                "reset and step cannot show; train on it by rlseq.train, or step through the task without "
                "that: env.replace(starts=None)"
            )
        options = dict(options or {})
        rows = options.pop("reset_mask", None)
        unknown = set(options) - {"repeat", "index"}
        if unknown:
            raise ValueError(f"unknown reset options {sorted(unknown)}; known: index, repeat, reset_mask")
        with self.rollback_on_error():
            if seed is not None:
                self.reseed(seed)
            if rows is None:
                self.begin(**options)
            else:
                self._require_reset()
                self._restart(self._checked_mask(rows), **options)
            self._show()
            observation, info = self._observe(), self._info()
            super().reset(seed=seed)
            return observation, info

    def step(self, actions: Any) -> tuple[Observation, Any, Any, Any, Info]:
        """Write one token per row; finished rows start again as `autoreset_mode` says."""
        self._require_reset()
        actions = checked_actions(actions, self.num_envs, len(self.vocab), self.device)
        finished = self.done.clone()
        if self.autoreset_mode is AutoresetMode.DISABLED and finished.any():
            rows = finished.nonzero().flatten().tolist()
            raise ValueError(f"rows {rows[:8]} are finished and cannot step; reset them first")
        with self.rollback_on_error():
            self.append(actions)
            ended = self.done & ~finished
            reward, info = self._step_reward(ended, ~finished)
            if self.autoreset_mode is AutoresetMode.NEXT_STEP and finished.any():
                self._restart(finished)
            self._show()
            if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
                info = self._under_final(ended, info)
                self._restart(ended)
            truncated = torch.zeros_like(ended)  # max_len is part of the task, so reaching it terminates
            outcome = (self._out(x) for x in (reward, ended, truncated))
            return self._observe(), *outcome, {**self._info(), **info}

    def action_masks(self) -> Any:
        """Return the legal tokens of every row, bool `[B, V]`, under the name that sb3-contrib calls."""
        self._require_reset()
        return self._out(self._legal_rows().clone())  # the caller may write to it

    def render(self) -> Any:
        """Return the source and the prefix of every row as text, or print them if the mode is `human`."""
        self._require_reset()
        written = self.texts(self.tokens, self.mask)
        lines = tuple(f"{s} → {w}▏" if s else f"{w}▏" for s, w in zip(self.sources(), written, strict=True))
        if self.render_mode != "human":
            return lines
        print("\n".join(lines))  # noqa: T201  (what "human" means)
        return None

    def _show(self) -> None:
        """Print the state if the render mode is `human`, as Gymnasium does after every reset and step."""
        if self.render_mode == "human":
            self.render()

    def _restart(self, rows: Tensor, repeat: int = 1, index: Tensor | None = None) -> None:
        """Begin anew in some rows and leave the others as they are."""
        before = self.episodes
        self.begin(repeat=repeat, index=index)
        self.episodes = self.episodes.where(rows, before)

    def _step_reward(self, ended: Tensor, live: Tensor) -> tuple[Tensor, Info]:
        """Return the reward of this step `[B]`: dense ones of live rows, others of rows that just ended."""
        reward = torch.zeros(self.num_envs, device=self.device)
        rows = (live if self.dense is not False else ended).nonzero().flatten()
        if len(rows) == 0:
            return reward, {}
        some = self.episodes.take(rows)
        parts = self.reward_parts(some.tokens, some.mask, some.context, some.done)
        last = (some.length - 1).unsqueeze(1)
        for part in parts.values():
            reward[rows] += part.gather(1, last).squeeze(1)
        return reward, self._final_info(ended, rows, parts) if ended.any() else {}

    def _final_info(self, ended: Tensor, rows: Tensor, parts: Mapping[str, Tensor]) -> Info:
        """Return the last `info` of the episodes that ended: their texts, and the parts of their returns."""
        just = ended.nonzero().flatten().tolist()
        texts = object_array(self.texts(self.tokens[just], self.mask[just]), just, self.num_envs)
        returns = {}
        for name, part in parts.items():
            total = torch.zeros(self.num_envs, device=self.device).index_copy(0, rows, part.sum(1))
            returns[name] = self._out(total * ended)
        return with_masks({"text": texts, "reward_parts": returns}, self._out(ended))

    def _under_final(self, ended: Tensor, info: Info) -> Info:
        """Return the last observation and info under `final_…`, as same-step autoreset asks for."""
        seen, just = self._observe(), ended.nonzero().flatten().tolist()
        last = [{name: value[row] for name, value in seen.items()} for row in just]
        final = {"final_obs": object_array(last, just, self.num_envs), "final_info": {**self._info(), **info}}
        return with_masks(final, self._out(ended))

    def _observe(self) -> Observation:
        seen = {"prefix": self.tokens, "length": self.length.unsqueeze(1)}
        if self.source_vocab is not None:
            seen["source"] = self.context["source"]
        seen |= {name: self.context[name] for name in (*self.observed, *[NOISE] * bool(self.noise))}
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


def unwrap_task(env: Any) -> SequenceEnv | SteppedEnv:
    """Return a task with a loop of its own as it is, else the `SequenceEnv` behind its wrappers."""
    return env if isinstance(env, SteppedEnv) else sequence_env(env)


def sequence_env(env: Any) -> SequenceEnv:
    """Return the `SequenceEnv` behind what `rlseq.make`, `gym.make_vec` or `gym.make` returned."""
    inner = getattr(env, "unwrapped", env)
    inner = getattr(inner, "batch", inner)
    if not isinstance(inner, SequenceEnv):
        raise TypeError(
            f"expected a task that writes texts (SequenceEnv), as rlseq.make returns it, got "
            f"{type(env).__name__}; any other Gymnasium environment is trained on by policy-gradient agents "
            'with make_policy("mlp", env), where env = rlseq.adapters.GymEnv(…)'
        )
    return inner
