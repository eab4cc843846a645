"""`Adversary`: a discriminator as a reward, trained to tell the texts of a policy from real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.discriminators.mode_collapse import Collapse
from rlseq.discriminators.network import Discriminator
from rlseq.discriminators.objectives import GAN, LogitReward, Objective, Penalty, probability, unconstrained
from rlseq.discriminators.texts import (
    TextBatch,
    WriteTexts,
    check_pool,
    generated_texts,
    joined,
    mismatched,
    real_texts,
    restored,
)
from rlseq.engine.checks import checked_floats
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import Context, Metrics
from rlseq.utils.arguments import NonNegativeInt, PositiveFloat, PositiveInt, check_fields
from rlseq.utils.inplace import unchanged
from rlseq.utils.modules import eval_mode

SCORED_TOGETHER = 1024  # texts
PLAIN, WATCH = GAN(), Collapse()
View = Callable[[Tensor, torch.Generator], Tensor]  # the mask of texts -> of what a discriminator learns from


ReadPair = Callable[[TextBatch, TextBatch], tuple[TextBatch, TextBatch]]  # (real, generated) -> what is read


def as_written(real: TextBatch, generated: TextBatch) -> tuple[TextBatch, TextBatch]:
    """Return texts as they were written."""
    return real, generated


def whole(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mask of whole texts."""
    return mask


def random_prefix(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mask of the first 1 … length words of every text (REGS, Li et al. 2017)."""
    drawn = torch.rand(len(mask), generator=generator, device=mask.device)
    length = 1 + (drawn * mask.sum(1)).long()
    return mask & (torch.arange(mask.shape[1], device=mask.device) < length.unsqueeze(1))


@dataclass(eq=False)
class Adversary:
    """A discriminator as a reward of any task with references, and how it is trained.

        min_D  −E_real log D(x, y) − ½ E_π log(1 − D(x, y)) − ½ E_real log(1 − D(x′, y))

    Without a source there are no x and no mismatched pairs (x′, y). Every step has as many generated texts
    as real ones. `learn` trains the discriminator on texts of the policy as it is now; `freeze` stops that.
    """

    discriminator: Discriminator
    value: LogitReward = probability  # the reward of its logits (rlseq.discriminators.objectives)
    objective: Objective = PLAIN  # its loss (rlseq.discriminators.objectives)
    penalties: Sequence[Penalty] = ()  # added to the loss
    constrain: Callable[[nn.Module], None] = unconstrained  # of its weights, after every step
    view: View = whole  # the part of a text that it learns from
    mismatch: bool = True  # real texts under a wrong source are low examples, too
    lr: PositiveFloat = 1e-4  # step size of Adam
    texts: PositiveInt = 1000  # texts of a regeneration
    batch: PositiveInt = 64  # real texts of a step, and as many generated ones
    memory: NonNegativeInt = 0  # texts of past policies that stay low examples
    collapse: Collapse = WATCH  # warns when the generator repeats itself

    def __post_init__(self) -> None:
        check_fields(self)
        if self.discriminator.head.out_features == 2 and not self.mismatch:
            raise ValueError("the second output learns from mismatched pairs; leave mismatch=True")
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), self.lr)
        self.past: TextBatch | None = None
        self.frozen = False

    # ── the reward ───────────────────────────────────────────────────────────────────────────────────

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every text, `[B]`."""
        return self._scored(self.rewards, TextBatch(tokens, mask, context))

    def steps(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every prefix, `[B, T]`."""
        return self._scored(self._prefixes, TextBatch(tokens, mask, context))

    def rewards(self, texts: TextBatch) -> Tensor:
        """Return the reward of every text `[B]`, through which a gradient reaches texts that are no ids."""
        return self.value(self.logits(texts))

    def logits(self, texts: TextBatch) -> Tensor:
        """Return the discriminator's logits of whole texts, `[B, outputs]`, checked."""
        with unchanged("the discriminator", texts.context, tokens=texts.tokens, mask=texts.mask):
            answer = self.discriminator(*texts)
        shape = len(texts.tokens), self.discriminator.head.out_features
        wanted = f"a discriminator must return float logits [B, outputs] = {shape}"
        return checked_floats(wanted, answer, shape)

    def _prefixes(self, texts: TextBatch) -> Tensor:
        return self.value(self.discriminator.steps(*texts))

    @torch.no_grad()
    def _scored(self, how: Callable[[TextBatch], Tensor], texts: TextBatch) -> Tensor:
        """Score texts in parts, so that memory does not grow with the number of completions."""
        starts = range(0, len(texts.tokens), SCORED_TOGETHER)
        with eval_mode(self.discriminator):
            return torch.cat([how(texts.take(slice(start, start + SCORED_TOGETHER))) for start in starts])

    # ── learning ─────────────────────────────────────────────────────────────────────────────────────

    def check(self, env: Any) -> None:
        """Refuse a task whose texts it cannot read, or that has no real texts."""
        env = sequence_env(env)
        self.discriminator.check(env)
        if not self.frozen:
            check_pool(env)

    def begin(self, env: Any) -> None:
        """Check the task, and draw from it the texts that rewards need."""
        self.check(env)

    def learn(
        self,
        policy: Any,
        env: Any,
        *,
        regenerations: int = 1,
        epochs: int = 1,
        generated: WriteTexts = generated_texts,
        read: ReadPair = as_written,
    ) -> Metrics:
        """Train the discriminator against a policy.

        Args:
            policy: writes the low examples.
            env: the task, whose references are the high ones.
            regenerations: how often the policy writes new texts.
            epochs: how often each of them is learned from.
            generated: how the policy writes them.
            read: returns what the discriminator reads of real texts and of generated ones.

        Returns:
            The loss; the mean rewards of real and of generated texts; the share of their pairs in which the
            real one has more (½ of a useless discriminator, 1 of a perfect one); the variety of texts.
        """
        env = sequence_env(env)
        self.begin(env)
        if self.frozen or not regenerations:
            return {}
        logs: list[Tensor] = []
        for _ in range(regenerations):
            fresh = generated(policy, env, self.texts)
            for _ in range(epochs):
                logs += [self._step(*read(*pair)) for pair in self._pairs(fresh, env)]
            self._remember(fresh, env.generator)
        names = ("d_loss", "d_real", "d_generated", "d_order")
        means = dict(zip(names, torch.stack(logs).mean(0), strict=True))
        if not means["d_loss"].isfinite():
            raise ValueError(f"the loss of the discriminator is {float(means['d_loss'])}; it must be finite")
        return {**means, **self.collapse(real_texts(env, len(fresh.tokens)), fresh.words())}

    def freeze(self) -> None:
        """Stop learning, for an evaluation or an exact gradient."""
        self.frozen = True

    def _pairs(self, fresh: TextBatch, env: SequenceEnv) -> Iterator[tuple[TextBatch, TextBatch]]:
        """Yield batches of as many real texts as generated ones."""
        pool = fresh if self.past is None else joined([fresh, self.past])
        order = torch.randperm(len(pool.tokens), generator=env.generator, device=env.device)
        for rows in torch.split(order[: len(fresh.tokens)], self.batch):
            low, high = pool.take(rows), real_texts(env, len(rows))
            yield self._viewed(high, env), self._viewed(low, env)

    def _viewed(self, texts: TextBatch, env: SequenceEnv) -> TextBatch:
        return texts._replace(mask=self.view(texts.mask, env.generator))

    def _step(self, high: TextBatch, low: TextBatch) -> Tensor:
        """Take one step, and return the loss and the statistics of rewards."""
        self.discriminator.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, values = self.loss(high, low)
        for penalty in self.penalties:
            loss = loss + penalty(self.discriminator, high, low)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.constrain(self.discriminator)
        return torch.stack([loss.detach(), *values])

    def loss(self, high: TextBatch, low: TextBatch) -> tuple[Tensor, Sequence[Tensor]]:
        """Return what to minimise, and the statistics of rewards."""
        up, down = self.logits(high), self.logits(low)
        wrong = up[:0]
        if self.discriminator.conditional and self.mismatch:
            wrong = self.logits(mismatched(high))
        if up.shape[1] == 1:
            loss = self.objective(up[:, 0], torch.cat([down, wrong])[:, 0])
        else:  # a real text is real under any source, but matches its own alone
            loss = self.objective(torch.cat([up, wrong])[:, 0], down[:, 0])
            loss = loss + self.objective(up[:, 1], wrong[:, 1])
        return loss, reward_statistics(self.value(up.detach()), self.value(down.detach()))

    @torch.no_grad()
    def _remember(self, fresh: TextBatch, generator: torch.Generator) -> None:
        """Keep some of all texts so far, recent ones with a higher probability."""
        if not self.memory:
            return
        pool = fresh if self.past is None else joined([self.past, fresh])
        kept = torch.randperm(len(pool.tokens), generator=generator, device=pool.tokens.device)
        self.past = pool.take(kept[: self.memory])

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, the optimizer and the texts of past policies."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "past": self.past and self.past._asdict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.past = restored(state["past"], self.discriminator)


@torch.no_grad()
def reward_statistics(up: Tensor, down: Tensor) -> Sequence[Tensor]:
    """Return the mean rewards of real and generated texts, and the share of pairs with the real one above."""
    return up.mean(), down.mean(), (up.unsqueeze(1) > down).float().mean()
