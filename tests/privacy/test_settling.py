"""After the rows of persons are removed everything that follows is what it would be had they never been."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import START, add, events

from persona_cli.models import gram_store
from persona_cli.models.interactions import interactions_of
from persona_cli.privacy.removal import MARK, remove_rows, remove_where
from persona_cli.privacy.settling import settle
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.history import history, signal_events
from persona_cli.profiles.sync import behind, sync
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, create

GONE = pl.Series(["u03", "u04", "u11"])


def made(root: Path, without: pl.Series | None = None) -> Home:
    home = create(root)
    late = [{"user_id": f"u{n:02d}", "item_id": "b19", "timestamp": START + timedelta(weeks=40)} for n in (3, 5, 11)]
    alone = [{"user_id": "u03", "item_id": "only", "timestamp": START + timedelta(weeks=41)}]
    for rows in (events(20), late + alone):
        add(home, [row for row in rows if without is None or row["user_id"] not in without])
        sync(home)
        gram_store.update(home, interactions_of(signal_events(home).collect(), home.settings), home.settings)
    return home


def same(home: Home, other: Home) -> None:
    assert behind(home) is None
    assert_frame_equal(history(home), history(other))
    assert_frame_equal(profile_rows(home).sort("user_id"), profile_rows(other).sort("user_id"))
    assert gram_store.stored_digest(home) == gram_store.stored_digest(other)


@pytest.mark.parametrize("told", [True, False])
def test_what_follows_is_that_of_a_workspace_without_them(tmp_path: Path, told: bool) -> None:
    home, other = made(tmp_path / "a"), made(tmp_path / "b", GONE)
    theirs = pl.col("user_id").is_in(GONE.implode())
    assert remove_where(home, "events", theirs, metadata={"removed": MARK} if told else None) == 3 * 12 + 3
    done = settle(home, GONE if told else None)
    assert (done.profiles, done.gram) == (("subtracted", "subtracted") if told else ("incremental", "updated"))
    same(home, other)
    stored = pl.concat([pl.read_parquet(path) for path in home.path("history").rglob("*.parquet")])
    assert not set(stored["user_id"]) & set(GONE) and stored["n"].min() == 1
    assert not tables.orphans(home)
    assert len(list(home.path("models", "gram").iterdir())) == 1


def test_settling_again_changes_nothing(tmp_path: Path) -> None:
    home, other = made(tmp_path / "a"), made(tmp_path / "b", GONE)
    assert remove_rows(home, "events", GONE.to_frame("user_id"), ["user_id"]) == 39
    assert remove_rows(home, "events", GONE.to_frame("user_id"), ["user_id"]) == 0
    settle(home, GONE)
    done = settle(home, GONE)
    assert (done.gram, done.files) == ("unchanged", 0)
    same(home, other)


def test_events_that_came_meanwhile_are_folded_and_not_lost(tmp_path: Path) -> None:
    home, other = made(tmp_path / "a"), made(tmp_path / "b", GONE)
    late = [{"user_id": "u07", "item_id": "b03", "timestamp": START + timedelta(weeks=50)}]
    for one in (home, other):
        add(one, late)
    sync(other)
    remove_where(home, "events", pl.col("user_id").is_in(GONE.implode()), metadata={"removed": MARK})
    assert settle(home, GONE).profiles == "incremental"
    same(home, other)


def test_rows_are_found_by_several_columns_and_null_agrees_with_nothing(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    add(
        home,
        [
            {"user_id": user, "item_id": item, "timestamp": START}
            for user, item in (("a", "x"), ("a", None), ("b", "x"))
        ],
    )
    keys = pl.DataFrame({"item_id": ["x", None, "y"], "user_id": ["a", "a", "b"]})
    assert remove_rows(home, "events", keys, ["user_id", "item_id"]) == 1
    table = tables.open_table(home, "events")
    assert table is not None and table.scan().select("user_id", "item_id").collect().rows() == [("a", None), ("b", "x")]
