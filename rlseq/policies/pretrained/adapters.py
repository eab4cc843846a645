"""Adapters of peft, and the reference policy that a policy with adapters offers at no cost."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.types import RAW, Behaviour, Context, Evaluation, State
from rlseq.utils.arguments import shown
from rlseq.utils.errors import need
from rlseq.utils.modules import eval_mode

ACTIVE, REFERENCE = "default", "reference"  # names of adapters


def with_adapters(model: Any, settings: Any) -> Any:
    """Return a model with adapters, of which alone the weights are trained.

    Args:
        model: of transformers.
        settings: a configuration of peft, or its fields; LoRA where they name no `peft_type`.
    """
    peft = need("peft", "hf")
    config = settings
    if isinstance(settings, Mapping):
        try:
            config = peft.get_peft_config({"peft_type": "LORA", **settings})
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"peft={dict(settings)} is no configuration of adapters: {error}") from error
    if not isinstance(config, peft.PeftConfig):
        raise TypeError(f"peft must be a peft.LoraConfig or its settings as a dict, got {shown(settings)}")
    if config.is_prompt_learning:
        raise ValueError(
            f"{type(config).__name__} learns prompts, which is not supported; use adapters inside the "
            "layers, such as LoraConfig"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about names that peft uses
            warnings.filterwarnings("ignore", "fan_in_fan_out")  # which peft corrects for GPT-2
            warnings.filterwarnings("ignore", ".*a tied layer is part of the adapter")  # refused below
            wrapped = peft.get_peft_model(model, config)
    except ValueError as error:  # no module has the name of a target
        linear = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ValueError(
            f"peft found nothing to adapt ({error}); the linear layers of the model are {', '.join(linear)}: "
            "name some of them as target_modules"
        ) from error
    adapted = need("peft.tuners.tuners_utils", "hf").BaseTunerLayer
    tied = model.config.tie_word_embeddings and isinstance(model.get_input_embeddings(), adapted)
    if tied or isinstance(model.get_output_embeddings(), adapted):
        raise ValueError(
            "adapters of the head, or of embeddings that share its weights, are not supported; leave them "
            "out of target_modules"
        )
    return wrapped


class ReferenceAdapters(nn.Module):
    """A policy with other adapters: those that it had when this was made, on the same base.

    Adapters that have not been trained add nothing, so the base alone is the reference. Others are copied.

    Args:
        policy: with adapters.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self._policy = (policy,)  # a tuple, so that the weights of the policy are not registered here
        self.copied = bool(self._changes())
        if self.copied:
            self._copy()

    def start(self, context: Context) -> State:
        """Return the state before the first token."""
        with self._acting() as policy:
            return policy.start(context)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token per row."""
        with self._acting() as policy:
            found: tuple[Tensor, State] = policy.step(token, state)
            return found

    def evaluate(
        self, actions: Tensor, context: Context, behaviour: Behaviour = RAW, inputs: Any = None
    ) -> Evaluation:
        """Score whole sequences."""
        with self._acting() as policy:
            found: Evaluation = policy.evaluate(actions, context, behaviour, inputs)
            return found

    @contextmanager
    def _acting(self) -> Iterator[Any]:
        """Let the policy have the adapters of the reference inside the block."""
        (policy,) = self._policy
        with eval_mode(policy):
            if not self.copied:
                with policy.model.disable_adapter():
                    yield policy
                return
            policy.model.set_adapter(REFERENCE)
            try:
                yield policy
            finally:
                policy.model.set_adapter(ACTIVE)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the copied adapters; nothing where the base alone is the reference."""
        return {name: p.detach().clone() for name, p in self._weights()} if self.copied else {}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take adapters that `state_dict` has returned."""
        if state and not self.copied:
            self._copy()
            self.copied = True
        elif self.copied and not state:
            self.copied = False
        with torch.no_grad():
            for name, weight in self._weights() if self.copied else ():
                weight.copy_(state[name])

    def _changes(self) -> bool:
        """Return whether the adapters of the policy change what its base computes."""
        (policy,) = self._policy
        return any(bool(p.any()) for n, p in policy.model.named_parameters() if ".lora_B." in n) or not any(
            ".lora_B." in n for n, _ in policy.model.named_parameters()
        )

    def _copy(self) -> None:
        (policy,) = self._policy
        model = policy.model
        if REFERENCE not in model.peft_config:
            model.add_adapter(REFERENCE, model.peft_config[ACTIVE])
        own = {n: p for n, p in model.named_parameters() if f".{ACTIVE}" in n}
        with torch.no_grad():
            for name, weight in own.items():
                copy = model.get_parameter(name.replace(f".{ACTIVE}", f".{REFERENCE}"))
                copy.copy_(weight).requires_grad_(False)
        model.set_adapter(ACTIVE)

    def _weights(self) -> list[tuple[str, nn.Parameter]]:
        (policy,) = self._policy
        return [(n, p) for n, p in policy.model.named_parameters() if f".{REFERENCE}" in n]
