"""A small shop with two tastes, written straight into the events table: serving stands on the table alone.

Users of an even number like items a00 … a19, those of an odd one b00 … b19, the first of each kind most. Every user
clicks twelve items, one a week, on one device. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.events.schema import stored_schema
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, create

START = datetime(2026, 1, 1, tzinfo=UTC)
N_USERS, N_ITEMS, N_CLICKS = 80, 20, 12
Event = dict[str, Any]


def user(number: int) -> str:
    return f"u{number:02d}"


def taste(number: int) -> str:
    return "ab"[number % 2]


def clicks(number: int) -> list[str]:
    """The items of one user, in order: another walk through the items of the same taste for everybody."""
    step, first = (3, 7, 9, 11)[number // 2 % 4], number // 3
    return [f"{taste(number)}{(first + step * n) % N_ITEMS:02d}" for n in range(N_CLICKS)]


def events(n_users: int = N_USERS) -> list[Event]:
    return [
        {
            "user_id": user(number),
            "item_id": item,
            "timestamp": START + timedelta(weeks=week, minutes=number),
            "device": "mobile" if number % 4 < 2 else "desktop",
        }
        for number in range(n_users)
        for week, item in enumerate(clicks(number))
    ]


def add(home: Home, rows: Sequence[Event]) -> None:
    """Commit events: clicks, unless they say otherwise."""
    schema = pl.DataFrame(pl.from_arrow(stored_schema("events").empty_table())).schema
    table = tables.open_or_create(home, "events", stored_schema("events"), ["month"])
    filled = []
    for number, row in enumerate(rows):
        one = dict.fromkeys(schema) | {"event_id": f"{table.version}/{number}", "event_type": "click"} | row
        one["ingested_at"] = START + timedelta(days=1000)
        one["month"] = f"{one['timestamp']:%Y-%m}"
        filled.append(one)
    parts = pl.DataFrame(filled, schema=schema, orient="row").partition_by("month", as_dict=True, maintain_order=True)
    table.commit([table.write(part, {"month": key[0]}) for key, part in parts.items()])


def add_items(home: Home, rows: Sequence[Event]) -> None:
    schema = pl.DataFrame(pl.from_arrow(stored_schema("items").empty_table())).schema
    table = tables.open_or_create(home, "items", stored_schema("items"))
    filled = [dict.fromkeys(schema) | {"ingested_at": START} | row for row in rows]
    table.commit([table.write(pl.DataFrame(filled, schema=schema, orient="row"))])


def shop(root: Path, n_users: int = N_USERS) -> Home:
    home = create(root)
    add(home, events(n_users))
    return home
