"""Metrics against figures by hand, against scikit-learn, and against the definitions written out in plain Python."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import lists_of, pairs_of
from sklearn.metrics import ndcg_score

from persona_cli.errors import BadData, UsageError
from persona_cli.evaluation import metrics

NAMES = list(metrics.ACCURACY)


FIVE_LISTS = lists_of({"u1": "abcde", "u2": "xaybz", "u3": "abcde", "u4": "xa"})
FIVE_WANTED = pairs_of({"u1": "a", "u2": "abc", "u3": "abcdefg", "u4": "ab", "u5": "q"})

# User by user at k = 5: u2 hits at ranks 2 and 4, of 3 relevant items; u3 five times, of 7; u4 at 2, in a list of 2.
FIVE_USERS = {
    "recall@5": [1.0, 0.666667, 0.714286, 0.5, 0.0],
    "recall_capped@5": [1.0, 0.666667, 1.0, 0.5, 0.0],
    "precision@5": [0.2, 0.4, 1.0, 0.2, 0.0],
    "ndcg@5": [1.0, 0.498189, 1.0, 0.386853, 0.0],
    "map@5": [1.0, 0.333333, 1.0, 0.25, 0.0],
    "mrr@5": [1.0, 0.5, 1.0, 0.5, 0.0],
    "hit_rate@5": [1.0, 1.0, 1.0, 1.0, 0.0],
    "rbp@5": [0.15, 0.219619, 0.556295, 0.1275, 0.0],
}
FIVE_MEANS = {
    "recall@5": 0.576190,
    "recall_capped@5": 0.633333,
    "precision@5": 0.36,
    "ndcg@5": 0.577008,
    "map@5": 0.516667,
    "mrr@5": 0.6,
    "hit_rate@5": 0.8,
    "rbp@5": 0.210683,
}


def test_five_users_on_whom_the_libraries_disagree() -> None:
    table = metrics.per_user(FIVE_LISTS, FIVE_WANTED, [5])
    assert table.columns == ["user_id", *FIVE_USERS]
    assert table["user_id"].to_list() == ["u1", "u2", "u3", "u4", "u5"]
    for column, values in FIVE_USERS.items():
        assert table[column].to_list() == pytest.approx(values, abs=1e-6), column
        assert table[column].mean() == pytest.approx(FIVE_MEANS[column], abs=1e-6), column


def test_columns_follow_the_cutoffs_in_the_order_given() -> None:
    table = metrics.per_user(FIVE_LISTS, FIVE_WANTED, [5, 1])
    assert table.columns == ["user_id", *[f"{n}@5" for n in NAMES], *[f"{n}@1" for n in NAMES]]
    assert table["recall@1"].to_list() == pytest.approx([1, 0, 1 / 7, 0, 0])
    assert table.drop("user_id").dtypes == [pl.Float64] * 2 * len(NAMES)


def test_a_perfect_list_scores_exactly_one_at_every_cutoff() -> None:
    items = [f"i{n:02d}" for n in range(30)]
    table = metrics.per_user(lists_of({"u": items}), pairs_of({"u": items}), [1, 3, 10, 20])
    for k in (1, 3, 10, 20):
        for name in ("precision", "ndcg", "map", "mrr", "hit_rate"):
            assert table[f"{name}@{k}"].item() == 1.0


def test_lists_of_users_without_relevant_items_are_ignored_and_missing_lists_score_zero() -> None:
    lists = lists_of({"a": "xy", "stranger": "xy"})
    table = metrics.per_user(lists, pairs_of({"a": "x", "b": "x"}), [2])
    assert table["user_id"].to_list() == ["a", "b"]
    assert table["recall@2"].to_list() == [1.0, 0.0]
    nobody = metrics.per_user(lists.clear(), pairs_of({"a": "x"}), [2])
    assert nobody.drop("user_id").row(0) == (0.0,) * len(NAMES)
    assert metrics.per_user(lists, pairs_of({}), [2]).shape == (0, 1 + len(metrics.ACCURACY))


def test_ranks_are_taken_as_given_and_gaps_stay_empty_places() -> None:
    lists = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["b", "a"], "rank": [4, 2], "score": [0.1, 0.9]})
    table = metrics.per_user(lists, pairs_of({"u": "b"}), [3, 4])
    assert table["mrr@3"].item() == 0.0
    assert table["mrr@4"].item() == 0.25
    assert table["precision@4"].item() == 0.25


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (lists_of({"u": ["a", "b", "a"]}), "item_id 'a' 2 times for user 'u'"),
        (
            pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "rank": [1, 1]}),
            "rank 1 2 times for user 'u'",
        ),
        (pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "rank": [0]}), "ranks start from 1"),
        (pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "rank": [1.0]}), "expected whole numbers"),
        (
            pl.DataFrame({"user_id": ["u"], "item_id": [None], "rank": [1]}, schema_overrides={"item_id": pl.String}),
            "1 rows without item_id",
        ),
        (pl.DataFrame({"user_id": [7], "item_id": ["a"], "rank": [1]}), "ids are text"),
        (pl.DataFrame({"user_id": ["u"], "item_id": ["a"]}), "no column 'rank'"),
    ],
)
def test_lists_that_are_not_lists_are_refused(lists: pl.DataFrame, message: str) -> None:
    with pytest.raises(BadData, match=message):
        metrics.per_user(lists, pairs_of({"u": "a"}), [5])


def test_a_duplicate_beyond_the_cutoff_or_of_an_ignored_user_is_still_an_error() -> None:
    with pytest.raises(BadData, match="expected once"):
        metrics.per_user(lists_of({"u": "abca"}), pairs_of({"u": "a"}), [2])
    with pytest.raises(BadData, match="stranger"):
        metrics.per_user(lists_of({"stranger": "aa"}), pairs_of({"u": "a"}), [2])


def test_relevant_pairs_given_twice_are_refused() -> None:
    with pytest.raises(BadData, match="relevant pairs hold item_id 'a' 2 times"):
        metrics.per_user(FIVE_LISTS, pairs_of({"u": ["a", "a"]}), [5])


@pytest.mark.parametrize("ks", [[], [0], [5, 5], [-1, 3]])
def test_cutoffs_are_whole_numbers_from_one(ks: list[int]) -> None:
    with pytest.raises(UsageError, match="expected different whole numbers from 1"):
        metrics.per_user(FIVE_LISTS, FIVE_WANTED, ks)


def test_ndcg_equals_scikit_learn_on_untied_lists() -> None:
    draws = np.random.default_rng(11)
    n_users, n_items = 60, 40
    truth = draws.random((n_users, n_items)) < 0.15
    truth[:, 0] = True
    scores = draws.permuted(np.tile(np.arange(n_items, dtype=float), (n_users, 1)), axis=1)
    order = np.argsort(-scores, axis=1)
    lists = lists_of({f"u{u:02d}": [f"i{i}" for i in order[u]] for u in range(n_users)})
    wanted = pairs_of({f"u{u:02d}": [f"i{i}" for i in np.flatnonzero(truth[u])] for u in range(n_users)})
    table = metrics.per_user(lists, wanted, [1, 5, 10, 40])
    for k in (1, 5, 10, 40):
        expected = [ndcg_score(truth[u : u + 1].astype(int), scores[u : u + 1], k=k) for u in range(n_users)]
        np.testing.assert_allclose(table[f"ndcg@{k}"].to_numpy(), expected, atol=1e-12)


def by_definition(items: list[str], wanted: set[str], k: int) -> list[float]:
    """Every metric of accuracy of one list, in the order of the registry, as a person would count it."""
    hits = [rank for rank, item in enumerate(items[:k], start=1) if item in wanted]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    precisions = [sum(1 for other in hits if other <= rank) / rank for rank in hits]
    return [
        len(hits) / len(wanted),
        len(hits) / min(k, len(wanted)),
        len(hits) / k,
        sum(1 / math.log2(rank + 1) for rank in hits) / ideal,
        sum(precisions) / min(k, len(wanted)),
        1 / hits[0] if hits else 0.0,
        1.0 if hits else 0.0,
        sum(0.15 * 0.85 ** (rank - 1) for rank in hits),
    ]


items = st.sampled_from("abcdefghij")
user_lists = st.dictionaries(st.sampled_from("uvwxyz"), st.lists(items, unique=True, max_size=8), max_size=6)
user_wants = st.dictionaries(st.sampled_from("uvwxyz"), st.sets(items, min_size=1, max_size=8), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    lists=user_lists,
    wanted=user_wants,
    ks=st.lists(st.integers(1, 10), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 99),
)
def test_every_metric_is_its_definition_in_any_order_of_rows(
    lists: dict[str, list[str]], wanted: dict[str, set[str]], ks: list[int], seed: int
) -> None:
    shuffled = lists_of(lists).sample(fraction=1.0, shuffle=True, seed=seed)
    table = metrics.per_user(shuffled, pairs_of(wanted).sample(fraction=1.0, shuffle=True, seed=seed), ks)
    assert table["user_id"].to_list() == sorted(wanted)
    for user in sorted(wanted):
        row = table.filter(pl.col("user_id") == user)
        for k in ks:
            found = [row[f"{name}@{k}"].item() for name in NAMES]
            assert found == pytest.approx(by_definition(lists.get(user, []), wanted[user], k), abs=1e-12)
    again = metrics.per_user(lists_of(lists), pairs_of(wanted), ks)
    assert again.equals(table)  # to the last bit


def test_the_registry_describes_every_metric_that_is_computed() -> None:
    table = metrics.per_user(FIVE_LISTS, FIVE_WANTED, [5])
    computed = [column.split("@")[0] for column in table.columns if "@" in column]
    assert computed == list(metrics.ACCURACY)
    assert {*computed, "coverage", "novelty", "gini", "ndcg_ties", "tie_share"} < set(metrics.METRICS)
    for metric in metrics.METRICS.values():
        assert metric.better in ("higher", "lower", "nearer 0")
        assert all([metric.definition, metric.formula, metric.range, metric.source])
