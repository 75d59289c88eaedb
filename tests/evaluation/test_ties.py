"""Tied scores against figures by hand, scikit-learn, and every order that the tied items can be in."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from persona_cli.errors import BadData
from persona_cli.evaluation.coded import coded_lists, coded_pairs, hits_of, scores_of
from persona_cli.evaluation.ties import ndcg_ties, tie_share, tied_by

Scored = list[tuple[str, float | None]]


def frame(lists: dict[str, Scored]) -> pl.DataFrame:
    rows = [
        (user, item, rank, score)
        for user, entries in lists.items()
        for rank, (item, score) in enumerate(entries, start=1)
    ]
    schema = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def pairs(wanted: dict[str, set[str]]) -> pl.DataFrame:
    rows = [(user, item) for user, items in wanted.items() for item in sorted(items)]
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String}, orient="row")


def across(rows: list[tuple[str, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user_id": pl.String, "tied": pl.Int64, "tied_relevant": pl.Int64}, orient="row")


def expected_ndcg(
    lists: pl.DataFrame, wanted: dict[str, set[str]], ks: list[int], boundary: pl.DataFrame | None = None
) -> dict[int, list[float]]:
    coded = coded_lists(lists)
    hits = hits_of(coded, coded_pairs(pairs(wanted), coded.items))
    assert hits.users.to_list() == sorted(wanted)
    found = ndcg_ties(coded, scores_of(lists, coded), hits, ks, boundary)
    return {k: values.tolist() for k, values in found.items()}


def shares(lists: pl.DataFrame, k: int) -> float | None:
    coded = coded_lists(lists)
    return tie_share(tied_by(coded, scores_of(lists, coded)), k)


def dcg(places: list[int]) -> float:
    return sum(1 / math.log2(place + 1) for place in places)


SECOND, THIRD = 1 / math.log2(3), 1 / math.log2(4)


def test_a_tied_answer_gains_its_share_at_every_place_of_its_group() -> None:
    lists = frame({"u": [("a", 3.0), ("b", 2.0), ("c", 2.0), ("d", 1.0)]})
    found = expected_ndcg(lists, {"u": {"c"}}, [1, 2, 3, 4])
    assert found[1] == [0.0]
    assert found[2] == pytest.approx([SECOND / 2])
    assert found[3] == pytest.approx([(SECOND + THIRD) / 2])
    assert found[4] == found[3]


def test_untied_answers_beside_a_tie_keep_their_gain() -> None:
    lists = frame({"u": [("a", 3.0), ("b", 2.0), ("c", 2.0)], "v": [("a", 3.0), ("b", 2.0), ("c", 1.0)]})
    found = expected_ndcg(lists, {"u": {"a", "c"}, "v": {"a", "c"}}, [3])
    best = 1 + SECOND
    assert found[3] == pytest.approx([(1 + (SECOND + THIRD) / 2) / best, (1 + THIRD) / best])


def test_items_beyond_the_end_share_the_gain_of_the_last_group() -> None:
    # Ten items have the score of b and c, three of them are right, of which the list holds one.
    lists = frame({"u": [("a", 3.0), ("b", 2.0), ("c", 2.0)]})
    wanted = {"u": {"c", "x", "y"}}
    found = expected_ndcg(lists, wanted, [2, 3], across([("u", 10, 3), ("not asked", 5, 1)]))
    assert found[2] == pytest.approx([0.3 * SECOND / (1 + SECOND)])
    assert found[3] == pytest.approx([0.3 * (SECOND + THIRD) / (1 + SECOND + THIRD)])


def test_a_single_last_entry_may_be_tied_with_what_is_not_shown() -> None:
    lists = frame({"u": [("a", 3.0), ("b", 2.0)], "v": [("a", 3.0), ("b", 2.0)]})
    wanted = {"u": {"b"}, "v": {"z"}}
    boundary = across([("u", 4, 1), ("v", 4, 1)])
    assert expected_ndcg(lists, wanted, [2], boundary)[2] == pytest.approx([SECOND / 4, SECOND / 4])
    assert expected_ndcg(lists, wanted, [2])[2] == pytest.approx([SECOND, 0.0])


def test_without_ties_or_scores_it_is_ndcg() -> None:
    untied = frame({"u": [("a", 3.0), ("b", 2.0)], "v": [("c", 1.0)]})
    unscored = frame({"u": [("a", None), ("b", None)], "v": [("c", None)]})
    half = frame({"u": [("a", 1.0), ("b", None)], "v": [("c", None)]})
    wanted = {"u": {"b"}, "v": {"c"}, "w": {"a"}}
    for lists in (untied, unscored, unscored.drop("score"), half):
        assert expected_ndcg(lists, wanted, [2])[2] == pytest.approx([SECOND, 1.0, 0.0])


def test_lists_of_strangers_and_the_order_of_rows_do_not_matter() -> None:
    lists = frame(
        {
            "a stranger": [("c", 1.0), ("b", 1.0)],
            "u": [("a", 3.0), ("b", 2.0), ("c", 2.0)],
            "v": [("c", 0.0), ("a", -0.0), ("b", -1.0)],
        }
    )
    wanted = {"u": {"c"}, "v": {"a"}, "without a list": {"a"}}
    found = expected_ndcg(lists, wanted, [1, 3], across([("a stranger", 7, 2)]))
    assert found[1] == pytest.approx([0.0, 0.5, 0.0])
    assert found[3] == pytest.approx([(SECOND + THIRD) / 2, (1 + SECOND) / 2, 0.0])
    shuffled = lists.sample(fraction=1.0, shuffle=True, seed=5)
    assert expected_ndcg(shuffled, wanted, [1, 3]) == found


def test_equal_scores_are_a_group_even_where_ranks_do_not_follow_scores() -> None:
    lists = frame({"u": [("a", 1.0), ("b", 2.0), ("c", 1.0)]})
    assert expected_ndcg(lists, {"u": {"a"}}, [3])[3] == pytest.approx([(1 + THIRD) / 2])
    assert expected_ndcg(lists, {"u": {"a"}}, [3], across([("u", 4, 1)]))[3] == pytest.approx([(1 + THIRD) / 4])


def test_places_left_empty_gain_nothing() -> None:
    lists = pl.DataFrame({"user_id": ["u"] * 2, "item_id": ["a", "b"], "rank": [2, 5], "score": [1.0, 1.0]})
    found = expected_ndcg(lists, {"u": {"b"}}, [3, 5])
    assert found[3] == pytest.approx([SECOND / 2])
    assert found[5] == pytest.approx([(SECOND + 1 / math.log2(6)) / 2])


@pytest.mark.parametrize("row", [("u", 1, 1), ("u", 5, 0), ("u", 3, 4)])
def test_a_boundary_that_contradicts_the_list_is_refused(row: tuple[str, int, int]) -> None:
    lists = frame({"u": [("a", 2.0), ("b", 2.0)]})
    with pytest.raises(BadData, match="fewer items than the lists themselves hold"):
        expected_ndcg(lists, {"u": {"a"}}, [2], across([row]))


def test_whole_rankings_with_ties_equal_scikit_learn() -> None:
    draws = np.random.default_rng(4)
    n_users, n_items = 40, 25
    truth = draws.random((n_users, n_items)) < 0.2
    truth[:, 3] = True
    scores = draws.integers(0, 6, (n_users, n_items)).astype(float)
    lists = frame(
        {
            f"u{u:02d}": [(f"i{i:02d}", scores[u, i]) for i in np.argsort(-scores[u], kind="stable")]
            for u in range(n_users)
        }
    )
    wanted = {f"u{u:02d}": {f"i{i:02d}" for i in np.flatnonzero(truth[u])} for u in range(n_users)}
    found = expected_ndcg(lists, wanted, [1, 3, 10, 25])
    for k, values in found.items():
        oracle = [ndcg_score(truth[u : u + 1].astype(int), scores[u : u + 1], k=k) for u in range(n_users)]
        assert values == pytest.approx(oracle, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=6), st.integers(1, 6), st.sets(st.integers(0, 7), min_size=1))
def test_it_is_the_mean_over_every_order_of_the_tied_items(levels: list[int], depth: int, right: set[int]) -> None:
    catalogue = [f"i{i}" for i in range(len(levels))]
    level = dict(zip(catalogue, map(float, levels), strict=True))
    wanted = {f"i{i}" for i in right}
    ranking = sorted(catalogue, key=lambda item: (-level[item], item))
    shown, beyond = ranking[:depth], ranking[depth:]
    boundary = None
    if beyond and level[beyond[0]] == level[shown[-1]]:
        group = [item for item in catalogue if level[item] == level[shown[-1]]]
        boundary = across([("u", len(group), sum(item in wanted for item in group))])
    found = expected_ndcg(frame({"u": [(item, level[item]) for item in shown]}), {"u": wanted}, [1, depth], boundary)
    for k in {1, depth}:
        gains = []
        for order in permutations(catalogue):
            there = sorted(order, key=lambda item: -level[item])  # stable: tied items stay in this order
            gains.append(dcg([place for place, item in enumerate(there[:k], start=1) if item in wanted]))
        ideal = dcg(list(range(1, min(k, len(wanted)) + 1)))
        assert found[k][0] == pytest.approx(sum(gains) / len(gains) / ideal, abs=1e-12)


def test_tie_share_sees_ties_inside_and_across_the_cut() -> None:
    lists = frame(
        {
            "inside": [("a", 2.0), ("b", 2.0), ("c", 1.0)],
            "across": [("a", 3.0), ("b", 2.0), ("c", 2.0)],
            "below": [("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 2.0)],
            "none": [("a", 3.0), ("b", 2.0), ("c", 1.0)],
            "unscored": [("a", None), ("b", None), ("c", None)],
        }
    )
    assert shares(lists, 1) == pytest.approx(1 / 5)
    assert shares(lists, 2) == pytest.approx(2 / 5)
    assert shares(lists, 3) == pytest.approx(3 / 5)
    assert shares(lists.sample(fraction=1.0, shuffle=True, seed=1), 2) == pytest.approx(2 / 5)
    assert shares(lists.clear(), 2) is None
    assert shares(lists.drop("score"), 2) == 0.0


def test_tie_share_sees_equal_scores_that_are_not_neighbours() -> None:
    lists = frame({"u": [("a", 1.0), ("b", 2.0), ("c", 1.0)], "v": [("a", 1.0), ("b", 2.0), ("c", 3.0)]})
    assert [shares(lists, k) for k in (1, 2)] == [0.0, 0.5]


def test_tie_share_of_a_constant_model_is_one() -> None:
    lists = frame(
        {"u": [(i, s) for i, s in zip("abc", (0.0, -0.0, 0.0), strict=True)], "v": [(i, math.nan) for i in "abc"]}
    )
    assert shares(lists, 2) == 1.0
