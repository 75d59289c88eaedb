"""Bandit allocation: shares of new people for each variant of an experiment, and what may be concluded afterwards.

Rewards come late and in batches: an allocation is computed from what has arrived, written down, and holds for everybody
who comes until the next. Its shares are the propensities.

- Thompson (1933): a variant gets the chance that it is the best, by Beta posteriors for rewards of 0 and 1, by normal
  ones for others.
- UCB1 (Auer, Cesa-Bianchi and Fischer 2002): all for the variant with the largest mean + √(2 ln n / n_k).
- Discounted (Garivier and Moulines 2011): older batches count γ to the power of their age, for rewards that drift.

The mean of a variant that was allocated by its own success is biased, and its usual interval misses the truth too
often. `adaptive_mean` takes doubly robust scores, weighted by a power of the share, so that neither is the case (Hadad,
Hirshberg, Zhan, Wager and Athey 2021).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import UsageError
from persona_cli.experiments.inference import Estimated, around
from persona_cli.models.bandits import best

Floats = NDArray[np.float64]
Policy = Literal["thompson", "ucb1"]
Kind = Literal["binary", "number"]
_POINTS = 48
"""Quantiles of each posterior at which chances of being the best are summed: right to about 1e-3."""


class Arms(NamedTuple):
    """Sums of rewards by variant (…, k): they add and subtract, so shards, batches and erasures are exact."""

    n: Floats
    total: Floats
    square: Floats

    def plus(self, other: Arms) -> Arms:
        return Arms(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: Arms) -> Arms:
        return Arms(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def aged(self, discount: float) -> Arms:
        """A batch later: what was there counts `discount` (0 to 1) of what it did."""
        return Arms(*(mine * discount for mine in self))


def arms_of(variant: NDArray[np.int64], reward: Floats, k: int) -> Arms:
    """Sums of rewards (n,) of people in variants (n,) 0 to k - 1."""
    sums = (np.bincount(variant, weights, k) for weights in (np.ones(len(variant)), reward, reward * reward))
    return Arms(*(np.asarray(one, dtype=np.float64) for one in sums))


def shares(
    arms: Arms,
    policy: Policy = "thompson",
    kind: Kind = "binary",
    *,
    floor: float = 0.0,
    dropped: NDArray[np.bool_] | None = None,
) -> Floats:
    """Shares (…, k) of new people that add up to 1.

    Every variant that is not `dropped` (k,) gets at least `floor`, so that what it earns can still be told. Raises
    UsageError where floors leave nothing to allocate, or everything is dropped.
    """
    k = arms.n.shape[-1]
    active = np.ones(k, dtype=bool) if dropped is None else ~dropped
    if not active.any():
        raise UsageError("every variant is dropped: there is none to allocate to", "keep at least one variant")
    if floor * active.sum() > 1 + 1e-12 or floor < 0:
        raise UsageError(
            f"a floor of {floor} for each of {active.sum()} variants is more than everything",
            f"a floor is from 0 to {1 / active.sum():.3g}",
        )
    kept = Arms(*(one[..., active] for one in arms))
    if policy == "ucb1":
        chosen = np.argmax(ucb1(kept), axis=-1)
        won = np.asarray(chosen[..., None] == np.arange(active.sum()), dtype=np.float64)
    else:
        won = best_of_betas(kept) if kind == "binary" else best_of_normals(kept)
    found = np.zeros(arms.n.shape)
    found[..., active] = floor + (1.0 - floor * active.sum()) * won
    return found


def ucb1(arms: Arms) -> Floats:
    """Upper confidence bounds (…, k); infinite for a variant that nobody was in. Rewards are from 0 to 1."""
    everybody = np.maximum(arms.n.sum(axis=-1, keepdims=True), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = arms.total / arms.n + np.sqrt(2.0 * np.log(everybody) / arms.n)
    return np.where(arms.n > 0, bound, np.inf)


def best_of_betas(arms: Arms) -> Floats:
    """The chance (…, k) that each variant has the largest rate, by Beta(1 + successes, 1 + failures)."""
    from scipy import special

    a, b = 1.0 + arms.total, 1.0 + np.maximum(arms.n - arms.total, 0.0)

    # ∫ f_i Π F_j over a grid that is fine where any of the posteriors has its mass
    levels = (np.arange(_POINTS) + 0.5) / _POINTS
    levels = np.concatenate(([1e-9, 1e-5, 1e-3], levels, [1 - 1e-3, 1 - 1e-5, 1 - 1e-9]))
    at = special.betaincinv(a[..., None], b[..., None], levels)
    at = np.sort(at.reshape(*at.shape[:-2], -1), axis=-1)
    cdf = special.betainc(a[..., None], b[..., None], at[..., None, :])
    middle = (cdf[..., 1:] + cdf[..., :-1]) / 2.0
    mass = np.diff(cdf, axis=-1)
    chance = np.empty(a.shape)
    for one in range(a.shape[-1]):
        others = np.prod(np.delete(middle, one, axis=-2), axis=-2)
        chance[..., one] = (mass[..., one, :] * others).sum(axis=-1)
    return np.asarray(chance / chance.sum(axis=-1, keepdims=True))


def best_of_normals(arms: Arms) -> Floats:
    """The chance (…, k) that each variant has the largest mean, by normal posteriors with a flat prior.

    The spread of a variant of fewer than two people is that of everybody; nobody's mean is everybody's, with that
    spread.
    """
    n = np.maximum(arms.n, 1.0)
    people = np.maximum(arms.n.sum(axis=-1, keepdims=True), 1.0)
    general = arms.total.sum(axis=-1, keepdims=True) / people
    everybody = np.maximum(arms.square.sum(axis=-1, keepdims=True) / people - general**2, 1e-12)
    mean = np.where(arms.n > 0, arms.total / n, general)
    own = (arms.square - n * mean**2) / np.maximum(n - 1.0, 1.0)
    sd = np.sqrt(np.where(arms.n >= 2, np.maximum(own, 1e-12), everybody) / n)

    return np.asarray(best(mean, sd**2)[0])


def adaptive_mean(
    n: Floats, total: Floats, square: Floats, share: Floats, batch: Floats, power: float = 0.0
) -> Estimated:
    """The mean of one variant from its sums by batch, (…, n_batches), of everybody's number and its share there.

    `n`, `total`, `square`: people of the variant and their rewards; `share`: its allocation, over 0; `batch`: people of
    all variants. Scores are m + 1{in the variant} (y - m) / share with m the mean of earlier batches, each weighted by
    the share to a `power`. 0: unbiased, the choice where a floor keeps shares from vanishing; 0.5 keeps the variance of
    every batch alike where they may vanish, at the price of a bias.
    """
    before = np.cumsum(n, axis=-1) - n
    earlier = np.cumsum(total, axis=-1) - total
    m = np.where(before > 0, earlier / np.maximum(before, 1.0), 0.0)
    h = share**power
    weight = (h * batch).sum(axis=-1)
    value = (h * (batch * m + (total - n * m) / share)).sum(axis=-1) / weight
    # Σ (score - value)² of a batch: those in the variant, and those outside, whose score is m.
    off = m - value[..., None]
    scale = 1.0 / share
    residual = square - 2.0 * m * total + n * m * m
    inside = n * off**2 + 2.0 * off * scale * (total - n * m) + scale**2 * residual
    spread = (h**2 * (inside + (batch - n) * off**2)).sum(axis=-1)
    return around(value, np.sqrt(spread) / weight)


def adaptive_difference(one: Estimated, other: Estimated) -> Estimated:
    """`one` less `other`, of the same experiment: their errors are asymptotically uncorrelated (the same source)."""
    return around(one.value - other.value, np.sqrt(one.se**2 + other.se**2))
