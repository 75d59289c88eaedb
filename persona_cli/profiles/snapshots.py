"""What was known of every user at a moment, as numbers: counts, recency, rhythm, device, account.

Everything is of events strictly before the moment, and of the rows of users and accounts that held then, so a snapshot
of the past is what would have been there to be learned from. NaN: not known, or never happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import polars as pl

from persona_cli.events.catalogue import current
from persona_cli.profiles.permitted import Purpose, person_events
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import Condition

TYPES = 15
"""Event types that are counted apart: those of the most users."""
WORDS = 8
"""Values of a column of words that have a feature of their own: those of the most users."""
_WINDOWS = (7.0, 30.0, 90.0)  # days
_OF_EVENTS = ("device", "country")
_OF_TABLES = ("role", "plan", "industry")
_NUMBERS = ("size",)
_EVENTS = ("item_id", "timestamp", "event_type", "value", "session_id", "account_id", *_OF_EVENTS)


@dataclass(frozen=True)
class Spec:
    """Which numbers a snapshot has; chosen once, on the past, and the same for every moment."""

    target: str
    """Event type whose last time is of interest; "" where none is."""
    windows: tuple[float, ...]
    """Days back over which events are counted, ascending."""
    types: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    """Column → values that have a feature of their own."""

    def said(self) -> dict[str, Any]:
        """As JSON types."""
        words = {name: list(values) for name, values in self.words.items()}
        return {"target": self.target, "windows": list(self.windows), "types": list(self.types), "words": words}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        words = {name: tuple(values) for name, values in said["words"].items()}
        return cls(said["target"], tuple(float(one) for one in said["windows"]), tuple(said["types"]), words)


def user_events(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """Events of somebody (before `as_of`): what snapshots are made of, in no order."""
    events = person_events(home, as_of, purpose=purpose).select("user_id", *_EVENTS)
    return events.filter(pl.col("user_id").is_not_null() & pl.col("timestamp").is_not_null()).collect()


def spec_of(home: Home, events: pl.DataFrame, at: datetime, within: timedelta, target: str = "") -> Spec:
    """The numbers that are worth having, by the events before `at`: of event types and words, the most common."""
    before = events.filter(pl.col("timestamp") < at)
    told = _described(home, before, at)
    types = _common(before.select("user_id", value="event_type"), TYPES)
    words = {name: _common(told.select("user_id", value=name), WORDS) for name in (*_OF_EVENTS, *_OF_TABLES)}
    days = within / timedelta(days=1)
    windows = sorted({*_WINDOWS, days})
    return Spec(target, tuple(windows), types, {name: values for name, values in words.items() if len(values) > 1})


def snapshot(home: Home, events: pl.DataFrame, spec: Spec, at: datetime) -> pl.DataFrame:
    """user_id and Float64 features of everyone with an event before `at`, sorted by user_id."""
    before = events.filter(pl.col("timestamp") < at).with_columns(
        age=(pl.lit(at) - pl.col("timestamp")).dt.total_microseconds() / 86_400e6,
        # Whole numbers, so that sums are the same in any order.
        worth=(pl.col("value").fill_nan(0.0).fill_null(0.0).clip(-1e9, 1e9) * 1000).round().cast(pl.Int64),
    )
    counted = before.group_by("user_id").agg(*_counts(spec), *_rhythm(spec)).sort("user_id")
    counted = counted.with_columns(*_derived(spec))
    told = _described(home, before, at)
    made = counted.join(told, on="user_id", how="left", maintain_order="left")
    words = [
        (pl.col(name) == value).fill_null(False).cast(pl.Float64).alias(f"{name}={value}")
        for name, values in spec.words.items()
        for value in values
    ]
    made = made.with_columns(*words, *(pl.col(name).cast(pl.Float64).log1p().alias(f"log_{name}") for name in _NUMBERS))
    tenure = (pl.lit(at) - pl.col("signed_up")).dt.total_microseconds() / 86_400e6
    made = made.with_columns(signed_up_days=tenure.clip(0).log1p())
    return made.select("user_id", *(pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in names_of(spec)))


def names_of(spec: Spec) -> list[str]:
    """The features of a snapshot, in order."""
    windows = [*(f"{days:g}d" for days in spec.windows), "all"]
    return [
        *(f"events_{window}" for window in windows),
        *(f"type={kind}_{window}" for kind in spec.types for window in windows),
        *(f"days_{window}" for window in windows),
        *(f"sessions_{window}" for window in windows),
        *(f"items_{window}" for window in windows),
        *(f"value_{window}" for window in windows),
        "silence",
        "target_silence",
        "tenure",
        "gap",
        "overdue",
        *(f"trend_{days:g}d" for days in spec.windows),
        "signed_up_days",
        *(f"log_{name}" for name in _NUMBERS),
        *(f"{name}={value}" for name, values in spec.words.items() for value in values),
    ]


def happened(events: pl.DataFrame, condition: Condition | None, start: datetime, stop: datetime) -> pl.Series:
    """user_ids with an event that meets the condition (None: any event) in [start, stop), each once, sorted."""
    chosen = events.filter((pl.col("timestamp") >= start) & (pl.col("timestamp") < stop))
    if condition is not None:
        chosen = chosen.filter(pl.col("event_type") == condition.event_type)
        if condition.op is not None:
            values = chosen.select("event_type", "value").rows()
            chosen = chosen.filter(pl.Series([condition.holds(*one) for one in values], dtype=pl.Boolean))
    return chosen["user_id"].unique().sort()


def _counts(spec: Spec) -> list[pl.Expr]:
    """Sums by window, as logs."""
    made: list[pl.Expr] = []
    spans: list[tuple[str, pl.Expr]] = [(f"{days:g}d", pl.col("age") <= days) for days in spec.windows]
    for window, inside in [*spans, ("all", pl.lit(True))]:
        made.append((pl.col("age").is_not_null() & inside).sum().log1p().alias(f"events_{window}"))
        for kind in spec.types:
            made.append(((pl.col("event_type") == kind) & inside).sum().log1p().alias(f"type={kind}_{window}"))
        day = pl.col("timestamp").dt.date()
        for name, what in (("days", day), ("sessions", pl.col("session_id")), ("items", pl.col("item_id"))):
            made.append(what.filter(inside).drop_nulls().n_unique().log1p().alias(f"{name}_{window}"))
        worth = pl.when(inside).then(pl.col("worth")).otherwise(0).sum() / 1000
        made.append((worth.sign() * worth.abs().log1p()).alias(f"value_{window}"))
    return made


def _rhythm(spec: Spec) -> list[pl.Expr]:
    of_target = pl.col("age").filter(pl.col("event_type") == spec.target)
    return [
        pl.col("age").min().alias("_last"),
        pl.col("age").max().alias("_first"),
        of_target.min().log1p().alias("target_silence"),
        pl.col("timestamp").dt.date().n_unique().alias("_days"),
        *((pl.col("age") <= days).sum().alias(f"_in_{days:g}") for days in spec.windows),
        *((pl.col("age") <= 2 * days).sum().alias(f"_in_two_{days:g}") for days in spec.windows),
    ]


def _derived(spec: Spec) -> list[pl.Expr]:
    """Days of silence against the user's own rhythm, and this window's events against the one before."""
    gap = pl.when(pl.col("_days") > 1).then((pl.col("_first") - pl.col("_last")) / (pl.col("_days") - 1))
    return [
        pl.col("_last").log1p().alias("silence"),
        pl.col("_first").log1p().alias("tenure"),
        gap.log1p().alias("gap"),
        ((pl.col("_last") + 1) / (gap + 1)).log().alias("overdue"),
        *(
            ((pl.col(f"_in_{days:g}") + 0.5) / (pl.col(f"_in_two_{days:g}") - pl.col(f"_in_{days:g}") + 0.5))
            .log()
            .alias(f"trend_{days:g}d")
            for days in spec.windows
        ),
    ]


def _described(home: Home, before: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """user_id, device, country, role, plan, industry, size, signed_up of everyone with an event, as known at `at`."""
    found = before.select("user_id").unique().sort("user_id")
    for name in ("account_id", *_OF_EVENTS):
        given = before.filter(pl.col(name).is_not_null())
        latest = given.group_by("user_id").agg(pl.col(name).sort_by("timestamp", name).last())
        found = found.join(latest, on="user_id", how="left")
    known = _rows(home, "users", at, ("user_id", "account_id", "role", "country", "signed_up"))
    found = found.join(known, on="user_id", how="left", suffix="_told").with_columns(
        account_id=pl.coalesce("account_id_told", "account_id"), country=pl.coalesce("country", "country_told")
    )
    accounts = _rows(home, "accounts", at, ("account_id", "plan", "industry", "size"))
    found = found.join(accounts, on="account_id", how="left")
    return found.select("user_id", *_OF_EVENTS, *_OF_TABLES, *_NUMBERS, "signed_up").sort("user_id")


def _rows(home: Home, kind: Any, at: datetime, columns: Sequence[str]) -> pl.DataFrame:
    if tables.exists(home, kind):
        return current(home, kind, at).select(columns)
    types = {"signed_up": pl.Datetime("us", "UTC"), "size": pl.Int64()}
    return pl.DataFrame(schema={name: types.get(name, pl.String()) for name in columns})


def _common(pairs: pl.DataFrame, n: int) -> tuple[str, ...]:
    """The `n` values of the most users; of equal ones the first by name. In order of name."""
    counts = pairs.drop_nulls().group_by("value").agg(pl.col("user_id").n_unique().alias("n"))
    return tuple(sorted(counts.sort(["n", "value"], descending=[True, False]).head(n)["value"].to_list()))
