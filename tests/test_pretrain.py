"""Pre-training of the small models, and the pairs that they are trained on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import pretrain
import record
from recipes import synopses

from rlseq.training import checkpoint

INDEX = """Package: libfoo1
Description-md5: 0
Description-en: reads foo
 Foo is a format
 of nothing.
 .
 It can:
  * read
  - write

Package: libfoo-dev
Description-md5: 1
Description-en: reads foo (headers)
 Headers of foo.

Package: foo-tools
Description-md5: 2
Description-en: tools
 Foo is a format of nothing.
 .
 Tools for it.

Package: bar
Description-md5: 3
Description-en: draws bars
 Bars, and nothing else.

Package: bar-again
Description-md5: 4
Description-en: draws bars again
 Bars, and nothing else.

Package: no-text
Description-md5: 5
Description-en: nothing
"""


def test_descriptions_lose_their_formatting_and_families_stay_together() -> None:
    entries = list(synopses.packages(INDEX))
    assert [entry.name for entry in entries] == ["libfoo1", "libfoo-dev", "foo-tools", "bar", "bar-again"]
    assert entries[0].description == "Foo is a format of nothing. It can: read write"
    foo, headers, tools, bar, again = synopses.families(entries)
    assert foo == headers == tools != bar
    assert bar == again
    parts = synopses.split(entries)
    pairs = [pair for part in parts.values() for pair in part]
    assert ("Bars, and nothing else.", "draws bars") in pairs  # a description is used once
    assert len(pairs) == 4


def test_parts_are_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    stanzas = [f"Package: p{i}x\nDescription-en: makes {i}\n The package {i}.\n" for i in range(2000)]
    index = tmp_path / "Translation-en"
    index.write_text("\n".join(stanzas), "utf-8")
    counts = synopses.write(tmp_path / "pairs", [index])
    assert sum(counts.values()) == 2000
    assert 60 < counts["dev"] < 140
    assert 60 < counts["test"] < 140
    with pytest.raises(FileExistsError, match="is there already"):
        synopses.write(tmp_path / "pairs", [index])
    with pytest.raises(FileNotFoundError, match="no index at"):
        synopses.write(tmp_path / "others", [tmp_path / "absent"])
    assert not (tmp_path / "others").exists()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A few dozen pairs, in a folder of two files."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    words = ["red", "green", "blue", "old", "new", "small"], ["house", "boat", "tree", "moon", "star", "bird"]
    lines = [f"this is the {a} {b} of a friend\t{a} {b}\n" for a, b in product(*words)]
    (folder / "train.tsv").write_text("".join(lines), "utf-8")
    (folder / "dev.tsv").write_text("".join(lines[::5]), "utf-8")
    return folder


def tiny(name: str) -> pretrain.Kind:
    """The kind of a name, small enough for seconds."""
    kind, size = pretrain.KINDS[name], {"t5": 60, "llama": 300}[name]
    small: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "rows": 8, "updates": 6, "look": 2}
    return replace(kind, setting=replace(kind.setting, vocabulary=size, warm_up=2, **small))


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_a_model_is_trained_saved_and_loaded(name: str, pairs: Path, monkeypatch: Any, capsys: Any) -> None:
    """The folder that it writes is read by plain transformers, and writes the same texts there."""
    transformers = pytest.importorskip("transformers")
    out, results = pairs.parent / "model", pairs.parent / "results"
    monkeypatch.setitem(pretrain.KINDS, name, tiny(name))
    monkeypatch.setattr(record, "write", partial(record.write, folder=results))
    arguments = [name, "--pairs", str(pairs), "--out", str(out), "--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", ["benchmarks/pretrain.py", *arguments])
    pretrain.main()
    assert "nats per token, train " in capsys.readouterr().out
    found = json.loads((results / f"pretrain-{name}.json").read_text("utf-8"))
    assert str(pairs.parent) not in found["command"]
    assert found["command"].startswith(f"python benchmarks/pretrain.py {name} --pairs")
    found = found["results"]
    assert found["updates"] == 6
    assert found["curve"][-1]["dev"] < found["curve"][0]["dev"]
    assert set(found["dev"]["greedy"]) == {"rouge_l", "bleu", "chrf"}

    family = {"t5": transformers.AutoModelForSeq2SeqLM, "llama": transformers.AutoModelForCausalLM}[name]
    model, tokenizer = family.from_pretrained(out), transformers.AutoTokenizer.from_pretrained(out)
    sources = [sample["source"] for sample in found["samples"]]
    texts = pretrain.written(model, tokenizer, pretrain.KINDS[name], sources)
    assert texts == [sample["text"] for sample in found["samples"]]
    read = tokenizer(sources[0])["input_ids"]
    assert tokenizer.decode(read, skip_special_tokens=True) == sources[0]
    assert (read[-1] == tokenizer.eos_token_id) is (name == "t5")


def test_copies_become_rarer() -> None:
    rows, setting = [([5, 6, 7, 1], [8, 1])] * 200, replace(pretrain.Setting(), copied=2, updates=100)
    shares = [
        sum(target == [5, 6, 1] for _, target in pretrain.with_copies(rows, update, setting)) / len(rows)
        for update in (0, 30, 60, 90)
    ]
    assert shares[0] == 1
    assert 0.4 < shares[1] < 0.6
    assert shares[2:] == [0, 0]
    assert pretrain.with_copies(rows, 0, replace(setting, copies=0)) == rows


def test_a_run_that_was_killed_goes_on_exactly(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights after six updates are the same whether or not a kill came after the third."""
    pytest.importorskip("transformers")
    kind, folder = tiny("t5"), pairs.parent

    def weights(name: str) -> dict[str, torch.Tensor]:
        pretrain.pretrain(kind, pairs, folder / name, minutes=60)
        tensors = checkpoint.load(folder / f"{name}.run" / "checkpoints")
        assert tensors is not None
        return dict(tensors[1]["model"])

    whole = weights("whole")
    copytree(folder / "whole.run" / "tokenizer", folder / "killed.run" / "tokenizer")
    step = pretrain.Run.step

    def killed(run: pretrain.Run, batch: dict[str, torch.Tensor]) -> float:
        if run.update == 3:
            run.save()
            raise KeyboardInterrupt
        return step(run, batch)

    monkeypatch.setattr(pretrain.Run, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        weights("killed")
    monkeypatch.setattr(pretrain.Run, "step", step)
    assert not (folder / "killed").exists()
    resumed = weights("killed")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_the_learning_rate_falls_with_updates_or_with_time() -> None:
    setting = pretrain.Setting(updates=100, warm_up=10, lr=1.0)
    assert pretrain.rate(setting, 0, 0.0) == pytest.approx(0.1)
    assert pretrain.rate(setting, 50, 0.0) == pytest.approx(0.5)
    assert pretrain.rate(setting, 50, 0.9) == pytest.approx(0.1)
    assert pretrain.rate(setting, 50, 2.0) == 0.0


def test_a_file_without_pairs_is_refused(pairs: Path) -> None:
    (pairs / "train.tsv").write_text("no tab\n", "utf-8")
    with pytest.raises(ValueError, match=r"train\.tsv has no line with a source, a tab and a target"):
        pretrain.pretrain(tiny("t5"), pairs, pairs.parent / "model", minutes=1)


def test_a_recorded_command_can_be_pasted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/chat.py", "--reward", "form + 0.5*bleu_3"])
    found = json.loads(record.write("any", {}, tmp_path).read_text("utf-8"))
    assert found["command"] == "python benchmarks/chat.py --reward 'form + 0.5*bleu_3'"
