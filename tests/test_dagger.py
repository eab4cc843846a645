"""DAgger: the expert against all continuations, the labels, and what is learned from them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents.dagger import DAgger
from rlseq.metrics.next_words import by_edit_distance, by_position, draw_words
from rlseq.metrics.positional import accuracy

WORDS, STEPS = 3, 4
Text = tuple[int, ...]
REFERENCES: list[list[Text]] = [
    [(1, 2, 0)],
    [(1, 2, 1, 0)],
    [(1, 0), (2, 1, 2, 0)],
    [(2, 2, 0), (0,)],
    [(1, 2, 1, 0), (2, 0)],
]


def distance(a: Text, b: Text) -> int:
    """Levenshtein, by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def errors(text: Text, references: list[Text]) -> float:
    return min(distance(text, reference) for reference in references)


def wrong_share(text: Text, references: list[Text]) -> float:
    """1 − accuracy."""
    shares = [sum(a == b for a, b in zip(text, r, strict=False)) / max(len(text), len(r)) for r in references]
    return 1 - max(shares)


def all_texts(eos: int | None) -> list[Text]:
    every = list(product(range(WORDS), repeat=STEPS))
    if eos is None:
        return every
    return sorted({t[: t.index(0) + 1] if 0 in t else t for t in every})


def context(references: list[Text], rows: int) -> dict[str, torch.Tensor]:
    width = max(map(len, references))
    ids = torch.tensor([[*r, *[0] * (width - len(r))] for r in references])
    lengths = torch.tensor([len(r) for r in references])
    return {"references": ids.expand(rows, -1, -1), "reference_lengths": lengths.expand(rows, -1)}


def padded(text: Text) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.tensor([[*text, *[0] * (STEPS - len(text))]])
    return tokens, torch.arange(STEPS) < torch.tensor([[len(text)]])


def best_by_force(prefix: Text, loss: Callable[[Text], float], texts: list[Text]) -> set[int]:
    """The next words of all texts that begin so and have the least loss of these."""
    going_on = [t for t in texts if t[: len(prefix)] == prefix and len(t) > len(prefix)]
    least = min(map(loss, going_on))
    return {t[len(prefix)] for t in going_on if loss(t) == pytest.approx(least)}


@pytest.mark.parametrize("eos", [0, None])
@pytest.mark.parametrize("references", REFERENCES)
def test_the_expert_is_exact(references: list[Text], eos: int | None) -> None:
    """Every prefix of every text: the words named are those of the best of all continuations."""
    if eos is None:
        references = [tuple(w or 1 for w in r) for r in references]
    texts = all_texts(eos)
    known = {text: errors(text, references) for text in texts}
    for text in texts:
        tokens, mask = padded(text)
        given = context(references, 1)
        places = by_edit_distance(tokens, mask, given, eos)
        for t in range(len(text)):
            best = best_by_force(text[:t], known.__getitem__, texts)
            named = set(given["references"][0][places[0, t]].tolist())
            if eos is None:  # any word may be inserted, of which those of references are named
                assert named
                assert named <= best, (text, t)
            else:
                assert named == best, (text, t)


@pytest.mark.parametrize("references", REFERENCES)
def test_the_expert_of_positions_is_exact(references: list[Text]) -> None:
    texts = all_texts(0)
    for text in texts:
        tokens, mask = padded(text)
        given = context(references, 1)
        assert 1 - float(accuracy(tokens, mask, given)[0]) == pytest.approx(wrong_share(text, references))
        places = by_position(tokens, mask, given, 0)
        for t in range(len(text)):
            best = best_by_force(text[:t], lambda x: wrong_share(x, references), texts)
            named = set(given["references"][0][places[0, t]].tolist())
            assert named
            assert named <= best, (text, t)


def test_different_best_words_are_drawn_alike() -> None:
    """Not as often as they occur in references: here 1 stands there twice, and 2 once."""
    references = torch.tensor([[[1, 1, 2, 3]]]).expand(3000, 1, 4)
    places = torch.tensor([True, True, True, False]).expand(3000, 1, 1, 4)
    uniform = torch.rand(3000, 1, dtype=torch.float64)
    drawn = draw_words(places, references, uniform).flatten()
    assert set(drawn.tolist()) == {1, 2}
    assert float((drawn == 1).double().mean()) == pytest.approx(0.5, abs=0.03)


def test_a_text_that_follows_its_labels_is_a_reference(tmp_path: Path) -> None:
    """Labels stand beside the prefix that they follow: shifted by one, no text would be right."""
    pairs = "".join(f"{a}\t{a}{b}{a}{b}\n{a}\t{b}{b}{a}\n" for a, b in permutations("abcdefg", 2))
    (tmp_path / "pairs.tsv").write_text(pairs, "utf-8")
    env = rlseq.make("rlseq/Parallel-v0", path=tmp_path / "pairs.tsv", level="char", num_envs=32)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    agent = DAgger(policy)
    batch = rlseq.rollout(policy, env)
    written = torch.zeros_like(batch.actions)
    for t in range(env.max_len):
        now = rlseq.rollout(policy, env, forced=written, forced_steps=t, index=batch.context["index"])
        uniform = torch.rand(now.actions.shape, dtype=torch.float64)
        written[:, t] = agent.labels(env, now, uniform)[:, t]
    final = rlseq.rollout(policy, env, forced=written, index=batch.context["index"])
    right = rlseq.rewards.exact(final.actions, final.mask, final.context)
    assert float(right.mean()) == 1.0


def test_what_is_learned_are_labels_after_own_prefixes(tiny: Any) -> None:
    """The loss is −log π(label | own prefix, source), mean over tokens."""
    env, policy = tiny(rows=8)
    agent = DAgger(policy, memory=0)
    batch = agent.collect(env)
    read: Any = batch.inputs
    wanted = agent.labels(
        env, rlseq.rollout(policy, env, forced=read, index=batch.context["index"]), torch.zeros(8, 3)
    )
    only = by_edit_distance(read, batch.mask, batch.context, env.vocab.eos).flatten(2).sum(2) == 1
    assert torch.equal(batch.actions[only & batch.mask], wanted[only & batch.mask])
    state, word, total = policy.start(batch.context), torch.full((8,), env.vocab.bos), torch.zeros(())
    for t in range(3):
        logits, state = policy.step(word, state)
        log_p = logits.log_softmax(1).gather(1, batch.actions[:, t : t + 1]).squeeze(1)
        total = total - (log_p * batch.mask[:, t]).sum()
        word = read[:, t]
    loss, _ = agent.loss(batch)
    assert loss.item() == pytest.approx((total / batch.mask.sum()).item(), rel=1e-5)


def test_half_of_a_batch_is_older_and_what_is_kept_is_bounded(tiny: Any) -> None:
    env, policy = tiny(rows=8)
    agent = DAgger(policy, memory=20)
    seen = []
    for _ in range(4):
        batch = agent.collect(env)
        assert len(batch.actions) == 8
        seen.append(len(agent.aggregate.keys))  # type: ignore[arg-type]
    assert seen == [8, 16, 20, 20]
    assert env.counts.reference_tokens == env.counts.generated_tokens


def test_it_learns_to_copy_from_labels_of_its_own_texts() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=128, vocab_size=5, length=3)
    policy = rlseq.make_policy("gru", env, hidden=48, embedding=24)
    rlseq.train(rlseq.make_agent("dagger", policy, lr=1e-2), env, updates=60)
    assert rlseq.evaluate(policy, env, limit=128)["exact"] > 0.9


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("rlseq/Enumerable-v0", {}, "Enumerable has no references.*give its items.*or take an agent"),
        ("rlseq/Oracle-v0", {"references": 20}, "OracleEnv shows nothing.*20 texts.*imitate them by mle"),
    ],
)
def test_a_task_without_an_expert_is_refused(id: str, options: Any, message: str) -> None:
    env = rlseq.make(id, num_envs=4, **options)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    with pytest.raises(ValueError, match=message):
        DAgger(policy).collect(env)


def test_labels_by_another_measure_than_the_reward_are_said_once() -> None:
    def env(**options: Any) -> Any:
        return rlseq.make("rlseq/Parallel-v0", num_envs=4, **options)

    made = env(reward="bleu")
    policy = rlseq.make_policy("seq2seq", made, hidden=4, embedding=4)
    agent = rlseq.make_agent("dagger", policy)
    with pytest.warns(
        UserWarning, match="no expert is known for the reward bleu: labels are by edit distance"
    ):
        agent.collect(made)
    agent.collect(made)
    for expert, reward in (("by_edit_distance", "bleu"), ("of_reward", "wer"), ("of_reward", "edit")):
        rlseq.make_agent("dagger", policy, expert=expert).collect(env(reward=reward))
