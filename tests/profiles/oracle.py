"""The fold written a second time, one event after the other in plain Python, to compare with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from stored import Event

from persona_cli.events.countries import country_code, country_zone
from persona_cli.profiles.context import DAYPARTS, network_class, referrer_class
from persona_cli.workspace.setting import parse_condition

LATEST = ("account_id", "device", "browser", "os", "country", "network", "locale", "tz", "consent")


def owner(event: Event) -> str:
    return event.get("user_id") if event.get("user_id") is not None else event["anon_id"]


def signal(event: Event, strengths: dict[str, Any], other: float) -> tuple[int, bool]:
    """(thousandths, never) of one event."""
    rules = [(parse_condition(key), entry) for key, entry in strengths.items()]
    for condition, entry in sorted(rules, key=lambda rule: rule[0].op is None):
        if condition.holds(event["event_type"], event.get("value")):
            return (0, True) if entry == "never" else (round(entry * 1000), False)
    return round(other * 1000), False


def history(
    events: Sequence[Event], strengths: dict[str, Any], other: float, consumed_by: Sequence[str]
) -> list[tuple[Any, ...]]:
    """(user, item, day, strength, n, consumed, never, rated, ratings), sorted; no rating is centred."""
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for event in events:
        if event.get("item_id") is None:
            continue
        strength, never = signal(event, strengths, other)
        about = event["event_type"] in ("block", "unblock", "show_less")  # which is no use of the item
        consumed = event["event_type"] in consumed_by or ("*" in consumed_by and not about)
        row = sums[owner(event), event["item_id"], event["timestamp"].date()]
        for position, amount in enumerate((strength, 1, int(consumed), int(never))):
            row[position] += amount
    return sorted((*key, *row, 0, 0) for key, row in sums.items())


def profiles(events: Sequence[Event], gap_minutes: float) -> list[dict[str, Any]]:
    """Profile rows sorted by user."""
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_user[owner(event)].append(event)
    return [_profile(user, theirs, gap_minutes) for user, theirs in sorted(by_user.items())]


def _profile(user: str, events: list[Event], gap_minutes: float) -> dict[str, Any]:
    times = [event["timestamp"] for event in events]
    events = [
        event | {"country": country_code(event["country"])} if event.get("country") else event for event in events
    ]
    hours, weekdays = [0] * 24, [0] * 7
    for event in events:
        zone = event.get("tz") or country_zone(event.get("country") or "") or "UTC"
        local = event["timestamp"].astimezone(ZoneInfo(zone))
        hours[local.hour] += 1
        weekdays[local.weekday()] += 1
    dayparts = {name: sum(hours[6 * place : 6 * place + 6]) for place, name in enumerate(DAYPARTS)}
    sessions = _sessions(events, timedelta(minutes=gap_minutes))
    row: dict[str, Any] = {
        "user_id": user,
        "first_seen": min(times),
        "last_seen": max(times),
        "events": len(events),
        "items": sum(event.get("item_id") is not None for event in events),
        "types": _counts("event_type", events),
        "sessions": len(sessions),
        "session_seconds": sum((end - begin for begin, end in sessions), timedelta()) / timedelta(seconds=1),
        "hours": hours,
        "weekdays": weekdays,
        "dayparts": [{"daypart": name, "n": n} for name, n in sorted(dayparts.items()) if n],
        "devices": _counts("device", events),
        "countries": _counts("country", events),
        "networks": _counts("network", [{"network": network_class(event.get("network") or "")} for event in events]),
        "referrers": _counts("referrer", [{"referrer": _referrer(event)} for event in events]),
    }
    for name in LATEST:
        given = [(event["timestamp"], event[name]) for event in events if event.get(name) is not None]
        row[name] = max(given)[1] if given else None
    return row


def _referrer(event: Event) -> str | None:
    return referrer_class(event["event_type"], event.get("page"), event.get("referrer"), event.get("campaign"))


def _sessions(events: list[Event], gap: timedelta) -> list[tuple[Any, Any]]:
    named: dict[str, list[Any]] = defaultdict(list)
    for event in events:
        if event.get("session_id") is not None:
            named[event["session_id"]].append(event["timestamp"])
    found = [(min(times), max(times)) for times in named.values()]
    unnamed: list[tuple[Any, Any]] = []
    for time in sorted(event["timestamp"] for event in events if event.get("session_id") is None):
        if unnamed and time - unnamed[-1][1] <= gap:
            unnamed[-1] = (unnamed[-1][0], time)
        else:
            unnamed.append((time, time))
    return found + unnamed


def _counts(name: str, events: list[Event]) -> list[dict[str, Any]]:
    counted = Counter(event[name] for event in events if event.get(name) is not None)
    return [{name: value, "n": n} for value, n in sorted(counted.items())]
