"""Segment and RudderStack: track, page, screen, identify, group and alias calls, one by one or in a batch, and the
tables that both write to a warehouse (`context_page_url` is `context.page.url` there, a property a column of its own).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from persona_cli.events.dialects.dialect import (
    Dialect,
    Record,
    Rejected,
    elements,
    event_type,
    numbered,
    pick,
    read,
    value_at,
    without,
)
from persona_cli.events.dialects.split import campaign, money, native, number, put, split
from persona_cli.events.schema import KEY, Kind, json_type

CALLS = ("track", "page", "screen", "identify", "group", "alias")
_ITEM = ("product_id", "productId", "item_id", "itemId", "sku", "content_id", "content_asset_id", "asset_id")
CAMPAIGN = ("context.campaign.source", "context.campaign.medium", "context.campaign.name")
SOURCES: dict[str, tuple[str, ...]] = {
    "event_id": ("messageId",),
    "user_id": ("userId", "user_id"),
    "anon_id": ("anonymousId", "anonymous_id"),
    "account_id": ("groupId", "context.groupId"),
    "event_type": ("event", "type"),
    "target": ("name", "properties.name"),
    "item_id": (*(f"properties.products[].{name}" for name in _ITEM), *(f"properties.{name}" for name in _ITEM)),
    "timestamp": ("timestamp", "originalTimestamp", "sentAt", "receivedAt"),
    "received_at": ("receivedAt",),
    "session_id": ("context.sessionId", "context.session_id"),
    "value": ("properties.rating", "properties.value", "properties.revenue", "properties.total"),
    "currency": ("properties.products[].currency", "properties.currency"),
    "query": ("properties.query", "properties.search_term"),
    "position": ("properties.products[].position", "properties.position"),
    "decision_id": ("properties.decision_id",),
    "device": ("context.device.type",),
    "os": ("context.os.name",),
    "page": ("context.page.path", "properties.path", "context.page.url", "properties.url"),
    "referrer": ("context.page.referrer", "properties.referrer", "context.referrer.url"),
    "country": ("context.location.country",),
    "region": ("context.location.region",),
    "network": ("context.network.wifi", "context.network.cellular"),
    "locale": ("context.locale",),
    "tz": ("context.timezone",),
    "campaign": CAMPAIGN,
    "consent": ("context.consent.categoryPreferences", "context.consentManagement.allowedConsentIds"),
    "user_agent": ("context.userAgent", "context.user_agent"),
    "ip": ("context.ip",),
}
# What identify and group calls say, for the tables users and accounts; other traits go to their props.
USER_TRAITS = {
    "account_id": ("traits.company.id", "context.groupId"),
    "role": ("traits.role",),
    "country": ("traits.country", "traits.address.country", "context.location.country"),
    "locale": ("traits.locale", "context.locale"),
    "tz": ("traits.timezone", "context.timezone"),
    "signed_up": ("traits.createdAt", "traits.created_at"),
}
ACCOUNT_TRAITS = {
    "name": ("traits.name",),
    "size": ("traits.employees",),
    "plan": ("traits.plan",),
    "industry": ("traits.industry",),
    "country": ("traits.country", "traits.address.country"),
}
ALIAS = SOURCES | {"anon_id": ("previousId", "previous_id")}
# Read by code: what becomes of them is said in the notes.
_MADE = ("event_type", "network", "consent", "timestamp", "campaign")
_MONEY = ("purchase", "add_to_cart", "remove_from_cart", "refund")
_PLACED = ("impression", "click", "view", *_MONEY)
# Routing and versions of the sender, addresses with their queries, and who somebody is: not what happened.
_LEFT_OUT = ("type", "action", "integrations", "_metadata", "version", "channel", "sentAt", "originalTimestamp",
             "context.traits", "context.page", "context.referrer", "context.network", "context.consent",
             "context.consentManagement", "context.userAgentData", "properties.url", "properties.search",
             "timestamp", "event_type")  # fmt: skip
_OF_TRACK = (*_LEFT_OUT, "event", "properties.products")
_SHARED = ("sentAt", "receivedAt")  # what a batch says for all of its calls
# Columns of warehouse tables.
_COLUMNS = {"id": "messageId", "message_id": "messageId", "user_id": "userId", "anonymous_id": "anonymousId",
            "previous_id": "previousId", "group_id": "groupId", "received_at": "receivedAt", "sent_at": "sentAt",
            "original_timestamp": "originalTimestamp", "timestamp": "timestamp"}  # fmt: skip
_CONTEXT = {"user_agent": "userAgent", "group_id": "groupId", "session_id": "sessionId"}
_OBJECTS = ("campaign", "page", "device", "os", "network", "location", "app", "library", "screen", "traits", "referrer")
_OWN_COLUMNS = ("event", "event_text", "uuid_ts", "loaded_at", "name")


def unpack(record: Record) -> list[Any]:
    """The calls of a batch, each with the times and the context that the batch gives for all."""
    batch = record.get("batch")
    if not isinstance(batch, list):
        return [record]
    shared = {name: record[name] for name in _SHARED if record.get(name) is not None}
    around = record.get("context")
    calls: list[Any] = []
    for call in batch:
        inner = call.get("context") if isinstance(call, dict) else None
        if isinstance(call, dict) and isinstance(around, dict) and isinstance(inner, dict | None):
            call = call | {"context": around | (inner or {})}
        calls.append(shared | call if isinstance(call, dict) else call)
    return calls


def recognises(records: Sequence[Record]) -> bool:
    return all(_is_call(record) or _is_row(record) for record in records)


def _is_call(record: Record) -> bool:
    named = any(name in record for name in ("userId", "anonymousId", "messageId", "previousId", "groupId"))
    return _call(record) in CALLS and (named or "properties" in record or "traits" in record)


def _is_row(record: Record) -> bool:
    return (
        "anonymous_id" in record
        and any(name in record for name in ("received_at", "sent_at", "original_timestamp"))
        and any(name.startswith("context_") for name in record)
    )


def _call(record: Record) -> Any:
    """What kind of call it is; some senders write `action` for `type`."""
    return record.get("type") if record.get("type") is not None else record.get("action")


def records(record: Record) -> list[Record]:
    if "type" not in record and "action" not in record and _is_row(record):
        record = call_of(record)
    call = _call(record)
    if call not in CALLS:
        raise Rejected(
            f"type: expected one of {', '.join(CALLS)}" + ("" if call is None else f", got {json_type(call)}")
        )
    if isinstance(context := record.get("context"), dict) and isinstance(text := context.get("referrer"), str):
        record = record | {"context": context | {"referrer": {"url": text}}}
    made = {"event_type": _type(record, call), "timestamp": timestamp(record)}
    made |= {"network": network(record), "consent": consent(record)}
    made = {name: value for name, value in made.items() if value is not None}
    products = elements(record, "properties.products") if call == "track" else []
    return [_event(record, call, made, product, at) for at, product in enumerate(products or [None])]


def attributes(record: Record) -> list[tuple[Kind, Record]]:
    """The user of an identify call, the account of a group call, from its time on."""
    if "type" not in record and "action" not in record and _is_row(record):
        record = call_of(record)
    kind: Kind
    kind, traits = ("users", USER_TRAITS) if _call(record) == "identify" else ("accounts", ACCOUNT_TRAITS)
    who = pick(record, SOURCES["user_id"] if kind == "users" else ("groupId",))
    if _call(record) not in ("identify", "group") or who is None or not isinstance(record.get("traits"), dict):
        return []
    taken = (path for paths in traits.values() for path in paths)
    rest = without({"traits": record["traits"]}, taken).get("traits", {})
    return [(kind, read(traits, record) | {KEY[kind]: who, "valid_from": timestamp(record), "props": rest})]


def _type(record: Record, call: str) -> Any:
    if call != "track":
        return {"page": "page_view", "screen": "screen_view"}.get(call, call)
    return event_type(value_at(record, "event"))


@cache
def _table(alias: bool, placed: bool, named: bool, valued: bool) -> Mapping[str, tuple[str, ...]]:
    """What is read of a call: no position where nothing has a place, no target but of pages, no value but its own."""
    unread = {*_MADE, *(() if placed else ("position",)), *(() if named else ("target",))}
    unread |= set() if valued else {"value"}
    return {name: paths for name, paths in (ALIAS if alias else SOURCES).items() if name not in unread}


def _event(record: Record, call: str, made: Record, product: Record | None, at: int) -> Record:
    """The native record of a call, or of one product of it."""
    kind = made.get("event_type")
    sources = _table(
        call == "alias", kind in _PLACED, call in ("page", "screen"), product is None and kind not in _MONEY
    )
    left_out = _OF_TRACK if call == "track" else _LEFT_OUT
    fields, rest, props = split(sources, record, product, needed=False, left_out=left_out)
    fields |= made
    fields["campaign"] = campaign(record, rest, (CAMPAIGN,))
    fields["event_id"] = numbered(fields.get("event_id"), at)
    if kind in _MONEY:
        fields["value"] = _paid(record, product)
    if kind == "impression" and product is not None:
        fields.setdefault("position", at + 1)
    for name, value in (rest.pop("properties", None) or {}).items():
        put(props, name, value)
    for name, value in rest.items():
        put(props, name, value)
    return native({name: value for name, value in fields.items() if value is not None}, props)


def _paid(record: Record, product: Record | None) -> float | None:
    """Price · quantity of a product; of a call without products its price · quantity, else what it says it is worth."""
    if product is not None:
        return money(number(product, "price"), number(product, "quantity"))
    price = money(number(record, "properties.price"), number(record, "properties.quantity"))
    paths = ("properties.revenue", "properties.value", "properties.total")
    return next((paid for paid in (price, *(number(record, path) for path in paths)) if paid is not None), None)


def timestamp(record: Record) -> Any:
    """When it happened. Without `timestamp`: receivedAt - (sentAt - originalTimestamp), which undoes a wrong clock."""
    if (said := value_at(record, "timestamp")) is not None:
        return said
    received, sent, original = (_moment(record.get(name)) for name in ("receivedAt", "sentAt", "originalTimestamp"))
    if received is None or sent is None or original is None:
        return next((at for name in SOURCES["timestamp"] if (at := value_at(record, name)) is not None), None)
    try:
        at = received - (_zoned(sent) - _zoned(original))
    except OverflowError:
        raise Rejected("timestamp: unreadable as a time") from None
    return at.isoformat()


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _zoned(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def network(record: Record) -> str | None:
    """`wifi` or `cellular`, from the flags of the device."""
    for name in ("wifi", "cellular"):
        if value_at(record, f"context.network.{name}") in (True, "true"):
            return name
    return None


def consent(record: Record) -> str | None:
    """`advertising=no,analytics=yes`: what was said for each category, sorted; no category: null."""
    said: dict[str, bool] = {}
    preferences = value_at(record, "context.consent.categoryPreferences")
    if isinstance(preferences, Mapping):
        said |= {str(name): allowed is True for name, allowed in preferences.items()}
    for path, allowed in (("allowedConsentIds", True), ("deniedConsentIds", False)):
        ids = value_at(record, f"context.consentManagement.{path}")
        if isinstance(ids, list):
            said |= {str(name): allowed for name in ids if isinstance(name, str | int)}
    return ",".join(f"{name}={'yes' if said[name] else 'no'}" for name in sorted(said)) or None


def call_of(row: Record) -> Record:
    """A row of a warehouse table as the call that it was made of."""
    call: Record = {}
    properties: Record = {}
    context: Record = {}
    for name, value in row.items():
        if value is None or name in _OWN_COLUMNS:
            continue
        if name in _COLUMNS:
            call.setdefault(_COLUMNS[name], value)
        elif name.startswith("context_"):
            _put_context(context, name.removeprefix("context_"), value)
        else:
            properties[name] = _list_of(value) if name == "products" else value
    if (event := row.get("event_text") or row.get("event")) is not None:
        call |= {"type": "track", "event": event}
    elif "previous_id" in row:
        call["type"] = "alias"
    elif "group_id" in row:
        call["type"] = "group"
    elif "url" in row or "path" in row:
        call["type"] = "page"
    elif "name" in row:
        call["type"] = "screen"
    else:
        call["type"] = "identify"
    if row.get("name") is not None:
        (call if call["type"] in ("page", "screen") else properties)["name"] = row["name"]
    traits = call["type"] in ("identify", "group")
    return call | {"context": context, "traits" if traits else "properties": properties}


def _put_context(context: Record, name: str, value: Any) -> None:
    start, underscore, inner = name.partition("_")
    if underscore and start in _OBJECTS:
        place = context.setdefault(start, {})
        if isinstance(place, dict):
            place[inner] = value
    else:
        context[_CONTEXT.get(name, name)] = value


def _list_of(value: Any) -> Any:
    """A list that was written as JSON text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


_NOTES = (
    "Without `timestamp` it is receivedAt - (sentAt - originalTimestamp), which undoes a wrong clock; where one of "
    "these is missing, the first time that is there.",
    "`page` and `screen` become `page_view` and `screen_view`; `alias` gives previousId as `anon_id`; the traits of "
    "`identify` and `group` go to `props`, and from then on to the tables users and accounts (`persona ingest undo` "
    "takes both back).",
    "An event with `products` becomes one row a product, its place in the list as `position` in list views; the value "
    "of purchases and carts is price · quantity, `order_id` stays in `props`.",
    "`campaign` is `source/medium/name`, or the name alone where neither of the others is there.",
    "`network` is `wifi` or `cellular`, whichever flag is set; `consent` is written `advertising=no,analytics=yes`, "
    "also from deniedConsentIds.",
    "In tables of a warehouse `context_page_url` is read as `context.page.url`, `anonymous_id` as `anonymousId`, other "
    "columns as properties.",
    "Left out: `integrations`, `context.traits`, URLs beside `page` and `referrer`.",
)
DIALECTS = tuple(
    Dialect(
        name,
        about,
        ("jsonl", "csv", "parquet"),
        SOURCES,
        recognises,
        records,
        unpack=unpack,
        attributes=attributes,
        notes=_NOTES,
    )
    for name, about in (
        ("segment", "Segment calls (track, page, screen, identify, group, alias; batches) and warehouse tables"),
        ("rudderstack", "the same as segment: RudderStack calls and warehouse tables"),
    )
)
