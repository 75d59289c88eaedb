"""How far a list stands on the user, on users of like taste and on the context: by evidence and by divergence.

    individual = u,   cohort = (1 - u) c,   context = (1 - u) (1 - c)
    u = n⁴ / (n⁴ + E⁴),   E = evidence · (1 - d) · (1 + ½ max(0, 1 - users / few_users))
    c = n / (n + cohort_evidence)

n is the number of the user's events, d (0 to 1) how far the user's history surely is from what the cohort likes. It is
shrinkage with a prior of strength E (empirical Bayes, Efron & Morris 1975), which is weak for users whom the prior does
not describe: of two with as many events the one who differs more is served from the own history more. Evidence is
raised to a power because the cohort holds the middle, so both ends can be left sooner: with an evidence of 9 the
individual part has a tenth of the list at 5 events and nine tenths at 16. With a plain n it would have a third at 5,
where it may still be far behind the popular list, and would not have nine tenths at 50.

Below `few_users` up to half as much evidence again is asked for. By default that is off (0). Fewer users teach an
individual model less, but cohorts too, which are then fewer and wider, and in ml-1m their lists lose more
(`benchmarks/cold_start.py`).

Divergence is Jensen & Shannon's (Lin 1991) between the user's history and the cohort's list over cells of items:

    d = max(0, JS(p, q) - mean - deviation) / ln 2,   JS = ½ Σ_k p ln(p / m) + q ln(q / m),   m = (p + q) / 2

A short history differs from any list by chance alone. `mean` and `deviation` are those of JS where n items are drawn
from q itself: each cell's count is binomial, so its mean and variance are sums over x = 0 … n, and cells are added up
as if they were independent. An item's cell is the cohort that likes it most beyond what all do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import gammaln

from persona_cli.models.base import Floats
from persona_cli.models.cohort import Cohort

EVIDENCE, COHORT_EVIDENCE, FEW_USERS = 9.0, 2.0, 0
"""Where settings say "auto" and nothing was compared."""
STEEP = 4
"""The power of n in the individual share."""
# Lengths of histories for which chance is computed; between them it is interpolated, and beyond it falls as 1/n.
_LENGTHS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])

Numbers = NDArray[np.float64]


def individual_share(
    events: NDArray[np.int64], divergence: Numbers, users: int, evidence: float, few_users: float
) -> Numbers:
    """u by the events of each user and d (n_users,), where the individual model says something (n_users,).

    `users` is how many taught the individual model.
    """
    fewer = max(0.0, 1.0 - users / few_users) if few_users else 0.0
    return risen(events, evidence * (1.0 - divergence) * (1.0 + fewer / 2), STEEP)


def risen(events: NDArray[np.int64], half: Numbers | float, power: int = 1) -> Numbers:
    """n^power / (n^power + half^power), 0 without events (n_users,)."""
    raised = events.astype(np.float64) ** power
    made: Numbers = raised / np.maximum(raised + np.asarray(half, dtype=np.float64) ** power, 1e-300)
    return made


class Divergence:
    """How far users surely are from their cohorts; the tables that this needs are made once."""

    def __init__(self, cohort: Cohort) -> None:
        liked = cohort.shares_.astype(np.float64)  # (n_items, n_cohorts)
        self.cells = cells(liked, cohort.sizes_)  # (n_items,)
        self.n_cells = liked.shape[1]
        self.lists = np.zeros((self.n_cells, self.n_cells))  # q of each cohort (n_cohorts, n_cells)
        for number, column in enumerate(liked.T):
            self.lists[number] = np.bincount(self.cells, column, self.n_cells)
        self.lists /= np.maximum(self.lists.sum(axis=1, keepdims=True), 1e-300)
        self.means, self.deviations = chance(self.lists)

    def of(self, rows: sparse.csr_array, memberships: Floats) -> Numbers:
        """d of each user (n_users,): `rows` over the items of the cohort model, its `memberships` of these users."""
        found = np.zeros(rows.shape[0])
        told = np.flatnonzero(memberships.any(axis=1))
        if self.n_cells < 2 or not len(told):
            return found
        owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        places = owner * self.n_cells + self.cells[rows.indices]
        sums = np.bincount(places, rows.data, rows.shape[0] * self.n_cells).reshape(-1, self.n_cells)[told]
        total = sums.sum(axis=1)
        squares = np.bincount(owner, np.square(rows.data, dtype=np.float64), rows.shape[0])[told]
        n = np.maximum(total**2 / np.maximum(squares, 1e-300), 1.0)  # Kish's effective number of items
        own = memberships[told].argmax(axis=1)
        differs = jensen_shannon(sums / np.maximum(total, 1e-300)[:, None], self.lists[own])
        by_chance = _at(n, self.means, own) + _at(n, self.deviations, own)
        found[told] = np.clip((differs - by_chance) / np.log(2), 0.0, 1.0)
        return found


def cells(liked: Numbers, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cohort whose share (n_items, n_cohorts) is largest beside that of all users, of equal ones the first."""
    whole = liked @ (sizes / max(int(sizes.sum()), 1))  # (n_items,)
    beyond = liked / np.maximum(whole, 1e-300)[:, None]
    return beyond.argmax(axis=1).astype(np.int64) if liked.shape[1] else np.zeros(len(liked), dtype=np.int64)


def jensen_shannon(p: Numbers, q: Numbers) -> Numbers:
    """Divergence of rows in nats, 0 to ln 2 (n_rows,)."""
    return np.asarray(_terms(p, q).sum(axis=-1))


def chance(lists: Numbers) -> tuple[Numbers, Numbers]:
    """Mean and deviation of JS(p, q) for p of n draws from q, n in `_LENGTHS`: (n_lists, n_lengths) each."""
    means, deviations = (np.zeros((len(lists), len(_LENGTHS))) for _ in range(2))
    for row, exact in enumerate(lists):
        q = np.clip(exact, 1e-12, 1.0 - 1e-12)
        for column, n in enumerate(_LENGTHS):
            x = np.arange(n + 1, dtype=np.float64)[:, None]
            ways = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
            likely = np.exp(ways + x * np.log(q) + (n - x) * np.log1p(-q))  # (n + 1, n_cells)
            terms = _terms(x / n, exact)
            mean = (likely * terms).sum(axis=0)
            spread = np.maximum((likely * np.square(terms)).sum(axis=0) - np.square(mean), 0.0)
            means[row, column], deviations[row, column] = mean.sum(), np.sqrt(spread.sum())
    return means, deviations


def _terms(p: Numbers, q: Numbers) -> Numbers:
    """What each cell adds to JS(p, q)."""
    middle = np.maximum((p + q) / 2, 1e-300)
    mine = p * np.log(np.maximum(p, 1e-300) / middle)
    theirs = q * np.log(np.maximum(q, 1e-300) / middle)
    made: Numbers = np.where(p > 0, mine, 0.0) / 2 + np.where(q > 0, theirs, 0.0) / 2
    return made


def _at(n: Numbers, table: Numbers, rows: NDArray[np.int64]) -> Numbers:
    """Values of a table (n_lists, n_lengths) for lengths n >= 1, each of its row (n_users,); linear in between."""
    longest = float(_LENGTHS[-1])
    inside = np.minimum(n, longest)
    after = np.clip(np.searchsorted(_LENGTHS, inside, side="right"), 1, len(_LENGTHS) - 1)
    low, high = _LENGTHS[after - 1], _LENGTHS[after]
    part = (inside - low) / (high - low)
    between = table[rows, after - 1] * (1 - part) + table[rows, after] * part
    return np.asarray(between * np.minimum(1.0, longest / n))
