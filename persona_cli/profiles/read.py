"""Profiles as people and models read them: the folded rows with what is derived when they are read.

Stage, holdout, interests and preferred category follow from settings, salt and catalogue as they are now, so a change
of those never makes a stored profile stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from persona_cli.errors import MissingInput
from persona_cli.events.catalogue import current
from persona_cli.events.store import scan_events
from persona_cli.profiles import fold as folding
from persona_cli.profiles import history as histories
from persona_cli.profiles.features import PREFERRED, preferred
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.folds.part import FoldRules
from persona_cli.profiles.identity import Persons, persons, raw_key
from persona_cli.profiles.permitted import Purpose, allowed, in_holdout, person_events, refusal
from persona_cli.profiles.population import past
from persona_cli.profiles.preferences import told
from persona_cli.profiles.signals import with_signals
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

STAGES = ("context", "cohort", "individual")
CONTEXT = ("device", "country")
# Faded strengths are added up as whole millionths: the same sum in any order.
_MILLIONTHS = 1_000_000


def profile(
    home: Home,
    user: str,
    as_of: datetime | None = None,
    top: int = 10,
    known_at: datetime | None = None,
    *,
    purpose: Purpose = None,
) -> dict[str, Any]:
    """All that is known of one user (before `as_of`, as known at `known_at`), folded from the user's own events.

    `user` may be any id of a person. The columns of the profiles table and their derived ones; ids; top_items,
    categories and tags (the `top` strongest, with faded strengths), and never (items not to be shown again).
    `MissingInput` where the user has no events, `Refused` where the purpose does not cover the person.
    """
    who = persons(home, as_of, known_at)
    events = events_of(home, user, as_of, known_at, who, purpose=purpose)
    if not events.height:
        raise nobody(user, as_of, known_at)
    return {**profile_of(home, events, as_of, top), "ids": who.ids_of(who.of(pl.Series([user]))).to_list()}


def nobody(user: str, as_of: datetime | None, known_at: datetime | None) -> MissingInput:
    """The error for a user without events."""
    when = "" if as_of is None else f" before {_iso(as_of)}"
    when += "" if known_at is None else f" by what was ingested until {_iso(known_at)}"
    return MissingInput(f"nothing is known of a user {user!r}{when}", "persona profile list")


def events_of(
    home: Home,
    user: str,
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    who: Persons | None = None,
    *,
    purpose: Purpose = None,
) -> pl.DataFrame:
    """The columns `NEEDED` of the events of whoever an id is of. `Refused` where the purpose does not cover them."""
    if (why := refusal(home, user, purpose)) is not None:
        raise why
    who = persons(home, as_of, known_at) if who is None else who
    ids = who.ids_of(who.of(pl.Series([user])))
    columns = [name for name in folding.NEEDED if name != "user_id"]
    theirs = scan_events(home, as_of, known_at).filter(raw_key().is_in(ids.implode()))
    return theirs.select(who.key(), *columns).collect()


def profile_of(
    home: Home, events: pl.DataFrame, as_of: datetime | None, top: int, row: pl.DataFrame | None = None
) -> dict[str, Any]:
    """As `profile` but `ids`, of the user's events (and their fold); `as_of` is the moment of the catalogue."""
    row = folding.fold_users(events, FoldRules.of(home.settings)) if row is None else row
    shown = row.select(folding.SHOWN)
    found: dict[str, Any] = shown.with_columns(_derived(home, row["user_id"])).row(0, named=True)
    found["told"] = told(row.row(0, named=True), home.settings)
    found["types"] = {entry["event_type"]: entry["n"] for entry in found["types"]}
    found["devices"] = {entry["device"]: entry["n"] for entry in found["devices"]}
    history = histories.fold_history(with_signals(events.lazy(), home.settings))
    interests = _interests(history, home.settings)
    items = _items(home, as_of)
    known = items.select("item_id", "title", "category")
    strongest = interests.filter(pl.col("strength") > 0).sort("strength", "item_id", descending=[True, False])
    found["top_items"] = (
        strongest.head(top)
        .join(known, "item_id", "left", maintain_order="left")
        .select("item_id", "title", "category", "strength", pl.col("n").alias("events"))
        .to_dicts()
    )
    categories = _by_category(interests, items)
    best = preferred(categories, items["category"].drop_nulls().n_unique())
    found |= best.row(0, named=True) if best.height else dict.fromkeys(PREFERRED)
    found["categories"] = _strongest(categories, top)
    tags = items.select("item_id", pl.col("tags").alias("category")).explode("category").drop_nulls().unique()
    found["tags"] = [
        {"tag": row["category"], "strength": row["strength"]} for row in _strongest(_by_category(interests, tags), top)
    ]
    found["never"] = interests.filter(pl.col("never") > 0)["item_id"].to_list()
    return found


def profiles(
    home: Home,
    categories: bool = True,
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    columns: Sequence[str] = folding.SHOWN,
    *,
    purpose: Purpose = None,
) -> pl.LazyFrame:
    """One row a user with stage, holdout and (unless refused) preferred_category with its certainty, in no order.

    From the profiles table, of which `columns` are read, or, with `as_of` or `known_at`, folded from the events of
    before that were known then. Computed features are in `people.people`.
    """
    if as_of is None and known_at is None:
        rows = profile_rows(home, columns, purpose=purpose)
        best = preferred_categories(home, purpose=purpose) if categories else None
    else:
        items = _items(home, as_of)
        parts, found = [folding.NOBODY.select(columns)], [_NO_CATEGORY]
        for people, history in past(home, as_of, known_at, purpose=purpose):
            parts.append(people.select(columns))
            found.append(_best(history, items, home.settings))
        rows, best = pl.concat(parts), pl.concat(found) if categories else None
    derived = rows.with_columns(_derived(home, rows["user_id"]))
    return (derived if best is None else derived.join(best, "user_id", "left")).lazy()


def preferred_categories(home: Home, users: pl.Series | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """user_id, preferred_category, its share and certainty (`features.preferred`) of all users (or some).

    Users without one are not in the answer. One bucket of history at a time.
    """
    table, items = histories.stored(home), _items(home)
    found = [_NO_CATEGORY]
    if table is None or not items["category"].count():
        return _NO_CATEGORY
    files, who = table.files, allowed(home, purpose)
    for bucket in sorted({file.partition["bucket"] for file in files}):
        rows = who.rows(table.scan([file for file in files if file.partition["bucket"] == bucket]))
        if users is not None:
            rows = rows.join(users.alias("user_id").to_frame().lazy(), on="user_id", how="semi")
        found.append(_best(histories.summed(rows), items, home.settings))
    return pl.concat(found)


_NO_CATEGORY = pl.DataFrame(
    schema={
        "user_id": pl.String,
        **{name: pl.String if kind == "text" else pl.Float64 for name, kind in PREFERRED.items()},
    }
)


def _best(history: pl.DataFrame, items: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    strengths = _by_category(_interests(history, settings), items)
    return preferred(strengths, items["category"].drop_nulls().n_unique())


def stage_of(items: pl.Expr, settings: Settings) -> pl.Expr:
    """`context`, `cohort` or `individual` by the number of events with an item: the evidence that models have."""
    cohort, individual = settings.whole("profiles.cohort_from"), settings.whole("profiles.individual_from")
    at_least_cohort = pl.when(items >= cohort).then(pl.lit(STAGES[1])).otherwise(pl.lit(STAGES[0]))
    return pl.when(items >= individual).then(pl.lit(STAGES[2])).otherwise(at_least_cohort).alias("stage")


def contexts(home: Home, users: pl.Series, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """device, country of each user's latest event that has one, aligned with `users` (n_users,); null where unknown."""
    wanted = users.alias("user_id").to_frame()
    if as_of is None:
        known = profile_rows(home, ("user_id", *CONTEXT), purpose=purpose)
        return wanted.join(known, "user_id", "left", maintain_order="left").select(CONTEXT)
    events = person_events(home, as_of, purpose=purpose).select("user_id", "timestamp", *CONTEXT)
    for name in CONTEXT:
        given = events.select("user_id", "timestamp", name).drop_nulls()
        given = given.join(wanted.lazy(), on="user_id", how="semi").sort("user_id", "timestamp", name)
        latest = given.unique("user_id", keep="last", maintain_order=True).select("user_id", name).collect()
        wanted = wanted.join(latest, "user_id", "left", maintain_order="left")
    return wanted.select(CONTEXT)


def _derived(home: Home, users: pl.Series) -> list[pl.Expr | pl.Series]:
    return [stage_of(pl.col("items"), home.settings), in_holdout(home, users)]


def _interests(history: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Faded strengths by (user, item); an item that is never to be shown again has none."""
    faded = histories.faded(history, settings)
    return faded.with_columns(strength=pl.when(pl.col("never") > 0).then(0.0).otherwise("strength"))


def _by_category(interests: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """user_id, category, strength, evidence: sums over the items of each category.

    Evidence adds up min(events, strength): an event counts as one at most, and a weak one as less.
    """
    joined = interests.join(items.select("item_id", "category").drop_nulls(), "item_id")
    millionths = (pl.col("strength") * _MILLIONTHS).round().cast(pl.Int64)
    evidence = pl.min_horizontal(millionths, pl.col("n") * _MILLIONTHS).clip(0)
    return joined.group_by("user_id", "category").agg(
        strength=(millionths.sum() / _MILLIONTHS).round(6), evidence=(evidence.sum() / _MILLIONTHS).round(6)
    )


def _strongest(strengths: pl.DataFrame, top: int) -> list[dict[str, Any]]:
    ordered = strengths.sort("strength", "category", descending=[True, False])
    return ordered.head(top).select("category", "strength").to_dicts()


def _items(home: Home, as_of: datetime | None = None) -> pl.DataFrame:
    return current(home, "items", as_of).select("item_id", "title", "category", "tags")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
