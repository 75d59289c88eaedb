"""Which of two models is better on the same users, how surely, and how many users it would take to tell.

Everything is paired by user: the differences d = values - baseline of one metric.

    p             two-sided, of "the mean difference is 0". Up to 16 users who differ: every way of exchanging the two
                  models user by user is counted (sign-flip test, Fisher 1935). More: Student's paired t.
    p_holm        Holm's step-down over all comparisons asked for together (Scand. J. Statistics 1979)
    no_worse      the one-sided lower bound of the lift is >= -margin: a t-test of mean(a - (1 - margin) b) > 0, with
                  the variance raised as Johnson's skewness asks (JASA 1978) where that speaks against it
    users_needed  n = (z_{1-alpha/2} + z_power)^2 s^2 / d^2 + z_{1-alpha/2}^2 / 2 (Guenther, The American Statistician
                  1981), with the variance and the difference that were observed

Why these: most users have 0 in both models, so few differ. Where four of 50 do and all prefer the same model, t has
p = 0.044, though chance alone does that once in eight times; counting the exchanges says so. From 17 users who differ
on the two agree. Tests that use the estimated skewness of d raise false alarms of 20 % there. What is used here is
measured by benchmarks/inference.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit

from persona_cli.errors import BadData, UsageError, nearest
from persona_cli.evaluation.intervals import Interval, lift_interval, paired_difference

Floats = NDArray[np.float64]

MARGIN, ALPHA, POWER = 0.01, 0.05, 0.80
EXACT_LIMIT = 16
"""Users who differ up to which all 2^16 exchanges are counted."""
_EQUAL = 1e-12
"""Differences within this of 0 are rounding: the same list, computed in another order."""


@dataclass(frozen=True)
class Comparison:
    """How `model` fared against `against` on one metric; `difference` and `lift` are of the first over the second."""

    model: str
    against: str
    metric: str
    difference: Interval
    lift: Interval | None
    """None where the mean of `against` is 0."""
    p: float
    p_holm: float
    verdict: Literal["better", "worse", "within noise"]
    """By `p_holm`: an interval of one row may exclude 0 and still be within noise, where several rows are looked at."""
    no_worse: bool
    """Whether it is shown to be no more than `margin` worse, relatively."""
    margin: float
    users_needed: int | None
    """Users to tell the two apart, were this difference the true one; None where it is 0."""
    users: int
    users_who_differ: int
    detectable: float | None
    """The difference that these users would show with 80 % power; None where none of them differ."""


def compared(
    per_user: Mapping[str, pl.DataFrame],
    metric: str,
    pairs: Sequence[tuple[str, str]],
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> list[Comparison]:
    """Compare each (model, against) of `pairs` on `metric`; all of them are one family for Holm.

    `per_user` has a frame for every model with `user_id` and the metric, one row a user, over the same users, in any
    order of rows. UsageError for an unknown model or metric, or a margin that is no share; BadData where users differ.
    """
    if not 0.0 <= margin < 1.0:
        raise UsageError(f"the margin is {margin}; expected a share from 0 to below 1, such as 0.01")
    names = dict.fromkeys(name for pair in pairs for name in pair)
    columns = _columns(per_user, metric, list(names))
    matched = [(columns[model], columns[against]) for model, against in pairs]
    chances = [paired_p(ours, theirs) for ours, theirs in matched]
    found = []
    for (model, against), (ours, theirs), p, p_holm in zip(pairs, matched, chances, holm(chances), strict=True):
        apart = _apart(ours, theirs)
        mean, variance = float(apart.mean()), float(apart.var(ddof=1)) if len(apart) > 1 else 0.0
        verdict: Literal["better", "worse"] = "better" if mean > 0 else "worse"
        found.append(
            Comparison(
                model=model,
                against=against,
                metric=metric,
                difference=paired_difference(apart, np.zeros_like(apart), level=1.0 - alpha),
                lift=lift_interval(ours, theirs, level=1.0 - alpha),
                p=p,
                p_holm=p_holm,
                verdict=verdict if p_holm < alpha else "within noise",
                no_worse=no_worse(ours, theirs, margin, alpha),
                margin=margin,
                users_needed=users_needed(variance, mean, alpha=alpha),
                users=len(apart),
                users_who_differ=int(np.count_nonzero(apart)),
                detectable=detectable(variance, len(apart), alpha=alpha),
            )
        )
    return found


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON types; intervals are {"value", "low", "high"}."""
    return {name: value._asdict() if isinstance(value, Interval) else value for name, value in vars(comparison).items()}


def paired_p(values: ArrayLike, baseline: ArrayLike) -> float:
    """Two-sided p of a mean difference of 0 between `values` and `baseline`, both (n_users,); 1 where nobody differs.

    Whatever the test, p is no less than 2^(1 - m) with m users who differ: of the ways to exchange the two models, one
    and its mirror image are as extreme as m users who all prefer the same model.
    """
    apart = _apart(np.asarray(values, np.float64), np.asarray(baseline, np.float64))
    differing = apart[apart != 0.0]
    if not len(differing):
        return 1.0
    if len(differing) <= EXACT_LIMIT:
        return _sign_flip(differing)
    error = float(apart.std(ddof=1)) / math.sqrt(len(apart))
    p = 0.0 if error == 0.0 else 2.0 * float(stdtr(len(apart) - 1, -abs(float(apart.mean())) / error))
    return max(p, 2.0 ** (1 - len(differing)))


def holm(chances: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: the i-th smallest of m, times m - i + 1, never below the one before."""
    adjusted, highest = [0.0] * len(chances), 0.0
    for place, index in enumerate(sorted(range(len(chances)), key=lambda index: chances[index])):
        highest = max(highest, min(1.0, (len(chances) - place) * chances[index]))
        adjusted[index] = highest
    return adjusted


def no_worse(values: ArrayLike, baseline: ArrayLike, margin: float = MARGIN, alpha: float = ALPHA) -> bool:
    """Whether `values` is shown to be no more than `margin` worse than `baseline`, both (n_users,): non-inferiority.

    With e = a - (1 - margin) b: mean(e) > t_{1-alpha} sqrt(V / n), V = s^2 + max(0, -k3 / s^2) mean(e). A long tail of
    e to the left hides losses that few users have seen, so it counts; one to the right is not relied on. False over a
    baseline of 0, which nothing can be worse than.
    """
    ours, theirs = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    apart = _apart(ours, theirs) + margin * theirs
    n_users, mean = len(apart), float(apart.mean())
    if mean < 0.0 or float(theirs.mean()) == 0.0:
        return False
    centred = apart - mean
    spread = float(centred @ centred)
    if n_users == 1 or spread == 0.0:
        return n_users > 1
    slope = float((centred**3).sum()) / spread
    variance = spread / (n_users - 1) + max(0.0, -slope) * mean
    return mean >= float(stdtrit(n_users - 1, 1.0 - alpha)) * math.sqrt(variance / n_users)


def users_needed(variance: float, difference: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Users to see a true mean difference, given the variance of the differences; None where the difference is 0.

    Two-sided paired t-test at `alpha` with `power`.
    """
    if difference == 0.0:
        return None
    edge = float(ndtri(1.0 - alpha / 2))
    users = (edge + float(ndtri(power))) ** 2 * variance / difference**2 + edge**2 / 2
    return max(2, math.ceil(users)) if math.isfinite(users) else None


def detectable(variance: float, users: int, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """The mean difference that `users` show with `power`: `users_needed` the other way round; None for too few."""
    edge = float(ndtri(1.0 - alpha / 2))
    if variance <= 0.0 or users <= edge**2 / 2:
        return None
    return (edge + float(ndtri(power))) * math.sqrt(variance / (users - edge**2 / 2))


def _sign_flip(differing: Floats) -> float:
    """Share of the 2^m exchanges whose sum is at least as far from 0; `differing` (m,) without zeros.

    By symmetry the sign of one difference stays. Sums that are equal but for rounding count as equal.
    """
    ordered = np.sort(np.abs(differing))[::-1] / float(np.abs(differing).max())
    sums = ordered[:1]
    for size in ordered[1:]:
        sums = np.concatenate([sums + size, sums - size])
    observed = abs(float(differing.sum())) / float(np.abs(differing).max())
    return float(np.mean(np.abs(sums) >= observed - 1e-9))


def _apart(ours: Floats, theirs: Floats) -> Floats:
    apart = ours - theirs
    return np.where(np.abs(apart) <= _EQUAL, 0.0, apart)


def _columns(per_user: Mapping[str, pl.DataFrame], metric: str, names: Sequence[str]) -> dict[str, Floats]:
    """The metric of every model, users in one order."""
    columns: dict[str, Floats] = {}
    users: pl.Series | None = None
    for name in names:
        if name not in per_user:
            raise UsageError(f"there is no model {name!r} to compare{nearest(name, per_user)}")
        frame = per_user[name].sort("user_id")
        known = set(frame.columns) - {"user_id"}
        if metric not in known:
            raise UsageError(f"there is no metric {metric!r} by user{nearest(metric, known)}")
        if not frame.height:
            raise BadData("there are no users to compare models on; expected at least one")
        if frame["user_id"].is_duplicated().any():
            raise BadData(f"{name} has two rows for one user; expected one row a user")
        if users is not None and not frame["user_id"].equals(users):
            raise BadData(f"{name} and {names[0]} were not asked about the same users")
        users = frame["user_id"]
        columns[name] = frame[metric].cast(pl.Float64).to_numpy()
    return columns
