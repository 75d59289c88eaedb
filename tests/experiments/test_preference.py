"""From merged lists and clicks to who is preferred: by hand, against other tests, and as frames."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from persona_cli.errors import BadData, UsageError
from persona_cli.experiments.clicks import CascadeModel, clicks_on, interleaved_trial
from persona_cli.experiments.interleaving import METHODS
from persona_cli.experiments.merging import mixed
from persona_cli.experiments.multileaving import multileave
from persona_cli.experiments.preference import (
    Tally,
    always_valid,
    interleave_lists,
    interval,
    list_keys,
    measure_pairs,
    measure_preferences,
    measured,
    measured_pairs,
    multileave_lists,
    p_values,
    tally,
    tally_users,
)

Z2 = stats.norm.ppf(0.975) ** 2


def users_of(*said: tuple[float, float]) -> Tally:
    outcome, lists = np.array(said, dtype=float).T
    return tally_users(outcome, lists)


def lists(**sides: list[list[str | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": list(sides), "items": list(sides.values())}, schema_overrides={"items": pl.List(pl.String)}
    )


def test_preference_by_hand() -> None:
    """Three users: one says A twice, one B once and a tie, one clicks nothing."""
    frame = pl.DataFrame(
        {
            "user_id": ["x", "x", "y", "y", "z"],
            "teams": [["a", "b"], ["b", "a"], ["a", "b"], [None, "b"], ["a", "b"]],
            "clicks": [[1, 0], [0, 1], [0, 1], [1, 0], [0, 0]],
        }
    )
    found = measure_preferences(frame)
    assert (found.users, found.lists, found.clicked) == (2, 5, 4)
    assert (found.wins_a, found.wins_b, found.ties) == (2, 1, 1)
    assert found.preference == pytest.approx((2 + 1 / 2) / 4 - 1 / 2)
    # users say 2 and -1: z = 1 / sqrt(5)
    assert found.p == pytest.approx(2 * stats.norm.sf(1 / np.sqrt(5)))


def test_clicks_on_both_teams_cancel_and_repeated_clicks_count_once() -> None:
    frame = pl.DataFrame({"user_id": ["x", "y"], "teams": [["a", "b"], ["a", "b", "b"]], "clicks": [[5, 1], [1, 1, 1]]})
    found = measure_preferences(frame)
    assert (found.wins_a, found.wins_b, found.ties) == (0, 1, 1)


def test_p_is_that_of_the_sign_test_by_its_score() -> None:
    """One list a user: McNemar's statistic without correction, (a - b)^2 / (a + b)."""
    sums = users_of(*[(1, 1)] * 40, *[(-1, 1)] * 22, *[(0, 1)] * 13)
    assert p_values(sums) == pytest.approx(stats.chi2.sf((40 - 22) ** 2 / 62, 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.floats(-1, 1)), min_size=2, max_size=60))
def test_interval_leaves_out_0_where_and_only_where_p_is_small(said: list[tuple[int, float]]) -> None:
    sums = users_of(*((n * share, n) for n, share in said))
    low, high = interval(sums, Z2)
    point = sums.outcome / sums.lists / 2
    assert low - 1e-9 <= point <= high + 1e-9
    p = p_values(sums)
    if abs(p - 0.05) > 1e-6 and abs(low) > 1e-9 and abs(high) > 1e-9:
        assert (low > 0 or high < 0) == (p < 0.05) or sums.lists**2 <= Z2 * sums.lists2


def test_interval_approaches_the_delta_method() -> None:
    rng = np.random.default_rng(1)
    seen = rng.integers(1, 8, 5000).astype(float)
    said = rng.normal(0.1, 0.5, 5000) * seen
    low, high = interval(tally_users(said, seen), Z2)
    ratio = said.sum() / seen.sum()
    se = np.sqrt(((said - ratio * seen) ** 2).sum()) / seen.sum()
    assert low == pytest.approx((ratio - 1.96 * se) / 2, abs=2e-4)
    assert high == pytest.approx((ratio + 1.96 * se) / 2, abs=2e-4)


def test_a_few_users_who_agree_prove_nothing() -> None:
    sums = users_of((10, 10), (10, 10), (10, 10))
    assert p_values(sums) > 0.05
    assert interval(sums, Z2) == (-0.5, 0.5)
    assert p_values(users_of((0, 3), (0, 1))) == 1


def test_many_experiments_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(3)
    outcome, clicked = rng.integers(-1, 2, 600).astype(float), rng.random(600) < 0.7
    group, user = rng.integers(0, 4, 600), rng.integers(0, 30, 600)
    together = tally(outcome, clicked, group, 4, user, 30)
    for one in range(4):
        mine = group == one
        alone = tally(outcome[mine], clicked[mine], np.zeros(mine.sum(), dtype=np.int64), 1, user[mine], 30)
        assert [field[one] for field in together] == pytest.approx([field[0] for field in alone])


def test_lists_of_one_user_are_one_voice() -> None:
    """People each prefer one of two rankings, half of them either: 5 % tests by user, far more by list."""
    rng = np.random.default_rng(4)
    taste = rng.choice([-0.8, 0.8], (2000, 60))
    said = np.where(rng.random((2000, 60, 20)) < (1 + taste[:, :, None]) / 2, 1.0, -1.0)
    by_user = p_values(tally_users(said.sum(axis=2), np.full((2000, 60), 20.0))) < 0.05
    by_list = p_values(tally_users(said.reshape(2000, -1), np.ones((2000, 1200)))) < 0.05
    assert 0.035 < by_user.mean() < 0.065
    assert by_list.mean() > 0.4


def test_the_always_valid_interval_holds_at_every_look() -> None:
    rng = np.random.default_rng(5)
    said = rng.choice([-1.0, 0.0, 1.0], (1000, 2000), p=[0.3, 0.4, 0.3])
    total, squares = np.cumsum(said, axis=1), np.cumsum(said**2, axis=1)
    users = np.arange(1, 2001)
    started = users >= 100  # the first look
    always = (total**2 > always_valid(users, 0.95, 1000) * squares).any(axis=1)
    naive = (total**2 > Z2 * squares)[:, started].any(axis=1)
    assert always.mean() < 0.05 < 0.3 < naive.mean()
    # narrowest relative to the fixed interval about where it was planned to be
    widths = always_valid(users, 0.95, 1000) ** 0.5
    assert 700 < np.argmin(widths) < 1500 and widths.min() / 1.96 < 1.6


@pytest.mark.parametrize("method", METHODS)
def test_the_better_ranking_is_found(method: str) -> None:
    """Items 0 … 9 are ever less attractive; A shows them in order, B has the best in the middle."""
    users, each = 150, 4
    n = users * each
    a, b = np.tile(np.arange(8), (n, 1)), np.tile([3, 4, 5, 0, 1, 2, 6, 7], (n, 1))
    model = CascadeModel(np.linspace(0.4, 0.05, 10), 0.7, 0.15)
    keys = mixed(np.arange(n, dtype=np.uint64))
    merged, clicks = interleaved_trial(model, a, b, keys, method)
    found = measured(merged, clicks, np.repeat(np.arange(users), each), method)
    assert found.low > 0 and found.p < 0.01 and found.wins_a > found.wins_b
    turned, clicks = interleaved_trial(model, b, a, keys, method)
    assert measured(turned, clicks, np.repeat(np.arange(users), each), method).high < 0


def test_rankings_stand_as_their_quality_does() -> None:
    """Three rankings multileaved: the best first, items the other way round, something between."""
    users, each = 200, 3
    n = users * each
    sides = np.array([np.arange(8), np.arange(8)[::-1], [0, 1, 2, 7, 6, 5, 3, 4]])
    items, teams = multileave(np.tile(sides, (n, 1, 1)), mixed(np.arange(n, dtype=np.uint64)))
    model = CascadeModel(np.linspace(0.5, 0.02, 8), 0.7, 0.15)
    clicks = clicks_on(model, items, mixed(np.arange(n, dtype=np.uint64) + np.uint64(10**9)))
    found = measured_pairs(items, teams, clicks, np.repeat(np.arange(users), each), 3)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    assert found[0, 1].preference > -found[1, 2].preference > 0
    assert found[0, 1].low > 0 and found[0, 1].p < 1e-6 and found[0, 1].stop
    assert found[0, 1].wins_a > found[0, 1].wins_b


A = lists(u1=["x", "y", "z"], u2=["x", "x", None, "y"], u3=["p"], u5=["q", "r"])
B = lists(u2=["y", "x"], u1=["z", "w", "x"], u4=[], u5=["q", "r"])


@pytest.mark.parametrize("method", METHODS)
def test_frames_hold_what_the_measurement_needs(method: str) -> None:
    merged = interleave_lists(A, B, method, "salt")
    assert merged["user_id"].to_list() == ["u1", "u2", "u3", "u4", "u5"]
    assert [len(row) for row in merged["items"]] == [3, 2, 1, 0, 2]
    assert merged.filter(user_id="u3")["items"].to_list() == [["p"]]
    assert merged.filter(user_id="u5")["teams"].to_list() == [[None, None]]  # identical
    assert set(merged["teams"].explode().drop_nulls()) <= {"a", "b"}
    clicks = merged.with_columns(clicks=pl.col("items").list.eval(pl.element() == "z"))
    found = measure_preferences(clicks, method)
    assert (found.lists, found.clicked, found.method) == (5, 1 if "z" in merged["items"][0] else 0, method)
    assert found.preference == (
        -0.5 if method in ("team-draft", "competitive-pairs") else pytest.approx(found.preference)
    )
    assert measure_preferences(clicks.head(0), method).p == 1


@pytest.mark.parametrize("method", METHODS)
def test_frames_do_not_depend_on_the_order_of_rows(method: str) -> None:
    rng = np.random.default_rng(6)
    ids = [f"i{n}" for n in range(14)]
    a, b = (
        pl.DataFrame(
            {
                "user_id": [f"u{n // 2}" for n in range(60)],
                "list_id": [n % 2 for n in range(60)],
                "items": [rng.permutation(ids)[:6].tolist() for _ in range(60)],
            }
        )
        for _ in range(2)
    )
    whole = interleave_lists(a, b, method, "salt", 5)
    assert interleave_lists(a.sample(fraction=1, shuffle=True, seed=1), b, method, "salt", 5).equals(whole)
    mine = pl.col("user_id") == "u3"
    assert interleave_lists(a.filter(mine), b.filter(mine), method, "salt", 5).equals(whole.filter(mine))
    assert not interleave_lists(a, b, method, "another", 5).equals(whole)
    clicks = whole.with_columns(clicks=pl.col("items").list.eval(pl.element().is_in(ids[:3])))
    turned = measure_preferences(clicks.sample(fraction=1, shuffle=True, seed=2), method)
    for mine, same in zip(turned, measure_preferences(clicks, method), strict=True):
        assert mine == (pytest.approx(same) if isinstance(same, float) else same)


def test_each_list_has_a_chance_of_its_own() -> None:
    users, numbers = pl.Series(["u1", "u1", "u2", "u2"]), pl.Series([1, 2, 1, 2])
    keys = list_keys("salt", users, numbers)
    assert len(set(keys.tolist())) == 4
    assert list_keys("salt", users[::-1], numbers[::-1]).tolist() == keys[::-1].tolist()
    assert not set(list_keys("other", users, numbers).tolist()) & set(keys.tolist())


def test_frames_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(BadData, match="user 'u1' has more than one list of B"):
        interleave_lists(A, pl.concat([B, B.filter(user_id="u1")]))
    merged = interleave_lists(A, B)
    with pytest.raises(BadData, match="no column 'clicks'"):
        measure_preferences(merged)
    with pytest.raises(BadData, match="no column 'credit'; expected user_id, teams, clicks, credit for probabilistic"):
        measure_preferences(merged.with_columns(clicks=pl.col("teams")), "probabilistic")
    with pytest.raises(BadData, match="user 'u1' has another number of clicks"):
        measure_preferences(merged.with_columns(clicks=pl.lit([0.0])))
    with pytest.raises(UsageError, match="no interleaving method"):
        measure_preferences(merged, "draft")


def test_more_than_two_lists_are_merged_and_measured_pair_by_pair() -> None:
    users = [f"u{number:03d}" for number in range(300)]
    frames = [
        pl.DataFrame({"user_id": users, "items": [[f"{side}{place}" for place in range(6)]] * len(users)})
        for side in "xyz"
    ]
    merged = multileave_lists(frames, "salt", 6)
    assert merged.equals(multileave_lists([frame.reverse() for frame in frames], "salt", 6))
    rows = merged.explode("items", "teams")
    assert dict(rows.select(pl.col("items").str.head(1), "teams").unique().iter_rows()) == {
        "x": "a",
        "y": "b",
        "z": "c",
    }
    assert merged["teams"].list.eval(pl.element().value_counts().struct["count"].max()).explode().max() == 2
    clicks = merged["teams"].list.eval((pl.element() == "a").cast(pl.Int64))
    found = measure_pairs(merged.with_columns(clicks=clicks), 3)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    assert (found[0, 1].preference, found[0, 2].preference, found[1, 2].preference) == (0.5, 0.5, 0)
    assert found[0, 1].wins_a == 300 and found[1, 2].ties == 300 and found[1, 2].p == 1
    lone = multileave_lists([frames[0], frames[1], frames[2].head(0)], "salt", 6)
    assert lone["teams"].explode().null_count() == 6 * 300, "a person without one of the lists is credited to nobody"
    with pytest.raises(BadData, match="another number of clicks"):
        measure_pairs(merged.with_columns(clicks=pl.lit([1])), 3)
