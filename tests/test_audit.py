"""The audit finds planted errors, passes what is right, and refuses what is no estimator."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.auditing.estimators import ABOUT_ARGUMENTS, ARGUMENTS
from rlseq.auditing.objectives import gradient_of, objectives
from rlseq.auditing.texts import AuditConfig, Enumeration
from rlseq.cli.command_line import main
from rlseq.policy_gradient.exact import expected_gradient, gradient

WRONG = 0.02  # relative bias that no planted error stays below


# ── what is right ────────────────────────────────────────────────────────────────────────────────────────


def reinforce(log_probs: Tensor, mask: Tensor, rewards: Tensor) -> Tensor:
    return -((log_probs * mask).sum(1) * rewards).mean()


def rloo(log_probs: Tensor, mask: Tensor, rewards: Tensor, samples: int) -> Tensor:
    paid = rewards.view(-1, samples)
    others = (paid.sum(1, keepdim=True) - paid) / (samples - 1)
    return -((log_probs * mask).sum(1) * (paid - others).flatten()).mean()


def ppo(
    log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, advantages: Tensor, clip: float = 0.2
) -> Tensor:
    ratio = (log_probs - old_log_probs).exp()
    least = torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -(least * mask).sum(1).mean()


def weighted(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, advantages: Tensor) -> Tensor:
    """The ratio of whole texts, held fixed: exact off policy, too."""
    ratio = ((log_probs - old_log_probs) * mask).sum(1, keepdim=True).exp().detach()
    return -(ratio * advantages * log_probs * mask).sum(1).mean()


def reverse_kl(log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
    """½ (log π − log π_ref)² of whole texts."""
    return ((log_probs - reference_log_probs) * mask).sum(1).square().mean() / 2


def grpo(log_probs: Tensor, mask: Tensor, rewards: Tensor, samples: int, correction: int = 1) -> Tensor:
    paid = rewards.view(-1, samples)
    scaled = (paid - paid.mean(1, keepdim=True)) / (paid.std(1, correction=correction, keepdim=True) + 1e-4)
    per_text = (log_probs * scaled.view(-1, 1) * mask).sum(1) / mask.sum(1)
    return -per_text.mean()


RIGHT: list[tuple[Any, str]] = [
    (reinforce, "expected reward"),
    (rloo, "expected reward"),
    (weighted, "expected reward"),
    (reverse_kl, "reverse KL"),
    (grpo, "grpo"),
]


@pytest.mark.parametrize(("estimator", "objective"), RIGHT, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_right_passes(estimator: Any, objective: str) -> None:
    found = rlseq.audit(estimator, objective)
    assert found.unbiased
    if objective != "grpo":  # whose objective has no name
        assert dict(found.follows)[objective] == pytest.approx(1.0)
    assert found.padding == pytest.approx(0, abs=1e-12)
    assert found.batch_size == pytest.approx(1)
    assert found.micro_batches == pytest.approx(0, abs=1e-12)


# ── planted errors ───────────────────────────────────────────────────────────────────────────────────────


def shifted_mask(log_probs: Tensor, mask: Tensor, rewards: Tensor) -> Tensor:
    late = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return -((log_probs * late).sum(1) * rewards).mean()


def mean_over_padding(log_probs: Tensor, mask: Tensor, advantages: Tensor) -> Tensor:
    return -(log_probs * advantages * mask).mean()


def mean_with_padding(log_probs: Tensor, advantages: Tensor) -> Tensor:
    return -(log_probs * advantages).sum(1).mean()


def other_direction(log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
    """The estimate whose value is KL(π ‖ π_ref), and whose gradient is not (k3)."""
    log_ratio = reference_log_probs - log_probs
    return ((log_ratio.exp() - 1 - log_ratio) * mask).sum(1).mean()


def ratio_not_detached(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, advantages: Tensor) -> Tensor:
    ratio = (log_probs - old_log_probs).exp()
    return -(ratio * advantages * log_probs * mask).sum(1).mean()


PLANTED: list[tuple[Any, str]] = [
    (shifted_mask, "expected reward"),
    (mean_over_padding, "expected reward"),
    (mean_with_padding, "expected reward"),
    (other_direction, "reverse KL"),
    (partial(grpo, correction=0), "grpo"),
    (ratio_not_detached, "expected reward"),
]


@pytest.mark.parametrize(("estimator", "objective"), PLANTED)
def test_a_planted_error_is_found(estimator: Any, objective: str) -> None:
    found = rlseq.audit(estimator, objective)
    assert found.bias > WRONG
    assert not found.unbiased
    assert "expected reward" not in {name for name, _ in found.follows} or estimator is mean_over_padding


def test_an_audit_says_which_error_it_is() -> None:
    padded = rlseq.audit(mean_over_padding)
    assert dict(padded.follows) == {"expected reward": pytest.approx(1 / 3)}  # here a constant, 1 / T,
    assert padded.padding == pytest.approx(0.5)  # but it depends on how much padding there is
    assert rlseq.audit(mean_with_padding).padding > WRONG  # type: ignore[operator]
    followed = dict(rlseq.audit(other_direction, "reverse KL").follows)
    assert followed == {"forward KL of next words, at the places of own texts": pytest.approx(1.0)}
    divided = rlseq.audit(partial(grpo, correction=0), "grpo")
    assert divided.along == pytest.approx(math.sqrt(3 / 2) - 1, abs=1e-3)
    assert divided.across < 1e-3


def test_the_ratio_of_words_is_exact_on_policy_only() -> None:
    on_policy = rlseq.audit(ppo)
    assert on_policy.unbiased
    assert on_policy.off_policy > WRONG  # type: ignore[operator]
    assert rlseq.audit(weighted).off_policy == pytest.approx(0, abs=1e-9)


# ── what a gradient follows ──────────────────────────────────────────────────────────────────────────────


def test_known_objectives_are_named() -> None:
    def per_text(log_probs: Tensor, mask: Tensor, rewards: Tensor) -> Tensor:
        return -((log_probs * mask).sum(1) / mask.sum(1) * rewards).mean()

    def uphill(log_probs: Tensor, mask: Tensor, rewards: Tensor) -> Tensor:
        return 2 * (log_probs * mask).sum(1).mul(rewards).mean()

    def difference(log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
        return ((log_probs - reference_log_probs) * mask).sum(1).mean()

    def best_of_three(log_probs: Tensor, mask: Tensor, rewards: Tensor, samples: int) -> Tensor:
        paid = rewards.view(-1, samples)
        best, second = paid.topk(2, 1).values.unbind(1)
        gain = torch.where(paid == best.unsqueeze(1), (best - second).unsqueeze(1), 0).flatten()
        return -((log_probs * mask).sum(1) * gain).sum() / (len(rewards) / samples)

    def cross_entropy(log_probs: Tensor, mask: Tensor) -> Tensor:
        return -(log_probs * mask).sum(1).mean()

    assert dict(rlseq.audit(per_text).follows) == {"expected reward / length": pytest.approx(1)}
    assert dict(rlseq.audit(uphill).follows) == {"expected reward": pytest.approx(-2)}
    assert rlseq.audit(difference, "reverse KL").vanishes
    assert dict(rlseq.audit(best_of_three).follows) == {"pass@3": pytest.approx(1)}
    own = rlseq.audit(cross_entropy, "forward KL", sampled_from="reference", samples=1)
    assert own.unbiased


def test_the_objectives_agree_with_the_engine() -> None:
    every = Enumeration(AuditConfig())
    policy = every.policy()
    of_engine = gradient(policy, every.env)["head.weight"].t().flatten()
    ours = -gradient_of(every, objectives(3)["expected reward"])
    torch.testing.assert_close(ours, of_engine, atol=1e-6, rtol=1e-5)
    agent = rlseq.make_agent("rloo", policy, samples=3)
    mean = expected_gradient(agent, every.env)["head.weight"].t().flatten()
    torch.testing.assert_close(mean, of_engine, atol=1e-5, rtol=1e-4)


def test_the_best_of_one_is_the_expected_reward() -> None:
    from rlseq.auditing.objectives import best_of, expected_reward

    kinds: tuple[Literal["normal", "binary"], ...] = "normal", "binary"
    for rewards in kinds:
        every = Enumeration(AuditConfig(rewards=rewards))
        torch.testing.assert_close(best_of(1)(every), expected_reward(every))
        chance = every.log_p(every.tables.policy).exp()
        paid = every.every.rewards.view(chance.shape)
        pairs = torch.maximum(paid.unsqueeze(1), paid.unsqueeze(2))
        by_hand = -(chance.unsqueeze(1) * chance.unsqueeze(2) * pairs).sum((1, 2)).mean()
        torch.testing.assert_close(best_of(2)(every), by_hand)


def test_the_variance_is_that_of_samples() -> None:
    from rlseq.auditing.estimators import gradient_on, of_function

    every = Enumeration(AuditConfig())
    found = of_function(reinforce, every, every.tables, every.tables.policy)
    rows, chance = every.batches(every.tables.policy)
    drawn = chance.multinomial(1000, replacement=True, generator=torch.Generator().manual_seed(0))
    names = ("log_probs", "mask", "rewards")
    by_row = {int(row): gradient_on(reinforce, names, every.batch(rows[row]), every.tables) for row in drawn}
    samples = torch.stack([by_row[int(row)] for row in drawn])
    assert found.variance == pytest.approx(float(samples.var(0).sum()) * 3, rel=0.15)


# ── what changes a gradient ──────────────────────────────────────────────────────────────────────────────


def test_lengths_and_micro_batches_of_a_mean_over_words() -> None:
    def per_word(log_probs: Tensor, mask: Tensor, advantages: Tensor) -> Tensor:
        return -(log_probs * advantages * mask).sum() / mask.sum()

    def sum_over_texts(log_probs: Tensor, mask: Tensor, advantages: Tensor) -> Tensor:
        return -(log_probs * advantages * mask).sum()

    found = rlseq.audit(per_word)
    assert found.longer_text == pytest.approx(1)
    assert found.beside_longer == pytest.approx(2 / 4)  # 1 + 1 words, or 1 + 3
    assert found.micro_batches > WRONG  # type: ignore[operator]
    assert rlseq.audit(grpo).longer_text == pytest.approx(1 / 3)
    assert rlseq.audit(sum_over_texts).batch_size == pytest.approx(2)


def test_groups_of_a_batch_that_is_there_twice_are_counted() -> None:
    """A sum over texts divided by the number of groups: as many texts more as groups."""

    def per_group(log_probs: Tensor, mask: Tensor, rewards: Tensor, groups: Tensor) -> Tensor:
        return -((log_probs * mask).sum(1) * rewards).sum() / (groups.max() + 1)

    assert rlseq.audit(per_group).batch_size == pytest.approx(1)


def test_advantages_have_no_mean_in_any_context() -> None:
    every = Enumeration(AuditConfig())
    chance = every.log_p(every.tables.policy).exp()
    mean = (chance * every.every.advantages.view(chance.shape)).sum(1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-12, rtol=0)


def test_types_are_tried() -> None:
    def only_double(log_probs: Tensor, mask: Tensor, rewards: Tensor) -> Tensor:
        return -(log_probs * mask).sum(1) @ rewards.double()

    found = rlseq.audit(only_double)
    assert isinstance(found.float32, str)
    usual = rlseq.audit(reinforce)
    assert isinstance(usual.float32, float)
    assert isinstance(usual.bfloat16, float)
    assert usual.float32 < 1e-5 < usual.bfloat16 < 0.05


# ── agents, and the ways in ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "factor"), [("rloo", 1.0), ("dr_grpo", 2 / 9), ("mrt_corrected", 2 / 3)])
def test_agents_are_audited(name: str, factor: float) -> None:
    found = rlseq.audit(name)
    assert dict(found.follows) == {"expected reward": pytest.approx(factor, abs=1e-5)}
    assert "an agent of rlseq" in str(found)


def test_from_the_command_line(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    text = "def mine(log_probs, mask, rewards):\n    return -((log_probs * mask).sum(1) * rewards).mean()\n"
    (tmp_path / "audited_losses.py").write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    main(["audit", "audited_losses:mine", "--samples", "1"])
    shown = capsys.readouterr().out
    assert "that of the objective, expected reward" in shown
    assert max(map(len, shown.splitlines())) <= 100
    main(
        [
            "audit",
            "grpo",
            "--objective",
            "audited_losses:mine",
            "--hyper",
            "scale=none",
            "samples=2",
            "--json",
        ]
    )
    assert json.loads(capsys.readouterr().out)["objective"] == "mine"
    with pytest.raises(SystemExit):
        main(["audit", "audited_losses:yours"])
    assert "no function 'yours'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["audit"])
    assert "name the estimator first" in capsys.readouterr().err


def test_every_argument_is_described() -> None:
    assert ARGUMENTS.keys() == ABOUT_ARGUMENTS.keys()


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────


def asks(log_probs: Tensor, weights_of_mine: Tensor) -> Tensor:
    return log_probs.sum()


def asks_for_nothing(rewards: Tensor) -> Tensor:
    return rewards.sum()


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (lambda log_probs: log_probs.sum(1), r"a tensor of shape \[\], got a tensor of shape \[3\]"),
        (lambda log_probs: (log_probs.sum(), {}), "must return its loss"),
        (lambda log_probs: 1.0, "must return its loss"),
        (lambda log_probs: log_probs.detach().sum(), "no gradient"),
        (lambda log_probs, rewards: rewards.sum().requires_grad_(), "not by log_probs or logits"),
        (lambda log_probs: (log_probs - log_probs).log().sum(), "the loss is -inf"),
        (asks, "asks for 'weights_of_mine'"),
        (asks_for_nothing, "must ask for log_probs or logits"),
        (lambda log_probs, /: log_probs.sum(), "by name"),
        (3, "must be a function"),
        (max, "does not tell its parameters"),
        ("rlo", "did you mean 'rloo'"),
        ("mle", "cannot be audited"),
    ],
)
def test_what_is_no_estimator_is_refused(estimator: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        rlseq.audit(estimator)


def looks_up(log_probs: Tensor, rewards: Tensor) -> Tensor:
    return {"weight": log_probs}["wieght"].sum()


def test_an_error_of_an_estimator_is_said_to_be_its_own(capsys: Any) -> None:
    place = f"{__file__}, line {looks_up.__code__.co_firstlineno + 1}: return"
    with pytest.raises(
        ValueError, match=re.escape(f"your estimator looks_up raised KeyError: 'wieght' ({place}")
    ):
        rlseq.audit(looks_up)
    with pytest.raises(SystemExit) as left:
        main(["audit", f"{__name__}:looks_up"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "your estimator looks_up raised KeyError" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("agent", "hyper", "way"),
    [("dapo", {"draws": 3}, "draws=3"), ("mixer", {}, r"a gather\(\) of its own")],
)
def test_agents_that_write_in_a_way_of_their_own_are_refused(
    agent: str, hyper: dict[str, Any], way: str
) -> None:
    with pytest.raises(ValueError, match=f"writes by {way}"):
        rlseq.audit(agent, hyper=hyper)


def test_a_reward_of_the_agent_s_own_is_audited() -> None:
    assert rlseq.audit("dapo").bias != rlseq.audit("dapo", hyper={"overlong": 2}).bias


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no objective or agent is called 'expected rewards'"):
        rlseq.audit(reinforce, "expected rewards")
    with pytest.raises(TypeError, match="objective must be a function or a string"):
        rlseq.audit(reinforce, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="too many to enumerate"):
        rlseq.audit(reinforce, samples=9)
    with pytest.raises(ValueError, match="is for agents"):
        rlseq.audit(reinforce, hyper={"samples": 2})
    with pytest.raises(TypeError, match="no option 'sampled_form'; did you mean 'sampled_from'"):
        rlseq.audit(reinforce, sampled_form="policy")
