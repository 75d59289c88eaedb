"""The online section: group means by hand, Welch's interval, and how many users are needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy import stats

from persona_cli.evaluation import online

START = datetime(2026, 1, 1, tzinfo=UTC)


def group_events(n_ours: int, n_theirs: int) -> tuple[pl.DataFrame, pl.Series]:
    """Personalised users: 3 clicks on two days, every second one buys; held-out users: 1 click."""
    rows: list[tuple[str, str, float, int]] = []
    for n in range(n_ours):
        rows += [(f"p{n:03d}", "click", hours, 1000) for hours in (0.0, 1.0, 30.0)]
        rows += [(f"p{n:03d}", "purchase", 31.0, 5000)] if n % 2 else []
    rows += [(f"h{n:03d}", "click", 0.0, 1000) for n in range(n_theirs)]
    events = pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "event_type": [row[1] for row in rows],
            "timestamp": [START + timedelta(hours=row[2]) for row in rows],
            "strength": [row[3] for row in rows],
        }
    )
    return events, events["user_id"].str.starts_with("h")


def test_groups_are_compared_per_user() -> None:
    section = online.compared(*group_events(40, 20), share=0.05)
    assert section["users"] == {"personalised": 40, "holdout": 20}
    assert section["value_events"] == ["purchase"]
    measures = section["measures"]
    assert measures["events"]["personalised"] == 3.5 and measures["events"]["holdout"] == 1.0
    assert measures["active_days"]["difference"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert measures["converted"]["personalised"] == 0.5 and measures["converted"]["holdout"] == 0.0
    assert section["conversion"] == pytest.approx(20 / 60)
    assert section["more_users_needed"] == section["users_needed"] - 60
    assert "everything that both groups did" in section["note"]


def test_small_groups_are_not_compared() -> None:
    section = online.compared(*group_events(40, 19), share=0.05)
    assert not section["compared"] and "measures" not in section
    assert "19 users in the smaller group" in section["why"] and "more users needed" in section["why"]


def test_welch_agrees_with_scipy() -> None:
    draws = np.random.default_rng(7)
    ours, theirs = draws.normal(1.0, 3.0, size=80), draws.normal(0.5, 1.0, size=25)
    interval = online.welch(ours, theirs)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert interval.value == pytest.approx(ours.mean() - theirs.mean())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_users_needed_detect_the_stated_change_with_the_stated_power() -> None:
    rate, share = 0.2, 0.1
    needed = online.users_needed(rate, share)
    assert needed is not None
    # Normal approximation of the power at that size: by the definition 80 %.
    error = np.sqrt(rate * (1 - rate) * (1 / (share * needed) + 1 / ((1 - share) * needed)))
    power = stats.norm.sf(stats.norm.ppf(0.975) - 0.1 * rate / error)
    assert power == pytest.approx(0.8, abs=1e-4)
    assert online.users_needed(0.02, share) > needed  # type: ignore[operator]
    assert online.users_needed(0.0, share) is None and online.users_needed(1.0, share) is None


def test_the_strongest_types_are_what_counts() -> None:
    events = pl.DataFrame({"event_type": ["b", "a", "c", "d"], "strength": [3000, 3000, 100, -5000]})
    assert online.strongest_types(events) == ("a", "b")
    assert online.strongest_types(events.filter(pl.col("strength") < 0)) == ()
