"""Where single entries of coded lists stand, and some lists as a table with a column for each rank."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.evaluation.coded import Coded, Floats
from persona_cli.models.vocabulary import positions

Integers = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)


def rows_among(users: pl.Series, among: pl.Series) -> Integers:
    """The row of each user among others, -1 where there is none (n_users,)."""
    return np.arange(len(users)) if users.equals(among) else positions(users, among)


def scores_of(lists: pl.DataFrame, coded: Coded) -> Floats | None:
    """The scores in the order of the entries (n_entries,), NaN for a missing one; None where no entry has one.

    NaN given as a score is taken for the lowest there is: two of them tie, a missing score ties with nothing.
    """
    if "score" not in lists.columns or lists["score"].null_count() == lists.height:
        return None
    scores = coded.column(lists["score"].cast(pl.Float64).fill_nan(-np.inf)).to_numpy()
    return np.asarray(scores + 0.0, dtype=np.float64)  # no negative zero


def entries_at(coded: Coded, rows: Integers, ranks: Integers) -> Integers:
    """The entry that each row (>= 0) holds at a rank, which it has (n_asked,)."""
    assert coded.ranks is not None
    entries: Integers = np.minimum(coded.starts[rows] + ranks - 1, len(coded.codes) - 1)
    astray = np.flatnonzero(coded.ranks[entries] != ranks)
    if len(astray):  # some list leaves places empty
        width = int(coded.ranks.max()) + 1
        keys = np.repeat(np.arange(len(coded.users)), coded.lengths) * width + coded.ranks  # ascending
        entries[astray] = np.searchsorted(keys, rows[astray] * width + ranks[astray])
    return entries


def table(coded: Coded, rows: Integers, depth: int, values: NDArray[_Number], empty: Any) -> NDArray[_Number]:
    """`values` (n_entries,) of some rows by rank: (n_rows, depth), `empty` where a list holds nothing at a rank."""
    assert coded.ranks is not None
    lengths = coded.lengths[rows]
    begins = np.cumsum(lengths) - lengths
    entries = np.arange(lengths.sum()) + np.repeat(coded.starts[rows] - begins, lengths)
    row = np.repeat(np.arange(len(rows)), lengths)
    inside = coded.ranks[entries] <= depth
    found = np.full((len(rows), depth), empty, dtype=values.dtype)
    found[row[inside], coded.ranks[entries[inside]] - 1] = values[entries[inside]]
    return found
