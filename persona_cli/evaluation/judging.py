"""Lists judged against right answers: every metric with its interval, and the lift over the popular list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from persona_cli.evaluation import metrics
from persona_cli.evaluation.intervals import Interval, lift_intervals, mean_intervals
from persona_cli.models.base import Interactions

LEVEL = 0.95


@dataclass(frozen=True)
class Catalogue:
    """The items that could be shown, as of the training: what coverage and novelty are relative to."""

    popularity: pl.DataFrame
    """item_id, users: in how many training users' histories each item is with strength > 0 (n_items)."""
    n_users: int
    """Users with such a history."""


@dataclass(frozen=True)
class Judgement:
    """What one model reached."""

    metrics: dict[str, Interval | None]
    """`recall@10` and so on; None where there is nothing to state (no list at all)."""
    lift: dict[str, Interval | None]
    """mean / mean of the baseline - 1 of every accuracy metric, paired by user; None over a baseline of 0."""
    per_user: pl.DataFrame = field(repr=False)
    """user_id and every accuracy metric, one row a user asked about, sorted by user_id."""


def judge(
    lists: Mapping[str, pl.DataFrame],
    answers: pl.DataFrame,
    catalogue: Catalogue,
    ks: Sequence[int],
    baseline: str,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Judgement]:
    """Judge the lists of every model on the same users; `baseline` names one of them.

    Lists (user_id, item_id, rank, score) hold max(ks) + 1 entries a user, so that a tie across the cut is seen. The
    users are those of `answers`, whatever lists there are: a missing list scores 0.
    """
    per_user = {name: metrics.per_user(frame, answers, ks) for name, frame in lists.items()}
    columns = per_user[baseline].columns[1:]
    base = per_user[baseline].select(columns).to_numpy()  # (n_users, n_columns)
    judged: dict[str, Judgement] = {}
    for name, frame in lists.items():
        values = per_user[name].select(columns).to_numpy()
        means = dict(zip(columns, mean_intervals(values, LEVEL, seed, bootstrap), strict=True))
        lifts: list[Interval | None] = [None] * len(columns)
        if name != baseline:
            lifts = lift_intervals(values, base, LEVEL, seed, bootstrap)
        beyond = _beyond(frame, catalogue, ks, seed, bootstrap)
        found: dict[str, Interval | None] = {}
        for k in ks:
            found |= {column: means[column] for column in columns if column.endswith(f"@{k}")}
            found |= {f"{metric}@{k}": beyond[f"{metric}@{k}"] for metric in ("coverage", "novelty", "tie_share")}
        judged[name] = Judgement(
            found, {} if name == baseline else dict(zip(columns, lifts, strict=True)), per_user[name]
        )
    return judged


def as_json(interval: Interval | None) -> dict[str, float | None] | None:
    """{"value", "low", "high"}."""
    return None if interval is None else {"value": interval.value, "low": interval.low, "high": interval.high}


def _beyond(
    lists: pl.DataFrame, catalogue: Catalogue, ks: Sequence[int], seed: int, bootstrap: int
) -> dict[str, Interval | None]:
    """Coverage, novelty and tie share at every k; coverage and ties are of all lists as a whole: no interval."""
    found: dict[str, Interval | None] = {}
    bits = []
    for k in ks:
        found[f"coverage@{k}"] = Interval(metrics.coverage(lists, catalogue.popularity.height, k), None, None)
        tied = metrics.tie_share(lists, k)
        found[f"tie_share@{k}"] = None if tied is None else Interval(tied, None, None)
        own = metrics.novelty_per_user(lists, catalogue.popularity, catalogue.n_users, k)
        bits.append(own[f"novelty@{k}"].to_numpy())  # users with a list: the same for every k
    novelties: list[Interval | None] = [None] * len(ks)
    if len(bits[0]):
        novelties = [*mean_intervals(np.column_stack(bits), LEVEL, seed, bootstrap)]
    return found | {f"novelty@{k}": interval for k, interval in zip(ks, novelties, strict=True)}


def stacked(judged: Mapping[str, Judgement]) -> pl.DataFrame:
    """All per-user values as one long table: model, user_id, metrics; models in the order given, users sorted."""
    frames = [one.per_user.select(pl.lit(name).alias("model"), pl.all()) for name, one in judged.items()]
    return pl.concat(frames)


def catalogue(matrix: Interactions, vocabularies: Sequence[pl.Series]) -> Catalogue:
    """The items of every vocabulary and of the training histories, with the users that have each."""
    counts = np.bincount(matrix.strengths.indices, minlength=len(matrix.items)).astype(np.int64)  # (n_items,)
    had = pl.DataFrame({"item_id": matrix.items, "users": counts}).filter(pl.col("users") > 0)
    items = pl.concat([had["item_id"], *vocabularies]).unique().sort().to_frame("item_id")
    popularity = items.join(had, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col("users").fill_null(0)
    )
    return Catalogue(popularity, max(1, int((np.diff(matrix.strengths.indptr) > 0).sum())))
