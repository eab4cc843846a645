"""`Task`: writing a text, token by token, as a Markov decision process of a batch of episodes in lock-step.

A state is the context and the prefix written so far, an action is the next token, the transition appends it,
and the reward judges the finished text. The engine calls `begin`, appends up to T tokens without looking at
them, and calls `score` once. Torch is inside, on any device; `SequenceEnv` adds the interface of Gymnasium.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from operator import index as as_int
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from rlseq.mdp.checks import (
    checked_context,
    checked_index,
    checked_legal,
    checked_reward,
    checked_rows,
    reward_functions,
    usable_device,
)
from rlseq.mdp.episodes import Episodes
from rlseq.mdp.starts import Starts
from rlseq.mdp.writing_rules import WritingRules
from rlseq.types import (
    NOISE,
    Context,
    Counts,
    HeldOut,
    LearningReward,
    LegalRule,
    Reward,
    Rollout,
    RuleSupport,
)
from rlseq.utils.inplace import unchanged
from rlseq.utils.masks import token_rewards
from rlseq.utils.memory import check_fits
from rlseq.utils.ranks import ALONE
from rlseq.utils.stateful import load_states, set_generator, states_of
from rlseq.vocab import TokenizerVocab, Vocab

TOKEN_BYTES = 64  # bytes for every token of a batch: ids, random numbers, probabilities, rewards, spaces


class Task:
    """A task: B episodes that write at most `max_len` tokens each. `SequenceEnv` explains the arguments."""

    held_out: ClassVar[HeldOut] = None
    observed: Mapping[str, tuple[float, float]] = {}  # items shown beside the source: their range

    def __init__(
        self,
        vocab: Vocab,
        max_len: int,
        reward: Reward | Mapping[str, Reward],
        items: Context | None,
        source_vocab: Vocab | None,
        num_envs: int,
        device: str | torch.device,
        seed: int | None,
    ) -> None:
        check_fits(num_envs * (max_len + 1) * TOKEN_BYTES, num_envs=num_envs, max_len=max_len)
        self.device = usable_device(device)
        self.vocab, self.max_len, self.num_envs = vocab, max_len, checked_rows(num_envs)
        self.writing_rules = WritingRules.of(vocab) if isinstance(vocab, TokenizerVocab) else None
        self.parts = reward_functions(reward)
        self.dense: bool | None = None  # is a part of the reward [B, T]? known from its first answer
        self.metrics: dict[str, Reward] = {}  # what `rlseq.evaluate` reports beside the reward
        self.items = {name: value.to(self.device) for name, value in (items or {}).items()}
        self.source_vocab = (source_vocab or vocab) if "source" in self.items else None
        self.starts: Starts | None = None  # of training episodes; None: random items, no word written
        self.rank = ALONE  # of this process among those that divide the rows of a batch
        self.noise = 0  # numbers of z, drawn for every text
        self.episodes = self._no_episodes()
        self.counts = Counts()  # shared with all copies that `replace` makes
        self.generator = torch.Generator(self.device)
        self.reseed(seed)

    # ── what a task may override ─────────────────────────────────────────────────────────────────────

    @property
    def size(self) -> int:
        """The number of items that episodes are drawn from."""
        rows = {name: len(value) for name, value in self.items.items()} or {"nothing": 1}
        if len(set(rows.values())) > 1 or 0 in rows.values():
            raise ValueError(f"items must have one row per item each, and at least one; got rows {rows}")
        return next(iter(rows.values()))

    def data_tensors(self) -> dict[str, Tensor]:
        """Return everything that contexts are made of; a run compares it when it is resumed."""
        return self.items

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """Return the contexts of items `index` `[B]`."""
        return {name: value[index] for name, value in self.items.items()}

    def legal(self) -> Tensor | LegalRule | None:
        """Return the tokens allowed next, bool `[B, V]` or `[V]`; None when all are.

        Masks `[B, V]` are recorded for every step of a rollout, as `[B, T, V]`. Where they depend on nothing
        but the tokens written, a task may return a function `(tokens [n, T], length [n]) -> [n, V]` instead:
        it holds for a whole rollout, and is called again where the texts are scored.

        By default these are the rules of the model whose tokenizer is the vocabulary. Finished rows are asked
        too, and their answers are ignored; their `length` may be T.
        """
        rules = self.writing_rules
        if rules is None:
            return None
        return rules.masks if rules.vary else rules.legal(self.tokens, self.length)

    def length_bucket(self, rows: int) -> Tensor | None:
        """Return random items `[rows]` whose texts have similar lengths; None where any items will do."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the random numbers, and the states of rewards that have one.

        A task with more state, such as random numbers of its own, adds it here and in `load_state_dict`.
        """
        starts = {} if self.starts is None else {"starts": self.starts.state_dict()}
        return {"generator": self.generator.get_state(), "rewards": states_of(self.parts), **starts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        set_generator(self.generator, state["generator"])
        load_states(self.parts, state["rewards"], "task's rewards")
        if ("starts" in state) != (self.starts is not None):
            had, has = ("a", "no") if "starts" in state else ("no", "a")
            raise ValueError(
                f"the state is of a task with {had} curriculum, and this task has {has} curriculum"
            )
        if self.starts is not None:
            self.starts.load_state_dict(state["starts"])

    def as_source(self, source: Any) -> Any:
        """Return a source in the form in which the task reads it: a text without blanks around it."""
        return source.strip() if isinstance(source, str) else source

    def without_data(self, options: Mapping[str, Any]) -> None:
        """Set what `legal` and `as_source` need where a policy writes without data and constructor.

        Args:
            options: those with which the task of the training was made.
        """

    # ── the episodes ─────────────────────────────────────────────────────────────────────────────────

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

    def begin(self, *, repeat: int = 1, index: Tensor | None = None) -> dict[str, Tensor]:
        """Start every row afresh and return the contexts.

        Args:
            repeat: K; rows iK … iK+K−1 share a context.
            index: the items to use, `[B / K]`; drawn at random when not given.
        """
        rows = self.num_envs
        index = checked_index(index, self.size, rows, repeat, self.device)
        if index is None:
            index = self.rank.own(self._drawn_items(self.rank.all(rows // repeat)))
        context = self.context_of(index.repeat_interleave(repeat), repeat)
        self.episodes = Episodes.begin(context, rows, self.max_len, self.vocab.pad, self.device)
        return context

    def _drawn_items(self, number: int) -> Tensor:
        """Return random items `[number]`, those of the sampler of beginnings where there is one."""
        drawn = None if self.starts is None else self.starts.draw(self, number)
        if drawn is not None:
            return drawn
        return torch.randint(self.size, (number,), generator=self.generator, device=self.device)

    def context_of(self, index: Tensor, repeat: int = 1) -> dict[str, Tensor]:
        """Return the contexts of items, checked, with their index, and with noise where the task draws it.

        Args:
            index: the items, `[B]`.
            repeat: K; rows iK … iK+K−1 share a context, and so their noise.
        """
        with unchanged("`contexts`", self.items, index=index):
            found = self.contexts(index)
        context = checked_context(found, index, self.source_vocab)
        if self.noise:
            drawn = self.rank.all(len(index) // repeat), self.noise
            z = torch.randn(drawn, generator=self.generator, device=self.device)
            context[NOISE] = self.rank.own(z).repeat_interleave(repeat, 0)
        return context

    def legal_rule(self) -> LegalRule | None:
        """Return the function that `legal` answers with; None where it answers with masks."""
        answer = self.legal()
        return answer if callable(answer) else None

    def allowed(self, rule: LegalRule | None = None) -> Tensor | None:
        """Return the tokens allowed next by a rule, or else by `legal`, checked: `[B, V]`, `[V]` or None."""
        answer = rule or self.legal()
        found = answer(self.tokens, self.length) if callable(answer) else answer
        return checked_legal(found, self.num_envs, len(self.vocab), self.device)

    def allowed_everywhere(self, tokens: Tensor, context: Context) -> Tensor | RuleSupport | None:
        """Return what is allowed after every prefix of texts `[N, T]`: a rule, `[N, T, V]`, None for all."""
        length, done = torch.zeros_like(tokens[:, 0]), torch.zeros_like(tokens[:, 0], dtype=torch.bool)

        def after(steps: int) -> Task:
            episodes = Episodes.of(context, tokens, length + steps, done, self.vocab.pad)
            return self.replace(episodes=episodes)

        if (rule := after(0).legal_rule()) is not None:
            return RuleSupport(rule, tokens)
        found = [after(t).allowed() for t in range(tokens.shape[1])]
        if all(step is None for step in found):
            return None
        every = torch.ones(len(self.vocab), dtype=torch.bool, device=tokens.device)
        shape = len(tokens), len(self.vocab)
        return torch.stack([(every if step is None else step).expand(shape) for step in found], 1)

    def append(self, actions: Tensor) -> None:
        """Write a token in every unfinished row: the transition, without reward or host synchronisation."""
        self.episodes.append(actions, self.vocab.pad, self.vocab.eos)

    def score(self) -> Tensor:
        """Return the rewards of the finished texts, `[B, T]`: on the last token, or on all if dense."""
        return self.total_reward(self.tokens, self.mask, self.context, self.done)

    def total_reward(
        self, tokens: Tensor, mask: Tensor, context: Context, done: Tensor | None = None
    ) -> Tensor:
        """Return the sum of the parts of the reward, `[B, T]`, for any texts."""
        return torch.stack(list(self.reward_parts(tokens, mask, context, done).values())).sum(0)

    def reward_parts(
        self, tokens: Tensor, mask: Tensor, context: Context, done: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return every part of the reward as `[B, T]`, for any texts.

        A part that answers `[B]` is paid on the last token, and not before the text is `done`.
        """
        due = mask[:, 0] if done is None else done
        values = {}
        for name, part in self.parts.items():
            with unchanged(f"reward {name!r}", context, tokens=tokens, mask=mask):
                answer = part(tokens, mask, context)
            values[name] = checked_reward(name, answer, mask, due)
        self.dense = any(value.ndim == 2 for value in values.values())
        return {name: token_rewards(value, mask) for name, value in values.items()}

    def texts(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Return sequences of ids as text."""
        return self.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist())

    def sources(self) -> list[str]:
        """Return every row's source as text; empty where the task has none."""
        if self.source_vocab is None:
            return [""] * self.num_envs
        if "source" not in self.context:
            raise ValueError(
                "no episode has begun, so that there are no sources yet; call reset() or begin() first"
            )
        source, pad = self.context["source"], self.source_vocab.pad
        return self.source_vocab.decode_batch(source.tolist(), (source != pad).sum(1).tolist())

    # ── training ─────────────────────────────────────────────────────────────────────────────────────

    def set_progress(self, done: float) -> None:
        """Tell the sampler of beginnings the share of training that is done; called before each update."""
        if self.starts is not None:
            self.starts.set_progress(done)

    def learn(self, batch: Rollout) -> None:
        """Let the sampler of beginnings and rewards that learn note a batch; called after each update."""
        if self.starts is not None:
            self.starts.learn(batch)
        for part in self.parts.values():
            if isinstance(part, LearningReward):
                part.learn(batch)

    # ── copies, random numbers, and going back ───────────────────────────────────────────────────────

    def take(self, rows: Tensor | slice) -> Self:
        """Return a task of some rows: indices copy them, as often as named; a slice shares memory."""
        return self.replace(episodes=self.episodes.take(rows))

    def replace(self, **changes: Any) -> Self:
        """Return the same task with some attributes changed; the others, random numbers too, are shared.

        Gymnasium's spaces of a batch, which take longer to make than an episode, stay those of this task.

        Args:
            **changes: `reward`, as the constructor takes it; `episodes`, texts under way, whose number
                becomes `num_envs`; or any other attribute, such as `num_envs`, `generator` or `counts`.
        """
        if "reward" in changes:
            changes |= {"parts": reward_functions(changes.pop("reward")), "dense": None}
        unknown = [name for name in changes if not hasattr(self, name)]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no attribute {unknown[0]!r} to replace")
        other = copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        if "episodes" in changes:
            other.num_envs = len(other.episodes)
        elif checked_rows(other.num_envs) != self.num_envs:
            other.episodes = self._no_episodes()
        return other

    def _no_episodes(self) -> Episodes:
        """Return the state before the first `begin`."""
        return Episodes.begin({}, 0, self.max_len, self.vocab.pad, self.device)

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
        kept, seed = (self.episodes.clone(), self.generator.get_state(), dict(vars(self.counts))), self.seed
        try:
            yield
        except BaseException:
            self._restore(*kept)
            self.seed = seed
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


def no_reward(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return 0 for every text: the reward of a task in which texts are only written."""
    return torch.zeros(len(tokens), device=tokens.device)
