"""Items that the same users like: the item Gram between powers of the items' degrees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.gram import ONE
from persona_cli.models.stored import load_items, load_sparse, save_items, save_sparse
from persona_cli.workspace.settings import Settings

DENSE = 0.02
"""Share of users who hold the average item from which histories overlap by mere chance."""
_SPARSE_EXPONENTS, _DENSE_EXPONENTS = (0.8, 0.3), (0.5, 0.5)


class Knn:
    """Item-based nearest neighbours with free exponents (asymmetric cosine, Aiolli 2013).

        W = D^-left (G - diag G) D^-right,   score = x W

    D holds the number of users of each item and G the integer Gram, whose rows carry the users' own normalisation.
    left = right = 0.5 is the cosine; a smaller `right` favours popular items. Each item keeps its `neighbours` largest
    weights in its row (the items that it recommends), so a history of h items costs at most h · neighbours products.
    Equal weights: the lower position is kept.

    "auto": 0.5 and 0.5 where the average item is held by at least 2 % of users (two long histories then share popular
    items by chance, and only the cosine takes that out), else 0.8 and 0.3.
    """

    name: ClassVar[str] = "knn"
    exact: ClassVar[bool] = True
    items: pl.Series
    """Items that some user's row holds, sorted (n_items,)."""
    exponents_: tuple[float, float]
    """left and right in force."""
    weights_: sparse.csr_array
    """W: row = item in the history, column = item recommended, float32, diagonal zero (n_items, n_items)."""

    def __init__(self, neighbours: int = 200, left: float | str = "auto", right: float | str = "auto") -> None:
        self.neighbours = neighbours
        self.left = left
        self.right = right

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings.whole("model.knn.neighbours"),
            settings.number_or_word("model.knn.left"),
            settings.number_or_word("model.knn.right"),
        )

    def settings(self) -> Mapping[str, Any]:
        left, right = self.exponents_
        return {"neighbours": self.neighbours, "left": left, "right": right}

    def fit(self, training: Training) -> Self:
        gram = training.gram
        self.items = gram.items
        left, right = self.exponents_ = self._exponents(gram.users, len(training.interactions.users))
        degrees = gram.users.astype(np.float64)  # (n_items,), at least 1
        strict = sparse.triu(gram.cells, k=1, format="csr")  # (n_items, n_items)
        rows, columns = np.repeat(np.arange(len(degrees)), np.diff(strict.indptr)), strict.indices
        products, lefts, rights = strict.data / float(ONE) ** 2, degrees**-left, degrees**-right
        above = (products * lefts[rows] * rights[columns]).astype(np.float32)
        below = (products * lefts[columns] * rights[rows]).astype(np.float32)
        parts = [sparse.csr_array((values, columns, strict.indptr), shape=strict.shape) for values in (above, below)]
        weights = sparse.csr_array(parts[0] + parts[1].T.tocsr())
        self.weights_ = largest_of_rows(weights, self.neighbours)
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
