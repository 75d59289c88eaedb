"""The settings of surfaces (`[surface.NAME]`): what is decided where, by kind, and how carefully."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.bandit_declarations import ARMS, BANDIT, bandit_of
from persona_cli.workspace.message_declarations import MESSAGE
from persona_cli.workspace.plan_declarations import PLAN, check_plan
from persona_cli.workspace.rules_declarations import surface_rules
from persona_cli.workspace.setting import Setting, checked

Check = Callable[[Any], Any]
HELP = ("onboarding", "workflow", "panel", "hint")
"""What an item of a feature surface may be."""
TOOLS = ("workflow", "panel")
"""Of these, what is there for everybody unless the item says otherwise."""
DENSITIES, THEMES, LAYOUTS = ("comfortable", "compact"), ("light", "dark"), ("full", "light")
_AUTO = "auto"
_NAME = re.compile(r"^[^\W\d][\w-]*$")
_MOST = 50


def _key(
    kind: Any, default: Any, low: float = 0.0, high: float = 1e9, words: tuple[str, ...] = ()
) -> tuple[Any, Check]:
    """A default and what checks a value that is given."""
    return default, partial(checked, Setting("", kind, default, "", low, high, words))


def _names(least: int) -> Check:
    def check(value: Any) -> tuple[str, ...]:
        names: tuple[str, ...] = checked(Setting("", "texts", (), ""), value)
        if not least <= len(names) <= _MOST or len(set(names)) < len(names):
            raise ValueError(f"a list of {least} to {_MOST} different names")
        return names

    return check


def _items(value: Any) -> dict[str, dict[str, Any]]:
    """{name: {type, when, feature, default}} of `items.NAME = { … }`."""
    if not isinstance(value, Mapping) or not 1 <= len(value) <= _MOST:
        raise ValueError(f'1 to {_MOST} items such as items.tour = {{ type = "onboarding", when = "maturity < 0.2" }}')
    return {str(name): _item(str(name), given) for name, given in value.items()}


def _item(name: str, given: Any) -> dict[str, Any]:
    known = ("type", "when", "feature", "default")
    if not isinstance(given, Mapping):
        raise ValueError(f'items.{name} = {{ type = "panel", when = "maturity >= 0.5" }}')
    for key in given:
        if key not in known:
            raise ValueError(f"{', '.join(known)} in items.{name}, which has {key!r}{nearest(str(key), known)}")
    if given.get("type") not in HELP:
        raise ValueError(f"type = one of {', '.join(HELP)} in items.{name}")
    if not isinstance(given.get("when"), str) or not given["when"].strip():
        raise ValueError(f'when = "a condition" in items.{name}')
    feature, default = given.get("feature", name), given.get("default", given["type"] in TOOLS)
    if not isinstance(feature, str) or not feature:
        raise ValueError(f"feature = the target of the events by which it is used, in items.{name}")
    if not isinstance(default, bool):
        raise ValueError(f"default = true or false in items.{name}")
    return {"type": given["type"], "when": given["when"], "feature": feature, "default": default}


_CAREFUL = {"min_confidence": _key("number", 0.0, 0, 1)}
KINDS: dict[str, dict[str, tuple[Any, Check]]] = {
    "content": {
        "top": _key("whole", None, 1, 10_000),
        "model": _key("text", None),
        "rules": ({}, surface_rules),
        **_CAREFUL,
        "careful": _key("text", "default", words=("default", "fewer")),
    },
    "ui": {
        "entries": (None, _names(1)),
        "panels": ((), _names(0)),
        "events": _key("texts", ("click", "navigation", "feature_use", "page_view", "screen_view")),
        "half_life_days": _key("number", 30.0, 0.1),
        "prior_uses": _key("number", 10.0, 0.1),
        "cohort": _key("text", "device", words=("none", "device", "country", "stage")),
        "threshold": _key("number", 0.05, 0, 1),
        "every_days": _key("number", 7.0),
        "collapse_days": _key("number", 30.0, 0.1),
        "density": _key("text", _AUTO, words=(_AUTO, *DENSITIES)),
        "expert_from": _key("number", 0.7, 0, 1),
        "theme": _key("text", _AUTO, words=(_AUTO, *THEMES)),
        "dark_from": _key("whole", 20, 0, 23),
        "dark_until": _key("whole", 7, 0, 23),
        "layout": _key("text", _AUTO, words=(_AUTO, *LAYOUTS)),
        "min_confidence": _key("number", 0.2, 0, 1),
    },
    "feature": {"items": (None, _items), **_CAREFUL},
    "message": MESSAGE,
    "plan": PLAN,
    "survey": {"questions": ((), _names(0)), "every_days": _key("number", 30.0)},
}
"""Kind → key → its default and what checks it; whoever adds a kind adds it here."""
_NEEDED = {"ui": "entries", "feature": "items", "plan": "plans"}


def _surfaces(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: _surface(name, one) for name, one in given.items()}


def _surface(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    section = f"[surface.{name}]"
    if not _NAME.match(name):
        raise ValueError(f"a name of letters, digits, _ and -, beginning with a letter, instead of {name!r}")
    kind = given.get("kind")
    if kind not in KINDS:
        seen = f", and {kind!r} is none{nearest(kind, KINDS)}" if isinstance(kind, str) else ""
        raise ValueError(f"kind = one of {', '.join(KINDS)} in {section}{seen}")
    known = KINDS[kind]
    found: dict[str, Any] = {"kind": kind} | {key: default for key, (default, _) in known.items()}
    for key, value in given.items():
        if key in ("kind", ARMS, BANDIT):
            continue
        if key not in known:
            close = nearest(key, ("kind", *known, ARMS, BANDIT))
            raise ValueError(f"keys of the kind {kind} in {section}, which has {key!r}{close}")
        try:
            found[key] = known[key][1](value)
        except ValueError as error:
            raise ValueError(f"{error} for {key} in {section}") from error
    if (needed := _NEEDED.get(kind)) is not None and not found[needed]:
        raise ValueError(f"{needed} in {section}, which has none")
    if kind == "plan":
        check_plan(found, section)
    return found | bandit_of(kind, given, found, known, section)


SURFACE_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "surface",
        "sections",
        {},
        "What `persona decide NAME` decides, a section [surface.NAME] each, with kind = one of\n"
        "content (lists of the model), ui (order, density, panels, theme), feature (what of the product is shown),\n"
        "message (whether, by which channel and when), plan (which plan of the price list holds the use) or survey\n"
        "(the next question of [survey]); docs/surfaces.md and docs/plans.md name the keys of each. For example:\n"
        '[surface.navigation] kind = "ui", entries = ["home", "reports"], panels = ["filters"]',
        check=_surfaces,
    ),
)
