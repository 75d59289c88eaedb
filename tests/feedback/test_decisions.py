"""Decisions are logged whole or not at all, of people who may be measured, and are what was served."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.errors import BadData, Busy, UsageError
from persona_cli.feedback.decisions import NAME, TYPES, contexts_as_text, log, log_blocks, new_ids, read
from persona_cli.feedback.outcomes import OF_DECISION, join, rates
from persona_cli.privacy.retention import months_before, plan
from persona_cli.workspace import locks, tables
from persona_cli.workspace.home import Home, create

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def event(who: str, kind: str, item: str, at: datetime, **more: Any) -> dict[str, Any]:
    return {"user_id": who, "event_type": kind, "item_id": item, "timestamp": at.isoformat(), **more}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with 50 users and a popular list."""
    shop = Workspace.create(tmp_path_factory.mktemp("decisions") / "w")
    file = shop.home.root.parent / "events.jsonl"
    made = [
        event(f"u{n}", "click", f"i{(n * step) % 11}", NOW - timedelta(days=n, hours=step))
        for n in range(50)
        for step in range(1, 5)
    ]
    file.write_text("".join(json.dumps(one) + "\n" for one in made))
    shop.ingest(file)
    shop.train("popular")
    return shop.home.root


@pytest.fixture
def shop(once: Path, elsewhere: Path) -> Workspace:
    shutil.copytree(once, elsewhere / "w")
    return Workspace(elsewhere / "w")


def stored(home: Home) -> pl.DataFrame:
    return read(home, purpose=None).collect().sort("user_id", "decision_id")


def test_ids_are_128_random_bits() -> None:
    ids = new_ids(10_000)
    assert ids.n_unique() == 10_000 and ids.str.contains(r"^[0-9a-f]{32}$").all()
    assert new_ids(0).to_list() == []
    assert set("".join(ids.to_list()[:1000])) == set("0123456789abcdef")


def test_what_is_given_is_what_is_read(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    items = [[{"item_id": "a", "position": 1, "propensity": 0.5}], None]
    frame = pl.DataFrame(
        {"user_id": ["u1", "u2"], "surface": "nav", "policy": "order", "choice": ['{"a":1}', None], "items": items,
         "propensity": [0.25, None], "rules": [["fresh"], []], "holdout": [False, True]},
        schema_overrides={"items": TYPES["items"], "rules": TYPES["rules"]},
    )  # fmt: skip
    ids = log(home, frame, run="r1", at=NOW)
    rows = stored(home)
    assert rows["decision_id"].to_list() == ids.to_list()
    assert_frame_equal(rows.select(frame.columns), frame)
    assert rows["at"].to_list() == [NOW, NOW] and set(rows["run"]) == {"r1"} and set(rows["month"]) == {"2026-06"}
    assert rows.schema == pl.Schema(TYPES) and rows["model"].null_count() == 2


def test_reading_as_of_a_moment(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    for days in (0, 20, 40):
        log(home, pl.DataFrame({"user_id": [f"u{days}"]}), at=NOW + timedelta(days=days))

    def whose(**when: datetime) -> list[str]:
        return sorted(read(home, **when).collect()["user_id"])

    assert whose(as_of=NOW) == []
    assert whose(as_of=NOW + timedelta(microseconds=1)) == ["u0"]
    assert whose(since=NOW + timedelta(days=20)) == ["u20", "u40"]
    assert whose(since=NOW, until=NOW + timedelta(days=40)) == ["u0", "u20"]


def test_all_blocks_or_none(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    block = pl.DataFrame({"user_id": [f"u{n}" for n in range(10)]})
    log(home, block)
    with pytest.raises(ZeroDivisionError), log_blocks(home) as add:
        add(block)
        raise ZeroDivisionError
    assert stored(home).height == 10 and tables.orphans(home) == []
    with log_blocks(home, run="r2") as add:
        ids = pl.concat([add(block), add(block)])
    assert stored(home).height == 30 and ids.n_unique() == 20
    table = tables.open_table(home, NAME)
    assert table is not None and table.metadata["run"] == "r2" and table.version == 2  # begun, then a commit each
    with pytest.raises(BadData, match="propensity is of type String"):
        log(home, block.with_columns(propensity=pl.lit("0.5")))
    with pytest.raises(BadData, match="without a user_id"):
        log(home, pl.DataFrame({"surface": ["x"]}))
    assert stored(home).height == 30


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    one = pl.DataFrame({"user_id": ["u"]})
    with locks.hold(home, "tables", "ingest"), ThreadPoolExecutor(1) as other, pytest.raises(Busy):
        other.submit(log, home, one).result()
    assert stored(home).height == 0


def test_contexts_are_json_of_what_is_known() -> None:
    known = pl.DataFrame({"device": ["tv", None, "tv"], "country": [None, None, 'N"L']})
    assert contexts_as_text(known).to_list() == ['{"device":"tv"}', None, '{"country":"N\\"L","device":"tv"}']


def test_every_line_names_its_decision(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend", "-w", "w", "--log", "--top", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = {row["decision_id"]: row for row in stored(shop.home).to_dicts()}
    assert len(rows) == len(lines) == 50
    for line in lines:
        row = rows[line["decision_id"]]
        assert row["user_id"] == line["user_id"] and row["model"] == line["model"] == "layered/1"
        assert [one["item_id"] for one in row["items"]] == [one["item_id"] for one in line["items"]]
        assert [one["position"] for one in row["items"]] == list(range(1, len(line["items"]) + 1))
        assert {one["propensity"] for one in row["items"]} <= {1.0} and row["propensity"] == 1.0
        assert row["holdout"] == line.get("holdout", False) and row["stage"] == line["stage"]
    for format in ("csv", "parquet", "json"):
        assert run(["recommend", "-w", "w", "--log", "--format", format, "--out", f"lists.{format}"]) == 0
    read_back = {
        "csv": pl.read_csv("lists.csv")["decision_id"],
        "parquet": pl.read_parquet("lists.parquet")["decision_id"],
        "json": pl.read_json("lists.json")["decision_id"],
    }
    known = stored(shop.home)["decision_id"]
    assert all(ids.is_in(known.implode()).all() and ids.n_unique() == 50 for ids in read_back.values())
    assert known.n_unique() == 200
    assert shop.recommend(["u1"], log=True)["decision_id"].n_unique() == 1
    assert "decision_id" not in shop.recommend(["u1"]).columns
    assert stored(shop.home).height == 201


def test_the_past_is_not_served(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend", "-w", "w", "--log", "--as-of", "2026-05-01"]) == 2
    assert "lists as of another moment are not" in capsys.readouterr().err
    assert run(["recommend", "-w", "w", "--wait", "3"]) == 2
    with pytest.raises(UsageError):
        shop.recommend(as_of="2026-05-01", log=True)
    assert not tables.exists(shop.home, NAME)


def test_nothing_leaves_that_could_not_be_logged(
    shop: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.Table, "commit", full)
    assert run(["recommend", "-w", "w", "--log"]) == 74
    assert run(["recommend", "-w", "w", "--log", "--out", "lists.jsonl"]) == 74
    assert capsys.readouterr().out == "" and not Path("lists.jsonl").exists()
    monkeypatch.undo()
    assert stored(shop.home).height == 0 and tables.orphans(shop.home) == []


def test_who_may_not_be_measured_is_not_logged(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    shop.privacy.optout(["u1"])
    shop.privacy.say(["u2"], "objected", ["analytics"])
    shop.privacy.say(["u3"], "objected", ["personalization"])
    shop.privacy.forget(["u4"], retrain=False)
    capsys.readouterr()
    whole = ["recommend", "-w", "w", "--log", *(word for n in range(1, 6) for word in ("--user", f"u{n}"))]
    assert run(whole) == 0
    told = capsys.readouterr()
    lines = {line["user_id"]: line for line in map(json.loads, told.out.splitlines())}
    assert "3 of 5 lists are not logged: analytics do not cover these people" in told.err
    rows = {row["user_id"]: row for row in stored(shop.home).to_dicts()}
    assert set(rows) == {"u3", "u5"} == {who for who, line in lines.items() if "decision_id" in line}
    assert rows["u3"]["stage"] == "generic" and rows["u3"]["context"] is None and lines["u3"]["consent"] is False
    assert lines["u4"]["items"]  # served as a stranger


def test_forgotten_expired_and_handed_out(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    shop.recommend(log=True)
    later = event("u1", "identify", "", NOW, anon_id="u2")
    Path("link.jsonl").write_text(json.dumps({k: v for k, v in later.items() if v}) + "\n")
    shop.ingest("link.jsonl")
    shop.privacy.access("u1", "mine.zip")
    import zipfile

    with zipfile.ZipFile("mine.zip") as handed:
        held = json.loads(handed.read(next(name for name in handed.namelist() if name.endswith("other_tables.json"))))
    theirs = held["decisions"] if "decisions" in held else next(iter(held.values()))["decisions"]
    assert {row["user_id"] for row in theirs} == {"u1", "u2"} and theirs[0]["items"]
    Path("mine.zip").unlink()
    assert run(["decisions", "show", "-w", "w", "--user", "u2"]) == 0
    shown = [json.loads(line)["user_id"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(shown) == ["u1", "u2"]  # both ids are one person
    shop.privacy.forget(["u1"], retrain=False)
    assert {"u1", "u2"}.isdisjoint(stored(shop.home)["user_id"]) and stored(shop.home).height == 48
    Path("link.jsonl").unlink()
    assert shop.privacy.verify_erasure(["u1"]) == []
    now = datetime.now(UTC)
    log(shop.home, pl.DataFrame({"user_id": ["u9"]}), at=months_before(now, 14))
    due = [one for one in plan(shop.home).due if one.what == NAME]
    assert [(one.rows, one.whole) for one in due] == [(1, True)]
    assert shop.privacy.expire().removed[NAME] == 1
    assert stored(shop.home).height == 48


def test_people_are_who_they_are_by_the_links(shop: Workspace) -> None:
    log(shop.home, pl.DataFrame({"user_id": ["phone"], "items": [[item("i1")]]}, schema_overrides=LISTS), at=NOW)
    done = [
        {"user_id": "u7", "anon_id": "phone", "event_type": "identify", "timestamp": (NOW + DAY).isoformat()},
        event("u7", "purchase", "i1", NOW + 2 * DAY),
    ]
    Path("more.jsonl").write_text("".join(json.dumps(one) + "\n" for one in done))
    shop.ingest("more.jsonl")
    found = join(shop.home).decisions.to_dicts()
    assert [(one["user_id"], one["conversions"], one["conversion_seconds"]) for one in found] == [("u7", 1, 172_800.0)]
    assert join(shop.home, as_of=NOW + DAY).decisions["user_id"].to_list() == ["phone"]  # not known yet
    assert join(shop.home, since=NOW + DAY).decisions.height == 0


DAY = timedelta(days=1)
LISTS = {"items": TYPES["items"]}


def item(name: str) -> dict[str, Any]:
    return {"item_id": name, "position": 1, "propensity": 1.0}


def figures(people: int, clicks: int, *, tracked: bool, exposed: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            **dict.fromkeys((name for name in OF_DECISION if name not in ("user_id", "holdout")), "x"),
            "user_id": [f"u{n}" for n in range(people)],
            "holdout": False,
            "tracked": tracked,
            "exposed": [n < exposed for n in range(people)],
            "clicks": [2 if n < clicks else 0 for n in range(people)],
            "conversions": 0,
            "negatives": 0,
            "bounced": [n % 2 == 0 if n < clicks else None for n in range(people)],
            "click_seconds": [3600.0 * n if n < clicks else None for n in range(people)],
            "conversion_seconds": pl.Series([None] * people, dtype=pl.Float64),
        }
    )


def test_rates_with_their_intervals() -> None:
    row = rates(figures(100, 30, tracked=False, exposed=10)).to_dicts()[0]
    assert (row["per"], row["decisions"], row["people"], row["click"]) == ("delivered", 100, 100, 0.3)
    assert (round(row["click_low"], 4), round(row["click_high"], 4)) == (0.2189, 0.3958)  # Wilson: 30 of 100
    assert row["bounce"] == 0.5 and row["click_hours"] == 14.5 and row["conversion"] == 0.0
    row = rates(figures(100, 30, tracked=True, exposed=60)).to_dicts()[0]
    assert (row["per"], row["decisions"], row["click"]) == ("impression", 60, 0.5)


def test_no_figures_of_fewer_than_twenty_people() -> None:
    row = rates(figures(19, 19, tracked=False, exposed=0)).to_dicts()[0]
    assert {name for name, value in row.items() if value is not None} == {
        "surface", "policy", "model", "stage", "holdout", "per",
    }  # fmt: skip
    row = rates(figures(20, 19, tracked=False, exposed=0)).to_dicts()[0]
    assert row["click"] == 0.95 and row["bounce"] is None and row["click_hours"] is None  # 19 clicked


def test_the_commands(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decisions", "join", "-w", "w"]) == 66
    assert "no decisions are logged yet" in capsys.readouterr().err
    shop.recommend(log=True)
    assert run(["decisions", "join", "-w", "w", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)
    assert {(one["surface"], one["policy"], one["model"], one["per"]) for one in groups} == {
        ("recommend", "ranking", "layered/1", "delivered")
    }
    assert run(["decisions", "join", "-w", "w", "--per", "item", "--format", "parquet", "--out", "items.parquet"]) == 0
    assert pl.read_parquet("items.parquet").height == stored(shop.home)["items"].list.len().sum()
    assert run(["decisions", "join", "-w", "w", "--since", "2100-01-01", "--per", "decision", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    one = stored(shop.home)["decision_id"][0]
    assert run(["decisions", "show", "-w", "w", one]) == 0
    assert json.loads(capsys.readouterr().out)[0]["decision_id"] == one
    for words, code in ((["0" * 32], 66), ([], 2), ([one, "--user", "u1"], 2)):
        assert run(["decisions", "show", "-w", "w", *words]) == code
    assert run(["decisions", "show", "-w", "w", "--surface", "recommend", "--limit", "2", "--format", "table"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert run(["sql", "-w", "w", "SELECT count(*) AS n FROM decisions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 50}]
