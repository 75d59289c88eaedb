"""OTTO sessions: `{"session": 0, "events": [{"aid": 1517085, "ts": 1659304800025, "type": "clicks"}, …]}`, one a line.

Each event of a line is a record of its own: a bad one is turned away without its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persona_cli.events.dialects.dialect import Dialect, Record, Rejected, event_type
from persona_cli.events.dialects.split import native, split, whole
from persona_cli.events.schema import json_type

SOURCES = {
    "anon_id": ("session",),
    "event_type": ("type",),
    "item_id": ("aid",),
    "timestamp": ("ts",),
}
TYPES = ("clicks", "carts", "orders")
_KEYS = {"session", "aid", "ts", "type"}


def unpack(record: Record) -> list[Any]:
    """The events of a session, each with the session's other members beside its own."""
    events = record.get("events")
    if not isinstance(events, list):
        return [record]
    session = {name: value for name, value in record.items() if name != "events"}
    return [session | (event if isinstance(event, dict) else {"events": event}) for event in events]


def recognises(records: Sequence[Record]) -> bool:
    return all(record.keys() == _KEYS and record["type"] in TYPES for record in records)


def records(record: Record) -> list[Record]:
    if (odd := record.get("events")) is not None:
        raise Rejected(f"events: expected a list of objects, got {json_type(odd)}")
    whole(record, "ts", "milliseconds since 1970", 10**11, 10**14)
    fields, rest, _ = split(SOURCES, record)
    if fields["event_type"] not in TYPES:
        raise Rejected(f"type: expected one of {', '.join(TYPES)}")
    fields["event_type"] = event_type(fields["event_type"])
    return [native(fields, rest)]


DIALECTS = (
    Dialect(
        "otto",
        "OTTO sessions: one JSON object a session, with its clicks, carts and orders",
        ("jsonl",),
        SOURCES,
        recognises,
        records,
        unpack=unpack,
        notes=(
            "A session of OTTO spans weeks: it is the person, not a visit, and becomes `anon_id`; visits follow from "
            "the gaps between events.",
            "`clicks`, `carts` and `orders` become `click`, `add_to_cart` and `purchase`; `ts` is in milliseconds.",
        ),
    ),
)
