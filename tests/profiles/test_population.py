"""What one user is measured against is what folding everybody gives, also where profiles lie in several files."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from scipy.special import betainc
from stored import add, at

from persona_cli.profiles import features
from persona_cli.profiles import fold as folding
from persona_cli.profiles.features import below_half
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.population import past, population_of
from persona_cli.profiles.sync import sync
from persona_cli.workspace.home import Home


def told(found: features.Population) -> tuple[datetime, dict[str, list[int]], int]:
    return found.moment, {name: counts.tolist() for name, counts in found.use.items()}, found.features


@pytest.mark.parametrize("used", [False, True])
def test_the_population_is_that_of_everybodys_fold(home: Home, used: bool) -> None:
    rng = np.random.default_rng(4)
    for days in (30, 60, 40):  # the last come late: sessions join over files, and some users are in one file only
        events = []
        for _ in range(200):
            kind = "feature_use" if used and rng.random() < 0.3 else "view"
            event = {"user_id": f"u{rng.integers(40)}", "event_type": kind, "target": f"f{rng.integers(4)}"}
            if rng.random() < 0.2:
                event["session_id"] = f"s{rng.integers(30)}"
            events.append(event | {"timestamp": at(float(rng.random() * days), minutes=float(rng.integers(9)))})
        add(home, [event | {"event_id": f"{days}-{n}"} for n, event in enumerate(events)])
        sync(home)
    rows = profile_rows(home, ("user_id", "last_seen", *features.USE))
    assert told(population_of(home)) == told(features.population(rows["last_seen"].max(), rows))  # type: ignore[arg-type]
    for moment in (at(0.5), at(20), at(41.25), at(70)):
        parts = [folding.NOBODY, *(people for people, _ in past(home, moment, None))]
        expected = features.population(moment, pl.concat(parts))
        assert told(population_of(home, moment)) == told(expected)


def test_nobody_is_there_yet(home: Home) -> None:
    assert population_of(home).features == 0
    assert told(population_of(home, at(3)))[1] == {"days": [], "sessions": [], "features": []}


def test_the_beta_function_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for largest in (2, 60, 5_000, 200_000):
        a, b = (1 + rng.random((2, 2_000)) * largest).tolist()
        b[::3] = (np.array(a[::3]) + rng.normal(0, 1, len(a[::3])) * np.sqrt(a[::3])).clip(1).tolist()
        np.testing.assert_allclose(below_half(np.array(a), np.array(b)), betainc(a, b, 0.5), rtol=0, atol=1e-8)
    assert below_half(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 1.0])).tolist() == pytest.approx([0.5, 0.75, 0.25])
    assert not len(below_half(np.zeros(0), np.zeros(0)))
