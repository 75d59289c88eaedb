"""What an event says about its user's interest in its item: a strength, consumed or not, never again or not.

The rules are `[signals.strengths]`, `[signals.minimum]` and `recommend.consumed_by` of persona.toml. With
`signals.graded`, a scroll counts by its depth and a dwell by the chance that it was spent reading, as `persona signals
fit` found it; before there is a fit, a dwell counts in full. With `signals.center_ratings`, ratings count by their
distance from the user's mean (`profiles.signal_fit`), which is derived when a history is read. Strengths are integers
in thousandths, so that their sums are the same in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.profiles import signal_fit
from persona_cli.profiles.coding import Coded, Ints
from persona_cli.profiles.folds.explicit import RATING, thousandths
from persona_cli.profiles.signal_fit import SETTING, SignalFit, centring
from persona_cli.workspace.setting import Condition, parse_condition
from persona_cli.workspace.settings import Settings

Flags = NDArray[np.bool_]


class Signals(NamedTuple):
    """What events (n,) say, in their order."""

    strength: Ints
    never: Flags
    consumed: Flags
    rated: Ints | None = None
    """Thousandths of ratings that count by their distance from the user's mean, 0 for others; None: none does."""
    counted: Flags | None = None
    """Which ones do."""


# Part of every digest: another number makes everything that was folded by older rules be folded again.
FOLD_VERSION = 2
THOUSANDTHS = 1000
NOT_HAD = ("block", "unblock", "show_less")
"""Types that speak about an item and are no use of it: "*" of consumed_by leaves them out."""
NEVER = "never"
DWELL, SCROLL = "dwell", "scroll"


def signals_digest(settings: Settings) -> str:
    """sha256 of everything that the history table depends on beside the events."""
    return _digest(settings, *_OF_STRENGTHS)


def weights_digest(settings: Settings) -> str:
    """sha256 of everything that a user's decayed row depends on beside the events: signals and half-life."""
    centred = f" {centring(settings)}" if settings.flag(SETTING) else ""
    return _digest(settings, *_OF_STRENGTHS, "signals.half_life_days", more=centred)


_OF_STRENGTHS = ("signals.other", "signals.strengths", "signals.graded", "recommend.consumed_by")


def _digest(settings: Settings, *prefixes: str, more: str = "") -> str:
    graded = settings.fitted.digest if settings.fitted and _dwell_fit(settings) else "in full"
    said = f"{FOLD_VERSION} {settings.digest(prefixes)} {sorted(too_few(settings))} {graded}{more}"
    said += " ratings centred" if settings.flag(SETTING) else ""
    return hashlib.sha256(said.encode()).hexdigest()


def too_few(settings: Settings) -> dict[str, tuple[int, int]]:
    """Event types with less than their minimum evidence, which count nothing: (counted by the last fit, needed)."""
    minimum = {kind: int(needed) for kind, needed in settings.table("signals.minimum").items() if needed}
    counts = signal_fit.load(settings.fitted).counts if minimum and settings.fitted else {}
    found = {kind: (counts.get(kind, 0), needed) for kind, needed in minimum.items()}
    return {kind: (counted, needed) for kind, (counted, needed) in found.items() if counted < needed}


def _dwell_fit(settings: Settings) -> SignalFit | None:
    """What dwell seconds mean, where that is known and in force."""
    if settings.fitted is None or not settings.flag("signals.graded"):
        return None
    found = signal_fit.load(settings.fitted)
    return found if found.dwell else None


def rules(settings: Settings) -> list[tuple[Condition, int | None]]:
    """Conditions in the order in which they are tried, with their thousandths; None means never.

    Comparisons stand before plain event types, each in the order of the file.
    """
    table = [(parse_condition(key), _thousandths(entry)) for key, entry in settings.table("signals.strengths").items()]
    return [rule for rule in table if rule[0].op] + [rule for rule in table if not rule[0].op]


def with_signals(events: pl.LazyFrame, settings: Settings) -> pl.LazyFrame:
    """Events (event_type String, value Float64) with `strength` Int64 (thousandths), `never` and `consumed` Boolean.

    The first rule that holds counts, else `signals.other`; an event that means never has strength 0. A dwell is judged
    by the fit of its item where `events` has item_id, else by that of all. With signals.center_ratings there is `rated`
    too: thousandths of the ratings that count by their distance from the user's mean, else null; their strength is the
    declared one, by which they are right answers or not.
    """
    ordered = rules(settings)
    # Of two spellings of one plain type the first counts, as everywhere.
    plain: dict[str, int | None] = {}
    for condition, entry in ordered:
        if condition.op is None:
            plain.setdefault(condition.event_type, entry)
    other = _thousandths(settings.number("signals.other"))
    names = pl.Series(list(plain), dtype=pl.String)
    strength = pl.col("event_type").replace_strict(
        names, pl.Series([entry or 0 for entry in plain.values()], dtype=pl.Int64), default=other, return_dtype=pl.Int64
    )
    if settings.flag("signals.graded"):
        strength = _graded(events, strength, settings, plain)
    never = pl.col("event_type").is_in([name for name, entry in plain.items() if entry is None])
    for condition, entry in reversed([rule for rule in ordered if rule[0].op]):
        holds = _holds(condition)
        strength = pl.when(holds).then(pl.lit(entry or 0, pl.Int64)).otherwise(strength)
        never = pl.when(holds).then(pl.lit(entry is None)).otherwise(never)
    weak = list(too_few(settings))
    if weak:
        strength = pl.when(pl.col("event_type").is_in(weak)).then(pl.lit(0, pl.Int64)).otherwise(strength)
    types = settings.texts("recommend.consumed_by")
    named = pl.col("event_type").is_in(list(types))
    consumed = named | ~pl.col("event_type").is_in(NOT_HAD) if "*" in types else named
    found = events.with_columns(strength=strength, never=never, consumed=consumed)
    if settings.flag(SETTING):
        given = (pl.col("event_type") == RATING) & pl.col("value").is_finite().fill_null(False)
        counts = given & (pl.col("strength") != 0)  # of what means never the strength is 0
        found = found.with_columns(rated=pl.when(counts).then(thousandths(pl.col("value"))))
    return found


def coded_signals(events: Coded, settings: Settings) -> Signals:
    """The signals of coded events (event_type, value, item_id): as `with_signals`, faster."""
    types, code = events.values["event_type"], events.codes("event_type")
    assert code is not None, "every event has a type"
    without_value = pl.DataFrame({"event_type": types, "value": pl.Series([None] * len(types), dtype=pl.Float64)})
    by_type = with_signals(without_value.lazy(), settings).collect()
    strength, never, consumed = (by_type[name].to_numpy()[code] for name in ("strength", "never", "consumed"))
    compared = {condition.event_type for condition, _ in rules(settings) if condition.op}
    if settings.flag("signals.graded"):
        compared |= {DWELL, SCROLL}
    if settings.flag(SETTING):
        compared |= {RATING}
    places = np.flatnonzero(np.isin(code, np.flatnonzero(types.is_in(list(compared)).to_numpy())))
    if len(places):
        rows = pl.DataFrame({"event_type": types.gather(code[places]), "value": events.rows["value"].gather(places)})
        if (item := events.codes("item_id")) is not None:
            named = events.values["item_id"].gather(pl.Series(item[places]).replace(-1, None))
            rows = rows.with_columns(item_id=named)
        valued = with_signals(rows.lazy(), settings).collect()
        strength[places], never[places] = valued["strength"].to_numpy(), valued["never"].to_numpy()
        if "rated" in valued.columns and valued["rated"].count():
            rated, counted = np.zeros(len(code), dtype=np.int64), np.zeros(len(code), dtype=bool)
            rated[places] = valued["rated"].fill_null(0).to_numpy()
            counted[places] = valued["rated"].is_not_null().to_numpy()
            return Signals(strength, never, consumed, rated, counted)
    return Signals(strength, never, consumed)


def _graded(events: pl.LazyFrame, strength: pl.Expr, settings: Settings, plain: Mapping[str, int | None]) -> pl.Expr:
    """Strengths with those of plain dwells and scrolls by their value; a scroll without a depth counts in full."""
    scroll, dwell = plain.get(SCROLL) or 0, plain.get(DWELL) or 0
    if scroll:
        depth = pl.col("value").fill_nan(None).fill_null(1.0).clip(0.0, 1.0)
        scaled = (depth * scroll).round().cast(pl.Int64)
        strength = pl.when(pl.col("event_type") == SCROLL).then(scaled).otherwise(strength)
    fit = _dwell_fit(settings) if dwell else None
    if fit is not None:
        known = fit
        item = ["item_id"] if "item_id" in events.collect_schema().names() else []

        def by_chance(rows: pl.Series) -> pl.Series:
            table = rows.struct.unnest()
            there = (table["event_type"] == DWELL).fill_null(False).to_numpy()
            found = np.zeros(len(there), dtype=np.int64)
            if there.any():
                of = table.filter(pl.Series(there))
                seconds = of["value"].fill_null(float("nan")).to_numpy()
                found[there] = np.rint(known.engaged(seconds, of["item_id"] if item else None) * dwell)
            return pl.Series(found)

        scaled = pl.struct("event_type", "value", *item).map_batches(by_chance, pl.Int64, is_elementwise=True)
        strength = pl.when(pl.col("event_type") == DWELL).then(scaled).otherwise(strength)
    return strength


def _thousandths(entry: float | str) -> int | None:
    return None if entry == NEVER else round(float(entry) * THOUSANDTHS)


def _holds(condition: Condition) -> pl.Expr:
    """`Condition.holds` as an expression, never null; polars orders NaN above every number, so it is ruled out."""
    same_type = pl.col("event_type") == condition.event_type
    if condition.op is None or condition.number is None:
        return same_type
    value, number = pl.col("value"), condition.number
    compared = {
        ">=": value >= number,
        "<=": value <= number,
        ">": value > number,
        "<": value < number,
        "=": value == number,
        "!=": value != number,
    }[condition.op]
    return same_type & (compared & value.is_not_nan()).fill_null(False)
