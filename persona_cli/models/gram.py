"""The item Gram matrix as integers: a sum over users that adds, subtracts and merges without rounding.

    G = Σ_u q_u q_uᵀ,   q_u = floor(2^16 · clip(x_u, 0, cap) / d_u^a),   d_u = max(1, Σ_i clip(x_ui, 0, cap))

Only the user's own figures enter a row, so users are independent summands: shards in any order make the same matrix
bit for bit, and taking a user out leaves what would be there had the user never been. Degrees of items are applied by
the models, after the sum. Bell & Koren's (2007) item-item statistics, kept in fixed point.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadSettings
from persona_cli.models.stored import positions, union, with_columns
from persona_cli.workspace.settings import Settings

if TYPE_CHECKING:
    from persona_cli.models.base import Interactions

ONE = 1 << 16
"""Fixed point of a row; a cell is in units of 2^-32."""
# Cells of a block of the product before those below the diagonal are dropped: 16 bytes each at the most.
_BLOCK_CELLS = 1 << 23


@dataclass(frozen=True)
class Gram:
    """Sum of the outer products of users' quantised rows. Equal content means equal arrays."""

    items: pl.Series
    """item_id String, sorted: the items that at least one row holds (n_items,)."""
    cells: sparse.csr_array
    """Upper triangle with the diagonal, int64, units of 2^-32, sorted indices, no zeros (n_items, n_items)."""
    users: NDArray[np.int64]
    """How many rows hold the item (n_items,)."""

    @property
    def diagonal(self) -> NDArray[np.int64]:
        """Σ_u q_ui² (n_items,)."""
        return np.asarray(self.cells.diagonal(), dtype=np.int64)

    def add(self, other: Gram) -> Gram:
        """The Gram of both; no user may be in both."""
        return self.replace(empty(), other)

    def subtract(self, other: Gram) -> Gram:
        """The Gram without the users of `other`; ValueError if their rows are not in it."""
        return self.replace(other, empty())

    def replace(self, old: Gram, new: Gram) -> Gram:
        """`subtract(old).add(new)` in one pass over the cells: what users had put in, for what they put in now."""
        items = union(union(self.items, old.items), new.items)
        whole, gone, come = _over(self, items), _over(old, items), _over(new, items)
        users = whole.users - gone.users + come.users
        cells = sparse.csr_array(whole.cells + (come.cells - gone.cells))
        if (whole.users < gone.users).any() or cells.diagonal().min(initial=0) < 0:
            raise ValueError("these rows are not in the sum that they are to be taken from")
        cells.eliminate_zeros()
        cells.sort_indices()
        held = np.flatnonzero(users)
        result = Gram(items, cells, users)
        return result if len(held) == len(items) else result.restricted(held)

    def digest(self) -> str:
        """sha256 over a canonical form, independent of index types and of how the sum was reached."""
        digest = hashlib.sha256()
        for item in self.items.to_list():
            text = item.encode()
            digest.update(len(text).to_bytes(8, "little") + text)
        for array in (self.users, self.cells.indptr, self.cells.indices, self.cells.data):
            digest.update(len(array).to_bytes(8, "little"))
            for start in range(0, len(array), _BLOCK_CELLS):
                digest.update(np.ascontiguousarray(array[start : start + _BLOCK_CELLS], dtype="<i8").data)
        return digest.hexdigest()

    def full(self) -> sparse.csr_array:
        """Both triangles, int64 (n_items, n_items)."""
        strict = sparse.triu(self.cells, k=1, format="csr")
        return sparse.csr_array(self.cells + strict.T.tocsr())

    def upper(self, dtype: Any = np.float64) -> NDArray[Any]:
        """The upper triangle, dense with zeros below, divided by 2^32: units of strength² (n_items, n_items)."""
        return _with_data(self.cells, (self.cells.data / float(ONE) ** 2).astype(dtype)).toarray()

    def restricted(self, chosen: NDArray[np.int64]) -> Gram:
        """Rows and columns of the chosen positions only, ascending (n_chosen, n_chosen)."""
        cells = sparse.csr_array(self.cells[chosen][:, chosen])
        cells.sort_indices()
        return Gram(self.items[chosen], cells, self.users[chosen])


def merge(grams: Iterable[Gram]) -> Gram:
    """The Gram of disjoint shards of users, in any order."""
    return reduce(Gram.add, grams, empty())


def empty() -> Gram:
    """The Gram of nobody."""
    items = pl.Series("item_id", [], dtype=pl.String)
    return Gram(items, sparse.csr_array((0, 0), dtype=np.int64), np.zeros(0, dtype=np.int64))


def build_gram(interactions: Interactions, settings: Settings) -> Gram:
    """The Gram of all users in `interactions`, from scratch."""
    return gram_of_rows(quantise(interactions.strengths, settings), interactions.items, threads_of(settings))


def threads_of(settings: Settings) -> int:
    """Threads for what is the same with any number of them."""
    return settings.whole("compute.threads") or os.cpu_count() or 1


def quantise(strengths: sparse.csr_array, settings: Settings) -> sparse.csr_array:
    """Rows in fixed point, int64, entries > 0 only (n_users, n_items); see the formula above.

    `BadSettings` where model.gram.cap is so high that a cell could leave 64 bits.
    """
    cap, exponent = settings.number("model.gram.cap"), settings.number("model.gram.user_exponent")
    values = np.clip(strengths.data.astype(np.float64), 0.0, cap)
    degrees = np.maximum(row_sums(values, strengths.indptr), 1.0)
    # A square root is correctly rounded on every machine, a general power is not.
    scale = np.sqrt(degrees) if exponent == 0.5 else np.power(degrees, exponent)
    fixed = np.floor(values / np.repeat(scale, np.diff(strengths.indptr)) * ONE).astype(np.int64)
    if len(fixed) and int(fixed.max()) ** 2 * strengths.shape[0] >= 1 << 63:
        raise BadSettings(
            f"model.gram.cap is {cap:g}; with {strengths.shape[0]:,} users the sums of its squares leave 64 bits",
            "persona train --set model.gram.cap=1",
        )
    rows = _with_data(strengths, fixed)
    rows.eliminate_zeros()
    rows.sort_indices()
    return rows


def row_sums(values: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
    """Sums of consecutive runs of values, each run by itself, so that no row depends on another (n_rows,)."""
    sums = np.zeros(len(ends) - 1, dtype=values.dtype)
    filled = np.flatnonzero(np.diff(ends))
    if len(filled):
        sums[filled] = np.add.reduceat(values, ends[:-1][filled])
    return sums


def gram_of_rows(rows: sparse.csr_array, items: pl.Series, threads: int = 1) -> Gram:
    """The Gram of quantised rows (n_users, n_items) over a sorted vocabulary, block by block of items."""
    users = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.int64)
    held = np.flatnonzero(users)
    places = np.full(rows.shape[1], -1, dtype=np.int64)
    places[held] = np.arange(len(held))
    rows = with_columns(rows, places, len(held))
    blocks = _upper_blocks(rows, threads)
    cells = sparse.csr_array(sparse.vstack(blocks, format="csr")) if blocks else empty().cells
    return Gram(items[held], cells, users[held])


def _upper_blocks(rows: sparse.csr_array, threads: int) -> list[sparse.csr_array]:
    """Consecutive row blocks of the upper triangle of rowsᵀ rows, each (n_block, n_items)."""
    n_items = rows.shape[1]
    by_item, by_column = rows.T.tocsr(), rows.tocsc()  # (n_items, n_users), (n_users, n_items)
    lengths = np.diff(rows.indptr)
    touched = np.asarray(by_item.astype(bool).astype(np.int64) @ lengths)
    bounds = np.cumsum(np.minimum(touched, n_items - np.arange(n_items)))

    def block(bounds: tuple[int, int]) -> sparse.csr_array:
        start, stop = bounds
        # Columns left of the block belong to blocks before it.
        product = by_item[start:stop] @ by_column[:, start:].tocsr()  # (n_block, n_items - start)
        return _upper(sparse.csr_array(product), start, n_items)

    starts = [0]
    while starts[-1] < n_items:
        done = bounds[starts[-1] - 1] if starts[-1] else 0
        starts.append(max(int(np.searchsorted(bounds, done + _BLOCK_CELLS, side="right")), starts[-1] + 1))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(block, pairwise(starts)))


def _upper(block: sparse.csr_array, start: int, n_items: int) -> sparse.csr_array:
    """What of rows from `start` on (n_block, n_items - start) is not below the diagonal: (n_block, n_items)."""
    lengths = np.diff(block.indptr)
    kept = block.indices >= np.repeat(np.arange(len(lengths), dtype=block.indices.dtype), lengths)
    ends = np.concatenate(([0], np.cumsum(kept)))[block.indptr]
    upper = sparse.csr_array(
        (block.data[kept], block.indices[kept] + start, ends), shape=(len(lengths), n_items), dtype=np.int64
    )
    upper.sort_indices()
    return upper


def _over(gram: Gram, items: pl.Series) -> Gram:
    """The same sum over a larger vocabulary."""
    if len(items) == len(gram.items):
        return gram
    places = positions(gram.items, items)  # ascending: both are sorted, so the triangle stays the upper one
    moved = with_columns(gram.cells, places, len(items))
    lengths = np.zeros(len(items), dtype=np.int64)
    lengths[places] = np.diff(moved.indptr)
    users = np.zeros(len(items), dtype=np.int64)
    users[places] = gram.users
    ends = np.concatenate(([0], np.cumsum(lengths)))
    cells = sparse.csr_array((moved.data, moved.indices, ends), shape=(len(items), len(items)))
    return Gram(items, cells, users)


def _with_data(matrix: sparse.csr_array, values: NDArray[Any]) -> sparse.csr_array:
    """The same pattern with other values; the pattern is copied, since canonical forms are made in place."""
    return sparse.csr_array((values, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
