"""Estimates of two arms, against statsmodels, tea-tasting, numpy and figures that others published."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from persona_cli.errors import UsageError
from persona_cli.experiments import inference, quantiles
from persona_cli.experiments.inference import Moments, of_sums, of_values

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def share(hits: int, n: int) -> Moments:
    return of_sums(n, [hits], [[hits]])


def people(seed: int, n: int, lift: float = 0.0) -> np.ndarray:
    """(n, 4) clicks, impressions, and both before, of people with a click rate of their own."""
    rng = np.random.default_rng(seed)
    rate = np.minimum(rng.beta(2, 8, n), 0.6)
    seen, before = 1 + rng.poisson(6, n), 1 + rng.poisson(5, n)
    return np.stack([rng.binomial(seen, rate * (1 + lift)), seen, rng.binomial(before, rate), before], 1).astype(float)


CONTROL, TREATMENT = people(1, 900), people(2, 1_100, 0.1)
A, B = of_values(CONTROL), of_values(TREATMENT)


def test_cookie_cats_counts() -> None:
    """The mobile game: retention after a day and a week, gate at level 40 against 30."""
    day = inference.proportion(share(20034, 44700), share(20119, 45489))
    week = inference.proportion(share(8502, 44700), share(8279, 45489))
    assert (float(day.statistic), float(day.p)) == pytest.approx((-1.78409, 0.0744097), rel=3e-6)
    assert (float(week.statistic), float(week.p)) == pytest.approx((-3.16436, 0.00155425), rel=3e-6)
    wald = inference.proportion(share(8502, 44700), share(8279, 45489), interval="wald")
    for found in (week, wald):
        assert (100 * float(found.low), 100 * float(found.high)) == pytest.approx((-1.3282, -0.3121), abs=6e-5)


@pytest.mark.skipif(not (DATA / "cookie-cats" / "users.parquet").exists(), reason="needs cookie-cats")
def test_cookie_cats_from_its_users() -> None:
    import polars as pl

    users = pl.read_parquet(DATA / "cookie-cats" / "users.parquet")
    arms = [users.filter(test_version=name) for name in ("gate_30", "gate_40")]
    p = [
        float(inference.proportion(*(of_values(arm[column].to_numpy()) for arm in arms)).p)
        for column in ("retention_1", "retention_7")
    ]
    assert p == pytest.approx([0.0744097, 0.00155425], rel=3e-6)
    rounds = inference.mean(*(of_values(arm["sum_gamerounds"].to_numpy()) for arm in arms))
    oracle = stats.ttest_ind(*(arm["sum_gamerounds"].to_numpy() for arm in arms[::-1]), equal_var=False)
    assert float(rounds.p) == pytest.approx(oracle.pvalue, rel=1e-9)


def test_relative_lift_as_published() -> None:
    """Sums of two arms and the lift that GrowthBook's tests hold for them."""
    arms = of_sums(3407, [1396.87], [[52377.9767]]), of_sums(3461, [2422.7], [[134698.29]])
    found = inference.mean(*arms, relative="delta")
    assert (float(found.relative), float(found.relative_low), float(found.relative_high)) == pytest.approx(
        (0.70732, -0.03526, 1.44989), abs=6e-6
    )
    assert (float(found.low), float(found.high)) == pytest.approx((0.04538, 0.53462), abs=6e-6)
    assert float(found.p) == pytest.approx(0.02016, abs=6e-6)


def test_means_are_welchs() -> None:
    found = inference.mean(A, B)
    oracle = stats.ttest_ind(TREATMENT[:, 0], CONTROL[:, 0], equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert float(found.p) == pytest.approx(oracle.pvalue, rel=1e-9)
    assert float(found.dof) == pytest.approx(oracle.df, rel=1e-9)
    assert (float(found.low), float(found.high)) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_proportions_are_statsmodels() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    z, p = proportion.proportions_ztest([40, 18], [300, 250])
    for method in ("newcomb", "wald"):
        low, high = proportion.confint_proportions_2indep(40, 300, 18, 250, method=method)
        kind = "newcombe" if method == "newcomb" else method
        found = inference.proportion(share(18, 250), share(40, 300), interval=kind)
        assert [float(found.statistic), float(found.p)] == pytest.approx([z, p], rel=1e-9)
        assert [float(found.low), float(found.high)] == pytest.approx([low, high], rel=1e-9)


def test_clusters_are_statsmodels() -> None:
    """Least squares on a dummy with errors by cluster, without its small-sample factor."""
    ols = pytest.importorskip("statsmodels.regression.linear_model")
    rng = np.random.default_rng(5)
    cluster = rng.integers(0, 60, 2_000)
    treated = cluster % 2
    y = rng.normal(size=60)[cluster] + 0.3 * treated + rng.normal(size=2_000)
    design = np.stack([np.ones(2_000), treated], 1)
    fit = ols.OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False})
    sums = np.stack([np.bincount(cluster, y), np.bincount(cluster)], 1)
    found = inference.clustered(of_values(sums[::2]), of_values(sums[1::2]))
    assert float(found.difference) == pytest.approx(fit.params[1], rel=1e-9)
    assert float(found.se) == pytest.approx(fit.bse[1] * (30 / 29) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("kind", ["mean", "ratio"])
@pytest.mark.parametrize("adjusted", [False, True])
def test_tea_tasting_agrees(kind: str, adjusted: bool) -> None:
    tea = pytest.importorskip("tea_tasting")
    names = ("clicks", "seen", "clicks_before", "seen_before")

    def told(values: np.ndarray) -> object:
        covariance = np.cov(values.T)
        pairs = {(a, b): covariance[i, j] for i, a in enumerate(names) for j, b in enumerate(names) if a != b}
        return tea.aggr.Aggregates(
            count_=len(values),
            mean_=dict(zip(names, values.mean(axis=0), strict=True)),
            var_=dict(zip(names, covariance.diagonal(), strict=True)),
            cov_=pairs,
        )

    denominators = {"denom": "seen"} if kind == "ratio" else {}
    if adjusted:
        denominators |= {"numer_covariate": "clicks_before"}
        denominators |= {"denom_covariate": "seen_before"} if kind == "ratio" else {}
    oracle = tea.RatioOfMeans("clicks", **denominators).analyze_aggregates(told(CONTROL), told(TREATMENT))
    columns = {"mean": (0, 2), "ratio": (0, 1, 2, 3)}[kind]
    arms = (A.columns(*columns), B.columns(*columns))
    if adjusted:
        found = inference.cuped(*arms, kind=kind, relative="log")
    else:
        found = getattr(inference, kind)(*arms, relative="log")
    assert [float(part) for part in (found.control, found.treatment, found.low, found.high, found.p)] == pytest.approx(
        [oracle.control, oracle.treatment, oracle.effect_size_ci_lower, oracle.effect_size_ci_upper, oracle.pvalue],
        rel=1e-9,
    )
    if not adjusted:  # its relative interval takes other degrees of freedom, and under CUPED no covariance
        assert [float(found.relative_low), float(found.relative_high)] == pytest.approx(
            [oracle.rel_effect_size_ci_lower, oracle.rel_effect_size_ci_upper], abs=1e-5
        )


@pytest.mark.parametrize("kind", ["mean", "ratio"])
def test_cuped_variance_of_relative_lift_is_that_of_resampling(kind: str) -> None:
    """Few units in one arm and a lift of 50 %, where what a partial formula leaves out is large."""
    small, large = people(8, 400), people(9, 1_600, 0.5)
    columns = [0, 2] if kind == "mean" else [0, 1, 2, 3]
    rng = np.random.default_rng(3)

    def resampled(values: np.ndarray) -> Moments:
        parts = [of_values(values[rng.integers(0, len(values), (250, len(values)))][..., columns]) for _ in range(8)]
        return Moments(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    found = inference.cuped(of_values(small[:, columns]), of_values(large[:, columns]), kind=kind)
    spread = inference.cuped(resampled(small), resampled(large), kind=kind)
    assert float(found.relative_se) == pytest.approx(float(spread.relative.std()), rel=0.06)
    assert float(found.se) == pytest.approx(float(spread.difference.std()), rel=0.06)


def test_cuped_takes_away_the_correlated_share() -> None:
    rng = np.random.default_rng(4)
    past = rng.normal(size=40_000)
    now = 0.6 * past + 0.8 * rng.normal(size=40_000)
    both = np.stack([now, past], 1)
    found = inference.cuped(of_values(both[::2]), of_values(both[1::2]))
    assert float(found.variance_cut) == pytest.approx(np.corrcoef(now, past)[0, 1] ** 2, abs=0.01)


def test_a_ratio_without_any_past_is_not_adjusted() -> None:
    rng = np.random.default_rng(6)
    arms = []
    for lift in (0.0, 0.1):
        views = 1 + rng.poisson(5, 500)
        arms.append(np.column_stack([rng.binomial(views, 0.3 + lift), views, np.zeros(500), np.zeros(500)]))
    control, treatment = (inference.of_values(arm) for arm in arms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = inference.cuped(control, treatment, "ratio")
    plain = inference.ratio(control, treatment)
    assert found.variance_cut == 0
    assert found.difference == plain.difference and found.se == pytest.approx(plain.se) and found.p == plain.p


def test_nps_by_hand() -> None:
    before = of_values(np.repeat([1, 0, -1], [50, 30, 20]))
    after = of_values(np.repeat([1, 0, -1], [70, 20, 10]))
    found = inference.nps(before, after)
    assert [float(found.control), float(found.treatment), float(found.difference)] == pytest.approx([30, 60, 30])
    # p + d - (p - d)^2, with n - 1
    assert float(found.se) == pytest.approx(100 * ((0.7 - 0.09) / 99 + (0.8 - 0.36) / 99) ** 0.5)
    assert np.isnan(found.relative)


def test_counts_are_robust_to_overdispersion() -> None:
    """A rate an exposure has the ratio's error, which exceeds Poisson's where people differ."""
    rng = np.random.default_rng(6)
    exposure = 1 + rng.poisson(3, (2, 4_000))
    counts = rng.poisson(exposure * rng.gamma(0.5, 2, (2, 4_000)))
    found = inference.count(*(of_values(np.stack([counts[a], exposure[a]], 1)) for a in (0, 1)))
    poisson = (counts[0].sum() / exposure[0].sum() ** 2 + counts[1].sum() / exposure[1].sum() ** 2) ** 0.5
    assert float(found.se) > 2 * poisson
    assert float(found.control) == pytest.approx(counts[0].sum() / exposure[0].sum())


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=40), st.integers(1, 3))
def test_moments_add_up_and_come_apart(values: list[float], cut: int) -> None:
    whole = of_values(np.array(values))
    left, right = of_values(np.array(values[:cut])), of_values(np.array(values[cut:]))
    scale = 1 + max(abs(value) for value in values)
    for found, truth in ((left + right, whole), (right + left, whole), (whole - left, right)):
        assert float(found.n) == float(truth.n)
        assert found.mean == pytest.approx(truth.mean, abs=1e-9 * scale)
        assert found.cross == pytest.approx(truth.cross, abs=1e-9 * scale**2 * len(values))


def test_fieller_says_what_p_says() -> None:
    rng = np.random.default_rng(7)
    arms = [of_values(rng.gamma(1.0, size=(400, 30, 1))) for _ in range(2)]
    found = inference.mean(*arms)
    holds = (found.relative_low <= 0) & (found.relative_high >= 0)
    assert (holds == (found.p >= 0.05)).all()
    assert 0 < (~holds).sum() < 60


def test_fieller_is_unbounded_where_the_control_may_be_nothing() -> None:
    found = inference.mean(of_values(np.array([-1.0, 1.5, 0.2, -0.3])), of_values(np.array([1.0, 2.0, 3.0])))
    assert (float(found.relative_low), float(found.relative_high)) == (-np.inf, np.inf)


def test_many_experiments_at_once_are_as_one_by_one() -> None:
    rng = np.random.default_rng(8)
    values = rng.gamma(2.0, size=(2, 5, 200, 4)) + 1
    for test in (inference.mean, inference.ratio, lambda a, b: inference.cuped(a, b, kind="ratio")):
        together = test(of_values(values[0]), of_values(values[1]))
        for row in range(5):
            alone = test(of_values(values[0, row]), of_values(values[1, row]))
            for many, one in zip(together, alone, strict=True):
                assert many[row] == pytest.approx(float(one), rel=1e-12)


def test_arms_without_spread_or_people() -> None:
    same = inference.mean(of_values(np.ones(5)), of_values(np.ones(7)))
    assert (float(same.p), float(same.relative)) == (1.0, 0.0)
    nobody = inference.proportion(share(0, 0), share(3, 10))
    assert np.isnan(nobody.p)
    never = inference.proportion(share(0, 100), share(0, 100))
    assert float(never.p) == 1.0
    assert np.isnan(never.relative)
    assert float(never.high) > 0


def test_quantiles_of_users() -> None:
    rng = np.random.default_rng(9)
    values = rng.exponential(size=(2_000, 400))
    found = quantiles.of_users(values, 0.9)
    assert found.value[0] == np.sort(values[0])[359]
    assert float(found.variance.mean()) == pytest.approx(float(found.value.var()), rel=0.1)
    assert quantiles.of_users(values + 5, 0.9).variance == pytest.approx(found.variance, rel=1e-6)


def test_quantiles_of_events_know_their_users() -> None:
    """Events of a user resemble each other: the error is that of users. With one event each it is the plain one."""
    rng = np.random.default_rng(10)
    users, found = np.repeat(np.arange(200), 20), []
    for _ in range(300):
        values = rng.exponential(size=200)[users] * rng.uniform(0.95, 1.05, users.size)
        found.append(float(quantiles.of_events(values, users, 0.5).variance))
    # p (1 - p) / (n f^2) of 200 users at the median of an exponential, where f is 1/2: 20 times that of 4,000 events
    assert np.mean(found) == pytest.approx(0.25 / (200 * 0.25), rel=0.07)
    alone = rng.exponential(size=500)
    one, plain = quantiles.of_events(alone, np.arange(500), 0.5), quantiles.of_users(alone, 0.5)
    assert float(one.variance) == pytest.approx(float(plain.variance), rel=0.02)


def test_caps_come_from_both_arms() -> None:
    assert quantiles.caps(np.arange(1, 1001), 0.99, 0.01) == (10, 990)
    assert quantiles.caps(np.arange(1, 1001), 0.99) == (-np.inf, 990)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: inference.mean(A, B, relative="deltas"),
        lambda: inference.mean(A, B, alpha=5),
        lambda: inference.cuped(A, B, kind="median"),
        lambda: inference.proportion(A, B, interval="exact"),
        lambda: quantiles.of_users([1.0, 2.0], 90),
        lambda: quantiles.of_users([1.0], 0.5),
    ],
)
def test_wrong_questions_are_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]
