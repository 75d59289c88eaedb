"""Where the user was last seen from: account, device, place, language, consent; how often from which device and
country, by which network and from what kind of site; and at what hours and weekdays, by the user's own clock.

The latest value is that of the latest event that has one, and of events at the same microsecond the value that sorts
last. Its instant is kept beside it, so that a later or an earlier event finds its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.events.countries import country_code
from persona_cli.events.referrers import CLASSES
from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.profiles.coding import Coded, Ints, run_starts
from persona_cli.profiles.context import (
    DAYPARTS,
    NETWORKS,
    Codes,
    daypart_of,
    hour_of,
    local_time,
    network_class,
    referrer_classes,
    weekday_of,
)
from persona_cli.profiles.folds.part import (
    NEVER,
    FoldRules,
    Part,
    as_lists,
    coded_counts,
    counts,
    counts_type,
    merged_counts,
    owners,
    times,
)

LATEST = ("account_id", "device", "browser", "os", "country", "network", "locale", "tz", "consent")
COUNTED = {
    "devices": "device",
    "countries": "country",
    "networks": "network",
    "referrers": "referrer",
    "dayparts": "daypart",
}
"""Column → what its events are counted by: values, or classes of them (profiles/context.py)."""
_CYCLES = {"hours": 24, "weekdays": 7}
FIELDS = (
    *(pa.field(name, pa.string()) for name in LATEST),
    *(pa.field(column, counts_type(name)) for column, name in COUNTED.items()),
    pa.field("hours", pa.list_(pa.int32())),
    pa.field("weekdays", pa.list_(pa.int32())),
    pa.field("_latest", pa.struct([pa.field(name, UTC_MICROSECONDS) for name in LATEST])),
)
NEEDED = (*LATEST, "event_type", "page", "referrer", "campaign")
TEXTS = NEEDED


def fold(part: Part, rules: FoldRules) -> dict[str, pl.Series]:
    """devices, countries: events by device, by country; networks: slow or fast; referrers, dayparts: by class.

    hours (24), weekdays (7, Monday first): events by local time. The other columns: the latest value of each;
    `_latest`: their instants. Countries are alpha-2 codes where they are known.
    """
    part = _with_country_codes(part)

    def text(name: str) -> Codes:
        return Codes(part.events.codes(name), part.events.values[name])

    local = local_time(part.time, text("tz"), text("country"))
    runs = run_starts(part.user, part.time)
    first_runs, last_runs = np.searchsorted(runs, part.starts), np.searchsorted(runs, part.ends) - 1
    latest = {name: _latest(name, part, runs, first_runs, last_runs) for name in LATEST}
    network = text("network")
    speeds = {name: network_class(name) for name in network.present()}
    speed = network.translated({name: NETWORKS.index(speed) for name, speed in speeds.items() if speed is not None})
    nothing = np.full(len(part.user), -1)
    came = referrer_classes(text("event_type"), text("page"), text("referrer"), text("campaign"))
    return {
        **{name: value for name, (value, _) in latest.items()},
        "devices": counts("device", part),
        "countries": counts("country", part),
        "networks": _class_counts("network", part, nothing if speed is None else speed, NETWORKS),
        "referrers": _class_counts("referrer", part, came, CLASSES),
        "dayparts": _class_counts("daypart", part, daypart_of(local), DAYPARTS),
        "hours": _cycle(hour_of(local), 24, part),
        "weekdays": _cycle(weekday_of(local), 7, part),
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
            **{column: merged_counts(column, name, rows) for column, name in COUNTED.items()},
            **{name: _added(rows[name], owner, length) for name, length in _CYCLES.items()},
            "_latest": found.select(pl.col(f"at {name}").alias(name) for name in LATEST).to_struct(),
        }
    )


def _with_country_codes(part: Part) -> Part:
    """With one value for what names one country."""
    codes = part.events.codes("country")
    if codes is None:
        return part
    names = [country_code(text) for text in part.events.values["country"]]
    values = pl.Series(sorted(set(names)), dtype=pl.String)
    place = {name: number for number, name in enumerate(values)}
    new = np.array([*(place[name] for name in names), -1], dtype=np.int32)[codes]
    rows = part.events.rows.with_columns(pl.Series("country", new))
    return replace(part, events=Coded(rows, {**part.events.values, "country": values}))


def _class_counts(name: str, part: Part, place: Ints, classes: Sequence[str]) -> pl.Series:
    """Events by their place in `classes` (n,), -1 for none (n_users,)."""
    order = sorted(classes)
    sorted_place = np.array([*(order.index(one) for one in classes), -1], dtype=np.int64)
    return coded_counts(name, part, sorted_place[place], pl.Series(order, dtype=pl.String))


def _cycle(value: Ints, length: int, part: Part) -> pl.Series:
    """Events by a number from 0 to length - 1, as a list of that length (n_users,)."""
    n_users = len(part.users)
    counted = np.bincount(part.user * length + value, minlength=n_users * length)
    return _as_lists(counted.reshape(n_users, length))


def _added(rows: pl.Series, owner: Ints, length: int) -> pl.Series:
    """The lists of each user added up (n_users,)."""
    order = np.argsort(owner, kind="stable")
    numbers = rows.explode().to_numpy().reshape(-1, length)[order]
    return _as_lists(np.add.reduceat(numbers, run_starts(owner[order]), axis=0))


def _as_lists(counted: Ints) -> pl.Series:
    """(n_users, length) as lists."""
    n_users, length = counted.shape
    numbers = pl.Series(counted.astype(np.int32).ravel()).to_arrow()
    return as_lists(np.arange(0, n_users * length + 1, length), numbers)


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
