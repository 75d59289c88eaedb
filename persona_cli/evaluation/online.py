"""The online section: personalised users against the permanent holdout, in what they did and not in what was predicted.

What is compared is everything that both groups did, whether or not it answered a list; `feedback.outcomes` joins what
followed to the decisions that were kept. Before the first list was served the two are alike by construction, and the
difference shows how far chance alone reaches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from persona_cli.evaluation.intervals import Interval
from persona_cli.evaluation.judging import LEVEL, as_json
from persona_cli.profiles import SMALLEST_CELL

DETECTABLE_LIFT, POWER = 0.10, 0.80
"""The relative change of the conversion rate that the number of users asked for would show, and how surely."""
_ALL_THEY_DID = "this compares everything that both groups did; answers to lists: persona decisions join"


def compared(events: pl.DataFrame, held_out: pl.Series, share: float) -> dict[str, Any]:
    """Compare the groups; `events` are signal events, `held_out` Boolean says of each row whether its user is held out.

    Answers {"compared": False, "why", …} where a group is smaller than 20 users, else {"compared": True, "measures":
    {name: {"personalised", "holdout", "difference": {"value", "low", "high"}}}, …}. Differences of means over users,
    personalised minus holdout, with Welch's interval (Biometrika 1947). Both say how many users are needed to see a
    conversion rate change by a tenth.
    """
    value_types = strongest_types(events)
    measured = per_user(events.with_columns(holdout=held_out), value_types)
    ours, theirs = (measured.filter(pl.col("holdout") == group) for group in (False, True))
    rate = float(measured["converted"].cast(pl.Float64).mean() or 0.0)  # type: ignore[arg-type]
    needed = users_needed(rate, share)
    more = None if needed is None else max(0, needed - measured.height)
    section: dict[str, Any] = {
        "users": {"personalised": ours.height, "holdout": theirs.height},
        "value_events": list(value_types),
        "conversion": rate,
        "users_needed": needed,
        "more_users_needed": more,
        "note": _ALL_THEY_DID,
    }
    if min(ours.height, theirs.height) < SMALLEST_CELL:
        reason = f"{min(ours.height, theirs.height)} users in the smaller group, {SMALLEST_CELL} are the least"
        return {"compared": False, "why": f"not yet: {reason}; {needed_text(needed, more)}", **section}
    measures = {
        name: {
            "personalised": _mean(ours[name]),
            "holdout": _mean(theirs[name]),
            "difference": as_json(welch(_floats(ours[name]), _floats(theirs[name]))),
        }
        for name in ("events", "active_days", "value_events", "converted")
    }
    why = f"not yet an answer: no outcomes of served lists are logged; {needed_text(needed, more)}"
    return {"compared": True, "why": why, "measures": measures, **section}


def per_user(events: pl.DataFrame, value_types: Sequence[str]) -> pl.DataFrame:
    """user_id, holdout, events, active_days (UTC), value_events, converted (any of those): one row a user, sorted."""
    valued = pl.col("event_type").is_in(list(value_types))
    return (
        events.group_by("user_id")
        .agg(
            pl.col("holdout").first(),
            pl.len().cast(pl.Int64).alias("events"),
            pl.col("timestamp").dt.date().n_unique().cast(pl.Int64).alias("active_days"),
            valued.sum().cast(pl.Int64).alias("value_events"),
            valued.any().alias("converted"),
        )
        .sort("user_id")
    )


def strongest_types(events: pl.DataFrame) -> tuple[str, ...]:
    """Event types of the greatest strength seen: what the settings say is worth most here (say, purchase), sorted."""
    wanted = events.filter(pl.col("strength") > 0)
    best = wanted.filter(pl.col("strength") == pl.col("strength").max())
    return tuple(best["event_type"].unique().sort().to_list())


def users_needed(rate: float, share: float) -> int | None:
    """Users, of whom `share` are held out, to see `rate` change by a tenth of itself: two-sided 5 %, power 80 %.

    The holdout needs n = (z_.975 + z_.8)² p(1 - p) (1 + h/(1 - h)) / (p/10)² users, with h = share, and is a part h of
    all of them (Fleiss, Statistical Methods for Rates and Proportions, 2003: two proportions, unequal groups).
    None where the rate is 0 or 1: nothing can be said from it.
    """
    if not 0.0 < rate < 1.0:
        return None
    reach = float(ndtri((1.0 + LEVEL) / 2.0) + ndtri(POWER))
    held_out = reach**2 * rate * (1.0 - rate) * (1.0 + share / (1.0 - share)) / (DETECTABLE_LIFT * rate) ** 2
    return math.ceil(held_out / share)


def needed_text(needed: int | None, more: int | None) -> str:
    """`n more users needed`, in words."""
    if needed is None or more is None:
        return "how many users are needed cannot be told before some convert and some do not"
    aim = f"to see the conversion rate change by {DETECTABLE_LIFT:.0%}".replace("%", " %")
    return f"{more:,} more users needed {aim}" if more else f"there are users enough ({needed:,}) {aim}"


def welch(ours: NDArray[np.float64], theirs: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Interval of mean(ours) - mean(theirs) of two independent groups of two users or more, unequal variances."""
    parts = [group.var(ddof=1) / len(group) for group in (ours, theirs)]
    difference, error = float(ours.mean() - theirs.mean()), math.sqrt(sum(parts))
    if not error:
        return Interval(difference, difference, difference)
    degrees = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, (ours, theirs), strict=True)
    )
    reach = float(stdtrit(degrees, (1.0 + level) / 2.0)) * error
    return Interval(difference, difference - reach, difference + reach)


def _mean(values: pl.Series) -> float:
    return float(_floats(values).mean())


def _floats(values: pl.Series) -> NDArray[np.float64]:
    return values.cast(pl.Float64).to_numpy()
