"""The demo as a user runs it, in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from persona_cli.workspace import home as homes
from persona_cli.workspace import tables
from persona_cli.workspace.doctor import TABLES, model_versions

ROOT = Path(__file__).parents[2]


def persona(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERSONA_")}
    command = [sys.executable, "-m", "persona_cli", *map(str, args)]
    environ = kept | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environ, text=True, capture_output=True, check=False)


def test_the_demo_finds_the_tastes_that_the_simulation_knew(tmp_path: Path) -> None:
    done = persona("demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["events"] > 60_000 and 2_000 < found["users"] < 3_000
    assert 150 < sum(found["rejected"].values()) < 250 and len(found["rejected"]) >= 8
    assert found["latest"].startswith("layered/") and found["evaluation"]["base"]
    assert found["evaluation"]["lift"]["low"] > 1.0  # more than twice as good as the popular list, at the least
    assert found["in_taste"]["individual"] > 2 * found["in_taste"]["holdout"]
    assert len(found["next"]) == 3
    lists = [json.loads(line) for line in (tmp_path / "persona-demo-recommendations.jsonl").read_text().splitlines()]
    assert len(lists) == found["lists"] == found["users"]
    items = json.loads(
        persona("sql", "SELECT item_id FROM items WHERE NOT available", "--json", cwd=tmp_path / "persona-demo").stdout
    )
    gone = {row["item_id"] for row in items}
    assert gone and not gone & {entry["item_id"] for line in lists for entry in line["items"]}
    consumed = json.loads(
        persona(
            "sql",
            "SELECT DISTINCT user_id, item_id FROM history WHERE consumed > 0",
            "--json",
            cwd=tmp_path / "persona-demo",
        ).stdout
    )
    had = {(row["user_id"], row["item_id"]) for row in consumed}
    assert not had & {(line["user_id"], entry["item_id"]) for line in lists for entry in line["items"]}


@pytest.mark.slow
def test_a_second_demo_adds_nothing(tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        home = homes.open_home(tmp_path / "d")
        rows = {name: tables.row_count(home, name) for name in TABLES}
        return rows, model_versions(home), (tmp_path / "d-recommendations.jsonl").read_bytes()

    first = persona("demo", "d", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    before = state()
    second = persona("demo", "d", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert state() == before
    # Every step that is shown can be typed, in the order shown.
    typed = [line.removeprefix("$ ") for line in first.stdout.splitlines() if line.startswith("$ ")]
    assert len(typed) == 9
    assert [line for line in second.stdout.splitlines() if line.startswith("$ ")] == [f"$ {line}" for line in typed]
    assert persona("doctor", "-w", "d", cwd=tmp_path).returncode == 0
