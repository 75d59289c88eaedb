"""Which items lists show, how evenly, how new, and how different those of one list are.

Lists come as `codes` (n_users, depth): the item at each rank, -1 where the list holds none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadData
from persona_cli.models.base import Interactions
from persona_cli.models.stored import positions
from persona_cli.profiles.draws import keys

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WORK = 200_000_000
"""Look-ups for the cosines of one model's lists; beyond, a sample of the training users is taken instead of all."""


def diversity(codes: Integers, columns: sparse.csc_array, order: Integers, ks: Sequence[int]) -> dict[int, Floats]:
    """Mean over the pairs of each list's first k items of 1 - cosine, for lists that have a pair (n_listed,).

    cosine(i, j) = users with both / sqrt(users with i · users with j), 0 where nobody has one of them. `columns` are
    the training users of each item, sorted (n_training, n_items), values ignored; `order` are the training users in
    the order in which a sample takes them (n_training,).
    """
    depth = codes.shape[1]
    ahead, behind = np.triu_indices(depth, 1)  # (n_pairs,)
    first, second = codes[:, ahead], codes[:, behind]  # (n_users, n_pairs)
    there = (first >= 0) & (second >= 0)
    low, high = np.minimum(first, second)[there], np.maximum(first, second)[there]
    keys, which = np.unique(low * columns.shape[1] + high, return_inverse=True)
    found = cosines(columns, order, keys // columns.shape[1], keys % columns.shape[1])
    apart = np.zeros(there.shape)
    apart[there] = 1.0 - found[which]
    return _by_cutoff(apart, there, behind, ks)


def category_diversity(categories: Integers, ks: Sequence[int]) -> dict[int, Floats]:
    """Share of the pairs of each list's first k items whose categories differ, for lists that have a pair (n_listed,).

    `categories` (n_users, depth) are those of the items, -1 where there is none: such an item is in no pair.
    """
    ahead, behind = np.triu_indices(categories.shape[1], 1)
    first, second = categories[:, ahead], categories[:, behind]
    there = (first >= 0) & (second >= 0)
    return _by_cutoff((there & (first != second)).astype(np.float64), there, behind, ks)


def cosines(columns: sparse.csc_array, order: Integers, first: Integers, second: Integers) -> Floats:
    """Cosine of the users of item `first` and of item `second`, pair by pair (n_pairs,).

    The users of the more popular item are marked and those of the other looked up, so no table of items by items is
    made. Where that takes more than `WORK` look-ups, the users are the first of `order` for whom it does not.
    """
    degrees = np.diff(columns.indptr).astype(np.int64)
    work = int(np.minimum(degrees[first], degrees[second]).sum())
    if work > WORK:
        columns = _rows(columns, order[: max(1, int(len(order) * WORK / work))])
        degrees = np.diff(columns.indptr).astype(np.int64)
    swap = degrees[first] < degrees[second]
    big, small = np.where(swap, second, first), np.where(swap, first, second)
    both = np.zeros(len(first), dtype=np.int64)
    pairs = np.flatnonzero(degrees[small])
    pairs = pairs[np.argsort(big[pairs], kind="stable")]
    heads = np.flatnonzero(np.diff(big[pairs], prepend=-1))
    marked = np.zeros(columns.shape[0], dtype=np.uint8)
    for start, stop in zip(heads, np.append(heads, len(pairs))[1:], strict=True):
        own, partners = int(big[pairs[start]]), small[pairs[start:stop]]
        users = columns.indices[columns.indptr[own] : columns.indptr[own + 1]]
        marked[users] = 1
        lengths = degrees[partners]
        begins = np.cumsum(lengths) - lengths
        entries = np.arange(lengths.sum()) + np.repeat(columns.indptr[partners] - begins, lengths)
        both[pairs[start:stop]] = np.add.reduceat(marked[columns.indices[entries]], begins, dtype=np.int64)
        marked[users] = 0
    norms = np.sqrt(degrees[first].astype(np.float64)) * np.sqrt(degrees[second].astype(np.float64))
    found = np.zeros(len(first))
    np.divide(both, norms, out=found, where=norms > 0)
    return found


def _rows(columns: sparse.csc_array, kept: Integers) -> sparse.csc_array:
    """The entries of some rows only."""
    among = np.zeros(columns.shape[0], dtype=bool)
    among[kept] = True
    held = among[columns.indices]
    ends = np.concatenate(([0], np.cumsum(held)))[columns.indptr]
    return sparse.csc_array((columns.data[held], columns.indices[held], ends), shape=columns.shape)


def _by_cutoff(values: Floats, there: NDArray[np.bool_], behind: Integers, ks: Sequence[int]) -> dict[int, Floats]:
    """Mean of `values` (n_users, n_pairs) over the pairs within the first k places, of lists that have such a pair.

    `behind` is the later place of each pair (n_pairs,), from 0.
    """
    found = {}
    for k in ks:
        inside = behind < k
        pairs = there[:, inside].sum(axis=1)
        listed = pairs > 0
        found[k] = values[:, inside][listed].sum(axis=1) / pairs[listed]
    return found


FRESH_DAYS = 30
"""Days for which an item is fresh."""


def coverage(times: Integers) -> float:
    """Share of the items that are shown to anybody; `times` each item is shown (n_items,)."""
    return float(np.count_nonzero(times) / len(times))


def gini(times: Integers) -> float | None:
    """Gini coefficient of how often each item is shown (n_items,), many 0 times; None where nothing is shown.

    With x_(1) <= ... <= x_(n) the times shown, G = sum_i (2 i - n - 1) x_(i) / (n sum_i x_(i)): 0 when all items are
    shown alike, (n - 1) / n when one item is all that is shown.
    """
    shown = np.sort(times[times > 0]).astype(np.float64)
    if not len(shown):
        return None
    n_items = len(times)
    # Items never shown hold the first places and add 0.
    place = np.arange(n_items - len(shown) + 1, n_items + 1)
    return float((2 * place - n_items - 1) @ shown / (n_items * shown.sum()))


def self_information(users: Integers, n_users: int) -> Floats:
    """-log2(max(users, 1) / n_users) of each item in bits, from its number of users (n_items,).

    An item that nobody has counts as one user's. Raises BadData where an item has more users than there are.
    """
    over = int((users > n_users).sum())
    if over or n_users < 1:
        raise BadData(f"the popularity table counts more than all {n_users} users for {over} items")
    bits: Floats = np.log2(n_users / np.maximum(users, 1))
    return bits


def own_popularity(known: Interactions, popularity: Floats, items: pl.Series) -> Floats:
    """Mean popularity of the items of each user's history, NaN without one (n_known,); other items have none.

    `popularity` is of `items` (n_items,).
    """
    place = positions(known.items, items)
    worth = np.where(place >= 0, np.append(popularity, 0.0)[place], 0.0)  # (n_known_items,)
    strengths = known.strengths
    lengths = np.diff(strengths.indptr)
    total = np.concatenate(([0.0], np.cumsum(worth[strengths.indices])))  # whole numbers: exact in any order
    sums = total[strengths.indptr[1:]] - total[strengths.indptr[:-1]]
    means = np.full(len(lengths), np.nan)
    np.divide(sums, lengths, out=means, where=lengths > 0)
    return means


def fresh(items: pl.Series, first_seen: pl.DataFrame, as_of: datetime, days: int = FRESH_DAYS) -> Floats:
    """1 for each item first seen within `days` before `as_of`, else 0 (n_items,); nothing known of an item: 0."""
    since = as_of - timedelta(days=days)
    new = first_seen.filter((pl.col("first") >= since) & (pl.col("first") <= as_of))
    return items.is_in(new["item_id"].implode()).to_numpy().astype(np.float64)


SAMPLE = 10_000
"""Users on whom figures are computed that need the pairs of a list or the order of all scores."""


def drawn(users: pl.Series, n: int = SAMPLE) -> NDArray[np.int64]:
    """Positions of `n` of the users (of all where there are fewer), ascending; which ones follows from the ids alone.

    The n smallest hashes are taken: whoever is drawn among many users is drawn among any of them, too.
    """
    if len(users) <= n:
        return np.arange(len(users))
    return np.sort(np.argsort(keys(users), kind="stable")[:n])


def halves(ids: pl.Series) -> NDArray[np.bool_]:
    """One half of the users: True for about every second (n_ids,), whatever has been drawn."""
    # The lowest bit: being drawn says something of the highest ones.
    return (keys(ids) & np.uint64(1)).astype(bool)
