"""`train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.engine.evaluation import evaluate_texts, items_tested
from rlseq.types import Context


def setting(rows: int = 16) -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Copy-v0", num_envs=rows, items=100)
    return env, rlseq.make_policy("gru", env, hidden=16, embedding=8)


def test_training_is_reproducible_bit_for_bit() -> None:
    def run() -> tuple[list[dict[str, float]], list[Tensor]]:
        env, policy = setting()
        agent = rlseq.make_agent("reinforce", policy, baseline="moving_average", entropy=0.01)
        return rlseq.train(agent, env, updates=5), list(policy.parameters())

    (history, weights), (again, same) = run(), run()
    assert history == again
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


def test_evaluation_neither_learns_nor_draws() -> None:
    env, policy = setting()
    other = rlseq.make("rlseq/Copy-v0", num_envs=7, items=30, data_seed=5)

    def run(eval_env: Any) -> list[float]:
        torch.manual_seed(0)
        env, policy = setting()
        agent = rlseq.make_agent("reinforce", policy)
        return [row["loss"] for row in rlseq.train(agent, env, updates=4, eval_env=eval_env, eval_every=2)]

    assert run(None) == run(other)
    before = env.generator.get_state()
    rlseq.evaluate(policy, env, decode="sample")
    assert torch.equal(env.generator.get_state(), before)


def test_every_item_is_scored_once_whatever_the_batch() -> None:
    def spy(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        return context["index"].float()

    scores = []
    for rows in (1, 7, 100):
        env = rlseq.make("rlseq/Copy-v0", num_envs=rows, items=100)
        policy = rlseq.make_policy("gru", env, hidden=16, embedding=8)
        scores.append(rlseq.evaluate(policy, env, metrics={"item": spy}))
    assert all(s["item"] == pytest.approx(49.5) for s in scores)
    assert all(s["reward"] == pytest.approx(scores[0]["reward"]) for s in scores)
    wanted = items_tested(100, 10).double().mean()
    assert rlseq.evaluate(policy, env, metrics={"item": spy}, limit=10)["item"] == pytest.approx(
        float(wanted)
    )


def test_the_parts_of_a_reward_are_reported() -> None:
    env, policy = setting()
    accuracy = env.parts["accuracy"]
    env.parts = {"accuracy": accuracy, "brevity": lambda t, m, c: -0.1 * m.sum(1)}
    scores = rlseq.evaluate(policy, env)
    assert scores["reward"] == pytest.approx(scores["accuracy"] + scores["brevity"])
    assert scores["brevity"] == pytest.approx(-0.1 * scores["length"])


def test_history_has_a_row_for_every_update_and_scores_where_due() -> None:
    env, policy = setting()
    told: list[float] = []
    agent = rlseq.make_agent("mle", policy)
    history = rlseq.train(
        agent, env, updates=5, eval_env=env, eval_every=2, on_update=lambda row: told.append(row["update"])
    )
    assert told == [row["update"] for row in history] == [1, 2, 3, 4, 5]
    assert [row["update"] for row in history if "eval_reward" in row] == [2, 4, 5]
    assert all(isinstance(value, float) for row in history for value in row.values())


def test_a_reward_that_raises_stops_training_with_its_own_error() -> None:
    env, policy = setting()

    def broken(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        raise ZeroDivisionError("inside the reward")

    env.parts = {"broken": broken}
    with pytest.raises(ZeroDivisionError, match="inside the reward"):
        rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5]),
        (lambda done: 2.0 - done, [2, 1.75, 1.5, 1.25]),
    ],
)
def test_a_schedule_sets_the_step_size_of_every_update(schedule: Any, factors: list[float]) -> None:
    env, policy = setting()
    agent = rlseq.make_agent("mle", policy, lr=0.1, schedule=schedule)
    seen: list[float] = []
    rlseq.train(agent, env, 4, on_update=lambda row: seen.append(agent.optimizer.param_groups[0]["lr"]))
    assert seen == pytest.approx([0.1 * factor for factor in factors])


def test_a_schedule_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    def run(out: Path | None, stop_at: int | None = None) -> Any:
        env, policy = setting()
        agent = rlseq.make_agent("mle", policy, lr=0.05, schedule="linear")

        def stop(row: dict[str, float]) -> None:
            if row["update"] == stop_at:
                raise KeyboardInterrupt

        rlseq.train(agent, env, 6, eval_env=env, eval_every=2, on_update=stop, out=out)
        return list(policy.parameters())

    wanted = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", stop_at=5)
    assert all(torch.equal(a, b) for a, b in zip(run(tmp_path / "run"), wanted, strict=True))


def test_a_step_size_that_others_set_is_left_alone() -> None:
    env, policy = setting()
    agent = rlseq.make_agent("mle", policy, lr=0.1)
    agent.optimizer.param_groups[0]["lr"] = 0.01
    rlseq.train(agent, env, 1)
    assert agent.optimizer.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env, policy: rlseq.evaluate(policy, env, decode="greedi"), "did you mean 'greedy'"),
        (lambda env, policy: rlseq.evaluate(policy, env, limit=0), "limit must be an integer ≥ 1"),
        (
            lambda env, policy: rlseq.train(rlseq.make_agent("mle", policy), env, updates=0),
            "updates must be an integer ≥ 1",
        ),
    ],
)
def test_mistakes(call: Any, message: str) -> None:
    env, policy = setting()
    with pytest.raises(ValueError, match=message):
        call(env, policy)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["bleu"], TypeError, r"metrics must be a dictionary or None, got \['bleu'\]"),
        ({"bleu": "bleu"}, TypeError, "metrics must be a dict"),
        ({"one": lambda tokens, mask, context: 1.0}, TypeError, "'one' must return a torch.Tensor"),
        (
            {"sum": lambda tokens, mask, context: tokens.sum()},
            ValueError,
            r"'sum' must return shape .*got \(\)",
        ),
        ({"nan": lambda tokens, mask, context: mask.sum(1) * torch.nan}, ValueError, "'nan' is nan in row 0"),
    ],
)
def test_metrics_that_are_none(metrics: Any, error: type[Exception], message: str) -> None:
    env, policy = setting()
    with pytest.raises(error, match=message):
        rlseq.evaluate(policy, env, metrics=metrics)


def test_without_references_nothing_is_pooled() -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=4)
    found = evaluate_texts(rlseq.make_policy("gru", env, hidden=8, embedding=4), env, limit=4)
    with pytest.raises(ValueError, match="no references for bleu"):
        found.pooled(env, ["bleu"])


def test_evaluation_leaves_episodes_alone_even_when_it_fails() -> None:
    env, policy = setting()
    env.reset(seed=1)
    env.step(torch.ones(env.num_envs, dtype=torch.int64))
    before = env.tokens.clone(), env.length.clone(), env.generator.get_state(), env.context
    rlseq.evaluate(policy, env, decode="sample")
    with pytest.raises(ValueError, match="must return shape"):
        rlseq.evaluate(policy, env, decode="sample", metrics={"one": lambda *text: torch.zeros(())})
    after = env.tokens, env.length, env.generator.get_state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=False))
    assert env.context is before[3]


def test_the_terms_of_a_weighted_sum_are_reported_by_name() -> None:
    env, policy = setting()
    references = [[source] for source in env.items["source"].tolist()]
    bleu, edit = rlseq.metrics.BLEU(references, eos=0), rlseq.metrics.EditDistance(references, eos=0)
    env = rlseq.make("rlseq/Copy-v0", num_envs=16, items=100, reward=0.01 * bleu + 2 * edit)
    scores = rlseq.evaluate(policy, env)
    assert scores["reward"] == pytest.approx(scores["bleu"] + scores["edit_distance"])
    env.reset()
    while not (step := env.step(torch.zeros(16, dtype=torch.int64)))[2].all():
        pass
    parts = step[4]["reward_parts"]
    torch.testing.assert_close(parts["bleu"] + parts["edit_distance"], step[1])


def test_a_metric_is_reported_on_its_own_scale() -> None:
    """As a reward an edit distance is 1 − rate; as a figure it is a distance."""
    env, policy = setting()
    edit = rlseq.metrics.EditDistance([[source] for source in env.items["source"].tolist()], eos=0)
    index = items_tested(env.size, 16)
    batch = rlseq.rollout(policy, env, decode=rlseq.Greedy(), index=index)
    texts = [[1] for _ in range(env.size)]
    for item, row, n in zip(index.tolist(), batch.actions.tolist(), batch.lengths.tolist(), strict=True):
        texts[item] = row[:n]
    wanted = edit.score(texts)[index].mean()
    got = rlseq.evaluate(policy, env, metrics={"edit_distance": edit}, limit=16)["edit_distance"]
    assert got == pytest.approx(float(wanted))
    assert got > 1


def test_what_cannot_be_trained_writes_nothing(tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=6, length=3)
    agent = rlseq.make_agent("rloo", rlseq.make_policy("gru", env, hidden=8, embedding=4), samples=4)
    with pytest.raises(ValueError, match="samples=4 texts of each context must divide the rows"):
        rlseq.train(agent, env, 2, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())
