"""Two closed-form views of one Gram matrix: what items say for their neighbours, and what the whole says by regression.

Rows x are users' strengths clipped to [0, cap]; D holds the number of users of each item, d_u is the sum of a row:

    G_a = Σ_u x_u x_uᵀ / max(1, d_u)^2a
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.eigen import Spectrum, leading
from persona_cli.models.gram import row_sums

# Users of one dense product. The number is always the same, so that a user's bits do not depend on who is beside him.
_BLOCK = 128


def normalised(rows: sparse.csr_array, user: float) -> sparse.csr_array:
    """Each row divided by max(1, its sum)^user: the rows whose Gram is G_a for a = user. float32 (n_users, n_items)."""
    values = rows.data.astype(np.float64)
    scale = np.power(np.maximum(row_sums(values, rows.indptr), 1.0), -user)
    return _with_data(rows, values * np.repeat(scale, np.diff(rows.indptr)))


def item_gram(rows: sparse.csr_array) -> sparse.csr_array:
    """rowsᵀ rows with a zero diagonal, float32, both triangles (n_items, n_items)."""
    gram = sparse.csr_array(rows.T.tocsr() @ rows)
    gram.sort_indices()
    lines = np.repeat(np.arange(gram.shape[0], dtype=gram.indices.dtype), np.diff(gram.indptr))
    gram.data[gram.indices == lines] = 0.0
    return gram


class Linear(NamedTuple):
    """score = x D^-left (G - diag G) D^-right: a neighbourhood that goes one step."""

    entry: Floats
    """D^-left (n_items,)."""
    cells: sparse.csr_array
    """G with a zero diagonal (n_items, n_items)."""
    exit: Floats
    """D^-right (n_items,)."""

    @classmethod
    def of(cls, cells: sparse.csr_array, degrees: NDArray[np.float64], left: float, right: float) -> Self:
        return cls(power(degrees, -left), cells, power(degrees, -right))

    def scores(self, rows: sparse.csr_array) -> Floats:
        """(n_users, n_items)."""
        scores: Floats = (_with_data(rows, rows.data * self.entry[rows.indices]) @ self.cells).toarray()
        scores *= self.exit
        return scores


class Ridge(NamedTuple):
    """EASE (Steck 2019) on N = D^-item G D^-item / its largest eigenvalue, of which k eigenpairs (s, V) are known.

        P ≈ V diag(1/(s + λ) - 1/(δ + λ)) Vᵀ + I/(δ + λ),   score = -(x D^-item) offdiag(P) diag(P)⁻¹ D^(item + output)

    δ, the mean of the eigenvalues not known, stands for each of them; the term of I leaves items of the history alone,
    which are never recommended. With all pairs known and output 0 this is EASE whose penalty grows as D^2item; below 0,
    popular items are held back.
    """

    entry: Floats
    """D^-item (n_items,)."""
    vectors: Floats
    """V (n_items, k)."""
    gains: Floats
    """1/(δ + λ) - 1/(s + λ): how far an eigenvector stands out of the rest (k,)."""
    exit: Floats
    """D^(item + output) / diag(P) (n_items,)."""

    @classmethod
    def of(cls, spectrum: Spectrum, degrees: NDArray[np.float64], item: float, penalty: float, output: float) -> Self:
        """From the eigenpairs of D^-item G D^-item (`spectrum_of`); `penalty` is λ."""
        n_items, k = spectrum.vectors.shape
        largest = float(spectrum.values[0]) if k and spectrum.values[0] > 0 else 1.0
        values = spectrum.values / largest
        tail = spectrum.rest / largest / (n_items - k) if n_items > k else 0.0
        gains = 1 / (tail + penalty) - 1 / (values + penalty)
        diagonal = 1 / (tail + penalty) - np.square(spectrum.vectors) @ gains.astype(np.float32)
        exit_ = np.power(degrees, item + output) / np.maximum(diagonal, 1e-6 / (tail + penalty))
        return cls(power(degrees, -item), spectrum.vectors, gains.astype(np.float32), exit_.astype(np.float32))

    def scores(self, rows: sparse.csr_array) -> Floats:
        """(n_users, n_items)."""
        n_users, n_items = rows.shape
        inner = _with_data(rows, rows.data * self.entry[rows.indices]) @ self.vectors  # (n_users, k)
        inner *= self.gains
        scores = np.empty((n_users, n_items), dtype=np.float32)
        for start in range(0, n_users, _BLOCK):
            block = inner[start : start + _BLOCK]
            padded = np.zeros((_BLOCK, inner.shape[1]), dtype=np.float32)
            padded[: len(block)] = block
            scores[start : start + _BLOCK] = (padded @ self.vectors.T)[: len(block)]
        scores *= self.exit
        return scores


def spectrum_of(
    rows: sparse.csr_array, degrees: NDArray[np.float64], item: float, factors: int, threads: int, steps: int = 3
) -> Spectrum:
    """The leading eigenpairs of D^-item (rowsᵀ rows) D^-item; `rows` as `normalised` makes them."""
    scaled = _with_data(rows, rows.data * power(degrees, -item)[rows.indices])
    return leading(scaled, factors, threads, steps)


def power(degrees: NDArray[np.float64], exponent: float) -> Floats:
    return np.power(degrees, exponent).astype(np.float32)


def _with_data(matrix: sparse.csr_array, values: NDArray[np.floating]) -> sparse.csr_array:
    return sparse.csr_array((values.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
