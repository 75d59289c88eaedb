"""All that is known of everybody or of one person, and what changed of it between two moments.

Everybody, or one person, with all that is known: columns of profiles, computed features, own features, segments.

What changed in one user's profile between two moments: columns with before and after, interests gained and lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.events.catalogue import current
from persona_cli.profiles import features, segments
from persona_cli.profiles import fold as folding
from persona_cli.profiles.features import OWN_EVENTS, PREFERRED, Population, alone, computed
from persona_cli.profiles.fold import fold_users
from persona_cli.profiles.folds.part import FoldRules
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import ANALYTICS, Purpose
from persona_cli.profiles.population import moment_of_all, population_of
from persona_cli.profiles.read import STAGES, events_of, nobody, profile_of, profiles
from persona_cli.profiles.signal_fit import attention
from persona_cli.profiles.stated import stated
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

RECENT = 10
"""Latest events of one person that are shown."""
Layers = Callable[[Home, pl.DataFrame, Mapping[str, Any]], Mapping[str, Any]]
"""What says which layers serve a user: `serving.layer_weights.layers_of`, which stands on what is trained."""
_READ = (*features.NEEDED, "_preferences")
"""Columns of profiles that features and what was set are read from."""


def people(
    home: Home, as_of: datetime | None = None, known_at: datetime | None = None, *, purpose: Purpose = None
) -> pl.DataFrame:
    """One row a user, sorted by user_id: `profiles` with the computed features and those of [features.NAME]."""
    needed = (name for name in folding.COLUMNS if name in (*folding.SHOWN, *_READ))
    return _known_of(home, profiles(home, True, as_of, known_at, (*needed,), purpose=purpose).sort("user_id"), as_of)


def described(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """As `people`, in no order and only the columns that conditions may name, with user_id: much less to read."""
    needed = {"user_id", *segments.built_in(), *_READ}
    columns = tuple(name for name in folding.COLUMNS if name in needed)
    return _known_of(home, profiles(home, True, as_of, None, columns, purpose=purpose), as_of)


def _known_of(home: Home, profiles: pl.LazyFrame, as_of: datetime | None) -> pl.DataFrame:
    rows = profiles.collect()
    among = features.population(as_of or moment_of_all(rows["last_seen"]), rows)
    found = segments.with_own(stated(rows.hstack(computed(rows, among))), home)
    return found.drop(name for name in rows.columns if name.startswith("_"))


def sizes(home: Home, as_of: datetime | None = None) -> pl.DataFrame:
    """`segments.sizes` of everybody whom analytics cover."""
    return segments.sizes(described(home, as_of, purpose=ANALYTICS), home)


def members(
    home: Home,
    name: str | None = None,
    when: str | None = None,
    as_of: datetime | None = None,
    *,
    purpose: Purpose = None,
) -> pl.Series:
    """user_id of the users of a segment, or of those who meet a condition, sorted (n_members,)."""
    condition = segments.condition(home, name, when)
    rows = described(home, as_of, purpose=purpose)
    return rows.filter(condition.mask(rows))["user_id"].sort()


def person(
    home: Home,
    user: str,
    as_of: datetime | None = None,
    top: int = 10,
    known_at: datetime | None = None,
    *,
    purpose: Purpose = None,
    layers: Layers | None = None,
) -> dict[str, Any]:
    """As `read.profile`, and more: what is for people to see.

    features: computed and own, by name, null where the evidence is too little; segments: names of those the user is in;
    next: what is missing for the next stage ({stage, items}; null at the last); attention: engaged_ms, bounce_ms,
    idle_ms (null without a fit); recent: the latest events, latest first (at, event_type, item_id, title, target,
    value); layers: what `layers` says of the user's events and all this. `MissingInput` where the user has no events,
    `Refused` where the purpose does not cover the person.
    """
    who = persons(home, as_of, known_at)
    with ThreadPoolExecutor(1) as pool:  # everybody and the user are read side by side
        everybody = pool.submit(population_of, home, as_of, known_at, purpose=purpose)
        events = events_of(home, user, as_of, known_at, who, purpose=purpose)
        if not events.height:
            raise nobody(user, as_of, known_at)
        row = folding.fold_users(events, FoldRules.of(home.settings))
        found = profile_of(home, events, as_of, top, row)
        among = everybody.result()
    found["ids"] = who.ids_of(who.of(pl.Series([user]))).to_list()
    found |= told_of(home, row, found, reaching(among, found, as_of))
    found["next"] = missing(found["items"], home.settings)
    found["attention"] = attention(row["_dwell"], home.settings).row(0, named=True)
    found["recent"] = _recent(home, events, as_of)
    if layers is not None:
        found["layers"] = layers(home, events, found)
    return found


def told_of(home: Home, row: pl.DataFrame, found: Mapping[str, Any], among: Population) -> dict[str, Any]:
    """features, segments and `PREFERRED` of one person, of the folded row and what `profile_of` found."""
    known = [pl.lit(found[name], pl.String).alias(name) for name in ("stage", "preferred_category")]
    known += [pl.lit(found["holdout"]).alias("holdout")]
    known += [pl.lit(found[name], pl.Float64).alias(name) for name in PREFERRED if name != "preferred_category"]
    whole = segments.with_own(stated(row.with_columns(known).hstack(computed(row, among))), home)
    shown = whole.select(*features.NAMES, *home.settings.values["features"])
    member = [name for name, one in segments.conditions(home).items() if one.mask(whole)[0]]
    return {**whole.select(*PREFERRED).row(0, named=True), "features": shown.row(0, named=True), "segments": member}


def population_for(
    home: Home,
    found: Mapping[str, Any],
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    *,
    purpose: Purpose = None,
) -> Population:
    """What a person is measured against: `population_of`, but where the profiles are behind the person's events."""
    return reaching(population_of(home, as_of, known_at, purpose=purpose), found, as_of)


def reaching(among: Population, found: Mapping[str, Any], as_of: datetime | None) -> Population:
    """The population of now until the person's last event, where the profiles are behind it."""
    if as_of is None and among.moment < found["last_seen"]:
        among = Population(found["last_seen"], among.use, among.features)
    return among


def missing(items: int, settings: Settings) -> dict[str, Any] | None:
    """The next stage and how many events with an item it still takes; None at the last."""
    limits = (settings.whole("profiles.cohort_from"), settings.whole("profiles.individual_from"))
    for stage, needed in reversed(list(zip(STAGES[1:], limits, strict=True))):
        if items >= needed:
            return None if stage == STAGES[-1] else {"stage": STAGES[-1], "items": limits[1] - items}
    stage = STAGES[1] if limits[0] < limits[1] else STAGES[2]
    return {"stage": stage, "items": min(limits) - items}


def _recent(home: Home, events: pl.DataFrame, as_of: datetime | None) -> list[dict[str, Any]]:
    latest = events.select(pl.col("timestamp").alias("at"), "event_type", "item_id", "target", "value")
    latest = latest.sort(latest.columns, descending=True, nulls_last=True).head(RECENT)
    titles = current(home, "items", as_of).select("item_id", "title")
    shown = latest.join(titles, on="item_id", how="left", maintain_order="left")
    return shown.select("at", "event_type", "item_id", "title", "target", "value").to_dicts()


# Interests are compared as sets, since strengths fade: the names of their lists and of what is listed.
_INTERESTS = {"items": ("top_items", "item_id"), "categories": ("categories", "category"), "tags": ("tags", "tag")}
_ALL = 1 << 31


def difference(
    home: Home, user: str, since: datetime | None, until: datetime | None, known_at: datetime | None = None
) -> dict[str, Any]:
    """What the events from `since` to before `until` (None: all later ones) changed, as known at `known_at`.

    user_id; from, to; changed: {column: {before, after}} of every column that differs (null where it was not known; a
    mapping such as types or features has only the entries that differ); items, categories, tags: {gained, lost},
    sorted: what the user has a liking for (strength above 0) after and not before, and the other way round; never: the
    same of items that are not to be shown again; segments: the same of those the user is in. Features are those of
    [features.NAME] and the computed ones that change by the user's own events alone. Raises MissingInput where nothing
    is known of the user at `until`, UsageError where `since` is not before `until`.
    """
    if since is not None and until is not None and since >= until:
        raise UsageError(
            f"--from {since.isoformat()} is not before --to {until.isoformat()}", "give the earlier one first"
        )
    events = events_of(home, user, until, known_at, purpose=ANALYTICS)
    if not events.height:
        raise MissingInput(f"nothing is known of a user {user!r} at that time", "persona profile list")
    earlier = events.filter(pl.col("timestamp") < since) if since is not None else events.clear()
    after = _known(home, events, until, known_at)
    before = _known(home, earlier, since, known_at) if earlier.height else {}
    listed = {name for name, _ in _INTERESTS.values()} | {"never", "segments", "user_id"}
    changed = {
        name: {"before": old, "after": new}
        for name, value in after.items()
        if name not in listed
        for old, new in [_different(before.get(name), value)]
        if old != new
    }
    found: dict[str, Any] = {"user_id": user, "from": since, "to": until, "changed": changed}
    for name, (listing, key) in _INTERESTS.items():
        found[name] = _gained_and_lost(*(_liked(profile.get(listing, []), key) for profile in (before, after)))
    found["segments"] = _gained_and_lost(set(before.get("segments", [])), set(after["segments"]))
    found["never"] = _gained_and_lost(set(before.get("never", [])), set(after["never"]))
    return found


def _known(home: Home, events: pl.DataFrame, as_of: datetime | None, known_at: datetime | None) -> dict[str, Any]:
    """The profile of the events, with the features that are compared and the segments; others are read if need be."""
    found = profile_of(home, events, as_of, _ALL)
    own = list(home.settings.values["features"])
    if own or home.settings.values["segments"]:
        among = population_for(home, found, as_of, known_at, purpose=ANALYTICS)
    else:
        among = alone(as_of or found["last_seen"])
    told = told_of(home, fold_users(events, FoldRules.of(home.settings)), found, among)
    features = {name: told["features"][name] for name in (*OWN_EVENTS, *own)}
    return {**found, "features": features, "segments": told["segments"]}


def _different(old: Any, new: Any) -> tuple[Any, Any]:
    """Of two mappings the entries that differ; anything else as it is."""
    if not isinstance(new, Mapping) or not isinstance(old, Mapping | None):
        return old, new
    keys = sorted(key for key in {*new, *(old or {})} if (old or {}).get(key) != new.get(key))
    return {key: (old or {}).get(key) for key in keys}, {key: new.get(key) for key in keys}


def _liked(listed: list[dict[str, Any]], key: str) -> set[str]:
    return {entry[key] for entry in listed if entry["strength"] > 0}


def _gained_and_lost(before: set[str], after: set[str]) -> dict[str, list[str]]:
    return {"gained": sorted(after - before), "lost": sorted(before - after)}
