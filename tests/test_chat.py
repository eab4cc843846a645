"""Dialogue: rules on answers, several turns with another side, and threads in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import rlseq
from rlseq.cli.command_line import main
from rlseq.data.formats import DataError, Pair, Problem
from rlseq.data.threads import thread_formats
from rlseq.discriminators import Adversary
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.policy_gradient.credit import Completions
from rlseq.policy_gradient.returns import reward_to_go
from rlseq.types import Evaluation
from rlseq.vocab import Vocab

ASKED = "where is the old sailor"


def chat(rows: int = 4, **options: Any) -> Any:
    return rlseq.make("rlseq/Chat-v0", num_envs=rows, **options)


def judged(env: Any, item: int, *texts: str) -> dict[str, list[float]]:
    """What the metrics say of texts that answer an item."""
    rows = [[*env.vocab.encode(text), env.vocab.eos] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    context = {"index": torch.full((len(rows),), item)}
    return {name: metric(tokens, mask, context).tolist() for name, metric in env.metrics.items()}


def test_one_answer_in_ten_is_generic_and_found_to_be_so() -> None:
    env = chat()
    answers = [text for item in env.corpus.texts() for text in item]
    share = sum(pair.target in env.rules.generic for pair in pairs_of(1)) / len(pairs_of(1))
    assert 0.08 < share < 0.12
    assert len(set(answers)) > 100


def pairs_of(turns: int) -> Any:
    from rlseq.envs.chat import toy_pairs_of_turns

    return toy_pairs_of_turns(turns)


def test_each_rule_costs_a_point() -> None:
    env = chat()
    item = next(i for i, question in enumerate(env.rules.questions) if question.startswith("where"))
    found = judged(
        env,
        item,
        "well in the harbour",
        "i do not know",
        "harbour",
        "well well in the harbour",
        "oh at noon",
        "",
    )
    assert found["generic"] == [0, 1, 0, 0, 0, 0]
    assert found["short"] == [0, 0, 1, 0, 0, 1]
    assert found["loops"] == [0, 0, 0, 1, 0, 0]
    assert found["off_topic"][1:2] == [1]
    assert found["off_topic"][4:] == [1, 1]
    assert found["rules"][:2] == [1, -1]
    assert found["rules"][5] == -1


# ── several turns ────────────────────────────────────────────────────────────────────────────────────


def first_word(env: Any, answers: list[str]) -> Tensor:
    """Play a dialogue in which the policy gives these answers, and wants word 1 in the other side's turns."""
    env.begin(index=torch.zeros(env.num_envs, dtype=torch.int64))
    wanted = iter([*env.vocab.encode(f" {env.vocab.words[env.turn]} ".join(answers)), env.vocab.eos])
    while not env.done.all():
        forced = int(env.spoken()[0])
        allowed = env.allowed()[0]
        if forced >= 0:
            assert allowed.nonzero().flatten().tolist() == [forced]
        env.append(torch.full((env.num_envs,), 1 if forced >= 0 else next(wanted)))
    written: Tensor = env.tokens
    return written


@pytest.mark.parametrize("user", ["recorded", "asks_again"])
def test_the_other_side_speaks_in_its_turns(user: str) -> None:
    env = chat(2, turns=2, user=user, max_len=24)
    text = env.texts(first_word(env, ["i do not know", "well at noon"]), env.mask)[0]
    answer, question, last = text.split(" <turn> ")
    assert (answer, last) == ("i do not know", "well at noon")
    first = env.sources()[0]
    recorded = env.corpus.texts(torch.tensor([0]))[0][0].split(" <turn> ")[1]
    assert question == (recorded if user == "recorded" else first)


def test_a_function_is_the_other_side_and_hears_all_turns() -> None:
    heard = []

    def user(turns: list[str]) -> str:
        heard.append(turns)
        return ASKED

    env = chat(1, turns=3, user=user, max_len=40)
    text = env.texts(first_word(env, ["oh at noon", "well at night", "hm at dawn"]), env.mask)[0]
    assert text == f"oh at noon <turn> {ASKED} <turn> well at night <turn> {ASKED} <turn> hm at dawn"
    assert [len(turns) for turns in heard] == [2, 4]
    assert heard[1][1:] == ["oh at noon", ASKED, "well at night"]


def test_words_of_the_other_side_are_certain_and_teach_nothing() -> None:
    env = chat(16, turns=2, max_len=24)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    batch = rlseq.rollout(policy, env)
    theirs = batch.log_probs.eq(0) & batch.mask
    ended = (batch.actions == env.turn).cumsum(1) - (batch.actions == env.turn).long()
    assert (theirs == (ended % 2 == 1) & batch.mask).all()
    rlseq.testing.check_policy(policy, env)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_dialogues_go_on_in_every_mode_as_gymnasium_s_own_vector_env_does(mode: AutoresetMode) -> None:
    """One row with one seed, through several dialogues whose other side speaks."""
    ours = gym.make_vec("rlseq/Chat-v0", num_envs=1, turns=2, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: gym.make("rlseq/Chat-v0", turns=2)], autoreset_mode=mode)
    ours.reset(seed=3)
    theirs.reset(seed=3)
    turn, ended = ours.unwrapped.turn, 0  # type: ignore[attr-defined]
    for step in range(45):
        action = np.array([turn if step % 4 == 2 else 5])
        mine, other = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(mine[0]["prefix"], other[0]["prefix"])
        np.testing.assert_allclose(mine[1], other[1], rtol=1e-6)
        assert mine[2].tolist() == other[2].tolist()
        ended += int(mine[2][0])
        if mode is AutoresetMode.DISABLED and mine[2][0]:
            ours.reset()
            theirs.reset()
    assert ended >= 2


def test_a_policy_speaks_for_both_and_both_are_judged() -> None:
    env = chat(4, turns=2, user="self", max_len=24)
    assert env.legal() is None
    found = judged(env, 0, "i do not know <turn> i do not know <turn> i do not know")
    assert found["generic"] == [1.0]
    assert found["loops"] == pytest.approx([2 / 3])


def test_a_missing_answer_is_judged_as_an_empty_one() -> None:
    env = chat(turns=2)
    assert judged(env, 0, "i do not know")["short"] == [0.5]


def test_likelihood_and_reinforce_go_through_dialogues() -> None:
    env = chat(16, turns=2, max_len=24)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8)
    for name in ("mle", "reinforce"):
        agent = rlseq.make_agent(name, policy)
        agent.update(agent.collect(env))
    assert set(rlseq.evaluate(policy, env, limit=16)) >= {
        "generic",
        "loops",
        "short",
        "off_topic",
        "distinct_2",
    }


def talkative(env: Any) -> Any:
    """A policy that says "oh" and gives the turn away, each with probability ½."""
    policy = rlseq.make_policy("seq2seq", env, hidden=4, embedding=4)
    with torch.no_grad():
        policy.head.weight[:, -1] = -50  # the bias
        policy.head.weight[[*env.vocab.encode("oh"), env.turn], -1] = 0
    return policy


@pytest.mark.parametrize("user", ["recorded", "asks_again", "self"])
def test_a_run_of_several_turns_answers_questions_without_its_data(
    tmp_path: Path, capsys: Any, user: str
) -> None:
    env, run = chat(4, turns=2, user=user, max_len=24), str(tmp_path / "run")
    agent = rlseq.make_agent("mle", talkative(env), lr=1e-6)
    rlseq.train(agent, env, updates=1, out=run, quiet=True, probe=False)
    main(["generate", run, ASKED, "how is the kind queen today", "--decode", "sample", "--n", "8"])
    texts = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert len(texts) == 16
    assert any("oh" in text for text in texts)
    assert any("<turn>" in text for text in texts) == (user == "self")


def test_the_other_side_repeats_the_question_that_was_given() -> None:
    env, asked = chat(2, turns=2, user="asks_again", max_len=24), (ASKED, "how is the kind queen today")
    found = rlseq.generate(talkative(env), env, asked, rlseq.Sample(), n=8)
    for question, texts in zip(asked, found, strict=True):
        second = [text.split("<turn>")[1].strip() for text, _ in texts if text.count("<turn>") > 1]
        assert set(second) == {question}


# ── files ────────────────────────────────────────────────────────────────────────────────────────────


def read(path: Path, answers: int = 1) -> list[Any]:
    return list(thread_formats(answers)[path.suffix](path))


def test_threads_of_all_forms_are_the_same(tmp_path: Path) -> None:
    threads = [["hi", "hello", "who are you", "i am john"], ["what", "no"]]
    (tmp_path / "a.tsv").write_text("".join("\t".join(thread) + "\n" for thread in threads))
    (tmp_path / "a.jsonl").write_text(
        json.dumps(threads[0]) + "\n" + json.dumps({"turns": threads[1]}) + "\n"
    )
    lines = ["categories:", "- talk", "conversations:"]
    lines += [
        f'{"- - " if n == 0 else "  - "}"{turn}"' for thread in threads for n, turn in enumerate(thread)
    ]
    (tmp_path / "a.yml").write_text("\n".join(lines))
    for name in ("a.tsv", "a.jsonl", "a.yml"):
        found = [(pair.source, pair.target) for pair in read(tmp_path / name)]
        assert found == [
            ("hi", "hello"),
            ("hello", "who are you"),
            ("who are you", "i am john"),
            ("what", "no"),
        ]
        two = [(pair.source, pair.target) for pair in read(tmp_path / name, 2)]
        assert two == [("hi", "hello <turn> who are you <turn> i am john"), ("what", "no")]


@pytest.mark.parametrize(
    ("name", "text", "line", "says"),
    [
        ("a.tsv", "a\tb\nalone\n", 2, "at least two turns"),
        ("a.tsv", "a\t\n", 1, "none of them empty"),
        ("a.jsonl", '["a", "b"]\n["alone"]\n', 2, "at least two turns"),
        ("a.jsonl", '["a", "b"]\n{"turn": []}\n', 2, "expected a list of turns"),
        ("a.jsonl", "[1, 2]\n", 1, "each a text"),
        ("a.jsonl", "[\n", 1, "expected a JSON list"),
        ("a.yml", "conversations:\n- - a\n  - b\n- - alone\n", 4, "at least two turns"),
        ("a.yml", "conversations:\n- - a\n  - b\n - c\n", 4, "expected YAML"),
        ("a.yml", "talks: []\n", 1, "under 'conversations'"),
        ("a.tsv", "a\tb <turn> c\n", 1, "turns without <turn>"),
    ],
)
def test_bad_threads_are_named_by_file_and_line(
    tmp_path: Path, name: str, text: str, line: int, says: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    problems = [found for found in read(path) if isinstance(found, Problem)]
    assert [problem.line for problem in problems] == [line]
    assert says in str(problems[0])
    with pytest.raises(DataError, match=f"{name}:{line}"):
        chat(path=str(path))


def test_a_user_s_threads_are_a_task(tmp_path: Path) -> None:
    path = tmp_path / "talk.tsv"
    path.write_text("".join(f"say {n}\tit is {n}\tand then\tthat is {n + 1}\n" for n in range(60)))
    env = chat(path=str(path), turns=2)
    assert env.sources is not None
    batch = rlseq.rollout(rlseq.make_policy("gru", env, hidden=4, embedding=4), env)
    assert batch.actions.shape[0] == 4
    assert isinstance(next(iter(read(path))), Pair)


def test_answers_to_many_questions_of_a_file_are_generic(tmp_path: Path) -> None:
    path = tmp_path / "talk.tsv"
    path.write_text("".join(f"say {n}\t{'who knows' if n % 5 == 0 else f'it is {n}'}\n" for n in range(100)))
    env = chat(path=str(path))
    assert env.rules.generic == {"who knows"}
    assert chat(path=str(path), generic=["it is 3"]).rules.generic == {"it is 3"}


@pytest.mark.parametrize(("turns", "max_len"), [(1, 5), (2, 12)])
def test_an_answer_is_judged_by_its_own_question_where_long_ones_are_left_out(
    tmp_path: Path, turns: int, max_len: int
) -> None:
    path, long = tmp_path / "talk.tsv", " ".join(["long"] * max_len)
    path.write_text("".join(f"say {n}\t{'it is' if n % 3 else long} {n}\tand\tyes {n}\n" for n in range(60)))
    with pytest.warns(UserWarning, match="left out"):
        env = chat(16, path=str(path), turns=turns, max_len=max_len)
    env.begin()
    assert [env.rules.questions[item] for item in env.context["index"].tolist()] == env.sources()


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="several turns are written in words"):
        chat(turns=2, level="char")
    with pytest.raises(ValueError, match="unknown user 'recordet'; did you mean 'recorded'"):
        chat(user="recordet")


# ── two policies, and rewards of texts and of words ──────────────────────────────────────────────────


def two_speakers(rows: int = 16) -> tuple[Any, Any]:
    env = chat(rows, turns=2, user="self", max_len=24)
    return env, rlseq.make_policy("speakers", env, hidden=8, embedding=4)


def test_each_speaker_writes_its_own_turns_and_learns_from_these_alone() -> None:
    env, policy = two_speakers()
    rlseq.testing.check_policy(policy, env)
    batch = rlseq.rollout(policy, env)
    read = policy.words.before(batch.actions)
    second = (read == env.turn).cumsum(1) % 2 == 1
    assert (second & batch.mask).any()
    for turns, silent in ((second, policy.first), (~second, policy.second)):
        policy.zero_grad()
        scores = policy.evaluate(batch.actions, batch.context).log_probs
        (scores * (turns & batch.mask)).sum().backward()
        assert all(p.grad is None or not p.grad.any() for p in silent.parameters())
    assert any(p.grad.any() for p in policy.first.parameters() if p.grad is not None)


def test_two_speakers_are_trained_on_the_score_of_their_dialogue_and_loaded(tmp_path: Path) -> None:
    env, policy = two_speakers()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    rlseq.train(rlseq.make_agent("reinforce", policy), env, 1, out=tmp_path / "run", quiet=True, probe=False)
    after = rlseq.load(tmp_path / "run").policy.state_dict()
    for speaker in ("first", "second"):
        assert any((after[name] != before[name]).any() for name in before if name.startswith(speaker))
    with pytest.raises(ValueError, match="this task has no turns"):
        rlseq.make_policy("speakers", chat(2))


class Bigrams(torch.nn.Module):
    """Each word by the one before: "i" with probability ½, then "do not know" or "am john", each with ½."""

    def __init__(self, vocab: Any) -> None:
        super().__init__()
        table = torch.full((len(vocab), len(vocab)), -9.0)
        ways = {"<eos>": "i we", "i": "do am", "we": "do", "do": "not", "not": "know", "am": "john"}
        for word, following in {**ways, "know": "<eos>", "john": "<eos>"}.items():
            for other in following.split():
                table[vocab.words.index(word), vocab.words.index(other)] = 0
        self.table = torch.nn.Parameter(table)

    def start(self, context: Any) -> Any:
        return torch.zeros_like(context["index"])

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.table[token], state

    def evaluate(self, actions: Tensor, context: Any, behaviour: Any = None) -> Evaluation:
        before = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)
        log_p = self.table[before].log_softmax(-1)
        chosen = log_p.gather(2, actions.unsqueeze(2)).squeeze(2)
        return Evaluation(chosen, -(log_p.exp() * log_p).sum(-1))


def test_a_reward_of_the_text_blames_its_first_word_and_a_value_of_each_word_need_not() -> None:
    """Of a bad "i do not know" and a good "i am john", the first alone lowers P(i); Q raises it."""
    vocab = Vocab(("<eos>", "i", "we", "do", "not", "know", "am", "john"))

    def good(tokens: Tensor, mask: Tensor, context: Any) -> Tensor:
        return (tokens == vocab.words.index("john")).any(1).float()

    env = SequenceEnv(vocab=vocab, max_len=5, reward=good, num_envs=1, seed=0)
    policy = Bigrams(vocab)
    batch = rlseq.rollout(policy, env, forced=[[*vocab.encode("i do not know"), 0]])
    value = 1 / 4  # of the empty text: "i", and then "am"
    of_text = reward_to_go(batch.rewards, batch.ends)
    of_words = Completions(400).prepare(batch, policy, env).credit
    assert of_words is not None
    assert of_words[0].tolist() == pytest.approx([1 / 2, 0, 0, 0, 0], abs=0.08)
    slopes = []
    for credit in (of_text, of_words):
        scores = policy.evaluate(batch.actions, batch.context).log_probs
        (slope,) = torch.autograd.grad((scores * (credit - value) * batch.mask).sum(), policy.table)
        slopes.append(slope[0, vocab.words.index("i")].item())
    assert slopes[0] == pytest.approx(-1 / 8, abs=0.01)  # (0 − ¼) (1 − ½)
    assert slopes[1] == pytest.approx(1 / 8, abs=0.05)  # (½ − ¼) (1 − ½)


def test_a_discriminator_of_question_and_answer_is_a_reward() -> None:
    env = chat(8)
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=4)
    network = rlseq.make_discriminator("gru", env, hidden=8, embedding=4)
    assert network.conditional
    adversary = Adversary(network, texts=16, batch=8)
    agent = rlseq.make_agent("regs", policy, adversary=adversary, pretraining=1, d=1, k=1)
    metrics = agent.update(agent.collect(env))
    assert {"d_loss", "d_order"} <= metrics.keys()
    batch = rlseq.rollout(policy, env)
    other = {**batch.context, "source": batch.context["source"].roll(1, 0)}
    rewards = [adversary(batch.actions, batch.mask, context) for context in (batch.context, other)]
    assert (rewards[0] != rewards[1]).any()
