"""Standard errors of shares: against closed forms, and against what repeated draws do."""

from __future__ import annotations

import numpy as np
import pytest

from persona_cli.profiles import mixture as mixtures
from persona_cli.profiles.dwell import DwellFit, fit_dwell
from persona_cli.profiles.mixture import Mixture, share_error


def drawn(truth: Mixture, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    which = rng.choice(len(truth.weights), n, p=truth.weights)
    return np.asarray(np.exp(rng.normal(truth.means[which], truth.sds[which])))


def test_of_components_far_apart_it_is_that_of_counting() -> None:
    truth = Mixture(np.array([0.7, 0.3]), np.log([2.0, 2e6]), np.array([0.5, 0.5]))
    durations = mixtures.points(drawn(truth, 4000, 1))
    fitted = mixtures.fit(durations, 2)
    share = float(fitted.weights[0])
    assert share_error(durations, fitted, [0]) == pytest.approx(np.sqrt(share * (1 - share) / 4000), rel=1e-3)
    assert share_error(durations, fitted, [1]) == pytest.approx(share_error(durations, fitted, [0]))
    assert share_error(durations, fitted, [0, 1]) == share_error(durations, fitted, []) == 0.0


@pytest.mark.slow
def test_it_is_how_far_fits_of_repeated_draws_spread() -> None:
    truth = Mixture(np.array([0.6, 0.4]), np.log([40.0, 480.0]), np.array([0.8, 0.9]))
    shares, errors = [], []
    for seed in range(40):
        seconds = np.rint(drawn(truth, 6000, seed))
        durations = mixtures.rounded(seconds[(seconds > 0) & (seconds <= 1800)], 1.0, 1800.0)
        fitted = mixtures.fit(durations, 2)
        error = share_error(durations, fitted, [0])
        assert error is not None
        shares.append(float(mixtures.recorded_shares(durations, fitted)[0]))
        errors.append(error)
    # The spread of 40 draws has a relative error of 11 %; three of these.
    assert np.std(shares, ddof=1) == pytest.approx(np.mean(errors), rel=0.35)


def test_what_cannot_be_told_apart_has_none() -> None:
    same = Mixture(np.array([0.5, 0.5]), np.log([40.0, 40.0]), np.array([0.8, 0.8]))
    durations = mixtures.points(drawn(same, 500, 2))
    assert share_error(durations, same, [0]) is None


def test_it_is_kept_and_older_fits_have_none() -> None:
    truth = Mixture(np.array([0.6, 0.4]), np.log([40.0, 480.0]), np.array([0.8, 0.9]))
    fit = fit_dwell(np.rint(drawn(truth, 2000, 3)) + 1)
    said = fit.said()
    assert DwellFit.of(said).share_error == pytest.approx(fit.share_error, rel=1e-5)
    assert DwellFit.of({name: value for name, value in said.items() if name != "share_error"}).share_error is None
