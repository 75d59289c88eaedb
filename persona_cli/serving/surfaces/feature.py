"""`kind = "feature"`: what of the product is shown: onboarding, guided workflows, advanced panels, shortcut hints.

An item is shown where its condition holds for the visitor. What a person has ever used (an event feature_use or click
with the item's `feature` as target) stays, whatever the condition says of them now. Of a visitor of whom nothing is
known counts are 0, so conditions on little use hold. The default (held out, not covered, below `min_confidence`) is
what the items say: tools are there for everybody, help is forced on nobody.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from persona_cli.errors import BadSettings
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.confidence import confidence, said_of
from persona_cli.serving.surfaces.visitors import Flags, Visitors, chosen_names, known_columns
from persona_cli.workspace.filters import Filter, FilterError, parse
from persona_cli.workspace.home import SETTINGS_FILE, Home
from persona_cli.workspace.surface_declarations import HELP

KEY = "config"


def needs(home: Home, surface: Surface) -> set[str]:
    named = {column for one in conditions(home, surface).values() for column in one.columns}
    return {"items", "events", "features_used", "clicked", *named}


def conditions(home: Home, surface: Surface) -> dict[str, Filter]:
    """The condition of each item; `BadSettings` names what is wrong and where."""
    known, found = known_columns(home), {}
    for name, item in surface.options["items"].items():
        try:
            found[name] = parse(item["when"], known)
        except FilterError as error:
            place = f"{home.path(SETTINGS_FILE)}: surface.{surface.name}.items.{name}.when"
            raise BadSettings(f"{place}: {error}", "persona segment list --columns") from error
    return found


def decide(home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """config {onboarding, workflow, panel, hint, kept: names}, policy, propensity, rules, evidence[, confidence]
    [, reasons] (n).

    kept: those of the names that are there only because the person has used them.
    """
    items, n = surface.options["items"], len(visitors.users)
    names = list(items)
    held = [one.mask(visitors.rows).to_numpy() for one in conditions(home, surface).values()]
    holds = np.array(held, dtype=bool).T  # (n, n_items)
    used = _used(visitors, [items[name]["feature"] for name in names])
    default = np.array([items[name]["default"] for name in names])
    events = visitors.rows["events"].fill_null(0).to_numpy()
    half = max(home.settings.whole("profiles.cohort_from"), 1)
    certainty = confidence(home, surface, events.astype(np.float64), half)
    sure = visitors.personal & (certainty.confidence >= surface.options["min_confidence"])
    chosen = np.where(sure[:, None], holds, default[None, :])
    kept = used & ~chosen
    shown = chosen | used
    of = {kind: np.array([items[name]["type"] == kind for name in names]) for kind in HELP}
    config = pl.DataFrame({kind: chosen_names(shown & mine, names) for kind, mine in of.items()})
    rules = {"min_confidence": visitors.personal & ~sure, "kept_used": kept.any(axis=1)}
    found = pl.DataFrame(
        {
            KEY: config.with_columns(kept=chosen_names(kept, names)).to_struct(),
            "policy": np.where(sure, "conditions", "default").tolist(),
            "propensity": np.ones(n),
            "rules": chosen_names(np.array(list(rules.values())).T, list(rules)),
            "evidence": events.astype(np.float64),
            **said_of(certainty, visitors.personal),
        }
    )
    if not explain:
        return found
    reasons = [*(f"{name}: {items[name]['when']}" for name in names), *(f"{name}: used before" for name in names)]
    reasons += [f"{name}: there for everybody" for name in names]
    why = np.hstack([holds & sure[:, None], kept, default[None, :] & ~sure[:, None]])
    return found.with_columns(reasons=chosen_names(why, reasons))


def _used(visitors: Visitors, features: list[str]) -> Flags:
    """Whether each visitor has ever used each item (n, n_items)."""
    rows = visitors.rows
    found = np.zeros((rows.height, len(features)), dtype=bool)
    for column, field in (("features_used", "feature"), ("clicked", "target")):
        told = pl.DataFrame({"row": np.arange(rows.height), "_": rows[column]}).explode("_").drop_nulls("_").unnest("_")
        for place, feature in enumerate(features):  # two items may stand for one feature
            found[told.filter(pl.col(field) == feature)["row"].to_numpy(), place] = True
    return found
