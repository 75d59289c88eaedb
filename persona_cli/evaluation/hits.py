"""Where relevant items stand in the lists: all that an accuracy metric needs to know of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.evaluation.coded import Coded, Floats, Integers, blocks, coded_lists, coded_pairs, in_threads
from persona_cli.models.vocabulary import positions


class Hits(NamedTuple):
    """Hits sorted by user and rank."""

    users: pl.Series
    """Users with at least one relevant item, sorted (n_users,)."""
    relevant: Integers
    """Relevant items of each user, >= 1 (n_users,)."""
    user: Integers
    """Index into `users` of each hit (n_hits,)."""
    rank: Integers
    """Rank of each hit, from 1 (n_hits,)."""

    def per_user(self, weights: NDArray[Any]) -> Floats:
        """Sum of `weights` (n_hits,) over the hits of each user (n_users,)."""
        return np.bincount(self.user, weights=weights, minlength=len(self.users)).astype(np.float64, copy=False)


def find_hits(lists: pl.DataFrame, relevant: pl.DataFrame, depth: int | None = None) -> Hits:
    """Relevant items within the first `depth` ranks of each list (None: the whole lists).

    Raises BadData when a list holds an item or a rank twice, when a relevant pair is given twice, or when an id or a
    rank is missing.
    """
    coded = coded_lists(lists)
    return hits_of(coded, coded_pairs(relevant, coded.items), depth)


def hits_of(lists: Coded, relevant: Coded, depth: int | None = None) -> Hits:
    """`find_hits` of what is coded already; one vocabulary begins with the other."""
    assert lists.ranks is not None
    ranks, n_items = lists.ranks, max(len(lists.items), len(relevant.items))
    rows = _places(relevant.users, lists.users)

    def block(users: slice) -> tuple[Integers, Integers]:
        own = rows[users]
        entry, starts = _entries(lists, own)
        shown = _matrix(entry + 1, lists.codes[entry], starts, n_items)
        begin, end = relevant.starts[users.start], relevant.starts[users.stop]
        wanted = _matrix(
            np.ones(end - begin, dtype=np.int64),
            relevant.codes[begin:end],
            relevant.starts[users.start : users.stop + 1] - begin,
            n_items,
        )
        found = shown.multiply(wanted).tocsr()  # (n_block, n_items); places of hits in the lists, from 1
        user = np.repeat(np.arange(users.start, users.stop), np.diff(found.indptr))
        places = found.data - 1
        order = np.lexsort((places, user))
        return user[order], ranks[places[order]]

    found = in_threads(block, blocks(len(relevant.users)))
    none = np.zeros(0, dtype=np.int64)
    user, rank = (np.concatenate([none, *part]) for part in zip(*found, strict=True)) if found else (none, none)
    if depth is not None:
        near = rank <= depth
        user, rank = user[near], rank[near]
    return Hits(relevant.users, relevant.lengths, user, rank)


def _places(users: pl.Series, among: pl.Series) -> Integers:
    """The row of each user among others, -1 where there is none."""
    return np.arange(len(users)) if users.equals(among) else positions(users, among)


def _entries(lists: Coded, rows: Integers) -> tuple[Integers, Integers]:
    """Entries of some rows (-1: of none), row by row, and where each row starts among them."""
    there = rows >= 0
    lengths = np.zeros(len(rows), dtype=np.int64)
    lengths[there] = lists.lengths[rows[there]]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    shift = np.where(there, lists.starts[rows], 0) - starts[:-1]
    return np.arange(starts[-1]) + np.repeat(shift, lengths), starts


def _matrix(data: Integers, columns: NDArray[np.int32], starts: Integers, n_items: int) -> sparse.csr_array:
    """Rows as they are: no row holds a column twice, so nothing needs to be sorted."""
    return sparse.csr_array((data, columns, starts.astype(np.int32)), shape=(len(starts) - 1, n_items))
