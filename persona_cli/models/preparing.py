"""From events to all that a model may learn from: the one way that training and evaluation share."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from persona_cli.models.base import Interactions, Training
from persona_cli.models.gram import Gram, build_gram
from persona_cli.models.interactions import interactions_of, with_times
from persona_cli.workspace.settings import Settings

POPULARITY = {
    "item_id": pl.String,
    "day": pl.Date,
    "device": pl.String,
    "country": pl.String,
    "n": pl.Int64,
}


def prepare(
    events: pl.DataFrame,
    settings: Settings,
    as_of: datetime,
    gram: Gram | None = None,
    catalogue: pl.DataFrame | None = None,
    ordered: bool = False,
) -> Training:
    """Training of `events` (rows of `profiles.history.signal_events`, all of them before `as_of`).

    `gram` is that of exactly these events where the caller keeps one up to date; else it is built here. `catalogue`:
    items as described at `as_of`. `ordered`: the matrix says when each entry was made. Row order does not matter.
    """
    matrix = interactions_of(events, settings)
    return prepared(matrix, events, settings, as_of, gram, catalogue, ordered)


def prepared(
    matrix: Interactions,
    events: pl.DataFrame,
    settings: Settings,
    as_of: datetime,
    gram: Gram | None = None,
    catalogue: pl.DataFrame | None = None,
    ordered: bool = False,
) -> Training:
    """As `prepare`, where the matrix of the events is there already."""
    return Training(
        interactions=with_times(matrix, events) if ordered and matrix.times is None else matrix,
        gram=build_gram(matrix, settings) if gram is None else gram,
        popularity=popularity(events),
        as_of=as_of,
        catalogue=catalogue,
        events=events,
    )


def popularity(events: pl.DataFrame) -> pl.DataFrame:
    """How often each item was wanted, by day (UTC) and context: columns of `POPULARITY`, sorted by all but n.

    Only events of strength > 0 count: an item that is shown to everybody, or rejected by many, is not popular by that.
    """
    keys = [name for name in POPULARITY if name != "n"]
    return (
        counted(events)
        .with_columns(day=pl.col("timestamp").dt.date())
        .group_by(keys)
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort(keys, nulls_last=False)
        .collect()
        .select([pl.col(name).cast(dtype) for name, dtype in POPULARITY.items()])
    )


def counted(events: pl.DataFrame) -> pl.LazyFrame:
    """The events that make an item popular."""
    return events.lazy().filter(pl.col("item_id").is_not_null() & (pl.col("strength") > 0) & ~pl.col("never"))
