"""Snowplow enriched events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.events.dialects.snowplow import COLUMNS
from tests.events.speaking import SHARED, dialect, hear, heard, reason

SNOWPLOW = dialect("snowplow", columns=131)
ID = "c6ef3124-b53a-4b13-a233-0088f79dcbcb"
VENDOR = "com.snowplowanalytics.snowplow"
AT = 1_385_424_237_886_000  # 2013-11-26 00:03:57.886 UTC


def line(event: str = "page_view", **cells: Any) -> dict[str, str | None]:
    """The named cells of a line; what is no text goes in as JSON."""
    given = {"event": event, "event_id": ID, "domain_userid": "d1", "derived_tstamp": "2013-11-26 00:03:57.886",
             "collector_tstamp": "2013-11-26 00:02:05"} | cells  # fmt: skip
    assert given.keys() <= set(COLUMNS)
    texts = {name: value if isinstance(value, str | None) else json.dumps(value) for name, value in given.items()}
    return dict.fromkeys(COLUMNS) | texts


def entities(*pairs: tuple[str, Any], vendor: str = VENDOR) -> dict[str, Any]:
    data = [{"schema": f"iglu:{vendor}/{name}/jsonschema/1-0-0", "data": data} for name, data in pairs]
    return {"schema": f"iglu:{VENDOR}/contexts/jsonschema/1-0-0", "data": data}


def described(name: str, data: Any, vendor: str = VENDOR) -> dict[str, Any]:
    inner = {"schema": f"iglu:{vendor}/{name}/jsonschema/1-0-0", "data": data}
    return {"schema": f"iglu:{VENDOR}/unstruct_event/jsonschema/1-0-0", "data": inner}


def action(kind: str, *products: dict[str, Any], **others: Any) -> dict[str, str | None]:
    """An ecommerce event."""
    context = entities(*(("product", product) for product in products), *others.items(), vendor=f"{VENDOR}.ecommerce")
    return line("unstruct", event_name="snowplow_ecommerce_action", contexts=context,
                unstruct_event=described("snowplow_ecommerce_action", {"type": kind}))  # fmt: skip


COMMON = {"event_id": ID, "anon_id": "d1", "timestamp": AT, "received_at": 1_385_424_125_000_000}
PLAIN = {
    "user_id": "user_id", "session_id": "domain_sessionid", "target": "page_urlpath", "page": "page_url",
    "referrer": "page_referrer", "country": "geo_country", "region": "geo_region", "network": "ip_netspeed",
    "locale": "br_lang", "tz": "os_timezone", "campaign": "mkt_campaign", "device": "dvce_type",
    "browser": "br_family", "os": "os_family", "user_agent": "useragent", "ip": "user_ipaddress",
}  # fmt: skip
TEXT = st.text('ab "{é/', min_size=1).filter(str.strip)


@given(st.dictionaries(st.sampled_from(sorted(PLAIN)), TEXT), st.dictionaries(st.sampled_from("xy"), TEXT, min_size=1))
def test_page_views_read_back(fields: dict[str, str], page: dict[str, str]) -> None:
    """From canonical rows to cells between tabs and back."""
    record = line(contexts=entities(("web_page", page)), **{PLAIN[name]: value for name, value in fields.items()})
    text = "\t".join(record[name] or "" for name in COLUMNS)
    again = {name: cell or None for name, cell in zip(COLUMNS, text.split("\t"), strict=True)}
    assert SNOWPLOW.recognises([again])
    (row,) = hear(SNOWPLOW, again)
    assert row.pop("props") == {"contexts": {"web_page": page}}
    assert row == COMMON | fields | {"event_type": "page_view"}


PRODUCT = st.fixed_dictionaries(
    {"id": st.text("abc", min_size=1), "price": st.integers(0, 999), "currency": st.just("EUR")},
    optional={"quantity": st.integers(1, 9), "position": st.integers(1, 99)},
)
WORDS = {"view": "product_view", "impression": "list_view", "click": "list_click", "add_to_cart": "add_to_cart",
         "purchase": "transaction"}  # fmt: skip


@given(st.sampled_from(sorted(WORDS)), st.lists(PRODUCT, min_size=1, max_size=4))
def test_ecommerce_events_read_back_one_row_a_product(word: str, products: list[dict[str, Any]]) -> None:
    rows = hear(SNOWPLOW, action(WORDS[word], *products, transaction={"transaction_id": "t1", "revenue": 5}))
    assert len(rows) == len(products)
    for place, (row, product) in enumerate(zip(rows, products, strict=True)):
        expected = COMMON | {"event_type": word, "item_id": product["id"], "currency": "EUR"}
        expected["event_id"] = f"{ID}/{place}" if place else ID
        if word in ("add_to_cart", "purchase"):
            expected["value"] = product["price"] * product.get("quantity", 1)
        if "position" in product or word == "impression":
            expected["position"] = product.get("position", place + 1)
        props = row.pop("props")
        assert row == expected
        assert (props["order_id"], props["price"]) == ("t1", product["price"])
        assert props["contexts"] == {"transaction": {"revenue": 5}}


def test_a_transaction_without_products_is_worth_its_revenue() -> None:
    (row,) = hear(SNOWPLOW, action("transaction", transaction={"transaction_id": "t", "revenue": 5, "currency": "EUR"}))
    assert (row["event_type"], row["value"], row["currency"], row["props"]) == (
        "purchase", 5.0, "EUR", {"order_id": "t", "event": "unstruct", "event_name": "snowplow_ecommerce_action"},
    )  # fmt: skip


def test_the_first_time_there_is_and_the_rest_stays() -> None:
    (row,) = hear(SNOWPLOW, line(true_tstamp="2013-11-26 01:00:00", network_userid="n1", br_name="IE 7"))
    assert row["timestamp"] == 1_385_427_600_000_000
    assert row["props"] == {"derived_tstamp": "2013-11-26 00:03:57.886", "network_userid": "n1"}
    (row,) = hear(SNOWPLOW, line(derived_tstamp=None, domain_userid=None, network_userid="n1"))
    assert (row["timestamp"], row["anon_id"]) == (row["received_at"], "n1")


def test_the_same_id_with_another_fingerprint_is_another_event() -> None:
    ids = [row["event_id"] for row in hear(SNOWPLOW, line(event_fingerprint="f1"), line(event_fingerprint="f2"))]
    assert ids == [f"{ID}.f1", f"{ID}.f2"]


def test_a_ping_is_a_heartbeat_and_what_was_scrolled() -> None:
    ping = {"pp_yoffset_min": "0", "pp_yoffset_max": "300", "br_viewheight": "700", "doc_height": "4000"}
    beat, scroll = hear(SNOWPLOW, line("page_ping", page_urlpath="/a", **ping))
    assert beat == COMMON | {
        "event_type": "heartbeat",
        "value": 10.0,
        "target": "/a",
        "props": {"br_viewheight": "700"},
    }
    assert scroll == COMMON | {
        "event_id": f"{ID}/1", "event_type": "scroll", "value": 0.25, "target": "/a",
        "props": {"pp_yoffset_min": "0", "pp_yoffset_max": "300", "doc_height": "4000"},
    }  # fmt: skip
    assert hear(SNOWPLOW, line("page_ping", **(ping | {"doc_height": "500"})))[1]["value"] == 1.0
    (alone,) = hear(SNOWPLOW, line("page_ping", pp_yoffset_max="300"))
    assert (alone["event_type"], alone["props"]) == ("heartbeat", {"pp_yoffset_max": "300"})


def test_structured_events_by_their_action() -> None:
    cells = {"se_category": "shop", "se_label": "box", "se_property": "sku9", "se_value": "2.5"}
    cart, other = hear(
        SNOWPLOW, line("struct", se_action="add-to-cart", **cells), line("struct", se_action="zoom", **cells)
    )
    assert cart == COMMON | {"event_type": "add_to_cart", "target": "box", "item_id": "sku9", "value": 2.5,
                             "props": {"event": "struct", "se_category": "shop"}}  # fmt: skip
    assert other == COMMON | {"event_type": "shop.zoom", "target": "box", "value": 2.5,
                              "props": {"event": "struct", "se_category": "shop", "se_property": "sku9"}}  # fmt: skip


def test_orders_and_their_items() -> None:
    order, item = hear(
        SNOWPLOW,
        line("transaction", tr_orderid="o1", tr_total="30", tr_currency="EUR"),
        line("transaction_item", ti_orderid="o1", ti_sku="s", ti_price="10", ti_quantity="3", ti_currency="EUR"),
    )
    assert order == COMMON | {"event_type": "order", "value": 30.0, "currency": "EUR", "props": {"order_id": "o1"}}
    assert item == COMMON | {"event_type": "purchase", "item_id": "s", "value": 30.0, "currency": "EUR",
                             "props": {"ti_quantity": "3", "order_id": "o1"}}  # fmt: skip


def own(name: str, data: dict[str, Any], **cells: Any) -> dict[str, Any]:
    """What is heard of a self-describing event."""
    (row,) = hear(SNOWPLOW, line("unstruct", unstruct_event=described(name, data), **cells))
    return row


def test_self_describing_events() -> None:
    click = own("link_click", {"elementId": "buy", "targetUrl": "https://x.example"})
    assert (click["event_type"], click["target"]) == ("click", "buy")
    assert click["props"]["unstruct_event"] == {"targetUrl": "https://x.example"}
    search = own("site_search", {"terms": ["red", "boots"]})
    assert (search["event_type"], search["query"]) == ("search", "red boots")
    screen = own("screen_end", {}, contexts=entities(("screen_summary", {"foreground_sec": 8.5})))
    assert (screen["event_type"], screen["value"]) == ("dwell", 8.5)
    cart = own("add_to_cart", {"sku": "s", "unitPrice": 4, "quantity": 2, "currency": "EUR"})
    assert (cart["event_type"], cart["item_id"], cart["value"], cart["currency"]) == ("add_to_cart", "s", 8.0, "EUR")
    played = own("played", {"name": "intro", "seconds": 3})
    assert (played["event_type"], played["target"]) == ("played", "intro")
    assert played["props"] == {"event": "unstruct", "unstruct_event": {"seconds": 3}}


def test_entities_give_device_and_session_and_none_is_lost() -> None:
    (row,) = hear(SNOWPLOW, line(
        domain_userid=None, dvce_type="Computer",
        contexts=entities(("client_session", {"userId": "m1", "sessionId": "s1", "sessionIndex": 3}),
                          ("note", {"a": 1}), ("note", {"a": 2})),
        derived_contexts=entities(("yauaa_context", {"deviceClass": "Phone", "agentName": "Chrome"})),
    ))  # fmt: skip
    assert (row["anon_id"], row["session_id"], row["device"], row["browser"]) == ("m1", "s1", "Phone", "Chrome")
    assert row["props"] == {
        "dvce_type": "Computer",
        "contexts": {"client_session": {"sessionIndex": 3}, "note": {"a": 1}, "note_2": {"a": 2}},
    }


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"event": None}, "event: missing or empty"),
        ({"event": "ping"},
         "event: expected one of page_view, page_ping, struct, unstruct, transaction, transaction_item"),
        ({"event": "struct"}, "se_action: missing or empty"),
        ({"event": "struct", "se_action": "a", "se_value": "b"}, "se_value: expected a number, got text"),
        ({"event": "unstruct"}, "event_name: missing or empty"),
        ({"domain_userid": None},
         "user_id or domain_userid or contexts.client_session.userId or network_userid: missing or empty"),
        ({"derived_tstamp": "yesterday"}, "derived_tstamp: unreadable as a time"),
        ({"true_tstamp": "2013-11-26"}, "true_tstamp: expected a time as 2024-01-31 12:00:00.000"),
        ({"derived_tstamp": None, "collector_tstamp": None},
         "true_tstamp or derived_tstamp or collector_tstamp: missing or empty"),
        ({"contexts": "{"}, "contexts: expected a JSON object: not valid JSON"),
        ({"contexts": "{}"}, "contexts.data: expected an array, got null"),
        ({"derived_contexts": '{"data":[{"data":1}]}'},
         "derived_contexts.data.schema: expected iglu:vendor/name/format/version"),
        ({"unstruct_event": "[]"}, "unstruct_event: expected a JSON object, got an array"),
        ({"event": "transaction_item", "ti_price": "dear"}, "ti_price: expected a number, got text"),
        ({"event": "page_ping", "pp_yoffset_max": "low"}, "pp_yoffset_max: expected a number, got text"),
    ],
)  # fmt: skip
def test_reasons_name_the_column(changed: dict[str, Any], why: str) -> None:
    assert reason(SNOWPLOW, line() | changed) == why


def test_a_product_without_id() -> None:
    assert reason(SNOWPLOW, action("product_view", {"price": 3})) == "product.id: missing or empty"


@pytest.mark.skipif(not SHARED.exists(), reason="real files are not here")
def test_the_real_line_is_taken() -> None:
    cells = (SHARED / "snowplow_enriched.tsv").read_text().rstrip("\n").split("\t")
    record = {name: cell or None for name, cell in zip(COLUMNS, cells, strict=True)}
    assert SNOWPLOW.recognises([record])
    (row,), reasons = heard(SNOWPLOW, [record])
    assert not reasons
    props = row.pop("props")
    assert row == {
        "event_id": f"{ID}.e3dbfa9cca0412c3d4052863cefb547f", "user_id": "jon.doe@email.com",
        "anon_id": "bc2e92ec6c204a14", "event_type": "page_view", "target": "/product/index.html", "timestamp": AT,
        "received_at": 1_385_424_125_000_000, "session_id": "2b15e5c8-d3b1-11e4-b9d6-1681e6b88ec1", "browser": "IE",
        "os": "Windows XP", "page": "http://www.snowplowanalytics.com", "country": "US", "region": "TX",
        "network": "Cable/DSL", "ip": "92.231.54.234",
    }  # fmt: skip
    assert "92.231.54.234" not in json.dumps(props)
    assert props["unstruct_event"] == {
        "targetUrl": "http://www.example.com", "elementClasses": ["foreground"], "elementId": "exampleLink",
    }  # fmt: skip
    assert props["contexts"]["WebPage"]["author"] == "Fred Blundun"
