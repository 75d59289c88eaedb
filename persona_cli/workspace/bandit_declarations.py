"""Arms of a surface (`arms.NAME = { … }`) and how one is chosen for each person (`bandit = { … }`)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from persona_cli.errors import nearest
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
_NAME = re.compile(r"^[A-Za-z][\w-]{0,59}$", re.ASCII)
_MOST_ARMS, _MOST_CELLS = 50, 60


def _key(kind: Any, default: Any, low: float = 0.0, high: float = 1e9, words: tuple[str, ...] = ()) -> Any:
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
    if not _NAME.match(name):
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
