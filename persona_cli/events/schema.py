"""The canonical columns of each kind of input and their types, and where each lies in an input of other names.

A field is found by its native name, by `--map canonical=theirs`, or by a guess from aliases. `theirs` is a column name,
or a dotted path into nested JSON (`properties.product_id`); `canonical==text` gives every record the constant `text`
(`event_type==purchase`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union

import pyarrow as pa

from persona_cli.errors import BadData, UsageError, nearest

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


Path = tuple[str, ...]
# Nested keys of the input; a leaf holds the canonical names read from it.
Tree = dict[str, Union[tuple[str, ...], "Tree"]]


@dataclass(frozen=True)
class Mapping:
    """Canonical name → path in the record, plus constants; `guessed` names what came from an alias."""

    kind: Kind
    paths: dict[str, Path]
    constants: dict[str, str] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()

    def tree(self) -> Tree:
        """The paths as nested keys. A path that leads through another field's value adds nothing."""
        tree: Tree = {}
        for name, path in sorted(self.paths.items(), key=lambda entry: len(entry[1])):
            place = tree
            for key in path[:-1]:
                below = place.setdefault(key, {})
                if isinstance(below, tuple):
                    break
                place = below
            else:
                leaf = place.get(path[-1], ())
                if isinstance(leaf, tuple):
                    place[path[-1]] = (*leaf, name)
        return tree

    def describe(self) -> dict[str, str]:
        """Canonical → theirs as text, for `--dry-run` and run manifests."""
        shown = {name: ".".join(path) for name, path in self.paths.items()}
        return shown | {name: f"={text}" for name, text in self.constants.items()}


def json_type(value: Any) -> str:
    """The JSON type of a Python value, in the words of a message."""
    if value is None:
        return "null"
    names = ((bool, "a boolean"), ((int, float), "a number"), (str, "text"), ((list, tuple), "an array"))
    return next((name for types, name in names if isinstance(value, types)), "an object")


def parse_flags(kind: Kind, flags: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """`--map` arguments as (paths, constants); raises UsageError for a shape or canonical name that is unknown."""
    names = {spec.name for spec in FIELDS[kind]}
    paths: dict[str, Path] = {}
    constants: dict[str, str] = {}
    for flag in flags:
        name, equals, theirs = flag.partition("=")
        if not equals or not theirs or theirs == "=":
            raise UsageError(f"--map expects canonical=theirs, got {flag!r}", "persona ingest FILE --map user_id=uid")
        if name not in names:
            raise UsageError(f"--map: {name!r} is not a field of {kind}{nearest(name, names)}")
        if theirs.startswith("="):
            constants[name] = theirs[1:]
        else:
            paths[name] = tuple(theirs.split("."))
    return paths, constants


def resolve(kind: Kind, present: Collection[Path], flags: Sequence[str], *, nested: bool) -> Mapping:
    """The mapping for a file in which the paths `present` were seen.

    Native names win over aliases; an alias is taken only for a field with no native name present. `nested` is for JSON
    lines, in which more keys may come later: a field that was not seen keeps its native path, context fields under
    `context`. Raises BadData when a field that every record needs cannot be found, or a column named by a flag is not
    in a table.
    """
    given, constants = parse_flags(kind, flags)
    seen = set(present)
    if not nested:
        _exist(given, seen)
    paths: dict[str, Path] = {}
    guessed: list[str] = []
    taken = set(given.values())
    for spec in FIELDS[kind]:
        if spec.name in constants:
            continue
        if spec.name in given:
            paths[spec.name] = given[spec.name]
            continue
        natives = (spec.native_path, (spec.name,), ("context." + spec.name,))
        chosen = next((path for path in natives if path in seen and path not in taken), None)
        if chosen is None:
            chosen = next((path for path in _aliases(spec) if path in seen and path not in taken), None)
            if chosen is not None:
                guessed.append(spec.name)
        if chosen is not None:
            paths[spec.name] = chosen
            taken.add(chosen)
        elif nested:
            paths[spec.name] = spec.native_path
    ratings = kind == "events" and paths.get("value") == ("rating",)
    if ratings and "event_type" not in constants and paths.get("event_type") not in seen:
        paths.pop("event_type", None)
        constants["event_type"] = "rating"
        guessed.append("event_type")
    mapping = Mapping(kind, paths, constants, tuple(guessed))
    if seen:
        _require(mapping, seen)
    return mapping


def _aliases(spec: Field) -> Iterator[Path]:
    for alias in spec.aliases:
        yield (alias,)
        if spec.context:
            yield from (("context", alias), ("context." + alias,))


def _exist(given: dict[str, Path], seen: set[Path]) -> None:
    names = {".".join(path) for path in seen}
    for name, path in given.items():
        if path not in seen:
            theirs = ".".join(path)
            raise BadData(f"--map {name}={theirs}: the input has no column {theirs!r}{nearest(theirs, names)}")


def _require(mapping: Mapping, seen: set[Path]) -> None:
    needs = [("user_id", "anon_id"), ("event_type",), ("timestamp",)]
    if mapping.kind != "events":
        needs = [(KEY[mapping.kind],)]
    for names in needs:
        if not any(name in mapping.constants or mapping.paths.get(name) in seen for name in names):
            have = ", ".join(sorted(".".join(path) for path in seen)[:20])
            raise BadData(
                f"no column for {' or '.join(names)}: expected it or a known alias; the input has {have}",
                f"persona ingest FILE --map {names[0]}=THEIRS"
                + (" (or --map event_type==click for a constant)" if names[0] == "event_type" else ""),
            )
