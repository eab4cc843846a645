"""G-GAN: an evaluator that sees pictures, completions under noise, resumed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents import GGAN
from rlseq.discriminators import Adversary, check_discriminator, make_discriminator
from rlseq.discriminators.objectives import logit
from rlseq.discriminators.texts import TextBatch, mismatched, real_texts
from rlseq.policy_gradient.exact import gradient

SMALL: dict[str, Any] = {"hidden": 8, "embedding": 8}


def scenes(rows: int = 16, **options: Any) -> Any:
    """A few pictures."""
    return rlseq.make("rlseq/Captions-v0", num_envs=rows, **{"scenes": 30, "noise": 2, **options})


def test_an_evaluator_sees_the_picture_and_no_other_row() -> None:
    env = scenes()
    check_discriminator(make_discriminator("gru", env, **SMALL), env)
    with pytest.raises(AssertionError, match="ignores the source"):
        check_discriminator(make_discriminator("gru", env, source=False, **SMALL), env)


def test_a_mismatched_pair_has_the_picture_of_another() -> None:
    texts = real_texts(scenes(), 8)
    wrong = mismatched(texts)
    assert torch.equal(wrong.tokens, texts.tokens)
    assert torch.equal(wrong.context["image"], texts.context["image"].roll(1, 0))
    same = TextBatch(texts.tokens, texts.mask, {n: v[:1].expand_as(v) for n, v in texts.context.items()})
    with pytest.raises(ValueError, match="mismatched pairs need different sources"):
        mismatched(same)


@pytest.mark.parametrize("options", [{}, {"every": 2}], ids=["every prefix", "every second prefix"])
def test_the_gradient_is_that_of_the_evaluators_reward(tiny: Any, options: Any) -> None:
    """On average over 60,000 texts; of another reward it is not."""
    env, policy = tiny(rows=20_000)
    adversary = Adversary(make_discriminator("gru", env, hidden=6, embedding=4, seed=1), value=logit)
    adversary.freeze()
    with torch.no_grad():
        for p in adversary.discriminator.parameters():
            p.mul_(3)
    agent: Any = GGAN(policy, adversary=adversary, completions=1, pretraining=0, **options)
    exact = gradient(policy, agent.paid_on(env))
    found = {name: torch.zeros_like(slope) for name, slope in exact.items()}
    for _ in range(3):
        loss, _ = agent.loss(agent.collect(env))
        slopes = torch.autograd.grad(-loss / 3, list(policy.parameters()), allow_unused=True)
        for (name, _), slope in zip(policy.named_parameters(), slopes, strict=True):
            found[name] += 0 if slope is None else slope
    assert tiny.error(found, exact) < 0.1
    assert tiny.error(found, gradient(policy, env)) > 0.5


def test_an_evaluator_without_a_picture_is_refused() -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=4, sources=0)
    agent: Any = rlseq.make_agent("ggan", rlseq.make_policy("gru", env, **SMALL))
    agent.adversary.freeze()
    with pytest.raises(ValueError, match=r"ggan needs an evaluator.*seqgan"):
        agent.check(env)


def made() -> tuple[Any, Any]:
    """An agent that learns quickly, and its task."""
    torch.manual_seed(0)
    env = scenes()
    policy = rlseq.make_policy("captioner", env, **SMALL)
    adversary = Adversary(make_discriminator("gru", env, **SMALL), texts=16, lr=1e-2)
    options: dict[str, Any] = {"completions": 1, "every": 6, "pretraining": 1, "lr": 1e-2}
    return rlseq.make_agent("ggan", policy, adversary=adversary, **options), env


def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    """Noise, completions and the evaluator go on where they stopped."""
    found = {}
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for updates in stops:
            agent, env = made()
            networks = agent.policy, agent.adversary.discriminator
            if updates > stops[0]:  # everything comes from the checkpoint
                for network in networks:
                    network.load_state_dict({name: 0 * value for name, value in network.state_dict().items()})
            rlseq.train(agent, env, updates, out=tmp_path / name, resume=True, alarms="ignore", probe=False)
        found[name] = [p for network in networks for p in network.state_dict().values()]
    assert all(map(torch.equal, found["whole"], found["parts"]))
