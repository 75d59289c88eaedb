"""Judged lists: figures by hand, lifts paired by user, and a catalogue as of the training."""

from __future__ import annotations

import polars as pl
import pytest

from persona_cli.evaluation.judging import Catalogue, judge, stacked


def lists_of(entries: dict[str, str]) -> pl.DataFrame:
    """Each user's list as letters, best first."""
    rows = [(user, item, rank, float(-rank)) for user, items in entries.items() for rank, item in enumerate(items, 1)]
    schema = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int32, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


ANSWERS = pl.DataFrame({"user_id": ["u", "u", "v", "w"], "item_id": ["a", "b", "c", "d"]})
CATALOGUE = Catalogue(pl.DataFrame({"item_id": list("abcdef"), "users": [4, 2, 1, 1, 0, 4]}), 4)


def test_figures_by_hand() -> None:
    lists = {
        "popular": lists_of({"u": "afe", "v": "afe", "w": "afe"}),
        "ease": lists_of({"u": "abf", "v": "fac"}),  # w has no list: 0, and still counts
    }
    judged = judge(lists, ANSWERS, CATALOGUE, [2], "popular")
    ease, popular = judged["ease"], judged["popular"]
    assert ease.metrics["recall@2"].value == pytest.approx(1 / 3)  # type: ignore[union-attr]
    assert popular.metrics["recall@2"].value == pytest.approx(0.5 / 3)  # type: ignore[union-attr]
    assert ease.lift["recall@2"].value == pytest.approx(1.0)  # type: ignore[union-attr]
    assert popular.lift == {}
    assert ease.metrics["coverage@2"] == (3 / 6, None, None)
    assert popular.metrics["coverage@2"] == (2 / 6, None, None)
    # a: 4 of 4 users, 0 bits; b: 2 of 4, 1 bit; f: 0 bits. u sees 1/2 bit on average, v none.
    assert ease.metrics["novelty@2"].value == pytest.approx(0.25)  # type: ignore[union-attr]
    assert ease.metrics["tie_share@2"] == (0.0, None, None)
    assert list(ease.metrics)[-3:] == ["coverage@2", "novelty@2", "tie_share@2"]


def test_per_user_values_stand_side_by_side() -> None:
    lists = {"popular": lists_of({"u": "a"}), "knn": lists_of({"v": "c", "w": "a"})}
    table = stacked(judge(lists, ANSWERS, CATALOGUE, [1], "popular"))
    assert table.select("model", "user_id", "hit_rate@1").rows() == [
        ("popular", "u", 1.0),
        ("popular", "v", 0.0),
        ("popular", "w", 0.0),
        ("knn", "u", 0.0),
        ("knn", "v", 1.0),
        ("knn", "w", 0.0),
    ]


def test_no_lift_over_nothing_and_no_novelty_of_no_list() -> None:
    empty = lists_of({}).clear()
    judged = judge({"popular": empty, "knn": lists_of({"u": "a"})}, ANSWERS, CATALOGUE, [1], "popular")
    assert judged["knn"].lift["ndcg@1"] is None
    assert judged["popular"].metrics["novelty@1"] is None and judged["popular"].metrics["tie_share@1"] is None
    assert judged["popular"].metrics["ndcg@1"].value == 0.0  # type: ignore[union-attr]


def test_ties_across_the_cut_are_seen() -> None:
    tied = lists_of({"u": "ab", "v": "ab"}).with_columns(score=pl.Series([1.0, 1.0, 1.0, 0.5]))
    judged = judge({"popular": tied}, ANSWERS, CATALOGUE, [1], "popular")
    assert judged["popular"].metrics["tie_share@1"] == (0.5, None, None)
