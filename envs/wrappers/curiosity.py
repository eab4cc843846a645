"""`Curiosity`: a reward for prefixes whose successor could not be predicted (Pathak et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.envs.wrappers.rewards import with_reward
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Context, Metrics, Rollout
from rlseq.utils.arguments import NonNegativeFloat, PositiveFloat, PositiveInt, checked_arguments
from rlseq.utils.ranks import total, total_gradients

_E = TypeVar("_E", bound=SequenceEnv)


class CuriosityModel(nn.Module):
    """Features φ of states, a forward model (φ(sₜ), aₜ) → φ(sₜ₊₁), an inverse one (φ(sₜ), φ(sₜ₊₁)) → aₜ.

    A state is the source, where there is one, and the prefix. Only the inverse model trains φ, which so holds
    what actions influence; the forward model's error is the curiosity.
    """

    def __init__(self, words: int, sources: int, hidden: int) -> None:
        super().__init__()
        self.word = nn.Embedding(words + 1, hidden)  # the last one stands before the start
        self.source = nn.EmbeddingBag(sources, hidden, mode="sum") if sources else None
        self.reader = nn.GRU(hidden, hidden, batch_first=True)
        self.forward_model = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.inverse_model = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, words))

    def features(self, tokens: Tensor, context: Context) -> Tensor:
        """Return φ of the states s₀ … s_T, `[B, T + 1, H]`."""
        start = torch.full_like(tokens[:, :1], self.word.num_embeddings - 1)
        first = None if self.source is None else self.source(context["source"]).tanh().unsqueeze(0)
        found: Tensor = self.reader(self.word(torch.cat([start, tokens], 1)), first)[0]
        return found

    def surprise(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Return ½ |φ̂(sₜ₊₁) − φ(sₜ₊₁)|² of every step, `[B, T]`; no gradient reaches φ."""
        features = features.detach()
        predicted = self.forward_model(torch.cat([features[:, :-1], self.word(tokens).detach()], 2))
        error: Tensor = (predicted - features[:, 1:]).square().sum(2) / 2
        return error

    def inverse_loss(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Return −log p(aₜ | φ(sₜ), φ(sₜ₊₁)), `[B, T]`."""
        logits = self.inverse_model(torch.cat([features[:, :-1], features[:, 1:]], 2))
        return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


class CuriosityReward:
    """weight · surprise of every step; learns from each batch, and is fixed while texts are written."""

    def __init__(self, model: CuriosityModel, weight: float, lr: float) -> None:
        self.model, self.weight = model, weight
        self.optimizer = torch.optim.Adam(model.parameters(), lr)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, `[B, T]`."""
        tokens = tokens.where(mask, 0)
        reward: Tensor = self.model.surprise(self.model.features(tokens, context), tokens) * mask
        return self.weight * reward

    def learn(self, batch: Rollout) -> Metrics:
        """Take one step of both models on the states of a batch."""
        tokens, real = batch.actions, batch.mask / total(batch.mask.sum()).clamp(min=1)
        features = self.model.features(tokens, batch.context)
        forward = (self.model.surprise(features, tokens) * real).sum()
        inverse = (self.model.inverse_loss(features, tokens) * real).sum()
        self.optimizer.zero_grad(set_to_none=True)
        (forward + inverse).backward()  # type: ignore[no-untyped-call]
        total_gradients(list(self.model.parameters()))
        self.optimizer.step()
        metrics = {"curiosity_forward": forward, "curiosity_inverse": inverse}
        return {name: total(loss.detach()) for name, loss in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the optimizer."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


@checked_arguments
def Curiosity(  # noqa: N802  (a wrapper, as others name theirs)
    env: _E, weight: NonNegativeFloat = 0.01, hidden: PositiveInt = 32, lr: PositiveFloat = 1e-3
) -> _E:
    """Return the task with a reward for what is new to a model of its transitions (Pathak et al. 2017).

    `rlseq.train` calls `env.learn(batch)` after each update; a loop of your own must, too.

    Args:
        env: the training task.
        weight: of the curiosity beside the task's own reward.
        hidden: width of both models.
        lr: their step size.
    """
    sources = 0 if env.source_vocab is None else max(len(env.source_vocab), env.source_vocab.pad + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(env.seed)
        model = CuriosityModel(len(env.vocab), sources, hidden).to(env.device)
    return with_reward(env, "curiosity", CuriosityReward(model, weight, lr))
