"""Intervals for those who look before the end.

open_ended   Valid at every look, for ever: the asymptotic confidence sequence with a normal mixture (Waudby-Smith,
             Arbour, Sinha, Kennedy and Ramdas 2021/2024). Narrowest near `planned` units: 1.55 x a fixed interval.
horizon      Valid at every look up to `planned` units, then over: a straight boundary for the sum, the continuous
             O'Brien-Fleming one. P(sup |B| > c on [0, 1]) = alpha gives c = 2.2414 at 5 %: 1.144 x at the end.
group        Valid at looks planned beforehand: alpha is spent by a function of the share of information (Lan and DeMets
             1983), wherever the looks fall, by recursive integration (Armitage, McPherson and Rowe 1969).

All take a difference and its standard error at a look. They lean on a variance estimated from what has come: a look
needs `FIRST_LOOK` units in all at least (before it the interval is everything).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from persona_cli.errors import UsageError, nearest

Floats = NDArray[np.float64]
FIRST_LOOK = 100
SPENDING = ("obrien-fleming", "pocock", "linear")
MOST_LOOKS = 50
FARTHEST = 8.0  # in standard errors: a boundary beyond it is never crossed


class Look(NamedTuple):
    """An interval that holds whenever it is looked at; arrays of one shape."""

    low: Floats
    high: Floats
    p: Floats
    """Valid at every look; the smallest so far may be kept."""


def mixture_rho2(planned: float, alpha: float = 0.05) -> float:
    """The mixture's variance that makes the sequence narrowest at about `planned` units."""
    log = -2 * float(np.log(alpha))
    return (log + float(np.log(log + 1))) / planned


def open_ended_times(n: ArrayLike, planned: float, alpha: float = 0.05) -> Floats:
    """Half the width of the confidence sequence at n units in all, in standard errors."""
    x = np.asarray(n, dtype=np.float64) * mixture_rho2(planned, alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(2 * (x + 1) / x * (np.log(x + 1) / 2 - np.log(alpha))))


def open_ended(difference: ArrayLike, se: ArrayLike, n: ArrayLike, planned: float, alpha: float = 0.05) -> Look:
    """The always-valid interval and p at n units in both arms together."""
    gap, error, units = (np.asarray(part, dtype=np.float64) for part in (difference, se, n))
    half = np.where(units >= FIRST_LOOK, error * open_ended_times(units, planned, alpha), np.inf)
    x = units * mixture_rho2(planned, alpha)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        square = np.where((gap == 0) & (error == 0), 0.0, (gap / error) ** 2)
        # 1 / the mixture of likelihood ratios: a supermartingale below 1 under no difference (Ville)
        p = np.minimum(np.exp(np.log1p(x) / 2 - square * x / (2 * (x + 1))), 1.0)
    return Look(gap - half, gap + half, np.where(units >= FIRST_LOOK, p, 1.0))


def crossing(boundary: ArrayLike) -> Floats:
    """P(sup |B(t)| > c for t in [0, 1]) of Brownian motion, by reflection: each side's images in turn."""
    c = np.asarray(boundary, dtype=np.float64)
    safe = np.where(c > 0, c, 1.0)
    inside, images = np.zeros_like(safe), np.zeros_like(safe)
    # P(sup |B| <= c) = 4/pi sum (-1)^k/(2k+1) exp(-(2k+1)^2 pi^2 / 8c^2), fast for small c; by images for large c
    for k in range(5):
        odd, sign = 2 * k + 1, (-1) ** k
        inside += 4 / np.pi * sign / odd * np.exp(-((odd * np.pi / safe) ** 2) / 8)
        images += 4 * sign * special.ndtr(-odd * safe)
    return np.where(np.isnan(c), np.nan, np.where(c <= 0, 1.0, np.where(c < 1, 1 - inside, images)))


def horizon_constant(alpha: float = 0.05) -> float:
    """The c of `horizon`: 2.2414 at 5 %."""
    return float(optimize.brentq(lambda c: float(crossing(c)) - alpha, 0.05, 10.0, xtol=1e-12))


def horizon(difference: ArrayLike, se: ArrayLike, n: ArrayLike, planned: float, alpha: float = 0.05) -> Look:
    """The interval valid at every look up to `planned` units; beyond them it is everything: the plan is over."""
    gap, error, units = (np.asarray(part, dtype=np.float64) for part in (difference, se, n))
    ready = (units >= FIRST_LOOK) & (units <= planned)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = error * np.sqrt(planned / units)
        half = np.where(ready, horizon_constant(alpha) * spread, np.inf)
        size = np.where((gap == 0) & (error == 0), 0.0, np.abs(gap) / spread)
    return Look(gap - half, gap + half, np.where(ready, crossing(size), 1.0))


def spent(fractions: ArrayLike, alpha: float = 0.05, spending: str = "obrien-fleming") -> Floats:
    """The share of alpha spent by each fraction of the information (Lan and DeMets 1983), two-sided."""
    t = np.minimum(np.asarray(fractions, dtype=np.float64), 1.0)
    if spending == "obrien-fleming":
        return np.asarray(4 * special.ndtr(-special.ndtri(1 - alpha / 4) / np.sqrt(t)))  # alpha / 2 on each side
    if spending == "pocock":
        return np.asarray(alpha * np.log1p((np.e - 1) * t))
    if spending == "linear":
        return alpha * t
    raise UsageError(f"no alpha spending {spending!r}{nearest(spending, SPENDING)}")


def exit_chances(bounds: ArrayLike, fractions: ArrayLike, drift: float = 0.0) -> Floats:
    """(K,) chances to leave +-bounds (standard errors) first at each look; their sum is the type I error, or the power
    where `drift`, the expected z at the full information, is not 0."""
    z, t = _looks(fractions, bounds)
    chances = np.zeros(z.size)
    state: _State | None = None
    for look in range(z.size):
        chances[look], state = _step(state, float(z[look]), float(t[look]), drift)
    return chances


class _State(NamedTuple):
    """The density of the sum, not yet out, at the nodes of a quadrature."""

    nodes: Floats
    mass: Floats
    fraction: float


def _step(state: _State | None, bound: float, fraction: float, drift: float) -> tuple[float, _State]:
    """The chance to be beyond +-bound at this look, and what goes on."""
    before = state if state is not None else _State(np.zeros(1), np.ones(1), 0.0)
    step = fraction - before.fraction
    root = float(np.sqrt(step))
    edge = min(bound, FARTHEST + abs(drift)) * float(np.sqrt(fraction))
    centre = before.nodes + drift * step
    out = before.mass @ (special.ndtr((-edge - centre) / root) + special.ndtr((centre - edge) / root))
    # nodes as dense as the next step may need: a Gaussian of width root is smooth between them
    nodes, weights = _quadrature(int(np.clip(np.ceil(8 * edge / root / 64), 1, 16)) * 64)
    nodes, weights = nodes * edge, weights * edge
    density = (
        np.exp(-(((nodes[:, None] - centre[None, :]) / root) ** 2) / 2) / (root * np.sqrt(2 * np.pi)) @ before.mass
    )
    return float(out), _State(nodes, weights * density, fraction)


@lru_cache
def _quadrature(size: int) -> tuple[Floats, Floats]:
    """Nodes and weights of Gauss and Legendre on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(size)
    return nodes, weights


def _looks(fractions: ArrayLike, bounds: ArrayLike | None = None) -> tuple[Floats, Floats]:
    t = np.atleast_1d(np.asarray(fractions, dtype=np.float64))
    z = np.broadcast_to(np.asarray(0.0 if bounds is None else bounds, dtype=np.float64), t.shape)
    if t.size == 0:
        raise UsageError("no looks; rising shares of the information above 0 and up to 1 were expected")
    wrong = np.flatnonzero((np.diff(t, prepend=0.0) <= 0) | (t > 1 + 1e-9) | np.isnan(t))
    if wrong.size:
        k = int(wrong[0])
        after = f" after {t[k - 1]:g}" if k else ""
        raise UsageError(
            f"look {k + 1} is at {t[k]:g} of the information{after}; rising shares above 0 and up to 1 were expected"
        )
    return np.asarray(z), t


def spending_bounds(fractions: ArrayLike, alpha: float = 0.05, spending: str = "obrien-fleming") -> Floats:
    """(K,) bounds in standard errors that spend alpha at looks of given information, wherever they fall."""
    _, t = _looks(fractions)
    budget = np.diff(spent(t, alpha, spending), prepend=0.0)
    bounds = np.zeros(t.size)
    state: _State | None = None
    for look, share in enumerate(budget):
        here = state
        fraction = float(t[look])

        def over(bound: float, share: float = share, here: _State | None = here, fraction: float = fraction) -> float:
            return _out(here, bound, fraction) - share

        bounds[look] = FARTHEST if over(FARTHEST) >= 0 else optimize.brentq(over, 0.0, FARTHEST, xtol=1e-10)
        _, state = _step(state, bounds[look], fraction, 0.0)
    return bounds


def _out(state: _State | None, bound: float, fraction: float) -> float:
    before = state if state is not None else _State(np.zeros(1), np.ones(1), 0.0)
    root, edge = float(np.sqrt(fraction - before.fraction)), bound * float(np.sqrt(fraction))
    below = special.ndtr((-edge - before.nodes) / root) + special.ndtr((before.nodes - edge) / root)
    return float(before.mass @ below)


def at_look(difference: float, se: float, fractions: ArrayLike, alpha: float = 0.05) -> Look:
    """The interval and p at the last of looks at shares of the information (K,), of alpha spent as O'Brien and Fleming.

    A repeated confidence interval, and the repeated p: the smallest alpha at which a plan of these looks would have
    been left here (Jennison and Turnbull 1989). Both hold at every look, whatever came of those before.
    """
    bound = float(spending_bounds(fractions, alpha)[-1])
    half = bound * se
    size = 0.0 if difference == 0 else abs(difference) / se if se > 0 else np.inf

    def over(log: float) -> float:
        return float(spending_bounds(fractions, np.exp(log))[-1]) - size

    least, most = np.log(1e-12), np.log(1 - 1e-9)
    if over(most) >= 0:
        p = 1.0
    elif over(least) <= 0:
        p = 1e-12
    else:
        p = float(np.exp(optimize.brentq(over, least, most, xtol=1e-9)))
    return Look(np.asarray(difference - half), np.asarray(difference + half), np.asarray(p))


def looks_to(look: int, looks: int, reached: float | None = None) -> tuple[float, ...]:
    """Shares of the information at the first `look` of `looks` equal ones; `reached` is the true share at the last.

    UsageError for a look that is not among them, or one at no more information than the look before.
    """
    if not 1 <= look <= looks:
        raise UsageError(f"look {look} of {looks}; expected one from 1 to {looks}")
    before = tuple(one / looks for one in range(1, look))
    here = look / looks if reached is None else min(reached, 1.0)
    if before and here <= before[-1]:
        raise UsageError(
            f"look {look} of {looks} comes after {100 * before[-1]:.3g} % of what is planned, "
            f"and {100 * here:.3g} % is there",
            f"--look {int(np.ceil(here * looks))}, or another --planned",
        )
    return (*before, here)


@lru_cache
def last_bound(looks: int, alpha: float = 0.05) -> float:
    """The bound of the last of so many equally spaced looks."""
    return float(spending_bounds(np.arange(1, looks + 1) / looks, alpha)[-1])


def alone(times: float) -> float:
    """The two-sided alpha of one look at so many standard errors."""
    return float(2 * special.ndtr(-times))


def inflation(bounds: ArrayLike, fractions: ArrayLike, alpha: float = 0.05, power: float = 0.8) -> float:
    """The largest sample of a group-sequential plan over that of one look with the same power."""
    z, t = _looks(fractions, bounds)
    fixed = float(special.ndtri(1 - alpha / 2) + special.ndtri(power))

    def short(drift: float) -> float:
        return float(exit_chances(z, t, drift).sum()) - power

    drift = float(optimize.brentq(short, 0.1, 4 * fixed, xtol=1e-8))
    return (drift / fixed) ** 2


@lru_cache
def inflated(looks: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """By what equally spaced looks multiply the people of one look: 1.02 for five at 5 % and 80 % power."""
    t = tuple((one + 1) / looks for one in range(looks))
    return 1.0 if looks == 1 else inflation(spending_bounds(t, alpha), t, alpha, power)
