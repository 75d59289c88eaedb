"""The settings of metrics (`[metric.NAME]`): which events are counted, for whom, and in which window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.setting import Setting, checked

COUNT, SUM, ANY, SECONDS, SCORE = VALUES = ("count", "sum", "any", "seconds", "score")
"""What an event is worth; another text is an expression on the columns of events."""
USER, SESSION, IMPRESSION = PER = ("user", "session", "impression")
CLICKS = ":clicks"
"""In place of event types: those that [decisions] calls clicks."""
_NAME = re.compile(r"^[^\W\d][\w-]*$")
_KEYS: dict[str, Setting] = {
    "event": Setting("", "texts", (), ""),
    "value": Setting("", "text", COUNT, ""),
    "per": Setting("", "text", USER, "", words=PER),
    "window_days": Setting("", "number", None, "", 0.001, 3650),
    "before_days": Setting("", "number", 28.0, "", 0, 3650),
    "winsor": Setting("", "number", None, "", 0.5, 0.999999),
    "direction": Setting("", "text", "up", "", words=("up", "down")),
}


def _ready(event: tuple[str, ...], value: str = COUNT, per: str = USER, **more: Any) -> dict[str, Any]:
    return {name: one.default for name, one in _KEYS.items()} | {"event": event, "value": value, "per": per} | more


READY: dict[str, dict[str, Any]] = {
    "ctr": _ready((CLICKS,), per=IMPRESSION),
    "session_duration": _ready((), SECONDS, SESSION),
    "pages_per_session": _ready(("page_view", "screen_view"), per=SESSION),
    "adoption": _ready(("feature_use",), ANY),
    "free_to_paid": _ready(("upgrade", "subscribe"), ANY),
    "activation": _ready(("activation", "onboarding_complete"), ANY, window_days=7.0),
    "purchase": _ready(("purchase",), ANY),
    "expansion": _ready(("upgrade", "seat_added"), ANY),
    "arpu": _ready(("purchase",), SUM),
    "nps": _ready(("nps",), SCORE, before_days=0.0),
}
"""Metrics that are there without being declared; a section of the same name changes what it names."""


def _metrics(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(name): _metric(str(name), one) for name, one in given.items()}


def _metric(name: str, given: Any) -> dict[str, Any]:
    section = f"[metric.{name}]"
    if not _NAME.match(name):
        raise ValueError(f"a name of letters, digits, _ and -, beginning with a letter, instead of {name!r}")
    if not isinstance(given, Mapping):
        raise ValueError(f'keys such as event = "purchase" in a section {section}')
    found = dict(READY.get(name, _ready(())))
    for key, value in given.items():
        if key not in _KEYS:
            raise ValueError(f"{', '.join(_KEYS)} in {section}, which has {key!r}{nearest(str(key), _KEYS)}")
        if key == "event" and isinstance(value, str):  # a type or a condition
            value = [value]
        if key == "value" and not (isinstance(value, str) and value.strip()):
            raise ValueError(f"value = one of {', '.join(VALUES)}, or an expression, in {section}")
        try:
            found[key] = checked(_KEYS[key], value)
        except ValueError as error:
            raise ValueError(f"{error} for {key} in {section}") from error
    if name not in READY and "event" not in given:
        raise ValueError(f'event = "purchase", a type, types or a condition, in {section}')
    if found["value"] in (ANY, SCORE) and found["per"] != USER:
        raise ValueError(f'per = "user" with value = "{found["value"]}" in {section}')
    if found["value"] == SECONDS and found["per"] == IMPRESSION:
        raise ValueError(f'per = "session" or "user" with value = "seconds" in {section}')
    if found["value"] == SCORE and found["before_days"] and "before_days" in given:
        raise ValueError(f'no before_days with value = "score" in {section}')
    if found["winsor"] is not None and found["value"] in (ANY, SCORE):
        raise ValueError(f'no winsor with value = "{found["value"]}" in {section}')
    return found


METRIC_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "metric",
        "sections",
        {},
        "What experiments are judged by, a section [metric.NAME] each (docs/measuring.md); ready are ctr,\n"
        "session_duration, pages_per_session, adoption, free_to_paid, activation, purchase, expansion, arpu and nps.\n"
        'For example: [metric.big_orders] event = "event_type = \'purchase\' and value > 100", value = "sum",\n'
        'per = "user", window_days = 14, winsor = 0.999, direction = "up"; persona metric check',
        check=_metrics,
    ),
)
