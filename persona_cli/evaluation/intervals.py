"""How far a mean over users can be trusted: bootstrap over users up to 100,000 of them, the normal approximation above.

The unit is the user. Values of several metrics or models stand side by side as columns of one matrix
(n_users, n_columns), rows in the same order of users, and every column sees the same resampled users: one draw serves
all, and differences are paired.

Bootstrap: each replicate draws n_users users with replacement, as counts per user (multinomial), and its means are one
product counts @ values. Interval: the percentiles of the replicates, expanded for few users so that they cover like
Student's t: the tail is Phi(-sqrt(n/(n-1)) t_{n-1}) instead of (1 - level)/2 (Hesterberg, The American Statistician
2015). Same values, same order of users, same seed: same interval, whatever the number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit
from threadpoolctl import threadpool_limits

from persona_cli.errors import BadData

Floats = NDArray[np.float64]

BOOTSTRAP_LIMIT = 100_000
"""Users above which the normal approximation is used: there the two differ by the noise of the replicates alone."""
_BLOCK_BYTES = 64 * 2**20


class Interval(NamedTuple):
    """A figure with its interval; a bound that these users cannot give (one user, a ratio to almost none) is None."""

    value: float
    low: float | None
    high: float | None


def mean_intervals(
    values: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 1000, limit: int = BOOTSTRAP_LIMIT
) -> list[Interval]:
    """Interval of the mean over users of each column of `values` (n_users, n_columns)."""
    matrix = _checked(values)
    means = matrix.mean(axis=0)  # (n_columns,)
    if len(matrix) == 1:
        return [Interval(float(mean), None, None) for mean in means]
    if len(matrix) > limit:
        errors = matrix.std(axis=0, ddof=1) / np.sqrt(len(matrix))
        return _normal(means, errors, level)
    return _percentile(means, replicate_means(matrix, seed, bootstrap), len(matrix), level)


def difference_intervals(
    values: ArrayLike,
    baseline: ArrayLike,
    level: float = 0.95,
    seed: int = 0,
    bootstrap: int = 1000,
    limit: int = BOOTSTRAP_LIMIT,
) -> list[Interval]:
    """Interval of mean(values - baseline) for each column, paired by user; both (n_users, n_columns)."""
    ours, theirs = _checked_pair(values, baseline)
    return mean_intervals(ours - theirs, level, seed, bootstrap, limit)


def lift_intervals(
    values: ArrayLike,
    baseline: ArrayLike,
    level: float = 0.95,
    seed: int = 0,
    bootstrap: int = 1000,
    limit: int = BOOTSTRAP_LIMIT,
) -> list[Interval | None]:
    """Interval of the relative lift mean(values) / mean(baseline) - 1 of each column, paired by user.

    Both (n_users, n_columns). None for a column whose baseline has mean 0: there is no lift over nothing. A replicate
    whose baseline is 0 counts as an unbounded lift, so a baseline of few lucky users has an upper bound of None. Above
    `limit` users: the delta method, var = var(a - (1 + lift) b) / (n mean(b)^2).
    """
    ours, theirs = _checked_pair(values, baseline)
    n_users, n_columns = ours.shape
    stated = np.flatnonzero(theirs.mean(axis=0) != 0.0)
    intervals: list[Interval | None] = [None] * n_columns
    if not len(stated):
        return intervals
    a, b = ours[:, stated], theirs[:, stated]
    lifts = a.mean(axis=0) / b.mean(axis=0) - 1.0
    if n_users == 1:
        found = [Interval(float(lift), None, None) for lift in lifts]
    elif n_users > limit:
        errors = (a - (1.0 + lifts) * b).std(axis=0, ddof=1) / np.sqrt(n_users) / np.abs(b.mean(axis=0))
        found = _normal(lifts, errors, level)
    else:
        means = replicate_means(np.hstack([a, b]), seed, bootstrap)  # (bootstrap, 2 n_stated)
        above, below = means[:, : len(stated)], means[:, len(stated) :]
        replicates = np.full(above.shape, np.inf)
        np.divide(above, below, out=replicates, where=below != 0.0)
        found = _percentile(lifts, replicates - 1.0, n_users, level)
    for column, interval in zip(stated, found, strict=True):
        intervals[column] = interval
    return intervals


def mean_interval(values: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 1000) -> Interval:
    """Interval of the mean of `values` (n_users,)."""
    return mean_intervals(values, level, seed, bootstrap)[0]


def paired_difference(
    values: ArrayLike, baseline: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 1000
) -> Interval:
    """Interval of mean(values - baseline), both (n_users,) in the same order of users."""
    return difference_intervals(values, baseline, level, seed, bootstrap)[0]


def lift_interval(
    values: ArrayLike, baseline: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 1000
) -> Interval | None:
    """Interval of mean(values) / mean(baseline) - 1, both (n_users,) in the same order; None over a baseline of 0."""
    return lift_intervals(values, baseline, level, seed, bootstrap)[0]


def replicate_means(values: Floats, seed: int, bootstrap: int) -> Floats:
    """Means of `values` (n_users, n_columns) over `bootstrap` resamplings of the users: (bootstrap, n_columns).

    The draws depend on n_users, `seed` and `bootstrap` alone: two matrices over the same users may be resampled apart
    and are still paired. Memory: blocks of 64 MiB.
    """
    n_users, n_columns = values.shape
    draws = np.random.default_rng(seed)
    block = max(1, min(bootstrap, _BLOCK_BYTES // (8 * n_users)))
    counts = np.empty((block, n_users))
    means = np.empty((bootstrap, n_columns))
    # One thread: the order of a threaded sum, hence its last digits, would follow the number of cores.
    with threadpool_limits(limits=1, user_api="blas"):
        for start in range(0, bootstrap, block):
            size = min(block, bootstrap - start)
            for row in range(size):
                drawn = draws.integers(0, n_users, size=n_users, dtype=np.uint32)
                counts[row] = np.bincount(drawn, minlength=n_users)
            means[start : start + size] = counts[:size] @ values
    means /= n_users
    return means


def _percentile(values: Floats, replicates: Floats, n_users: int, level: float) -> list[Interval]:
    """Expanded percentile intervals: `values` (n_columns,), `replicates` (bootstrap, n_columns)."""
    tail = float(ndtr(-np.sqrt(n_users / (n_users - 1)) * stdtrit(n_users - 1, (1.0 + level) / 2.0)))
    with np.errstate(invalid="ignore"):  # between two infinite replicates
        bounds = np.quantile(replicates, [tail, 1.0 - tail], axis=0)  # (2, n_columns)
    return [
        Interval(float(value), _finite(low), _finite(high)) for value, low, high in zip(values, *bounds, strict=True)
    ]


def _normal(values: Floats, errors: Floats, level: float) -> list[Interval]:
    reach = float(ndtri((1.0 + level) / 2.0)) * errors  # (n_columns,)
    return [Interval(float(v), float(v - r), float(v + r)) for v, r in zip(values, reach, strict=True)]


def _finite(bound: Any) -> float | None:
    return float(bound) if np.isfinite(bound) else None


def _checked(values: ArrayLike) -> Floats:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if not len(matrix):
        raise BadData("there are no users to take a mean over; expected at least one")
    if not np.isfinite(matrix).all():
        raise BadData("a value of a user is NaN or infinite; expected a number for every user")
    return np.ascontiguousarray(matrix)


def _checked_pair(values: ArrayLike, baseline: ArrayLike) -> tuple[Floats, Floats]:
    ours, theirs = _checked(values), _checked(baseline)
    if ours.shape != theirs.shape:
        raise BadData(f"values of shape {ours.shape} meet a baseline of {theirs.shape}; expected the same users")
    return ours, theirs
