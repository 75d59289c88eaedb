"""Judged lists: figures by hand, lifts paired by user, and a catalogue as of the training."""

from __future__ import annotations

import polars as pl
import pytest

from persona_cli.evaluation.beyond import Background
from persona_cli.evaluation.judging import judge, stacked
from persona_cli.evaluation.metrics import METRICS


def lists_of(entries: dict[str, str]) -> pl.DataFrame:
    """Each user's list as letters, best first."""
    rows = [(user, item, rank, float(-rank)) for user, items in entries.items() for rank, item in enumerate(items, 1)]
    schema = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int32, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


ANSWERS = pl.DataFrame({"user_id": ["u", "u", "v", "w"], "item_id": ["a", "b", "c", "d"]})
ITEMS = pl.Series("item_id", list("abcdef"))
BACKGROUND = Background(ITEMS, pl.DataFrame({"item_id": ITEMS, "users": [4, 2, 1, 1, 0, 4]}), 4)


def test_figures_by_hand() -> None:
    lists = {
        "popular": lists_of({"u": "afe", "v": "afe", "w": "afe"}),
        "ease": lists_of({"u": "abf", "v": "fac"}),  # w has no list: 0, and still counts
    }
    judged = judge(lists, ANSWERS, BACKGROUND, [2], "popular")
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
    assert list(ease.metrics) == [f"{name}@2" for name in METRICS]
    # Nothing is known of categories, histories or times: not stated, and never 0.
    assert ease.metrics["category_calibration@2"] is None and ease.metrics["freshness@2"] is None
    assert ease.curve["recall"] == [(1, pytest.approx(1 / 6)), (2, pytest.approx(1 / 3))]


def test_per_user_values_stand_side_by_side() -> None:
    lists = {"popular": lists_of({"u": "a"}), "knn": lists_of({"v": "c", "w": "a"})}
    table = stacked(judge(lists, ANSWERS, BACKGROUND, [1], "popular"))
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
    judged = judge({"popular": empty, "knn": lists_of({"u": "a"})}, ANSWERS, BACKGROUND, [1], "popular")
    assert judged["knn"].lift["ndcg@1"] is None
    assert judged["popular"].metrics["novelty@1"] is None and judged["popular"].metrics["tie_share@1"] is None
    assert judged["popular"].metrics["ndcg@1"].value == 0.0  # type: ignore[union-attr]


def test_ties_across_the_cut_are_seen() -> None:
    tied = lists_of({"u": "ab", "v": "ab"}).with_columns(score=pl.Series([1.0, 1.0, 1.0, 0.5]))
    judged = judge({"popular": tied}, ANSWERS, BACKGROUND, [1], "popular")
    assert judged["popular"].metrics["tie_share@1"] == (0.5, None, None)


def test_what_ties_across_the_end_of_a_list_is_averaged_over_all_who_share_the_score() -> None:
    # One of four items of one score is right: each place gains 1/4, whatever the names of the items are.
    lists = lists_of({"u": "ab"}).with_columns(score=pl.lit(1.0))
    answers = pl.DataFrame({"user_id": ["u"], "item_id": ["a"]})
    boundary = pl.DataFrame({"user_id": ["u"], "tied": [4], "tied_relevant": [1]})
    judged = judge({"knn": lists}, answers, BACKGROUND, [1], "popular", boundaries={"knn": boundary})["knn"]
    assert judged.metrics["ndcg@1"].value == 1.0  # type: ignore[union-attr]
    assert judged.metrics["ndcg_ties@1"].value == pytest.approx(0.25)  # type: ignore[union-attr]
    assert judged.lift == {}  # there is no popular list here to be over
