"""The verbs of ingest and profiles in a program."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from persona_cli import Workspace
from persona_cli.errors import MissingInput, UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.csv").write_text(
        "user_id,event_type,item_id,timestamp\nu1,click,a,2026-01-05T10:00:00Z\nu2,view,b,2026-02-05T10:00:00Z\nu1,,a,\n"
    )
    (tmp_path / "items.csv").write_text("item_id,title,valid_from\na,Old,2026-01-01\na,New,2026-02-01\n")
    return tmp_path


def test_a_named_workspace_must_be_there_an_unnamed_one_may_be_made(here: Path) -> None:
    with pytest.raises(MissingInput, match="no workspace"):
        Workspace()
    with pytest.raises(MissingInput, match="does not exist"):
        Workspace.find_or_create("elsewhere")
    made = Workspace.find_or_create()
    assert made.home.root == here / "persona-workspace"
    assert Workspace().home.root == made.home.root
    assert repr(Workspace.create(here / "second")) == f"Workspace('{here}/second')"


def test_what_was_ingested_comes_back_as_frames(here: Path) -> None:
    shop = Workspace.create("shop")
    report = shop.ingest(here / "events.csv")
    assert (report.read, report.accepted, report.rejected) == (3, 2, 1)
    shop.ingest("items.csv", kind="items")
    assert sorted(shop.events().collect()["user_id"]) == ["u1", "u2"]
    for moment in ("2026-02-01", date(2026, 2, 1), datetime(2026, 2, 1, tzinfo=UTC)):
        assert shop.events(moment).collect()["user_id"].to_list() == ["u1"]
        assert shop.history(moment)["item_id"].to_list() == ["a"]
    assert shop.catalogue("items")["title"].to_list() == ["New"]
    assert shop.catalogue("items", "2026-01-15")["title"].to_list() == ["Old"]
    assert shop.profiles().collect().sort("user_id")["user_id"].to_list() == ["u1", "u2"]
    assert shop.profile("u1")["events"] == 1
    assert shop.sql("SELECT count(*) AS n FROM events")["n"].to_list() == [2]
    assert shop.quarantine(["reason"])["lines"].to_list() == [1]
    assert shop.rejected(source=str(here / "events.csv"))["line"].to_list() == [4]
    assert shop.undo(report.run) == 2
    assert shop.profiles().collect().height == 0


def test_the_profiles_catch_up_after_a_run_that_left_them_behind(here: Path) -> None:
    shop = Workspace.create("shop")
    shop.ingest("events.csv", profiles=False)
    assert shop.profiles().collect().height == 0
    assert shop.ingest("events.csv").accepted == 0
    assert shop.profiles().collect().height == 2


def test_a_moment_must_be_one(here: Path) -> None:
    with pytest.raises(UsageError, match="'soon' is not a date or time"):
        Workspace.create("shop").events("soon")
