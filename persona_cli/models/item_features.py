"""What the catalogue says of items, as one sparse matrix: categories, tags and bands of price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.vocabulary import positions

BANDS = 5
"""Bands of price: fifths of the items that have one."""


@dataclass(frozen=True)
class ItemFeatures:
    """Which item has which feature."""

    items: pl.Series
    """item_id String (n_items,), in the order that was asked for."""
    names: pl.Series
    """`category=news`, `tag=short`, `price=2` (the second fifth from below), String, sorted (n_features,)."""
    matrix: sparse.csr_array
    """1 where the item has the feature, float32, sorted indices (n_items, n_features)."""

    def with_identity(self) -> sparse.csr_array:
        """One more feature for each item itself, before the others: float32 (n_items, n_items + n_features)."""
        own = sparse.eye_array(len(self.items), dtype=np.float32, format="csr")
        both = sparse.csr_array(sparse.hstack([own, self.matrix], format="csr"))
        both.sort_indices()
        return both

    def described(self) -> NDArray[np.bool_]:
        """Whether anything is known of the item (n_items,)."""
        return np.diff(self.matrix.indptr) > 0


def item_features(catalogue: pl.DataFrame | None, items: pl.Series, least: int = 2) -> ItemFeatures:
    """Features of `items` (sorted or not, each once) by the catalogue; items that it does not know have none.

    A feature that fewer than `least` of them have is left out: nothing learned of it could be told of another item.
    The order of the catalogue's rows, and of tags within a row, does not matter.
    """
    pairs = _pairs(catalogue, items)  # item Int64, name String; each pair once
    counted = pairs.group_by("name").len().filter(pl.col("len") >= least)
    names = counted["name"].sort()
    columns = positions(pairs["name"], names)
    kept = columns >= 0
    entries = (np.ones(int(kept.sum()), dtype=np.float32), (pairs["item"].to_numpy()[kept], columns[kept]))
    matrix = sparse.csr_array(entries, shape=(len(items), len(names)))
    matrix.sort_indices()
    return ItemFeatures(items, names, matrix)


def _pairs(catalogue: pl.DataFrame | None, items: pl.Series) -> pl.DataFrame:
    """(place of the item in `items`, name of a feature that it has), each once."""
    schema = {"item": pl.Int64, "name": pl.String}
    if catalogue is None:
        return pl.DataFrame(schema=schema)
    there = catalogue.with_columns(item=pl.Series(positions(catalogue["item_id"], items), dtype=pl.Int64))
    there = there.filter(pl.col("item") >= 0)
    found = [
        there.select("item", name="category=" + pl.col("category")),
        there.select("item", "tags").explode("tags").select("item", name="tag=" + pl.col("tags")),
        there.select("item", "price").drop_nulls().pipe(_bands),
    ]
    return pl.concat([frame.cast(schema) for frame in found]).drop_nulls().unique()  # type: ignore[arg-type]


def _bands(priced: pl.DataFrame) -> pl.DataFrame:
    """(item, `price=n`): the n-th fifth of (item, price) by price; items of equal price are in the same band."""
    prices = priced["price"].cast(pl.Float64).to_numpy()
    # With fewer prices than bands a band says no more than the price itself would, of nobody else.
    if len(np.unique(prices)) < BANDS:
        return pl.DataFrame(schema={"item": pl.Int64, "name": pl.String})
    edges = np.quantile(prices, np.arange(1, BANDS) / BANDS)
    numbers = 1 + np.searchsorted(edges, prices, side="left")
    return priced.select("item", name=pl.Series([f"price={number}" for number in numbers], dtype=pl.String))
