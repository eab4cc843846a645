"""The factors of policy gradients by name, and the checks of their combinations and of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlseq.engine.decode import Decode
from rlseq.engine.references import check_has_references
from rlseq.mdp.sequence_env import SequenceEnv, unwrap_task
from rlseq.policy_gradient.agent import SCHEDULES
from rlseq.policy_gradient.baselines import (
    BASELINES,
    Factor,
    NeedsValues,
    OptimalToken,
    OptimalValue,
    group_mean,
    leave_one_out,
    length_weighted,
    mean,
    none,
)
from rlseq.policy_gradient.credit import CREDITS, CreditOfGroups, CreditOfTexts
from rlseq.policy_gradient.losses import AGGREGATES
from rlseq.policy_gradient.penalties import DIVERGENCES
from rlseq.types import Rollout, SteppedEnv
from rlseq.utils.arguments import shown
from rlseq.utils.modules import eval_mode
from rlseq.utils.ranks import gathered, largest_of_ranks, this_rank, total
from rlseq.utils.stateful import TensorState


def check_samples(decode: Any) -> None:
    """Refuse a decoder whose texts are no samples of the policy."""
    if not isinstance(decode, Decode):
        raise TypeError(
            f"decode must choose tokens, as Sample(temperature) or Greedy(), got {shown(decode)}; "
            "texts that a search chose are no samples of the policy"
        )


Scale = Callable[[Tensor, Rollout], Tensor]


def as_it_is(advantages: Tensor, batch: Rollout) -> Tensor:
    """Return A."""
    return advantages


def by_group(advantages: Tensor, batch: Rollout) -> Tensor:
    """Return A / (s + 10⁻⁴), s the standard deviation of the K returns of the context (GRPO)."""
    spread = batch.returns.view(-1, batch.samples).std(1) + 1e-4
    return advantages / spread.repeat_interleave(batch.samples).unsqueeze(1)


def by_mean(advantages: Tensor, batch: Rollout) -> Tensor:
    """Return A / mean of the K returns of the context, 0 where that is 0; returns must be ≥ 0 (MaxRL).

    Tajwar et al. 2026: with `group_mean`, the gradient is that of Σ_{k<K} pass@k / k, and tends to that of
    the logarithm of the chance to succeed, the likelihood of success, as K grows.
    """
    returns = batch.returns.view(-1, batch.samples)
    if (returns < 0).any():
        raise ValueError(
            f"by_mean divides by the mean return, and needs rewards ≥ 0, got {float(returns.min()):.4g}; "
            'shift the reward, or use scale="by_group"'
        )
    centre = returns.mean(1, keepdim=True)
    return advantages * torch.where(centre > 0, 1 / centre, 0).repeat_interleave(batch.samples, 0)


def by_batch(advantages: Tensor, batch: Rollout) -> Tensor:
    """Return (A − mean) / (s + 10⁻⁸) over all real tokens ("whitening"), 0 where all are equal."""
    real = batch.mask / total(batch.mask.sum()).clamp(min=1)
    centred = advantages - total((advantages * real).sum())
    spread = total((centred.square() * real).sum()).sqrt()
    # Of equal advantages the spread is not quite 0.
    rounding = 1e-6 * largest_of_ranks((advantages * batch.mask).abs().max())
    return (centred / (spread + 1e-8)).where(spread > rounding, 0)


def best_of_group(advantages: Tensor, batch: Rollout) -> Tensor:
    """Return K for the best of the K texts of the context, 0 for the others: their likelihood is maximised.

    Imitation of the best of K samples (RAFT, Dong et al. 2023); several that are equally good share the K.
    """
    groups = advantages[:, 0].view(-1, batch.samples)
    best = groups == groups.amax(1, keepdim=True)
    return (batch.samples * best / best.sum(1, keepdim=True)).view(-1, 1).to(advantages)


def self_normalised(advantages: Tensor, batch: Rollout) -> Tensor:
    """Return A / mean A − 1 over the batch, step by step: importance weights that sum to one (MaliGAN)."""
    real = batch.mask / total(batch.mask.sum(0)).clamp(min=1)
    return advantages / total((advantages * real).sum(0)).clamp(min=1e-12) - 1


def bootstrapped(advantages: Tensor, batch: Rollout) -> Tensor:
    """Return σ(12 (½ − rank / B)) − ½ of every step; the best of B rows has rank 1 (LeakGAN).

    Guo et al. 2018. Only the order counts, not the scale of rewards. The authors' code subtracts no ½.
    """
    low = torch.finfo(advantages.dtype).min
    order = gathered(advantages.where(batch.mask, low)).argsort(stable=True, dim=0, descending=True)
    place = this_rank().own(order.argsort(0) + 1)
    return torch.sigmoid(12 * (0.5 - place / total(batch.mask.sum(0)).clamp(min=1))) - 0.5


SCALES: dict[str, Scale] = {
    "none": as_it_is,
    "by_group": by_group,
    "by_mean": by_mean,
    "by_batch": by_batch,
    "best_of_group": best_of_group,
    "self_normalised": self_normalised,
    "bootstrapped": bootstrapped,
}
GROUPED: tuple[Any, ...] = (  # compare the texts of one context
    *(
        leave_one_out,
        group_mean,
        length_weighted,
        OptimalToken(),
        OptimalValue(),
        by_group,
        by_mean,
        best_of_group,
    ),
)
COMPARING: tuple[Any, ...] = (mean, self_normalised, bootstrapped)  # compare the rows of a batch
FACTORS: dict[str, Mapping[str, Any]] = {  # the names that `rlseq.make_agent` takes in place of functions
    "credit": CREDITS,
    "baseline": BASELINES,
    "scale": SCALES,
    "aggregate": AGGREGATES,
    "divergence": DIVERGENCES,
    "schedule": SCHEDULES,
}


def check_factors(agent: Any) -> None:
    """Refuse factors that cannot be combined, before anything is sampled."""
    for name in ("credit", "baseline"):
        factor = getattr(agent, name)
        lost = [method for method in ("prepare", "learn", "forget") if hasattr(factor, method)]
        if lost and not isinstance(factor, Factor):
            raise TypeError(
                f"{name} {shown(factor)} has `{lost[0]}`, which is called only on a Factor; derive "
                f"{type(factor).__name__} from rlseq.policy_gradient.baselines.Factor"
            )
    check_samples(agent.decode)
    if isinstance(agent.credit, CreditOfTexts) and (agent.kl_reward or agent.gamma < 1):
        raise ValueError(
            f"{type(agent.credit).__name__} credits actions with scores of texts, not with rewards; "
            f"leave gamma at 1 and use kl, got gamma={agent.gamma}, kl_reward={agent.kl_reward}"
        )
    if isinstance(agent.credit, CreditOfGroups):
        _check_group_credit(agent)
    grouped = [factor_name(f) for f in (agent.baseline, agent.scale) if f in GROUPED]
    if grouped and agent.samples < 2:
        raise ValueError(
            f"{type(agent).__name__} compares the texts of one context ({grouped[0]}) and needs samples ≥ 2, "
            f"got samples={agent.samples}; pass samples=4, or another baseline"
        )
    valued = [f for f in (agent.credit, agent.baseline) if isinstance(f, NeedsValues)]
    if valued and lacks_values(agent.policy):
        raise ValueError(
            f"{type(agent).__name__} needs values ({type(valued[0]).__name__}), but the policy has no value "
            "head; make it with rlseq.make_policy(…, value=True)"
        )


def factor_name(factor: Any) -> str:
    """Return the name of a factor, a function or an instance of a class."""
    return getattr(factor, "__name__", type(factor).__name__)


def _check_group_credit(agent: Any) -> None:
    """Refuse a credit that compares texts where there are too few, or a baseline that does so again."""
    name, least = type(agent.credit).__name__, agent.credit.least
    if agent.samples < least:
        raise ValueError(
            f"{name} compares at least {least} texts of one context, got samples={agent.samples}; pass "
            f"samples={max(4, least)}" + (", or a smaller k" if least > 2 else "")
        )
    if agent.baseline is not none:
        raise ValueError(
            f"{name} compares the texts of a context itself; pass baseline='none', got "
            f"baseline={factor_name(agent.baseline)}"
        )


def lacks_values(policy: Any) -> bool:
    """Return whether a policy of rlseq was made without V; of any other policy that is not known yet."""
    head = getattr(policy, "head", policy)
    return None in (getattr(head, "value", head), getattr(policy, "critic", policy))


def check_task(agent: Any, env: SequenceEnv | SteppedEnv) -> None:
    """Refuse a task that an agent cannot learn from, before anything is sampled."""
    if isinstance(env, SteppedEnv):
        env.check(agent)
        return
    contexts, left = divmod(env.num_envs, agent.samples)
    if left:
        raise ValueError(
            f"samples={agent.samples} texts of each context must divide the rows of the task, "
            f"got num_envs={env.num_envs}; {_nearest_sizes(agent.samples, env.num_envs)}"
        )
    if agent.minibatches * agent.micro_batches > contexts:
        raise ValueError(
            f"{contexts} contexts (num_envs={env.num_envs}, samples={agent.samples}) cannot be split into "
            f"minibatches={agent.minibatches} of micro_batches={agent.micro_batches}; make more rows, "
            "or fewer parts"
        )
    if agent.mle:
        check_has_references(env)
    if agent.needs_reference:
        check_vocabulary(agent.reference, env, "reference")


def without_others(agent: Any, env: SequenceEnv) -> list[str]:
    """Return a warning if a factor compares the rows of a batch, and the task has a single row."""
    comparing = [f.__name__ for f in (agent.baseline, agent.scale) if f in COMPARING]
    if not comparing or env.num_envs > 1:
        return []
    return [
        f"num_envs=1: {comparing[0]} compares a text with the others of its batch, and there are none; make "
        "the task with more rows, such as num_envs=64, or use baseline='moving_average'"
    ]


def _nearest_sizes(samples: int, rows: int) -> str:
    """Return the numbers of samples and of rows that are near, and of which the first divides the second."""
    below = next(n for n in range(min(samples, rows), 0, -1) if rows % n == 0)
    above = next((n for n in range(samples, rows + 1) if rows % n == 0), below)
    fewer, more = rows // samples * samples, (rows // samples + 1) * samples
    return (
        f"the nearest that do are samples={_either(below, above)} with these rows, or "
        f"num_envs={_either(fewer or more, more)} with these samples"
    )


def _either(a: int, b: int) -> str:
    return f"{a}" if a == b else f"{a} or {b}"


def check_vocabulary(other: Any, env: Any, what: str) -> None:
    """Refuse another policy that does not write the words of the task.

    Args:
        other: the policy.
        env: the task; one that steps itself is not looked at.
        what: the argument that it is.
    """
    env = unwrap_task(env)
    if isinstance(env, SteppedEnv):
        return
    first = torch.zeros(1, dtype=torch.int64, device=env.device)
    with torch.no_grad(), eval_mode(other), env.preserved():
        state = other.start(env.context_of(first))
        logits, _ = other.step(first + env.vocab.bos, state)
    if logits.shape[-1] != len(env.vocab):
        raise ValueError(
            f"the {what} policy writes {logits.shape[-1]} words, the task has {len(env.vocab)}; pass "
            f"{what}= a policy made for this task"
        )


class Shuffle(TensorState):
    """The order in which rows are learned from: another at every call, the same in every run.

    Each rank orders its own rows, so that every minibatch has as many rows of each.
    """

    tensors: ClassVar = ("times",)

    def __init__(self) -> None:
        self.times = torch.zeros((), dtype=torch.int64)

    def __call__(self, batch: Rollout, parts: int) -> Iterator[Tensor]:
        """Return the rows in `parts` parts, the texts of a context together."""
        self.times = self.times + 1
        contexts = len(batch.actions) // batch.samples
        order = torch.randperm(contexts, generator=torch.Generator().manual_seed(int(self.times)))
        rows = order.unsqueeze(1) * batch.samples + torch.arange(batch.samples)
        there = rows.to(batch.actions.device, non_blocking=True)  # the host goes on
        return (part.flatten() for part in there.tensor_split(parts))
