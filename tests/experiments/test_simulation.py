"""Simulated experiments: what they say of people whose behaviour is known, and what is fitted on counts and clicks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from persona_cli.errors import UsageError
from persona_cli.experiments.behaviour import Behaviour, Clicking, Logged, People, Spread, _scaled, fitted, spread_of
from persona_cli.experiments.clicks import CascadeModel, clicks_on
from persona_cli.experiments.merging import mixed
from persona_cli.experiments.playing import Plan
from persona_cli.experiments.simulation import simulate

NOBODY_DIFFERS = Spread("none", 0.0, 0, "")


def made(chance_a: float, chance_b: float, visits: int = 1, spread: Spread = NOBODY_DIFFERS) -> Behaviour:
    """Lists of one item, looked at for certain: A shows item 0 (base rate), B item 1 (relevant)."""
    n = 40
    relevant = np.tile([False, True], (n, 1))
    people = People(
        np.zeros((n, 1), dtype=np.int64),
        np.ones((n, 1), dtype=np.int64),
        relevant,
        np.full(n, visits),
        7.0,
        np.arange(n, dtype=np.float64) / 4,
        "",
        ("a", "b"),
    )
    return Behaviour(people, Clicking("cascade", chance_b, chance_a, np.ones(1), 0.7, 0.15), spread, ())


def test_a_test_of_known_proportions_needs_what_the_closed_form_says() -> None:
    found = simulate(made(0.2, 0.25), Plan("ab", users=400, runs=3000, metric="clicked")).document
    true = found["truth"]
    # 1.2 million people: 0.2 and 0.25 to within five standard errors
    assert abs(true["a"] - 0.2) < 0.002 and abs(true["b"] - 0.25) < 0.002
    # 1091 an arm by the normal law with unpooled variances (Cohen's arcsine: 1091.9)
    assert found["needed"]["users"] == pytest.approx(2 * 1091, rel=0.05)
    # 40 people came in 10 days, and the last is followed for a week
    assert found["needed"]["days"] == pytest.approx(found["needed"]["users"] * 9.75 / 40 + 7, abs=0.5)
    # 0.05 / sqrt(0.16 / 200 + 0.1875 / 200) = 1.2 standard errors: 22 %
    assert found["found"]["low"] - 0.02 < 0.224 < found["found"]["high"] + 0.02
    assert found["estimate"]["coverage"]["low"] < 0.955 and found["estimate"]["coverage"]["high"] > 0.945
    assert found["estimate"]["sd"] == pytest.approx((0.16 / 200 + 0.1875 / 200) ** 0.5, rel=0.05)


def test_where_nothing_differs_alarms_are_as_rare_as_asked_and_peeking_makes_more() -> None:
    found = simulate(made(0.3, 0.5, visits=3), Plan("aa", users=500, runs=2000)).document
    assert found["found"]["low"] < 0.05 < found["found"]["high"]
    assert found["peeking"]["fixed"]["value"] > 0.12 and found["peeking"]["always_valid"]["value"] < 0.05
    assert found["truth"]["difference"] == 0 and found["needed"] is None


def test_interleaving_prefers_the_better_list_with_fewer_users() -> None:
    # B shows what is relevant on top, A below something else; three visits each
    n = 30
    a, b = np.tile([0, 1], (n, 1)), np.tile([1, 0], (n, 1))
    base = made(0.05, 0.4, visits=3, spread=Spread("lognormal", 1.0, 0, ""))
    world = replace(
        base, people=replace(base.people, a=a, b=b, relevant=np.tile([False, True], (n, 1)), visits=np.full(n, 3))
    )
    found = simulate(world, Plan("interleave", users=200, runs=500)).document
    assert found["truth"]["preference"] > 0 and found["ab"]["ratio"] > 3
    assert found["ab"]["low"] < found["ab"]["ratio"] < found["ab"]["high"]
    assert found["sign"]["right"] >= 0.99 * found["sign"]["told"]
    alike = simulate(replace(world, people=replace(world.people, b=a)), Plan("interleave", users=100, runs=50))
    assert alike.document["needed"] is None and alike.document["estimate"]["sd"] == 0


def test_a_bandit_loses_less_than_an_equal_split() -> None:
    found = simulate(made(0.2, 0.4), Plan("bandit", users=1000, runs=300, metric="clicked"))
    regret = found.document["regret"]
    assert regret["equal_split"] == pytest.approx(0.2 * 500, rel=0.02)
    assert regret["mean"] < 0.4 * regret["equal_split"] and found.document["batches"][-1]["share_b"] > 0.9
    assert found.document["batches"][0]["share_b"] == 0.5
    rows = found.rows  # what was lost is what those who got A missed
    np.testing.assert_allclose(rows["regret"], found.document["truth"]["difference"] * (1000 - rows["users_b"]))


def test_threads_and_blocks_change_nothing_and_seeds_do() -> None:
    world, plan = made(0.2, 0.25, visits=2), Plan("ab", users=300, runs=40, metric="ctr")
    one, two = simulate(world, plan), simulate(world, replace(plan, threads=3))
    assert one.document == two.document
    for name, values in one.rows.items():
        np.testing.assert_array_equal(values, two.rows[name])
    again = simulate(world, replace(plan, runs=20))
    np.testing.assert_array_equal(again.rows["difference"], one.rows["difference"][:20])
    assert (simulate(world, replace(plan, seed=1)).rows["difference"] != one.rows["difference"]).any()


@pytest.mark.parametrize(("law", "size"), [("gamma", 0.5), ("lognormal", 1.0)])
def test_the_spread_is_found_again(law: str, size: float) -> None:
    rng = np.random.default_rng(3)
    n = 6000
    exposure = rng.integers(1, 6, n).astype(np.float64)
    factor = rng.gamma(1 / size, size, n) if law == "gamma" else np.exp(size * rng.standard_normal(n) - size**2 / 2)
    found = spread_of(rng.poisson(4 * exposure * factor).astype(np.float64), exposure)
    assert found.law == law and found.size == pytest.approx(size, rel=0.08) and found.people == n
    factors = found.factors()
    assert factors.mean() == pytest.approx(1.0) and (np.diff(factors) >= 0).all()


def test_no_spread_where_people_are_alike() -> None:
    counts = np.random.default_rng(5).poisson(3.0, 4000).astype(np.float64)
    assert spread_of(counts, np.ones(4000)).size < 0.15
    assert spread_of(np.zeros(10), np.ones(10)).law == "none"


def test_clicks_are_fitted_where_enough_are_logged() -> None:
    rng = np.random.default_rng(2)
    items = np.argsort(rng.random((4000, 12)), axis=1)[:, :6]
    true = CascadeModel(np.linspace(0.1, 0.5, 12), 0.6, 0.2)
    clicks = clicks_on(true, items, mixed(np.arange(4000, dtype=np.uint64)))
    logged = Logged(items, clicks, (clicks.sum(axis=1).astype(float), np.ones(4000)))
    found = fitted(logged, 8, None, 0.4, 0.02)
    assert found.model == "cascade" and found.lists == 4000
    assert found.stop == pytest.approx(0.6, abs=0.06) and found.abandon == pytest.approx(0.2, abs=0.06)
    few = Logged(items[:50], clicks[:50], (np.ones(1), np.ones(1)))
    assert fitted(few, 8, None, 0.4, 0.02).lists == 0 and "50 lists" in fitted(few, 8, None, 0.4, 0.02).told
    assert len(fitted(logged, 8, "position", 0.4, 0.02).examination) == 8


def test_lists_of_a_get_as_many_clicks_as_were_logged() -> None:
    people = made(0.1, 0.2).people  # A's lists hold one item without evidence, B's one with
    logged = Logged(np.zeros((400, 1), dtype=np.int64), np.arange(400)[:, None] < 60, (np.ones(1), np.ones(1)))
    clicking = Clicking("cascade", 0.4, 0.02, np.ones(1), 0.7, 0.15)
    found, reached = _scaled(clicking, people, logged)
    assert reached and found.base == pytest.approx(0.15, abs=1e-6) and found.relevant == 0.4
    found, reached = _scaled(clicking, replace(people, a=people.b), logged)
    assert reached and found.relevant == pytest.approx(0.15, abs=1e-6) and found.base == pytest.approx(0.0075, abs=1e-6)
    found, reached = _scaled(replace(clicking, relevant=0.1), people, logged)
    assert not reached and found.base == 0.1


def test_what_cannot_be_simulated() -> None:
    for plan, said in (
        (Plan("ab", users=10), "at least 20"),
        (Plan("ab", runs=0), "0 runs"),
        (Plan("ab", alpha=0.9), "alpha"),
        (Plan("bandit", metric="ctr"), "paid by user"),
        (Plan("bandit", metric="clicks", policy="ucb1"), "from 0 to 1"),
        (Plan("bandit", metric="clicked", floor=0.6), "floor"),
        (Plan("ab", metric="revenue"), "no metric 'revenue'"),
    ):
        with pytest.raises(UsageError, match=said):
            simulate(made(0.1, 0.2), plan)
