"""Contextual bandits over linear rewards: which arm, for whom, and with what chance.

The reward of an arm is x·θ_arm with a Gaussian prior on θ, so that what is learned is ridge regression, and all that is
kept of the past are sums of integers by arm,

    n,   A = Σ x xᵀ,   b = Σ r x,   c = Σ r²       (x and r in fixed point of 2^-16)

They add and subtract without rounding: batches in any order, shards and erasures are exact. With `sharing` s the arms'
θ are correlated by s beforehand (s = 0: each arm for itself), which makes arms that were hardly tried lean on the rest.

- `thompson`: an arm gets the chance that it is the best (Thompson 1933; linear: Agrawal and Goyal 2013). Two arms: a
  normal cdf. More: ∫ φ_i Π_{j≠i} Φ_j by Gauss-Legendre quadrature. Correlated arms: draws, with the error stated.
- `linucb`: the arm with the largest mean + α sd (Li, Chu, Langford and Schapire 2010); equals share.
- `epsilon`: the arm with the largest mean.

Whatever the policy, the share `epsilon` of people is spread over all arms evenly, and the arm is *drawn from these
chances*: the propensity is the chance with which the arm was drawn, also where that was summed by draws.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import BadData, UsageError
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PolicyName = Literal["thompson", "linucb", "epsilon"]
POLICIES: tuple[PolicyName, ...] = ("thompson", "linucb", "epsilon")
ONE = 1 << 16
"""Fixed point of features and rewards; sums are in units of 2^-32."""
QUADRATURE_ERROR = 1e-9
"""Of chances that are integrated."""
FOLDER = ("derived", "bandits")
DRAWS = 8192
"""Of chances that are summed by draws: their standard error is at most 0.0055."""
# Products are at most 2^32, so that sums of so many are whole numbers of float64 in any order.
_EXACT_ROWS = 1 << 20
_CELLS = 1 << 21
_REACH = 8.0
_STEPS = 9
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_TIES = 12


class Sums(NamedTuple):
    """What is known of k arms over d features; leading dimensions are other bandits of the same shape."""

    n: Ints
    """Rewards that were learned from (…, k)."""
    a: Ints
    """Σ x xᵀ in units of 2^-32 (…, k, d, d)."""
    b: Ints
    """Σ r x in units of 2^-32 (…, k, d)."""
    c: Ints
    """Σ r² in units of 2^-32 (…, k)."""

    def plus(self, other: Sums) -> Sums:
        return Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: Sums) -> Sums:
        """Without what `other` had put in; ValueError where it is not in the sums."""
        found = Sums(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))
        if found.n.min(initial=0) < 0 or np.diagonal(found.a, axis1=-2, axis2=-1).min(initial=0) < 0:
            raise ValueError("these rewards are not in the sums that they are to be taken from")
        return found


def nothing(k: int, d: int) -> Sums:
    """The sums of nobody."""
    return Sums(*(np.zeros(shape, dtype=np.int64) for shape in ((k,), (k, d, d), (k, d), (k,))))


def quantised(values: Floats) -> Ints:
    """Numbers from -1 to 1 in units of 2^-16, to the nearest; BadData for others."""
    values = np.asarray(values, dtype=np.float64)
    if not (np.abs(values) <= 1.0).all():
        raise BadData("features and rewards of a bandit are numbers from -1 to 1", "scale them")
    return np.rint(values * ONE).astype(np.int64)


def sums_of(x: Floats, arm: Ints, reward: Floats, k: int) -> Sums:
    """Sums of features (n, d) and rewards (n,), both from -1 to 1, of arms (n,) 0 to k - 1."""
    found = nothing(k, x.shape[1])
    rows, rewards = quantised(x).astype(np.float64), quantised(reward).astype(np.float64)
    for one in range(k):
        chosen = np.flatnonzero(arm == one)
        found.n[one] = len(chosen)
        for start in range(0, len(chosen), _EXACT_ROWS):
            part = chosen[start : start + _EXACT_ROWS]
            q, r = rows[part], rewards[part]
            found.a[one] += (q.T @ q).astype(np.int64)
            found.b[one] += (q.T @ r).astype(np.int64)
            found.c[one] += np.int64(r @ r)
    return found


class Policy(NamedTuple):
    """How an arm is chosen by what is known."""

    name: PolicyName = "thompson"
    epsilon: float = 0.05
    """Share that is spread over all arms evenly."""
    alpha: float = 1.0
    """linucb: standard deviations above the mean; thompson: the factor of the posterior's."""
    ridge: float = 1.0
    """λ: the prior variance of a coefficient is noise / λ."""
    sharing: float = 0.0
    """Correlation of the arms' coefficients beforehand, 0 to under 1."""
    noise: float | None = None
    """Variance of a reward around x·θ; None: estimated, from 0.25 as of one more reward."""


class Posterior(NamedTuple):
    """The coefficients of k arms: Gaussian around `mean`."""

    mean: Floats
    """(…, k, d)"""
    spread: Floats
    """(A + λ)^-1 of each arm (…, k, d, d); with sharing of all together (…, k d, k d)."""
    noise: Floats
    """Variance of a reward (…); the covariance is noise · spread."""


class Chances(NamedTuple):
    """The chance of each arm."""

    p: Floats
    """(…, n, k), adds up to 1."""
    error: float
    """How far from the policy's own: 0 of closed forms, a bound of quadrature, a standard error of draws."""


def posterior(sums: Sums, policy: Policy) -> Posterior:
    """Bayesian ridge regression: mean (A + λ I)^-1 b; with sharing s, λ I becomes λ ((1 - s) I + s 11ᵀ)^-1 ⊗ I."""
    *_, k, d = sums.b.shape
    a, b, c = (part / float(ONE) ** 2 for part in (sums.a, sums.b, sums.c))
    if policy.sharing == 0.0:
        spread: Floats = np.linalg.inv(a + policy.ridge * np.eye(d)).astype(np.float64, copy=False)
        mean = (spread @ b[..., None])[..., 0]
    else:
        prior = np.linalg.inv((1.0 - policy.sharing) * np.eye(k) + policy.sharing)
        whole = np.broadcast_to(policy.ridge * np.kron(prior, np.eye(d)), (*a.shape[:-3], k * d, k * d)).copy()
        for one in range(k):
            at = slice(one * d, one * d + d)
            whole[..., at, at] += a[..., one, :, :]
        spread = np.linalg.inv(whole).astype(np.float64, copy=False)
        mean = (spread @ b.reshape(*b.shape[:-2], k * d, 1)).reshape(b.shape)
    if policy.noise is not None:
        return Posterior(mean, spread, np.full(sums.n.shape[:-1], policy.noise))
    left = c - 2.0 * (mean * b).sum(-1) + (mean[..., None, :] @ a @ mean[..., None])[..., 0, 0]
    noise = (np.maximum(left, 0.0).sum(-1) + 0.25) / (sums.n.sum(-1) + 1.0)
    return Posterior(mean, spread, noise)


def expected(found: Posterior, x: Floats) -> tuple[Floats, Floats]:
    """Means (…, n, k) and variances (…, n, k), or with sharing covariances (…, n, k, k), of rewards at x (…, n, d)."""
    *_, k, d = found.mean.shape
    mean = x @ np.swapaxes(found.mean, -1, -2)
    noise = found.noise[..., None, None]
    if found.spread.shape[-1] == d and found.spread.ndim == found.mean.ndim + 1:
        there = x[..., None, :, :] @ found.spread  # (…, k, n, d)
        variance = np.swapaxes((there * x[..., None, :, :]).sum(-1), -1, -2)
        return mean, noise * np.maximum(variance, 0.0)
    blocks = found.spread.reshape(*found.spread.shape[:-2], k, d, k, d)
    covariance = np.einsum("...ni,...kilj,...nj->...nkl", x, blocks, x, optimize=True)
    return mean, noise[..., None] * covariance


def chances(policy: Policy, found: Posterior, x: Floats, eligible: NDArray[np.bool_] | None = None) -> Chances:
    """The chance of each arm for features x (…, n, d), already in fixed point or rounded to it here.

    `eligible` (…, n, k): arms that may be chosen at all; UsageError where somebody has none.
    """
    x = quantised(x) / float(ONE)
    mean, variance = expected(found, x)
    if eligible is None:
        eligible = np.ones(mean.shape, dtype=bool)
    elif not eligible.any(axis=-1).all():
        raise UsageError("no arm may be chosen for somebody who is asked for", "leave them out, or open an arm to all")
    mean = np.where(eligible, mean, -np.inf)
    shared = variance.ndim > mean.ndim
    error = 0.0
    if policy.name == "thompson":
        p, error = best(mean, policy.alpha**2 * variance, shared)
    else:
        own = np.diagonal(variance, axis1=-2, axis2=-1) if shared else variance
        p = _largest(mean + policy.alpha * np.sqrt(own) if policy.name == "linucb" else mean)
    even = eligible / eligible.sum(axis=-1, keepdims=True)
    return Chances(policy.epsilon * even + (1.0 - policy.epsilon) * p, error * (1.0 - policy.epsilon))


def drawn(p: Floats, uniform: Floats) -> tuple[Ints, Floats]:
    """The arm (n,) that each number from 0 to under 1 (n,) falls on by chances (n, k), and its chance (n,)."""
    # Rounding may leave the last end under 1, and arms of no chance behind it.
    last = p.shape[-1] - 1 - np.argmax(p[..., ::-1] > 0, axis=-1)
    arm = np.minimum((np.cumsum(p, axis=-1) <= uniform[..., None]).sum(axis=-1), last).astype(np.int64)
    return arm, np.take_along_axis(p, arm[..., None], axis=-1)[..., 0]


def choose(
    policy: Policy, sums: Sums, x: Floats, uniform: Floats, eligible: NDArray[np.bool_] | None = None
) -> tuple[Ints, Floats]:
    """The arm (n,) of each row of features (n, d) and its propensity (n,), by a number from 0 to under 1 a row (n,).

    A row's arm follows from its features and its number alone: not from the others, nor from their order.
    """
    rows = quantised(x)
    if eligible is not None:
        rows = np.concatenate([rows, eligible.astype(np.int64)], axis=1)
    cells, place = np.unique(rows, axis=0, return_inverse=True)
    d = x.shape[1]
    there = None if eligible is None else cells[:, d:].astype(bool)
    if not len(cells):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    p = chances(policy, posterior(sums, policy), cells[:, :d] / float(ONE), there).p
    return drawn(p[place.reshape(-1)], uniform)


def _largest(score: Floats) -> Floats:
    score = np.round(score, _TIES)
    best = score == score.max(axis=-1, keepdims=True)
    return np.asarray(best / best.sum(axis=-1, keepdims=True))


def best(mean: Floats, variance: Floats, shared: bool = False) -> tuple[Floats, float]:
    """The chance that each of k normal arms has the largest value, of means (…, k), and its error.

    `variance` is (…, k) of independent arms, or (…, k, k) where they are `shared`.
    """
    from scipy.special import ndtr

    k = mean.shape[-1]
    if k == 1:
        return np.ones(mean.shape), 0.0
    if k == 2:
        spread = variance.sum(-1)
        if shared:
            spread = variance[..., 0, 0] + variance[..., 1, 1] - 2.0 * variance[..., 0, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (mean[..., 0] - mean[..., 1]) / np.sqrt(np.maximum(spread, 0.0))
        z = np.where(np.isnan(z), 0.0, z)
        return np.stack([ndtr(z), ndtr(-z)], axis=-1), 0.0
    rows = mean.reshape(-1, k)
    if shared:
        return _by_draws(rows, variance.reshape(-1, k, k)).reshape(mean.shape), float(np.sqrt(0.25 / DRAWS))
    step = max(1, _CELLS // (k * k * (2 * _STEPS) * len(_NODES)))
    sd = np.sqrt(np.maximum(variance.reshape(-1, k), 1e-30))
    parts = [_integrated(rows[i : i + step], sd[i : i + step]) for i in range(0, len(rows), step)]
    return np.concatenate(parts).reshape(mean.shape), QUADRATURE_ERROR


def _integrated(mean: Floats, sd: Floats) -> Floats:
    """P(arm i is the best) = ∫ φ_i Π_{j≠i} Φ_j of independent normals (n, k): pieces as fine as each arm's own scale.

    Between two neighbouring marks of all arms, each arm's density is a smooth piece of at most 2 sd, or practically 0.
    """
    from scipy.special import ndtr

    n = len(mean)
    marks = np.linspace(-_REACH, _REACH, _STEPS)
    ends = mean[:, :, None] + sd[:, :, None] * marks  # (n, k, steps)
    low = (mean - _REACH * sd).max(axis=1)[:, None]  # the best is not below
    high = (mean + _REACH * sd).max(axis=1)[:, None]
    ends = np.sort(np.clip(ends.reshape(n, -1), low, high), axis=1)
    half, middle = np.diff(ends, axis=1) / 2.0, (ends[:, 1:] + ends[:, :-1]) / 2.0
    t = (middle[:, :, None] + half[:, :, None] * _NODES).reshape(n, -1)  # (n, m)
    weight = (half[:, :, None] * _WEIGHTS).reshape(n, -1)
    z = (t[:, None, :] - mean[:, :, None]) / sd[:, :, None]  # (n, k, m)
    below = ndtr(z)
    density = np.exp(-0.5 * z * z) / (np.sqrt(2.0 * np.pi) * sd[:, :, None])
    before, after = np.ones_like(below), np.ones_like(below)
    np.cumprod(below[:, :-1], axis=1, out=before[:, 1:])
    after[:, :-1] = np.cumprod(below[:, :0:-1], axis=1)[:, ::-1]
    p = (density * before * after * weight[:, None, :]).sum(axis=2)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _by_draws(mean: Floats, covariance: Floats) -> Floats:
    """The same of correlated normals (n, k), by pairs of opposite draws that are the same for every row."""
    n, k = mean.shape
    half = np.random.default_rng(0).standard_normal((DRAWS // 2, k))
    z = np.concatenate([half, -half])
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    step = max(1, _CELLS // (DRAWS * k))
    found = np.empty((n, k))
    for start in range(0, n, step):
        part = slice(start, start + step)
        theta = mean[part, None, :] + z @ np.swapaxes(root[part], -1, -2)  # (rows, draws, k)
        best = theta.argmax(axis=2)
        found[part] = (best[:, :, None] == np.arange(k)).mean(axis=1)
    return found


class Learned(NamedTuple):
    """What a surface's arms have earned, as it is kept: sums alone, nobody's rows."""

    digest: str
    """Of the declaration that the sums follow from."""
    arms: tuple[str, ...]
    sums: Sums
    people: tuple[int, ...] = ()
    """Different people whose rewards are in the sums, by arm."""
    until: str | None = None
    """ISO 8601: the last event of anybody when they were summed; None: there was none."""
    waiting: int = 0
    """Decisions that were seen and whose window was still open."""


def learned_of(home: Home, surface: str) -> Learned | None:
    """What was learned for a surface; None where nothing was. BadData where the file is damaged."""
    path = _kept(home, surface)
    try:
        told = json.loads(path.read_bytes())
        sums = Sums(*(np.array(told[name], dtype=np.int64) for name in Sums._fields))
        k, d = len(told["arms"]), sums.b.shape[-1]
        if [part.shape for part in sums] != [(k,), (k, d, d), (k, d), (k,)]:
            raise ValueError("sums of other shapes")
        more = tuple(told["people"]), told["until"], int(told["waiting"])
        return Learned(told["digest"], tuple(told["arms"]), sums, *more)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadData(f"{path} is damaged ({error})", f"persona bandit update {surface}") from error


def learned_of_or_none(home: Home, surface: str) -> Learned | None:
    """As `learned_of`, where a damaged file counts as none: it is about to be replaced."""
    try:
        return learned_of(home, surface)
    except BadData:
        return None


def keep_learned(home: Home, surface: str, learned: Learned | None) -> bool:
    """Keep it in the place of what was there (None: remove that), if it is another; answers whether it was."""
    path = _kept(home, surface)
    if learned is None:
        there = path.exists()
        path.unlink(missing_ok=True)
        return there
    parts = {name: part.tolist() for name, part in learned.sums._asdict().items()}
    told = {**learned._asdict(), **parts}
    del told["sums"]
    text = json.dumps(told) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    artifacts.write_text(path, text)
    return True


def kept_surfaces(home: Home) -> list[str]:
    """Surfaces for which something was learned, sorted."""
    return sorted(path.stem for path in home.path(*FOLDER).glob("*.json"))


def _kept(home: Home, surface: str) -> Path:
    return home.path(*FOLDER, f"{surface}.json")
