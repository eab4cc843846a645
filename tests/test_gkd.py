"""On-policy distillation: what it follows by enumeration, ensembles, and teachers that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents.gkd import DISTANCES, forward_kl, jensen_shannon, reverse_kl
from rlseq.cli import main
from rlseq.policy_gradient.exact import expected_gradient
from rlseq.policy_gradient.losses import per_sequence

EQUAL, WRONG = 1e-4, 0.02  # relative errors, as in test_exactness.py


def by_hand(name: str, p: Tensor, q: Tensor) -> Tensor:
    """Sums over words of probabilities, as in Agarwal et al. 2024, §2."""
    m = (p + q) / 2
    return {
        "reverse_kl": (p * (p / q).log()).sum(-1),
        "forward_kl": (q * (q / p).log()).sum(-1),
        "jensen_shannon": 0.5 * (q * (q / m).log()).sum(-1) + 0.5 * (p * (p / m).log()).sum(-1),
    }[name]


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("name", DISTANCES)
def test_each_distance_is_followed_in_the_states_visited(tiny: Any, name: str, teachers: int) -> None:
    env, policy = tiny()
    taught_by = [tiny.policy(env, sharp=2.0, seed=1 + i).requires_grad_(False) for i in range(teachers)]
    agent: Any = rlseq.make_agent("gkd", policy, teacher=taught_by, distance=name, aggregate=per_sequence)
    ours = tiny.whole(policy, env)
    theirs = torch.stack([tiny.whole(each, env).logits.softmax(2) for each in taught_by]).mean(0).detach()
    apart = by_hand(name, ours.logits.softmax(2), theirs)
    objective = -(ours.chance.unsqueeze(1) * ours.mask * apart).sum()
    got = expected_gradient(agent, env)
    assert tiny.error(got, ours.slopes(policy, objective)) < EQUAL
    if teachers > 1:
        alone = rlseq.make_agent("gkd", policy, teacher=taught_by[:1], distance=name, aggregate=per_sequence)
        assert tiny.error(expected_gradient(alone, env), got) > WRONG


def test_distances_on_random_numbers() -> None:
    """Value and gradient, in double precision."""
    generator = torch.Generator().manual_seed(0)
    z, t = (torch.randn(20, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    z.requires_grad_()
    for function in (reverse_kl, forward_kl, jensen_shannon):
        got = function(z.log_softmax(-1), t.log_softmax(-1)).sum()
        wanted = by_hand(function.__name__, z.softmax(-1), t.softmax(-1)).sum()
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)
        slopes = [torch.autograd.grad(each, z)[0] for each in (got, wanted)]
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-9)


def test_a_teacher_with_other_words_is_refused(tiny: Any) -> None:
    env, policy = tiny()
    other, strange = tiny(vocab_size=2)
    agent: Any = rlseq.make_agent("gkd", policy, teacher=[strange])
    with pytest.raises(ValueError, match=r"teacher policy writes \d words, the task has \d"):
        agent.collect(env)
    with pytest.raises(TypeError, match="teacher must be policies here, got 'runs/large'"):
        rlseq.make_agent("gkd", policy, teacher=["runs/large"])
    assert len(other.vocab) < len(env.vocab)


def test_a_run_is_a_teacher_on_the_command_line(tmp_path: Path) -> None:
    """It is named, loaded again where the run goes on, and refused where its words are others."""
    sizes = ["--policy", "gru", "hidden=8", "embedding=4", "--budget-tokens", "60", "--quiet"]
    task = ["--env", "rlseq/Copy-v0", "--option", "num_envs=8", "length=2"]
    main(["train", "mle", *task, *sizes, "--out", str(tmp_path / "large")])
    taught = [*sizes, "--teacher", str(tmp_path / "large")]
    main(["train", "gkd", *task, *taught, "--out", str(tmp_path / "small")])
    assert rlseq.load(tmp_path / "small").run.hyper["teacher"] == [str(tmp_path / "large")]
    main(["resume", str(tmp_path / "small"), "--budget-tokens", "120"])
    with pytest.raises(SystemExit):
        main(["train", "gkd", *task, "vocab_size=7", *taught, "--out", str(tmp_path / "wide")])
    assert not (tmp_path / "wide" / "results.json").exists()
