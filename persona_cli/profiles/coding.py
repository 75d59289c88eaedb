"""Text columns as integers: the sorted distinct values, and each row's place among them.

Codes of one column compare as their texts do, so that sorting by packed codes sorts by ids.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def codes(column: pl.Series) -> tuple[pl.Series, Ints]:
    """Sorted distinct values, and the code of each row (n,) int64; -1 where the row is null."""
    values = column.drop_nulls().unique().sort()
    if not values.len():
        return values, np.full(column.len(), -1, dtype=np.int64)
    coded = column.cast(pl.Enum(values)).to_physical().cast(pl.Int64)
    return values, coded.fill_null(-1).to_numpy()


def packed(parts: list[tuple[Ints, int]]) -> Ints | None:
    """Columns of non-negative integers as one, the first the most significant; None where 63 bits do not hold them.

    Each part is (integers (n,), their exclusive upper bound).
    """
    size = 1
    for _, bound in parts:
        size *= max(bound, 1)
    if size >= 2**63:
        return None
    key = parts[0][0].astype(np.int64)
    for column, bound in parts[1:]:
        key = key * max(bound, 1) + column
    return key


def sort_order(parts: list[tuple[Ints, int]]) -> Ints:
    """Row numbers (n,) that sort by the parts, the first the most significant; rows alike in any order."""
    key = packed(parts)
    if key is not None:
        return np.argsort(key)
    return np.lexsort([column for column, _ in reversed(parts)])


def run_starts(*sorted_columns: Ints) -> Ints:
    """Where runs of equal rows begin in columns sorted together (n_runs,)."""
    n = len(sorted_columns[0])
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    begins = np.zeros(n, dtype=bool)
    begins[0] = True
    for column in sorted_columns:
        begins[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(begins)
