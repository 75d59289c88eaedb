"""Views of a Gram matrix: leading eigenvectors, neighbours and regression.

The leading eigenvectors of a Gram matrix from its rows: blocked, in single precision, never forming the matrix.

Two closed-form views of one Gram matrix: what items say for their neighbours, and what the whole says by regression.

Rows x are users' strengths clipped to [0, cap]; D holds the number of users of each item, d_u is the sum of a row:

    G_a = Σ_u x_u x_uᵀ / max(1, d_u)^2a
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.base import Floats
from persona_cli.models.gram import row_sums

DENSE = 1024
"""Up to so many columns the Gram is formed and decomposed as a whole, and where half of the pairs are wanted."""
SPARE = 8
"""One spare direction for so many wanted: the last of those kept converge with the help of those that are not."""
_SEED = 20_091_011
_STRIP = 128  # columns of a block at a time: what lies between the two products of a step stays small


class Spectrum(NamedTuple):
    """The largest eigenvalues of rowsᵀ rows, and what the others come to."""

    values: NDArray[np.float64]
    """Largest first, at least 0 (k,)."""
    vectors: Floats
    """Orthonormal columns (n_items, k)."""
    rest: float
    """Sum of the eigenvalues that are left out, at least 0."""


def leading(rows: sparse.csr_array, k: int, threads: int = 1, steps: int = 4) -> Spectrum:
    """The k leading eigenpairs of rowsᵀ rows for float32 rows (n_users, n_items); fewer where the shape has no more.

    Up to `DENSE` columns, or where k is half of them, the Gram is decomposed as a whole. Else randomised subspace
    iteration (Halko, Martinsson & Tropp 2011): a block of random vectors, always the same ones, is multiplied by the
    Gram `steps` + 1 times and made orthonormal each time; within the space that is left the problem is solved exactly.
    A step costs 4 · nnz · k + 6 · n_items · k² operations; three blocks (n_items, 9/8 k) of float32 are held.
    """
    n_users, n_items = rows.shape
    k = min(k, n_items, n_users)
    total = float(np.square(rows.data, dtype=np.float64).sum())
    with threadpool_limits(threads, user_api="blas"):
        if _as_a_whole(n_items, k):
            values, vectors = _whole(rows, k)
        else:
            values, vectors = _iterated(rows, k, steps)
    values = np.maximum(values, 0.0)
    return Spectrum(values, _signed(vectors), max(total - float(values.sum()), 0.0))


def block_bytes(n_items: int, k: int) -> int:
    """Bytes that `leading` holds at the most beside the rows."""
    if _as_a_whole(n_items, k):
        return 24 * n_items**2
    return 3 * 4 * n_items * (k + k // SPARE) + 8 * 4 * k**2


def _as_a_whole(n_items: int, k: int) -> bool:
    return n_items <= DENSE or 2 * k >= n_items


def _whole(rows: sparse.csr_array, k: int) -> tuple[NDArray[np.float64], Floats]:
    n_items = rows.shape[1]
    if n_items == 0 or k == 0:
        return np.zeros(k), np.zeros((n_items, k), dtype=np.float32)
    gram = (rows.T.tocsr() @ rows).toarray()  # (n_items, n_items)
    values, vectors = linalg.eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
    return values[::-1][:k].astype(np.float64), np.ascontiguousarray(vectors[:, ::-1][:, :k], dtype=np.float32)


def _iterated(rows: sparse.csr_array, k: int, steps: int) -> tuple[NDArray[np.float64], Floats]:
    n_items = rows.shape[1]
    width = min(k + max(k // SPARE, SPARE), n_items, rows.shape[0])
    turned = rows.T.tocsr()  # (n_items, n_users)
    basis = np.random.default_rng(_SEED).standard_normal((n_items, width), dtype=np.float32)
    for step in range(steps + 1):
        # Single precision leaves errors that a second pass takes out; on the way they do no harm.
        basis = _orthonormal(_times(turned, rows, basis), times=2 if step == steps else 1)
    inside = (basis.T @ _times(turned, rows, basis)).astype(np.float64)  # basisᵀ G basis (width, width)
    values, turn = linalg.eigh((inside + inside.T) / 2, check_finite=False)
    chosen = turn[:, ::-1][:, :k].astype(np.float32)
    return values[::-1][:k], basis @ chosen


def _times(turned: sparse.csr_array, rows: sparse.csr_array, block: Floats) -> Floats:
    """rowsᵀ rows block (n_items, width), some columns at a time."""
    result = np.empty_like(block)
    for start in range(0, block.shape[1], _STRIP):
        strip = np.ascontiguousarray(block[:, start : start + _STRIP])
        result[:, start : start + _STRIP] = turned @ (rows @ strip)
    return result


def _orthonormal(block: Floats, times: int = 1) -> Floats:
    """An orthonormal basis of the columns (n_items, width), in place by Cholesky; by Householder where they depend."""
    for _ in range(times):
        inner: NDArray[Any] = (block.T @ block).astype(np.float64)
        try:
            factor = linalg.cholesky(inner, lower=True, overwrite_a=True, check_finite=False)
        except linalg.LinAlgError:
            return np.ascontiguousarray(linalg.qr(block, mode="economic", check_finite=False)[0])
        inverse = linalg.lapack.dtrtri(factor, lower=1, overwrite_c=1)[0].astype(np.float32)
        # The transpose of rows first is columns first: block · inverseᵀ without a copy.
        block = linalg.blas.strmm(1.0, inverse, block.T, lower=1, overwrite_b=1).T
    return block


def _signed(vectors: Floats) -> Floats:
    """Each vector with its entry of largest size positive, so that equal problems have equal answers."""
    if vectors.size:
        largest = np.abs(vectors).argmax(axis=0)
        vectors *= np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1, 1).astype(np.float32)
    return vectors


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
