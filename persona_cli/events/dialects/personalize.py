"""Amazon Personalize: interactions, users and items as CSV files whose header row is in capitals.

An interaction with an `IMPRESSION` stands for what was done and, for each item in the list that was on the screen, an
`impression` with its position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from persona_cli.events.dialects.dialect import Dialect, Plain, Record, Rejected, event_type
from persona_cli.events.dialects.split import native, split, whole
from persona_cli.events.schema import Kind

INTERACTIONS = {
    "event_id": ("EVENT_ID",),
    "user_id": ("USER_ID",),
    "event_type": ("EVENT_TYPE", "=interaction"),
    "item_id": ("ITEM_ID",),
    "timestamp": ("TIMESTAMP",),
    "value": ("EVENT_VALUE",),
    "session_id": ("SESSION_ID",),
    "decision_id": ("RECOMMENDATION_ID",),
    "device": ("DEVICE", "DEVICE_TYPE"),
    "country": ("COUNTRY",),
}
ITEMS = {
    "item_id": ("ITEM_ID",),
    "title": ("TITLE", "NAME", "PRODUCT_NAME"),
    "category": ("CATEGORY_L1", "CATEGORY", "GENRE_L1"),
    "tags": ("GENRES", "TAGS", "GENRE"),
    "text": ("PRODUCT_DESCRIPTION", "DESCRIPTION"),
    "price": ("PRICE",),
    "published_at": ("CREATION_TIMESTAMP",),
}
USERS = {
    "user_id": ("USER_ID",),
    "country": ("COUNTRY",),
    "locale": ("LOCALE", "LANGUAGE"),
    "signed_up": ("CREATION_TIMESTAMP",),
}
_SECONDS = "whole seconds since 1970"


def _header(record: Record) -> set[str]:
    names = set(record)
    return names if all(name == name.upper() for name in names) else set()


def is_interactions(records: Sequence[Record]) -> bool:
    return all({"USER_ID", "ITEM_ID", "TIMESTAMP"} <= _header(record) for record in records)


def is_items(records: Sequence[Record]) -> bool:
    headers = [_header(record) for record in records]
    return all("ITEM_ID" in names and len(names) > 1 and not names & {"USER_ID", "TIMESTAMP"} for names in headers)


def is_users(records: Sequence[Record]) -> bool:
    headers = [_header(record) for record in records]
    return all("USER_ID" in names and len(names) > 1 and not names & {"ITEM_ID", "TIMESTAMP"} for names in headers)


def interactions(record: Record) -> list[Record]:
    """The interaction, then an impression for each item shown, at positions 1, 2, 3…"""
    whole(record, "TIMESTAMP", _SECONDS, 0, 10**11)
    fields, rest, _ = split(INTERACTIONS, record)
    fields["event_type"] = event_type(fields["event_type"])
    if "item_id" not in fields:
        raise Rejected("ITEM_ID: missing or empty")
    shown = rest.pop("IMPRESSION", None)
    found = [native(fields, rest)]
    if shown is None:
        return found
    if not isinstance(shown, str):
        raise Rejected("IMPRESSION: expected item ids joined by |")
    around = {name: value for name, value in fields.items() if name not in ("event_id", "value")}
    for position, item in enumerate((name.strip() for name in shown.split("|")), 1):
        if item:
            row = around | {"event_type": "impression", "item_id": item, "position": position}
            if "event_id" in fields:
                row["event_id"] = f"{fields['event_id']}/{position}"
            found.append(row)
    return found


def plain(names: Sequence[str]) -> Plain:
    return Plain(INTERACTIONS, ("TIMESTAMP",), needed=("ITEM_ID",), empty=("IMPRESSION",), worded=True)


def _described(sources: dict[str, tuple[str, ...]], kind: Kind, record: Record) -> list[Record]:
    whole(record, "CREATION_TIMESTAMP", _SECONDS, -(10**11), 10**11)
    fields, rest, _ = split(sources, record, kind=kind)
    return [native(fields, rest)]


def _table(
    kind: Kind,
    about: str,
    sources: dict[str, tuple[str, ...]],
    recognises: Callable[[Sequence[Record]], bool],
    records: Callable[[Record], list[Record]],
    *notes: str,
) -> Dialect:
    together = plain if kind == "events" else None
    return Dialect(
        "personalize", about, ("csv", "parquet"), sources, recognises, records, kind, plain=together, notes=notes
    )


DIALECTS = (
    _table(
        "events",
        "Amazon Personalize interactions: USER_ID, ITEM_ID, TIMESTAMP, …",
        INTERACTIONS,
        is_interactions,
        interactions,
        "`IMPRESSION` (ids joined by `|`) becomes one `impression` an item, with its position from 1 and the "
        "interaction's time and `RECOMMENDATION_ID`.",
        "Without `EVENT_TYPE` an interaction is called `interaction`: give it a strength under `[signals]`.",
    ),
    _table("items", "Amazon Personalize items: ITEM_ID, …", ITEMS, is_items, partial(_described, ITEMS, "items")),
    _table("users", "Amazon Personalize users: USER_ID, …", USERS, is_users, partial(_described, USERS, "users")),
)
