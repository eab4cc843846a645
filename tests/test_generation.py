"""Text in, text out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rlseq


def setting() -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Copy-v0", num_envs=7, items=30, length=3)
    policy = rlseq.make_policy("gru", env, hidden=16, embedding=8)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(3)
    return env, policy


def test_greedy_texts_are_those_of_a_rollout() -> None:
    env, policy = setting()
    batch = rlseq.rollout(policy, env, decode=rlseq.Greedy(), index=torch.arange(7))
    sources, written = env.sources(), env.texts(batch.actions, batch.mask)
    found = rlseq.generate(policy, env, sources, rlseq.Greedy())
    assert [candidates[0].text for candidates in found] == written
    scores = torch.tensor([candidates[0].score for candidates in found])
    torch.testing.assert_close(scores, batch.log_probs.sum(1))


def test_n_best_are_those_of_the_beam_best_first() -> None:
    env, policy = setting()
    wanted = rlseq.beam_search(policy, env, rlseq.Beam(4), index=torch.tensor([5] * 7))
    source = env.sources()[0]
    (found,) = rlseq.generate(policy, env, [source], rlseq.Beam(4), n=3)
    assert [c.text for c in found] == env.texts(wanted.tokens[0, :3], wanted.mask[0, :3])
    assert [c.score for c in found] == pytest.approx(wanted.scores[0, :3].tolist(), rel=1e-5)
    assert found == sorted(found, key=lambda c: -c.score)


def test_samples_of_a_source_differ_and_stay_with_it() -> None:
    env, policy = setting()
    found = rlseq.generate(policy, env, ["a b c", "d d d"], rlseq.Sample(), n=20)
    assert [len(candidates) for candidates in found] == [20, 20]
    assert len({c.text for c in found[0]}) > 3
    alone = rlseq.generate(policy, env, ["d d d"], rlseq.Greedy())
    both = rlseq.generate(policy, env, ["a b c", "d d d"], rlseq.Greedy())
    assert both[1][0].text == alone[0][0].text


def test_a_task_without_sources_writes_from_nothing() -> None:
    env = rlseq.make("rlseq/Oracle-v0", num_envs=2, vocab_size=30, length=5)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    ((first, second),) = rlseq.generate(policy, env, decode=rlseq.Sample(), n=2)
    assert len(first.text.split()) == 5
    assert first.score >= second.score


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": None}, "Copy reads a source; give texts"),
        ({"sources": ["a"], "n": 0}, "n must be an integer ≥ 1, got 0"),
        (
            {"sources": ["a"], "n": 2, "decode": rlseq.Greedy()},
            r"the greedy text is one, got n=2; use Beam\(2\)",
        ),
        ({"sources": ["a"], "n": 6}, r"a beam of width 5 finds as many texts, got n=6; use Beam\(6\)"),
        (
            {"sources": ["a b c d e"], "too_long": "refuse"},
            "the longest source of training has 3 words, got a source of 5",
        ),
        ({"sources": ["a"], "too_long": "ignore"}, "unknown too_long 'ignore'"),
        ({"sources": ["a", " \t"]}, "source 2 is empty"),
        ({"sources": ["a z"]}, r"unknown words \['z'\]"),
    ],
)
def test_mistakes(arguments: dict[str, Any], message: str) -> None:
    env, policy = setting()
    with pytest.raises(ValueError, match=message):
        rlseq.generate(policy, env, **arguments)


def test_sources_are_read_as_the_data_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.dict"
    path.write_text("".join(f"{w} {' '.join(w.upper())}\n" for w in ("ab", "ba", "aab", "abb") * 10), "utf-8")
    env = rlseq.make("rlseq/G2P-v0", path=path)
    policy = rlseq.make_policy("seq2seq", env, hidden=16, embedding=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, capitals, ends = rlseq.generate(policy, env, ["ab", "AB", " ab\r\n"], rlseq.Greedy())
    assert plain == capitals == ends
    with pytest.warns(
        UserWarning, match=r"characters that were never read in training: '!', .* \(in 'a!b' and 1 more\)$"
    ):
        rlseq.generate(policy, env, ["a!b", "ab", "xy"])
    with pytest.warns(
        UserWarning, match="the longest source of training has 3 characters, got a source of 4"
    ):
        cut = rlseq.generate(policy, env, ["abba"])
    assert cut == rlseq.generate(policy, env, ["abb"])


def test_a_picture_is_an_array_or_a_file(tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Captions-v0", scenes=20)
    policy = rlseq.make_policy("captioner", env, hidden=8, embedding=8)
    with pytest.raises(
        ValueError, match="Captions reads a source; give image as a list of sources, got None"
    ):
        rlseq.generate(policy, env)
    with pytest.raises(ValueError, match=r"source 1 must have shape \(3, 36, 36\), got \(3, 9, 9\)"):
        rlseq.generate(policy, env, [np.zeros((3, 9, 9))])
    item = torch.tensor([4])
    image = env.contexts(item)["image"][0]
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    ((array,), (file,)) = rlseq.generate(policy, env, [image, tmp_path / "scene.png"], rlseq.Greedy())
    written = rlseq.rollout(policy, env.replace(num_envs=1), decode=rlseq.Greedy(), index=item)
    assert array.text == file.text == env.texts(written.actions, written.mask)[0]
