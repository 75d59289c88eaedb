"""The gate at the door, end to end: what is stored, what is dropped by which reason, what becomes a receipt."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_cli.cli.main import run
from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import COVERING, PURPOSES, receipts, record
from persona_cli.consent.subjects import suppress
from persona_cli.events.ingest import Report, ingest
from persona_cli.events.store import scan_events
from persona_cli.events.undo import undo
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, create

GPC = {"gpc": 1}
_count = 0


def home_with(name: str, **settings: str) -> Home:
    home = create(Path(name))
    flags = {key.replace("__", "."): value for key, value in settings.items()}
    return dataclasses.replace(home, settings=home.settings.with_flags(flags))


def consent_only(name: str) -> Home:
    return home_with(name, **{f"privacy__purposes__{purpose}__basis": "consent" for purpose in COVERING})


def event(user: str | None = None, anon: str | None = None, minute: int = 0, **more: Any) -> dict[str, Any]:
    """An event of the first of March; every one is another."""
    global _count
    _count += 1
    consent, props = more.pop("consent", None), more
    ids = {name: id for name, id in (("user_id", user), ("anon_id", anon)) if id is not None}
    said = {"context": {"consent": consent}} if consent else {}
    at = f"2026-03-01T{minute // 60:02d}:{minute % 60:02d}:00Z"
    return {**ids, "event_type": "click", "item_id": f"i{_count}", "timestamp": at, **said, **props}


def take(home: Home, *events: dict[str, Any], kind: Any = "events", name: str = "events.jsonl") -> Report:
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in events))
    report = ingest(home, [name], kind=kind)
    assert report.read == report.accepted + report.duplicates + report.rejected + sum(report.dropped.values())
    return report


def stored(home: Home) -> list[tuple[str | None, str | None]]:
    rows = scan_events(home).select("user_id", "anon_id", "timestamp").collect().sort("timestamp", "user_id", "anon_id")
    return rows.select("user_id", "anon_id").rows()


def words(home: Home, id: str) -> dict[str, str]:
    return {one.purpose: one.state for one in receipts(home, [id])}


def test_nothing_is_said_and_nothing_is_written(elsewhere: Path) -> None:
    home = create(Path("w"))
    assert take(home, event("a"), event(None, "x")).dropped == {}
    assert not tables.exists(home, "consents")
    report = take(home, event("a", consent="granted"))
    assert (report.accepted, report.receipts) == (1, 0), "on a contract a grant changes nothing"


def test_without_consent_nothing_is_stored_and_with_it_all(elsewhere: Path) -> None:
    home = consent_only("w")
    first = take(
        home, event("a"), event("b", consent="granted", minute=1), event("b", minute=2), event("c", consent="analytics")
    )
    assert (first.accepted, first.dropped) == (3, {"consent": 1})
    assert words(home, "b") == dict.fromkeys(COVERING, "given")
    assert words(home, "c") == {"analytics": "given", "personalization": "withdrawn", "model_training": "withdrawn"}
    assert take(home, event("b"), event("a")).dropped == {"consent": 1}, "a receipt holds for later files"
    gate = Gate.of(home)
    assert gate.permits("model_training", pl.Series(["a", "b", "c"])).to_list() == [False, True, False]


def test_a_row_that_denies_everything_is_dropped_on_any_basis(elsewhere: Path) -> None:
    home = create(Path("w"))
    report = take(
        home, event("a"), event("a", consent="denied", minute=5), event("a", minute=6), event("b", consent="analytics")
    )
    assert (report.accepted, report.dropped) == (2, {"consent": 2})
    assert words(home, "a") == dict.fromkeys(COVERING, "withdrawn")
    report = take(home, event("a", consent="granted", minute=9), event("a", minute=10))
    assert (report.accepted, report.receipts, report.dropped) == (2, 3, {})


def test_an_older_word_does_not_undo_a_later_one(elsewhere: Path) -> None:
    home = consent_only("w")
    record(home, ["a"], COVERING, "withdrawn", at=datetime(2026, 3, 1, 12, tzinfo=UTC))
    report = take(home, event("a", consent="granted", minute=60))
    assert (report.accepted, report.receipts, report.dropped) == (0, 0, {"consent": 1})
    report = take(home, event("a", consent="granted", minute=13 * 60))
    assert (report.accepted, report.receipts) == (1, 3)


@pytest.mark.parametrize("size", [1, 2, 10_000_000])
def test_blocks_make_no_difference(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    import persona_cli.events.reading as reading

    monkeypatch.setattr(reading, "BLOCK_BYTES", size)
    home = consent_only("w")
    report = take(
        home, event("a"), event("a", consent="granted", minute=1), event("a", minute=2), event(None, "x", 3),
        event("a", consent="denied", minute=4), event("a", minute=5), event("b", consent="granted", minute=6),
        event("b", "y", 7, gpc=True), event("b", minute=8), event(None, "y", 9, consent="denied"),
        event("c", "y", 10, consent="granted"),
    )  # fmt: skip
    assert (report.accepted, report.dropped) == (4, {"consent": 5, "opted_out": 2})
    assert stored(home) == [("a", None), ("a", None), ("b", None), ("c", None)]
    assert report.opted_out_by_signal == 1


@pytest.mark.parametrize(
    "signal",
    [{"gpc": 1}, {"gpc": True}, {"props": {"gpc": "true"}}, {"headers": {"Sec-GPC": "1"}}, {"props": {"Sec-GPC": 1}}],
    ids=str,
)
def test_the_browsers_signal_opts_out_in_the_same_run(elsewhere: Path, signal: dict[str, Any]) -> None:
    home = create(Path("w"))
    lines = [event("a", minute=0), event("a", "phone", 1, **signal), event("a", minute=2), event(None, "phone", 3),
             event("b", "phone", 4)]  # fmt: skip
    report = take(home, *lines)
    assert (report.accepted, report.dropped) == (2, {"opted_out": 3})
    assert report.opted_out_by_signal == 1
    assert stored(home) == [("a", None), ("b", None)], "b is somebody else, on the same phone"
    assert words(home, "a") == words(home, "phone") == dict.fromkeys(PURPOSES, "objected")
    assert words(home, "b") == {}
    again = take(home, *lines)
    assert (again.opted_out_by_signal, again.receipts, again.accepted) == (0, 0, 0)
    assert len(receipts(home, ["a"])) == 4
    assert take(home, event("a", minute=90)).dropped == {"opted_out": 1}
    assert not Gate.of(home).permits("personalization", pl.Series(["a"])).item()
    assert take(home, event("c", gpc=0)).dropped == {}


def test_who_comes_back_after_the_signal_is_not_opted_out_by_the_old_file(elsewhere: Path) -> None:
    home = create(Path("w"))
    line = event("a", minute=1, **GPC)
    take(home, line)
    record(home, ["a"], PURPOSES, "given", at=datetime(2026, 3, 2, tzinfo=UTC))
    report = take(home, line, event("a", minute=2))
    assert (report.accepted, report.opted_out_by_signal, report.receipts) == (1, 0, 0)


def test_taking_a_run_back_takes_its_grants_back_and_no_refusal(elsewhere: Path) -> None:
    home = consent_only("w")
    lines = [event("a", consent="granted"), event("b", **GPC), event("c", consent="denied")]
    report = take(home, *lines)
    assert undo(home, report.run) == 1
    assert words(home, "a") == {}
    assert (words(home, "b"), words(home, "c")) == (
        dict.fromkeys(PURPOSES, "objected"),
        dict.fromkeys(COVERING, "withdrawn"),
    )
    assert take(home, *lines).accepted == 1


def test_the_erased_and_the_opted_out_leave_no_trace(elsewhere: Path) -> None:
    home = create(Path("w"))
    suppress(home, ["gone", "old-phone"], "R-1")
    record(home, ["out"], PURPOSES, "objected")
    report = take(
        home, event("gone"), event(None, "old-phone"), event("a", "old-phone", 1), event("gone", "x"),
        event("b", "y", 2), event("out", "z"), event("c", "out", 3),
    )  # fmt: skip
    assert (report.accepted, report.dropped) == (3, {"suppressed": 3, "opted_out": 1})
    assert report.removed["anon_ids"] == 2
    assert stored(home) == [("a", None), ("b", "y"), ("c", None)]
    users = take(
        home, {"user_id": "gone", "role": "x"}, {"user_id": "out"}, {"user_id": "new"}, kind="users", name="u.jsonl"
    )
    assert (users.accepted, users.dropped) == (1, {"suppressed": 1, "opted_out": 1})


def test_traits_of_who_may_not_be_collected_are_not_kept(elsewhere: Path) -> None:
    home = create(Path("w"))
    suppress(home, ["gone"], "R-1")
    calls = [
        {"type": "identify", "userId": user, "messageId": f"m{user}", "timestamp": "2026-03-01T00:00:00Z",
         "originalTimestamp": "2026-03-01T00:00:00Z", "traits": {"country": "DE", "email": "x"}, "context": {}}
        for user in ("gone", "a")
    ]  # fmt: skip
    Path("calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
    ingest(home, ["calls.jsonl"], dialect="segment")
    assert tables.scan(home, "users", pl.DataFrame().to_arrow().schema).collect()["user_id"].to_list() == ["a"]


def test_an_unreadable_text_is_no_consent_where_consent_is_needed(elsewhere: Path) -> None:
    home = consent_only("w")
    take(home, event("a", consent="granted", minute=1))
    report = take(home, event("a", consent="CQAAAA" + "A" * 14, minute=2), event("a", minute=3))
    assert report.dropped == {"consent": 2}
    other = create(Path("v"))
    assert take(other, event("a", consent="C0001,C0003")).dropped == {}
    assert words(other, "a") == {}


def test_without_receipts_from_events_a_word_holds_for_its_row(elsewhere: Path) -> None:
    home = home_with(
        "w", privacy__consent__receipts_from_events="false",
        **{f"privacy__purposes__{purpose}__basis": "consent" for purpose in COVERING},
    )  # fmt: skip
    report = take(home, event("a", consent="granted"), event("a", minute=1), event("b", minute=2, **GPC))
    assert (report.accepted, report.dropped) == (1, {"consent": 1, "opted_out": 1})
    assert (words(home, "a"), words(home, "b")) == ({}, dict.fromkeys(PURPOSES, "objected"))


def test_a_retry_goes_through_the_same_gate(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = create(Path("w"))
    bad = [{"user_id": user, "event_type": "click", "when": "2026-03-01T00:00:00Z"} for user in ("a", "b")]
    Path("bad.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*bad, event("c")]))
    assert ingest(home, ["bad.jsonl"]).rejected == 2
    suppress(home, ["a"], "R-1")
    assert run(["quarantine", "retry", "-w", "w", "--map", "timestamp=when", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["accepted"], told["dropped"]) == (1, 1)
    assert [user for user, _ in stored(home)] == ["b", "c"]


def test_the_report_says_so(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create(Path("w"))
    Path("e.jsonl").write_text(json.dumps(event("a", **GPC)) + "\n" + json.dumps(event("b")) + "\n")
    assert run(["ingest", "-w", "w", "e.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["opted_out_by_signal"], told["receipts"], told["dropped"]) == (1, 4, {"opted_out": 1})
    Path("e.jsonl").write_text(json.dumps(event("c", **GPC)) + "\n")
    assert run(["ingest", "-w", "w", "e.jsonl"]) == 0
    assert "1 person opted out by the browser's signal" in capsys.readouterr().err
