"""Lists and right answers, written shortly: a user's items as letters or ids, best first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl


def lists_of(
    lists: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float | None]] | None = None
) -> pl.DataFrame:
    """Lists as models make them; a score is 1 / rank where none are given."""
    rows = [
        (user, item, rank, scores[user][rank - 1] if scores else 1.0 / rank)
        for user, items in lists.items()
        for rank, item in enumerate(items, start=1)
    ]
    schema = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int32, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def pairs_of(wanted: Mapping[str, Iterable[str]]) -> pl.DataFrame:
    rows = [(user, item) for user, items in wanted.items() for item in sorted(items)]
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String}, orient="row")
