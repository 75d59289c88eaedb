"""As of any moment, as it was known at any other: the same as a fresh ingest of what was known; and what changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
import strategies
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from stored import START, Event, add, at

from persona_cli.errors import MissingInput, UsageError
from persona_cli.profiles.people import difference
from persona_cli.profiles.read import profile, profiles
from persona_cli.profiles.sync import sync
from persona_cli.workspace.home import Home

MakeHome = Callable[[], Home]


def same_as_fresh(home: Home, events: list[Event], make_home: MakeHome, as_of: Any, known_at: Any) -> None:
    known = [
        event
        for event in events
        if (as_of is None or event["timestamp"] < as_of) and (known_at is None or event["ingested_at"] <= known_at)
    ]
    fresh = Home(make_home().root, home.settings, home.salt)
    add(fresh, known)
    sync(fresh)
    expected = profiles(fresh).sort("user_id").collect()
    assert profiles(home, as_of=as_of, known_at=known_at).sort("user_id").collect().equals(expected)
    for user in expected["user_id"].to_list()[:2]:
        assert profile(home, user, as_of, known_at=known_at) == profile(fresh, user)


@examples(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.events, st.integers(0, 120), st.integers(0, 5))
def test_the_past_is_a_fresh_ingest_of_what_was_known(
    make_home: MakeHome, events: list[Event], minutes: int, known: int
) -> None:
    events = [{**event, "ingested_at": at(1 + n % 5)} for n, event in enumerate(events)]
    home = make_home()
    add(home, events)
    same_as_fresh(home, events, make_home, at(minutes=minutes), at(known))
    same_as_fresh(home, events, make_home, at(minutes=minutes), None)


@pytest.mark.slow
def test_200_random_dates_are_fresh_ingests_of_the_events_before(make_home: MakeHome) -> None:
    chance = random.Random(1)
    kinds = ("click", "view", "purchase", "save", "search", "thumbs_down", "dwell")
    events: list[Event] = [
        {
            "user_id": f"u{chance.randrange(12)}",
            "event_type": chance.choice(kinds),
            "item_id": chance.choice((None, *(f"i{n}" for n in range(9)))),
            "timestamp": START + timedelta(seconds=chance.randrange(90 * 86_400)),
            "session_id": chance.choice((None, "s", "t")),
            "device": chance.choice((None, "mobile", "desktop")),
            "value": chance.choice((None, 3.5)),
            "ingested_at": at(100 + chance.randrange(3)),
        }
        for _ in range(600)
    ]
    home = make_home()
    for begin in range(0, len(events), 200):
        add(home, events[begin : begin + 200])
        sync(home)
    for _ in range(200):
        moment = START + timedelta(seconds=chance.randrange(91 * 86_400))
        same_as_fresh(home, events, make_home, moment, chance.choice((None, at(100), at(101))))


def test_what_was_ingested_later_was_not_known(home: Home) -> None:
    add(home, [{"item_id": "x", "ingested_at": at(1)}, {"item_id": "y", "ingested_at": at(9)}])
    assert profile(home, "u", known_at=at(1))["items"] == 1  # the moment itself counts
    assert profile(home, "u", at(5))["items"] == 2
    assert profiles(home, known_at=at(2)).collect()["events"].to_list() == [1]
    with pytest.raises(MissingInput, match="until 2026-01-01T00:00:00Z"):
        profile(home, "u", known_at=at(0))
    assert profiles(home, as_of=at(0)).collect().height == 0


def test_a_difference_says_what_changed_gained_and_lost(home: Home) -> None:
    add(
        home,
        [
            {"item_id": "x", "device": "mobile"},
            {"item_id": "x", "event_type": "purchase", "timestamp": at(1)},
            {"item_id": "y", "timestamp": at(10), "device": "desktop"},
            {"item_id": "x", "event_type": "block", "timestamp": at(10, minutes=1)},
            {"item_id": "z", "timestamp": at(40)},
        ],
    )
    found = difference(home, "u", at(5), at(20))
    assert (found["user_id"], found["from"], found["to"]) == ("u", at(5), at(20))
    changed = found["changed"]
    assert changed["events"] == {"before": 2, "after": 4}
    assert changed["device"] == {"before": "mobile", "after": "desktop"}
    assert changed["types"] == {"before": {"block": None, "click": 1}, "after": {"block": 1, "click": 2}}
    assert changed["last_seen"] == {"before": at(1), "after": at(10, minutes=1)}
    assert not {"user_id", "first_seen", "country", "top_items"} & set(changed)
    assert found["items"] == {"gained": ["y"], "lost": ["x"]}
    assert found["never"] == {"gained": ["x"], "lost": []}
    assert difference(home, "u", at(20), at(30))["changed"] == {}
    first = difference(home, "u", at(0), None)
    assert first["changed"]["events"] == {"before": None, "after": 5}
    assert first["items"]["gained"] == ["y", "z"]


def test_a_difference_needs_a_user_and_an_order(home: Home) -> None:
    add(home, [{"item_id": "x"}])
    with pytest.raises(MissingInput, match="nobody"):
        difference(home, "nobody", at(0), at(1))
    with pytest.raises(UsageError, match="is not before"):
        difference(home, "u", at(1), at(1))


def test_rows_of_one_moment_do_not_depend_on_increments(home: Home) -> None:
    for day in range(12):
        add(home, [{"item_id": f"i{day}", "timestamp": at(day)}, {"user_id": f"v{day}", "timestamp": at(day)}])
        sync(home)
    now = profiles(home).sort("user_id").collect()
    assert profiles(home, as_of=at(99)).sort("user_id").collect().equals(now)
    assert now.height == 13
    assert now.filter(pl.col("user_id") == "u")["events"].to_list() == [12]
