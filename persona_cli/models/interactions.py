"""Users' histories as one sparse matrix: strengths that fade, and what must not be shown again."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Interactions
from persona_cli.models.gram import row_sums
from persona_cli.models.vocabulary import positions, with_columns
from persona_cli.workspace.settings import Settings

THOUSANDTHS = 1000.0
"""Strengths are stored as integers in thousandths."""


def interactions(history: pl.DataFrame, settings: Settings, items: pl.Series | None = None) -> Interactions:
    """The matrix of a history table (user_id, item_id, day, strength, n, consumed, never), in any row order.

    x_ui = Σ_day strength · 2^(-(last_u - day) / half-life), where last_u is the day of the user's own last event with
    an item, so that one user's row never depends on another's. Sums that are not positive, and items that the user
    never wants to see, have no strength. `items` fixes the vocabulary (others are dropped, but still count as events).
    """
    history = history.sort("user_id", "item_id", "day")
    users = history["user_id"].unique(maintain_order=True)
    if items is None:
        vocabulary = history["item_id"].unique().sort().rename("item_id")
    else:
        vocabulary = items.unique().sort().rename("item_id")
    rows = history["user_id"].rle_id().to_numpy().astype(np.int64)  # (n_entries,)
    columns = positions(history["item_id"], vocabulary)
    ends = np.searchsorted(rows, np.arange(len(users) + 1))
    faded = history["strength"].to_numpy() / THOUSANDTHS * _fading(history["day"], rows, ends, settings)
    cells = np.flatnonzero(np.diff(rows * (len(vocabulary) + 1) + columns, prepend=-2))
    cell_ends = np.append(cells, len(rows))  # the table is sorted: the days of one (user, item) are neighbours
    sums = row_sums(faded, cell_ends)
    never = row_sums(history["never"].to_numpy().astype(np.int64), cell_ends) > 0
    consumed = row_sums(history["consumed"].to_numpy().astype(np.int64), cell_ends) > 0
    rows, columns = rows[cells], columns[cells]
    shape = (len(users), len(vocabulary))
    liked = (sums.astype(np.float32) > 0) & ~never & (columns >= 0)
    hidden = (never | consumed) & (columns >= 0)
    return Interactions(
        users=users.rename("user_id"),
        items=vocabulary,
        strengths=_csr(sums[liked].astype(np.float32), rows[liked], columns[liked], shape),
        seen=_csr(np.ones(int(hidden.sum()), dtype=bool), rows[hidden], columns[hidden], shape),
        events=row_sums(history["n"].to_numpy().astype(np.int64), ends),
    )


def rows_for(interactions: Interactions, vocabulary: pl.Series, settings: Settings) -> sparse.csr_array:
    """Strengths clipped to [0, model.gram.cap] over a model's vocabulary (n_users, n_vocabulary); others dropped."""
    cap = np.float32(settings.number("model.gram.cap"))
    strengths = interactions.strengths
    clipped = sparse.csr_array(
        (np.minimum(strengths.data, cap), strengths.indices, strengths.indptr), shape=strengths.shape
    )
    return with_columns(clipped, positions(interactions.items, vocabulary), len(vocabulary))


def seen_for(interactions: Interactions, vocabulary: pl.Series) -> sparse.csr_array:
    """What must not be shown again, over a model's vocabulary: bool (n_users, n_vocabulary)."""
    return with_columns(interactions.seen, positions(interactions.items, vocabulary), len(vocabulary))


def _fading(
    days: pl.Series, rows: NDArray[np.int64], ends: NDArray[np.int64], settings: Settings
) -> NDArray[np.float64]:
    """What is left of each entry's strength, counted back from the user's last day: in (0, 1] (n_entries,)."""
    half_life = settings.number("signals.half_life_days")
    if not half_life or not len(days):
        return np.ones(len(days))
    day = days.dt.epoch("d").to_numpy().astype(np.int64)
    ages = np.maximum.reduceat(day, ends[:-1])[rows] - day
    # One factor a whole day, from a table: the same day has the same factor for every user.
    factors: NDArray[np.float64] = np.exp2(-np.arange(int(ages.max()) + 1) / half_life)
    left: NDArray[np.float64] = factors[ages]
    return left


def _csr(
    values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> sparse.csr_array:
    ends = np.searchsorted(rows, np.arange(shape[0] + 1))
    matrix = sparse.csr_array((values, columns, ends), shape=shape)
    matrix.sort_indices()
    return matrix
