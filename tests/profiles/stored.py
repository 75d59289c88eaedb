"""Events written straight into the Delta table: profiles stand on the table alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from persona_cli.events.schema import stored_schema
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

START = datetime(2026, 1, 1, tzinfo=UTC)
Event = dict[str, Any]
_SCHEMA = pl.DataFrame(pl.from_arrow(stored_schema("events").empty_table())).schema


def at(days: float = 0, *, hours: float = 0, minutes: float = 0, seconds: float = 0) -> datetime:
    return START + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def frame(events: Sequence[Event]) -> pl.DataFrame:
    """Stored events from what matters of them: user `u`, a click, now, unless said otherwise."""
    rows = []
    for number, event in enumerate(events):
        row = dict.fromkeys(_SCHEMA) | {"event_id": f"e{number}", "user_id": "u", "event_type": "click"}
        row |= {"timestamp": START, "source": "test", "ingested_at": START} | event
        row["month"] = f"{row['timestamp']:%Y-%m}"
        rows.append(row)
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def add(home: Home, events: Sequence[Event]) -> list[str]:
    """Commit events, a file a month; answers the files' paths."""
    table = tables.open_or_create(home, "events", stored_schema("events"), ["month"])
    parts = frame(events).partition_by("month", as_dict=True, maintain_order=True)
    files = [table.write(part, {"month": key[0]}) for key, part in parts.items()]
    table.commit(files)
    return [file.path for file in files]


def take_back(home: Home, paths: Sequence[str]) -> None:
    """Commit the removal of whole files, as the undo of an ingest does."""
    table = tables.open_table(home, "events")
    assert table is not None
    table.commit([], [file for file in table.files if file.path in paths])


def with_settings(home: Home, **given: Any) -> Home:
    """The same workspace with settings changed: `signals__other=2`."""
    settings = home.settings.with_flags({key.replace("__", "."): value for key, value in given.items()})
    return Home(home.root, settings, home.salt)
