"""Users folded into a space of item factors, and their scores: each user's by that user's history alone.

    min_t  Σ_i w_i (1 + 1/w_i - z_i·t)² + |t|²,   i over the history,   score = z·t

which is a half step of alternating least squares (Hu, Koren & Volinsky 2008) once the factors are *whitened*: with
A = YᵀY + λI = L Lᵀ and Z = Y L⁻ᵀ, the term of all the items that the user never touched, and the penalty, are |t|².
A history of h items is a system of min(h, n_factors) equations; z_i are the rows of Z.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from persona_cli.models.base import Floats

# Numbers of a batch of histories of one length: a few tens of MiB.
_BATCH_CELLS = 1 << 22
# BLAS has kernels of their own for one row and for small products, whose sums end in other bits.
_ROWS, _LEAST_PRODUCT = 8, 1 << 21


def whitened(factors: Floats, penalty: float) -> Floats:
    """Z for item factors Y and penalty λ > 0 (n_items, n_factors)."""
    exact = factors.astype(np.float64)
    lower = linalg.cholesky(exact.T @ exact + penalty * np.eye(exact.shape[1]), lower=True)
    return np.ascontiguousarray(linalg.solve_triangular(lower, exact.T, lower=True).T, dtype=np.float32)


def folded_in(weights: sparse.csr_array, factors: Floats) -> Floats:
    """t of each row of `weights` w > 0 (n_users, n_items) for whitened `factors`: float32 (n_users, n_factors).

    t = Zᵀ a with (W⁻¹ + Z Zᵀ) a = W⁻¹ (w + 1) where the history is shorter than there are factors, else
    (I + Zᵀ W Z) t = Zᵀ (w + 1), Z being the rows of the history's items. No history: t = 0.
    """
    n_factors = factors.shape[1]
    lengths = np.diff(weights.indptr)
    users = np.zeros((len(lengths), n_factors), dtype=np.float32)
    # Histories of one length are stacked: every user is a system of their own, the same in any company.
    order = np.argsort(lengths, kind="stable")
    for length, start, stop in _runs(lengths[order]):
        size = max(1, _BATCH_CELLS // (length * max(n_factors, length)))
        for first in range(start, stop, size):
            chosen = order[first : min(first + size, stop)]
            at = weights.indptr[chosen][:, None] + np.arange(length)  # (n, length)
            own = factors[weights.indices[at]]  # (n, length, n_factors)
            users[chosen] = _solved(own, weights.data[at].astype(np.float64))
    return users


def products(users: Floats, items: Floats) -> Floats:
    """users · itemsᵀ (n_users, n_items); a row has the same bits whatever rows are beside it."""
    n_users, n_factors = users.shape
    cells = max(len(items) * n_factors, 1)
    rows = -(-max(n_users, -(-_LEAST_PRODUCT // cells)) // _ROWS) * _ROWS
    if rows > n_users:
        padded = np.zeros((rows, n_factors), dtype=np.float32)
        padded[:n_users] = users
        users = padded
    made: Floats = users @ items.T
    return made[:n_users]


def _solved(own: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[Any]:
    """t (n, n_factors) of n histories of one length: their items' factors and weights."""
    _, length, n_factors = own.shape
    if length <= n_factors:
        system = (own @ own.transpose(0, 2, 1)).astype(np.float64)  # (n, length, length)
        system[:, np.arange(length), np.arange(length)] += 1 / weights
        inner = np.linalg.solve(system, ((weights + 1) / weights)[:, :, None])  # (n, length, 1)
    else:
        scaled = own * weights[:, :, None].astype(np.float32)
        system = (own.transpose(0, 2, 1) @ scaled).astype(np.float64)  # (n, n_factors, n_factors)
        system[:, np.arange(n_factors), np.arange(n_factors)] += 1
        right = own.transpose(0, 2, 1) @ (weights + 1)[:, :, None].astype(np.float32)
        return np.asarray(np.linalg.solve(system, right.astype(np.float64))[:, :, 0])
    return np.asarray((own.transpose(0, 2, 1) @ inner.astype(np.float32))[:, :, 0])


def _runs(lengths: NDArray[Any]) -> list[tuple[int, int, int]]:
    """(length, start, stop) of the runs of equal lengths > 0 in ascending lengths."""
    values, starts = np.unique(lengths, return_index=True)
    stops = np.append(starts, len(lengths))[1:]
    return [(int(v), int(a), int(b)) for v, a, b in zip(values, starts, stops, strict=True) if v > 0]
