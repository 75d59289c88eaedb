from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from persona_cli.errors import BadData
from persona_cli.models.stored import load_array, load_items, load_sparse, save_array, save_items, save_sparse


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 7), (2, 3), (100, 300)])
def test_arrays_of_every_size_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    save_array(tmp_path, "a", array)
    assert np.array_equal(load_array(tmp_path, "a"), array)
    assert load_array(tmp_path, "a").shape == shape


def test_a_large_array_is_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    save_array(tmp_path, "a", np.zeros((100, 300), dtype=np.float32))
    loaded = load_array(tmp_path, "a")
    assert isinstance(loaded, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded[0, 0] = 1


def test_a_sparse_matrix_comes_back_mapped_and_multiplies(tmp_path: Path) -> None:
    matrix = sparse.random_array((300, 400), density=0.1, format="csr", dtype=np.float32, rng=np.random.default_rng(1))
    save_sparse(tmp_path, "w", matrix)
    loaded = load_sparse(tmp_path, "w", (300, 400))
    assert (loaded != matrix).nnz == 0
    assert np.array_equal((matrix.T @ loaded).toarray(), (matrix.T @ matrix).toarray())
    assert not loaded.data.flags.writeable


def test_the_same_matrix_has_the_same_bytes_whatever_its_index_types(tmp_path: Path) -> None:
    matrix = sparse.csr_array(np.eye(5))
    wide = matrix.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    for name, made in (("one", matrix), ("two", wide)):
        save_sparse(tmp_path, name, made)
    for part in ("data", "indices", "indptr"):
        assert (tmp_path / f"one.{part}.npy").read_bytes() == (tmp_path / f"two.{part}.npy").read_bytes()


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadData, match=r"a\.npy cannot be read"):
        load_array(tmp_path, "a")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array at all" * 500])
def test_a_damaged_array_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(BadData, match=r"a\.npy cannot be read"):
        load_array(tmp_path, "a")


def test_items_come_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    items = pl.Series("item_id", ["007", "7", "ä"])
    save_items(tmp_path, items)
    assert load_items(tmp_path).equals(items)
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadData, match=r"items\.parquet cannot be read"):
        load_items(tmp_path)
