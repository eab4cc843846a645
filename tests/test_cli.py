"""What people type, and what they see."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import yaml

import rlseq
from rlseq.cli.command_line import COMMANDS, main
from rlseq.cli.options import flags, literal, settings
from rlseq.engine.evaluation import evaluate_texts
from rlseq.training.experiment_envs import held_out_options
from rlseq.utils.files import read_sealed, write_json, write_sealed
from rlseq.utils.settings import descriptions

TASK = (
    "--env",
    "rlseq/Copy-v0",
    "--option",
    "length=3",
    "items=30",
    "num_envs=16",
    "--policy",
    "gru",
    "hidden=16",
)
NUMBERS = ("--env", "rlseq/Numbers-v0", "--policy", "seq2seq", "hidden=16")


def typed(*words: str) -> int:
    """Run a command here, where torch is loaded already; its status."""
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run that `rlseq train` made."""
    folder = str(tmp_path_factory.mktemp("cli") / "run")
    assert typed("train", "mle", *TASK, "--lr", "1e-2", "--budget-tokens", "8e3", "--out", folder) == 0
    return folder


def test_help_is_there_in_a_second_without_torch() -> None:
    """Seconds of a processor, so that others on this machine do not count."""
    program = (
        "import sys; from rlseq.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    for command in COMMANDS:
        assert command in result.stdout
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1


@pytest.mark.parametrize(
    ("what", "name", "words"),
    [
        ("envs", "rlseq/Copy-v0", ["rlseq/Reverse-v0"]),
        ("agents", "ppo", ["scst", "sb3-ppo"]),
        ("policies", "lstm", ["transformer"]),
        ("metrics", "bleu", ["cider_d", "self_bleu"]),
    ],
)
def test_names_are_listed_and_described(what: str, name: str, words: list[str], capsys: Any) -> None:
    assert typed(what) == 0
    listed = capsys.readouterr().out
    assert all(word in listed for word in (name, *words))
    assert typed(what, name) == 0
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_no_hyper_parameter_has_the_name_of_a_setting_of_the_run() -> None:
    from rlseq.agents import AGENTS
    from rlseq.cli.training import FLAGS_OF_RUN, FLAGS_OF_TRAINING
    from rlseq.compare.plan import OF_RUN
    from rlseq.training.config import TrainConfig
    from rlseq.training.run_config import RunConfig

    of_run = [
        name for name, _, _ in (*flags(RunConfig, FLAGS_OF_RUN), *flags(TrainConfig, FLAGS_OF_TRAINING))
    ]
    for agent, cls in AGENTS.items():
        own = {name for name, _, _ in flags(cls, {}, without=("policy",))}
        assert not own & {*of_run, *OF_RUN}, agent


def test_every_hyper_parameter_is_a_flag_with_its_comment(capsys: Any) -> None:
    from rlseq.agents import AGENTS

    assert typed("train", "ppo", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    comments = descriptions(AGENTS["ppo"])
    names = [name for name, _, _ in flags(AGENTS["ppo"], {}, without=("policy",))]
    assert {"lr", "schedule", "baseline", "decode", "clip"} <= set(names)
    for name in names:
        assert comments[name], f"{name} has no comment"
        assert f"--{name.replace('_', '-')}" in shown
        assert comments[name] in shown


def test_a_run_is_trained_scored_and_used(run: str, capsys: Any) -> None:
    assert typed("evaluate", run, "--metrics", "exact", "bleu", "--decode", "beam", "--texts", "40") == 0
    scores = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert {"reward", "length", "exact", "bleu"} <= set(scores)
    assert float(scores["reward"]) > 0.2
    assert typed("generate", run, "a b c", "c b a", "--n", "2") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["1", "2", "1", "2"]
    assert float(lines[0][1]) >= float(lines[1][1])


def test_a_setting_of_another_decoding_is_refused(run: str, capsys: Any) -> None:
    assert typed("evaluate", run, "--temperature", "0.5") == 2
    assert "--decode greedy has no setting --temperature; leave it out" in capsys.readouterr().err
    assert typed("generate", run, "a b c", "--n", "7", "--top-k", "2") == 2
    assert "--decode beam has no setting --top-k; leave it out, or take" in capsys.readouterr().err
    assert typed("generate", run, "a b c", "--n", "7", "--decode", "sample", "--top-k", "2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_minimum_bayes_risk_is_tested_with_settings(run: str, capsys: Any) -> None:
    mbr = ("evaluate", run, "--decode", "mbr", "--texts", "4", "--samples")
    assert typed(*mbr, "2") == 2
    assert "as a command --utility bleu" in capsys.readouterr().err
    assert typed(*mbr, "2", "--utility", "bleu", "--beam", "2") == 0
    assert typed(*mbr, "2", "--utility", "bleu", "--top-k", "2", "--top-p", "0.9") == 0
    assert typed(*mbr, "2", "--utility", "bleu", "--top-k", "0") == 2
    assert "top_k must be an integer ≥ 1" in capsys.readouterr().err
    assert typed(*mbr, "1", "--utility", "bleu") == 2
    assert "samples must be an integer ≥ 2" in capsys.readouterr().err


def test_figures_of_all_texts_at_once_are_those_of_sacrebleu(run: str, capsys: Any) -> None:
    model = rlseq.load(run)
    policy, env = model.policy, model.task(**held_out_options(model.run.env))
    lines = evaluate_texts(policy, env).lines(env)
    texts, references = [line["text"] for line in lines], [line["references"][0] for line in lines]
    assert typed("evaluate", run, "--pooled", "bleu", "ter") == 0
    scores = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(scores["pooled_bleu"]) == pytest.approx(
        sacrebleu.corpus_bleu(texts, [references]).score, abs=1e-3
    )
    assert float(scores["pooled_ter"]) == pytest.approx(
        sacrebleu.corpus_ter(texts, [references]).score, abs=1e-3
    )
    assert typed("evaluate", run, "--pooled", "bleuu") == 2
    assert "did you mean 'bleu'" in capsys.readouterr().err


def test_texts_come_from_standard_input(run: str) -> None:
    command = [sys.executable, "-m", "rlseq", "generate", run, "--decode", "greedy"]
    result = subprocess.run(command, input="a b c\r\nb b b\n\n", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_settings_go_out_as_yaml_and_come_back(run: str, tmp_path: Path) -> None:
    content = yaml.safe_load((Path(run) / "command.yaml").read_text("utf-8"))
    assert content["lr"] == 0.01
    assert content["option"] == ["length=3", "items=30", "num_envs=16"]
    again = str(tmp_path / "again")
    assert typed("train", "mle", "--config", str(Path(run) / "command.yaml"), "--out", again) == 0
    first, second = (json.loads((Path(p) / "results.json").read_text("utf-8")) for p in (run, again))
    assert first["final"] == second["final"]


def test_a_policy_gradient_starts_from_likelihood(run: str, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "rl")
    words = [
        "train",
        "reinforce",
        *TASK,
        "--start",
        run,
        "--lr",
        "1e-6",
        "--budget-tokens",
        "64",
        "--out",
        out,
    ]
    assert typed(*words, "--decode.temperature", "0.9") == 0
    rewards = [
        json.loads((Path(p) / "results.json").read_text("utf-8"))["final"]["reward"] for p in (run, out)
    ]
    assert rewards[0] == pytest.approx(rewards[1], abs=0.02)


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Path, str]:
    """A file, and a run on it."""
    path, out = tmp_path / "pairs.tsv", str(tmp_path / "run")
    path.write_text("".join(f"{n:03d}\t{n:03d}\n" for n in range(200)), "utf-8")
    assert typed(*on(path), "--out", out) == 0
    return path, out


def on(path: Path) -> tuple[str, ...]:
    task = ("--env", "rlseq/Parallel-v0", "--option", f"path={path}", "num_envs=8")
    return ("train", "mle", *task, "--policy", "seq2seq", "hidden=8", "--budget-tokens", "64")


def test_a_run_goes_on_with_its_own_words_on_other_data(pairs: tuple[Path, str], capsys: Any) -> None:
    path, out = pairs
    text = path.read_text("utf-8")
    path.write_text(text.translate(str.maketrans("0123456789", "abcdefghij")), "utf-8")
    assert typed("evaluate", out) == 0
    said = capsys.readouterr().err
    assert f"rlseq: the data are not those on which {out} was trained: other files, or changed ones" in said
    assert typed("generate", out, "012") == 0
    assert typed(*on(path), "--start", out, "--out", f"{out}2") == 0
    assert rlseq.load(out).env.vocab == rlseq.load(f"{out}2").env.vocab  # type: ignore[union-attr]
    capsys.readouterr()
    assert typed(*on(path), "--policy", "seq2seq", "hidden=9", "--start", out, "--out", f"{out}3") == 2
    assert "'seq2seq hidden=9' contradicts that of" in capsys.readouterr().err
    assert not Path(f"{out}3").exists()


def test_a_warning_is_a_line(pairs: tuple[Path, str]) -> None:
    command = [sys.executable, "-m", "rlseq", "generate", pairs[1], "0x1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "warning: characters that were never read in training: 'x' (in '0x1')\n"


def test_a_run_of_another_version_is_refused(pairs: tuple[Path, str], capsys: Any) -> None:
    path, out = pairs
    config = Path(out) / "config.json"
    config.write_text(config.read_text("utf-8").replace("rlseq.run/4", "rlseq.run/1"), "utf-8")
    noted = {name: (Path(out) / name).read_bytes() for name in ("run.json", "command.yaml")}
    again = (*on(path), "--texts", "3", "--out", out)
    for words in (("evaluate", out), again, (*on(path), "--start", out)):
        assert typed(*words) == 2
        assert f"{out} was made by another version of rlseq (schema 'rlseq.run/1'" in capsys.readouterr().err
    assert noted == {name: (Path(out) / name).read_bytes() for name in noted}


def test_other_data_of_the_same_words_are_said(pairs: tuple[Path, str], capsys: Any) -> None:
    path, out = pairs
    assert typed("evaluate", out) == 0
    assert capsys.readouterr().err == "rlseq: tested on 20 held-out items\n"
    path.write_text("".join(f"{n:03d}\t{f'{n:03d}'[::-1]}\n" for n in range(200)), "utf-8")
    assert typed("evaluate", out) == 0
    assert f"the data are not those on which {out} was trained" in capsys.readouterr().err
    assert typed(*on(path), "--out", out) == 2
    assert "env.data.references was" in capsys.readouterr().err


def test_a_comparison_from_the_command_line(tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "out")
    words = [
        *("compare", *TASK, "--agents", "mle", "reinforce", "--hyper", "reinforce.lr=1e-2"),
        *("--seeds", "2", "--budget-tokens", "600", "--evaluations", "2", "--texts", "20", "--jobs", "2"),
    ]
    assert typed(*words, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "reinforce" in shown
    assert "report.html" in shown.replace("\n", "")
    config = json.loads((Path(out) / "config.json").read_text("utf-8"))
    assert config["agents"] == {"mle": {}, "reinforce": {"lr": 0.01}}
    assert config["policy"] == {"name": "gru", "hidden": 16}
    first = (Path(out) / "tables.md").read_text("utf-8")
    assert typed("report", out) == 0
    assert (Path(out) / "tables.md").read_text("utf-8") == first
    again = str(tmp_path / "again")
    assert typed("compare", "--config", str(Path(out) / "config.json"), "--jobs", "2", "--out", again) == 0
    results = [
        json.loads((Path(p) / "results.json").read_text("utf-8"))["tasks"][0]["pairs"] for p in (out, again)
    ]
    assert results[0] == results[1]


def test_the_demonstration_says_what_it_does_and_shows_what_was_learned(tmp_path: Path, capsys: Any) -> None:
    from rlseq.cli.demo import demo

    demo(tmp_path, seeds=2, budget_tokens=2000, start_tokens=2000, texts=20, evaluations=2, jobs=2)
    seen = capsys.readouterr().out
    for words in (
        "write them backwards",
        "200 pairs",
        "likelihood",
        "rloo",
        "against the best",
        "wanted",
        "report.html",
    ):
        assert words in seen.replace("\n", " ") or words in seen.replace("\n", "")


def test_the_doctor_names_what_is_missing_and_how_to_add_it(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    import rlseq.cli.doctor

    real = importlib.util.find_spec
    monkeypatch.setattr(rlseq.cli.doctor, "find_spec", lambda name: None if name == "wandb" else real(name))
    monkeypatch.setenv("COLUMNS", "120")
    assert typed("doctor") == 0
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert any("missing: Weights & Biases" in line and "rlseq[log]" in line for line in shown.splitlines())


BAD: list[tuple[tuple[str, ...], str]] = [
    (("demonstrate",), ""),
    (("demo", "--sed", "1"), ""),
    (("agents", "scts"), "unknown agent 'scts'; did you mean 'scst'"),
    (("train", "scts", "--env", "rlseq/Copy-v0"), "unknown agent 'scts'; did you mean 'scst'"),
    (("train", "scst"), "name a task"),
    (("train", "scst", "--env", "rlseq/Copi-v0"), "did you mean 'rlseq/Copy-v0'"),
    (("train", "scst", *TASK, "--budget-tokens", "0"), "budget_tokens must be a number in [1, 1e+18], got 0"),
    (("train", "scst", *TASK, "--metrics", "bleuu"), "unknown metric 'bleuu'; did you mean 'bleu'"),
    (("train", "scst", "--env", "rlseq/Enumerable-v0", "--metrics", "bleu"), "cannot have the metric 'bleu'"),
    (("train", "scst", "--env", "rlseq/Copy-v0", "--option", "lenght=3"), "did you mean 'length'"),
    (("train", "scst", *TASK, "--config", "nothing.yaml"), "nothing.yaml"),
    (("train", "mle", *TASK, "--epochs", "2"), "mle has no setting epochs; leave it out, or take an agent"),
    (("train", "scst", *TASK, "--no-overlap"), "scst has no setting overlap; leave it out, or take"),
    (("train", "rloo", *TASK, "--samples", "3"), "samples=3 texts of each context must divide"),
    (
        ("train", "mle", *NUMBERS, "--option", "split=test"),
        "split=test is what rlseq/Numbers-v0 is tested on",
    ),
    (("evaluate", "nothing"), "nothing: there is no such run or saved model"),
    (("report", "nothing"), "nothing holds no finished comparison"),
    (("compare", "--env", "rlseq/Copy-v0"), "name tasks and agents"),
    (
        ("compare", *TASK, "--agents", "mle", "--budget-tokens", "0"),
        "budget_tokens must be a number in [1, 1e+18], got 0",
    ),
    (("compare", *TASK, "--agents", "mle", "--hyper", "scst.lr=1"), "hyper must be agent.name=value"),
    (("compare", *TASK, "--agents", "mle", "--hyper", "mle.lrr=1"), "did you mean 'lr'"),
    (("compare", "--env", "rlseq/Enumerable-v0", "--agents", "reinforce"), "no references"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_what_cannot_be_ends_with_status_2_and_writes_nothing(
    words: tuple[str, ...], message: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(*words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_another_run_in_the_folder_is_refused_with_the_differences(run: str, capsys: Any) -> None:
    before = {path: path.read_bytes() for path in Path(run).rglob("*.*") if path.is_file()}
    assert typed("train", "mle", *TASK, "--lr", "0.5", "--out", run) == 2
    assert "run.hyper.lr was 0.01, is 0.5" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path(run).rglob("*.*") if path.is_file()} == before


def test_values_are_read_as_what_they_look_like() -> None:
    pairs = ["lr=1e-3", "items=200", "flag=true", "name=mean", "none=none", "pair=(1, 2)"]
    assert settings(pairs, "hyper") == {
        "lr": 1e-3, "items": 200, "flag": True, "name": "mean", "none": None, "pair": (1, 2),
    }  # fmt: skip
    assert literal("rlseq/Copy-v0") == "rlseq/Copy-v0"
    assert literal('{"train": ["a.en", "a.de"], "test": "b.tsv"}') == {
        "train": ["a.en", "a.de"],
        "test": "b.tsv",
    }
    assert literal("{1: object}") == "{1: object}"
    with pytest.raises(ValueError, match="option must be name=value, got 'items'"):
        settings(["items"], "option")


@pytest.mark.parametrize("sealed", [False, True])
def test_an_edited_job_does_not_make_evaluate_score_another_task(
    run: str, tmp_path: Path, capsys: Any, sealed: bool
) -> None:
    """Also where the checksum was made again, as for the job of another run."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    job = read_sealed(folder / "run.json")
    (write_sealed if sealed else write_json)(folder / "run.json", {**job, "env": "rlseq/Reverse-v0"})
    for words in (("evaluate", str(folder)), ("generate", str(folder), "a b c")):
        assert typed(*words) == 2
        said = capsys.readouterr().err
        assert f"{folder / 'run.json'} " in said
        assert not sealed or "run.env was 'rlseq/Copy-v0', is 'rlseq/Reverse-v0'" in said
