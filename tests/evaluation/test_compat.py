"""Other libraries' figures, against what those libraries printed for five users (k = 5)."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from persona_cli.errors import BadData, UsageError
from persona_cli.evaluation.compat import NAMES, compat, names, per_user, reordered, rows

RELEVANT = {"u1": "a", "u2": "abc", "u3": "abcdefg", "u4": "ab", "u5": "q"}
SHOWN = {"u1": "abcde", "u2": "xaybz", "u3": "abcde", "u4": "xa"}
CLOSE = 1e-6


def lists_of(shown: dict[str, str], scores: dict[str, list[float]] | None = None) -> pl.DataFrame:
    entries = [
        (user, item, rank, (scores[user][rank - 1] if scores else 1.0 - rank / 100))
        for user, items in shown.items()
        for rank, item in enumerate(items, start=1)
    ]
    schema = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64, "score": pl.Float64}
    return pl.DataFrame(entries, schema=schema, orient="row")


def answers_of(relevant: dict[str, str]) -> pl.DataFrame:
    pairs = [(user, item) for user, items in relevant.items() for item in items]
    return pl.DataFrame(pairs, schema={"user_id": pl.String, "item_id": pl.String}, orient="row")


LISTS, ANSWERS = lists_of(SHOWN), answers_of(RELEVANT)


@pytest.fixture(scope="module")
def figures() -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["library"], one["metric"]): one for one in compat(LISTS, ANSWERS, [5])}


@pytest.mark.parametrize(
    ("library", "metric", "expected"),
    [
        ("rectools", "ndcg", [0.339160, 0.360055, 1.0, 0.213986, 0.0]),
        ("replay", "ndcg", [1.0, 0.498189, 1.0, 0.386853, 0.0]),
        ("recommenders", "ndcg", [1.0, 0.498189, 1.0, 0.386853, 0.0]),
        ("lenskit", "ndcg", [1.0, 0.570141, 1.0, 0.5, 0.0]),
        ("rectools", "map", [1.0, 0.333333, 0.714286, 0.25, 0.0]),
        ("replay", "map", [1.0, 0.333333, 1.0, 0.25, 0.0]),
        ("recommenders", "map", [1.0, 0.333333, 1.0, 0.25, None]),
        ("rectools", "precision", [0.2, 0.4, 1.0, 0.2, 0.0]),
        ("replay", "precision", [0.2, 0.4, 1.0, 0.2, 0.0]),
        ("lenskit", "precision", [0.2, 0.4, 1.0, 0.5, None]),
        ("rectools", "recall", [1.0, 0.666667, 0.714286, 0.5, 0.0]),
        ("replay", "recall", [1.0, 0.666667, 0.714286, 0.5, 0.0]),
        ("lenskit", "recall", [1.0, 0.666667, 1.0, 0.5, 0.0]),
        ("replay", "mrr", [1.0, 0.5, 1.0, 0.5, 0.0]),
        ("lenskit", "hit_rate", [1.0, 1.0, 1.0, 1.0, 0.0]),
        ("lenskit", "rbp", [0.15, 0.219619, 0.556295, 0.1275, 0.0]),
    ],
)
def test_each_user_as_the_library_printed(library: str, metric: str, expected: list[float | None]) -> None:
    table = per_user(LISTS, ANSWERS, 5, library)
    assert table["user_id"].to_list() == ["u1", "u2", "u3", "u4", "u5"]
    for value, wanted in zip(table[metric], expected, strict=True):
        assert value is None if wanted is None else value == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize(
    ("library", "metric", "mean"),
    [
        ("RecTools", "ndcg", 0.382640),
        ("RecTools, divide_by_achievable", "ndcg", 0.577008),
        ("RePlay", "ndcg", 0.577008),
        ("Recommenders", "ndcg", 0.577008),
        ("LensKit", "ndcg", 0.614028),
        ("RecTools", "map", 0.459524),
        ("RecTools, divide_by_k", "map", 0.3),
        ("RePlay", "map", 0.516667),
        ("Recommenders", "map", 0.645833),
        ("RecTools", "precision", 0.36),
        ("RePlay", "precision", 0.36),
        ("LensKit", "precision", 0.525),
        ("Recommenders", "precision", 0.45),
        ("implicit", "precision", 0.75),
        ("RecTools", "recall", 0.576190),
        ("RePlay", "recall", 0.576190),
        ("LensKit", "recall", 0.633333),
        ("Recommenders", "recall", 0.720238),
        ("LensKit", "rbp", 0.210683),
        *((library, "mrr", 0.6) for library in ("RecTools", "RePlay", "LensKit", "RecBole")),
        *((library, "hit_rate", 0.8) for library in ("RecTools", "RePlay", "LensKit", "RecBole")),
    ],
)
def test_means_as_the_library_printed(
    figures: dict[tuple[str, str], dict[str, Any]], library: str, metric: str, mean: float
) -> None:
    assert figures[library, metric]["value"] == pytest.approx(mean, abs=CLOSE)


def test_our_own_figures_stand_beside_and_a_difference_is_explained(
    figures: dict[tuple[str, str], dict[str, Any]],
) -> None:
    ours = {"ndcg": 0.577008, "recall": 0.576190, "precision": 0.36, "map": 0.516667, "mrr": 0.6, "hit_rate": 0.8}
    for (_, metric), one in figures.items():
        if metric in ours:
            assert one["ours"] == pytest.approx(ours[metric], abs=CLOSE)
        assert (one["why"] != "") == (one["ours"] is None or abs(one["value"] - one["ours"]) > CLOSE)
    assert "log2(max(rank, 2))" in figures["LensKit", "ndcg"]["why"]


def test_libraries_that_sort_by_score_do_so_whatever_the_rank() -> None:
    """RePlay puts equal scores by item id, descending: exchanging two ids takes its NDCG@1 from 0 to 1."""
    tied = lists_of({"u": "ba"}, {"u": [0.5, 0.5]})

    def at_one(lists: pl.DataFrame, right: str) -> dict[str, tuple[float, str]]:
        found = compat(lists, answers_of({"u": right}), [1], ["replay", "rectools", "recommenders"])
        return {one["library"]: (one["value"], one["why"]) for one in found if one["metric"] == "ndcg"}

    assert at_one(tied, "b")["RePlay"] == (1.0, "")
    first_a = lists_of({"u": "ab"}, {"u": [0.5, 0.5]})
    assert at_one(first_a, "a")["RePlay"] == (0.0, "sorts by score, then by item id descending, whatever the rank")
    assert at_one(first_a, "a")["RecTools"] == (1.0, "")
    assert at_one(first_a, "a")["Recommenders"] == (1.0, "")
    upside_down = lists_of({"u": "ab"}, {"u": [0.1, 0.9]})
    assert at_one(upside_down, "a")["Recommenders"] == (0.0, "sorts by score, whatever the rank")
    assert at_one(upside_down, "a")["RecTools"] == (1.0, "")


def test_lists_without_scores_stay_as_ranked() -> None:
    bare = LISTS.with_columns(score=pl.lit(None, pl.Float64))
    assert reordered(bare, "score") is bare
    assert compat(bare, ANSWERS, [5], ["replay"]) == compat(LISTS, ANSWERS, [5], ["replay"])


def test_the_order_of_rows_does_not_matter() -> None:
    mixed = LISTS.sample(fraction=1.0, shuffle=True, seed=3)
    assert compat(mixed, ANSWERS.reverse(), [1, 3, 5]) == compat(LISTS, ANSWERS, [1, 3, 5])


def test_figures_come_by_k_then_metric_then_library() -> None:
    found = compat(LISTS, ANSWERS, [2, 5], ["lenskit", "rectools"])
    assert [one["k"] for one in found] == sorted(one["k"] for one in found)
    assert [one["library"] for one in found if one["metric"] == "recall" and one["k"] == 2] == ["RecTools", "LensKit"]


def test_rows_name_each_metric_once_under_our_figure() -> None:
    shown = rows(compat(LISTS, ANSWERS, [5], ["rectools"]))
    assert shown[:3] == [
        ("ndcg@5", "persona", "0.577008", ""),
        ("", "RecTools 0.19.0", "0.382640", "the ideal list has k relevant items, also for users who have fewer"),
        ("", "RecTools 0.19.0, divide_by_achievable", "0.577008", ""),
    ]
    assert rows(compat(LISTS, ANSWERS, [5], ["lenskit"]))[-2][:2] == ("rbp@5", "persona")


def test_unknown_libraries_are_answered_with_the_nearest() -> None:
    assert names(["all"]) == list(NAMES)
    with pytest.raises(UsageError, match="did you mean 'lenskit'"):
        compat(LISTS, ANSWERS, [5], ["lensket"])


def test_lists_that_are_none_are_refused() -> None:
    with pytest.raises(BadData, match="2 times for user"):
        compat(pl.concat([LISTS, LISTS.head(1)]), ANSWERS, [5])
