"""Rules as they are declared: their conditions and their settings.

Which items a named rule is about, for which users: conditions over columns of items, of users and of the request.

A condition is taken apart at its outermost `and`. What speaks of items alone is worked out once for every item, what
speaks of users alone once for every user; only what compares the two (`item_category = preferred_category`) is worked
out for pairs, once for each different pair of values. All of it keeps the three values of SQL: 1 true, 0 unknown,
-1 false, of which `and` is the least.

`[rules]` of persona.toml as values; what is in force, and in which order rules give way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadSettings
from persona_cli.profiles import segments
from persona_cli.workspace.filters import Filter, FilterError, parse
from persona_cli.workspace.home import SETTINGS_FILE, Home
from persona_cli.workspace.settings import Settings
from persona_cli.workspace.terms import Column, Joined, Term

Truth = NDArray[np.int8]
Integers = NDArray[np.int64]
ITEM, CONTEXT = "item_", "context_"
"""How columns of items and of the request begin in conditions."""
ITEM_COLUMNS = {
    "item_id": "text", "item_title": "text", "item_category": "text", "item_price": "number",
    "item_currency": "text", "item_url": "text", "item_published_at": "time",
}  # fmt: skip
CONTEXT_COLUMNS = {"context_device": "text", "context_country": "text"}
_PAIRS = 1 << 22
"""Pairs of values that a condition is worked out for at a time."""


def parsed(home: Home, rules: Rules) -> dict[str, Filter]:
    """The condition of every named rule that has one, by its key; `BadSettings` says what is wrong and where."""
    known: dict[str, pl.DataType | str] = {**segments.columns(home), **ITEM_COLUMNS, **CONTEXT_COLUMNS}
    found = {}
    for one in rules.named:
        if one.when is not None:
            try:
                found[one.key] = parse(one.when, known)
            except FilterError as error:
                place = f"{home.path(SETTINGS_FILE)}: {one.key}.when"
                raise BadSettings(f"{place}: {error}", "docs/rules.md lists the columns") from error
    return found


def is_about_users(condition: Filter) -> bool:
    """Whether it names a column of profiles."""
    return any(name not in ITEM_COLUMNS and name not in CONTEXT_COLUMNS for name in condition.columns)


@dataclass(frozen=True)
class About:
    """What a rule is about; rows are users asked, columns items of the vocabulary."""

    items: Truth
    """(n_items,)"""
    users: Truth
    """(n_users,)"""
    unknown: bool
    """Whether unknown counts as true."""
    pairs: list[_Pairs] = field(default_factory=list, repr=False)

    @property
    def columns(self) -> NDArray[np.bool_]:
        """Items that it may be about (n_items,)."""
        return self.items >= (0 if self.unknown else 1)

    def rows(self, users: Integers) -> NDArray[np.bool_]:
        """Which of these users it may be about (n,)."""
        return self.users[users] >= (0 if self.unknown else 1)

    def at(self, users: Integers, places: Integers) -> NDArray[np.bool_]:
        """Whether it holds for the items at `places` (n, m) of these users (n,)."""
        found = self.columns[places] & self.rows(users)[:, None]
        for pair in self.pairs:
            found &= pair.at(users, places) >= (0 if self.unknown else 1)
        return found

    def all(self, users: Integers) -> NDArray[np.bool_]:
        """The same over all items (n, n_items)."""
        return self.at(users, np.broadcast_to(np.arange(len(self.items)), (len(users), len(self.items))))


@dataclass(frozen=True)
class _Pairs:
    """A condition that compares items with users."""

    term: Term
    item_values: pl.DataFrame
    """Different rows of the columns of items that it names."""
    item_code: Integers
    user_values: pl.DataFrame
    user_code: Integers

    def at(self, users: Integers, places: Integers) -> Truth:
        codes, back = np.unique(self.user_code[users], return_inverse=True)
        n_items = self.item_values.height
        found = np.empty((len(codes), n_items), dtype=np.int8)
        step = max(1, _PAIRS // max(n_items, 1))
        for start in range(0, len(codes), step):
            these = self.user_values[codes[start : start + step]]
            found[start : start + step] = truth(self.term, these.join(self.item_values, how="cross")).reshape(
                these.height, n_items
            )
        return found[back[:, None], self.item_code[places]]


def about(one: Named, condition: Filter | None, items: pl.DataFrame, users: pl.DataFrame, tags: pl.Series) -> About:
    """What `one` is about. `items` has `ITEM_COLUMNS` by vocabulary, `tags` theirs; `users` all other columns."""
    named = np.ones(items.height, dtype=np.int8)
    if one.items or one.categories or one.tags:
        listed = items["item_id"].is_in(list(one.items)) | items["item_category"].is_in(list(one.categories)).fill_null(
            False
        )
        if one.tags:
            tagged = pl.DataFrame({"tags": tags}).select(
                pl.col("tags").list.set_intersection(list(one.tags)).list.len().fill_null(0) > 0
            )
            listed = listed | tagged.to_series()
        named = np.where(listed.to_numpy(), 1, -1).astype(np.int8)
    of_users = np.ones(users.height, dtype=np.int8)
    pairs = []
    for term in () if condition is None else _parts(condition.term):
        names = _columns(term)
        mine, theirs = names & set(ITEM_COLUMNS), names - set(ITEM_COLUMNS)
        if not theirs:
            named = np.minimum(named, truth(term, items))
        elif not mine:
            of_users = np.minimum(of_users, truth(term, users))
        else:
            pairs.append(_Pairs(term, *_distinct(items, sorted(mine)), *_distinct(users, sorted(theirs))))
    return About(named, of_users, one.compliance, pairs)


def truth(term: Term, frame: pl.DataFrame) -> Truth:
    """1 true, 0 unknown, -1 false (frame.height,)."""
    value = pl.when(term.expression()).then(1).when(~term.expression()).then(-1).otherwise(0).cast(pl.Int8)
    return frame.with_columns(value.alias("the truth"))["the truth"].to_numpy()


def _parts(term: Term) -> list[Term]:
    if isinstance(term, Joined) and term.word == "and":
        return [part for inner in term.terms for part in _parts(inner)]
    return [term]


def _columns(term: Any) -> set[str]:
    if isinstance(term, Column):
        return {term.name}
    found: set[str] = set()
    if is_dataclass(term):
        for one in fields(term):
            inner = getattr(term, one.name)
            for part in inner if isinstance(inner, tuple) else (inner,):
                found |= _columns(part)
    return found


def _distinct(frame: pl.DataFrame, names: list[str]) -> tuple[pl.DataFrame, Integers]:
    values = frame.select(names).unique(maintain_order=True)
    code = frame.select(names).join(
        values.with_row_index("code"), on=names, how="left", nulls_equal=True, maintain_order="left"
    )
    return values, code["code"].cast(pl.Int64).to_numpy()


def columns_of_items(vocabulary: pl.Series, catalogue: pl.DataFrame | None) -> pl.DataFrame:
    """`ITEM_COLUMNS` and `tags` of every item; null where the catalogue says nothing (n_items)."""
    known = vocabulary.to_frame("item_id")
    if catalogue is None:
        empty: Mapping[str, Any] = {"text": pl.String, "number": pl.Float64, "time": pl.Datetime("us", "UTC")}
        rest = [pl.lit(None, dtype=empty[kind]).alias(name) for name, kind in ITEM_COLUMNS.items() if name != "item_id"]
        return known.with_columns(*rest, pl.lit(None, dtype=pl.List(pl.String)).alias("tags"))
    names = [name.removeprefix(ITEM) for name in ITEM_COLUMNS if name != "item_id"]
    rows = known.join(catalogue.select("item_id", "tags", *names), on="item_id", how="left", maintain_order="left")
    return rows.rename({name: ITEM + name for name in names})


_FACTOR = {"boost": 2.0, "bury": 0.5}


@dataclass(frozen=True)
class Named:
    """One rule with a name of its own, such as [rules.pin.summer]."""

    kind: str
    """pin, boost, bury or exclude."""
    name: str
    items: tuple[str, ...]
    categories: tuple[str, ...]
    tags: tuple[str, ...]
    when: str | None
    at_most: int
    """Of a pin: how many stand on top; default: all that `items` names, else 1."""
    factor: float
    """Of boost and bury."""
    compliance: bool
    """Of an exclusion: it never gives way, and holds where the condition is not known to be false."""

    @property
    def key(self) -> str:
        return f"rules.{self.kind}.{self.name}"


@dataclass(frozen=True)
class Rules:
    """All rules; 0 and empty where one is not in force."""

    named: tuple[Named, ...]
    new_items: int
    new_days: int
    max_per_category: int
    max_per_tag: int
    min_categories: int
    fresh_share: float
    fresh_days: int
    exploration: float
    draws_by: str
    """even or score."""
    draws_for: str
    """all, or new: users at the stage context."""
    rerank: str
    strength: float
    give_way: tuple[str, ...]

    def of_kind(self, *kinds: str) -> list[Named]:
        return [one for one in self.named if one.kind in kinds]

    def fresh(self, top: int) -> int:
        """Fresh items in a list of `top` at the least."""
        return math.ceil(self.fresh_share * top - 1e-9)

    def explored(self, top: int) -> int:
        """Entries of a list of `top` that are drawn: the nearest number, at least 1 where there is a share."""
        return max(1, round(self.exploration * top)) if self.exploration > 0 and top > 0 else 0

    def stronger(self, first: str, second: str) -> bool:
        """Whether `first` gives way after `second`."""
        return self.give_way.index(first) > self.give_way.index(second)

    @property
    def quotas(self) -> bool:
        """Whether a rule is in force that is about what a list holds altogether."""
        numbers = (self.max_per_category, self.max_per_tag, self.min_categories, self.new_items)
        return any(numbers) or self.fresh_share > 0 or self.exploration > 0 or self.rerank != "none"

    @property
    def by_category(self) -> bool:
        return bool(self.max_per_category or self.min_categories) or any(one.categories for one in self.named)


def rules_of(settings: Settings) -> Rules | None:
    """The rules that lists are made by; None where none is in force."""
    named = tuple(
        _named(kind, name, given)
        for kind in ("pin", "boost", "bury", "exclude")
        for name, given in settings.values[f"rules.{kind}"].items()
    )
    found = Rules(
        named,
        settings.whole("rules.new_items.at_least"),
        settings.whole("rules.new_items.within_days"),
        settings.whole("rules.max_per_category"),
        settings.whole("rules.max_per_tag"),
        settings.whole("rules.min_categories"),
        settings.number("rules.fresh.share"),
        settings.whole("rules.fresh.within_days"),
        settings.number("rules.exploration.share"),
        settings.text("rules.exploration.by"),
        settings.text("rules.exploration.users"),
        settings.text("rules.rerank"),
        settings.number("rules.strength"),
        settings.texts("rules.give_way"),
    )
    return found if named or found.quotas else None


def on_surface(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings that hold on a surface: `[rules]`, over which goes what its own section has (`surface_rules`).

    Keys go over keys, named rules over those of the same name; one that is false there does not hold.
    """
    if not given:
        return settings
    values, origins = dict(settings.values), dict(settings.origins)
    for key, value in given.items():
        if isinstance(value, Mapping):
            named = {**values[key], **value}
            value = {name: one for name, one in named.items() if one is not False}
        values[key] = value
        origins[key] = "persona.toml"
    return replace(settings, values=values, origins=origins)


def _named(kind: str, name: str, given: Mapping[str, Any]) -> Named:
    items = tuple(given.get("items", ()))
    return Named(
        kind,
        name,
        items,
        tuple(given.get("categories", ())),
        tuple(given.get("tags", ())),
        given.get("when"),
        int(given.get("at_most", max(1, len(items)))),
        float(given.get("factor", _FACTOR.get(kind, 1.0))),
        bool(given.get("compliance", False)),
    )
