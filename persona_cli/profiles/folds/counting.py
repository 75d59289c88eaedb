"""Counts by value as a column: a list of (value, n) sorted by value; folded from codes, added up when merged."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.profiles.coding import Ints
from persona_cli.profiles.folds.part import Part, owners


def counts_type(name: str) -> pa.DataType:
    """list<struct<NAME: string, n: int64>>"""
    return pa.list_(pa.struct([pa.field(name, pa.string()), pa.field("n", pa.int64())]))


def counts(name: str, part: Part) -> pl.Series:
    """Events by the values of a text column (n_users,)."""
    code = part.events.codes(name)
    if code is None:
        return coded_counts(name, part, np.full(len(part.user), -1), pl.Series(dtype=pl.String))
    return coded_counts(name, part, code, part.events.values[name])


def coded_counts(name: str, part: Part, code: Ints, values: pl.Series) -> pl.Series:
    """Events by `values`, sorted texts, of which each has one by its code (n,), -1 for none (n_users,)."""
    user, n_users = part.user, len(part.users)
    given = code >= 0
    owner, code = (user, code) if given.all() else (user[given], code[given])
    if n_users * len(values) <= 4 * len(user):
        counted = np.bincount(owner * len(values) + code, minlength=n_users * len(values))
        key = np.flatnonzero(counted)
        n = counted[key]
    else:
        key, n = np.unique(owner * max(len(values), 1) + code, return_counts=True)
    owner, value = np.divmod(key, max(len(values), 1))
    return lists(owner, n_users, _structs(name, values.gather(value), pl.Series(n)))


def merged_counts(column: str, name: str, rows: pl.DataFrame) -> pl.Series:
    """The counts of the partial rows added up (n_users,); users sorted."""
    owner, users = owners(rows)
    flat = pl.DataFrame({"owner": owner, column: rows[column]}).explode(column).drop_nulls().unnest(column)
    added = flat.group_by("owner", name).agg(pl.col("n").sum()).sort("owner", name)
    return lists(added["owner"].to_numpy(), len(users), _structs(name, added[name], added["n"]))


def lists(owner: Ints, n_users: int, entries: pa.Array) -> pl.Series:
    """Entries (m,) as a list of each user (n_users,); `owner` (m,) is ascending."""
    offsets = np.searchsorted(owner, np.arange(n_users + 1)).astype(np.int32)
    return pl.Series(pl.from_arrow(pa.ListArray.from_arrays(pa.array(offsets), entries)))


def _structs(name: str, values: pl.Series, n: pl.Series) -> pa.Array:
    return pa.StructArray.from_arrays(
        [values.to_arrow().cast(pa.string()), n.to_arrow().cast(pa.int64())],
        fields=[pa.field(name, pa.string()), pa.field("n", pa.int64())],
    )
