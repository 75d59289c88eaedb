"""The shop of the serving tests, not trained yet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import shop

from persona_cli.workspace.home import Home


@pytest.fixture(autouse=True)
def apart(elsewhere: Path) -> None:
    """Every test is in a folder of its own."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return shop(tmp_path / "w")
