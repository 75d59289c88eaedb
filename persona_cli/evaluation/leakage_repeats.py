"""Events that are in a log twice, under another time: how a right answer gets before the cut.

Three signs, each set against what people do by themselves:

    offset      one constant offset, to the second, between equal events of many users, where people's own repeats
                spread over all offsets: a log that was read twice, once shifted or in another time zone
    truncated   events at midnight or the full hour beside an equal one later in the same day or hour
    excess      events after the cut that were there before it, far more often than across earlier cuts

Events are equal by user, item and type. Exact doubles (same time too) are one event here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

Integers = NDArray[np.int64]
_SECOND = 1_000_000
_HOUR, _DAY = 3600 * _SECOND, 86_400 * _SECOND
_LAGS = 10
"""How many later events with the same item a user's event is compared with."""
_SHORTEST = 1800
"""Seconds: people repeat themselves within a visit at short offsets of any kind."""
_CHANCE = 1e-8
"""How unlikely under chance a finding must be, after correction for all offsets tried."""


@dataclass(frozen=True)
class Events:
    """Distinct events with an item as numbers, sorted by user, item and time; all (n_events,)."""

    user: Integers
    pair: Integers
    """Which (user, item)."""
    kind: Integers
    time: Integers
    """Microseconds."""


@dataclass(frozen=True)
class Repeats:
    """Events that look copied: how many, and what gives them away."""

    n: int
    sign: str


def coded(events: pl.DataFrame) -> Events:
    """Rows of `profiles.history.signal_events` (user_id, item_id, timestamp, event_type) as numbers."""
    rows = (
        events.lazy()
        .filter(pl.col("item_id").is_not_null())
        .select(
            pl.col("user_id").rank("dense").cast(pl.Int64).alias("user"),
            pl.col("item_id").rank("dense").cast(pl.Int64).alias("item"),
            pl.col("event_type").rank("dense").cast(pl.Int64).alias("kind"),
            pl.col("timestamp").dt.epoch("us").alias("time"),
        )
        .unique()
        .sort("user", "item", "time", "kind")
        .collect()
    )
    user, item = rows["user"].to_numpy(), rows["item"].to_numpy()
    starts = np.ones(len(user), dtype=np.int64)
    starts[1:] = (np.diff(user) != 0) | (np.diff(item) != 0)
    return Events(user, np.cumsum(starts) - 1, rows["kind"].to_numpy(), rows["time"].to_numpy())


def copied(events: Events, cut: datetime) -> Repeats | None:
    """The clearest sign of copies, or None."""
    if not len(events.time):
        return None
    return truncated(events) or constant_offset(events) or excess(events, int(cut.timestamp() * _SECOND))


def constant_offset(events: Events) -> Repeats | None:
    """The offset at which equal events of many users stand, against a Poisson count from the offsets around it.

    Every user counts once an offset. Somebody who has one item at the same second every day is a clock, not a copy: of
    a (user, item) with several pairs at an offset none counts.
    """
    unit = _resolution(events.time)
    if unit is None:
        return None
    users, offsets = _pairs(events, unit)
    if not len(offsets):
        return None
    found = pl.DataFrame({"user": users, "offset": offsets}).unique()
    counts = found.group_by("offset").agg(n=pl.len().cast(pl.Int64)).sort("offset")
    offset, n = counts["offset"].to_numpy(), counts["n"].to_numpy()
    total = np.concatenate([[0], np.cumsum(n)])
    low, high = np.floor(offset * 0.8).astype(np.int64), np.ceil(offset * 1.25).astype(np.int64)
    around = total[np.searchsorted(offset, high, "right")] - total[np.searchsorted(offset, low, "left")] - n
    # By daily rhythm some offsets are likelier than those around them: up to 3 times.
    expected = 3.0 * around / (high - low)
    chance = stats.poisson.sf(n - 1, np.maximum(expected, 1e-3)) * len(offset)
    enough = max(5.0, 0.002 * len(np.unique(events.user)))
    best = int(np.argmin(np.where(n >= enough, chance, np.inf)))
    if n[best] < enough or chance[best] > _CHANCE:
        return None
    return Repeats(int((offsets == offset[best]).sum()), f"exactly {_span(int(offset[best]) * unit)} apart")


def truncated(events: Events) -> Repeats | None:
    """Equal events of one day (hour), one of them on its first instant, against days (hours) that start elsewhere."""
    for unit, name in ((_DAY, "midnight"), (_HOUR, "the full hour")):
        n = _on_start(events, unit, 0)
        usual = max(_on_start(events, unit, phase * 60 * _SECOND) for phase in (13, 29, 41))
        if n >= max(5, 0.005 * len(events.time)) and stats.poisson.sf(n - 1, 3.0 * usual + 1.0) < _CHANCE:
            return Repeats(n, f"at {name} beside the same event later in that {'day' if unit == _DAY else 'hour'}")
    return None


def excess(events: Events, cut: int) -> Repeats | None:
    """Events after the cut that were there before it, against the same count across earlier cuts.

    Rates are compared among users with as many events before the cut (in octaves), with errors by user. An excess of
    less than 9 % of the events is no sign: habits change, by up to 7 % in most honest logs and seldom by more.
    """
    start, end = int(events.time.min()), int(events.time.max()) + 1
    window = end - cut
    earlier = [cut - n * window // 2 for n in range(2, 9) if cut - n * window // 2 > start + (cut - start) // 4]
    if window <= 0 or not earlier:
        return None
    user, again, depth = _across(events, cut, end)
    placebo = [_across(events, at, at + window) for at in earlier]
    if not len(user) or not sum(len(one[0]) for one in placebo):
        return None
    past_user, past, past_depth = (np.concatenate(parts) for parts in zip(*placebo, strict=True))
    top = int(max(depth.max(), past_depth.max())) + 1
    n_past = np.bincount(past_depth, minlength=top)
    overall = past.mean()
    rate = (np.bincount(past_depth, weights=past, minlength=top) + 20 * overall) / (n_past + 20)
    now, then = again - rate[depth], past - rate[past_depth]
    gained = float(now.mean())
    error = float(np.hypot(_error(user, now - gained), _error(past_user, then)))
    error = float(np.hypot(error, 0.005))
    if gained < 0.09 or gained < 6.3 * error:
        return None
    return Repeats(round(gained * len(now)), "than usual, by the repeats across earlier cuts")


def _across(events: Events, at: int, end: int) -> tuple[Integers, NDArray[np.float64], Integers]:
    """Events of [at, end) of users with events before: the user, 1 where it was there before, log2 of events before."""
    before = events.time < at
    inside = (events.time >= at) & (events.time < end)
    n_before = np.bincount(events.user[before], minlength=int(events.user.max()) + 1)
    inside &= n_before[events.user] > 0
    kinds = int(events.kind.max()) + 1
    keys = events.pair * kinds + events.kind
    distinct = np.unique(keys[inside])
    first = np.searchsorted(keys_sorted := np.sort(keys[before]), distinct)
    again = (first < len(keys_sorted)) & (keys_sorted[np.minimum(first, len(keys_sorted) - 1)] == distinct)
    user = np.empty(int(events.pair.max()) + 1, dtype=np.int64)
    user[events.pair] = events.user
    who = user[distinct // kinds]
    return who, again.astype(np.float64), np.log2(n_before[who]).astype(np.int64)


def _error(user: Integers, residual: NDArray[np.float64]) -> float:
    """Standard error of a mean whose terms hang together within users."""
    return float(np.sqrt((np.bincount(user, weights=residual) ** 2).sum()) / len(user))


def _resolution(time: Integers) -> int | None:
    """Microseconds to which offsets can be told; None where times are known to the hour or less."""
    if np.mean(time % _HOUR == 0) > 0.9:
        return None
    return 60 * _SECOND if np.mean(time % (60 * _SECOND) == 0) > 0.95 else _SECOND


def _pairs(events: Events, unit: int) -> tuple[Integers, Integers]:
    """User and offset (in units) of equal events at exact offsets, without clocks."""
    pairs, users, offsets, equal = [], [], [], []
    for lag in range(1, min(_LAGS, len(events.time) - 1) + 1):
        apart = events.time[lag:] - events.time[:-lag]
        same = (events.pair[lag:] == events.pair[:-lag]) & (apart >= _SHORTEST * _SECOND) & (apart % _SECOND == 0)
        if not same.any():
            continue
        pairs.append(events.pair[lag:][same])
        users.append(events.user[lag:][same])
        offsets.append(apart[same] // unit)
        equal.append((events.kind[lag:] == events.kind[:-lag])[same])
    if not pairs:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing
    found = pl.DataFrame(
        {
            "pair": np.concatenate(pairs),
            "user": np.concatenate(users),
            "offset": np.concatenate(offsets),
            "equal": np.concatenate(equal),
        }
    )
    found = found.filter((pl.len().over("pair", "offset") == 1) & pl.col("equal"))
    return found["user"].to_numpy(), found["offset"].to_numpy()


def _on_start(events: Events, unit: int, phase: int) -> int:
    """How many events stand on the first instant of a unit that starts `phase` later, with an equal one in it."""
    cell = (events.time - phase) // unit
    on = (events.time - phase) % unit == 0
    order = np.lexsort((events.time, cell, events.kind, events.pair))
    pair, kind, cell, on = events.pair[order], events.kind[order], cell[order], on[order]
    followed = (pair[1:] == pair[:-1]) & (kind[1:] == kind[:-1]) & (cell[1:] == cell[:-1])
    return int((on[:-1] & followed).sum())


def _span(microseconds: int) -> str:
    seconds = microseconds // _SECOND
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            return f"{seconds // size} {name}{'' if seconds == size else 's'}"
    raise AssertionError
