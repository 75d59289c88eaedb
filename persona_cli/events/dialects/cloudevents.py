"""CloudEvents 1.0: structured mode (one JSON object an event), batches, and binary mode (`ce_…` as columns).

What `data` holds is up to whoever sends it: it is searched for the common names of users, items, sessions and amounts.
A list of objects called `items` or `products` in it becomes one record an element.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from persona_cli.events.dialects.dialect import EVENT_TYPES, Dialect, Record, Rejected, event_type, numbered
from persona_cli.events.dialects.split import fits, merged, money, native, number, put, read_json, said, split

_USER = ("userId", "user_id", "userid", "customerId", "customer_id", "customer.id", "user.id", "uid")
_ANON = ("anonymousId", "anonymous_id", "anonId", "anon_id", "deviceId", "device_id", "visitorId", "visitor_id")
_ITEM = ("itemId", "item_id", "productId", "product_id", "sku", "contentId", "content_id", "product.id", "item.id")
_SESSION = ("sessionId", "session_id", "session.id")
_ACCOUNT = ("accountId", "account_id", "organizationId", "organization_id", "tenantId", "tenant_id")
_IP = ("ip", "ip_address", "ipAddress", "clientIp", "client_ip", "remoteAddr")
_AGENT = ("userAgent", "user_agent")
_ELEMENT = ("id", *_ITEM)


def _data(*names: str) -> tuple[str, ...]:
    return tuple(f"data.{name}" for name in names)


SOURCES: dict[str, tuple[str, ...]] = {
    "event_id": ("id",),
    "user_id": ("userid", *_data(*_USER)),
    "anon_id": ("anonymousid", "deviceid", *_data(*_ANON)),
    "account_id": ("accountid", "tenantid", *_data(*_ACCOUNT)),
    "event_type": ("type",),
    "target": ("subject",),
    "item_id": (*(f"data.items[].{name}" for name in _ELEMENT), "itemid", *_data(*_ITEM)),
    "timestamp": ("time", *_data("timestamp", "time", "occurredAt", "occurred_at", "createdAt", "created_at")),
    "session_id": ("sessionid", *_data(*_SESSION)),
    "value": _data("value", "revenue", "amount", "total", "price", "rating", "score"),
    "currency": ("data.items[].currency", "data.currency"),
    "query": _data("query", "searchQuery", "search_query", "q"),
    "position": ("data.items[].position", *_data("position", "rank")),
    "decision_id": ("decisionid", *_data("decisionId", "decision_id", "recommendationId")),
    "order_id": _data("orderId", "order_id", "transactionId", "transaction_id"),
    "device": _data("device", "deviceType", "device_type"),
    "browser": _data("browser"),
    "os": _data("os"),
    "page": _data("page", "url", "pageUrl", "page_url"),
    "referrer": _data("referrer", "referer"),
    "country": _data("country"),
    "region": _data("region"),
    "network": _data("network"),
    "locale": _data("locale", "language"),
    "tz": _data("timezone", "tz"),
    "campaign": _data("campaign"),
    "user_agent": _data(*_AGENT),
    "ip": (*_IP, *_data(*_IP)),
}
_REQUIRED = ("id", "source", "type", "specversion")
_HEADER = re.compile(r"ce[_-]([a-z0-9]+)")
_STRICT = ("user_id", "anon_id", "item_id", "timestamp", "order_id")  # what does not fit here is an error
# A member of the data that one field is guessed from; members that are guessed to hold more (`customer.id`).
_GUESSES = {path.removeprefix("data."): field for field, paths in SOURCES.items() for path in paths
            if path.startswith("data.") and "[]" not in path}  # fmt: skip
_HOLDERS = {name.partition(".")[0] for name in _GUESSES if "." in name}
# The table for an element of a list: what is worth something and has an id is the element.
_OF_ITEM = SOURCES | {"value": (), "item_id": tuple(path for path in SOURCES["item_id"] if "[]" in path)}
_LISTS = ("items", "products")
# First labels of a reversed domain (a country has two letters), and second ones that are no name of somebody.
_TOP_LEVEL = re.compile(r"com|org|net|edu|gov|int|info|biz|app|dev|cloud|tech|[a-z]{2}")
_SECOND_LEVEL = ("co", "com", "ac", "gov", "org")
_WITH_MONEY = ("purchase", "refund", "add_to_cart", "remove_from_cart")


def recognises(records: Sequence[Record]) -> bool:
    return all(set(_REQUIRED) <= attributes.keys() and str(attributes["specversion"]).startswith(("1.", "0."))
               for attributes in map(_attributes, records))  # fmt: skip


def _attributes(record: Record) -> Record:
    """The record with headers as attributes (`ce_id`, `ce-id` → `id`); a column of that name is then `id_2`."""
    headers = {match[1]: value for name, value in record.items() if (match := _HEADER.fullmatch(name))}
    if not headers:
        return dict(record)
    return merged(headers, {name: value for name, value in record.items() if not _HEADER.fullmatch(name)})


def records(record: Record) -> list[Record]:
    """One native record, or one an element of `data.items`; raises Rejected."""
    event = _attributes(record)
    for name in _REQUIRED:
        if said(event, name) is None:
            raise Rejected(f"{name}: expected text, as CloudEvents requires")
    _read_payload(event)
    name = without_prefix(event["type"])
    found = _items(event)
    aside = _set_aside(event)
    rows = []
    for place, item in enumerate(found or [None]):
        fields, rest, others = split(SOURCES if item is None else _OF_ITEM, event, item)
        fields["event_type"] = name
        fields["event_id"] = numbered(f"{event['source']} {event['id']}", place)
        if item is not None:
            worth = money(number(item, "price"), number(item, "quantity"))
            if name in _WITH_MONEY and worth is not None:
                fields["value"] = worth
            if name == "impression":
                fields.setdefault("position", place + 1)
        rest.pop("specversion", None)
        data = rest.pop("data", {})
        rows.append(native(fields, merged(others, data, aside, rest)))
    return rows


def without_prefix(name: str) -> str:
    """The type without the reversed domain before it, in persona's words if there is one.

    `com.example.order.completed` → `order.completed` → `purchase`.
    """
    labels = name.split(".")
    if len(labels) > 2 and _TOP_LEVEL.fullmatch(labels[0]):
        labels = labels[3:] if len(labels) > 3 and labels[1] in _SECOND_LEVEL else labels[2:]
    for tail in (labels, labels[-2:]):
        if (word := event_type("_".join(tail))) in EVENT_TYPES:
            return str(word)
    return ".".join(labels)


def _read_payload(event: Record) -> None:
    """Read JSON that comes as text into `event["data"]`; what is no object then is called `data_value`."""
    if isinstance(text := event.get("data_base64"), str) and event.get("data") is None and _is_json(event):
        try:
            event["data"] = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Rejected("data_base64: expected JSON in base64") from None
        del event["data_base64"]
    data = event.get("data")
    if isinstance(data, str) and data.lstrip().startswith("{") and _is_json(event):
        event["data"] = data = read_json(data, "data")
    if data is not None and not isinstance(data, dict):
        put(event, "data_value", event.pop("data"))


def _is_json(event: Record) -> bool:
    kind = event.get("datacontenttype", event.get("content-type"))
    return kind is None or (isinstance(kind, str) and "json" in kind.lower())


def _items(event: Record) -> list[Record]:
    """The elements of a list of things in the data that have ids; [] if it is not that."""
    data = event.get("data")
    if not isinstance(data, dict):
        return []
    for name in _LISTS:
        found = data.get(name)
        if isinstance(found, list) and found and all(isinstance(one, dict) and _has_id(one) for one in found):
            event["data"] = {other: value for other, value in data.items() if other != name}
            return found
    return []


def _has_id(element: Record) -> bool:
    return any(element.get(name) is not None for name in _ELEMENT)


def _set_aside(event: Record) -> Record:
    """Take out of the data what only looks like a guess: `user` may be a name, `value` a word."""
    data = event.get("data")
    if not isinstance(data, dict):
        return {}
    aside = {name: value for name, value in data.items() if value is not None and not _usable(name, value)}
    if aside:
        event["data"] = {name: value for name, value in data.items() if name not in aside}
    return aside


def _usable(name: str, value: Any) -> bool:
    if name in _HOLDERS:
        return isinstance(value, dict)
    field = _GUESSES.get(name)
    return field is None or field in _STRICT or fits(field, value)


DIALECTS = (
    Dialect(
        "cloudevents",
        "CloudEvents 1.0: structured, batch, and binary mode with ce_ columns",
        ("jsonl", "csv", "parquet"),
        SOURCES,
        recognises,
        records,
        notes=(
            "`source` and `id` together are the id. The reversed domain before a `type` is cut off "
            "(`com.example.order.completed` → `purchase`).",
            "`data.items` or `data.products`, if it is a list of objects with ids, becomes one row an element.",
            "An event without `time` needs one in its data; one without a user is turned away.",
        ),
    ),
)
