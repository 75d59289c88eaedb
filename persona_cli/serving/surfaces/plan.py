"""`kind = "plan"`: the cheapest plan of the published price list that holds the use of the next month.

A plan holds where it includes every feature that is used and every use stays within its limits; how sure that is, is
the product over its limits of the chance that next month's use stays below (`plan_usage.forecast`). Advised is the
cheapest plan that holds with `min_confidence`; of equals the one the account has, then the first of the list. A dearer
plan than the account has (or, where that is not known, than the cheapest) needs more: every cheaper one has broken in a
month already, by a limit or by a feature, and is more likely to break than not. Otherwise the current plan stays.

Nothing is read but use, the current plan, and what the account says where a limit counts it; `roles` decide who is told
and never what. So the same use of the same plan gets the same advice, and every price is that of the list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadSettings
from persona_cli.models.stored import positions
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.features import Floats
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.plan_usage import Forecast, Use, forecast, observed, own_unit, units_of, usage
from persona_cli.serving.surfaces.visitors import Flags, Visitors, chosen_names
from persona_cli.workspace.home import SETTINGS_FILE, Home

KEY = "choice"
_LIKELY = 0.5
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Advice:
    """What the use of each unit says of each plan; plans by price (P), then as the list has them."""

    plans: list[str]
    prices: Floats
    """A month (P,)."""
    certainty: Floats
    """That the plan holds the next month (n, P); NaN where a limit counts what the account does not say."""
    held: Flags
    """Whether it has held every full month so far, and includes what is used (n, P)."""
    known: Flags
    """Who has a full month and said what limits count (n,)."""

    def supported(self, current: Places) -> Floats:
        """The highest price that use supports: of the cheapest plan that held so far, or of the current one (n,)."""
        cheapest = np.where(self.held, self.prices[None, :], np.inf).min(axis=1)
        own = np.where(current >= 0, self.prices[np.maximum(current, 0)], 0.0)
        found: Floats = np.maximum(cheapest, own)
        return found

    def chosen(self, current: Places, least: float) -> tuple[Places, dict[str, Flags]]:
        """The plan advised (n,; -1: the current one stays), and which rules bound it.

        `current` (n,): the place of the current plan; -1: not known.
        """
        n, P = self.certainty.shape
        rows = np.arange(n)
        sure = np.nan_to_num(self.certainty, nan=0.0)
        fits = (sure >= least) & self.known[:, None]
        rank = np.unique(self.prices, return_inverse=True)[1].astype(np.int64)
        order = rank[None, :] * 2 * P + P * (np.arange(P)[None, :] != current[:, None]) + np.arange(P)[None, :]
        best = np.where(fits, order, np.iinfo(np.int64).max).argmin(axis=1)
        some = fits.any(axis=1)
        price = self.prices[best]
        own = np.where(current >= 0, self.prices[np.maximum(current, 0)], -1.0)
        cheaper = self.prices[None, :] < price[:, None]
        broken = np.where(cheaper, ~self.held & (sure < _LIKELY), True).all(axis=1)
        needed = (price <= own) | (best == current) | (broken & (price <= self.supported(current)))
        none = self.known & ~self.held.any(axis=1) & (sure < _LIKELY).all(axis=1)
        advised = some & needed
        rules = {
            "use_unknown": ~self.known,
            "no_plan_fits": none,
            "min_confidence": self.known & ~some & ~none,
            "supported_by_use": some & ~needed,
        }
        return np.where(advised, best[rows], -1), rules


def advice_on(surface: Surface, use: Use, ahead: Forecast) -> Advice:
    """What use says of the plans of a surface."""
    options = surface.options
    given = options["plans"]
    plans = sorted(given, key=lambda name: given[name]["price"])  # stable: of equals as the list has them
    sold = {feature for plan in given.values() for feature in plan["features"]}
    needs = (use.times >= options["feature_uses"]) & np.array([name in sold for name in use.names])[None, :]
    limited = np.array([any(name in plan["limits"] for plan in given.values()) for name in use.names])
    unsaid = (use.told & limited)[None, :] & np.isnan(use.fixed)
    certainty, held = [], []
    for name in plans:
        limits = np.array([given[name]["limits"].get(one, np.inf) for one in use.names])
        there = np.array([one in given[name]["features"] for one in use.names])
        includes = ~(needs & ~there[None, :]).any(axis=1)
        below = np.where(use.told[None, :], (use.fixed <= limits[None, :]).astype(np.float64), ahead.below(limits))
        certainty.append(np.where(includes, np.where(unsaid, 1.0, below).prod(axis=1), 0.0))
        held.append(includes & observed(use, limits))
    known = (use.months > 0) & ~unsaid.any(axis=1)
    chance = np.where(unsaid.any(axis=1)[:, None], np.nan, np.stack(certainty, axis=1).round(6))
    return Advice(plans, np.array([given[name]["price"] for name in plans]), chance, np.stack(held, axis=1), known)


def needs(home: Home, surface: Surface) -> set[str]:
    return {"items", "plan", "role"}


def decide(home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """choice {plan, current, price, currency, certainty, fits, gains, loses, saves}, policy, propensity, rules[,
    reasons] (n).

    plan is null, and so is all else, where there is nothing to advise and no current plan: show the published list.
    BadSettings where no plan holds the use of anybody.
    """
    units = units_of(home, visitors.as_of)
    use = usage(home, surface, units, visitors.as_of, visitors.moment)
    ahead = forecast(use)
    everyone = advice_on(surface, use, ahead)
    _some_fit(home, surface, use, everyone)
    row, whole = places(visitors, units, use)
    stranger = row < 0
    advice = taken(everyone, row)
    options, rows = surface.options, visitors.rows
    told = rows["plan"]
    current = positions(told, pl.Series(advice.plans))
    listed = pl.Series(current >= 0) | told.is_null()
    role = rows["role"]
    buyer = (
        role.is_in(list(options["roles"])).fill_null(False)
        if options["roles"]
        else pl.repeat(True, len(role), eager=True)
    )
    told_to = visitors.personal & buyer.to_numpy()
    best, rules = advice.chosen(current, options["min_confidence"])
    asked = told_to & whole & ~stranger & listed.to_numpy()
    advised = asked & (best >= 0)
    plan = np.where(advised, best, np.where(told_to & (current >= 0), current, -1))
    shown = {name: asked & bound for name, bound in rules.items()}
    shown["use_unknown"] |= told_to & stranger
    shown |= {
        "use_not_whole": told_to & ~whole,
        "plan_not_listed": told_to & ~listed.to_numpy(),
        "roles": visitors.personal & ~told_to,
    }
    found = pl.DataFrame(
        {
            KEY: _choices(surface, advice, plan, current, asked, rows["plan"], told_to),
            "policy": np.where(advised, "cheapest_fit", np.where(told_to & (plan >= 0), "current", "default")).tolist(),
            "propensity": np.ones(len(plan)),
            "rules": chosen_names(np.array(list(shown.values())).T, list(shown)),
        }
    )
    return found.with_columns(reasons=_reasons(surface, use, ahead, row, plan, asked)) if explain else found


def places(visitors: Visitors, units: pl.DataFrame, use: Use) -> tuple[Places, Flags]:
    """The unit of each visitor (n,; -1: nothing is known of its use), and whether all its members may be read (n,)."""
    rows = visitors.rows.select(pl.col("person").alias("user_id"))
    of = rows.join(units, on="user_id", how="left", maintain_order="left")
    unit = of.select(pl.coalesce("unit", own_unit(pl.col("user_id")))).to_series()
    return positions(unit, use.units), of["whole"].fill_null(True).to_numpy()


def taken(advice: Advice, row: Places) -> Advice:
    """The advice of these units; of -1 nothing is known."""
    there = row >= 0
    at = np.maximum(row, 0)
    n, P = len(row), len(advice.plans)
    if not len(advice.known):
        return Advice(advice.plans, advice.prices, np.full((n, P), np.nan), np.zeros((n, P), bool), np.zeros(n, bool))
    certainty = np.where(there[:, None], advice.certainty[at], np.nan)
    return Advice(advice.plans, advice.prices, certainty, advice.held[at] & there[:, None], advice.known[at] & there)


def _some_fit(home: Home, surface: Surface, use: Use, advice: Advice) -> None:
    """BadSettings where enough is known of enough units and no plan holds any of them."""
    known = advice.known & (use.times > 0).any(axis=1)
    if known.sum() >= SMALLEST_CELL and not (advice.held | (advice.certainty >= _LIKELY))[known].any():
        raise BadSettings(
            f"{home.path(SETTINGS_FILE)}: surface.{surface.name}: no plan holds what any of "
            f"{int(known.sum()):,} accounts uses",
            "add a plan with higher limits or all features, or say with uses.NAME how a limit is counted",
        )


def _choices(
    surface: Surface, advice: Advice, plan: Places, current: Places, asked: Flags, told: pl.Series, told_to: Flags
) -> pl.Series:
    """The choice of each visitor (n,)."""
    given, least = surface.options["plans"], surface.options["min_confidence"]
    changes = set(zip(plan.tolist(), current.tolist(), strict=True))
    pairs = {change: _change(surface, advice.plans, *change) for change in changes}
    sure = advice.certainty >= least
    fits = chosen_names(sure & asked[:, None] & advice.known[:, None], advice.plans).to_list()
    found = []
    for n, (place, now) in enumerate(zip(plan.tolist(), current.tolist(), strict=True)):
        change = pairs[(place, now)]
        chance = float(advice.certainty[n, place]) if place >= 0 and asked[n] and advice.known[n] else None
        found.append(
            {
                "plan": advice.plans[place] if place >= 0 else None,
                "current": told[n] if told_to[n] else None,
                "price": given[advice.plans[place]]["price"] if place >= 0 else None,
                "currency": surface.options["currency"] if place >= 0 else None,
                "certainty": None if chance is None else round(chance, 4),
                "fits": fits[n],
                **change,
            }
        )
    names = pl.List(pl.String)
    texts = dict.fromkeys(("plan", "current"), pl.String) | {"price": pl.Float64, "currency": pl.String}
    schema = pl.Struct(
        texts | {"certainty": pl.Float64, "fits": names, "gains": names, "loses": names, "saves": pl.Float64}
    )
    return pl.Series(KEY, found, dtype=schema)


def _change(surface: Surface, plans: list[str], plan: int, current: int) -> dict[str, object]:
    """What a change from one plan to another gains, loses and saves a month (below 0: costs more)."""
    if plan < 0 or current < 0 or plan == current:
        return {"gains": [], "loses": [], "saves": 0.0 if plan >= 0 and plan == current else None}
    new, old = (surface.options["plans"][plans[place]] for place in (plan, current))
    return {"gains": _more(new, old), "loses": _more(old, new), "saves": round(old["price"] - new["price"], 2)}


def _more(one: dict[str, dict[str, float]], other: dict[str, dict[str, float]]) -> list[str]:
    """What one plan gives beyond the other, as words."""
    found = [name for name in one["features"] if name not in other["features"]]
    for name in sorted({*one["limits"], *other["limits"]}):
        mine, theirs = one["limits"].get(name, np.inf), other["limits"].get(name, np.inf)
        if mine > theirs:
            found.append(f"{name}: {'no limit' if np.isinf(mine) else f'{mine:,g}'} instead of {theirs:,g}")
    return found


def _reasons(surface: Surface, use: Use, ahead: Forecast, row: Places, plan: Places, asked: Flags) -> pl.Series:
    """Sentences on the use of each visitor (n,)."""
    given = surface.options["plans"]
    plans = sorted(given, key=lambda name: given[name]["price"])
    middle, low, high = ahead.interval()
    limited = {name for one in given.values() for name in one["limits"]}
    found = []
    for n, place in enumerate(row.tolist()):
        if place < 0 or not asked[n]:
            found.append(["nothing is advised"])
            continue
        limits = given[plans[plan[n]]]["limits"] if plan[n] >= 0 else {}
        told = []
        for k, name in enumerate(use.names):
            if use.told[k]:
                told.append(f"{name}: {use.fixed[place, k]:,g}")
            elif name in limited:
                bound = f", of {limits[name]:,g}" if name in limits else ""
                told.append(
                    f"{name}: about {middle[place, k]:,.0f} next month ({low[place, k]:,.0f} to {high[place, k]:,.0f})"
                    f"{bound}"
                )
            else:
                told.append(f"{name}: used {int(use.times[place, k]):,} times in {surface.options['months']} months")
        found.append(told)
    return pl.Series(found, dtype=pl.List(pl.String))
