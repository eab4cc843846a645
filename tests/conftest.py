"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests and their processes run side by side

import torch
from torch import Tensor

import rlseq
from rlseq.policy_gradient.exact import texts
from rlseq.types import Rollout

Grads = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="session")
def _cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What tests read is kept for the session, and nowhere else."""
    before, place = os.environ.get("RLSEQ_CACHE"), tmp_path_factory.mktemp("cache")
    os.environ["RLSEQ_CACHE"] = str(place)
    yield place
    if before is None:
        del os.environ["RLSEQ_CACHE"]
    else:
        os.environ["RLSEQ_CACHE"] = before


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tiny tensors: a second thread only waits


class Whole:
    """Every text of every context, one row each, and what the policy makes of it token by token."""

    def __init__(self, policy: Any, env: Any) -> None:
        words, mask = texts(env)
        self.tokens, self.mask = words.repeat(env.size, 1), mask.repeat(env.size, 1)
        self.index = torch.arange(env.size).repeat_interleave(len(words))
        self.context = {**env.contexts(self.index), "index": self.index}
        self.shape = env.size, len(words)
        self.rewards = env.total_reward(self.tokens, self.mask, self.context)
        self.logits = self.walk(policy, env)
        self.log_probs = self.logits.log_softmax(2).gather(2, self.tokens.unsqueeze(2)).squeeze(2) * self.mask
        self.log_p = self.log_probs.sum(1)
        self.chance = self.log_p.detach().exp() / env.size

    def walk(self, policy: Any, env: Any) -> Tensor:
        """Logits `[B, T, V]`, by `step`."""
        state, token, all_logits = policy.start(self.context), torch.full_like(self.index, env.vocab.bos), []
        for t in range(env.max_len):
            logits, state = policy.step(token, state)
            all_logits.append(logits)
            token = self.tokens[:, t]
        return torch.stack(all_logits, 1)

    def actions_worth(self) -> Tensor:
        """Q(y₍₁…ₜ₋₁₎, yₜ) `[B, T]` of terminal rewards: the mean over all texts that begin so."""
        rows = []
        for i in range(len(self.tokens)):
            same = (self.tokens == self.tokens[i]).cumprod(1) * (self.index == self.index[i]).unsqueeze(1)
            weight = same * self.chance.unsqueeze(1)
            rows.append((weight * self.rewards.sum(1, keepdim=True)).sum(0) / weight.sum(0))
        return torch.stack(rows)

    def states_worth(self) -> Tensor:
        """V(y₍₁…ₜ₋₁₎) `[B, T]`."""
        first = (self.chance * self.rewards.sum(1)).view(self.shape).sum(1) * self.shape[0]
        return torch.cat([first[self.index].unsqueeze(1), self.actions_worth()[:, :-1]], 1)

    def of(self, batch: Rollout, values: Tensor) -> Tensor:
        """Values of these texts, for the texts of a batch."""
        same = (batch.actions.unsqueeze(1) == self.tokens).all(2)
        same &= batch.context["index"].unsqueeze(1) == self.index
        return values[same.int().argmax(1)]

    def slopes(self, policy: Any, objective: Tensor) -> Grads:
        """Its gradient."""
        named = dict(policy.named_parameters())
        grads = torch.autograd.grad(objective, list(named.values()), retain_graph=True, allow_unused=True)
        pairs = zip(named.items(), grads, strict=True)
        return {name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs}


class Tiny:
    """Makes tasks small enough to enumerate, with references, and a policy away from uniform."""

    def __call__(self, *, rows: int = 64, sharp: float = 3.0, **options: Any) -> tuple[Any, Any]:
        """A task of two contexts, where no other number is given, and a policy with a value head."""
        env = rlseq.make("rlseq/Enumerable-v0", num_envs=rows, **{"sources": 2, **options})
        texts = torch.tensor([[[1, 2, 1]], [[2, 1, 0]]])[: env.size, :, : env.max_len]
        env.items["references"] = texts.clamp(max=len(env.vocab) - 1)
        env.items["reference_lengths"] = torch.full((env.size, 1), env.max_len)
        return env, self.policy(env, sharp)

    def policy(self, env: Any, sharp: float = 3.0, seed: int = 0) -> Any:
        """An LSTM whose weights are large, so that mistakes cannot hide in uniform probabilities."""
        policy = rlseq.make_policy("lstm", env, hidden=4, embedding=3, value=True, seed=seed)
        with torch.no_grad():
            for p in policy.parameters():
                p.mul_(sharp)
        return policy

    def whole(self, policy: Any, env: Any) -> Whole:
        """Every text."""
        return Whole(policy, env)

    def error(self, got: Grads, wanted: Grads, scale: float = 1.0) -> float:
        """How far a gradient is from `scale` times another, relatively."""
        a, b = (torch.cat([g.flatten() for g in grads.values()]).double() for grads in (got, wanted))
        return float((a - scale * b).norm() / (scale * b).norm())


@pytest.fixture
def tiny() -> Tiny:
    return Tiny()
