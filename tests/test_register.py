"""One of everything that a user can add, from a module of their own, in Python and on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq import agents, discriminators, metrics, policies
from rlseq.cli.command_line import main
from rlseq.compare.tables import matrix
from rlseq.metrics.fitting import ItemReferences, named_metric, named_reward
from rlseq.metrics.registry import METRICS, row_of
from rlseq.utils.errors import _PLACES

KIT = '''
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

import rlseq
from rlseq.policies.recurrent import Recurrent
from rlseq.policy_gradient.baselines import Baseline
from rlseq.policy_gradient.algorithm import PolicyGradient


class Overlap(rlseq.metrics.Exact):
    """Share of the tokens of a text that stand in a reference at the same place."""

    name = "overlap"

    def judge(self, batch):
        """The share."""
        right = (batch.ids[:, :, None] == self.table[batch.rows].transpose(1, 2)[:, : batch.ids.shape[1]])
        return batch.total(right.any(-1) & batch.real).to(self.dtype) / batch.lengths.clamp(min=1)


def early(tokens, mask, context):
    """Share of the first word among what is written."""
    return ((tokens == 1) & mask).sum(1) / mask.sum(1).clamp(min=1)


def halves(returns, batch):
    """Half of the mean."""
    return returns.mean() / 2


@dataclass(eq=False)
class Plain(PolicyGradient):
    """REINFORCE by another name."""

    boost: float = 1.0  # a factor that nobody needs
    baseline: Baseline = halves  # subtracted from the credit


class Wide(rlseq.discriminators.Reader):
    """Every word by itself."""

    def __init__(self, embedding, length, *, hidden=4):
        super().__init__()
        self.width, self.layer = hidden, nn.Linear(embedding, hidden)

    def forward(self, x, mask):
        """A linear map."""
        return self.layer(x)


class Echo(rlseq.SequenceEnv):
    """Write the number of the item."""

    def __init__(self, *, reward="overlap", **options):
        texts = torch.tensor([[[1, 2, 0]], [[2, 1, 0]], [[1, 1, 0]]])
        super().__init__(
            vocab=rlseq.Vocab.numbered(4),
            max_len=3,
            reward=(lambda tokens, mask, context: mask.sum(1).float()),
            items={"references": texts, "reference_lengths": torch.full((3, 1), 3)},
            **options,
        )


rlseq.metrics.register("overlap", Overlap, range=(0, 1))
rlseq.metrics.register("early", early, better="lower", range=(0, 1), unit="share")
rlseq.metrics.register("early_twice", partial(early), better="neither")
rlseq.policies.register("tiny", partial(Recurrent, nn.GRU))
rlseq.agents.register("plain", Plain)
rlseq.discriminators.register("wide", Wide)
rlseq.register("mine/Echo-v0", Echo)
'''
TASK = (
    "--env",
    "rlseq/Copy-v0",
    "--option",
    "length=2",
    "items=12",
    "num_envs=8",
    "--policy",
    "tiny",
    "hidden=4",
)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of a user's, and all tables as they were afterwards."""
    import gymnasium as gym

    tables: list[dict[Any, Any]] = [
        *(METRICS, policies.POLICIES, agents.AGENTS, discriminators.READERS),
        *(gym.registry, _PLACES),
    ]
    before = [dict(table) for table in tables]
    (tmp_path / "my_kit.py").write_text(KIT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_kit", None)
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


enter: Any = metrics.register
nothing: Any = dict  # neither agent nor reader, and no policy of a TokenSpec


def typed(*words: str) -> int:
    """Run a command here; its status."""
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_everything_is_known_by_name_once_the_module_is_imported(kit: Any) -> None:
    __import__("my_kit")
    for id in ("rlseq/Copy-v0", "rlseq/HMM-v0", "rlseq/Parallel-v0", "rlseq/Text-v0", "rlseq/Captions-v0"):
        for reward in ("overlap", "early"):
            env = rlseq.make(id, num_envs=4, reward=reward)
            policy = rlseq.make_policy(
                "captioner" if "Captions" in id else "tiny", env, hidden=4, embedding=4
            )
            found = rlseq.rollout(policy, env).returns
            assert ((found >= 0) & (found <= 1)).all()
            assert list(env.parts) == [reward]
    agent = rlseq.make_agent("plain", policy, boost=2.0)
    rlseq.train(agent, env, updates=2)
    judge = rlseq.make_discriminator("wide", env, hidden=3)
    assert judge.reader.width == 3
    assert rlseq.metrics.evaluate(["a b"], [["a c"]], metrics=["overlap"]) == {"overlap": 0.5}
    assert rlseq.make("mine/Echo-v0", num_envs=2).size == 3


def test_the_command_line_sees_them(kit: Any, capsys: Any) -> None:
    assert typed("metrics", "--import", "my_kit") == 0
    assert "Share of the tokens of a text that stand" in capsys.readouterr().out
    assert typed("metrics", "early", "--import", "my_kit") == 0
    assert "lower is better; reads tokens; 0 … 1 share; needs no references" in capsys.readouterr().out
    words = ("--reward", "overlap", "--metrics", "early", "bleu_1", "--budget-tokens", "100", "--out", "run")
    assert typed("train", "plain", *TASK, *words, "--import", "my_kit") == 0, capsys.readouterr().err
    final = json.loads((kit / "run" / "results.json").read_text("utf-8"))["final"]
    assert {"reward", "early", "bleu_1", "overlap"} <= set(final), "what is trained on is tested, too"
    assert typed("agents", "plain", "--import", "my_kit") == 0
    assert "halves" in capsys.readouterr().out, "a function of the user's is shown as a default"
    assert typed("evaluate", "run") == 0, capsys.readouterr().err


def test_a_comparison_takes_them(kit: Any) -> None:
    found = rlseq.compare(
        envs={"mine/Echo-v0": {"num_envs": 4}},
        agents=["plain"],
        policy={"name": "tiny", "hidden": 4, "embedding": 4},
        rewards=["overlap"],
        metrics=["early", "overlap"],
        seeds=2,
        budget_tokens=60,
        start=None,
        control=None,
        evaluations=1,
        out=kit / "compared",
        jobs=1,
        imports=["my_kit"],
    )
    (task,) = found.results["tasks"]
    assert [agent["name"] for agent in task["agents"]] == ["plain", "plain@overlap"]
    assert "early ↓" in matrix(task).head


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(enter, "bleu", metrics.Exact), "the metric 'bleu' exists already"),
        (partial(enter, "reward", metrics.Exact), "'reward' is the name of something else"),
        (
            partial(enter, "a b", metrics.Exact),
            "the name of the metric must be of letters, digits",
        ),
        (partial(enter, "mine", metrics.Metric), "Metric must define fit, judge to be a metric"),
        (partial(enter, "mine", object), r"object must define __call__\(tokens, mask, context\)"),
        (partial(enter, "mine", len), r"must be a class, or a function \(tokens, mask, context\)"),
        (partial(enter, "mine", metrics.Exact, better="up"), "better must be"),
        (partial(enter, "mine", metrics.Exact, reads="letters"), "reads must be"),
        (
            partial(enter, "mine", metrics.Exact, range=(1, 0)),
            "range must be",
        ),
        (partial(policies.register, "lstm", policies.Transformer), "the policy 'lstm' exists already"),
        (partial(policies.register, "mine", nothing), "a policy is built from a TokenSpec"),
        (partial(agents.register, "scst", agents.SCST), "the agent 'scst' exists already"),
        (partial(agents.register, "sb3-mine", agents.SCST), "means something else in comparisons"),
        (
            partial(agents.register, "mine", nothing),
            r"an agent must be a subclass of .*Agent with @dataclass",
        ),
        (
            partial(discriminators.register, "cnn", discriminators.Reader),
            "'cnn' exists already",
        ),
        (partial(discriminators.register, "mine", nothing), "a reader must be a subclass of"),
    ],
)
def test_what_cannot_be_registered(call: Any, message: str) -> None:
    before = dict(METRICS), dict(policies.POLICIES), dict(agents.AGENTS), dict(discriminators.READERS)
    with pytest.raises((TypeError, ValueError), match=message):
        call()
    assert before == (METRICS, policies.POLICIES, agents.AGENTS, discriminators.READERS)


def test_the_same_definition_again_replaces_the_first(kit: Any) -> None:
    """As when a cell of a notebook is run twice."""
    __import__("my_kit")
    cell = KIT[KIT.index("class Overlap") : KIT.index("def early")]
    first, scope = METRICS["overlap"].make, {"rlseq": rlseq, "__name__": "my_kit"}
    exec(cell, scope)
    metrics.register("overlap", scope["Overlap"])  # type: ignore[arg-type]
    assert METRICS["overlap"].make is scope["Overlap"] is not first


def test_every_metric_reads_every_task_as_it_says() -> None:
    """Whatever needs references is fitted on them; 1 at best as a reward, its own figure as a metric."""
    vocab = rlseq.Vocab(("<eos>", *["the", "cat", "sat", "down", "a", "dog", "ran", "off"]))
    ids, mask = torch.tensor([[[1, 2, 3, 4, 0]], [[5, 6, 7, 8, 0]]]), torch.ones(2, 5, dtype=torch.bool)
    items = {"references": ids, "reference_lengths": torch.full((2, 1), 5)}
    context = {"index": torch.arange(2), **items}
    for name, row in METRICS.items():
        if row.make is None or row.reads == "texts":
            continue
        corpus = ItemReferences(vocab, items)
        value = named_reward(name, corpus)(ids[:, 0], mask, context)
        assert value.shape == (2,)
        if row.sign:
            assert value.tolist() == pytest.approx([1, 1]), name
        own: Any = named_metric(name, corpus)
        figure = getattr(own, "value", own)(ids[:, 0], mask, context)
        best = {1: row.range[1], -1: 0.0}.get(row.sign)
        if best is not None:
            assert figure.tolist() == pytest.approx([best, best], rel=1e-5), name


def test_a_name_without_a_row_is_a_figure_of_which_more_is_better() -> None:
    row = row_of("my_task_s_own_figure")
    assert (row.sign, row.make, row.needs_references) == (1, None, False)
    assert row.range == row.reward_range == (-torch.inf, torch.inf)
