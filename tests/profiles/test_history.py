"""History rows: sums that add up over any split of the events, and how they fade."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import oracle
import polars as pl
import pytest
import strategies
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from stored import Event, add, at, frame

from persona_cli.profiles.history import decayed, fold_history, history, merged, negative, signal_events, summed
from persona_cli.profiles.signals import with_signals
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import load

DEFAULTS = load(None, {})


def folded(events: Sequence[Event]) -> pl.DataFrame:
    keyed = frame(events).lazy().with_columns(user_id=pl.coalesce("user_id", "anon_id"))
    return fold_history(with_signals(keyed, DEFAULTS))


def expected(events: Sequence[Event]) -> pl.DataFrame:
    rows = oracle.history(events, DEFAULTS.table("signals.strengths"), 1.0, ("*",))
    return pl.DataFrame(rows, schema=folded([]).schema, orient="row")


@examples(max_examples=100, deadline=None)
@given(strategies.events)
def test_equals_the_plain_fold(events: list[Event]) -> None:
    assert folded(events).equals(expected(events))


@examples(max_examples=60, deadline=None)
@given(st.lists(strategies.event(), max_size=20), st.data())
def test_folds_of_parts_add_up_to_the_fold_of_all(events: list[Event], data: st.DataObject) -> None:
    part = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    parts = [folded([e for e, p in zip(events, part, strict=True) if p == number]) for number in range(3)]
    assert summed(pl.concat(parts)).equals(folded(events))
    without = summed(pl.concat([folded(events), negative(parts[1])]))
    assert without.equals(folded([e for e, p in zip(events, part, strict=True) if p != 1]))


def test_a_partial_fold_keeps_what_is_owed_and_drops_what_cancels() -> None:
    first, second = folded([{"item_id": "x"}]), folded([{"item_id": "y"}])
    left = merged(pl.concat([first, negative(first), negative(second)]))
    assert left.rows() == [("u", "y", date(2026, 1, 1), -1000, -1, -1, 0, 0, 0)]


def test_packing_is_not_needed_for_the_order() -> None:
    # Many users, items and days: past 63 bits the columns are sorted one by one.
    n = 2000
    events = pl.DataFrame(
        {
            "user_id": [f"u{i:05d}" for i in range(n)],
            "item_id": [f"i{i * 7 % n:05d}" for i in range(n)],
            "timestamp": [datetime.fromordinal(1 + (i * 1789) % 3_000_000) for i in range(n)],
            "strength": [1] * n,
            "consumed": [True] * n,
            "never": [False] * n,
        }
    )
    found = fold_history(events.sample(fraction=1, shuffle=True, seed=1))
    assert found.equals(found.sort("user_id", "item_id", "day"))
    assert found["n"].sum() == n


def test_signal_events_are_one_row_an_event_under_the_users_key(home: Home) -> None:
    add(home, [{"item_id": "x"}, {"user_id": None, "anon_id": "w", "event_type": "block", "timestamp": at(40)}])
    rows = signal_events(home).sort("timestamp").select("user_id", "item_id", "strength", "never").collect().rows()
    assert rows == [("u", "x", 1000, False), ("w", None, 0, True)]
    assert signal_events(home, at(40)).collect().height == 1  # before the moment, not at it


def test_before_anything_was_ingested_there_is_no_history(home: Home) -> None:
    assert history(home).height == history(home, at(3)).height == 0
    assert signal_events(home).collect().height == 0
    assert decayed(history(home), 10).columns == ["user_id", "item_id", "strength", "n", "consumed", "never"]


@examples(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(strategies.events, min_size=1, max_size=3), st.sampled_from((0, 1, 30, 900)))
def test_as_of_is_the_fold_of_the_past(make_home, batches: list[list[Event]], day: int) -> None:  # type: ignore[no-untyped-def]
    home = make_home()
    for batch in batches:
        add(home, batch)
    moment = at(day, minutes=50)
    past = [event for batch in batches for event in batch if event["timestamp"] < moment]
    assert history(home, moment).equals(expected(past))


def test_strengths_halve_by_age_from_the_users_own_last_day() -> None:
    faded = decayed(
        folded(
            [
                {"user_id": "a", "item_id": "x", "event_type": "purchase"},
                {"user_id": "a", "item_id": "x", "timestamp": at(10)},
                {"user_id": "a", "item_id": "y", "timestamp": at(20)},
                {"user_id": "b", "item_id": "x", "timestamp": at(500), "event_type": "block"},
            ]
        ),
        10,
    )
    assert faded.rows() == [
        ("a", "x", pytest.approx(5 / 4 + 1 / 2), 2, 2, 0),
        ("a", "y", 1.0, 1, 1, 0),
        ("b", "x", 0.0, 1, 0, 1),
    ]


def test_without_a_half_life_nothing_fades() -> None:
    rows = folded([{"item_id": "x"}, {"item_id": "x", "timestamp": at(9999)}])
    assert decayed(rows, 0)["strength"].to_list() == [2.0]


@examples(max_examples=60, deadline=None)
@given(strategies.events, st.sampled_from((1.0, 30.0, 180.0)))
def test_fading_equals_its_formula(events: list[Event], half_life: float) -> None:
    rows = folded(events)
    last = dict(rows.group_by("user_id").agg(pl.col("day").max()).iter_rows())
    sums: dict[tuple[str, str], float] = {}
    for user, item, day, strength, *_ in rows.iter_rows():
        left = strength / 1000 * 2 ** (-(last[user] - day).days / half_life)
        sums[user, item] = sums.get((user, item), 0.0) + left
    found = decayed(rows, half_life)
    assert list(zip(found["user_id"], found["item_id"], strict=True)) == sorted(sums)
    assert found["strength"].to_list() == pytest.approx([sums[key] for key in sorted(sums)], rel=1e-12, abs=1e-12)
