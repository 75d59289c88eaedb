"""What holds for all tests: no property is judged by how long a try took, since machines differ and are busy."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from persona_cli.cli.main import run
from persona_cli.workspace import home

settings.register_profile("persona", deadline=None)
settings.load_profile("persona")
SALT = "5a" * 16


@pytest.fixture(scope="session", autouse=True)
def one_salt() -> Iterator[None]:
    """The same people are held out in every run, so that what a test expects of somebody does not hold by luck."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, "new_salt", lambda: SALT)
        yield


@pytest.fixture
def own_salts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every workspace that is made has a salt of its own, as outside of tests."""
    monkeypatch.setattr(home, "new_salt", lambda: secrets.token_hex(16))


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine changes a setting."""
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def elsewhere(no_variables: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and no variables."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def films(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[int], Path]:
    """Makes the workspace w of so many users with a film a day: evens like even films, odds odd ones; twelve days."""

    def make(users: int) -> Path:
        lines = []
        for user in range(users):
            for day in range(12):
                film = 2 * ((7 * user + 3 * day) % 20) + user % 2
                event = {"user_id": f"u{user:02d}", "event_type": "click", "item_id": f"f{film:02d}"}
                lines.append(json.dumps({**event, "timestamp": f"2026-01-{day + 1:02d}T{user % 24:02d}:00:00Z"}))
        Path("events.jsonl").write_text("\n".join(lines) + "\n")
        assert run(["init", "w"]) == 0
        assert run(["ingest", "-w", "w", "events.jsonl"]) == 0
        capsys.readouterr()
        return elsewhere / "w"

    return make
