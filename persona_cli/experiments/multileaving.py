"""Merged lists whose chances are computed (`optimised`), and team drafts of more than two rankings.

Optimised interleaving (Radlinski and Craswell, WSDM 2013): of all lists that the two rankings could have picked in
turns, a distribution under which a click at any position says nothing for either on average, and which of all such
distributions tells the rankings apart best. Both are a linear program over at most 2^length lists:

    minimise    sum_L p(L) (sum_i credit(L_i) / i)^2          a random click weighs both rankings equally, list by list
    subject to  sum_L p(L) = 1,  sum_L p(L) credit(L_i) = 0 for every position i

with credit(x) = (rank of x in B - rank in A) / depth, an absent item one rank below the deeper list's end (the linear
credit of the paper; the objective is the spread of Schuth et al., CIKM 2014). Where no distribution satisfies the
constraints, which happens with rankings of unequal length, the row gets a team draft, credited as one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import UsageError
from persona_cli.experiments.merging import (
    NOBODY,
    PADDING,
    TEAM_A,
    Clicks,
    Floats,
    Ints,
    Teams,
    coins,
    distinct,
    draft,
    draws,
    places,
    uniforms,
)
from persona_cli.profiles.draws import Keys

DEEPEST = 10  # positions whose chances are computed: 2^10 lists; what follows them is credited to nobody


class Distribution(NamedTuple):
    """Lists that two rankings may be merged into, as numbers: rank r of A is r, rank r of B (not in A) is depth + r."""

    lists: Ints
    """(n_lists, length)"""
    chances: Floats
    """(n_lists,), their sum 1"""
    credit: Floats
    """(n_lists, length)"""


def optimised(a: Ints, b: Ints, keys: Keys, want: Ints, width: int) -> tuple[Ints, Teams, Floats]:
    """Optimised lists of columns `a` (k, n) and `b` (m, n): items, teams, credit (n, width), each as long as `want`.

    One linear program for each way in which two rankings overlap, milliseconds each: for thousands of pairs of
    rankings, not for millions. What follows the tenth item is as a draft would have it, for nobody.
    """
    a, b = a[:width], b[:width]
    depth = max(len(a), len(b))
    a, b = (np.concatenate((own, np.full((depth - len(own), own.shape[1]), PADDING, own.dtype))) for own in (a, b))
    places_b = places(b, a).astype(np.int64)
    beside = np.where(places_b < depth, places_b, -1)
    sizes = (a >= 0).sum(axis=0), (b >= 0).sum(axis=0)
    shapes = np.concatenate((np.array([*sizes, np.minimum(want, DEEPEST)]), beside)).T
    kinds, kind = np.unique(shapes, axis=0, return_inverse=True)
    chance, tossed = uniforms(keys, 1), coins(keys, width)
    both = np.concatenate((a, b))  # (2 depth, n): what a number of a list means in each row
    items = np.full((len(want), width), PADDING, dtype=a.dtype)
    teams = np.full((len(want), width), NOBODY, dtype=np.int8)
    credit = np.zeros((len(want), width))
    for index, shape in enumerate(kinds):
        rows = np.flatnonzero(kind.ravel() == index)
        merges = distribution(*(int(size) for size in shape[:3]), tuple(int(place) for place in shape[3:]))
        if merges is None:
            drafted, by = draft(a[:, rows], b[:, rows], tossed[:, rows], want[rows], False)
            items[rows], teams[rows] = drafted.T, by.T
            credit[rows] = np.where(by == TEAM_A, 1.0, np.where(by == NOBODY, 0.0, -1.0)).T
            continue
        drawn = np.searchsorted(np.cumsum(merges.chances)[:-1], chance[rows], side="right")
        length = merges.lists.shape[1]
        items[rows, :length] = both[merges.lists[drawn], rows[:, None]]
        credit[rows, :length] = merges.credit[drawn]
    if width > DEEPEST:
        short = np.flatnonzero((want > DEEPEST) & (items[:, DEEPEST] < 0))
        following, _ = draft(a, b, tossed, np.full(len(want), width), False)
        for row in short:
            shown = set(items[row, :DEEPEST].tolist())
            every = (*following[:, row].tolist(), *a[:, row].tolist(), *b[:, row].tolist())
            rest = [item for item in dict.fromkeys(every) if item >= 0 and item not in shown][: want[row] - DEEPEST]
            items[row, DEEPEST : DEEPEST + len(rest)] = rest
    return items, teams, credit


@lru_cache(maxsize=4096)
def distribution(size_a: int, size_b: int, length: int, beside: tuple[int, ...]) -> Distribution | None:
    """The chances of all lists that two rankings may be merged into; None where no distribution is unbiased.

    `beside` (depth,) says where in A each item of B stands, -1 where it does not.
    """
    from scipy.optimize import linprog

    depth = len(beside)
    ranking_a = list(range(size_a))
    ranking_b = [place if place >= 0 else depth + rank for rank, place in enumerate(beside[:size_b])]
    length = min(length, len({*ranking_a, *ranking_b}))
    grown: dict[tuple[int, ...], None] = {(): None}
    for _ in range(length):
        longer: dict[tuple[int, ...], None] = {}
        for merged in grown:
            for ranking in (ranking_a, ranking_b):
                best = next((item for item in ranking if item not in merged), None)
                if best is not None:
                    longer[(*merged, best)] = None
        grown = longer
    lists = np.array(list(grown), dtype=np.int64).reshape(len(grown), length)
    low = max(size_a, size_b)
    gain = np.zeros(2 * max(depth, 1))  # rank in B less rank in A, of each number
    for ranking, sign in ((ranking_a, -1), (ranking_b, 1)):
        ranks = np.full(len(gain), low)
        ranks[ranking] = np.arange(len(ranking))
        gain += sign * ranks
    credit = gain[lists] / max(low, 1)
    spread = (credit / np.arange(1, length + 1)).sum(axis=1) ** 2
    solved = linprog(
        spread,
        A_eq=np.vstack((np.ones(len(lists)), credit.T)),
        b_eq=np.array([1.0] + [0.0] * length),
        bounds=(0, 1),
        method="highs",
    )
    if solved.status != 0 or solved.x is None:
        return None
    chances = np.maximum(solved.x, 0.0)
    return Distribution(lists, chances / chances.sum(), credit)


def multileave(rankings: Ints, keys: Keys, length: int | None = None) -> tuple[Ints, Teams]:
    """Team draft of m rankings (n, m, k): items and teams (n, length), a team the index of a ranking, -1 nobody's.

    Schuth et al., CIKM 2014: each round draws an order of the rankings, in which each picks its best item left.
    Positions are credited down to the length of the shortest ranking, so that all have the same chance of each; two
    rankings are drafted as by `interleave`. A row where all rankings are the same credits nobody.
    Raises UsageError for fewer than 2 rankings or a length below 1.
    """
    n, m, k = rankings.shape
    if m < 2:
        raise UsageError(f"{m} rankings to be merged; expected 2 or more")
    if length is not None and length < 1:
        raise UsageError(f"length {length} of merged lists; expected 1 or more")
    columns = np.stack([distinct(rankings[:, ranker]) for ranker in range(m)])  # (m, k, n)
    listed = columns >= 0
    width = k if length is None else min(length, m * k)
    want = listed.sum(axis=1).max(axis=0) if length is None else np.full(n, width)
    if m == 2:
        pair = draft(columns[0], columns[1], coins(keys, width), want, False)
        items, teams = pair
    else:
        items, teams = _rounds(columns, keys, want, width)
    same = (columns[:, :width] == columns[:1, :width]).all(axis=(0, 1))
    teams[:, same] = NOBODY
    return items.T, teams.T


def _rounds(columns: Ints, keys: Keys, want: Ints, width: int) -> tuple[Ints, Teams]:
    """Items and teams (width, n) of drafts between more than two rankings (m, k, n)."""
    m, _, n = columns.shape
    rows = np.arange(n)
    left = columns >= 0
    items = np.full((width, n), PADDING, dtype=columns.dtype)
    teams = np.full((width, n), NOBODY, dtype=np.int8)
    order = np.zeros((m, n), dtype=np.int64)
    common = left.sum(axis=1).min(axis=0)
    for step in range(width):
        if step % m == 0:
            order = np.argsort(np.array([draws(keys, step + ranker) for ranker in range(m)]), axis=0, kind="stable")
        has: NDArray[np.bool_] = np.any(left, axis=1)
        team = np.full(n, NOBODY, dtype=np.int64)
        for turn in range(m):  # whose turn it is, or the next who has an item left
            next_ = order[(step + turn) % m]
            team = np.where((team < 0) & has[next_, rows], next_, team)
        going = (team >= 0) & (step < want)
        place = left.argmax(axis=1)[team, rows]
        picked = np.where(going, columns[team, place, rows], PADDING)
        items[step] = picked
        teams[step] = np.where(going & (step < common), team, NOBODY)
        left &= columns != picked
    return items, teams


def contests(items: Ints, teams: Teams, clicks: Clicks, rankers: int) -> Floats:
    """Who beat whom in each multileaved list (n, rankers, rankers): 1 where the row's ranker had more clicks, -1, 0."""
    clicked = (clicks > 0) & (items >= 0)
    counts = np.stack([(clicked & (teams == ranker)).sum(axis=1) for ranker in range(rankers)], axis=1)
    beaten: Floats = np.sign(counts[:, :, None] - counts[:, None, :]).astype(np.float64)
    return beaten
