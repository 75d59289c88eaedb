"""How different the items of one list are: by who has them, and by their categories.

Lists come as `codes` (n_users, depth): the item at each rank, -1 where the list holds none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

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
