"""The settings of surfaces (`[surface.NAME]`): what is decided where, by kind, and how carefully.

Arms of a surface are `arms.NAME = { … }`; how one is chosen for each person is `bandit = { … }`. A surface of kind
`message` has channels, quiet hours, caps, and how what was answered is learned from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.plan_declarations import PLAN, check_plan
from persona_cli.workspace.rules_declarations import surface_rules
from persona_cli.workspace.setting import Setting, checked

Check = Callable[[Any], Any]
Keys = Mapping[str, tuple[Any, Check]]
ARMS, BANDIT = "arms", "bandit"
WHEN = "when"
"""Of an arm beside its settings: for whom it may be chosen."""
REWARDS = ("click", "conversion", "no_negative")
"""What an arm earns 1 by, within the window: an event that is one, or that there is no event that is negative."""
NETWORKS = ("fast", "slow")
READY: dict[str, tuple[Any, ...]] = {
    "device": ("mobile", "tablet", "desktop"),
    "network": NETWORKS,
    "stage": ("context", "cohort", "individual"),
    "maturity": (0.0, 1.0),
    "feature_breadth": (0.0, 1.0),
    "power_user_score": (0.0, 1.0),
}
"""Features whose values are known: those of others are told."""
_UNFAIR = ("plan",)
_ARM_NAME = re.compile(r"^[A-Za-z][\w-]{0,59}$", re.ASCII)
_MOST_ARMS, _MOST_CELLS = 50, 60


def _key(
    kind: Any, default: Any, low: float = 0.0, high: float = 1e9, words: tuple[str, ...] = ()
) -> tuple[Any, Check]:
    """A default and what checks a value that is given."""
    return default, partial(checked, Setting("", kind, default, "", low, high, words))


def _features(value: Any) -> dict[str, tuple[Any, ...]]:
    """{column: texts that have an indicator each, or the two ends of a number}."""
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        for name in value:
            if name not in READY:
                raise ValueError(
                    f"features of {', '.join(READY)}, of which {name!r} is none{nearest(name, READY)}; of others the "
                    f'values are told, as features = {{ {name} = ["one", "other"] }} or {{ {name} = [0, 100] }},'
                )
        found = {name: READY[name] for name in value}
    elif isinstance(value, Mapping):
        found = {str(name): _values(str(name), told) for name, told in value.items()}
    else:
        raise ValueError('features = ["device", "maturity"] or { country = ["DE", "FR"], purchases = [0, 20] }')
    cells = sum(len(values) if isinstance(values[0], str) else 1 for values in found.values())
    if cells > _MOST_CELLS:
        raise ValueError(f"features of at most {_MOST_CELLS} values together, and these have {cells},")
    return found


def _values(name: str, told: Any) -> tuple[Any, ...]:
    values = tuple(told) if isinstance(told, (list, tuple)) else ()
    if values and all(isinstance(one, str) and one for one in values) and len(set(values)) == len(values):
        return values
    numbers = [one for one in values if isinstance(one, (int, float)) and not isinstance(one, bool)]
    if len(numbers) == len(values) == 2 and numbers[0] < numbers[1] and all(map(math.isfinite, numbers)):
        return tuple(float(one) for one in numbers)
    raise ValueError(f'values such as {name} = ["one", "other"], or two ends of a number such as [0, 100],')


KEYS: Keys = {
    "policy": _key("text", "thompson", words=("thompson", "linucb", "epsilon")),
    "reward": _key("text", "click", words=REWARDS),
    "features": ({}, _features),
    "window_hours": _key("number", 24.0, 0.01, 87_600),
    "epsilon": _key("number", 0.05, 0, 1),
    "alpha": _key("number", 1.0, 0, 100),
    "ridge": _key("number", 1.0, 1e-6, 1e6),
    "sharing": _key("number", 0.0, 0, 0.99),
    "hold_days": _key("number", 1.0, 0, 3650),
    "warm_start": _key("texts", ()),
}
"""Key of `bandit` → its default and what checks it."""


def bandit_of(
    kind: str, given: Mapping[str, Any], base: Mapping[str, Any], known: Keys, section: str
) -> dict[str, Any]:
    """`arms` and `bandit` of a surface as they are kept; nothing where it has neither.

    An arm: {"when": condition or None, "set": {key: value}}, its values checked as the surface's own (`known`) over
    what the surface has (`base`). ValueError says what was expected.
    """
    if ARMS not in given and BANDIT not in given:
        return {}
    if kind in _UNFAIR:
        raise ValueError(
            f"no {ARMS} and no {BANDIT} in {section}: people of the same use get the same advice, none by chance,"
        )
    arms = given.get(ARMS, {})
    if not isinstance(arms, Mapping) or not 2 <= len(arms) <= _MOST_ARMS:
        shown = len(arms) if isinstance(arms, Mapping) else arms
        raise ValueError(
            f"2 to {_MOST_ARMS} arms in {section}, such as arms.a = {{}} and arms.b = {{ KEY = VALUE }}, to choose "
            f"from, instead of {shown!r}"
        )
    return {
        ARMS: {str(name): _arm(str(name), one, base, known, section) for name, one in arms.items()},
        BANDIT: _bandit(given.get(BANDIT, {}), section),
    }


def _arm(name: str, given: Any, base: Mapping[str, Any], known: Keys, section: str) -> dict[str, Any]:
    place = f"{ARMS}.{name} of {section}"
    if not _ARM_NAME.match(name):
        raise ValueError(f"letters, digits, _ and -, a letter first, as the name of an arm instead of {place}")
    if not isinstance(given, Mapping):
        raise ValueError(f"settings in braces for {place}")
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key == WHEN:
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f'when = "a condition" in {place}')
            continue
        if key not in known:
            raise ValueError(f"settings of the surface in {place}, which has {key!r}{nearest(key, (WHEN, *known))}")
        try:
            one = known[key][1](value)
        except ValueError as error:
            raise ValueError(f"{error} for {key} in {place}") from error
        # Rules of an arm go before those of the surface, and leave the others in force.
        found[key] = {**base[key], **one} if key == "rules" else one
    return {WHEN: given.get(WHEN), "set": found}


def _bandit(given: Any, section: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f'{BANDIT} = {{ policy = "thompson", reward = "click" }} in {section}')
    found: dict[str, Any] = {key: default for key, (default, _) in KEYS.items()}
    for key, value in given.items():
        if key not in KEYS:
            raise ValueError(f"keys of {BANDIT} in {section}, which has {key!r}{nearest(key, KEYS)}")
        try:
            found[key] = KEYS[key][1](value)
        except ValueError as error:
            raise ValueError(f"{error} for {BANDIT}.{key} in {section}") from error
    return found


CHANNELS = ("email", "push", "sms", "in_app")
"""What a message can be sent by; an event of a message names one as its target."""
MOMENTS = ("session_start", "after_task", "idle")
"""When a message inside the product may appear."""
COHORTS = ("none", "device", "country", "stage")
_HOURS = 24


def _of(kind: Any, low: float = 0.0, high: float = 1e9, words: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    return partial(checked, Setting("", kind, None, "", low, high, words))


def _channels(value: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = _of("texts")(value)
    for name in names:
        if name not in CHANNELS:
            raise ValueError(f"channels of {', '.join(CHANNELS)}, of which {name!r} is none{nearest(name, CHANNELS)},")
    if not names or len(set(names)) < len(names):
        raise ValueError("one or more different channels")
    return names


def _reach(value: Any) -> dict[str, str]:
    """{channel: condition} of `reach.CHANNEL = "…"`."""
    if not isinstance(value, Mapping):
        raise ValueError("a condition a channel, such as reach.push = \"device = 'mobile'\",")
    for name, condition in value.items():
        if name not in CHANNELS:
            raise ValueError(f"channels of {', '.join(CHANNELS)}, of which {name!r} is none{nearest(name, CHANNELS)},")
        if not isinstance(condition, str) or not condition.strip():
            raise ValueError(f'reach.{name} = "a condition on columns of profiles"')
    return {str(name): condition for name, condition in value.items()}


def _quiet(value: Any) -> tuple[int, ...]:
    """The first quiet hour and the first that is none, or nothing."""
    hours: tuple[int, ...] = _of("wholes", 0, _HOURS)(value)
    if not hours:
        return ()
    wanted = "the local hours from and until which it is quiet, such as [21, 8], or [] for none"
    if len(hours) != 2:
        raise ValueError(wanted)
    if hours[0] % _HOURS == hours[1] % _HOURS:
        raise ValueError(f"{wanted}; [{hours[0]}, {hours[1]}] would cover the whole day, and nothing could be sent,")
    return hours


def _cap(value: Any) -> int:
    if value == 0 and not isinstance(value, bool):
        raise ValueError("1 or more messages (with 0 nothing could ever be sent: to send nothing, decide nothing)")
    found: int = _of("whole", 1, 1_000)(value)
    return found


MESSAGE: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "channels": (CHANNELS, _channels),
    "reach": ({}, _reach),
    "quiet_hours": ((21, 8), _quiet),
    "window_hours": (24, _of("whole", 1, 72)),
    "per_day": (1, _cap),
    "per_week": (3, _cap),
    "prior_sends": (10.0, _of("number", 0.1)),
    "open_rate": (0.1, _of("number", 0.001, 0.999)),
    "unsubscribe_rate": (0.002, _of("number", 0, 1)),
    "unsubscribe_cost": (20.0, _of("number", 0)),
    "open_hours": (72.0, _of("number", 0.1, 720)),
    "spread_hours": (1.0, _of("number", 0, 12)),
    "cohort": ("device", _of("text", words=COHORTS)),
    "fatigue_days": (14.0, _of("number", 1, 365)),
    "fatigue_below": (0.5, _of("number", 0, 1)),
    "at_once_from": (0.2, _of("number", 0, 1)),
    "sent": (("message_sent",), _of("texts")),
    "opened": (("message_open", "message_click"), _of("texts")),
    "unsubscribed": (("unsubscribe",), _of("texts")),
    "subscribed": (("message_subscribe",), _of("texts")),
    "content": (None, _of("text")),
}
"""Key → its default and what checks it."""


HELP = ("onboarding", "workflow", "panel", "hint")
"""What an item of a feature surface may be."""
TOOLS = ("workflow", "panel")
"""Of these, what is there for everybody unless the item says otherwise."""
DENSITIES, THEMES, LAYOUTS = ("comfortable", "compact"), ("light", "dark"), ("full", "light")
_AUTO = "auto"
_NAME = re.compile(r"^[^\W\d][\w-]*$")
_MOST = 50


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
