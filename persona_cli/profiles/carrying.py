"""What the data of a workspace can carry: for each type of personalization what it needs, what is there, what lacks.

The types: content (lists of items), ui (surfaces that adapt), plans (offers of plans and prices), messages (what, by
which channel, at what hour), features (which functions to show). Counted from the profiles table, never from events.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles import fold as folding
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home


class Need(NamedTuple):
    """Something that a type of personalization cannot do without."""

    what: str
    counted: str
    """What is counted: a name of `_counted`."""
    add: str
    """The event or command that brings it."""


NEEDS: dict[str, tuple[Need, ...]] = {
    "content": (
        Need("users with enough events with an item", "items", "events with an item_id, several a user"),
        Need("described items", "catalogue", "persona ingest items.jsonl --kind items"),
    ),
    "ui": (
        Need("users who clicked something named", "clicked", "click events with the element as target"),
        Need("users with a known device", "device", "device or user_agent in the context of events"),
    ),
    "plans": (
        Need("users of an account", "account", "account_id in events"),
        Need("accounts with a plan", "plans", "persona ingest accounts.csv --kind accounts, with a column plan"),
        Need("users who bought or upgraded", "bought", "purchase or upgrade events"),
    ),
    "messages": (
        Need("users who opened or followed a message", "channels", "message_open, message_click: target = channel"),
        Need("users with a known time zone or country", "clock", "tz or country in the context of events"),
    ),
    "features": (Need("users of features", "features", "feature_use events with the feature as target"),),
}
_ROWS = ("catalogue", "plans")
"""What is counted in rows, of which one is enough; the rest in users, of whom `SMALLEST_CELL` are needed."""
_BOUGHT = ("purchase", "upgrade")
_LISTS = {"clicked": "clicked", "channels": "channels", "features": "features_used"}


def carrying(home: Home) -> dict[str, dict[str, Any]]:
    """Type → ready, and needs: a list of {what, have, needed, add}, `add` being null where there is enough."""
    counts = _counted(home)
    found: dict[str, dict[str, Any]] = {}
    for kind, needs in NEEDS.items():
        listed = []
        for need in needs:
            have, needed = counts[need.counted], 1 if need.counted in _ROWS else SMALLEST_CELL
            add = need.add if have < needed else None
            listed.append({"what": need.what, "have": have, "needed": needed, "add": add})
        found[kind] = {"ready": all(one["add"] is None for one in listed), "needs": listed}
    return found


def _counted(home: Home) -> dict[str, int]:
    names = [name for need in NEEDS.values() for _, name, _ in need]
    found = dict.fromkeys(names, 0)
    table = tables.open_table(home, folding.NAME)
    if table is not None and table.schema == folding.SCHEMA:
        bought = pl.col("types").list.eval(pl.element().struct.field("event_type").is_in(_BOUGHT)).list.any()
        users = (
            table.scan()
            .select(
                "user_id",
                "items",
                account=pl.col("account_id").is_not_null(),
                device=pl.col("device").is_not_null(),
                clock=pl.col("tz").is_not_null() | pl.col("country").is_not_null(),
                bought=bought,
                **{name: pl.col(column).list.len() > 0 for name, column in _LISTS.items()},
            )
            .group_by("user_id")  # a user may have several partial rows
            .agg(pl.col("items").sum(), pl.exclude("user_id", "items").any())
        )
        enough = pl.col("items") >= home.settings.whole("profiles.cohort_from")
        sums = users.select(enough.sum().alias("items"), pl.exclude("user_id", "items").sum()).collect()
        found |= {name: int(value or 0) for name, value in sums.row(0, named=True).items()}
    if tables.exists(home, "items"):
        found["catalogue"] = tables.row_count(home, "items")
    if (accounts := tables.open_table(home, "accounts")) is not None:
        found["plans"] = accounts.scan().filter(pl.col("plan").is_not_null()).select(pl.len()).collect().item()
    return found
