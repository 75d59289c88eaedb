"""What the arms of a surface have earned: summed from the decisions that were seen, and what became of them.

A decision is learned from once its window (`bandit.window_hours`) is over, by the last event of anybody: until then
nobody knows that it earned nothing, and to count those alone that have earned already would favour whatever was tried
last. It counts where it was exposed (where impressions of the surface are sent at all; else where it was delivered),
its person is not held out, and analytics cover them. Which policy chose the arm does not matter: given the features
and the arm, the expected reward is the same, so that ridge regression needs no weights, and decisions of an earlier
policy, of other settings of it, or of an experiment on the same surface (`bandit.warm_start`) are as good as its own.

The sums are always those of all decisions that are there: updating again changes nothing, a late reward is in the next
update, and without the decisions of a person that was erased they are what they would be had the person never been.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import polars as pl

from persona_cli.errors import BadSettings
from persona_cli.feedback import decisions as logged
from persona_cli.feedback import outcomes
from persona_cli.models import bandits
from persona_cli.models.bandits import Learned
from persona_cli.profiles.permitted import ANALYTICS, person_events
from persona_cli.serving.surfaces import Surface, surface_of
from persona_cli.serving.surfaces.arms import PREFIX, arm_names, digest_of, encoded, has_arms, told_features
from persona_cli.workspace import locks
from persona_cli.workspace.home import Home
from persona_cli.workspace.surface_declarations import BANDIT

OUTCOME = {"click": outcomes.CLICK, "conversion": outcomes.CONVERSION, "no_negative": outcomes.NEGATIVE}
"""What is looked for by `bandit.reward`."""


class Updated(NamedTuple):
    """One surface after an update."""

    surface: str
    learned: Learned
    new: int
    """Rewards that were not in the sums before (fewer: negative)."""
    changed: bool


def update(home: Home, name: str | None = None, *, wait: float = 0.0) -> list[Updated]:
    """Sum anew what the arms of a surface have earned (None: of every surface that has arms), and keep it.

    BadSettings where there are no arms; MissingInput for a surface that is not there; Busy while another run holds the
    tables after `wait` seconds.
    """
    surfaces = [surface_of(home, name)] if name is not None else with_arms(home)
    for surface in surfaces:
        checked(surface)
    if not surfaces:
        raise BadSettings(
            "no surface of persona.toml has arms, so there is nothing to learn",
            "docs/bandits.md: arms.a = {} and arms.b = { KEY = VALUE } in a [surface.NAME]",
        )
    with locks.hold(home, "tables", "bandit update", wait):
        return _updated(home, surfaces)


def refit(home: Home) -> list[str]:
    """Bring all that was learned to the decisions that are there; answers the surfaces whose sums changed.

    What was learned for a surface that has no arms any more is removed.
    """
    kept = bandits.kept_surfaces(home)
    declared = {surface.name: surface for surface in with_arms(home)}
    changed = [name for name in kept if name not in declared and bandits.keep_learned(home, name, None)]
    there = [declared[name] for name in kept if name in declared]
    return sorted([*changed, *(one.surface for one in _updated(home, there) if one.changed)])


def with_arms(home: Home) -> list[Surface]:
    """The surfaces that have arms, by name."""
    found = (surface_of(home, name) for name in sorted(home.settings.values["surface"]))
    return [surface for surface in found if has_arms(surface)]


def checked(surface: Surface) -> Surface:
    """The same surface; BadSettings where it has no arms."""
    if not has_arms(surface):
        raise BadSettings(
            f"[surface.{surface.name}] has no arms to choose from",
            "docs/bandits.md: arms.a = {} and arms.b = { KEY = VALUE }",
        )
    return surface


def _updated(home: Home, surfaces: list[Surface]) -> list[Updated]:
    if not surfaces:
        return []
    made = outcomes.join(home).decisions
    until = person_events(home, purpose=ANALYTICS).select(pl.col("timestamp").max()).collect().item()
    until = None if until is None else min(until, datetime.now(UTC))
    found = []
    for surface in surfaces:
        before = bandits.learned_of_or_none(home, surface.name)
        learned = _learned(home, surface, made, until)
        changed = bandits.keep_learned(home, surface.name, learned)
        known = 0 if before is None or before.digest != learned.digest else int(before.sums.n.sum())
        found.append(Updated(surface.name, learned, int(learned.sums.n.sum()) - known, changed))
    return found


def _learned(home: Home, surface: Surface, made: pl.DataFrame, until: datetime | None) -> Learned:
    names = arm_names(surface)
    rows, waiting = rewards(surface, made, until)
    contexts = logged.read(home).filter(pl.col("surface") == surface.name).select("decision_id", "context").collect()
    rows = rows.join(contexts, on="decision_id", how="left", maintain_order="left")
    x = encoded(surface, _told(surface, rows["context"]), rows.height)
    place = rows["arm"].replace_strict(names, list(range(len(names))), return_dtype=pl.Int64).to_numpy()
    sums = bandits.sums_of(x, place, rows["reward"].to_numpy(), len(names))
    people = rows.group_by("arm").agg(pl.col("user_id").n_unique())
    counted = dict(people.iter_rows())
    said = None if until is None else until.isoformat()
    return Learned(digest_of(surface), tuple(names), sums, tuple(counted.get(name, 0) for name in names), said, waiting)


def rewards(surface: Surface, made: pl.DataFrame, until: datetime | None) -> tuple[pl.DataFrame, int]:
    """decision_id, user_id, arm, reward of decisions (of `outcomes.Joined`) that were seen and whose window was over at
    `until`; and how many others were seen."""
    told = surface.options[BANDIT]
    window = timedelta(hours=told["window_hours"])
    outcome = OUTCOME[told["reward"]]
    came = (pl.col(f"{outcome}_seconds") <= window.total_seconds()).fill_null(False)
    seen = made.filter(
        pl.col("surface") == surface.name, pl.col("exposed") | ~pl.col("tracked"), ~pl.col("holdout").fill_null(False)
    )
    seen = seen.with_columns(arm=arm_of(surface)).filter(pl.col("arm").is_in(arm_names(surface)))
    over = seen.filter(pl.col("at") + window <= until) if until is not None else seen.head(0)
    reward = (~came if told["reward"] == "no_negative" else came).cast(pl.Float64)
    return over.select("decision_id", "user_id", "arm", reward=reward), seen.height - over.height


def arm_of(surface: Surface) -> pl.Expr:
    """The arm of a logged decision: the bandit's, else the variant of an experiment that it is warmed up by."""
    variant = pl.col("variant")
    found = [variant.str.extract(f"(?:^|,){re.escape(PREFIX)}([^,]+)", 1)]
    found += [
        variant.str.extract(f"(?:^|,){re.escape(name)}:([^,]+)", 1) for name in surface.options[BANDIT]["warm_start"]
    ]
    return pl.coalesce(found)


def _told(surface: Surface, contexts: pl.Series) -> pl.DataFrame:
    """The columns of features from contexts as text (n,); null for what is not of the declared type."""
    features = surface.options[BANDIT]["features"]
    texts = {name: isinstance(values[0], str) for name, values in features.items()}
    cells = contexts.unique()
    found: dict[str, list[str | float | None]] = {name: [] for name in features}
    for text in cells.to_list():
        said = json.loads(text) if text else {}
        for name, is_text in texts.items():
            value = said.get(name)
            fits = isinstance(value, str) if is_text else isinstance(value, (int, float))
            found[name].append(value if fits else None)
    kinds = {name: pl.String() if is_text else pl.Float64() for name, is_text in texts.items()}
    rows = pl.DataFrame(found, schema=kinds).insert_column(0, cells.alias("_text"))
    rows = contexts.to_frame("_text").join(rows, on="_text", how="left", nulls_equal=True, maintain_order="left")
    return told_features(surface, rows)
