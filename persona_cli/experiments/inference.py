"""What an experiment says, from moments that can be added up: values, lift, intervals and p of two arms.

`Moments` hold what a unit (a user, or whatever was assigned) brings, as n, means and sums of cross products around
them; two of them add up to those of all units together (Chan, Golub and LeVeque 1983), so days, segments and parts of
a file can be joined in any order. Everything works along leading axes: shape () is an experiment, (100_000,) as many.

    mean         one column                  Welch 1947
    proportion   one column of 0 and 1       pooled z for p, Newcombe's 1998 interval (method 10)
    ratio        numerator, denominator      delta method over units (Deng, Knoblich and Lu 2018)
    count        events[, exposure]          a rate; the spread between units is taken as it is, not as Poisson's
    nps          promoter 1, detractor -1    100 x the mean; its variance is p + d - (p - d)^2
    clustered    sums and sizes of clusters  a ratio with the cluster as the unit
    cuped        any of them + the same before the experiment, theta over both arms (Deng et al. 2013)

Relative lift is treatment / control - 1. Its variance takes the control's chance and its correlation with the
treatment under CUPED wholly into account. `fieller` (1954), the default, keeps its level for heavy tails and excludes
0 exactly where p is below alpha; it is unbounded where the control itself may be 0. `delta` is symmetric, as most
tools print it; `log` gives an interval of the ratio of two positive values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from persona_cli.errors import UsageError, nearest
from persona_cli.evaluation.intervals import wilson

Floats = NDArray[np.float64]
RELATIVE = ("fieller", "delta", "log")
INTERVALS = ("newcombe", "wald")
_Z = float(special.ndtri(0.975))


class Moments(NamedTuple):
    """Moments of k columns over the units of an arm; leading axes `...` are experiments."""

    n: Floats
    """(...) units."""
    mean: Floats
    """(..., k) means."""
    cross: Floats
    """(..., k, k) sums of products of deviations from the means."""

    def __add__(self, other: object) -> Moments:
        """The moments of the units of both."""
        if not isinstance(other, Moments):
            return NotImplemented
        return _joined(self, other, 1.0)

    def __sub__(self, other: Moments) -> Moments:
        """What is left without the units of `other`, which must be among them."""
        return _joined(self, other, -1.0)

    def covariance(self) -> Floats:
        """(..., k, k), unbiased; NaN below two units."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.cross / np.where(self.n > 1, self.n - 1, np.nan)[..., None, None]

    def columns(self, *which: int) -> Moments:
        """The moments of some columns, in that order."""
        chosen = list(which)
        return Moments(self.n, self.mean[..., chosen], self.cross[..., chosen, :][..., :, chosen])


def _joined(a: Moments, b: Moments, sign: float) -> Moments:
    n = a.n + sign * b.n
    safe = np.where(n > 0, n, 1.0)
    gap = b.mean - a.mean
    mean = a.mean + gap * (sign * b.n / safe)[..., None]
    weight = sign * a.n * b.n / safe
    cross = a.cross + sign * b.cross + weight[..., None, None] * gap[..., :, None] * gap[..., None, :]
    empty = n <= 0
    return Moments(n, np.where(empty[..., None], 0.0, mean), np.where(empty[..., None, None], 0.0, cross))


def of_values(values: ArrayLike) -> Moments:
    """Moments of (..., units, k) values; (units,) stands for one column."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    n = np.full(array.shape[:-2], float(array.shape[-2]))
    mean = array.mean(axis=-2) if array.shape[-2] else np.zeros((*array.shape[:-2], array.shape[-1]))
    apart = array - mean[..., None, :]
    return Moments(n, mean, np.swapaxes(apart, -1, -2) @ apart)


def of_sums(n: ArrayLike, sums: ArrayLike, products: ArrayLike) -> Moments:
    """Moments from n (...), plain sums (..., k) and plain sums of products (..., k, k).

    Sums of squares lose digits where the spread is small beside the mean; take sums of deviations from a constant then
    (`of_values` of parts, added up, has no such loss).
    """
    count, total, product = (np.asarray(part, dtype=np.float64) for part in (n, sums, products))
    mean = total / np.where(count > 0, count, 1.0)[..., None]
    cross = product - count[..., None, None] * mean[..., :, None] * mean[..., None, :]
    k = np.arange(cross.shape[-1])
    cross[..., k, k] = np.maximum(cross[..., k, k], 0.0)
    return Moments(count, mean, cross)


class Estimate(NamedTuple):
    """One comparison, or an array of them; intervals hold 1 - alpha."""

    control: Floats
    treatment: Floats
    difference: Floats
    """treatment - control, in the metric's own unit."""
    se: Floats
    """Standard error of the difference."""
    low: Floats
    high: Floats
    relative: Floats
    """treatment / control - 1; NaN where the control is 0."""
    relative_se: Floats
    relative_low: Floats
    relative_high: Floats
    p: Floats
    """Two-sided, of no difference."""
    statistic: Floats
    """z or t of the test that gives p."""
    dof: Floats
    """Degrees of freedom (Welch-Satterthwaite); inf for a z."""
    n_control: Floats
    n_treatment: Floats
    variance_cut: Floats
    """The share of the difference's variance that CUPED took away; 0 without it."""


class Estimated(NamedTuple):
    """A value with its 95 % interval; arrays where many were asked."""

    value: Any
    se: Any
    low: Any
    high: Any


def around(value: Any, se: Any) -> Estimated:
    """A value with the normal interval of its standard error, a number or an array each."""
    half = _Z * se
    return Estimated(value, se, value - half, value + half)


class Arms(NamedTuple):
    """Two values with the variances and covariance of their chance: all that a comparison needs. Shapes (...)."""

    control: Floats
    treatment: Floats
    var_control: Floats
    var_treatment: Floats
    covariance: Floats
    dof: Floats
    n_control: Floats
    n_treatment: Floats


def mean(control: Moments, treatment: Moments, alpha: float = 0.05, relative: str = "fieller") -> Estimate:
    """Means of the first column, by Welch's t."""
    return compare(_arms(control.columns(0), treatment.columns(0), "mean"), alpha, relative)


def count(control: Moments, treatment: Moments, alpha: float = 0.05, relative: str = "fieller") -> Estimate:
    """Events a unit, or an exposure (second column: hours, days, sessions); robust to overdispersion."""
    kind = "mean" if control.mean.shape[-1] == 1 else "ratio"
    return compare(_arms(control, treatment, kind), alpha, relative)


def ratio(control: Moments, treatment: Moments, alpha: float = 0.05, relative: str = "fieller") -> Estimate:
    """Sum of the first column over the sum of the second, as clicks over impressions; the unit stays the user."""
    return compare(_arms(control.columns(0, 1), treatment.columns(0, 1), "ratio"), alpha, relative)


def clustered(control: Moments, treatment: Moments, alpha: float = 0.05, relative: str = "fieller") -> Estimate:
    """Means a member where whole clusters were assigned: columns are a cluster's sum and its size.

    The residual sums of the clusters give the variance (Liang and Zeger 1986) with G / (G - 1) in each arm.
    """
    return ratio(control, treatment, alpha, relative)


def nps(control: Moments, treatment: Moments, alpha: float = 0.05) -> Estimate:
    """Net promoter score in points: one column, 1 a promoter, 0 passive, -1 a detractor. No relative lift: 0 is no
    natural end of that scale."""
    arms = _arms(control.columns(0), treatment.columns(0), "mean")
    scaled = arms._replace(
        control=100 * arms.control,
        treatment=100 * arms.treatment,
        var_control=1e4 * arms.var_control,
        var_treatment=1e4 * arms.var_treatment,
    )
    found = compare(scaled, alpha, "delta")
    blank = np.full_like(found.difference, np.nan)
    return found._replace(relative=blank, relative_se=blank, relative_low=blank, relative_high=blank)


def cuped(
    control: Moments, treatment: Moments, kind: str = "mean", alpha: float = 0.05, relative: str = "fieller"
) -> Estimate:
    """Adjusted by the same metric before the experiment.

    Columns: value, value before (kind "mean"); numerator, denominator, numerator before, denominator before (kind
    "ratio"). Values are those of arms with the same past: theta moves both to the mean past of all. Where an arm has no
    past, as a ratio without any denominator before, nothing is adjusted.
    """
    arms = _arms(control, treatment, kind, adjusted=True)
    k = control.mean.shape[-1] // 2
    plain = _arms(control.columns(*range(k)), treatment.columns(*range(k)), kind)
    found = compare(arms, alpha, relative)
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = 1 - found.se**2 / (plain.var_control + plain.var_treatment)
    return found._replace(variance_cut=cut)


def proportion(
    control: Moments, treatment: Moments, alpha: float = 0.05, relative: str = "fieller", interval: str = "newcombe"
) -> Estimate:
    """Shares (a column of 0 and 1): p by the pooled z; the interval by Newcombe 1998 or Wald."""
    if interval not in INTERVALS:
        raise UsageError(f"no interval {interval!r} for proportions{nearest(interval, INTERVALS)}")
    n0, n1 = control.n, treatment.n
    p0, p1 = linear(control, control, "mean")[0], linear(treatment, treatment, "mean")[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        arms = Arms(p0, p1, p0 * (1 - p0) / n0, p1 * (1 - p1) / n1, np.zeros_like(p0), np.full_like(p0, np.inf), n0, n1)
        found = compare(arms, alpha, relative)
        both = (n0 * p0 + n1 * p1) / (n0 + n1)
        z = _over(p1 - p0, np.sqrt(both * (1 - both) * (1 / n0 + 1 / n1)))
    found = found._replace(statistic=z, p=two_sided(z, np.inf))
    if interval == "wald":
        return found
    below0, above0 = wilson(n0 * p0, n0, 1 - alpha)
    below1, above1 = wilson(n1 * p1, n1, 1 - alpha)
    gap = p1 - p0
    low = gap - np.hypot(p1 - below1, above0 - p0)
    return found._replace(low=low, high=gap + np.hypot(above1 - p1, p0 - below0))


def linear(m: Moments, at: Moments, kind: str) -> tuple[Floats, Floats]:
    """The value of a metric over columns (...) and its gradient (..., k), taken at the means of `at`."""
    there = np.where(m.n > 0, 1.0, np.nan)
    if kind == "mean":
        return m.mean[..., 0] * there, np.ones_like(at.mean[..., :1])
    if kind != "ratio":
        raise UsageError(f"no metric of kind {kind!r}{nearest(kind, ('mean', 'ratio'))}")
    with np.errstate(divide="ignore", invalid="ignore"):
        value = m.mean[..., 0] / m.mean[..., 1] * there
        top, bottom = at.mean[..., 0], at.mean[..., 1]
        return value, np.stack([1 / bottom, -top / bottom**2], axis=-1)


def _arms(control: Moments, treatment: Moments, kind: str, adjusted: bool = False) -> Arms:
    """Both arms linearised; with `adjusted` the second half of the columns is the same metric before."""
    k = control.mean.shape[-1] // (2 if adjusted else 1)
    now, before = tuple(range(k)), tuple(range(k, 2 * k))
    values, pasts, parts = [], [], []
    for arm in (control, treatment):
        value, gradient = linear(arm.columns(*now), arm.columns(*now), kind)
        covariance = arm.covariance() / np.where(arm.n > 0, arm.n, np.nan)[..., None, None]
        yy = quadratic(gradient, covariance[..., :k, :k], gradient)
        xy = xx = past = np.zeros_like(value)
        if adjusted:
            past, slope = linear(arm.columns(*before), arm.columns(*before), kind)
            xy = quadratic(gradient, covariance[..., :k, k:], slope)
            xx = quadratic(slope, covariance[..., k:, k:], slope)
        values.append(value)
        pasts.append(past)
        parts.append((yy, xy, xx))
    if adjusted:  # a past without any denominator, as before the first list was logged, tells nothing of either arm
        known = np.isfinite(sum(pasts, np.zeros(())))
        pasts = [np.where(known, past, 0.0) for past in pasts]
        parts = [(yy, np.where(known, xy, 0.0), np.where(known, xx, 0.0)) for yy, xy, xx in parts]
    (yy0, xy0, xx0), (yy1, xy1, xx1) = parts
    dof_parts = (control.n - 1, treatment.n - 1)
    if not adjusted:
        dof = welch_dof(yy0, yy1, *dof_parts)
        return Arms(values[0], values[1], yy0, yy1, np.zeros_like(yy0), dof, control.n, treatment.n)
    both = control + treatment
    _, gradient = linear(both.columns(*now), both.columns(*now), kind)
    _, slope = linear(both.columns(*before), both.columns(*before), kind)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = quadratic(slope, both.cross[..., k:, k:], slope)
        theta = np.where(known & (spread > 0), quadratic(gradient, both.cross[..., :k, k:], slope) / spread, 0.0)
        # a ratio of all is the mean of the arms' ratios by their denominators
        below = [arm.n * (arm.mean[..., k + 1] if kind == "ratio" else 1.0) for arm in (control, treatment)]
        w0, w1 = (np.where(known, part / (below[0] + below[1]), 0.5) for part in below)
    gap = pasts[1] - pasts[0]
    # treatment = y1 - theta w0 (x1 - x0), control = y0 + theta w1 (x1 - x0): both at the mean past of all
    a, b = theta * w0, theta * w1
    return Arms(
        values[0] + b * gap,
        values[1] - a * gap,
        yy0 - 2 * b * xy0 + b * b * (xx0 + xx1),
        yy1 - 2 * a * xy1 + a * a * (xx0 + xx1),
        b * (xy1 - a * xx1) + a * (xy0 - b * xx0),
        welch_dof(yy0 - 2 * theta * xy0 + theta**2 * xx0, yy1 - 2 * theta * xy1 + theta**2 * xx1, *dof_parts),
        control.n,
        treatment.n,
    )


def quadratic(left: Floats, matrix: Floats, right: Floats) -> Floats:
    """left' M right along the leading axes."""
    found: Floats = np.einsum("...i,...ij,...j->...", left, matrix, right)
    return found


def welch_dof(v0: Floats, v1: Floats, dof0: Floats, dof1: Floats) -> Floats:
    """Degrees of freedom of v0 + v1 (Satterthwaite 1946)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = (v0 + v1) ** 2 / (v0**2 / dof0 + v1**2 / dof1)
    return np.where(np.isfinite(dof), dof, np.inf)


def _over(value: Floats, se: Floats) -> Floats:
    """value / se; 0 / 0 is 0: two constant arms with one value do not differ."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((se == 0) & (value == 0), 0.0, value / se)


def two_sided(statistic: ArrayLike, dof: ArrayLike) -> Floats:
    """p of a t statistic, of a z where dof is inf."""
    size, degrees = -np.abs(np.asarray(statistic)), np.asarray(dof, dtype=np.float64)
    p = 2 * np.where(
        np.isinf(degrees), special.ndtr(size), special.stdtr(np.where(np.isinf(degrees), 1, degrees), size)
    )
    return np.asarray(np.minimum(p, 1.0))


def critical(alpha: float, dof: ArrayLike) -> Floats:
    """The two-sided critical value of t, of z where dof is inf."""
    degrees = np.asarray(dof, dtype=np.float64)
    finite = np.where(np.isinf(degrees), 1.0, degrees)
    z = special.ndtri(1 - alpha / 2)
    return np.where(np.isinf(degrees), z, special.stdtrit(finite, 1 - alpha / 2))


def compare(arms: Arms, alpha: float = 0.05, relative: str = "fieller") -> Estimate:
    """The estimate of two arms: t (or z) of the difference, and the relative lift by one of `RELATIVE`."""
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}; a share between 0 and 1 was expected")
    gap = arms.treatment - arms.control
    se = np.sqrt(np.maximum(arms.var_control + arms.var_treatment - 2 * arms.covariance, 0.0))
    times, statistic = critical(alpha, arms.dof), _over(gap, se)
    lift, lift_se, low, high = relative_lift(arms, times, relative)
    nothing = np.zeros_like(gap)
    return Estimate(
        *(arms.control, arms.treatment, gap, se, gap - times * se, gap + times * se, lift, lift_se, low, high),
        *(two_sided(statistic, arms.dof), statistic, arms.dof, arms.n_control, arms.n_treatment, nothing),
    )


def relative_lift(arms: Arms, times: ArrayLike, method: str = "fieller") -> tuple[Floats, Floats, Floats, Floats]:
    """treatment / control - 1 with its standard error and its interval of `times` standard errors."""
    if method not in RELATIVE:
        raise UsageError(f"no interval {method!r} for relative lift{nearest(method, RELATIVE)}")
    c, t, vc, vt, vct = arms[:5]
    reach = np.asarray(times, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        r = np.where(c == 0, np.nan, t / c)
        se = np.sqrt(np.maximum(vt - 2 * r * vct + r * r * vc, 0.0)) / np.abs(c)
        if method == "delta":
            return r - 1, se, r - 1 - reach * se, r - 1 + reach * se
        if method == "log":
            fold = np.where((c > 0) & (t > 0), reach * se / r, np.nan)
            return r - 1, se, r * np.exp(-fold) - 1, r * np.exp(fold) - 1
        # all q with (t - q c)^2 <= reach^2 (vt - 2 q vct + q^2 vc)
        square = reach**2
        a, b, d = c * c - square * vc, c * t - square * vct, t * t - square * vt
        root = np.sqrt(np.maximum(b * b - a * d, 0.0))
        bounded = a > 0
        low = np.where(bounded, (b - root) / a - 1, -np.inf)
        high = np.where(bounded, (b + root) / a - 1, np.inf)
        unknown = np.isnan(r)
        return r - 1, se, np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
