"""Bandit allocation: chances against an integral, published bounds, floors, and intervals that hold afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from persona_cli.errors import UsageError
from persona_cli.experiments.allocation import (
    Arms,
    adaptive_difference,
    adaptive_mean,
    arms_of,
    best_of_betas,
    best_of_normals,
    shares,
    ucb1,
)


def binary(n: list[int], won: list[int]) -> Arms:
    total = np.array(won, dtype=float)
    return Arms(np.array(n, dtype=float), total, total)


@pytest.mark.parametrize(
    ("n", "won"),
    [([10, 10], [3, 5]), ([0, 0, 0], [0, 0, 0]), ([1_000, 1_100, 900], [50, 70, 44]), ([5, 40_000], [1, 9_000])],
)
def test_the_chance_to_be_the_best_of_betas_is_the_integral(n: list[int], won: list[int]) -> None:
    found = best_of_betas(binary(n, won))
    posteriors = [stats.beta(1 + w, 1 + m - w) for m, w in zip(n, won, strict=True)]
    for one, posterior in enumerate(posteriors):
        others = [other for place, other in enumerate(posteriors) if place != one]
        expected, _ = integrate.quad(
            lambda x, own=posterior, rest=others: own.pdf(x) * np.prod([o.cdf(x) for o in rest]),
            *posterior.ppf([1e-10, 1 - 1e-10]),
            limit=500,
        )
        assert found[one] == pytest.approx(expected, abs=2e-3)
    assert found.sum() == pytest.approx(1)


def test_the_chance_to_be_the_better_of_two_normals_is_closed() -> None:
    rng = np.random.default_rng(0)
    variant, reward = rng.integers(0, 2, 500), rng.normal(10, 3, 500)
    arms = arms_of(variant, reward + 0.4 * variant, 2)
    a, b = (reward[variant == one] + 0.4 * one for one in (0, 1))
    se = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    assert best_of_normals(arms)[1] == pytest.approx(stats.norm.cdf((b.mean() - a.mean()) / se), abs=1e-3)
    nobody = Arms(*(np.zeros(3) for _ in range(3)))
    assert best_of_normals(nobody).tolist() == pytest.approx([1 / 3] * 3)


def test_many_experiments_at_once_are_each_as_alone() -> None:
    one, two = binary([10, 30, 20], [1, 9, 3]), binary([5, 5, 5], [5, 0, 1])
    both = best_of_betas(Arms(*(np.stack(pair) for pair in zip(one, two, strict=True))))
    assert np.allclose(both, [best_of_betas(one), best_of_betas(two)], atol=1e-12)


def test_ucb1_is_its_formula_and_tries_everything_first() -> None:
    arms = binary([4, 16, 0], [2, 4, 0])
    assert ucb1(arms)[:2] == pytest.approx([0.5 + np.sqrt(2 * np.log(20) / 4), 0.25 + np.sqrt(2 * np.log(20) / 16)])
    assert shares(arms, "ucb1").tolist() == [0.0, 0.0, 1.0]
    assert shares(arms, "ucb1", floor=0.1).tolist() == pytest.approx([0.1, 0.1, 0.8])


counts = st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1)), min_size=2, max_size=5)


@settings(max_examples=60, deadline=None)
@given(counts, st.floats(0, 0.2), st.data())
def test_shares_add_up_and_nobody_falls_under_the_floor(
    given_: list[tuple[int, float]], floor: float, data: st.DataObject
) -> None:
    arms = binary([n for n, _ in given_], [int(n * rate) for n, rate in given_])
    dropped = np.array(data.draw(st.lists(st.booleans(), min_size=len(given_), max_size=len(given_))))
    dropped[0] = False
    for policy in ("thompson", "ucb1"):
        found = shares(arms, policy, floor=floor, dropped=dropped)  # type: ignore[arg-type]
        assert found.sum() == pytest.approx(1)
        assert (found[dropped] == 0).all()
        assert (found[~dropped] >= floor - 1e-9).all()


def test_sums_add_and_subtract_and_age() -> None:
    rng = np.random.default_rng(1)
    variant, reward = rng.integers(0, 3, 100), rng.integers(0, 2, 100).astype(float)
    whole = arms_of(variant, reward, 3)
    parts = arms_of(variant[:40], reward[:40], 3).plus(arms_of(variant[40:], reward[40:], 3))
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    left = whole.minus(arms_of(variant[:40], reward[:40], 3))
    assert np.array_equal(left.n, arms_of(variant[40:], reward[40:], 3).n)
    assert np.allclose(whole.aged(0.5).total, whole.total / 2)


def test_what_changed_its_mind_is_followed_with_a_discount() -> None:
    """The first variant was good for 20 batches, then the second is: without a discount the past decides."""
    rng = np.random.default_rng(2)
    found = {}
    for discount in (1.0, 0.8):
        arms = Arms(*(np.zeros(2) for _ in range(3)))
        for batch in range(26):
            rates = [0.3, 0.1] if batch < 20 else [0.1, 0.3]
            won = rng.binomial(100, rates).astype(float)
            arms = arms.aged(discount).plus(Arms(np.full(2, 100.0), won, won))
        found[discount] = shares(arms)[1]
    assert found[1.0] < 0.01 and found[0.8] > 0.99


def test_equal_shares_give_the_mean_and_its_usual_error() -> None:
    rng = np.random.default_rng(3)
    batch, share = np.full(40, 500.0), np.full(40, 0.5)
    n = rng.binomial(500, 0.5, 40).astype(float)
    won = rng.binomial(n.astype(int), 0.2).astype(float)
    for power in (0.0, 0.5):
        found = adaptive_mean(n, won, won, share, batch, power)
        assert found.value == pytest.approx(won.sum() / n.sum(), abs=0.002)
        assert found.se == pytest.approx(np.sqrt(0.2 * 0.8 / n.sum()), rel=0.05)


@pytest.mark.slow
def test_intervals_hold_where_the_plain_ones_do_not() -> None:
    """3 variants alike, Thompson shares with a floor: 1,500 runs."""
    rng = np.random.default_rng(4)
    runs, rate = 1_500, 0.1
    arms = Arms(*(np.zeros((runs, 3)) for _ in range(3)))
    rows = []
    for _ in range(30):
        share = shares(arms, floor=0.05)
        n = rng.multinomial(200, share).astype(float)
        won = rng.binomial(n.astype(int), rate).astype(float)
        rows.append((n, won, share))
        arms = arms.plus(Arms(n, won, won))
    n, won, share = (np.stack(part, axis=-1) for part in zip(*rows, strict=True))
    plain = arms.total / arms.n
    assert (plain - rate).mean() < -0.002
    found = adaptive_mean(n, won, won, share, np.full(share.shape, 200.0))
    assert abs((found.value - rate).mean()) < 0.0008
    held = ((found.low <= rate) & (rate <= found.high)).mean()
    plainly = (np.abs(plain - rate) <= 1.96 * np.sqrt(plain * (1 - plain) / arms.n)).mean()
    assert held > 0.94 > plainly
    parts = [found._replace(**{name: getattr(found, name)[:, k] for name in found._fields}) for k in range(2)]
    difference = adaptive_difference(*parts)
    assert ((difference.low <= 0) & (difference.high >= 0)).mean() > 0.94


def test_floors_and_drops_that_leave_nothing_are_refused() -> None:
    arms = binary([10, 10], [1, 2])
    with pytest.raises(UsageError, match=r"a floor of 0\.6 for each of 2 variants"):
        shares(arms, floor=0.6)
    with pytest.raises(UsageError, match="every variant is dropped"):
        shares(arms, dropped=np.array([True, True]))
