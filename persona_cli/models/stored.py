"""How models lie on disk: plain .npy arrays, mapped into memory when read, and vocabularies as Parquet; no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadData

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
