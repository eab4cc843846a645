"""The objectives that the losses of other libraries follow, by `rlseq.audit`.

    python benchmarks/audit.py [--verl FOLDER]      # with trl, torchrl and verl where Python finds them

A library that cannot be imported is left out, and named. Every row is a measurement of one function with
the settings that stand beside it, on a task of 2 contexts and 2 words, at most 3 in a text: all 128 batches
of 3 texts of a context. Advantages are reward − exact mean reward of the context, unless the row says whose
they are.

Losses of TRL, torchrl and verl are their own functions, called with tensors; a method gets an object with
the settings that it reads. stable-baselines3 and CleanRL compute losses inside `train`, and rlhf-book is no
package: of these the formula is written again here, and the row says so.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import record
import torch
from torch import Tensor

import rlseq

REWARD, REVERSE, FORWARD = "expected reward", "reverse KL", "forward KL"


class Case(NamedTuple):
    """A loss of a library."""

    loss: str  # its name there
    settings: str
    estimator: Callable[..., Tensor]
    objective: str = REWARD  # for which it is meant
    config: Mapping[str, Any] = MappingProxyType({})  # of the audit


# ── TRL ──────────────────────────────────────────────────────────────────────────────────────────────────


def identity(value: Any, **named: Any) -> Any:
    """Return a value: what a process that is alone gathers and reduces."""
    return value


def trl_trainer(cls: Any, log_probs: Tensor, **settings: Any) -> Any:
    """Return a trainer of TRL with the attributes that its loss reads, and the scores of its model."""
    trainer = cls.__new__(cls)
    arguments = SimpleNamespace(
        delta=None, use_bias_correction_kl=False, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
        steps_per_generation=1,
    )  # fmt: skip
    defaults = {
        "args": arguments,
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "use_vllm": False,
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": 3,
        "_entropy_bonus_enabled": False,
        "model": SimpleNamespace(training=True),
        "accelerator": SimpleNamespace(gather=identity, reduce=identity, num_processes=1),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_get_per_token_logps_and_entropies": lambda *given, **named: (log_probs, log_probs.detach(), None),
    }
    vars(trainer).update({**defaults, **settings})
    return trainer


def of_trl(
    log_probs: Tensor, old_log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor, tokens: Tensor,
    rewards: Tensor, samples: int, cls: Any, scale: str = "group", paid: bool = True, **settings: Any,
) -> Tensor:  # fmt: skip
    """Return the loss of a trainer of TRL, with its advantages."""
    groups = rewards.view(-1, samples)
    if cls.__name__ == "RLOOTrainer":
        advantages = groups - (groups.sum(1, keepdim=True) - groups) / (samples - 1)
    else:
        advantages = groups - groups.mean(1, keepdim=True)
        advantages = advantages / (groups.std(1, keepdim=True) + 1e-4) if scale == "group" else advantages
    ones = torch.ones_like(tokens)
    inputs = {
        "prompt_ids": ones, "prompt_mask": ones, "completion_ids": tokens, "completion_mask": mask.long(),
        "advantages": advantages.flatten() * paid, "old_per_token_logps": old_log_probs,
        "old_logps": (old_log_probs * mask).sum(1), "ref_per_token_logps": reference_log_probs,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    trainer = trl_trainer(cls, log_probs, **settings)
    loss: Tensor = trainer._compute_loss(trainer.model, inputs)
    return loss


def trl() -> Iterator[Case]:
    """Yield the losses of TRL."""
    from trl import GRPOTrainer, RLOOTrainer
    from trl.experimental.gkd import GKDTrainer

    grpo = partial(of_trl, cls=GRPOTrainer)
    yield Case("RLOOTrainer", "defaults", partial(of_trl, cls=RLOOTrainer))
    for kind in ("grpo", "bnpo", "dr_grpo", "dapo"):
        text = f"loss_type={kind}, scale_rewards=none"
        yield Case("GRPOTrainer", text, partial(grpo, loss_type=kind, scale="none"))
    yield Case("GRPOTrainer", "loss_type=grpo, scale_rewards=group", partial(grpo, loss_type="grpo"))
    for kind, level, high in (
        ("cispo", "token", 5.0), ("cispo", "token", 0.2), ("sapo", "token", 0.2), ("luspo", "sequence", 0.2),
    ):  # fmt: skip
        text = f"loss_type={kind}, level={level}, epsilon_high={high}, scale_rewards=none"
        settings = {"loss_type": kind, "importance_sampling_level": level, "scale": "none"}
        yield Case("GRPOTrainer", text, partial(grpo, epsilon_high=high, **settings))
    text = "loss_type=grpo, level=sequence (GSPO), scale_rewards=none"
    yield Case(
        "GRPOTrainer",
        text,
        partial(grpo, loss_type="grpo", importance_sampling_level="sequence", scale="none"),
    )
    kl = partial(grpo, loss_type="dr_grpo", beta=1.0, paid=False)
    yield Case("GRPOTrainer, KL term", "loss_type=dr_grpo, beta=1", kl, REVERSE)

    def distilled(logits: Tensor, reference_logits: Tensor, mask: Tensor, beta: float) -> Tensor:
        labels = mask.long() - 1  # −1 … 0; what counts is −100 at padding
        labels = labels.masked_fill(~mask, -100)
        loss: Tensor = GKDTrainer.generalized_jsd_loss(logits, reference_logits, labels, beta=beta)
        return loss

    for beta, kind in ((0.0, "forward KL"), (1.0, "reverse KL"), (0.5, "Jensen–Shannon")):
        wanted = f"{kind} of next words, mean over the places of own texts"
        text, alone = f"beta={beta}, one text in a batch", {"samples": 1}
        yield Case("GKDTrainer.generalized_jsd_loss", text, partial(distilled, beta=beta), wanted, alone)


# ── torchrl ──────────────────────────────────────────────────────────────────────────────────────────────


def torchrl() -> Iterator[Case]:
    """Yield the losses of torchrl."""
    from tensordict import TensorDict, lazy_stack
    from torchrl.objectives.llm import DistillationLoss, GRPOLoss
    from torchrl.objectives.llm.grpo import CISPOLoss

    def policy_loss(
        log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, advantages: Tensor, cls: Any, way: str
    ) -> Tensor:
        loss = cls(None, aggregation=way).to(log_probs.dtype)
        ratio = torch.where(mask, log_probs - old_log_probs, 0.0).unsqueeze(2)
        found, _ = loss._compute_policy_objective(ratio, advantages.unsqueeze(2))
        total: Tensor = loss._aggregate_loss_value(found, mask)
        return total.squeeze()

    for cls in (GRPOLoss, CISPOLoss):
        for way in ("token_mean", "prompt_mean"):
            yield Case(cls.__name__, f"aggregation={way}", partial(policy_loss, cls=cls, way=way))

    def to_reference(log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
        loss = GRPOLoss(None, kl_to_ref_coeff=1.0)
        known = TensorDict({"_cur_log_prob": log_probs}, batch_size=log_probs.shape[:1])
        found: Tensor = loss._kl_to_ref(known, ref_log_prob=reference_log_probs, mask=mask)[0]
        return found

    yield Case("GRPOLoss, KL term", "kl_to_ref_coeff=1", to_reference, REVERSE)

    class Scores(torch.nn.Module):
        """A student that has scored its texts already."""

        def __init__(self, log_probs: Tensor) -> None:
            super().__init__()
            self.log_probs = log_probs

        def forward(self, batch: Any) -> Any:
            """Return the log-probabilities."""
            rows = [TensorDict({("log_probs", "full"): row}) for row in self.log_probs]
            return lazy_stack(rows)

    def distilled(
        log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor, direction: str, by_length: bool
    ) -> Tensor:
        student = Scores(log_probs)
        loss = DistillationLoss(student, kl_direction=direction, normalize_by_seq_length=by_length)
        rows = [
            TensorDict({
                ("history", "full"): torch.zeros(1), ("next", "teacher_log_probs", "full"): row,
                ("masks", "all_assistant_mask"): real, ("masks", "all_attention_mask"): real,
            })
            for row, real in zip(reference_log_probs, mask, strict=True)
        ]  # fmt: skip
        total: Tensor = loss(lazy_stack(rows)).loss_distill
        return total

    for direction, wanted in (("reverse", REVERSE), ("forward", FORWARD)):
        by = "reference" if direction == "forward" else "policy"
        for by_length in (False, True):
            yield Case(
                "DistillationLoss",
                f"kl_direction={direction}, normalize_by_seq_length={by_length}, texts of the "
                f"{'teacher' if by == 'reference' else 'student'}",
                partial(distilled, direction=direction, by_length=by_length),
                wanted,
                {"sampled_from": by},
            )


# ── verl ─────────────────────────────────────────────────────────────────────────────────────────────────


def verl() -> Iterator[Case]:
    """Yield the losses of verl, from its `core_algos`."""
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    def policy_loss(
        log_probs: Tensor, old_log_probs: Tensor, token_rewards: Tensor, advantages: Tensor, mask: Tensor,
        groups: Tensor, name: str, way: str, of: str | None = None, by_std: bool = True, **settings: Any,
    ) -> Tensor:  # fmt: skip
        config = ActorConfig(strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, loss_agg_mode=way)
        for key, value in settings.items():
            object.__setattr__(config.policy_loss, key, value)
        real = mask.to(log_probs.dtype)
        if of is not None:
            algorithm = AlgoConfig(norm_adv_by_std_in_grpo=by_std, gamma=1.0)
            given = {"index": groups.numpy(), "config": algorithm}
            given |= {"norm_adv_by_std_in_grpo": by_std} if of == "grpo" else {}
            estimate = core_algos.get_adv_estimator_fn(of)
            advantages, _ = estimate(token_level_rewards=token_rewards.clone(), response_mask=real, **given)
        loss = core_algos.get_policy_loss_fn(name)
        found: Tensor = loss(
            old_log_prob=old_log_probs, log_prob=log_probs, advantages=advantages, response_mask=real,
            loss_agg_mode=way, config=config,
        )[0]  # fmt: skip
        return found

    summed = "seq-mean-token-sum"
    for way in (summed, "seq-mean-token-sum-norm", "seq-mean-token-mean", "token-mean"):
        yield Case("vanilla", f"{way}, exact advantages", partial(policy_loss, name="vanilla", way=way))
    for of, by_std in (
        ("grpo", True), ("grpo", False), ("rloo", True), ("opo", True), ("reinforce_plus_plus", True),
        ("reinforce_plus_plus_baseline", True), ("grpo_passk", False), ("grpo_passk", True),
    ):  # fmt: skip
        wanted = "pass@3" if of == "grpo_passk" else REWARD
        std = f", norm_adv_by_std_in_grpo={by_std}" if of.startswith("grpo") else ""
        case = partial(policy_loss, name="vanilla", way=summed, of=of, by_std=by_std)
        yield Case("vanilla", f"{summed}, advantages of {of}{std}", case, wanted)
    for name in ("gspo", "gpg", "cispo", "sapo", "geo_mean"):
        yield Case(name, f"{summed}, exact advantages", partial(policy_loss, name=name, way=summed))
    yield Case("dro", f"{summed}, dro_beta=1", partial(policy_loss, name="dro", way=summed, dro_beta=1.0))

    def penalty(log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor, kind: str) -> Tensor:
        found = core_algos.kl_penalty(log_probs, reference_log_probs, kind)
        total: Tensor = core_algos.agg_loss(found, mask.to(found.dtype), summed)
        return total

    for kind in ("k1", "k2", "low_var_kl", "k3+"):
        yield Case("kl_penalty", f"{kind}, {summed}", partial(penalty, kind=kind), REVERSE)


# ── formulas ─────────────────────────────────────────────────────────────────────────────────────────────


def stable_baselines3() -> Iterator[Case]:
    """Yield the policy losses of stable-baselines3: a mean over steps, whatever text they are of."""

    def normalized(advantages: Tensor) -> Tensor:
        return (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    def ppo(
        log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, normalize: bool
    ) -> Tensor:
        steps = advantages[mask]
        steps = normalized(steps) if normalize else steps
        ratio = (log_probs[mask] - old_log_probs[mask]).exp()
        return -torch.min(steps * ratio, steps * ratio.clamp(0.8, 1.2)).mean()

    def a2c(log_probs: Tensor, advantages: Tensor, mask: Tensor, normalize: bool) -> Tensor:
        steps = advantages[mask]
        return -((normalized(steps) if normalize else steps) * log_probs[mask]).mean()

    for normalize in (True, False):
        text = f"formula; normalize_advantage={normalize}, one batch"
        yield Case("PPO", text, partial(ppo, normalize=normalize))
        yield Case("A2C", text, partial(a2c, normalize=normalize))


def cleanrl() -> Iterator[Case]:
    """Yield the policy loss of CleanRL's ppo.py."""

    def ppo(
        log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, normalize: bool
    ) -> Tensor:
        steps, ratio = advantages[mask], (log_probs[mask] - old_log_probs[mask]).exp()
        steps = (steps - steps.mean()) / (steps.std() + 1e-8) if normalize else steps
        return torch.max(-steps * ratio, -steps * ratio.clamp(0.8, 1.2)).mean()

    for normalize in (True, False):
        yield Case(
            "ppo.py", f"formula; norm_adv={normalize}, one minibatch", partial(ppo, normalize=normalize)
        )


def rlhf_book() -> Iterator[Case]:
    """Yield the KL estimate of the code of rlhf-book, whose ratio is that of the policy to the reference."""

    def approx_kl3(log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
        log_ratio = (log_probs - reference_log_probs) * mask
        return (log_ratio.expm1() - log_ratio).sum(1).mean()

    yield Case("approx_kl3", "formula; sum over words", approx_kl3, REVERSE)
    yield Case("approx_kl3", "formula; sum over words, for the other direction", approx_kl3, FORWARD)


LIBRARIES: dict[str, Callable[[], Iterator[Case]]] = {
    "trl": trl, "torchrl": torchrl, "verl": verl, "stable-baselines3": stable_baselines3, "cleanrl": cleanrl,
    "rlhf-book": rlhf_book,
}  # fmt: skip
FORMULAS = {"cleanrl": "ppo.py of v1.0.0", "rlhf-book": "commit 0c2ba9c"}


def row(library: str, case: Case) -> dict[str, Any]:
    """Return the audit of a case."""
    found = rlseq.audit(case.estimator, case.objective, **case.config).as_dict()
    print(
        f"{library:18s} {case.loss:32s} {case.settings:70s} {found['bias']:.4f} {found['follows']}",
        flush=True,
    )
    return {"library": library, "loss": case.loss, "settings": case.settings, **found, "estimator": case.loss}


def main() -> None:
    """Audit every loss that can be imported, and write results/audit.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verl", help="folder in which verl lies, if it is not installed")
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.verl:
        sys.path.insert(0, given.verl)
    rows: list[dict[str, Any]] = []
    versions, missing = {}, {}
    for name in given.only:
        try:
            rows += [row(name, case) for case in LIBRARIES[name]()]
            versions[name] = FORMULAS.get(name) or version(name)
        except ImportError as error:
            missing[name] = str(error)
            print(f"{name} is left out: {error}", flush=True)
    results = {"versions": versions, "left_out": missing, "rows": rows}
    if given.only == list(LIBRARIES):
        print(record.write("audit", results))


if __name__ == "__main__":
    main()
