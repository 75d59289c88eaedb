"""The keys of a surface of kind `message`: channels, quiet hours, caps, and how what was answered is learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.setting import Setting, checked

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
