"""Vocabularies of models, and arrays on disk.

Item vocabularies: sorted ids whose positions are the columns of every matrix.

How models lie on disk: plain .npy arrays, mapped into memory when read, and vocabularies as Parquet; no pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadData


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


_SMALL = 4096  # bytes


def save_array(folder: Path, name: str, array: NDArray[Any]) -> None:
    np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)


def load_array(folder: Path, name: str) -> NDArray[Any]:
    """The array, mapped read-only: pages are read when they are used and shared between processes."""
    path = folder / f"{name}.npy"
    try:
        # An array of no elements cannot be mapped.
        mapped = path.stat().st_size > _SMALL
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadData(f"{path} cannot be read ({error})", "persona train") from error
    return array


def save_sparse(folder: Path, name: str, matrix: sparse.csr_array) -> None:
    """Three files, name.data.npy, name.indices.npy, name.indptr.npy; indices have 32 bits wherever these do."""
    narrow = max(matrix.nnz, *matrix.shape) < 2**31
    save_array(folder, f"{name}.data", matrix.data)
    for part in ("indices", "indptr"):
        save_array(folder, f"{name}.{part}", getattr(matrix, part).astype(np.int32 if narrow else np.int64))


def load_sparse(folder: Path, name: str, shape: tuple[int, int]) -> sparse.csr_array:
    data, indices, indptr = (load_array(folder, f"{name}.{part}") for part in ("data", "indices", "indptr"))
    return sparse.csr_array((data, indices, indptr), shape=shape, copy=False)


def save_items(folder: Path, items: pl.Series) -> None:
    items.to_frame("item_id").write_parquet(folder / "items.parquet", compression="zstd", compression_level=1)


def load_items(folder: Path) -> pl.Series:
    path = folder / "items.parquet"
    try:
        return pl.read_parquet(path)["item_id"]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadData(f"{path} cannot be read ({error})", "persona train") from error
