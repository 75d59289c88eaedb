"""The fold of a user's own events into one profile row: who, when, how much, in which context.

The row is the same whatever the order of the events. The latest value of a context column is that of the latest event
that has one, and of events at the same microsecond the value that sorts last.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.profiles.coding import Ints, codes, run_starts, sort_order

NAME = "profiles"
LATEST = ("account_id", "device", "browser", "os", "country", "network", "locale", "tz", "consent")
_COUNT = pa.int64()


def _counts_type(name: str) -> pa.DataType:
    return pa.list_(pa.struct([pa.field(name, pa.string()), pa.field("n", _COUNT)]))


SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("account_id", pa.string()),
        pa.field("first_seen", UTC_MICROSECONDS),
        pa.field("last_seen", UTC_MICROSECONDS),
        pa.field("events", _COUNT),
        pa.field("items", _COUNT),
        pa.field("types", _counts_type("event_type")),
        pa.field("sessions", _COUNT),
        pa.field("session_seconds", pa.float64()),
        pa.field("hours", pa.list_(pa.int32())),
        pa.field("devices", _counts_type("device")),
        pa.field("device", pa.string()),
        pa.field("browser", pa.string()),
        pa.field("os", pa.string()),
        pa.field("country", pa.string()),
        pa.field("network", pa.string()),
        pa.field("locale", pa.string()),
        pa.field("tz", pa.string()),
        pa.field("consent", pa.string()),
        pa.field("bucket", pa.int32()),
    ]
)
COLUMNS = tuple(name for name in SCHEMA.names if name != "bucket")
# What the fold reads of an event, with the user's key as user_id.
NEEDED = ("user_id", "item_id", "timestamp", "event_type", "session_id", *LATEST)
NOBODY = pl.DataFrame(pl.from_arrow(SCHEMA.empty_table())).drop("bucket")
_MICROSECONDS = 1_000_000


def fold_users(events: pl.DataFrame, session_gap_minutes: float) -> pl.DataFrame:
    """One row a user of the events given, sorted by user_id; columns `COLUMNS`.

    `events` has the columns `NEEDED`. items: events with an item. types, devices: counts, sorted by name. hours: events
    by hour of day (24), local where the event names its time zone, else UTC. A session is what shares a session_id;
    events without one are split where the pause to the one before is longer than `session_gap_minutes`.
    session_seconds: time from the first to the last event of each session, summed.
    """
    if not events.height:
        return NOBODY
    users, user = codes(events["user_id"])
    time = events["timestamp"].to_physical().to_numpy()
    earliest = int(time.min())
    order = sort_order([(user, len(users)), (time - earliest, int(time.max()) - earliest + 1)])
    user, time, events = user[order], time[order], events[order]
    starts = run_starts(user)  # (n_users,)
    ends = np.append(starts[1:], len(user))
    columns: dict[str, pl.Series] = {
        "user_id": users,
        "first_seen": _times(time[starts]),
        "last_seen": _times(time[ends - 1]),
        "events": pl.Series(ends - starts),
        "items": pl.Series(np.add.reduceat(events["item_id"].is_not_null().to_numpy().astype(np.int64), starts)),
        "types": _counts("event_type", events, user, len(users)),
        "hours": _hours(events, user, len(users)),
        "devices": _counts("device", events, user, len(users)),
    }
    sessions, microseconds = _sessions(events, user, time, len(users), round(session_gap_minutes * 60 * _MICROSECONDS))
    columns["sessions"] = pl.Series(sessions)
    columns["session_seconds"] = pl.Series(microseconds / _MICROSECONDS)
    runs = run_starts(user, time)
    run_ends = np.searchsorted(runs, ends) - 1  # the last run of each user
    for name in LATEST:
        columns[name] = _latest(events[name], runs, np.searchsorted(runs, starts), run_ends)
    return pl.DataFrame({name: columns[name] for name in COLUMNS})


def _latest(column: pl.Series, runs: Ints, first_runs: Ints, last_runs: Ints) -> pl.Series:
    """The value of each user's latest run of simultaneous events that has one (n_users,)."""
    if column.null_count() == column.len():
        return pl.Series(column.name, [None], dtype=pl.String).new_from_index(0, len(last_runs))
    values, code = codes(column)
    in_run = np.maximum.reduceat(code, runs)  # null is -1, so any value wins over it
    latest = np.maximum.accumulate(np.where(in_run >= 0, np.arange(len(runs)), -1))[last_runs]
    code = np.where(latest >= first_runs, in_run[latest], -1)
    return values.gather(pl.Series(code).replace(-1, None))


def _counts(name: str, events: pl.DataFrame, user: Ints, n_users: int) -> pl.Series:
    """Events by the values of a column, List[Struct{name, n}] sorted by value (n_users,)."""
    values, code = codes(events[name])
    given = code >= 0
    key, n = np.unique(user[given] * max(len(values), 1) + code[given], return_counts=True)
    owner, value = np.divmod(key, max(len(values), 1))
    structs = pa.StructArray.from_arrays(
        [values.gather(value).to_arrow().cast(pa.string()), pa.array(n, type=_COUNT)],
        fields=[pa.field(name, pa.string()), pa.field("n", _COUNT)],
    )
    offsets = np.searchsorted(owner, np.arange(n_users + 1)).astype(np.int32)
    return pl.Series(pl.from_arrow(pa.ListArray.from_arrays(pa.array(offsets), structs)))


def _hours(events: pl.DataFrame, user: Ints, n_users: int) -> pl.Series:
    hour = events["timestamp"].dt.hour().cast(pl.Int64).to_numpy()
    if events["tz"].null_count() < events.height:
        hour = hour.copy()
        for zone in events["tz"].drop_nulls().unique():
            there = (events["tz"] == zone).fill_null(False)
            try:
                local = events["timestamp"].filter(there).dt.convert_time_zone(zone).dt.hour()
            except pl.exceptions.PolarsError:  # not the name of a zone: the hour stays that of UTC
                continue
            hour[there.to_numpy()] = local.cast(pl.Int64).to_numpy()
    counted = np.bincount(user * 24 + hour, minlength=n_users * 24).astype(np.int32)
    offsets = np.arange(0, n_users * 24 + 1, 24, dtype=np.int32)
    return pl.Series(pl.from_arrow(pa.ListArray.from_arrays(pa.array(offsets), pa.array(counted))))


def _sessions(events: pl.DataFrame, user: Ints, time: Ints, n_users: int, gap: int) -> tuple[Ints, Ints]:
    """Sessions and their microseconds by user (n_users,) each, of events sorted by user and time."""
    named, code = codes(events["session_id"])
    number, length = np.zeros(n_users, dtype=np.int64), np.zeros(n_users, dtype=np.int64)
    given = code >= 0
    if given.any():
        # A session_id that two users share is two sessions.
        order = np.flatnonzero(given)[sort_order_within(user[given], code[given], len(named), n_users)]
        starts = run_starts(user[order], code[order])
        ends = np.append(starts[1:], len(order)) - 1
        owner = user[order][starts]
        np.add.at(number, owner, 1)
        np.add.at(length, owner, time[order][ends] - time[order][starts])
    owner, moment = (user, time) if not given.any() else (user[~given], time[~given])
    if len(owner):
        pause = np.diff(moment)
        goes_on = (owner[1:] == owner[:-1]) & (pause <= gap)
        number += np.bincount(owner, minlength=n_users) - np.bincount(owner[1:][goes_on], minlength=n_users)
        np.add.at(length, owner[1:][goes_on], pause[goes_on])
    return number, length


def sort_order_within(user: Ints, session: Ints, n_sessions: int, n_users: int) -> NDArray[np.int64]:
    """A stable order by user and session: events of one session stay in the order of their times."""
    return np.lexsort((session, user)) if n_sessions else np.arange(len(user))


def _times(microseconds: Ints) -> pl.Series:
    return pl.Series(microseconds).cast(pl.Datetime("us", "UTC"))
