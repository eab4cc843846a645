"""Style transfer without pairs: judges, corpora in files, and the code that reconstruction invents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.data.formats import DataError
from rlseq.data.unpaired import nearest
from rlseq.envs.style_judges import content_weights, shared
from rlseq.metrics.ngram_model import NgramModel
from rlseq.training.alarms import secret_code


def style(rows: int = 4, **options: Any) -> Any:
    return rlseq.make("rlseq/Style-v0", num_envs=rows, **options)


def judged(env: Any, *texts: str) -> dict[str, list[float]]:
    """What the judges say of texts about item 0."""
    rows = [[*env.vocab.encode(text), env.vocab.eos] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    context = env.context_of(torch.zeros(len(rows), dtype=torch.int64))
    return {name: judge(tokens, mask, context).tolist() for name, judge in env.metrics.items()}


def test_an_n_gram_model_by_hand() -> None:
    """Two texts "1 2" and "1 1" over three words: Witten–Bell, order 2."""
    model = NgramModel([[1, 2], [1, 1]], words=3, order=2)
    found = model.log_probs(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)).exp()
    uniform = 1 / 3
    one, two = ((times + 2 * uniform) / (4 + 2) for times in (3, 1))  # four words, two different ones
    assert found[0].tolist() == pytest.approx([(2 + 1 * one) / (2 + 1), (1 + 2 * two) / (2 + 2)])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_probabilities_of_the_next_word_sum_to_one(order: int) -> None:
    model = NgramModel([[1, 2, 0], [2, 1, 1, 0]], words=4, order=order)
    for prefix in ([], [1], [2, 1], [3, 3]):
        rows = torch.tensor([[*prefix, word] for word in range(4)])
        last = model.log_probs(rows, torch.ones_like(rows, dtype=torch.bool))[:, -1]
        assert float(last.exp().sum()) == pytest.approx(1)


def test_each_part_is_what_it_says() -> None:
    env = style()
    env.begin(index=torch.zeros(4, dtype=torch.int64))
    source = env.sources()[0]
    praise = env.vocab.decode(env.context["references"][0, 0].tolist())
    found = judged(env, source, praise, "soup soup soup", " ".join(reversed(praise.split())))
    assert found["style"][0] < 0.01 < 0.99 < found["style"][1]
    assert found["content"][0] == 1
    assert 0.3 < found["content"][1] <= 1
    assert found["content"][3] == found["content"][1]  # content knows no order, fluency does
    assert found["fluency"][2] < 0.1
    assert found["fluency"][3] < found["fluency"][1]


def test_words_that_mark_a_style_are_no_content() -> None:
    weights = content_weights(["bad soup"] * 5 + ["bad tea"], ["good soup"] * 5 + ["good tea"])
    assert weights["bad"] == weights["good"] == 0
    assert weights["tea"] > weights["soup"] > 0
    assert shared(weights, "bad tea", "good tea") == 1
    assert shared(weights, "bad tea", "good soup") == 0


def test_the_most_similar_text_has_the_rarest_words_in_common() -> None:
    corpus = ["the tea was good", "the soup was good", "the owl was good", "the tea was fine"]
    assert next(nearest(["the owl was bad", "unknown words"], corpus)) == "the owl was good"
    assert len(list(nearest(["x"] * 300, corpus))) == 300


def test_parts_are_shown() -> None:
    env = style()
    assert set(env.parts) == {"style", "fluency", "content"}
    found = rlseq.evaluate(rlseq.make_policy("gru", env, hidden=4, embedding=4), env, limit=4)
    assert found["reward"] == pytest.approx(sum(found[name] for name in env.parts))


def test_two_corpora_of_a_user(tmp_path: Path) -> None:
    here, there = tmp_path / "old.txt", tmp_path / "new.txt"
    here.write_text("".join(f"thou hast item {n}\n" for n in range(60)))
    there.write_text("".join(f"you have item {n}\n" for n in range(0, 60, 2)))
    env = style(path=str(here), target=str(there))
    env.begin(index=torch.zeros(4, dtype=torch.int64))
    assert set(env.vocab.words) >= {"thou", "you", "item", "59"}
    assert env.sources()[0].startswith("thou hast item")
    with pytest.raises(ValueError, match=r"two corpora, got path=.*old\.txt, target=None"):
        style(path=str(here))
    there.write_text("you have\n\nwe have\n")
    with pytest.raises(DataError, match=r"new\.txt:2: expected a text"):
        style(path=str(here), target=str(there))
    with pytest.warns(UserWarning, match=r"skipped 1 line: .*new\.txt:2: "):
        assert style(path=str(here), target=str(there), skip_bad=True).size > 40


# ── the agents that tell the source again ────────────────────────────────────────────────────────────


def test_the_reward_is_the_likelihood_of_the_source_given_the_text() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=16, vocab_size=4, length=3)
    agent: Any = rlseq.make_agent("dual", rlseq.make_policy("gru", env, hidden=8, embedding=4), task=0.0)
    batch = agent.collect(env)
    turned = agent.reconstructor.turned(batch.actions, batch.mask, batch.context)
    assert (turned.actions == batch.context["source"]).all()
    log_probs = agent.reconstructor.policy.evaluate(turned.actions, turned.context).log_probs * turned.mask
    assert batch.returns.tolist() == pytest.approx((log_probs.sum(1) / turned.mask.sum(1)).tolist())


def test_a_code_that_the_reconstructor_knows_is_learned_and_alarmed() -> None:
    """Sources of one word, each told by the next word: no source is kept, and all can be told again."""
    torch.manual_seed(0)
    env = rlseq.make("rlseq/Copy-v0", num_envs=64, vocab_size=5, length=1, shortest=1)
    env.metrics["content"] = lambda tokens, mask, context: (tokens == context["source"]).float()[:, 0]
    policy = rlseq.make_policy("gru", env, hidden=16, embedding=8)
    lrs = {"lr": 2e-2, "reconstructor_lr": 1e-2}
    agent: Any = rlseq.make_agent("dual", policy, task=0.0, reconstructor_pretraining=0, **lrs)
    for _ in range(30):
        batch = rlseq.rollout(policy, env)
        agent.reconstructor.learn(replace(batch, actions=batch.context["source"] % 4 + 1))
    for _ in range(60):
        row = {name: float(value) for name, value in agent.update(agent.collect(env)).items()}
    assert row["reconstruction"] > 0.9
    assert row["content"] < 0.1
    said = secret_code([row])
    assert said is not None
    assert "agree on a code of their own" in said


def test_no_alarm_where_texts_can_be_read() -> None:
    assert secret_code([{"reconstruction": 0.9, "content": 0.8, "fluency": 0.7}]) is None
    assert secret_code([{"reconstruction": 0.1, "content": 0.0}]) is None
    assert secret_code([{"reward": 1.0}]) is None
    said = secret_code([{"reconstruction": 0.9, "content": 0.8, "fluency": 0.1}])
    assert said is not None
    assert "fluency is 0.10" in said


def test_the_discriminator_of_unpaired_texts_sees_no_source() -> None:
    env = style(8)
    agent: Any = rlseq.make_agent(
        "unpaired", rlseq.make_policy("gru", env, hidden=8, embedding=4), pretraining=1, d=1, k=1
    )
    agent.adversary.texts = 16
    assert not agent.adversary.discriminator.conditional
    assert set(agent.paid_on(env).parts) == {"reconstruction", "discriminator"}
    metrics = agent.update(agent.collect(env))
    assert {"reconstruction", "content", "fluency", "d_loss"} <= metrics.keys()


def test_what_is_learned_before_the_first_update_is_said(capsys: Any) -> None:
    env, first = style(8), {"pretraining": 1, "k": 1, "reconstructor_pretraining": 2}
    agent: Any = rlseq.make_agent("unpaired", rlseq.make_policy("gru", env, hidden=8, embedding=4), **first)
    agent.adversary.texts = 16
    rlseq.train(agent, env, updates=1, alarms="ignore")
    learned = "the discriminator learns from 1 × 16 texts, and the reconstructor learns from 2 batches"
    assert capsys.readouterr().err.splitlines()[0] == f"Unpaired: before the first update {learned}"
    rlseq.train(agent, env, updates=1, alarms="ignore")
    assert "before the first update" not in capsys.readouterr().err, "it is behind it"


def test_a_task_without_sources_is_refused() -> None:
    env = rlseq.make("rlseq/Text-v0", num_envs=4)
    with pytest.raises(ValueError, match="take a task with sources of words"):
        rlseq.make_agent("dual", rlseq.make_policy("gru", env, hidden=4, embedding=4))
