from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingesting import Oracle, Record, comparable, event, files, stored, versions, write

from persona_cli.errors import BadData
from persona_cli.events import reading, store
from persona_cli.events.ingest import ingest
from persona_cli.events.store import scan_events
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_TIMES = ["2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-02-01T01:00:00Z"]
EVENTS = st.builds(
    event,
    st.sampled_from(["u1", "u2"]),
    st.sampled_from(_TIMES),
    st.sampled_from(["click", "view"]),
    event_id=st.sampled_from([None, None, None, "given1", "given2"]),
    context=st.builds(dict, device=st.sampled_from(["mobile", "desktop"])),
)
RUNS = st.lists(st.lists(st.lists(EVENTS, max_size=12), min_size=1, max_size=3), min_size=1, max_size=3)


@pytest.mark.parametrize("policy", ["keep-first", "keep-last"])
@given(runs=RUNS, rows=st.sampled_from([1, 3, 100]), block=st.sampled_from([150, 400, 1 << 20]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_table_is_what_the_rules_say(
    policy: Any, runs: list[list[list[Record]]], rows: int, block: int, make_home: Callable[[], Home]
) -> None:
    """Wherever files and blocks are cut, in whatever number of runs the inputs come."""
    home = make_home()
    oracle = Oracle(policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FILE_ROWS", rows)
        patch.setattr(store, "MIXED_ROWS", 2 * rows)
        patch.setattr(reading, "BLOCK_BYTES", block)
        for number, inputs in enumerate(runs):
            names = [write(home.root / f"{number}-{n}.jsonl", records) for n, records in enumerate(inputs)]
            report = ingest(home, names, on_duplicate=policy)
            expected = oracle.ingest(inputs)
            assert (report.accepted, report.duplicates) == expected[:2]
            assert report.read == report.accepted + report.duplicates
            held = comparable(stored(home))
            assert held == oracle.rows()
            # Once more, in one go: nothing new, also where the last of several counts.
            if policy == "keep-first":
                before = versions(home), files(home)
                assert ingest(home, names, on_duplicate=policy).accepted == 0
                assert (versions(home), files(home)) == before


def test_replaced_rows_are_counted_and_the_rest_of_their_file_stays(home: Home, tmp_path: Path) -> None:
    old = [event(event_id=f"e{n}", value=n) for n in range(4)]
    ingest(home, [write(tmp_path / "old", old)])
    again = [event(event_id="e1", value=1), event(event_id="e2", value=20), event(event_id="e9", value=9)]
    report = ingest(home, [write(tmp_path / "new", again)], on_duplicate="keep-last")
    assert (report.accepted, report.duplicates, report.replaced) == (1, 2, 1)
    rows = scan_events(home).select("event_id", "value", "source").collect().sort("event_id")
    assert rows["value"].to_list() == [0, 1, 20, 3, 9]
    assert [Path(name).name for name in rows["source"]] == ["old", "old", "new", "old", "new"]
    version = versions(home)
    assert ingest(home, [str(tmp_path / "new")], on_duplicate="keep-last").accepted == 0
    assert versions(home) == version


def test_a_duplicate_can_refuse_the_run(home: Home, tmp_path: Path) -> None:
    ingest(home, [write(tmp_path / "a", [event(event_id="secret-id-1")])])
    new = write(tmp_path / "b", [event(event_id="other"), event(event_id="secret-id-1")])
    before = files(home)
    with pytest.raises(BadData, match=r"b:2: the event secr… is there already; nothing was stored") as raised:
        ingest(home, [new], on_duplicate="error")
    assert "secret-id-1" not in raised.value.message
    assert stored(home).height == 1
    assert files(home) == before
    assert ingest(home, [write(tmp_path / "c", [event(event_id="other")])], on_duplicate="error").accepted == 1


def test_shuffled_late_and_repeated_input_is_the_same_table(make_home: Callable[[], Home], tmp_path: Path) -> None:
    records = [
        event(f"u{n % 7}", f"2026-0{1 + n % 3}-{1 + n % 28:02d}T00:00:00Z", value=n % 5, item_id=f"i{n % 11}")
        for n in range(300)
    ]
    records += records[:40]  # identical rows of one file are several events
    in_order, mixed, late = make_home(), make_home(), make_home()
    ingest(in_order, [write(tmp_path / "all.jsonl", records)])
    shuffled = random.Random(5).sample(records, len(records))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FILE_ROWS", 20)
        patch.setattr(store, "MIXED_ROWS", 30)
        patch.setattr(reading, "BLOCK_BYTES", 1_000)
        ingest(mixed, [write(tmp_path / "mixed.jsonl", shuffled)])
    newest = sorted(records, key=lambda record: record["timestamp"], reverse=True)
    parts: list[list[Record]] = []
    for _, group in itertools.groupby(newest, key=lambda record: record["timestamp"]):
        if not parts or len(parts[-1]) > 80:
            parts.append([])
        parts[-1] += group
    assert len(parts) > 3
    for number, part in enumerate([*parts, *parts]):
        ingest(late, [write(tmp_path / f"{number}.jsonl", part)])
    assert stored(in_order).height == 340
    assert stored(in_order).equals(stored(mixed))
    assert stored(in_order).equals(stored(late))


def test_a_few_late_rows_share_a_file_with_their_month(home: Home, tmp_path: Path) -> None:
    records = [event(at=f"2026-0{1 + (n % 10 == 0)}-01T00:00:{n % 60:02d}Z", value=n) for n in range(500)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK_BYTES", 500)
        ingest(home, [write(tmp_path / "a", records)])
    table = tables.open_table(home, "events")
    assert table is not None
    assert [(file.partition["month"], file.rows) for file in table.files] == [("2026-01", 450), ("2026-02", 50)]


def test_memory_is_bounded_by_writing_the_largest_months_early(home: Home, tmp_path: Path) -> None:
    records = [event(at=f"{2000 + n % 20}-01-01T00:00:00Z", value=n) for n in range(400)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK_BYTES", 2_000)
        patch.setattr(store, "BUFFER_BYTES", 20_000)
        patch.setattr(store, "MIXED_ROWS", 30)
        assert ingest(home, [write(tmp_path / "a", records)]).accepted == 400
    table = tables.open_table(home, "events")
    assert table is not None
    assert 20 < len(table.files) < 200
    assert stored(home).height == 400


def test_a_given_id_is_found_in_all_of_its_month_and_only_there(home: Home, tmp_path: Path) -> None:
    ingest(home, [write(tmp_path / "a", [event(event_id="e1", at="2026-01-01T00:00:00Z")])])
    report = ingest(
        home,
        [
            write(
                tmp_path / "b",
                [event(event_id="e1", at="2026-01-31T00:00:00Z"), event(event_id="e1", at="2026-02-01T00:00:00Z")],
            )
        ],
    )
    assert (report.accepted, report.duplicates) == (1, 1)


def test_scan_events_as_of(home: Home, tmp_path: Path) -> None:
    assert scan_events(home).collect().height == 0
    times = ["2026-01-01T00:00:00Z", "2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]
    ingest(home, [write(tmp_path / "a", [event(at=at) for at in times])])
    at = scan_events(home, datetime(2026, 2, 1, tzinfo=UTC)).collect()
    assert at.sort("timestamp")["month"].to_list() == ["2026-01", "2026-01"]
    # Files of later months are not even opened.
    table = tables.open_table(home, "events")
    assert table is not None
    for file in table.files:
        if file.partition["month"] > "2026-01":
            (table.root / file.path).unlink()
    assert scan_events(home, datetime(2026, 2, 1, tzinfo=UTC)).collect().height == 2


def test_stored_columns_have_the_declared_types(home: Home, tmp_path: Path) -> None:
    ingest(home, [write(tmp_path / "a", [event(value=1.5, position=3, received_at="2026-01-05T10:00:01.123456Z")])])
    row = scan_events(home).collect()
    assert row.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert row.schema["source"] == row.schema["month"] == row.schema["event_id"] == pl.String
    assert row["received_at"][0] == datetime(2026, 1, 5, 10, 0, 1, 123456, UTC)
    assert (row["value"][0], row["position"][0], row["month"][0]) == (1.5, 3, "2026-01")
