"""The verbs of the command line in a program."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from persona_cli import Workspace
from persona_cli.errors import MissingInput, UsageError


@pytest.fixture(autouse=True)
def here(elsewhere: Path) -> Path:
    (elsewhere / "events.csv").write_text(
        "user_id,event_type,item_id,timestamp\nu1,click,a,2026-01-05T10:00:00Z\nu2,view,b,2026-02-05T10:00:00Z\nu1,,a,\n"
    )
    (elsewhere / "items.csv").write_text("item_id,title,valid_from\na,Old,2026-01-01\na,New,2026-02-01\n")
    return elsewhere


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


def test_the_main_job_in_a_program_gives_frames(here: Path) -> None:
    rows = ["user_id,event_type,item_id,timestamp"]
    for user in range(40):  # two tastes: even users like even items, and come back for one more of them in March
        for step in range(6):
            item = (user * 7 + 2 * step) % 20 // 2 * 2 + user % 2
            rows.append(f"u{user:02d},click,i{item:02d},2026-0{1 if step < 4 else 3}-{10 + step}T0{step}:00:00Z")
    Path("many.csv").write_text("\n".join(rows))
    shop = Workspace.create("shop")
    shop.ingest("many.csv")
    report = shop.train("knn")
    assert report.latest == "layered/1"
    assert set(shop.models()["model"]) == {"popular", "knn", "layered"}
    done = shop.evaluate("knn", k=[5])
    figures = {one["model"]: one["metrics"]["recall@5"]["value"] for one in done.result["models"]}
    assert figures["knn"] > figures["popular"]
    assert set(done.per_user["user_id"]) <= {f"u{user:02d}" for user in range(40)}
    lists = shop.recommend(["u00", "stranger"], top=3, include_holdout=True)
    assert lists.filter(pl.col("user_id") == "u00")["rank"].to_list() == [1, 2, 3]
    assert {int(item[1:]) % 2 for item in lists.filter(pl.col("user_id") == "u00")["item_id"]} == {0}
    assert lists.filter(pl.col("user_id") == "stranger")["stage"].unique().to_list() == ["context"]
    again = shop.recommend(["u01"], candidates=["i19", "nothing"], include_holdout=True)
    assert set(again["item_id"]) <= {"i19", "nothing"}
    assert {int(item[1:]) % 2 for item in shop.similar("i00", top=3)["similar_id"]} == {0}
    pairs = pl.DataFrame({"user_id": ["u01", "u00"], "item_id": ["i03", "unheard"]})
    scored = shop.score(pairs)
    assert scored["user_id"].to_list() == ["u01", "u00"] and scored["score"].is_null().to_list() == [False, True]
