"""What every fold is given: the events of some users, sorted, and the rules of the workspace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from persona_cli.profiles.coding import Coded, Ints, compacted, run_starts, sort_order
from persona_cli.workspace.settings import Settings

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
RULE_SETTINGS = ("profiles.session_gap_minutes",)
"""Settings that folds depend on: a change of one folds everything again."""


@dataclass(frozen=True)
class FoldRules:
    """What folds and merges depend on beside events."""

    session_gap: int
    """A pause longer than this many microseconds splits events without a session_id into two sessions."""

    @classmethod
    def of(cls, settings: Settings) -> FoldRules:
        return cls(session_gap=round(settings.number("profiles.session_gap_minutes") * MINUTE))


@dataclass(frozen=True)
class Part:
    """All events (n) of some users, sorted by user and time; those of one microsecond are in no order."""

    events: Coded
    """Every column that the folds need but `timestamp`; session_id as its number (`text_numbers`)."""
    user: Ints
    """(n,) place of each event's user in `users`."""
    users: pl.Series
    """(n_users,) keys, sorted; each has at least one event."""
    time: Ints
    """(n,) microseconds since 1970."""
    starts: Ints
    """(n_users,) where each user's events begin."""
    ends: Ints
    """(n_users,) and where they end."""


def part_of(events: Coded) -> Part | None:
    """Events in any order as a part; None where there are none."""
    user = events.codes("user_id")
    if user is None or not len(user):
        return None
    user, users = compacted(user, events.values["user_id"])
    time = events.rows["timestamp"].to_physical().to_numpy()
    earliest = int(time.min())
    order = sort_order([(user, len(users)), (time - earliest, int(time.max()) - earliest + 1)])
    user, time, events = user[order], time[order], Coded(events.rows.drop("timestamp")[order], events.values)
    starts = run_starts(user)
    return Part(events, user, users, time, starts, np.append(starts[1:], len(user)))


def owners(rows: pl.DataFrame) -> tuple[Ints, pl.Series]:
    """(n_rows,) the place of each partial row's user among the users (n_users,), which are sorted."""
    users = rows["user_id"].unique().sort()
    return rows["user_id"].cast(pl.Enum(users)).to_physical().cast(pl.Int64).to_numpy(), users


def times(microseconds: Ints) -> pl.Series:
    """Microseconds since 1970 as times; the smallest integer as null."""
    return pl.Series(microseconds).replace(NEVER, None).cast(pl.Datetime("us", "UTC"))


NEVER = int(np.iinfo(np.int64).min)
"""The instant of what never happened."""
