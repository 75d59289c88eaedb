"""Where attention went: seconds spent, pages scrolled, what was clicked, searched for and used.

Seconds are kept as counts and sums by length, in steps of half a doubling, so that the division into reading and idle
tabs (`profiles.signal_fit`) follows from the fit in force and a new fit folds nothing again. Lists keep all of a user's
targets, queries and features: a list of the most frequent alone could not be merged. Queries are personal data.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.profiles.coding import Ints, compacted, run_starts, sort_order
from persona_cli.profiles.folds.part import FoldRules, Part, lists, owners

DWELL, SCROLL, CLICK, SEARCH, FEATURE = "dwell", "scroll", "click", "search", "feature_use"
OPENED, FOLLOWED, PURCHASE = "message_open", "message_click", "purchase"
LONGEST_MS = 86_400_000
"""A longer dwell counts as one of this length."""
HEARTBEAT = "heartbeat"
ACTIVE = -1
"""The step of time that was seen to be active (heartbeats), whatever its length."""
EDGES: Ints = np.array(sorted(set(np.rint(1000 * 2.0 ** (np.arange(-6, 34) / 2)).tolist())), dtype=np.int64)
"""Milliseconds at which the next step of dwell begins."""

_TALLIES = {
    "clicked": "target",
    "queries": "query",
    "features_used": "feature",
    "channels": "channel",
    "_purchases": "event_type",
}
"""Column → the name of what is counted in it."""
_SUMS = ("scrolls", "_scroll_thousandths", "dwells", "dwell_ms")
_STEPS = [pa.field("step", pa.int64()), pa.field("n", pa.int64()), pa.field("ms", pa.int64())]


def _tally_type(name: str) -> list[pa.Field]:
    return [pa.field(name, pa.string()), pa.field("n", pa.int64()), pa.field("last", UTC_MICROSECONDS)]


FIELDS = (
    *(pa.field(name, pa.int64()) for name in _SUMS),
    pa.field("_dwell", pa.list_(pa.struct(_STEPS))),
    *(pa.field(column, pa.list_(pa.struct(_tally_type(name)))) for column, name in _TALLIES.items()),
)
NEEDED = ("event_type", "target", "query", "value")
TEXTS = ("event_type", "target", "query")


def fold(part: Part, rules: FoldRules) -> dict[str, pl.Series]:
    """scrolls: scroll events with a depth (value 0 to 1), whose depths in thousandths add up to _scroll_thousandths.
    dwells: dwell events with seconds; dwell_ms: the sum of theirs and of those of heartbeats; _dwell: both by length,
    heartbeats under ACTIVE. clicked: targets of clicks,
    queries: what was searched for, without blanks at the ends and runs of them, features_used: targets of feature_use,
    channels: targets of message_open and message_click, _purchases: purchases; each with how often and when last,
    sorted by name.
    """
    types, kind = part.events.values["event_type"], part.events.codes("event_type")
    assert kind is not None, "every event has a type"
    value = part.events.rows["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    n_users = len(part.users)

    def of(name: str) -> NDArray[np.bool_]:
        place = types.search_sorted(name)
        there = place < len(types) and types[place] == name
        return kind == place if there else np.zeros(len(kind), dtype=bool)

    scrolled = of(SCROLL) & np.isfinite(value)
    depth = np.rint(np.clip(value[scrolled], 0, 1) * 1000).astype(np.int64)
    beat = of(HEARTBEAT)
    dwelt = (of(DWELL) | beat) & np.isfinite(value) & (value > 0)
    ms = np.maximum(np.rint(np.minimum(value[dwelt] * 1000, LONGEST_MS)).astype(np.int64), 1)
    owner = part.user[dwelt]
    step = np.where(beat[dwelt], ACTIVE, np.searchsorted(EDGES, ms, side="right"))
    steps = pl.DataFrame({"owner": owner, "step": step, "n": 1, "ms": ms})
    return {
        "scrolls": pl.Series(np.bincount(part.user[scrolled], minlength=n_users)),
        "_scroll_thousandths": pl.Series(_added(part.user[scrolled], depth, n_users)),
        "dwells": pl.Series(np.bincount(owner[step != ACTIVE], minlength=n_users)),
        "dwell_ms": pl.Series(_added(owner, ms, n_users)),
        "_dwell": _by_step(steps, n_users),
        "clicked": _tallied(part, "target", of(CLICK), "target"),
        "queries": _tallied(part, "query", None, "query"),
        "features_used": _tallied(part, "target", of(FEATURE), "feature"),
        "channels": _tallied(part, "target", of(OPENED) | of(FOLLOWED), "channel"),
        "_purchases": _tallied(part, "event_type", of(PURCHASE), "event_type"),
    }


def merge(rows: pl.DataFrame, rules: FoldRules) -> pl.DataFrame:
    owner, users = owners(rows)
    found = {"user_id": users}
    for name in _SUMS:
        found[name] = pl.Series(_added(owner, rows[name].to_numpy(), len(users)))
    found["_dwell"] = _by_step(_flat(owner, rows["_dwell"]), len(users))
    for column, name in _TALLIES.items():
        found[column] = _listed(_flat(owner, rows[column]), name, len(users))
    return pl.DataFrame({name: found[name] for name in ("user_id", *(field.name for field in FIELDS))})


def plain_query() -> pl.Expr:
    """`query` without blanks at its ends, runs of blanks and line ends as one blank; null where nothing is left."""
    text = pl.col("query").str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(text != "").then(text)


def _tallied(part: Part, column: str, chosen: NDArray[np.bool_] | None, name: str) -> pl.Series:
    """How often and when last each text of the column was there among the events chosen (None: all) (n_users,)."""
    code, n_users = part.events.codes(column), len(part.users)
    if code is None:
        nothing = np.zeros(0, dtype=np.int64)
        return _tally(nothing, pl.Series([], dtype=pl.String), nothing, nothing, name, n_users)
    there = np.flatnonzero(code >= 0 if chosen is None else chosen & (code >= 0))
    code, values = compacted(code[there], part.events.values[column])
    if column == "query":
        plain = pl.DataFrame({"query": values}).select(plain_query()).to_series()
        values = plain.drop_nulls().unique().sort()
        place = plain.replace_strict(values, pl.Series(np.arange(len(values))), default=-1, return_dtype=pl.Int64)
        code = place.to_numpy()[code]
        there, code = there[code >= 0], code[code >= 0]
    owner, at = part.user[there], part.time[there]
    order = sort_order([(owner, n_users), (code, len(values))])
    owner, code, at = owner[order], code[order], at[order]
    starts = run_starts(owner, code)
    last = np.maximum.reduceat(at, starts) if len(starts) else at
    n = np.diff(starts, append=len(owner))
    return _tally(owner[starts], values.gather(code[starts]), n, last, name, n_users)


def _listed(table: pl.DataFrame, name: str, n_users: int) -> pl.Series:
    """owner, name, n, last as lists (n_users,): one entry a name."""
    added = table.group_by("owner", name).agg(pl.col("n").sum(), pl.col("last").max()).sort("owner", name)
    n, last = (added[one].to_physical().to_numpy() for one in ("n", "last"))
    return _tally(added["owner"].to_numpy(), added[name], n, last, name, n_users)


def _tally(owner: Ints, names: pl.Series, n: Ints, last: Ints, name: str, n_users: int) -> pl.Series:
    moments = pl.Series(last, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    return lists(owner, n_users, pl.DataFrame({name: names, "n": n, "last": moments}))


def _by_step(table: pl.DataFrame, n_users: int) -> pl.Series:
    added = table.group_by("owner", "step").agg(pl.col("n", "ms").cast(pl.Int64).sum()).sort("owner", "step")
    return lists(added["owner"].to_numpy(), n_users, added.select(field.name for field in _STEPS).cast(pl.Int64))


def _flat(owner: Ints, entries: pl.Series) -> pl.DataFrame:
    """The entries of lists, with their owners."""
    return pl.DataFrame({"owner": owner, "_": entries}).explode("_").drop_nulls("_").unnest("_")


def _added(owner: Ints, values: Ints, n_users: int) -> Ints:
    total = np.zeros(n_users, dtype=np.int64)
    np.add.at(total, owner, values)
    return total
