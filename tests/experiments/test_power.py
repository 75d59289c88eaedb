"""Sizes, sample ratio mismatch, many tests at once and segments, against statsmodels, scipy and hand-worked figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from persona_cli.errors import UsageError
from persona_cli.experiments import power


def test_sizes_of_proportions() -> None:
    """20 to 25 %, 10 to 12 % and 5 to 5.5 %, 80 % power at 5 %, by the arcsine."""
    found = power.arcsine_size([0.2, 0.1, 0.05], [0.25, 0.12, 0.055])
    assert found == pytest.approx([1091.90, 3834.60, 31217.42], abs=0.005)
    oracle = pytest.importorskip("statsmodels.stats.power").NormalIndPower()
    effect = pytest.importorskip("statsmodels.stats.proportion").proportion_effectsize(0.25, 0.2)
    assert found[0] == pytest.approx(oracle.solve_power(effect, power=0.8, alpha=0.05), rel=1e-6)


def test_sizes_of_means() -> None:
    oracle = pytest.importorskip("statsmodels.stats.power").NormalIndPower()
    for ratio in (1.0, 3.0):
        n = oracle.solve_power(0.1 / 2.0, power=0.9, alpha=0.01, ratio=ratio)
        assert float(power.size(4.0, 0.1, 0.01, 0.9, ratio=ratio)) == pytest.approx(n, rel=1e-6)
        assert float(power.detectable(4.0, n, n * ratio, 0.01, 0.9)) == pytest.approx(0.1, rel=1e-6)
        assert float(power.power_of(4.0, 0.1, n, n * ratio, 0.01)) == pytest.approx(0.9, rel=1e-6)
    assert float(power.power_of(1.0, 0.0, 50, 50)) == pytest.approx(0.05)


def test_mismatch_of_shares() -> None:
    """Cookie Cats is to be warned of, the example of Kohavi, Tang and Xu 2020 to be blocked."""
    cats = power.srm([44700, 45489])
    assert (float(cats.statistic), float(cats.p)) == pytest.approx((6.9024, 0.00861), abs=5e-5)
    assert power.SRM_BLOCKS < cats.p < power.SRM_WARNS
    broken = power.srm([821588, 815482])
    assert float(broken.p) == pytest.approx(1.82e-6, rel=2e-3)
    assert broken.p < power.SRM_BLOCKS
    three = power.srm([[100, 210, 290], [1, 2, 3]], [1, 2, 3])
    assert three.p[0] == pytest.approx(stats.chisquare([100, 210, 290], [100, 200, 300]).pvalue)
    assert three.p[1] == 1.0


def test_sequential_mismatch_is_a_bayes_factor() -> None:
    """One user after another the same product of predictive chances over planned ones (Polya's urn)."""
    arms, shares, strength = [0, 1, 1, 2, 0, 0, 2], np.array([0.5, 0.3, 0.2]), 10.0
    seen, factor = np.zeros(3), 1.0
    for arm in arms:
        factor *= (strength * shares[arm] + seen[arm]) / (strength + seen.sum()) / shares[arm]
        seen[arm] += 1
    found = power.sequential_srm(seen, shares, strength)
    assert float(found.statistic) == pytest.approx(factor)
    assert float(found.p) == pytest.approx(min(1, 1 / factor))


def test_sequential_mismatch_looked_at_always() -> None:
    rng = np.random.default_rng(2)
    treated = np.cumsum(rng.random((300, 3_000)) < 0.5, axis=1)
    everyone = np.broadcast_to(np.arange(1, 3_001), treated.shape)
    p = power.sequential_srm(np.stack([treated, everyone - treated], -1)).p
    assert (p.min(axis=1) < 0.05).mean() <= 0.05
    skewed = np.array([30_900, 29_100])
    assert power.sequential_srm(skewed).p < power.SRM_BLOCKS


def test_corrections_are_statsmodels() -> None:
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(5)
    for m in (1, 2, 5, 5, 12, 12, 40):
        p = np.round(rng.random(m) ** 4, 3)  # with ties, and zeros
        for method, name in (("holm", "holm"), ("benjamini-hochberg", "fdr_bh")):
            reject, corrected, *_ = multiple.multipletests(p, 0.04999, name)
            found = power.correct(p, 0.04999, method)
            assert found.p == pytest.approx(corrected, rel=1e-12)
            assert found.reject.tolist() == reject.tolist()


def test_the_chain_of_corrections_is_told() -> None:
    found = power.correct([0.01, 0.04, 0.03, np.nan], names=("ctr", "arpu", "nps", "adoption"))
    assert found.p[:3].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(found.p[3])
    assert found.reject.tolist() == [True, False, False, False]
    assert found.chain == (
        "Holm over 3 tests: the chance of any false finding is at most 0.05",
        "ctr: p 0.01 x 3 -> 0.03",
        "nps: p 0.03 x 2 -> 0.06",
        "arpu: p 0.04 x 1 -> 0.06",
    )


def test_segments_are_drawn_to_their_mean() -> None:
    """Equal errors: Paule and Mandel's spread is the variance between segments less the error's."""
    found = power.shrink([1.0, 2.0, 6.0], [1.0, 1.0, 1.0])
    assert found.mean == pytest.approx(3.0)
    assert found.spread**2 == pytest.approx(7.0 - 1.0)
    assert found.effect == pytest.approx(3 + 6 / 7 * np.array([-2.0, -1.0, 3.0]))
    assert found.p == pytest.approx(stats.chi2.sf(14.0, 2))
    same = power.shrink([1.0, 1.1, 0.9], [1.0, 0.5, 1.0])
    assert same.spread == 0
    assert same.effect == pytest.approx(np.full(3, same.mean))
    effects, errors = np.array([0.3, -0.2, 0.9, 0.4]), np.array([0.1, 0.2, 0.15, 0.3])
    uneven = power.shrink(effects, errors)
    weight = 1 / (errors**2 + uneven.spread**2)
    assert uneven.mean == pytest.approx((weight * effects).sum() / weight.sum())
    assert (weight * (effects - uneven.mean) ** 2).sum() == pytest.approx(
        3.0
    )  # generalised Q is its degrees of freedom


def test_shrunk_segments_err_less_and_cover() -> None:
    rng = np.random.default_rng(3)
    hit, raw, drawn = [], 0.0, 0.0
    for _ in range(300):
        truth = rng.normal(0.02, 0.01, 12)
        effects = truth + rng.normal(0, 0.02, 12)
        found = power.shrink(effects, np.full(12, 0.02))
        hit.append(((found.low <= truth) & (truth <= found.high)).mean())
        raw, drawn = raw + ((effects - truth) ** 2).sum(), drawn + ((found.effect - truth) ** 2).sum()
    assert drawn < 0.5 * raw
    assert np.mean(hit) > 0.85


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: power.size(1.0, 0.1, power=1.5),
        lambda: power.arcsine_size(20, 25),
        lambda: power.srm([100]),
        lambda: power.srm([100, 100], [0.5, 0.3, 0.2]),
        lambda: power.correct([0.1], method="bonferoni"),
        lambda: power.shrink([1.0], [1.0]),
    ],
)
def test_wrong_questions_are_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]
