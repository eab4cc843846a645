"""A search for hyper-parameters: by several workers, resumed, on dev items, and what its results are for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlseq.agents import AGENTS
from rlseq.cli import main
from rlseq.compare.plan import ComparisonConfig
from rlseq.recipe.config import FitConfig
from rlseq.recipe.spaces import chosen_spaces, declared_spaces, defaults_of
from rlseq.recipe.tune import JOURNAL, _begun, _Search, run_tune
from rlseq.recipe.tune_config import TuneConfig
from rlseq.training.run_folder import read_results
from rlseq.training.tuned_settings import read_settings

TINY: dict[str, Any] = {
    "env": "rlseq/Copy-v0",
    "agent": "reinforce",
    "search": ("lr", "entropy=1e-3:0.1"),
    "hyper": {"schedule": "linear"},
    "options": {"length": 3, "vocab_size": 5, "num_envs": 8},
    "policy": "gru",
    "sizes": {"hidden": 8, "embedding": 4},
    "budget_tokens": 200,
    "evaluations": 2,
    "texts": 8,
    "seeds": 2,
    "quiet": True,
}


# ── spaces ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_every_agent_declares_ranges_that_its_own_rules_allow(name: str) -> None:
    spaces = declared_spaces(AGENTS[name])
    assert "lr" in spaces or name == "cem"
    for space in spaces.values():
        assert space.low < space.high
        assert not space.log or space.low > 0


def test_names_and_limits_of_a_search() -> None:
    cls = AGENTS["ppo"]
    assert chosen_spaces(cls, (), {"lr": 1e-3}).keys() == declared_spaces(cls).keys() - {"lr"}
    assert list(chosen_spaces(cls, ("lam", "clip-norm"), {})) == ["lam", "clip_norm"]
    assert chosen_spaces(cls, ("lr=1e-4:1e-2",), {})["lr"][:2] == (1e-4, 1e-2)
    assert defaults_of(cls, ["lam"]) == {"lam": 0.95}


@pytest.mark.parametrize(
    ("search", "fixed", "message"),
    [
        (("samples",), {}, "samples declares no range"),
        (("lr=1e-4",), {}, "name=low:high"),
        (("lr=1e-2:1e-4",), {}, "the smaller first"),
        (("lr=0:1",), {}, "must be > 0"),
        (("lr",), {"lr": 1e-3}, "lr is given"),
    ],
)
def test_mistakes_in_a_search(search: tuple[str, ...], fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_spaces(AGENTS["ppo"], search, fixed)


# ── searches ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search of five trials by two workers, and a third one that was killed in the first trial."""
    pytest.importorskip("optuna")
    import optuna

    config = TuneConfig(**TINY, trials=5, out=tmp_path_factory.mktemp("tune") / "search")
    spaces = chosen_spaces(AGENTS[config.agent], config.search, config.hyper)
    killed, slow, fast = (_Search(config, spaces, optuna, _begun(config)) for _ in range(3))
    began = killed._next()
    assert began is not None
    began[2].close()  # the system does so where a worker is killed
    at_work = slow._next()
    assert at_work is not None
    fast.work()
    assert fast.others_are_busy()
    slow._trained(*at_work[:2])
    at_work[2].close()
    return config, began[0], run_tune(config)


def test_two_workers_make_all_trials_once(found: Any) -> None:
    config, _, tuned = found
    history = tuned.results["history"]
    assert len(history) == config.trials
    assert {row["state"] for row in history} <= {"complete", "pruned"}
    assert len(list((tuned.folder / "trials").iterdir())) == config.trials


def test_a_trial_whose_worker_was_killed_is_continued_with_its_settings(found: Any) -> None:
    _, began, tuned = found
    assert tuned.results["study"]["fail"] == 1
    first = next(row for row in tuned.results["history"] if row["lr"] == began.params["lr"])
    assert first["trial"] > began.number
    assert read_results(tuned.folder / "trials" / f"{began.number:05d}")["status"] == "finished"


def test_the_first_trial_has_the_defaults(found: Any) -> None:
    _, began, _ = found
    assert began.params == {"lr": 1e-4, "entropy": 1e-3}


def test_the_kept_settings_have_the_best_mean_over_further_seeds(found: Any) -> None:
    results = found[2].results
    assert results["again"].keys() == {"best of the search", "defaults"}
    assert results["again"][results["kept"]]["mean"] == max(row["mean"] for row in results["again"].values())
    assert all(len(row["rewards"]) == 2 for row in results["again"].values())


def test_train_fit_and_compare_take_the_settings(found: Any, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    content = yaml.safe_load(found[2].settings.read_text("utf-8"))
    assert content["agents"]["reinforce"]["schedule"] == "linear"
    content["agents"] = content["after_likelihood"] = {"reinforce": {"lr": 0.02, "schedule": "linear"}}
    path.write_text(yaml.safe_dump(content), "utf-8")
    assert read_settings(path).sizes == TINY["sizes"]

    fit = FitConfig(agent="reinforce", settings=path, hyper={"lr": 0.01})
    assert (fit.policy, fit.rows, fit.hyper) == ("gru", 8, {"lr": 0.01, "schedule": "linear"})

    comparison = ComparisonConfig("rlseq/Copy-v0", ["mle", "reinforce"], settings=path)
    run = next(run for run in comparison.runs() if run.agent == "reinforce")
    assert (run.policy, run.hyper["lr"], run.options["length"]) == ("gru", 0.02, 3)
    assert "settings" not in comparison.plain()

    few = ["--budget-tokens", "50", "--texts", "4", "--quiet", "--out", str(tmp_path / "run")]
    main(["train", "reinforce", "--env", "rlseq/Copy-v0", "--settings", str(path), *few])
    config = yaml.safe_load((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert (config["policy"], config["hyper"]["lr"], config["options"]["num_envs"]) == ("gru", 0.02, 8)

    with pytest.raises(ValueError, match="no settings of rloo that start from weights that likelihood"):
        FitConfig(agent="rloo", settings=path)
    path.write_text("lr: 1", "utf-8")
    with pytest.raises(ValueError, match="is no file of settings"):
        read_settings(path)


def test_the_page_shows_history_and_every_hyper_parameter(found: Any) -> None:
    page = found[2].page.read_text("utf-8")
    assert "Reward on dev of every trial" in page
    assert "Reward on dev against lr" in page
    assert "Reward on dev against entropy" in page


def test_another_search_in_the_folder_is_refused(found: Any, tmp_path: Path) -> None:
    config = found[0]
    with pytest.raises(ValueError, match=r"tune\.budget_tokens was 200, is 300"):
        run_tune(replace(config, budget_tokens=300))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="holds something else than a search"):
        run_tune(replace(config, out=tmp_path))


def test_a_journal_that_cannot_be_written_is_refused(found: Any, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(OSError, match=JOURNAL):
        run_tune(replace(found[0], out=tmp_path))


def test_without_optuna_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(SystemExit):
        main(["tune", "--env", "rlseq/Copy-v0", "--agent", "reinforce"])
    assert "pip install 'rlseq[tune]'" in capsys.readouterr().err
