"""How far a mean over users can be trusted: intervals in closed form, or by bootstrap over users where that is asked.

The unit is the user. Values of several metrics or models stand side by side as columns of one matrix
(n_users, n_columns), rows in the same order of users, and differences and lifts are paired by user. `t` is Student's
quantile at the level, with n - 1 degrees of freedom unless something else is said.

    mean         of hits and misses (any column of 0 and one other value): Wilson's score interval (JASA 1927). Else,
                 of values >= 0, the same idea: every m with (mean - m)^2 <= t^2 (s^2 + (k3 / s^2)(m - mean)) / n. Where
                 most users have 0 the variance grows with the mean, as fast as the third central moment k3 says.
                 Degrees of freedom: at most twice the users whose value is not 0, for with few of them the kurtosis is
                 n over their number (Satterthwaite, Biometrics 1946).
    difference   Student's t (Biometrika 1908), mean +- t s / sqrt(n) of the differences
    lift         every r - 1 with (mean(a) - r mean(b))^2 <= t^2 var(a - r b) / n (Fieller, JRSS B 1954)

How often they hold the truth is measured by benchmarks/inference.py: 95 +- 1 % from about 2 users whose value is not 0
for a mean of hits and misses, 5 for a mean of other metrics, 8 users who differ for a difference, and 30 users with
something right in the baseline for a lift. Below that they are wide, but a bound may still be wrong: a lift over a
baseline with 5 lucky users is held too high.

The bootstrap draws n_users users with replacement, `bootstrap` times, and takes percentiles, expanded for few users so
that they cover like Student's t (Hesterberg, The American Statistician 2015). From 20,000 users on it equals the closed
forms to 2 %; with few users whose value is not 0 it covers less (87 % where they cover 95), and it takes 1,000 times as
long. Same values, same order of users, same seed: same interval, whatever the number of threads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit
from threadpoolctl import threadpool_limits

from persona_cli.errors import BadData

Floats = NDArray[np.float64]

BOOTSTRAP_LIMIT = 100_000
"""Users above which nothing is resampled: there the two differ by the noise of the replicates alone."""
_BLOCK_BYTES = 64 * 2**20


class Interval(NamedTuple):
    """A figure with its interval; a bound that these users cannot give (one user, a ratio to almost none) is None."""

    value: float
    low: float | None
    high: float | None


def mean_intervals(
    values: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 0, limit: int = BOOTSTRAP_LIMIT
) -> list[Interval]:
    """Interval of the mean over users of each column of `values` (n_users, n_columns).

    `bootstrap` resamplings decide it for up to `limit` users; 0: the closed form, which reads neither it nor `seed`.
    Values that all lie in [0, 1] have bounds there, and where all are 0, or all 1, the interval is that of a proportion
    of which no case was seen, [0, z^2 / (n + z^2)]: that nobody had a hit does not mean that nobody would.
    """
    matrix = _checked(values)
    n_users = len(matrix)
    means = matrix.mean(axis=0)  # (n_columns,)
    if n_users == 1:
        return [Interval(float(mean), None, None) for mean in means]
    if bootstrap and n_users <= limit:
        return _percentile(means, replicate_means(matrix, seed, bootstrap), n_users, level)
    return [_mean(np.ascontiguousarray(matrix[:, column]), level) for column in range(matrix.shape[1])]


def difference_intervals(
    values: ArrayLike,
    baseline: ArrayLike,
    level: float = 0.95,
    seed: int = 0,
    bootstrap: int = 0,
    limit: int = BOOTSTRAP_LIMIT,
) -> list[Interval]:
    """Interval of mean(values - baseline) for each column, paired by user; both (n_users, n_columns)."""
    ours, theirs = _checked_pair(values, baseline)
    if len(ours) == 1 or (bootstrap and len(ours) <= limit):
        return mean_intervals(ours - theirs, level, seed, bootstrap, limit)
    return [_student(ours[:, column] - theirs[:, column], level) for column in range(ours.shape[1])]


def lift_intervals(
    values: ArrayLike,
    baseline: ArrayLike,
    level: float = 0.95,
    seed: int = 0,
    bootstrap: int = 0,
    limit: int = BOOTSTRAP_LIMIT,
) -> list[Interval | None]:
    """Interval of the relative lift mean(values) / mean(baseline) - 1 of each column, paired by user.

    Both (n_users, n_columns). None for a column whose baseline has mean 0: there is no lift over nothing. Where the
    baseline's mean cannot be told from 0, as with few lucky users, the upper bound is None.
    """
    ours, theirs = _checked_pair(values, baseline)
    n_users, n_columns = ours.shape
    stated = np.flatnonzero(theirs.mean(axis=0) != 0.0)
    intervals: list[Interval | None] = [None] * n_columns
    if not len(stated):
        return intervals
    if bootstrap and 1 < n_users <= limit:
        found = _resampled_lifts(ours[:, stated], theirs[:, stated], level, seed, bootstrap)
    else:
        found = [_fieller(ours[:, column], theirs[:, column], level) for column in stated]
    for column, interval in zip(stated, found, strict=True):
        intervals[column] = interval
    return intervals


def mean_interval(values: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 0) -> Interval:
    """Interval of the mean of `values` (n_users,)."""
    return mean_intervals(values, level, seed, bootstrap)[0]


def paired_difference(
    values: ArrayLike, baseline: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 0
) -> Interval:
    """Interval of mean(values - baseline), both (n_users,) in the same order of users."""
    return difference_intervals(values, baseline, level, seed, bootstrap)[0]


def lift_interval(
    values: ArrayLike, baseline: ArrayLike, level: float = 0.95, seed: int = 0, bootstrap: int = 0
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


def _mean(values: Floats, level: float) -> Interval:
    """The score interval of values (n_users,) of two users or more; Student's where some are negative."""
    n_users = len(values)
    lowest, highest = float(values.min()), float(values.max())
    if lowest < 0.0:
        return _student(values, level)
    if lowest == highest and lowest not in (0.0, 1.0):
        return Interval(lowest, lowest, lowest)
    present = int(np.count_nonzero(values))
    if not present or np.count_nonzero(values == highest) == present:
        size = highest or 1.0
        low, high = (size * float(end) for end in wilson(present, n_users, level))
        return Interval(size * (present / n_users), low, high)
    mean = float(values.mean())
    apart = values - mean
    squares = apart * apart
    spread = float(squares.sum())
    slope = float((squares * apart).sum()) / spread  # k3 / s^2
    reach = float(stdtrit(min(n_users - 1, 2 * present), (1.0 + level) / 2.0))
    shift = slope * reach**2 / (2 * n_users)
    half = math.hypot(shift, reach * math.sqrt(spread / (n_users - 1) / n_users))
    ceiling = 1.0 if highest <= 1.0 else math.inf
    return Interval(mean, max(0.0, mean + shift - half), min(ceiling, mean + shift + half))


def wilson(hits: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """The score interval of shares, `hits` (...) of n (...) each (Wilson, JASA 1927); NaN of none."""
    units, z2 = np.asarray(n, dtype=np.float64), float(ndtri((1.0 + level) / 2.0)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.asarray(hits, dtype=np.float64) / units
    middle = (p * units + z2 / 2) / (units + z2)
    half = np.sqrt(z2 * (p * (1 - p) * units + z2 / 4)) / (units + z2)
    # The ends are exact in arithmetic, not in floating point.
    return np.where(p == 0, 0.0, middle - half), np.where(p == 1, 1.0, middle + half)


def _student(values: Floats, level: float) -> Interval:
    n_users, mean = len(values), float(values.mean())
    reach = float(stdtrit(n_users - 1, (1.0 + level) / 2.0)) * float(values.std(ddof=1)) / math.sqrt(n_users)
    return Interval(mean, mean - reach, mean + reach)


def _fieller(values: Floats, baseline: Floats, level: float) -> Interval:
    """Lift of values over a baseline whose mean is not 0, both (n_users,).

    The bounds are the roots of (b^2 - f Sbb) r^2 - 2 (a b - f Sab) r + (a^2 - f Saa), with means a and b, variances and
    covariance S, f = t^2 / n. Its first coefficient is positive where b differs from 0 at this level.
    """
    n_users, a, b = len(values), float(values.mean()), float(baseline.mean())
    lift = a / b - 1.0
    if n_users == 1:
        return Interval(lift, None, None)
    ours, theirs = values - a, baseline - b
    f = float(stdtrit(n_users - 1, (1.0 + level) / 2.0)) ** 2 / (n_users * (n_users - 1))
    square = b * b - f * float(theirs @ theirs)
    middle = a * b - f * float(ours @ theirs)
    constant = a * a - f * float(ours @ ours)
    root = math.sqrt(max(0.0, middle * middle - square * constant))
    floor = -1.0 if min(float(values.min()), float(baseline.min())) >= 0.0 else None
    if square > 0.0:
        low, high = (middle - root) / square - 1.0, (middle + root) / square - 1.0
        # Rounding must not put the lift outside when both are the same but for a factor.
        return Interval(lift, min(lift, low if floor is None else max(floor, low)), max(lift, high))
    if square < 0.0 and root > 0.0:
        # All ratios but those between the roots: where ours lies above both, the upper root bounds it from below.
        low = (middle - root) / square - 1.0
        if low <= lift:
            return Interval(lift, low if floor is None else max(floor, low), None)
    return Interval(lift, floor, None)


def _resampled_lifts(ours: Floats, theirs: Floats, level: float, seed: int, bootstrap: int) -> list[Interval]:
    """Percentiles of the lift of each column; a replicate whose baseline is 0 counts as an unbounded lift."""
    n_stated = ours.shape[1]
    lifts = ours.mean(axis=0) / theirs.mean(axis=0) - 1.0
    means = replicate_means(np.hstack([ours, theirs]), seed, bootstrap)  # (bootstrap, 2 n_stated)
    above, below = means[:, :n_stated], means[:, n_stated:]
    replicates = np.full(above.shape, np.inf)
    np.divide(above, below, out=replicates, where=below != 0.0)
    return _percentile(lifts, replicates - 1.0, len(ours), level)


def _percentile(values: Floats, replicates: Floats, n_users: int, level: float) -> list[Interval]:
    """Expanded percentile intervals: `values` (n_columns,), `replicates` (bootstrap, n_columns).

    The tail is Phi(-sqrt(n / (n - 1)) t) instead of (1 - level) / 2.
    """
    tail = float(ndtr(-np.sqrt(n_users / (n_users - 1)) * stdtrit(n_users - 1, (1.0 + level) / 2.0)))
    with np.errstate(invalid="ignore"):  # between two infinite replicates
        bounds = np.quantile(replicates, [tail, 1.0 - tail], axis=0)  # (2, n_columns)
    return [
        Interval(float(value), _finite(low), _finite(high)) for value, low, high in zip(values, *bounds, strict=True)
    ]


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
    return matrix


def _checked_pair(values: ArrayLike, baseline: ArrayLike) -> tuple[Floats, Floats]:
    ours, theirs = _checked(values), _checked(baseline)
    if ours.shape != theirs.shape:
        raise BadData(f"values of shape {ours.shape} meet a baseline of {theirs.shape}; expected the same users")
    return ours, theirs
