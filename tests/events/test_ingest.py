from __future__ import annotations

import gzip
import io
import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ingesting import event, files, stored, versions, write

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.events import reading
from persona_cli.events.ingest import ingest, masked, plan
from persona_cli.events.quarantine import lines
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

BAD = "not json"


def test_a_report_adds_up_and_says_what_it_took(home: Home, tmp_path: Path) -> None:
    records = [
        event("u1", "2026-01-05T10:00:00Z", item_id="a"),
        event("u2", "2026-01-06T10:00:00Z", item_id="b", event_id="x"),
        event("u2", "2026-01-07T10:00:00Z", item_id="b", event_id="x"),
        BAD,
        "",
        {"event_type": "view", "timestamp": "2026-01-08T10:00:00Z"},
    ]
    report = ingest(home, [write(tmp_path / "a.jsonl", records)], run="r1")
    assert (report.read, report.accepted, report.duplicates, report.rejected, report.dropped) == (6, 2, 1, 3, {})
    assert (report.users, report.items, report.run, report.version) == (2, 2, "r1", 1)
    assert report.first == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert report.last == datetime(2026, 1, 6, 10, tzinfo=UTC)
    assert [(reason.reason, reason.lines, reason.place) for reason in report.reasons] == [
        ("blank line", 1, f"{tmp_path}/a.jsonl:5"),
        ("not valid JSON", 1, f"{tmp_path}/a.jsonl:4"),
        ("user_id: missing or empty, and no anon_id", 1, f"{tmp_path}/a.jsonl:6"),
    ]


def test_rows_say_where_and_when_they_came_from(home: Home, tmp_path: Path) -> None:
    names = [write(tmp_path / "a.jsonl", [event()]), write(tmp_path / "b.jsonl", [event("u2")])]
    before = datetime.now(UTC)
    report = ingest(home, names)
    table = tables.open_table(home, "events")
    assert table is not None
    assert len(table.files) == 1, "files of one command share a file of the table"
    rows = table.scan().collect().sort("user_id")
    assert rows["source"].to_list() == names
    assert rows["ingested_at"].unique().to_list() == [report.ingested_at]
    assert before <= report.ingested_at <= datetime.now(UTC)


def test_the_same_file_again_leaves_no_trace(home: Home, tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [event(), event(), event("u2"), BAD])
    first = ingest(home, [name])
    assert (first.accepted, first.rejected) == (3, 1)
    before = versions(home), files(home)
    again = ingest(home, [name])
    assert (again.read, again.accepted, again.duplicates, again.rejected) == (4, 0, 3, 1)
    assert (again.version, again.users, again.first) == (None, 0, None)
    assert (versions(home), files(home)) == before
    packed = tmp_path / "copy.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(name).read_bytes()))
    assert ingest(home, [str(packed)]).accepted == 0


def test_a_file_named_twice_is_read_once(home: Home, here: Path) -> None:
    write(here / "a.jsonl", [event()])
    report = ingest(home, ["a.jsonl", str(here / "a.jsonl"), "*.jsonl"])
    assert (report.read, report.accepted) == (1, 1)


def test_twenty_bad_lines_are_always_allowed(home: Home, tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [event(), *[BAD] * 20])
    assert ingest(home, [name]).rejected == 20


def test_a_refused_file_stores_nothing_of_the_command(home: Home, tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", [event(user=f"u{n}") for n in range(50)])
    secret = '{"user_id":"jane@example.com","event_type":"view","timestamp":"31/12/2026"}'
    bad = write(tmp_path / "b.jsonl", [event("new"), *[BAD] * 15, *[secret] * 6])
    with pytest.raises(BadData) as raised:
        ingest(home, [good, bad])
    assert raised.value.message.split("\n") == [
        f"{bad}: 21 of 22 lines were rejected (95.5%), more than the 20 allowed (ingest.max_rejected = 0.01); "
        "nothing was stored",
        "       15 x not valid JSON",
        f"            {bad}:2: xxx xxxx",
        "        6 x timestamp: unreadable as a time",
        f'            {bad}:17: {{"user_id":"xxxx@xxxxxxx.xxx","event_type":"xxxx","timestamp":"00/00/0000"}}',
    ]
    assert stored(home).height == 0
    assert lines(home).collect().height == 0
    assert files(home) == []
    report = ingest(home, [good, bad], max_rejected=1.0)
    assert (report.accepted, report.rejected) == (51, 21)
    assert lines(home).collect().height == 21


def test_the_share_decides_for_each_file(home: Home, tmp_path: Path) -> None:
    records = [event(user=f"u{n}") for n in range(2_179)]
    assert ingest(home, [write(tmp_path / "a", [*records, *[BAD] * 22])]).rejected == 22
    with pytest.raises(BadData, match="23 of 2,202 lines"):
        ingest(home, [write(tmp_path / "b", [*records, *[BAD] * 23])])
    assert ingest(home, [str(tmp_path / "b")], max_rejected=0.02).rejected == 23


@pytest.mark.parametrize(
    ("given", "message"),
    [({"max_rejected": 1.5}, "max-rejected is 1.5"), ({"on_duplicate": "keep-frist"}, "did you mean 'keep-first'")],
)
def test_wrong_options_are_usage_errors(home: Home, tmp_path: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ingest(home, [write(tmp_path / "a", [event()])], **given)  # type: ignore[arg-type]


def test_a_missing_input_stores_nothing(home: Home, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere\.jsonl"):
        ingest(home, [write(tmp_path / "a.jsonl", [event()]), str(tmp_path / "nowhere.jsonl")])
    assert stored(home).height == 0


def test_a_file_that_may_not_be_read_is_named(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path / "a.jsonl", [event()])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not hold for root
    with pytest.raises(MissingInput, match="may not read it"):
        ingest(home, [name])


def test_a_file_without_the_needed_columns_stores_nothing(home: Home, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("colour,size\nred,1\n")
    with pytest.raises(BadData, match="no column for user_id or anon_id"):
        ingest(home, [write(tmp_path / "a.jsonl", [event()]), str(tmp_path / "b.csv")])
    assert stored(home).height == 0
    assert files(home) == []


def test_zoneless_times_are_counted_and_named(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = home.settings.with_flags({"ingest.assume_tz": "Europe/Berlin"})
    name = write(tmp_path / "a", [event(at="2026-01-05T10:00:00"), event(at="2026-01-05T10:00:00Z")])
    with caplog.at_level(logging.INFO, "persona"):
        report = ingest(Home(home.root, settings, home.salt), [name])
    assert report.zoneless == 1
    assert caplog.messages == ["1 rows had a time without a zone, read as Europe/Berlin (ingest.assume_tz)"]
    assert sorted(at.hour for at in stored(home)["timestamp"]) == [9, 10]


def test_guesses_are_told_once(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("userId,movieId,rating,timestamp\n1,10,4.5,1700000000\n")
    with caplog.at_level(logging.INFO, "persona"):
        ingest(home, [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], dialect="native")
    expected = "guessed user_id = userId, item_id = movieId, value = rating, event_type = rating"
    assert caplog.messages == [f"{tmp_path}/a.csv: {expected} (--map FIELD=THEIRS decides)"]


def test_standard_input_and_a_format_by_name(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"user_id,event_type,timestamp\nu1,click,2026-01-05\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    report = ingest(home, ["-"], format="csv")
    assert (report.accepted, report.rejected) == (1, 0)


def test_progress_is_told_in_lines(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 300)
    told: list[float] = []
    ingest(home, [write(tmp_path / "a", [event(user=f"u{n}") for n in range(30)])], progress=told.append)
    assert sum(told) == 30
    assert len(told) > 3


def test_a_plan_shows_the_mapping_and_rows_and_writes_nothing(home: Home, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.5,1700000000\n2,10,x,1700000000\n")
    before = sorted(home.root.rglob("*"))
    (planned,) = plan(home, [str(tmp_path / "a.csv")], maps=["target=movieId"])
    assert planned.format == "csv"
    assert planned.mapping == {
        "user_id": "userId", "target": "movieId", "value": "rating", "timestamp": "timestamp", "event_type": "=rating",
    }  # fmt: skip
    assert planned.guessed == ("user_id", "value", "event_type")
    assert [(row["user_id"], row["target"], row["value"]) for row in planned.rows] == [("1", "10", 4.5)]
    assert [(reason.reason, reason.place) for reason in planned.rejects] == [
        ("value: expected a number, got text", f"{tmp_path}/a.csv:3")
    ]
    assert sorted(home.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"user_id":"Jane-7","n":12.5,"ok":true}', '{"user_id":"xxxx-0","n":00.0,"ok":true}'),
        (b'{"user_id" : "J\\"n", "x": nul', '{"user_id" : "x\\"x", "x": xxx'),
        ("7,Zoë,2026-01-05".encode(), "0,xxx,0000-00-00"),
        (b"\xff\xfea", "��x"),
    ],
)
def test_masked_shows_the_shape_and_no_value(raw: bytes, shown: str) -> None:
    assert masked(raw) == shown


def test_masked_is_short() -> None:
    assert masked(b"a" * 1_000, 10) == "xxxxxxxxx…"


def test_future_and_ancient_times_are_judged_by_the_clock(home: Home, tmp_path: Path) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=23)).isoformat()
    later = (datetime.now(UTC) + timedelta(hours=25)).isoformat()
    report = ingest(home, [write(tmp_path / "a", [event(at=soon), event(at=later), event(at="1969-12-31T00:00:00Z")])])
    assert (report.accepted, report.rejected) == (1, 2)
