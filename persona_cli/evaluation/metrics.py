"""Metrics of ranked lists: one strict definition each, user by user, as pure functions over polars frames.

    lists      user_id String, item_id String, rank integer from 1, score Float; an item and a rank once per user
    relevant   user_id String, item_id String, unique: what each user was found to want in the test part

Every user with at least one relevant item counts, and a missing or short list scores 0 where it is missing, so no mean
is taken over the users that a model happened to serve. Precision divides by k; recall by the relevant items; NDCG has
binary gain, discount log2(rank + 1) and an ideal over min(k, relevant); average precision divides by min(k, relevant).
No value is ever NaN. Lists of users without relevant items are ignored by these, and counted by the metrics of the
whole catalogue (coverage, Gini, novelty, ties).

`METRICS` states definition, formula, range, direction and source of each, and holds the function that computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData, UsageError

Floats = NDArray[np.float64]
_USER_HASH, _OTHER_HASH = 0, 1
_FIXED_POINT = 2.0**32


class Hits(NamedTuple):
    """Where relevant items stand in the lists: all that an accuracy metric needs, sorted by user and rank."""

    users: pl.Series
    """Users with at least one relevant item, sorted (n_users,)."""
    relevant: NDArray[np.int64]
    """Relevant items of each user, >= 1 (n_users,)."""
    user: NDArray[np.int64]
    """Index into `users` of each hit (n_hits,)."""
    rank: NDArray[np.int64]
    """Rank of each hit, from 1 (n_hits,)."""

    def per_user(self, weights: NDArray[Any]) -> Floats:
        """Sum of `weights` (n_hits,) over the hits of each user (n_users,)."""
        return np.bincount(self.user, weights=weights, minlength=len(self.users)).astype(np.float64, copy=False)


@dataclass(frozen=True)
class Metric:
    """What one metric is, for people and documents; `of(hits, k)` is its value for each user, where it has one."""

    definition: str
    formula: str
    range: str
    better: Literal["higher", "lower"]
    source: str
    of: Callable[[Hits, int], Floats] | None = None


def per_user(lists: pl.DataFrame, relevant: pl.DataFrame, ks: Sequence[int]) -> pl.DataFrame:
    """Every accuracy metric at every k: one row per user with a relevant item, sorted by user_id.

    Columns: user_id, then `recall@k, precision@k, ndcg@k, map@k, mrr@k, hit_rate@k` for each k in the order given. The
    mean of a column is the metric. The order of rows in the inputs does not matter. Raises BadData when a list holds an
    item or a rank twice, when a relevant pair is given twice, or when an id or a rank is missing.
    """
    cutoffs = _checked_cutoffs(ks)
    hits = find_hits(lists, relevant, depth=max(cutoffs))
    columns = [hits.users] + [
        pl.Series(f"{name}@{k}", metric.of(hits, k))
        for k in cutoffs
        for name, metric in METRICS.items()
        if metric.of is not None
    ]
    return pl.DataFrame(columns)


def find_hits(lists: pl.DataFrame, relevant: pl.DataFrame, depth: int | None = None) -> Hits:
    """Relevant items within the first `depth` ranks of each list (None: the whole lists)."""
    _check_frame(lists, "the lists", {"user_id": pl.String, "item_id": pl.String, "rank": None})
    _check_frame(relevant, "the relevant pairs", {"user_id": pl.String, "item_id": pl.String})
    if not lists.schema["rank"].is_integer():
        raise BadData(f"the lists have ranks of type {lists.schema['rank']}; expected whole numbers from 1")
    if below := lists.filter(pl.col("rank") < 1).height:
        raise BadData(f"the lists hold {below} entries with a rank below 1; ranks start from 1")
    _check_unique(lists, "item_id", "the lists")
    _check_unique(lists, "rank", "the lists")
    _check_unique(relevant, "item_id", "the relevant pairs")

    counts = relevant.group_by("user_id").len("relevant").sort("user_id").with_row_index("user")
    shown = lists if depth is None else lists.filter(pl.col("rank") <= depth)
    # A join of text keys over 20 M entries costs seconds. Equal pairs have equal hashes, so entries whose hash no
    # relevant pair has are dropped first; the join on the ids themselves decides.
    wanted = relevant.select(_pair_hash("item_id"))
    candidates = (
        shown.select("user_id", "item_id", "rank", _pair_hash("item_id"))
        .join(wanted, on="hash", how="semi")
        .drop("hash")
        .join(relevant, on=["user_id", "item_id"], how="semi")
    )
    found = candidates.join(counts, on="user_id").select("user", "rank").sort("user", "rank")
    return Hits(
        users=counts["user_id"],
        relevant=counts["relevant"].to_numpy().astype(np.int64),
        user=found["user"].to_numpy().astype(np.int64),
        rank=found["rank"].to_numpy().astype(np.int64),
    )


def coverage(lists: pl.DataFrame, n_catalogue: int, k: int) -> float:
    """Share of the catalogue that stands in at least one top-k: |union of the first k| / n_catalogue."""
    shown = _first(lists, k)["item_id"].n_unique()
    _check_catalogue(shown, n_catalogue)
    return shown / n_catalogue


def gini(lists: pl.DataFrame, n_catalogue: int, k: int) -> float | None:
    """Gini coefficient of how often each item of the catalogue is shown in a top-k (many 0 times); None without lists.

    With x_(1) <= ... <= x_(n) the times shown, G = sum_i (2 i - n - 1) x_(i) / (n sum_i x_(i)): 0 when all items are
    shown alike, (n - 1) / n when one item is all that is shown.
    """
    times = np.sort(_first(lists, k).group_by("item_id").len()["len"].to_numpy().astype(np.float64))  # (n_shown,)
    _check_catalogue(len(times), n_catalogue)
    if not len(times):
        return None
    # Items never shown hold the first places and add 0.
    place = np.arange(n_catalogue - len(times) + 1, n_catalogue + 1)  # (n_shown,)
    return float((2 * place - n_catalogue - 1) @ times / (n_catalogue * times.sum()))


def novelty_per_user(lists: pl.DataFrame, popularity: pl.DataFrame, n_users: int, k: int) -> pl.DataFrame:
    """Mean self-information of each list's first k items, in bits: user_id, `novelty@k`, sorted by user_id.

    -log2(max(users_i, 1) / n_users), where users_i of the n_users training users have item i, from `popularity`
    (item_id, users); an item that nobody has counts as one user's. The mean is over the entries there are, at most k.
    """
    _check_frame(popularity, "the popularity table", {"item_id": pl.String, "users": None})
    over = popularity.filter(pl.col("users") > n_users).height
    if over or n_users < 1:
        raise BadData(f"the popularity table counts more than all {n_users} users for {over} items")
    known = popularity.select("item_id", "users")
    if known["item_id"].is_duplicated().any():
        raise BadData("the popularity table holds an item twice; expected one row per item")
    bits = -(pl.col("users").fill_null(0).clip(1).cast(pl.Float64) / n_users).log(2)
    fixed = (bits * _FIXED_POINT).round().cast(pl.Int64)  # sums of whole numbers are the same for every order of rows
    return (
        _first(lists, k)
        .join(known, on="item_id", how="left")
        .group_by("user_id")
        .agg((fixed.sum() / pl.len() / _FIXED_POINT).alias(f"novelty@{k}"))
        .sort("user_id")
    )


def novelty(lists: pl.DataFrame, popularity: pl.DataFrame, n_users: int, k: int) -> float | None:
    """Mean over users of `novelty_per_user`; None without lists."""
    values = novelty_per_user(lists, popularity, n_users, k)[f"novelty@{k}"].to_numpy()
    return float(values.mean()) if len(values) else None


def tie_share(lists: pl.DataFrame, k: int) -> float | None:
    """Share of the users with a list whose first k + 1 entries hold two equal scores; None without lists.

    In a list ordered by score such entries are neighbours, so what stands in the top-k, or in which order, was decided
    by item_id and not by the model. A list of k entries cannot show a tie across the cut: give k + 1 to see it. A
    missing score ties with nothing; two NaN tie.
    """
    _check_frame(lists, "the lists", {"user_id": pl.String, "item_id": pl.String, "rank": None, "score": None})
    n_users = lists["user_id"].n_unique()
    if not n_users:
        return None
    scored = _first(lists, k + 1).filter(pl.col("score").is_not_null())
    scored = scored.select("user_id", score=pl.col("score").cast(pl.Float64) + 0.0)  # + 0.0: no negative zero
    hashes = scored.select(_pair_hash("score")).to_series()
    if hashes.n_unique() == len(hashes):
        return 0.0
    tied = scored.filter(hashes.is_duplicated())
    distinct = tied.group_by("user_id").agg(pl.col("score").n_unique(), pl.len().alias("entries"))
    return distinct.filter(pl.col("score") < pl.col("entries")).height / n_users


def _checked_cutoffs(ks: Sequence[int]) -> list[int]:
    bad = [k for k in ks if k < 1]
    if bad or not ks or len(set(ks)) < len(ks):
        raise UsageError(f"k is {', '.join(map(str, ks)) or 'empty'}; expected different whole numbers from 1")
    return list(ks)


def _check_frame(frame: pl.DataFrame, name: str, columns: dict[str, type[pl.DataType] | None]) -> None:
    for column, dtype in columns.items():
        if column not in frame.columns:
            raise BadData(f"{name} have no column {column!r}; seen: {', '.join(frame.columns) or 'none'}")
        if dtype is not None and frame.schema[column] != dtype:
            raise BadData(f"{name} have {column} of type {frame.schema[column]}; ids are text")
        if column != "score" and (missing := frame[column].null_count()):
            raise BadData(f"{name} hold {missing} rows without {column}")


def _check_catalogue(shown: int, n_catalogue: int) -> None:
    if n_catalogue < 1 or shown > n_catalogue:
        raise BadData(f"the lists show {shown} different items; the catalogue is said to hold {n_catalogue}")


def _pair_hash(column: str) -> pl.Expr:
    """64-bit hash of (user_id, column): finds candidates within this process, never decides and is never stored."""
    return (pl.col("user_id").hash(_USER_HASH) ^ pl.col(column).hash(_OTHER_HASH)).alias("hash")


def _check_unique(frame: pl.DataFrame, column: str, name: str) -> None:
    hashes = frame.select(_pair_hash(column)).to_series()
    if hashes.n_unique() == frame.height:
        return
    suspects = frame.filter(hashes.is_duplicated()).group_by("user_id", column).len().filter(pl.col("len") > 1)
    if suspects.height:
        first = suspects.sort("user_id", column).row(0, named=True)
        raise BadData(
            f"{name} hold {column} {first[column]!r} {first['len']} times for user {first['user_id']!r}; expected once"
        )


def _first(lists: pl.DataFrame, k: int) -> pl.DataFrame:
    """Entries of the first k ranks."""
    _checked_cutoffs([k])
    _check_frame(lists, "the lists", {"user_id": pl.String, "item_id": pl.String, "rank": None})
    return lists.filter(pl.col("rank") <= k)


def _discounts(ranks: NDArray[np.int64]) -> Floats:
    discounts: Floats = 1.0 / np.log2(ranks + 1.0)
    return discounts


def _n_hits(hits: Hits, k: int) -> Floats:
    return hits.per_user(hits.rank <= k)


def _ndcg(hits: Hits, k: int) -> Floats:
    gained = hits.per_user(np.where(hits.rank <= k, _discounts(hits.rank), 0.0))
    ideal = np.cumsum(_discounts(np.arange(1, k + 1)))  # (k,): the ideal of 1, 2, ... k relevant items
    best: Floats = ideal[np.minimum(hits.relevant, k) - 1]
    return gained / best


def _average_precision(hits: Hits, k: int) -> Floats:
    starts = np.searchsorted(hits.user, hits.user, side="left")
    ordinal = np.arange(len(hits.user)) - starts + 1  # the user's n-th hit: precision at its rank is n / rank
    precisions = hits.per_user(np.where(hits.rank <= k, ordinal / hits.rank, 0.0))
    return precisions / np.minimum(hits.relevant, k)


def _reciprocal_rank(hits: Hits, k: int) -> Floats:
    values = np.zeros(len(hits.users))
    np.maximum.at(values, hits.user, np.where(hits.rank <= k, 1.0 / hits.rank, 0.0))
    return values


METRICS: dict[str, Metric] = {
    "recall": Metric(
        "share of the user's relevant items that stand in the first k",
        "hits@k / relevant",
        "0 to 1; below 1 by construction where relevant > k",
        "higher",
        "Cleverdon, 1966; as RecTools, RePlay, RecBole",
        lambda hits, k: _n_hits(hits, k) / hits.relevant,
    ),
    "precision": Metric(
        "share of the k places that hold a relevant item; places left empty count as wrong",
        "hits@k / k",
        "0 to min(k, relevant) / k",
        "higher",
        "Cleverdon, 1966; as RecTools, RePlay, RecBole",
        lambda hits, k: _n_hits(hits, k) / k,
    ),
    "ndcg": Metric(
        "hits discounted by rank, as a share of the best possible list",
        "sum over hits of 1/log2(rank + 1), divided by the sum over r = 1..min(k, relevant) of 1/log2(r + 1)",
        "0 to 1",
        "higher",
        "Järvelin and Kekäläinen, ACM TOIS 2002; binary gain, as RePlay, RecBole",
        _ndcg,
    ),
    "map": Metric(
        "mean precision at the ranks of the hits, as a share of the best possible list",
        "sum over hits of (hits up to rank)/rank, divided by min(k, relevant)",
        "0 to 1",
        "higher",
        "Buckley and Voorhees, SIGIR 2000; divisor as RePlay, RecBole, implicit",
        _average_precision,
    ),
    "mrr": Metric(
        "one over the rank of the first hit, 0 without a hit in the first k",
        "1 / rank of the first hit",
        "0 to 1",
        "higher",
        "Voorhees, TREC-8 1999",
        _reciprocal_rank,
    ),
    "hit_rate": Metric(
        "share of users with at least one hit in the first k",
        "1 if hits@k >= 1 else 0",
        "0 to 1",
        "higher",
        "Deshpande and Karypis, ACM TOIS 2004",
        lambda hits, k: np.minimum(_n_hits(hits, k), 1.0),
    ),
    "coverage": Metric(
        "share of the catalogue shown to anybody in the first k",
        "|union of the first k of all lists| / items in the catalogue",
        "0 to 1",
        "higher",
        "Ge, Delgado-Battenfeld and Jannach, RecSys 2010",
    ),
    "novelty": Metric(
        "mean self-information of the shown items, in bits: how few users have them already",
        "mean over users of the mean over the first k of -log2(max(users with the item, 1) / users)",
        "0 to log2(users)",
        "higher",
        "Zhou et al., PNAS 2010; Castells, Vargas and Wang, DDR 2011",
    ),
    "gini": Metric(
        "inequality of exposure over the catalogue, items never shown included",
        "sum_i (2 i - n - 1) x_(i) / (n sum_i x_(i)), x_(1) <= ... <= x_(n) the times each of n items is shown",
        "0 to (n - 1) / n",
        "lower",
        "Gini, 1912; Fleder and Hosanagar, Management Science 2009",
    ),
    "tie_share": Metric(
        "share of lists in which two of the first k + 1 entries have the same score, so that item_id decided",
        "users with two equal scores at ranks 1..k + 1 / users with a list",
        "0 to 1",
        "lower",
        "McSherry and Najork, ECIR 2008 (tied scores)",
    ),
}
