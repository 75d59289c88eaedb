"""Metrics of ranked lists: one strict definition each, user by user, and the registry of all that there are.

Every user with at least one relevant item counts, and a missing or short list scores 0 where it is missing, so no mean
is taken over the users that a model happened to serve. Precision divides by k; recall by the relevant items; NDCG has
binary gain, discount log2(rank + 1) and an ideal over min(k, relevant); average precision divides by min(k, relevant).
No value is ever NaN. Lists of users without relevant items are ignored by the metrics of accuracy here, and counted by
the metrics of the whole catalogue.

`METRICS` states definition, formula, range, direction and source of each metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import UsageError
from persona_cli.evaluation.beyond import BEYOND
from persona_cli.evaluation.coded import Floats, Hits, Metric, find_hits
from persona_cli.evaluation.ties import TIES

PATIENCE = 0.85
"""Chance that a reader of rank-biased precision goes on from one entry to the next."""


def per_user(lists: pl.DataFrame, relevant: pl.DataFrame, ks: Sequence[int]) -> pl.DataFrame:
    """Every accuracy metric at every k: one row per user with a relevant item, sorted by user_id.

    lists: user_id, item_id, rank from 1; relevant: user_id, item_id, what each user was found to want. Columns of the
    answer: user_id, then `metric@k` of every metric of `ACCURACY`, for each k in the order given; the mean of a column
    is the metric. The order of rows in the inputs does not matter. Raises BadData when a list holds an item or a rank
    twice, when a relevant pair is given twice, or when an id or a rank is missing.
    """
    return values(find_hits(lists, relevant, depth=max(checked_cutoffs(ks))), ks)


def values(hits: Hits, ks: Sequence[int]) -> pl.DataFrame:
    """`per_user` of hits that were found to a depth of at least max(ks)."""
    columns = [
        pl.Series(f"{name}@{k}", metric.of(hits, k))
        for k in checked_cutoffs(ks)
        for name, metric in ACCURACY.items()
        if metric.of is not None
    ]
    return pl.DataFrame([hits.users, *columns])


def checked_cutoffs(ks: Sequence[int]) -> list[int]:
    """The cutoffs. Raises UsageError unless they are different whole numbers from 1."""
    bad = [k for k in ks if k < 1]
    if bad or not ks or len(set(ks)) < len(ks):
        raise UsageError(f"k is {', '.join(map(str, ks)) or 'empty'}; expected different whole numbers from 1")
    return list(ks)


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
    found = np.zeros(len(hits.users))
    first = np.flatnonzero(np.diff(hits.user, prepend=-1))  # hits are sorted by user and rank
    found[hits.user[first]] = np.where(hits.rank[first] <= k, 1.0 / hits.rank[first], 0.0)
    return found


def _rank_biased_precision(hits: Hits, k: int) -> Floats:
    return hits.per_user(np.where(hits.rank <= k, (1.0 - PATIENCE) * PATIENCE ** (hits.rank - 1.0), 0.0))


ACCURACY: dict[str, Metric] = {
    "recall": Metric(
        "share of the user's relevant items that stand in the first k",
        "hits@k / relevant",
        "0 to 1; below 1 by construction where relevant > k",
        "higher",
        "Cleverdon, 1966; as RecTools, RePlay, RecBole",
        lambda hits, k: _n_hits(hits, k) / hits.relevant,
        per_user=True,
    ),
    "recall_capped": Metric(
        "share found in the first k of as many relevant items as k places can hold",
        "hits@k / min(k, relevant)",
        "0 to 1",
        "higher",
        "Liang et al., WWW 2018; as recall of LensKit, r_precision of RecTools",
        lambda hits, k: _n_hits(hits, k) / np.minimum(hits.relevant, k),
        per_user=True,
    ),
    "precision": Metric(
        "share of the k places that hold a relevant item; places left empty count as wrong",
        "hits@k / k",
        "0 to min(k, relevant) / k",
        "higher",
        "Cleverdon, 1966; as RecTools, RePlay, RecBole",
        lambda hits, k: _n_hits(hits, k) / k,
        per_user=True,
    ),
    "ndcg": Metric(
        "hits discounted by rank, as a share of the best possible list",
        "sum over hits of 1/log2(rank + 1), divided by the sum over r = 1..min(k, relevant) of 1/log2(r + 1)",
        "0 to 1",
        "higher",
        "Järvelin and Kekäläinen, ACM TOIS 2002; binary gain, as RePlay, RecBole",
        _ndcg,
        per_user=True,
    ),
    "map": Metric(
        "mean precision at the ranks of the hits, as a share of the best possible list",
        "sum over hits of (hits up to rank)/rank, divided by min(k, relevant)",
        "0 to 1",
        "higher",
        "Buckley and Voorhees, SIGIR 2000; divisor as RePlay, RecBole, implicit",
        _average_precision,
        per_user=True,
    ),
    "mrr": Metric(
        "one over the rank of the first hit, 0 without a hit in the first k",
        "1 / rank of the first hit",
        "0 to 1",
        "higher",
        "Voorhees, TREC-8 1999",
        _reciprocal_rank,
        per_user=True,
    ),
    "hit_rate": Metric(
        "share of users with at least one hit in the first k",
        "1 if hits@k >= 1 else 0",
        "0 to 1",
        "higher",
        "Deshpande and Karypis, ACM TOIS 2004",
        lambda hits, k: np.minimum(_n_hits(hits, k), 1.0),
        per_user=True,
    ),
    "rbp": Metric(
        "rank-biased precision: the rate at which a reader who goes on from each entry to the next with a chance of "
        "0.85 meets relevant ones; what follows the first k counts as wrong",
        "(1 - p) sum over hits of p^(rank - 1), p = 0.85",
        "0 to 1 - p^k; at most 1 - p^relevant",
        "higher",
        "Moffat and Zobel, ACM TOIS 2008; as LensKit",
        _rank_biased_precision,
        per_user=True,
    ),
}

METRICS: dict[str, Metric] = ACCURACY | BEYOND | TIES
"""Every metric there is, in the order in which they are shown."""
