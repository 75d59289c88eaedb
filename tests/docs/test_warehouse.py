"""The code that the page on warehouses shows reads what is live, and only that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest
from scripts import assert_current, assert_notices

from persona_cli import Workspace
from persona_cli.events.schema import stored_schema
from persona_cli.profiles import fold, history

PAGE = (Path(__file__).parents[2] / "docs" / "warehouse.md").read_text()


@pytest.fixture
def shown() -> dict[str, Any]:
    """What the Python blocks of the page define."""
    made: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, made)
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three events, and one that was taken back again; one user with attributes."""
    made = Workspace.create(tmp_path / "w")
    rows = [("u1", "view", "2026-01-05"), ("u1", "click", "2026-01-06"), ("u2", "click", "2026-02-01")]
    kept, gone, users = tmp_path / "kept.jsonl", tmp_path / "gone.jsonl", tmp_path / "users.jsonl"
    lines = [{"user_id": u, "event_type": t, "item_id": "a", "timestamp": f"{d}T00:00:00Z"} for u, t, d in rows]
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    gone.write_text(json.dumps({**lines[0], "timestamp": "2026-01-09T00:00:00Z"}) + "\n")
    users.write_text('{"user_id": "u1", "role": "admin"}\n')
    made.ingest(str(kept))
    made.ingest(str(users), kind="users")
    made.undo(made.ingest(str(gone)).run)
    return made


def test_live_events_are_counted(shown: dict[str, Any], workspace: Workspace) -> None:
    root = str(workspace.home.root)
    assert shown["events_by_type"](root) == [("click", 2), ("view", 1)]
    assert shown["clicks_by_month"](root).rows() == [("2026-01", 1), ("2026-02", 1)]
    assert len(list((workspace.home.root / "events").rglob("*.parquet"))) > len(
        deltalake.DeltaTable(f"{root}/events").file_uris()
    )


def test_users_and_exported_profiles_are_read(shown: dict[str, Any], workspace: Workspace, tmp_path: Path) -> None:
    assert shown["users_table"](str(workspace.home.root)).column("role").to_pylist() == ["admin"]
    file = tmp_path / "profiles.parquet"
    workspace.profiles().sort("user_id").collect().write_parquet(file)
    assert shown["last_seen"](str(file))["user_id"].to_list() == ["u1", "u2"]


def test_the_sql_over_an_export_runs(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workspace.profiles().collect().write_parquet("profiles.parquet")
    blocks = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = (text for text in blocks if ".parquet'" in text and "FROM FILES" not in text)
    by_type, by_hour = (duckdb.sql(query).fetchall() for query in block.split(";")[:2])
    assert by_type == [("u1", "click", 1), ("u1", "view", 1), ("u2", "click", 1)]
    assert [(at_midnight, newest.isoformat()[:10]) for at_midnight, newest in by_hour] == [(3, "2026-02-01")]


def test_the_columns_are_current() -> None:
    assert_current("generate_warehouse.py")


def test_the_check_notices_columns_that_are_out_of_date(tmp_path: Path) -> None:
    assert_notices(tmp_path, "generate_warehouse.py", "warehouse.md", PAGE.replace("`event_id`, ", ""))


def test_the_schemas_shown_are_those_on_disk(workspace: Workspace) -> None:
    schemas = {"events": stored_schema("events"), "users": stored_schema("users")}
    schemas |= {"profiles": fold.SCHEMA, "history": history.SCHEMA}
    for name, schema in schemas.items():
        stored = pa.schema(deltalake.DeltaTable(workspace.home.root / name).schema())
        assert stored.names == schema.names
        assert [str(field.type).replace("element", "item") for field in stored] == [str(f.type) for f in schema]


def test_tables_ask_for_no_more_than_the_page_says(workspace: Workspace) -> None:
    for name in ("events", "users", "profiles", "history"):
        protocol = deltalake.DeltaTable(workspace.home.root / name).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
        assert not protocol.reader_features and not protocol.writer_features
