"""CSV, TSV and Parquet: every cell where it belongs, every odd row with its reason, both readers equal."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona_cli.errors import BadData
from persona_cli.events import reading
from persona_cli.events.batch import Reject
from persona_cli.events.opening import Format, Input
from persona_cli.events.schema import Kind
from persona_cli.workspace.settings import load

LATEST_US = 1_800_000_000_000_000  # 2027-01-15
WHEN = datetime(2026, 1, 5, 10, 20, 30, tzinfo=UTC)
HEAD = "user_id,event_type,item_id,timestamp,value,plan\n"


def read(
    path: Path,
    form: Format = "csv",
    *,
    reader: reading.Reader = "auto",
    flags: Sequence[str] = (),
    kind: Kind = "events",
    zone: str = "UTC",
) -> tuple[list[dict[str, Any]], list[Reject], int]:
    settings = load(None, {}).with_flags({"ingest.assume_tz": zone})
    got = list(reading.batches(Input(path.name, path, form), kind, flags, settings, LATEST_US, reader=reader))
    assert all(batch.read == batch.rows.num_rows + len(batch.rejects) for batch in got)
    rows = [row for batch in got for row in batch.rows.to_pylist()]
    return rows, [reject for batch in got for reject in batch.rejects], sum(batch.zoneless for batch in got)


def both(path: Path, form: Format = "csv", **options: Any) -> tuple[list[dict[str, Any]], list[Reject], int]:
    """What both readers give, after asserting that it is the same."""
    fast, plain = (read(path, form, reader=reader, **options) for reader in ("fast", "plain"))  # type: ignore[arg-type]
    assert fast == plain
    return fast


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "events.csv"


def test_cells_are_text_and_empty_cells_null(table: Path) -> None:
    table.write_text(HEAD + "007,click,,2026-01-05T10:20:30Z,2.50,pro\nu2,view,i1,1767608430,,\n", "utf-8")
    rows, rejects, zoneless = both(table)
    assert not rejects
    assert zoneless == 0
    assert [(row["user_id"], row["item_id"], row["value"], row["props"], row["line"]) for row in rows] == [
        ("007", None, 2.5, '{"plan":"pro"}', 2),
        ("u2", "i1", None, None, 3),
    ]
    assert [row["timestamp"] for row in rows] == [WHEN, WHEN]


def test_quoted_cells_hold_separators_quotes_and_line_ends(table: Path) -> None:
    table.write_text(HEAD + 'u1,click,"a, ""b""\nc",1767608430,,"x\ny"\nu2,click,i2,1767608430,,\n', "utf-8")
    rows, rejects, _ = both(table, kind="events")
    assert [(row["user_id"], row["line"]) for row in rows] == [("u2", 5)]
    # Ids take no line ends; elsewhere they are kept.
    assert rejects == [
        Reject(2, len(HEAD), "item_id: holds a control character", b'u1,click,"a, ""b""\nc",1767608430,,"x\ny"')
    ]
    table.write_text(HEAD + 'u1,click,"a, ""b""",1767608430,,"x\ny"\n', "utf-8")
    rows, _, _ = both(table)
    assert rows[0]["item_id"] == 'a, "b"'
    assert rows[0]["props"] == '{"plan":"x\\ny"}'


def test_odd_rows_are_rejected_with_reason_line_and_offset(table: Path) -> None:
    lines = [
        b"u1,click,i1,1767608430,1,x",
        b"u2,click,i1,1767608430,1",
        b"u3,click,i1,1767608430,1,x,y",
        b"",
        b"u\xff,click,i1,1767608430,1,x",
        b",click,i1,1767608430,1,x",
        b"u4,click,i1,yesterday,1,x",
        b"u5,click,i1,1767608430,one,x",
        b"u6\tu6,click,i1,1767608430,1,x",
        b"u7,click,i1,1767608430,1,C:\\temp",
    ]
    table.write_bytes(b"\xef\xbb\xbf" + HEAD.encode() + b"\r\n".join(lines) + b"\r\n")
    rows, rejects, _ = both(table)
    assert [row["user_id"] for row in rows] == ["u1", "u7"]
    assert rows[1]["props"] == '{"plan":"C:\\\\temp"}'
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (3, "expected 6 columns, got 5"),
        (4, "expected 6 columns, got 7"),
        (5, "blank line"),
        (6, "not UTF-8"),
        (7, "user_id: missing or empty, and no anon_id"),
        (8, "timestamp: unreadable as a time"),
        (9, "value: expected a number, got text"),
        (10, "user_id: holds a control character"),
    ]
    content = table.read_bytes()
    for reject in rejects:
        assert content[reject.offset :].startswith(reject.raw)


def test_a_quote_that_is_never_closed_costs_one_line(table: Path) -> None:
    table.write_text(HEAD + 'u1,click,"i1,1767608430,1,x\n' + "u2,click,i2,1767608430,1,x\n" * 3, "utf-8")
    rows, rejects, _ = both(table)
    assert [row["line"] for row in rows] == [3, 4, 5]
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "quoted field is not closed")]


def test_a_misplaced_quote_costs_one_line(table: Path) -> None:
    table.write_text(HEAD + 'u1,click,"i1"x,1767608430,1,x\nu2,click,5" disk,1767608430,1,x\n', "utf-8")
    rows, rejects, _ = both(table)
    assert [row["item_id"] for row in rows] == ['5" disk']
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "not valid CSV: misplaced quote")]


@pytest.mark.parametrize("block_bytes", [40, 100, 1_000])
def test_rows_are_the_same_however_the_file_is_cut_into_blocks(
    block_bytes: int, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number in range(200):
        plan = chance.choice(["", "pro", 'q"q', "a,b", "two\nlines", "é", "end\n\n\n"])
        writer.writerow([f"u{number}", "click", f"i{number}", 1767608430, number / 4, plan])
    table.write_text(HEAD + text.getvalue(), "utf-8")
    whole = both(table)
    assert len(whole[0]) == 200
    monkeypatch.setattr(reading, "BLOCK_BYTES", block_bytes)
    assert both(table) == whole


def test_damaged_tables_read_the_same_both_ways(table: Path) -> None:
    chance = random.Random(6)
    lines = []
    for number in range(3_000):
        moment = f"2026-01-05T10:20:30.{number % 1000:03}Z"
        line = f"u{number},click,i{number % 7},{moment},{number / 8},{chance.choice(['', 'x'])}"
        if number % 2:
            at = chance.randrange(len(line))
            token = chance.choice(["", ",", " ", "\t", "-", "0", "é", "\\", "\x01", "\r", "e1"])
            line = line[:at] + token + line[at + chance.randrange(3) :]
        lines.append(line)
    table.write_text(HEAD + "\n".join(lines) + "\n", "utf-8", newline="")
    rows, rejects, _ = both(table)
    assert len(rows) > 1_500
    assert len(rejects) > 200


def test_tsv_with_aliases_constants_and_items(tmp_path: Path) -> None:
    path = tmp_path / "ratings.tsv"
    path.write_text("userId\tmovieId\trating\ttimestamp\n1\t31\t2.5\t1260759144\n", "utf-8")
    rows, _, _ = both(path, "tsv")
    names = ("user_id", "item_id", "event_type", "value")
    assert [rows[0][name] for name in names] == ["1", "31", "rating", 2.5]
    rows, _, _ = both(path, "tsv", flags=["event_type==watched", "value=rating"])
    assert rows[0]["event_type"] == "watched"
    items = tmp_path / "movies.csv"
    items.write_text("movieId,title,genres\n31,Toy Story,Animation|Comedy\n", "utf-8")
    rows, _, _ = both(items, kind="items")
    assert (rows[0]["item_id"], rows[0]["title"], rows[0]["tags"]) == ("31", "Toy Story", ["Animation", "Comedy"])


def test_a_props_column_holds_json_objects(table: Path) -> None:
    table.write_text('user_id,event_type,timestamp,props\nu1,click,1767608430,"{""a"":1.10}"\nu1,click,1767608430,x\n')
    rows, rejects, _ = both(table)
    assert [row["props"] for row in rows] == ['{"a":1.10}']
    assert [reject.reason for reject in rejects] == ["props: expected an object, got text"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n", "blank line"),
        ("user_id,user_id\n", "names 'user_id' twice"),
        ("user_id,item_id\nu,i\n", "no column for event_type"),
        ('user_id,"item\n', "quoted field is not closed"),
    ],
)
def test_a_file_without_usable_header_is_refused(content: str, message: str, table: Path) -> None:
    table.write_text(content, "utf-8")
    with pytest.raises(BadData, match=message):
        read(table)


def test_a_header_alone_is_an_empty_input(table: Path) -> None:
    table.write_text(HEAD.rstrip("\n"), "utf-8")
    assert both(table) == ([], [], 0)


def test_a_mapped_column_that_is_not_there_is_refused(table: Path) -> None:
    table.write_text(HEAD + "u1,click,i1,1767608430,1,x\n", "utf-8")
    with pytest.raises(BadData, match="'itm_id'"):
        read(table, flags=["item_id=itm_id"])


def test_parquet_types(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    frame = pa.table(
        {
            "user_id": pa.array([7, 8, 9, None], pa.int64()),
            "event_type": pa.array(["click", "view", "", "view"]).dictionary_encode(),
            "timestamp": pa.array([WHEN, WHEN, WHEN, WHEN], pa.timestamp("ns", "Europe/Berlin")),
            "received_at": pa.array([datetime(2026, 1, 5), None, None, None], pa.timestamp("ms")),
            "value": pa.array([Decimal("2.50"), None, None, None], pa.decimal128(8, 2)),
            "position": pa.array([3, None, None, None], pa.int8()),
            "context": pa.array([{"device": "tv", "size": 7}, None, None, None]),
            "day": pa.array([date(2026, 1, 5), None, None, None]),
            "tags": pa.array([["a", "b"], None, None, None]),
        }
    )
    pq.write_table(frame, path)
    rows, rejects, zoneless = both(path, "parquet")
    assert [row["user_id"] for row in rows] == ["7", "8"]
    first = rows[0]
    assert (first["timestamp"], first["received_at"]) == (WHEN, datetime(2026, 1, 5, tzinfo=UTC))
    assert (first["value"], first["position"], first["device"], first["line"]) == (2.5, 3, "tv", 1)
    assert first["props"] == '{"context":{"size":7},"day":"2026-01-05","tags":["a","b"]}'
    assert zoneless == 1
    assert [(reject.line, reject.offset, reject.reason) for reject in rejects] == [
        (3, -1, "event_type: missing or empty"),
        (4, -1, "user_id: missing or empty, and no anon_id"),
    ]
    assert b'"user_id":9' in rejects[0].raw


def test_parquet_numbers_are_never_made_into_ids(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    frame = {"user_id": [1.0, 2.5], "event_type": ["a", "a"], "timestamp": [1767608430, 1767608430]}
    pq.write_table(pa.table(frame), path)
    rows, rejects, _ = both(path, "parquet")
    assert not rows
    assert {reject.reason for reject in rejects} == {"user_id: expected text, got a number"}


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(BadData, match="not a readable Parquet file"):
        read(path, "parquet")
    column = pa.array(["u"])
    pq.write_table(pa.Table.from_arrays([column, column], ["user_id", "user_id"]), path)
    with pytest.raises(BadData, match="two columns named 'user_id'"):
        read(path, "parquet")


def test_quoted_tables_read_the_same_both_ways(table: Path) -> None:
    chance = random.Random(7)
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    for number in range(3_000):
        row = [
            f"u{number}",
            "click",
            f"i{number % 7}",
            "2026-01-05T10:20:30Z",
            number / 8,
            chance.choice(["", "x", "é"]),
        ]
        if number % 3 == 0:
            odd = ["", " ", 'q"q', "a,b", "two\nlines", "cr\r", "\x1f", "\x01", "\\", "x" * 1_001, "1e3", "yesterday"]
            row[chance.randrange(6)] = chance.choice(odd)
        writer.writerow(row[: chance.choice([6] * 20 + [5])])
    table.write_text(HEAD + text.getvalue(), "utf-8", newline="")
    rows, rejects, _ = both(table)
    assert len(rows) > 2_000
    assert len(rejects) > 200
    # With bytes changed anywhere, quotes and line ends among them.
    content = bytearray(table.read_bytes())
    for _ in range(400):
        at = chance.randrange(len(HEAD), len(content))
        content[at] = chance.choice(b'",\n\r\\ x\xff\x1f')
    table.write_bytes(content)
    rows, rejects, _ = both(table)
    assert len(rows) > 500
    assert len(rejects) > 200


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_parquet_reads_the_same_both_ways(zone: str, tmp_path: Path) -> None:
    chance = random.Random(8)
    count = 2_000

    def column(usual: Any, *odd: Any) -> list[Any]:
        return [usual if chance.random() < 0.8 else chance.choice(odd) for _ in range(count)]

    early, late = datetime(1969, 5, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
    frame = pa.table(
        {
            "user_id": column("u", "", " ", None, "é", 'q"q', "a\nb", "\x1f", "\x01", "\\", "007", "x" * 1_001, "cr\r"),
            "event_type": column("click", "view", None),
            "item_id": pa.array(column(7, None, 0, 2**63, 2**64 - 1), pa.uint64()),
            "timestamp": pa.array(column(WHEN, None, early, late, WHEN.replace(year=1990)), pa.timestamp("us", "UTC")),
            "received_at": pa.array(column(datetime(2026, 7, 1, 12), None), pa.timestamp("us")),
            "value": column(2.5, None, 1e300, float("nan"), float("inf"), -0.0, 3.0, 1e-7),
            "position": pa.array(column(3, None, -1, 10**18), pa.int64()),
            "context": column({"device": "tv", "size": 7}, None, {"device": None, "size": None}, {"device": " "}),
            "plan": column("pro", None, 'q"q', ""),
        }
    )
    path = tmp_path / "events.parquet"
    for kept in (frame, frame.drop_columns(["received_at"]), frame.drop_columns(["context", "plan", "received_at"])):
        pq.write_table(kept, path, row_group_size=700)
        rows, rejects, zoneless = both(path, "parquet", zone=zone)
        assert len(rows) > 200
        assert len(rejects) > 200
        assert (zoneless > 0) == ("received_at" in kept.schema.names)
