"""The regularised incomplete beta function at one half, without scipy: importing that takes longer than a profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_PRECISION = 1e-15
_TINY = 1e-300
_STEPS = 100_000
# Stirling's series of the logarithm of the gamma function: B_2k / (2k (2k - 1)).
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_SHIFT = 8


def below_half(a: Floats, b: Floats) -> Floats:
    """I_½(a, b) (n,), a and b at least 1: the chance that what is distributed as Beta(a, b) is below one half.

    The continued fraction 26.5.8 of Abramowitz and Stegun (1964) by the method of Lentz (1976); by the symmetry
    I_½(a, b) = 1 - I_½(b, a) it is only asked where it is quick.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    less, more = np.minimum(a, b), np.maximum(a, b)
    # The chance that the larger of the two is below one half: at most one half itself.
    logs = _log_gamma(less + more) - _log_gamma(less) - _log_gamma(more) - (less + more) * np.log(2.0) - np.log(more)
    chance = np.exp(logs) * _fraction(more, less)
    answer: Floats = np.where(a >= b, chance, 1.0 - chance)
    return answer


def _fraction(a: Floats, b: Floats) -> Floats:
    """The continued fraction at one half (n,), for a >= b."""
    value = np.ones(len(a))
    left = np.arange(len(a))
    d = 1.0 / _not_zero(1.0 - (a + b) / (a + 1.0) * 0.5)
    c, h = np.ones(len(a)), d.copy()
    for m in range(1, _STEPS):
        if not len(left):
            break
        even = m * (b - m) * 0.5 / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * 0.5 / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1.0 / _not_zero(1.0 + step * d)
            c = _not_zero(1.0 + step / c)
            change = d * c
            h = h * change
        value[left] = h
        on = np.abs(change - 1.0) > _PRECISION
        left, a, b, c, d, h = left[on], a[on], b[on], c[on], d[on], h[on]
    return value


def _not_zero(x: Floats) -> Floats:
    return np.where(np.abs(x) < _TINY, _TINY, x)


def _log_gamma(x: Floats) -> Floats:
    """The logarithm of the gamma function (n,), x at least 1."""
    below = np.ones(len(x))
    for k in range(_SHIFT):
        below = below * (x + k)
    z = x + _SHIFT
    series = sum(term / z ** (2 * k + 1) for k, term in enumerate(_STIRLING))
    answer: Floats = (z - 0.5) * np.log(z) - z + 0.5 * np.log(2 * np.pi) + series - np.log(below)
    return answer
