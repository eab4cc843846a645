"""`SequenceEnv`: writing a text, token by token, as a batch of episodes in lock-step.

The Markov decision process: a state is the context and the prefix written so far, an action is the next
token, the transition appends it, and the reward judges the finished text. There are two views of it:

* `begin` / `append` / `score`, here, are the engine's: T tokens appended without looking, one judgement;
* `reset` / `step`, in `view.py`, are Gymnasium's: one token in, this step's reward out.

Both run the same `append` and the same `judge`. Torch is inside, on any device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor
from typing_extensions import Unpack

from rlseq.mdp.checks import (
    checked_context,
    checked_index,
    checked_legal,
    checked_reward,
    reward_functions,
    unchanged,
    usable_device,
)
from rlseq.mdp.episodes import Episodes
from rlseq.mdp.spaces import observation_space
from rlseq.mdp.vector import GymnasiumView
from rlseq.types import Context, Reward, SteppedEnv
from rlseq.utils.arguments import PositiveInt, Seed, checked_arguments
from rlseq.utils.masks import at_last
from rlseq.utils.memory import check_fits
from rlseq.vocab import Vocab

CELL = 64  # bytes for every token of a batch: ids, random numbers, probabilities, rewards, spaces


class EnvOptions(TypedDict, total=False):
    """Options that every task has, passed on by its constructor."""

    num_envs: PositiveInt  # B, episodes in lock-step; 1
    device: str | torch.device  # where contexts, tokens and rewards live; "cpu"
    seed: Seed | None  # of contexts and of sampling; None draws one
    tensors: bool  # True: torch tensors across `reset` and `step`; False: NumPy
    autoreset_mode: str | AutoresetMode  # NextStep (Gymnasium's default), SameStep or Disabled
    render_mode: str | None  # ansi or human


class SequenceEnv(GymnasiumView):
    """A task: B episodes that write at most `max_len` tokens each.

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

    held_out: ClassVar[Mapping[str, Any] | None] = None

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
        rows = options.get("num_envs", 1)
        check_fits(rows * (max_len + 1) * CELL, num_envs=rows, max_len=max_len)
        self.device = usable_device(options.get("device", "cpu"))
        self.parts = reward_functions(reward)
        self.metrics: dict[str, Reward] = {}  # what `rlseq.evaluate` reports beside the reward
        self.items = {name: value.to(self.device) for name, value in (items or {}).items()}
        self.source_vocab = (source_vocab or vocab) if "source" in self.items else None
        super().__init__(
            num_envs=rows,
            space=observation_space(vocab, max_len, self.source_vocab, self.items, self.observed),
            vocab=vocab,
            max_len=max_len,
            device=self.device,
            seed=options.get("seed"),
            tensors=options.get("tensors", True),
            autoreset_mode=options.get("autoreset_mode", AutoresetMode.NEXT_STEP),
            render_mode=options.get("render_mode"),
        )

    # ── what a task may override ─────────────────────────────────────────────────────────────────────

    @property
    def size(self) -> int:
        """Number of items that episodes are drawn from."""
        rows = {name: len(value) for name, value in self.items.items()} or {"nothing": 1}
        if len(set(rows.values())) > 1 or 0 in rows.values():
            raise ValueError(f"items must have one row per item each, and at least one; got rows {rows}")
        return next(iter(rows.values()))

    def data_tensors(self) -> dict[str, Tensor]:
        """Everything that contexts are made of, by which a run knows its data again."""
        return self.items

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """The contexts of items `index` `[B]`."""
        return {name: value[index] for name, value in self.items.items()}

    def legal(self) -> Tensor | None:
        """Tokens allowed next, bool `[B, V]` or `[V]`; None when all are.

        Finished rows are asked too, and not heeded; their `length` may be T.
        """
        return None

    def allowed(self) -> Tensor | None:
        """What `legal` answers, checked: `[B, V]` or `[V]`."""
        return checked_legal(self.legal(), self.num_envs, len(self.vocab), self.device)

    # ── the episode ──────────────────────────────────────────────────────────────────────────────────

    def begin(self, *, repeat: int = 1, index: Tensor | None = None) -> dict[str, Tensor]:
        """Start every row afresh and return the contexts.

        Args:
            repeat: K; rows iK … iK+K−1 share a context.
            index: the items to use, `[B / K]`; drawn at random when not given.
        """
        rows = self.num_envs
        index = checked_index(index, self.size, rows, repeat, self.device)
        if index is None:
            drawn = (rows // repeat,)
            index = torch.randint(self.size, drawn, generator=self.generator, device=self.device)
        index = index.repeat_interleave(repeat)
        with unchanged("`contexts`", self.items, index=index):
            drawn_context = self.contexts(index)
        context = checked_context(drawn_context, index, self.source_vocab)
        self.episodes = Episodes.begin(context, rows, self.max_len, self.vocab.pad, self.device)
        return self.context

    def append(self, actions: Tensor) -> None:
        """Write a token in every unfinished row: the transition, without reward or host synchronisation."""
        self.episodes.append(actions, self.vocab.pad, self.vocab.eos)

    def score(self) -> Tensor:
        """Rewards of the finished batch, `[B, T]`: on the last token, or on every token if dense."""
        judged = self.judge(self.tokens, self.mask, self.context, self.done)
        return torch.stack(list(judged.values())).sum(0)

    def judge(
        self, tokens: Tensor, mask: Tensor, context: Context, done: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Every part of the reward, laid out as `[B, T]`, for any texts.

        A part that answers `[B]` is due on the last token, and not before the text is `done`.
        """
        due = mask[:, 0] if done is None else done
        values = {}
        for name, part in self.parts.items():
            with unchanged(f"reward {name!r}", context, tokens=tokens, mask=mask):
                answer = part(tokens, mask, context)
            values[name] = checked_reward(name, answer, mask, due)
        self._dense = any(value.ndim == 2 for value in values.values())
        return {name: value if value.ndim == 2 else at_last(value, mask) for name, value in values.items()}


def task_of(env: Any) -> SequenceEnv | SteppedEnv:
    """A task with a loop of its own as it is; else the `SequenceEnv` behind its wrappers."""
    return env if isinstance(env, SteppedEnv) else sequence_env(env)


def sequence_env(env: Any) -> SequenceEnv:
    """The `SequenceEnv` behind whatever `rlseq.make`, `gym.make_vec` or `gym.make` returned."""
    inner = getattr(env, "unwrapped", env)
    inner = getattr(inner, "batch", inner)
    if not isinstance(inner, SequenceEnv):
        raise TypeError(
            f"expected a task that writes texts (SequenceEnv), as rlseq.make returns it, got "
            f"{type(env).__name__}; any other Gymnasium environment is trained on by policy-gradient agents "
            'with make_policy("mlp", env), where env = rlseq.adapters.GymEnv(…)'
        )
    return inner
