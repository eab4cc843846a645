"""Every text of a tiny task, three tables of logits, and the batches that could be sampled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlseq.auditing.tabular import Tabular, prefix_codes
from rlseq.mdp.registry import make
from rlseq.policies.spec import TokenSpec
from rlseq.policy_gradient.exact import texts
from rlseq.utils.arguments import Checked, Range, Seed

MOST_BATCHES = 20_000  # batches that are enumerated
DRIFT = 0.3  # standard deviation of the logits of the older policy around those of the policy


@dataclass(frozen=True)
class AuditConfig(Checked):
    """The task of an audit, small enough to enumerate every batch."""

    vocab_size: Annotated[int, Range(2, 4)] = 2  # number of words, of which word 0 ends a text
    length: Annotated[int, Range(2, 4)] = 3  # largest number of words in a text
    contexts: Annotated[int, Range(1, 100)] = 2  # number of contexts, each with rewards of its own
    samples: Annotated[int, Range(1, 12)] = 3  # number of texts in a batch, which share a context
    rewards: Literal["normal", "binary"] = "normal"  # standard normal numbers, or 0 and 1
    sampled_from: Literal["policy", "reference"] = "policy"  # which policy writes the texts
    seed: Seed = 0  # of rewards and logits


class Tables(NamedTuple):
    """Logits of every state, `[states + 1, V]`, of three policies."""

    policy: Tensor
    old: Tensor
    reference: Tensor

    def to(self, dtype: torch.dtype) -> Tables:
        """Return the same numbers in another type."""
        return Tables(*(table.to(dtype) for table in self))

    def on_policy(self) -> Tables:
        """Return tables in which the older policy is the policy itself."""
        return self._replace(old=self.policy.detach())


@dataclass(frozen=True, eq=False)
class AuditBatch:
    """B texts of at most T words; those of a group follow each other."""

    states: Tensor  # [B, T]: the row of the tables that holds the logits of each place
    tokens: Tensor  # [B, T], 0 after the end
    mask: Tensor  # [B, T] bool
    rewards: Tensor  # [B] of whole texts
    advantages: Tensor  # [B]: reward − mean reward of the context
    groups: Tensor  # [B]: which texts share a context
    samples: int = 1  # K, texts of a group

    def take(self, rows: Tensor) -> AuditBatch:
        """Return some of the texts."""
        tensors: dict[str, Any] = {
            name: part[rows] for name, part in vars(self).items() if isinstance(part, Tensor)
        }
        return replace(self, **tensors)

    def padded(self, columns: int, state: int) -> AuditBatch:
        """Return the texts with further columns of padding, all in one state."""
        pad = torch.nn.functional.pad
        return replace(
            self,
            states=pad(self.states, (0, columns), value=state),
            tokens=pad(self.tokens, (0, columns)),
            mask=pad(self.mask, (0, columns)),
        )


class Enumeration:
    """A tiny task, every text in every context, and the tables of logits.

    Args:
        config: the task.
    """

    def __init__(self, config: AuditConfig) -> None:
        self.config = config
        self.env: Any = make(
            "rlseq/Enumerable-v0",
            num_envs=1,
            seed=config.seed,
            vocab_size=config.vocab_size,
            length=config.length,
            sources=config.contexts,
            data_seed=config.seed,
        )
        if config.rewards == "binary":
            self.env.table = (self.env.table > self.env.table.median(1, keepdim=True).values).float()
        self.words, written = texts(self.env)
        self.count = len(self.words)  # N
        self.tables = self._draw()
        self.every = self._all(written)

    @property
    def spare(self) -> int:
        """The row of the tables for places that no text has."""
        return len(self.tables.policy) - 1

    def policy(self) -> Tabular:
        """Return the policy as a module, for agents."""
        return Tabular(TokenSpec.of(self.env), self.config.contexts, self.tables.policy.detach())

    def log_p(self, table: Tensor) -> Tensor:
        """Return log π(y|x) of every text, `[contexts, N]`."""
        return (
            (log_probs_of(table, self.every) * self.every.mask).sum(1).view(self.config.contexts, self.count)
        )

    def batches(self, table: Tensor, groups: int = 1, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the rows of `every` of each batch, `[batches, B]`, and the probability of each.

        Args:
            table: logits of the policy that writes.
            groups: number of groups in a batch.
            samples: K; that of the configuration when not given.
        """
        samples = samples or self.config.samples
        sizes = [self.config.contexts, *[self.count] * samples] * groups
        number = int(torch.tensor(sizes).double().prod())
        if number > MOST_BATCHES:
            raise ValueError(
                f"{number:,} batches of {groups * samples} texts are too many to enumerate (limit "
                f"{MOST_BATCHES:,}); take fewer samples, words or contexts, or shorter texts"
            )
        drawn = torch.cartesian_prod(*(torch.arange(n) for n in sizes)).view(number, groups, 1 + samples)
        rows = (drawn[:, :, :1] * self.count + drawn[:, :, 1:]).flatten(1)
        log_p = self.log_p(table).detach().flatten()
        return rows, log_p[rows].sum(1).exp() / self.config.contexts**groups

    def batch(self, rows: Tensor, samples: int | None = None) -> AuditBatch:
        """Return a batch of texts by their rows in `every`, in groups of K."""
        samples = samples or self.config.samples
        groups = torch.arange(len(rows)) // samples
        return replace(self.every.take(rows), groups=groups, samples=samples)

    def _draw(self) -> Tables:
        """Draw the logits of the three policies."""
        config, random = self.config, torch.Generator().manual_seed(self.config.seed)
        states = (config.vocab_size + 1) ** (config.length - 1) * config.contexts + 1
        drawn = torch.randn(3, states, config.vocab_size, generator=random, dtype=torch.float64)
        return Tables(drawn[0].requires_grad_(), drawn[0].detach() + DRIFT * drawn[1], drawn[2])

    def _all(self, written: Tensor) -> AuditBatch:
        """Return every text in every context, those of a context one after the other."""
        contexts, count = self.config.contexts, self.count
        tokens, mask = self.words.repeat(contexts, 1), written.repeat(contexts, 1)
        index = torch.arange(contexts).repeat_interleave(count)
        read = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)
        states = prefix_codes(read, self.config.vocab_size) * contexts + index.unsqueeze(1)
        rewards = self.env.look_up(tokens, mask, {"index": index}).double()
        found = AuditBatch(states, tokens, mask, rewards, rewards, index)
        chance = (log_probs_of(self.tables.policy, found) * mask).sum(1).exp().detach()
        mean = (chance * rewards).view(contexts, count).sum(1)
        return replace(found, advantages=rewards - mean[index])


def log_probs_of(table: Tensor, batch: AuditBatch) -> Tensor:
    """Return log π(token) at every place, `[B, T]`."""
    return table[batch.states].log_softmax(2).gather(2, batch.tokens.unsqueeze(2)).squeeze(2)
