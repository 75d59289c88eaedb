"""Item vocabularies: sorted ids whose positions are the columns of every matrix."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse


def positions(ids: pl.Series, vocabulary: pl.Series) -> NDArray[np.int64]:
    """The position of each id in the vocabulary, -1 where it is not in it (n_ids,)."""
    known = pl.DataFrame({"id": vocabulary, "position": np.arange(len(vocabulary), dtype=np.int64)})
    found = pl.DataFrame({"id": ids}).join(known, on="id", how="left", maintain_order="left")
    return found["position"].fill_null(-1).to_numpy()


def union(first: pl.Series, second: pl.Series) -> pl.Series:
    """The ids of both, sorted, each once."""
    if first.equals(second):
        return first
    return pl.concat([first.rename("item_id"), second.rename("item_id")]).unique().sort()


def with_columns(rows: sparse.csr_array, places: NDArray[np.int64], n_columns: int) -> sparse.csr_array:
    """The rows with column j moved to `places[j]`; columns whose place is -1 are dropped. (n, n_columns), sorted."""
    columns = places[rows.indices]
    kept = columns >= 0
    ends = np.concatenate(([0], np.cumsum(kept)))[rows.indptr]
    moved = sparse.csr_array((rows.data[kept], columns[kept], ends), shape=(rows.shape[0], n_columns))
    moved.sort_indices()
    return moved


def with_rows(matrix: sparse.csr_array, places: NDArray[np.int64]) -> sparse.csr_array:
    """The rows at `places` (n, n_columns); an empty one where the place is -1."""
    none = np.zeros(0, dtype=np.int64)
    empty = sparse.csr_array((none.astype(matrix.dtype), (none, none)), shape=(1, matrix.shape[1]))
    padded = sparse.csr_array(sparse.vstack([matrix, empty], format="csr"))
    return sparse.csr_array(padded[np.where(places >= 0, places, matrix.shape[0])])


def pair_matrix(pairs: pl.DataFrame, users: pl.Series, items: pl.Series) -> sparse.csr_array:
    """(user_id, item_id) as a matrix, bool (n_users, n_items); those with an unknown id are dropped."""
    rows, columns = positions(pairs["user_id"], users), positions(pairs["item_id"], items)
    kept = (rows >= 0) & (columns >= 0)
    entries = (np.ones(int(kept.sum()), dtype=bool), (rows[kept], columns[kept]))
    return sparse.csr_array(entries, shape=(len(users), len(items)))
