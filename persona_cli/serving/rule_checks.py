"""Whether finished lists keep their rules, read off the lists; nothing of how they were made is trusted here.

new_items          at least so many new items
fresh              at least that share of the list is fresh
min_categories     at least so many different categories
max_per_category   no category more often, max_per_tag: no tag
exploration        that share of the length asked for was drawn, in lists that explore
length             the list is full, or holds everything that may be shown
exclude            nothing excluded is in it
pin.NAME           what is pinned and may be shown stands on top, up to at_most
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_cli.serving.rule_settings import Rules

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
