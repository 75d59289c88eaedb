"""Do lists keep the proportions of a user's own tastes, and do scores tell the chance of a hit?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import isotonic_regression

from persona_cli.evaluation.intervals import wilson

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

ALPHA = 0.01
"""Share of the history's own proportions in a list's, so that a category that the list lacks costs no infinity."""
BINS = 10
"""Of a two-sided interval of 95 %."""


def category_calibration(categories: Integers, tastes: sparse.csr_array, ks: Sequence[int]) -> dict[int, Floats]:
    """Kullback-Leibler divergence of each list's categories from those of the user's history, in bits (n_stated,).

        sum over c of p(c) log2(p(c) / q~(c)),   q~ = (1 - ALPHA) q + ALPHA p

    p: the history's strength by category as shares, from `tastes` (n_users, n_categories); q: shares of the categories
    among the list's first k items that have one, from `categories` (n_users, depth), -1 for those that have none. Users
    without a category on either side are left out.
    """
    strengths = tastes.data.astype(np.float64)
    owner = np.repeat(np.arange(tastes.shape[0]), np.diff(tastes.indptr))  # (n_tastes,)
    total = np.bincount(owner, weights=strengths, minlength=tastes.shape[0])
    p = strengths / total[owner]
    found = {}
    for k in ks:
        first = categories[:, :k]
        entries = (first >= 0).sum(axis=1)  # (n_users,)
        own = (first[owner] == tastes.indices[:, None]).sum(axis=1)
        q = own / np.maximum(entries[owner], 1)
        parts = p * np.log2(p / ((1.0 - ALPHA) * q + ALPHA * p))
        stated = (entries > 0) & (total > 0)
        sums = np.bincount(owner, weights=parts, minlength=len(total))[stated]
        found[k] = np.maximum(sums, 0.0)  # 0 is the least; a rounding error may fall below
    return found


def score_calibration(scores: Floats, hits: Flags, half: Flags) -> float | None:
    """Expected calibration error of scores as chances of a hit: 0 is best, in units of probability.

    `scores`, `hits`, `half` are of entries (n_entries,), `half` the same for all entries of a user. What a score says
    of the chance is learned from the entries of one half of the users (isotonic regression of hits on scores, linear
    between its steps) and tested on the other half, both ways round. The entries are then cut by chance into ten bins
    of equal size; the error is the mean over bins of |mean chance - hit rate|. Entries of one chance count as alike:
    where a bin ends among them, each side has its share of their hits. None where the scores are all equal, no entry
    is a hit, or a half is empty.
    """
    if not _telling(scores, hits) or half.all() or not half.any():
        return None
    chance = np.empty(len(scores))
    for learn, test in ((half, ~half), (~half, half)):
        steps, which = np.unique(scores[learn], return_inverse=True)
        sizes = np.bincount(which)
        rates = np.bincount(which, weights=hits[learn]) / sizes
        fitted = isotonic_regression(rates, weights=sizes).x
        chance[test] = np.interp(scores[test], steps, fitted)
    values, which = np.unique(chance, return_inverse=True)
    sizes = np.bincount(which)
    # Sums over the entries of least chance, linear within entries of one chance: (n_values + 1,).
    places = np.concatenate(([0], np.cumsum(sizes)))
    expected = np.concatenate(([0.0], np.cumsum(values * sizes)))
    happened = np.concatenate(([0.0], np.cumsum(np.bincount(which, weights=hits))))
    edges = np.linspace(0, len(chance), BINS + 1)
    gaps = np.diff(np.interp(edges, places, expected - happened))  # (BINS,)
    return float(np.abs(gaps).sum() / len(chance))


def score_bins(scores: Floats, hits: Flags) -> list[dict[str, Any]] | None:
    """Hit rate by score: ten bins of equal size, from low scores to high; None as of `score_calibration`.

    Each: low and high (least and greatest score), entries, hit_rate, and its Wilson interval of 95 % (hit_low,
    hit_high), which takes entries for independent. Equal scores share a bin, so bins may differ in size and be fewer.
    """
    if not _telling(scores, hits):
        return None
    steps, which = np.unique(scores, return_inverse=True)
    sizes = np.bincount(which)
    ends = np.cumsum(sizes)
    middle = ends - sizes / 2
    number = np.minimum((middle * BINS / len(scores)).astype(np.int64), BINS - 1)  # bin of each distinct score
    happened = np.bincount(which, weights=hits)
    found = []
    for one in np.unique(number):
        inside = number == one
        entries, wins = int(sizes[inside].sum()), int(happened[inside].sum())
        low, high = map(float, wilson(wins, entries))
        found.append(
            {
                "low": float(steps[inside][0]),
                "high": float(steps[inside][-1]),
                "entries": entries,
                "hit_rate": wins / entries,
                "hit_low": low,
                "hit_high": high,
            }
        )
    return found


def _telling(scores: Floats, hits: Flags) -> bool:
    """Whether scores differ and some entry is a hit."""
    return bool(len(scores) and scores.min() < scores.max() and hits.any())
