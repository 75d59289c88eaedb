"""`[rules]` of persona.toml as values; what is in force, and in which order rules give way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from persona_cli.workspace.settings import Settings

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
