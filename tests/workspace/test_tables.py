from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona_cli.errors import BadData, Busy
from persona_cli.workspace import home as homes
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("n", pa.int64()),
        pa.field("month", pa.string()),
    ]
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return homes.create(tmp_path / "workspace")


def rows(*ids: str, day: int = 1) -> pl.DataFrame:
    at = datetime(2026, 1, day, 12, 30, 15, 123456, UTC)
    return pl.DataFrame({"id": ids, "timestamp": [at] * len(ids), "n": range(len(ids))}).with_columns(
        pl.col("timestamp").cast(pl.Datetime("us", "UTC"))
    )


def opened(home: Home) -> Table:
    return tables.open_or_create(home, "things", SCHEMA, ["month"])


def ids(home: Home) -> list[str]:
    return sorted(tables.scan(home, "things", SCHEMA, ["month"]).collect()["id"].to_list())


def parquet(home: Home) -> list[str]:
    return sorted(str(path.relative_to(home.path("things"))) for path in home.path("things").rglob("*.parquet"))


def test_a_table_that_was_never_begun(home: Home) -> None:
    assert tables.open_table(home, "things") is None
    assert not tables.exists(home, "things")
    assert tables.row_count(home, "things") == 0
    assert tables.scan(home, "things", SCHEMA, ["month"]).collect().columns == SCHEMA.names


def test_written_files_appear_with_their_commit(home: Home) -> None:
    table = opened(home)
    file = table.write(rows("a", "b"), {"month": "2026-01"})
    assert (file.rows, file.partition) == (2, {"month": "2026-01"})
    assert ids(home) == []
    assert table.commit([file]) == 1
    assert ids(home) == ["a", "b"]
    assert tables.row_count(home, "things") == 2
    read = opened(home).files
    assert read == [file], "the log says of a file what writing it said, to the microsecond"
    assert read[0].first == read[0].last == "2026-01-01T12:30:15.123456Z"


def test_files_are_added_and_removed_at_once(home: Home) -> None:
    table = opened(home)
    old = table.write(rows("a", "b"), {"month": "2026-01"})
    table.commit([old])
    table = opened(home)
    table.commit([table.write(rows("b", "c"), {"month": "2026-01"})], [old])
    assert ids(home) == ["b", "c"]
    assert opened(home).version == 2
    added, removed = opened(home).changes(1) or ([], [])
    assert ([file.rows for file in added], removed) == ([2], [old])


@pytest.mark.parametrize("remove", [False, True])
def test_a_commit_from_an_overtaken_snapshot_is_refused(home: Home, remove: bool) -> None:
    first = opened(home)
    old = first.write(rows("z"), {"month": "2026-01"})
    first.commit([old])
    slow, quick = opened(home), opened(home)
    quick.commit([quick.write(rows("a"), {"month": "2026-01"})])
    file = slow.write(rows("a"), {"month": "2026-01"})
    with pytest.raises(Busy, match="another run changed things meanwhile"):
        slow.commit([file], [old] if remove else [])
    assert ids(home) == ["a", "z"]
    assert file.path not in parquet(home), "what was refused is cleared away"


def test_two_writers_at_once(home: Home) -> None:
    """Of all that start from one version, one commits."""
    opened(home)
    start = threading.Barrier(4)
    outcomes: list[str] = []

    def write(name: str) -> None:
        table = opened(home)
        file = table.write(rows(name), {"month": "2026-01"})
        start.wait()
        try:
            table.commit([file])
            outcomes.append("done")
        except Busy:
            outcomes.append("busy")

    threads = [threading.Thread(target=write, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["busy", "busy", "busy", "done"]
    assert len(ids(home)) == 1
    assert len(parquet(home)) == 1


def test_a_file_that_cannot_be_written_leaves_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(table: pa.Table, path: Path, **_: object) -> None:
        path.write_bytes(b"PAR1 half")
        raise OSError(28, "No space left on device")

    table = opened(home)
    monkeypatch.setattr(pq, "write_table", fails)
    with pytest.raises(OSError, match="No space left"):
        table.write(rows("a"), {"month": "2026-01"})
    assert parquet(home) == []


def test_dictionaries_are_read_back_as_text(home: Home) -> None:
    table = opened(home)
    given = rows("a", "a", "b").to_arrow()
    coded = given.set_column(0, "id", given["id"].cast(pa.string()).dictionary_encode())
    table.commit([table.write(coded, {"month": "2026-01"}, statistics=["timestamp"], dictionaries=["id"])])
    read = opened(home).scan().collect()
    assert read["id"].to_list() == ["a", "a", "b"]
    assert read.schema == {"id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "n": pl.Int64, "month": pl.String}


def test_applications_and_words_ride_in_the_commit(home: Home) -> None:
    table = opened(home)
    assert table.applied("stream") is None
    table.commit([table.write(rows("a"), {"month": "2026-01"})], apps={"stream": 41}, metadata={"run": "r1"})
    table = opened(home)
    assert (table.applied("stream"), table.metadata["run"]) == (41, "r1")
    table.commit([table.write(rows("b"), {"month": "2026-01"})], metadata={"run": "r2"})
    assert [commit.get("run") for commit in opened(home).history()] == ["r2", "r1", None]


def test_the_log_names_no_ids(home: Home) -> None:
    table = opened(home)
    table.commit([table.write(rows("jane@example.com"), {"month": "2026-01"})])
    log = b"".join(path.read_bytes() for path in home.path("things", "_delta_log").iterdir())
    assert b"jane" not in log
    assert b"2026-01-01T12:30:15.123456Z" in log


def test_orphans_are_found_and_removed_and_nothing_else(home: Home) -> None:
    table = opened(home)
    kept = table.write(rows("a"), {"month": "2026-01"})
    table.commit([kept])
    orphan = opened(home).write(rows("b"), {"month": "2026-02"})
    assert tables.orphans(home) == [f"things/{orphan.path}"]
    assert tables.vacuum(home) == 1
    assert tables.orphans(home) == []
    assert parquet(home) == [kept.path]


def test_a_damaged_table_is_an_error_with_a_sentence(home: Home) -> None:
    opened(home)
    for path in home.path("things", "_delta_log").iterdir():
        path.write_bytes(b"{")
    with pytest.raises(BadData, match="cannot be read"):
        tables.open_table(home, "things")


def test_changes_since_a_version_that_is_not_there(home: Home) -> None:
    table = opened(home)
    table.commit([table.write(rows("a"), {"month": "2026-01"})])
    assert opened(home).changes(1) == ([], [])
    assert opened(home).changes(7) is None


def test_discarded_files_are_gone(home: Home) -> None:
    table = opened(home)
    file = table.write(rows("a"), {"month": "2026-01"})
    table.discard([file, File("month=2026-01/never-was.parquet", {}, 0, 0)])
    assert parquet(home) == []


def test_a_writer_that_nobody_waited_for_leaves_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    table = opened(home)
    begins, goes_on, write = threading.Event(), threading.Event(), pq.write_table

    def slow(*args: object, **more: object) -> None:
        begins.set()
        goes_on.wait(30)
        write(*args, **more)

    monkeypatch.setattr(pq, "write_table", slow)
    refused: list[BaseException] = []

    def work() -> None:
        try:
            table.write(rows("a"), {"month": "2026-01"})
        except RuntimeError as error:
            refused.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    begins.wait(30)
    table.discard()
    goes_on.set()
    writer.join(30)
    assert len(refused) == 1
    assert parquet(home) == []


@pytest.mark.parametrize("moment", ["the log is flushed", "the log is written"])
def test_an_interruption_after_the_commit_deletes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    table = opened(home)
    file = table.write(rows("a"), {"month": "2026-01"})
    if moment == "the log is flushed":
        monkeypatch.setattr(tables.artifacts, "sync_file", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    else:
        delta = table._delta

        class Interrupted:
            def create_write_transaction(self, *args: object, **more: object) -> None:
                delta.create_write_transaction(*args, **more)  # type: ignore[arg-type]
                raise KeyboardInterrupt

            def transaction_version(self, app: str) -> int | None:
                return delta.transaction_version(app)

        table._delta = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        table.commit([file])
    table.discard([file])  # as whoever wrote the file does on any error
    assert ids(home) == ["a"]
