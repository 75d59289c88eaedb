"""Intervals against published figures and scipy's bootstrap, and by how often they hold the truth."""

from __future__ import annotations

from collections.abc import Sequence

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


@pytest.mark.parametrize(
    ("hits", "users", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_hits_and_misses_have_wilsons_interval(hits: int, users: int, low: float, high: float) -> None:
    """The examples of Newcombe (Statistics in Medicine 1998), table I, method 3."""
    values = np.zeros(users)
    values[:hits] = 1.0
    found = intervals.mean_interval(values)
    assert found == pytest.approx((hits / users, low, high), abs=5e-5)
    turned = intervals.mean_interval(1.0 - values)
    assert turned == pytest.approx((1 - hits / users, 1 - high, 1 - low), abs=5e-5)
    scaled = intervals.mean_interval(0.2 * values)  # precision@5 with one right answer each
    if hits:
        assert scaled == pytest.approx((0.2 * hits / users, 0.2 * low, 0.2 * high), abs=1e-5)


def test_nothing_found_is_not_certainty_but_no_difference_is_none() -> None:
    assert intervals.mean_interval(np.zeros(20)).high == pytest.approx(0.1611, abs=5e-5)
    assert intervals.paired_difference(np.zeros(20), np.zeros(20)) == (0.0, 0.0, 0.0)


def test_bounds_stay_where_values_can_be() -> None:
    for values in ([0.0, 0.9, 1.0], [1.0, 1.0, 0.9], [0.0, 0.0, 0.01], [0.0, 1.0]):
        found = intervals.mean_interval(values)
        assert found.low is not None and found.high is not None
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0, values


def test_differences_have_students_interval() -> None:
    draws = np.random.default_rng(20)
    values, baseline = recall_like(draws, 80), recall_like(draws, 80)
    oracle = stats.ttest_rel(values, baseline).confidence_interval(0.9)
    found = intervals.paired_difference(values, baseline, level=0.9)
    assert found == pytest.approx((values.mean() - baseline.mean(), oracle.low, oracle.high))


def test_lifts_are_the_ratios_that_a_t_test_does_not_reject() -> None:
    draws = np.random.default_rng(21)
    values, baseline = recall_like(draws, 120), recall_like(draws, 120)
    found = intervals.lift_interval(values, baseline)
    assert found is not None and found.low is not None and found.high is not None
    for bound in (found.low, found.high):
        assert stats.ttest_rel(values, (1 + bound) * baseline).pvalue == pytest.approx(0.05)
    inside = stats.ttest_rel(values, (1 + found.value) * baseline).pvalue
    assert inside == pytest.approx(1.0)


def test_bootstrap_and_closed_forms_meet() -> None:
    draws = np.random.default_rng(7)
    values, baseline = recall_like(draws, 20_000, 2), recall_like(draws, 20_000, 2)
    pairs: list[tuple[list[Interval], list[Interval]]] = [
        (intervals.mean_intervals(values, bootstrap=4000), intervals.mean_intervals(values)),
        (
            intervals.difference_intervals(values, baseline, bootstrap=4000),
            intervals.difference_intervals(values, baseline),
        ),
        (
            [one for one in intervals.lift_intervals(values, baseline, bootstrap=4000) if one],
            [one for one in intervals.lift_intervals(values, baseline) if one],
        ),
    ]
    for resampled, closed in pairs:
        assert len(resampled) == 2
        for one, other in zip(resampled, closed, strict=True):
            assert other.low is not None and other.high is not None
            assert one.value == pytest.approx(other.value, abs=1e-12)
            assert close(one, other.low, other.high, 0.05)
    above = intervals.mean_intervals(values, bootstrap=4000, limit=10_000)
    assert above == intervals.mean_intervals(values)


# 10,000 populations side by side: the share of intervals that hold the truth has a standard error of 0.22 %.
RUNS = 10_000


def held(found: Sequence[Interval | None], truth: float) -> float:
    """Share of intervals that hold the truth; an open end holds everything."""
    inside = [
        one is not None and (one.low is None or one.low <= truth) and (one.high is None or truth <= one.high)
        for one in found
    ]
    return float(np.mean(inside))


@pytest.mark.parametrize(("n_users", "bootstrap"), [(12, 0), (12, 1000), (300, 0), (300, 1000)])
def test_intervals_of_normal_values_hold_the_truth_95_times_in_100(n_users: int, bootstrap: int) -> None:
    values = np.random.default_rng(8).normal(0.3, 0.1, (n_users, RUNS))
    assert held(intervals.mean_intervals(values, bootstrap=bootstrap), 0.3) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("n_users", "share"), [(30, 0.3), (60, 0.1), (100, 0.05), (400, 0.4)])
def test_intervals_of_mostly_zeros_hold_the_truth_95_times_in_100(n_users: int, share: float) -> None:
    draws = np.random.default_rng(9)
    values = np.where(draws.random((n_users, RUNS)) < share, draws.beta(1.2, 3, (n_users, RUNS)), 0.0)
    assert held(intervals.mean_intervals(values), share * 1.2 / 4.2) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(("n_users", "rate"), [(100, 0.02), (100, 0.2), (1000, 0.02)])
def test_intervals_of_hits_hold_the_truth_95_times_in_100(n_users: int, rate: float) -> None:
    """Exactly: over all numbers of hits, each as likely as it is. Bootstrap percentiles: 87 % in the first case."""
    hits = np.arange(n_users + 1)
    found = intervals.mean_intervals((np.arange(n_users)[:, None] < hits).astype(float))
    inside = [one.low is not None and one.high is not None and one.low <= rate <= one.high for one in found]
    assert stats.binom.pmf(hits, n_users, rate) @ np.array(inside) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("bootstrap", [0, 600])
def test_lifts_and_differences_hold_the_truth_95_times_in_100(bootstrap: int) -> None:
    draws = np.random.default_rng(10)
    baseline = recall_like(draws, 600, 3000)
    values = 0.5 * baseline + recall_like(draws, 600, 3000)  # mean 0.3 over 0.2
    lifts = intervals.lift_intervals(values, baseline, bootstrap=bootstrap)
    assert held(lifts, 0.5) == pytest.approx(0.95, abs=0.018)  # 4.5 standard errors of 3,000 runs
    differences = intervals.difference_intervals(values, baseline, bootstrap=bootstrap)
    assert held(differences, 0.1) == pytest.approx(0.95, abs=0.018)


def test_the_level_is_the_share_of_replicates_inside() -> None:
    values = recall_like(np.random.default_rng(11), 2000, 1)
    means = intervals.replicate_means(values, seed=0, bootstrap=1000)[:, 0]
    found = intervals.mean_interval(values[:, 0], level=0.8, bootstrap=1000)
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
    twice = intervals.mean_intervals(np.hstack([values, 2 * values]), seed=5, bootstrap=1000)
    assert tuple(twice[1]) == pytest.approx([2 * bound for bound in twice[0] if bound is not None])
    alone = intervals.mean_interval(values[:, 0], seed=5, bootstrap=1000)
    assert tuple(twice[0]) == pytest.approx(tuple(alone))


def test_same_seed_same_interval_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = recall_like(np.random.default_rng(14), 300, 3)
    whole = intervals.replicate_means(values, seed=1, bootstrap=100)
    assert np.array_equal(whole, intervals.replicate_means(values, seed=1, bootstrap=100))
    assert not np.array_equal(whole, intervals.replicate_means(values, seed=2, bootstrap=100))
    monkeypatch.setattr(intervals, "_BLOCK_BYTES", 8 * 300 * 7)
    np.testing.assert_allclose(intervals.replicate_means(values, seed=1, bootstrap=100), whole, rtol=1e-12)


@pytest.mark.parametrize("bootstrap", [0, 1000])
def test_no_lift_over_nothing_and_no_upper_bound_over_almost_nothing(bootstrap: int) -> None:
    values = recall_like(np.random.default_rng(15), 100)
    assert intervals.lift_interval(values, np.zeros(100), bootstrap=bootstrap) is None
    lucky = np.zeros(100)
    lucky[7] = 1.0
    found = intervals.lift_interval(values, lucky, bootstrap=bootstrap)
    assert found is not None and found.high is None
    assert found.low is not None and -1.0 <= found.low < found.value
    assert found.value == pytest.approx(values.sum() - 1)
    mixed = intervals.lift_intervals(
        np.column_stack([values, values]), np.column_stack([np.zeros(100), values]), bootstrap=bootstrap
    )
    assert mixed[0] is None
    assert mixed[1] == pytest.approx((0.0, 0.0, 0.0))


def test_one_user_has_a_value_and_no_interval() -> None:
    assert intervals.mean_interval([0.25]) == Interval(0.25, None, None)
    assert intervals.lift_interval([0.5], [0.25]) == Interval(1.0, None, None)
    low, high = intervals.mean_interval([0.0, 1.0])[1:]
    assert (low, high) == pytest.approx((0.0945, 0.9055), abs=5e-5)


def test_users_all_alike_have_an_interval_of_one_point() -> None:
    assert intervals.mean_interval(np.full(50, 0.5)) == pytest.approx((0.5, 0.5, 0.5))


def test_what_is_not_a_value_for_every_user_is_refused() -> None:
    with pytest.raises(BadData, match="no users"):
        intervals.mean_interval([])
    with pytest.raises(BadData, match="NaN or infinite"):
        intervals.mean_interval([0.1, float("nan")])
    with pytest.raises(BadData, match="expected the same users"):
        intervals.paired_difference([0.1, 0.2], [0.1])
