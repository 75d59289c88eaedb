"""Google Analytics 4: rows of the BigQuery export (JSON lines or Parquet), and the flat table Fivetran makes of them.

The lists of `{key, value}` are read as objects (`event_params.ga_session_id`); `(not set)` is a null. An event with
`items` becomes one record an item. A row has no id of its own: see `row_id`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from persona_cli.events.dialects.dialect import Dialect, Dropped, Record, Rejected, elements, event_type, numbered
from persona_cli.events.dialects.split import campaign, merged, money, native, number, put, said, split, whole
from persona_cli.events.judge import json_text
from persona_cli.events.schema import json_type

_CAMPAIGN = (
    ("session_traffic_source_last_click.manual_campaign.source",
     "session_traffic_source_last_click.manual_campaign.medium",
     "session_traffic_source_last_click.manual_campaign.campaign_name"),
    ("collected_traffic_source.manual_source", "collected_traffic_source.manual_medium",
     "collected_traffic_source.manual_campaign_name"),
    ("event_params.source", "event_params.medium", "event_params.campaign"),
)  # fmt: skip
_FLAT_CAMPAIGN = (
    ("collected_traffic_source_manual_source", "collected_traffic_source_manual_medium",
     "collected_traffic_source_manual_campaign_name"),
    ("param_source", "param_medium", "param_campaign"),
)  # fmt: skip
SOURCES = {
    "user_id": ("user_id",),
    "anon_id": ("user_pseudo_id",),
    "event_type": ("event_name",),
    "target": ("event_params.link_id", "event_params.item_list_id", "event_params.promotion_id",
               "event_params.firebase_screen", "event_params.page_location"),
    "item_id": ("items[].item_id", "items[].item_name"),
    "timestamp": ("event_timestamp",),
    "session_id": ("event_params.ga_session_id",),
    "value": ("items[].item_revenue", "event_params.engagement_time_msec", "event_params.percent_scrolled",
              "event_params.value", "ecommerce.purchase_revenue"),
    "currency": ("event_params.currency",),
    "query": ("event_params.search_term",),
    "position": ("items[].index", "items[].item_list_index"),
    "decision_id": ("event_params.decision_id",),
    "order_id": ("ecommerce.transaction_id", "event_params.transaction_id"),
    "device": ("device.category",),
    "browser": ("device.web_info.browser", "device.browser"),
    "os": ("device.operating_system",),
    "page": ("event_params.page_location", "event_params.firebase_screen"),
    "referrer": ("event_params.page_referrer",),
    "country": ("geo.country",),
    "region": ("geo.region",),
    "locale": ("device.language",),
    "campaign": sum(_CAMPAIGN, ()),
}  # fmt: skip
FLAT = {
    "event_id": ("_fivetran_id",),
    "user_id": ("user_id",),
    "anon_id": ("user_pseudo_id",),
    "event_type": ("name",),
    "target": ("param_link_id", "param_firebase_screen", "param_page_location"),
    "timestamp": ("timestamp",),
    "session_id": ("param_ga_session_id",),
    "value": ("param_engagement_time_msec", "param_percent_scrolled", "ecommerce_purchase_revenue", "param_value",
              "ecommerce_purchase_revenue_in_usd", "value_in_usd"),
    "currency": ("param_currency", "=USD"),
    "query": ("param_search_term",),
    "order_id": ("ecommerce_transaction_id", "param_transaction_id"),
    "device": ("device_category",),
    "browser": ("device_web_info_browser", "device_browser"),
    "os": ("device_operating_system",),
    "page": ("param_page_location",),
    "referrer": ("param_page_referrer",),
    "country": ("geo_country",),
    "region": ("geo_region",),
    "locale": ("device_language",),
    "campaign": sum(_FLAT_CAMPAIGN, ()),
}  # fmt: skip

UNSET = "(not set)"
_ZONELESS = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?", re.ASCII)
_PARAMETERS = ("event_params", "user_properties")
_VALUES = ("string_value", "int_value", "float_value", "double_value")
_NUMBERS = _VALUES[1:]
_BATCH = ("batch_page_id", "batch_ordering_id", "batch_event_index")
# Of these the money of each item counts; of all other events with items the price stays in props.
_WITH_MONEY = ("purchase", "refund", "add_to_cart", "remove_from_cart")
# Events whose value is a parameter in another unit: what it is called, and by how much it is divided.
_SCALED = {"user_engagement": ("dwell", "engagement_time_msec", 1_000), "scroll": ("scroll", "percent_scrolled", 100)}
_MICROSECONDS = "microseconds since 1970"


def recognises(records: Sequence[Record]) -> bool:
    return all({"event_name", "event_timestamp", "event_params"} <= record.keys() for record in records)


def is_flat(records: Sequence[Record]) -> bool:
    wanted = {"_fivetran_id", "name", "timestamp", "user_pseudo_id", "param_ga_session_id"}
    return all(wanted <= record.keys() for record in records)


def records(record: Record) -> list[Record]:
    """One native record, or one an item; raises Rejected, and Dropped for an engagement without its time."""
    whole(record, "event_timestamp", _MICROSECONDS, 10**14, 10**17)
    event = _opened(record)
    items = elements(event, "items")
    rows = []
    for place, item in enumerate(items or [None]):
        fields, rest, others = split(_table(_value_paths(event, item)), event, item)
        _translate(fields, said(event, "event_name"))
        _common(fields, rest, event)
        if item is not None:
            _of_item(fields, item, place)
        fields["event_id"] = numbered(row_id(record), place)
        rows.append(native(fields, merged(others, rest.pop("event_params", {}), rest)))
    return rows


@cache
def _table(value: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return SOURCES | {"value": value, "campaign": ()}


def _value_paths(event: Record, item: Record | None) -> tuple[str, ...]:
    """Where the value of this event lies: the paths of the table that go with its name."""
    name = said(event, "event_name")
    if name in _SCALED:
        return (f"event_params.{_SCALED[name][1]}",)
    if item is not None:
        return ("items[].item_revenue",) if event_type(name) in _WITH_MONEY else ()
    return ("event_params.value", "ecommerce.purchase_revenue")


def _translate(fields: Record, name: str | None) -> None:
    """persona's word for the event, its unit, and a session that is unique among users."""
    fields["event_type"] = event_type(fields["event_type"])
    if name in _SCALED:
        word, parameter, unit = _SCALED[name]
        fields["event_type"] = word
        if "value" in fields:
            fields["value"] = float(fields["value"]) / unit
        elif word == "dwell":
            raise Dropped(f"{name} without {parameter}")
    if "session_id" in fields:
        fields["session_id"] = f"{fields.get('anon_id', fields.get('user_id'))}.{fields['session_id']}"


def row_id(record: Record) -> str:
    """The id of a row: the same for the same row in every later revision of its day.

    md5 of user, time, name and place in its batch (page, request, event). Rows from before GA4 gave that place are told
    apart by what they say (parameters, items): a revised one then counts as new.
    """
    parts = [_plain(record.get(name)) for name in ("user_pseudo_id", "user_id", "event_timestamp", "event_name")]
    if parts[0]:
        parts[1] = ""  # a login may be joined to the row later
    place = [_plain(record.get(name)) for name in _BATCH]
    if not any(place):
        names = ("event_bundle_sequence_id", "event_params", "items")
        place = [json_text(record.get(name)) for name in names]
    return hashlib.md5(
        "\x1f".join(["ga4", *parts, *place]).encode("utf-8", "surrogatepass"), usedforsecurity=False
    ).hexdigest()


def _plain(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json_text(value)


def _opened(record: Record) -> Record:
    """The record with its lists of parameters as objects, and without what is `(not set)`."""
    opened: Record = {}
    for name, value in record.items():
        value = _set(value)
        opened[name] = _parameters(name, value) if name in _PARAMETERS else value
    return opened


def _parameters(name: str, given: Any) -> Record:
    """`[{key, value: {string_value, int_value, …}}]` → `{key: value}`."""
    read: Record = {}
    for entry in [] if given is None else given if isinstance(given, list) else [given]:
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
            raise Rejected(f"{name}: expected a list of {{key, value}}, got {json_type(entry)}")
        held = entry.get("value")
        if not isinstance(held, dict | None):
            raise Rejected(f"{name}.{entry['key']}: expected an object with one of {', '.join(_VALUES)}")
        kind = next((kind for kind in _VALUES if held is not None and held.get(kind) is not None), None)
        if kind is not None and held is not None:
            path = f"{name}.{entry['key']}.{kind}"
            value = held[kind]
            if kind == "int_value":  # BigQuery writes its 64-bit integers as text
                value = whole({path: value}, path, "a whole number", -(2**63), 2**63)
            elif kind in _NUMBERS:
                number({path: value}, path)
            put(read, entry["key"], value)
    return read


def _set(value: Any) -> Any:
    """The value without what is not set, its lists as lists (some Parquet files hold `{list: [{element: …}]}`)."""
    if isinstance(value, dict):
        if value.keys() == {"list"} and isinstance(value["list"], list):
            return [_set(inner.get("element", inner) if isinstance(inner, dict) else inner) for inner in value["list"]]
        return {name: _set(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_set(inner) for inner in value]
    return None if value == UNSET else value


def _common(fields: Record, rest: Record, event: Record) -> None:
    """What is made of several: the campaign, the time of receipt, the time zone, and consent as one text."""
    if (named := campaign(event, rest, _CAMPAIGN)) is not None:
        fields["campaign"] = named
    offset = whole(event, "event_server_timestamp_offset", "a whole number of microseconds", -(10**15), 10**15)
    if offset is not None:
        fields["received_at"] = int(fields["timestamp"]) + offset
        rest.pop("event_server_timestamp_offset", None)
    zone = whole(event, "device.time_zone_offset_seconds", "seconds from UTC", -86_400, 86_400)
    if zone is not None and zone % 3_600 == 0 and -12 <= zone // 3_600 <= 14:
        fields["tz"] = f"Etc/GMT{-zone // 3_600:+d}" if zone else "Etc/UTC"  # the sign of these names is reversed
    storage = event.get("privacy_info")
    if isinstance(storage, dict):
        given = {
            name: value for name, value in storage.items() if isinstance(value, str) and value not in ("", "Unset")
        }
        if given:
            fields["consent"] = ",".join(f"{name}={value.lower()}" for name, value in sorted(given.items()))
        left = {name: value for name, value in storage.items() if not isinstance(value, str | None)}
        rest.pop("privacy_info", None)
        rest.update({"privacy_info": left} if left else {})


def _of_item(fields: Record, item: Record, place: int) -> None:
    if "item_id" not in fields:
        raise Rejected("items.item_id: missing or empty")
    if fields["event_type"] == "impression":
        fields.setdefault("position", place + 1)
    worth = money(number(item, "price"), number(item, "quantity"))
    if "value" not in fields and fields["event_type"] in _WITH_MONEY and worth is not None:
        fields["value"] = worth


def flat_records(record: Record) -> list[Record]:
    """A row of the flat table, whose times without a zone are UTC."""
    record = {name: _set(value) for name, value in record.items()}
    name = said(record, "name")
    local = tuple(path for path in ("ecommerce_purchase_revenue", "param_value") if record.get(path) is not None)
    sources = FLAT | {"campaign": ()}
    if name in _SCALED:
        sources |= {"value": (f"param_{_SCALED[name][1]}",), "currency": ("param_currency",)}
    elif (
        local or event_type(name) not in _WITH_MONEY
    ):  # the columns in dollars are filled with 0 where money has no part
        sources |= {"value": local, "currency": ("param_currency",)}
    else:
        sources |= {"value": ("ecommerce_purchase_revenue_in_usd", "value_in_usd"), "currency": ("=USD",)}
    fields, rest, _ = split(sources, record)
    _translate(fields, name)
    if isinstance(moment := fields["timestamp"], str) and _ZONELESS.fullmatch(moment):
        fields["timestamp"] = f"{moment}Z"
    if (named := campaign(record, rest, _FLAT_CAMPAIGN)) is not None:
        fields["campaign"] = named
    return [native(fields, rest)]


_NOTES = (
    "An event with `items` becomes one row an item (`position` = `index`); the id of the second is that of the first "
    "with `/1`, and so on. The `value` of an item in a purchase, refund or cart event is `item_revenue`, or "
    "`price · quantity`; in other events its price stays in `props`.",
    "`ga_session_id` is a number within a user: `session_id` is `user_pseudo_id.ga_session_id`.",
    "`user_engagement` becomes `dwell` in seconds (`engagement_time_msec`); the `value` of `scroll` is the share "
    "scrolled (`percent_scrolled`).",
    "`campaign` is `source/medium/name` of the first of the three places that names one; `(direct)` and `(none)` are "
    "none.",
    "`traffic_source` is how the user came the first time: it stays in `props`, as do parameters that nothing took.",
    "A day's table is revised for up to three days. A row has an id that no revision changes (of user, time, name and "
    "place in the batch), so `persona ingest DAY --replace`, under the same file name, replaces what changed, adds "
    "what is new and takes out what is no longer in the table.",
)
DIALECTS = (
    Dialect(
        "ga4",
        "Google Analytics 4: rows of the BigQuery export",
        ("jsonl", "parquet"),
        SOURCES,
        recognises,
        records,
        notes=_NOTES,
    ),
    Dialect(
        "ga4",
        "Google Analytics 4: the flat table of events that Fivetran makes",
        ("csv", "jsonl", "parquet"),
        FLAT,
        is_flat,
        flat_records,
        notes=("Times without a zone are UTC.",),
    ),
)
