"""`persona sql` and `persona demo` as a shell sees them."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from persona_cli.cli.main import run
from persona_cli.events.schema import stored_schema
from persona_cli.profiles import sync
from persona_cli.profiles.views import ask
from persona_cli.workspace import home as homes
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

MAY = dt.datetime(2026, 5, 4, 10, tzinfo=dt.UTC)
EVENTS = [
    {"user_id": "u1", "event_type": "view", "item_id": "a"},
    {"user_id": "u1", "event_type": "save", "item_id": "a"},
    {"user_id": "u2", "event_type": "click", "item_id": "b"},
    {"anon_id": "x9", "event_type": "page_view"},
]
ITEMS = [
    {"item_id": "a", "title": "=Tea\x1b[31m", "category": "drinks", "available": True, "valid_from": MAY},
    {
        "item_id": "a",
        "title": "Tea",
        "category": "hot drinks",
        "available": False,
        "valid_from": dt.datetime.now(dt.UTC),
    },
    {"item_id": "b", "title": "Cup", "category": "things", "available": True, "valid_from": MAY},
    {"item_id": "c", "title": "Not yet", "valid_from": dt.datetime.now(dt.UTC) + dt.timedelta(days=9)},
]


def add(home: Home, kind: Any, rows: list[dict[str, Any]], partition_by: tuple[str, ...] = ()) -> None:
    schema = stored_schema(kind)
    table = tables.open_or_create(home, kind, schema, partition_by)
    full = [{"ingested_at": dt.datetime.now(dt.UTC)} | row for row in rows]
    content = pa.Table.from_pylist(full, schema=schema)
    table.commit([table.write(content, {"month": "2026-05"})])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A workspace of four events and three items, with its profiles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSONA_WORKSPACE", raising=False)
    made = homes.create(tmp_path / "persona-workspace")
    events = [{"event_id": str(n), "timestamp": MAY, "month": "2026-05"} | row for n, row in enumerate(EVENTS)]
    add(made, "events", events, ("month",))
    add(made, "items", ITEMS)
    sync.sync(made)
    return made


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert run(["sql", *args]) == 0
    return capsys.readouterr().out


def test_every_table_answers(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(sql: str) -> Any:
        return json.loads(printed(capsys, sql, "--json"))

    assert rows("SELECT count(*) AS n, count(DISTINCT user_id) AS users FROM events") == [{"n": 4, "users": 2}]
    assert rows("SELECT user_id, events FROM profiles ORDER BY ALL") == [
        {"user_id": "u1", "events": 2},
        {"user_id": "u2", "events": 1},
        {"user_id": "x9", "events": 1},
    ]
    assert rows("SELECT user_id, item_id, day, strength, n FROM history ORDER BY ALL") == [
        {"user_id": "u1", "item_id": "a", "day": "2026-05-04", "strength": 3300, "n": 2},
        {"user_id": "u2", "item_id": "b", "day": "2026-05-04", "strength": 1000, "n": 1},
    ]
    joined = "SELECT category, count(*) AS n FROM events JOIN items USING (item_id) GROUP BY category ORDER BY category"
    assert rows(joined) == [{"category": "hot drinks", "n": 2}, {"category": "things", "n": 1}]
    assert {row["name"] for row in rows("SHOW TABLES")} >= {"events", "items", "profiles", "history"}


def test_items_are_the_rows_that_hold_now(home: Home) -> None:
    found = ask(home, "SELECT item_id, title, available FROM items ORDER BY item_id")
    assert found.rows() == [("a", "Tea", False), ("b", "Cup", True)]


def test_profiles_have_their_derived_columns(home: Home) -> None:
    found = ask(home, "SELECT user_id, stage, preferred_category FROM profiles WHERE user_id = 'u1'")
    assert found.rows() == [("u1", "context", "hot drinks")]


def test_history_sums_its_partial_folds_and_drops_what_sums_to_nothing(home: Home) -> None:
    table = tables.open_table(home, "history")
    assert table is not None
    day = dt.date(2026, 5, 4)
    more = [("u1", "a", 300, 1), ("u2", "b", -1000, -1)]
    rows = [
        {"user_id": u, "item_id": i, "day": day, "strength": s, "n": n, "consumed": n, "never": 0}
        for u, i, s, n in more
    ]
    bucket = table.files[0].partition["bucket"]
    part = pa.Table.from_pylist(rows, schema=pa.schema([f for f in table.schema if f.name != "bucket"]))
    table.commit([table.write(part, {"bucket": bucket})])
    assert ask(home, "SELECT user_id, strength, n FROM history").rows() == [("u1", 3600, 3)]


def test_formats(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT event_type, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC, event_type LIMIT 2"
    assert printed(capsys, sql, "--format", "csv").splitlines() == ["event_type,n", "click,1", "page_view,1"]
    assert printed(capsys, sql, "--format", "jsonl").splitlines()[0] == '{"event_type": "click", "n": 1}'
    assert printed(capsys, sql).splitlines() == ["event_type  n", "click       1", "page_view   1"]
    assert printed(capsys, sql, "--format", "md").splitlines()[2] == "| click | 1 |"
    assert printed(capsys, sql, "--format", "parquet", "--out", str(tmp_path / "o.parquet")) == ""
    assert pl.read_parquet(tmp_path / "o.parquet").rows() == [("click", 1), ("page_view", 1)]
    assert pl.read_parquet(tmp_path / "o.parquet").schema["n"] == pl.Int64


def test_titles_cannot_command_a_terminal_or_a_spreadsheet(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT '=1+1' AS formula, chr(27) || '[31m' AS red"
    assert "\x1b" not in printed(capsys, sql)
    assert "'=1+1" in printed(capsys, sql, "--format", "csv")


def test_the_query_can_come_from_stdin(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("-- how many\nSELECT count(*) AS n\nFROM events;\n"))
    assert printed(capsys, "-", "--json") == '[{"n": 4}]\n'


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("SELECT * FROM evnts", 2, "did you mean 'events'?"),
        ("SELECT user FROM itemz", 2, "did you mean 'items'?"),
        ("SELECT evnt_type FROM events", 2, "did you mean 'event_type'?"),
        ("SELEC 1", 2, "this is not SQL"),
        ("SELECT * FROM accounts", 66, "the workspace has no accounts yet"),
        ("SELECT * FROM decisions", 66, "the workspace has no decisions yet"),
        ("DROP TABLE events", 77, "changes nothing"),
        ("SELECT * FROM read_text('/etc/passwd')", 77, "no files"),
    ],
)
def test_errors_have_a_code_a_sentence_and_a_hint(
    home: Home, capsys: pytest.CaptureFixture[str], sql: str, code: int, words: str
) -> None:
    assert run(["sql", sql]) == code
    seen = capsys.readouterr()
    assert seen.out == ""
    assert words in seen.err and "Traceback" not in seen.err


def test_a_query_that_fails_leaves_the_file_as_it_was(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    failing = "SELECT (CASE WHEN i < 100000 THEN '1' ELSE 'x' END)::INT AS n FROM range(200000) t(i)"
    assert run(["sql", failing, "--format", "csv", "--out", str(out)]) == 2
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "persona-workspace"]


def test_a_long_answer_can_be_cut_off_by_its_reader(home: Home) -> None:
    command = [sys.executable, "-m", "persona_cli", "sql", "SELECT i FROM range(50_000_000) t(i)", "--format", "csv"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    shown = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=home.root, env=environ)
    assert shown.stdout is not None and shown.stderr is not None
    with shown.stdout, shown.stderr:
        assert [shown.stdout.readline() for _ in range(3)] == [b"i\n", b"0\n", b"1\n"]
        shown.stdout.close()
        assert (shown.wait(timeout=60), shown.stderr.read()) == (141, b"")


def test_nothing_is_recorded_or_changed_by_a_query(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def there() -> list[Path]:
        return sorted(path for path in home.root.rglob("*") if path.parent.name != ".locks")

    before = there()
    printed(capsys, "SELECT * FROM events")
    assert there() == before


def test_the_demo_names_the_program_as_it_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from persona_cli.cli.explore import _program

    script = tmp_path / "bin" / "persona"
    script.parent.mkdir()
    script.write_text("")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _program() == str(script)
    monkeypatch.setenv("PATH", str(script.parent))
    assert _program() == "persona"


def test_the_demo_refuses_a_workspace_of_ones_own(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", str(home.root)]) == 77
    seen = capsys.readouterr()
    assert "a workspace of yours" in seen.err and "hint: persona demo" in seen.err
    assert seen.out == ""
