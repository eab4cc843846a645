"""Summaries: headlines, and sentences that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.data.news import sentences_of
from rlseq.engine.references import sample_references


def extract(rows: int = 4, **options: Any) -> Any:
    return rlseq.make("rlseq/Extract-v0", num_envs=rows, **options)


def test_sentences_end_at_their_marks() -> None:
    assert sentences_of("he came . she left! why ? no one") == ["he came .", "she left!", "why ?", "no one"]
    assert sentences_of("") == []


def test_a_headline_of_the_data_is_worth_the_most() -> None:
    env = rlseq.make("rlseq/Summary-v0", num_envs=8)
    batch = sample_references(env)
    tokens = torch.nn.functional.pad(batch.actions, (0, env.max_len - batch.actions.shape[1]))
    mask = torch.nn.functional.pad(batch.mask, (0, env.max_len - batch.mask.shape[1]))
    assert env.total_reward(tokens, mask, batch.context).sum(1).tolist() == pytest.approx([1.0] * 8)


def test_the_sentence_that_matters_is_worth_the_most() -> None:
    env = extract(5)
    told = next(n for n, parts in enumerate(env.parts_of) if " new " not in parts[0])
    which = next(n for n, part in enumerate(env.parts_of[told]) if " new " in part)
    context = env.begin(index=torch.full((5,), told))
    tokens = torch.ones(5, env.max_len, dtype=torch.int64)  # drop all
    tokens[:, 4] = 0
    for row in range(4):
        tokens[row, row] = 2  # but one
    scores = env.rouge_l(tokens, tokens >= 0, context)
    assert int(scores.argmax()) == which
    assert scores[4] == 0
    assert env.lead(tokens, tokens >= 0, context)[0] == scores[0] < scores[which]
    assert env.kept(tokens, tokens >= 0, context).tolist() == [0.25] * 4 + [0]


def test_each_sentence_is_decided_on_once() -> None:
    env = extract(16)
    batch = rlseq.rollout(rlseq.make_policy("seq2seq", env, hidden=8, embedding=4), env)
    assert (batch.lengths == batch.context["sentences"] + 1).all()
    assert (batch.actions[:, :4] > 0).all()


def test_a_user_s_texts_are_extracted_from(tmp_path: Path) -> None:
    path = tmp_path / "texts.tsv"
    path.write_text("".join(f"number {n} . it rains . so it is\tnumber {n}\n" for n in range(60)))
    env = extract(path=str(path), sentences=2)
    assert {len(parts) for parts in env.parts_of} == {2}
    assert env.max_len == 3
    with pytest.raises(ValueError, match="unknown reward 'rouge'; did you mean 'rouge_l'"):
        extract(path=str(path), reward="rouge")


def test_without_pairs_no_text_has_a_summary_that_was_written_for_it() -> None:
    paired: Any = rlseq.make("rlseq/Summary-v0", num_envs=4)
    apart: Any = rlseq.make("rlseq/Summary-v0", num_envs=4, pairs=False)
    written = {text: set(found) for text, found in zip(told(paired), paired.corpus.texts(), strict=True)}
    others = {headline for text in told(paired)[1::2] for headline in written[text]}
    assert told(apart) == told(paired)[::2]
    for _, (headline,) in zip(told(apart), apart.corpus.texts(), strict=True):
        assert headline in others
    tests: list[Any] = [
        rlseq.make("rlseq/Summary-v0", num_envs=4, split="test", pairs=pairs) for pairs in (True, False)
    ]
    assert tests[0].corpus.texts() == tests[1].corpus.texts()


def told(env: Any) -> list[str]:
    """The sources of all items."""
    source = env.contexts(torch.arange(env.size))["source"]
    texts: list[str] = env.source_vocab.decode_batch(source.tolist(), (source != 0).sum(1).tolist())
    return texts
