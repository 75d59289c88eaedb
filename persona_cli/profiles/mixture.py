"""Durations as mixtures of log-normal distributions: the fit, and how far its shares may be from the truth.

Mixtures of log-normal distributions, fitted to durations that were rounded and cut off.

The logarithm z of a duration is a mixture of normals, f(z) = Σ_k π_k φ((z - μ_k) / σ_k) / σ_k. What was recorded are
counts by interval (a whole second stands for half a second on either side); durations outside [low, high] were not
recorded. EM for such grouped and truncated data is McLachlan & Jones (Fitting mixture models to grouped and truncated
data via the EM algorithm, Biometrics 44, 1988): the step of expectation also imagines the durations that are missing.
No step lowers the likelihood. Steps are extrapolated by SQUAREM (Varadhan & Roland, Simple and globally convergent
methods for accelerating the convergence of any EM algorithm, Scandinavian Journal of Statistics 35, 2008), which is
taken back where it does not help.

How far the fitted shares of a mixture may lie from the true ones: standard errors by the likelihood's curvature.

With p_b the chance of bin b given that it was recorded, c_b its count and g_b = ∂ log p_b / ∂θ, the information is
I = Σ c_b g_b g_bᵀ (Berndt, Hall, Hall & Hausman, Estimation and inference in nonlinear structural models, 1974), and a
share s(θ) has the standard error √(∇sᵀ I⁻¹ ∇s): the bound of Cramér and Rao, which no unbiased estimate gets below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST_SD = 0.05
"""Of log-durations: a narrower component would be a single value that was recorded often."""
_BEYOND = 1.0  # how far beyond `high` (in logs) the centre of a component may lie, which data cannot tell
_SINGLE, _WIDTH = 50, 0.02  # multiples of the resolution that have a bin of their own; the width of others in logs
_STEPS = 1500
_TOLERANCE = 1e-9  # of the mean log-likelihood of an observation, over one extrapolated step
_LOG_ROOT = 0.5 * np.log(2 * np.pi)


class Mixture(NamedTuple):
    """Components (k,), by ascending median: shares π before anything is cut off, means and sds of log-durations."""

    weights: Floats
    means: Floats
    sds: Floats


@dataclass(frozen=True)
class Durations:
    """Counts of durations by what was recorded, ready to be fitted."""

    counts: Floats
    """(n_bins,) how many."""
    nodes: Floats
    """(n_nodes,) log-durations at which the density of a bin is taken (Gauss-Legendre); a point has one."""
    shares: Floats
    """(n_nodes,) their quadrature weights: a bin's probability is Σ shares · f(nodes)."""
    starts: NDArray[np.int64]
    """(n_bins,) where the nodes of each bin begin."""
    low: float
    """No shorter log-duration was recorded; -inf: nothing is cut off there."""
    high: float

    @property
    def total(self) -> float:
        return float(self.counts.sum())


def points(values: Floats, low: float = 0.0, high: float = np.inf) -> Durations:
    """Exact durations (n,) above 0, none shorter than `low` or longer than `high` recorded; all in seconds."""
    z, counts = np.unique(np.log(values), return_counts=True)
    with np.errstate(divide="ignore"):
        ends = np.log(low), np.log(high)
    return Durations(counts.astype(float), z, np.ones(len(z)), np.arange(len(z)), float(ends[0]), float(ends[1]))


def rounded(values: Floats, resolution: float, high: float = np.inf) -> Durations:
    """Durations (n,) that were rounded to multiples of `resolution` (seconds), of which 0 is left out.

    None longer than `high` were recorded. What was rounded to 0 says nothing, so durations below half of the
    resolution count as not recorded.
    """
    places = np.rint(values / resolution)
    upto = _edges(int(places.max(initial=1)))  # whole numbers: bins are (edge before, edge]
    counts = np.bincount(np.searchsorted(upto, places[places > 0]), minlength=len(upto))
    above, below = (np.append(0, upto[:-1]) + 0.5) * resolution, np.minimum((upto + 0.5) * resolution, high)
    kept = (counts > 0) & (above < below)
    counts, first, last = counts[kept], np.log(above[kept]), np.log(below[kept])
    nodes, shares, starts = quadrature(first, last)
    return Durations(counts.astype(float), nodes, shares, starts, float(np.log(resolution / 2)), float(np.log(high)))


def _edges(largest: int) -> Floats:
    """Whole numbers, every one while they are few and then every 2 %, so that a bin is never wider than it matters."""
    single = np.arange(1, _SINGLE + 1)
    steps = np.arange(1, max(int(np.ceil(np.log(max(largest, 1) / _SINGLE) / _WIDTH)) + 1, 1))
    return np.unique(np.concatenate([single, np.ceil(_SINGLE * np.exp(_WIDTH * steps))]))


def quadrature(first: Floats, last: Floats, wide: int = 8) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Nodes and weights for intervals (n_bins,): `wide` ones, or two where the density is nearly flat."""
    orders = np.where(last - first > 0.1, wide, 2)
    starts = np.cumsum(orders) - orders
    nodes, shares = np.empty(int(orders.sum())), np.empty(int(orders.sum()))
    for order in (2, wide):
        at, weight = np.polynomial.legendre.leggauss(order)
        there = np.flatnonzero(orders == order)
        places = starts[there][:, None] + np.arange(order)  # (n, order)
        half, middle = (last - first)[there] / 2, (last + first)[there] / 2
        nodes[places] = middle[:, None] + half[:, None] * at
        shares[places] = half[:, None] * weight
    return nodes, shares, starts


def fit(durations: Durations, n_components: int) -> Mixture:
    """The mixture of most likelihood that several starts find; deterministic. ValueError where there is nothing."""
    if not durations.total:
        raise ValueError("no durations to fit")
    begun = [_climbed(durations, start, 40) for start in _starts(durations, n_components)]
    begun.sort(key=lambda one: -log_likelihood(durations, one))
    finished = [_climbed(durations, start, _STEPS) for start in begun[:2]]
    best = max(finished, key=lambda one: log_likelihood(durations, one))
    order = np.argsort(best.means, kind="stable")
    return Mixture(best.weights[order], best.means[order], best.sds[order])


def log_likelihood(durations: Durations, mixture: Mixture) -> float:
    """Of the counts, given that only durations within the limits were recorded (a density for points)."""
    density = np.exp(log_densities(durations.nodes, mixture)) @ mixture.weights  # (n_nodes,)
    bins = np.add.reduceat(durations.shares * density, durations.starts)
    inside = 1 - float(mixture.weights @ outside(durations.low, durations.high, mixture).mass.sum(axis=0))
    if inside <= 0:
        return -np.inf
    return float(durations.counts @ np.log(np.maximum(bins, 1e-300))) - durations.total * float(np.log(inside))


def bic(durations: Durations, mixture: Mixture) -> float:
    """The Bayesian information criterion (Schwarz 1978): the smaller the better."""
    return -2 * log_likelihood(durations, mixture) + (3 * len(mixture.weights) - 1) * float(np.log(durations.total))


def recorded_shares(durations: Durations, mixture: Mixture) -> Floats:
    """(k,) shares of the components among durations within the limits."""
    inside = mixture.weights * (1 - outside(durations.low, durations.high, mixture).mass.sum(axis=0))
    return np.asarray(inside / inside.sum())


def step(durations: Durations, mixture: Mixture) -> Mixture:
    """One step of EM."""
    nodes = durations.nodes[:, None]  # (n_nodes, 1)
    joint = durations.shares[:, None] * np.exp(log_densities(durations.nodes, mixture)) * mixture.weights
    bins = np.add.reduceat(joint.sum(axis=1), durations.starts)
    ratio = durations.counts / np.maximum(bins, 1e-300)
    lengths = np.diff(durations.starts, append=len(durations.nodes))
    taken = joint * np.repeat(ratio, lengths)[:, None]  # (n_nodes, k): expected counts
    out = outside(durations.low, durations.high, mixture)
    # For each recorded duration, so many of each component went unrecorded.
    missing = mixture.weights * out.mass  # (2, k)
    missing *= durations.total / max(1 - missing.sum(), 1e-12)
    number = taken.sum(axis=0) + missing.sum(axis=0)
    first = (taken * nodes).sum(axis=0) + (missing * out.mean).sum(axis=0)
    upper = durations.high + _BEYOND if np.isfinite(durations.high) else np.inf
    # A component that has lost everything stays where it was.
    alive, number = number > 1e-9, np.maximum(number, 1e-9)
    means = np.where(alive, np.minimum(first / number, upper), mixture.means)
    spread = (taken * (nodes - means) ** 2).sum(axis=0)
    spread += (missing * (out.variance + (out.mean - means) ** 2)).sum(axis=0)
    sds = np.where(alive, np.sqrt(spread / number), mixture.sds)
    return Mixture(number / number.sum(), means, np.maximum(sds, SMALLEST_SD))


class Outside(NamedTuple):
    """Of components (…, k) below and above the limits (2, …, k): mass, and mean and variance of the logs there."""

    mass: Floats
    mean: Floats
    variance: Floats


def outside(low: float, high: float, mixture: Mixture) -> Outside:
    """What lies beyond log-durations `low` and `high`."""
    from scipy.special import log_ndtr, ndtr  # here: fitted dwell needs it, reading a profile does not

    sides = []
    for limit, sign in ((low, -1.0), (high, 1.0)):
        if not np.isfinite(limit):
            sides.append((np.zeros_like(mixture.means), mixture.means, mixture.sds**2))
            continue
        a = sign * (limit - mixture.means) / mixture.sds  # beyond a in the direction of the sign
        log_mass = log_ndtr(-a)
        hazard = np.exp(-0.5 * a**2 - _LOG_ROOT - log_mass)
        variance = mixture.sds**2 * np.maximum(1 + a * hazard - hazard**2, 1e-12)
        sides.append((ndtr(-a), mixture.means + sign * mixture.sds * hazard, variance))
    mass, mean, variance = (np.stack(part) for part in zip(*sides, strict=True))
    return Outside(mass, mean, variance)


def log_densities(z: Floats, mixture: Mixture) -> Floats:
    """Of log-durations z (n,) under each component (n, k)."""
    return np.asarray(-0.5 * ((z[:, None] - mixture.means) / mixture.sds) ** 2 - np.log(mixture.sds) - _LOG_ROOT)


def _climbed(durations: Durations, mixture: Mixture, steps: int) -> Mixture:
    """After EM steps until the likelihood stands still; every third one extrapolated (SQUAREM, scheme S3)."""
    reached = log_likelihood(durations, mixture)
    for _ in range(max(steps // 3, 1)):
        one = step(durations, mixture)
        two = step(durations, one)
        here, there, beyond = (_free(m) for m in (mixture, one, two))
        moved, turned = there - here, beyond - 2 * there + here
        length = -max(float(np.linalg.norm(moved)) / max(float(np.linalg.norm(turned)), 1e-12), 1.0)
        leapt = step(durations, _bound(here - 2 * length * moved + length**2 * turned, durations))
        gained = log_likelihood(durations, leapt)
        mixture = leapt if gained >= (plain := log_likelihood(durations, two)) else two
        now = max(gained, plain) if np.isfinite(gained) else plain
        if now - reached < _TOLERANCE * durations.total:
            break
        reached = now
    return mixture


def _free(mixture: Mixture) -> Floats:
    """Parameters without bounds: log-weights, means, log-sds."""
    return np.concatenate([np.log(np.maximum(mixture.weights, 1e-12)), mixture.means, np.log(mixture.sds)])


def _bound(free: Floats, durations: Durations) -> Mixture:
    weights, means, sds = np.split(free, 3)
    raised = np.exp(weights - weights.max())
    top = durations.high + _BEYOND if np.isfinite(durations.high) else 50.0
    return Mixture(raised / raised.sum(), np.clip(means, -50.0, top), np.clip(np.exp(sds), SMALLEST_SD, 20.0))


_CUTS = {
    1: ((),),
    2: ((0.3,), (0.5,), (0.7,), (0.9,)),
    3: ((0.1, 0.6), (0.3, 0.6), (0.2, 0.8), (0.4, 0.9), (0.05, 0.3)),
}
"""Where starts divide the sorted durations."""


def _starts(durations: Durations, n_components: int) -> list[Mixture]:
    """Each cuts the sorted durations at some quantiles, and has a component with the moments of each piece."""
    lengths = np.diff(durations.starts, append=len(durations.nodes))
    weight = durations.shares * np.repeat(
        durations.counts / np.add.reduceat(durations.shares, durations.starts), lengths
    )
    reached = np.cumsum(weight) / weight.sum()
    found = []
    for cuts in _CUTS[n_components]:
        piece = np.searchsorted(np.asarray(cuts), reached - 1e-12, side="right") if cuts else np.zeros(len(weight), int)
        mass = np.bincount(piece, weight, n_components)
        if not mass.all():
            continue
        mean = np.bincount(piece, weight * durations.nodes, n_components) / mass
        variance = np.bincount(piece, weight * (durations.nodes - mean[piece]) ** 2, n_components) / mass
        found.append(Mixture(mass / mass.sum(), mean, np.maximum(np.sqrt(variance), 0.2)))
    if not found:  # fewer values than components
        middle = float(durations.nodes @ weight / weight.sum())
        spread = np.linspace(-0.5, 0.5, n_components) if n_components > 1 else np.zeros(1)
        found = [Mixture(np.full(n_components, 1 / n_components), middle + spread, np.full(n_components, 0.5))]
    return found


_STEP = 1e-5


def share_error(durations: Durations, mixture: Mixture, components: Sequence[int]) -> float | None:
    """The standard error of the share that these components have among what was recorded.

    None where the data do not tell the parameters apart; 0 where the components are all there are.
    """
    k = len(mixture.weights)
    if len(set(components)) in (0, k):
        return 0.0

    def share(theta: Floats) -> Floats:
        shares: Floats = recorded_shares(durations, _mixture(theta, k))[list(components)]
        return np.array([shares.sum()])

    theta = np.concatenate([np.log(mixture.weights[1:] / mixture.weights[0]), mixture.means, np.log(mixture.sds)])
    scores = _gradient(lambda at: _log_chances(durations, _mixture(at, k)), theta)  # (n_theta, n_bins)
    information = (scores * durations.counts) @ scores.T
    scale = np.sqrt(np.diag(information))
    if not (np.isfinite(information).all() and (scale > 0).all()):
        return None
    standard = information / np.outer(scale, scale)
    if np.linalg.cond(standard) > 1e10:
        return None
    slope = _gradient(share, theta)[:, 0] / scale
    return float(np.sqrt(slope @ np.linalg.solve(standard, slope)))


def _mixture(theta: Floats, k: int) -> Mixture:
    """Of log-odds against the first weight (k - 1,), means (k,) and logs of sds (k,)."""
    weights = np.exp(np.append(0.0, theta[: k - 1]))
    return Mixture(weights / weights.sum(), theta[k - 1 : 2 * k - 1], np.exp(theta[2 * k - 1 :]))


def _log_chances(durations: Durations, mixture: Mixture) -> Floats:
    """Of each bin, given that it was recorded (n_bins,)."""
    density = np.exp(log_densities(durations.nodes, mixture)) @ mixture.weights  # (n_nodes,)
    bins = np.add.reduceat(durations.shares * density, durations.starts)
    inside = 1 - float(mixture.weights @ outside(durations.low, durations.high, mixture).mass.sum(axis=0))
    return np.asarray(np.log(np.maximum(bins, 1e-300)) - np.log(inside))


def _gradient(of: Callable[[Floats], Floats], theta: Floats) -> Floats:
    """Central differences (n_theta, n)."""
    steps = _STEP * np.eye(len(theta))
    return np.stack([(of(theta + step) - of(theta - step)) / (2 * _STEP) for step in steps])
