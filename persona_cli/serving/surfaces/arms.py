"""Arms of a surface: a bandit chooses which of its settings a person gets, and the kind decides each group by them.

The chances of the arms follow from what they have earned (`models.bandits`, `persona bandit update`) and from the
person's features; the arm is drawn from these by a number that follows from the person, the surface and the period
(`bandit.hold_days`) alone: asked again within it, and with nothing learned since, everybody has the same arm, whoever
else is asked for. Who is held out or not covered, and for whom no arm is open, gets the surface as it is without arms.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from persona_cli.errors import BadSettings, nearest
from persona_cli.models import bandits
from persona_cli.models.bandits import Learned, Policy
from persona_cli.profiles.coding import Ints, by_distinct
from persona_cli.profiles.context import network_class
from persona_cli.profiles.draws import positions
from persona_cli.profiles.features import Floats
from persona_cli.profiles.identity import assignment_ids
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.visitors import Flags, Visitors, known_columns
from persona_cli.workspace.filters import Filter, FilterError, parse
from persona_cli.workspace.home import SETTINGS_FILE, Home
from persona_cli.workspace.surface_declarations import ARMS, BANDIT, NETWORKS, WHEN

if TYPE_CHECKING:
    from persona_cli.serving.surfaces.deciding import Kind

PREFIX = "bandit/"
"""Before the name of an arm among the variants of a logged decision: no experiment has such a name."""
NO_ARM = "no_arm_open"
"""Rule of those for whom no arm is open."""
_BITS = 53
_DIGITS = 4
log = logging.getLogger("persona")


def has_arms(surface: Surface) -> bool:
    return ARMS in surface.options


def arm_names(surface: Surface) -> list[str]:
    """The arms, sorted: their places are those of the sums."""
    return sorted(surface.options[ARMS])


def policy_of(surface: Surface) -> Policy:
    """How an arm of this surface is chosen."""
    told = surface.options[BANDIT]
    return Policy(told["policy"], told["epsilon"], told["alpha"], told["ridge"], told["sharing"])


def digest_of(surface: Surface) -> str:
    """Of what the sums of a surface follow from: its arms by name, features, reward and window."""
    told = surface.options[BANDIT]
    parts = [arm_names(surface), told["features"], told["reward"], told["window_hours"], told["warm_start"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def learned_for(home: Home, surface: Surface) -> Learned:
    """What the arms have earned; nothing, and a warning, where it was summed for other arms, features or rewards."""
    found = bandits.learned_of(home, surface.name)
    if found is not None and found.digest == digest_of(surface):
        return found
    if found is not None:
        log.warning(
            "the arms, features or rewards of [surface.%s] are others than were learned from: all arms are tried alike "
            "until persona bandit update %s",
            surface.name,
            surface.name,
        )
    names = tuple(arm_names(surface))
    return Learned(digest_of(surface), names, bandits.nothing(len(names), len(columns_of(surface))))


def columns_of(surface: Surface) -> list[str]:
    """What each coefficient is of: a constant, device=mobile, …, maturity (d,)."""
    found = ["constant"]
    for name, values in surface.options[BANDIT]["features"].items():
        found += [f"{name}={value}" for value in values] if isinstance(values[0], str) else [name]
    return found


def told_features(surface: Surface, rows: pl.DataFrame) -> pl.DataFrame:
    """The columns that features are made of, as they are kept with a decision (n, n_features).

    Of a text that is none of the declared values nothing is kept; numbers are no finer and go no further than declared.
    """
    said = []
    for name, values in surface.options[BANDIT]["features"].items():
        column = rows[name]
        if isinstance(values[0], str):
            column = _texts(column, values)
        else:
            low, high = values
            step = 10.0 ** round(np.log10(high - low) - _DIGITS)
            column = ((column.cast(pl.Float64).fill_nan(None).clip(low, high) / step).round() * step).round(12)
        said.append(column.alias(name))
    return pl.DataFrame(said)


def _texts(column: pl.Series, values: Sequence[str]) -> pl.Series:
    texts = column.cast(pl.String)
    if column.name == "network" and set(values) <= set(NETWORKS):
        texts = by_distinct(texts.fill_null(""), network_class, pl.String)
    return texts.to_frame("text").select(pl.when(pl.col("text").is_in(list(values))).then("text")).to_series()


def encoded(surface: Surface, told: pl.DataFrame, n: int) -> Floats:
    """Features (n, d) of `told_features`: 1, an indicator a text, numbers from 0 to 1; 0 for what is not known."""
    found = [np.ones(n)]
    for name, values in surface.options[BANDIT]["features"].items():
        column = told[name]
        if isinstance(values[0], str):
            found += [(column == value).fill_null(False).to_numpy().astype(np.float64) for value in values]
        else:
            share = (column.cast(pl.Float64) - values[0]) / (values[1] - values[0])
            found.append(share.fill_null(0.0).to_numpy())
    return np.clip(np.stack(found, axis=1), 0.0, 1.0)


def needs(home: Home, surface: Surface, kind: Kind) -> set[str]:
    """Columns that the kind wants to know with any arm, and those of features and of whom an arm is open to."""
    known = known_columns(home)
    features = surface.options[BANDIT]["features"]
    for name in features:
        if name not in known:
            place = f"{home.path(SETTINGS_FILE)}: surface.{surface.name}.{BANDIT}.features"
            raise BadSettings(
                f"{place}: nothing is known of a visitor by the name {name!r}{nearest(name, known)}",
                "persona segment list --columns",
            )
    wanted = kind.needs(home, surface) | set(features)
    for name, condition in _conditions(home, surface).items():
        wanted |= kind.needs(home, with_arm(surface, name)) | (set(condition.columns) if condition else set())
    return wanted


def with_arm(surface: Surface, name: str) -> Surface:
    """The surface as it is with one arm."""
    options = {key: value for key, value in surface.options.items() if key not in (ARMS, BANDIT)}
    return replace(surface, options={**options, **surface.options[ARMS][name]["set"]})


def decide(home: Home, surface: Surface, kind: Kind, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """What the kind decides, with `arm` (null: none); policy and propensity are those of the bandit.

    The propensity is the chance of the arm times that of the kind's own choice within it.
    """
    names = arm_names(surface)
    arm, chance = chosen(home, surface, visitors)
    parts = []
    for place in range(-1, len(names)):
        mine = np.flatnonzero(arm == place)
        if not len(mine) and (place >= 0 or len(arm)):
            continue
        there = surface if place < 0 else with_arm(surface, names[place])
        made = kind.decide(home, there, _part(visitors, mine), explain).with_columns(_row=pl.Series(mine))
        if place < 0:
            shut = pl.Series(visitors.personal[mine])
            rules = pl.when(shut).then(pl.concat_list("rules", pl.lit([NO_ARM], pl.List(pl.String)))).otherwise("rules")
            parts.append(made.with_columns(rules=rules, arm=pl.lit(None, pl.String)))
            continue
        share = pl.Series(chance[mine])
        made = made.with_columns(
            arm=pl.lit(names[place]),
            policy=pl.lit(surface.options[BANDIT]["policy"]),
            propensity=share * pl.col("propensity").fill_null(1.0),  # of a list that explores each item has its own
        )
        if "reasons" in made.columns:
            why = pl.Series([[f"arm {names[place]}, which had a chance of {one:.3f}"] for one in chance[mine]])
            made = made.with_columns(reasons=pl.concat_list("reasons", why))
        parts.append(made)
    return pl.concat(parts, how="diagonal_relaxed").sort("_row").drop("_row")


def chosen(home: Home, surface: Surface, visitors: Visitors) -> tuple[Ints, Floats]:
    """The place of the arm of each visitor (n,), -1: none, and its chance (n,)."""
    names, n = arm_names(surface), len(visitors.users)
    eligible = np.ones((n, len(names)), dtype=bool)
    for place, condition in enumerate(_conditions(home, surface).values()):
        if condition is not None:
            eligible[:, place] = condition.mask(visitors.rows).to_numpy().astype(bool)
    drawing: Flags = visitors.personal & eligible.any(axis=1)
    arm, chance = np.full(n, -1, dtype=np.int64), np.ones(n)
    asked = np.flatnonzero(drawing)
    if (shut := int((visitors.personal & ~drawing).sum())) and not len(asked):
        log.warning(
            "no arm of [surface.%s] is open to any of %s people (arms.NAME.when): they get it as it is without arms",
            surface.name,
            f"{shut:,}",
        )
    if len(asked):
        x = encoded(surface, told_features(surface, visitors.rows[asked]), len(asked))
        uniform = draws(home, surface, visitors.users[asked], visitors.at)
        sums = learned_for(home, surface).sums
        arm[asked], chance[asked] = bandits.choose(policy_of(surface), sums, x, uniform, eligible[asked])
    return arm, chance


def draws(home: Home, surface: Surface, users: pl.Series, at: datetime) -> Floats:
    """A number from 0 to under 1 for each user (n,): another in every period of `hold_days`, of a person always one."""
    days = surface.options[BANDIT]["hold_days"]
    period = int(at.timestamp() // (days * 86_400)) if days else at.isoformat()
    said = f"{surface.name}/{days:g}/{period}"
    key = hashlib.blake2b(said.encode(), key=home.salt[:64], digest_size=32, person=b"bandit").digest()
    return positions(assignment_ids(home, users), key)[:, 0]


def _conditions(home: Home, surface: Surface) -> dict[str, Filter | None]:
    """Whom each arm is open to; None: everybody. `BadSettings` names what is wrong and where."""
    arms: Mapping[str, Mapping[str, Any]] = surface.options[ARMS]
    found: dict[str, Filter | None] = {}
    known = known_columns(home) if any(arm[WHEN] for arm in arms.values()) else {}
    for name in arm_names(surface):
        try:
            found[name] = parse(arms[name][WHEN], known) if arms[name][WHEN] else None
        except FilterError as error:
            place = f"{home.path(SETTINGS_FILE)}: surface.{surface.name}.{ARMS}.{name}.{WHEN}"
            raise BadSettings(f"{place}: {error}", "persona segment list --columns") from error
    return found


def _part(visitors: Visitors, places: Ints) -> Visitors:
    return replace(
        visitors,
        users=visitors.users[places],
        rows=visitors.rows[places],
        holdout=visitors.holdout[places],
        generic=visitors.generic[places],
        kept=visitors.kept[places],
    )
