"""Whether lists narrow over time: how many kinds of things a list holds, and how much of the catalogue is shown at all.

A model that learns from the clicks on its own lists may end up showing ever fewer things (a filter bubble; Chaney,
Stewart & Engelhardt 2018). By surface and week this tells, of the lists that were made for people who are not held out:

    entropy     Shannon's, of the categories in a list, in bits, on average over lists
    coverage    different items in so many entries as the week with the fewest has: what to expect of a random part of
                that size (rarefaction; Hurlbert 1971), so that busy weeks are not wider for being busy
    gini        how unevenly items are shown: 0 all alike, 1 one alone

and what is kept of the first weeks. Weeks with fewer than `SMALLEST_CELL` people have no figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import gammaln

from persona_cli.evaluation.diversity import gini
from persona_cli.events.catalogue import described
from persona_cli.feedback import decisions as logged
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.identity import persons
from persona_cli.workspace.home import Home

FIGURES = ("entropy", "coverage", "gini")
JUDGED = ("entropy", "coverage")
SCHEMA = pl.Schema(
    {
        "surface": pl.String(),
        "week": pl.Date(),
        "decisions": pl.Int64(),
        "people": pl.Int64(),
        **dict.fromkeys(FIGURES, pl.Float64()),
        **{f"{name}_kept": pl.Float64() for name in JUDGED},
    }
)


@dataclass(frozen=True)
class Bubble:
    """How wide lists are."""

    weeks: pl.DataFrame
    """`SCHEMA`, sorted by surface and week (its Monday, UTC); kept: over the mean of the first weeks, null in these."""
    narrow: list[str]
    """A sentence for each surface whose last week keeps less than `decisions.bubble_kept` of something."""


def bubble(
    home: Home,
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
    surface: str | None = None,
) -> Bubble:
    """Lists of people whom analytics cover, made from `since` on and before `until`, by surface and week.

    `decisions.bubble_weeks` says how many weeks are the first ones; without a later one nothing is judged.
    """
    made = logged.read(home, since=since, until=until, as_of=as_of)
    made = made.filter(~pl.col("holdout").fill_null(False), pl.col("items").list.len() > 0)
    if surface is not None:
        made = made.filter(pl.col("surface") == surface)
    week = pl.col("at").dt.truncate("1w").dt.date().alias("week")
    person = persons(home, as_of).resolved(pl.col("user_id"))
    item = pl.col("items").list.eval(pl.element().struct.field("item_id"))
    rows = made.select("surface", week, person.alias("person"), item.alias("item_id")).collect()
    catalogue = described(home, as_of)
    kinds = None if catalogue is None else catalogue.select("item_id", "category").drop_nulls()
    first, least = home.settings.whole("decisions.bubble_weeks"), home.settings.number("decisions.bubble_kept")
    parts, narrow = [pl.DataFrame(schema=SCHEMA)], []
    for (name,), own in sorted(rows.group_by("surface"), key=lambda part: str(part[0][0])):
        weeks = _with_kept(_of_weeks(own, kinds), first)
        parts.append(weeks.with_columns(pl.lit(name, pl.String).alias("surface")).select(SCHEMA.names()))
        told = weeks.filter(pl.col("people").is_not_null()).tail(1).to_dicts()
        for figure in JUDGED:
            kept = told[0][f"{figure}_kept"] if told else None
            if kept is not None and kept < least:
                week_of = f"{figure} of the week of {told[0]['week']}"
                narrow.append(f"{name}: {week_of} is {kept:.0%} of that of the first {first} weeks")
    return Bubble(pl.concat(parts), narrow)


def _of_weeks(rows: pl.DataFrame, kinds: pl.DataFrame | None) -> pl.DataFrame:
    """week, decisions, people and `FIGURES` of one surface, sorted; null for weeks of fewer than `SMALLEST_CELL`."""
    weeks = (
        rows.group_by("week").agg(decisions=pl.len().cast(pl.Int64), people=pl.col("person").n_unique()).sort("week")
    )
    enough = pl.col("people") >= SMALLEST_CELL
    told = weeks.filter(enough)["week"]
    entries = rows.filter(pl.col("week").is_in(told.implode())).with_row_index("list")
    entries = entries.select("week", "list", "item_id").explode("item_id")
    shown = entries.group_by("week", "item_id").len()
    counts = {
        day: shown.filter(pl.col("week") == day)["len"].sort().to_numpy().astype(np.int64) for day in told.to_list()
    }
    fewest = min((int(one.sum()) for one in counts.values()), default=0)
    spread = pl.DataFrame(
        {
            "week": told,
            "coverage": [expected_items(counts[day], fewest) for day in told.to_list()],
            "gini": [round(gini(counts[day]) or 0.0, 9) for day in told.to_list()],
        },
        schema={"week": pl.Date, "coverage": pl.Float64, "gini": pl.Float64},
    )
    weeks = weeks.join(spread, on="week", how="left").join(_entropy(entries, kinds), on="week", how="left").sort("week")
    hidden = [pl.when(enough).then(pl.col(name).cast(pl.Int64)).alias(name) for name in ("decisions", "people")]
    return weeks.with_columns(hidden)


def _entropy(entries: pl.DataFrame, kinds: pl.DataFrame | None) -> pl.DataFrame:
    """week, entropy: the mean over lists of those of their entries that have a category."""
    if kinds is None:
        return pl.DataFrame(schema={"week": pl.Date, "entropy": pl.Float64})
    of_list = entries.join(kinds, on="item_id").group_by("week", "list", "category").len()
    share = pl.col("len") / pl.col("len").sum()
    each = of_list.group_by("week", "list").agg(entropy=-(share * share.log(2)).sum())
    # Rounded, so that the order of the sum does not show.
    return each.group_by("week").agg(pl.col("entropy").mean().round(9))


def expected_items(counts: NDArray[np.int64], m: int) -> float:
    """Different items to expect among `m` of all entries, drawn without putting back; `counts` (n_items,): how often
    each is shown. Σ 1 - C(N - n_i, m) / C(N, m) (Hurlbert 1971)."""
    total = int(counts.sum())
    if m >= total:
        return float((counts > 0).sum())
    rest = total - counts
    left = np.where(rest >= m, rest, m)  # where fewer are left than drawn, the item is surely among them
    ways = gammaln(left + 1) - gammaln(left - m + 1) - gammaln(total + 1) + gammaln(total - m + 1)
    return round(float(np.where(rest >= m, -np.expm1(ways), 1.0).sum()), 6)


def _with_kept(weeks: pl.DataFrame, first: int) -> pl.DataFrame:
    """With what each later week keeps of the mean of the first `first` weeks that have figures."""
    told = weeks.filter(pl.col("people").is_not_null())
    start, later = told.head(first), told.slice(first)["week"]
    kept = []
    for name in JUDGED:
        mean = start[name].mean()
        base = float(mean) if isinstance(mean, float) else 0.0
        of = (pl.col(name) / base).round(6) if base > 0 else pl.lit(None, pl.Float64)
        kept.append(pl.when(pl.col("week").is_in(later.implode())).then(of).alias(f"{name}_kept"))
    return weeks.with_columns(kept)
