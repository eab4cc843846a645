"""Which items a policy is tested on: those that a task holds out, and a random subset under a limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import rlseq
from rlseq.cli import command_line as cli
from rlseq.compare import tables
from rlseq.engine.evaluation import evaluate_texts, items_tested, selection, subset
from rlseq.mdp.registry import ids
from rlseq.training import experiment_envs as tasks
from rlseq.training.reward_hacking import MOST_COMPARED, diversity_metrics

SMALL: dict[str, Any] = {"name": "gru", "hidden": 8, "embedding": 4}


class Sorted(rlseq.SequenceEnv):
    """Write anything; the reward of an item is its place in the file, so that the order of items matters."""

    def __init__(self, items: int = 100, **options: Any) -> None:
        super().__init__(
            vocab=rlseq.Vocab.numbered(4),
            max_len=2,
            reward=lambda tokens, mask, context: context["index"].float(),
            items={"source": torch.ones(items, 1, dtype=torch.int64)},
            **options,
        )


rlseq.register("tests/Sorted-v0", Sorted)


# ── which items a limit draws ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("size", "limit"), [(2, 1), (100, 99), (12_604, 500), (10**9, 1000)])
def test_a_limit_draws_items_without_replacement(size: int, limit: int) -> None:
    items = items_tested(size, limit).tolist()
    assert len(items) == len(set(items)) == limit
    assert 0 <= min(items) <= max(items) < size
    assert items == items_tested(size, limit).tolist()


@pytest.mark.parametrize("limit", [None, 10, 11, 500])
def test_no_item_is_tested_twice_where_the_limit_is_larger_than_the_task(limit: int | None) -> None:
    assert items_tested(10, limit).tolist() == list(range(10))


def test_a_single_item_is_tested_as_often_as_the_limit_says() -> None:
    assert items_tested(1, 3).tolist() == [0, 0, 0]
    assert len(items_tested(1)) == 1000


def test_the_same_items_are_drawn_in_every_process_and_recorded() -> None:
    here = selection(12_604, 500)
    code = (
        "import json; from rlseq.engine.evaluation import selection as s\nprint(json.dumps(s(12_604, 500)))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(there) == here
    assert here == {"size": 12_604, "texts": 500, "seed": 0, "digest": "e2df80a2c675a37f8074fc0e5d5b8817"}
    assert here["digest"] != selection(12_604, 499)["digest"]
    assert selection(500, 500)["seed"] is None
    assert selection(500, 500) == {**selection(500), "texts": 500}


def test_a_limited_evaluation_of_sorted_items_has_no_bias() -> None:
    """The mean of the subset is within four standard errors of the mean of all; the first items are not."""
    env = Sorted(items=10_000, num_envs=250, seed=0)
    policy = rlseq.make_policy("gru", env, hidden=4, embedding=4)
    for limit in (50, 500, 2000):
        found = evaluate_texts(policy, env, limit=limit)
        error = 10_000 / 12**0.5 / limit**0.5
        assert abs(found.means()["reward"] - 4999.5) < 4 * error
        assert abs((limit - 1) / 2 - 4999.5) > 4 * error
        assert sorted(found.index.tolist()) == sorted(items_tested(10_000, limit).tolist())


def test_over_many_seeds_every_item_is_drawn_as_often_as_any_other() -> None:
    times = torch.zeros(20)
    for seed in range(2000):
        times[subset(20, 5, seed)] += 1
    assert (times - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_texts_are_compared_with_each_other_in_a_random_subset_too() -> None:
    """The first texts of a sorted test are all equal, the others differ: repetition of all is between."""
    found = judged_alike(2 * MOST_COMPARED)
    assert 0.3 < diversity_metrics(found)["repetition"] < 0.7


def judged_alike(rows: int) -> Any:
    """Texts of which the first half repeat a word, and the other half do not."""
    from rlseq.engine.evaluation import EvaluatedTexts

    actions = torch.ones(rows, 6, dtype=torch.int64)
    actions[rows // 2 :] = torch.arange(6)
    mask = torch.ones_like(actions, dtype=torch.bool)
    return EvaluatedTexts(torch.arange(rows), actions, mask, torch.zeros(rows, 6), {})


# ── what a task declares ─────────────────────────────────────────────────────────────────────────────


TOYS = ("Bandit", "CreditChain", "Enumerable", "PlayOrStudy", "TwoStates")  # nothing in them to generalise to


def test_every_task_declares_held_out_data_but_toys() -> None:
    undeclared = [id for id in ids() if id.startswith("rlseq/") and not tasks.held_out(id)]
    assert undeclared == [f"rlseq/{name}-v0" for name in TOYS]


def test_a_declaration_that_is_no_mapping_is_refused() -> None:
    class Wrong(Sorted):
        held_out: ClassVar[Any] = "test"

    rlseq.register("tests/Wrong-v0", Wrong)
    with pytest.raises(TypeError, match=r"Wrong\.held_out must be a mapping of options"):
        tasks.testing_env("tests/Wrong-v0", {}, None)


def test_likelihood_of_few_references_is_tested_on_the_same_items_as_the_others(tmp_path: Path) -> None:
    """Options of the task for likelihood alone leave its test as it is."""
    found = rlseq.compare(
        "rlseq/Captions-v0", ["mle", "reinforce"], seeds=1, budget_tokens=500, texts=20, jobs=1, out=tmp_path,
        policy={"name": "captioner", "hidden": 8, "embedding": 4}, mle_options={"scenes": 30}, evaluations=1,
    )  # fmt: skip
    task = found.results["tasks"][0]
    assert task["selection"]["size"] == 1000
    assert task["pairs"][0]["items"]["difference"]["n"] == 20


def test_a_comparison_without_held_out_data_says_so_and_does_not_use_the_word(tmp_path: Path) -> None:
    found = rlseq.compare(
        "tests/Sorted-v0", "reinforce", seeds=2, budget_tokens=200, start=None, texts=30, jobs=2,
        out=tmp_path, policy=SMALL, evaluations=1,
    )  # fmt: skip
    assert not found.results["failed"]
    task = found.results["tasks"][0]
    assert not task["held_out"]
    assert task["selection"] == selection(100, 30)
    for text in shown(found, tmp_path):
        assert tasks.TRAINING in text
        assert "held-out" not in text.replace(tasks.TRAINING, "")


def test_a_comparison_with_held_out_data_says_so(tmp_path: Path) -> None:
    found = rlseq.compare(
        "rlseq/Copy-v0", "reinforce", seeds=1, budget_tokens=200, start=None, texts=30, jobs=2, out=tmp_path,
        policy=SMALL, evaluations=1,
    )  # fmt: skip
    assert found.results["tasks"][0]["held_out"]
    for text in shown(found, tmp_path):
        assert "30 of 1,000 held-out items" in text
        assert "training items: this task declares" not in text


def shown(found: Any, folder: Path) -> list[str]:
    """The page, the tables as Markdown, and the caption in the terminal."""
    found.save()
    pages = [(folder / name).read_text("utf-8") for name in ("report.html", "tables.md")]
    return [*pages, tables.scores(found.results["tasks"][0]).caption]


def test_the_commands_say_on_which_items_they_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for id, words in (
        ("tests/Sorted-v0", f"tested on 30 of 100 {tasks.TRAINING}\n"),
        ("rlseq/Copy-v0", "tested on 30 of 1,000 held-out items\n"),
    ):
        run = str(tmp_path / id.replace("/", "_"))
        cli.main(
            ["train", "reinforce", "--env", id, "--budget-tokens", "200", "--out", run, "--texts", "30",
             "--policy", "gru", "hidden=8", "embedding=4", "--evaluations", "1"]
        )  # fmt: skip
        assert words in capsys.readouterr().err
        cli.main(["evaluate", run, "--texts", "30"])
        assert words in capsys.readouterr().err
        recorded = json.loads(Path(run, "results.json").read_text("utf-8"))["selection"]
        assert (recorded["texts"], recorded["seed"]) == (30, 0)


def test_training_on_what_is_tested_is_refused() -> None:
    with pytest.raises(ValueError, match="split=test is what rlseq/Copy-v0 is tested on"):
        tasks.training_env("rlseq/Copy-v0", {"split": "test"}, None, 0)


# ── sources drawn at random ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("id", ["rlseq/Copy-v0", "rlseq/Reverse-v0", "rlseq/HMM-v0"])
@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_sources_are_not_those_of_training(id: str, seed: int) -> None:
    """They were drawn like training's, so that 44 % of the test sources of Copy were training sources."""
    trained, tested = (
        sources(rlseq.make(id, data_seed=seed, **options)) for options in ({}, tasks.held_out(id))
    )
    assert len(tested) == 1000
    assert not trained & tested


@pytest.mark.parametrize(("vocab_size", "length", "count"), [(4, 3, 2), (6, 2, 2), (12, 1, 1), (3, 4, 1)])
@pytest.mark.parametrize("items", [5, 10_000, 50_000])
def test_of_few_sources_a_tenth_is_held_out(vocab_size: int, length: int, count: int, items: int) -> None:
    options = {"vocab_size": vocab_size, "length": length, "items": items}
    train, test = (rlseq.make("rlseq/Copy-v0", split=split, **options) for split in ("train", "test"))
    assert train.size == items
    assert test.size == len(sources(test)) == count
    assert not sources(train) & sources(test)


def test_fewer_than_ten_sources_are_all_trained_on_and_none_is_held_out() -> None:
    for vocab_size, length in ((2, 1), (3, 1), (3, 3)):
        options = {"vocab_size": vocab_size, "length": length}
        env = rlseq.make("rlseq/Copy-v0", **options)
        assert len(sources(env)) == (vocab_size - 1) ** length
        with pytest.raises(ValueError, match="fewer than ten different sources"):
            rlseq.make("rlseq/Copy-v0", split="test", **options)


def test_the_number_of_training_items_does_not_change_what_is_held_out() -> None:
    few, many = (rlseq.make("rlseq/Copy-v0", split="test", items=n).items["source"] for n in (20, 40_000))
    assert few.equal(many)
    assert not sources(rlseq.make("rlseq/Copy-v0", items=40_000)) & {tuple(row) for row in few.tolist()}


def test_training_sources_are_the_plain_draws_of_their_seed() -> None:
    """What is held out takes nothing away from training, where there are sources enough."""
    wanted = torch.randint(1, 8, (10_000, 5), generator=torch.Generator().manual_seed(3))
    assert rlseq.make("rlseq/Copy-v0", data_seed=3).items["source"].equal(wanted)


def test_an_unknown_part_is_refused() -> None:
    for id in ("rlseq/Copy-v0", "rlseq/HMM-v0", "rlseq/Oracle-v0"):
        with pytest.raises(ValueError, match="unknown split 'tset'; did you mean 'test'"):
            rlseq.make(id, split="tset")


def test_the_references_of_the_oracle_are_other_draws_in_the_test() -> None:
    train, test = (
        rlseq.make("rlseq/Oracle-v0", vocab_size=500, references=300, split=s) for s in ("train", "test")
    )
    texts = [{tuple(row) for row in env.items["references"][:, 0].tolist()} for env in (train, test)]
    assert not texts[0] & texts[1]
    assert vars(train)["oracle"] is vars(test)["oracle"]


def sources(env: Any) -> set[tuple[int, ...]]:
    """The different sources of a task."""
    return {tuple(row) for row in env.items["source"].tolist()}
