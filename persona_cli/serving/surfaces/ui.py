"""`kind = "ui"`: the order of the navigation, density, collapsed panels, theme and layout.

The order changes from what was last served: an entry passes the one before it only where its share (`use`) is greater
by more than `threshold`, and nothing moves within `every_days` of the last change. What follows from the visit alone
(layout, theme, density of a device) holds from the first visit on, for everybody but the holdout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from persona_cli.events.countries import country_zone
from persona_cli.profiles.coding import Ints, by_distinct
from persona_cli.profiles.context import DAY, Codes, hour_of, local_time, network_class, zone_of
from persona_cli.profiles.features import Floats
from persona_cli.profiles.stated import set_by
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.confidence import confidence, said_of
from persona_cli.serving.surfaces.use import by_name, priors, uses
from persona_cli.serving.surfaces.visitors import Flags, Visitors, chosen_names
from persona_cli.workspace.home import Home
from persona_cli.workspace.surface_declarations import DENSITIES, THEMES

KEY = "config"
TOUCH = ("mobile", "tablet")
"""Devices on which a compact page would be hard to hit."""
_SERVED = pl.Struct({"order": pl.List(pl.String), "since": pl.String})
_MILLIONTHS = 1_000_000


def needs(home: Home, surface: Surface) -> set[str]:
    return {"maturity", "items", "first_seen", "_preferences"}


def decide(home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """config {order, collapsed, density, theme, layout, since}, policy, propensity, rules, evidence[, confidence]
    [, reasons] (n).

    since: when the order last changed for the user; null: never.
    """
    options, rows = surface.options, visitors.rows
    entries, panels = list(options["entries"]), list(options["panels"])
    used = uses(home, entries + panels, options["events"], options["half_life_days"], visitors.as_of, visitors.moment)
    cohort = options["cohort"]
    groups = rows["stage" if cohort in ("none", "stage") else cohort]
    prior = priors(home, used, entries, cohort, groups, visitors.as_of)
    count, last = by_name(used, rows["person"], entries + panels)
    n, m = count / _MILLIONTHS, float(options["prior_uses"])  # (n, entries and panels)
    known = n.sum(axis=1)
    certainty = confidence(home, surface, known, m)
    sure = visitors.personal & (certainty.confidence >= options["min_confidence"])
    own = n[:, : len(entries)]
    share = np.round((own + m * prior) / (own.sum(axis=1) + m)[:, None], 9)  # (n, entries)

    current, since, recent = _served(visitors, entries, options["every_days"])
    order = np.where((sure & ~recent)[:, None], moved(current, share, options["threshold"]), current)
    changed = pl.Series((order != current).any(axis=1))
    collapsed = _unused(visitors, last[:, len(entries) :], options["collapse_days"]) & sure[:, None]
    now = pl.lit(visitors.at.isoformat(timespec="seconds"))
    config = pl.DataFrame(
        {
            "order": pl.Series(np.array(entries, dtype=object)[order].tolist(), dtype=pl.List(pl.String)),
            "collapsed": chosen_names(collapsed, panels),
            "density": _density(surface, visitors),
            "theme": _theme(surface, visitors),
            "layout": _layout(surface, visitors),
            "since": since.to_frame("since").select(pl.when(changed).then(now).otherwise("since")).to_series(),
        }
    )
    by_use = (order != np.arange(len(entries))).any(axis=1) | collapsed.any(axis=1)
    slow = (config["layout"] == "light").to_numpy() & (options["layout"] == "auto")
    rules = {"min_confidence": visitors.personal & ~sure, "every_days": sure & recent, "slow_network": slow}
    found = pl.DataFrame(
        {
            KEY: config.to_struct(),
            "policy": np.where(by_use, "by_use", "default").tolist(),
            "propensity": np.ones(len(visitors.users)),
            "rules": chosen_names(np.array(list(rules.values())).T, list(rules)),
            "evidence": known,
            **said_of(certainty, visitors.personal),
        }
    )
    return found.with_columns(reasons=_reasons(visitors, config, entries, own, by_use)) if explain else found


def moved(current: Ints, share: Floats, threshold: float) -> Ints:
    """Orders (n, E) of entries after each has passed those before it that it is ahead of by more than the threshold.

    Every exchange is of neighbours and puts a pair right that was wrong, so it ends; where no neighbour is ahead by so
    much nothing moves.
    """
    order = current.copy()
    value = np.take_along_axis(share, order, axis=1)
    moving = True
    while moving:
        moving = False
        for place in range(order.shape[1] - 1, 0, -1):
            swap = np.flatnonzero(value[:, place] - value[:, place - 1] > threshold)
            if len(swap):
                moving = True
                for table in (order, value):
                    table[swap, place - 1], table[swap, place] = table[swap, place], table[swap, place - 1].copy()
    return order


def _served(visitors: Visitors, entries: Sequence[str], every_days: float) -> tuple[Ints, pl.Series, Flags]:
    """What is served now: the order (n, E), since when it is (n,), and whether it changed within `every_days` (n,).

    The declared order where nothing was; entries that are new stand behind those that were there.
    """
    n, width = len(visitors.users), len(entries)
    current = np.tile(np.arange(width), (n, 1))
    since = pl.Series([None], dtype=pl.String).new_from_index(0, n)
    past = visitors.past()
    last = past.sort("row", "at", "choice").group_by("row", maintain_order=True).last()
    last = last.filter(pl.Series(visitors.personal[last["row"].to_numpy()], dtype=pl.Boolean))
    if not last.height:
        return current, since, np.zeros(n, dtype=bool)
    told = last.select("row", pl.col("choice").str.json_decode(_SERVED)).unnest("choice")
    rank = np.tile(np.arange(width, 2 * width), (n, 1))
    flat = told.with_columns(place=pl.int_ranges(pl.col("order").list.len())).explode("order", "place")
    column = flat["order"].replace_strict(
        pl.Series(list(entries)), pl.Series(np.arange(width)), default=None, return_dtype=pl.Int64
    )
    flat = flat.with_columns(column=column).drop_nulls("column").filter(pl.col("place") < width)
    rank[flat["row"].to_numpy(), flat["column"].to_numpy()] = flat["place"].to_numpy()
    current = np.argsort(rank, axis=1, kind="stable")
    rows = pl.DataFrame({"row": np.arange(n)}).join(
        told.select("row", "since"), on="row", how="left", maintain_order="left"
    )
    since = rows["since"]
    age = (pl.lit(visitors.at) - since.str.to_datetime(time_zone="UTC", time_unit="us")).dt.total_microseconds() / DAY
    recent = rows.select((age < every_days).fill_null(False)).to_series().to_numpy()
    return current, since, recent


def _unused(visitors: Visitors, last: Ints, days: float) -> Flags:
    """Panels (n, P) that the user has not used for so long, never the one used last; of who used none, none."""
    if not last.shape[1]:
        return np.zeros(last.shape, dtype=bool)
    first = visitors.rows["first_seen"].to_physical().fill_null(0).to_numpy()
    until = round(visitors.moment.timestamp() * _MILLIONTHS)
    latest = last.max(axis=1, keepdims=True)
    unused = until - np.maximum(last, first[:, None]) >= days * DAY
    found: Flags = unused & (last < latest) & (latest > 0)
    return found


def _said(visitors: Visitors, key: str, words: Sequence[str]) -> pl.Series:
    """What users set themselves (events of type preference), if it is one of the words (n,)."""
    rows = visitors.rows
    if rows["_preferences"].dtype == pl.Null:
        return pl.Series([None], dtype=pl.String).new_from_index(0, rows.height)
    said = set_by(rows, key)
    heard = said.is_in(list(words)) & pl.Series(~visitors.holdout)
    return said.to_frame().select(pl.when(heard).then(key)).to_series()


def _density(surface: Surface, visitors: Visitors) -> pl.Series:
    fixed = surface.options["density"]
    if fixed != "auto":
        return pl.repeat(fixed, len(visitors.users), eager=True)
    expert = (pl.col("maturity") >= surface.options["expert_from"]) & ~pl.col("device").is_in(TOUCH)
    compact = visitors.rows.select(expert.fill_null(False)).to_series() & pl.Series(~visitors.holdout)
    chosen = pl.when(compact).then(pl.lit(DENSITIES[1])).otherwise(pl.lit(DENSITIES[0]))
    return pl.select(pl.coalesce(_said(visitors, "density", DENSITIES), chosen)).to_series()


def _theme(surface: Surface, visitors: Visitors) -> pl.Series:
    """By the hour where the visitor is; light where that is not known."""
    options = surface.options
    if options["theme"] != "auto":
        return pl.repeat(options["theme"], len(visitors.users), eager=True)
    hour = _local_hours(visitors)
    start, end = options["dark_from"], options["dark_until"]
    night = (hour >= start) & (hour < end) if start < end else (hour >= start) | (hour < end)
    dark = pl.Series(night & (hour >= 0) & ~visitors.holdout)
    chosen = pl.when(dark).then(pl.lit(THEMES[1])).otherwise(pl.lit(THEMES[0]))
    return pl.select(pl.coalesce(_said(visitors, "theme", THEMES), chosen)).to_series()


def _local_hours(visitors: Visitors) -> Ints:
    """0 to 23, -1: not known (n,); by the hour told, else the zone, else the country."""
    rows = visitors.rows
    if "hour" in visitors.context:
        return np.full(rows.height, int(visitors.context["hour"]), dtype=np.int64)
    where = rows.select("tz", "country").unique().sort("tz", "country", nulls_last=True)

    def codes(name: str) -> Codes:
        values = where[name].drop_nulls().unique().sort()
        numbered = pl.DataFrame({name: values, "code": np.arange(len(values), dtype=np.int64)})
        found = where.join(numbered, on=name, how="left", maintain_order="left")["code"].fill_null(-1)
        return Codes(found.to_numpy(), values)

    at = np.full(where.height, round(visitors.at.timestamp() * _MILLIONTHS), dtype=np.int64)
    hours = hour_of(local_time(at, codes("tz"), codes("country")))
    told = [
        (tz is not None and zone_of(tz) is not None) or (country is not None and country_zone(country) is not None)
        for tz, country in where.iter_rows()
    ]
    where = where.with_columns(hour=pl.Series(np.where(told, hours, -1), dtype=pl.Int64))
    joined = rows.select("tz", "country").join(
        where, on=["tz", "country"], how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["hour"].to_numpy()


def _layout(surface: Surface, visitors: Visitors) -> pl.Series:
    """light on a slow network, as the visit says or, where it says nothing, as the last one had."""
    fixed = surface.options["layout"]
    if fixed != "auto":
        return pl.repeat(fixed, len(visitors.users), eager=True)
    network = visitors.rows["network"]
    speeds = by_distinct(network.fill_null(""), network_class, pl.String)
    slow = (speeds == "slow").fill_null(False) & pl.Series(~visitors.holdout)
    return pl.select(pl.when(slow).then(pl.lit("light")).otherwise(pl.lit("full"))).to_series()


def _reasons(visitors: Visitors, config: pl.DataFrame, entries: Sequence[str], own: Floats, by_use: Flags) -> pl.Series:
    """Sentences of each user (n,)."""
    found = []
    most = own.argmax(axis=1)
    theme, density = _said(visitors, "theme", THEMES), _said(visitors, "density", DENSITIES)
    for row, given in enumerate(config.iter_rows(named=True)):
        told = []
        if visitors.holdout[row]:
            told.append("the same for all, to measure against (holdout)")
        elif visitors.generic[row]:
            told.append("nothing is known of this person: personalization does not cover them")
        if by_use[row] and own[row].any():
            told.append(f"{entries[most[row]]} is used most ({own[row, most[row]]:.1f} recent uses)")
        told += [f"{panel} was not used lately" for panel in given["collapsed"]]
        told += ["the network is slow"] if given["layout"] == "light" else []
        told += ["it is evening or night there"] if given["theme"] == "dark" and theme[row] is None else []
        compact = given["density"] == "compact" and density[row] is None
        told += ["an experienced user at a large screen"] if compact else []
        told += [
            f"the {key} was set so" for key, said in (("theme", theme), ("density", density)) if said[row] is not None
        ]
        found.append(told or ["too little is known yet: as declared"])
    return pl.Series(found, dtype=pl.List(pl.String))
