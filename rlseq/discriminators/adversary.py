"""`Adversary`: a reward that learns to tell what a policy writes from real texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.discriminators.mode_collapse import Collapse
from rlseq.discriminators.network import Discriminator
from rlseq.discriminators.objectives import GAN, Objective, Penalty, Value, probability, unconstrained
from rlseq.discriminators.texts import (
    TextBatch,
    check_pool,
    joined,
    mismatched,
    real,
    remembered,
    written,
)
from rlseq.engine.checks import checked_floats
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import Context, Metrics
from rlseq.utils.arguments import NonNegativeInt, PositiveFloat, PositiveInt, check_fields
from rlseq.utils.inplace import unchanged
from rlseq.utils.modules import eval_mode

JUDGED = 1024  # texts judged together
PLAIN, WATCH = GAN(), Collapse()
View = Callable[[Tensor, torch.Generator], Tensor]  # the mask of texts -> of what a discriminator learns from


def whole(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Whole texts."""
    return mask


def random_prefix(mask: Tensor, generator: torch.Generator) -> Tensor:
    """The first 1 … length words of every text, for a judge of unfinished ones (REGS, Li et al. 2017)."""
    drawn = torch.rand(len(mask), generator=generator, device=mask.device)
    length = 1 + (drawn * mask.sum(1)).long()
    return mask & (torch.arange(mask.shape[1], device=mask.device) < length.unsqueeze(1))


@dataclass(eq=False)
class Adversary:
    """A discriminator as a reward of any task with references, and how it learns.

        min_D  −E_real log D(x, y) − ½ E_π log(1 − D(x, y)) − ½ E_real log(1 − D(x′, y))

    Without a source there are no x and no mismatched pairs (x′, y). Every step sees as many generated texts
    as real ones. `learn` is called when the policy has moved; `freeze` ends that.
    """

    discriminator: Discriminator
    value: Value = probability  # what its logits pay (rlseq.discriminators.objectives)
    objective: Objective = PLAIN  # what it learns by (rlseq.discriminators.objectives)
    penalties: Sequence[Penalty] = ()  # added to that
    constrain: Callable[[nn.Module], None] = unconstrained  # its weights, after every step
    view: View = whole  # as much of a text as it learns from
    mismatch: bool = True  # real texts under a wrong source are low, too, where it looks at the source
    lr: PositiveFloat = 1e-4  # step size of Adam
    texts: PositiveInt = 1000  # generated for every regeneration
    batch: PositiveInt = 64  # real texts of a step, and generated ones
    memory: NonNegativeInt = 0  # texts of past policies kept as low examples, beside those of the present one
    collapse: Collapse = WATCH  # says when the generator repeats itself

    def __post_init__(self) -> None:
        check_fields(self)
        if self.discriminator.head.out_features == 2 and not self.mismatch:
            raise ValueError("the second output learns from mismatched pairs; leave mismatch=True")
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), self.lr)
        self.past: TextBatch | None = None
        self.frozen = False

    # ── the reward ───────────────────────────────────────────────────────────────────────────────────

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """What every text is paid, `[B]`."""
        return self._judged(self._whole, TextBatch(tokens, mask, context))

    def steps(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """What every prefix is paid, `[B, T]`."""
        return self._judged(self._prefixes, TextBatch(tokens, mask, context))

    def _whole(self, texts: TextBatch) -> Tensor:
        return self.value(self.logits(texts))

    def logits(self, texts: TextBatch) -> Tensor:
        """The discriminator's answer for whole texts, `[B, outputs]`, checked."""
        with unchanged("the discriminator", texts.context, tokens=texts.tokens, mask=texts.mask):
            answer = self.discriminator(*texts)
        shape = len(texts.tokens), self.discriminator.head.out_features
        wanted = f"a discriminator must return float logits [B, outputs] = {shape}"
        return checked_floats(wanted, answer, shape)

    def _prefixes(self, texts: TextBatch) -> Tensor:
        return self.value(self.discriminator.steps(*texts))

    @torch.no_grad()
    def _judged(self, how: Callable[[TextBatch], Tensor], texts: TextBatch) -> Tensor:
        """Part by part, so that memory does not grow with the number of completions."""
        starts = range(0, len(texts.tokens), JUDGED)
        with eval_mode(self.discriminator):
            return torch.cat([how(texts.take(slice(start, start + JUDGED))) for start in starts])

    # ── learning ─────────────────────────────────────────────────────────────────────────────────────

    def check(self, env: Any) -> None:
        """Refuse a task whose texts it cannot read, or from which it cannot learn, before it does."""
        env = sequence_env(env)
        self.discriminator.check(env)
        if not self.frozen:
            check_pool(env)

    def begin(self, env: Any) -> None:
        """Check the task, and draw from it whatever judgements need; it is checked alone by `check`."""
        self.check(env)

    def learn(self, policy: Any, env: Any, *, regenerations: int = 1, epochs: int = 1) -> Metrics:
        """Catch up with a policy.

        Args:
            policy: writes the low examples.
            env: whose references are the high ones.
            regenerations: how often it writes new ones.
            epochs: times that each of them is learned from.

        Returns:
            The loss; mean values of real and of generated texts, and the share of their pairs in which the
            real one has more (½: it tells nothing, 1: it tells all); how varied the generated ones are.
        """
        env = sequence_env(env)
        self.begin(env)
        if self.frozen or not regenerations:
            return {}
        logs: list[Tensor] = []
        for _ in range(regenerations):
            fresh = written(policy, env, self.texts)
            logs += [self._step(*pair) for _ in range(epochs) for pair in self._pairs(fresh, env)]
            self._remember(fresh, env.generator)
        names = ("d_loss", "d_real", "d_generated", "d_order")
        means = dict(zip(names, torch.stack(logs).mean(0), strict=True))
        if not means["d_loss"].isfinite():
            raise ValueError(f"the loss of the discriminator is {float(means['d_loss'])}; it must be finite")
        return {**means, **self.collapse(real(env, len(fresh.tokens)), fresh)}

    def freeze(self) -> None:
        """Stay as it is, for an evaluation or an exact gradient."""
        self.frozen = True

    def _pairs(self, fresh: TextBatch, env: SequenceEnv) -> Iterator[tuple[TextBatch, TextBatch]]:
        """As many real texts as generated, step by step."""
        pool = fresh if self.past is None else joined([fresh, self.past])
        order = torch.randperm(len(pool.tokens), generator=env.generator, device=env.device)
        for rows in torch.split(order[: len(fresh.tokens)], self.batch):
            low, high = pool.take(rows), real(env, len(rows))
            yield tuple(t._replace(mask=self.view(t.mask, env.generator)) for t in (high, low))  # type: ignore[misc]

    def _step(self, high: TextBatch, low: TextBatch) -> Tensor:
        """One step; the loss, and what is watched."""
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
        """What to minimise; and what is `watched`."""
        up, down = self.logits(high), self.logits(low)
        wrong = up[:0]
        if self.discriminator.conditional and self.mismatch:
            wrong = self.logits(mismatched(high))
        if up.shape[1] == 1:
            loss = self.objective(up[:, 0], torch.cat([down, wrong])[:, 0])
        else:  # a real text is real under any source, but goes with its own
            loss = self.objective(torch.cat([up, wrong])[:, 0], down[:, 0])
            loss = loss + self.objective(up[:, 1], wrong[:, 1])
        return loss, watched(self.value(up.detach()), self.value(down.detach()))

    @torch.no_grad()
    def _remember(self, fresh: TextBatch, generator: torch.Generator) -> None:
        """Keep some of what was ever written, the recent more likely."""
        if not self.memory:
            return
        pool = fresh if self.past is None else joined([self.past, fresh])
        kept = torch.randperm(len(pool.tokens), generator=generator, device=pool.tokens.device)
        self.past = pool.take(kept[: self.memory])

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────

    def state_dict(self) -> dict[str, Any]:
        """What it has learned, and the texts that it remembers."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "past": self.past and self.past._asdict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.past = remembered(state["past"], self.discriminator)


@torch.no_grad()
def watched(up: Tensor, down: Tensor) -> Sequence[Tensor]:
    """Mean values of real and of generated texts, and the share of pairs in which the real one has more."""
    return up.mean(), down.mean(), (up.unsqueeze(1) > down).float().mean()
