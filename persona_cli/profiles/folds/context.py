"""Where the user was last seen from: account, device, place, language, consent; and how often from which device.

The latest value is that of the latest event that has one, and of events at the same microsecond the value that sorts
last. Its instant is kept beside it, so that a later or an earlier event finds its place.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.profiles.coding import Ints, run_starts
from persona_cli.profiles.folds.counting import counts, counts_type, merged_counts
from persona_cli.profiles.folds.part import NEVER, FoldRules, Part, owners, times

LATEST = ("account_id", "device", "browser", "os", "country", "network", "locale", "tz", "consent")
FIELDS = (
    *(pa.field(name, pa.string()) for name in LATEST),
    pa.field("devices", counts_type("device")),
    pa.field("_latest", pa.struct([pa.field(name, UTC_MICROSECONDS) for name in LATEST])),
)
NEEDED = LATEST
TEXTS = LATEST


def fold(part: Part, rules: FoldRules) -> dict[str, pl.Series]:
    """devices: events by device. The other columns: the latest value of each; `_latest`: their instants."""
    runs = run_starts(part.user, part.time)
    first_runs, last_runs = np.searchsorted(runs, part.starts), np.searchsorted(runs, part.ends) - 1
    latest = {name: _latest(name, part, runs, first_runs, last_runs) for name in LATEST}
    return {
        **{name: value for name, (value, _) in latest.items()},
        "devices": counts("device", part),
        "_latest": pl.DataFrame({name: instant for name, (_, instant) in latest.items()}).to_struct(),
    }


def merge(rows: pl.DataFrame, rules: FoldRules) -> pl.DataFrame:
    owner, users = owners(rows)
    instants = rows["_latest"].struct.unnest()
    found = pl.DataFrame({"owner": np.arange(len(users))})
    for name in LATEST:
        given = pl.DataFrame({"owner": owner, f"at {name}": instants[name], name: rows[name]}).drop_nulls()
        latest = given.sort("owner", f"at {name}", name).unique("owner", keep="last", maintain_order=True)
        found = found.join(latest, on="owner", how="left", maintain_order="left")
    return pl.DataFrame(
        {
            "user_id": users,
            **{name: found[name] for name in LATEST},
            "devices": merged_counts("devices", "device", rows),
            "_latest": found.select(pl.col(f"at {name}").alias(name) for name in LATEST).to_struct(),
        }
    )


def _latest(name: str, part: Part, runs: Ints, first_runs: Ints, last_runs: Ints) -> tuple[pl.Series, pl.Series]:
    """Value and instant of each user's latest run of simultaneous events that has one (n_users,)."""
    code = part.events.codes(name)
    if code is None:
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(last_runs))
        return nothing, times(np.full(len(last_runs), NEVER))
    in_run = np.maximum.reduceat(code, runs)  # null is -1, so any value wins over it
    latest = np.maximum.accumulate(np.where(in_run >= 0, np.arange(len(runs)), -1))[last_runs]
    there = latest >= first_runs
    code = np.where(there, in_run[latest], -1)
    instant = np.where(there, part.time[runs[latest]], NEVER)
    return part.events.values[name].gather(pl.Series(code).replace(-1, None)), times(instant)
