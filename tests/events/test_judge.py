"""The definition itself: what a value may be, field by field. Lines of JSON are judged in test_golden."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.events.judge import Rejected, Rules, json_text, judge, parse_json, props_text
from persona_cli.events.schema import Kind, Mapping, resolve

LATEST_US = 1_800_000_000_000_000  # 2027-01-15
EVENT = {"user_id": "u", "event_type": "click", "timestamp": "2026-01-05T10:20:30Z"}


def rules(kind: Kind = "events", zone: str = "UTC", **constants: str) -> Rules:
    mapping = resolve(kind, set(), [f"{name}=={text}" for name, text in constants.items()], nested=True)
    return Rules(mapping, LATEST_US, zone)


def event(**values: Any) -> dict[str, Any]:
    return judge(EVENT | values, rules())


def reason(record: dict[str, Any], by: Rules | None = None) -> str:
    with pytest.raises(Rejected) as caught:
        judge(record, by or rules())
    return str(caught.value)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2026, 12, 31)), st.integers(-23 * 60, 23 * 60))
def test_written_moments_are_read_back(moment: datetime, offset: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    want = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    by = rules()
    by.latest_us = 2_000_000_000_000_000
    if want >= 631_152_000_000_000:
        assert judge(EVENT | {"timestamp": aware.isoformat()}, by)["timestamp"] == want
    assert by.zoneless == 0


def test_zoneless_times_are_read_in_the_assumed_zone_and_counted() -> None:
    by = rules(zone="Europe/Berlin")
    row = judge(EVENT | {"timestamp": "2026-07-01T12:00:00"}, by)
    assert row["timestamp"] == datetime(2026, 7, 1, 10, tzinfo=UTC).timestamp() * 1e6
    # The hour that comes twice in autumn is the first of the two.
    row = judge(EVENT | {"timestamp": "2026-10-25T02:30:00", "received_at": "2026-10-25"}, by)
    assert row["timestamp"] == datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp() * 1e6
    assert by.zoneless == 2
    # Rejected records are not counted.
    reason(EVENT | {"timestamp": "2026-07-01T12:00:00", "value": "x"}, by)
    assert by.zoneless == 2


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_the_unit_of_a_number_follows_from_its_size(factor: int) -> None:
    assert event(timestamp=1_700_000_000 * factor)["timestamp"] == 1_700_000_000_000_000


def test_values_from_tables_with_types() -> None:
    moment = datetime(2026, 1, 5, 10, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert event(timestamp=moment)["timestamp"] == moment.timestamp() * 1e6
    assert event(received_at=date(2026, 1, 5))["received_at"] == 1_767_571_200_000_000
    assert reason(EVENT | {"value": math.nan}) == "value: not a finite number"
    assert math.copysign(1, event(value=-0.0)["value"]) == 1


def test_time_limits_are_inclusive() -> None:
    assert event(timestamp=LATEST_US)["timestamp"] == LATEST_US
    assert reason(EVENT | {"timestamp": LATEST_US + 1}) == "timestamp: more than 24 h in the future"


def test_constants_are_read_like_values_of_the_record() -> None:
    by = rules(event_type="rating", value="2.5", timestamp="2026-01-05")
    row = judge({"user_id": "u"}, by)
    assert (row["event_type"], row["value"], row["timestamp"]) == ("rating", 2.5, 1_767_571_200_000_000)
    assert by.zoneless == 1
    assert reason(EVENT, rules(value="much")) == "value: expected a number, got text"


def test_items() -> None:
    by = rules("items")
    row = judge(
        {
            "item_id": 7,
            "tags": ["a", " b ", "", None, 3],
            "available": "Yes",
            "price": "1.5",
            "published_at": "1950-06-01",
        },
        by,
    )
    assert (row["item_id"], row["tags"], row["available"], row["price"]) == ("7", ["a", "b", "3"], True, 1.5)
    assert row["published_at"] == datetime(1950, 6, 1, tzinfo=UTC).timestamp() * 1e6
    assert judge({"item_id": "i", "tags": "a| b ||c"}, by)["tags"] == ["a", "b", "c"]
    assert reason({"item_id": " "}, by) == "item_id: missing or empty"
    assert reason({"item_id": "i", "tags": {"a": 1}}, by) == "tags: expected a list of texts, got an object"
    assert reason({"item_id": "i", "tags": [["a"]]}, by) == "tags: expected text, got an array"
    assert reason({"item_id": "i", "available": "perhaps"}, by) == "available: expected true or false"


def test_reasons_never_hold_values_of_the_record() -> None:
    secret = "secret@example.com"
    for name in ("timestamp", "value", "position", "received_at", "context", "props"):
        assert secret not in reason(EVENT | {name: secret})
    for name in ("user_id", "item_id", "event_type"):
        assert secret not in reason(EVENT | {name: {secret: secret}})


def test_props_are_what_no_field_took() -> None:
    tree = Mapping("events", {"user_id": ("who", "id"), "item_id": ("props", "sku")}).tree()
    record = {"who": {"id": "u", "name": "n"}, "props": {"sku": "s", "size": 3, "who": "w", "none": None}, "x": [None]}
    assert props_text(record, tree) == '{"who":{"name":"n"},"x":[null],"size":3,"props.who":"w"}'
    assert props_text({"who": {"id": "u"}, "props": {}, "none": None}, tree) is None


def test_numbers_in_props_keep_their_text() -> None:
    line = b'{"a":1.10,"b":[-0,1e400,12345678901234567890.5],"c":' + b"9" * 5_000 + b"}"
    assert json_text(parse_json(line)) == line.decode()


@given(st.text(max_size=20))
def test_texts_in_props_are_read_back(text: str) -> None:
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert parse_json(json_text({"k": text, text: 1}).encode()) == {"k": text} | {text: 1}
