"""Snowplow enriched events: lines of 131 cells between tabs, without a header row, with JSON in three of them.

`contexts` and `derived_contexts` are read as objects by the name of the schema (`contexts.web_page.id`; a second one of
the same name is `web_page_2`), product entities as the list `products`, `unstruct_event` as the data of the event.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from persona_cli.events.dialects.dialect import (
    EVENT_TYPES,
    Dialect,
    Record,
    Rejected,
    Sources,
    elements,
    event_type,
    numbered,
    value_at,
)
from persona_cli.events.dialects.split import campaign, merged, money, native, number, put, read_json, said, split
from persona_cli.events.schema import json_type

_NAMES_OF_COLUMNS = """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker
    v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid
    geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization
    ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath
    page_urlquery page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery
    refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign
    contexts se_category se_action se_label se_property se_value unstruct_event tr_orderid tr_affiliation tr_total
    tr_tax tr_shipping tr_city tr_state tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity
    pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type
    br_renderengine br_lang br_features_pdf br_features_flash br_features_java br_features_director
    br_features_quicktime br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight
    br_cookies br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer os_timezone dvce_type
    dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height tr_currency tr_total_base
    tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone mkt_clickid mkt_network etl_tags
    dvce_sent_tstamp refr_domain_userid refr_device_tstamp derived_contexts domain_sessionid derived_tstamp
    event_vendor event_name event_format event_version event_fingerprint true_tstamp
"""
COLUMNS = tuple(_NAMES_OF_COLUMNS.split())
_CAMPAIGN = ("mkt_source", "mkt_medium", "mkt_campaign")
COMMON: dict[str, tuple[str, ...]] = {
    "event_id": ("event_id",),
    "user_id": ("user_id",),
    "anon_id": ("domain_userid", "contexts.client_session.userId", "network_userid"),
    "timestamp": ("true_tstamp", "derived_tstamp", "collector_tstamp"),
    "received_at": ("collector_tstamp",),
    "session_id": ("domain_sessionid", "contexts.client_session.sessionId"),
    "device": ("derived_contexts.yauaa_context.deviceClass", "dvce_type"),
    "browser": ("derived_contexts.yauaa_context.agentName", "derived_contexts.ua_parser_context.useragentFamily",
                "br_family", "br_name"),
    "os": ("derived_contexts.yauaa_context.operatingSystemName", "derived_contexts.ua_parser_context.osFamily",
           "os_family", "os_name"),
    "page": ("page_url", "contexts.screen.name"),
    "referrer": ("page_referrer",),
    "country": ("geo_country",),
    "region": ("geo_region",),
    "network": ("contexts.mobile_context.networkType", "ip_netspeed"),
    "locale": ("br_lang",),
    "tz": ("os_timezone", "geo_timezone"),
    "campaign": _CAMPAIGN,
    "consent": ("contexts.gdpr.basisForProcessing",),
    "user_agent": ("useragent",),
    "ip": ("user_ipaddress",),
}  # fmt: skip
_FOREGROUND = "contexts.screen_summary.foreground_sec"  # sums up to the end of the screen
# What only some kinds of `event` have.
OF_EVENT: dict[str, Sources] = {
    "page_view": {"event_type": ("event",), "target": ("page_urlpath",)},
    "page_ping": {"event_type": ("event",), "target": ("page_urlpath",)},
    "struct": {
        "event_type": ("se_action",),
        "target": ("se_label",),
        "item_id": ("products[].id", "se_property"),
        "value": ("se_value",),
        "position": ("products[].position",),
        "currency": ("products[].currency",),
    },
    "unstruct": {
        "event_type": ("unstruct_event.type", "event_name"),
        "target": ("unstruct_event.elementId", "unstruct_event.targetUrl", "unstruct_event.name", "page_urlpath"),
        "item_id": ("products[].id", "unstruct_event.sku"),
        "value": (_FOREGROUND, "contexts.transaction.revenue"),
        "position": ("products[].position",),
        "currency": ("products[].currency", "contexts.transaction.currency", "unstruct_event.currency"),
        "order_id": ("contexts.transaction.transaction_id",),
    },
    "transaction": {
        "event_type": ("event",),
        "value": ("tr_total",),
        "currency": ("tr_currency",),
        "order_id": ("tr_orderid",),
    },
    "transaction_item": {
        "event_type": ("event",),
        "item_id": ("ti_sku",),
        "value": ("ti_price",),
        "currency": ("ti_currency",),
        "order_id": ("ti_orderid",),
    },
}  # fmt: skip


def _all() -> Sources:
    """Every path that is read, by field: for the table in the documentation."""
    merged: dict[str, tuple[str, ...]] = dict(COMMON)
    for sources in OF_EVENT.values():
        for name, paths in sources.items():
            merged[name] = tuple(dict.fromkeys((*merged.get(name, ()), *paths)))
    return merged


SOURCES = _all()
HEARTBEAT_SECONDS = 10.0  # the trackers' default time between two pings; a ping does not say it
_NAMES = {
    "link_click": "click",
    "button_click": "click",
    "screen_end": "dwell",
    "transaction": "order",
    "transaction_item": "purchase",
}
_WITH_MONEY = ("purchase", "refund", "add_to_cart", "remove_from_cart")
_JSON = ("contexts", "derived_contexts", "unstruct_event")
_PARTS = ("scheme", "host", "port", "path", "query", "fragment")
_SCROLLED = ("pp_xoffset_min", "pp_xoffset_max", "pp_yoffset_min", "pp_yoffset_max", "doc_width", "doc_height")
_SCHEMA = re.compile(r"iglu:([^/]+)/([^/]+)/[^/]+/[^/]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?Z?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def recognises(records: Sequence[Record]) -> bool:
    def is_one(record: Record) -> bool:
        event_id, collected = record["event_id"], record["collector_tstamp"]
        return isinstance(event_id, str) and bool(_UUID.fullmatch(event_id)) and bool(_TIME.fullmatch(str(collected)))

    return all(record.keys() == set(COLUMNS) and is_one(record) for record in records)


def records(record: Record) -> list[Record]:
    """Native records of one line: one a product, two of a page ping, else one; raises Rejected."""
    event = _opened(record)
    kind = said(event, "event")
    if kind is None:
        raise Rejected("event: missing or empty")
    if kind not in OF_EVENT:
        raise Rejected(f"event: expected one of {', '.join(OF_EVENT)}")
    products = elements(event, "products") if kind in ("struct", "unstruct") else []
    rows = []
    for place, product in enumerate(products or [None]):
        fields, rest, others = split(_narrowed(kind, event, product), event, product)
        if (named := campaign(event, rest, (_CAMPAIGN,))) is not None:
            fields["campaign"] = named
        _finish(fields, event)
        _name(fields, kind, event)
        if product is not None:
            _of_product(fields, product, place)
        elif kind == "transaction_item":
            _times(fields, number(event, "ti_price"), number(event, "ti_quantity"))
        elif "unitPrice" in rest.get("unstruct_event", {}) and fields["event_type"] in _WITH_MONEY:
            _times(fields, number(event, "unstruct_event.unitPrice"), number(event, "unstruct_event.quantity"))
        fields["event_id"] = numbered(fields.get("event_id"), place)
        rows.append(native(fields, merged(others, rest)))
    return _ping(rows[0], event) if kind == "page_ping" else rows


def _opened(record: Record) -> Record:
    """The record with its JSON read, without the parts of addresses that stand whole elsewhere."""
    opened: Record = {name: value for name, value in record.items() if name not in _JSON and value != ""}
    for kind in ("contexts", "derived_contexts"):
        found: Record = {}
        for vendor, name, data in _entities(record, kind):
            if name == "product" and vendor.endswith(".ecommerce"):
                opened.setdefault("products", []).append(data)
            else:
                put(found, name, data)
        if found:
            opened[kind] = found
    if (outer := _json(record, "unstruct_event")) is not None:
        _, name, opened["unstruct_event"] = _described(outer.get("data"), "unstruct_event.data")
        if opened.get("event_name") is None:
            opened["event_name"] = name
    for whole, part in (("page_url", "page_url"), ("page_referrer", "refr_url")):
        for end in _PARTS:
            if part + end != "page_urlpath" and opened.get(whole) is not None:
                opened.pop(part + end, None)
    return opened


def _json(record: Record, column: str) -> Record | None:
    value = record.get(column)
    if isinstance(value, str):
        return read_json(value, column) if value.strip() else None
    if not isinstance(value, dict | None):
        raise Rejected(f"{column}: expected a JSON object, got {json_type(value)}")
    return value


def _entities(record: Record, column: str) -> list[tuple[str, str, Any]]:
    """(vendor, name, data) of the entities of a column."""
    outer = _json(record, column)
    if outer is None:
        return []
    data = outer.get("data")
    if not isinstance(data, list):
        raise Rejected(f"{column}.data: expected an array, got {json_type(data)}")
    return [_described(entity, f"{column}.data") for entity in data]


def _described(entity: Any, path: str) -> tuple[str, str, Any]:
    schema = entity.get("schema") if isinstance(entity, dict) else None
    match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise Rejected(f"{path}.schema: expected iglu:vendor/name/format/version")
    return match[1], match[2], entity.get("data")


def _narrowed(kind: str, event: Record, product: Record | None) -> Sources:
    """The paths that hold for this event: an action's property is an item only if the action is about items."""
    of_items = kind != "struct" or event_type(said(event, "se_action")) in EVENT_TYPES
    screen_end = said(event, "event_name") == "screen_end"
    return _table(kind, product is not None, of_items, screen_end, isinstance(event.get("unstruct_event"), dict))


@cache
def _table(kind: str, of_product: bool, of_items: bool, screen_end: bool, described: bool) -> Sources:
    narrowed: dict[str, tuple[str, ...]] = COMMON | {"campaign": ()} | dict(OF_EVENT[kind])
    if of_product:
        narrowed["value"] = ()  # that of the whole order
    elif not of_items:
        narrowed["item_id"] = ()
    if not screen_end:
        narrowed = {name: tuple(path for path in paths if path != _FOREGROUND) for name, paths in narrowed.items()}
    if not described:
        narrowed = {name: tuple(path for path in paths if "unstruct_event." not in path)
                    for name, paths in narrowed.items()}  # fmt: skip
    return narrowed


def _finish(fields: Record, event: Record) -> None:
    """Times are UTC without saying so; an id that comes with another fingerprint is another event."""
    for name in ("timestamp", "received_at"):
        if (moment := fields.get(name)) is not None:
            if not isinstance(moment, str) or not _TIME.fullmatch(moment):
                path = next(path for path in COMMON[name] if value_at(event, path) is not None)
                raise Rejected(f"{path}: expected a time as 2024-01-31 12:00:00.000")
            fields[name] = moment.removesuffix("Z") + "Z"
    fingerprint = said(event, "event_fingerprint")
    if "event_id" in fields and fingerprint is not None:
        fields["event_id"] = f"{fields['event_id']}.{fingerprint}"


def _name(fields: Record, kind: str, event: Record) -> None:
    name = fields["event_type"]
    word = event_type(name)
    if kind == "struct" and word not in EVENT_TYPES:
        category = said(event, "se_category")
        word = name if category is None else f"{category}.{name}"
    elif kind != "unstruct" or name not in ("transaction", "transaction_item"):
        word = _NAMES.get(name, word)  # an ecommerce transaction is a purchase; a legacy one is followed by its items
    fields["event_type"] = word
    terms = value_at(event, "unstruct_event.terms") if isinstance(event.get("unstruct_event"), dict) else None
    if word == "search" and terms:
        fields["query"] = " ".join(map(str, terms)) if isinstance(terms, list) else terms


def _of_product(fields: Record, product: Record, place: int) -> None:
    if "item_id" not in fields:
        raise Rejected("product.id: missing or empty")
    if fields["event_type"] == "impression":
        fields.setdefault("position", place + 1)
    if fields["event_type"] in _WITH_MONEY:
        _times(fields, number(product, "price"), number(product, "quantity"))


def _times(fields: Record, price: float | None, quantity: float | None) -> None:
    if (worth := money(price, quantity)) is not None:
        fields["value"] = worth


def _ping(row: Record, event: Record) -> list[Record]:
    """A page ping as `heartbeat` and, where heights are known, `scroll` (the share of the page seen)."""
    props = row.pop("props", {})
    offsets = {name: props.pop(name) for name in _SCROLLED if name in props}
    top, view, height = (number(event, name) for name in ("pp_yoffset_max", "br_viewheight", "doc_height"))
    beat = row | {"event_type": "heartbeat", "value": HEARTBEAT_SECONDS}
    if top is None or view is None or height is None or height <= 0:
        return [native(beat, props | offsets)]
    share = min(max((top + view) / height, 0.0), 1.0)
    scroll = row | {"event_type": "scroll", "value": share, "event_id": numbered(row.get("event_id"), 1)}
    return [native(beat, props), native(scroll, offsets)]


DIALECTS = (
    Dialect(
        "snowplow",
        "Snowplow enriched events: TSV of 131 columns without a header row",
        ("tsv",),
        SOURCES,
        recognises,
        records,
        columns=COLUMNS,
        notes=(
            "`event_id` and `event_fingerprint` together are the id: the same id with another fingerprint is another "
            "event. Times are UTC.",
            "A `page_ping` becomes a `heartbeat` with its 10 seconds (what the trackers do by default; the line does "
            "not say) and `scroll` with the share of the page's height seen.",
            "A `struct` event is called by its action where persona has a word for it (`add_to_cart`), else "
            "`category.action`. Ecommerce events become one row a product entity; `transaction` is an `order`, each "
            "`transaction_item` a `purchase` of `ti_price · ti_quantity`.",
            "`campaign` is `mkt_source/mkt_medium/mkt_campaign`, or `mkt_campaign` alone where neither other one is "
            "there.",
            "The parts of `page_url` and `page_referrer` (`page_urlhost`, …) are kept only where these are empty.",
        ),
    ),
)
