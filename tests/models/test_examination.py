"""Position curves: the exponent that clicks were drawn by is found again, whatever was shown on top."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from persona_cli.models.examination import looks, position_exponent


def logged(exponent: float, n: int = 60_000, seed: int = 0) -> pl.DataFrame:
    """Impressions and clicks; the better an item, the higher it is shown: the plain rate by position misleads."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 50, n)
    position = np.clip(1 + items // 6 + rng.integers(-4, 5, n), 1, 10)
    appeal = 0.5 * np.exp(-items / 15)
    clicked = rng.random(n) < appeal * position ** -float(exponent)
    shown = pl.DataFrame({"item_id": [f"i{one}" for one in items], "position": position})
    clicks = shown.filter(pl.Series(clicked)).with_columns(event_type=pl.lit("click"), strength=pl.lit(1000))
    return pl.concat([shown.with_columns(event_type=pl.lit("impression"), strength=pl.lit(0)), clicks])


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_exponent_that_clicks_were_drawn_by(exponent: float) -> None:
    found = position_exponent(logged(exponent))
    assert found == pytest.approx(exponent, abs=0.1)


def test_the_order_of_rows_does_not_matter() -> None:
    events = logged(0.8, 10_000)
    assert position_exponent(events.sample(fraction=1, shuffle=True, seed=1)) == position_exponent(events)


def test_too_little_says_nothing() -> None:
    events = logged(1.0, 300)
    assert position_exponent(events) is None
    assert position_exponent(events.drop("position")) is None
    one_place = logged(1.0).with_columns(position=pl.lit(3))
    assert position_exponent(one_place) is None


def test_a_click_far_down_stands_for_several() -> None:
    told = pl.DataFrame({"position": [1, 4, 400, None, 0]}, schema={"position": pl.Int64})
    assert told.select(looks(pl.col("position"), 0.5)).to_series().to_list() == [1.0, 2.0, 10.0, 1.0, 1.0]
