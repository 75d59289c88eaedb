"""What every fold is given, and how it counts.

What every fold is given: the events of some users, sorted, and the rules of the workspace.

Counts by value as a column: a list of (value, n) sorted by value; folded from codes, added up when merged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.profiles.coding import Coded, Ints, compacted, run_starts, sort_order
from persona_cli.workspace.settings import Settings

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
RULE_SETTINGS = ("profiles.session_gap_minutes",)
"""Settings that folds depend on: a change of one folds everything again."""


@dataclass(frozen=True)
class FoldRules:
    """What folds and merges depend on beside events."""

    session_gap: int
    """A pause longer than this many microseconds splits events without a session_id into two sessions."""

    @classmethod
    def of(cls, settings: Settings) -> FoldRules:
        return cls(session_gap=round(settings.number("profiles.session_gap_minutes") * MINUTE))


@dataclass(frozen=True)
class Part:
    """All events (n) of some users, sorted by user and time; those of one microsecond are in no order."""

    events: Coded
    """Every column that the folds need but `timestamp`; session_id as its number (`text_numbers`)."""
    user: Ints
    """(n,) place of each event's user in `users`."""
    users: pl.Series
    """(n_users,) keys, sorted; each has at least one event."""
    time: Ints
    """(n,) microseconds since 1970."""
    starts: Ints
    """(n_users,) where each user's events begin."""
    ends: Ints
    """(n_users,) and where they end."""


def part_of(events: Coded) -> Part | None:
    """Events in any order as a part; None where there are none."""
    user = events.codes("user_id")
    if user is None or not len(user):
        return None
    user, users = compacted(user, events.values["user_id"])
    time = events.rows["timestamp"].to_physical().to_numpy()
    earliest = int(time.min())
    order = sort_order([(user, len(users)), (time - earliest, int(time.max()) - earliest + 1)])
    user, time, events = user[order], time[order], Coded(events.rows.drop("timestamp")[order], events.values)
    starts = run_starts(user)
    return Part(events, user, users, time, starts, np.append(starts[1:], len(user)))


def owners(rows: pl.DataFrame) -> tuple[Ints, pl.Series]:
    """(n_rows,) the place of each partial row's user among the users (n_users,), which are sorted."""
    users = rows["user_id"].unique().sort()
    return rows["user_id"].cast(pl.Enum(users)).to_physical().cast(pl.Int64).to_numpy(), users


def times(microseconds: Ints) -> pl.Series:
    """Microseconds since 1970 as times; the smallest integer as null."""
    return pl.Series(microseconds).replace(NEVER, None).cast(pl.Datetime("us", "UTC"))


NEVER = int(np.iinfo(np.int64).min)
"""The instant of what never happened."""


def counts_type(name: str) -> pa.DataType:
    """list<struct<NAME: string, n: int64>>"""
    return pa.list_(pa.struct([pa.field(name, pa.string()), pa.field("n", pa.int64())]))


def counts(name: str, part: Part) -> pl.Series:
    """Events by the values of a text column (n_users,)."""
    code = part.events.codes(name)
    if code is None:
        return coded_counts(name, part, np.full(len(part.user), -1), pl.Series(dtype=pl.String))
    return coded_counts(name, part, code, part.events.values[name])


def coded_counts(name: str, part: Part, code: Ints, values: pl.Series) -> pl.Series:
    """Events by `values`, sorted texts, of which each has one by its code (n,), -1 for none (n_users,)."""
    user, n_users = part.user, len(part.users)
    given = code >= 0
    owner, code = (user, code) if given.all() else (user[given], code[given])
    if n_users * len(values) <= 4 * len(user):
        counted = np.bincount(owner * len(values) + code, minlength=n_users * len(values))
        key = np.flatnonzero(counted)
        n = counted[key]
    else:
        key, n = np.unique(owner * max(len(values), 1) + code, return_counts=True)
    owner, value = np.divmod(key, max(len(values), 1))
    return lists(owner, n_users, pl.DataFrame({name: values.gather(value), "n": n}))


def merged_counts(column: str, name: str, rows: pl.DataFrame) -> pl.Series:
    """The counts of the partial rows added up (n_users,); users sorted."""
    owner, users = owners(rows)
    flat = pl.DataFrame({"owner": owner, column: rows[column]}).explode(column).drop_nulls().unnest(column)
    added = flat.group_by("owner", name).agg(pl.col("n").sum()).sort("owner", name)
    return lists(added["owner"].to_numpy(), len(users), added.select(name, "n"))


def lists(owner: Ints, n_users: int, entries: pl.DataFrame) -> pl.Series:
    """Entries (m,) as a list of structs of each user (n_users,); `owner` (m,) is ascending."""
    structs = entries.to_struct().rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    return as_lists(np.searchsorted(owner, np.arange(n_users + 1)), structs)


def as_lists(offsets: Ints, entries: pa.Array) -> pl.Series:
    """Entries (m,) as lists (n,) between `offsets` (n + 1,)."""
    # Not by pa.array, which imports pandas where it is installed, nor by casts of pyarrow, which import its functions.
    bounds = pl.Series(offsets, dtype=pl.Int32).to_arrow()
    return pl.Series(pl.from_arrow(pa.ListArray.from_arrays(bounds, entries)))
