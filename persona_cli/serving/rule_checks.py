"""What is wrong with rules before anything is served.

Whether finished lists keep their rules, read off the lists; nothing of how they were made is trusted here.

new_items          at least so many new items
fresh              at least that share of the list is fresh
min_categories     at least so many different categories
max_per_category   no category more often, max_per_tag: no tag
exploration        that share of the length asked for was drawn, in lists that explore
length             the list is full, or holds everything that may be shown
exclude            nothing excluded is in it
pin.NAME           what is pinned and may be shown stands on top, up to at_most

What cannot be right about the rules of persona.toml, found before any list is made: one sentence each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadSettings, nearest
from persona_cli.models import registry
from persona_cli.models.stored import union
from persona_cli.profiles import segments
from persona_cli.profiles.people import described as people_described
from persona_cli.profiles.permitted import PERSONALIZATION
from persona_cli.serving.rule_items import Catalogue, dated, missing
from persona_cli.serving.rule_settings import (
    CONTEXT_COLUMNS,
    About,
    Named,
    Rules,
    about,
    columns_of_items,
    is_about_users,
    on_surface,
    parsed,
    rules_of,
)
from persona_cli.workspace.filters import Filter
from persona_cli.workspace.home import Home

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Facts:
    """Finished lists, entry by entry; arrays are (n_users, top) where nothing else is said."""

    top: int
    listed: Bools
    """Whether the entry exists."""
    personal: Bools
    """Whom all rules are for (n_users,); pins, exclusions and length are for everybody."""
    categories: Integers
    tags: Integers
    """(n_users, top, n_tags)"""
    new: Bools
    fresh: Bools
    excluded: Bools
    drawn: Bools
    pinned: Integers
    """Entries on top that are pinned (n_users,)."""
    pins: dict[str, tuple[Bools, Integers]]
    """Key of a pin → whether the entry is pinned by it, and how many items could be (n_users,)."""
    there: Integers
    """Items that may be shown, counted up to `top` (n_users,)."""
    left_out: Integers
    """Items that exclusions kept out (n_users,)."""
    supply: dict[str, Integers]
    """Items that could serve a need (n_users,), counted up to what is needed or beyond."""
    to_draw: Integers
    """Entries that are to be drawn (n_users,)."""


def names_of(rules: Rules) -> tuple[str, ...]:
    """What may give way, as lists say it, in the declared order."""
    in_force = {
        "exploration": rules.exploration > 0,
        "fresh": rules.fresh_share > 0,
        "new_items": rules.new_items > 0,
        "min_categories": rules.min_categories > 0,
        "max_per_tag": rules.max_per_tag > 0,
        "max_per_category": rules.max_per_category > 0,
        "length": True,
        "exclude": any(not one.compliance for one in rules.of_kind("exclude")),
    }
    names: list[str] = []
    for name in rules.give_way:
        if name == "pin":
            names += [f"pin.{one.name}" for one in rules.of_kind("pin")]
        elif in_force[name]:
            names.append(name)
    return tuple(names)


def broken(rules: Rules, facts: Facts) -> Bools:
    """Which rules each list breaks (n_users, n_names), names as `names_of` answers them."""
    length = facts.listed.sum(axis=1)
    found: dict[str, Any] = {}
    for name in names_of(rules):
        if name == "exploration":
            found[name] = (facts.drawn & facts.listed).sum(axis=1) < facts.to_draw
        elif name == "fresh":
            wanted = np.ceil(rules.fresh_share * length - 1e-9)
            found[name] = (facts.fresh & facts.listed).sum(axis=1) < wanted
        elif name == "new_items":
            found[name] = (facts.new & facts.listed).sum(axis=1) < rules.new_items
        elif name == "min_categories":
            codes = np.sort(np.where(facts.listed, facts.categories, -1), axis=1)
            first = np.concatenate((codes[:, :1] >= 0, (codes[:, 1:] != codes[:, :-1]) & (codes[:, 1:] >= 0)), axis=1)
            found[name] = first.sum(axis=1) < rules.min_categories
        elif name == "max_per_category":
            found[name] = _too_often(np.where(facts.listed, facts.categories, -1), rules.max_per_category)
        elif name == "max_per_tag":
            tags = np.where(facts.listed[:, :, None], facts.tags, -1).reshape(len(length), -1)
            found[name] = _too_often(tags, rules.max_per_tag)
        elif name == "length":
            found[name] = length < np.minimum(facts.there + facts.left_out, facts.top)
        elif name == "exclude":
            found[name] = (facts.excluded & facts.listed).any(axis=1)
        else:
            rule = next(one for one in rules.of_kind("pin") if f"pin.{one.name}" == name)
            mine, could = facts.pins[rule.key]
            on_top = mine & facts.listed & (np.arange(facts.top)[None, :] < facts.pinned[:, None])
            found[name] = on_top.sum(axis=1) < np.minimum(could, rule.at_most)
        if name not in ("length", "exclude") and not name.startswith("pin."):
            found[name] = np.logical_and(found[name], facts.personal)
    return np.stack(list(found.values()), axis=1)


def savable(rules: Rules, facts: Facts, gave_way: Bools) -> Bools:
    """Whose lists more candidates could save: not those that miss only what there is too little of (n_users,)."""
    found = np.zeros(len(gave_way), dtype=bool)
    wanted = {"new_items": rules.new_items, "fresh": rules.fresh(facts.top)}
    for number, name in enumerate(names_of(rules)):
        if name in wanted:
            found |= gave_way[:, number] & (facts.supply[name] >= min(wanted[name], facts.top))
        elif name in ("min_categories", "max_per_tag", "max_per_category", "length"):
            found |= gave_way[:, number]
    return found


def _too_often(numbers: Integers, most: int) -> Bools:
    """Whether a number from 0 on is there more than `most` times in a row (n, m)."""
    if numbers.shape[1] <= most:
        return np.zeros(len(numbers), dtype=bool)
    ordered = np.sort(numbers, axis=1)
    return np.asarray(
        ((ordered[:, most:] == ordered[:, : ordered.shape[1] - most]) & (ordered[:, most:] >= 0)).any(axis=1)
    )


def contradictions(home: Home, top: int | None = None) -> list[str]:
    """What is wrong with `[rules]` for lists of `top` (default: recommend.top), in the order of persona.toml.

    Then, after the name of each content surface, what is wrong with the rules that hold there for its lists and was not
    said before: `[rules]` may be right for ten entries and wrong for the three of a newsletter.
    """
    said = _of_settings(home, top or home.settings.whole("recommend.top"))
    found = list(said)
    for name, options in home.settings.values["surface"].items():
        if options["kind"] == "content":
            there = replace(home, settings=on_surface(home.settings, options["rules"]))
            shown = _of_settings(there, options["top"] or top or home.settings.whole("recommend.top"))
            found += [f"surface.{name}: {sentence}" for sentence in shown if sentence not in said]
    return found


def _of_settings(home: Home, top: int) -> list[str]:
    rules = rules_of(home.settings)
    if rules is None:
        return []
    try:
        conditions = parsed(home, rules)
    except BadSettings as error:
        return [error.message]
    catalogue = Catalogue(dated(home, None), datetime.now(UTC))
    lacking = [] if (sentence := missing(rules, catalogue)) is None else [sentence]
    return [
        *lacking,
        *_shares(rules, top),
        *_quotas(rules, catalogue, top),
        *_named(home, rules, conditions, catalogue, top),
    ]


def _shares(rules: Rules, top: int) -> Iterator[str]:
    fresh, drawn, pins = rules.fresh(top), rules.explored(top), sum(one.at_most for one in rules.of_kind("pin"))
    if rules.fresh_share + rules.exploration > 1:
        shares = f"rules.fresh.share ({rules.fresh_share:g}) and rules.exploration.share ({rules.exploration:g})"
        yield f"{shares} sum to more than 1"
    if pins > top:
        yield f"the pins are {pins} and a list has {top} entries; lower at_most or raise recommend.top"
    elif pins + drawn > top:
        yield f"{pins} pins and {drawn} entries drawn at random (rules.exploration.share) do not fit into {top} entries"
    for name, wanted in (("new_items.at_least", rules.new_items), ("min_categories", rules.min_categories)):
        if wanted > top:
            yield f"rules.{name} is {wanted} and a list has {top} entries"
    if fresh + drawn > top and rules.fresh_share + rules.exploration <= 1:
        yield f"{fresh} fresh entries and {drawn} drawn at random do not fit into {top} entries"


def _quotas(rules: Rules, catalogue: Catalogue, top: int) -> Iterator[str]:
    if catalogue.rows is None or not catalogue.rows.height:
        return
    rows = catalogue.rows.filter(pl.col("available").fill_null(True))
    n_categories = rows["category"].drop_nulls().n_unique()
    if rules.min_categories > n_categories > 0:
        yield f"rules.min_categories is {rules.min_categories} and the catalogue has {n_categories} categories"
    most = rules.max_per_category
    if most and n_categories:
        of_category = rows.group_by("category").len()
        fits = of_category.select(
            pl.when(pl.col("category").is_null()).then("len").otherwise(pl.col("len").clip(0, most))
        )
        if (held := int(fits.to_series().sum())) < top:
            yield f"rules.max_per_category is {most}, with which the catalogue fills {held} of {top} entries of a list"
    tags = rows["tags"].explode().drop_nulls()
    untagged = int(rows["tags"].list.len().fill_null(0).eq(0).sum())
    held = rules.max_per_tag * tags.n_unique() + untagged
    if rules.max_per_tag and len(tags) and held < top:
        few = f"the catalogue, which has {tags.n_unique()} tags, fills at most {held} of {top} entries of a list"
        yield f"rules.max_per_tag is {rules.max_per_tag}, with which {few}"
    available = rows["item_id"]
    lately = {
        f"rules.new_items.at_least is {rules.new_items}": (rules.new_items, rules.new_days, catalogue.dated),
        f"rules.fresh.share asks for {rules.fresh(top)} of {top}": (
            rules.fresh(top),
            rules.fresh_days,
            catalogue.dated,
        ),
    }
    for words, (wanted, days, known) in lately.items():
        if wanted and known:
            found = int(catalogue.lately(days).is_in(available.implode()).sum())
            if found < wanted:
                yield f"{words}, and {found} items of the catalogue came out in the last {days} days"


def _named(home: Home, rules: Rules, conditions: dict[str, Filter], catalogue: Catalogue, top: int) -> Iterator[str]:
    vocabulary = _known(home, catalogue)
    items = columns_of_items(vocabulary, catalogue.rows)
    users = _people(home, conditions)
    whom = {
        one.key: about(one, conditions.get(one.key), items.drop("tags"), users, items["tags"]) for one in rules.named
    }
    for one in rules.named:
        yield from _nothing(one, whom[one.key], items, users)
    for pin in rules.of_kind("pin"):
        for out in rules.of_kind("exclude"):
            if (both := _both(whom[pin.key], whom[out.key])).any():
                name = vocabulary[int(np.flatnonzero(both)[0])]
                more = f" and {int(both.sum()) - 1} more" if both.sum() > 1 else ""
                yield f"{pin.key} pins {name!r}{more}, which {out.key} excludes"


def _both(pin: About, out: About) -> NDArray[np.bool_]:
    """Items that are pinned and excluded for everybody (n_items,)."""
    if out.pairs or not out.rows(np.arange(len(out.users))).all():
        return np.zeros(len(out.items), dtype=bool)
    return pin.columns & out.columns


def _nothing(one: Named, found: About, items: pl.DataFrame, users: pl.DataFrame) -> Iterator[str]:
    """What one rule names that is not there."""
    gone = [name for name in one.items if name not in set(items["item_id"])] if one.items else []
    for name in gone[:3]:
        yield f"{one.key}: no item {name!r} is in the catalogue or in what was trained on"
    for key, names, known in (
        ("category", one.categories, items["item_category"]),
        ("tag", one.tags, items["tags"].explode()),
    ):
        there = set(known.drop_nulls().unique())
        for name in names:
            if name not in there:
                yield f"{one.key}: no item has the {key} {name!r}{_near(name, there)}"
                gone.append(name)
    if not found.columns.any() and not gone:
        yield f"{one.key}: its condition is true of no item"
    elif users.height and one.when is not None and not (found.users >= 0).any():  # of a request nothing is known here
        yield f"{one.key}: its condition is true of nobody"


def _near(name: str, there: set[str]) -> str:
    close = nearest(name, sorted(there)[:10_000])
    return close if close.startswith("; did") else ""


def _known(home: Home, catalogue: Catalogue) -> pl.Series:
    """Items of the catalogue and of what is served."""
    items = pl.Series("item_id", [], dtype=pl.String) if catalogue.rows is None else catalogue.rows["item_id"]
    if registry.latest(home) is None:
        return items.unique().sort()
    return union(items.unique().sort(), registry.load_model(home, None).model.items)


def _people(home: Home, conditions: dict[str, Filter]) -> pl.DataFrame:
    """Who conditions are tried on: everybody known, on whatever device and in whatever country: where nothing is asked
    of the request, one person of whom nothing is known."""
    if not any(is_about_users(condition) for condition in conditions.values()):
        return pl.DataFrame({name: pl.Series([None], dtype=pl.String) for name in CONTEXT_COLUMNS}).clear()
    people = people_described(home, purpose=PERSONALIZATION)
    unknown = [pl.lit(None, dtype=pl.String).alias(name) for name in CONTEXT_COLUMNS]
    return people.select(*segments.columns(home)).with_columns(unknown)
