"""The canonical columns of each kind of input, their types, and the names other systems give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Kind = Literal["events", "items", "users", "accounts"]
Type = Literal["text", "number", "whole", "time", "flag", "texts"]

HASH_VERSION = "1"
UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
ARROW_TYPES: dict[Type, pa.DataType] = {
    "text": pa.string(),
    "number": pa.float64(),
    "whole": pa.int64(),
    "time": UTC_MICROSECONDS,
    "flag": pa.bool_(),
    "texts": pa.list_(pa.string()),
}


@dataclass(frozen=True)
class Field:
    """One canonical column: its type, whether it lives under `context` in native JSON, and accepted aliases.

    A transient one is read and never stored: `events/door.py` takes from it what may be kept.
    """

    name: str
    type: Type = "text"
    context: bool = False
    aliases: tuple[str, ...] = ()
    transient: bool = False

    @property
    def native_path(self) -> tuple[str, ...]:
        return ("context", self.name) if self.context else (self.name,)


_USER = ("userId", "userid", "USER_ID", "uid", "visitorid", "visitorId", "customer_id", "CustomerID", "user")
_ITEM = ("itemId", "itemid", "ITEM_ID", "movieId", "product_id", "productId", "sku", "content_id", "item")
_TIME = ("time", "ts", "TIMESTAMP", "event_time", "eventTime", "created_at", "datetime", "date")
_AGENT = ("userAgent", "useragent", "ua", "http_user_agent")
_ADDRESS = ("ip_address", "ipAddress", "client_ip", "clientIp", "remote_addr", "remoteAddr", "x-forwarded-for")
_ACCOUNT = ("accountId", "ACCOUNT_ID", "company_id", "org_id", "organization_id", "workspace_id")

EVENTS: tuple[Field, ...] = (
    Field("event_id", aliases=("messageId", "eventId", "EVENT_ID")),
    Field("user_id", aliases=_USER),
    Field("anon_id", aliases=("anonymousId", "anonymous_id", "device_id", "deviceId")),
    Field("account_id", aliases=_ACCOUNT),
    Field("event_type", aliases=("eventType", "EVENT_TYPE", "event", "type", "action", "event_name")),
    Field("target", aliases=("element",)),
    Field("item_id", aliases=_ITEM),
    Field("timestamp", "time", aliases=_TIME),
    Field("received_at", "time", aliases=("receivedAt",)),
    Field("session_id", aliases=("sessionId", "SESSION_ID")),
    Field("value", "number", aliases=("EVENT_VALUE", "rating", "weight", "amount", "price")),
    Field("currency"),
    Field("query", aliases=("search_query", "q")),
    Field("position", "whole", aliases=("rank",)),
    Field("decision_id"),
    Field("device", context=True),
    Field("browser", context=True),
    Field("os", context=True),
    Field("page", context=True),
    Field("referrer", context=True),
    Field("country", context=True),
    Field("region", context=True),
    Field("network", context=True, aliases=("effectiveType", "effective_type", "connectionType", "connection_type")),
    Field("locale", context=True),
    Field("tz", context=True),
    Field("campaign", context=True),
    Field("consent", context=True),
    Field("user_agent", context=True, aliases=_AGENT, transient=True),
    Field("ip", context=True, aliases=_ADDRESS, transient=True),
)
ITEMS: tuple[Field, ...] = (
    Field("item_id", aliases=("id", *_ITEM)),
    Field("title", aliases=("name", "movie_title", "Description")),
    Field("category", aliases=("CATEGORY", "genre", "type")),
    Field("tags", "texts", aliases=("genres", "labels", "categories", "class")),
    Field("text", aliases=("description", "body", "summary")),
    Field("url", aliases=("link",)),
    Field("price", "number"),
    Field("currency"),
    Field("available", "flag", aliases=("in_stock", "is_available")),
    Field("published_at", "time", aliases=("CREATION_TIMESTAMP", "created_at", "release_date")),
    Field("valid_from", "time", aliases=("updated_at",)),
)
USERS: tuple[Field, ...] = (
    Field("user_id", aliases=("id", *_USER)),
    Field("account_id", aliases=_ACCOUNT),
    Field("role"),
    Field("country"),
    Field("locale"),
    Field("tz", aliases=("timezone",)),
    Field("signed_up", "time", aliases=("created_at", "signup_at")),
    Field("valid_from", "time", aliases=("updated_at",)),
)
ACCOUNTS: tuple[Field, ...] = (
    Field("account_id", aliases=("id", *_ACCOUNT)),
    Field("name"),
    Field("size", "whole", aliases=("employees", "seats")),
    Field("plan"),
    Field("industry"),
    Field("country"),
    Field("valid_from", "time", aliases=("updated_at",)),
)
FIELDS: dict[Kind, tuple[Field, ...]] = {"events": EVENTS, "items": ITEMS, "users": USERS, "accounts": ACCOUNTS}
KEY: dict[Kind, str] = {"items": "item_id", "users": "user_id", "accounts": "account_id"}

# Identifiers are capped so that one absurd id cannot bloat every table and vocabulary that repeats it.
MAX_ID_BYTES = 1_000
ID_FIELDS = frozenset(
    {"event_id", "user_id", "anon_id", "account_id", "item_id", "event_type", "target", "session_id", "decision_id"}
)


def judged_schema(kind: Kind) -> pa.Schema:
    """Arrow schema of rows that passed judgement, before ids are given; transient columns included."""
    return _columns(FIELDS[kind])


def kept_schema(kind: Kind) -> pa.Schema:
    """Arrow schema of rows that are through the door, before bookkeeping columns are added."""
    return _columns([field for field in FIELDS[kind] if not field.transient])


def _columns(fields: Sequence[Field]) -> pa.Schema:
    columns = [pa.field(field.name, ARROW_TYPES[field.type]) for field in fields]
    return pa.schema([*columns, pa.field("props", pa.string())])


def stored_schema(kind: Kind) -> pa.Schema:
    """Arrow schema of the Delta table of `kind`."""
    schema = kept_schema(kind)
    schema = schema.append(pa.field("source", pa.string())).append(pa.field("ingested_at", UTC_MICROSECONDS))
    return schema.append(pa.field("month", pa.string())) if kind == "events" else schema


QUARANTINE = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("source", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("offset", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.binary()),
        pa.field("rejected_at", UTC_MICROSECONDS),
        pa.field("dialect", pa.string()),
    ]
)
MAX_RAW_BYTES = 64 * 1024
