"""Bad input is refused before training, by one error that says how to mend it."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

import rlseq
from tests.pretrained.conftest import Folder
from tests.pretrained.models import model_of, pairs
from tests.pretrained.tiny import with_weights

transformers: Any = pytest.importorskip("transformers")


def made(model: Any, env: Any = None, **sizes: Any) -> Any:
    return rlseq.make_policy("hf", env or pairs()[0], model=model, **sizes)


@pytest.fixture(scope="module")
def t5(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_weights(folder("t5"), tmp_path_factory.mktemp("t5"))


def with_tokenizer(path: Path, **options: Any) -> Any:
    return rlseq.make("rlseq/Parallel-v0", num_envs=4, tokenizer=path, **options)


def test_a_model_that_is_no_model() -> None:
    with pytest.raises(TypeError, match="model must be the folder of a model, its name, or a PreTrained"):
        made(3)


def test_a_name_that_cannot_be_fetched(t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    env = with_tokenizer(t5)
    with pytest.raises(ValueError, match=r"there is no folder 'nobody/nothing'.*give the path of a folder"):
        made("nobody/nothing", env)
    copy = copytree(t5, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"the folder .* holds no model that can be loaded"):
        made(copy, env)


def test_a_model_without_a_decoder(t5: Path, tmp_path: Path) -> None:
    bert = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
    masked = transformers.BertForMaskedLM(bert)
    masked.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"\(bert\) has no decoder, so it writes no texts; take"):
        made(tmp_path / "bert", with_tokenizer(t5))
    with pytest.raises(ValueError, match="BertForMaskedLM writes no texts"):
        made(masked)


def test_a_task_with_words_of_its_own(t5: Path) -> None:
    with pytest.raises(ValueError, match=r"words of its own, .*rlseq.make\(id, tokenizer="):
        made(t5)


def test_the_tokenizer_of_another_model(t5: Path, folder: Folder, tmp_path: Path) -> None:
    bart = with_weights(folder("bart"), tmp_path / "bart")
    with pytest.raises(ValueError, match=r"tokenizer is of another model|the task writes"):
        made(bart, with_tokenizer(t5))
    with pytest.raises(ValueError, match=r"tokenizer is of another model|the task writes"):
        made(t5, with_tokenizer(bart))


def test_half_precision_that_overflows(t5: Path) -> None:
    with pytest.raises(ValueError, match=r'float16 is refused: T5 overflows.*dtype="bfloat16"'):
        made(t5, with_tokenizer(t5), dtype="float16")
    env, words = pairs()
    with pytest.raises(ValueError, match="float16 is refused"):
        made(model_of("t5", words).half(), env)


def test_a_text_longer_than_the_positions() -> None:
    env, words = pairs()
    model = model_of("bart", words, max_position_embeddings=4)
    with pytest.raises(ValueError, match=r"the source may have \d+ tokens, the model has 4 positions"):
        made(model, env)
    model = model_of("gpt2", words, n_positions=8)
    with pytest.raises(ValueError, match=r"prompt and text together may have \d+ tokens, the model has 8"):
        made(model, env)


def test_adapters_that_match_nothing() -> None:
    env, words = pairs()
    with pytest.raises(ValueError, match=r"found nothing to adapt .*linear layers of the model are .*\bq\b"):
        made(model_of("t5", words), env, peft={"target_modules": ["query"]})
    with pytest.raises(ValueError, match="is no configuration of adapters"):
        made(model_of("t5", words), env, peft={"rank": 3})
    with pytest.raises(TypeError, match=r"peft must be a peft.LoraConfig or its settings as a dict, got 8"):
        made(model_of("t5", words), env, peft=8)
    with pytest.raises(ValueError, match="adapters of the head"):
        made(model_of("gpt2", words), env, peft={"target_modules": ["lm_head"]})
    with pytest.raises(ValueError, match="learns prompts, which is not supported"):
        made(model_of("t5", words), env, peft={"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3})


def test_parts_that_cannot_be_frozen() -> None:
    env, words = pairs()
    with pytest.raises(ValueError, match=r"unknown part to freeze 'encoders'.*did you mean 'encoder'"):
        made(model_of("t5", words), env, freeze="encoders")
    with pytest.raises(ValueError, match="needs an encoder–decoder"):
        made(model_of("gpt2", words), env, freeze="encoder")
    with pytest.raises(ValueError, match="leaves nothing to train"):
        made(model_of("t5", words), env, freeze=("encoder", "decoder", "embeddings", "head"))


def test_attention_that_is_not_supported() -> None:
    env, words = pairs()
    with pytest.raises(ValueError, match="attention"):
        made(model_of("t5", words), env, attention="flash")


def test_a_model_whose_logits_the_policy_would_get_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new policy is compared with its model's own forward pass."""
    env, words = pairs()
    model = model_of("llama", words)
    forward = type(model).forward

    def scaled(*given: Any, **named: Any) -> Any:
        found = forward(*given, **named)
        found.logits = found.logits * 1.1
        return found

    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(ValueError, match=r"not supported: the policy's `features` differs from the model"):
        made(model, env)


def test_sliding_windows() -> None:
    env, words = pairs()
    window = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}
    with pytest.raises(ValueError, match=r"looks back 4 tokens in some layers.*smaller max_len"):
        made(model_of("qwen2", words, **window), env)


def test_a_task_without_a_source_for_the_encoder() -> None:
    env = rlseq.make("rlseq/Text-v0", num_envs=4)
    with pytest.raises(ValueError, match="has an encoder, and the task has no source for it to read"):
        made(model_of("t5", len(env.vocab)), env)


def test_a_picture() -> None:
    env = rlseq.make("rlseq/Captions-v0", num_envs=4, scenes=20)
    with pytest.raises(ValueError, match="the task shows image, which a language model does not read"):
        made(model_of("gpt2", len(env.vocab)), env)
