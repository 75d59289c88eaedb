"""Users' histories as one sparse matrix: strengths that fade, and what must not be shown again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Interactions
from persona_cli.models.gram import row_sums
from persona_cli.models.stored import positions, with_columns
from persona_cli.profiles.history import faded as faded_history
from persona_cli.profiles.history import fold_history
from persona_cli.profiles.preferences import lifted_in
from persona_cli.workspace.settings import Settings


def interactions(
    history: pl.DataFrame, settings: Settings, items: pl.Series | None = None, lifted: pl.DataFrame | None = None
) -> Interactions:
    """The matrix of a history table, sorted as `profiles.history.history` answers it.

    Strengths fade by signals.half_life_days, counted back from the user's own last day, so that one user's row never
    depends on another's. Sums that are not positive, and items that the user never wants to see, have no strength; sums
    below 0 are dislikes.
    `items` fixes the vocabulary: other items are dropped, but still count in `events`. `lifted` are pairs (user_id,
    item_id) of which "never" was taken back.
    """
    faded = faded_history(history, settings)  # one row a (user, item), sorted
    users = faded["user_id"].unique(maintain_order=True).rename("user_id")
    vocabulary = (faded["item_id"] if items is None else items).unique().sort().rename("item_id")
    rows = faded["user_id"].rle_id().to_numpy().astype(np.int64)  # (n_entries,)
    columns = positions(faded["item_id"], vocabulary)
    strengths = faded["strength"].to_numpy().astype(np.float32)
    never = faded["never"].to_numpy() > 0
    if lifted is not None and lifted.height:
        again = faded.select("user_id", "item_id").join(
            lifted.with_columns(again=True), on=["user_id", "item_id"], how="left", maintain_order="left"
        )
        never &= ~again["again"].fill_null(False).to_numpy()
    liked = (strengths > 0) & ~never & (columns >= 0)
    disliked = (strengths < 0) & (columns >= 0)
    hidden = (never | (faded["consumed"].to_numpy() > 0)) & (columns >= 0)
    shape = (len(users), len(vocabulary))
    return Interactions(
        users=users,
        items=vocabulary,
        strengths=_csr(strengths[liked], rows[liked], columns[liked], shape),
        seen=_csr(np.ones(int(hidden.sum()), dtype=bool), rows[hidden], columns[hidden], shape),
        events=row_sums(faded["n"].to_numpy(), np.searchsorted(rows, np.arange(len(users) + 1))),
        dislikes=_csr(-strengths[disliked], rows[disliked], columns[disliked], shape) if disliked.any() else None,
    )


def interactions_of(events: pl.DataFrame, settings: Settings, history: pl.DataFrame | None = None) -> Interactions:
    """The matrix of rows of `signal_events`, where an item whose block was taken back counts as if it never was.

    `history` is theirs where it is folded already.
    """
    folded = fold_history(events) if history is None else history
    return interactions(folded, settings, lifted=lifted_in(events))


def contexts(events: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """device and country of each user's latest event that has one; of simultaneous ones the name that sorts last."""
    found = users.to_frame("user_id")
    for name in ("device", "country"):
        given = events.filter(pl.col(name).is_not_null())
        latest = given.group_by("user_id").agg(pl.col(name).sort_by("timestamp", name).last())
        found = found.join(latest, on="user_id", how="left", maintain_order="left")
    return found.select("device", "country")


def rows_for(interactions: Interactions, vocabulary: pl.Series, settings: Settings) -> sparse.csr_array:
    """Strengths clipped to [0, model.gram.cap] over a model's vocabulary (n_users, n_vocabulary); others dropped."""
    return _clipped(interactions.strengths, interactions.items, vocabulary, settings)


def dislikes_for(interactions: Interactions, vocabulary: pl.Series, settings: Settings) -> sparse.csr_array | None:
    """What users dislike, as `rows_for` has what they like; None where nobody dislikes a thing."""
    if interactions.dislikes is None:
        return None
    return _clipped(interactions.dislikes, interactions.items, vocabulary, settings)


def with_times(interactions: Interactions, events: pl.DataFrame | pl.LazyFrame) -> Interactions:
    """The same matrix, each entry with the instant of its last event (user_id, item_id, timestamp)."""
    latest = events.lazy().select("user_id", "item_id", "timestamp").drop_nulls()
    found = latest.group_by("user_id", "item_id").agg(pl.col("timestamp").max()).collect()
    rows, columns = positions(found["user_id"], interactions.users), positions(found["item_id"], interactions.items)
    there = (rows >= 0) & (columns >= 0)
    strengths = interactions.strengths
    keys = np.repeat(np.arange(strengths.shape[0]), np.diff(strengths.indptr)) * strengths.shape[1] + strengths.indices
    places = rows[there] * strengths.shape[1] + columns[there]
    order = np.argsort(places)
    instants = found["timestamp"].dt.epoch("us").to_numpy()[there][order]
    at = np.searchsorted(places[order], keys)  # (n_entries,)
    return dataclasses.replace(interactions, times=instants[at])


def times_for(interactions: Interactions, vocabulary: pl.Series) -> sparse.csr_array | None:
    """Instants in the pattern of `rows_for` (n_users, n_vocabulary); None where they are not known."""
    if interactions.times is None:
        return None
    strengths = interactions.strengths
    times = sparse.csr_array((interactions.times, strengths.indices, strengths.indptr), shape=strengths.shape)
    return with_columns(times, positions(interactions.items, vocabulary), len(vocabulary))


def seen_for(interactions: Interactions, vocabulary: pl.Series) -> sparse.csr_array:
    """What must not be shown again, over a model's vocabulary: bool (n_users, n_vocabulary)."""
    return with_columns(interactions.seen, positions(interactions.items, vocabulary), len(vocabulary))


def _clipped(matrix: sparse.csr_array, items: pl.Series, vocabulary: pl.Series, settings: Settings) -> sparse.csr_array:
    cap = np.float32(settings.number("model.gram.cap"))
    clipped = sparse.csr_array((np.minimum(matrix.data, cap), matrix.indices, matrix.indptr), shape=matrix.shape)
    return with_columns(clipped, positions(items, vocabulary), len(vocabulary))


def _csr(
    values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> sparse.csr_array:
    ends = np.searchsorted(rows, np.arange(shape[0] + 1))
    matrix = sparse.csr_array((values, columns, ends), shape=shape)
    matrix.sort_indices()
    return matrix
