"""Sittings of a frame of events, their order, and the time to the next event; transitions over everybody."""

from __future__ import annotations

import random as randoms
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import oracle
import polars as pl
import pytest
import strategies
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from stored import Event, add, at, frame

from persona_cli.profiles.sessions import with_dwell, with_sessions
from persona_cli.profiles.views import ask, navigation, navigation_of
from persona_cli.workspace.home import Home


def sessions(*events: Event, gap: float = 30.0) -> pl.DataFrame:
    return with_sessions(frame(events), gap)


@examples(max_examples=80, deadline=None)
@given(strategies.events.filter(bool), st.sampled_from((1.0, 30.0)))
def test_sessions_are_those_of_the_plain_fold(events: list[Event], gap: float) -> None:
    keyed = frame(events).with_columns(user_id=pl.coalesce("user_id", "anon_id"))
    found = with_sessions(keyed, gap)
    counted = found.group_by("user_id").agg(pl.col("session").n_unique()).sort("user_id")
    assert counted.rows() == [(row["user_id"], row["sessions"]) for row in oracle.profiles(events, gap)]
    spans = found.group_by("user_id", "session").agg(span=pl.col("timestamp").max() - pl.col("timestamp").min())
    total = spans.group_by("user_id").agg(pl.col("span").sum()).sort("user_id")
    assert total.rows() == [
        (row["user_id"], timedelta(seconds=row["session_seconds"])) for row in oracle.profiles(events, gap)
    ]
    assert (found["session"].diff().drop_nulls() >= 0).all()
    first = found.group_by("session", maintain_order=True).agg(
        pl.col("position").min(), pl.len(), pl.col("position").max().alias("m")
    )
    assert (first["position"] == 0).all() and (first["m"] == first["len"] - 1).all()


@examples(max_examples=60, deadline=None)
@given(strategies.events.filter(bool), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(events: list[Event], random: randoms.Random) -> None:
    rows = [event | {"event_id": "same"} for event in events]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    columns = ["user_id", "timestamp", "event_type", "item_id", "session", "position"]
    one, two = (
        with_sessions(frame(part).filter(pl.col("user_id").is_not_null()), 30).select(columns)
        for part in (rows, shuffled)
    )
    assert one.equals(two)


def test_time_to_the_next_event_of_the_same_session() -> None:
    found = with_dwell(
        sessions(
            {"timestamp": at(seconds=0)},
            {"timestamp": at(seconds=12.5)},
            {"timestamp": at(minutes=40)},
            {"timestamp": at(seconds=3), "session_id": "s"},
            {"timestamp": at(hours=3), "session_id": "s"},
            {"timestamp": at(seconds=5), "user_id": "v"},
        )
    )
    assert found["seconds"].to_list() == [12.5, None, 10_797.0, None, None, None]
    assert found["session"].to_list() == [0, 0, 1, 1, 2, 3]


def shop(user: str, session: str | None = None, start: float = 0) -> list[Event]:
    steps: list[dict[str, Any]] = [
        {"event_type": "page_view", "target": "home"},
        {"event_type": "scroll", "value": 0.5},
        {"event_type": "click", "page": "home"},
        {"event_type": "page_view", "target": "offers"},
        {"event_type": "purchase", "item_id": "x"},
    ]
    return [
        step | {"user_id": user, "session_id": session, "timestamp": at(start) + timedelta(seconds=30 * n)}
        for n, step in enumerate(steps)
    ]


def test_transitions_over_everybody_hide_what_few_do(make_home: Callable[[], Home]) -> None:
    home = make_home()
    add(home, [event for n in range(20) for event in shop(f"u{n}")] + shop("u0", start=3))
    add(home, [{"user_id": "u0", "event_type": "login", "timestamp": at(3) + timedelta(seconds=130)}])
    found, hidden = navigation(home)
    assert found.rows() == [("home", "offers", 21, 20), ("offers", "(purchase)", 21, 20)]
    assert hidden == 1  # (purchase) → (login), of one user
    assert ask(home, 'SELECT * FROM navigation ORDER BY n DESC, "from"').rows() == found.rows()
    own = navigation_of(home, "u0")
    assert own.rows() == [("home", "offers", 2), ("offers", "(purchase)", 2), ("(purchase)", "(login)", 1)]
    assert navigation_of(home, "u0", as_of=at(1))["n"].to_list() == [1, 1]
    assert navigation(home, by="type")[0].rows()[0] == ("click", "page_view", 21, 20)


def test_a_late_event_between_two_changes_the_transitions(make_home: Callable[[], Home]) -> None:
    home = make_home()
    add(home, [{"page": "a"}, {"page": "c", "timestamp": at(minutes=2)}])
    assert navigation_of(home, "u").rows() == [("a", "c", 1)]
    add(home, [{"page": "b", "timestamp": at(minutes=1)}])
    assert navigation_of(home, "u").rows() == [("a", "b", 1), ("b", "c", 1)]


def test_nothing_yet(home: Home) -> None:
    assert navigation(home)[0].height == 0
    assert navigation_of(home, "u").height == 0


@pytest.mark.parametrize("gap", [30.0])
def test_a_pause_of_exactly_the_gap_does_not_split(gap: float) -> None:
    found = sessions({}, {"timestamp": at(minutes=30)}, {"timestamp": at(minutes=60, seconds=1)}, gap=gap)
    assert found["session"].to_list() == [0, 0, 1]
