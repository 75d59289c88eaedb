"""Requests of people: their due dates, what may be done with them, and a log that survives its writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.privacy import requests
from persona_cli.privacy.requests import close_request, extend_request, find_request, open_request, requests_of
from persona_cli.workspace.home import Home, create, open_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


def _path(home: Home) -> Path:
    return home.path(*requests.FILE)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# The regulation's own examples: the same day of the month, or the last day of a shorter month.
@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2025-01-15", "2025-02-15"),
        ("2025-01-31", "2025-02-28"),
        ("2024-01-30", "2024-02-29"),
        ("2025-03-31T23:59:59", "2025-04-30"),
        ("2024-12-05", "2025-01-05"),
    ],
)
def test_a_month_is_a_month_of_the_calendar(home: Home, received: str, due: str) -> None:
    made = open_request(home, "access", ["u1"], received=_at(received))
    assert find_request(home, made).due == date.fromisoformat(due)


def test_an_extension_counts_three_months_from_receipt(home: Home) -> None:
    today = datetime.now(UTC)
    made = open_request(home, "access", ["u1"], received=today)
    first = find_request(home, made).due
    after = extend_request(home, made, "many systems")
    assert after.reason == "many systems"
    assert timedelta(days=59) <= after.due - first <= timedelta(days=62)
    with pytest.raises(UsageError, match="already"):
        extend_request(home, made, "again")


def test_45_days_and_45_more_under_ccpa(home: Home) -> None:
    settings = home.root / "persona.toml"
    settings.write_text(settings.read_text().replace('regime = "gdpr"', 'regime = "ccpa"'))
    home = open_home(home.root)
    received = datetime.now(UTC) - timedelta(days=3)
    made = open_request(home, "erasure", ["u1"], received=received)
    assert find_request(home, made).due == received.date() + timedelta(days=45)
    assert extend_request(home, made, "complex").due == received.date() + timedelta(days=90)


def test_overdue_only_after_the_last_day_and_only_while_open(home: Home) -> None:
    made = open_request(home, "erasure", ["u1"], received=_at("2025-01-15"))
    one = find_request(home, made)
    assert not one.overdue(_at("2025-02-15T23:59:59"))
    assert one.overdue(_at("2025-02-16"))
    with pytest.raises(UsageError, match="was due on 2025-02-15"):
        extend_request(home, made, "too late")
    close_request(home, made, "erased")
    closed = find_request(home, made)
    assert not closed.overdue(_at("2030-01-01")) and closed.late()
    close_request(home, made, "erased")  # a command that is run again after a crash
    with pytest.raises(UsageError, match="closed on"):
        close_request(home, made, "refused")


def test_a_person_is_found_by_any_of_their_ids_and_written_nowhere(home: Home) -> None:
    made = open_request(home, "access", ["alice@example.org", "cookie-77"])
    other = open_request(home, "access", ["bob"])
    assert [one.id for one in requests_of(home, ["cookie-77"])] == [made]
    assert [one.id for one in requests_of(home, ["bob"])] == [other]
    for reason in ("alice@example.org", "mail to alice@example.org, later", "(cookie-77)"):
        with pytest.raises(UsageError, match="names the person"):
            close_request(home, made, reason)
    text = _path(home).read_text()
    assert "alice" not in text and "cookie-77" not in text
    assert _path(home).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("kind", "ids", "received"),
    [("acess", ["u"], None), ("access", [], None), ("access", ["u"], datetime.now(UTC) + timedelta(days=2))],
)
def test_what_is_no_request(home: Home, kind: str, ids: list[str], received: datetime | None) -> None:
    with pytest.raises(UsageError):
        open_request(home, kind, ids, received=received)
    assert requests.requests(home) == []


def test_unknown_requests(home: Home) -> None:
    with pytest.raises(MissingInput, match="R-nothing"):
        close_request(home, "R-nothing", "done")


def test_half_a_last_line_is_cut_off_and_a_damaged_line_is_an_error(home: Home) -> None:
    first = open_request(home, "access", ["u1"])
    whole = _path(home).read_bytes()
    for cut in range(1, len(whole), 7):
        _path(home).write_bytes(whole + whole[:cut])
        assert [one.id for one in requests.requests(home)] == [first]
    second = open_request(home, "access", ["u2"])
    assert {one.id for one in requests.requests(home)} == {first, second}
    assert all(json.loads(line) for line in _path(home).read_text().splitlines())
    _path(home).write_bytes(b"{}\n" + whole)
    with pytest.raises(BadData, match="line 1"):
        requests.requests(home)


def _write_many(root: Path, n: int) -> None:
    home = open_home(root)
    for i in range(n):
        close_request(home, open_request(home, "access", [f"u{i}"]), "answered")


def test_two_writers_lose_nothing_and_a_killed_one_leaves_whole_lines(home: Home) -> None:
    started = multiprocessing.get_context("fork")
    writers = [started.Process(target=_write_many, args=(home.root, 8)) for _ in range(2)]
    killed = started.Process(target=_write_many, args=(home.root, 10_000))
    for one in (*writers, killed):
        one.start()
    for one in writers:
        one.join()
        assert one.exitcode == 0
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    open_request(home, "erasure", ["after"])
    found = requests.requests(home)
    assert sum(one.outcome == "answered" for one in found) >= 16
    assert sum(one.kind == "erasure" for one in found) == 1
    assert all(json.loads(line) for line in _path(home).read_text().splitlines())
