"""How much and when: counts of events, first and last, sessions.

A session is what shares a session_id; events without one are split where the pause to the one before is longer than the
gap. Sessions are kept as intervals, so that events that come later join, prolong or begin them: intervals of events
without an id merge by the same rule as the events do, since no pause inside one is longer than the gap.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.profiles.coding import Ints, run_starts
from persona_cli.profiles.folds.part import (
    SECOND,
    FoldRules,
    Part,
    counts,
    counts_type,
    lists,
    merged_counts,
    owners,
    times,
)

_INTERVAL = [
    pa.field("session", pa.int64()),
    pa.field("first", UTC_MICROSECONDS),
    pa.field("last", UTC_MICROSECONDS),
]
FIELDS = (
    pa.field("first_seen", UTC_MICROSECONDS),
    pa.field("last_seen", UTC_MICROSECONDS),
    pa.field("events", pa.int64()),
    pa.field("items", pa.int64()),
    pa.field("types", counts_type("event_type")),
    pa.field("sessions", pa.int64()),
    pa.field("session_seconds", pa.float64()),
    # Sorted by first; session is the number of its id (text_numbers), null for events without one.
    pa.field("_intervals", pa.list_(pa.struct(_INTERVAL))),
)
NEEDED = ("item_id", "event_type", "session_id")
TEXTS = ("item_id", "event_type")


def fold(part: Part, rules: FoldRules) -> dict[str, pl.Series]:
    """items: events with an item. types: events by type. session_seconds: from the first to the last event of
    each session, summed.
    """
    item = part.events.codes("item_id")
    with_item = np.full(len(part.user), False) if item is None else item >= 0
    return {
        "first_seen": times(part.time[part.starts]),
        "last_seen": times(part.time[part.ends - 1]),
        "events": pl.Series(part.ends - part.starts),
        "items": pl.Series(np.add.reduceat(with_item, part.starts, dtype=int)),
        "types": counts("event_type", part),
        **_sessions(*_intervals(part, rules.session_gap), len(part.users)),
    }


def merge(rows: pl.DataFrame, rules: FoldRules) -> pl.DataFrame:
    owner, users = owners(rows)
    sums = ("events", "items")
    order = np.argsort(owner, kind="stable")
    starts = run_starts(owner[order])
    ordered = rows[order]
    columns: dict[str, pl.Series] = {
        "user_id": users,
        "first_seen": times(np.minimum.reduceat(ordered["first_seen"].to_physical().to_numpy(), starts)),
        "last_seen": times(np.maximum.reduceat(ordered["last_seen"].to_physical().to_numpy(), starts)),
        **{name: pl.Series(np.add.reduceat(ordered[name].to_numpy(), starts)) for name in sums},
        "types": merged_counts("types", "event_type", rows),
        **_sessions(*merged_intervals(owner, rows["_intervals"], rules.session_gap), len(users)),
    }
    return pl.DataFrame({name: columns[name] for name in ("user_id", *(field.name for field in FIELDS))})


_Intervals = tuple[Ints, pl.Series, Ints, Ints]
"""Owner, session (Int64, nullable), first and last (microseconds) of each session (m,)."""


def _intervals(part: Part, gap: int) -> _Intervals:
    session = part.events.rows["session_id"]
    given = session.is_not_null().to_numpy()
    owner, moment = (part.user[~given], part.time[~given]) if given.any() else (part.user, part.time)
    starts = _beginnings(owner, moment, moment, gap)
    unnamed = owner[starts], moment[starts], moment[_ends(starts, len(owner))]
    if not given.any():
        return unnamed[0], _no_session(len(starts)), *unnamed[1:]
    # A session_id that two users share is two sessions. The sort is stable: users and times stay in order.
    of, owner, moment = session.drop_nulls().to_numpy(), part.user[given], part.time[given]
    order = np.argsort(of, kind="stable")
    of, owner, moment = of[order], owner[order], moment[order]
    starts = run_starts(owner, of)
    named = owner[starts], moment[starts], moment[_ends(starts, len(of))]
    owner, first, last = (np.concatenate(both) for both in zip(named, unnamed, strict=True))
    return owner, pl.concat([pl.Series(of[starts]), _no_session(len(unnamed[0]))]), first, last


def merged_intervals(owner: Ints, intervals: pl.Series, gap: int) -> _Intervals:
    """The sessions of partial rows (n,), those of an owner joined where no more than the gap lies between."""
    flat = pl.DataFrame({"owner": owner, "_": intervals}).explode("_").unnest("_")
    flat = flat.with_columns(pl.col("first", "last").to_physical())
    key = ("owner", "session")
    named = flat.filter(pl.col("session").is_not_null()).group_by(key).agg(pl.col("first").min(), pl.col("last").max())
    rest = flat.filter(pl.col("session").is_null()).sort("owner", "first")
    until = rest.select(pl.col("last").cum_max().over("owner")).to_series().to_numpy()
    starts = _beginnings(rest["owner"].to_numpy(), rest["first"].to_numpy(), until, gap)
    unnamed = rest[starts].with_columns(last=pl.Series(until[_ends(starts, rest.height)], dtype=pl.Int64))
    both = pl.concat([named.select(unnamed.columns), unnamed])
    return both["owner"].to_numpy(), both["session"], both["first"].to_numpy(), both["last"].to_numpy()


def _beginnings(owner: Ints, first: Ints, until: Ints, gap: int) -> Ints:
    """Where sessions begin among events or intervals (m,) sorted by owner and first; `until`: latest last so far."""
    begins = np.ones(len(owner), dtype=bool)
    begins[1:] = (owner[1:] != owner[:-1]) | (first[1:] - until[:-1] > gap)
    return np.flatnonzero(begins)


def _ends(starts: Ints, n: int) -> Ints:
    """Where the runs that begin at `starts` end, themselves included."""
    return np.append(starts[1:], n)[: len(starts)] - 1


def _no_session(n: int) -> pl.Series:
    return pl.Series([None], dtype=pl.Int64).new_from_index(0, n)


def _sessions(owner: Ints, session: pl.Series, first: Ints, last: Ints, n_users: int) -> dict[str, pl.Series]:
    if session.null_count() < len(session):
        table = pl.DataFrame({"owner": owner, "first": first, "last": last, "session": session})
        table = table.sort("owner", "first", "last", "session")
        owner, session, first, last = (
            table["owner"].to_numpy(),
            table["session"],
            table["first"].to_numpy(),
            table["last"].to_numpy(),
        )
    lasted = np.zeros(n_users, dtype=np.int64)
    np.add.at(lasted, owner, last - first)
    moments = {name: pl.Series(at).cast(pl.Datetime("us", "UTC")) for name, at in (("first", first), ("last", last))}
    return {
        "sessions": pl.Series(np.bincount(owner, minlength=n_users)),
        "session_seconds": pl.Series(lasted / SECOND),
        "_intervals": lists(owner, n_users, pl.DataFrame({"session": session, **moments})),
    }
