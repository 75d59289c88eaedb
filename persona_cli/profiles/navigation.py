"""From where to where people go: transition counts within sessions.

Counts are made from the events when they are asked for and are no part of a profile: an event that arrives late between
two others takes one transition back and adds two, which sums of counts cannot know.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import polars as pl

from persona_cli.profiles.cells import SMALLEST_CELL
from persona_cli.profiles.permitted import ANALYTICS, person_events, refusal
from persona_cli.profiles.sessions import moves, with_sessions
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

By = Literal["place", "item", "type"]
PAGES = ("page_view", "screen_view")
"""Event types whose target is the page."""
MEASURED = ("dwell", "heartbeat", "scroll", "impression")
"""Event types that say something about where somebody is, and are no step."""
_COLUMNS = ("timestamp", "session_id", "event_type", "item_id", "target", "page")
_SCHEMA: dict[str, type[pl.DataType]] = {"from": pl.String, "to": pl.String, "n": pl.Int64}


def place_of(by: By) -> pl.Expr:
    """`place`: the page, else the target of a page view, else the event type in brackets; `item`; `type`."""
    if by == "item":
        return pl.col("item_id")
    if by == "type":
        return pl.col("event_type")
    target = pl.when(pl.col("event_type").is_in(PAGES)).then("target")
    return pl.coalesce("page", target, pl.format("({})", "event_type"))


def navigation(home: Home, by: By = "place", as_of: datetime | None = None) -> tuple[pl.DataFrame, int]:
    """from, to, n, users over everybody, most often first; and how many transitions of too few users are left out."""
    if not tables.exists(home, "events"):
        return pl.DataFrame(schema=_SCHEMA | {"users": pl.Int64}), 0
    found = _moves(home, by, as_of)
    counted = found.group_by("from", "to").agg(
        pl.len().cast(pl.Int64).alias("n"), pl.col("user_id").n_unique().cast(pl.Int64).alias("users")
    )
    shown = counted.filter(pl.col("users") >= SMALLEST_CELL)
    shown = shown.sort("n", "from", "to", descending=[True, False, False])
    return shown, counted.height - shown.height


def navigation_of(home: Home, user: str, by: By = "place", as_of: datetime | None = None) -> pl.DataFrame:
    """from, to, n of one user, most often first. Raises Refused where analytics do not cover the person."""
    if not tables.exists(home, "events"):
        return pl.DataFrame(schema=_SCHEMA)
    if (why := refusal(home, user, ANALYTICS)) is not None:
        raise why
    counted = _moves(home, by, as_of, user).group_by("from", "to").agg(pl.len().cast(pl.Int64).alias("n"))
    return counted.sort("n", "from", "to", descending=[True, False, False])


def _moves(home: Home, by: By, as_of: datetime | None, user: str | None = None) -> pl.DataFrame:
    events = person_events(home, as_of, purpose=ANALYTICS).select("user_id", *_COLUMNS)
    events = events.filter(~pl.col("event_type").is_in(MEASURED))
    if user is not None:
        events = events.filter(pl.col("user_id") == user)
    sessions = with_sessions(events.collect(), home.settings.number("profiles.session_gap_minutes"))
    return moves(sessions, place_of(by))
