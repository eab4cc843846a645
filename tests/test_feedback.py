"""Labels, the reward models that learn from them, and policies that are trained on these."""

from __future__ import annotations

import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli.command_line import main
from rlseq.compare.run import compare
from rlseq.compare.statistics import share_interval
from rlseq.data.formats import DataError
from rlseq.discriminators.reward_model import Judgements, bradley_terry, load_reward, standard
from rlseq.feedback import label, train_reward_model
from rlseq.feedback.labels import LabelFile, Question, read_labels
from rlseq.feedback.questions import reads_back
from rlseq.feedback.simulated import pair_answers, score_answers
from rlseq.feedback.training import above_chance, order_accuracy
from rlseq.training.experiment_envs import training_env

OPTIONS = {"length": 4, "vocab_size": 5, "num_envs": 16}
LEARNING: dict[str, Any] = {"sizes": {"hidden": 16, "embedding": 8}, "lr": 1e-2, "epochs": 6, "folds": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has hardly learned anything, so that its texts differ in length."""
    folder = tmp_path_factory.mktemp("runs") / "copy"
    env = rlseq.make("rlseq/Copy-v0", **OPTIONS)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8)
    rlseq.train(rlseq.make_agent("mle", policy), env, 1, out=folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def labels(run: Path) -> Path:
    """Longer texts are better, but for one label in ten."""
    return label(run, number=160, simulate="length", noise=0.1)


@pytest.fixture(scope="module")
def judge(labels: Path) -> Path:
    folder = labels.parent / "judge"
    train_reward_model(labels, out=str(folder), **LEARNING)
    return folder


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# ── questions and labels ─────────────────────────────────────────────────────────────────────────────


def test_a_simulated_labeller_is_wrong_as_often_as_it_should_be(labels: Path) -> None:
    def tokens(row: dict[str, Any]) -> list[int]:
        return [min(len(text.split()) + 1, 5) for text in row["texts"]]  # the end, too, where there is room

    rows = [row for row in read(labels) if row["better"] is not None]
    right = [tokens(row)[row["better"]] > tokens(row)[1 - row["better"]] for row in rows]
    assert 0.82 < sum(right) / len(right) < 0.97
    assert all(len(set(tokens(row))) == 1 for row in read(labels) if row["better"] is None)
    values = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    generator = torch.Generator().manual_seed(0)
    assert pair_answers(values, 0.0, generator) == [1, 0, None]
    assert score_answers(torch.tensor([0.0, 0.5, 1.0]), 5, 0.0, generator) == [1, 3, 5]


def test_no_question_comes_twice_and_its_texts_differ(labels: Path) -> None:
    rows = read(labels)
    assert len({(row["source"], *row["texts"]) for row in rows}) == len(rows) == 160
    assert all(len(set(row["texts"])) == 2 for row in rows)
    assert read(labels.with_suffix(".questions.jsonl"))[0].keys() == {"item", "runs", "source", "texts"}


def test_the_same_call_continues_and_a_larger_one_asks_more(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    label(run, out=str(out), number=5, simulate="length")
    first = out.read_text("utf-8")
    label(run, out=str(out), number=5, simulate="length", noise=0.9)
    assert out.read_text("utf-8") == first
    label(run, out=str(out), number=8, simulate="length")
    assert out.read_text("utf-8").startswith(first)
    assert len(read(out)) == 8
    with pytest.raises(ValueError, match="has questions about pairs; label into another file"):
        label(run, out=str(out), number=8, scores=5, simulate="length")


def test_two_runs_write_a_text_each_in_random_order(run: Path, tmp_path: Path) -> None:
    rows = read(label(run, other=str(run), out=str(tmp_path / "labels.jsonl"), number=20, simulate="length"))
    assert all(row["runs"] == [str(run)] * 2 for row in rows)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"source": "a b", "texts": ["a", "b"], "better": 2}', "expected 0, 1 or null as 'better', got 2"),
        ('{"source": "a b", "texts": ["a"], "better": 0}', "expected 'score' beside 1 texts"),
        ('{"source": "a b", "texts": [], "better": 0}', "expected 'texts', a list of one or two texts"),
        ('{"source": "a b", "texts": ["a", "b"]}', "expected 'better' beside 2 texts"),
        ('{"source": 3, "texts": ["a", "b"], "better": 0}', "expected 'source', a text, got 3"),
        ('{"source": "a b", "texts": ["a"], "score": NaN}', "expected a finite number as 'score'"),
        ('{"source": "a b", "texts": ["a"], "score": 3}', "expected 'better' as in line 1, got 'score'"),
        ("[1]", "expected a JSON object, got"),
        ('{"source"', "expected a JSON object, got"),
        ('{"source": "a b", "texts": ["a", "zz"], "better": 0}', "'zz' cannot be written by the task"),
        ('{"source": "a b", "texts": ["a", "a a a a a a a"], "better": 0}', "has 7 tokens, the task writes"),
        ('{"source": "", "texts": ["a", "b"], "better": 0}', "expected the source of the texts, got none"),
    ],
)
def test_bad_labels_are_named_by_file_and_line(run: Path, tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"source": "a b", "texts": ["a", "b"], "better": 1}\n' + line + "\n", "utf-8")
    with pytest.raises(DataError, match=r"labels.jsonl:2: ") as error:
        train_reward_model(path, run=str(run), out=str(tmp_path / "judge"))
    assert says in str(error.value)
    assert not (tmp_path / "judge").exists()


def test_labels_of_texts_that_are_not_there_are_named_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    asked = Question("a", ("b", "c"))
    text = asked.line(better=0) + Question("a", ("b", "gone")).line(better=1)
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"labels.jsonl:2: a label of texts that are not among the questions"):
        LabelFile(path, [asked])
    assert path.read_text("utf-8") == text


def test_answers_are_written_at_once_changed_and_taken_back(tmp_path: Path) -> None:
    path, questions = tmp_path / "labels.jsonl", [Question("a", ("b", str(n))) for n in range(3)]
    file = LabelFile(path, questions)
    with pytest.raises(ValueError, match="is being written by process"):
        LabelFile(path, questions)
    file.answer(1, 0)
    file.answer(0, None)
    file.answer(1, 1)
    assert [row.answer for row in read_labels(path)] == [1, None]
    assert file.open == 2
    file.take_back(1)
    assert [row.question.texts for row in read_labels(path)] == [("b", "0")]
    file.close()
    with closing(LabelFile(path, questions)) as again:
        assert again.answers == {0: None}


def test_texts_that_a_reward_model_would_read_otherwise_are_not_asked_about() -> None:
    letters, words = (rlseq.make(f"rlseq/{id}-v0", num_envs=2) for id in ("Molecules", "Music"))
    assert [reads_back(letters, text) for text in ("CCO", "CC<unk>", "C" * 200)] == [True, False, False]
    assert reads_back(words, "<unk> | D2")


def test_the_terminal_asks_and_goes_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.jsonl"
    words = ["label", str(run), "--terminal", "--number", "4", "--out", str(out)]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    main(words)
    assert "nothing is labelled yet" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n5\n2\nu\n0\n"))
    main(words)
    assert [row["better"] for row in read(out)] == [0, None]
    assert "2 of 4 answered" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("2\n1\n"))
    main(words)
    assert [row["better"] for row in read(out)] == [0, None, 1, 0]


# ── reward models ────────────────────────────────────────────────────────────────────────────────────


def test_the_loss_is_that_of_bradley_and_terry() -> None:
    margin, better = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([1.0, 0.0, 0.5])
    wanted = -(torch.sigmoid(margin).log() * better + torch.sigmoid(-margin).log() * (1 - better)).mean()
    assert bradley_terry(margin, better).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_the_interval_of_a_share_is_wilson_s() -> None:
    found = share_interval(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert share_interval(0, 0).n == 0


def test_a_reward_model_learns_orders_held_out_labels_and_is_the_same_when_loaded(
    judge: Path, run: Path
) -> None:
    env = rlseq.load(run).task()
    model = load_reward(judge, env)
    report = model.report
    assert above_chance(report)
    assert report["accuracy"]["estimate"] > 0.75
    assert report["number"] == 160
    assert report["accuracy"]["n"] == 160 - report["ties"]
    tokens = torch.tensor([[1, 0, 0, 0, 0], [1, 2, 3, 4, 0]])
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    context = {"source": env.contexts(torch.tensor([0, 0]))["source"]}
    short, long = model(tokens, mask, context).tolist()
    assert short < long
    assert load_reward(judge)(tokens, mask, context).tolist() == [short, long]
    assert load_reward(judge).signature == model.signature


def test_folds_hold_out_whole_sources() -> None:
    from rlseq.discriminators.reward_model import RewardLearning, _folds

    items = torch.tensor([4, 4, 9, 9, 9, 2, 7, 7])
    fold = _folds(items, RewardLearning(folds=3))
    assert all(len(set(fold[items == item].tolist())) == 1 for item in (2, 4, 7, 9))
    assert set(fold.tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="labels of 4 sources cannot be divided into 5 folds"):
        _folds(items, RewardLearning())


def test_a_reward_model_of_labels_by_chance_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = label(run, out=str(tmp_path / "labels.jsonl"), number=40, simulate="length")
    draw = torch.Generator().manual_seed(1)
    rows = [{**row, "better": int(torch.randint(2, (), generator=draw))} for row in read(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    small = "--sizes hidden=8 embedding=4 --epochs 2 --folds 3"
    main(f"reward-model {path} --out {tmp_path / 'judge'} {small}".split())
    said = capsys.readouterr()
    assert "not above chance (50 %)" in said.err
    report = load_reward(tmp_path / "judge").report
    assert not above_chance(report)
    assert f"{report['accuracy']['estimate']:.4f}" in said.out
    ties = "".join(json.dumps({**row, "better": None}) + "\n" for row in rows)
    path.write_text(ties, "utf-8")
    main(f"reward-model {path} --out {tmp_path / 'judge'} {small}".split())
    assert "all labels are ties" in capsys.readouterr().err


def test_scores_are_regressed_on_their_own_scale(run: Path, tmp_path: Path) -> None:
    path = label(run, out=str(tmp_path / "labels.jsonl"), number=120, scores=5, simulate="length", noise=0.0)
    model = train_reward_model(path, out=str(tmp_path / "judge"), **{**LEARNING, "epochs": 15})
    scores = torch.tensor([float(row["score"]) for row in read(path)])
    assert (model.scale, model.shift) == pytest.approx(standard(scores), rel=1e-5)
    assert model.report["accuracy"]["estimate"] > 0.8
    judged = Judgements((), torch.tensor([1.0, 2.0, 2.0, 5.0]), torch.arange(4))
    assert order_accuracy(judged.answers, judged).estimate == 1


def test_what_was_changed_or_does_not_fit_is_refused(judge: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reads texts of another vocab than Copy has: 5 words against 9"):
        load_reward(judge, rlseq.make("rlseq/Copy-v0", length=4, vocab_size=9))
    with pytest.raises(ValueError, match="reads 5 words, the task has 8"):
        load_reward(judge, rlseq.make("rlseq/Copy-v0", length=7, vocab_size=5))
    with pytest.raises(FileNotFoundError, match="there is no reward model"):
        load_reward(tmp_path)
    (tmp_path / "something").write_text("else")
    with pytest.raises(FileExistsError, match="something else"):
        load_reward(judge).save(tmp_path)
    copy = load_reward(judge).save(tmp_path / "copy")
    weights = copy / "reward.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="was changed after it was written"):
        load_reward(copy)


# ── training on it ───────────────────────────────────────────────────────────────────────────────────


def test_a_policy_is_trained_on_it_by_command_and_resumed_only_with_the_same_one(
    run: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    settings = f"--start {run} --reward path={judge} --out {out} --budget-tokens 400 --evaluations 1"
    words = f"train reinforce {settings} --texts 20 --quiet --alarms ignore".split()
    main(words)
    shown = capsys.readouterr().out
    assert f"path={judge}" in shown
    main(words)
    assert capsys.readouterr().out == shown
    other = load_reward(judge)
    with torch.no_grad():
        other.network.head.bias.add_(1)
    kept = tmp_path / "kept"
    load_reward(judge).save(kept)
    other.save(judge)
    try:
        with pytest.raises(SystemExit):
            main([*words, "--budget-tokens", "600"])
        assert "reward" in capsys.readouterr().err
    finally:
        load_reward(kept).save(judge)


def test_it_is_a_reward_in_comparisons_and_from_python(run: Path, judge: Path, tmp_path: Path) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "num_envs"}
    found = compare(
        envs={"rlseq/Copy-v0": options},
        agents=["reinforce"],
        rewards=[f"path={judge}"],
        policy={"name": "gru", "hidden": 8, "embedding": 8},
        seeds=1,
        budget_tokens=300,
        evaluations=1,
        texts=20,
        tuned=False,
        out=tmp_path,
        quiet=True,
    )
    assert found.results["failed"] == []
    names = [agent["name"] for agent in found.results["tasks"][0]["agents"]]
    assert f"reinforce@path={judge}" in names
    env = training_env("rlseq/Copy-v0", OPTIONS, f"path={judge}", 0)
    same = rlseq.make("rlseq/Copy-v0", reward=load_reward(judge, env), **OPTIONS)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8)
    returns = [rlseq.rollout(policy, task).returns.tolist() for task in (env, same)]
    assert returns[0] == returns[1]
