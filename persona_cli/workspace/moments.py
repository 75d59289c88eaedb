"""Moments as people type them."""

from __future__ import annotations

from datetime import UTC, date, datetime

from persona_cli.errors import UsageError


def parse_moment(text: str) -> datetime:
    """A date (its first instant) or a time in ISO 8601, zone-less read as UTC; answers in UTC. Raises UsageError."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is not a date or time; expected such as 2026-03-01 or 2026-03-01T12:00:00Z"
        ) from error


def moment_of(given: str | date | datetime | None) -> datetime | None:
    """A moment as a program gives it: text as `parse_moment` reads it, a date, a time, or None."""
    if given is None:
        return None
    return parse_moment(given if isinstance(given, str) else given.isoformat())
