"""What users searched for lately: texts that models of words read. They are personal data and in no log or report."""

from __future__ import annotations

import polars as pl

RECENT = 10
"""Different queries of a user that are read: the latest."""


def recent_queries(events: pl.DataFrame | pl.LazyFrame, users: pl.Series) -> pl.Series:
    """The latest different queries of each user, latest first, one a line; null without any: String (n_users,).

    `events` has user_id, timestamp and query; those of others than `users` (distinct) are not looked at. A query is
    what is left of its text without blanks at the ends, runs of blanks and line ends being one blank; of queries at the
    same instant the one that sorts first comes first.
    """
    asked = users.alias("user_id").to_frame()
    latest = (
        events.lazy()
        .select("user_id", "timestamp", "query")
        .filter(pl.col("query").is_not_null())
        .join(asked.lazy(), on="user_id", how="semi")
        .with_columns(pl.col("query").str.replace_all(r"\s+", " ").str.strip_chars())
        .filter(pl.col("query") != "")
        .group_by("user_id", "query")
        .agg(pl.col("timestamp").max())
        .sort("user_id", "timestamp", "query", descending=[False, True, False])
        .group_by("user_id", maintain_order=True)
        .agg(pl.col("query").head(RECENT))
        .with_columns(pl.col("query").list.join("\n"))
        .collect()
    )
    return asked.join(latest, on="user_id", how="left", maintain_order="left")["query"].alias("queries")
