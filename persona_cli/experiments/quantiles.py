"""Quantiles of two arms, and values cut at a cap for heavy tails.

A sample quantile has variance p (1 - p) / (n f^2), f the density there. 1 / f is taken from the spacing of two order
statistics around it, those at which a 95 % interval of the quantile would end (Maritz and Jarrett 1978 call for it;
Deng, Knoblich and Lu 2018 call it the outer interval). Over k order statistics the spacing is a sum of k nearly
exponential gaps: its square, k (k + 1) on average, has a relative variance of 4 / k, that of k / 2 degrees of freedom.
With those in a Welch-Satterthwaite t the test keeps its level at a thousand units, where a z does not.

Where an event and not the user is what has a quantile (the latency of a page), the chance of an event to lie below it
is a ratio over users: its standard error by the delta method replaces sqrt(p (1 - p) / n).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from persona_cli.errors import UsageError
from persona_cli.experiments.inference import Arms, Estimate, Floats, compare, welch_dof

REACH = float(special.ndtri(0.975))  # how far out the order statistics of the spacing lie, in standard errors


class Quantile(NamedTuple):
    """A quantile of one arm, with the variance of its chance; shapes (...)."""

    value: Floats
    variance: Floats
    dof: Floats
    n: Floats


def places(n: int, q: float, se: float) -> tuple[int, int, int]:
    """The 1-based order statistics below, at and above quantile q of n sorted values; `se` is that of the share
    below it."""
    middle = min(max(int(np.ceil(n * q)), 1), n)
    reach = max(REACH * n * se, 1.0)
    return max(int(np.floor(middle - reach)), 1), middle, min(int(np.ceil(middle + reach)), n)


def from_orders(below: ArrayLike, at: ArrayLike, above: ArrayLike, n: int, se: float, span: int) -> Quantile:
    """A quantile (...) from its three order statistics; `span` is above's place minus below's."""
    low, value, high = (np.asarray(part, dtype=np.float64) for part in (below, at, above))
    gaps = max(span, 1)
    slope = (high - low) * (n / np.sqrt(gaps * (gaps + 1.0)))  # the inverse of the density; E gap^2 = k (k + 1) / n^2
    full = np.ones_like(value)
    return Quantile(value, (slope * se) ** 2, full * max(span / 2, 1.0), full * n)


def of_users(values: ArrayLike, q: float) -> Quantile:
    """Quantile q of independent values (..., n)."""
    array = np.asarray(values, dtype=np.float64)
    n = array.shape[-1]
    _check(q, n)
    se = float(np.sqrt(q * (1 - q) / n))
    low, middle, high = places(n, q, se)
    part = np.partition(array, sorted({low - 1, middle - 1, high - 1}), axis=-1)
    return from_orders(part[..., low - 1], part[..., middle - 1], part[..., high - 1], n, se, high - low)


def of_events(values: ArrayLike, users: ArrayLike, q: float) -> Quantile:
    """Quantile q of events (n,), several a user; `users` (n,) are whole numbers."""
    array = np.asarray(values, dtype=np.float64)
    _check(q, array.size)
    at = np.partition(array, max(int(np.ceil(array.size * q)), 1) - 1)[max(int(np.ceil(array.size * q)), 1) - 1]
    _, codes = np.unique(np.asarray(users), return_inverse=True)
    sizes = np.bincount(codes)
    below = np.bincount(codes, weights=array <= at)
    apart = below - below.sum() / array.size * sizes
    g = sizes.size
    se = float(np.sqrt((apart**2).sum() * g / max(g - 1, 1))) / array.size
    low, middle, high = places(array.size, q, se)
    part = np.partition(array, sorted({low - 1, middle - 1, high - 1}))
    found = from_orders(part[low - 1], part[middle - 1], part[high - 1], array.size, se, high - low)
    # events of a user come together: the spacing holds as many independent gaps as it has users' worth of events
    design = max(se**2 * array.size / (q * (1 - q)), 1.0)
    return found._replace(dof=np.maximum(found.dof / design, 1.0), n=np.full_like(found.value, g))


def quantile(control: Quantile, treatment: Quantile, alpha: float = 0.05, relative: str = "fieller") -> Estimate:
    """The difference and the relative lift of a quantile."""
    none = np.zeros_like(control.variance)
    arms = Arms(
        *(control.value, treatment.value, control.variance, treatment.variance, none),
        *(welch_dof(control.variance, treatment.variance, control.dof, treatment.dof), control.n, treatment.n),
    )
    return compare(arms, alpha, relative)


def _check(q: float, n: int) -> None:
    if not 0 < q < 1:
        raise UsageError(f"quantile is {q}; a share between 0 and 1 was expected, as 0.9")
    if n < 2:
        raise UsageError(f"a quantile was asked of {n} values; at least 2 are needed in each arm")


def caps(values: ArrayLike, upper: float = 0.999, lower: float | None = None) -> tuple[float, float]:
    """The values at which to cut, from both arms together (n,): shares of units at or below them. The estimate is then
    one of the mean of min(value, cap), not of the mean: say so where it is printed."""
    array = np.asarray(values, dtype=np.float64)
    top = float(np.quantile(array, upper, method="inverted_cdf")) if array.size else np.inf
    if lower is None or not array.size:
        return -np.inf, top
    return float(np.quantile(array, lower, method="inverted_cdf")), top
