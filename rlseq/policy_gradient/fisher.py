"""The natural direction of a policy: products with its Fisher matrix, and conjugate gradients on them.

    F = E[ Σₐ π(a|s) ∇log π(a|s) ∇log π(a|s)ᵀ ]

over the states of a batch. F has as many rows and columns as the policy has parameters, and is never made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.engine.parts import JoinedLogits
from rlseq.engine.rollout import evaluate_actions, evaluate_frozen
from rlseq.types import Evaluation, Logits, Rollout
from rlseq.utils.kernels import twice_differentiable
from rlseq.utils.ranks import total
from rlseq.utils.vectors import flat

Product = Callable[[Tensor], Tensor]  # v [n] -> F v [n]


def slope(value: Tensor, parameters: Sequence[nn.Parameter], **options: Any) -> Tensor:
    """Return the gradient of a value as one vector; zeros for parameters that it does not depend on."""
    found = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True, **options)
    return flat(found)


class RecordedDivergence:
    """KL(π_old ‖ π), mean over the states of a batch in parts, exact in the actions.

    Args:
        policy: π; π_old is what it is now.
        parts: the batch.
    """

    def __init__(self, policy: Any, parts: Sequence[Rollout]) -> None:
        self.policy = policy
        count = total(torch.stack([part.mask.sum() for part in parts]).sum()).clamp(min=1)
        self._parts = [
            (part, recorded(_logits(evaluate_frozen(policy, part))), part.mask / count) for part in parts
        ]

    def __call__(self) -> Tensor:
        """Return the divergence, nats per action."""
        return total(sum((self._of(*part) for part in self._parts), start=torch.zeros(())))

    def fisher_product(self, parameters: Sequence[nn.Parameter]) -> Product:
        """Return v ↦ F v at π = π_old: the second derivative of the divergence there, which is F.

        Of a batch in several parts the first derivatives are made again for every product, to save memory.
        """

        def first(part: tuple[Rollout, Logits, Tensor]) -> Tensor:
            with twice_differentiable():
                return slope(self._of(*part), parameters, create_graph=True)

        kept = [first(part) for part in self._parts] if len(self._parts) == 1 else None

        def product(vector: Tensor) -> Tensor:
            firsts = kept or map(first, self._parts)
            seconds = (slope(each @ vector, parameters, retain_graph=kept is not None) for each in firsts)
            return total(sum(seconds, start=torch.zeros_like(vector)))

        return product

    def _of(self, part: Rollout, old: Logits, weights: Tensor) -> Tensor:
        return (old.divergence(_logits(evaluate_actions(self.policy, part))) * weights).sum()


def recorded(logits: Logits) -> Logits:
    """Return logits that stay as they are when the weights change that they are made from."""
    if isinstance(logits, JoinedLogits):
        return logits.map(recorded)
    kept, made_anew = copy(logits), ("features",)
    tensors = {name: value for name, value in vars(logits).items() if isinstance(value, Tensor)}
    vars(kept).update({name: t.detach().clone() for name, t in tensors.items() if name not in made_anew})
    return kept


def _logits(evaluation: Evaluation) -> Logits:
    if evaluation.logits is None:
        raise ValueError(
            "the Fisher matrix needs the probability of every action: let the policy's `evaluate` return "
            "`logits` (rlseq.types.Evaluation), or take an agent that needs none, such as ppo"
        )
    return evaluation.logits


def conjugate_gradients(product: Product, b: Tensor, steps: int, tolerance: float = 1e-10) -> Tensor:
    """Return an approximate solution x of A x = b, A symmetric and positive, from products A v alone.

    Exact after as many steps as A has different eigenvalues (Hestenes & Stiefel 1952). x stays as it is
    once ‖b − A x‖² is at most `tolerance` · ‖b‖²; an accelerator, which would be waited for, takes all steps.
    """
    x, rest = torch.zeros_like(b), b
    direction, size = rest, rest @ rest
    enough = tolerance * size
    for _ in range(steps):
        going_on = size > enough
        if not (size.is_cuda or going_on):
            break
        along = product(direction)
        length = size / (direction @ along)
        x = torch.where(going_on, x + length * direction, x)
        rest = torch.where(going_on, rest - length * along, rest)
        size, before = rest @ rest, size
        direction = rest + size / before * direction
    return x
