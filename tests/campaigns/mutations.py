"""Plant errors in a copy of the library, one at a time, and see which tests notice.

    python tests/campaigns/mutations.py                      # all; counts to benchmarks/results/campaigns/
    python tests/campaigns/mutations.py --only mixer-given   # one or more, by name; added to those counts
    python tests/campaigns/mutations.py --seed 7             # the same errors in another order of tests

Each error replaces a text that occurs exactly once in its file, and names the test files that should fail.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "campaigns"
TIMEOUT = 300  # seconds for the tests of one error


class Mutation(NamedTuple):
    """A planted error."""

    name: str
    file: str
    original: str
    planted: str
    tests: str  # names of test files below tests/, without "test_" and ".py"


MUTATIONS = [
    Mutation(*entry)
    for entry in (
        # ── variants ──
        (
            "gspo-sum",
            "rlseq/policy_gradient/losses.py",
            "return mean_of_text(log_probs - old, mask).detach() +",
            "return ((log_probs - old) * mask).sum(1, keepdim=True).detach() +",
            "variants",
        ),
        (
            "cispo-gradient",
            "rlseq/policy_gradient/losses.py",
            "return -(weight * advantages).detach() * log_probs",
            "return -(weight * advantages) * log_probs",
            "variants",
        ),
        (
            "dppo-both-ways",
            "rlseq/policy_gradient/losses.py",
            "return torch.where(advantages > 0, moved > high, -moved > low)",
            "return torch.where(advantages > 0, moved.abs() > high, moved.abs() > low)",
            "variants",
        ),
        (
            "sapo-temperatures",
            "rlseq/policy_gradient/losses.py",
            "fall).masked_fill(advantages > 0, rise)",
            "rise).masked_fill(advantages > 0, fall)",
            "variants",
        ),
        (
            "gmpo-min",
            "rlseq/policy_gradient/losses.py",
            "least = sign * torch.min(sign * log_ratio, sign * log_ratio.clamp(-low, high))",
            "least = log_ratio.clamp(-low, high)",
            "variants",
        ),
        (
            "pass-at-k-sets",
            "rlseq/policy_gradient/credit.py",
            "comb(below, k - 2)",
            "comb(below, k - 1)",
            "variants",
        ),
        (
            "gkd-direction",
            "agents/gkd.py",
            "    return kl(ours, teacher)",
            "    return kl(teacher, ours)",
            "gkd",
        ),
        (
            "gkd-ensemble-logits",
            "agents/gkd.py",
            "log_probs = torch.stack([z.log_softmax(-1) for z in logits])",
            "log_probs = torch.stack([*logits])",
            "gkd",
        ),
        (
            "dpo-reference-twice",
            "agents/dpo.py",
            "return self.beta * (evaluation.log_probs - batch.reference_log_probs)",
            "return self.beta * (evaluation.log_probs - 2 * batch.reference_log_probs)",
            "variants",
        ),
        (
            "cpo-worse",
            "agents/dpo.py",
            "ranks.argmax(1, keepdim=True)",
            "ranks.argmin(1, keepdim=True)",
            "variants",
        ),
        (
            "dro-words",
            "agents/dro.py",
            "(batch.advantages[:, 0] - self.beta * whole)",
            "(batch.advantages[:, 0] + self.beta * whole)",
            "variants",
        ),
        (
            "mbr-itself",
            "rlseq/engine/mbr.py",
            "return ((found.sum(2) - own) / (samples - 1)).flatten()",
            "return (found.sum(2) / (samples - 1)).flatten()",
            "mbr",
        ),
        (
            "mbr-transposed",
            "rlseq/engine/mbr.py",
            "torch.stack(columns, 1)",
            "torch.stack(columns, 0)",
            "mbr",
        ),
        (
            "vine-late",
            "rlseq/policy_gradient/baselines.py",
            "whole[:, :-1]], 1)",
            "whole[:, 1:]], 1)",
            "variants",
        ),
        (
            "maxrl-std",
            "rlseq/policy_gradient/factors.py",
            "centre = returns.mean(1, keepdim=True)",
            "centre = returns.std(1, keepdim=True)",
            "variants",
        ),
        (
            "gdpo-sum-first",
            "rlseq/policy_gradient/credit.py",
            "groups = torch.stack([part.sum(1).view(-1, batch.samples) for part in parts.values()])",
            "groups = sum(part.sum(1).view(1, -1, batch.samples) for part in parts.values())",
            "variants",
        ),
        # ── one step and whole updates ──
        (
            "step-first-group",
            "rlseq/policy_gradient/agent.py",
            "for group in self.optimizer.param_groups for p in",
            "for group in self.optimizer.param_groups[:1] for p in",
            "agent_step",
        ),
        ("step-not-cleared", "rlseq/policy_gradient/agent.py", "parameter.grad = None", "pass", "agent_step"),
        (
            "clip-off",
            "rlseq/policy_gradient/agent.py",
            "(largest / (norm + 1e-6)).clamp(max=1.0)",
            "torch.ones_like(norm)",
            "agent_step update",
        ),
        ("clip-raises", "rlseq/policy_gradient/agent.py", ".clamp(max=1.0))", ")", "agent_step"),
        (
            "pace-first-group",
            "rlseq/policy_gradient/agent.py",
            "for group in self.optimizer.param_groups:",
            "for group in self.optimizer.param_groups[:1]:",
            "agent_step",
        ),
        (
            "pace-compounds",
            "rlseq/policy_gradient/agent.py",
            'group.setdefault("initial_lr", group["lr"])',
            'group["lr"]',
            "agent_step",
        ),
        (
            "epochs-once",
            "rlseq/policy_gradient/sample_reuse.py",
            "for _ in range(self.epochs)",
            "for _ in range(1)",
            "update",
        ),
        (
            "baseline-learns-twice",
            "rlseq/policy_gradient/algorithm.py",
            "self.baseline.learn(learned.targets, self.acted(learned))",
            "self.baseline.learn(2 * learned.targets, self.acted(learned))",
            "update mixer",
        ),
        (
            "baseline-never-learns",
            "rlseq/policy_gradient/algorithm.py",
            "if isinstance(self.baseline, Factor):",
            "if isinstance(self.baseline, str):",
            "update",
        ),
        (
            "no-penalty",
            "rlseq/policy_gradient/algorithm.py",
            "* learned.weights).sum() + penalty",
            "* learned.weights).sum()",
            "exactness",
        ),
        ("same-order", "rlseq/policy_gradient/factors.py", "self.times = self.times + 1", "pass", "update"),
        (
            "groups-torn",
            "rlseq/policy_gradient/factors.py",
            "order.unsqueeze(1) * batch.samples + torch.arange(batch.samples)",
            "order.unsqueeze(1) + len(order) * torch.arange(batch.samples)",
            "equivalences",
        ),
        # ── factors ──
        (
            "by-batch-no-mean",
            "rlseq/policy_gradient/factors.py",
            "centred = advantages - total((advantages * real).sum())",
            "centred = advantages",
            "objectives",
        ),
        (
            "by-group-biased",
            "rlseq/policy_gradient/factors.py",
            ".std(1) + 1e-4",
            ".std(1, correction=0) + 1e-4",
            "objectives",
        ),
        (
            "loo-with-own",
            "rlseq/policy_gradient/baselines.py",
            "(whole.sum(1, keepdim=True) - whole) / (batch.samples - 1)",
            "whole.mean(1, keepdim=True).expand_as(whole)",
            "exactness",
        ),
        (
            "mean-with-own",
            "rlseq/policy_gradient/baselines.py",
            "others = total(batch.mask.sum(0)) - batch.mask.int()",
            "others = total(batch.mask.sum(0))",
            "exactness update mixer",
        ),
        (
            "average-no-decay",
            "rlseq/policy_gradient/baselines.py",
            "self.weight.to(now.device) + (1 - self.decay)",
            "self.weight.to(now.device) + 1",
            "update",
        ),
        (
            "paid-late",
            "rlseq/policy_gradient/baselines.py",
            "batch.rewards.cumsum(1) - batch.rewards",
            "batch.rewards.cumsum(1)",
            "exactness",
        ),
        (
            "regression-sign",
            "rlseq/policy_gradient/baselines.py",
            "(self(returns, batch) - returns) * batch.mask",
            "(returns - self(returns, batch)) * batch.mask",
            "mixer update collect",
        ),
        (
            "greedy-all-rows",
            "rlseq/policy_gradient/baselines.py",
            'return batch\n        index = batch.context["index"][:: batch.samples]',
            'return batch\n        index = batch.context["index"][: len(batch.actions) // batch.samples]',
            "update",
        ),
        # ── returns and credit ──
        (
            "discount-everywhere",
            "rlseq/policy_gradient/returns.py",
            "carry = rate * _going_on(ends)",
            "carry = rate * torch.ones_like(ends)",
            "returns",
        ),
        (
            "gae-no-bootstrap",
            "rlseq/policy_gradient/returns.py",
            "_or_zero(bootstrap, rewards) + _going_on(ends) * following",
            "_going_on(ends) * following",
            "returns",
        ),
        (
            "n-step-short",
            "rlseq/policy_gradient/returns.py",
            "for _ in range(n):",
            "for _ in range(n - 1):",
            "returns",
        ),
        (
            "at-last-first",
            "rlseq/utils/masks.py",
            "mask.sum(1, keepdim=True) - 1",
            "mask.sum(1, keepdim=True) - 2",
            "returns env",
        ),
        (
            "stepwise-unpaid",
            "rlseq/policy_gradient/credit.py",
            "return replace(batch, credit=credit - past_rewards(batch))",
            "return replace(batch, credit=credit)",
            "update",
        ),
        # ── losses and penalties ──
        (
            "clip-one-side",
            "rlseq/policy_gradient/losses.py",
            "-torch.min(ratio * advantages,",
            "-torch.max(ratio * advantages,",
            "losses",
        ),
        (
            "per-text-sum",
            "rlseq/policy_gradient/losses.py",
            "mask / mask.sum(1, keepdim=True).clamp(min=1) / _of_all(mask, len(mask))",
            "mask / mask.sum(1, keepdim=True).clamp(min=1)",
            "losses objectives",
        ),
        (
            "per-token-rows",
            "rlseq/policy_gradient/losses.py",
            "return mask / total(mask.sum()).clamp(min=1)",
            "return mask / len(mask)",
            "losses objectives",
        ),
        (
            "risk-no-k",
            "rlseq/policy_gradient/losses.py",
            "-samples * q * returns",
            "-q * returns",
            "equivalences losses",
        ),
        (
            "entropy-sign",
            "rlseq/policy_gradient/penalties.py",
            "total = total - agent.entropy",
            "total = total + agent.entropy",
            "objectives agents",
        ),
        (
            "k3-reversed",
            "rlseq/policy_gradient/penalties.py",
            "kl_estimate(reference.log_probs - evaluation.log_probs)",
            "kl_estimate(evaluation.log_probs - reference.log_probs)",
            "objectives losses",
        ),
        (
            "k2-unhalved",
            "rlseq/policy_gradient/penalties.py",
            "(evaluation.log_probs - reference.log_probs).square() / 2",
            "(evaluation.log_probs - reference.log_probs).square()",
            "objectives losses",
        ),
        (
            "smoothing-reversed",
            "rlseq/policy_gradient/penalties.py",
            "share * others - (1 - share) * evaluation.log_probs",
            "(1 - share) * others - share * evaluation.log_probs",
            "losses objectives",
        ),
        # ── the audit ──
        (
            "audit-factor",
            "rlseq/auditing/audit.py",
            "float(off.norm() / wanted.norm()), float(factor - 1)",
            "float(across.norm() / wanted.norm()), float(factor - 1)",
            "audit",
        ),
        (
            "audit-own-factor",
            "rlseq/auditing/audit.py",
            "factor = mean @ wanted / wanted.square().sum()\n        if",
            "factor = mean @ wanted / mean.square().sum()\n        if",
            "audit",
        ),
        (
            "audit-older-writer",
            "rlseq/auditing/audit.py",
            "of_function(estimator, every, every.tables, every.tables.old) if older",
            "of_function(estimator, every, every.tables, every.tables.policy) if older",
            "audit",
        ),
        (
            "audit-uniform-batches",
            "rlseq/auditing/estimators.py",
            "return self.chance @ self.gradients",
            "return self.gradients.mean(0)",
            "audit",
        ),
        (
            "audit-second-moment",
            "rlseq/auditing/estimators.py",
            "around = self.gradients - self.mean",
            "around = self.gradients",
            "audit",
        ),
        (
            "audit-contexts-once",
            "rlseq/auditing/texts.py",
            "rows, log_p[rows].sum(1).exp() / self.config.contexts**groups",
            "rows, log_p[rows].sum(1).exp()",
            "audit",
        ),
        (
            "audit-rewards-of-others",
            "rlseq/auditing/texts.py",
            "return replace(found, advantages=rewards - mean[index])",
            "return replace(found, advantages=rewards - mean.mean())",
            "audit",
        ),
        (
            "audit-padding-visible",
            "rlseq/auditing/texts.py",
            "mask=pad(self.mask, (0, columns)),",
            "mask=pad(self.mask, (0, columns), value=True),",
            "audit",
        ),
        (
            "audit-twice-one-group",
            "rlseq/auditing/changes.py",
            "torch.arange(len(doubled.rewards)) // batch.samples",
            "doubled.groups",
            "audit",
        ),
        (
            "audit-micro-sum",
            "rlseq/auditing/changes.py",
            "for half in halves]).mean(0))",
            "for half in halves]).sum(0))",
            "audit",
        ),
        (
            "audit-first-place",
            "rlseq/auditing/changes.py",
            "beside_long[samples:].mean(1)",
            "beside_long[samples:].sum(1)",
            "audit",
        ),
        (
            "audit-forward-is-reverse",
            "rlseq/auditing/objectives.py",
            "return _reverse(theirs, ours)",
            "return _reverse(ours, theirs)",
            "audit",
        ),
        (
            "audit-best-counts-equals",
            "rlseq/auditing/objectives.py",
            "return -(gain * rewards / alike).sum(1).mean()",
            "return -(gain * rewards).sum(1).mean()",
            "audit",
        ),
        (
            "audit-writer-moves",
            "rlseq/auditing/objectives.py",
            "getattr(every.tables, writer).detach(), _by_context",
            "getattr(every.tables, writer), _by_context",
            "audit",
        ),
        # ── agents ──
        (
            "dapo-new-rows",
            "rlseq/types.py",
            "return part.index_copy(0, rows, new)",
            "return part.index_copy(0, rows, new.flip(0))",
            "update",
        ),
        (
            "dapo-draws-all",
            "agents/grpo.py",
            "equal = (~returns_differ(batch)).nonzero()",
            "equal = returns_differ(batch).nonzero()",
            "update",
        ),
        (
            "mbr-beam-judges",
            "rlseq/engine/mbr.py",
            '"index": column.repeat_interleave(each)',
            '"index": column.repeat(each)',
            "mbr",
        ),
        ("dapo-equal-groups", "agents/grpo.py", " & returns_differ(batch).unsqueeze(1)", "", "update"),
        (
            "grpo-clip-high",
            "agents/grpo.py",
            "clipped(evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high)",
            "clipped(evaluation.log_probs, batch.log_probs, batch.advantages, self.clip_high, self.clip)",
            "objectives agents equivalences losses",
        ),
        (
            "ppo-kl-price",
            "agents/ppo.py",
            "doubled.float() - halved.float()",
            "halved.float() - doubled.float()",
            "update",
        ),
        (
            "mixer-given",
            "rlseq/engine/references.py",
            "length.unsqueeze(1)\n    nothing",
            "(length - 1).unsqueeze(1)\n    nothing",
            "references mixer",
        ),
        (
            "mixer-never",
            "rlseq/policy_gradient/agent.py",
            "delta * min(stage, stages)",
            "delta * 0",
            "mixer equivalences",
        ),
        ("mixer-late", "rlseq/policy_gradient/agent.py", "stage = 1 + int(", "stage = int(", "equivalences"),
        (
            "mixer-tempered",
            "agents/mixer.py",
            "torch.where(given, -plain,",
            "torch.where(given, -seen.log_probs,",
            "mixer",
        ),
        (
            "mixer-learns-forced",
            "agents/mixer.py",
            "return replace(batch, mask=batch.mask & ~_given(batch))",
            "return batch",
            "mixer",
        ),
        (
            "mixer-counts-twice",
            "agents/mixer.py",
            "env.counts.imitated(env.rank.total(steps.sum()))",
            "env.counts.read += env.rank.total(steps.sum())",
            "mixer",
        ),
        ("e2e-uniform", "agents/e2e.py", "top.values.softmax(-1)", "torch.ones_like(top.values) / k", "e2e"),
        (
            "gumbel-without-noise",
            "rlseq/engine/relaxed.py",
            "env.rank.own(noise), temperature)",
            "torch.zeros_like(logits), temperature)",
            "relaxed",
        ),
        (
            "straight-through-without-detach",
            "rlseq/engine/relaxed.py",
            "hard + (soft - soft.detach())",
            "hard + (soft - soft)",
            "relaxed",
        ),
        (
            "relaxed-words-read-detached",
            "rlseq/engine/relaxed.py",
            "policy.step(read, state), env.num_envs",
            "policy.step(read.detach(), state), env.num_envs",
            "relaxed",
        ),
        (
            "wasserstein-generator-with-logarithm",
            "agents/continuous.py",
            "value=logit, objective=wgan, penalties",
            "value=closeness, objective=wgan, penalties",
            "relaxed",
        ),
        (
            "embeddings-move-the-table",
            "agents/continuous.py",
            "with frozen(_table(policy)):",
            "with eval_mode(_table(policy)):",
            "relaxed",
        ),
        (
            "e2e-one-late",
            "agents/e2e.py",
            "device=batch.actions.device) < s.unsqueeze(1)",
            "device=batch.actions.device) <= s.unsqueeze(1)",
            "e2e",
        ),
        (
            "e2e-detached",
            "agents/e2e.py",
            "SoftTokens(top.indices, top.values.softmax(-1))",
            "SoftTokens(top.indices, top.values.softmax(-1).detach())",
            "e2e",
        ),
        (
            "e2e-given-reversed",
            "agents/e2e.py",
            "given = given.unsqueeze(-1)",
            "given = ~given.unsqueeze(-1)",
            "e2e",
        ),
        (
            "scheduled-reversed",
            "agents/scheduled_sampling.py",
            "torch.where(own[:, t], drawn, batch.actions[:, t])",
            "torch.where(own[:, t], batch.actions[:, t], drawn)",
            "scheduled_sampling",
        ),
        (
            "scheduled-one-pass",
            "agents/scheduled_sampling.py",
            "torch.where(own, drawn, batch.actions)",
            "torch.where(own, batch.actions, drawn)",
            "scheduled_sampling",
        ),
        (
            "scheduled-no-ramp",
            "agents/scheduled_sampling.py",
            "min(1.0, int(self.count.updates) / self.ramp)",
            "1.0",
            "scheduled_sampling",
        ),
        (
            "scheduled-unread",
            "agents/scheduled_sampling.py",
            "return replace(batch, inputs=read)",
            "return replace(batch, actions=read)",
            "scheduled_sampling",
        ),
        (
            "seqgan-baseline",
            "agents/seqgan.py",
            "= none  # subtracted from the credit; the paper",
            "= mean  # subtracted from the credit; the paper",
            "adversarial",
        ),
        (
            "look-teaches",
            "rlseq/training/probe.py",
            "self.agent.gather(self.agent.paid_on(self.env))",
            "self.agent.collect(self.env)",
            "every_agent",
        ),
        (
            "look-task-reward",
            "rlseq/training/probe.py",
            "self.agent.policy, self.agent.paid_on(self.env))",
            "self.agent.policy, self.env)",
            "every_agent",
        ),
        (
            "trail-reversed",
            "agents/seqgan.py",
            "slow.lerp_(fast, 1 - trail)",
            "slow.lerp_(fast, trail)",
            "adversarial",
        ),
        # ── exact directions and searches ──
        (
            "trpo-sign-of-the-advantage",
            "agents/trpo.py",
            "return ratio_weighted(evaluation.log_probs, batch.log_probs, batch.advantages)",
            "return -ratio_weighted(evaluation.log_probs, batch.log_probs, batch.advantages)",
            "trpo",
        ),
        ("trpo-any-step", "agents/trpo.py", "(after < before) & (moved", "(moved", "trpo"),
        (
            "trpo-beyond",
            "agents/trpo.py",
            " & (moved <= self.kl_target)",
            "",
            "trpo",
        ),
        ("trpo-length", "agents/trpo.py", "(2 * self.kl_target / size).sqrt()", "1e-3", "trpo"),
        (
            "trpo-values-move-the-trunk",
            "agents/trpo.py",
            "else own.where(mixed == 0, 0.0)",
            "else own",
            "trpo",
        ),
        (
            "fisher-of-nothing",
            "rlseq/policy_gradient/fisher.py",
            "direction = rest + size / before * direction",
            "direction = rest",
            "trpo",
        ),
        (
            "es-one-sided",
            "agents/es.py",
            "torch.cat([steps, -steps])",
            "torch.cat([steps, steps])",
            "black_box",
        ),
        ("low-rank-unscaled", "agents/black_box.py", "a @ b.mT / self.rank**0.5", "a @ b.mT", "black_box"),
        ("es-half", "agents/es.py", "/ (2 * self.sigma)", "/ self.sigma", "black_box"),
        (
            "differences-share",
            "agents/finite_differences.py",
            "super().slope(scores, directions) * self.size",
            "super().slope(scores, directions)",
            "black_box",
        ),
        ("cem-worst", "agents/cem.py", "descending=True", "descending=False", "black_box"),
        (
            "rows-of-others",
            "rlseq/policies/perturbed.py",
            "slice(end - count, end)) for number",
            "slice(len(owner) - end, len(owner) - end + count)) for number",
            "black_box",
        ),
        (
            "all-action-of-one-word-more",
            "rlseq/policy_gradient/q_estimates.py",
            '("forced_steps", step + 1)',
            '("forced_steps", step)',
            "all_action",
        ),
        (
            "all-action-earlier-rewards",
            "rlseq/policy_gradient/q_estimates.py",
            "values - past_rewards(batch).unsqueeze(2)",
            "values",
            "all_action",
        ),
        # ── engine, sampler, search, head ──
        (
            "a-step-without-rows",
            "rlseq/engine/rollout.py",
            "if not len(writing.word):",
            "if False:",
            "finished_rows",
        ),
        (
            "padding-scored",
            "rlseq/engine/rollout.py",
            "evaluation.log_probs.where(batch.mask, 0.0)",
            "evaluation.log_probs",
            "mixer",
        ),
        (
            "forced-scores",
            "rlseq/engine/rollout.py",
            "token = torch.where(forced[1], forced[0], token)",
            "token = forced[0]",
            "engine mixer",
        ),
        (
            "labels-shifted-by-one",
            "agents/dagger.py",
            "return replace(batch, inputs=read)",
            "return replace(batch, inputs=read.roll(1, 1))",
            "dagger",
        ),
        (
            "expert-next-place",
            "rlseq/metrics/next_words.py",
            "distances = _distances(tokens, context)[..., :-1] + missed",
            "distances = _distances(tokens, context)[..., 1:] + missed",
            "dagger",
        ),
        (
            "irl-entropy-sign",
            "agents/gail.py",
            "rewards=batch.rewards - cost",
            "rewards=batch.rewards + cost",
            "gail",
        ),
        (
            "evaluator-without-the-picture",
            "rlseq/discriminators/network.py",
            "return x if self.attention is None else self.attention(x, context)",
            "return torch.cat([x, x, x], 2)",
            "ggan",
        ),
        (
            "mismatched-with-its-own-picture",
            "rlseq/discriminators/texts.py",
            "context = {name: value.roll(1, 0)",
            "context = {name: value.roll(1, 0) if name == 'index' else value",
            "ggan discriminators",
        ),
        (
            "noise-of-zeros",
            "rlseq/policies/spec.py",
            "return self.forward(words.words) + words.shift",
            "return self.forward(words.words)",
            "noise ggan",
        ),
        (
            "noise-read-once",
            "rlseq/policies/noise.py",
            "return logits, (shift, inner)",
            "return logits, (0 * shift, inner)",
            "noise",
        ),
        (
            "another-noise-for-every-row-of-a-group",
            "rlseq/mdp/task.py",
            "drawn = self.rank.all(len(index) // repeat), self.noise",
            "repeat, drawn = 1, (self.rank.all(len(index)), self.noise)",
            "noise",
        ),
        (
            "replay-forgets-noise",
            "rlseq/value_based/agent.py",
            'context=("index", *[NOISE] * bool(env.noise))',
            'context=("index",)',
            "noise",
        ),
        # ── values of actions ──
        (
            "target-not-frozen",
            "rlseq/value_based/target.py",
            "deepcopy(network).requires_grad_(False)",
            "network",
            "value_based",
        ),
        (
            "value-of-what-was-done",
            "rlseq/value_based/action_values.py",
            "return target.largest()",
            "return target.of(target.batch.actions)",
            "value_based",
        ),
        (
            "end-not-masked",
            "rlseq/value_based/agent.py",
            "after.masked_fill(over, 0.0)",
            "after",
            "value_based",
        ),
        (
            "time-limit-is-an-end",
            "rlseq/value_based/agent.py",
            "batch.ends & ~batch.cut",
            "batch.ends",
            "value_based",
        ),
        (
            "double-judged-by-itself",
            "rlseq/value_based/action_values.py",
            "target.of(online.best())",
            "target.of(target.best())",
            "value_based",
        ),
        (
            "replay-first-places",
            "rlseq/value_based/replay.py",
            "(self.written + rows) % self._places",
            "rows % self._places",
            "value_based",
        ),
        (
            "prior-sign",
            "agents/soft_q.py",
            "+ evaluate_frozen(self.reference, batch)",
            "- evaluate_frozen(self.reference, batch)",
            "value_based",
        ),
        (
            "support-forgotten",
            "rlseq/value_based/agent.py",
            "support=env.allowed_everywhere(batch.actions, context)",
            "support=None",
            "value_based",
        ),
        (
            "critic-without-copy",
            "agents/ddpg.py",
            "copies = self.critic_target.network, self.target.network",
            "copies = self.critic, self.target.network",
            "value_based",
        ),
        (
            "words-of-the-same-state",
            "rlseq/value_based/pathwise.py",
            "return following(self.chosen(critic, policy, batch, seed)[0])",
            "return self.chosen(critic, policy, batch, seed)[0]",
            "value_based",
        ),
        (
            "words-without-their-noise",
            "rlseq/value_based/pathwise.py",
            "self.relaxation(z, noise, self.temperature)",
            "self.relaxation(z, 0 * noise, self.temperature)",
            "value_based",
        ),
        (
            "given-words-learned",
            "rlseq/policy_gradient/algorithm.py",
            "replace(batch, mask=batch.mask & ~batch.given)",
            "batch",
            "curriculum",
        ),
        (
            "curriculum-hard-first",
            "envs/wrappers/curriculum.py",
            "numbers.argsort(stable=True)",
            "numbers.argsort(stable=True, descending=True)",
            "curriculum",
        ),
        (
            "curiosity-inverse-frozen",
            "envs/wrappers/curiosity.py",
            "(forward + inverse).backward()",
            "(forward + inverse.detach()).backward()",
            "curiosity",
        ),
        (
            "shaping-cost-as-bonus",
            "envs/wrappers/shaping.py",
            "_weighted(-weight, TOKEN_COSTS[name])",
            "_weighted(weight, TOKEN_COSTS[name])",
            "shaping",
        ),
        (
            "shaping-forgets-gamma",
            "envs/wrappers/shaping.py",
            "_potential(env, name)), gamma, f",
            "_potential(env, name)), 1.0, f",
            "shaping",
        ),
        (
            "regimes-shares-exchanged",
            "envs/wrappers/regimes.py",
            "uniform[0] < self.share",
            "uniform[0] >= self.share",
            "regimes",
        ),
        (
            "birthday-rule-of-thumb",
            "rlseq/engine/memorisation.py",
            "number**2 / (2 * -math.log1p(-chance))",
            "number**2",
            "memorisation",
        ),
        (
            "sampler-off-by-one",
            "rlseq/engine/categorical.py",
            "target, right=True)",
            "target - 1e-3, right=True)",
            "engine decode scheduled_sampling",
        ),
        (
            "top-p-without-last",
            "rlseq/engine/decode.py",
            "probs.cumsum(-1) - probs < top_p",
            "probs.cumsum(-1) < top_p",
            "decode",
        ),
        (
            "temperature-times",
            "rlseq/engine/decode.py",
            "logits = logits / behaviour.temperature",
            "logits = logits * behaviour.temperature",
            "decode head",
        ),
        (
            "beam-order",
            "rlseq/engine/beam.py",
            ".sort(1, descending=True)",
            ".sort(1, descending=False)",
            "search",
        ),
        (
            "head-entropy",
            "rlseq/policies/head.py",
            "entropy[rows] = norm - z.mul_(p).sum(-1)",
            "entropy[rows] = z.mul_(p).sum(-1) - norm",
            "head",
        ),
        (
            "head-slope",
            "rlseq/policies/head.py",
            "by_z = p * -slope",
            "by_z = p * (-2 * slope)",
            "head",
        ),
        (
            "eos-ignored",
            "rlseq/mdp/episodes.py",
            "self.done |= actions == eos",
            "pass",
            "env engine",
        ),
        # ── the Gymnasium interface, metrics, checkpoints, data, statistics ──
        (
            "step-late-end",
            "rlseq/mdp/sequence_env.py",
            "ended = self.done & ~finished",
            "ended = self.done",
            "view env",
        ),
        (
            "bleu-unclipped",
            "rlseq/metrics/bleu.py",
            "batch.total(seen < take(self.most, node))",
            "batch.total(take(self.most, node) > 0)",
            "metrics/parity metrics/definitions",
        ),
        (
            "rouge-recall",
            "rlseq/metrics/rouge.py",
            "(recall + weight * precision)",
            "(precision + weight * recall)",
            "metrics/parity",
        ),
        (
            "cider-penalty",
            "rlseq/metrics/cider.py",
            "(-2 * self.sigma**2)",
            "(-self.sigma**2)",
            "metrics/parity",
        ),
        (
            "chrf-beta",
            "rlseq/metrics/chrf.py",
            "(weight * precision + recall)",
            "(precision + weight * recall)",
            "metrics/parity",
        ),
        (
            "checkpoint-torch",
            "rlseq/training/checkpoint.py",
            'torch.set_rng_state(state["torch"])',
            "pass",
            "checkpoint training",
        ),
        (
            "holm-flat",
            "rlseq/compare/statistics.py",
            "(len(order) - rank) * p[i]",
            "len(order) * p[i]",
            "compare/statistics",
        ),
        (
            "welch-biased",
            "rlseq/compare/statistics.py",
            "equal_var=False",
            "equal_var=True",
            "compare/statistics",
        ),
        (
            "d-order",
            "rlseq/discriminators/adversary.py",
            "(up.unsqueeze(1) > down)",
            "(up.unsqueeze(1) < down)",
            "discriminators",
        ),
        (
            "gan-sign",
            "rlseq/discriminators/objectives.py",
            "missed.mean() + F.softplus(low).mean()",
            "missed.mean() + F.softplus(-low).mean()",
            "discriminators",
        ),
        (
            "odds-probability",
            "rlseq/discriminators/objectives.py",
            "logits.sum(-1).clamp(max=9.21).exp()",
            "logits.sum(-1).clamp(max=9.21).sigmoid()",
            "discriminators adversarial",
        ),
        (
            "corpus-kept",
            "rlseq/data/corpus.py",
            "self.references.lengths[self.order] <= max_len",
            "self.references.lengths[self.order] < max_len",
            "corpus",
        ),
        (
            "data-first",
            "rlseq/data/encode.py",
            "if row.item is None else",
            "if row.item is not None else",
            "data",
        ),
    )
]


def problems() -> list[str]:
    """The errors that cannot be planted any more: their text is not there exactly once."""
    found = []
    for m in MUTATIONS:
        count = (ROOT / m.file).read_text("utf-8").count(m.original)
        missing = [str(path) for path in map(test_file, m.tests.split()) if not (ROOT / path).exists()]
        if count != 1 or missing or m.original == m.planted:
            found.append(f"{m.name}: {m.file} has its text {count} times; missing tests: {missing}")
    return found


def test_file(name: str) -> Path:
    """Where the tests of a short name are."""
    folder, _, stem = name.rpartition("/")
    return Path("tests", folder, f"test_{stem}.py")


def copied(place: Path) -> Path:
    """A copy of everything that tests need."""
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", ".*_cache", "build", "*.egg-info", "runs"
    )
    copy = place / "copy"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    return copy


def tried(mutation: Mutation, copy: Path, seed: int) -> dict[str, Any]:
    """Plant an error, run its tests, and take it out again."""
    path = copy / mutation.file
    right = path.read_text("utf-8")
    tests = [test_file(name) for name in mutation.tests.split()]
    random.Random(seed).shuffle(tests)
    path.write_text(right.replace(mutation.original, mutation.planted), "utf-8")
    started = time.perf_counter()
    try:
        by = failed(copy, tests)
    finally:
        path.write_text(right, "utf-8")
    seconds = round(time.perf_counter() - started, 1)
    return {"file": mutation.file, "killed": by is not None, "by": by or "none", "seconds": seconds}


def failed(copy: Path, tests: list[Path], timeout: float | None = TIMEOUT) -> str | None:
    """The first test that fails, or "time"; None if all pass."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "RLSEQ"))},
        "PYTHONPATH": str(copy),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, tests)]
    try:
        run = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return "time"
    if run.returncode == 0:
        return None
    lines = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not lines:
        raise RuntimeError(f"pytest ended with exit code {run.returncode}: {run.stdout}{run.stderr}")
    return lines[0].split(" - ")[0].split(" ", 1)[1]


def campaign(names: list[str], seed: int) -> dict[str, dict[str, Any]]:
    """Try all errors, or those of these names."""
    unknown = set(names) - {m.name for m in MUTATIONS}
    if unknown:
        raise SystemExit(f"unknown mutations: {', '.join(sorted(unknown))}")
    chosen = [m for m in MUTATIONS if not names or m.name in names]
    found = {}
    with tempfile.TemporaryDirectory() as place:
        copy = copied(Path(place))
        # A test that fails without any error planted would seem to notice all of them.
        if broken := failed(
            copy, sorted({test_file(name) for m in chosen for name in m.tests.split()}), None
        ):
            raise SystemExit(f"{broken} fails although nothing is planted; mend it first")
        for mutation in chosen:
            found[mutation.name] = result = tried(mutation, copy, seed)
            verdict = "killed" if result["killed"] else "SURVIVED"
            print(f"{verdict:8} {mutation.name}: {result['by']}", flush=True)  # noqa: T201
    return found


def counted() -> dict[str, dict[str, Any]]:
    """Return the errors of earlier runs that can still be planted, each with the commit of its run."""
    before = json.loads((RESULTS / "mutations.json").read_text("utf-8"))
    known = {mutation.name for mutation in MUTATIONS}
    tried_before = before["results"]["mutations"].items()
    return {name: {"commit": before["commit"], **one} for name, one in tried_before if name in known}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if stale := problems():
        raise SystemExit("\n".join(stale))
    found = campaign(options.only, options.seed)
    killed = sum(result["killed"] for result in found.values())
    print(f"{killed} of {len(found)} killed")  # noqa: T201
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import record

    found = {name: {**one, "commit": record.COMMIT} for name, one in found.items()}
    every = {**(counted() if options.only else {}), **found}
    killed = sum(one["killed"] for one in every.values())
    counts = {"planted": len(every), "killed": killed, "mutations": every}
    record.write("mutations", {"seed": options.seed, **counts}, RESULTS)


if __name__ == "__main__":
    main()
