"""What may tell of a user and an item whether they come together: numbers known before the moment that is asked about.

An item's numbers are taken as of a moment, from counts by day and the catalogue of that moment; a user's from the
history alone. Numbers are relative wherever a count would grow with the data, so that what was learned as of an earlier
moment holds at a later one. NaN: not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.gram import row_sums
from persona_cli.models.item_features import item_features
from persona_cli.models.stored import load_array, load_sparse, positions, save_array, save_sparse

WINDOWS = (7, 30, 90)
"""Days back over which an item's events are counted, beside all of them."""
RECENT = 5
"""A user's last items: what is wanted just now."""
FEATURES = (
    "base",  # score of the base, in units of the mean of the user's best 20
    "base_rank",  # its rank among the candidates, from 0
    "recent",  # score of the base from the user's last items alone, in such units
    "recent_rank",
    "popular",  # score of the popular list, in units of the best candidate's
    "popular_rank",
    "context",  # log of the popular score in the user's context against that overall
    "count",  # log of the item's share of all events, against the mean share
    *(f"count_{days}" for days in WINDOWS),  # the same over the last days
    "trend",  # the shortest window against the longest
    "age",  # log of days since the item came out, or was first met
    "silence",  # log of days since anybody's last event with it
    "user_items",  # log of the number of items in the history
    "user_events",  # log of the user's events an item of the history
    "user_silence",  # log of days since the user's last event
    "user_span",  # log of days from the user's first to the last event
    "user_taste",  # mean of "count" over the history
    "taste_gap",  # "count" less that
    "category",  # share of the item's category in the history
    "category_recent",  # and in the last items
    "tags",  # cosine of the item's tags (by rarity) and those of the history
    "price",  # log of the price
    "price_gap",  # less its mean over the history
    "repeated",  # strength of the item in the history
    "repeat_silence",  # log of days since the user's last event with it
)
Values = NDArray[np.float64]
_DAY = 86_400_000_000  # microseconds


class Candidates(NamedTuple):
    """Items to be ranked for a block of users, and what the models said of them; all (n_users, n_candidates)."""

    places: NDArray[np.int64]
    """Positions in the vocabulary; each once a user."""
    there: NDArray[np.bool_]
    """Whether the place holds a candidate; others fill the row up."""
    base: Floats
    """Score of the base, in units of the mean of the user's best 20."""
    recent: Floats
    """Score of the base from the user's last items alone, in such units; NaN where nothing says which are the last."""
    popular: Floats
    """Score of the popular list in the user's context."""


@dataclass(frozen=True)
class ItemTable:
    """What is known of each item as of a moment, over a vocabulary."""

    counts: Floats
    """Log share of events against the mean share: of all time, then over each of WINDOWS (n_items, 1 + n_windows)."""
    age: Floats
    """Days since it came out, or was first met (n_items,)."""
    silence: Floats
    """Days since the last event with it (n_items,)."""
    price: Floats
    """Log of the price (n_items,)."""
    category: NDArray[np.int64]
    """Number of its category, -1: none that another item has too (n_items,)."""
    tags: sparse.csr_array
    """Tags weighed by rarity, rows of length 1 (n_items, n_tags)."""
    overall: Floats
    """Score of the item in the popular list of all (n_items,)."""

    @property
    def n_categories(self) -> int:
        return int(self.category.max(initial=-1)) + 1

    def save(self, folder: Path) -> None:
        for name in ("counts", "age", "silence", "price", "category", "overall"):
            save_array(folder, name, getattr(self, name))
        save_sparse(folder, "tags", self.tags)
        save_array(folder, "tags.shape", np.array(self.tags.shape, dtype=np.int64))

    @classmethod
    def load(cls, folder: Path) -> Self:
        arrays: Mapping[str, NDArray[Any]] = {
            name: load_array(folder, name) for name in ("counts", "age", "silence", "price", "category", "overall")
        }
        n_items, n_tags = load_array(folder, "tags.shape").tolist()
        return cls(tags=load_sparse(folder, "tags", (n_items, n_tags)), **arrays)


def item_table(training: Training, items: pl.Series, overall: Floats) -> ItemTable:
    """The numbers of `items` as of `training.as_of`; `overall` is their score in the popular list of all (n_items,)."""
    # as_of is exclusive: at midnight the day before is the last one that can hold an event.
    last = (training.as_of - timedelta(microseconds=1)).date()
    ago = (pl.lit(last) - pl.col("day")).dt.total_days()
    told = training.popularity.select("item_id", "n", ago=ago)
    rows = positions(told["item_id"], items)
    told = told.with_columns(item=pl.Series(rows)).filter(pl.col("item") >= 0)
    place, days, n = told["item"].to_numpy(), told["ago"].to_numpy(), told["n"].to_numpy()
    # Whole numbers are summed: no order of the rows makes a difference.
    n = n.astype(np.float64)
    sums = [_summed(place[days < window], n[days < window], len(items)) for window in (np.inf, *WINDOWS)]
    first, latest = np.full(len(items), -np.inf), np.full(len(items), np.inf)
    np.maximum.at(first, place, days)
    np.minimum.at(latest, place, days)
    known = _described(training.catalogue, items)
    born = (training.as_of - known["published_at"]).dt.total_days().cast(pl.Float64).fill_null(np.nan).to_numpy()
    age = np.where(np.isfinite(born), np.maximum(born, 0.0), np.where(np.isfinite(first), first, np.nan))
    category, tags = _categories(training.catalogue, items)
    return ItemTable(
        counts=np.column_stack([_log_share(one) for one in sums]).astype(np.float32),
        age=age.astype(np.float32),
        silence=np.where(np.isfinite(latest), latest, np.nan).astype(np.float32),
        price=np.log1p(known["price"].clip(0).fill_null(np.nan).to_numpy()).astype(np.float32),
        category=category,
        tags=tags,
        overall=overall,
    )


def last_items(histories: Histories, n: int = RECENT) -> Histories | None:
    """The users with the last `n` items of each history alone; None where times are not known."""
    if histories.times is None:
        return None
    rows, times = histories.rows, histories.times
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -times.data, owner))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - rows.indptr[owner[order]]
    kept = rank < n
    ends = np.concatenate(([0], np.cumsum(kept)))[rows.indptr]
    shape, columns = rows.shape, rows.indices[kept]
    return Histories(
        sparse.csr_array((rows.data[kept], columns, ends), shape=shape),
        histories.events,
        histories.context,
        sparse.csr_array((times.data[kept], columns, ends), shape=shape),
    )


def pair_features(
    table: ItemTable, candidates: Candidates, histories: Histories, recent: Histories | None, now: NDArray[np.int64]
) -> Floats:
    """The features of the candidates that are there, user by user (n_pairs, len(FEATURES)).

    `recent` is `last_items(histories)`; `now` the moment that is asked about, microseconds (n_users,).
    """
    rows, places = histories.rows, candidates.places
    shape = places.shape
    users = np.arange(shape[0])[:, None]
    weights = np.maximum(np.asarray(rows.sum(axis=1), dtype=np.float64), 1e-9)  # (n_users,)
    lengths = np.diff(rows.indptr)
    taste = _means(rows, table.counts[:, 0])
    paid = _means(rows, table.price)
    count = table.counts[places]  # (n_users, n_candidates, 1 + n_windows)
    overall = table.overall[places]
    best = np.maximum(np.where(candidates.there, candidates.popular, 0.0).max(axis=1, keepdims=True), 1e-30)
    lift = np.log((candidates.popular + 1e-9) / (overall + 1e-9))
    repeated, repeat_age = _repeats(histories, places, now)
    first, last = _ends(histories)
    columns: dict[str, NDArray[Any]] = {
        "base": candidates.base,
        "base_rank": _ranks(candidates.base, candidates.there),
        "recent": candidates.recent,
        "recent_rank": _ranks(candidates.recent, candidates.there),
        "popular": candidates.popular / best,
        "popular_rank": _ranks(candidates.popular, candidates.there),
        "context": lift,
        "count": count[:, :, 0],
        **{f"count_{days}": count[:, :, 1 + number] for number, days in enumerate(WINDOWS)},
        "trend": count[:, :, 1] - count[:, :, len(WINDOWS)],
        "age": np.log1p(table.age[places]),
        "silence": np.log1p(table.silence[places]),
        "user_items": np.log1p(lengths)[:, None],
        "user_events": np.log1p(histories.events / np.maximum(lengths, 1))[:, None],
        "user_silence": _log_days(now - last)[:, None],
        "user_span": _log_days(last - first)[:, None],
        "user_taste": taste[:, None],
        "taste_gap": count[:, :, 0] - taste[:, None],
        "category": _category_shares(table, rows, weights)[users, table.category[places]],
        "category_recent": np.full(shape, np.nan)
        if recent is None
        else _category_shares(table, recent.rows, None)[users, table.category[places]],
        "tags": _tag_match(table, rows, users, places),
        "price": table.price[places],
        "price_gap": table.price[places] - paid[:, None],
        "repeated": repeated,
        "repeat_silence": repeat_age,
    }
    made = np.empty((int(candidates.there.sum()), len(FEATURES)), dtype=np.float32)
    for number, name in enumerate(FEATURES):
        made[:, number] = np.broadcast_to(columns[name], shape)[candidates.there]
    return made


def _described(catalogue: pl.DataFrame | None, items: pl.Series) -> pl.DataFrame:
    """published_at and price of each item, null where unknown (n_items)."""
    types: dict[str, pl.DataType] = {"price": pl.Float64(), "published_at": pl.Datetime("us", "UTC")}
    if catalogue is None:
        return pl.DataFrame({name: [None] * len(items) for name in types}, schema=types)
    told = catalogue.select("item_id", *(pl.col(name).cast(kind) for name, kind in types.items()))
    return items.to_frame("item_id").join(told, on="item_id", how="left", maintain_order="left").select(list(types))


def _categories(catalogue: pl.DataFrame | None, items: pl.Series) -> tuple[NDArray[np.int64], sparse.csr_array]:
    """The number of each item's category (n_items,), and its tags by rarity, rows of length 1 (n_items, n_tags)."""
    features = item_features(catalogue, items)
    named = features.names.str.starts_with("category=").to_numpy()
    matrix = features.matrix
    category = np.full(len(items), -1, dtype=np.int64)
    chosen = sparse.csr_array(matrix[:, np.flatnonzero(named)])
    category[np.diff(chosen.indptr) > 0] = chosen.indices
    tags = sparse.csr_array(matrix[:, np.flatnonzero(features.names.str.starts_with("tag=").to_numpy())])
    owners = np.bincount(tags.indices, minlength=tags.shape[1])
    values = np.log((1.0 + len(items)) / (1.0 + owners))[tags.indices]
    lengths = np.sqrt(row_sums(values**2, tags.indptr))
    values = values / np.repeat(np.maximum(lengths, 1e-12), np.diff(tags.indptr))
    return category, sparse.csr_array((values.astype(np.float32), tags.indices, tags.indptr), shape=tags.shape)


def _summed(place: NDArray[np.int64], n: Values, size: int) -> Values:
    return np.asarray(np.bincount(place, n, size), dtype=np.float64)


def _log_share(counts: Values) -> Values:
    """Log of each count against the mean count, half an event added to both (n_items,)."""
    return np.asarray(np.log((counts + 0.5) / (counts.mean() + 0.5)) if len(counts) else counts, dtype=np.float64)


def _means(rows: sparse.csr_array, values: Floats) -> Values:
    """Mean of the items' values over each history, unknown ones left out (n_users,); NaN where all are."""
    told = values[rows.indices].astype(np.float64)
    known = np.isfinite(told)
    n = row_sums(known.astype(np.float64), rows.indptr)
    sums = row_sums(np.where(known, told, 0.0), rows.indptr)
    return np.asarray(np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0), dtype=np.float64)


def _ranks(values: Floats, there: NDArray[np.bool_]) -> Floats:
    """Rank of each candidate of the row, from 0; equal values by place. NaN where the values are."""
    order = np.argsort(np.where(there, -values, np.inf), axis=1, kind="stable")
    ranks = np.empty(values.shape, dtype=np.float32)
    np.put_along_axis(ranks, order, np.arange(values.shape[1], dtype=np.float32)[None, :], axis=1)
    return np.where(np.isnan(values), np.float32(np.nan), ranks)


def _log_days(micros: NDArray[Any]) -> Values:
    """log(1 + days); NaN stays."""
    return np.asarray(np.log1p(np.maximum(micros / _DAY, 0.0)), dtype=np.float64)


def _ends(histories: Histories) -> tuple[Values, Values]:
    """First and last instant of each history, microseconds (n_users,); NaN where unknown."""
    n_users = histories.rows.shape[0]
    first, last = np.full(n_users, np.nan), np.full(n_users, np.nan)
    if histories.times is not None:
        ends = histories.times.indptr
        filled = np.flatnonzero(np.diff(ends))
        if len(filled):
            first[filled] = np.minimum.reduceat(histories.times.data, ends[:-1][filled])
            last[filled] = np.maximum.reduceat(histories.times.data, ends[:-1][filled])
    return first, last


def _repeats(histories: Histories, places: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[Values, Values]:
    """Strength of each candidate in the history, 0: none; log of days since then, NaN: none. (n_users, n_candidates)"""
    strengths = _looked_up(histories.rows, places, 0.0)
    if histories.times is None:
        return strengths, np.full(places.shape, np.nan)
    return strengths, _log_days(now[:, None] - _looked_up(histories.times, places, np.nan))


def _looked_up(rows: sparse.csr_array, places: NDArray[np.int64], missing: float) -> Values:
    """The entry of each user's row at each place (n_users, n_candidates)."""
    n_users, n_items = rows.shape
    keys = np.repeat(np.arange(n_users), np.diff(rows.indptr)) * n_items + rows.indices  # ascending
    wanted = np.arange(n_users)[:, None] * n_items + places
    if not len(keys):
        return np.full(places.shape, missing)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, rows.data[at].astype(np.float64), missing)


def _category_shares(table: ItemTable, rows: sparse.csr_array, weights: Values | None) -> Values:
    """Share of each category in the histories (n_users, n_categories + 1), NaN in the last column: no category."""
    n_users, n = rows.shape[0], table.n_categories
    owner = np.repeat(np.arange(n_users), np.diff(rows.indptr))
    category = table.category[rows.indices]
    known = category >= 0
    cells = owner[known] * n + category[known]
    sums = np.bincount(cells, rows.data[known], minlength=n_users * n).reshape(n_users, n)
    whole = np.maximum(np.asarray(rows.sum(axis=1)), 1e-9) if weights is None else weights
    return np.column_stack([sums / whole[:, None], np.full(n_users, np.nan)])


def _tag_match(
    table: ItemTable, rows: sparse.csr_array, users: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[Any]:
    """Cosine of each candidate's tags and the sum of those of the history; NaN where there are no tags at all."""
    if not table.tags.nnz:
        return np.full(places.shape, np.nan)
    profile = sparse.csr_array(rows @ table.tags)  # (n_users, n_tags)
    lengths = np.sqrt(np.asarray((profile * profile).sum(axis=1), dtype=np.float64))
    # Only the candidates of the block have a row to be multiplied.
    wanted, at = np.unique(places, return_inverse=True)
    match = np.asarray((profile @ table.tags[wanted].T).toarray())
    found = match[users, at.reshape(places.shape)] / np.maximum(lengths, 1e-9)[:, None]
    return np.asarray(found, dtype=np.float64)
