"""Segment calls: what each becomes, batches, skewed clocks, and rows of a warehouse."""

from __future__ import annotations

import pytest

from persona_cli.events.dialects.segment import call_of
from tests.events.speaking import dialect, hear, reason

SEGMENT = dialect("segment")
AT = {"timestamp": "2024-03-01T10:00:00Z", "userId": "u1", "anonymousId": "a1"}
MARCH_1_10H = 1_709_287_200_000_000


def test_track_with_products_is_one_row_a_product() -> None:
    rows = hear(SEGMENT, AT | {
        "type": "track", "event": "Order Completed", "messageId": "m1",
        "properties": {"order_id": "o1", "revenue": 30, "currency": "EUR", "coupon": "X", "products": [
            {"product_id": "p1", "price": 5, "quantity": 2, "category": "shoes"},
            {"sku": "p2", "price": "2.5", "coupon": "Y"},
            {"sku": "p3"}]}})  # fmt: skip
    assert [(row["event_id"], row["event_type"], row["item_id"], row.get("value")) for row in rows] == [
        ("m1", "purchase", "p1", 10.0), ("m1/1", "purchase", "p2", 2.5), ("m1/2", "purchase", "p3", None),
    ]  # fmt: skip
    assert {row["currency"] for row in rows} == {"EUR"}
    assert rows[0]["props"] == {"price": 5, "quantity": 2, "category": "shoes", "order_id": "o1", "revenue": 30,
                                "coupon": "X"}  # fmt: skip
    assert rows[1]["props"] == {"price": "2.5", "coupon": "Y", "order_id": "o1", "revenue": 30, "coupon_2": "X"}


def test_a_list_view_gives_places() -> None:
    products = [{"product_id": "a"}, {"product_id": "b", "position": 7}, {"product_id": "c"}]
    rows = hear(SEGMENT, AT | {"type": "track", "event": "Product List Viewed", "properties": {"products": products}})
    assert [(row["event_type"], row["item_id"], row["position"]) for row in rows] == [
        ("impression", "a", 1), ("impression", "b", 7), ("impression", "c", 3),
    ]  # fmt: skip


def test_the_place_in_a_video_is_not_a_place_in_a_list() -> None:
    (row,) = hear(SEGMENT, AT | {"type": "track", "event": "Video Content Playing", "properties": {
        "asset_id": "v", "position": 12.5}})  # fmt: skip
    assert "position" not in row
    assert (row["event_type"], row["item_id"], row["props"]) == ("Video Content Playing", "v", {"position": 12.5})


def test_each_kind_of_call() -> None:
    page, screen, who, group, alias = hear(
        SEGMENT,
        AT | {"type": "page", "name": "Home", "properties": {"path": "/", "title": "T"}},
        AT | {"type": "screen", "name": "Feed", "properties": {}},
        AT | {"type": "identify", "traits": {"plan": "pro"}},
        AT | {"type": "group", "groupId": "g1", "traits": {"name": "Initech"}},
        {"type": "alias", "previousId": "a0", "userId": "u1", "timestamp": AT["timestamp"]},
    )
    assert (page["event_type"], page["target"], page["page"], page["props"]) == (
        "page_view",
        "Home",
        "/",
        {"title": "T"},
    )
    assert (screen["event_type"], screen["target"]) == ("screen_view", "Feed")
    assert (who["user_id"], who["anon_id"], who["props"]) == ("u1", "a1", {"traits": {"plan": "pro"}})
    assert (group["event_type"], group["account_id"]) == ("group", "g1")
    assert (alias["event_type"], alias["anon_id"], alias["user_id"]) == ("alias", "a0", "u1")


def test_without_timestamp_a_wrong_clock_is_undone() -> None:
    call = {"type": "track", "event": "Clicked", "userId": "u", "properties": {}}
    skewed = {"originalTimestamp": "2031-01-01T00:00:00.000Z", "sentAt": "2031-01-01T00:00:05.000Z",
              "receivedAt": "2024-03-01T10:00:05.000Z"}  # fmt: skip
    first, second, third = hear(SEGMENT, call | skewed, call | {"sentAt": "2024-03-01T10:00:00Z"},
                                call | skewed | {"timestamp": "2024-03-01T10:00:00Z"})  # fmt: skip
    assert first["timestamp"] == second["timestamp"] == third["timestamp"] == MARCH_1_10H
    assert reason(SEGMENT, call) == "timestamp: missing or empty"


def test_context_becomes_columns_and_the_rest_stays_out() -> None:
    (row,) = hear(SEGMENT, AT | {"type": "track", "event": "X", "integrations": {"All": True}, "context": {
        "ip": "8.8.8.8", "userAgent": "Mozilla/5.0", "sessionId": 17, "groupId": "g", "locale": "de-DE",
        "timezone": "Europe/Berlin", "network": {"wifi": False, "cellular": True},
        "campaign": {"name": "n", "source": "s"},
        "page": {"path": "/p", "url": "https://a/p?token=1", "referrer": "https://b/"}, "os": {"name": "iOS"},
        "device": {"type": "ios", "model": "iPhone"}, "location": {"country": "DE", "region": "BE"},
        "traits": {"email": "a@b.c"},
        "consent": {"categoryPreferences": {"ads": False, "analytics": True}}}})  # fmt: skip
    assert row["ip"] == "8.8.8.8" and row["user_agent"] == "Mozilla/5.0"  # both end at the door
    wanted = {"session_id": "17", "account_id": "g", "locale": "de-DE", "tz": "Europe/Berlin", "network": "cellular",
              "campaign": "s//n", "page": "/p", "referrer": "https://b/", "os": "iOS", "device": "ios", "country": "DE",
              "region": "BE", "consent": "ads=no,analytics=yes"}  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    assert row["props"] == {"context": {"device": {"model": "iPhone"}}}


def test_consent_as_rudderstack_writes_it() -> None:
    said = {"allowedConsentIds": ["c1", "c3"], "deniedConsentIds": ["c2"], "provider": "x"}
    (row,) = hear(dialect("rudderstack"), AT | {"type": "track", "event": "X", "context": {"consentManagement": said}})
    assert row["consent"] == "c1=yes,c2=no,c3=yes"


def test_a_batch_lends_its_times_and_context() -> None:
    rows = hear(SEGMENT, {"sentAt": "2024-03-01T10:00:00Z", "context": {"locale": "de-DE", "ip": "1.2.3.4"}, "batch": [
        {"type": "track", "event": "A", "userId": "u"},
        {"type": "track", "event": "B", "userId": "u", "context": {"locale": "fr-FR"}, "timestamp": AT["timestamp"]},
    ]})  # fmt: skip
    assert [(row["event_type"], row["locale"], row["timestamp"]) for row in rows] == [
        ("A", "de-DE", MARCH_1_10H), ("B", "fr-FR", MARCH_1_10H),
    ]  # fmt: skip


def test_rows_of_a_warehouse() -> None:
    row = {"id": "m", "anonymous_id": "a", "user_id": None, "received_at": "2024-03-01 10:00:00",
           "context_ip": "1.2.3.4", "timestamp": "2024-03-01 10:00:00",
           "context_campaign_name": "n", "context_page_path": "/p"}  # fmt: skip
    page, track, search = hear(
        SEGMENT,
        row | {"url": "https://a/p", "title": "T", "name": "Home"},
        row | {"event": "product_viewed", "event_text": "Product Viewed", "product_id": "p1", "price": "3"},
        row | {"event": "products_searched", "query": "shoes"},
    )
    assert (page["event_type"], page["target"], page["campaign"], page["page"]) == ("page_view", "Home", "n", "/p")
    assert (track["event_id"], track["event_type"], track["item_id"]) == ("m", "view", "p1")
    assert (search["event_type"], search["query"]) == ("search", "shoes")
    assert call_of(row | {"products": '[{"sku": 1}]', "event": "x"})["properties"]["products"] == [{"sku": 1}]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"type": "tracked", "userId": "u"}, "type: expected one of track, page, screen, identify, group, alias"),
        (AT | {"type": "track", "event": "A", "properties": []}, "properties: expected an object, got an array"),
        (AT | {"type": "track", "event": "A", "properties": {"products": "p"}},
         "properties.products: expected an array, got text"),
        (AT | {"type": "track", "event": "Order Completed", "properties": {"products": [{"price": "much"}]}},
         "price: expected a number, got text"),
        (AT | {"type": "track", "properties": {}}, "event_type: missing or empty"),
        (AT | {"type": "page", "userId": {}}, "userId: expected text, got an object"),
    ],
)  # fmt: skip
def test_what_is_turned_away_and_why(record: dict[str, object], why: str) -> None:
    assert reason(SEGMENT, record).startswith(why)
