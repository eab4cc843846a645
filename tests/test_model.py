"""A run that stands on its own: it generates, scores, is saved and is tested without the data of training."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rlseq
from rlseq.cli import main
from rlseq.policies import Rotary
from rlseq.training.convert import convert
from rlseq.utils.files import read_sealed, write_sealed

SIZES = ("hidden=8", "embedding=8")


def typed(*words: object) -> int:
    """The status of a command."""
    try:
        main([str(word) for word in words])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def in_python(env: Any, out: Path, policy: str = "gru", **sizes: Any) -> Any:
    """A run of two updates, made in Python; its policy."""
    made = rlseq.make_policy(policy, env, **{"hidden": 8, "embedding": 8, **sizes})
    rlseq.train(rlseq.make_agent("reinforce", made), env, 2, out=out)
    return made


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{n:03d}\t{n % 7}{n % 5}{n % 3}{n % 2}\n" for n in range(100)), "utf-8")
    return path


def test_a_run_of_the_command_needs_neither_its_data_nor_its_folder(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    train = ("train", "mle", "--env", "rlseq/Parallel-v0", "--option", f"path={pairs}", "num_envs=8")
    assert typed(*train, "--policy", "seq2seq", *SIZES, "--budget-tokens", 64, "--out", run) == 0
    assert typed("generate", run, "012") == 0
    before = capsys.readouterr().out.splitlines()[-1]
    pairs.unlink()
    monkeypatch.chdir(elsewhere)
    assert typed("generate", run, "012") == 0
    assert capsys.readouterr().out.splitlines() == [before]
    model = rlseq.load(run)
    ((best,),) = model.generate(["012"])
    assert best.text == before
    assert model.score(["012"], [best.text])[0] <= 0
    assert typed("evaluate", run) == 2
    assert "no such file" in capsys.readouterr().err
    new = tmp_path / "new.tsv"
    new.write_text("".join(f"{n:03d}\t{n % 5}{n % 3}{n % 2}{n % 5}\n" for n in range(40)), "utf-8")
    assert typed("evaluate", run, "--option", f"path={new}", "split=train") == 0
    assert "tested on 34 items of path=" in capsys.readouterr().err
    assert (
        typed(
            "train", "scst", "--start", run, "--option", f"path={new}", "--budget-tokens", 64, "--out", "next"
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert "before," in err
    assert "next" in out
    assert rlseq.load("next").run.sizes == model.run.sizes


def copying() -> Any:
    return rlseq.make("rlseq/Copy-v0", num_envs=4, items=20)


def reading_files(tmp_path: Path) -> Any:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"a {'b ' * (n % 3)}c{n}\n" for n in range(30)), "utf-8")
    return rlseq.make("rlseq/Text-v0", num_envs=4, path=path)


@pytest.mark.parametrize(
    ("make", "policy", "sources"),
    [
        (lambda _: copying(), "transformer", ["a b", "c"]),
        (reading_files, "lstm", None),
        (
            lambda _: rlseq.make("rlseq/Captions-v0", num_envs=4, scenes=20),
            "captioner",
            [np.zeros((3, 36, 36))],
        ),
        (lambda _: rlseq.make("rlseq/Numbers-v0", num_envs=4, below=100), "seq2seq", ["twelve"]),
    ],
)
def test_runs_made_in_python_load_with_the_same_outputs(
    make: Callable[[Path], Any], policy: str, sources: Any, tmp_path: Path
) -> None:
    env = make(tmp_path)
    trained = in_python(env, tmp_path / "run", policy)
    for file in tmp_path.glob("*.txt"):
        file.unlink()
    wanted = rlseq.generate(trained, env, sources, n=2)
    likeliest = rlseq.generate(trained, env, sources, rlseq.Beam(1, length_penalty=0))
    texts, scores = zip(*(found[0] for found in likeliest), strict=True)
    run = rlseq.load(tmp_path / "run")
    for place in (tmp_path / "run", run.save(tmp_path / "m"), run.save(tmp_path / "m.zip")):
        model = rlseq.load(place)
        assert model.generate(sources, n=2) == wanted
        assert model.score(sources, texts) == pytest.approx(scores, abs=1e-4)


def test_the_score_of_a_text_is_the_sum_of_its_log_probabilities(tmp_path: Path) -> None:
    env = copying()
    policy = in_python(env, tmp_path / "run")
    batch = rlseq.rollout(policy, env)
    texts = env.texts(batch.actions, batch.mask)
    ended = [i for i, row in enumerate(batch.actions.tolist()) if env.vocab.eos in row]
    assert ended
    sources = [env.sources()[i] for i in ended]
    with torch.no_grad():
        wanted = (policy.evaluate(batch.actions, batch.context).log_probs * batch.mask).sum(1)[ended]
    assert rlseq.load(tmp_path / "run").score(sources, [texts[i] for i in ended]) == pytest.approx(
        wanted.tolist(), abs=1e-5
    )


def test_sizes_that_are_parts_are_kept_by_name(tmp_path: Path) -> None:
    policy = in_python(copying(), tmp_path, "transformer", positions=Rotary, value=True)
    loaded = rlseq.load(tmp_path).policy
    assert type(loaded.positions) is type(policy.positions)
    assert loaded.state_dict().keys() == policy.state_dict().keys()


def test_other_data_are_read_with_the_words_of_the_run(pairs: Path, tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Parallel-v0", num_envs=4, path=pairs, level="char")
    in_python(env, tmp_path / "run")
    other = tmp_path / "other.tsv"
    other.write_text("".join(f"z{n}{n}\t{n % 9}x\n" for n in range(40)), "utf-8")
    model = rlseq.load(tmp_path / "run")
    with pytest.warns(UserWarning, match="sources have up to 5 tokens, the policy reads 3 at most"):
        task = model.task(path=other)
    assert (task.vocab, task.source_vocab, task.max_len) == (env.vocab, env.source_vocab, env.max_len)
    assert rlseq.rollout(model.policy, task).rewards.shape == (1, env.max_len)
    with pytest.raises(ValueError, match="another vocab than the policy was made for: 5 words in place of"):
        rlseq.load(in_run(copying(), tmp_path / "copy")).task(vocab_size=5)


def in_run(env: Any, out: Path) -> Path:
    in_python(env, out)
    return out


class Own(nn.Module):
    """A policy of a user's own make."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(words))

    def start(self, context: Any) -> Any:
        return (context["index"],)

    def step(self, token: Any, state: Any) -> Any:
        return self.logits.expand(len(token), -1), state

    def evaluate(self, actions: Any, context: Any, behaviour: Any = None) -> Any:
        log_probs = self.logits.log_softmax(0)
        return rlseq.types.Evaluation(
            log_probs[actions], -(log_probs.exp() * log_probs).sum().expand(actions.shape)
        )


def test_a_policy_of_ones_own_is_given(tmp_path: Path) -> None:
    env = copying()
    policy = Own(len(env.vocab))
    rlseq.train(rlseq.make_agent("reinforce", policy), env, 2, out=tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"an? Own, was not made by rlseq.make_policy .*; make it, and pass it"
    ):
        rlseq.load(tmp_path / "run")
    model = rlseq.load(tmp_path / "run", policy=Own(len(env.vocab)))
    assert torch.equal(model.policy.logits, policy.logits)
    assert len(model.generate(["a b"])[0]) == 1
    with pytest.raises(ValueError, match=r"policy\.logits was"):
        rlseq.load(tmp_path / "run", policy=Own(3))


def short(tokens: torch.Tensor, mask: torch.Tensor, context: Any) -> torch.Tensor:
    return -mask.sum(1).float()


def test_a_reward_function_must_be_given_again(tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=4, items=20, reward=short)
    policy = rlseq.make_policy("gru", env, hidden=8)
    rlseq.train(rlseq.make_agent("reinforce", policy), env, 2, out=tmp_path, alarms="ignore")
    model = rlseq.load(tmp_path)
    assert model.generate(["a b"])
    with pytest.raises(ValueError, match=r"reward, which no file can hold; give it again: task\(reward=…\)"):
        model.task()
    assert model.task(reward=short).vocab == env.vocab


def test_a_policy_that_acts_in_another_environment_loads_and_writes_nothing(tmp_path: Path) -> None:
    env = rlseq.adapters.GymEnv("CartPole-v1", num_envs=2, steps=4)
    policy = rlseq.make_policy("mlp", env, hidden=4, value=True)
    rlseq.train(rlseq.make_agent("a2c", policy), env, 2, out=tmp_path / "run")
    model = rlseq.load(rlseq.load(tmp_path / "run").save(tmp_path / "m.zip"))
    for name, value in policy.state_dict().items():
        assert torch.equal(model.policy.state_dict()[name], value)
    with pytest.raises(ValueError, match="acts in a Gymnasium environment and writes no texts"):
        model.generate()


def test_a_value_head_that_the_start_lacks_is_added(pairs: Path, tmp_path: Path, capsys: Any) -> None:
    env = rlseq.make("rlseq/Parallel-v0", num_envs=4, path=pairs)
    in_python(env, tmp_path / "run")
    words = ("train", "a2c", "--start", tmp_path / "run", "--budget-tokens", 64, "--out", tmp_path / "next")
    assert typed(*words) == 2
    assert "value" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()
    assert typed(*words, "--policy", "gru", "value=true") == 0


class Picky(rlseq.SequenceEnv):
    """A task that never allows word 2, b."""

    def __init__(self, **options: Any) -> None:
        super().__init__(vocab=rlseq.Vocab.numbered(5), max_len=4, reward=short, **options)

    def legal(self) -> torch.Tensor:
        return torch.arange(5) != 2


def test_a_task_with_own_legal_tokens_keeps_them_or_refuses_to_write(tmp_path: Path) -> None:
    in_python(Picky(num_envs=4, seed=0), tmp_path / "made")
    made = rlseq.load(tmp_path / "made")
    for refused in (made.generate, lambda: made.score(None, ["a"])):
        with pytest.raises(ValueError, match="has its own 'legal', and its class is not known here"):
            refused()
    rlseq.register("tests/Picky-v0", Picky)
    in_python(rlseq.make("tests/Picky-v0", num_envs=4), tmp_path / "known")
    model = rlseq.load(rlseq.load(tmp_path / "known").save(tmp_path / "m.zip"))
    (found,) = model.generate(decode=rlseq.Sample(), n=50)
    assert all("b" not in candidate.text for candidate in found)
    assert len({len(candidate.text) for candidate in found}) > 1
    scores = model.score(None, [candidate.text for candidate in found])
    assert scores == pytest.approx([candidate.score for candidate in found], abs=1e-5)
    with pytest.raises(ValueError, match=r"not legal at their places: 'a b'"):
        model.score(None, ["a", "a b"])
    with pytest.raises(ValueError, match="has no reward"):
        rlseq.evaluate(model.policy, model.env)


class Needy(Picky):
    """A task whose legal tokens depend on what its constructor sets."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.never = 2

    def legal(self) -> torch.Tensor:
        return torch.arange(5) != self.never


def test_what_only_the_constructor_of_a_task_sets_is_named(tmp_path: Path) -> None:
    rlseq.register("tests/Needy-v0", Needy)
    in_python(rlseq.make("tests/Needy-v0", num_envs=4), tmp_path)
    with pytest.raises(AttributeError, match="Needy has no 'never' without data, because its constructor"):
        rlseq.load(tmp_path).generate()


class MyPositions(Rotary):
    """Positions of a user's own make."""


def test_a_policy_with_a_part_of_ones_own_is_given(tmp_path: Path) -> None:
    policy = in_python(copying(), tmp_path, "transformer", positions=MyPositions)
    with pytest.raises(ValueError, match="a Transformer, was not made by rlseq"):
        rlseq.load(tmp_path)
    assert rlseq.load(tmp_path, policy=policy).generate(["a b"])
    for wrong in (3, "gru"):
        with pytest.raises(TypeError, match="policy must be a network that takes the weights"):
            rlseq.load(tmp_path, policy=wrong)


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    model = rlseq.load(in_run(copying(), tmp_path / "copy"))
    with pytest.raises(ValueError, match="Copy reads a source; give texts"):
        model.score(None, ["a"])
    with pytest.raises(TypeError, match="sources must be texts, got None"):
        model.generate([None])
    with pytest.raises(ValueError, match="a target cannot have the word '<eos>' in it"):
        model.score(["a"], ["a <eos>"])
    env = rlseq.make("rlseq/Captions-v0", num_envs=4, scenes=20)
    model = rlseq.load(in_run(env, tmp_path / "captions"))
    with pytest.raises(TypeError, match="source 1 must be an array of numbers, got None"):
        model.generate([None])


def test_pictures_are_read_as_in_files_of_features(tmp_path: Path) -> None:
    pictures = [{"id": n, "file_name": f"{n}.png"} for n in range(8)]
    told = [{"id": n, "image_id": n, "caption": f"a dog {n % 3}"} for n in range(8)]
    (tmp_path / "captions_train.json").write_text(json.dumps({"images": pictures, "annotations": told}))
    vectors = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    np.savez(tmp_path / "features.npz", **{str(n): vector for n, vector in enumerate(vectors)})
    where = {"path": tmp_path / "captions_train.json", "features": tmp_path / "features.npz"}
    options: dict[str, Any] = {name: str(path) for name, path in where.items()}
    env = rlseq.make("rlseq/Captions-v0", num_envs=4, split="all", **options)
    model = rlseq.load(in_run(env, tmp_path / "run"))
    for path in where.values():
        path.unlink()
    alone = model.generate([vectors[0]], n=2)
    assert alone == model.generate([vectors[:1]], n=2)
    with pytest.raises(ValueError, match=r"source 1 must have shape \(1, 6\), got \(1, 7\)"):
        model.generate([np.zeros(7)])


def test_one_of_several_languages_is_asked_for_by_its_tag(tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Numbers-v0", num_envs=4, below=50, target="all")
    model = rlseq.load(in_run(env, tmp_path))
    env.reset()
    sources = env.sources()
    assert [re.match("<..>", text) is not None for text in sources] == [True] * 4
    with torch.no_grad():
        wanted = rlseq.rollout(model.policy.eval(), env, decode=rlseq.Greedy(), index=env.context["index"])
    assert [[each.text] for (each,) in model.generate(sources, rlseq.Greedy())] == [
        [text] for text in env.texts(wanted.actions, wanted.mask)
    ]
    with pytest.raises(ValueError, match=r"name the language first, as in '<\w\w>twelve'"):
        model.generate(["twelve"])


def test_a_run_that_goes_on_from_a_loaded_one_stands_on_its_own_too(pairs: Path, tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Parallel-v0", num_envs=4, vocab_size=np.int64(60), path=pairs, level="bpe")
    for each in (env, rlseq.make("rlseq/Captions-v0", num_envs=4, scenes=20)):
        model = rlseq.load(in_run(each, tmp_path / "first"))
        rlseq.train(rlseq.make_agent("mle", model.policy), model.task(), 2, out=tmp_path / "second")
        again = rlseq.load(tmp_path / "second")
        assert again.task(split="test").vocab == model.spec.vocab
        shutil.rmtree(tmp_path / "first")
        shutil.rmtree(tmp_path / "second")


def test_a_task_is_made_where_the_policy_is(tmp_path: Path) -> None:
    model = rlseq.load(in_run(copying(), tmp_path))
    trained_elsewhere = replace(model.run, options={**model.run.options, "device": "cuda:7"})
    assert replace(model, run=trained_elsewhere).task().device.type == "cpu"
    for name in ("meta", "nowhere"):
        with pytest.raises(ValueError, match=f"device '{name}' is not usable here"):
            rlseq.load(tmp_path, device=name)


def test_options_that_would_make_other_words_are_refused(pairs: Path, tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Parallel-v0", num_envs=4, path=pairs, level="bpe")
    model = rlseq.load(in_run(env, tmp_path))
    for name, value in {"level": "char", "vocab_size": 5, "min_count": 2}.items():
        with pytest.raises(ValueError, match=f"{name}={value!r} contradicts the vocabularies of the run"):
            model.task(**{name: value})
    assert model.task(level="bpe", min_count=1, vocab_size=None).vocab == env.vocab


TRAIN = ("train", "reinforce", "--texts", 4, "--evaluations", 1, "--alarms", "ignore", "--budget-tokens")


def test_a_run_goes_on_when_its_start_is_gone(tmp_path: Path, capsys: Any) -> None:
    start, run = in_run(copying(), tmp_path / "start"), tmp_path / "run"
    words = ("--start", start, "--out", run)
    assert typed(*TRAIN, 40, *words) == 0
    shutil.copytree(run, tmp_path / "twin")
    assert typed(*TRAIN, 120, *words) == 0
    shutil.rmtree(start)
    assert typed(*TRAIN, 120, "--start", start, "--out", tmp_path / "twin") == 0
    states = [rlseq.load(tmp_path / name).policy.state_dict() for name in ("run", "twin")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert typed(*TRAIN, 120, "--start", start, "--out", tmp_path / "new") == 2
    assert "no such run or saved model" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_starts_that_cannot_be_are_refused(tmp_path: Path, capsys: Any) -> None:
    run = in_run(copying(), tmp_path / "run")
    in_python(Picky(num_envs=4, seed=0), tmp_path / "made")
    model = rlseq.load(run).save(tmp_path / "model")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for words, message in (
        (("--start", run, "--out", run), "would start from itself"),
        (("--start", run, "--out", model), "holds a saved model; write the run to another folder"),
        (("--start", tmp_path / "made", "--out", tmp_path / "x"), "so that its id is not known; name a task"),
    ):
        assert typed(*TRAIN, 40, *words) == 2
        assert message in capsys.readouterr().err
    assert typed("evaluate", tmp_path / "made") == 2
    assert "was not made by rlseq.make" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_start_hands_its_modules_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picky_task.py").write_text(
        "import rlseq\nfrom tests.test_model import Picky\n"
        "class Task(Picky):\n    pass\nrlseq.register('tests/Picky-v1', Task)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = ("--import", "picky_task", "--env", "tests/Picky-v1", "--policy", "gru", *SIZES)
    assert typed(*TRAIN, 40, *made, "--out", tmp_path / "a") == 0
    assert typed(*TRAIN, 40, "--start", tmp_path / "a", "--out", tmp_path / "b") == 0
    assert rlseq.load(tmp_path / "b").run.plain()["imports"] == ["picky_task"]


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────


def without(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        write_sealed(run / name, {**read_sealed(run / name), **changes})

    return edit


def lacking(name: str, field: str) -> Callable[[Path], None]:
    def remove(run: Path) -> None:
        write_sealed(run / name, {key: v for key, v in read_sealed(run / name).items() if key != field})

    return remove


def swapped(run: Path) -> None:
    """The words of another task, whole and with their checksum."""
    in_python(rlseq.make("rlseq/Copy-v0", num_envs=4, vocab_size=5, items=20), run.parent / "other")
    (run / "words.json").write_bytes((run.parent / "other" / "words.json").read_bytes())


def flipped(name: str) -> Callable[[Path], None]:
    def flip(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(data)

    return flip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("words.json"), "words.json"),
        (without("run.json"), "run.json"),
        (without("config.json"), "it has neither config.json nor model.json"),
        (without("checkpoints/00000002.safetensors"), "00000002.safetensors"),
        (flipped("words.json"), "words.json"),
        (flipped("run.json"), "run.json"),
        (flipped("checkpoints/00000002.safetensors"), "00000002.safetensors was changed"),
        (swapped, "words.json holds another vocab than the run began with"),
        (edited("config.json", schema="rlseq.run/2"), "schema 'rlseq.run/2'"),
        (edited("run.json", sizes={"hidden": 9, "embedding": 8, "value": False}), "are of another policy"),
        (edited("run.json", policy="nothing"), "unknown policy 'nothing'"),
        (edited("run.json", colour=1), "run.json has other fields than a run"),
        (edited("words.json", source_length=-2), "was changed (zeros: Dimension size"),
        (lacking("words.json", "max_len"), "was changed ('max_len' is missing)"),
        (lacking("config.json", "policy"), "was changed ('policy' is missing)"),
        (lacking("results.json", "checkpoint"), "was changed ('checkpoint' is missing)"),
    ],
)
def test_a_damaged_run_is_named_in_one_line(
    damage: Callable[[Path], None], message: str, tmp_path: Path, capsys: Any
) -> None:
    in_python(copying(), tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(ValueError, match=re.escape(message)):
        rlseq.load(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert typed("generate", tmp_path / "run", "a") == 2
    assert message in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_damaged_model_is_named_in_one_line(tmp_path: Path) -> None:
    model = rlseq.load(in_run(copying(), tmp_path / "run"))
    file, folder = model.save(tmp_path / "m.zip"), model.save(tmp_path / "m")
    assert model.save(tmp_path / "again.zip").read_bytes() == file.read_bytes()
    for damage, message in (
        (flipped("weights.safetensors"), "weights.safetensors was changed"),
        (without("weights.safetensors"), "weights.safetensors cannot be read"),
        (edited("model.json", schema="rlseq.model/9"), "schema 'rlseq.model/9'"),
        (flipped("model.json"), "model.json"),
        (lacking("model.json", "weights"), "'weights' is missing"),
        (edited("model.json", words=None), "was changed"),
        (lacking("model.json", "schema"), "'schema' is missing"),
    ):
        model.save(folder)
        damage(folder)
        with pytest.raises(ValueError, match=message):
            rlseq.load(folder)
    for data in (b"", b"PK", file.read_bytes()[:200]):
        (tmp_path / "cut.zip").write_bytes(data)
        with pytest.raises(ValueError, match=r"cut\.zip is not a saved model"):
            rlseq.load(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", json.dumps({}))
        archive.writestr("weights.safetensors", bytes(10**6))
    with pytest.raises(ValueError, match=r"bomb\.zip is not a saved model: it is compressed"):
        rlseq.load(tmp_path / "bomb.zip")
    with pytest.raises(FileNotFoundError, match="no such run or saved model"):
        rlseq.load(tmp_path / "nothing")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine", "utf-8")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("mine.txt", "mine")
    for other in (tmp_path / "notes", tmp_path / "notes" / "mine.txt", tmp_path / "photos.zip"):
        with pytest.raises(OSError, match="the path exists and is not a saved model"):
            model.save(other)
    with pytest.raises(ValueError, match="best applies to the folder of a run"):
        rlseq.load(file, best=True)


# ── runs of earlier versions ─────────────────────────────────────────────────────────────────────────────

EARLIER = Path(__file__).parent / "data" / "runs"


@pytest.mark.parametrize("name", ["run-2", "run-3"])
def test_runs_of_earlier_versions_are_refused_by_name_and_converted(
    name: str, tmp_path: Path, capsys: Any
) -> None:
    old = EARLIER / name
    with pytest.raises(ValueError, match=rf"another version .* `rlseq convert {re.escape(str(old))} NEW`"):
        rlseq.load(old)
    assert typed("convert", old, tmp_path / "m.zip") == 0
    state = rlseq.checkpoint.read(old / "checkpoints", 4)["policy"]
    model = rlseq.load(tmp_path / "m.zip")
    assert all(torch.equal(value, state[key]) for key, value in model.policy.state_dict().items())
    assert model.generate(["a b c"])
    assert typed("convert", tmp_path / "m.zip", tmp_path / "again") == 2


def test_a_run_of_an_earlier_version_needs_the_words_of_its_data(tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(EARLIER / "run-3", old)
    job = json.loads((old / "job.json").read_text("utf-8"))
    (old / "job.json").write_text(
        json.dumps({**job, "options": {**job["options"], "vocab_size": 5}}), "utf-8"
    )
    with pytest.raises(ValueError, match="has another vocab than the run had"):
        convert(old, tmp_path / "new")
    (old / "job.json").unlink()
    with pytest.raises(ValueError, match="was made in Python by an earlier version"):
        convert(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()
