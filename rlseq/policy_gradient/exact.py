"""The exact objective and gradient of tasks small enough to enumerate, to test estimators against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import RAW, Behaviour, Context, LearningBatch, Rollout
from rlseq.utils.modules import eval_mode

LIMIT = 1_000_000  # texts × contexts, or rows of all batches


def texts(env: SequenceEnv) -> tuple[Tensor, Tensor]:
    """Return every text that can be written, `[N, T]` with 0 after its end, and its mask."""
    words, steps, eos = len(env.vocab), env.max_len, env.vocab.eos
    if words**steps * env.size > LIMIT:
        raise ValueError(
            f"{words}^{steps} texts × {env.size} contexts are too many to enumerate (limit {LIMIT:,}); "
            "use a smaller vocabulary or length, as rlseq/Enumerable-v0"
        )
    place = words ** torch.arange(steps - 1, -1, -1, device=env.device)
    tokens = torch.arange(words**steps, device=env.device).unsqueeze(1) // place % words
    ended = torch.zeros_like(tokens, dtype=torch.bool) if eos is None else tokens == eos
    mask = ended.cumsum(1) - ended.int() == 0  # up to and with the first EOS
    one_each = (tokens.where(mask, 0) == tokens).all(1)  # of all that differ after their end, one
    return tokens[one_each], mask[one_each]


@torch.no_grad()
def objective(policy: Any, env: Any, behaviour: Behaviour = RAW) -> Tensor:
    """Return J = mean over contexts of Σ_y π(y|x) R(x, y), a sum over every text.

    Args:
        policy: the policy.
        env: a task with few texts; what it does not allow is never written.
        behaviour: the distribution that acts, where it is not the policy on the tokens that are legal.
    """
    return _objective(policy, sequence_env(env), behaviour)


def _objective(policy: Any, env: SequenceEnv, behaviour: Behaviour) -> Tensor:
    _, chances, rewards = every_text(policy, env, behaviour)
    objective: Tensor = (chances * rewards).sum() / env.size
    return objective


def every_text(policy: Any, env: SequenceEnv, behaviour: Behaviour) -> tuple[Tensor, Tensor, Tensor]:
    """Return every text, `[N, T]`; in every context its probability, and its reward, `[contexts, N]` each."""
    if env.noise:
        raise ValueError(
            f"texts can be enumerated, the noise that they depend on cannot: make the task without "
            f"noise={env.noise}"
        )
    words, written = texts(env)
    items = torch.arange(env.size, device=env.device)
    tokens, mask = words.repeat(env.size, 1), written.repeat(env.size, 1)
    index = items.repeat_interleave(len(words))
    context: Context = {**env.contexts(index), "index": index}
    reward = env.total_reward(tokens, mask, context).sum(1)
    if behaviour.support is None:
        behaviour = behaviour._replace(support=env.allowed_everywhere(tokens, context))
    with eval_mode(policy):
        log_probs = policy.evaluate(tokens, context, *[behaviour] * (behaviour != RAW)).log_probs
    shape = env.size, len(words)
    return words, (log_probs * mask).sum(1).exp().view(shape), reward.view(shape)


def gradient(policy: Any, env: Any, behaviour: Behaviour = RAW) -> dict[str, Tensor]:
    """Return ∇J by name of parameter; zeros for parameters that J does not depend on."""
    return _slopes(policy, _objective(policy, sequence_env(env), behaviour))


def expected_gradient(agent: Any, env: Any, rows: int | None = None) -> dict[str, Tensor]:
    """Return E[ĝ], the mean of an agent's gradient over every batch that it could have sampled.

    An estimator is unbiased where this is `gradient`, to rounding; what differs is its bias.

    Args:
        agent: a policy-gradient agent; what its baseline has learned stays as it is.
        env: a task with few texts: the rows of all batches together are enumerated. Its reward is the one
            that is learned from, as `agent.paid_on(env)` has it.
        rows: texts in a batch; one group of `agent.samples` when not given.
    """
    return mean_gradient(agent, *every_batch(agent, sequence_env(env), rows or agent.samples))


def every_batch(agent: Any, env: SequenceEnv, rows: int) -> tuple[Rollout, Tensor]:
    """Return every batch of so many texts, one after the other, and the probability of each."""
    if agent.writes_otherwise:
        raise ValueError(
            f"{type(agent).__name__} writes by {agent.writes_otherwise}, and the batches that are enumerated "
            "have independent texts of the policy, K for each source; take an agent or setting that does so"
        )
    words, _ = texts(env)
    groups = rows // agent.samples
    choices = [env.size, *[len(words)] * agent.samples] * groups
    count = int(torch.tensor(choices).double().prod())
    if groups * agent.samples != rows or count * rows > LIMIT:
        raise ValueError(
            f"{count:,} batches of {rows} rows in groups of {agent.samples} cannot be enumerated "
            f"(limit {LIMIT:,} rows); take fewer rows, samples or words"
        )
    ways = [torch.arange(n, device=env.device) for n in choices]
    drawn = torch.cartesian_prod(*ways).view(-1, 1 + agent.samples)  # of each group its item and its texts
    index, forced = drawn[:, 0], words[drawn[:, 1:].flatten()]
    wide, random = env.replace(num_envs=len(forced)), env.generator.get_state()
    batch = rollout(agent.policy, wide, decode=agent.decode, forced=forced, repeat=agent.samples, index=index)
    batch = agent.prepare(replace(batch, samples=agent.samples), wide)
    env.generator.set_state(random)
    chance = batch.log_probs.double().sum(1).view(-1, rows).sum(1).exp() / env.size**groups
    return batch, chance


def mean_gradient(agent: Any, batch: Rollout, chance: Tensor) -> dict[str, Tensor]:
    """Return Σ chance · gradient of the objective, over equally large batches, one after the other."""
    rows = len(batch.actions) // len(chance)
    starts = range(0, len(batch.actions), rows)
    parts = [agent.with_advantages(batch.take(slice(start, start + rows))) for start in starts]
    whole = _joined(batch, parts, chance.float().repeat_interleave(rows).unsqueeze(1))
    return _slopes(agent.policy, -agent.loss(whole)[0])


def _joined(batch: Rollout, parts: Sequence[LearningBatch], chance: Tensor) -> LearningBatch:
    """Return a batch with what was computed in its parts, whose weights are multiplied by their chance."""
    fields = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("advantages", "targets")}
    fields["weights"] = chance * torch.cat([part.weights for part in parts])
    given = [part.demonstrations for part in parts if part.demonstrations is not None]
    whole = {"demonstrations": _joined(batch.demonstrations, given, chance)} if batch.demonstrations else {}
    return LearningBatch(**{**vars(batch), **fields, **whole})


def _slopes(policy: Any, objective: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(objective, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if grad is None else grad
        for (name, p), grad in zip(named.items(), grads, strict=True)
    }
