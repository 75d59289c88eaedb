"""A workspace for the tests of ingest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_cli.workspace import home as homes
from persona_cli.workspace.home import Home


@pytest.fixture
def make_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Home]:
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)
    return lambda: homes.create(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def home(make_home: Callable[[], Home]) -> Home:
    return make_home()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
