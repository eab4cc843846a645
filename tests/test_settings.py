"""Settings are documented once, beside the fields of a dataclass, and are the keywords of a function."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Any

import pytest

import rlseq
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
