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
import pyarrow.dataset as ds

from persona_cli.events.schema import KEY, Kind
from persona_cli.profiles.people import people
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
    table = tables.open_table(home, name)
    return None if table is None else query.dataset(table)


def _current(home: Home, kind: Kind) -> pa.Table | None:
    from persona_cli.events.catalogue import current

    return current(home, kind).to_arrow() if tables.exists(home, kind) else None


def _profiles(home: Home) -> pa.Table | None:
    return people(home).to_arrow() if tables.exists(home, "profiles") else None


def _navigation(home: Home) -> pa.Table | None:
    from persona_cli.profiles.navigation import navigation

    return navigation(home)[0].to_arrow() if tables.exists(home, "events") else None
