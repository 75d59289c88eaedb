"""Workspaces with surfaces, for tests: settings as text, events as plain rows, profiles built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from shop import Event, add

from persona_cli.profiles.permitted import in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces import surface_of
from persona_cli.serving.surfaces.deciding import decisions
from persona_cli.serving.surfaces.visitors import EARLIER
from persona_cli.workspace.home import SETTINGS_FILE, Home, create, open_home

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
Row = dict[str, Any]


def workspace(root: Path, settings: str, events: Sequence[Event]) -> Home:
    """A workspace with these settings and events, and nobody held out but who is found to be."""
    home = create(root)
    with (root / SETTINGS_FILE).open("a") as file:
        file.write(settings)
    home = open_home(root)
    if events:
        add(home, events)
        sync(home)
    return home


def decided(
    home: Home,
    name: str,
    users: Sequence[str] | None = None,
    at: datetime = NOW,
    served: Sequence[tuple[str, datetime, Mapping[str, Any] | None]] = (),
    **more: Any,
) -> dict[str, Row]:
    """Lines by user; `served`: (user, when, choice) of earlier decisions."""
    rows = [(user, when, None if choice is None else json.dumps(choice)) for user, when, choice in served]

    def earlier(ids: pl.Series) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=EARLIER, orient="row").filter(pl.col("user_id").is_in(ids.implode()))

    asked = None if users is None else pl.Series("user_id", users, dtype=pl.String)
    found, _ = decisions(home, surface_of(home, name), at=at, users=asked, earlier=earlier, **more)
    return {row["user_id"]: row for row in found.to_dicts()}


def sides(home: Home, n: int = 200) -> tuple[list[str], list[str]]:
    """Names of users who are not held out, and of some who are."""
    names = pl.Series("user_id", [f"u{number:03d}" for number in range(n)])
    held = in_holdout(home, names)
    return names.filter(~held).to_list(), names.filter(held).to_list()
