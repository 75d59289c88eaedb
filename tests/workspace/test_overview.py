"""Status and doctor over tables; the tables themselves are tested on their own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from persona_cli import workspace
from persona_cli.workspace import artifacts, doctor, locks
from persona_cli.workspace.doctor import overview
from persona_cli.workspace.home import Home, create


@pytest.fixture
def made(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


@pytest.fixture
def tables(made: Home, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Tables of which only events and quarantine exist, with one file too many."""
    rows = {"events": 10, "quarantine": 2}
    fake = SimpleNamespace(orphan_files=[made.path("events", "x.parquet")], rows=rows)
    fake.exists = lambda home, name: name in rows
    fake.row_count = lambda home, name: rows[name]
    fake.orphans = lambda home: list(fake.orphan_files)
    fake.vacuum = lambda home: fake.orphan_files.clear()
    monkeypatch.setattr(workspace, "tables", fake, raising=False)
    made.path("events").mkdir()
    return fake


def publish_model(made: Home, name: str, version: int) -> None:
    with artifacts.publish(made.path("models", name, str(version))) as folder:
        artifacts.write_manifest(folder, {})


def test_the_next_command_follows_what_is_there(made: Home, tables: SimpleNamespace) -> None:
    tables.rows["events"] = 0
    assert overview(made)["next"] == "persona ingest FILE"
    tables.rows["events"] = 10
    assert overview(made)["next"] == "persona train"
    publish_model(made, "layered", 1)
    artifacts.write_text(made.path("models", "latest.json"), json.dumps({"model": "layered", "version": 1}))
    assert overview(made)["next"] == "persona evaluate"
    made.path("evaluations", "run").mkdir(parents=True)
    assert overview(made)["next"] == "persona recommend > out.jsonl"


def test_what_is_held(made: Home, tables: SimpleNamespace) -> None:
    for version in (2, 10, 9):
        publish_model(made, "ease", version)
    held = overview(made)
    assert held["tables"] == {"events": 10, "quarantine": 2}
    assert held["models"] == {"ease": "10"}
    assert held["latest"] is None and held["last_run"] is None


def test_an_empty_workspace_loads_no_table_engine(made: Home) -> None:
    assert overview(made)["tables"] == {}


def states(made: Home, *, repair: bool) -> dict[str, str]:
    return {finding.check: finding.state for finding in doctor.examine(made, repair=repair)}


def test_files_outside_a_table_are_reported_and_removed(made: Home, tables: SimpleNamespace) -> None:
    assert states(made, repair=False)["tables"] == "problem"
    assert len(tables.orphan_files) == 1
    assert states(made, repair=True)["tables"] == "repaired"
    assert states(made, repair=True)["tables"] == "ok"


def test_tables_in_use_are_left_alone(made: Home, tables: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with locks.hold(made, "tables", "persona ingest"):
        monkeypatch.setattr(locks, "_held", {})  # as another process sees it
        assert states(made, repair=True)["tables"] == "note"
        assert states(made, repair=True)["lock tables"] == "note"
    assert len(tables.orphan_files) == 1


def test_a_model_folder_without_a_manifest_is_a_problem(made: Home) -> None:
    made.path("models", "ease", "1").mkdir(parents=True)
    findings = [finding for finding in doctor.examine(made, repair=True) if finding.state == "problem"]
    assert [finding.detail for finding in findings] == ["models/ease/1 has no manifest: remove the folder"]


def test_the_surroundings_name_every_dependency() -> None:
    details = " ".join(finding.detail for finding in doctor.surroundings())
    for name in doctor.DEPENDENCIES:
        assert f"{name} " in details
