"""What an event says about its user's interest in its item: a strength, consumed or not, never again or not.

The rules are `[signals.strengths]` and `recommend.consumed_by` of persona.toml. Strengths are integers in thousandths,
so that sums of them are the same in any order.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.profiles.coding import Coded, Ints
from persona_cli.workspace.expressions import Condition, parse_condition
from persona_cli.workspace.settings import Settings

Flags = NDArray[np.bool_]
# Part of every digest: another number makes everything that was folded by older rules be folded again.
FOLD_VERSION = 1
THOUSANDTHS = 1000
NEVER = "never"


def signals_digest(settings: Settings) -> str:
    """sha256 of everything that the history table depends on beside the events."""
    return _digest(settings, ("signals.other", "signals.strengths", "recommend.consumed_by"))


def weights_digest(settings: Settings) -> str:
    """sha256 of everything that a user's decayed row depends on beside the events: signals and half-life."""
    return _digest(settings, ("signals.", "recommend.consumed_by"))


def _digest(settings: Settings, prefixes: tuple[str, ...]) -> str:
    return hashlib.sha256(f"{FOLD_VERSION} {settings.digest(prefixes)}".encode()).hexdigest()


def rules(settings: Settings) -> list[tuple[Condition, int | None]]:
    """Conditions in the order in which they are tried, with their thousandths; None means never.

    Comparisons stand before plain event types, each in the order of the file.
    """
    table = [(parse_condition(key), _thousandths(entry)) for key, entry in settings.table("signals.strengths").items()]
    return [rule for rule in table if rule[0].op] + [rule for rule in table if not rule[0].op]


def with_signals(events: pl.LazyFrame, settings: Settings) -> pl.LazyFrame:
    """Events (event_type String, value Float64) with `strength` Int64 (thousandths), `never` and `consumed` Boolean.

    The first rule that holds counts, else `signals.other`; an event that means never has strength 0.
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
    never = pl.col("event_type").is_in([name for name, entry in plain.items() if entry is None])
    for condition, entry in reversed([rule for rule in ordered if rule[0].op]):
        holds = _holds(condition)
        strength = pl.when(holds).then(pl.lit(entry or 0, pl.Int64)).otherwise(strength)
        never = pl.when(holds).then(pl.lit(entry is None)).otherwise(never)
    types = settings.texts("recommend.consumed_by")
    consumed = pl.lit(True) if "*" in types else pl.col("event_type").is_in(list(types))
    return events.with_columns(strength=strength, never=never, consumed=consumed)


def coded_signals(events: Coded, settings: Settings) -> tuple[Ints, Flags, Flags]:
    """strength, never and consumed (n,) of coded events with `event_type` and `value`: as `with_signals`, faster."""
    types, code = events.values["event_type"], events.codes("event_type")
    assert code is not None, "every event has a type"
    without_value = pl.DataFrame({"event_type": types, "value": pl.Series([None] * len(types), dtype=pl.Float64)})
    by_type = with_signals(without_value.lazy(), settings).collect()
    strength, never, consumed = (by_type[name].to_numpy()[code] for name in ("strength", "never", "consumed"))
    compared = {condition.event_type for condition, _ in rules(settings) if condition.op}
    places = np.flatnonzero(np.isin(code, np.flatnonzero(types.is_in(list(compared)).to_numpy())))
    if len(places):
        rows = pl.DataFrame({"event_type": types.gather(code[places]), "value": events.rows["value"].gather(places)})
        valued = with_signals(rows.lazy(), settings).collect()
        strength[places], never[places] = valued["strength"].to_numpy(), valued["never"].to_numpy()
    return strength, never, consumed


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
