"""Intervals for those who look before the end: constants of the literature, exact type I, a replay of real looks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from persona_cli.errors import UsageError
from persona_cli.experiments import inference, sequential

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ASOS = DATA / "asos-experiments" / "experiments.parquet"
FIVE = np.arange(1, 6) / 5


def test_classic_constants() -> None:
    """As tabled by Pocock 1977, O'Brien and Fleming 1979 and Jennison and Turnbull 1999, to their digits."""
    for bounds in (np.full(5, 2.413), 2.040 / np.sqrt(FIVE)):
        assert sequential.exit_chances(bounds, FIVE).sum() == pytest.approx(0.05, abs=5e-5)
    # by Lan and DeMets' spending
    assert sequential.spending_bounds(FIVE) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3)
    assert sequential.spending_bounds([0.5, 1.0]) == pytest.approx([2.963, 1.969], abs=1e-3)
    pocock = sequential.spending_bounds(FIVE, spending="pocock")
    assert pocock == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=1e-3)
    assert sequential.last_bound(5) == pytest.approx(2.031, abs=1e-3)
    assert sequential.alone(sequential.last_bound(1)) == pytest.approx(0.05)


def test_five_looks_cost_little() -> None:
    """The largest sample is 1.028 x the fixed one for O'Brien and Fleming, 1.229 x for Pocock (80 % power)."""
    assert sequential.inflation(2.040 / np.sqrt(FIVE), FIVE) == pytest.approx(1.028, abs=1e-3)
    assert sequential.inflation(np.full(5, 2.413), FIVE) == pytest.approx(1.229, abs=1e-3)
    assert sequential.inflated(5) == pytest.approx(1.025, abs=1e-3) and sequential.inflated(1) == 1.0


@pytest.mark.parametrize("spending", sequential.SPENDING)
@pytest.mark.parametrize("fractions", [FIVE, [0.03, 0.031, 0.4, 0.97, 1.0], np.arange(1, 41) / 40])
def test_type_one_is_all_of_alpha(spending: str, fractions: np.ndarray) -> None:
    bounds = sequential.spending_bounds(fractions, 0.05, spending)
    out = sequential.exit_chances(bounds, fractions)
    assert out.sum() == pytest.approx(0.05, abs=1e-8)
    assert np.cumsum(out) == pytest.approx(sequential.spent(fractions, 0.05, spending), abs=1e-8)


def test_recursive_integration_is_the_multivariate_normal() -> None:
    t, z = np.array([0.2, 0.5, 1.0]), np.array([2.5, 2.2, 2.0])
    together = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    for drift in (0.0, 2.8):
        law = stats.multivariate_normal(drift * np.sqrt(t), together, maxpts=200_000, abseps=1e-7)
        inside = law.cdf(z, lower_limit=-z)
        assert sequential.exit_chances(z, t, drift).sum() == pytest.approx(1 - inside, abs=1e-5)


def test_naive_looks_are_those_of_armitage() -> None:
    """Armitage, McPherson and Rowe 1969: 1.96 at each of K looks."""
    rates = [sequential.exit_chances(np.full(k, 1.959964), np.arange(1, k + 1) / k).sum() for k in (1, 2, 3, 4, 5, 10)]
    assert rates == pytest.approx([0.05, 0.083, 0.107, 0.126, 0.142, 0.193], abs=6e-4)


def test_horizon_constant_is_the_reflection_principles() -> None:
    c = sequential.horizon_constant()
    assert c == pytest.approx(2.2414, abs=1e-4)
    # two images are enough at such a level; both series agree where they meet
    assert 4 * stats.norm.sf(c) - 4 * stats.norm.sf(3 * c) == pytest.approx(0.05, abs=1e-9)
    assert sequential.crossing(1 - 1e-9) == pytest.approx(sequential.crossing(1 + 1e-9), abs=1e-8)
    # discrete looks of the straight boundary approach it from below
    looks = np.arange(1, 201) / 200
    assert 0.045 < sequential.exit_chances(c / np.sqrt(looks), looks).sum() < 0.05


def test_a_look_of_a_plan() -> None:
    found = sequential.at_look(0.2, 0.07, (0.5, 1.0))
    assert (float(found.high) - 0.2) / 0.07 == pytest.approx(1.969, abs=1e-3)
    for z in (0.0, 0.5, 2.6, 2.7, 3.4, 12.0):
        look = sequential.at_look(z, 1.0, (0.2, 0.4, 0.6))  # the third bound is 2.680
        assert (look.p < 0.05) == (look.low > 0) == (z > 2.68)
    assert sequential.at_look(1.959964, 1.0, (1.0,)).p == pytest.approx(0.05, abs=1e-6)
    assert sequential.at_look(0.0, 0.0, (0.5,)).p == 1


def test_looks_of_a_plan_are_seldom_called_wrongly() -> None:
    """4,000 walks looked at five times, where they happen to be: seeded, so that the share is exact."""
    rng = np.random.default_rng(2)
    at = (0.1, 0.45, 0.5, 0.9, 1.0)
    walks = np.cumsum(rng.standard_normal((4_000, 5)) * np.sqrt(np.diff(at, prepend=0.0)), axis=1) / np.sqrt(at)
    bounds = np.array([sequential.spending_bounds(at[: k + 1])[-1] for k in range(5)])
    assert (np.abs(walks) > bounds).any(axis=1).mean() == pytest.approx(0.05, abs=0.007)


def test_looks_so_far() -> None:
    assert sequential.looks_to(2, 5) == (0.2, 0.4)
    assert sequential.looks_to(3, 5, 0.55) == (0.2, 0.4, 0.55)
    assert sequential.looks_to(5, 5, 1.2)[-1] == 1.0
    with pytest.raises(UsageError, match=r"look 6 of 5; expected one from 1 to 5"):
        sequential.looks_to(6, 5)
    with pytest.raises(UsageError, match="look 4 of 5 comes after 60 % of what is planned, and 41 % is there"):
        sequential.looks_to(4, 5, 0.41)


def test_widths_at_the_plan() -> None:
    n = 5_000
    fixed = 1.959964
    assert sequential.open_ended_times(n, n) / fixed == pytest.approx(1.5486, abs=1e-4)
    look = sequential.horizon(0.0, 1.0, n, n)
    assert float(look.high) / fixed == pytest.approx(1.1436, abs=1e-4)
    assert float(sequential.horizon(3.0, 1.0, n + 1, n).high) == np.inf


def test_confidence_sequence_as_published() -> None:
    """GrowthBook's test: 3,000 and 3,461 users, tuned to 1,000."""
    found = inference.mean(
        inference.of_sums(3000, [1396.87], [[52377.9767]]), inference.of_sums(3461, [2422.7], [[134698.29]])
    )
    look = sequential.open_ended(found.relative, found.relative_se, 6461, 1000)
    assert [float(found.relative), float(look.low), float(look.high)] == pytest.approx(
        [0.50336, -0.55844, 1.56516], abs=6e-6
    )


def test_p_and_interval_agree() -> None:
    z = np.linspace(0.0, 6.0, 61)
    for rule in (sequential.open_ended, sequential.horizon):
        look = rule(z, 1.0, 4_000, 5_000)
        assert ((look.p < 0.05) == (look.low > 0)).all()
        assert (np.diff(look.p) <= 0).all()
        assert (rule(z, 1.0, 99, 5_000).p == 1).all()
        nothing = rule(0.0, 0.0, 4_000, 5_000)
        assert (float(nothing.p), float(nothing.low)) == (1.0, 0.0)


def test_walks_are_seldom_called_wrongly() -> None:
    """200 walks of 5,000 steps, looked at after each: seeded, so that the share is exact."""
    rng = np.random.default_rng(1)
    n = np.arange(1, 5_001)
    mean = np.cumsum(rng.standard_normal((200, 5_000)), axis=1) / n
    se = 1 / np.sqrt(n)
    for rule in (sequential.open_ended, sequential.horizon):
        look = rule(mean, se, n, 5_000)
        assert ((look.low > 0) | (look.high < 0)).any(axis=1).mean() <= 0.05
    assert (np.abs(mean / se)[:, 99:] > 1.96).any(axis=1).mean() > 0.3


@pytest.mark.parametrize("wrong", [[], [0.0, 1.0], [0.5, 0.5], [0.5, 1.2]])
def test_looks_must_rise(wrong: list[float]) -> None:
    with pytest.raises(UsageError, match="rising shares"):
        sequential.spending_bounds(wrong)


def test_a_spending_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no alpha spending 'obf'"):
        sequential.spent(0.5, spending="obf")


def replay(metric: int, with_plan: bool) -> dict[str, int]:
    """How many of the real experiments' arms each rule calls different at any look, the plan being the last look."""
    import polars as pl

    n, gap = pl.col("count_c") + pl.col("count_t"), pl.col("mean_t") - pl.col("mean_c")
    square = pl.col("variance_c") / pl.col("count_c") + pl.col("variance_t") / pl.col("count_t")
    keys = ["experiment_id", "variant_id"]
    looks = (
        pl.read_parquet(ASOS)
        .filter(pl.col("metric_id") == metric, pl.all_horizontal(pl.all().is_not_null()))
        .select(*keys, "time_since_start", n=n, gap=gap, se=square.sqrt())
        .filter(pl.col("n") >= sequential.FIRST_LOOK, pl.col("se") > 0)
        .sort(*keys, "time_since_start")
        .filter(pl.col("n") > pl.col("n").cum_max().shift(1).over(keys).fill_null(0))
    )
    found = dict.fromkeys(("arms", "looks", "naive", "last", "open-ended", "horizon", "planned"), 0)
    for _, arm in looks.group_by(keys, maintain_order=True):
        units, difference, error = (arm[name].to_numpy() for name in ("n", "gap", "se"))
        z = np.abs(difference / error)
        open_ended, horizon = (
            rule(difference, error, units, units[-1]) for rule in (sequential.open_ended, sequential.horizon)
        )
        found["arms"] += 1
        found["looks"] += len(units)
        found["naive"] += bool((z > 1.959964).any())
        found["last"] += bool(z[-1] > 1.959964)
        found["open-ended"] += bool(((open_ended.low > 0) | (open_ended.high < 0)).any())
        found["horizon"] += bool(((horizon.low > 0) | (horizon.high < 0)).any())
        if with_plan:
            found["planned"] += bool((z > sequential.spending_bounds(units / units[-1])).any())
        # the formula written down anew, look by look
        x = units * (5.991464547 + np.log(6.991464547)) / units[-1]
        by_hand = error * np.sqrt(2 * (x + 1) / x * np.log(np.sqrt(x + 1) / 0.05))
        assert open_ended.high - difference == pytest.approx(by_hand, rel=1e-8)
    return found


@pytest.mark.skipif(not ASOS.exists(), reason="needs asos-experiments")
def test_replay_of_real_looks() -> None:
    """27 of 99 arms differ at the end by a fixed test, 45 at some look; those valid at every look say 20 and 25."""
    truth = {"arms": 99, "looks": 5868, "naive": 45, "last": 27, "open-ended": 20, "horizon": 25, "planned": 0}
    assert replay(1, with_plan=False) == truth


@pytest.mark.slow
@pytest.mark.skipif(not ASOS.exists(), reason="needs asos-experiments")
def test_replay_with_planned_looks() -> None:
    first, second = (replay(metric, with_plan=True) for metric in (1, 2))
    assert first == {
        **{"arms": 99, "looks": 5868, "naive": 45, "last": 27},
        **{"open-ended": 20, "horizon": 25, "planned": 27},
    }
    assert second == {
        **{"arms": 94, "looks": 5607, "naive": 64, "last": 27},
        **{"open-ended": 36, "horizon": 44, "planned": 44},
    }
