"""CloudEvents in structured, batch and binary mode."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.events.dialects.cloudevents import without_prefix
from tests.events.speaking import SHARED, dialect, hear, heard, lines, reason

CLOUDEVENTS = dialect("cloudevents")
TEXT = st.text("abc é/", min_size=1, max_size=8).filter(str.strip)
NAMES = {
    "user_id": "userId", "anon_id": "anonymousId", "account_id": "tenantId", "item_id": "sku",
    "session_id": "sessionId", "currency": "currency", "query": "q", "decision_id": "recommendationId",
    "device": "deviceType",
    "page": "url", "country": "country", "campaign": "campaign", "user_agent": "userAgent", "ip": "clientIp",
}  # fmt: skip
ROWS = st.fixed_dictionaries(
    {
        "user_id": TEXT,
        "event_type": st.sampled_from(["purchase", "shipping.scheduled", "view"]),
        "timestamp": st.integers(10**9, 2 * 10**9).map(lambda seconds: seconds * 10**6),
    },
    optional=dict.fromkeys(sorted(NAMES.keys() - {"user_id"}), TEXT)
    | {
        "value": st.integers(-99, 99).map(float),
        "target": TEXT,
        "props": st.dictionaries(st.just("x"), TEXT, min_size=1),
    },
)
TYPES = {"purchase": "com.example.order.completed", "view": "uk.co.shop.product.viewed",
         "shipping.scheduled": "com.example.shipping.scheduled"}  # fmt: skip


def event(data: Any = None, /, **attributes: Any) -> dict[str, Any]:
    given = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "com.example.clicked",
             "time": "2024-01-31T12:00:00Z"}  # fmt: skip
    return given | attributes | ({} if data is None else {"data": data})


def written(row: dict[str, Any]) -> dict[str, Any]:
    data = {NAMES[name]: value for name, value in row.items() if name in NAMES} | row.get("props", {})
    if "value" in row:
        data["amount"] = row["value"]
    attributes = {"time": row["timestamp"], "type": TYPES[row["event_type"]]}
    return event(data, **attributes, **({"subject": row["target"]} if "target" in row else {}))


@given(ROWS)
def test_all_modes_read_back(row: dict[str, Any]) -> None:
    """Structured, as JSON in base64 and in binary mode: from canonical rows and back."""
    structured = written(row)
    data = json.dumps(structured["data"])
    attributes = {name: value for name, value in structured.items() if name != "data"}
    coded = attributes | {
        "datacontenttype": "application/json",
        "data_base64": base64.b64encode(data.encode()).decode(),
    }
    binary = {f"ce_{name}": value for name, value in attributes.items()} | {"data": data}
    http = {f"ce-{name}": value for name, value in attributes.items()} | {"data": data}
    for record in (structured, coded, binary, http):
        assert CLOUDEVENTS.recognises([record])
        (heard_of,) = hear(CLOUDEVENTS, record)
        assert heard_of.pop("event_id") == "/shop e1"
        props = heard_of.pop("props")
        assert props.pop("source") == "/shop"
        props.pop("datacontenttype", None)
        assert heard_of | ({"props": props} if props else {}) == row


def test_headers_come_before_columns_of_the_same_name() -> None:
    binary = {f"ce_{name}": value for name, value in event(userid="u").items()} | {"id": "7", "data": None}
    (row,) = hear(CLOUDEVENTS, binary)
    assert (row["event_id"], row["props"]) == ("/shop e1", {"source": "/shop", "id_2": "7"})


def test_batches() -> None:
    rows = hear(CLOUDEVENTS, {"batch": [event({"userId": "u"}), event({"userId": "v"}, id="e2")]})
    assert [(row["user_id"], row["event_id"]) for row in rows] == [("u", "/shop e1"), ("v", "/shop e2")]


def test_source_and_id_together_are_the_id() -> None:
    ids = [row["event_id"] for row in hear(CLOUDEVENTS, *(event({"userId": "u"}, source=source, id=id_)
           for source, id_ in (("/a", "1"), ("/b", "1"), ("/a", "2"))))]  # fmt: skip
    assert ids == ["/a 1", "/b 1", "/a 2"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("com.example.order.completed", "purchase"),
        ("com.example.order.placed", "order.placed"),
        ("com.example.shop.product.viewed", "view"),
        ("com.github.pull_request.opened", "pull_request.opened"),
        ("uk.co.example.search", "search"),
        ("example.type", "example.type"),
        ("page.viewed", "page_view"),
        ("purchase", "purchase"),
        ("com.example", "com.example"),
    ],
)
def test_types_lose_their_domain(name: str, word: str) -> None:
    assert without_prefix(name) == word


def test_products_become_rows() -> None:
    data = {"userId": "u", "orderId": "o1", "total": 25, "currency": "EUR",
            "items": [{"sku": "a", "price": 10, "quantity": 2, "colour": "red"}, {"sku": "b", "price": 5}]}  # fmt: skip
    rows = hear(CLOUDEVENTS, event(data, type="com.example.order.completed"))
    assert [(row["event_id"], row["item_id"], row["value"], row["currency"]) for row in rows] == [
        ("/shop e1", "a", 20.0, "EUR"), ("/shop e1/1", "b", 5.0, "EUR"),
    ]  # fmt: skip
    assert rows[0]["props"] == {
        "price": 10, "quantity": 2, "colour": "red", "order_id": "o1", "total": 25, "source": "/shop",
    }  # fmt: skip


def test_products_that_are_only_names_stay_as_they_are() -> None:
    (row,) = hear(CLOUDEVENTS, event({"userId": "u", "items": ["a", "b"]}))
    assert "item_id" not in row
    assert row["props"]["items"] == ["a", "b"]


def test_guesses_that_do_not_fit_stay_in_props() -> None:
    data = {"customer": "Ann", "user": {"id": "u"}, "page": {"n": 1}, "value": "high", "rating": 4, "device": 3.5}
    (row,) = hear(CLOUDEVENTS, event(data, sequence="7"))
    assert (row["user_id"], row["value"]) == ("u", 4.0)
    assert row["props"] == {
        "customer": "Ann", "page": {"n": 1}, "value": "high", "device": 3.5, "source": "/shop", "sequence": "7",
    }  # fmt: skip


def test_data_that_is_no_object_and_a_time_in_the_data() -> None:
    (row,) = hear(CLOUDEVENTS, event([1, 2], userid="u"))
    assert row["props"] == {"source": "/shop", "data_value": [1, 2]}
    (row,) = hear(CLOUDEVENTS, event({"userId": "u", "occurredAt": "2024-01-31T12:00:00Z"}, time=None))
    assert row["timestamp"] == 1_706_702_400_000_000
    (row,) = hear(CLOUDEVENTS, event(None, userid="u", datacontenttype="image/png", data_base64="AAEC"))
    assert row["props"]["data_base64"] == "AAEC"


def test_no_address_is_left() -> None:
    (row,) = hear(CLOUDEVENTS, event({"userId": "u", "ip": "8.8.8.8", "client_ip": "9.9.9.9"}))
    assert row["ip"] == "8.8.8.8"
    assert row["props"] == {"source": "/shop"}


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (event({"userId": "u"}, id=None), "id: expected text, as CloudEvents requires"),
        (event({"userId": "u"}, source=""), "source: expected text, as CloudEvents requires"),
        (event({"userId": "u"}, type=5), "type: expected text, as CloudEvents requires"),
        (event({"userId": "u"}, time="soon"), "time: unreadable as a time"),
        (
            event({"userId": "u"}, time=None),
            "time or data.timestamp or data.time or data.occurredAt, …: missing or empty",
        ),
        (event({"userId": 1.5}), "data.userId: expected text, got a number"),
        (event({"userId": "u", "sku": True}), "data.sku: expected text, got a boolean"),
        (event('{"userId": "u"'), "data: expected a JSON object: not valid JSON"),
        (event(data_base64="%%"), "data_base64: expected JSON in base64"),
        (event({"a": 1}), "userid or data.userId or data.user_id or data.userid, …: missing or empty"),
        (event({"userId": "u", "items": [{"id": "a", "price": "dear"}]}), "price: expected a number, got text"),
    ],
)
def test_reasons_name_the_attribute(record: dict[str, Any], why: str) -> None:
    assert reason(CLOUDEVENTS, record) == why


@pytest.mark.skipif(not SHARED.exists(), reason="real files are not here")
def test_the_real_file_is_read_whole() -> None:
    """The examples of the specification say nothing about persons: none is an event of somebody."""
    records = lines(SHARED / "cloudevents_spec.jsonl")
    assert CLOUDEVENTS.recognises(records)
    rows, reasons = heard(CLOUDEVENTS, records)
    nobody = "userid or data.userId or data.user_id or data.userid, …: missing or empty"
    timeless = "time or data.timestamp or data.time or data.occurredAt, …: missing or empty"
    assert (rows, reasons) == ([], Counter({nobody: 17, timeless: 1}))
    theirs = [record | {"userid": "u", "time": "2024-01-31T12:00:00Z"} for record in records]
    rows, reasons = heard(CLOUDEVENTS, theirs)
    assert (len(rows), reasons) == (18, {})
    assert [row["event_type"] for row in rows[:3]] == ["order.placed", "payment.processed", "inventory.checked"]
    assert rows[1]["value"] == 150.0
