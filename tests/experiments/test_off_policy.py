"""Off-policy estimates: published figures of a real log, what is exact by construction, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_cli.errors import BadData
from persona_cli.experiments import off_policy

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("campaign", "actions", "by_ips", "by_snips", "ess", "largest"),
    [
        ("all", 80, (0.0023596, 0.0008710), (0.0023337, 0.0008690), 340.4, 277.8),
        ("men", 34, (0.0030086, 0.0007739), (0.0031894, 0.0008278), 655.7, 178.3),
    ],
)
def test_the_uniform_policy_on_the_open_bandit_logs(
    campaign: str, actions: int, by_ips: tuple[float, float], by_snips: tuple[float, float], ess: float, largest: float
) -> None:
    path = DATA / f"open-bandit-{campaign}" / "bts.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    log = pl.read_parquet(path, columns=["click", "propensity_score"])
    reward = log["click"].to_numpy().astype(float)
    found = off_policy.weights(log["propensity_score"].to_numpy(), np.full(len(reward), 1 / actions))
    assert (round(found.ess, 1), round(found.largest, 1)) == (ess, largest)
    for one, expected in ((off_policy.ips(reward, found.w), by_ips), (off_policy.snips(reward, found.w), by_snips)):
        assert (one.value, one.se) == pytest.approx(expected, abs=1e-7)


def test_worked_by_hand() -> None:
    found = off_policy.weights(np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.0]))
    reward = np.array([1.0, 1.0, 0.0])
    assert found.w.tolist() == [0.5, 2.0, 0.0]
    assert found.ess == pytest.approx(2.5**2 / 4.25)
    one = off_policy.ips(reward, found.w)
    assert one.value == pytest.approx(2.5 / 3)
    assert one.se == pytest.approx(np.std([0.5, 2.0, 0.0], ddof=1) / np.sqrt(3))
    assert off_policy.snips(reward, found.w).value == 1.0
    q, v = np.array([0.5, 0.5, 0.5]), np.array([0.4, 0.4, 0.4])
    assert off_policy.dr(reward, found.w, q, v).value == pytest.approx(0.4 + (0.25 + 1.0 + 0.0) / 3)
    assert off_policy.dr(reward, found.w, q, v, switch=1.0).value == pytest.approx(0.4 + 0.25 / 3)
    shrunken = (0.5 / (0.25 + 1) * 0.5 + 2.0 / (4 + 1) * 0.5) / 3
    assert off_policy.dr(reward, found.w, q, v, shrink=1.0).value == pytest.approx(0.4 + shrunken)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_logged_policy_is_worth_what_it_earned(seed: int) -> None:
    rng = np.random.default_rng(seed)
    propensity, reward = rng.uniform(0.05, 1, 60), rng.normal(size=60)
    w = off_policy.weights(propensity, propensity).w
    mean, se = reward.mean(), reward.std(ddof=1) / np.sqrt(60)
    for one in (
        off_policy.ips(reward, w),
        off_policy.snips(reward, w),
        off_policy.dr(reward, w, reward * 0, reward * 0),
    ):
        assert one.value == pytest.approx(mean, abs=1e-12)
        assert one.se == pytest.approx(se)
    perfect = off_policy.dr(reward, rng.uniform(0, 9, 60), reward, reward)
    assert perfect.value == pytest.approx(mean, abs=1e-12)


def test_a_user_seen_twice_is_one_user() -> None:
    rng = np.random.default_rng(3)
    reward, w = rng.normal(size=40), rng.uniform(0.5, 2, 40)
    once = off_policy.ips(reward, w, np.arange(40))
    twice = off_policy.ips(np.tile(reward, 2), np.tile(w, 2), np.tile(np.arange(40), 2))
    assert twice.value == pytest.approx(once.value)
    assert twice.se == pytest.approx(once.se)
    assert off_policy.ips(np.tile(reward, 2), np.tile(w, 2)).se < 0.72 * once.se


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, logged policy, policy in question, chances (n, 4), actions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    scores = np.exp(x @ np.array([[0.4, -0.4, 0.2, 0.0], [0.0, 0.5, -0.5, 0.1], [0.3, 0.0, 0.0, -0.3]]))
    logged = scores / scores.sum(axis=1, keepdims=True)
    policy = np.full((n, 4), 0.1)
    policy[np.arange(n), (x[:, 0] > 0).astype(int)] = 0.7
    chance = 1 / (1 + np.exp(-(x[:, [1]] + np.array([-1.0, 0.0, 0.5, -0.5]))))
    action = (rng.random(n)[:, None] > logged.cumsum(axis=1)).sum(axis=1).clip(max=3)
    return x, logged, policy, chance, action


@pytest.mark.parametrize("binary", [True, False])
def test_the_estimates_find_what_the_policy_would_earn(binary: bool) -> None:
    n = 40_000
    x, logged, policy, chance, action = world(n, 5)
    rows, rng = np.arange(n), np.random.default_rng(6)
    reward = (rng.random(n) < chance[rows, action]).astype(float)
    if not binary:
        reward = 10 * chance[rows, action] + rng.normal(size=n)
        chance = 10 * chance
    truth = (policy * chance).sum(axis=1).mean()
    w = off_policy.weights(logged[rows, action], policy[rows, action]).w
    model = off_policy.cross_fitted(x, action, reward, policy)
    again = off_policy.cross_fitted(x, action, reward, policy)
    assert np.array_equal(model.q, again.q) and np.array_equal(model.v, again.v)
    ips, snips = off_policy.ips(reward, w), off_policy.snips(reward, w)
    dr = off_policy.dr(reward, w, model.q, model.v)
    for one in (ips, snips, dr):
        assert abs(one.value - truth) < 4 * one.se
    assert dr.se < snips.se < ips.se
    naive = reward.mean()
    assert abs(naive - truth) > 4 * dr.se


def test_a_row_is_modelled_without_its_own_cluster() -> None:
    x, _, policy, _, action = world(400, 8)
    cluster = np.arange(400) // 4
    reward = np.random.default_rng(1).normal(size=400)
    before = off_policy.cross_fitted(x, action, reward, policy, cluster)
    other = reward.copy()
    other[cluster == 7] += 1_000
    after = off_policy.cross_fitted(x, action, other, policy, cluster)
    same = before.q == after.q
    assert same[cluster == 7].all() and not same.all()


def test_a_reward_that_nobody_gave_is_modelled_as_rare() -> None:
    x, _, policy, _, action = world(100, 8)
    model = off_policy.cross_fitted(x, action, np.zeros(100), policy)
    assert (model.q > 0).all() and (model.q < 0.02).all()


def test_bad_propensities_are_named() -> None:
    good = np.array([0.5, 0.5])
    for bad in (0.0, -0.1, 1.2, float("nan")):
        with pytest.raises(BadData, match="decision 2 of 2 has the propensity"):
            off_policy.weights(np.array([0.5, bad]), good)
    with pytest.raises(BadData, match=r"decision 1 the probability 1\.5"):
        off_policy.weights(good, np.array([1.5, 0.5]))
    with pytest.raises(BadData, match="5 parts of the users, and there are 2"):
        off_policy.cross_fitted(np.zeros((2, 1)), np.array([0, 1]), good, np.ones((2, 2)))


def test_a_thin_sample_shows_in_its_effective_size() -> None:
    propensity = np.full(1_000, 0.5)
    propensity[0] = 1e-5
    assert off_policy.weights(propensity, np.full(1_000, 0.5)).ess < 2 < off_policy.SMALLEST_ESS
    nothing = off_policy.weights(np.full(3, 0.5), np.zeros(3))
    assert nothing.ess == 0 and np.isnan(off_policy.snips(np.ones(3), nothing.w).se)
