"""What bandits know is exact, and the chances that they state are those with which arms are chosen."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.linear_model import Ridge

from persona_cli.errors import BadData, UsageError
from persona_cli.models.bandits import (
    DRAWS,
    ONE,
    POLICIES,
    Policy,
    Posterior,
    Sums,
    chances,
    choose,
    drawn,
    expected,
    nothing,
    posterior,
    sums_of,
)

K, D = 4, 5


def seen(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Features, arms and rewards; the first feature is 1."""
    rng = np.random.default_rng(seed)
    x = np.rint(rng.uniform(-1, 1, (n, D)) * ONE) / ONE
    x[:, 0] = 1
    return x, rng.integers(0, K, n), rng.integers(0, 2, n).astype(float)


def equal(one: Sums, other: Sums) -> bool:
    return all((mine == theirs).all() for mine, theirs in zip(one, other, strict=True))


def test_posterior_is_batch_ridge() -> None:
    x, arm, reward = seen(3_000)
    sums = nothing(K, D)
    for part in np.array_split(np.arange(3_000), 37):
        sums = sums.plus(sums_of(x[part], arm[part], reward[part], K))
    found = posterior(sums, Policy(ridge=2.5, noise=0.3))
    mean, variance = expected(found, x[:50])
    for k in range(K):
        ours = arm == k
        oracle = Ridge(alpha=2.5, fit_intercept=False, solver="cholesky").fit(x[ours], reward[ours])
        np.testing.assert_allclose(found.mean[k], oracle.coef_, rtol=0, atol=1e-9)
        spread = np.linalg.inv(x[ours].T @ x[ours] + 2.5 * np.eye(D))
        np.testing.assert_allclose(found.spread[k], spread, rtol=0, atol=1e-9)
        np.testing.assert_allclose(mean[:, k], oracle.predict(x[:50]), rtol=0, atol=1e-9)
        np.testing.assert_allclose(variance[:, k], 0.3 * ((x[:50] @ spread) * x[:50]).sum(1), rtol=0, atol=1e-9)


def test_arms_that_share_are_ridge_regression_of_one_common_and_one_own_part() -> None:
    x, arm, reward = seen(400)
    s = 0.6
    found = posterior(sums_of(x, arm, reward, K), Policy(sharing=s, ridge=1.0))
    # θ_k = √s common + √(1 - s) own, each with prior variance 1 / λ.
    wide = np.zeros((400, (K + 1) * D))
    wide[:, :D] = np.sqrt(s) * x
    for k in range(K):
        wide[arm == k, (k + 1) * D : (k + 2) * D] = np.sqrt(1 - s) * x[arm == k]
    weights = Ridge(alpha=1.0, fit_intercept=False, solver="cholesky").fit(wide, reward).coef_.reshape(K + 1, D)
    np.testing.assert_allclose(found.mean, np.sqrt(s) * weights[0] + np.sqrt(1 - s) * weights[1:], atol=1e-9)


def test_sharing_teaches_an_arm_that_nobody_tried() -> None:
    x, arm, reward = seen(2_000)
    arm[arm == 3] = 0
    alone = posterior(sums_of(x, arm, reward, K), Policy())
    together = posterior(sums_of(x, arm, reward, K), Policy(sharing=0.9))
    assert (alone.mean[3] == 0).all()
    assert together.mean[3, 0] == pytest.approx(0.5 * 0.9, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_batches_in_any_order_and_shards_are_the_whole_bit_for_bit(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    x, reward = rng.uniform(-1, 1, (200, D)), rng.uniform(-1, 1, 200)
    arm = rng.integers(0, K, 200)
    whole = sums_of(x, arm, reward, K)
    parts = np.split(rng.permutation(200), sorted(cuts))
    summed = nothing(K, D)
    for part in parts:
        summed = summed.plus(sums_of(x[part], arm[part], reward[part], K))
    assert equal(summed, whole)
    gone = parts[0]
    left = np.setdiff1d(np.arange(200), gone)
    taken = whole.minus(sums_of(x[gone], arm[gone], reward[gone], K))
    assert equal(taken, sums_of(x[left], arm[left], reward[left], K))


def test_what_is_not_there_cannot_be_taken_out() -> None:
    x, arm, reward = seen(20)
    with pytest.raises(ValueError, match="not in the sums"):
        nothing(K, D).minus(sums_of(x, arm, reward, K))


def test_features_and_rewards_are_bounded() -> None:
    x, arm, reward = seen(20)
    with pytest.raises(BadData, match="from -1 to 1"):
        sums_of(x, arm, reward * 2, K)
    with pytest.raises(BadData, match="from -1 to 1"):
        chances(Policy(), posterior(nothing(K, D), Policy()), x * np.nan)


def by_quad(mean: NDArray[np.float64], sd: NDArray[np.float64]) -> list[float]:
    """The chance that each of independent normals is the largest."""
    found = []
    for i in range(len(mean)):
        rest = [j for j in range(len(mean)) if j != i]

        def density(t: float, i: int = i, rest: list[int] = rest) -> float:
            return float(norm.pdf(t, mean[i], sd[i]) * np.prod([norm.cdf(t, mean[j], sd[j]) for j in rest]))

        marks = sorted({m + s * z for m, s in zip(mean, sd, strict=True) for z in (-6, -3, -1, 0, 1, 3, 6)})
        low, high = mean[i] - 9 * sd[i], mean[i] + 9 * sd[i]
        inside = [low, *(mark for mark in marks if low < mark < high), high]
        found.append(sum(quad(density, a, b, epsabs=1e-13)[0] for a, b in pairwise(inside)))
    return found


@pytest.mark.parametrize(
    ("mean", "sd"),
    [
        ([0.0, 0.1, 0.2], [0.3, 0.2, 0.1]),
        ([0.0, 0.0, 0.0, 0.0], [1.0, 1e-4, 1e-2, 3.0]),
        ([0.5, 0.50001, 0.49999], [1e-5, 1e-5, 1.0]),
        ([-4.0, 0.0, 5.0], [0.1, 0.1, 0.1]),
    ],
)
def test_thompson_by_quadrature_is_exact(mean: list[float], sd: list[float]) -> None:
    found = thompson(np.array(mean), np.array(sd))
    np.testing.assert_allclose(found, by_quad(np.array(mean), np.array(sd)), rtol=0, atol=1e-9)


def thompson(mean: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chances of arms of one constant feature whose posterior is this."""
    of = Posterior(mean[:, None], (sd**2)[:, None, None], np.array(1.0))
    found: NDArray[np.float64] = chances(Policy(epsilon=0.0), of, np.ones((1, 1))).p[0]
    return found


def test_thompson_of_two_arms_is_a_normal_cdf() -> None:
    found = thompson(np.array([0.3, 0.1]), np.array([0.2, 0.4]))
    assert found[0] == pytest.approx(norm.cdf(0.2 / np.sqrt(0.2)), abs=1e-15)
    assert found.sum() == pytest.approx(1, abs=1e-15)


def test_thompson_of_arms_alike_is_even_and_does_not_depend_on_their_order() -> None:
    np.testing.assert_allclose(thompson(np.zeros(7), np.full(7, 0.3)), 1 / 7, atol=1e-9)
    mean, sd = np.array([0.1, 0.2, 0.15]), np.array([0.1, 0.05, 0.3])
    first = thompson(mean, sd)
    for order in permutations(range(3)):
        np.testing.assert_allclose(thompson(mean[list(order)], sd[list(order)]), first[list(order)], atol=1e-12)


def test_correlated_arms_are_within_the_error_that_is_stated() -> None:
    x, arm, reward = seen(60)
    found = posterior(sums_of(x, arm, reward, K), Policy(sharing=0.5))
    told = chances(Policy(sharing=0.5, epsilon=0.0), found, x[:5])
    assert told.error == pytest.approx(np.sqrt(0.25 / DRAWS))
    mean, covariance = expected(found, x[:5])
    rng = np.random.default_rng(5)
    for row in range(5):
        theta = rng.multivariate_normal(mean[row], covariance[row], 200_000)
        oracle = np.bincount(theta.argmax(1), minlength=K) / 200_000
        np.testing.assert_allclose(told.p[row], oracle, atol=5 * told.error)


def test_two_arms_that_share_are_closed_form() -> None:
    x, arm, reward = seen(60)
    policy = Policy(sharing=0.5, epsilon=0.0)
    found = posterior(sums_of(x, arm % 2, reward, 2), policy)
    told = chances(policy, found, x[:5])
    mean, c = expected(found, x[:5])
    z = (mean[:, 0] - mean[:, 1]) / np.sqrt(c[:, 0, 0] + c[:, 1, 1] - 2 * c[:, 0, 1])
    assert told.error == 0
    np.testing.assert_allclose(told.p[:, 0], norm.cdf(z), atol=1e-12)


def test_linucb_and_epsilon_choose_the_best_but_for_the_even_share() -> None:
    x, arm, reward = seen(300)
    for name in ("linucb", "epsilon"):
        policy = Policy(name, epsilon=0.2, alpha=2.0, noise=0.25)
        found = posterior(sums_of(x, arm, reward, K), policy)
        mean, variance = expected(found, x[:20])
        best = (mean + (2.0 * np.sqrt(variance) if name == "linucb" else 0)).argmax(1)
        wanted = np.full((20, K), 0.05)
        wanted[np.arange(20), best] = 0.85
        np.testing.assert_allclose(chances(policy, found, x[:20]).p, wanted, atol=1e-15)


def test_before_anything_is_known_all_arms_are_alike() -> None:
    x, _, _ = seen(3)
    for name in POLICIES:
        np.testing.assert_allclose(chances(Policy(name), posterior(nothing(K, D), Policy(name)), x).p, 1 / K, atol=1e-9)


@pytest.mark.parametrize("name", POLICIES)
def test_arms_are_drawn_as_often_as_their_propensity_says(name: str) -> None:
    x, arm, reward = seen(40)
    policy = Policy(name, epsilon=0.1)  # type: ignore[arg-type]
    sums = sums_of(x, arm, reward, K)
    told = chances(policy, posterior(sums, policy), x[:1]).p[0]
    n = 100_000
    rng = np.random.default_rng(1)
    chosen, propensity = choose(policy, sums, np.repeat(x[:1], n, axis=0), rng.random(n))
    np.testing.assert_allclose(propensity, told[chosen], atol=1e-15)
    np.testing.assert_allclose(np.bincount(chosen, minlength=K) / n, told, atol=5 * np.sqrt(0.25 / n))


@pytest.mark.parametrize("name", POLICIES)
def test_a_choice_does_not_depend_on_the_others_nor_on_their_order(name: str) -> None:
    x, arm, reward = seen(200)
    policy = Policy(name)  # type: ignore[arg-type]
    sums = sums_of(x, arm, reward, K)
    uniform = np.random.default_rng(2).random(200)
    chosen, propensity = choose(policy, sums, x, uniform)
    order = np.random.default_rng(3).permutation(200)
    again, other = choose(policy, sums, x[order], uniform[order])
    assert (again == chosen[order]).all()
    np.testing.assert_allclose(other, propensity[order], atol=1e-12)
    one, _ = choose(policy, sums, x[7:8], uniform[7:8])
    assert one[0] == chosen[7]


@pytest.mark.parametrize("name", POLICIES)
def test_only_arms_that_are_open_are_chosen(name: str) -> None:
    x, arm, reward = seen(300)
    policy = Policy(name)  # type: ignore[arg-type]
    eligible = np.random.default_rng(4).random((300, K)) < 0.5
    eligible[:, 2] |= ~eligible.any(axis=1)
    found = posterior(sums_of(x, arm, reward, K), policy)
    p = chances(policy, found, x, eligible).p
    assert (p[~eligible] == 0).all()
    assert (p[eligible] > 0).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)
    chosen, _ = choose(policy, sums_of(x, arm, reward, K), x, np.full(300, 1 - 1e-16), eligible)
    assert eligible[np.arange(300), chosen].all()
    with pytest.raises(UsageError, match="no arm may be chosen"):
        chances(policy, found, x, np.zeros((300, K), dtype=bool))


def test_the_noise_is_learned() -> None:
    rng = np.random.default_rng(0)
    x, arm, _ = seen(5_000)
    reward = np.clip(0.3 * x[:, 1] + rng.normal(0, 0.1, 5_000), -1, 1)
    found = posterior(sums_of(x, arm, reward, K), Policy())
    assert found.noise == pytest.approx(0.01, rel=0.05)
    assert posterior(nothing(K, D), Policy()).noise == 0.25


def test_nobody_is_chosen_for_where_nobody_is_asked_for() -> None:
    arm, propensity = choose(Policy(), nothing(K, D), np.zeros((0, D)), np.zeros(0))
    assert len(arm) == len(propensity) == 0
    arm, _ = drawn(np.array([[0.3, 0.7, 0.0]]), np.array([1 - 1e-17]))
    assert arm[0] == 1


@pytest.mark.parametrize("name", POLICIES)
def test_in_a_closed_loop_it_loses_far_less_than_a_split(name: str) -> None:
    rng = np.random.default_rng(11)
    theta = rng.uniform(-0.15, 0.15, (K, D))
    theta[:, 0] = 0.5
    policy = Policy(name, epsilon=0.05)  # type: ignore[arg-type]
    sums, lost, split = nothing(K, D), 0.0, 0.0
    for _ in range(40):  # batches of 200
        x = np.rint(rng.uniform(-1, 1, (200, D)) * ONE) / ONE
        x[:, 0] = 1
        mean = np.clip(x @ theta.T, 0, 1)
        arm, _ = choose(policy, sums, x, rng.random(200))
        lost += (mean.max(1) - mean[np.arange(200), arm]).sum()
        split += (mean.max(1) - mean.mean(1)).sum()
        sums = sums.plus(sums_of(x, arm, (rng.random(200) < mean[np.arange(200), arm]).astype(float), K))
    assert lost < 0.55 * split
