"""`BesideGreedy`: samples, and the greedy text of each of their contexts, written in one batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.engine.decode import Decode
from rlseq.engine.rollout import draw_uniforms, write_texts
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Rollout

LIKELIEST = -1.0  # in place of a random number: the row takes the likeliest token


@dataclass(frozen=True)
class BesideGreedy:
    """A search that returns the texts of a decoder, with the returns of greedy texts in `Rollout.greedy`.

    A context is read once for its K texts and the greedy one, and all of them go through the same products.
    The random numbers of the K texts are those of a rollout without greedy texts.

    Args:
        decode: how the tokens of the texts are chosen.
    """

    decode: Decode

    def best(self, policy: Any, env: SequenceEnv, *, repeat: int, index: Tensor | None) -> Rollout:
        """Return one text for every row of the task; rows iK … iK+K−1 share a context and its greedy text."""

        def draw(_: SequenceEnv, steps: int) -> Tensor:
            drawn = draw_uniforms(env, steps).view(steps, -1, repeat)
            return F.pad(drawn, (0, 1), value=LIKELIEST).flatten(1)

        wide = env.replace(num_envs=env.num_envs // repeat * (repeat + 1))
        batch = write_texts(policy, wide, _OrLikeliest(self.decode), draw, repeat=repeat + 1, index=index)
        row = torch.arange(wide.num_envs, device=env.device).view(-1, repeat + 1)
        greedy, texts = row[:, repeat], row[:, :repeat].flatten()
        env.episodes = wide.episodes.take(texts)
        return replace(batch.take(texts), greedy=batch.returns[greedy].repeat_interleave(repeat))


@dataclass(frozen=True)
class _OrLikeliest:
    """A decoder that takes the likeliest token where the random number is `LIKELIEST`."""

    decode: Decode

    @property
    def temperature(self) -> float:
        """The divisor of the policy's logits."""
        return self.decode.temperature

    def support(self, logits: Tensor) -> Tensor | None:
        """Return the tokens that the decoder chooses from, the likeliest of which is among them."""
        return self.decode.support(logits)

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Pick a token of every row."""
        token, log_norm = self.decode.choose(logits, uniform.clamp(min=0))
        return torch.where(uniform < 0, logits.argmax(-1), token), log_norm
