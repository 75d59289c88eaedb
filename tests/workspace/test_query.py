"""SQL over a workspace: what it answers, what it says when it cannot, and that it cannot get out."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona_cli.errors import MissingInput, Refused, UsageError
from persona_cli.workspace import home as homes
from persona_cli.workspace import query, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import load

SCHEMA = pa.schema([("user_id", pa.string()), ("timestamp", pa.timestamp("us", tz="UTC")), ("month", pa.string())])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return homes.create(tmp_path / "w")


def rows(users: list[str], month: int) -> pl.DataFrame:
    moment = dt.datetime(2026, month, 1, 12, tzinfo=dt.UTC)
    columns = {"user_id": users, "timestamp": [moment] * len(users), "month": [f"2026-{month:02d}"] * len(users)}
    return pl.DataFrame(columns, schema=dict(pl.DataFrame(pl.from_arrow(SCHEMA.empty_table())).schema))


@pytest.fixture
def events(home: Home) -> Home:
    """Three commits; the last one replaces the file of May."""
    table = tables.open_or_create(home, "events", SCHEMA, ["month"])
    may = table.write(rows(["u1", "gone"], 5), {"month": "2026-05"})
    table.commit([may])
    table = tables.open_table(home, "events")
    assert table is not None
    table.commit([table.write(rows(["u2"], 6), {"month": "2026-06"})])
    table = tables.open_table(home, "events")
    assert table is not None
    table.commit([table.write(rows(["u1"], 5), {"month": "2026-05"})], [may])
    return home


def stored(home: Home) -> Any:
    table = tables.open_table(home, "events")
    return None if table is None else query.dataset(table)


def ask(home: Home, sql: str, **sources: query.Source) -> list[tuple[Any, ...]]:
    given = {"events": lambda: stored(home), **sources}
    with query.answering(home, sql, given, {"people": ("events", "SELECT DISTINCT user_id FROM events")}) as answer:
        return list(answer.iter_rows())


def test_only_files_of_the_present_version_are_seen(events: Home) -> None:
    # On disk lies a file with "gone" in it, which the table no longer names.
    assert len(list(events.path("events").rglob("*.parquet"))) == 3
    assert ask(events, "SELECT user_id, month FROM events ORDER BY ALL") == [("u1", "2026-05"), ("u2", "2026-06")]
    assert ask(events, "FROM people ORDER BY ALL") == [("u1",), ("u2",)]
    assert ask(events, "SELECT timestamp FROM events WHERE month = '2026-06'")[0][0].isoformat() == (
        "2026-06-01T12:00:00+00:00"
    )


def test_projections_and_filters_reach_the_files(events: Home) -> None:
    ((_, plan),) = ask(
        events, "EXPLAIN SELECT user_id FROM events WHERE month = '2026-06' AND timestamp > '2026-01-01'"
    )
    scan = plan[plan.index("Arrow Scan") :]
    assert "Projections: user_id" in scan and "\"month\" = '2026-06'" in scan and '"timestamp" >' in scan


def test_a_table_without_rows_and_one_not_begun(home: Home) -> None:
    with pytest.raises(MissingInput, match="has no events yet"):
        ask(home, "SELECT * FROM events")
    with pytest.raises(MissingInput, match="has no people yet"):
        ask(home, "SELECT * FROM people")
    tables.open_or_create(home, "events", SCHEMA, ["month"])
    assert ask(home, "SELECT * FROM events") == []


def test_rows_of_a_table_not_named_are_not_asked_for(events: Home) -> None:
    def never() -> pa.Table:
        raise AssertionError("asked for")

    assert ask(events, "SELECT count(*) FROM events", items=never) == [(2,)]


def test_values_become_what_json_can_carry(home: Home) -> None:
    sql = "SELECT sum(i) AS total, 1.50 AS price, NULL AS nothing, [1, 2] AS list FROM range(4) t(i)"
    assert ask(home, sql) == [(6, 1.5, None, [1, 2])]
    with query.answering(home, sql, {}) as answer:
        assert answer.table().schema.field("total").type == pa.int64()
    with query.answering(home, "SELECT 1 AS a, 2 AS a, 3 AS a_2", {}) as answer:
        assert answer.columns == ["a", "a_2", "a_2_2"]


def test_a_long_answer_comes_in_batches(home: Home) -> None:
    sql = "SELECT i, 'user-' || i AS u FROM range(1_000_000) t(i)"
    with query.answering(home, sql, {}) as answer:
        batches = answer.batches()
        first = next(batches)
        assert first.num_rows < 100_000
        assert first.num_rows + sum(batch.num_rows for batch in batches) == 1_000_000
    stream = io.BytesIO()
    with query.answering(home, sql, {}) as answer:
        answer.write_parquet(stream)
    written = pq.read_table(stream)
    assert (written.num_rows, written["u"][999_999].as_py()) == (1_000_000, "user-999999")


def test_what_does_not_fit_in_memory_is_spilled_and_nothing_is_left(home: Home) -> None:
    small = Home(home.root, home.settings.with_flags({"compute.memory_gb": 0.25}), home.salt)
    sql = "SELECT count(*) FROM (SELECT md5(i::VARCHAR) AS h, max(i) FROM range(4_000_000) t(i) GROUP BY h)"
    assert ask(small, sql) == [(4_000_000,)]
    assert sorted(path.name for path in home.root.iterdir()) == ["persona.toml", "workspace.json"]


def test_a_workspace_that_cannot_be_written_can_be_asked(events: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert ask(events, "SELECT count(*) FROM events") == [(2,)]


NOT_QUERIES = (
    "COPY (SELECT 1) TO 'out.csv'",
    "COPY events TO 'out.parquet'",
    "EXPORT DATABASE 'out'",
    "ATTACH 'other.db'",
    "CREATE TABLE t (a INT)",
    "CREATE OR REPLACE TEMP VIEW events AS SELECT 1",
    "DROP VIEW events",
    "INSERT INTO events VALUES (1)",
    "UPDATE events SET user_id = 'x'",
    "DELETE FROM events",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PREPARE p AS SELECT 1",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
    "USE system",
)


@pytest.mark.parametrize("sql", NOT_QUERIES)
def test_what_is_not_a_query_is_refused(events: Home, sql: str) -> None:
    with pytest.raises(Refused, match="answers SELECT"):
        ask(events, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_csv_auto(['{file}'])",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_blob('{file}')",
        "SELECT * FROM read_json('{file}')",
        "SELECT * FROM read_parquet('{file}')",
        "SELECT * FROM parquet_metadata('{file}')",
        "SELECT * FROM sniff_csv('{file}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM '{file}'",
        "FROM '{folder}/*.csv'",
        "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
        "SELECT * FROM query_table('{file}')",
        "SELECT * FROM read_csv('https://example.org/a.csv')",
        "SELECT * FROM (SELECT * FROM events UNION ALL BY NAME SELECT * FROM read_text('{file}'))",
        "EXPLAIN ANALYZE SELECT * FROM read_text('{file}')",
        "EXPLAIN ANALYZE COPY events TO '{folder}/out.csv'",
        "PIVOT (SELECT * FROM read_text('{file}')) ON filename USING count(*)",
        "SELECT getenv('HOME')",
        "SELECT * FROM secret",
        "SELECT * FROM home",
        "SELECT * FROM sqlite_scan('{file}', 't')",
        "SELECT * FROM duckdb_secrets(redact = false), which_secret('{file}', 's3')",
    ],
)
def test_nothing_outside_is_read_or_written(events: Home, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "outside" / "secret.csv"
    secret.parent.mkdir()
    secret.write_text("a,b\n1,hidden\n")
    with pytest.raises((Refused, UsageError)) as raised:
        ask(events, sql.format(file=secret, folder=secret.parent))
    assert "hidden" not in str(raised.value)
    assert [path.name for path in secret.parent.iterdir()] == ["secret.csv"]


def test_the_locks_hold_by_themselves(events: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the look at the kind of statement is taken away, nothing is written and nothing can be unlocked."""
    monkeypatch.setattr(query, "_check", lambda *_: None)
    for sql in (
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        f"ATTACH '{tmp_path}/out.db'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET python_enable_replacements = true",
        f"SET temp_directory = '{tmp_path}'",
        "RESET enable_external_access",
    ):
        with pytest.raises((Refused, UsageError)):
            ask(events, sql)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w"]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM evnts", "there is no table 'evnts'; did you mean 'events'?"),
        ("SELECT usr_id FROM events", "no table of this FROM clause has a column 'usr_id'; did you mean 'user_id'?"),
        ("SELECT events.usr_id FROM events", "'events' has no column 'usr_id'; did you mean 'user_id'?"),
        ("SELECT e.user_id FROM events", "'e' is no table of this FROM clause"),
        ("SELEC 1", 'this is not SQL: syntax error at or near "SELEC"'),
        ("SELECT 1; SELECT 2", "expected one statement, got 2"),
        ("", "expected one statement, got 0"),
        ("SELECT nope(1)", 'the query fails: Scalar Function with name nope does not exist! Did you mean "now"?'),
        ("SELECT user_id::INT FROM events", "the query fails: Could not convert string 'u"),
    ],
)
def test_errors_are_sentences_with_the_nearest_names(events: Home, sql: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        ask(events, sql)
    assert words in raised.value.message
    assert "\n" not in raised.value.message and "LINE 1" not in raised.value.message


def test_an_error_in_mid_stream_is_a_sentence_too(home: Home) -> None:
    sql = "SELECT (CASE WHEN i < 400000 THEN '1' ELSE 'x' END)::INT FROM range(500000) t(i)"
    with query.answering(home, sql, {}) as answer, pytest.raises(UsageError, match="Could not convert string 'x'"):
        list(answer.iter_rows())


def test_numbers_of_settings_reach_the_engine(home: Home) -> None:
    settings = load(None, {"PERSONA_COMPUTE_THREADS": "1", "PERSONA_COMPUTE_MEMORY_GB": "1"})
    one = Home(home.root, settings, home.salt)
    sql = "SELECT current_setting('threads'), current_setting('memory_limit'), current_setting('TimeZone')"
    ((threads, memory, zone),) = ask(one, sql)
    assert (threads, memory, zone) == (1, "1.0 GiB", "UTC")
