"""Persons whom no purpose covers are not folded, and exactly those whose standing changed are folded again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from persona_cli.consent.receipts import COVERING, State, record
from persona_cli.consent.receipts import NAME as RECEIPTS
from persona_cli.events.ingest import ingest
from persona_cli.events.undo import find, undo
from persona_cli.profiles import fold as folding
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.history import history
from persona_cli.profiles.sync import behind, sync
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, create, open_home

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def workspace(name: str, **bases: str) -> Home:
    home = create(Path(name))
    lines = home.path("persona.toml").read_text()
    for purpose, basis in bases.items():
        head, _, rest = lines.partition(f"[privacy.purposes.{purpose}]")
        before, _, after = rest.partition("basis = ")
        lines = f'{head}[privacy.purposes.{purpose}]{before}basis = "{basis}"\n{after.partition(chr(10))[2]}'
    home.path("persona.toml").write_text(lines)
    return open_home(home.root)


def store(home: Home, file: str, *events: tuple[str | None, str | None, str]) -> None:
    """Ingest events (user_id, anon_id, item) a minute apart, without bringing the profiles up to date."""
    lines = []
    for minute, (user, anon, item) in enumerate(events):
        at = (T0 + timedelta(minutes=minute)).isoformat()
        said = {
            "user_id": user,
            "anon_id": anon,
            "event_type": "identify" if user and anon else "click",
            "item_id": item,
        }
        lines.append(json.dumps({name: value for name, value in said.items() if value} | {"timestamp": at}))
    Path(file).write_text("\n".join(lines) + "\n")
    ingest(home, [file])


def say(home: Home, users: str | list[str], state: State, minutes: float, *purposes: str) -> None:
    ids = [users] if isinstance(users, str) else users
    record(home, ids, purposes or COVERING, state, at=T0 + timedelta(minutes=minutes), source="test")


def folded(home: Home) -> dict[str, list[str]]:
    """Items of the history of each profile; what is stored must be what folding everything gives."""
    people = sorted(profile_rows(home, ("user_id",))["user_id"])
    rows = history(home)
    stored = profile_rows(home).sort("user_id")
    sync(home, rebuild=True)
    assert_frame_equal(history(home), rows)
    assert_frame_equal(profile_rows(home).sort("user_id"), stored)
    assert set(rows["user_id"]) <= set(people)
    return {user: rows.filter(pl.col("user_id") == user)["item_id"].to_list() for user in people}


def test_who_refuses_everything_leaves_and_comes_back_with_a_new_word(elsewhere: Path) -> None:
    home = workspace("w")
    store(home, "one.jsonl", ("a", None, "x"), ("b", None, "x"), ("b", None, "y"))
    sync(home)
    say(home, "b", "objected", 1, "analytics", "personalization")
    assert sync(home).users == 0 and folded(home) == {"a": ["x"], "b": ["x", "y"]}, "one purpose still covers b"
    say(home, "b", "withdrawn", 2, "model_training")
    assert behind(home) == "what people allow has changed"
    done = sync(home)
    assert (done.mode, done.users, done.reason) == ("incremental", 1, "what people allow has changed")
    assert behind(home) is None and sync(home).mode == "unchanged"
    assert folded(home) == {"a": ["x"]}
    store(home, "two.jsonl", ("a", None, "z"), ("b", None, "z"))
    sync(home)
    assert folded(home) == {"a": ["x", "z"]}
    say(home, "b", "given", 3, "analytics")
    sync(home)
    assert folded(home)["b"] == ["x", "y"], "what was collected while b refused was not stored"


def test_where_everything_rests_on_consent_silence_is_no(elsewhere: Path) -> None:
    home = workspace("w", **dict.fromkeys(COVERING, "contract"))
    store(home, "one.jsonl", ("a", None, "x"), ("b", None, "y"))
    sync(home)
    home = workspace("w", **dict.fromkeys(COVERING, "consent"))
    assert behind(home) == "the lawful bases of purposes changed"
    assert sync(home).mode == "rebuilt"
    assert folded(home) == {}
    say(home, "b", "given", 0, "analytics")
    assert sync(home).mode == "incremental"
    assert folded(home) == {"b": ["y"]}


def test_linked_ids_stand_and_fall_together(elsewhere: Path) -> None:
    home = workspace("w")
    store(home, "one.jsonl", (None, "d", "x"), ("a", None, "y"), ("b", None, "z"))
    sync(home)
    say(home, "d", "objected", 1)
    sync(home)
    assert folded(home) == {"a": ["y"], "b": ["z"]}
    say(home, "d", "given", 2)
    store(home, "link.jsonl", ("a", "d", "w"))
    say(home, "d", "objected", 3)
    sync(home)
    assert folded(home) == {"b": ["z"]}, "a and d are one person, whose last word is d's"
    undo(home, find(home, "latest"))
    sync(home)
    assert folded(home) == {"a": ["y"], "b": ["z"]}


def test_what_is_taken_back_of_a_refused_person_is_not_subtracted(elsewhere: Path) -> None:
    home = workspace("w")
    store(home, "one.jsonl", ("a", None, "x"), ("b", None, "y"))
    store(home, "two.jsonl", ("a", None, "z"), ("b", None, "z"))
    say(home, "b", "objected", 1)
    sync(home)
    undo(home, find(home, "latest"))
    sync(home)
    assert folded(home) == {"a": ["x"]}
    say(home, "b", "given", 2)
    sync(home)
    assert folded(home) == {"a": ["x"], "b": ["y"]}


def test_a_word_that_changes_nobody_folds_nobody(elsewhere: Path) -> None:
    home = workspace("w")
    store(home, "one.jsonl", ("a", None, "x"))
    sync(home)
    versions = [tables.open_table(home, name).version for name in (folding.NAME, "history")]  # type: ignore[union-attr]
    say(home, "a", "given", 1)
    assert sync(home).mode == "unchanged" and behind(home) is None
    assert versions == [tables.open_table(home, name).version for name in (folding.NAME, "history")]  # type: ignore[union-attr]


def test_receipts_that_were_lost_fold_everybody_again(elsewhere: Path) -> None:
    home = workspace("w")
    store(home, "one.jsonl", ("a", None, "x"), ("b", None, "y"))
    say(home, "b", "objected", 1)
    sync(home)
    tables.drop(home, RECEIPTS)
    assert sync(home).mode == "rebuilt"
    assert folded(home) == {"a": ["x"], "b": ["y"]}


@pytest.mark.parametrize("state", ["paused", "withdrawn"])
def test_a_pause_keeps_being_folded_and_a_withdrawal_does_not(elsewhere: Path, state: State) -> None:
    home = workspace("w")
    store(home, "one.jsonl", ("a", None, "x"))
    say(home, "a", state, 1)
    sync(home)
    assert folded(home) == ({"a": ["x"]} if state == "paused" else {})
