"""Metrics beyond accuracy against figures by hand and against their definitions in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from shown import lists_of, pairs_of
from sklearn.isotonic import IsotonicRegression

from persona_cli.errors import BadData
from persona_cli.evaluation import diversity as diversities
from persona_cli.evaluation.beyond import BEYOND, Background, Beyond, beyond
from persona_cli.evaluation.calibration import score_bins, score_calibration
from persona_cli.evaluation.coded import coded_lists, coded_pairs, hits_of
from persona_cli.evaluation.diversity import coverage, drawn, gini, halves, self_information
from persona_cli.evaluation.intervals import wilson
from persona_cli.models.base import Interactions
from persona_cli.profiles.draws import keys as hashes

Wanted = dict[str, str]
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def histories(strengths: dict[str, dict[str, float]]) -> Interactions:
    users, items = sorted(strengths), sorted({item for own in strengths.values() for item in own})
    dense = np.array([[strengths[user].get(item, 0.0) for item in items] for user in users], dtype=np.float32)
    matrix = sparse.csr_array(dense.reshape(len(users), len(items)))
    names = [pl.Series(n, v, dtype=pl.String) for n, v in (("user_id", users), ("item_id", items))]
    return Interactions(*names, matrix, matrix.astype(bool), np.diff(matrix.indptr).astype(np.int64))


def ones(had: dict[str, str]) -> Interactions:
    return histories({user: dict.fromkeys(items, 1.0) for user, items in had.items()})


def background(items: Sequence[str], had: dict[str, int] | None = None, n_users: int = 8, **more: Any) -> Background:
    names = pl.Series("item_id", sorted(items))
    counts = had or {}
    users = pl.DataFrame({"item_id": names, "users": [counts.get(item, 0) for item in names]})
    return Background(names, users, n_users, **more)


def found(
    lists: pl.DataFrame, about: Background, ks: Sequence[int] = (2,), wanted: Wanted | None = None, **more: Any
) -> Beyond:
    coded = coded_lists(lists, about.items)
    hits = hits_of(coded, coded_pairs(pairs_of(wanted or {}), coded.items))
    return beyond(lists, coded, hits, about, ks, **more)


def categories(of: dict[str, str | None]) -> pl.DataFrame:
    return pl.DataFrame({"item_id": list(of), "category": list(of.values())}, schema_overrides={"category": pl.String})


# Exposure


def test_coverage_counts_different_items_of_the_first_k() -> None:
    lists, about = lists_of({"u": "abc", "v": "adb"}), background("abcdefgh")
    judged = found(lists, about, (1, 2, 3))
    assert [judged.whole[f"coverage@{k}"] for k in (1, 2, 3)] == [1 / 8, 3 / 8, 4 / 8]
    assert found(lists.clear(), about).whole["coverage@2"] == 0.0


def test_gini_of_exposure_by_hand() -> None:
    # Shown 1, 3 times of a catalogue of 4: x = (0, 0, 1, 3), G = (1*1 + 3*3) / (4 * 4).
    lists = lists_of({"u": "ab", "v": "a", "w": "a"})
    assert found(lists, background("abcd")).whole["gini@2"] == pytest.approx(10 / 16)
    assert found(lists_of({"u": "ab", "v": "cd"}), background("abcd")).whole["gini@2"] == pytest.approx(0.0)
    assert found(lists, background("abcdefghij"), (1,)).whole["gini@1"] == pytest.approx(9 / 10)
    assert found(lists.clear(), background("abcd")).whole["gini@2"] is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_gini_equals_the_mean_absolute_difference(times: list[int]) -> None:
    mean_difference = sum(abs(a - b) for a in times for b in times) / len(times) ** 2
    assert gini(np.array(times)) == pytest.approx(mean_difference / (2 * sum(times) / len(times)))
    assert coverage(np.array(times)) == sum(t > 0 for t in times) / len(times)


def test_items_that_could_not_be_shown_are_refused() -> None:
    with pytest.raises(BadData, match="show 2 items that are not among the 1 that could be shown, 'x' first"):
        found(lists_of({"u": "axy"}), background("a"))


def test_the_codes_of_lists_may_go_on_beyond_what_could_be_shown() -> None:
    lists, about = lists_of({"u": "ba"}), background("ab", {"a": 8, "b": 2})
    coded = coded_lists(lists, pl.Series("item_id", ["a", "b", "an answer"]))
    hits = hits_of(coded, coded_pairs(pairs_of({"u": "a"}), coded.items))
    judged = beyond(lists, coded, hits, about, (1,))
    assert judged.per_user["novelty@1"].tolist() == [2.0]
    assert judged.whole["coverage@1"] == 0.5


def test_novelty_is_self_information_in_bits_averaged_by_user() -> None:
    lists = lists_of({"u": "ab", "v": "c", "w": "dab"})
    # -log2(8/8) = 0, -log2(2/8) = 2; what nobody has counts as one user's: -log2(1/8) = 3.
    judged = found(lists, background("abcd", {"a": 8, "b": 2}))
    assert judged.per_user["novelty@2"].tolist() == [1.0, 3.0, 1.5]
    assert found(lists.clear(), background("abcd")).whole["novelty@2"] is None


def test_what_rests_on_popularity_is_not_stated_where_it_is_not_known() -> None:
    about = Background(pl.Series("item_id", ["a", "b"]), None, 0, known=ones({"u": "a"}))
    judged = found(lists_of({"u": "ab"}), about)
    assert (judged.whole["novelty@2"], judged.whole["popularity_lift@2"]) == (None, None)
    assert judged.whole["coverage@2"] == 1.0


def test_popularity_that_cannot_be_is_refused() -> None:
    lists = lists_of({"u": "a"})
    with pytest.raises(BadData, match="more than all 8 users for 1 items"):
        found(lists, background("a", {"a": 9}))
    twice = pl.DataFrame({"item_id": ["a", "a"], "users": [1, 1]})
    with pytest.raises(BadData, match="an item twice"):
        found(lists, Background(pl.Series("item_id", ["a"]), twice, 8))
    with pytest.raises(BadData, match="more than all 0 users"):
        self_information(np.zeros(1, dtype=np.int64), 0)


def test_popularity_lift_compares_lists_with_histories() -> None:
    had = {"a": 6, "b": 2, "c": 1}
    known = ones({"u": "bc", "v": "c", "no list": "a", "w": ""})
    lists = lists_of({"u": "ab", "v": "ba", "w": "a", "unknown": "c"})
    judged = found(lists, background("abc", had, known=known), (1, 2))
    # u: shown 6 and 2, had 2 and 1; v: shown 2 and 6, had 1. w has no history, one has no list, one is not known.
    assert judged.ratios["popularity_lift@1"].tolist() == [[6.0, 1.5], [2.0, 1.0]]
    assert judged.ratios["popularity_lift@2"].tolist() == [[4.0, 1.5], [4.0, 1.0]]
    assert found(lists, background("abc", had)).whole["popularity_lift@2"] is None


def test_popularity_of_histories_does_not_depend_on_strength_and_unknown_items_have_none() -> None:
    known = histories({"u": {"a": 0.1, "z": 7.0}})
    judged = found(lists_of({"u": "b"}), background("ab", {"a": 4, "b": 3}, known=known))
    assert judged.ratios["popularity_lift@2"].tolist() == [[3.0, 2.0]]


def test_freshness_counts_items_first_seen_within_thirty_days() -> None:
    ages = {"a": 1, "b": 30, "c": 31, "d": -1}  # days before the lists
    first = pl.DataFrame(
        {"item_id": list(ages), "first": [NOW - timedelta(days=age) for age in ages.values()]},
        schema_overrides={"first": pl.Datetime("us", "UTC")},
    )
    about = background("abcde", first_seen=first, as_of=NOW)
    lists = lists_of({"u": "ab", "v": "ca", "w": "de", "x": "b"})
    assert found(lists, about).per_user["freshness@2"].tolist() == [1.0, 0.5, 0.0, 1.0]
    assert found(lists, about, fresh_days=31).per_user["freshness@2"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert found(lists, background("abcde", first_seen=first)).whole["freshness@2"] is None


# Diversity


def test_diversity_is_one_minus_the_cosine_of_who_has_two_items() -> None:
    learned = histories({"1": {"a": 5.0, "b": 1.0}, "2": {"a": 1.0, "b": 2.0, "c": 1.0}, "3": {"c": 1.0}})
    about = background("abcd", learned=learned)
    lists = lists_of({"u": "abc", "v": "ca", "w": "a", "x": "ad"})
    judged = found(lists, about, (2, 3))
    # a and b: both users have both, cosine 1; a and c share one of two each, 1/2; b and c too; nobody has d.
    assert judged.per_user["diversity@2"] == pytest.approx([0.0, 0.5, 1.0])
    assert judged.per_user["diversity@3"] == pytest.approx([1 / 3, 0.5, 1.0])
    assert found(lists, about, (1,)).whole["diversity@1"] is None
    assert found(lists, background("abcd")).whole["diversity@2"] is None


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from("abcdefg")), min_size=1, max_size=8),
    st.dictionaries(st.sampled_from("uvwxyz"), st.lists(st.sampled_from("abcdefgh"), unique=True), min_size=1),
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["one", "two", "three", None]), min_size=1),
)
def test_diversities_equal_their_definitions(
    had: list[set[str]], lists: dict[str, list[str]], named: dict[str, str | None]
) -> None:
    learned = ones({str(n): "".join(items) for n, items in enumerate(had)})
    about = background("abcdefgh", learned=learned, catalogue=categories(named))
    judged = found(lists_of(lists), about, (2, 5))

    def cosine(i: str, j: str) -> float:
        norms = sum(i in own for own in had) * sum(j in own for own in had)
        return sum(i in own and j in own for own in had) / math.sqrt(norms) if norms else 0.0

    for k in (2, 5):
        own, other = [], []
        for user in sorted(lists):
            both = list(combinations(lists[user][:k], 2))
            if both:
                own.append(sum(1 - cosine(i, j) for i, j in both) / len(both))
            with_names = [(i, j) for i, j in both if named.get(i) and named.get(j)]
            if with_names:
                other.append(sum(named[i] != named[j] for i, j in with_names) / len(with_names))
        for name, values in (("diversity", own), ("category_diversity", other)):
            if values:
                assert judged.per_user[f"{name}@{k}"] == pytest.approx(values, abs=1e-12)
            else:
                assert judged.whole[f"{name}@{k}"] is None


def test_cosines_of_many_look_ups_come_from_a_sample_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    users, items = 20_000, 12
    taste = draws.random((users, 1))
    matrix = sparse.csc_array((draws.random((users, items)) < 0.6 * taste).astype(np.float32))
    first, second = np.triu_indices(items, 1)
    order = draws.permutation(users)
    exact = diversities.cosines(matrix, order, first, second)
    work = int(np.minimum(matrix.sum(axis=0)[first], matrix.sum(axis=0)[second]).sum())
    monkeypatch.setattr(diversities, "WORK", work // 4)
    sampled = diversities.cosines(matrix, order, first, second)
    assert 0 < np.abs(sampled - exact).max() < 0.05
    quarter = matrix.tocsr()[np.sort(order[: users // 4])].tocsc()
    monkeypatch.setattr(diversities, "WORK", 2 * work)
    assert sampled == pytest.approx(diversities.cosines(quarter, order, first, second), abs=1e-3)


def spread(number: int) -> int:
    """The first output of SplitMix64 seeded with `number`."""
    z = (number + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_of_many_users_a_stable_sample_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    users = pl.Series("user_id", sorted(f"user {n}" for n in range(500)))
    assert drawn(users).tolist() == list(range(500))
    few = drawn(users, 60)
    assert few.tolist() == sorted(set(few.tolist())) and len(few) == 60
    # Whoever is drawn among all is drawn among some, too.
    part = users.filter(pl.Series([n % 3 > 0 for n in range(500)]))
    assert set(users.gather(few)) & set(part) <= set(part.gather(drawn(part, 60)))
    assert hashes(pl.Series(["", "123456789"])).tolist() == [0xE220A8397B1DCDAF, spread(0xCBF43926)]
    assert 200 < halves(users).sum() < 300
    assert 20 < halves(users.gather(few)).sum() < 40

    monkeypatch.setattr("persona_cli.evaluation.beyond.drawn", lambda users: drawn(users, 60))
    lists = lists_of({user: "ab" if n % 2 else "ac" for n, user in enumerate(users)})
    about = background("abc", catalogue=categories({"a": "x", "b": "x", "c": "y"}))
    judged = found(lists, about)
    assert judged.per_user["category_diversity@2"].tolist() == [1.0 - n % 2 for n in few]
    assert len(judged.per_user["novelty@2"]) == 500


# Serendipity


def test_serendipity_counts_right_answers_that_the_popular_list_did_not_show() -> None:
    popular = lists_of({"u": "abc", "v": "abc"})
    lists = lists_of({"u": "adb", "v": "cab", "w": "de"})
    wanted = {"u": "abd", "v": "c", "w": "e", "x": "a"}
    judged = found(lists, background("abcde", expected=popular), (1, 2, 3), wanted)
    # u at 2: a was expected, d was not; at 3: b, too, was. v: c is expected at 3, not before. w: nothing was.
    assert judged.per_user["serendipity@1"].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert judged.per_user["serendipity@2"].tolist() == [0.5, 0.5, 0.5, 0.0]
    assert judged.per_user["serendipity@3"] == pytest.approx([1 / 3, 0.0, 1 / 3, 0.0])
    assert found(popular, background("abcde", expected=popular), (2,), wanted).per_user["serendipity@2"].sum() == 0
    assert found(lists, background("abcde"), (2,), wanted).whole["serendipity@2"] is None


def test_serendipity_where_lists_leave_places_empty() -> None:
    popular = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["b", "a"], "rank": [3, 5]})
    lists = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "rank": [2, 4]})
    judged = found(lists, background("ab", expected=popular), (2, 4, 5), {"u": "ab"})
    assert [judged.per_user[f"serendipity@{k}"].item() for k in (2, 4, 5)] == [1 / 2, 1 / 4, 0.0]


# Calibration


def test_category_calibration_by_hand() -> None:
    known = histories({"u": {"a": 3.0, "b": 1.0}, "v": {"a": 1.0}, "w": {"n": 1.0}, "x": {"b": 2.0}})
    about = background("abcn", known=known, catalogue=categories({"a": "one", "b": "two", "c": "two", "n": None}))
    lists = lists_of({"u": "ac", "v": "cb", "w": "ab", "x": "n", "y": "ab", "z": "n"})
    judged = found(lists, about)
    # u: p = 3/4, 1/4; q = 1/2, 1/2. v: all of one, none of it shown: log2(1 / 0.01). w, x, y, z lack a side.
    q = [0.99 * 0.5 + 0.01 * 0.75, 0.99 * 0.5 + 0.01 * 0.25]
    by_hand = 0.75 * math.log2(0.75 / q[0]) + 0.25 * math.log2(0.25 / q[1])
    assert judged.per_user["category_calibration@2"] == pytest.approx([by_hand, math.log2(100)], rel=1e-9)


def test_lists_in_the_proportions_of_the_history_are_calibrated() -> None:
    known = histories({"u": {"a": 1.0, "b": 2.0, "c": 1.0}})
    about = background("abcd", known=known, catalogue=categories({"a": "x", "b": "y", "c": "x", "d": "y"}))
    judged = found(lists_of({"u": "abcd"}), about, (3, 4))
    assert judged.per_user["category_calibration@4"].item() == pytest.approx(0.0, abs=1e-12)
    assert judged.per_user["category_calibration@3"].item() > 0.05


def test_metrics_of_categories_need_a_catalogue_that_names_some() -> None:
    known, lists = ones({"u": "a"}), lists_of({"u": "ab"})
    undecided = pl.DataFrame({"item_id": ["a", "a", "b", "b"], "category": ["x", "y", "y", "z"]})
    for catalogue in (None, categories({"a": None, "b": None}), categories({"other": "x"}), undecided):
        judged = found(lists, background("ab", known=known, catalogue=catalogue))
        assert judged.whole["category_diversity@2"] is None
        assert judged.whole["category_calibration@2"] is None


def test_score_calibration_equals_its_definition_with_scikit_learn() -> None:
    draws = np.random.default_rng(1)
    n = 2000
    scores = draws.normal(size=n)  # all different, so no bin ends among equals
    hits = draws.random(n) < np.clip(0.1 + 0.2 * scores, 0, 1)
    half = draws.random(n) < 0.5
    chance = np.empty(n)
    for learn, test in ((half, ~half), (~half, half)):
        model = IsotonicRegression(out_of_bounds="clip").fit(scores[learn], hits[learn])
        chance[test] = model.predict(scores[test])
    # Bins of 200 entries in order of chance; entries of one chance are spread evenly, as if each had their mean.
    mean_hit = {value: hits[chance == value].mean() for value in np.unique(chance)}
    order = np.sort(chance)
    error = 0.0
    for bin_ in np.split(order, 10):
        error += len(bin_) / n * abs(bin_.mean() - np.mean([mean_hit[value] for value in bin_]))
    assert score_calibration(scores, hits, half) == pytest.approx(error, abs=1e-9)
    assert 0.0 < error < 0.05


def test_scores_that_mean_the_same_in_both_halves_are_calibrated_and_others_are_not() -> None:
    scores = np.tile([0.0, 1.0], 400)
    half = np.arange(800) >= 400
    alike = np.tile([False, False, False, True], 200)  # of score 0 none, of score 1 half, in both halves
    assert score_calibration(scores, alike, half) == pytest.approx(0.0, abs=1e-12)
    unlike = np.where(half, scores == 1.0, False)  # one half is hit at every 1, the other never
    # Of 600 entries of chance 0, 200 are hits; of 200 of chance 1 none. Bins of 80: seven of the former alone, one of
    # 40 of each, two of the latter alone.
    assert score_calibration(scores, unlike, half) == pytest.approx((7 * 80 / 3 + 40 - 80 / 6 + 160) / 800)


def test_score_calibration_does_not_depend_on_the_order_of_entries() -> None:
    draws = np.random.default_rng(2)
    scores = draws.integers(0, 7, 500).astype(float)
    hits, half = draws.random(500) < scores / 10, draws.random(500) < 0.5
    order = draws.permutation(500)
    assert score_calibration(scores[order], hits[order], half[order]) == score_calibration(scores, hits, half)
    assert score_bins(scores[order], hits[order]) == score_bins(scores, hits)


def test_scores_that_say_nothing_are_not_stated() -> None:
    lists = lists_of({f"u{n}": "ab" for n in range(40)}, {f"u{n}": [2.0, 1.0] for n in range(40)})
    wanted = {f"u{n}": "b" for n in range(0, 40, 2)}
    judged = found(lists, background("ab"), (1, 2), wanted)
    assert judged.whole["score_calibration@2"] is not None
    assert judged.whole["score_calibration@1"] is None  # all scores are 2
    assert judged.bins is not None
    for scores in (pl.lit(1.0), pl.when(pl.col("rank") == 1).then(pl.col("score")), pl.lit(None, dtype=pl.Float64)):
        judged = found(lists.with_columns(score=scores), background("ab"), (2,), wanted)
        assert (judged.whole["score_calibration@2"], judged.bins) == (None, None)
    assert found(lists, background("ab"), (2,), {"u1": "z"}).whole["score_calibration@2"] is None
    assert found(lists, background("ab"), (2,), {"nobody": "a"}).bins is None


def test_score_bins_hold_equal_shares_of_the_entries_with_wilson_intervals() -> None:
    scores = np.arange(100, dtype=float)
    bins = score_bins(scores, scores >= 90)
    assert bins is not None
    assert [(one["low"], one["high"], one["entries"]) for one in bins] == [(10 * n, 10 * n + 9, 10) for n in range(10)]
    assert [one["hit_rate"] for one in bins] == [0.0] * 9 + [1.0]
    # Wilson for 0 of 10: 0 to z² / (n + z²).
    assert (bins[0]["hit_low"], bins[0]["hit_high"]) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert (bins[9]["hit_low"], bins[9]["hit_high"]) == pytest.approx((0.722467, 1.0), abs=1e-6)
    assert wilson(3, 10) == pytest.approx((0.1078, 0.6032), abs=5e-5)


def test_equal_scores_share_a_bin() -> None:
    bins = score_bins(np.array([1.0] * 70 + [2.0] * 30), np.array([False] * 70 + [True] * 15 + [False] * 15))
    assert bins is not None
    assert [(one["low"], one["high"], one["entries"], one["hit_rate"]) for one in bins] == [
        (1.0, 1.0, 70, 0.0),
        (2.0, 2.0, 30, 0.5),
    ]


def test_bins_are_of_the_largest_k_and_of_users_with_answers() -> None:
    lists = lists_of({"u": "abcd", "v": "dcba", "stranger": "abcd"})
    judged = found(lists, background("abcd"), (3, 1), {"u": "a", "v": "c"})
    assert judged.bins is not None
    assert sum(one["entries"] for one in judged.bins) == 6
    assert [(one["high"], one["hit_rate"]) for one in judged.bins] == [(1 / 3, 0.0), (1 / 2, 0.5), (1.0, 0.5)]


# All of them


def everything() -> tuple[pl.DataFrame, Background, Wanted]:
    draws = np.random.default_rng(3)
    items = "abcdefghijklmnop"
    lists = {f"u{n:02d}": [str(i) for i in draws.permutation(list(items))[:6]] for n in range(40)}
    known = histories(
        {
            f"u{n:02d}": {str(i): float(draws.random() + 0.1) for i in draws.permutation(list(items))[:4]}
            for n in range(40)
        }
    )
    had = np.bincount(known.strengths.indices, minlength=len(known.items))
    first = [NOW - timedelta(days=int(day)) for day in draws.integers(0, 90, len(items))]
    about = background(
        items,
        dict(zip(known.items, had.tolist(), strict=True)),
        40,
        learned=known,
        known=known,
        first_seen=pl.DataFrame({"item_id": list(items), "first": first}),
        as_of=NOW,
        catalogue=categories({item: f"c{n % 3}" if n % 5 else None for n, item in enumerate(items)}),
        expected=lists_of(dict.fromkeys(lists, "abcdef")),
    )
    scores = {user: [float(s) for s in np.sort(draws.integers(0, 30, 6))[::-1]] for user in lists}
    return lists_of(lists, scores), about, dict.fromkeys(list(lists)[:30], "abcd")


def test_every_metric_of_the_registry_is_found_and_no_other() -> None:
    lists, about, wanted = everything()
    judged = found(lists, about, (5, 2), wanted)
    keys = [*judged.per_user, *judged.ratios, *judged.whole]
    assert len(keys) == len(set(keys))
    assert set(keys) == {f"{name}@{k}" for name in [*BEYOND, "tie_share"] for k in (5, 2)}
    assert None not in judged.whole.values()
    assert {key.split("@")[0] for key in judged.per_user} == {name for name, one in BEYOND.items() if one.per_user}
    for values in judged.per_user.values():
        assert np.isfinite(values).all() and len(values)


def test_nothing_depends_on_the_order_of_rows() -> None:
    lists, about, wanted = everything()
    assert about.expected is not None and about.catalogue is not None and about.first_seen is not None
    mixed = Background(
        about.items,
        about.popularity.sample(fraction=1.0, shuffle=True, seed=1),
        about.n_users,
        about.learned,
        about.known,
        about.first_seen.sample(fraction=1.0, shuffle=True, seed=2),
        about.as_of,
        about.catalogue.sample(fraction=1.0, shuffle=True, seed=3),
        about.expected.sample(fraction=1.0, shuffle=True, seed=4),
    )
    one = found(lists, about, (5, 2), wanted)
    other = found(lists.sample(fraction=1.0, shuffle=True, seed=5), mixed, (5, 2), wanted)
    assert (one.whole, one.bins) == (other.whole, other.bins)
    for first, second in ((one.per_user, other.per_user), (one.ratios, other.ratios)):
        assert {key: values.tolist() for key, values in first.items()} == {
            key: values.tolist() for key, values in second.items()
        }


def test_lists_alone_are_enough_for_what_they_alone_tell() -> None:
    lists = lists_of({"u": "ab", "v": "ca"})
    judged = found(lists, background("abc"), (2,), {"u": "a"})
    stated = {*judged.per_user, *judged.ratios, *(key for key, value in judged.whole.items() if value is not None)}
    assert stated >= {"coverage@2", "gini@2", "novelty@2", "tie_share@2"}
    assert {key for key, value in judged.whole.items() if value is None} >= {
        f"{name}@2"
        for name in (
            "popularity_lift",
            "diversity",
            "category_diversity",
            "serendipity",
            "freshness",
            "category_calibration",
        )
    }


def test_nobody_listed() -> None:
    lists, about, wanted = everything()
    judged = found(lists.clear(), about, (2,), wanted)
    assert judged.whole["coverage@2"] == 0.0
    assert judged.per_user["serendipity@2"].tolist() == [0.0] * 30
    assert set(judged.per_user) == {"serendipity@2"}
    assert not judged.ratios
