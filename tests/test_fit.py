"""`rlseq.fit`: from a file of pairs to a tested model."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import rlseq
from rlseq.cli import main
from rlseq.metrics.registry import row_of
from rlseq.recipe import verdict
from rlseq.recipe.choices import Looks, reward_for, rows_for
from rlseq.recipe.clock import Clock
from rlseq.recipe.config import FitConfig
from rlseq.recipe.difference import difference
from rlseq.recipe.fit import run_fit
from rlseq.recipe.risk import expected
from rlseq.recipe.source_use import hardly_used, source_use
from rlseq.recipe.stages import Stage, likelihood

SMALL: dict[str, Any] = {
    "policy": "seq2seq",
    "sizes": {"hidden": 16, "embedding": 8},
    "rows": 16,
    "updates": 40,
    "reward_updates": 10,
}
TYPED = "--policy seq2seq hidden=16 embedding=8 --rows 16 --updates 40 --reward-updates 10".split()  # noqa: SIM905
pytestmark = pytest.mark.filterwarnings("ignore:the test has:UserWarning")


def write(path: Path, count: int = 300, seed: int = 0) -> Path:
    """Short words, and these backwards."""
    draw = Random(seed)
    words = {"".join(draw.choices("abcdef", k=draw.randint(2, 5))) for _ in range(count)}
    path.write_text("".join(f"{word}\t{word[::-1]}\n" for word in sorted(words)), "utf-8")
    return path


def stable(results: dict[str, Any]) -> dict[str, Any]:
    """Results without what differs from run to run."""
    return {name: value for name, value in results.items() if name not in ("seconds", "command", "folder")}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> rlseq.Fit:
    folder = tmp_path_factory.mktemp("fit")
    return rlseq.fit(write(folder / "pairs.tsv"), out=folder / "run", **SMALL)


def test_a_model_a_page_and_a_verdict(fitted: rlseq.Fit) -> None:
    results = fitted.results
    assert set(results["test"]) == {"likelihood", "longer", "reward"}
    assert results["kept"] == max(results["earned on dev"], key=results["earned on dev"].get)
    assert results["reward"]["name"] == "edit"
    assert results["stages"]["reward"]["updates"] == results["stages"]["longer"]["updates"] == 10
    new, old = (results["test"][name]["edit"] for name in ("reward", "longer"))
    assert results["changed"]["longer"]["estimate"] == pytest.approx(new - old, abs=1e-6)
    assert fitted.verdict in fitted.page.read_text("utf-8").replace("&#39;", "'").replace("&lt;", "<")
    assert "stages" in {path.name for path in fitted.folder.iterdir()}


def test_the_model_stands_alone_and_is_the_one_that_was_tested(fitted: rlseq.Fit, tmp_path: Path) -> None:
    model = fitted.model
    env = model.task(split="test", num_envs=50)
    assert rlseq.evaluate(model.policy, env)["edit_distance"] == pytest.approx(
        fitted.results["test"][fitted.results["kept"]]["edit"], abs=1e-6
    )
    for name in ("model.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((fitted.folder / name).read_bytes())
    texts = [found[0].text for found in rlseq.load(tmp_path).generate(["abc"], rlseq.Greedy())]
    assert texts == [found[0].text for found in model.generate(["abc"], rlseq.Greedy())]


def test_again_nothing_is_trained(fitted: rlseq.Fit) -> None:
    path = fitted.folder.parent / "pairs.tsv"
    said: list[str] = []
    again = run_fit(path, FitConfig(out=fitted.folder, **SMALL), said.append)
    assert again.results == fitted.results
    assert said == [f"{fitted.folder} is finished; this is what it found"]


def test_other_data_or_settings_are_refused(fitted: rlseq.Fit, tmp_path: Path) -> None:
    path = fitted.folder.parent / "pairs.tsv"
    with pytest.raises(ValueError, match=r"(?s)holds a fit of other data or settings:.*fit\.settings\.seed"):
        rlseq.fit(path, out=fitted.folder, seed=1, **SMALL)
    with pytest.raises(ValueError, match=r"fit\.data was"):
        rlseq.fit(write(tmp_path / "pairs.tsv", seed=1), out=fitted.folder, **SMALL)
    with pytest.raises(ValueError, match="holds a run, and no fit"):
        rlseq.fit(path, out=fitted.folder / "stages" / "reward", **SMALL)


class Killed(BaseException):
    """Ends a fit as a signal does, without its consent."""


@pytest.mark.parametrize(
    "last", ["stage 1, update 10:", "stage 2, update 5:", "training on the reward earns"]
)
def test_a_fit_that_was_killed_ends_the_same(fitted: rlseq.Fit, tmp_path: Path, last: str) -> None:
    path = fitted.folder.parent / "pairs.tsv"

    def killer(line: str) -> None:
        if line.startswith(last):
            raise Killed

    config = FitConfig(out=tmp_path / "run", **SMALL)
    with pytest.raises(Killed):
        run_fit(path, config, killer)
    assert not (tmp_path / "run" / "model.json").exists()
    assert stable(run_fit(path, config, lambda line: None).results) == stable(fitted.results)


def test_time_limits_everything_and_what_was_chosen_stays(tmp_path: Path) -> None:
    path, out = write(tmp_path / "pairs.tsv"), tmp_path / "run"
    found = rlseq.fit(path, out=out, minutes=0.02, **{**SMALL, "updates": 6000})
    assert found.results["stopped"] in ("", verdict.NO_TIME)
    last = [look for look in found.results["dev nll"] if look.startswith("stage 1")][-1]
    assert int(last.split()[-1]) < 4500, "likelihood ends before its updates do"
    clock = Clock(out / "clock.json", 1.2)
    assert clock.before > 0
    assert clock.once("every", lambda: 99) == clock.choices["every"] != 99
    assert clock.left() < 1.2 - clock.before


def test_the_command_says_what_happened_and_its_model_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.tsv")
    main(["fit", "pairs.tsv", *TYPED])
    said = capsys.readouterr()
    first = said.out.split("Generate with: rlseq ")[1].splitlines()[0]
    assert first.startswith("generate runs/pairs ")
    assert "agent: rlseq train scst --start runs/pairs/stages/likelihood" in said.out
    assert "On test, the greedy text has" in said.out
    assert "the reward is edit, because references are short strings" in said.err
    main(first.split())
    assert len(capsys.readouterr().out.splitlines()) == 1
    with (
        pytest.warns(
            UserWarning, match=r"characters that were never read in training: 'p', 'i', 'r', … \(in"
        ),
        pytest.warns(UserWarning, match="longer sources are cut"),
        pytest.warns(UserWarning, match="to read sources from that file: < pairs.tsv"),
    ):
        main(["generate", "runs/pairs", "abc", "pairs.tsv"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    main(["fit", "pairs.tsv", *TYPED, "--minutes", "5"])
    assert "for a longer fit, write to another folder" in capsys.readouterr().err
    started = "--budget-tokens 200 --evaluations 1 --out runs/scst".split()  # noqa: SIM905
    main(["train", "scst", "--start", "runs/pairs/stages/likelihood", *started])
    assert "before" in capsys.readouterr().err
    main(["evaluate", "runs/pairs"])
    assert "edit_distance" in capsys.readouterr().out


def test_settings_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.tsv")
    settings = {"path": "pairs.tsv", "out": "mine", "reward": "exact", "updates": 8, "reward_updates": 2}
    Path("fit.json").write_text(json.dumps({**settings, "rows": 16, "policy": ["seq2seq", "hidden=8"]}))
    main(["fit", "--config", "fit.json"])
    results = json.loads(Path("mine/results.json").read_text("utf-8"))
    assert results["reward"] == {"name": "exact", "reason": "it was asked for"}
    assert "raised" in results["verdict"] or "exact" in results["verdict"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", "missing.json"])
    Path("fit.json").write_text(json.dumps({"path": "pairs.tsv", "minute": 3}))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", "--config", "fit.json"])
    assert "unknown setting 'minute'; did you mean 'minutes'?" in capsys.readouterr().err


def test_a_sum_of_rewards_is_one_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.tsv")
    asked = "chrf + 0.5*distinct_2"
    main(["fit", "pairs.tsv", *TYPED, "--reward", asked, "--out", "typed"])
    found = json.loads(Path("typed/results.json").read_text("utf-8"))
    assert found["reward"] == {"name": asked, "reason": "it was asked for"}
    assert asked in found["verdict"]
    for tested in found["test"].values():
        assert tested[asked] == pytest.approx(tested["reward"], abs=1e-5)
        assert tested["reward"] > tested["distinct_2"] > 0, "a part, with its weight"
    assert f"{asked} ↑" in rlseq.Fit(Path("typed"), found).page.read_text("utf-8")
    assert "update 1 " in capsys.readouterr().err
    again = rlseq.fit("pairs.tsv", out="called", reward=asked, quiet=True, **SMALL)
    assert "update 1 " not in capsys.readouterr().err
    assert again.results["test"] == found["test"]


@pytest.mark.parametrize(
    ("content", "flags", "told"),
    [
        ("", [], "x.tsv: expected items to train on, got none"),
        (
            "a\tb\n",
            [],
            "x.tsv: 1 different sources are too few to train and to test: dev has 0 and test has 0",
        ),
        ("".join(f"{c}\t{c}{c}\n" for c in "abcdefghij"), [], "10 different sources are too few"),
        ("a\tb\n" * 1000, [], "x.tsv: 1 different sources are too few"),
        ("a\nb\n", [], "x.tsv:1: expected source TAB reference, got no tab: 'a'"),
        ("a\t\nb\t\n", [], "x.tsv:1: expected a reference, got nothing"),
        ("a\t" + "b" * 10**7 + "\n", [], "x.tsv:1: expected lines below 100,000 bytes"),
        (None, ["--reward", "length + 0.5*distinct_2"], "compares nothing with references"),
        (None, ["--reward", "bleu + 0.5*distinkt_2"], "unknown reward 'distinkt_2'; did you mean"),
        (None, ["--reward", "bleu + 0.5*bleu"], "a sum of different names"),
        (None, ["--reward", "blue"], "unknown reward 'blue'; did you mean 'bleu'?"),
        (None, ["--agent", "rlo"], "unknown agent 'rlo'; did you mean 'rloo'?"),
        (None, ["--minutes", "0"], "minutes must be a finite number > 0 or None, got 0"),
        (None, ["--policy", "seq2sec"], "unknown policy 'seq2sec'; did you mean 'seq2seq'?"),
        (None, ["--level", "chars"], "unknown level 'chars'; did you mean 'char'?"),
        (None, ["--hyper", "samples=3"], "samples=3 texts of each context must divide the rows"),
        (None, ["--hyper", "sample=3"], "has no option 'sample'; did you mean 'samples'?"),
    ],
)
def test_bad_input_is_one_error_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    content: str | None,
    flags: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("x.tsv")
    if content is None:
        write(path)
    else:
        path.write_text(content, "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["fit", "x.tsv", *flags])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert told in said
    assert not list(Path("runs").glob("*/stages")) if Path("runs").exists() else True


def test_a_small_test_part_is_said_loudly(tmp_path: Path) -> None:
    settings = {**SMALL, "updates": 8, "reward_updates": 2}
    with pytest.warns(UserWarning, match="the test has [0-9]+ sources only: no difference but a large one"):
        found = rlseq.fit(write(tmp_path / "x.tsv", 60), out=tmp_path / "run", **settings)
    assert any("items only" in remark for remark in found.results["remarks"])


# ── choices ──────────────────────────────────────────────────────────────────────────────────────────────


def looks(**changed: Any) -> Looks:
    usual: dict[str, Any] = {
        "items": 5000,
        "references": 1.0,
        "source_words": 12.0,
        "reference_words": 11.0,
        "tokens": 25.0,
        "level": ("word", "word"),
    }
    return Looks(**{**usual, **changed})


@pytest.mark.parametrize(
    ("changed", "reward"),
    [
        ({"reference_words": 1.0, "level": ("char", "char")}, "edit"),
        ({"reference_words": 3.0, "source_words": 300.0}, "edit"),
        ({"reference_words": 1.0, "level": ("tokenizer", "tokenizer")}, "cer"),
        ({"source_words": 80.0, "reference_words": 9.0}, "rouge_l"),
        ({"references": 5.0}, "cider_d"),
        ({"level": ("bpe", "bpe")}, "chrf"),
        ({}, "bleu"),
    ],
)
def test_the_reward_is_chosen_by_the_looks_of_the_texts(changed: dict[str, Any], reward: str) -> None:
    assert reward_for(looks(**changed))[0] == reward
    assert row_of(reward).make is not None


def test_batches_have_about_as_many_tokens_whatever_the_length() -> None:
    assert [rows_for(looks(tokens=tokens, items=20_000)) for tokens in (5.0, 30.0, 62.5, 130.0, 5000.0)] == [
        256,
        256,
        128,
        64,
        32,
    ]


def test_few_pairs_have_small_batches() -> None:
    assert [rows_for(looks(tokens=10.0, items=items)) for items in (10, 1100, 2125, 5000, 9000)] == [
        32,
        32,
        64,
        128,
        256,
    ]


def test_samples_agree_best_where_the_others_are_near() -> None:
    """Of each item's samples the one in the middle has the least expected distance."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=6)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    batch = rlseq.rollout(policy, env, repeat=3)
    texts = [row[:n] for row, n in zip(batch.actions.tolist(), batch.lengths.tolist(), strict=True)]
    groups = texts[:3], texts[3:]
    wanted = [-float(sum(_edits(a, b) for b in group)) for group in groups for a in group]
    assert expected(batch, 3, "edit_distance", env.vocab).tolist() == wanted


def _edits(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_likelihood_ends_when_dev_does_not_improve(tmp_path: Path) -> None:
    """With so large a step size nothing is learned after a while; the best weights are kept."""
    path = write(tmp_path / "x.tsv")
    task = partial(rlseq.make, "rlseq/Parallel-v0", 16, path=path)
    policy = rlseq.make_policy("seq2seq", task(split="train"), hidden=8, embedding=8)
    said: list[str] = []
    stages = [Stage(400, 0.3, patience=3)]
    scores = likelihood(
        policy,
        partial(task, split="train"),
        task(split="dev"),
        tmp_path / "run",
        stages,
        every=2,
        say=said.append,
    )
    values = list(scores.values())
    assert len(values) < 200
    without = len(values) - 1 - values.index(min(values))
    assert without == max(3, len(values) // 4), "so many looks without a better one"
    assert stages[0].converged(values)
    assert not stages[0].converged(values[:-1])
    assert not Stage(400, 0.3).converged(values), "all looks are made without patience"
    assert len(said) == len(values)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def found(new: Any, old: Any, reward: str = "edit", **changed: Any) -> dict[str, Any]:
    gain = difference(new, old)
    return {
        "reward": {"name": reward},
        "stopped": "",
        "better": row_of(reward).sign,
        "changed": {"longer": gain},
        "test": {
            name: {reward: float(np.mean(side)), "exact": 0.5}
            for name, side in (("likelihood", old), ("longer", old), ("reward", new))
        },
        "kept": "reward",
        "earned on dev": {"likelihood": 0.5, "longer": 0.5, "reward": 0.6},
        "source use": {"own": 1.0, "exchanged": 5.0},
        "converged": True,
        "stages": {"reward": {"updates": 500}},
        "selection": {"texts": 1000},
        "risk": None,
        **changed,
    }


def risk(least: Any, greedy: Any) -> dict[str, Any]:
    return {"greedy": float(greedy.mean()), "change": difference(least, greedy)}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda old: found(0.9 * old, old),
            "The reward lowered errors by 10.0 % (p < 0.001) against continued",
        ),
        (lambda old: found(1.1 * old, old), "The reward raised errors by 10.0 % (p < 0.001)"),
        (lambda old: found(1.1 * old, old, "bleu"), "The reward raised bleu by 10.0 % (p < 0.001)"),
        (lambda old: found(old, old), "The reward changed nothing"),
        (lambda old: found(old + Random(0).random() * _noise(), old), "No gain was shown"),
        (
            lambda old: found(
                old, old, stopped=verdict.NOTHING, risk={"change": difference(0.999 * old, old)}
            ),
            "Nothing to gain: samples are no better than the greedy text (least risk -0.1 % errors), so",
        ),
        (lambda old: found(old, old, stopped=verdict.NO_TIME), "There was no time for a reward"),
        (lambda old: found(old, old, stopped=verdict.NO_ERRORS), "Nothing to gain: the greedy texts of"),
    ],
)
def test_the_verdict_is_that_of_the_numbers(make: Callable[[Any], dict[str, Any]], told: str) -> None:
    old = np.random.default_rng(0).integers(1, 5, 1000).astype(float)
    assert verdict.in_words(make(old)).startswith(told)


def _noise() -> Any:
    return np.random.default_rng(1).normal(size=1000)


def test_limits_are_told() -> None:
    old = np.ones(100)
    limits: dict[str, Any] = {
        "converged": False,
        "stages": {"reward": {"updates": 20}},
        "selection": {"texts": 100},
    }
    limited = found(old, old, **limits) | {"source use": {"own": 5.24, "exchanged": 5.26}}
    model, likelihood, reward, test = verdict.limits(limited)
    assert all(part in model for part in ("hardly uses its sources", "5.24", "5.26"))
    assert likelihood.startswith("Likelihood was ended")
    assert "20 updates" in reward
    assert "100 items" in test
    assert not verdict.limits(found(old, old))


def test_exchanged_sources_tell_a_model_that_ignores_them(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"  # the last letter decides the word
    pairs.write_text(
        "".join(f"{a}{b}{c}\t{c}{c}{c}\n" for a in "abcd" for b in "abcd" for c in "abcd"), "utf-8"
    )
    env = rlseq.make("rlseq/Parallel-v0", 16, path=str(pairs), split="train", level="char", seed=0)
    policy = rlseq.make_policy("seq2seq", env, hidden=32, embedding=16)
    untrained = source_use(policy, env)
    assert hardly_used(untrained)
    rlseq.train(rlseq.make_agent("mle", policy, lr=1e-2), env, 60, quiet=True)
    trained = source_use(policy, env)
    assert not hardly_used(trained)
    assert trained["own"] < 0.5 < untrained["own"] < trained["exchanged"]


def test_nothing_is_to_gain_where_the_best_samples_are_no_better() -> None:
    draw = np.random.default_rng(0)
    greedy = draw.integers(1, 5, 400).astype(float)
    little = draw.normal(scale=0.1, size=400)
    assert verdict.nothing_to_gain(risk(greedy + 0.02 + little, greedy), "edit")
    assert not verdict.nothing_to_gain(risk(greedy - 0.2, greedy), "edit")
    assert not verdict.nothing_to_gain(risk(greedy + 0.2, greedy), "bleu")
    assert verdict.nothing_to_gain(risk(greedy - 0.2, greedy), "bleu")
    assert verdict.nothing_to_gain(risk(0 * greedy, 0 * greedy), "edit"), "no errors are left"
    few, noise = greedy[:20], draw.normal(scale=3, size=20)
    assert not verdict.nothing_to_gain(risk(few + noise - noise.mean() + 0.01, few), "edit"), "too few to say"
