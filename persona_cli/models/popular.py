"""What is wanted now: decayed counts, over all users and in the user's own context."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.preparing import counted
from persona_cli.models.stored import (
    load_array,
    load_items,
    load_sparse,
    positions,
    save_array,
    save_items,
    save_sparse,
)
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.workspace.settings import Settings

CELL = ("device", "country")
_KINDS: tuple[tuple[str, ...], ...] = (("device",), ("country",), CELL)
_FADED = 3
"""Half-lives after which an event, that still counts for a list, makes nobody one of the people of a cell."""


class Popular:
    """Popularity by context cell, shrunk towards that of all users.

        score = w · share in the cell + (1 - w) · share overall,   w = m / (m + context_weight)

    m is the (decayed) number of events in the cell; a share is an item's part of them. Counts are integers by (item,
    day, cell) and fade when the model is fitted: an event of `half_life_days` before counts half. A cell is a pair
    (device, country); a user of whom only one is known gets the cell of that one, and of neither the overall list.

    A cell whose events are of fewer than 20 people (`profiles.SMALLEST_CELL`) has no list, and its users get that of
    their country, their device or all; who did nothing there for three half-lives is not counted, since the list no
    longer tells what they did. People are counted in `Training.events`; without these there are no cells.
    """

    name: ClassVar[str] = "popular"
    exact: ClassVar[bool] = True
    items: pl.Series
    """Every item with a counted event, sorted (n_items,)."""
    overall_: Floats
    """Shares of all events (n_items,)."""
    cells_: pl.DataFrame
    """device, country (either null: any): one row a cell of enough people, sorted (n_cells)."""
    shares_: sparse.csr_array
    """Shares w·s in each cell, already weighted by w (n_cells, n_items)."""
    weights_: Floats
    """w of each cell (n_cells,)."""

    def __init__(self, half_life_days: float = 30.0, context_weight: float = 100.0) -> None:
        self.half_life_days = half_life_days
        self.context_weight = context_weight

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings.number("model.popular.half_life_days"),
            settings.number("model.popular.context_weight"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {"half_life_days": self.half_life_days, "context_weight": self.context_weight}

    def fit(self, training: Training) -> Self:
        counts = self._faded(training)
        self.items = counts["item_id"].unique().sort().rename("item_id")
        counts = counts.with_columns(column=positions(counts["item_id"], self.items))
        overall = np.zeros(len(self.items))
        by_item = _summed(counts, ["column"])
        overall[by_item["column"].to_numpy()] = by_item["n"].to_numpy()
        self.overall_ = (overall / max(overall.sum(), 1e-300)).astype(np.float32)
        by_cell = pl.concat(
            [
                _summed(counts.filter(pl.all_horizontal(pl.col(kept).is_not_null())), [*kept, "column"])
                .with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in CELL if name not in kept)
                .select(*CELL, "column", "n")
                for kept in (list(kind) for kind in _KINDS)
            ]
        )
        enough = self._people(training).filter(pl.col("people") >= SMALLEST_CELL)
        by_cell = by_cell.join(enough, on=CELL, how="semi", nulls_equal=True).sort(*CELL, "column", nulls_last=False)
        rows = by_cell.select(pl.struct(CELL).rle_id()).to_series().to_numpy().astype(np.int64)
        self.cells_ = by_cell.select(CELL).unique(maintain_order=True)
        sums = np.bincount(rows, weights=by_cell["n"].to_numpy(), minlength=len(self.cells_))  # (n_cells,)
        weights = sums / (sums + self.context_weight)
        self.weights_ = weights.astype(np.float32)
        self.shares_ = sparse.csr_array(
            (
                (weights[rows] * by_cell["n"].to_numpy() / sums[rows]).astype(np.float32),
                (rows, by_cell["column"].to_numpy()),
            ),
            shape=(len(self.cells_), len(self.items)),
        )
        return self

    def scores(self, histories: Histories) -> Floats:
        cells = _cells_of(histories.context, self.cells_)  # (n_users,), -1: none
        distinct, places = np.unique(cells, return_inverse=True)
        lists = np.tile(self.overall_, (len(distinct), 1))  # (n_distinct, n_items)
        for place, cell in enumerate(distinct):
            if cell >= 0:
                lists[place] *= 1 - self.weights_[cell]
                lists[place] += self.shares_[[cell]].toarray()[0]
        return lists[places]

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_array(folder, "overall", self.overall_)
        save_array(folder, "weights", self.weights_)
        save_sparse(folder, "shares", self.shares_)
        self.cells_.write_parquet(folder / "cells.parquet", compression="zstd", compression_level=1)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.items = load_items(folder)
        model.overall_ = load_array(folder, "overall")
        model.weights_ = load_array(folder, "weights")
        model.cells_ = pl.read_parquet(folder / "cells.parquet")
        model.shares_ = load_sparse(folder, "shares", (len(model.cells_), len(model.items)))
        return model

    def _faded(self, training: Training) -> pl.DataFrame:
        """Counts with the decayed n as a float: the day on which `as_of` falls counts in full."""
        ages = _age(pl.col("day"), training)
        fading = pl.lit(0.5).pow(ages / self.half_life_days) if self.half_life_days else pl.lit(1.0)
        return training.popularity.with_columns(n=pl.col("n") * fading)

    def _people(self, training: Training) -> pl.DataFrame:
        """device, country (either null: any), people: how many have a counted event in the cell; in no order."""
        if training.events is None:
            return pl.DataFrame(schema={**dict.fromkeys(CELL, pl.String), "people": pl.UInt32})
        there = pl.any_horizontal(pl.col(CELL).is_not_null())
        events = counted(training.events).filter(there)
        if self.half_life_days:
            events = events.filter(_age(pl.col("timestamp").dt.date(), training) <= _FADED * self.half_life_days)
        pairs = events.select("user_id", *(pl.col(name).cast(pl.String) for name in CELL)).unique()
        people = [
            pairs.filter(pl.all_horizontal(pl.col(kind).is_not_null()))
            .group_by(kind)
            .agg(people=pl.col("user_id").n_unique())
            .with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in CELL if name not in kind)
            .select(*CELL, "people")
            for kind in _KINDS
        ]
        return pl.concat(people).collect()


def _age(day: pl.Expr, training: Training) -> pl.Expr:
    """Days before the day on which `as_of` falls, 0 for later ones."""
    # as_of is exclusive: at midnight the day before is the last one that can hold an event.
    last = (training.as_of - timedelta(microseconds=1)).date()
    return (pl.lit(last) - day).dt.total_days().clip(0)


def _summed(counts: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Sums of n by key, in an order of addition that depends on the counts alone."""
    ordered = counts.sort(*keys, "day", *(name for name in CELL if name not in keys), nulls_last=False)
    return ordered.group_by(keys, maintain_order=True).agg(pl.col("n").sum())


def _cells_of(context: pl.DataFrame, cells: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The most specific known cell of each user, -1 where there is none (n_users,)."""
    known = cells.with_columns(cell=pl.int_range(pl.len(), dtype=pl.Int64))
    users = context.select(pl.col(CELL).cast(pl.String))
    found = users.join(known, on=CELL, how="left", nulls_equal=True, maintain_order="left")
    for name in CELL:
        alone = known.filter(
            pl.col(name).is_not_null() & pl.all_horizontal(pl.col(n).is_null() for n in CELL if n != name)
        )
        found = found.join(
            alone.select(name, pl.col("cell").alias(f"by_{name}")), on=name, how="left", maintain_order="left"
        )
    # A pair that too few people have falls to its country, then to its device: tastes differ more between countries.
    return found.select(pl.coalesce("cell", "by_country", "by_device").fill_null(-1)).to_series().to_numpy()
