"""How good stated chances are: do they tell users apart, and is what they say what happens?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_cli.models.propensity import line, logit

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
BINS = 10


def judged(chances: Values, happened: Flags) -> dict[str, Any]:
    """Figures of chances (n_users,) against what happened; None where one outcome never did.

    users, positives, base_rate; auc; log_loss; brier and brier_skill (1 - Brier / that of the base rate for everybody);
    ece; slope and intercept of the logistic regression of what happened on the log-odds stated: 1 and 0 are calibrated,
    a slope below 1 is too sure of itself.
    """
    n, wins = len(happened), int(happened.sum())
    found: dict[str, Any] = {"users": n, "positives": wins, "base_rate": wins / n if n else None}
    names = ("auc", "log_loss", "brier", "brier_skill", "ece", "slope", "intercept")
    if wins in (0, n):
        return found | dict.fromkeys(names)
    plain = wins / n * (1 - wins / n)
    squares = brier(chances, happened)
    slope, intercept = line(logit(chances), happened.astype(np.float64))
    values = (auc(chances, happened), log_loss(chances, happened), squares, 1 - squares / plain)
    return found | dict(zip(names, (*values, ece(chances, happened), slope, intercept), strict=True))


def auc(chances: Values, happened: Flags) -> float:
    """The share of pairs of one outcome each that are in the right order; equal chances count half."""
    values, which = np.unique(chances, return_inverse=True)
    wins = np.bincount(which, weights=happened, minlength=len(values))
    losses = np.bincount(which, minlength=len(values)) - wins
    below = np.concatenate(([0.0], np.cumsum(losses)[:-1]))
    return float((wins * (below + losses / 2)).sum() / (wins.sum() * losses.sum()))


def brier(chances: Values, happened: Flags) -> float:
    """Mean square of what was stated less what happened."""
    return float(((chances - happened) ** 2).mean())


def log_losses(chances: Values, happened: Flags) -> Values:
    """-log of the chance that was stated for what happened (n_users,)."""
    told = np.where(happened, chances, 1.0 - chances)
    return np.asarray(-np.log(np.clip(told, np.finfo(np.float64).eps, 1.0)), dtype=np.float64)


def log_loss(chances: Values, happened: Flags) -> float:
    return float(log_losses(chances, happened).mean())


def ece(chances: Values, happened: Flags) -> float:
    """Expected calibration error: the mean over ten bins of equal size of |mean chance - share that happened|.

    Users of one chance count as alike: where a bin ends among them, each side has its part of what happened.
    """
    values, which = np.unique(chances, return_inverse=True)
    sizes = np.bincount(which)
    places = np.concatenate(([0], np.cumsum(sizes)))
    gaps = np.concatenate(([0.0], np.cumsum(values * sizes - np.bincount(which, weights=happened))))
    edges = np.linspace(0, len(chances), BINS + 1)
    return float(np.abs(np.diff(np.interp(edges, places, gaps))).sum() / len(chances))
