"""Linear heads, and their logits for losses and penalties over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from rlseq.engine.decode import acting_logits
from rlseq.engine.parts import JoinedLogits
from rlseq.policies.matmul import ROUND, affine, product, product_of_columns
from rlseq.policies.spec import TokenSpec
from rlseq.types import RAW, BasePolicy, Behaviour, Context, Evaluation, Logits, WordsRead
from rlseq.utils.masks import lengths_of


@dataclass(frozen=True, eq=False)
class LinearLogits:
    """W [h; 1] of every state, computed chunk by chunk, forward and again backward, and never kept."""

    features: Tensor  # h, [B, T, H]
    weight: Tensor  # W, [V, H + 1]
    behaviour: Behaviour

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """See `rlseq.types.Logits`."""
        for other in others:
            if isinstance(other, JoinedLogits):  # of a policy that is scored in parts, as pretrained ones are
                return other.divided(self).reduce(what, *others)
        views: list[Logits | Tensor] = [self, *others]
        shape = self.features.shape[:2]
        step = rows_at_once(len(self.weight), self.features.device)
        rows = torch.arange(shape[0] * shape[1], device=self.features.device)

        def chunk(rows: Tensor) -> Tensor:
            return what(*(_logits(view, rows) for view in views))

        parts = [checkpoint(chunk, some, use_reentrant=False) for some in torch.split(rows, step)]
        whole = torch.cat(parts)
        return whole.view(*shape, *whole.shape[1:])

    def divergence(self, other: Logits) -> Tensor:
        """Return the divergence over the whole vocabulary."""
        return self.reduce(divergence, other)

    def part(self, rows: Tensor, width: int) -> LinearLogits:
        """Return the logits of the first steps of some rows."""
        return replace(self, features=self.features[rows, :width], behaviour=self.behaviour.take(rows))


def divergence(z: Tensor, other: Tensor) -> Tensor:
    """Return Σₐ π(a) (log π(a) − log π_other(a)) of logits `[…, V]`."""
    log_p, log_q = z.log_softmax(-1), other.log_softmax(-1)
    if log_p.shape != log_q.shape:
        raise ValueError(
            f"policies of {log_p.shape[-1]} and {log_q.shape[-1]} words cannot be compared; "
            "the reference policy must write the same vocabulary"
        )
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _logits(view: Logits | Tensor, rows: Tensor) -> Tensor:
    """Return logits of the distribution that acts in some of the states, `[n, V]`."""
    if isinstance(view, Tensor):
        return view.flatten(0, 1)[rows]
    if not isinstance(view, LinearLogits):
        raise TypeError(f"logits of a linear head can be compared with their like, got {type(view).__name__}")
    features = view.features.flatten(0, 1)[rows].to(view.weight.dtype)
    z = _with_one(features, view.weight) @ view.weight.t()
    return acting_logits(z, view.behaviour.at(rows, view.features.shape[1]))


CHUNK = 1 << 20  # logits held at a time, 4 MiB: a processor's caches hold them; measured best of 2^18 … 2^22


# Numbers that are kept for the backward pass, 64 MiB; of larger batches they are made again.
KEPT_PROBABILITIES = 1 << 24


class Head(nn.Module):
    """π(·|s) = softmax(W [h; 1]); with `value` also V(s) = w·h + c, on the same trunk h.

    The bias is the last column of W: adding it to all the logits would take half as long as making them.

    Args:
        hidden: H, width of h.
        words: V.
        value: whether there is a V(s).
    """

    def __init__(self, hidden: int, words: int, value: bool = False) -> None:
        super().__init__()
        bound = hidden**-0.5
        self.weight = nn.Parameter(torch.empty(words, hidden + 1).uniform_(-bound, bound))
        self.value = nn.Linear(hidden, 1) if value else None

    def forward(self, h: Tensor) -> Tensor:
        """Return logits `[B, V]` of h `[B, H]`."""
        return affine(_with_one(h, self.weight), self.weight)

    def evaluate(
        self, features: Tensor, actions: Tensor, behaviour: Behaviour = RAW, mask: Tensor | None = None
    ) -> Evaluation:
        """Score actions `[B, T]` chosen from h `[B, T, H]`; with a mask the real ones only."""
        log_probs, entropy, top = token_scores(features, self.weight, actions, behaviour, mask)
        values = None if self.value is None else self.value(features).squeeze(2)
        return Evaluation(log_probs, entropy, values, top, LinearLogits(features, self.weight, behaviour))


class TokenPolicy(BasePolicy):
    """A policy that writes texts by a linear head: a subclass has `start`, `step` and `features`."""

    words: TokenSpec
    head: Head

    def features(self, read: WordsRead, context: Context) -> Tensor:
        """Return h `[B, T, H]` after each of the words that are read `[B, T]`, all in one pass."""
        raise NotImplementedError

    def evaluate(
        self,
        actions: Tensor,
        context: Context,
        behaviour: Behaviour = RAW,
        inputs: WordsRead | None = None,
    ) -> Evaluation:
        """Score whole sequences, reading the given actions, or `inputs` in their place."""
        read = self.words.before(actions if inputs is None else inputs)
        return self.head.evaluate(self.features(read, context), actions, behaviour)


class PackingPolicy(TokenPolicy):
    """A policy that may read texts of several lengths without work on padding."""

    packs = True

    def features(self, read: WordsRead, context: Context, lengths: Tensor | None = None) -> Tensor:
        """Read all words at once; of texts of some lengths `[B]`, what follows is padding."""
        raise NotImplementedError

    def evaluate(
        self,
        actions: Tensor,
        context: Context,
        behaviour: Behaviour = RAW,
        inputs: WordsRead | None = None,
        mask: Tensor | None = None,
    ) -> Evaluation:
        """Score whole sequences as any policy of words does; with a mask `[B, T]` real actions only."""
        if mask is None:
            return super().evaluate(actions, context, behaviour, inputs)
        read = self.words.before(actions if inputs is None else inputs)
        return self.head.evaluate(self.features(read, context, lengths_of(mask)), actions, behaviour, mask)


def token_scores(
    features: Tensor, weight: Tensor, actions: Tensor, behaviour: Behaviour, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log π(a), H(π) and max π, `[B, T]` each, for π = softmax(W [h; 1] / temperature).

    Args:
        features: h, `[B, T, H]`.
        weight: W, `[V, H + 1]`.
        actions: `[B, T]`.
        behaviour: temperature, and the tokens that were allowed.
        mask: `[B, T]`, True on real actions; others are not scored, and have 0. None where all are real.
    """
    flat, chosen = features.flatten(0, 1), actions.flatten()
    states = (
        torch.arange(len(flat), device=flat.device) if mask is None else mask.flatten().nonzero().squeeze(1)
    )
    if mask is not None:
        flat, chosen = flat.index_select(0, states), chosen[states]
    # Autocast is off in the backward pass, which must compute the same logits again: so it is applied here.
    flat, weight = (x.to(working_dtype(x)) for x in (_with_one(flat, weight), weight))
    arguments = flat, weight, chosen, behaviour, states, actions.shape[1]
    found = _TokenScores.apply(*arguments)  # type: ignore[no-untyped-call]
    if mask is not None:
        found = (x.new_zeros(actions.numel()).index_copy(0, states, x) for x in found)
    log_probs, entropy, top = (x.view(actions.shape) for x in found)
    return log_probs, entropy, top


def working_dtype(x: Tensor) -> torch.dtype:
    """Return the type of matrix products with x: that of autocast, or else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _with_one(h: Tensor, weight: Tensor) -> Tensor:
    """Return [h; 1], or h where the weight has no column for a bias."""
    return h if weight.shape[1] == h.shape[1] else F.pad(h, (0, 1), value=1.0)


class _TokenScores(torch.autograd.Function):
    """Scores computed chunk by chunk; of a large batch the backward pass computes logits again.

    With p = softmax(z):  ∂log p_a/∂z = 1_a − p   and   ∂H/∂z = −p·(log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        actions: Tensor,
        behaviour: Behaviour,
        states: Tensor,
        steps: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        precise = torch.promote_types(features.dtype, torch.float32)
        log_prob, entropy, top, log_norm = features.new_empty((4, len(features)), dtype=precise)
        keeps, kept = any(ctx.needs_input_grad) and len(features) * len(weight) <= KEPT_PROBABILITIES, []
        for rows in _chunks(features, len(weight)):
            z, p = _distribution(features[rows], weight, behaviour, states[rows], steps)
            # log Σ exp z, from the likeliest token, as softmax is faster than logsumexp.
            top[rows] = likeliest = p.amax(-1)
            log_norm[rows] = norm = z.amax(-1) - likeliest.log()
            log_prob[rows] = z.gather(1, actions[rows].unsqueeze(1)).squeeze(1) - norm
            entropy[rows] = norm - z.mul_(p).sum(-1)
            kept.append(p if keeps else None)
        ctx.save_for_backward(features, weight, actions, states, entropy, log_norm, *kept)
        ctx.behaviour, ctx.steps = behaviour, steps
        ctx.set_materialize_grads(False)  # an output that nobody differentiates costs nothing
        ctx.mark_non_differentiable(top)
        return log_prob, entropy, top

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_log_prob: Tensor | None, by_entropy: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        features, weight, actions, states, entropy, log_norm, *kept = ctx.saved_tensors
        temperature = ctx.behaviour.temperature
        by_features = torch.empty_like(features)
        by_weight = torch.zeros_like(weight, dtype=entropy.dtype)  # a sum over chunks, precise under autocast
        for rows, p in zip(_chunks(features, len(weight)), kept, strict=True):
            if p is None or by_entropy is not None:
                z, p = _distribution(features[rows], weight, ctx.behaviour, states[rows], ctx.steps)
            slope = torch.zeros_like(log_norm[rows]) if by_log_prob is None else by_log_prob[rows]
            slope = slope.unsqueeze(1) / temperature
            if by_entropy is None:
                by_z = p * -slope
            else:  # p first: what is forbidden has log p near the last float, and p = 0
                weight_of_log = by_entropy[rows].unsqueeze(1) / temperature
                by_z = z.add_((entropy[rows] - log_norm[rows]).unsqueeze(1)).mul_(p).mul_(-weight_of_log)
                by_z -= p.mul_(slope)
            by_z = by_z.scatter_add_(1, actions[rows].unsqueeze(1), slope).to(features.dtype)
            if ctx.needs_input_grad[0]:
                by_features[rows] = product(by_z, weight)
            if ctx.needs_input_grad[1]:
                by_weight += product_of_columns(by_z, features[rows])
        return by_features, by_weight, None, None, None, None


def rows_at_once(words: int, device: torch.device) -> int:
    """Return the number of states whose logits are held at a time."""
    chunk = CHUNK if device.type == "cpu" else 16 * CHUNK  # a GPU wants larger kernels
    return max(1, chunk // words)


def _chunks(features: Tensor, words: int) -> list[slice]:
    step = rows_at_once(words, features.device)
    if features.device.type == "cpu" and step > ROUND:  # so that only the last chunk has a shape of its own
        step -= step % ROUND
    return [slice(start, start + step) for start in range(0, len(features), step)]


def _distribution(
    features: Tensor, weight: Tensor, behaviour: Behaviour, states: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the logits of the distribution that acts in some states, and its probabilities."""
    z = product(features, weight.t())
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    if behaviour.support is not None or behaviour.temperature != 1.0:
        z = acting_logits(z, behaviour.at(states, steps))
    return z, z.softmax(-1)
