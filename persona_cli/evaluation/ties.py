"""Equal scores: how often an item_id decided what is shown, and what NDCG would be if chance had.

Items of one score are in no order as far as the model goes. A list has to put them in one (here by item_id), and where
they hold right answers the figure depends on names. `ndcg_ties` is the mean over all orders of the tied items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData
from persona_cli.evaluation.coded import Coded, Hits, Metric, check_frame, entries_at, rows_among
from persona_cli.models.stored import positions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_NEVER = np.iinfo(np.int64).max


class _Groups(NamedTuple):
    """Entries of one score in one list, where there are several, or where items outside the list share it."""

    entries: Integers
    """The entries that are in a group (n_members,)."""
    group: Integers
    """The group of each (n_members,), ascending."""


def tied_by(coded: Coded, scores: Floats | None) -> Integers:
    """The first rank at which each list has shown two equal scores (n_listed,); the largest integer where none has."""
    assert coded.ranks is not None
    by = np.full(len(coded.users), _NEVER)
    if scores is not None:
        sequence, equal = _runs(coded, scores)
        later = np.flatnonzero(equal)
        entries = later if sequence is None else sequence[later]
        np.minimum.at(by, _rows(coded, entries), coded.ranks[entries])
    return by


def tie_share(by: Integers, k: int) -> float | None:
    """Share of the lists of which two of the first k + 1 entries have the same score, from `tied_by`; None without any.

    In a list ordered by score such entries are neighbours, so what stands in the top-k, or in which order, was decided
    by item_id and not by the model. A list of k entries cannot show a tie across the cut: give k + 1 to see it.
    """
    return float((by <= k + 1).mean()) if len(by) else None


def ndcg_ties(
    coded: Coded, scores: Floats | None, hits: Hits, ks: Sequence[int], boundary: pl.DataFrame | None = None
) -> dict[int, Floats]:
    """NDCG of each user expected over all orders of entries of one score: k to (n_users,), aligned with `hits.users`.

    A group of t items of which h are right gives each of its places the gain h / t. `hits` are of the whole lists, not
    of their first k: what is tied with an entry may stand below it. `boundary` (user_id, tied, tied_relevant) tells of
    lists whose last score is shared by items that did not come into them: how many items have it among all that could
    be shown, and how many of those are right. Without it a list's own entries are the group. Places that a list leaves
    empty gain nothing. Raises BadData where fewer items are said to be tied than the list itself holds.
    """
    assert coded.ranks is not None
    listed = rows_among(hits.users, coded.users)
    at = entries_at(coded, listed[hits.user], hits.rank)  # (n_hits,)
    edges, tied, right = _edges(coded, boundary)
    groups = _groups(coded, scores, edges)
    group_of = np.full(len(coded.codes), -1, dtype=np.int32)
    group_of[groups.entries] = groups.group
    loose = group_of[at] < 0  # hits that are tied with nothing
    size = np.bincount(groups.group)  # (n_groups,)
    won = np.bincount(group_of[at[~loose]], minlength=len(size))
    last = group_of[edges]
    if (tied < size[last]).any() or (right < won[last]).any() or (tied < right).any():
        raise BadData("the ties across the end of the lists count fewer items than the lists themselves hold")
    size[last], won[last] = tied, right
    owner = np.full(len(coded.users), -1, dtype=np.int64)  # row in hits.users of each list
    owner[listed[listed >= 0]] = np.flatnonzero(listed >= 0)
    first = groups.entries[np.searchsorted(groups.group, np.arange(len(size)))]
    users = owner[_rows(coded, first)]  # (n_groups,)
    known = users >= 0
    ranks = coded.ranks[groups.entries]
    found = {}
    for k in ks:
        gained = hits.per_user(np.where(loose & (hits.rank <= k), _discounts(hits.rank), 0.0))
        places = np.bincount(groups.group, weights=np.where(ranks <= k, _discounts(ranks), 0.0), minlength=len(size))
        worth = places * won / np.maximum(size, 1)
        gained += np.bincount(users[known], weights=worth[known], minlength=len(gained))
        ideal = np.cumsum(_discounts(np.arange(1, k + 1)))
        found[k] = gained / ideal[np.minimum(hits.relevant, k) - 1]
    return found


def _edges(coded: Coded, boundary: pl.DataFrame | None) -> tuple[Integers, Integers, Integers]:
    """The last entry of each list that a boundary tells of, items tied with it and right ones among them."""
    if boundary is None:
        none = np.zeros(0, dtype=np.int64)
        return none, none, none
    check_frame(boundary, "the ties across the end", {"user_id": pl.String, "tied": None, "tied_relevant": None})
    rows = positions(boundary["user_id"], coded.users)
    there = rows >= 0
    tied, right = (boundary[name].to_numpy().astype(np.int64)[there] for name in ("tied", "tied_relevant"))
    return coded.starts[rows[there] + 1] - 1, tied, right


def _groups(coded: Coded, scores: Floats | None, edges: Integers) -> _Groups:
    """Groups of tied entries; an entry of `edges` is in one even if nothing else in its list has its score."""
    n = len(coded.codes)
    sequence, equal = (None, np.zeros(n, dtype=bool)) if scores is None else _runs(coded, scores)
    member = equal.copy()
    member[:-1] |= equal[1:]
    if sequence is None:
        member[edges] = True
    else:
        place = np.empty(n, dtype=np.int64)
        place[sequence] = np.arange(n)
        member[place[edges]] = True
    inside = np.flatnonzero(member)
    return _Groups(inside if sequence is None else sequence[inside], np.cumsum(~equal[inside]) - 1)


def _runs(coded: Coded, scores: Floats) -> tuple[Integers | None, NDArray[np.bool_]]:
    """Entries list by list in order of score (None: they are), and which of them have the score of the one before."""
    heads = coded.starts[:-1]
    falls = np.append(True, scores[1:] <= scores[:-1])  # False for a missing score
    falls[heads] = True
    sequence = None
    if not falls.all():
        assert coded.ranks is not None
        row = np.repeat(np.arange(len(coded.users)), coded.lengths)
        sequence = np.lexsort((coded.ranks, -scores, row))
        scores = scores[sequence]
    equal = np.append(False, scores[1:] == scores[:-1]) if len(scores) else np.zeros(0, dtype=bool)
    equal[heads] = False
    return sequence, equal


def _rows(coded: Coded, entries: Integers) -> Integers:
    """The row of each entry."""
    return np.searchsorted(coded.starts, entries, side="right") - 1


def _discounts(ranks: Integers) -> Floats:
    discounts: Floats = 1.0 / np.log2(ranks + 1.0)
    return discounts


TIES: dict[str, Metric] = {
    "ndcg_ties": Metric(
        "NDCG expected over all orders of items of equal score: what scores earn, without the luck of names",
        "as ndcg, with the gain h / t at each place of a group of t items of equal score of which h are right answers; "
        "t and h count the whole group, also where it reaches beyond the end of the list",
        "0 to 1",
        "higher",
        "McSherry and Najork, ECIR 2008; tied groups as scikit-learn's ndcg_score",
        per_user=True,
    ),
    "tie_share": Metric(
        "share of lists in which two of the first k + 1 entries have the same score, so that item_id decided",
        "users with two equal scores at ranks 1..k + 1 / users with a list",
        "0 to 1",
        "lower",
        "McSherry and Najork, ECIR 2008 (tied scores)",
    ),
}
