from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from ingesting import event, files, stored, versions, write

from persona_cli.events import quarantine, retry
from persona_cli.events.ingest import ingest
from persona_cli.events.quarantine import groups, lines
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

LATE = {"user_id": "u1", "event_type": "save", "sent_at": "2026-01-05T10:00:00Z"}


def kept(home: Home) -> list[tuple[str, int, str, bytes]]:
    return lines(home).select("source", "line", "reason", "raw").collect().rows()


def test_every_rejected_line_is_kept_as_it_came(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(event()).encode()
    path.write_bytes(b"\xff\x00{\n" + good + b"\n\nnope\r\n")
    ingest(home, [str(path)], run="r1")
    assert [(line, raw) for _, line, _, raw in kept(home)] == [(1, b"\xff\x00{"), (3, b""), (4, b"nope\r")]
    first = lines(home).collect().row(0, named=True)
    assert (first["run"], first["kind"], first["source"], first["offset"]) == ("r1", "events", str(path), 0)
    assert lines(home).collect()["offset"].to_list() == [0, 5 + len(good), 6 + len(good)]


def test_a_line_that_is_read_again_is_kept_once(home: Home, tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [event(), "bad", "bad"])
    ingest(home, [a])
    ingest(home, [a])
    assert [line for _, line, _, _ in kept(home)] == [2, 3]
    # Another file may have the same bad line, and the same file another one in its place.
    ingest(home, [write(tmp_path / "b.jsonl", [event(), "bad"])])
    write(tmp_path / "a.jsonl", [event(), "BAD"])
    ingest(home, [a])
    assert [(Path(name).stem, line, raw) for name, line, _, raw in kept(home)] == [
        ("a", 2, b"bad"), ("a", 3, b"bad"), ("b", 2, b"bad"), ("a", 2, b"BAD"),
    ]  # fmt: skip


def test_many_rejects_are_written_in_parts(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_SPILL_BYTES", 2_000)
    name = write(tmp_path / "a.jsonl", [f"bad {n}" for n in range(500)])
    monkeypatch.setattr("persona_cli.events.reading.BLOCK_BYTES", 500)
    ingest(home, [name], max_rejected=1.0)
    assert [raw for *_, raw in kept(home)] == [f"bad {n}".encode() for n in range(500)]
    table = tables.open_table(home, "quarantine")
    assert table is not None
    assert len(table.files) > 5


def test_a_refused_file_leaves_no_spilled_rejects(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_SPILL_BYTES", 100)
    with pytest.raises(Exception, match="nothing was stored"):
        ingest(home, [write(tmp_path / "a.jsonl", ["bad"] * 100)])
    assert files(home) == []


def test_groups_count_the_newest_and_most_first(home: Home, tmp_path: Path) -> None:
    ingest(home, [write(tmp_path / "a", ["bad", "bad", ""])], run="r1")
    ingest(home, [write(tmp_path / "b", [event(), ""])], run="r2")
    rows = groups(home).select("run", "reason", "lines", "first_line").rows()
    assert rows == [("r2", "blank line", 1, 2), ("r1", "not valid JSON", 2, 1), ("r1", "blank line", 1, 3)]
    by_reason = {row[0]: row[1] for row in groups(home, ["reason"]).select("reason", "lines").rows()}
    assert by_reason == {"blank line": 2, "not valid JSON": 2}
    assert lines(home, {"run": "r1", "reason": "blank line"}).collect().height == 1


def age(home: Home, days: float) -> None:
    """Make every kept line older, as if the run had been then."""
    table = tables.open_table(home, "quarantine")
    assert table is not None
    rows = table.scan().with_columns(pl.col("rejected_at") - timedelta(days=days)).collect()
    before = table.files
    table.commit([table.write(rows)], before)
    table.discard(before)


def test_lines_expire_with_the_next_ingest(home: Home, tmp_path: Path) -> None:
    old = write(tmp_path / "old", [event(), "expired-line"])
    ingest(home, [old])
    age(home, 29)
    ingest(home, [write(tmp_path / "mid", ["mid"])])
    age(home, 1.5)  # one file holds lines of both runs now
    version = versions(home, "quarantine")
    ingest(home, [write(tmp_path / "new", [event("u2")])])
    assert [raw for *_, raw in kept(home)] == [b"mid"]
    assert versions(home, "quarantine") != version
    version = versions(home, "quarantine")
    ingest(home, [write(tmp_path / "newer", [event("u3")])])
    assert versions(home, "quarantine") == version, "nothing expired, nothing is written"
    assert b"expired-line" not in b"".join(path.read_bytes() for path in home.path("quarantine").rglob("*.parquet"))


def test_retry_takes_in_what_passes_now(home: Home, tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [event(), LATE, "bad", LATE, {**LATE, "user_id": "u2"}])
    ingest(home, [name], run="r1")
    assert stored(home).height == 1
    untouched = versions(home)
    done = retry.retry(home, run="r2")
    assert (done.read, done.accepted, done.rejected) == (4, 0, 4)
    assert done.reasons == {"no column for timestamp": 4}
    assert versions(home) == untouched
    done = retry.retry(home, maps=["timestamp=sent_at"], run="r3")
    assert (done.read, done.accepted, done.duplicates, done.rejected) == (4, 3, 0, 1)
    assert done.reasons == {"not valid JSON": 1}
    assert [(line, reason, raw) for _, line, reason, raw in kept(home)] == [(3, "not valid JSON", b"bad")]
    rows = stored(home)
    assert rows["user_id"].to_list().count("u1") == 3
    assert tables.open_table(home, "events").scan().collect()["source"].unique().to_list() == [name]  # type: ignore[union-attr]


def test_retry_is_what_ingest_with_that_mapping_would_have_been(home: Home, tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [event(), LATE, LATE])
    ingest(home, [name])
    retry.retry(home, maps=["timestamp=sent_at"])
    report = ingest(home, [write(tmp_path / "b.jsonl", [LATE, LATE])], maps=["timestamp=sent_at"])
    assert (report.accepted, report.duplicates) == (0, 2)


def test_a_retry_that_died_between_its_commits_is_completed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(home, [write(tmp_path / "a.jsonl", [event(), LATE, LATE])])

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(retry, "release", dies)
        retry.retry(home, maps=["timestamp=sent_at"])
    assert (stored(home).height, len(kept(home))) == (3, 2)
    done = retry.retry(home, maps=["timestamp=sent_at"])
    assert (done.accepted, done.duplicates) == (0, 2)
    assert (stored(home).height, len(kept(home))) == (3, 0)


def test_retry_picks_lines_and_says_what_it_cannot_judge(home: Home, tmp_path: Path) -> None:
    long = json.dumps({**LATE, "note": "x" * 70_000})
    ingest(home, [write(tmp_path / "a.jsonl", [event(), LATE, long])], run="r1")
    ingest(home, [write(tmp_path / "b.jsonl", [event(), LATE])], run="r2")
    (tmp_path / "c.csv").write_text("user_id,event_type,timestamp\nu1,click,never\n")
    ingest(home, [str(tmp_path / "c.csv")], run="r3")
    done = retry.retry(home, maps=["timestamp=sent_at"], where={"run": "r2", "reason": None})
    assert (done.read, done.accepted, done.impossible) == (1, 1, {})
    done = retry.retry(home, maps=["timestamp=sent_at"])
    assert (done.read, done.duplicates) == (1, 1)
    assert done.impossible == {
        "longer than 64 KiB: only its beginning was kept": 1,
        "a row of a table, which means nothing without its header": 1,
    }
    assert len(kept(home)) == 2


def test_retry_of_an_empty_quarantine(home: Home) -> None:
    assert retry.retry(home).read == 0


def test_retry_of_a_catalogue(home: Home, tmp_path: Path) -> None:
    ingest(home, [write(tmp_path / "items.jsonl", [{"item_id": "a"}, {"nr": "b", "title": "B"}])], kind="items")
    done = retry.retry(home, maps=["item_id=nr"])
    assert (done.accepted, done.rejected) == (1, 0)
    rows = tables.open_table(home, "items").scan().collect()  # type: ignore[union-attr]
    assert sorted(rows["item_id"].to_list()) == ["a", "b"]
    assert all(at <= datetime.now(UTC) for at in rows["ingested_at"])
