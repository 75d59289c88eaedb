"""What changed in one user's profile between two moments: columns with before and after, interests gained and lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.profiles.features import OWN_EVENTS, alone
from persona_cli.profiles.fold import fold_users
from persona_cli.profiles.folds.part import FoldRules
from persona_cli.profiles.people import population_for, told_of
from persona_cli.profiles.permitted import ANALYTICS
from persona_cli.profiles.read import events_of, profile_of
from persona_cli.workspace.home import Home

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
