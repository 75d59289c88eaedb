"""What is used of a plan, month by month, and what the next month holds: all that plan advice follows from.

Use is counted by account where a person has one (`users.account_id`), in months of 30 days back from the last event of
anybody; only months that began after the account's first event count. The forecast of one use is that of a normal
hierarchy on x = log(1 + n) (conjugate: Gelman et al., Bayesian Data Analysis, 2013, ch. 3 and 5):

    own mean     w x̄ + (1 - w) m,  w = τ² / (τ² + s²/T)         drawn to the mean m of all who use it, by T months
    own spread   s² = (4 (ψ + v) + Σ (x - x̄)²) / (4 + T - 1)    as if 4 months more had varied as everybody's do
    next month   Student's t of 4 + T - 1 degrees around the mean, scale² = s² (1 + w / T)

with v = λ / (1 + λ)² what counting λ events varies by itself (delta method), ψ what months vary beyond it, and τ² what
users differ by, both by moments over those who use it at all, each account alike. There is no trend: whoever grows has
a wide forecast. Where fewer than `SMALLEST_CELL` accounts use it, nobody is drawn to anybody and ψ = 1/4.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from persona_cli.errors import BadSettings
from persona_cli.events.catalogue import current
from persona_cli.models.stored import positions
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.context import DAY
from persona_cli.profiles.features import Floats
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import PERSONALIZATION, allowed, person_events
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.visitors import Flags
from persona_cli.workspace import tables
from persona_cli.workspace.home import SETTINGS_FILE, Home
from persona_cli.workspace.plan_declarations import use_of

MONTH = 30 * DAY
_PRIOR_MONTHS = 4.0
_PRIOR_SPREAD = 0.25
_INTERVAL = 0.9
"""The interval that is told leaves out a tenth on either side."""
_UNIT = 1_000_000  # values are added up as whole millionths: the same sum in any order
_DEFAULT = ("feature_use", "click")
"""Events that use what they have as target."""


class Use(NamedTuple):
    """What accounts (rows) use of what plans limit or include (columns); `units` sorted."""

    units: pl.Series
    """One text a unit: an account, or a person without one (n,)."""
    names: list[str]
    """Uses (K)."""
    counts: NDArray[np.float64]
    """By unit, use and month, the latest first (n, K, M); NaN where that is no full month of the unit's."""
    months: NDArray[np.int64]
    """Full months of each unit (n,)."""
    times: Floats
    """Events of each use in all months regarded, those before the first full one too (n, K)."""
    fixed: Floats
    """What the account says of itself (n, K); NaN where it says nothing or the use is counted from events."""
    told: NDArray[np.bool_]
    """Uses that are counted from what the account says (K,)."""


class Forecast(NamedTuple):
    """Use in the next month, all (n, K)."""

    mean: Floats
    """Of log(1 + n)."""
    scale: Floats
    freedom: Floats

    def below(self, limits: Floats) -> Floats:
        """P(n ≤ limit) of whole n, of limits (K,): (n, K)."""
        z = (np.log(limits + 1.5) - self.mean) / self.scale
        found: Floats = np.where(np.isinf(limits), 1.0, stdtr(self.freedom, np.where(np.isinf(z), 0.0, z)))
        return found

    def interval(self) -> tuple[Floats, Floats, Floats]:
        """The middle, and the ends of 80 in 100 next months."""
        far = stdtrit(self.freedom, _INTERVAL) * self.scale
        middle, low, high = (np.maximum(np.expm1(self.mean + step), 0.0) for step in (0.0, -far, far))
        return middle, low, high


def units_of(home: Home, as_of: datetime | None) -> pl.DataFrame:
    """user_id (the person), unit, whole: the account of each person of the table of users, sorted by person.

    whole: personalization covers all members. Of others nothing is read but that they are members.
    """
    if not tables.exists(home, "users"):
        return pl.DataFrame(schema={"user_id": pl.String, "unit": pl.String, "whole": pl.Boolean})
    users = current(home, "users", as_of).select("user_id", "account_id").drop_nulls()
    permitted = allowed(home, PERSONALIZATION)
    found = users.select(
        persons(home, as_of).of(users["user_id"]).alias("user_id"),
        pl.concat_str(pl.lit("account "), "account_id").alias("unit"),
        permitted.of(users["user_id"]).alias("covered"),
    )
    found = found.with_columns(pl.col("covered").all().over("unit").alias("whole"))
    return (
        found.filter("covered").drop("covered").sort("user_id", "unit").unique("user_id", keep="first").sort("user_id")
    )


def own_unit(user: pl.Expr) -> pl.Expr:
    """The unit of a person without an account."""
    return pl.concat_str(pl.lit("person "), user)


def uses_of(surface: Surface) -> dict[str, dict[str, Any]]:
    """Every use that a plan limits or includes and how it is counted, sorted by name."""
    plans: Mapping[str, Any] = surface.options["plans"]
    names = sorted({use for plan in plans.values() for use in (*plan["limits"], *plan["features"])})
    given = surface.options["uses"]
    return {name: given.get(name) or use_of(name) for name in names}


def usage(home: Home, surface: Surface, units: pl.DataFrame, as_of: datetime | None, moment: datetime) -> Use:
    """The use of all whom personalization covers; BadSettings for a limit that nothing ever counted towards.

    `units` as `units_of`; months are counted back from `moment`.
    """
    specs, n_months = uses_of(surface), surface.options["months"]
    names = list(specs)
    until = round(moment.timestamp() * _UNIT) + 1
    events = person_events(home, as_of, purpose=PERSONALIZATION) if tables.exists(home, "events") else None
    schema = {"unit": pl.String, "use": pl.Int64, "month": pl.Int64, "n": pl.Float64, "times": pl.Int64}
    counted, first = pl.DataFrame(schema=schema), pl.DataFrame(schema={"unit": pl.String, "first": pl.Int64})
    if events is not None:
        rows = events.join(units.select("user_id", "unit").lazy(), on="user_id", how="left").select(
            "event_type",
            "target",
            "value",
            "user_id",
            unit=pl.coalesce("unit", own_unit(pl.col("user_id"))),
            at=pl.col("timestamp").to_physical(),
        )
        month = (pl.lit(until) - pl.col("at") - 1).floordiv(MONTH).clip(0).alias("month")
        recent = rows.with_columns(month).filter(pl.col("month") < n_months)
        plans = [rows.group_by("unit").agg(first=pl.col("at").min()).sort("unit")]
        plans += [_counted(recent, number, name, spec) for number, (name, spec) in enumerate(specs.items())]
        first, *parts = pl.collect_all(plans)
        counted = pl.concat([counted, *parts]).sort("use", "unit", "month")
    every = first["unit"].sort()
    n, K = len(every), len(names)
    months = np.clip((until - first["first"].to_numpy()) // MONTH, 0, n_months)
    counts, times = np.zeros((n, K, n_months)), np.zeros((n, K))
    place, use = positions(counted["unit"], every), counted["use"].to_numpy()
    counts[place, use, counted["month"].to_numpy()] = counted["n"].to_numpy()
    np.add.at(times, (place, use), counted["times"].to_numpy())
    counts = np.where(np.arange(n_months)[None, None, :] < months[:, None, None], counts, np.nan)
    told = np.array([spec["count"] in ("size", "property") for spec in specs.values()], dtype=bool)
    _all_counted(home, surface, names, specs, times, n)
    return Use(every, names, counts, months, times, _said(home, specs, every, as_of), told)


def _counted(rows: pl.LazyFrame, number: int, name: str, spec: Mapping[str, Any]) -> pl.LazyFrame:
    """unit, use, month, n, times of one use."""
    count = spec["count"]
    target = spec["target"]
    if spec["events"]:
        counts = pl.col("event_type").is_in(list(spec["events"]))
        counts = counts if target is None else counts & (pl.col("target") == target)
    elif count == "people" and target is None:
        counts = pl.lit(True)
    else:
        by_target = pl.col("event_type").is_in(list(_DEFAULT)) & (pl.col("target") == (target or name))
        counts = by_target if target is not None else by_target | (pl.col("event_type") == name)
    if count in ("size", "property"):
        counts = pl.lit(False)
    value = (pl.col("value").fill_null(0).clip(0) * _UNIT).round().cast(pl.Int64)
    n = {"value": value.sum() / _UNIT, "people": pl.col("user_id").n_unique()}.get(count, pl.len())
    return (
        rows.filter(counts.fill_null(False))
        .group_by("unit", "month")
        .agg(n=n.cast(pl.Float64), times=pl.len().cast(pl.Int64))
        .select("unit", use=pl.lit(number, pl.Int64), month=pl.col("month").cast(pl.Int64), n="n", times="times")
    )


def _all_counted(
    home: Home, surface: Surface, names: list[str], specs: Mapping[str, Any], times: Floats, n: int
) -> None:
    """BadSettings for a limit that nobody ever came near to, of so many that somebody should have."""
    if n < SMALLEST_CELL:
        return
    limited = {use for plan in surface.options["plans"].values() for use in plan["limits"]}
    for column, name in enumerate(names):
        if name in limited and specs[name]["count"] not in ("size", "property") and not times[:, column].any():
            place = f"{home.path(SETTINGS_FILE)}: surface.{surface.name}"
            raise BadSettings(
                f"{place}: plans limit {name!r}, and no event of {n:,} accounts counts towards it",
                f'say what counts: uses.{name} = {{ events = ["…"] }} or {{ count = "size" }}',
            )


def _said(home: Home, specs: Mapping[str, Mapping[str, Any]], units: pl.Series, as_of: datetime | None) -> Floats:
    """What accounts say of themselves (n, K)."""
    found = np.full((len(units), len(specs)), np.nan)
    columns = {
        number: pl.col("size").cast(pl.Float64)
        if spec["count"] == "size"
        else pl.col("props").str.json_path_match(f"$.{spec['property']}").cast(pl.Float64, strict=False)
        for number, spec in enumerate(specs.values())
        if spec["count"] in ("size", "property")
    }
    if not columns or not tables.exists(home, "accounts"):
        return found
    rows = current(home, "accounts", as_of).select(
        pl.concat_str(pl.lit("account "), "account_id").alias("unit"),
        *(value.alias(str(number)) for number, value in columns.items()),
    )
    of = positions(units, rows["unit"])
    for number in columns:
        said = rows[str(number)].fill_null(np.nan).to_numpy()
        found[:, number] = np.where(of >= 0, np.append(said, np.nan)[of], np.nan)
    return found


def forecast(use: Use) -> Forecast:
    """The next month of every unit and use; of units without a full month it is that of those like them."""
    n, K, _ = use.counts.shape
    mean, scale = np.zeros((n, K)), np.ones((n, K))
    T = use.months.astype(np.float64)
    freedom = np.broadcast_to((_PRIOR_MONTHS + np.maximum(T - 1, 0))[:, None], (n, K))
    for column in range(K):
        counts = use.counts[:, column, :]  # (n, M)
        there = ~np.isnan(counts)
        x = np.log1p(np.where(there, counts, 0.0))
        own = np.where(T > 0, x.sum(axis=1) / np.maximum(T, 1), 0.0)
        within = (np.where(there, x - own[:, None], 0.0) ** 2).sum(axis=1)
        rate = np.where(there, counts, 0.0).sum(axis=1) / np.maximum(T, 1)
        chance = rate / (1 + rate) ** 2
        used = rate > 0
        several = used & (T > 1)
        cohort = used.sum() >= SMALLEST_CELL
        beyond = _PRIOR_SPREAD
        if several.sum() >= SMALLEST_CELL:
            extra = (within - (T - 1) * chance)[several].sum() / (T - 1)[several].sum()
            beyond = max(float(extra), 0.0)
        spread = (_PRIOR_MONTHS * (beyond + chance) + within) / (_PRIOR_MONTHS + np.maximum(T - 1, 0))
        weight = np.ones(n)
        middle = 0.0
        if cohort:
            middle = float(own[used].mean())
            between = max(float(own[used].var() - (spread / np.maximum(T, 1))[used].mean()), 0.0)
            error = spread / np.maximum(T, 1)
            weight = np.where(T > 0, between / np.maximum(between + error, 1e-12), 0.0)
        mean[:, column] = weight * own + (1 - weight) * middle
        scale[:, column] = np.maximum(np.sqrt(spread * (1 + weight / np.maximum(T, 1))), 1e-6)
    return Forecast(mean, scale, freedom)


def observed(use: Use, limits: Floats) -> Flags:
    """Whether every full month so far stayed within the limits (K,), and what the account says too (n,)."""
    most = np.where(np.isnan(use.counts), 0.0, use.counts).max(axis=2, initial=0.0)
    within = np.where(use.told[None, :], use.fixed, most) <= limits[None, :]  # (n, K)
    found: Flags = np.all(within, axis=1)
    return found
