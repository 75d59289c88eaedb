"""What `persona sql` can see: every table of the workspace as people mean it.

`items`, `users` and `accounts` are the rows that hold now, `history` the sums of its partial folds, `profiles` with the
columns that are derived when read, `navigation` the transitions that enough users made. The others are as they are
stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from persona_cli.events.schema import KEY, Kind
from persona_cli.profiles.people import people
from persona_cli.profiles.permitted import ANALYTICS, allowed
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
    from persona_cli.profiles.navigation import navigation

    return navigation(home)[0].to_arrow() if tables.exists(home, "events") else None
