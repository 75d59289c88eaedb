"""OTTO sessions."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.events.speaking import SHARED, dialect, hear, heard, lines, reason

OTTO = dialect("otto")
WORDS = {"click": "clicks", "add_to_cart": "carts", "purchase": "orders"}
EVENTS = st.fixed_dictionaries(
    {
        "anon_id": st.integers(0, 10**8).map(str),
        "event_type": st.sampled_from(sorted(WORDS)),
        "item_id": st.integers(0, 10**7).map(str),
        "timestamp": st.integers(10**12, 2 * 10**12).map(lambda ms: ms * 1_000),
    }
)


def written(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    sessions: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        event = {
            "aid": int(str(row["item_id"])),
            "ts": int(str(row["timestamp"])) // 1_000,
            "type": WORDS[str(row["event_type"])],
        }
        sessions.setdefault(str(row["anon_id"]), []).append(event)
    return [{"session": int(session), "events": events} for session, events in sessions.items()]


@given(st.lists(EVENTS, max_size=20))
def test_what_is_written_as_sessions_reads_back(rows: list[dict[str, object]]) -> None:
    def order(row: dict[str, object]) -> str:
        return json.dumps(row, sort_keys=True)

    assert sorted(hear(OTTO, *written(rows)), key=order) == sorted(rows, key=order)


@pytest.mark.skipif(not SHARED.exists(), reason="real files are not here")
def test_the_real_file_is_taken_whole() -> None:
    rows, reasons = heard(OTTO, lines(SHARED / "otto_sample.jsonl"))
    assert not reasons
    assert Counter(row["event_type"] for row in rows) == {"click": 800, "add_to_cart": 52, "purchase": 10}
    assert rows[0] == {
        "anon_id": "0", "event_type": "click", "item_id": "1517085", "timestamp": 1_659_304_800_025_000,
    }  # fmt: skip
    assert len({row["anon_id"] for row in rows}) == 20


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"aid": 1, "ts": 1_659_304_800, "type": "clicks"}, "ts: expected milliseconds since 1970"),
        ({"aid": 1, "ts": True, "type": "clicks"}, "ts: expected milliseconds since 1970, got a boolean"),
        ({"aid": 1, "type": "clicks"}, "ts: missing or empty"),
        ({"aid": 1.5, "ts": 1_659_304_800_025, "type": "clicks"}, "aid: expected text, got a number"),
        ({"aid": 1, "ts": 1_659_304_800_025, "type": "likes"}, "type: expected one of clicks, carts, orders"),
        ({"aid": 1, "ts": 1_659_304_800_025, "type": 7}, "type: expected one of clicks, carts, orders"),
        ("click", "events: expected a list of objects, got text"),
    ],
)
def test_one_bad_event_is_turned_away_without_its_session(event: object, why: str) -> None:
    good = {"aid": 2, "ts": 1_659_304_800_026, "type": "carts", "seen": 3}
    rows, reasons = heard(OTTO, [{"session": 5, "events": [event, good]}])
    assert reasons == {why: 1}
    assert [row["props"] for row in rows] == [{"seen": 3}]


def test_events_that_are_no_list() -> None:
    assert reason(OTTO, {"session": 5, "events": "none"}) == "events: expected a list of objects, got text"
    assert heard(OTTO, [{"session": 5, "events": []}]) == ([], Counter())
