"""What a run writes names neither the machine nor the folders of the person who made it."""

from __future__ import annotations

import platform
import socket
from pathlib import Path

import pytest
import torch

import rlseq
from rlseq.utils.places import command_line, without_places


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('File "/opt/some python/lib/torch/nn.py", line 3', 'File "nn.py", line 3'),
        ("cannot open '/home/somebody/data/a.txt'", "cannot open 'a.txt'"),
        ("/home/somebody/data/a.txt:3: too long", "a.txt:3: too long"),
        ("--out=/home/somebody/run", "--out=run"),
        ("a/b, and/or, 1/2, https://host.org/a/b, rlseq/Copy-v0", None),
        ("[/bold red] and </b/c>", None),
        ("", None),
    ],
)
def test_absolute_paths_become_names(text: str, wanted: str | None) -> None:
    assert without_places(text) == (text if wanted is None else wanted)


def test_paths_in_the_working_folder_become_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_places(f'File "{tmp_path}/src/mine.py", line 1') == 'File "src/mine.py", line 1'
    words = ["/usr/bin/rlseq", "train", "--out", f"{tmp_path}/runs/a b", "--data=/x y/z"]
    assert command_line(words) == "rlseq train --out 'runs/a b' --data=z"


def named_in(folder: Path, *words: str) -> list[str]:
    """The files below a folder that hold one of the words, in their name or their content."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for word in words:
            if word in str(path.relative_to(folder)) or word.encode() in content:
                found.append(f"{path.relative_to(folder)}: {word}")
    return found


def private(folder: Path) -> list[str]:
    """The words that say on which machine and in which folder a run was made."""
    names = {socket.gethostname(), platform.node()}
    return [str(folder), f"{Path.home()}/", *(name for name in names if len(name) > 5)]  # no word of English


def test_a_training_names_no_machine_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin" / "rlseq"), "--out", str(tmp_path / "run")])
    monkeypatch.setattr(socket, "gethostname", lambda: "a-name-of-a-machine")
    env = rlseq.make("rlseq/Copy-v0", num_envs=8, items=20, length=3)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    rlseq.train(agent, env, updates=2, eval_env=env, eval_every=1, out=tmp_path / "run")
    assert named_in(tmp_path / "run", *private(tmp_path)) == []
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_run_that_fails_names_no_folder(tmp_path: Path) -> None:
    def reward(*_: object) -> torch.Tensor:
        raise OSError(f"cannot read {tmp_path}/data.txt")

    env = rlseq.SequenceEnv(vocab=rlseq.Vocab.numbered(4), max_len=3, reward=reward, num_envs=4)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    with pytest.raises(OSError, match="cannot read"):
        rlseq.train(agent, env, updates=2, out=tmp_path / "run")
    assert named_in(tmp_path / "run", *private(tmp_path)) == []
    assert "cannot read data.txt" in (tmp_path / "run" / "results.json").read_text("utf-8")


def test_tensorboard_reads_what_was_written_and_resumed(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from rlseq.training.sinks import tensorboard

    for update, values in ((0, [1.0, 2.0, 3.0]), (2, [7.0])):  # the second begins again after update 2
        told = tensorboard(tmp_path, update)
        assert told is not None
        for i, value in enumerate(values):
            told[0]({"update": update + i + 1, "reward": value})
        told[1]()
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("reward")] == [(1, 1.0), (2, 2.0), (3, 7.0)]
