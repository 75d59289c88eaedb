"""Before and around an experiment: users needed, the mismatch of shares, many metrics at once, segments.

Sizes follow from the variance a unit brings, whatever the metric; CUPED leaves 1 - rho^2 of it. Two
proportions, whose spread changes with the effect, have Cohen's 1988 arcsine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from persona_cli.errors import UsageError, nearest
from persona_cli.experiments.inference import Floats

SRM_BLOCKS = 0.001
"""Below this p no lift is to be believed: the assignment or the logging is broken (Fabijan et al. 2019)."""
SRM_WARNS = 0.01
CORRECTIONS = ("holm", "benjamini-hochberg", "none")


@lru_cache
def _shift(alpha: float, power: float) -> float:
    """The expected z that a two-sided test finds with that power, its far tail counted too."""
    if not 0 < alpha < power < 1:
        raise UsageError(f"alpha is {alpha} and power {power}; shares between 0 and 1 were expected, power the larger")
    z = float(special.ndtri(1 - alpha / 2))
    least = z + float(special.ndtri(power))
    return float(optimize.brentq(lambda d: special.ndtr(d - z) + special.ndtr(-d - z) - power, least - 1, least + 1))


def arcsine_size(control: ArrayLike, treatment: ArrayLike, alpha: float = 0.05, power: float = 0.8) -> Floats:
    """Users an arm for two proportions of equal arms, by the normal law of the arcsine of their roots."""
    p0, p1 = np.asarray(control, dtype=np.float64), np.asarray(treatment, dtype=np.float64)
    if ((p0 < 0) | (p0 > 1) | (p1 < 0) | (p1 > 1)).any():
        raise UsageError(f"proportions {p0.tolist()} and {p1.tolist()}; shares from 0 to 1 were expected")
    apart = 2 * np.arcsin(np.sqrt(p1)) - 2 * np.arcsin(np.sqrt(p0))
    with np.errstate(divide="ignore"):
        return np.asarray((_shift(alpha, power) / np.abs(apart)) ** 2 * 2)


def size(
    variance: ArrayLike,
    effect: ArrayLike,
    alpha: float = 0.05,
    power: float = 0.8,
    treatment_variance: ArrayLike | None = None,
    ratio: float = 1.0,
) -> Floats:
    """Units of the control for a difference `effect`; the treatment has `ratio` times as many. Two-sided, normal."""
    v0 = np.asarray(variance, dtype=np.float64)
    v1 = v0 if treatment_variance is None else np.asarray(treatment_variance, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray((v0 + v1 / ratio) * (_shift(alpha, power) / np.asarray(effect, dtype=np.float64)) ** 2)


def detectable(
    variance: ArrayLike, n_control: ArrayLike, n_treatment: ArrayLike, alpha: float = 0.05, power: float = 0.8
) -> Floats:
    """The smallest difference found with that power, in the metric's own unit: `size` turned round."""
    v, n0, n1 = (np.asarray(part, dtype=np.float64) for part in (variance, n_control, n_treatment))
    return np.asarray(_shift(alpha, power) * np.sqrt(v / n0 + v / n1))


def power_of(
    variance: ArrayLike, effect: ArrayLike, n_control: ArrayLike, n_treatment: ArrayLike, alpha: float = 0.05
) -> Floats:
    """The chance that a two-sided test finds a difference `effect` (both of its tails)."""
    v, gap, n0, n1 = (np.asarray(part, dtype=np.float64) for part in (variance, effect, n_control, n_treatment))
    z, shift = special.ndtri(1 - alpha / 2), gap / np.sqrt(v / n0 + v / n1)
    return np.asarray(special.ndtr(shift - z) + special.ndtr(-shift - z))


class Mismatch(NamedTuple):
    """A sample ratio mismatch: the chance to see shares as far from the planned ones."""

    statistic: Floats
    """Chi-square, or the e-value of the sequential test."""
    p: Floats


def srm(counts: ArrayLike, shares: ArrayLike | None = None) -> Mismatch:
    """Chi-square of users (..., arms) against planned shares (equal where None); a look at the end."""
    seen, planned = _counts(counts, shares)
    expected = seen.sum(axis=-1, keepdims=True) * planned
    with np.errstate(divide="ignore", invalid="ignore"):
        chi2 = np.where(expected > 0, (seen - expected) ** 2 / expected, 0.0).sum(axis=-1)
    return Mismatch(chi2, np.asarray(special.chdtrc(seen.shape[-1] - 1, chi2)))


def sequential_srm(counts: ArrayLike, shares: ArrayLike | None = None, strength: float = 100.0) -> Mismatch:
    """Valid at every look: the Bayes factor of a Dirichlet around the planned shares against the shares themselves
    (Lindon and Malek 2020). 1 / e bounds the chance that it ever gets so large; users (..., arms)."""
    seen, planned = _counts(counts, shares)
    prior = strength * planned
    total = seen.sum(axis=-1)
    log = special.gammaln(strength) - special.gammaln(strength + total)
    log = log + (special.gammaln(prior + seen) - special.gammaln(prior) - special.xlogy(seen, planned)).sum(axis=-1)
    e = np.exp(np.minimum(log, 700.0))
    return Mismatch(np.asarray(e), np.asarray(np.minimum(np.exp(-log), 1.0)))


def _counts(counts: ArrayLike, shares: ArrayLike | None) -> tuple[Floats, Floats]:
    seen = np.asarray(counts, dtype=np.float64)
    arms = seen.shape[-1] if seen.ndim else 0
    if arms < 2:
        raise UsageError(f"users of {arms} arms; at least 2 were expected")
    planned = np.full(arms, 1 / arms) if shares is None else np.asarray(shares, dtype=np.float64)
    if planned.shape != (arms,) or (planned <= 0).any():
        raise UsageError(f"shares {planned.tolist()} for {arms} arms; as many, all above 0, were expected")
    return seen, planned / planned.sum()


class Corrected(NamedTuple):
    """p values of several questions, and how each came about."""

    p: Floats
    """(m,) corrected, in the order given."""
    reject: np.ndarray[tuple[int], np.dtype[np.bool_]]
    chain: tuple[str, ...]
    """What was done, a line a step, to be printed."""


def correct(p: ArrayLike, alpha: float = 0.05, method: str = "holm", names: tuple[str, ...] = ()) -> Corrected:
    """Holm 1979 (the chance of any false finding) or Benjamini and Hochberg 1995 (the share of false findings)."""
    if method not in CORRECTIONS:
        raise UsageError(f"no correction {method!r}{nearest(method, CORRECTIONS)}")
    raw = np.atleast_1d(np.asarray(p, dtype=np.float64))
    asked = np.flatnonzero(~np.isnan(raw))
    m = asked.size
    order = asked[np.argsort(raw[asked], kind="stable")]
    sorted_p, place = raw[order], np.arange(1, m + 1)
    factors = {"holm": m - place + 1.0, "benjamini-hochberg": m / place, "none": np.ones(m)}[method]
    by_place = np.minimum(sorted_p * factors, 1.0)
    if method == "holm":
        by_place = np.maximum.accumulate(by_place)
    elif method == "benjamini-hochberg":
        by_place = np.minimum.accumulate(by_place[::-1])[::-1]
    found = np.full(raw.shape, np.nan)
    found[order] = by_place
    told = {
        "holm": f"Holm over {m} tests: the chance of any false finding is at most {alpha:g}",
        "benjamini-hochberg": f"Benjamini-Hochberg over {m} tests: at most {alpha:g} of findings are false on average",
        "none": f"no correction over {m} tests: each is false with chance {alpha:g}",
    }
    labels = names or tuple(f"test {place}" for place in range(1, raw.size + 1))
    steps = (
        f"{labels[row]}: p {raw[row]:.4g} x {factor:g} -> {found[row]:.4g}"
        for row, factor in zip(order, factors, strict=True)
    )
    return Corrected(found, found <= alpha, (told[method], *steps))


class Shrunk(NamedTuple):
    """Effects of segments drawn towards their mean; (m,) each but the last three."""

    effect: Floats
    low: Floats
    high: Floats
    weight: Floats
    """How much of a segment's own effect is kept, 0 to 1."""
    mean: float
    spread: float
    """Standard deviation of the true effects between segments."""
    p: float
    """Of no difference between segments (Cochran's Q)."""


def shrink(effects: ArrayLike, errors: ArrayLike, alpha: float = 0.05) -> Shrunk:
    """Empirical Bayes over segments (Morris 1983): spread by Paule and Mandel 1982; intervals count the doubt about the
    common mean. Effects and standard errors (m,) of at least two segments."""
    y, se = np.asarray(effects, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    m = y.size
    if m < 2 or not (se > 0).all():
        raise UsageError(f"{m} segments; at least 2 with standard errors above 0 were expected")

    def around(tau2: float) -> tuple[float, float, float]:
        w = 1 / (se**2 + tau2)
        middle = float((w * y).sum() / w.sum())
        return middle, float((w * (y - middle) ** 2).sum()), float(w.sum())

    _, q, _ = around(0.0)
    tau2 = 0.0
    if q > m - 1:
        low, high = 0.0, float(y.max() - y.min()) ** 2 + 1e-300
        while around(high)[1] > m - 1:
            high *= 4
        for _ in range(200):
            tau2 = (low + high) / 2
            low, high = (tau2, high) if around(tau2)[1] > m - 1 else (low, tau2)
    middle, _, total = around(tau2)
    weight = tau2 / (tau2 + se**2)
    effect = middle + weight * (y - middle)
    half = special.ndtri(1 - alpha / 2) * np.sqrt(weight * se**2 + (1 - weight) ** 2 / total)
    return Shrunk(effect, effect - half, effect + half, weight, middle, tau2**0.5, float(special.chdtrc(m - 1, q)))
