"""Computed features against values worked out by hand, and what they do not depend on."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from persona_cli.profiles import features
from persona_cli.profiles.features import ahead, computed, population, preferred, usual_hours
from persona_cli.profiles.fold import NEEDED, fold_users
from persona_cli.profiles.folds.part import FoldRules

START = datetime(2026, 3, 1, tzinfo=UTC)
RULES = FoldRules(30 * 60_000_000)
SCHEMA = {"timestamp": pl.Datetime("us", "UTC"), "value": pl.Float64}


def event(user: str, days: float, type_: str = "view", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "timestamp": START + timedelta(days=days), "event_type": type_, **more}


def folded(rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = {name: SCHEMA.get(name, pl.String) for name in NEEDED}
    return fold_users(pl.DataFrame([{name: row.get(name) for name in NEEDED} for row in rows], schema=schema), RULES)


def of(rows: list[dict[str, Any]], moment: float = 30) -> dict[str, dict[str, Any]]:
    table = folded(rows)
    found = computed(table, population(START + timedelta(days=moment), table))
    return {user: found.row(n, named=True) for n, user in enumerate(table["user_id"])}


def test_maturity_is_the_mean_of_three_saturating_counts() -> None:
    # 30 days, 2 sessions, 2 event types and 1 feature
    rows = [event("u", 0), event("u", 30, "feature_use", target="export")]
    assert of(rows)["u"]["maturity"] == pytest.approx((30 / 60 + 2 / 12 + 3 / 8) / 3, abs=1e-6)
    assert of([event("u", 0)])["u"]["maturity"] == pytest.approx((0 + 1 / 11 + 1 / 6) / 3, abs=1e-6)


def test_days_since_what_happened_and_nothing_for_what_did_not() -> None:
    rows = [
        event("u", 0),
        event("u", 10, "purchase"),
        event("u", 12.5, "search", query="tea"),
        event("u", 20, "message_open", target="mail"),
    ]
    found = of(rows)["u"]
    since = {name: found[f"days_since_{name}"] for name in ("first", "last", "purchase", "search", "message")}
    assert since == {"first": 30, "last": 10, "purchase": 20, "search": 17.5, "message": 10}
    assert found["days_since_feature_use"] is None
    assert found["purchases"] == 1 and of([event("u", 0)])["u"]["purchases"] == 0


def test_power_is_the_mean_rank_among_those_who_were_there_lately() -> None:
    # user n of 20 comes on n days of the window; one was there long ago only, and nobody uses a feature
    rows = [event(f"u{n:02d}", 29 - day) for n in range(1, 21) for day in range(n)] + [event("old", -40)]
    found = of(rows)
    assert found["old"]["power_user_score"] == 0
    assert found["u01"]["power_user_score"] == pytest.approx(0.5 / 20)
    assert found["u20"]["power_user_score"] == pytest.approx(19.5 / 20)
    assert (found["u07"]["active_days"], found["old"]["active_days"]) == (7, 0)
    # one more who uses a feature: a third rank, where 20 share 10/21 and one has 20.5/21
    used = of([*rows, event("u21", 29, "feature_use", target="export")])
    assert used["u20"]["power_user_score"] == pytest.approx((2 * 20.5 / 21 + 10 / 21) / 3, abs=1e-6)


def test_power_is_unknown_among_fewer_than_twenty() -> None:
    found = of([event(f"u{n:02d}", 29) for n in range(19)])
    assert {one["power_user_score"] for one in found.values()} == {None}


def test_breadth_is_the_share_of_features_that_anybody_uses() -> None:
    rows = [event("a", 1, "feature_use", target=name) for name in ("x", "y", "y")]
    rows += [event("b", 1, "feature_use", target="z"), event("c", 1)]
    found = of(rows)
    assert [found[user]["feature_breadth"] for user in "abc"] == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-6)
    assert of([event("c", 1)])["c"]["feature_breadth"] is None


def test_the_usual_hour_goes_round_midnight() -> None:
    hours = [0] * 24
    hours[23] = hours[0] = 5
    hour, concentration = usual_hours(pl.Series([hours], dtype=pl.List(pl.Int32)), pl.Series([10]).to_numpy())
    assert concentration[0] == pytest.approx(math.cos(math.pi / 24), abs=1e-6)
    assert hour[0] == 0


def test_no_hour_is_usual_without_evidence() -> None:
    one, even, opposite = [0] * 24, [2] * 24, [0] * 24
    one[9] = 4
    opposite[3] = opposite[15] = 8
    lists = pl.Series([one, one, even, opposite], dtype=pl.List(pl.Int32))
    hour, concentration = usual_hours(lists, pl.Series([2, 3, 40, 40]).to_numpy())
    assert hour.to_list() == [None, 9, None, None]  # 2 sessions are too few, 3 at one hour are enough
    assert concentration.to_list() == pytest.approx([1, 1, 0, 0])


def test_a_channel_is_usual_from_three_messages_on_and_if_it_leads() -> None:
    def opened(user: str, *channels: str) -> list[dict[str, Any]]:
        return [event(user, n, "message_open", target=name) for n, name in enumerate(channels)]

    rows = [*opened("a", "mail", "mail", "mail", "push"), *opened("b", "mail", "mail"), event("d", 1)]
    found = of([*rows, *opened("c", "mail", "mail", "push", "push")])
    assert [found[user]["usual_channel"] for user in "abcd"] == ["mail", None, None, None]
    # P(p > 1/2) of Beta(4, 2): 1 - (C(5,4) + C(5,5)) / 2^5
    assert found["a"]["usual_channel_certainty"] == pytest.approx(1 - 6 / 32)


def test_the_chance_of_being_ahead() -> None:
    first, second = pl.Series([1, 5, 5, 3]).to_numpy(), pl.Series([0, 0, 5, 1]).to_numpy()
    assert ahead(first, second) == pytest.approx([3 / 4, 1 - 1 / 64, 1 / 2, 1 - 6 / 32])


def test_a_preferred_category_with_its_share_and_certainty() -> None:
    strengths = pl.DataFrame(
        [
            ("u", "tea", 6.0, 3.0),
            ("u", "cups", 2.0, 1.0),
            ("u", "mugs", -3.0, 0.0),
            ("v", "b", 1.0, 1.0),
            ("v", "a", 1.0, 1.0),
        ],
        schema=["user_id", "category", "strength", "evidence"],
        orient="row",
    )
    found = {row["user_id"]: row for row in preferred(strengths, 10).iter_rows(named=True)}
    # 4 events, of which 3 speak for tea; 5 more are spread over 10 categories
    assert found["u"]["preferred_category"] == "tea"
    assert found["u"]["preferred_category_share"] == pytest.approx((3 + 0.5) / 9, abs=1e-6)
    assert found["u"]["preferred_category_certainty"] == pytest.approx(1 - 6 / 32)
    assert (found["v"]["preferred_category"], found["v"]["preferred_category_certainty"]) == ("a", 0.5)


def test_no_order_of_events_or_users_matters() -> None:
    dice = random.Random(5)
    types = ("view", "purchase", "feature_use", "message_open", "search")
    rows = [
        event(f"u{dice.randrange(30)}", dice.random() * 30, dice.choice(types), target=dice.choice("xyz"))
        for _ in range(400)
    ]
    first = of(rows)
    dice.shuffle(rows)
    assert of(rows) == first
    table = folded(rows)
    mixed = table.sample(fraction=1.0, shuffle=True, seed=1)
    among = population(START + timedelta(days=30), mixed)
    assert (
        computed(mixed, among)
        .with_columns(mixed["user_id"])
        .sort("user_id")
        .drop("user_id")
        .equals(computed(table, population(START + timedelta(days=30), table)))
    )


def test_every_feature_has_its_formula_in_the_documentation() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    assert [name for name in (*features.NAMES, *features.PREFERRED) if f"`{name}`" not in text] == []
