"""Tokenizers and models that are made once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.pretrained.tiny import saved

Folder = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a family of models, with a tokenizer and the settings of a model."""
    return cache(lambda name: saved(name, tmp_path_factory.mktemp(name)))
