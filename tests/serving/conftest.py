"""A trained shop, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shop import shop

from persona_cli.feedback.training import train
from persona_cli.workspace.home import Home, open_home


@pytest.fixture(autouse=True)
def apart(elsewhere: Path) -> None:
    """Every test is in a folder of its own."""


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = shop(tmp_path_factory.mktemp("shop") / "w")
    train(home)
    return home.root


@pytest.fixture
def home(trained_once: Path, tmp_path: Path) -> Home:
    """A workspace of its own for every test: trained with all four models, layered around the best."""
    shutil.copytree(trained_once, tmp_path / "w")
    return open_home(tmp_path / "w")
