"""Intervals against scipy's bootstrap, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from persona_cli.errors import BadData
from persona_cli.evaluation import intervals
from persona_cli.evaluation.intervals import Interval


def recall_like(draws: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Mostly zero, else between 0 and 1: mean 0.2, like the recall of users."""
    return np.where(draws.random(shape) < 0.4, draws.random(shape), 0.0)


def close(found: Interval | None, low: float, high: float, tolerance: float) -> bool:
    assert found is not None and found.low is not None and found.high is not None
    return abs(found.low - low) <= tolerance * (high - low) and abs(found.high - high) <= tolerance * (high - low)


def test_mean_equals_scipys_percentile_bootstrap() -> None:
    values = recall_like(np.random.default_rng(1), 1500)
    oracle = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    found = intervals.mean_interval(values, seed=3, bootstrap=4000)
    assert found.value == pytest.approx(values.mean(), abs=1e-15)
    assert close(found, oracle.low, oracle.high, 0.05)


def test_lift_equals_scipys_paired_bootstrap() -> None:
    draws = np.random.default_rng(4)
    baseline = recall_like(draws, 1500)
    values = np.clip(baseline + 0.1 * recall_like(draws, 1500), 0, 1)

    def lift(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return a.mean(axis=axis) / b.mean(axis=axis) - 1

    oracle = stats.bootstrap(
        (values, baseline), lift, paired=True, n_resamples=4000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    found = intervals.lift_interval(values, baseline, seed=6, bootstrap=4000)
    assert found is not None
    assert found.value == pytest.approx(values.mean() / baseline.mean() - 1)
    assert close(found, oracle.low, oracle.high, 0.05)


def test_bootstrap_and_normal_approximation_meet() -> None:
    draws = np.random.default_rng(7)
    values, baseline = recall_like(draws, 20_000, 2), recall_like(draws, 20_000, 2)
    for measure in (intervals.difference_intervals, intervals.lift_intervals):
        resampled = measure(values, baseline, bootstrap=4000)
        normal = measure(values, baseline, limit=10_000)
        for one, other in zip(resampled, normal, strict=True):
            assert one is not None and other is not None and other.low is not None and other.high is not None
            assert one.value == other.value
            assert close(one, other.low, other.high, 0.05)


# 10,000 populations side by side: the share of intervals that hold the truth has a standard error of 0.22 %.
RUNS = 10_000


@pytest.mark.parametrize(("n_users", "limit"), [(12, 100_000), (300, 100_000), (300, 100)])
def test_intervals_of_normal_values_hold_the_truth_95_times_in_100(n_users: int, limit: int) -> None:
    values = np.random.default_rng(8).normal(0.3, 0.1, (n_users, RUNS))
    found = intervals.mean_intervals(values, limit=limit, bootstrap=1000)
    held = np.mean([i.low is not None and i.high is not None and i.low <= 0.3 <= i.high for i in found])
    assert held == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("limit", [100_000, 100])
def test_intervals_of_skewed_values_hold_the_truth_95_times_in_100(limit: int) -> None:
    values = recall_like(np.random.default_rng(9), 400, RUNS)
    found = intervals.mean_intervals(values, limit=limit)
    held = np.mean([i.low is not None and i.high is not None and i.low <= 0.2 <= i.high for i in found])
    assert held == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("limit", [100_000, 100])
def test_lifts_hold_the_truth_95_times_in_100(limit: int) -> None:
    draws = np.random.default_rng(10)
    baseline = recall_like(draws, 600, 5000)
    values = 0.5 * baseline + recall_like(draws, 600, 5000)  # mean 0.3 over 0.2
    found = intervals.lift_intervals(values, baseline, limit=limit, bootstrap=600)
    held = np.mean(
        [i is not None and i.low is not None and i.high is not None and i.low <= 0.5 <= i.high for i in found]
    )
    assert held == pytest.approx(0.95, abs=0.014)  # 4.5 standard errors of 5,000 runs


def test_the_level_is_the_share_of_replicates_inside() -> None:
    values = recall_like(np.random.default_rng(11), 2000, 1)
    means = intervals.replicate_means(values, seed=0, bootstrap=1000)[:, 0]
    found = intervals.mean_interval(values[:, 0], level=0.8)
    assert found.low is not None and found.high is not None
    assert np.mean((means >= found.low) & (means <= found.high)) == pytest.approx(0.8, abs=0.005)


def test_paired_difference_uses_the_pairing() -> None:
    draws = np.random.default_rng(12)
    baseline = recall_like(draws, 1000)
    found = intervals.paired_difference(baseline + 0.01, baseline)
    assert found == pytest.approx((0.01, 0.01, 0.01))
    apart = intervals.paired_difference(recall_like(draws, 1000), baseline)
    assert apart.low is not None and apart.high is not None and apart.high - apart.low > 0.04


def test_all_columns_see_the_same_resampled_users() -> None:
    values = recall_like(np.random.default_rng(13), 200, 1)
    twice = intervals.mean_intervals(np.hstack([values, 2 * values]), seed=5)
    assert tuple(twice[1]) == pytest.approx([2 * bound for bound in twice[0] if bound is not None])
    alone = intervals.mean_interval(values[:, 0], seed=5)
    assert tuple(twice[0]) == pytest.approx(tuple(alone))


def test_same_seed_same_interval_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = recall_like(np.random.default_rng(14), 300, 3)
    whole = intervals.replicate_means(values, seed=1, bootstrap=100)
    assert np.array_equal(whole, intervals.replicate_means(values, seed=1, bootstrap=100))
    assert not np.array_equal(whole, intervals.replicate_means(values, seed=2, bootstrap=100))
    monkeypatch.setattr(intervals, "_BLOCK_BYTES", 8 * 300 * 7)
    np.testing.assert_allclose(intervals.replicate_means(values, seed=1, bootstrap=100), whole, rtol=1e-12)


def test_no_lift_over_nothing_and_no_upper_bound_over_almost_nothing() -> None:
    values = recall_like(np.random.default_rng(15), 100)
    assert intervals.lift_interval(values, np.zeros(100)) is None
    lucky = np.zeros(100)
    lucky[7] = 1.0
    found = intervals.lift_interval(values, lucky)
    assert found is not None and found.high is None and found.low is not None
    assert found.value == pytest.approx(values.sum() - 1)
    mixed = intervals.lift_intervals(np.column_stack([values, values]), np.column_stack([np.zeros(100), values]))
    assert mixed[0] is None
    assert mixed[1] == pytest.approx((0.0, 0.0, 0.0))


def test_one_user_has_a_value_and_no_interval() -> None:
    assert intervals.mean_interval([0.25]) == Interval(0.25, None, None)
    assert intervals.lift_interval([0.5], [0.25]) == Interval(1.0, None, None)
    low, high = intervals.mean_interval([0.0, 1.0])[1:]
    assert (low, high) == (0.0, 1.0)


def test_users_all_alike_have_an_interval_of_one_point() -> None:
    assert intervals.mean_interval(np.full(50, 0.5)) == pytest.approx((0.5, 0.5, 0.5))


def test_what_is_not_a_value_for_every_user_is_refused() -> None:
    with pytest.raises(BadData, match="no users"):
        intervals.mean_interval([])
    with pytest.raises(BadData, match="NaN or infinite"):
        intervals.mean_interval([0.1, float("nan")])
    with pytest.raises(BadData, match="expected the same users"):
        intervals.paired_difference([0.1, 0.2], [0.1])
