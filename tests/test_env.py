"""The decision process: begin, append, legal, score, judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Context
from rlseq.vocab import Vocab

WORDS = Vocab(("<eos>", "a", "b", "c"))
POEM = Vocab(("<eos>", "床", "前", "明", "月", "光"), separator="")


def value_of(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A terminal reward that tells every text from every other: its tokens, read as digits."""
    place = 10.0 ** torch.arange(tokens.shape[1])
    return ((tokens + 1) * mask * place).sum(1) + 0.5 * context["index"]


def steps_of(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A dense reward that is row- and position-coded, with rubbish where nothing is written."""
    position = torch.arange(tokens.shape[1])
    return (tokens + 10.0 * position + 100.0 * context["index"].unsqueeze(1)).masked_fill(~mask, torch.nan)


def make(reward: Any = value_of, **options: Any) -> SequenceEnv:
    given = {"vocab": WORDS, "max_len": 4, "num_envs": 3, "seed": 0, **options}
    return SequenceEnv(reward=reward, **given)


def begun(*columns: list[int], **options: Any) -> SequenceEnv:
    """A fresh batch in which these tokens were appended, one column after the other."""
    env = make(**options)
    env.begin()
    for column in columns:
        env.append(torch.tensor(column))
    return env


class Masked(SequenceEnv):
    """Tokens that a function of the task allows."""

    def __init__(self, rule: Callable[[SequenceEnv], Tensor], **options: Any) -> None:
        self.rule = rule
        given = {"vocab": WORDS, "max_len": 4, "num_envs": 2, "seed": 0, "reward": value_of, **options}
        super().__init__(**given)

    def legal(self) -> Tensor | None:
        return self.rule(self)


# ── the worked examples ──────────────────────────────────────────────────────────────────────────────


def pairs(env: SequenceEnv, text: list[int]) -> list[tuple[str, str]]:
    """(state, action) of every step that writes a text."""
    env.begin()
    seen = []
    for token in text:
        source, prefix = env.sources()[0], env.texts(env.tokens, env.mask)[0] or "<BOS>"
        seen.append((f"{source}, {prefix}" if source else prefix, env.vocab.words[token]))
        env.append(torch.tensor([token]))
    assert env.done.all()
    return seen


def test_states_are_prefixes_and_actions_the_next_words() -> None:
    env = make(vocab=POEM, max_len=10, num_envs=1)
    assert pairs(env, [*POEM.encode("床前明月光"), 0]) == [
        ("<BOS>", "床"),
        ("床", "前"),
        ("床前", "明"),
        ("床前明", "月"),
        ("床前明月", "光"),
        ("床前明月光", "<eos>"),
    ]


def test_a_conditional_state_is_the_source_and_the_prefix() -> None:
    words = Vocab(("<eos>", "I", "am", "fine"))
    env = make(
        vocab=words,
        num_envs=1,
        items={"source": torch.tensor([[1, 0]])},
        source_vocab=Vocab(("<pad>", "input"), eos=None),
    )
    assert pairs(env, [*words.encode("I am fine"), 0]) == [
        ("input, <BOS>", "I"),
        ("input, I", "am"),
        ("input, I am", "fine"),
        ("input, I am fine", "<eos>"),
    ]


# ── transition and termination ───────────────────────────────────────────────────────────────────────


def test_eos_or_the_last_place_ends_an_episode_and_eos_is_written() -> None:
    env = begun([1, 0, 1], [2, 1, 1], [0, 1, 1])
    assert env.done.tolist() == [True, True, False]
    env.append(torch.tensor([3, 3, 1]))
    assert env.done.tolist() == [True, True, True]
    assert env.tokens.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert env.mask.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_without_eos_every_text_is_as_long_as_it_can_be() -> None:
    env = begun(*[[0, 1, 0]] * 3, vocab=Vocab.numbered(4, eos=None))
    assert not env.done.any()
    env.append(torch.tensor([0, 0, 0]))
    assert env.done.all()
    assert env.mask.all()
    assert env.texts(env.tokens, env.mask)[1] == "b b b a"


@st.composite
def games(draw: st.DrawFn) -> tuple[Vocab, list[list[int]]]:
    """A vocabulary with special ids anywhere, also beyond the words, and T actions for every row."""
    size, steps, rows = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    eos = draw(st.none() | st.integers(0, size - 1))
    vocab = Vocab.numbered(size, eos, draw(st.integers(0, size + 2)), draw(st.integers(0, size + 2)))
    row = st.lists(st.integers(0, size - 1), min_size=steps, max_size=steps)
    return vocab, draw(st.lists(row, min_size=rows, max_size=rows))


def written(row: list[int], eos: int | None) -> list[int]:
    """What a row of actions writes, by the definition."""
    return row[: row.index(eos) + 1] if eos in row else row


@settings(deadline=None, max_examples=150)
@given(games())
def test_append_equals_a_slow_loop_whatever_the_special_ids(game: tuple[Vocab, list[list[int]]]) -> None:
    vocab, rows = game
    steps = len(rows[0])
    texts = [written(row, vocab.eos) for row in rows]
    env = make(vocab=vocab, max_len=steps, num_envs=len(rows), items={"x": torch.arange(5)})
    index = env.begin()["index"].tolist()
    for t in range(steps):
        assert env.length.tolist() == [min(t, len(text)) for text in texts]
        assert env.done.tolist() == [t >= len(text) for text in texts]
        env.append(torch.tensor([row[t] for row in rows]))
        assert env.tokens.tolist() == [
            text[: t + 1] + [vocab.pad] * (steps - min(t + 1, len(text))) for text in texts
        ]
    assert env.done.all()
    assert env.mask.tolist() == [[t < len(text) for t in range(steps)] for text in texts]
    wanted = [[0.0] * steps for _ in rows]
    for row, text in enumerate(texts):
        wanted[row][len(text) - 1] = sum((w + 1) * 10.0**t for t, w in enumerate(text)) + 0.5 * index[row]
    assert env.score().tolist() == wanted


# ── rewards ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_terminal_reward_is_due_on_the_last_token() -> None:
    env = begun([1, 0, 3], [0, 1, 3], [1, 1, 3], [1, 1, 3])
    assert env.score().tolist() == [[0, 12, 0, 0], [1, 0, 0, 0], [0, 0, 0, 4444]]


def test_an_unfinished_text_has_no_terminal_reward_yet() -> None:
    env = begun([1, 0, 3], [1, 1, 3])
    assert env.score().tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_dense_reward_is_due_on_every_token_and_on_no_other_place() -> None:
    env = begun([1, 0, 3], [0, 1, 3], [1, 1, 3], [1, 1, 3], reward=steps_of)
    assert env.score().tolist() == [[1, 10, 0, 0], [0, 0, 0, 0], [3, 13, 23, 33]]


def test_the_parts_of_a_reward_are_summed_and_can_be_told_apart() -> None:
    env = begun([1, 0, 3], [0, 1, 3], [1, 1, 3], reward={"value": value_of, "steps": steps_of})
    judged = env.reward_parts(env.tokens, env.mask, env.context, env.done)
    assert {name: part.sum(1).tolist() for name, part in judged.items()} == {
        "value": [12, 1, 0],
        "steps": [11, 0, 39],
    }
    assert env.score().tolist() == [[1, 22, 0, 0], [1, 0, 0, 0], [3, 13, 23, 0]]


def test_judge_takes_any_texts() -> None:
    env = make()
    context = {"index": torch.tensor([2])}
    judged = env.reward_parts(torch.tensor([[1, 2]]), torch.tensor([[True, True]]), context)
    assert judged["reward"].tolist() == [[0, 33]]


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float64, torch.float16])
def test_rewards_of_any_kind_become_float32_without_gradient(kind: torch.dtype) -> None:
    weight = torch.ones(3, requires_grad=kind.is_floating_point, dtype=kind)
    scores = begun([0, 0, 0], reward=lambda *_: weight * True).score()
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert scores[:, 0].tolist() == [1, 1, 1]


def test_a_reward_may_be_undefined_for_texts_that_are_not_finished() -> None:
    def per_pair(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        return tokens.sum(1) / (mask.sum(1) - 1)  # 1/0 for a text of one token

    env = make(per_pair, num_envs=1)
    env.reset()
    assert [float(env.step([token])[1][0]) for token in (1, 2, 3, 0)] == [0, 0, 0, 2]


# ── contexts ─────────────────────────────────────────────────────────────────────────────────────────


def items() -> dict[str, Tensor]:
    return {"source": torch.arange(1, 11).view(10, 1) % 4, "name": torch.arange(100, 110)}


def test_contexts_are_rows_of_the_items() -> None:
    env = make(num_envs=6, items=items())
    context = env.begin(index=torch.tensor([9, 0, 3, 3, 1, 8]))
    assert context["index"].tolist() == [9, 0, 3, 3, 1, 8]
    assert context["name"].tolist() == [109, 100, 103, 103, 101, 108]
    assert context["source"].tolist() == [[2], [1], [0], [0], [2], [1]]


def test_repeat_gives_consecutive_rows_the_same_context() -> None:
    env = make(num_envs=6, items=items())
    for _ in range(5):
        groups = env.begin(repeat=3)["index"].view(2, 3)
        assert (groups == groups[:, :1]).all()
    names = env.begin(repeat=2, index=torch.tensor([7, 2, 5]))["name"]
    assert names.tolist() == [107, 107, 102, 102, 105, 105]


def test_drawn_contexts_are_uniform_seeded_and_different() -> None:
    env, twin = make(num_envs=1000, items=items()), make(num_envs=1000, items=items())
    counts = env.begin()["index"].bincount(minlength=10)
    assert counts.min() > 60
    assert counts.max() < 140
    assert twin.begin()["index"].equal(env.context["index"])
    assert not env.begin()["index"].equal(twin.context["index"])
    assert not make(num_envs=1000, items=items(), seed=1).begin()["index"].equal(twin.context["index"])


def test_begin_forgets_what_was_written() -> None:
    env = begun([1, 0, 1], [0, 1, 1])
    env.begin()
    assert (env.tokens == 0).all()
    assert not env.mask.any()


# ── legal tokens ─────────────────────────────────────────────────────────────────────────────────────


def test_all_tokens_are_legal_by_default() -> None:
    env = make()
    _, info = env.reset()
    assert info["action_mask"].equal(torch.ones(3, 4, dtype=torch.int8))
    assert env.action_masks().equal(torch.ones(3, 4, dtype=torch.bool))


def test_a_mask_that_is_handed_out_can_be_written_to() -> None:
    allowed = torch.tensor([False, True, True, True])
    for env in (make(tensors=False), Masked(lambda env: allowed, tensors=False)):
        env.reset()
        mask = env.action_masks()
        before = mask.copy()
        mask[0, 1] = False
        assert (mask != before).sum() == 1
        assert (env.action_masks() == before).all()


def test_legal_may_depend_on_time_and_on_the_prefix() -> None:
    def no_repetition(env: SequenceEnv) -> Tensor:
        allowed = torch.ones(env.num_envs, 4, dtype=torch.bool)
        allowed[:, 0] = env.length >= 2  # no EOS before two words are written
        used = (env.tokens.unsqueeze(2) == torch.arange(4)) & env.mask.unsqueeze(2)
        return allowed & ~used.any(1)

    env = Masked(no_repetition)
    _, info = env.reset()
    assert info["action_mask"].tolist() == [[0, 1, 1, 1]] * 2
    info = env.step([1, 3])[4]
    assert info["action_mask"].tolist() == [[0, 0, 1, 1], [0, 1, 1, 0]]
    info = env.step([2, 1])[4]
    assert info["action_mask"].tolist() == [[1, 0, 0, 1], [1, 0, 1, 0]]


def test_a_row_of_a_batch_does_not_depend_on_the_others() -> None:
    env = begun([1, 0, 3], [0, 1, 3], [1, 1, 3], [1, 1, 3], reward=steps_of)
    for row, text in enumerate(([1, 0], [0], [3, 3, 3, 3])):
        alone = make(steps_of, num_envs=1)
        alone.begin()
        for token in [*text, 1, 1, 1][:4]:
            alone.append(torch.tensor([token]))
        assert alone.score().tolist() == env.score()[row : row + 1].tolist()
