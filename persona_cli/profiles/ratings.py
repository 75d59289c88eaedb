"""Ratings by how far they lie above or below the user's own mean: half of the people give nothing under 4.

With `signals.center_ratings`, a rating r of user u speaks for its item as

    1 + (r - m_u) / s,   m_u = (Σ r + k m) / (n + k)

over the n ratings of u until the moment. The overall mean m, the spread s of ratings around their users' means, and the
weight k come from the last `persona signals fit`: k = within / between, the variance of a user's ratings over that of
users' means, is the credibility estimate of Bühlmann and Straub (Glaubwürdigkeit für Schadensätze, 1970). Before a fit
the user's own mean stands alone (k = 0) and s = 1. A history keeps sum and number of ratings, which are integers and
merge; what they speak is derived when it is read.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.profiles import signal_fit
from persona_cli.profiles.cells import SMALLEST_CELL
from persona_cli.workspace.settings import Settings

Floats = NDArray[np.float64]
SETTING = "signals.center_ratings"
RATED, RATINGS = "rated", "ratings"
"""Columns of history: sum of the ratings in thousandths, and how many."""
MOST = 1000.0
"""The overall mean weighs no more than so many ratings, also where all users have one mean."""


class Centring(NamedTuple):
    """What users' means are drawn to, and what distances from them are measured in."""

    mean: float
    unit: float
    weight: float
    """Of the overall mean, in ratings."""


ALONE = Centring(0.0, 1.0, 0.0)


def centring(settings: Settings) -> Centring:
    """The one of the last fit, where that saw enough ratings."""
    found = signal_fit.load(settings.fitted).ratings if settings.fitted else None
    return ALONE if found is None else Centring(found["mean"], found["unit"], found["weight"])


def spoken(history: pl.DataFrame, starts: NDArray[np.int64], how: Centring) -> Floats:
    """What the ratings of each history row speak for its item (n_rows,); `starts` are the first rows of the users."""
    sums, n = (history[name].to_numpy().astype(np.int64) for name in (RATED, RATINGS))
    lengths = np.diff(starts, append=len(n))
    own, number = np.add.reduceat(sums, starts), np.add.reduceat(n, starts)
    weight = np.maximum(number + how.weight, 1e-9)  # of a user without ratings nothing is read
    means = (own / 1000 + how.weight * how.mean) / weight
    return n + (sums / 1000 - n * np.repeat(means, lengths)) / how.unit


def estimated(users: pl.DataFrame) -> Centring | None:
    """By n, total and squares (Σ r, Σ r²) of the ratings of each user; None where they don't tell.

    They do where `SMALLEST_CELL` users have two ratings or more, and not all of them alike.
    """
    n, total, squares = (users[name].to_numpy().astype(np.float64) for name in ("n", "total", "squares"))
    if int((n >= 2).sum()) < SMALLEST_CELL:
        return None
    number, mean = n.sum(), total.sum() / n.sum()
    within = float((squares - total**2 / n).sum()) / (number - len(n))
    if within <= 1e-9:
        return None
    between = float((n * (total / n - mean) ** 2).sum()) - (len(n) - 1) * within
    between /= number - float((n**2).sum()) / number
    weight = MOST if between <= within / MOST else within / between
    return Centring(*(round(float(value), 6) for value in (mean, within**0.5, weight)))
