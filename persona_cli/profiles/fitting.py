"""Learn from all events what signals mean: how often each was seen, and how dwell seconds divide into reading and idle.

Seconds are those of `dwell` events, or, where nothing says them, the time to the next event of the same session that is
about something else. Such gaps are never longer than the session gap, which the likelihood takes into account; gaps of
no time at all (events that were sent together) and the last look of a session say nothing. Heartbeats, which are active
time already, have no part in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from persona_cli.errors import MissingInput
from persona_cli.profiles.dwell import fit_dwell, fit_targets
from persona_cli.profiles.folds.attention import HEARTBEAT
from persona_cli.profiles.folds.explicit import RATING, thousandths
from persona_cli.profiles.permitted import TRAINING, Purpose, person_events, stored_events
from persona_cli.profiles.sessions import with_dwell, with_sessions
from persona_cli.profiles.signal_fit import TARGETS, SignalFit, estimated, load, publish
from persona_cli.profiles.signals import DWELL
from persona_cli.workspace import locks, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Fitted

Source = Literal["dwell", "gaps"]
LOOKS = ("view", "page_view", "screen_view")
"""Event types that show something. Where a log has any, only they (and what is done to the same thing) are looks."""
LONGEST = 86_400.0
"""Seconds: longer ones are mistakes of a clock."""
_COLUMNS = ("timestamp", "session_id", "event_type", "item_id", "target", "page")


class Learned(NamedTuple):
    """A fit, where it lies, and whether it differs from the one that was in force."""

    fit: SignalFit
    fitted: Fitted
    new: bool


def fit_signals(home: Home, source: Source | None = None, wait: float = 0.0) -> Learned:
    """Count and fit, and put the result in force. Without a `source`: dwell events where there are enough, else gaps.

    Where there are fewer than signals.dwell.min_events durations, nothing is said about dwell. MissingInput without
    events; Busy where another run fits after `wait` seconds.
    """
    with locks.hold(home, "signals", "signals fit", wait):
        if not tables.exists(home, "events"):
            raise MissingInput("there are no events yet", "persona ingest FILE")
        fitted, new = publish(home, learned(home, source))
        return Learned(load(fitted), fitted, new)  # as it is in force: with the digits that are kept


def learned(home: Home, source: Source | None = None, as_of: datetime | None = None) -> SignalFit:
    """As `fit_signals` (from events before `as_of`), but kept by nobody."""
    needed = home.settings.whole("signals.dwell.min_events")
    counts = event_counts(home, as_of, purpose=TRAINING)
    chosen: Source = source or ("dwell" if counts.get(DWELL, 0) >= needed else "gaps")
    seconds = dwell_seconds(home, chosen, as_of, purpose=TRAINING)
    ratings = _ratings(home, as_of) if counts.get(RATING, 0) else None
    nothing = SignalFit(None, chosen, counts, pl.DataFrame(schema=TARGETS), ratings)
    if seconds.height < needed or seconds["seconds"].n_unique() < 2:
        return nothing
    high = np.inf if chosen == "dwell" else home.settings.number("profiles.session_gap_minutes") * 60
    dwell = fit_dwell(seconds["seconds"].to_numpy(), high)
    targets = seconds.filter(pl.col("target").is_not_null())
    targets = targets.filter(pl.len().over("kind", "target") >= needed)
    mixtures = fit_targets(dwell, targets, home.settings.whole("signals.dwell.prior_events"))
    kept = mixtures.select(pl.col(name).cast(kind) for name, kind in TARGETS.items())
    return SignalFit(dwell, chosen, counts, kept, ratings)


def _ratings(home: Home, as_of: datetime | None) -> dict[str, float] | None:
    """What users' means are drawn to (`ratings.estimated`)."""
    rated = person_events(home, as_of, purpose=TRAINING).filter(
        (pl.col("event_type") == RATING) & pl.col("value").is_finite()
    )
    stars = thousandths(pl.col("value"))
    sums = {"n": pl.len(), "total": stars.sum() / 1000, "squares": (stars * stars).sum() / 1_000_000}
    found = estimated(rated.group_by("user_id").agg(**sums).sort("user_id").collect())
    return None if found is None else found._asdict()


def event_counts(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> dict[str, int]:
    """Events by event type, by name."""
    if not tables.exists(home, "events"):
        return {}
    counted = stored_events(home, as_of, purpose=purpose).group_by("event_type").agg(pl.len())
    return {str(kind): int(n) for kind, n in counted.sort("event_type").collect().rows()}


def dwell_seconds(
    home: Home, source: Source, as_of: datetime | None = None, *, purpose: Purpose = None
) -> pl.DataFrame:
    """user_id, kind, target, seconds (above 0) of each look; kind says which column the target is of, first an item."""
    events = person_events(home, as_of, purpose=purpose)
    if source == "dwell":
        looks = events.filter(pl.col("event_type") == DWELL).select("user_id", *_COLUMNS, seconds="value").collect()
    else:
        # A dwell event is sent when its look is over, a heartbeat during it: neither is a look of its own.
        others = events.filter(~pl.col("event_type").is_in((DWELL, HEARTBEAT))).select("user_id", *_COLUMNS).collect()
        looks = _looks(others, home.settings.number("profiles.session_gap_minutes"))
    looks = looks.filter(pl.col("seconds").is_finite() & (pl.col("seconds") > 0) & (pl.col("seconds") <= LONGEST))
    kind = pl.coalesce(
        *(pl.when(pl.col(column).is_not_null()).then(pl.lit(name)) for name, column in _TARGET_COLUMNS.items())
    )
    return looks.select(
        "user_id", kind.alias("kind"), pl.coalesce(*_TARGET_COLUMNS.values()).alias("target"), "seconds"
    )


def _looks(events: pl.DataFrame, gap_minutes: float) -> pl.DataFrame:
    """The first event of each run of events about the same thing, with the seconds to the next run of its session."""
    about = pl.coalesce(*_TARGET_COLUMNS.values())
    begins = (pl.col("position") == 0) | about.ne_missing(about.shift())
    runs = with_sessions(events, gap_minutes).with_columns(
        run=begins.cum_sum(), shown=pl.col("event_type").is_in(LOOKS)
    )
    runs = runs.with_columns(pl.col("shown").any().over("run")).unique("run", keep="first", maintain_order=True)
    looks = with_dwell(runs).filter(pl.col("seconds") <= gap_minutes * 60)
    return looks.filter(pl.col("shown")) if runs["shown"].any() else looks


_TARGET_COLUMNS = {"item": "item_id", "page": "page", "target": "target"}
