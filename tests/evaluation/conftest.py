"""Workspaces with events in them, written straight into the table: evaluation is tested, not reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_cli.events.schema import stored_schema
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, create

START = datetime(2026, 1, 1, tzinfo=UTC)
Row = tuple[str, str | None, float]
"""user, item, hours since the start"""
Ingest = Callable[..., Home]


def stored(rows: Sequence[Row], event_type: str = "click", **columns: Any) -> pl.DataFrame:
    """Canonical events of the rows given."""
    empty = pl.DataFrame(pl.from_arrow(stored_schema("events").empty_table()))
    times = [START + timedelta(hours=hours) for _, _, hours in rows]
    given: dict[str, Any] = {
        "event_id": [f"{user}/{item}/{hours}" for user, item, hours in rows],
        "user_id": [user for user, _, _ in rows],
        "item_id": [item for _, item, _ in rows],
        "event_type": [event_type] * len(rows),
        "timestamp": times,
        "ingested_at": [START + timedelta(days=1000)] * len(rows),
        "month": [f"{time:%Y-%m}" for time in times],
        **columns,
    }
    filled = {name: given.get(name, [None] * len(rows)) for name in empty.columns}
    return pl.DataFrame(filled, schema=empty.schema)


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    """`ingest(rows)` appends events to the workspace of this test, made on the first call; `name` asks for another."""

    def append(rows: Sequence[Row] | pl.DataFrame, name: str = "w", **columns: Any) -> Home:
        home = create(tmp_path / name)
        table = tables.open_or_create(home, "events", stored_schema("events"), ["month"])
        events = rows if isinstance(rows, pl.DataFrame) else stored(rows, **columns)
        months = events.partition_by("month", maintain_order=True)
        table.commit([table.write(part, {"month": part["month"][0]}) for part in months])
        return home

    return append


@pytest.fixture
def canonical() -> Callable[..., pl.DataFrame]:
    """`stored`, for tests that need the events themselves."""
    return stored
