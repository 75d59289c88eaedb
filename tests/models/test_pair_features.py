"""Features of user and item, computed by hand on a few events."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, with_signals

from persona_cli.models.base import Histories, Training
from persona_cli.models.interactions import rows_for, times_for
from persona_cli.models.pair_features import FEATURES, Candidates, item_table, last_items, pair_features
from persona_cli.models.preparing import prepare

NOW = datetime(2026, 6, 1, tzinfo=UTC)
# (user, item, days before NOW)
EVENTS = [("a", "x", 2.5), ("a", "y", 40.5), ("b", "x", 3.5), ("b", "z", 100.5), ("c", "x", 200.5), ("c", "w", 1.5)]


def told() -> Training:
    rows = [(user, item, NOW - timedelta(days=days)) for user, item, days in EVENTS]
    events = with_signals(rows)
    catalogue = pl.DataFrame(
        {
            "item_id": ["w", "x", "y", "z"],
            "category": ["red", "red", "blue", "blue"],
            "tags": [["s", "t"], ["s"], ["t"], None],
            "price": [1.0, 3.0, None, 7.0],
            "published_at": [NOW - timedelta(days=10), None, None, None],
        },
        schema_overrides={"published_at": pl.Datetime("us", "UTC"), "tags": pl.List(pl.String)},
    )
    return prepare(events, DEFAULTS.with_flags({"signals.half_life_days": 0.0}), NOW, catalogue=catalogue, ordered=True)


def features(user: int = 0, recent: int = 1) -> dict[str, dict[str, float]]:
    """Item → feature → value, for all four items as candidates of one user."""
    training = told()
    items = pl.Series("item_id", ["w", "x", "y", "z"])
    table = item_table(training, items, np.array([0.2, 0.4, 0.1, 0.1], dtype=np.float32))
    made = training.interactions
    context = pl.DataFrame({"device": [None] * 3, "country": [None] * 3})
    who = Histories(rows_for(made, items, DEFAULTS), made.events, context, times_for(made, items))
    who = who.block(user, user + 1)
    candidates = Candidates(
        np.array([[2, 0, 3, 1]]),
        np.array([[True, True, True, True]]),
        np.array([[0.5, 2.0, 1.0, 0.1]], dtype=np.float32),
        np.full((1, 4), np.nan, dtype=np.float32),
        np.array([[0.1, 0.4, 0.1, 0.4]], dtype=np.float32),
    )
    now = np.array([int(NOW.timestamp() * 1e6)])
    rows = pair_features(table, candidates, who, last_items(who, recent), now)
    return {
        items[int(place)]: dict(zip(FEATURES, map(float, row), strict=True))
        for place, row in zip(candidates.places[0], rows, strict=True)
    }


def test_what_the_models_said() -> None:
    found = features()
    assert [found[item]["base_rank"] for item in "wzyx"] == [0, 1, 2, 3]
    assert found["w"]["base"] == 2.0
    assert found["y"]["popular"] == pytest.approx(0.25)
    assert math.isnan(found["w"]["recent"]) and math.isnan(found["w"]["recent_rank"])
    assert found["w"]["context"] == pytest.approx(math.log(2), abs=1e-5)  # 0.4 in the context, 0.2 overall


def test_how_often_and_how_long_ago() -> None:
    found = features()
    # 6 events of 4 items: 1.5 an item.
    assert found["x"]["count"] == pytest.approx(math.log(3.5 / 2.0))
    # In the last 7 days: x twice, w once.
    assert found["x"]["count_7"] == pytest.approx(math.log(2.5 / 1.25))
    assert found["z"]["count_90"] == pytest.approx(math.log(0.5 / 1.5))
    assert found["y"]["trend"] == pytest.approx(math.log(0.5 / 1.25) - math.log(1.5 / 1.5))
    assert found["w"]["age"] == pytest.approx(math.log(11))  # out 10 days before
    assert found["x"]["age"] == pytest.approx(math.log1p(200))  # first met then
    assert found["x"]["silence"] == pytest.approx(math.log1p(2))


def test_what_is_known_of_the_user() -> None:
    found = features()["z"]
    assert found["user_items"] == pytest.approx(math.log(3))
    assert found["user_silence"] == pytest.approx(math.log1p(2.5))
    assert found["user_span"] == pytest.approx(math.log1p(38))
    taste = (math.log(3.5 / 2.0) + math.log(1.5 / 2.0)) / 2  # x and y
    assert found["user_taste"] == pytest.approx(taste)
    assert found["taste_gap"] == pytest.approx(math.log(1.5 / 2.0) - taste)


def test_how_the_item_fits_the_history() -> None:
    found = features()
    # The history is x (red, s, price 3) and y (blue, t, no price); the last item is x.
    assert [found[item]["category"] for item in "wz"] == [0.5, 0.5]
    assert [found[item]["category_recent"] for item in "wz"] == [1.0, 0.0]
    assert found["w"]["tags"] == pytest.approx(1.0)  # s and t, both as rare
    assert found["x"]["tags"] == pytest.approx(math.sqrt(0.5))
    assert found["z"]["tags"] == 0.0
    assert found["z"]["price_gap"] == pytest.approx(math.log(8) - math.log(4))
    assert math.isnan(found["y"]["price"])
    assert [found[item]["repeated"] for item in "wxyz"] == [0, 1, 1, 0]
    assert found["y"]["repeat_silence"] == pytest.approx(math.log1p(40.5))
    assert math.isnan(found["w"]["repeat_silence"])
