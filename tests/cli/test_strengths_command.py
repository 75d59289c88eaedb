"""`strengths`: a table and lines for people, one object for programs, sentences where nothing can be learned."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_cli import Workspace
from persona_cli.cli.main import run

START = datetime(2026, 1, 1, tzinfo=UTC)
TABLE = "[signals.strengths]\nview = 1\nadd_to_cart = 0.1\npurchase = 5\n"


@pytest.fixture
def workspace(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Users of eight tastes put into the cart and buy what they like, and view whatever there is."""
    monkeypatch.setattr("persona_cli.feedback.strengths.GRID", (0.0, 0.1, 1.0))
    monkeypatch.setattr("persona_cli.feedback.strengths.HALF_LIVES", ())
    draws = np.random.default_rng(0)
    rows = []
    for user in range(300):
        for kind, n, telling in (("view", 10, 0.0), ("add_to_cart", 6, 1.0), ("purchase", 4, 0.7)):
            tastes = np.where(draws.random(n) < telling, user % 8, draws.integers(0, 8, n))
            for item, day in zip(tastes * 20 + draws.integers(0, 20, n), draws.uniform(0, 60, n), strict=True):
                moment = (START + timedelta(days=float(day))).isoformat()
                rows.append((f"u{user:03d}", kind, f"i{item:03d}", moment))
    columns = ["user_id", "event_type", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=columns, orient="row").write_ndjson(elsewhere / "events.jsonl")
    assert run(["init"]) == 0
    settings = elsewhere / "persona-workspace" / "persona.toml"
    text = settings.read_text()
    settings.write_text(text[: text.index("[signals.strengths]")] + TABLE)
    assert run(["ingest", "events.jsonl"]) == 0
    return settings


def test_people_get_a_table_and_lines_that_the_settings_file_takes(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = workspace.read_text()
    capsys.readouterr()
    assert run(["strengths"]) == 0
    shown = capsys.readouterr().out
    (view,) = (line.split() for line in shown.splitlines() if line.startswith("view  "))
    assert view[1:3] == ["3,000", "300"] and view[3] == "1" and float(view[4]) <= 0.1 and view[-1] == "learned"
    assert "Target purchase: the strongest one declared (5)" in shown and "kept: no clear gain" in shown
    assert workspace.read_text() == before, "nothing is written"
    lines = shown[shown.index("[signals") :]
    learned = tomllib.loads(lines)["signals"]["strengths"]
    assert list(learned) == ["view", "add_to_cart", "purchase"] and learned["view"] <= 0.1 < learned["add_to_cart"]
    workspace.write_text(before[: before.index("[signals.strengths]")] + lines)
    assert run(["strengths"]) == 0
    assert "Nothing is clearly better" in capsys.readouterr().out, "what was learned is kept"


@pytest.mark.usefixtures("workspace")
def test_programs_get_one_object_and_its_run_is_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["strengths", "--target", "purchase", "--model", "knn", "--set", "knn.neighbours=50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    interval = {"value", "low", "high"}
    assert set(document) == {
        *("target", "why", "model", "metric", "users", "cuts", "tried", "signals", "half_life_days"),
        *("declared", "learned", "gain", "settings", "toml", "notes"),
    }
    assert (document["target"], document["why"], document["model"]) == ("purchase", "as asked for", "knn")
    assert document["metric"] == "ndcg@20" and set(document["declared"]) == set(document["gain"]) == interval
    columns = {"event_type", "events", "users", "declared", "learned", "tried", "gain", "note"}
    assert all(set(one) == columns for one in document["signals"])
    assert set(document["half_life_days"]) == columns - {"event_type"}
    assert [one["event_type"] for one in document["signals"]] == ["view", "add_to_cart", "purchase"]
    assert set(document["cuts"][0]) == {"headline", "cut", "until", "users", "declared", "learned"}
    assert document["settings"]["signals.strengths"]["view"] <= 0.1
    assert document["gain"]["value"] == pytest.approx(document["learned"]["value"] - document["declared"]["value"])
    assert run(["runs", "show", "latest"]) == 0
    recorded = json.loads(capsys.readouterr().out)
    assert (recorded["command"], recorded["status"]) == ("strengths", "done")
    assert recorded["counts"]["users"] == document["users"] and "view" in recorded["counts"]["changed"]


@pytest.mark.usefixtures("workspace")
def test_spreadsheets_get_a_row_each_and_python_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["strengths", "--format", "csv", "--as-of", "2026-02-20"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = Workspace().strengths(as_of="2026-02-20")
    assert [row["event_type"] for row in rows] == [
        *(one.event_type for one in found.signals),
        "signals.half_life_days",
    ]
    assert [float(row["learned"]) for row in rows[:-1]] == [one.learned for one in found.signals]
    assert found.signals[0].events < 3000, "events from that day on do not exist"


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--target", "purchas"], 2, "did you mean 'purchase'?"),
        (["--model", "kn"], 2, "did you mean 'knn'?"),
        (["--model", "popular"], 2, "there is no model 'popular'"),
        (["--set", "signals.other=2"], 78, "persona.toml"),
        (["--as-of", "2026-01-01"], 66, "no events with an item"),
        (["--as-of", "2026-01-02"], 66, "too little is held out"),
        (["--json", "--format", "csv"], 2, "contradict"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["strengths", *words]) == code
    told = capsys.readouterr()
    assert told.out == "" and sentence in told.err and "Traceback" not in told.err


def test_one_event_type_alone_and_no_events(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pl.read_ndjson("events.jsonl").filter(pl.col("event_type") == "purchase")
    rows.write_ndjson("purchases.jsonl")
    assert run(["init", "other"]) == 0
    capsys.readouterr()
    assert run(["strengths", "--workspace", "other"]) == 66
    assert "no events with an item" in capsys.readouterr().err
    assert run(["ingest", "purchases.jsonl", "--workspace", "other"]) == 0
    assert run(["strengths", "--workspace", "other"]) == 66
    assert "nothing to weigh purchase against" in capsys.readouterr().err
