"""Several cuts as one figure, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from persona_cli.errors import BadData
from persona_cli.evaluation.rolling import pooled, trend


@pytest.mark.parametrize("n", [3, 4, 9])
def test_the_trend_is_the_regression_of_the_textbook(n: int) -> None:
    values = np.random.default_rng(n).normal(0.2, 0.05, n) + 0.01 * np.arange(n)
    found = trend(values.tolist())
    oracle = stats.linregress(np.arange(n), values)
    reach = stats.t.ppf(0.975, n - 2) * oracle.stderr
    assert found is not None
    assert found == pytest.approx((oracle.slope, oracle.slope - reach, oracle.slope + reach))


def test_a_line_is_sure_and_two_cuts_have_no_trend() -> None:
    found = trend([0.1, 0.2, 0.3, 0.4])
    assert found is not None and found == pytest.approx((0.1, 0.1, 0.1))
    assert trend([0.1, 0.2]) is None and trend([]) is None
    assert trend([0.1, None, 0.3, 0.4]) is None
    with pytest.raises(BadData, match="NaN"):
        trend([0.1, float("nan"), 0.3])


def test_false_alarms_of_the_trend_are_as_rare_as_stated() -> None:
    draws = np.random.default_rng(1).normal(0.2, 0.02, (4000, 3))
    alarms = [not trend_holds_zero(row.tolist()) for row in draws]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.014)


def trend_holds_zero(means: list[float]) -> bool:
    found = trend(means)
    assert found is not None and found.low is not None and found.high is not None
    return found.low <= 0 <= found.high


def test_a_user_counts_once_however_often_they_were_asked() -> None:
    one = pl.DataFrame({"user_id": ["a", "b"], "x": [0.0, 1.0], "y": [0.5, 0.5]})
    two = pl.DataFrame({"user_id": ["c", "b"], "y": [0.0, 1.0], "x": [0.25, 0.0]})
    both = pooled([one, two])
    assert both.rows() == [("a", 0.0, 0.5), ("b", 0.5, 0.75), ("c", 0.25, 0.0)]
    assert pooled([one.reverse(), two.reverse()]).equals(both)
    with pytest.raises(BadData, match="different figures"):
        pooled([one, two.drop("x")])
    with pytest.raises(BadData, match="no cuts"):
        pooled([])
