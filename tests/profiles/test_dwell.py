"""Dwell on simulated mixtures of reading and idle tabs, whose truth is known; chances by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from persona_cli.profiles.dwell import DwellFit, fit_dwell, fit_targets, probabilities, resolution_of
from persona_cli.profiles.mixture import Mixture

GAP = 1800.0


def drawn(n: int, idle: float, seed: int, medians: tuple[float, float] = (40, 480)) -> tuple[np.ndarray, np.ndarray]:
    """Whole seconds up to the gap, and which of them were idle: engaged sd 0.8, idle sd 0.9 of logs."""
    rng = np.random.default_rng(seed)
    idles = rng.random(3 * n) < idle
    seconds = np.exp(
        np.where(idles, rng.normal(np.log(medians[1]), 0.9, 3 * n), rng.normal(np.log(medians[0]), 0.8, 3 * n))
    )
    seen = (seconds <= GAP) & (np.rint(seconds) > 0)
    return np.rint(seconds[seen][:n]), idles[seen][:n]


def by_truth(seconds: np.ndarray, idle: float, medians: tuple[float, float]) -> np.ndarray:
    """The true chance of idle, up to a monotone map."""
    z = np.log(seconds)
    of_idle = np.log(idle) - np.log(0.9) - 0.5 * ((z - np.log(medians[1])) / 0.9) ** 2
    of_reading = np.log(1 - idle) - np.log(0.8) - 0.5 * ((z - np.log(medians[0])) / 0.8) ** 2
    return of_idle - of_reading


@pytest.mark.parametrize("idle", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_the_engaged_share_is_recovered_within_two_points(idle: float) -> None:
    seconds, idles = drawn(20_000, idle, seed=1)
    fit = fit_dwell(seconds, GAP)
    assert fit.roles == ("engaged", "idle")
    assert fit.share("engaged") == pytest.approx(1 - idles.mean(), abs=0.02)
    assert fit.median("engaged") == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize("idle", [0.1, 0.3, 0.6])
def test_idle_tabs_are_told_apart_where_the_truth_separates_at_95(idle: float) -> None:
    # With so much overlap the likelihood itself leaves several points of doubt about 20,000 events.
    medians = (40.0, 310.0)
    seconds, idles = drawn(100_000, idle, seed=12, medians=medians)
    best = roc_auc_score(idles, by_truth(seconds, idle, medians))
    assert 0.945 < best < 0.957
    fit = fit_dwell(seconds, GAP)
    found = roc_auc_score(idles, probabilities(fit, seconds)["idle"])
    assert found >= 0.9
    assert found == pytest.approx(best, abs=0.002)
    assert fit.share("engaged") == pytest.approx(1 - idles.mean(), abs=0.02)


def test_chances_are_calibrated() -> None:
    seconds, idles = drawn(20_000, 0.4, seed=3)
    idle = probabilities(fit_dwell(seconds, GAP), seconds)["idle"]
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (idle >= low) & (idle < low + 0.25)
        assert idle[chosen].mean() == pytest.approx(idles[chosen].mean(), abs=0.04)


def test_a_bounce_is_a_component_of_its_own_where_there_is_one() -> None:
    rng = np.random.default_rng(4)
    seconds, _ = drawn(10_000, 0.3, seed=4)
    with_bounces = np.concatenate([seconds, np.maximum(np.rint(np.exp(rng.normal(np.log(3), 0.4, 5000))), 1)])
    fit = fit_dwell(with_bounces, GAP)
    assert fit.roles == ("bounce", "engaged", "idle")
    assert fit.share("bounce") == pytest.approx(1 / 3, abs=0.03)
    assert np.argmin(fit.bic) == 2
    chance = probabilities(fit, np.array([2.0, 40.0, 1500.0]))
    assert [max(chance, key=lambda role: chance[role][n]) for n in range(3)] == ["bounce", "engaged", "idle"]


def test_one_kind_of_reading_has_no_idle() -> None:
    rng = np.random.default_rng(5)
    fit = fit_dwell(np.rint(np.exp(rng.normal(np.log(60), 0.7, 3000))))
    assert (fit.roles, fit.idle_from(), fit.idle_time) == (("engaged",), None, 0.0)


@pytest.mark.parametrize(("step", "found"), [(0.001, 0.001), (0.1, 0.1), (1.0, 1.0), (15.0, 15.0), (60.0, 60.0)])
def test_the_step_of_recorded_seconds(step: float, found: float) -> None:
    seconds, _ = drawn(2000, 0.3, seed=6)
    rng = np.random.default_rng(6)
    exact = seconds + rng.random(len(seconds)) - 0.5
    assert resolution_of(np.maximum(np.rint(exact / step), 1) * step) == found


FIT = DwellFit(
    Mixture(np.array([0.2, 0.5, 0.3]), np.log([3.0, 40.0, 500.0]), np.array([0.5, 0.8, 1.4])),
    ("bounce", "engaged", "idle"),
    1.0,
    GAP,
    (0.2, 0.5, 0.3),
    (3.0, 2.0, 1.0),
    1000,
    0.5,
    ((0.5, 1.5, 10), (1.5, 1800.0, 990)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=6, max_size=6), st.lists(st.floats(0.05, 3), min_size=3, max_size=3))
def test_idle_only_rises_and_a_bounce_only_falls_with_time(drawn: list[float], sds: list[float]) -> None:
    weights = np.array(drawn[:3]) / sum(drawn[:3])
    fit = DwellFit(**{**vars(FIT), "mixture": Mixture(weights, np.cumsum(drawn[3:]), np.array(sds))})
    chance = probabilities(fit, np.geomspace(0.5, 1e5, 400))
    assert np.allclose(sum(chance.values()), 1)
    assert (np.diff(chance["idle"]) >= -1e-9).all()
    among = chance["bounce"] / np.maximum(chance["bounce"] + chance["engaged"], 1e-300)
    assert (np.diff(among[chance["idle"] < 1 - 1e-9]) <= 1e-9).all()


def test_chance_by_hand_and_shares_where_seconds_say_nothing() -> None:
    two = DwellFit(
        **{
            **vars(FIT),
            "mixture": Mixture(np.array([0.5, 0.5]), np.array([2.0, 6.0]), np.array([1.0, 1.0])),
            "roles": ("engaged", "idle"),
            "shares": (0.7, 0.3),
        }
    )
    # Equal sds: log-odds are 4 z - 16.
    found = probabilities(two, np.array([np.exp(4), np.exp(3), np.nan, -1.0]))["engaged"]
    assert found == pytest.approx([0.5, 1 / (1 + np.exp(-4)), 0.7, 0.7])


def test_said_and_read_again_is_the_same() -> None:
    again = DwellFit.of(FIT.said())
    assert again.said() == FIT.said()
    assert again.roles == FIT.roles and again.high == GAP


def test_targets_are_drawn_towards_all_and_told_apart_by_many_events() -> None:
    long, _ = drawn(3000, 0.3, seed=7, medians=(60, 900))
    short, _ = drawn(3000, 0.3, seed=8, medians=(30, 900))
    few = long[:60]
    parts = {"long": long, "short": short, "few": few}
    events = pl.concat(
        [
            pl.DataFrame({"seconds": seconds}).with_columns(
                kind=pl.lit("item"), target=pl.lit(name), user_id=pl.int_range(pl.len()).cast(pl.String)
            )
            for name, seconds in parts.items()
        ]
    )
    fit = fit_dwell(events["seconds"].to_numpy(), GAP)
    rows = {row["target"]: row for row in fit_targets(fit, events, prior=100).to_dicts()}
    engaged = fit.roles.index("engaged")
    of = {name: np.exp(row["means"][engaged]) for name, row in rows.items()}
    overall = fit.median("engaged")
    assert overall is not None
    assert of["short"] < overall < of["few"] < of["long"]
    assert (of["short"], of["long"]) == (pytest.approx(30, rel=0.1), pytest.approx(60, rel=0.1))
    assert (rows["few"]["events"], rows["few"]["users"]) == (60, 60)
    assert fit_targets(fit, events[::-1], prior=100).equals(fit_targets(fit, events, prior=100))


def test_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="two different"):
        fit_dwell(np.full(100, 3.0))
    assert (
        fit_targets(
            FIT,
            pl.DataFrame(schema={"kind": pl.String, "target": pl.String, "user_id": pl.String, "seconds": pl.Float64}),
            10,
        ).height
        == 0
    )
