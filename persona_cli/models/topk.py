"""Products of factors, and the best of each row in a defined order.

Blocks of users worked off by several threads, answered in order.

The k best columns of every row of a score block, exactly, several times faster than a full partition.

Columns are cut into groups; only the k groups with the largest maxima can hold the k best, so the rest is read once
(for its maximum) and never sorted.

Users folded into a space of item factors, and their scores: each user's by that user's history alone.

    min_t  Σ_i w_i (1 + 1/w_i - z_i·t)² + |t|²,   i over the history,   score = z·t

which is a half step of alternating least squares (Hu, Koren & Volinsky 2008) once the factors are *whitened*: with
A = YᵀY + λI = L Lᵀ and Z = Y L⁻ᵀ, the term of all the items that the user never touched, and the penalty, are |t|².
A history of h items is a system of min(h, n_factors) equations; z_i are the rows of Z.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from persona_cli.models.base import Floats

T = TypeVar("T")


def in_order(task: Callable[[int, int], T], starts: range, size: int, end: int, threads: int) -> Iterator[T]:
    """`task(start, stop)` of every block of `size` users (the last ends at `end`), in the order of `starts`."""
    if threads <= 1:
        for start in starts:
            yield task(start, min(start + size, end))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="rank") as pool:
        ahead: deque[Future[T]] = deque()
        try:
            for start in starts:
                ahead.append(pool.submit(task, start, min(start + size, end)))
                # One more than there are threads, so that none waits for whoever takes the results.
                if len(ahead) > threads + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


Positions = NDArray[np.int64]
_BALANCE = 4
"""Groups of w columns mean n/w maxima to partition and k·w scores to gather; gathering one costs about this many."""


def topk(scores: Floats, k: int) -> tuple[Positions, Floats]:
    """Positions and values of the k largest of each row of (n_users, n_items), best first.

    Both are (n_users, min(k, n_items)). Equal scores: the lower position first, also at the edge of the list. -inf
    marks what may not be chosen; it fills the end of a list that is too short. NaN is not allowed.
    """
    n_users, n_items = scores.shape
    k = min(k, n_items)
    if n_users == 0 or k == 0:
        return np.zeros((n_users, k), dtype=np.int64), np.zeros((n_users, k), dtype=np.float32)
    width = math.isqrt(n_items // (_BALANCE * k))
    if width < 2 or n_items // width < 2 * k:
        return _sorted(scores, None, k)
    return _by_groups(scores, k, width)


def _by_groups(scores: Floats, k: int, width: int) -> tuple[Positions, Floats]:
    n_users, n_items = scores.shape
    n_groups = n_items // width
    whole = n_groups * width
    # Group g holds columns g, g + n_groups, …: the maximum then runs over long contiguous stretches.
    maxima = scores[:, :whole].reshape(n_users, width, n_groups).max(axis=1)  # (n_users, n_groups)
    groups = np.argpartition(maxima, n_groups - k, axis=1)[:, n_groups - k :]  # (n_users, k)
    least = np.take_along_axis(maxima, groups, axis=1).min(axis=1)  # (n_users,)
    places = (groups[:, None, :] + n_groups * np.arange(width)[None, :, None]).reshape(n_users, -1)
    rest = np.broadcast_to(np.arange(whole, n_items), (n_users, n_items - whole))
    places = np.concatenate((places, rest), axis=1)  # (n_users, k * width + rest)
    best, values = _sorted(np.take_along_axis(scores, places, axis=1), places, k)
    # A group left out may hold a score equal to the last of the list, at a lower position.
    unsure = np.flatnonzero((values[:, -1] <= least) & ((maxima >= values[:, -1:]).sum(axis=1) > k))
    for row in unsure:
        best[row] = _settled(scores[row], values[row, -1], k)
    if len(unsure):
        values[unsure] = np.take_along_axis(scores[unsure], best[unsure], axis=1)
    return best, values


def _settled(row: Floats, edge: np.float32, k: int) -> Positions:
    """The k best of one row (n_items,) whose k-th largest score is known: ties at the edge by lower position."""
    over, level = np.flatnonzero(row > edge), np.flatnonzero(row == edge)
    return np.concatenate((over[np.argsort(-row[over], kind="stable")], level[: k - len(over)]))


def _sorted(scores: Floats, places: Positions | None, k: int) -> tuple[Positions, Floats]:
    """The k best by (score descending, place ascending); `places` are the columns' own names, default their numbers."""
    n_users, n_items = scores.shape
    edge = np.partition(scores, n_items - k, axis=1)[:, n_items - k]  # the k-th largest of each row
    over = scores > edge[:, None]
    missing = k - over.sum(axis=1)  # how many of those equal to the edge belong to the list, at least 1
    best = np.empty((n_users, k), dtype=np.int64)
    level = scores == edge[:, None]
    single = level.sum(axis=1) == missing
    chosen = np.flatnonzero(single)
    if len(chosen):
        best[chosen] = np.nonzero((over | level)[chosen])[1].reshape(len(chosen), k)
    for row in np.flatnonzero(~single):
        ties = np.flatnonzero(level[row])
        if places is not None:
            ties = ties[np.argsort(places[row, ties], kind="stable")]
        best[row] = np.concatenate((np.flatnonzero(over[row]), ties[: missing[row]]))
    values = np.take_along_axis(scores, best, axis=1)
    named = best if places is None else np.take_along_axis(places, best, axis=1)
    order = np.lexsort((named, -values), axis=1)
    return np.take_along_axis(named, order, axis=1), np.take_along_axis(values, order, axis=1)


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
