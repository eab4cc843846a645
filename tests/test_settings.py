"""Settings are documented once, beside the fields of a dataclass, and are the keywords of a function."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

import rlseq
from rlseq.cli.command_line import main
from rlseq.cli.comparing import FLAGS_OF_COMPARISON
from rlseq.compare.plan import ComparisonConfig
from rlseq.compare.run import compare
from rlseq.training.config import TrainConfig
from rlseq.utils.settings import configured, descriptions, takes_fields_of


@dataclass
class Base:
    """Two settings."""

    short: int = 1  # a comment
    several: tuple[int, ...] = (
        1,
        2,
    )  # a comment behind several lines


@dataclass
class Derived(Base):
    """One setting more, and one that is described anew."""

    long: str = ""
    """A string of
    two lines."""
    short: int = 3  # another comment


@takes_fields_of(Derived)
def function(first: int, config: Derived | None = None, **settings: Any) -> Derived:
    """Return the settings."""
    return configured(Derived, config, settings, "function")


def test_a_field_is_described_by_the_comment_behind_it_or_the_string_below_it() -> None:
    assert descriptions(Derived) == {
        "short": "another comment",
        "several": "a comment behind several lines",
        "long": "A string of two lines.",
    }


def test_fields_are_keywords_and_replace_those_of_a_configuration() -> None:
    assert function(0) == Derived()
    assert function(0, long="x") == Derived(long="x")
    assert function(0, Derived(short=5, long="x"), short=6) == Derived(short=6, long="x")
    with pytest.raises(TypeError, match="function has no option 'shrot'; did you mean 'short'"):
        function(0, shrot=1)


def test_help_lists_every_field() -> None:
    assert list(inspect.signature(function).parameters) == ["first", "config", "short", "several", "long"]
    assert "    several: a comment behind several lines\n" in (function.__doc__ or "")


def test_every_setting_of_training_is_described_in_help_and_is_a_keyword() -> None:
    said, keywords = " ".join((rlseq.train.__doc__ or "").split()), inspect.signature(rlseq.train).parameters
    for field in fields(TrainConfig):
        text = descriptions(TrainConfig)[field.name]
        assert text
        assert f"{field.name}: {text}" in said
        assert keywords[field.name].default == field.default
    env = rlseq.make("rlseq/Copy-v0")
    agent = rlseq.make_agent("mle", rlseq.make_policy("gru", env, hidden=4))
    with pytest.raises(TypeError, match="train has no option 'evel_every'; did you mean 'eval_every'"):
        rlseq.train(agent, env, evel_every=1)
    with pytest.raises(ValueError, match="budget_tokens must be an integer ≥ 1 or None, got 0"):
        rlseq.train(agent, env, budget_tokens=0)
    assert len(rlseq.train(agent, env, config=rlseq.TrainConfig(budget_tokens=10**6), budget_tokens=1)) == 1


def test_every_setting_of_a_comparison_is_a_keyword_and_a_flag_with_its_description(capsys: Any) -> None:
    keywords = inspect.signature(compare).parameters
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    named = {**FLAGS_OF_COMPARISON, "imports": "import"}
    for field in fields(ComparisonConfig):
        assert field.name in keywords
        assert f"--{named.get(field.name, field.name).replace('_', '-')} " in said.replace(",", " ")
        text = descriptions(ComparisonConfig)[field.name]
        assert text
        assert text in said or field.name == "imports"


def test_a_file_of_settings_is_not_mixed_with_other_flags(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"envs": "rlseq/Copy-v0", "agents": "mle"}', "utf-8")
    with pytest.raises(SystemExit):
        main(["compare", "--config", str(path), "--seeds", "7", "--out", str(tmp_path / "out")])
    assert f"{path} has all settings; leave out seeds" in capsys.readouterr().err
    assert [found.name for found in tmp_path.iterdir()] == ["config.json"]
