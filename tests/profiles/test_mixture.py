"""Mixtures of log-normals: against scipy and scikit-learn, and on durations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture

from persona_cli.profiles import mixture as mixtures
from persona_cli.profiles.mixture import Mixture

TRUTH = Mixture(np.array([0.6, 0.4]), np.log([40.0, 480.0]), np.array([0.8, 0.9]))


def drawn(n: int, seed: int, truth: Mixture = TRUTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    which = rng.choice(len(truth.weights), n, p=truth.weights)
    return np.exp(rng.normal(truth.means[which], truth.sds[which]))


def test_likelihood_of_points_is_that_of_scipys_log_normals() -> None:
    seconds = drawn(300, 1)
    density = sum(w * stats.lognorm.pdf(seconds, s=sd, scale=np.exp(mean)) for w, mean, sd in zip(*TRUTH, strict=True))
    found = mixtures.log_likelihood(mixtures.points(seconds), TRUTH)
    # In logs: the density of z is that of exp(z) times exp(z).
    assert found == pytest.approx(float(np.log(density * seconds).sum()), rel=1e-12)


def test_likelihood_of_rounded_and_cut_off_seconds_is_that_of_scipys_intervals() -> None:
    seconds = np.clip(np.rint(drawn(400, 2)), 1, 600)

    def reached(at: np.ndarray | float) -> np.ndarray:
        parts = zip(*TRUTH, strict=True)
        return np.asarray(sum(w * stats.lognorm.cdf(at, s=sd, scale=np.exp(mean)) for w, mean, sd in parts))

    # 50 single seconds, then bins of 2 %; both sides see the same bins.
    few = seconds[seconds <= 50]
    inside = reached(600.0) - reached(0.5)
    expected = np.log((reached(few + 0.5) - reached(few - 0.5)) / inside).sum()
    assert mixtures.log_likelihood(mixtures.rounded(few, 1.0, 600.0), TRUTH) == pytest.approx(float(expected), rel=1e-6)


def test_fit_of_points_is_that_of_scikit_learn() -> None:
    seconds = drawn(2000, 3)
    found = mixtures.fit(mixtures.points(seconds), 2)
    z = np.log(seconds)[:, None]
    start = GaussianMixture(
        2, tol=1e-13, max_iter=20_000, reg_covar=0.0, means_init=np.log([[40.0], [480.0]]), random_state=0
    ).fit(z)
    order = np.argsort(start.means_[:, 0])
    assert found.weights == pytest.approx(start.weights_[order], abs=2e-4)
    assert found.means == pytest.approx(start.means_[order, 0], abs=2e-4)
    assert found.sds == pytest.approx(np.sqrt(start.covariances_[order, 0, 0]), abs=2e-4)
    here = mixtures.log_likelihood(mixtures.points(seconds), found) / len(seconds)
    assert here == pytest.approx(float(start.score(z)), abs=1e-6)


def test_one_step_of_points_is_one_step_of_scikit_learn() -> None:
    seconds, start = drawn(500, 4), Mixture(np.array([0.5, 0.5]), np.array([3.0, 5.0]), np.array([1.0, 1.0]))
    theirs = GaussianMixture(
        2,
        weights_init=start.weights,
        means_init=start.means[:, None],
        precisions_init=(start.sds**-2)[:, None, None],
        max_iter=1,
        reg_covar=0.0,
    )
    with pytest.warns(match="converge"):
        theirs.fit(np.log(seconds)[:, None])
    found = mixtures.step(mixtures.points(seconds), start)
    assert found.weights == pytest.approx(theirs.weights_, rel=1e-12)
    assert found.means == pytest.approx(theirs.means_[:, 0], rel=1e-12)
    assert found.sds == pytest.approx(np.sqrt(theirs.covariances_[:, 0, 0]), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_no_step_lowers_the_likelihood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = drawn(3000, seed)
    durations = mixtures.rounded(seconds[seconds <= 900], float(rng.choice([1.0, 5.0])), 900.0)
    mixture = Mixture(np.array([0.2, 0.5, 0.3]), rng.uniform(0, 7, 3), rng.uniform(0.3, 2, 3))
    reached = mixtures.log_likelihood(durations, mixture)
    for _ in range(60):
        mixture = mixtures.step(durations, mixture)
        now = mixtures.log_likelihood(durations, mixture)
        assert now >= reached - 1e-7
        reached = now


def test_what_was_cut_off_and_rounded_is_made_good() -> None:
    seconds = drawn(60_000, 5)
    kept = np.rint(seconds[seconds <= 600])  # 4 of 10 idle seconds are never seen
    found = mixtures.fit(mixtures.rounded(kept, 1.0, 600.0), 2)
    assert np.exp(found.means) == pytest.approx([40, 480], rel=0.1)
    assert found.sds == pytest.approx([0.8, 0.9], abs=0.06)
    assert found.weights == pytest.approx([0.6, 0.4], abs=0.03)


def test_coarse_seconds_are_intervals_and_no_heaps() -> None:
    seconds = np.rint(drawn(40_000, 6) / 15) * 15
    found = mixtures.fit(mixtures.rounded(seconds, 15.0), 2)
    assert np.exp(found.means) == pytest.approx([40, 480], rel=0.12)
    assert found.sds == pytest.approx([0.8, 0.9], abs=0.08)


def test_counts_do_not_depend_on_order_and_nothing_is_an_error() -> None:
    seconds = drawn(500, 7)
    one, two = (mixtures.fit(mixtures.rounded(values, 1.0), 2) for values in (seconds, seconds[::-1]))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    with pytest.raises(ValueError, match="no durations"):
        mixtures.fit(mixtures.rounded(np.zeros(5), 1.0), 2)


def test_fewer_values_than_components() -> None:
    found = mixtures.fit(mixtures.rounded(np.full(20, 7.0), 1.0), 3)
    assert found.weights.sum() == pytest.approx(1) and np.isfinite(found.means).all()


def test_a_component_that_loses_everything_stays_where_it_was() -> None:
    far = Mixture(np.array([1.0, 1e-12]), np.array([3.0, 400.0]), np.array([1.0, 0.05]))
    found = mixtures.step(mixtures.rounded(drawn(100, 8), 1.0), far)
    assert np.isfinite(np.concatenate(found)).all()
    assert found.means[1] == 400.0
