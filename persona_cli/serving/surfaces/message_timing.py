"""When a message can be sent: the local hours ahead, quiet hours, and caps over what was sent and decided before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from persona_cli.models.stored import positions
from persona_cli.profiles.coding import Ints
from persona_cli.profiles.context import DAY, HOUR
from persona_cli.profiles.features import Floats
from persona_cli.serving.surfaces.message_learning import HOURS, local
from persona_cli.serving.surfaces.visitors import Flags

WEEK = 7
_QUARTER = HOUR // 4
_BEFORE, _AFTER = WEEK - 1, WEEK + 4
"""Days around today within which a message can share a week with one of the window."""
_NEAR = HOUR
"""A message that was sent within an hour of when it was to be is the one that was decided."""


class Slots(NamedTuple):
    """Moments at which a message could be sent: now, and whenever a local hour begins within the window."""

    at: Ints
    """UTC, µs (Z, S)."""
    hour: Ints
    """Local, 0 to 23 (Z, S)."""
    day: Ints
    """Local day, 0: today (Z, S)."""
    local: Ints
    """By the clock on the wall, µs (Z, S)."""
    there: Flags
    """False: fewer such moments are ahead in this zone (Z, S)."""
    today: Ints
    """Local day of now since 1970 (Z,)."""


def slots(zones: pl.Series, now: int, window_hours: int) -> Slots:
    """The moments ahead in each zone (Z,). An hour that clocks skip is not there; one that comes twice is there twice.

    Local hours begin on a quarter of an hour of UTC everywhere.
    """
    first = -(-now // _QUARTER) * _QUARTER
    grid = np.arange(first, now + window_hours * HOUR, _QUARTER, dtype=np.int64)
    grid = np.concatenate([[now], grid[grid > now]]).astype(np.int64)
    n_zones = len(zones)
    clock = local(np.tile(grid, n_zones), zones.gather(np.repeat(np.arange(n_zones), len(grid)))).reshape(n_zones, -1)
    starts = clock % HOUR == 0
    starts[:, 0] = True
    width = int(starts.sum(axis=1).max()) if n_zones else 0
    order = np.argsort(~starts, axis=1, kind="stable")[:, :width]
    there = np.take_along_axis(starts, order, axis=1)
    wall = np.take_along_axis(clock, order, axis=1)
    today = clock[:, 0] // DAY
    return Slots(grid[order], wall // HOUR % HOURS, wall // DAY - today[:, None], wall, there, today)


def quiet(hour: Ints, hours: tuple[int, ...]) -> Flags:
    """Whether an hour is one of the quiet ones, from the first until before the second."""
    if not hours:
        return np.zeros(hour.shape, dtype=bool)
    start, end = (one % HOURS for one in hours)
    found: Flags = (hour >= start) & (hour < end) if start < end else (hour >= start) | (hour < end)
    return found


def messages(sent: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """row, at of all messages, sent and decided (row, channel, at), each once.

    A decision and the message nearest to its moment, on the same channel and within an hour, are one; nobody's second
    message is taken for it.
    """
    both = ["row", "channel", "at"]
    sent, decided = sent.select(both).sort(both), decided.select(both).sort(both)
    if not sent.height or not decided.height:
        return pl.concat([sent, decided]).select("row", "at")
    numbered = sent.with_row_index("message").with_columns(sent_at=pl.col("at")).sort("at")
    found = decided.sort("at").join_asof(
        numbered, on="at", by=["row", "channel"], strategy="nearest", tolerance=_NEAR, check_sortedness=False
    )
    # Two decisions may be near to one message: only one of them became it.
    alone = found.filter(pl.col("message").is_null() | ~pl.col("message").is_first_distinct())
    return pl.concat([sent.select("row", "at"), alone.select("row", "at")])


def by_day(row: Ints, day: Ints, n: int) -> Ints:
    """Messages of each row on each day around today (n, days), from local days relative to today."""
    width = _BEFORE + _AFTER + 1
    near = (day >= -_BEFORE) & (day <= _AFTER)
    found = np.bincount(row[near] * width + day[near] + _BEFORE, minlength=n * width)
    return found.reshape(n, width).astype(np.int64)


def room(days: Ints, ahead: Ints, per_day: Ints, per_week: Ints) -> Flags:
    """Whether one more message on a day (n, S; 0: today) keeps both caps (n,), whichever seven days are looked at."""
    total = np.concatenate([np.zeros((len(days), 1), dtype=np.int64), days.cumsum(axis=1)], axis=1)
    # Weeks by their last day; those that begin before what is known hold what is known of them.
    start = np.maximum(np.arange(days.shape[1]) - WEEK + 1, 0)
    weeks = total[:, 1:] - total[:, start]
    last = days.shape[1] - 1
    place = np.minimum(ahead + _BEFORE, last)
    most = np.max([np.take_along_axis(weeks, np.minimum(place + more, last), axis=1) for more in range(WEEK)], axis=0)
    fits: Flags = (np.take_along_axis(days, place, axis=1) < per_day[:, None]) & (most < per_week[:, None])
    return fits


def best(value: Floats, allowed: Flags) -> tuple[Ints, Ints, Floats]:
    """Channel, slot and value of the best allowed (n,) of values (n, C, S); of equals the first; -inf where none is."""
    flat = np.where(allowed, np.round(value, 9), -np.inf).reshape(len(value), -1)
    place = flat.argmax(axis=1)
    width = value.shape[2]
    return place // width, place % width, flat[np.arange(len(flat)), place]


def numbered(zone: pl.Series) -> tuple[pl.Series, Ints]:
    """The different zones, sorted, and the place of each row's among them (n,)."""
    values = zone.unique().sort()
    return values, positions(zone, values)
