"""Run folders: what is in them, who may write to them, and what a run that was killed comes to."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.training.alarms import ALARMS, Alarm
from rlseq.utils.files import locked, read_sealed, sign, write_sealed

TASK: dict[str, Any] = {"num_envs": 8, "items": 20, "length": 3}


def setting(**hyper: Any) -> tuple[Any, Any, Any]:
    env = rlseq.make("rlseq/Copy-v0", **TASK)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    fresh = rlseq.make("rlseq/Copy-v0", data_seed=1, **TASK)
    return rlseq.make_agent("reinforce", policy, **{"baseline": "moving_average", **hyper}), env, fresh


def run(out: Path, updates: int = 6, **options: Any) -> Any:
    hyper = options.pop("hyper", {})
    agent, env, fresh = setting(**hyper)
    return rlseq.train(agent, env, updates, fresh, **{"eval_every": 2, "out": out, **options})


def numbers(out: Path) -> tuple[Any, Any]:
    """Everything that must be the same; seconds cannot be."""
    results = json.loads((out / "results.json").read_text("utf-8"))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    for row in (results, *rows):
        del row["seconds"]
    del results["metrics"], results["checksum"]  # which depend on the seconds
    return results, rows


def test_a_run_leaves_a_folder(tmp_path: Path) -> None:
    history = run(tmp_path / "run")
    results, rows = numbers(tmp_path / "run")
    assert rows == history
    assert results["schema"] == "rlseq.run/4"
    assert results["status"] == "finished"
    assert results["updates"] == 6
    assert results["episodes"] == 6 * 8
    assert 6 * 8 <= results["generated_tokens"] <= 6 * 8 * 4
    assert results["tokens"] == results["generated_tokens"]
    assert [row["update"] for row in results["curve"]] == [2, 4, 6]
    assert results["final"]["reward"] == results["curve"][-1]["eval_reward"]
    assert {"reward", "length", "exact", "self_bleu", "repetition", "peakiness"} <= set(results["final"])
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert config["agent"]["baseline"]["class"] == "MovingAverage"
    assert config["machine"]["torch"] == torch.__version__
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_samples_are_one_text_a_line(tmp_path: Path) -> None:
    run(tmp_path)
    files = sorted((tmp_path / "samples").iterdir())
    assert [file.stem for file in files] == ["00000002", "00000004", "00000006"]
    lines = [json.loads(line) for line in files[-1].read_text("utf-8").splitlines()]
    assert [line["index"] for line in lines] == list(range(20))
    assert set(lines[0]) == {"index", "source", "references", "text", "scores"}
    assert lines[0]["references"] == [lines[0]["source"]]
    mean = sum(line["scores"]["reward"] for line in lines) / 20
    assert mean == pytest.approx(numbers(tmp_path)[0]["final"]["reward"])


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    run(tmp_path, updates=12)
    best = numbers(tmp_path)[0]["best"]
    rewards = {row["update"]: row["eval_reward"] for row in numbers(tmp_path)[0]["curve"]}
    assert rewards[best["update"]] == best["reward"] == max(rewards.values())
    assert set(rlseq.checkpoint.steps(tmp_path / "checkpoints")) == {best["update"], 10, 12}


def test_writing_a_folder_changes_no_number(tmp_path: Path) -> None:
    agent, env, fresh = setting()
    assert run(tmp_path) == rlseq.train(agent, env, 6, fresh, eval_every=2)


def test_a_longer_run_goes_on_where_a_shorter_one_ended(tmp_path: Path) -> None:
    run(tmp_path / "short", updates=4)
    assert run(tmp_path / "short") == run(tmp_path / "long")
    assert numbers(tmp_path / "short") == numbers(tmp_path / "long")


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = numbers(tmp_path)
    assert run(tmp_path) == first
    assert numbers(tmp_path) == before


def test_a_budget_of_tokens_is_kept(tmp_path: Path) -> None:
    agent, env, fresh = setting()
    rlseq.train(agent, env, eval_env=fresh, eval_every=100, budget_tokens=300, out=tmp_path)
    results = numbers(tmp_path)[0]
    assert 300 <= results["tokens"] < 300 + 8 * 4
    assert [row["tokens"] // 100 for row in results["curve"]] == [1, 2, 3]


KILLED = """
import os, random, signal, sys, time
import rlseq, torch
from tests.test_log import run
torch.set_num_threads(1)
out = sys.argv[1]
dice, kills = random.Random(int(sys.argv[2])), 0
while kills < 10:
    child = os.fork()
    if not child:
        run(out, updates=60, eval_every=5)
        os._exit(0)
    time.sleep(dice.uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    kills += os.waitpid(child, 0)[1] == signal.SIGKILL
    if os.path.exists(out + "/results.json") and '"finished"' in open(out + "/results.json").read():
        break
run(out, updates=60, eval_every=5)
print(kills)
"""


def test_ten_kills_at_random_moments_change_no_number(tmp_path: Path) -> None:
    run(tmp_path / "whole", updates=60, eval_every=5)
    killed = str(tmp_path / "killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    result = subprocess.run(
        [sys.executable, "-c", KILLED, killed, "0"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 5, "too fast to be killed: make the run longer"
    assert numbers(Path(killed)) == numbers(tmp_path / "whole")
    last = "samples/00000060.jsonl"
    assert (Path(killed) / last).read_text("utf-8") == (tmp_path / "whole" / last).read_text("utf-8")


def test_ctrl_c_stops_after_the_update_with_a_checkpoint(tmp_path: Path, capsys: Any) -> None:
    def press(row: dict[str, float]) -> None:
        if row["update"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", on_update=press)
    assert "stopping after this update" in capsys.readouterr().err
    assert numbers(tmp_path / "run")[0]["status"] == "interrupted"
    assert rlseq.checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == 3
    assert run(tmp_path / "run") == run(tmp_path / "whole")
    assert signal.getsignal(signal.SIGINT) is before


def test_another_configuration_is_refused_and_the_differences_are_listed(tmp_path: Path) -> None:
    run(tmp_path)
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*.json*"))
    with pytest.raises(ValueError, match="another configuration") as error:
        run(tmp_path, hyper={"lr": 0.5, "gamma": 0.9})
    assert "agent.lr was 0.0001, is 0.5" in str(error.value)
    assert "agent.gamma was 1.0, is 0.9" in str(error.value)
    assert "policy" not in str(error.value)
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*.json*")) == before


def test_a_folder_with_a_run_is_not_started_anew(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match=r"already holds a run; resume=True resumes it"):
        run(tmp_path, resume=False)


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    holder = locked(tmp_path / "lock")
    sign(holder)
    with pytest.raises(ValueError, match=rf"is being written by process {os.getpid()}"):
        run(tmp_path)
    holder.close()
    run(tmp_path)


def test_a_full_disk_ends_with_the_last_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(handle: int) -> None:
        if (tmp_path / "samples" / "00000004.jsonl").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            run(tmp_path)
    found = rlseq.checkpoint.load(tmp_path / "checkpoints")
    assert found is not None
    assert found[0] == 2
    assert run(tmp_path) == run(tmp_path / "whole")


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        run(tmp_path / "file" / "run")


def test_without_tensorboard_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name)
    )
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert capsys.readouterr().err.count("no TensorBoard files: pip install") == 1


@pytest.mark.parametrize(("module", "extra"), [("wandb", "log"), ("trackio", "track")])
def test_trackers_are_told_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    told: list[Any] = []

    class Service:
        @staticmethod
        def init(project: str, config: dict[str, Any]) -> Any:
            told.append((project, config["agent"]["class"]))
            return Service

        @staticmethod
        def log(row: dict[str, float], step: int) -> None:
            told.append(step)

        @staticmethod
        def finish() -> None:
            told.append("finished")

    monkeypatch.setitem(sys.modules, module, Service)
    asked: dict[str, Any] = {f"{module}_project": "mine"}
    run(tmp_path / "a", **asked)
    assert told == [("mine", "REINFORCE"), 1, 2, 3, 4, 5, 6, "finished"]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"{module} is not installed: pip install 'rlseq\[{extra}\]'"):
        run(tmp_path / "b", **asked)


def test_half_a_line_of_metrics_does_no_harm(tmp_path: Path) -> None:
    run(tmp_path / "a", updates=4)
    with (tmp_path / "a" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"update": 5.0, "lo')
    assert run(tmp_path / "a") == run(tmp_path / "b")


def hashed(folder: Path) -> dict[str, str]:
    """Every file and folder with a checksum of its bytes."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes() if path.is_file() else b"").hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_checkpoints(folder: Path) -> None:
    for path in (folder / "checkpoints").glob("*.safetensors"):
        flip(path)


def of_another_version(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text("utf-8").replace("rlseq.run/4", "rlseq.run/9"), "utf-8")


def of_an_agent_with_more_settings(folder: Path) -> None:
    config = read_sealed(folder / "config.json")
    config["agent"]["removed"] = 1
    write_sealed(folder / "config.json", config)


REFUSALS: list[tuple[str, Callable[[Path], Any], dict[str, Any]]] = [
    ("another configuration", lambda folder: None, {"hyper": {"lr": 0.5}}),
    ("already holds a run", lambda folder: None, {"resume": False}),
    ("updates must be an integer ≥ 1", lambda folder: None, {"updates": 0}),
    ("wandb is not installed", lambda folder: None, {"wandb_project": "mine"}),
    ("no other checkpoint in .* is intact", damage_checkpoints, {}),
    (r"metrics\.jsonl was changed", lambda folder: flip(folder / "metrics.jsonl"), {}),
    (r"metrics\.jsonl ends after", lambda folder: (folder / "metrics.jsonl").write_text("", "utf-8"), {}),
    (r"metrics\.jsonl cannot be read", lambda folder: (folder / "metrics.jsonl").unlink(), {}),
    (r"config\.json", lambda folder: flip(folder / "config.json"), {}),
    ("another version of rlseq", of_another_version, {}),
    (r"another version of \w+, with the settings removed;", of_an_agent_with_more_settings, {}),
]


@pytest.mark.parametrize(("message", "damage", "options"), REFUSALS)
def test_a_refused_run_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, damage: Any, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run(tmp_path)
    (tmp_path / ".run.json.0011.draft").write_text("left by a kill", "utf-8")
    damage(tmp_path)
    before = hashed(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **{"updates": 8, **options})
    assert hashed(tmp_path) == before


def test_a_run_that_is_refused_before_it_began_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="wandb is not installed"):
        run(tmp_path / "run", wandb_project="mine")
    assert not list(tmp_path.iterdir())


def test_a_run_held_by_another_process_keeps_every_byte(tmp_path: Path) -> None:
    run(tmp_path)
    holder = locked(tmp_path / "lock")
    before = hashed(tmp_path)
    with pytest.raises(ValueError, match="is being written by process"):
        run(tmp_path, updates=8)
    assert hashed(tmp_path) == before
    holder.close()


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    run(tmp_path / "a", updates=4)
    flip(tmp_path / "a" / "checkpoints" / "00000004.safetensors")
    with pytest.warns(UserWarning, match=r"00000004\.safetensors was changed"):
        run(tmp_path / "a")
    run(tmp_path / "b")
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")


def breaking(at: int) -> Any:
    """A reward that fails in an update."""
    calls: list[int] = []

    def reward(tokens: torch.Tensor, mask: torch.Tensor, context: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > at:
            raise ZeroDivisionError("inside the reward")
        return (tokens * mask).sum(1) % 7 / 7

    return reward


def test_an_error_leaves_all_rows_before_it_and_the_status_failed(tmp_path: Path) -> None:
    agent, env, _ = setting()
    env.parts = {"mine": breaking(at=7)}
    with pytest.raises(ZeroDivisionError, match="inside the reward"):
        rlseq.train(agent, env, 60, out=tmp_path, alarms="ignore", eval_every=100)
    results, rows = numbers(tmp_path)
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert results["status"] == "failed"
    assert results["error"] == "ZeroDivisionError: inside the reward"
    assert results["updates"] == 7
    assert results["checkpoint"] is None


def test_a_metric_that_cannot_be_fetched_does_not_hide_the_error(tmp_path: Path) -> None:
    agent, env, _ = setting()
    env.parts = {"mine": breaking(at=5)}
    real = agent.update
    counted: list[int] = []

    def update(batch: Any) -> Any:
        counted.append(1)
        return real(batch) | ({"odd": torch.zeros(2)} if len(counted) == 4 else {})

    agent.update = update
    with pytest.raises(ZeroDivisionError, match="inside the reward"):
        rlseq.train(agent, env, 60, out=tmp_path, alarms="ignore", eval_every=100)
    results, rows = numbers(tmp_path)
    assert [row["update"] for row in rows] == [1, 2, 3]
    assert results["status"] == "failed"


def test_a_full_disk_does_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    agent, env, _ = setting()
    env.parts = {"mine": breaking(at=5)}

    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ZeroDivisionError, match="inside the reward"):
        rlseq.train(agent, env, 60, out=tmp_path, alarms="ignore", eval_every=100)
    assert "the results of the run could not be written (" in capsys.readouterr().err


def test_a_failed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def broken(row: dict[str, float]) -> None:
        if row["update"] == 5:
            raise ZeroDivisionError("in a callback")

    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "a", on_update=broken)
    assert numbers(tmp_path / "a")[0]["status"] == "failed"
    assert run(tmp_path / "a") == run(tmp_path / "b")
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")


def test_sigterm_stops_after_the_update_with_a_checkpoint(tmp_path: Path) -> None:
    def press(row: dict[str, float]) -> None:
        if row["update"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "run", on_update=press)
    assert end.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert numbers(tmp_path / "run")[0]["status"] == "interrupted"
    assert rlseq.checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == 3
    assert run(tmp_path / "run") == run(tmp_path / "whole")


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    def press(row: dict[str, float]) -> None:
        if row["update"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", on_update=press)
    results, rows = numbers(tmp_path / "run")
    assert results["status"] == "interrupted"
    assert (results["checkpoint"], len(rows)) == (2, 3)
    assert run(tmp_path / "run") == run(tmp_path / "whole")


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl"])
def test_a_planted_link_is_refused_by_name(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", "utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(victim)
    with pytest.raises(ValueError, match=rf"{name} is a link; remove it"):
        run(tmp_path / "run")
    assert victim.read_text("utf-8") == "precious"


def test_what_a_kill_left_is_cleaned_up(tmp_path: Path) -> None:
    run(tmp_path, updates=4)
    left = [tmp_path / part / ".x.json.00ff.draft" for part in ("", "samples", "checkpoints")]
    for path in left:
        path.write_text("half", "utf-8")
    run(tmp_path)
    assert not any(path.exists() for path in left)


def alarm_at(update: int) -> Alarm:
    return lambda rows: f"reached {update}" if rows[-1]["update"] >= update else None


def test_alarms_survive_a_resumption_and_are_given_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, at in (("early", 3), ("late", 8)):
        monkeypatch.setitem(ALARMS, name, alarm_at(at))
    said: list[str] = []

    def written(folder: Path) -> list[str]:
        return [a for a in read_sealed(folder / "alarms.json")["alarms"] if "reached" in a]

    def stop(row: dict[str, float]) -> None:
        if row["update"] == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "a", updates=10, on_update=stop, alarms=said.append)
    assert written(tmp_path / "a") == ["update 3: early: reached 3"]
    for _ in range(2):
        run(tmp_path / "a", updates=10, alarms=said.append)
        assert written(tmp_path / "a") == ["update 3: early: reached 3", "update 8: late: reached 8"]
    assert [line for line in said if "reached" in line] == written(tmp_path / "a")


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_a_run_goes_on_with_and_without_a_closer_look(tmp_path: Path, first: bool, second: bool) -> None:
    run(tmp_path / "a", updates=4, probe=first)
    run(tmp_path / "a", updates=6, probe=second)
    whole = run(tmp_path / "a", updates=8, probe=first)
    straight = run(tmp_path / "b", updates=8, probe=first)
    assert [row["loss"] for row in whole] == [row["loss"] for row in straight]
    assert whole[-1] == straight[-1]  # with kl_start, from the policy at the start


def test_disk_and_time_grow_with_the_number_of_updates_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that an evaluation writes do not depend on how many came before it."""
    written: list[int] = []
    real = rlseq.utils.files.write_whole

    def counted(path: Path, data: bytes) -> None:
        written.append(len(data))
        real(path, data)

    for module in (rlseq.utils.files, rlseq.checkpoint, rlseq.training.run_folder):
        monkeypatch.setattr(module, "write_whole", counted)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    agent, env, fresh = setting()
    sizes: list[int] = []

    def measure(row: dict[str, float]) -> None:
        sizes.append(sum(written))
        written.clear()

    rlseq.train(agent, env, 60, fresh, eval_every=1, out=tmp_path, on_update=measure, alarms="ignore")
    assert max(sizes[50:]) < 1.2 * max(sizes[10:20])
