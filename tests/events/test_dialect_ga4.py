"""Google Analytics 4: nested rows of the export, and the flat table."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.events.ingest import ingest
from persona_cli.events.undo import undo
from persona_cli.workspace.home import Home
from tests.events.ingesting import stored, write
from tests.events.speaking import SHARED, dialect, hear, heard, reason

GA4 = dialect("ga4", key="event_name")
FLAT = dialect("ga4", key="_fivetran_id")
AT = 1_725_971_700_123_456


def parameters(**values: Any) -> list[dict[str, Any]]:
    kinds = {str: "string_value", int: "int_value", float: "double_value"}
    return [{"key": key, "value": {kinds[type(value)]: value}} for key, value in values.items()]


def export(name: str = "page_view", items: list[dict[str, Any]] | None = None, /, **params: Any) -> dict[str, Any]:
    return {
        "event_date": "20240910",
        "event_timestamp": str(AT),  # BigQuery writes 64-bit integers as text
        "event_name": name,
        "event_params": parameters(**params),
        "user_pseudo_id": "p1",
        "batch_page_id": "7",
        "batch_ordering_id": "2",
        "batch_event_index": "1",
        "items": items or [],
    }


def test_a_row_with_all_that_the_export_says() -> None:
    record = export(
        page_location="https://shop.example/a?q=1", page_referrer="https://search.example/", ga_session_id=99,
        campaign="spring", percent=5, search_term="boots", value=2.5, currency="EUR",
    ) | {
        "user_id": "u1",
        "event_server_timestamp_offset": 1_500,
        "privacy_info": {"analytics_storage": "Yes", "ads_storage": "No", "uses_transient_token": None},
        "device": {"category": "mobile", "operating_system": "Android", "language": "de-de",
                   "web_info": {"browser": "Chrome", "browser_version": "120"}, "time_zone_offset_seconds": "7200"},
        "geo": {"country": "Germany", "region": "(not set)", "city": "Berlin"},
        "traffic_source": {"name": "(direct)", "medium": "(none)", "source": "(direct)"},
        "user_properties": [{"key": "plan", "value": {"string_value": "pro", "set_timestamp_micros": "1"}}],
    }  # fmt: skip
    (row,) = hear(GA4, record)
    assert len(row.pop("event_id")) == 32
    assert row == {
        "user_id": "u1", "anon_id": "p1", "event_type": "page_view", "timestamp": AT, "received_at": AT + 1_500,
        "target": "https://shop.example/a?q=1", "page": "https://shop.example/a?q=1", "session_id": "p1.99",
        "referrer": "https://search.example/", "campaign": "spring", "query": "boots", "value": 2.5, "currency": "EUR",
        "device": "mobile", "os": "Android", "browser": "Chrome", "locale": "de-de", "tz": "Etc/GMT-2",
        "country": "Germany", "consent": "ads_storage=no,analytics_storage=yes",
        "props": {
            "percent": 5, "event_date": "20240910", "batch_page_id": "7", "batch_ordering_id": "2",
            "batch_event_index": "1", "geo": {"city": "Berlin"},
            "device": {"web_info": {"browser_version": "120"}, "time_zone_offset_seconds": "7200"},
            "traffic_source": {"name": "(direct)", "medium": "(none)", "source": "(direct)"},
            "user_properties": {"plan": "pro"},
        },
    }  # fmt: skip


ITEM = st.fixed_dictionaries(
    {"item_id": st.text("abc12", min_size=1, max_size=5)},
    optional={"price": st.integers(0, 10**4), "quantity": st.integers(1, 9), "index": st.integers(0, 50)},
)
WORDS = {"view": "view_item", "add_to_cart": "add_to_cart", "purchase": "purchase", "click": "select_item",
         "impression": "view_item_list"}  # fmt: skip


@given(st.sampled_from(sorted(WORDS)), st.lists(ITEM, min_size=1, max_size=4), st.integers(0, 10**9), st.booleans())
def test_events_with_items_read_back_one_row_an_item(
    word: str, items: list[dict[str, Any]], session: int, as_text: bool
) -> None:
    """From canonical rows to the export and back, with integers as JSON writes them or as Parquet does."""
    record = export(WORDS[word], [{"item_name": "(not set)"} | item for item in items], ga_session_id=session)
    if as_text:
        record["event_params"][0]["value"] = {"int_value": str(session)}
    rows = hear(GA4, record)
    assert len({row.pop("event_id") for row in rows}) == len(items)
    for place, (row, item) in enumerate(zip(rows, items, strict=True)):
        expected = {"anon_id": "p1", "event_type": word, "timestamp": AT, "item_id": item["item_id"],
                    "session_id": f"p1.{session}"}  # fmt: skip
        if word in ("add_to_cart", "purchase") and "price" in item:
            expected["value"] = item["price"] * item.get("quantity", 1)
        if "index" in item:
            expected["position"] = item["index"]
        elif word == "impression":
            expected["position"] = place + 1
        assert {name: value for name, value in row.items() if name != "props"} == expected
        assert {"price", "quantity"} & row["props"].keys() == {"price", "quantity"} & item.keys()


def test_revenue_counts_before_price_and_the_order_stays_in_props() -> None:
    items = [{"item_id": "a", "price": 10.0, "quantity": 2, "item_revenue": 18.0}, {"item_id": "b", "price": 5.0}]
    record = export("purchase", items, value=23.0, currency="EUR") | {"ecommerce": {"transaction_id": "t9"}}
    rows = hear(GA4, record)
    assert [(row["value"], row["currency"], row["props"]["order_id"]) for row in rows] == [
        (18.0, "EUR", "t9"), (5.0, "EUR", "t9"),
    ]  # fmt: skip
    assert all(row["props"]["value"] == 23.0 for row in rows)


def test_engagement_is_dwell_in_seconds_and_scrolling_a_share() -> None:
    dwell, scroll = hear(
        GA4, export("user_engagement", engagement_time_msec=12_500), export("scroll", percent_scrolled=90)
    )
    assert (dwell["event_type"], dwell["value"]) == ("dwell", 12.5)
    assert (scroll["event_type"], scroll["value"]) == ("scroll", 0.9)
    assert reason(GA4, export("user_engagement")) == "-user_engagement without engagement_time_msec"


def test_a_revised_row_keeps_its_id() -> None:
    first = export("purchase", [{"item_id": "a", "price": 1.0}, {"item_id": "b"}])
    revised = export("purchase", [{"item_id": "a", "price": 2.0}, {"item_id": "b"}], campaign="late")
    revised |= {"user_id": "u1", "session_traffic_source_last_click": {"manual_campaign": {"campaign_name": "x"}}}
    assert [row["event_id"] for row in hear(GA4, first)] == [row["event_id"] for row in hear(GA4, revised)]
    others = [first | {name: value} for name, value in
              (("batch_event_index", "2"), ("user_pseudo_id", "p2"), ("event_name", "refund"),
               ("event_timestamp", AT + 1), ("batch_page_id", "8"), ("batch_ordering_id", "3"))]  # fmt: skip
    assert len({row["event_id"] for row in hear(GA4, first, *others)}) == 14
    assert hear(GA4, json.loads(json.dumps(first)))[0]["event_id"] == hear(GA4, first)[0]["event_id"]


def test_a_revised_day_replaces_the_rows_that_changed(home: Home, tmp_path: Path) -> None:
    def day(name: str, *rows: tuple[int, float]) -> str:
        records = [
            export("purchase", [{"item_id": "a", "price": price}]) | {"batch_event_index": str(at)}
            for at, price in rows
        ]
        return write(tmp_path / name, records)

    def values() -> list[float]:
        return sorted(stored(home)["value"].to_list())

    first = ingest(home, [day("first.jsonl", (1, 1.0), (2, 2.0), (3, 3.0))])
    late = day("late.jsonl", (2, 20.0), (3, 3.0), (4, 4.0))
    report = ingest(home, [late], on_duplicate="keep-last")
    assert (report.accepted, report.duplicates, report.replaced) == (1, 2, 1)
    assert values() == [1.0, 3.0, 4.0, 20.0]  # the row that is gone from the table stays …
    undo(home, first.run)
    undo(home, report.run)
    ingest(home, [late])
    assert values() == [3.0, 4.0, 20.0]  # … until what brought the day is taken back


def test_rows_from_before_batches_are_told_apart_by_what_they_say() -> None:
    old = {name: value for name, value in export("scroll", percent=1).items() if not name.startswith("batch_")}
    other = old | {"event_params": parameters(percent=2)}
    ids = [row["event_id"] for row in hear(GA4, old, other, old)]
    assert ids[0] == ids[2] != ids[1]


def test_parquet_with_lists_of_elements(tmp_path: Any) -> None:
    record = export("view_item", [{"item_id": "a", "index": 3}], ga_session_id=5) | {"event_timestamp": AT}
    path = tmp_path / "day.parquet"
    pl.DataFrame([record]).write_parquet(path)
    (read,) = pl.read_parquet(path).to_dicts()
    wrapped = record | {"items": {"list": [{"element": record["items"][0]}]}}
    wrapped |= {"event_params": {"list": [{"element": one} for one in record["event_params"]]}}
    rows = hear(GA4, record, read, wrapped)
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["position"] == 3


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"event_timestamp": "1725971700"}, "event_timestamp: expected microseconds since 1970"),
        ({"event_timestamp": "2024-09-10"}, "event_timestamp: expected microseconds since 1970, got text"),
        ({"event_timestamp": None}, "event_timestamp: missing or empty"),
        ({"user_pseudo_id": None}, "user_id or user_pseudo_id: missing or empty"),
        ({"event_name": ""}, "event_name: missing or empty"),
        ({"event_params": "none"}, "event_params: expected a list of {key, value}, got text"),
        ({"event_params": [{"value": {}}]}, "event_params: expected a list of {key, value}, got an object"),
        ({"event_params": [{"key": "a", "value": 1}]},
         "event_params.a: expected an object with one of string_value, int_value, float_value, double_value"),
        ({"event_params": [{"key": "a", "value": {"int_value": "x"}}]},
         "event_params.a.int_value: expected a whole number, got text"),
        ({"items": [7]}, "items: expected an array of objects, got a number"),
        ({"items": [{"index": 2}]}, "items.item_id: missing or empty"),
        ({"items": [{"item_id": "a", "index": "first"}]}, "items[].index: expected a whole number, got text"),
        ({"device": "phone"}, "device: expected an object, got text"),
        ({"event_server_timestamp_offset": 0.5},
         "event_server_timestamp_offset: expected a whole number of microseconds, got a number"),
    ],
)  # fmt: skip
def test_reasons_name_the_field_of_the_export(changed: dict[str, Any], why: str) -> None:
    assert reason(GA4, export() | changed) == why


@pytest.mark.skipif(not SHARED.exists(), reason="real files are not here")
def test_the_real_flat_table_is_taken_whole() -> None:
    with (SHARED / "ga4_export_flat.csv").open() as file:
        header, *cells = csv.reader(file)
    header[-1] = "param_session_engaged_2"  # the table has the column twice
    records = [{name: cell or None for name, cell in zip(header, row, strict=True)} for row in cells]
    assert FLAT.recognises(records)
    rows, reasons = heard(FLAT, records)
    assert not reasons
    assert [(row["event_id"], row["event_type"], row["session_id"], row.get("value")) for row in rows] == [
        ("1", "purchase", "pseudo_123.session_123", 29.99),
        ("2", "add_to_cart", "pseudo_456.session_456", 0.0),
        ("3", "scroll", "pseudo_789.session_789", 0.3),
        ("4", "view", "pseudo_123.session_124", None),
        ("5", "checkout", "pseudo_124.session_125", None),
        ("6", "begin_checkout", "pseudo_456.session_456", None),
    ]
    assert rows[0]["timestamp"] == 1_725_971_700_000_000  # 2024-09-10 12:35:00 UTC
    assert (rows[0]["currency"], rows[0]["country"], rows[0]["props"]["order_id"]) == ("USD", "USA", "txn_123")


FLAT_ROW = {"_fivetran_id": "f1", "name": "view_item", "timestamp": "2024-09-10 12:35:00", "user_pseudo_id": "p1",
            "param_ga_session_id": "5"}  # fmt: skip


@given(
    st.sampled_from([("click", "select_item"), ("page_view", "page_view"), ("sign_up", "sign_up")]),
    st.integers(10**15, 3 * 10**15),
    st.text("abc", min_size=1),
)
def test_the_flat_table_reads_back(words: tuple[str, str], at: int, person: str) -> None:
    moment = (datetime(1970, 1, 1) + timedelta(microseconds=at)).isoformat(" ")
    record = FLAT_ROW | {"name": words[1], "timestamp": moment, "user_pseudo_id": person, "stream_id": "3"}
    assert hear(FLAT, record) == [
        {"event_id": "f1", "event_type": words[0], "anon_id": person, "session_id": f"{person}.5", "timestamp": at,
         "props": {"stream_id": "3"}}
    ]  # fmt: skip


def test_reasons_name_the_column_of_the_flat_table() -> None:
    assert reason(FLAT, FLAT_ROW | {"timestamp": "noon"}) == "timestamp: unreadable as a time"
    assert reason(FLAT, FLAT_ROW | {"name": None}) == "name: missing or empty"
    assert reason(FLAT, FLAT_ROW | {"user_pseudo_id": None}) == "user_id or user_pseudo_id: missing or empty"
    dear = FLAT_ROW | {"name": "purchase", "ecommerce_purchase_revenue": "much"}
    assert reason(FLAT, dear) == "ecommerce_purchase_revenue: expected a number, got text"
