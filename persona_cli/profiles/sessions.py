"""Sittings: which events of a user belong together, in which order, and how long each lasted until the next.

Events that share a session_id are one session; events without one are split where the pause to the one before is longer
than the gap. Events of the same microsecond are put in the order of their texts, so that no order of rows matters.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.profiles.coding import Ints

PAGES = ("page_view", "screen_view")
"""Event types whose target is the page."""
_TIES = ("event_type", "item_id", "target", "page", "query", "value")
_SECOND = 1_000_000


def session_numbers(user: Ints, time: Ints, session: Ints, named: NDArray[np.bool_], gap: int) -> Ints:
    """(n,) the session of each event, from 0 on in order of first events.

    Events are sorted by user and time (whole numbers, microseconds); `session` counts only where `named`. A session id
    that two users share is two sessions. A pause of exactly `gap` does not split.
    """
    n = len(user)
    found = np.empty(n, dtype=np.int64)
    rest = np.flatnonzero(~named)
    begins = np.ones(len(rest), dtype=bool)
    begins[1:] = (user[rest][1:] != user[rest][:-1]) | (np.diff(time[rest]) > gap)
    found[rest] = np.cumsum(begins) - 1
    with_id = np.flatnonzero(named)
    if len(with_id):
        order = with_id[np.lexsort((session[with_id], user[with_id]))]
        changes = np.ones(len(order), dtype=bool)
        changes[1:] = (user[order][1:] != user[order][:-1]) | (session[order][1:] != session[order][:-1])
        found[order] = int(begins.sum()) + np.cumsum(changes) - 1
    _, first, place = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]


def with_sessions(events: pl.DataFrame, gap_minutes: float) -> pl.DataFrame:
    """Events (user_id, timestamp, session_id, …) with `session` and `position` (Int64, from 0), sorted by both.

    session counts over all users, in order of user and first event; position within the session, by time.
    """
    ties = [name for name in _TIES if name in events.columns]
    events = events.sort("user_id", "timestamp", *ties)
    starts = (events["user_id"] != events["user_id"].shift()).fill_null(True)
    user = starts.cast(pl.Int64).cum_sum().to_numpy()
    named = events["session_id"].is_not_null().to_numpy()
    session = events["session_id"].fill_null("").rank("dense").cast(pl.Int64).to_numpy()
    time = events["timestamp"].to_physical().to_numpy()
    number = session_numbers(user, time, session, named, round(gap_minutes * 60 * _SECOND))
    order = np.argsort(number, kind="stable")
    number = number[order]
    begins = np.flatnonzero(np.diff(number, prepend=-1))
    position = np.arange(len(number)) - np.repeat(begins, np.diff(begins, append=len(number)))
    return events[order].with_columns(session=pl.Series(number), position=pl.Series(position))


def with_dwell(sessions: pl.DataFrame) -> pl.DataFrame:
    """Rows of `with_sessions` with `seconds` Float64: to the next event of the same session; null for its last."""
    following = pl.col("timestamp").shift(-1)
    same = pl.col("session").shift(-1) == pl.col("session")
    seconds = (following - pl.col("timestamp")).dt.total_microseconds() / _SECOND
    return sessions.with_columns(seconds=pl.when(same).then(seconds))


def moves(sessions: pl.DataFrame, place: pl.Expr) -> pl.DataFrame:
    """user_id, session, from, to: the steps of each session from one place to another one, in order.

    `place` of rows of `with_sessions`; events without a place are passed over, and staying at a place is no move.
    """
    at = sessions.select("user_id", "session", to=place).filter(pl.col("to").is_not_null())
    before = pl.col("to").shift()
    moved = (pl.col("session") == pl.col("session").shift()) & (before != pl.col("to"))
    return (
        at.with_columns(pl.when(moved).then(before).alias("from"))
        .drop_nulls("from")
        .select("user_id", "session", "from", "to")
    )
