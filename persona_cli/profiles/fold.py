"""The fold of a user's own events into one profile row: who, when, how much, in which context.

The row is the same whatever the order of the events. The latest value of a context column is that of the latest event
that has one, and of events at the same microsecond the value that sorts last.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.profiles.coding import Coded, Ints, coded, compacted, run_starts, sort_order

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
TEXTS = ("user_id", "item_id", "event_type", *LATEST)
NOBODY = pl.DataFrame(pl.from_arrow(SCHEMA.empty_table())).drop("bucket")
_SECOND = 1_000_000
_HOUR = 3600 * _SECOND


def fold_users(events: pl.DataFrame, session_gap_minutes: float) -> pl.DataFrame:
    """One row a user of the events given, sorted by user_id; columns `COLUMNS`.

    `events` has the columns `NEEDED`. items: events with an item. types, devices: counts, sorted by name. hours: events
    by hour of day (24), local where the event names its time zone, else UTC. A session is what shares a session_id;
    events without one are split where the pause to the one before is longer than `session_gap_minutes`.
    session_seconds: time from the first to the last event of each session, summed.
    """
    return fold_coded(coded(events.with_columns(session_number()), TEXTS), session_gap_minutes)


def session_number() -> pl.Expr:
    """A 64-bit hash of session_id: all that the fold asks is which events of a user share one."""
    return pl.when(pl.col("session_id").is_not_null()).then(pl.col("session_id").hash()).alias("session_id")


def fold_coded(events: Coded, session_gap_minutes: float) -> pl.DataFrame:
    """As `fold_users`, of coded events with session numbers."""
    user = events.codes("user_id")
    if user is None or not len(user):
        return NOBODY
    user, users = compacted(user, events.values["user_id"])
    time = events.rows["timestamp"].to_physical().to_numpy()
    earliest = int(time.min())
    order = sort_order([(user, len(users)), (time - earliest, int(time.max()) - earliest + 1)])
    user, time, events = user[order], time[order], Coded(events.rows.drop("timestamp")[order], events.values)
    starts = run_starts(user)  # (n_users,)
    ends = np.append(starts[1:], len(user))
    item = events.codes("item_id")
    columns: dict[str, pl.Series] = {
        "user_id": users,
        "first_seen": _times(time[starts]),
        "last_seen": _times(time[ends - 1]),
        "events": pl.Series(ends - starts),
        "items": pl.Series(np.add.reduceat((np.full(len(user), -1) if item is None else item) >= 0, starts, dtype=int)),
        "types": _counts("event_type", events, user, len(users)),
        "hours": _hours(events, user, time, len(users)),
        "devices": _counts("device", events, user, len(users)),
    }
    gap = round(session_gap_minutes * 60 * _SECOND)
    sessions, microseconds = _sessions(events.rows["session_id"], user, time, len(users), gap)
    columns["sessions"] = pl.Series(sessions)
    columns["session_seconds"] = pl.Series(microseconds / _SECOND)
    runs = run_starts(user, time)
    first_runs, last_runs = np.searchsorted(runs, starts), np.searchsorted(runs, ends) - 1
    for name in LATEST:
        columns[name] = _latest(name, events, runs, first_runs, last_runs)
    return pl.DataFrame({name: columns[name] for name in COLUMNS})


def _latest(name: str, events: Coded, runs: Ints, first_runs: Ints, last_runs: Ints) -> pl.Series:
    """The value of each user's latest run of simultaneous events that has one (n_users,)."""
    code = events.codes(name)
    if code is None:
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(last_runs))
    in_run = np.maximum.reduceat(code, runs)  # null is -1, so any value wins over it
    latest = np.maximum.accumulate(np.where(in_run >= 0, np.arange(len(runs)), -1))[last_runs]
    code = np.where(latest >= first_runs, in_run[latest], -1)
    return events.values[name].gather(pl.Series(code).replace(-1, None))


def _counts(name: str, events: Coded, user: Ints, n_users: int) -> pl.Series:
    """Events by the values of a column, List[Struct{name, n}] sorted by value (n_users,)."""
    values, code = events.values[name], events.codes(name)
    if code is None:
        code, values = np.full(len(user), -1), pl.Series(dtype=pl.String)
    given = code >= 0
    owner, code = (user, code) if given.all() else (user[given], code[given])
    if n_users * len(values) <= 4 * len(user):
        counted = np.bincount(owner * len(values) + code, minlength=n_users * len(values))
        key = np.flatnonzero(counted)
        n = counted[key]
    else:
        key, n = np.unique(owner * max(len(values), 1) + code, return_counts=True)
    owner, value = np.divmod(key, max(len(values), 1))
    structs = pa.StructArray.from_arrays(
        [values.gather(value).to_arrow().cast(pa.string()), pa.array(n, type=_COUNT)],
        fields=[pa.field(name, pa.string()), pa.field("n", _COUNT)],
    )
    return _lists(np.searchsorted(owner, np.arange(n_users + 1)), structs)


def _hours(events: Coded, user: Ints, time: Ints, n_users: int) -> pl.Series:
    hour = time // _HOUR % 24
    zones = events.codes("tz")
    for code in () if zones is None else np.unique(zones[zones >= 0]):
        there = np.flatnonzero(zones == code)
        try:
            local = _times(time[there]).dt.convert_time_zone(events.values["tz"][int(code)]).dt.hour()
        except pl.exceptions.PolarsError:  # not the name of a zone: the hour stays that of UTC
            continue
        hour[there] = local.to_numpy()
    counted = np.bincount(user * 24 + hour, minlength=n_users * 24).astype(np.int32)
    return _lists(np.arange(0, n_users * 24 + 1, 24), pa.array(counted))


def _lists(offsets: Ints, entries: pa.Array) -> pl.Series:
    return pl.Series(pl.from_arrow(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), entries)))


def _sessions(session: pl.Series, user: Ints, time: Ints, n_users: int, gap: int) -> tuple[Ints, Ints]:
    """Sessions and their microseconds by user (n_users,) each, of events sorted by user and time."""
    number, length = np.zeros(n_users, dtype=np.int64), np.zeros(n_users, dtype=np.int64)
    given = session.is_not_null().to_numpy()
    if given.any():
        # A session_id that two users share is two sessions. The sort is stable: users and times stay in order.
        of, owner, moment = session.drop_nulls().to_numpy(), user[given], time[given]
        order = np.argsort(of, kind="stable")
        of, owner, moment = of[order], owner[order], moment[order]
        starts = run_starts(owner, of)
        lasted = moment[np.append(starts[1:], len(of)) - 1] - moment[starts]
        number += np.bincount(owner[starts], minlength=n_users)
        np.add.at(length, owner[starts], lasted)
    owner, moment = (user[~given], time[~given]) if given.any() else (user, time)
    pause = np.diff(moment)
    goes_on = (owner[1:] == owner[:-1]) & (pause <= gap)
    number += np.bincount(owner, minlength=n_users) - np.bincount(owner[1:][goes_on], minlength=n_users)
    np.add.at(length, owner[1:][goes_on], pause[goes_on])
    return number, length


def _times(microseconds: Ints) -> pl.Series:
    return pl.Series(microseconds).cast(pl.Datetime("us", "UTC"))
