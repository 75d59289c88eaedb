"""Click models find the parameters that made a log, and their clicks have the chances that they state."""

from __future__ import annotations

import numpy as np
import pytest

from persona_cli.errors import BadData
from persona_cli.experiments.clicks import (
    CascadeModel,
    PositionModel,
    click_chances,
    clicks_on,
    fit_cascade,
    fit_position,
)
from persona_cli.experiments.merging import mixed

ATTRACTION = np.linspace(0.05, 0.6, 12)
POSITION = PositionModel(ATTRACTION, np.array([1.0, 0.8, 0.55, 0.4, 0.3, 0.15]))
CASCADE = CascadeModel(ATTRACTION, stop=0.7, abandon=0.15)


def log(model: PositionModel | CascadeModel, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    items = np.argsort(rng.random((n, 12)), axis=1)[:, :6]
    items[rng.random(n) < 0.2, 4:] = -1  # some lists are shorter
    return items, clicks_on(model, items, mixed(rng.integers(0, 2**63, n).astype(np.uint64)))


def test_position_model_is_found_again() -> None:
    found = fit_position(*log(POSITION, 100_000))
    np.testing.assert_allclose(found.examination, POSITION.examination, atol=0.02)
    np.testing.assert_allclose(found.attraction, ATTRACTION, atol=0.015)


def test_cascade_model_is_found_again() -> None:
    found = fit_cascade(*log(CASCADE, 60_000))
    assert found.stop == pytest.approx(0.7, abs=0.02) and found.abandon == pytest.approx(0.15, abs=0.02)
    np.testing.assert_allclose(found.attraction, ATTRACTION, atol=0.015)


def test_plain_cascade_is_the_special_case() -> None:
    found = fit_cascade(*log(CascadeModel(ATTRACTION, stop=1.0, abandon=0.0), 10_000))
    assert found.stop == pytest.approx(1, abs=1e-6) and found.abandon < 0.03
    np.testing.assert_allclose(found.attraction, ATTRACTION, atol=0.05)


def test_no_model_is_more_likely_than_the_fitted_one() -> None:
    """EM states the log-likelihood that going down each list gives, and ends at a maximum of it."""
    items, clicks = log(CASCADE, 3000)
    found = fit_cascade(items, clicks, prior=0.0)
    everywhere = sum(np.log(pattern_chance(found, items[row], clicks[row])) for row in range(len(items)))
    assert everywhere == pytest.approx(found.log_likelihood, rel=1e-6)
    for stop, abandon in ((0.03, 0), (-0.03, 0), (0, 0.03), (0, -0.03)):
        other = CascadeModel(found.attraction, found.stop + stop, found.abandon + abandon)
        assert sum(np.log(pattern_chance(other, items[r], clicks[r])) for r in range(len(items))) < everywhere


def pattern_chance(model: CascadeModel, items: np.ndarray, clicks: np.ndarray) -> float:
    """Chance of a whole list's clicks, by going down the list with the chance of still being there."""
    here, gone = 1.0, 0.0
    for item, click in zip(items, clicks, strict=True):
        if item < 0:
            break
        alpha = model.attraction[item]
        if click:
            here, gone = here * alpha * (1 - model.stop), here * alpha * model.stop
        else:
            here, gone = here * (1 - alpha) * (1 - model.abandon), gone + here * (1 - alpha) * model.abandon
    return float(here + gone)


@pytest.mark.parametrize("model", [POSITION, CASCADE], ids=["position", "cascade"])
def test_clicks_come_with_the_stated_chances(model: PositionModel | CascadeModel) -> None:
    items = np.tile([3, 11, 0, 7, 5, -1], (60_000, 1))
    clicks = clicks_on(model, items, mixed(np.arange(60_000, dtype=np.uint64)))
    np.testing.assert_allclose(clicks.mean(axis=0), click_chances(model, items)[0], atol=0.01)
    assert not clicks[:, 5].any()


def perplexity(model: PositionModel | CascadeModel, items: np.ndarray, clicks: np.ndarray) -> float:
    """2 ^ mean(-log2 P(what happened at a place)): 1 knows everything, 2 is a coin (Dupret and Piwowarski 2008)."""
    chances = click_chances(model, items)
    return float(2 ** -np.log2(np.where(clicks > 0, chances, 1 - chances)[items >= 0]).mean())


def test_each_log_is_told_best_by_its_own_model() -> None:
    for truth in (POSITION, CASCADE):
        learnt, held = log(truth, 30_000, seed=1), log(truth, 30_000, seed=2)
        told = {type(fit): perplexity(fit, *held) for fit in (fit_position(*learnt), fit_cascade(*learnt))}
        assert told[type(truth)] == pytest.approx(perplexity(truth, *held), abs=0.002)
        assert told[type(truth)] == min(told.values())


def test_clicks_and_fits_do_not_depend_on_the_order_of_lists() -> None:
    items, clicks = log(CASCADE, 2000)
    order = np.random.default_rng(3).permutation(2000)
    chance = mixed(np.arange(2000, dtype=np.uint64))
    np.testing.assert_array_equal(
        clicks_on(CASCADE, items, chance)[order], clicks_on(CASCADE, items[order], chance[order])
    )
    for fit in (fit_position, fit_cascade):
        np.testing.assert_allclose(
            fit(items, clicks).attraction, fit(items[order], clicks[order]).attraction, rtol=1e-6
        )


def test_readier_people_click_more_and_never_more_than_surely() -> None:
    items = np.tile([11, 10, 9], (20_000, 1))
    chance = mixed(np.arange(20_000, dtype=np.uint64))
    sure = clicks_on(POSITION, items, chance, factor=100.0)
    assert sure[:, 0].all() and sure[:, 1].mean() == pytest.approx(0.8, abs=0.01)
    factors = np.repeat([0.5, 1.5], 10_000)
    some = clicks_on(POSITION, items, chance, factor=factors)[:, 0]
    assert some[10_000:].mean() / some[:10_000].mean() == pytest.approx(3, rel=0.05)


def test_nothing_shown_is_told() -> None:
    with pytest.raises(BadData, match="no item was shown"):
        fit_position(np.full((2, 3), -1), np.zeros((2, 3)))
    with pytest.raises(BadData, match="expected the same"):
        fit_cascade(np.zeros((2, 3), dtype=np.int64), np.zeros((2, 2)))
