"""From the folder of a model, through the command, and back to plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli import main
from rlseq.engine.decode import Greedy
from tests.pretrained.conftest import Folder
from tests.pretrained.tiny import with_weights

transformers: Any = pytest.importorskip("transformers")
WHOLE = ["t5", "bart", "marian", "m2m100", "nllb", "gpt2", "llama"]
LANGUAGES = {"nllb": "eng_Latn,deu_Latn", "m2m100": "en,de"}


@pytest.fixture(scope="session")
def model(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`model(name)` returns the folder of a tiny model with weights and tokenizer."""
    return cache(lambda name: with_weights(folder(name), tmp_path_factory.mktemp(f"model-{name}")))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    short = ("the dog", "el perro"), ("a car", "the boat"), ("the house", "la casa")  # few tokens, few steps
    lines = (f"{a} {i}\t{b}\n" for i in range(12) for a, b in short)
    path.write_text("".join(lines))
    return path


def command(*words: object) -> None:
    main([str(word) for word in words])


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("name", WHOLE)
def test_the_saved_model_writes_the_same_in_transformers(
    name: str, model: Any, pairs: Path, tmp_path: Path
) -> None:
    options = ["--option", f"path={pairs}", "reward=chrf"]  # which few texts have none of
    if name in LANGUAGES:
        options.append(f"languages={LANGUAGES[name].split(',')}")
    run, out = tmp_path / "run", tmp_path / "out"
    command("train", "rloo", "--env", "rlseq/Parallel-v0", *options, "num_envs=8", "--samples", "2",
            "--policy", "hf", f"model={model(name)}", "--budget-tokens", "100", "--evaluations", "1",
            "--out", run)  # fmt: skip
    command("save", run, out, "--transformers")
    found = rlseq.load(run)
    sources = ["the dog 1", "a car 2"]
    ours = [[c.text for c in row] for row in found.generate(sources, Greedy())]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    auto = (
        transformers.AutoModelForSeq2SeqLM
        if found.policy.inner.config.is_encoder_decoder
        else transformers.AutoModelForCausalLM
    )
    network = auto.from_pretrained(out)
    for source, (text,) in zip(sources, ours, strict=True):
        ids = tokenizer(source, return_tensors="pt").input_ids
        if not network.config.is_encoder_decoder and int(ids[0, -1]) == tokenizer.eos_token_id:
            ids = ids[:, :-1]
        written = network.generate(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
        before = len(found.policy.words.prefix) if network.config.is_encoder_decoder else ids.shape[1]
        written = written[before:]
        assert tokenizer.decode(written, skip_special_tokens=True) == text
