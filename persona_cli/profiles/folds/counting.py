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
    return lists(owner, n_users, pl.DataFrame({name: values.gather(value), "n": n}))


def merged_counts(column: str, name: str, rows: pl.DataFrame) -> pl.Series:
    """The counts of the partial rows added up (n_users,); users sorted."""
    owner, users = owners(rows)
    flat = pl.DataFrame({"owner": owner, column: rows[column]}).explode(column).drop_nulls().unnest(column)
    added = flat.group_by("owner", name).agg(pl.col("n").sum()).sort("owner", name)
    return lists(added["owner"].to_numpy(), len(users), added.select(name, "n"))


def lists(owner: Ints, n_users: int, entries: pl.DataFrame) -> pl.Series:
    """Entries (m,) as a list of structs of each user (n_users,); `owner` (m,) is ascending."""
    structs = entries.to_struct().rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    return as_lists(np.searchsorted(owner, np.arange(n_users + 1)), structs)


def as_lists(offsets: Ints, entries: pa.Array) -> pl.Series:
    """Entries (m,) as lists (n,) between `offsets` (n + 1,)."""
    # Not by pa.array, which imports pandas where it is installed, nor by casts of pyarrow, which import its functions.
    bounds = pl.Series(offsets, dtype=pl.Int32).to_arrow()
    return pl.Series(pl.from_arrow(pa.ListArray.from_arrays(bounds, entries)))
