"""What `persona sql` can see, the transitions between pages among it.

What `persona sql` can see: every table of the workspace as people mean it.

`items`, `users` and `accounts` are the rows that hold now, `history` the sums of its partial folds, `profiles` with the
columns that are derived when read, `navigation` the transitions that enough users made. The others are as they are
stored.

From where to where people go: transition counts within sessions.

Counts are made from the events when they are asked for and are no part of a profile: an event that arrives late between
two others takes one transition back and adds two, which sums of counts cannot know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from persona_cli.events.schema import KEY, Kind
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.people import people
from persona_cli.profiles.permitted import ANALYTICS, allowed, person_events, refusal
from persona_cli.profiles.sessions import PAGES, moves, with_sessions
from persona_cli.workspace import query, tables
from persona_cli.workspace.home import Home

STORED = ("events", "decisions", "quarantine")
# The partial folds of one key add up to its row, or to nothing.
_HISTORY = """
SELECT user_id, item_id, day, sum(strength)::BIGINT AS strength, sum(n)::INTEGER AS n,
       sum(consumed)::INTEGER AS consumed, sum(never)::INTEGER AS never,
       sum(rated)::BIGINT AS rated, sum(ratings)::INTEGER AS ratings
FROM history_parts GROUP BY user_id, item_id, day HAVING sum(n) <> 0
"""
VIEWS = {"history": ("history_parts", _HISTORY)}


@contextmanager
def answering(home: Home, sql: str) -> Iterator[query.Answer]:
    """The answer to one SELECT over the workspace; see `workspace.query.answering`."""
    sources: dict[str, query.Source] = {name: partial(_stored, home, name) for name in STORED}
    sources["history_parts"] = partial(_stored, home, "history")
    sources["profiles"] = partial(_profiles, home)
    sources["navigation"] = partial(_navigation, home)
    sources |= {kind: partial(_current, home, kind) for kind in KEY}
    with query.answering(home, sql, sources, VIEWS) as answer:
        yield answer


def ask(home: Home, sql: str) -> pl.DataFrame:
    """The answer to one SELECT over the workspace as a frame."""
    with answering(home, sql) as answer:
        return pl.DataFrame(pl.from_arrow(answer.table()))


def _stored(home: Home, name: str) -> ds.Dataset | None:
    """The rows of those whom analytics cover; of a line in quarantine nobody knows whose it is."""
    table = tables.open_table(home, name)
    if table is None:
        return None
    rows, who = query.dataset(table), allowed(home, ANALYTICS)
    ids = [pc.field(column) for column in ("user_id", "anon_id") if column in table.schema.names]
    if who.everybody or not ids:
        return rows
    there = pc.coalesce(*ids).isin(pa.array(who.ids.to_arrow()))
    return rows.filter(there if who.only else ~there)


def _current(home: Home, kind: Kind) -> pa.Table | None:
    from persona_cli.events.catalogue import current

    if not tables.exists(home, kind):
        return None
    rows = current(home, kind)
    return (allowed(home, ANALYTICS, rows["user_id"]).rows(rows) if kind == "users" else rows).to_arrow()


def _profiles(home: Home) -> pa.Table | None:
    return people(home, purpose=ANALYTICS).to_arrow() if tables.exists(home, "profiles") else None


def _navigation(home: Home) -> pa.Table | None:

    return navigation(home)[0].to_arrow() if tables.exists(home, "events") else None


By = Literal["place", "item", "type"]
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
