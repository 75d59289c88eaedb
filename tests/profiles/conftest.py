"""Workspaces for the tests of profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from stored import with_settings

from persona_cli.workspace import home as homes
from persona_cli.workspace.home import Home


@pytest.fixture
def make_home(tmp_path_factory: pytest.TempPathFactory, no_variables: None) -> Callable[[], Home]:
    return lambda: with_settings(homes.create(tmp_path_factory.mktemp("workspace")), profiles__buckets=3)


@pytest.fixture
def home(make_home: Callable[[], Home]) -> Home:
    return make_home()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
