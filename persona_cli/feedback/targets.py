"""Which held-out items show what strengths are worth: those of a target among the event types that occur.

Event types are signals here: the keys of `[signals.strengths]`, and the types that it does not list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from persona_cli.errors import MissingInput, UsageError, nearest
from persona_cli.evaluation.exams import Exam
from persona_cli.feedback.choosing import past
from persona_cli.profiles.signals import THOUSANDTHS
from persona_cli.workspace.setting import Condition, parse_condition
from persona_cli.workspace.settings import Settings


class Stated(NamedTuple):
    """What is declared of every signal, and how often it occurs, each (n_signals,)."""

    declared: list[float | str]
    """A number, or "never"."""
    events: list[int]
    """Events with an item."""
    users: list[int]
    everyone: int
    """Users with an item, of any type."""

    def number(self, signal: int) -> float:
        """The strength; 0 where it means never."""
        entry = self.declared[signal]
        return 0.0 if isinstance(entry, str) else entry


class Wanted(NamedTuple):
    """The target."""

    text: str
    signals: tuple[int, ...]
    """Those of which an event makes its item a right answer."""

    @property
    def anchor(self) -> int:
        """The strongest of them."""
        return self.signals[0]


def stated_of(events: pl.DataFrame, names: Sequence[str], settings: Settings) -> Stated:
    """What the settings say of the signals `names` of `events` (signal: a number into them)."""
    table, other = settings.table("signals.strengths"), settings.number("signals.other")
    given = events.filter(pl.col("item_id").is_not_null())
    counted = given.group_by("signal").agg(pl.len().alias("events"), pl.col("user_id").n_unique().alias("users"))
    found = {signal: (n, users) for signal, n, users in counted.select("signal", "events", "users").iter_rows()}
    places = range(len(names))
    return Stated(
        [table.get(name, other) for name in names],
        [found.get(place, (0, 0))[0] for place in places],
        [found.get(place, (0, 0))[1] for place in places],
        given["user_id"].n_unique(),
    )


def targets(names: Sequence[str], stated: Stated, target: str | None) -> list[Wanted]:
    """What may be wanted, strongest first; only the target that is named, if one is."""
    there = [signal for signal in range(len(names)) if stated.events[signal]]
    there.sort(key=lambda signal: (-stated.number(signal), -stated.users[signal], names[signal]))
    positive = [signal for signal in there if stated.number(signal) > 0]
    if target is None:
        return [Wanted(names[signal], (signal,)) for signal in positive]
    text = target.strip()
    asked = condition_of(text)
    meant = [signal for signal in there if text == names[signal] or (asked and asked == condition_of(names[signal]))]
    if not meant:
        meant = [signal for signal in there if (one := condition_of(names[signal])) and one.event_type == text]
    if not meant:
        known = [names[signal] for signal in there]
        raise UsageError(
            f"--target is {target!r}, but no event with an item has that type{nearest(text, known)}",
            "persona strengths without --target takes the strongest one",
        )
    chosen = tuple(signal for signal in positive if signal in meant)
    if not chosen:
        shown = stated.declared[meant[0]]
        raise UsageError(
            f"--target is {target!r}, whose strength is {shown if isinstance(shown, str) else f'{shown:g}'}; expected "
            "an event type with a strength above 0",
            "persona config show signals",
        )
    return [Wanted(text, chosen)]


def condition_of(name: str) -> Condition | None:
    """The condition of a key; None for the name of an event type that no key can be."""
    try:
        return parse_condition(name)
    except ValueError:
        return None


def held_out(events: pl.DataFrame, wanted: Wanted, settings: Settings) -> list[Exam]:
    """The cuts, with the items of the target as right answers; none where there is nothing to ask."""
    right = pl.col("signal").is_in(wanted.signals)
    marked = events.with_columns(strength=pl.when(right).then(pl.lit(THOUSANDTHS)).otherwise(pl.lit(0)).cast(pl.Int64))
    try:
        return past(marked, settings, settings.whole("train.cuts"))
    except MissingInput:
        return []


def n_asked(exams: Sequence[Exam]) -> int:
    """Different users asked."""
    return pl.concat([exam.users for exam in exams]).n_unique() if exams else 0
