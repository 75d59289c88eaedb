"""Items that the same users like: the item Gram between powers of the items' degrees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.gram import ONE, threads_of
from persona_cli.models.stored import load_items, load_sparse, save_items, save_sparse
from persona_cli.workspace.settings import Settings

DENSE = 0.02
"""Share of users who hold the average item from which histories overlap by mere chance."""
_SPARSE_EXPONENTS, _DENSE_EXPONENTS = (0.8, 0.3), (0.9, 0.5)
_BLOCK_CELLS = 1 << 22


class Knn:
    """Item-based nearest neighbours with free exponents (asymmetric cosine, Aiolli 2013).

        W = D^-left (G - diag G) D^-right,   score = x W

    D holds the number of users of each item and G the integer Gram, whose rows carry the users' own normalisation.
    left = right = 0.5 is the cosine; a smaller `right` favours popular items. Each item keeps its `neighbours` largest
    weights in its row (the items that it recommends), so a history of h items costs at most h · neighbours products.
    Equal weights: the lower position is kept.

    "auto": 0.9 and 0.5 where the average item is held by at least 2 % of users (two long histories then share popular
    items by chance, and only as large a `right` as the cosine has takes that out), else 0.8 and 0.3.
    """

    name: ClassVar[str] = "knn"
    exact: ClassVar[bool] = True
    items: pl.Series
    """Items that some user's row holds, sorted (n_items,)."""
    exponents_: tuple[float, float]
    """left and right in force."""
    weights_: sparse.csr_array
    """W: row = item in the history, column = item recommended, float32, diagonal zero (n_items, n_items)."""

    def __init__(
        self, neighbours: int = 200, left: float | str = "auto", right: float | str = "auto", threads: int = 1
    ) -> None:
        self.neighbours = neighbours
        self.threads = threads
        self.left = left
        self.right = right

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings.whole("model.knn.neighbours"),
            settings.number_or_word("model.knn.left"),
            settings.number_or_word("model.knn.right"),
            threads_of(settings),
        )

    def settings(self) -> Mapping[str, Any]:
        left, right = self.exponents_
        return {"neighbours": self.neighbours, "left": left, "right": right}

    def fit(self, training: Training) -> Self:
        gram = training.gram
        self.items = gram.items
        left, right = self.exponents_ = self._exponents(gram.users, len(training.interactions.users))
        degrees = gram.users.astype(np.float64)  # (n_items,), at least 1
        self.weights_ = _nearest(gram.cells, degrees**-left, degrees**-right, self.neighbours, self.threads)
        return self

    def scores(self, histories: Histories) -> Floats:
        scores: Floats = (histories.rows @ self.weights_).toarray()
        return scores

    def weights_of(self, items: NDArray[Any]) -> Floats:
        """Rows of W: what each of these items (positions) says for every other (n, n_items)."""
        rows: Floats = self.weights_[items].toarray()
        return rows

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_sparse(folder, "weights", self.weights_)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.exponents_ = float(settings["left"]), float(settings["right"])
        model.items = load_items(folder)
        model.weights_ = load_sparse(folder, "weights", (len(model.items), len(model.items)))
        return model

    def _exponents(self, users: NDArray[np.int64], n_users: int) -> tuple[float, float]:
        share = float(users.mean()) / max(n_users, 1) if len(users) else 0.0
        left, right = _DENSE_EXPONENTS if share >= DENSE else _SPARSE_EXPONENTS
        return (
            left if isinstance(self.left, str) else float(self.left),
            right if isinstance(self.right, str) else float(self.right),
        )


def _nearest(
    cells: sparse.csr_array, lefts: NDArray[np.float64], rights: NDArray[np.float64], neighbours: int, threads: int = 1
) -> sparse.csr_array:
    """The largest entries of each row of D^-left (G - diag) D^-right (n_items, n_items), a block of rows at a time.

    `cells` is the upper triangle of G. Two copies of it in float32 are all that is held beside it.
    """
    upper, lower = _weighed(cells, lefts, rights, threads)
    ends = upper.indptr.astype(np.int64) + lower.indptr

    def nearest(bounds: tuple[int, int]) -> sparse.csr_array:
        start, stop = bounds
        return largest_of_rows(sparse.csr_array(upper[start:stop] + lower[start:stop]), neighbours)

    with ThreadPoolExecutor(threads) as pool:
        blocks = list(pool.map(nearest, _blocks(ends)))
    return sparse.csr_array(sparse.vstack(blocks, format="csr")) if blocks else upper


def _weighed(
    cells: sparse.csr_array, lefts: NDArray[np.float64], rights: NDArray[np.float64], threads: int
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Above and below the diagonal of D^-left (G - diag) D^-right, float32 (n_items, n_items) each."""
    above = np.empty(cells.nnz, dtype=np.float32)  # weights at (row, column) of the upper triangle
    below = np.empty(cells.nnz, dtype=np.float32)  # and at (column, row)

    def weigh(bounds: tuple[int, int]) -> None:
        start, stop = bounds
        at = slice(cells.indptr[start], cells.indptr[stop])
        rows = np.repeat(np.arange(start, stop), np.diff(cells.indptr[start : stop + 1]))
        columns, products = cells.indices[at], cells.data[at] / float(ONE) ** 2
        products[rows == columns] = 0.0
        above[at] = products * lefts[rows] * rights[columns]
        below[at] = products * lefts[columns] * rights[rows]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(weigh, _blocks(cells.indptr)))
    upper, flipped = (sparse.csr_array((one, cells.indices, cells.indptr), shape=cells.shape) for one in (above, below))
    return upper, flipped.T.tocsr()


def _blocks(ends: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Consecutive runs of rows that hold about `_BLOCK_CELLS` entries each, at least one row."""
    start, n_rows = 0, len(ends) - 1
    while start < n_rows:
        stop = int(np.searchsorted(ends, ends[start] + _BLOCK_CELLS, side="right")) - 1
        stop = min(max(stop, start + 1), n_rows)
        yield start, stop
        start = stop


def largest_of_rows(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """The k largest positive entries of each row; of equal ones those of lower columns. Indices sorted."""
    kept = matrix.data > 0
    ends = matrix.indptr
    for row in np.flatnonzero(np.diff(ends) > k):
        values = matrix.data[ends[row] : ends[row + 1]]
        if np.count_nonzero(values > 0) > k:
            kept[ends[row] : ends[row + 1]] = _k_largest(values, k)
    counted = np.concatenate(([0], np.cumsum(kept)))[ends]
    chosen = sparse.csr_array((matrix.data[kept], matrix.indices[kept], counted), shape=matrix.shape)
    chosen.sort_indices()
    return chosen


def _k_largest(values: Floats, k: int) -> NDArray[np.bool_]:
    edge = np.partition(values, len(values) - k)[len(values) - k]
    chosen: NDArray[np.bool_] = values > edge
    level = np.flatnonzero(values == edge)
    chosen[level[: k - np.count_nonzero(chosen)]] = True
    return chosen
