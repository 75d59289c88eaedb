"""How much each part of an interface is used, by one and by all: what its order and its panels follow from.

The share of an entry in a user's use is drawn towards that of a group, as if `m` more uses had followed the group:

    share = (n_e + m p_e) / (n + m)            n / (n + m): how sure it is (Bühlmann's credibility, 1967)

where n_e are the user's uses of the entry, each half as much after the half-life. p_e is the mean of the shares of the
users of the group, drawn likewise towards that of everybody. Each user counts once, so that a heavy one does not speak
for the others, and a group of fewer than `SMALLEST_CELL` counts not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.coding import Ints
from persona_cli.profiles.context import DAY
from persona_cli.profiles.features import Floats
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.permitted import PERSONALIZATION, Purpose, person_events
from persona_cli.profiles.read import profiles, stage_of
from persona_cli.profiles.sessions import PAGES
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_UNIT = 1_000_000  # uses and shares are added up as whole millionths: the same sum in any order


def uses(
    home: Home,
    names: Sequence[str],
    types: Sequence[str],
    half_life_days: float,
    as_of: datetime | None,
    moment: datetime,
) -> pl.DataFrame:
    """user_id, name, n (millionths, faded), last (µs) of everybody; sorted. The name is the target of an event of one
    of the types, of a view of a page the page, else the target."""
    schema = {"user_id": pl.String, "name": pl.String, "n": pl.Int64, "last": pl.Int64}
    if not tables.exists(home, "events"):
        return pl.DataFrame(schema=schema)
    at = pl.col("timestamp").to_physical()
    until = round(moment.timestamp() * _UNIT)
    age = (until - at).clip(0) / DAY
    faded = (pl.lit(0.5).pow(age / half_life_days) * _UNIT).round().cast(pl.Int64)
    events = person_events(home, as_of, purpose=PERSONALIZATION)
    counted = (
        _named(events, names, types, at.alias("at"), faded.alias("n"))
        .group_by("user_id", "name")
        .agg(pl.col("n").sum(), last=pl.col("at").max())
    )
    return counted.sort("user_id", "name").collect()


def each_use(home: Home, names: Sequence[str], types: Sequence[str], purpose: Purpose) -> pl.DataFrame:
    """user_id, timestamp, name of every use by persons whom the purpose covers, in no order."""
    return _named(person_events(home, purpose=purpose), names, types, pl.col("timestamp")).collect()


def _named(events: pl.LazyFrame, names: Sequence[str], types: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
    """user_id, `more` and name of the events that are a use of one of the names."""
    target = pl.when(pl.col("event_type").is_in(PAGES)).then(pl.coalesce("page", "target")).otherwise("target")
    used = events.filter(pl.col("event_type").is_in(list(types))).select("user_id", *more, target.alias("name"))
    return used.filter(pl.col("name").is_in(list(names)))


def by_name(used: pl.DataFrame, people: pl.Series, names: Sequence[str]) -> tuple[Ints, Ints]:
    """Uses (millionths) and the last of each (µs; 0: never) of each of `people` and name, both (n, n_names)."""
    rows = pl.DataFrame({"user_id": people, "row": np.arange(len(people))}).drop_nulls("user_id")
    known = list(dict.fromkeys(names))  # an entry and a panel may have one name
    places = pl.col("name").replace_strict(known, range(len(known)), default=None, return_dtype=pl.Int64)
    theirs = used.join(rows, on="user_id").with_columns(place=places).drop_nulls("place")
    where = (theirs["row"].to_numpy(), theirs["place"].to_numpy())
    count, last = (np.zeros((len(people), len(known)), dtype=np.int64) for _ in range(2))
    count[where], last[where] = (theirs[name].to_numpy() for name in ("n", "last"))
    each = [known.index(name) for name in names]
    return count[:, each], last[:, each]


def priors(
    home: Home, used: pl.DataFrame, entries: Sequence[str], cohort: str, groups: pl.Series, as_of: datetime | None
) -> Floats:
    """The share of each entry in the group of each user (n, n_entries); `groups` (n,): what the users are of."""
    mine = used.filter(pl.col("name").is_in(list(entries)))
    users = mine["user_id"].unique().sort()
    count, _ = by_name(mine, users, entries)
    share = count * _UNIT // np.maximum(count.sum(axis=1), 1)[:, None]  # (n_users, E), whole
    even = 1.0 / len(entries)
    everybody = _drawn(share.sum(axis=0), len(users), np.full(len(entries), even))
    table = [everybody]
    place = np.zeros(len(groups), dtype=np.int64)
    if cohort != "none" and len(users):
        of = users.to_frame("user_id").join(
            cohorts(home, cohort, as_of), on="user_id", how="left", maintain_order="left"
        )
        for value in of["cohort"].drop_nulls().unique().sort():
            inside = (of["cohort"] == value).fill_null(False).to_numpy()
            if inside.sum() >= SMALLEST_CELL:
                place[(groups == value).fill_null(False).to_numpy()] = len(table)
                table.append(_drawn(share[inside].sum(axis=0), int(inside.sum()), everybody))
    found: Floats = np.array(table)[place]
    return found


def _drawn(sums: Ints, n: int, towards: Floats) -> Floats:
    """Mean shares of n users, as if `SMALLEST_CELL` more had the shares `towards`."""
    found: Floats = (sums / _UNIT + SMALLEST_CELL * towards) / (n + SMALLEST_CELL)
    return found


def cohorts(home: Home, cohort: str, as_of: datetime | None) -> pl.DataFrame:
    """user_id, cohort of everybody: the column of the profile, or the stage."""
    columns = tuple(dict.fromkeys(("user_id", "items", "items" if cohort == "stage" else cohort)))
    if as_of is None:  # of all that `profiles` works out nothing is needed
        rows = profile_rows(home, columns, purpose=PERSONALIZATION)
    else:
        rows = profiles(home, False, as_of, None, columns, purpose=PERSONALIZATION).collect()
    value = stage_of(pl.col("items"), home.settings) if cohort == "stage" else pl.col(cohort)
    return rows.select("user_id", value.alias("cohort"))
