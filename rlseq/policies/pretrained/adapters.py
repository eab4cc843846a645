"""Adapters of peft, and the reference policy that a policy with adapters offers at no cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.types import RAW, Behaviour, Context, Evaluation
from rlseq.utils.arguments import shown
from rlseq.utils.errors import need

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
        wrapped = peft.get_peft_model(model, config)
    except ValueError as error:  # no module has the name of a target
        linear = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ValueError(
            f"peft found nothing to adapt ({error}); the linear layers of the model are {', '.join(linear)}: "
            "name some of them as target_modules"
        ) from error
    if type(model.get_output_embeddings()) is not nn.Linear:
        raise ValueError("adapters of the head (lm_head) are not supported; leave it out of target_modules")
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

    def evaluate(
        self, actions: Tensor, context: Context, behaviour: Behaviour = RAW, inputs: Any = None
    ) -> Evaluation:
        """Score whole sequences with the adapters of the reference."""
        (policy,) = self._policy
        was_training = policy.training
        policy.eval()
        try:
            if not self.copied:
                with policy.model.disable_adapter():
                    found: Evaluation = policy.evaluate(actions, context, behaviour, inputs)
                return found
            policy.model.set_adapter(REFERENCE)
            try:
                return policy.evaluate(actions, context, behaviour, inputs)  # type: ignore[no-any-return]
            finally:
                policy.model.set_adapter(ACTIVE)
        finally:
            policy.train(was_training)

    def start(self, context: Context) -> Any:
        """Refuse to write: a reference is only scored."""
        raise NotImplementedError("a reference that shares the weights of a policy does not write")

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
