"""The settings of the rules over lists (`[rules]`): quotas, new and fresh items, exploration, and named rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.setting import Setting, checked

GIVE_WAY = (
    "exploration", "fresh", "new_items", "min_categories", "max_per_tag", "max_per_category", "length", "pin",
    "exclude",
)  # fmt: skip
"""Rules from the one that gives way first; `length` is that a list is full."""
_ABOUT = ("items", "categories", "tags", "when")
_MORE: dict[str, tuple[str, ...]] = {
    "pin": ("at_most",),
    "boost": ("factor",),
    "bury": ("factor",),
    "exclude": ("compliance",),
}


def _order(given: tuple[str, ...]) -> tuple[str, ...]:
    for name in given:
        if name not in GIVE_WAY:
            raise ValueError(f"a list of {', '.join(GIVE_WAY)}, and {name!r} is none{nearest(name, GIVE_WAY)}")
    return tuple(dict.fromkeys((*given, *(name for name in GIVE_WAY if name not in given))))


def _named(kind: str, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: _rule(kind, name, one) for name, one in given.items()}


def _rule(kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known, section = (*_ABOUT, *_MORE[kind]), f"[rules.{kind}.{name}]"
    for key in given:
        if key not in known:
            raise ValueError(f"{', '.join(known)} in {section}, which has {key!r}{nearest(key, known)}")
    if not any(given.get(key) for key in _ABOUT):
        raise ValueError(f"items, categories, tags or when = \"item_category = 'comedy'\" in {section}")
    for key in ("items", "categories", "tags"):
        value = given.get(key, ())
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) and entry for entry in value):
            raise ValueError(f'{key} = ["…"], a list of texts, in {section}')
    if not isinstance(given.get("when", ""), str):
        raise ValueError(f'when = "a condition" in {section}')
    if not isinstance(given.get("compliance", False), bool):
        raise ValueError(f"compliance = true or false in {section}")
    most = given.get("at_most", 1)
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 10_000:
        raise ValueError(f"at_most = a whole number from 1 to 10000 in {section}")
    factor = given.get("factor", 1.0)
    low, high = (1.0, 1000.0) if kind == "boost" else (0.001, 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not low <= factor <= high:
        raise ValueError(f"factor = a number from {low:g} to {high:g} in {section}")
    return dict(given)


_LIKE = (
    'items = ["i42"], categories = ["news"], tags = ["gift"], and when = "item_price < 20 and stage = \'cohort\'"\n'
    "(columns of items begin with item_, those of the request with context_, all others are those of segments)"
)
RULES_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "rules.never_again_days",
        "whole",
        0,
        "What recommend.consumed_by hides is shown again after this many days; 0 = never again. docs/rules.md",
        0,
        36_500,
    ),
    Setting("rules.max_per_category", "whole", 0, "Items of one category in a list at the most; 0 = any.", 0),
    Setting("rules.max_per_tag", "whole", 0, "Items with one and the same tag in a list at the most; 0 = any.", 0),
    Setting("rules.min_categories", "whole", 0, "Different categories in a list at the least.", 0, 10_000),
    Setting("rules.rerank", "text", "none", "How lists are made diverse.", words=("none", "mmr", "calibrated")),
    Setting("rules.strength", "number", 0.3, "What diversity counts against the score in rules.rerank.", 0, 1),
    Setting(
        "rules.sensitive",
        "texts",
        (),
        "Categories and tags that are never named as a reason: nobody is told what they did with such items.",
    ),
    Setting(
        "rules.give_way",
        "texts",
        GIVE_WAY,
        "Where rules cannot all be met, the first of these gives way first; a list says what gave way. Those left out\n"
        "give way last, in the order shown here.",
        check=_order,
    ),
    Setting("rules.new_items.at_least", "whole", 0, "New items in a list at the least.", 0, 10_000),
    Setting(
        "rules.new_items.within_days",
        "whole",
        30,
        "New is what came out so many days ago at the most; without any dates, what the user has never met.",
        1,
    ),
    Setting("rules.fresh.share", "number", 0.0, "Share of a list that came out lately.", 0, 1),
    Setting("rules.fresh.within_days", "whole", 90, "Lately is so many days ago at the most.", 1),
    Setting(
        "rules.exploration.share",
        "number",
        0.0,
        "Share of a list, its end, that is drawn at random from the next best; each entry then has its propensity.",
        0,
        1,
    ),
    Setting(
        "rules.exploration.by",
        "text",
        "even",
        "Each of the next best has the same chance (even), or chances follow the score: of new users that is faded\n"
        "popularity in their context. docs/rules.md",
        words=("even", "score"),
    ),
    Setting(
        "rules.exploration.users",
        "text",
        "all",
        "Whose lists hold what is drawn: all, or new: those at the stage context (profiles.cohort_from).",
        words=("all", "new"),
    ),
    Setting(
        "rules.pin",
        "sections",
        {},
        f"What stands on top: a section [rules.pin.NAME] with\n{_LIKE}, at_most = 1",
        check=partial(_named, "pin"),
    ),
    Setting(
        "rules.boost",
        "sections",
        {},
        "What is raised: a section [rules.boost.NAME] like those of rules.pin, with factor = 2.0 instead of at_most",
        check=partial(_named, "boost"),
    ),
    Setting(
        "rules.bury",
        "sections",
        {},
        "What is lowered: a section [rules.bury.NAME] like those of rules.boost, with factor = 0.5",
        check=partial(_named, "bury"),
    ),
    Setting(
        "rules.exclude",
        "sections",
        {},
        "What is left out: a section [rules.exclude.NAME] likewise; with compliance = true it never gives way, and\n"
        "holds for those of whom the condition cannot be known.",
        check=partial(_named, "exclude"),
    ),
)
_BY_KEY = {setting.key: setting for setting in RULES_SETTINGS}


def surface_rules(given: Any) -> dict[str, Any]:
    """`[surface.NAME.rules]` as {key of RULES_SETTINGS: value}, for what is given there alone.

    Of named rules an entry may be false: the one of that name in `[rules]` does not hold on the surface. ValueError
    where a key or value is none that `[rules]` could have.
    """
    if not isinstance(given, Mapping):
        raise ValueError("a section with the keys of [rules]")
    return dict(_given(given, "rules"))


def _given(given: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        key = f"{above}.{name}"
        if key not in _BY_KEY:
            if not isinstance(value, Mapping) or not any(known.startswith(f"{key}.") for known in _BY_KEY):
                raise ValueError(f"keys of [rules], and {key} is none{nearest(key, _BY_KEY)}")
            yield from _given(value, key)
            continue
        setting, off = _BY_KEY[key], {}
        if setting.kind == "sections" and isinstance(value, Mapping):
            off = {str(rule): False for rule, one in value.items() if one is False}
            value = {rule: one for rule, one in value.items() if one is not False}
        try:
            found = checked(setting, value)
        except ValueError as error:
            raise ValueError(f"{error} for {key}") from error
        yield key, {**found, **off} if setting.kind == "sections" else found
