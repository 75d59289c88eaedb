"""Which items lists show: how many of the catalogue, how evenly, how well known and how new they are."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData
from persona_cli.models.base import Interactions
from persona_cli.models.vocabulary import positions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

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
