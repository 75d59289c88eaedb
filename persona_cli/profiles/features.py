"""Computed features of users, and the one special function that they need.

Computed features: what the columns of profiles say about a user, for all users at once or for one.

Each follows from the user's own row; `power_user_score` and `feature_breadth` also from what others do (`Population`).
A feature whose evidence is below its minimum is null. Formulas and their sources stand at each function and in
docs/profiles.md. Everything is measured at one moment: the one asked for, else that of the last event of anybody, so
that a profile of old data does not grow older by itself.

The regularised incomplete beta function at one half, without scipy: importing that takes longer than a profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.coding import Ints
from persona_cli.workspace.terms import Kind

Floats = NDArray[np.float64]

WINDOW_DAYS = 28
"""Days before the moment in which use counts for power_user_score."""
HALF = {"days": 30, "sessions": 10, "kinds": 5}
"""Where each part of maturity is one half."""
RAYLEIGH = 3.0
"""The hour of a user is usual where sessions × concentration² is at least this: Rayleigh's test at 5 %."""
MIN_MESSAGES = 3
"""Opens and clicks of messages before a channel is called usual."""
EVEN_EVENTS = 5
"""Interests are drawn towards all categories alike as if by so many more events."""
NAMES: dict[str, Kind] = {
    "power_user_score": "number",
    "maturity": "number",
    "active_days": "whole",
    "usual_hour": "whole",
    "usual_hour_concentration": "number",
    "usual_channel": "text",
    "usual_channel_certainty": "number",
    "features": "whole",
    "feature_breadth": "number",
    "purchases": "whole",
    "days_since_first": "number",
    "days_since_last": "number",
    "days_since_purchase": "number",
    "days_since_search": "number",
    "days_since_feature_use": "number",
    "days_since_message": "number",
}
"""Computed features and their kinds, beside those of `PREFERRED`."""
OWN_EVENTS = (
    "maturity",
    "usual_hour",
    "usual_hour_concentration",
    "usual_channel",
    "usual_channel_certainty",
    "features",
    "purchases",
)
"""Of these, what changes by the user's own events alone, and neither by the time that passes nor by others."""
PREFERRED: dict[str, Kind] = {
    "preferred_category": "text",
    "preferred_category_share": "number",
    "preferred_category_certainty": "number",
}
NEEDED = (
    "first_seen",
    "last_seen",
    "sessions",
    "types",
    "hours",
    "features_used",
    "channels",
    "queries",
    "_intervals",
    "_purchases",
)
"""Columns of profiles that features are computed from."""
USE = ("_intervals", "features_used")
"""Of these, what others are compared by."""
_DAY = 86_400_000_000
_SINCE = {"purchase": "_purchases", "search": "queries", "feature_use": "features_used", "message": "channels"}


@dataclass(frozen=True)
class Population:
    """What everybody did until a moment: the measure of one user."""

    moment: datetime
    """Until when; days are counted back from here."""
    use: Mapping[str, Ints]
    """Active days, sessions and different features of the users who were there in the window, each sorted."""
    features: int
    """Different features that anybody has used."""


def population(moment: datetime, rows: pl.DataFrame, later: bool = True) -> Population:
    """Of everybody's rows with the columns `USE`; without `later` what began at the moment or after it is left out."""
    used = _recent(rows, moment, later)
    active = used.filter(pl.col("days") > 0)
    use = {name: np.sort(active[name].to_numpy()) for name in ("days", "sessions", "features")}
    lists = rows["features_used"]
    named = lists.filter(lists.list.len() > 0).explode().struct.field("feature")
    return Population(moment, use, named.n_unique())


def alone(moment: datetime) -> Population:
    """Nobody beside the user: enough for what `OWN_EVENTS` names."""
    return Population(moment, dict.fromkeys(("days", "sessions", "features"), np.zeros(0, dtype=np.int64)), 0)


def computed(rows: pl.DataFrame, among: Population) -> pl.DataFrame:
    """The features `NAMES` of rows with the columns `NEEDED` (n_users,), aligned with them."""
    moment = among.moment
    recent = _recent(rows, moment)
    features = rows["features_used"].list.len().cast(pl.Int64)
    hour, concentration = usual_hours(rows["hours"], rows["sessions"].to_numpy())
    found: dict[str, pl.Series | pl.Expr] = {
        "power_user_score": power_user_scores(recent, among),
        "maturity": maturities(rows),
        "active_days": recent["days"],
        "usual_hour": hour,
        "usual_hour_concentration": concentration,
        **usual_channels(rows["channels"]),
        "features": features,
        "feature_breadth": (features / among.features).round(6) if among.features else _nothing(rows.height),
        "purchases": pl.DataFrame({"_": rows["_purchases"]})
        .select(pl.col("_").list.eval(pl.element().struct.field("n")).list.sum())
        .to_series(),
        "days_since_first": _days(rows["first_seen"], moment),
        "days_since_last": _days(rows["last_seen"], moment),
    }
    for name, column in _SINCE.items():
        last = pl.col(column).list.eval(pl.element().struct.field("last")).list.max()
        found[f"days_since_{name}"] = _days(rows.select(last).to_series(), moment)
    return pl.DataFrame({name: found[name] for name in NAMES})


def power_user_scores(recent: pl.DataFrame, among: Population) -> pl.Series:
    """Mean percentile rank of active days, sessions and different features in the window, from 0 to 1 (n_users,).

    A day is active if a session began on it (UTC). Ranks are among the users who were active in the window,
    (number below + half the number equal) / number (Hazen, 1914); who was not is 0. Features count where anybody used
    one in the window. Null for all where fewer than `SMALLEST_CELL` users were active. `recent`: days, sessions,
    features of each user. After the count of active days in 28, known as L28 (Chen, The Power User Curve, 2018).
    """
    n = len(among.use["days"])
    if n < SMALLEST_CELL:
        return _nothing(recent.height)
    ranks = []
    for name, ordered in among.use.items():
        if name == "features" and not ordered[-1]:
            continue
        value = recent[name].to_numpy()
        ranks.append((np.searchsorted(ordered, value, "left") + np.searchsorted(ordered, value, "right")) / (2 * n))
    return pl.Series(np.where(recent["days"].to_numpy() > 0, np.mean(ranks, axis=0), 0.0)).round(6)


def maturities(rows: pl.DataFrame) -> pl.Series:
    """How far along a user is, from 0 to below 1: mean of x / (x + half) for three counts (n_users,).

    Days from first to last event (one half at 30), sessions (10), different event types and features (5). The
    saturating curve is that of Michaelis and Menten (1913).
    """
    days = (rows["last_seen"] - rows["first_seen"]).dt.total_microseconds().to_numpy() / _DAY
    kinds = (rows["types"].list.len().cast(pl.Int64) + rows["features_used"].list.len().cast(pl.Int64)).to_numpy()
    counts = {"days": days, "sessions": rows["sessions"].to_numpy(), "kinds": kinds}
    return pl.Series(np.mean([x / (x + HALF[name]) for name, x in counts.items()], axis=0)).round(6)


def usual_hours(hours: pl.Series, sessions: Ints) -> tuple[pl.Series, pl.Series]:
    """The local hour (0–23) that holds the circular mean of the user's events, and how concentrated they are.

    With n_h events in hour h at the angle a_h = 2π (h + ½) / 24, the mean is the angle of Σ n_h (cos a_h, sin a_h) and
    the concentration R its length over Σ n_h: 1 at one hour, 0 spread evenly (Mardia and Jupp, Directional Statistics,
    2000). Null unless sessions × R² ≥ `RAYLEIGH`: events of one session say the same thing once.
    """
    counts: Floats = hours.explode().to_numpy().reshape(-1, 24).astype(np.float64)
    angles = 2 * np.pi * (np.arange(24) + 0.5) / 24
    # Components are rounded: opposite hours cancel, and what is left of rounding is no direction.
    x, y = (np.round((counts * wave(angles)).sum(axis=1), 9) for wave in (np.cos, np.sin))
    total = counts.sum(axis=1)
    concentration = np.round(np.hypot(x, y) / np.maximum(total, 1), 9)
    hour = np.floor(np.round(np.arctan2(y, x) % (2 * np.pi) * 24 / (2 * np.pi), 6)).astype(np.int64) % 24
    told = pl.Series(sessions * concentration**2 >= RAYLEIGH)
    both = pl.DataFrame({"hour": hour, "concentration": concentration, "told": told})
    shown = both.select(pl.when("told").then("hour").alias("hour"), pl.col("concentration").round(6))
    return shown["hour"], shown["concentration"]


def usual_channels(channels: pl.Series) -> dict[str, pl.Series]:
    """The channel of most opens and clicks of messages, and the chance that it is ahead of the next (`ahead`).

    Null below `MIN_MESSAGES` opens and clicks, and where two channels have equally many.
    """
    flat = pl.DataFrame({"owner": np.arange(len(channels)), "_": channels}).explode("_").drop_nulls("_").unnest("_")
    ordered = flat.sort("owner", "n", "channel", descending=[False, True, False])
    first = ordered.group_by("owner", maintain_order=True).agg(
        pl.col("channel").first(),
        first=pl.col("n").first(),
        second=pl.col("n").get(1, null_on_oob=True).fill_null(0),
        total=pl.col("n").sum(),
    )
    first = first.filter((pl.col("total") >= MIN_MESSAGES) & (pl.col("first") > pl.col("second")))
    certainty = ahead(first["first"].to_numpy(), first["second"].to_numpy())
    known = first.select("owner", "channel", certainty=pl.Series(certainty, dtype=pl.Float64).round(6))
    owner = flat.clear().select("owner").vstack(pl.DataFrame({"owner": np.arange(len(channels))}))
    aligned = owner.join(known, on="owner", how="left", maintain_order="left")
    return {"usual_channel": aligned["channel"], "usual_channel_certainty": aligned["certainty"]}


def preferred(strengths: pl.DataFrame, n_categories: int) -> pl.DataFrame:
    """user_id and `PREFERRED` of the users who have one, of user_id, category, strength, evidence (in any order).

    The category of the greatest faded strength above 0; of equals the one that sorts first. With strengths s (those
    above 0), their sum S and the evidence E = Σ min(events, strength) over items, n_c = E s_c / S events speak for each
    category. Share: (n_c + a / K) / (E + a) with a = `EVEN_EVENTS` spread over all K categories of the catalogue, the
    posterior mean of a Dirichlet-multinomial. Certainty: `ahead` of the runner-up.
    """
    liked = strengths.filter(pl.col("strength") > 0)
    liked = liked.sort("user_id", "strength", "category", descending=[False, True, False])
    found = liked.group_by("user_id", maintain_order=True).agg(
        pl.col("category").first(),
        first=pl.col("strength").first(),
        second=pl.col("strength").get(1, null_on_oob=True).fill_null(0.0),
        total=(pl.col("strength") * 1_000_000).round().cast(pl.Int64).sum() / 1_000_000,
        evidence=(pl.col("evidence") * 1_000_000).round().cast(pl.Int64).sum() / 1_000_000,
    )
    evidence, total = found["evidence"].to_numpy(), found["total"].to_numpy()
    first, second = (evidence * found[name].to_numpy() / total for name in ("first", "second"))
    share = (first + EVEN_EVENTS / max(n_categories, 1)) / (evidence + EVEN_EVENTS)
    return found.select(
        "user_id",
        preferred_category="category",
        preferred_category_share=pl.Series(share, dtype=pl.Float64).round(6),
        preferred_category_certainty=pl.Series(ahead(first, second), dtype=pl.Float64).round(6),
    )


def ahead(first: NDArray[np.generic], second: NDArray[np.generic]) -> Floats:
    """The chance that what `first` events speak for is more likely than what `second` speak for (n,).

    The events of the two divide as a Binomial(p) whose p was equally likely to be anything (Bayes, 1763): P(p > ½) =
    I_½(second + 1, first + 1), the regularised incomplete beta function. One event to none: 3/4; equals: 1/2.
    """
    return below_half(np.asarray(second) + 1.0, np.asarray(first) + 1.0)


def _recent(rows: pl.DataFrame, moment: datetime, later: bool = True) -> pl.DataFrame:
    """days, sessions, features (n_users,): days on which sessions began, sessions, different features in the window."""
    until = round(moment.timestamp() * 1_000_000)
    since = until - WINDOW_DAYS * _DAY
    began, of = _instants(rows["_intervals"], "first", since, None if later else until)
    _, used = _instants(rows["features_used"], "last", since)
    # One number a user and day, of which the different ones are counted.
    key = of * (WINDOW_DAYS + 2) + (began // _DAY - since // _DAY)
    if (key[1:] < key[:-1]).any():
        key.sort()
    different = key[np.append(True, key[1:] != key[:-1])[: len(key)]] // (WINDOW_DAYS + 2)
    counts = {"days": different, "sessions": of, "features": used}
    return pl.DataFrame({name: np.bincount(who, minlength=rows.height) for name, who in counts.items()})


def _instants(entries: pl.Series, field: str, since: int, until: int | None = None) -> tuple[Ints, Ints]:
    """Instants of lists of entries from `since` to before `until` (m,), in microseconds, and the rows they are of."""
    lengths = entries.list.len()
    instants: Ints = entries.filter(lengths > 0).explode().struct.field(field).to_physical().to_numpy()
    inside = instants >= since
    if until is not None:
        inside &= instants < until
    owner = np.repeat(np.arange(len(entries)), lengths.to_numpy())
    return instants[inside], owner[inside]


def _days(moments: pl.Series, moment: datetime) -> pl.Series:
    """Days from each moment to `moment`, to the millionth (n_users,); null where there is none."""
    microseconds = pl.Series([moment]).cast(pl.Datetime("us", "UTC")).to_physical()[0] - moments.to_physical()
    days: pl.Series = microseconds / _DAY
    return days.round(6)


def _nothing(n: int) -> pl.Series:
    return pl.Series([None], dtype=pl.Float64).new_from_index(0, n)


_PRECISION = 1e-15
_TINY = 1e-300
_STEPS = 100_000
# Stirling's series of the logarithm of the gamma function: B_2k / (2k (2k - 1)).
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_SHIFT = 8


def below_half(a: Floats, b: Floats) -> Floats:
    """I_½(a, b) (n,), a and b at least 1: the chance that what is distributed as Beta(a, b) is below one half.

    The continued fraction 26.5.8 of Abramowitz and Stegun (1964) by the method of Lentz (1976); by the symmetry
    I_½(a, b) = 1 - I_½(b, a) it is only asked where it is quick.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    less, more = np.minimum(a, b), np.maximum(a, b)
    # The chance that the larger of the two is below one half: at most one half itself.
    logs = _log_gamma(less + more) - _log_gamma(less) - _log_gamma(more) - (less + more) * np.log(2.0) - np.log(more)
    chance = np.exp(logs) * _fraction(more, less)
    answer: Floats = np.where(a >= b, chance, 1.0 - chance)
    return answer


def _fraction(a: Floats, b: Floats) -> Floats:
    """The continued fraction at one half (n,), for a >= b."""
    value = np.ones(len(a))
    left = np.arange(len(a))
    d = 1.0 / _not_zero(1.0 - (a + b) / (a + 1.0) * 0.5)
    c, h = np.ones(len(a)), d.copy()
    for m in range(1, _STEPS):
        if not len(left):
            break
        even = m * (b - m) * 0.5 / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * 0.5 / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1.0 / _not_zero(1.0 + step * d)
            c = _not_zero(1.0 + step / c)
            change = d * c
            h = h * change
        value[left] = h
        on = np.abs(change - 1.0) > _PRECISION
        left, a, b, c, d, h = left[on], a[on], b[on], c[on], d[on], h[on]
    return value


def _not_zero(x: Floats) -> Floats:
    return np.where(np.abs(x) < _TINY, _TINY, x)


def _log_gamma(x: Floats) -> Floats:
    """The logarithm of the gamma function (n,), x at least 1."""
    below = np.ones(len(x))
    for k in range(_SHIFT):
        below = below * (x + k)
    z = x + _SHIFT
    series = sum(term / z ** (2 * k + 1) for k, term in enumerate(_STIRLING))
    answer: Floats = (z - 0.5) * np.log(z) - z + 0.5 * np.log(2 * np.pi) + series - np.log(below)
    return answer
