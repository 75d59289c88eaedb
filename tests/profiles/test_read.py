"""Profiles as they are read: one user at any moment, and all with what is derived."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import strategies
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from stored import START, Event, add, at, with_settings

from persona_cli.errors import MissingInput
from persona_cli.events.schema import stored_schema
from persona_cli.profiles.fold import LATEST, SHOWN
from persona_cli.profiles.read import contexts, preferred_categories, profile, profiles
from persona_cli.profiles.sync import sync
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home


def catalogue(home: Home, *items: dict[str, Any]) -> None:
    schema = pl.DataFrame(pl.from_arrow(stored_schema("items").empty_table())).schema
    rows = pl.DataFrame([dict.fromkeys(schema) | {"ingested_at": START} | item for item in items], schema=schema)
    table = tables.open_or_create(home, "items", stored_schema("items"))
    table.commit([table.write(rows)])


def test_one_user_with_everything(home: Home) -> None:
    home = with_settings(home, signals__half_life_days=10, profiles__cohort_from=2, profiles__individual_from=4)
    catalogue(
        home,
        {"item_id": "x", "title": "Ex", "category": "letters", "tags": ["late", "rare"]},
        {"item_id": "y", "category": "letters", "tags": ["late"]},
        {"item_id": "7", "category": "numbers"},
    )
    add(
        home,
        [
            {"item_id": "x", "event_type": "purchase", "device": "mobile"},
            {"item_id": "y", "timestamp": at(10), "account_id": "acme"},
            {"item_id": "7", "event_type": "save", "timestamp": at(10, minutes=10)},
            {"item_id": "z", "event_type": "block", "timestamp": at(10, minutes=20)},
            {"event_type": "search", "timestamp": at(10, minutes=20)},
            {"user_id": "other", "item_id": "x"},
        ],
    )
    found = profile(home, "u")
    assert {name: found[name] for name in ("user_id", "account_id", "events", "items", "sessions", "stage")} == {
        "user_id": "u",
        "account_id": "acme",
        "events": 5,
        "items": 4,
        "sessions": 2,
        "stage": "individual",
    }
    assert (found["first_seen"], found["last_seen"]) == (at(), at(10, minutes=20))
    assert found["types"] == {"block": 1, "click": 1, "purchase": 1, "save": 1, "search": 1}
    assert found["devices"] == {"mobile": 1}
    assert found["session_seconds"] == 1200.0
    assert found["top_items"] == [
        {"item_id": "7", "title": None, "category": "numbers", "strength": 3.0, "events": 1},
        {"item_id": "x", "title": "Ex", "category": "letters", "strength": 2.5, "events": 1},
        {"item_id": "y", "title": None, "category": "letters", "strength": 1.0, "events": 1},
    ]
    assert found["categories"] == [
        {"category": "letters", "strength": 3.5},
        {"category": "numbers", "strength": 3.0},
    ]
    assert found["tags"] == [{"tag": "late", "strength": 3.5}, {"tag": "rare", "strength": 2.5}]
    assert (found["preferred_category"], found["never"]) == ("letters", ["z"])
    assert [item["item_id"] for item in profile(home, "u", top=1)["top_items"]] == ["7"]


def test_as_of_sees_only_what_was_before(home: Home) -> None:
    catalogue(home, {"item_id": "x", "title": "Ex"}, {"item_id": "x", "title": "Later", "valid_from": at(3)})
    add(home, [{"item_id": "x"}, {"item_id": "y", "timestamp": at(5)}, {"item_id": "y", "timestamp": at(50)}])
    early = profile(home, "u", at(5))
    assert (early["events"], early["last_seen"]) == (1, at())
    assert early["top_items"][0]["title"] == "Later"
    assert profile(home, "u", at(1))["top_items"][0]["title"] == "Ex"
    assert profile(home, "u", at(5, seconds=1))["events"] == 2
    with pytest.raises(MissingInput, match="'u' before 2026-01-01T00:00:00Z"):
        profile(home, "u", at())


def test_a_user_nobody_has_seen_is_missing_and_names_the_way_out(home: Home) -> None:
    with pytest.raises(MissingInput, match="nothing is known of a user 'nobody'") as raised:
        profile(home, "nobody")
    assert raised.value.hint == "persona profile list"
    add(home, [{"user_id": "v", "anon_id": "a"}, {"user_id": None, "anon_id": "a"}])
    assert profile(home, "a")["events"] == 1  # an event with a user belongs to the user, not to the anonymous id
    assert profile(home, "v")["events"] == 1


@examples(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.events)
def test_the_table_and_the_page_say_the_same(make_home: Any, events: list[Event]) -> None:
    home = make_home()
    add(home, events)
    sync(home)
    for row in profiles(home).collect().iter_rows(named=True):
        one = profile(home, row["user_id"])
        counted = {name: {e[key]: e["n"] for e in row[name]} for name, key in _COUNTED.items()}
        assert {name: one[name] for name in (*SHOWN, "stage", "holdout")} == {
            **{name: row[name] for name in (*SHOWN, "stage", "holdout")},
            **counted,
        }
    context = contexts(home, profiles(home).sort("user_id").collect()["user_id"])
    assert context.equals(profiles(home).sort("user_id").select("device", "country").collect())


_COUNTED = {"types": "event_type", "devices": "device"}


def test_stages_follow_the_settings_when_read(home: Home) -> None:
    add(home, [{"user_id": f"u{n}", "item_id": "x", "timestamp": at(k)} for n in range(4) for k in range(n)])
    add(home, [{"user_id": "browser", "timestamp": at(k)} for k in range(9)])  # events without an item are no evidence
    sync(home)

    def stages(cohort: int, individual: int) -> list[str]:
        changed = with_settings(home, profiles__cohort_from=cohort, profiles__individual_from=individual)
        return profiles(changed).sort("user_id").collect()["stage"].to_list()

    assert stages(2, 3) == ["context", "context", "cohort", "individual"]
    assert stages(0, 3) == ["cohort", "cohort", "cohort", "individual"]
    assert sync(home).mode == "unchanged"


def test_preferred_category_follows_the_catalogue_and_needs_a_liking(home: Home) -> None:
    add(
        home,
        [
            {"user_id": "a", "item_id": "x"},
            {"user_id": "a", "item_id": "y"},
            {"user_id": "b", "item_id": "y", "event_type": "thumbs_down"},
            {"user_id": "c", "item_id": "y", "event_type": "purchase"},
            {"user_id": "c", "item_id": "y", "event_type": "block"},
        ],
    )
    sync(home)
    assert preferred_categories(home).height == 0
    catalogue(home, {"item_id": "x", "category": "two"}, {"item_id": "y", "category": "one"})
    assert preferred_categories(home).select("user_id", "preferred_category").rows() == [
        ("a", "one")
    ]  # of equals the first by name
    shown = profiles(home).sort("user_id").collect()
    assert shown["preferred_category"].to_list() == ["one", None, None]
    assert preferred_categories(home, pl.Series(["b", "c"])).height == 0
    catalogue(home, {"item_id": "y", "category": "two", "valid_from": at(1)})
    assert preferred_categories(home).select("user_id", "preferred_category").rows() == [("a", "two")]


def test_contexts_are_aligned_and_known_for_the_past(home: Home) -> None:
    add(home, [{"device": "mobile", "country": "DE"}, {"device": "desktop", "timestamp": at(5)}, {"user_id": "v"}])
    sync(home)
    asked = pl.Series(["v", "u", "stranger", "u"])
    assert contexts(home, asked).rows() == [(None, None), ("desktop", "DE"), (None, None), ("desktop", "DE")]
    assert contexts(home, asked, at(5)).rows() == [(None, None), ("mobile", "DE"), (None, None), ("mobile", "DE")]


def test_without_events_there_are_no_profiles(home: Home) -> None:
    assert profiles(home).collect().height == 0
    assert set(LATEST) < set(profiles(home).collect().columns)
