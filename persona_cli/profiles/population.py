"""Everybody: as of a moment, and as what one user is measured against.

All profiles as of a moment: what folding only the events of before, as they were known then, gives.

Nothing is stored for it: a bucket at a time is folded from the events; files that begin later are not opened.

What one user is measured against: everybody's sessions and features, read from the profiles without the rest.

Of nested columns only the fields that are asked for are read, and rows are merged only of users with increments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import numpy as np
import polars as pl

from persona_cli.events.store import NAME, files_before, were_known
from persona_cli.profiles import features
from persona_cli.profiles import fold as folding
from persona_cli.profiles.buckets import shared_out
from persona_cli.profiles.features import USE, Population
from persona_cli.profiles.fold import profile_rows, stored_rows
from persona_cli.profiles.folds import activity, attention
from persona_cli.profiles.folds.part import FoldRules, lists, owners, times
from persona_cli.profiles.identity import persons, raw_key
from persona_cli.profiles.permitted import Purpose, allowed, person_events
from persona_cli.profiles.sync import ALL_COLUMNS, history_of, keyed, texts
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

_PIECE = 1 << 20


def past(
    home: Home, as_of: datetime | None, known_at: datetime | None, *, purpose: Purpose = None
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The profile rows (every column) and the history rows of the users of each bucket; each sorted by user."""
    events = tables.open_table(home, NAME)
    if events is None:
        return
    who = persons(home, as_of, known_at)
    who_may = allowed(home, purpose)
    known = were_known(as_of, known_at) or [pl.lit(True)]
    pieces = (
        keyed(who_may.rows(events.scan([file]).slice(start, _PIECE).filter(*known), raw_key()), who, *ALL_COLUMNS)
        for file in files_before(events, as_of)
        for start in range(0, file.rows, _PIECE)
    )
    rules = FoldRules.of(home.settings)
    with shared_out(home, pieces, texts(*ALL_COLUMNS), home.settings.whole("profiles.buckets")) as shared:
        for _, load in shared:
            part = load()
            yield folding.fold_coded(part, rules), history_of(part, home.settings)


_LEAVES = {"_intervals": ("first",), "features_used": ("feature", "last")}
_WITH_TIMES = ("last_seen", *USE)


def population_of(
    home: Home, as_of: datetime | None = None, known_at: datetime | None = None, *, purpose: Purpose = None
) -> Population:
    """What one user is measured against.

    Of a past moment it is cut out of the profiles of now: sessions that began before, features used before. Only for
    `known_at` is everybody folded again.
    """
    if known_at is not None:
        empty, before = folding.NOBODY.select(_WITH_TIMES), past(home, as_of, known_at, purpose=purpose)
        rows = pl.concat([empty, *(rows.select(_WITH_TIMES) for rows, _ in before)])
        return features.population(as_of or moment_of_all(rows["last_seen"]), rows)
    if not allowed(home, purpose).everybody:
        rows = profile_rows(home, ("user_id", *_WITH_TIMES), purpose=purpose)
        if as_of is None:
            return features.population(moment_of_all(rows["last_seen"]), rows)
        used = _features_used(home, as_of, purpose)
        rows = rows.drop("features_used").join(used, on="user_id", how="left", maintain_order="left")
        rows = rows.with_columns(pl.col("features_used").fill_null([]))
        return features.population(as_of, rows, later=False)
    table, largest, increments = stored_rows(home)
    if table is None:
        rows = folding.NOBODY.select(_WITH_TIMES)
        return features.population(as_of or moment_of_all(rows["last_seen"]), rows)
    if as_of is None:
        last_seen = table.scan([*largest, *increments]).select(pl.col("last_seen").max()).collect().to_series()
        return features.population(moment_of_all(last_seen), _use(home, table, largest, increments))
    rows = _use(home, table, largest, increments)
    if rows["features_used"].list.len().sum():
        whose = _user_ids(table, largest, increments).hstack(rows.drop("features_used"))
        rows = whose.join(_features_used(home, as_of, purpose), on="user_id", how="left", maintain_order="left")
        rows = rows.with_columns(pl.col("features_used").fill_null([]))
    return features.population(as_of, rows, later=False)


def moment_of_all(last_seen: pl.Series) -> datetime:
    """When the last event of anybody was; long ago where there is none."""
    last = last_seen.max()
    return last if isinstance(last, datetime) else datetime.fromtimestamp(0, UTC)


def _use(home: Home, table: Table, largest: Sequence[File], increments: Sequence[File]) -> pl.DataFrame:
    """`_intervals` and `features_used` of every user with the fields `_LEAVES`; in the order of `_user_ids`."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(largest))) as pool:
        rows = pl.concat(pool.map(partial(_leaves, table), largest))
    if not increments:
        return rows
    touched = _touched(table, increments)
    others = ~table.scan(largest).select("user_id").collect()["user_id"].is_in(touched.implode())
    theirs = table.scan([*largest, *increments]).filter(pl.col("user_id").is_in(touched.implode()))
    return pl.concat([rows.filter(others), _merged(theirs.select("user_id", *USE).collect(), home)])


def _user_ids(table: Table, largest: Sequence[File], increments: Sequence[File]) -> pl.DataFrame:
    users = table.scan(largest).select("user_id").collect()
    if not increments:
        return users
    touched = _touched(table, increments)
    return pl.concat([users.filter(~pl.col("user_id").is_in(touched.implode())), touched.to_frame()])


def _touched(table: Table, increments: Sequence[File]) -> pl.Series:
    return table.scan(increments).select(pl.col("user_id").unique().sort()).collect().to_series()


def _leaves(table: Table, file: File) -> pl.DataFrame:
    import pyarrow.parquet as pq

    with pq.ParquetFile(table.root / file.path) as parquet:
        paths = [parquet.schema.column(at).path for at in range(len(parquet.schema))]
        wanted = {(column, field) for column, fields in _LEAVES.items() for field in fields}
        chosen = [path for path in paths if (path.split(".")[0], path.split(".")[-1]) in wanted]
        return pl.DataFrame(pl.from_arrow(parquet.read(columns=chosen))).select(list(_LEAVES))


def _merged(rows: pl.DataFrame, home: Home) -> pl.DataFrame:
    """Several rows a user as one, users sorted."""
    owner, users = owners(rows)
    of, _, first, _ = activity.merged_intervals(owner, rows["_intervals"], FoldRules.of(home.settings).session_gap)
    order = np.argsort(of, kind="stable")
    starts = pl.DataFrame({"first": times(first[order])})
    used = pl.DataFrame({"owner": owner, "_": rows["features_used"]}).explode("_").drop_nulls("_").unnest("_")
    used = used.group_by("owner", "feature").agg(pl.col("last").max()).sort("owner", "feature")
    return pl.DataFrame(
        {
            "_intervals": lists(of[order], len(users), starts),
            "features_used": lists(used["owner"].to_numpy(), len(users), used.select("feature", "last")),
        }
    )


def _features_used(home: Home, as_of: datetime, purpose: Purpose) -> pl.DataFrame:
    """user_id and features_used as folded from the events before the moment."""
    used = person_events(home, as_of, purpose=purpose).filter(pl.col("event_type") == attention.FEATURE)
    last = used.group_by("user_id", feature="target").agg(last=pl.col("timestamp").max())
    named = last.filter(pl.col("feature").is_not_null())
    return named.group_by("user_id").agg(features_used=pl.struct("feature", "last")).collect()
