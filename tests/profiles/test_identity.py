"""An id that was identified is the user it was identified as: everywhere, from any order, and not after an undo."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from stored import Event, add, at, take_back, with_settings

from persona_cli.profiles import fold
from persona_cli.profiles.history import history
from persona_cli.profiles.identity import FIRSTS, assignment_ids, persons, resolve
from persona_cli.profiles.permitted import in_holdout
from persona_cli.profiles.read import profile
from persona_cli.profiles.sync import sync
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

MakeHome = Callable[[], Home]
PATIENT = examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def links(*pairs: tuple[str, str, float]) -> pl.DataFrame:
    """anon_id, user_id, day."""
    rows = [(anon, user, at(day)) for anon, user, day in pairs]
    return pl.DataFrame(
        rows, schema={"anon_id": pl.String, "user_id": pl.String, "at": pl.Datetime("us", "UTC")}, orient="row"
    )


def who(found: pl.DataFrame, *ids: str) -> list[str]:
    return resolve(found).of(pl.Series(ids)).to_list()


def identify(anon: str, user: str, day: float, type: str = "identify") -> Event:
    return {"event_type": type, "anon_id": anon, "user_id": user, "timestamp": at(day), "item_id": None}


def click(id: str, item: str, day: float, known: bool = False) -> Event:
    ids = {"user_id": id} if known else {"user_id": None, "anon_id": id}
    return {**ids, "item_id": item, "timestamp": at(day)}


def state(home: Home) -> tuple[pl.DataFrame, pl.DataFrame]:
    return history(home), fold.profile_rows(home, fold.COLUMNS).sort("user_id")


def first_seen(home: Home) -> pl.DataFrame:
    table = tables.open_table(home, FIRSTS)
    return pl.DataFrame(schema={"id": pl.String}) if table is None or not table.files else table.scan().collect()


def assert_same(one: Home, other: Home) -> None:
    for ours, theirs in zip(state(one), state(other), strict=True):
        assert ours.equals(theirs)


def test_a_chain_ends_at_its_last_user_and_others_are_themselves() -> None:
    found = links(("anon", "old", 1), ("old", "new", 2))
    assert who(found, "anon", "old", "new", "stranger") == ["new", "new", "new", "stranger"]


def test_of_two_users_the_first_keeps_the_id() -> None:
    assert who(links(("tablet", "zoe", 1), ("tablet", "adam", 2)), "tablet") == ["zoe"]
    assert who(links(("tablet", "zoe", 1), ("tablet", "adam", 1)), "tablet") == ["adam"]


def test_a_circle_is_one_person() -> None:
    found = links(("b", "c", 1), ("c", "a", 2), ("a", "b", 3), ("x", "c", 4))
    assert who(found, "a", "b", "c", "x") == ["a", "a", "a", "a"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"), st.integers(0, 3)), max_size=10))
def test_everybody_linked_ends_at_one_who_is_themselves(pairs: list[tuple[str, str, int]]) -> None:
    found = links(*((anon, user, float(day)) for anon, user, day in pairs if anon != user))
    people = resolve(found)
    ids = pl.Series(list("abcdef"))
    assert people.of(people.of(ids)).equals(people.of(ids))
    shuffled = resolve(found.sample(fraction=1.0, shuffle=True, seed=3)) if found.height else people
    assert shuffled.of(ids).equals(people.of(ids))


def test_the_past_of_an_anonymous_id_becomes_the_users(make_home: MakeHome) -> None:
    home = make_home()
    add(home, [click("anon", "x", 0), click("u1", "y", 1, known=True)])
    sync(home)
    add(home, [identify("anon", "u1", 2)])
    sync(home)
    add(home, [click("anon", "z", 3)])
    sync(home)
    rows, people = state(home)
    assert rows.select("user_id", "item_id").rows() == [("u1", "x"), ("u1", "y"), ("u1", "z")]
    assert people["user_id"].to_list() == ["u1"]
    assert people["events"].to_list() == [4]
    shown = profile(home, "anon")
    assert shown["user_id"] == "u1" and shown["ids"] == ["anon", "u1"]


def test_an_alias_moves_what_a_known_user_did(make_home: MakeHome) -> None:
    home = make_home()
    add(home, [click("jen@old", "x", 0, known=True), identify("jen@old", "jen", 1, "alias")])
    sync(home)
    assert state(home)[0]["user_id"].to_list() == ["jen"]


def test_link_then_undo_is_never_merged(make_home: MakeHome) -> None:
    home, never = make_home(), make_home()
    for one in (home, never):
        add(one, [click("anon", "x", 0), click("anon", "y", 40), click("u1", "y", 1, known=True)])
        sync(one)
    linked = add(home, [identify("anon", "u1", 2)])
    sync(home)
    assert state(home)[1]["user_id"].to_list() == ["u1"]
    take_back(home, linked)
    sync(home)
    assert_same(home, never)
    assert persons(home).ids.to_list() == []


@st.composite
def batches(draw: st.DrawFn) -> list[list[Event]]:
    ids = st.sampled_from(("a", "b", "c", "d"))
    day = st.sampled_from((0.0, 0.01, 1.0, 40.0))
    clicked = st.builds(click, ids, st.sampled_from(("x", "y")), day, st.booleans())
    linked = st.builds(identify, ids, ids, day, st.sampled_from(("identify", "alias")))
    return draw(st.lists(st.lists(st.one_of(clicked, linked), min_size=1, max_size=5), min_size=1, max_size=5))


@PATIENT
@given(batches(), st.data())
def test_incremental_equals_rebuilt_with_links_that_come_and_go(
    make_home: MakeHome, drawn: list[list[Event]], data: st.DataObject
) -> None:
    home, whole = make_home(), make_home()
    kept: list[Event] = []
    for batch in drawn:
        paths = add(home, batch)
        if data.draw(st.booleans(), label="sync"):
            sync(home)
        if data.draw(st.booleans(), label="undo"):
            take_back(home, paths)
        else:
            kept += batch
    sync(home)
    if kept:
        add(whole, kept)
        sync(whole)
        assert_same(home, whole)
        assert first_seen(home).equals(first_seen(whole))
    else:
        assert state(home)[1].height == 0


def test_as_of_a_moment_before_the_link_they_are_two(make_home: MakeHome) -> None:
    home = make_home()
    add(home, [click("anon", "x", 0), click("u1", "y", 1, known=True), identify("anon", "u1", 2)])
    sync(home)
    assert profile(home, "u1", at(2))["events"] == 1
    assert profile(home, "anon", at(2))["user_id"] == "anon"
    assert profile(home, "u1", at(3))["events"] == 3
    assert sorted(history(home, at(2))["user_id"].unique()) == ["anon", "u1"]


def test_signing_in_changes_no_side_of_the_holdout(make_home: MakeHome) -> None:
    home = with_settings(make_home(), holdout__share=0.1)
    anonymous = [f"anon{n}" for n in range(200)]
    add(home, [{**click(id, "x", 0), "ingested_at": at(0)} for id in anonymous])
    sync(home)
    before = in_holdout(home, pl.Series(anonymous))
    users = [f"user{n}" for n in range(200)]
    add(home, [{**identify(a, u, 1), "ingested_at": at(1)} for a, u in zip(anonymous, users, strict=True)])
    sync(home)
    assert in_holdout(home, pl.Series(users)).to_list() == before.to_list()
    assert assignment_ids(home, pl.Series(users)).to_list() == anonymous
    assert 0 < before.sum() < 60


def test_a_shared_star_links_on_every_event_with_both(make_home: MakeHome) -> None:
    home = make_home()
    both: Event = {"anon_id": "anon", "user_id": "u1", "item_id": "z", "timestamp": at(1)}
    add(home, [click("anon", "x", 0), both])
    sync(home)
    assert state(home)[1]["user_id"].to_list() == ["anon", "u1"]
    any_event = with_settings(home, identity__link_events=["*"])
    sync(any_event)
    assert state(any_event)[1]["user_id"].to_list() == ["u1"]


@pytest.mark.parametrize("rebuild", [False, True])
def test_rebuilding_changes_nothing(make_home: MakeHome, rebuild: bool) -> None:
    home = make_home()
    add(home, [click("anon", "x", 0), identify("anon", "u1", 2)])
    sync(home)
    first = state(home)
    sync(home, rebuild)
    for ours, theirs in zip(state(home), first, strict=True):
        assert ours.equals(theirs)
