"""persona privacy retention and expire as a shell sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from persona_cli.cli.main import run


def events(path: Path) -> str:
    lines = [
        {"user_id": f"u{user}", "event_type": "click", "item_id": "i", "timestamp": f"{year}-06-01T00:00:00Z"}
        for user in range(3)
        for year in (2019, 2020, 2026)
        if user or year < 2026
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def shop(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["init", "w"]) == 0
    assert run(["ingest", events(elsewhere / "a.jsonl"), "-w", "w"]) == 0
    capsys.readouterr()
    return elsewhere / "w"


def test_the_schedule_says_what_is_due(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["privacy", "retention", "--json", "-w", "w"]) == 0
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["events"]["kept"], rows["events"]["due"]) == ("25 months", 6)
    assert rows["quarantine"]["setting"] == "quarantine.retention_days"
    assert rows["decisions"]["kept"] == "13 months"
    assert run(["privacy", "retention", "-w", "w"]) == 0
    assert "privacy.retention.events_months" in capsys.readouterr().out


def test_a_dry_run_changes_nothing_and_nobody_is_asked_in_a_script(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in shop.rglob("*.parquet")}
    assert run(["privacy", "expire", "--dry-run", "-w", "w"]) == 0
    err = capsys.readouterr().err
    assert "3  events of 2019-06, without being read" in err
    assert "1  persons whose last event is among them" in err
    assert run(["privacy", "expire", "-w", "w"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert run(["privacy", "expire", "--dry-run", "--json", "-w", "w"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(one["part"], one["rows"]) for one in planned["due"]] == [("2019-06", 3), ("2020-06", 3)]
    assert before == {path: path.stat().st_mtime_ns for path in shop.rglob("*.parquet")}


def test_expired_is_gone_and_status_says_so(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "-w", "w"]) == 0
    assert "due        events are older than 25 months" in capsys.readouterr().out
    assert run(["privacy", "expire", "--yes", "--json", "-w", "w"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["removed"], done["persons"]) == ({"events": 6}, 1)
    assert run(["privacy", "expire", "--yes", "--json", "-w", "w"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == {}
    assert run(["status", "-w", "w"]) == 0
    assert "older than" not in capsys.readouterr().out
    assert run(["profile", "list", "--json", "-w", "w"]) == 0
    assert sorted(row["user_id"] for row in json.loads(capsys.readouterr().out)) == ["u1", "u2"]
    (manifest,) = [one for path in (shop / "runs").glob("*.json")
                   if (one := json.loads(path.read_text()))["counts"].get("removed") == {"events": 6}]  # fmt: skip
    assert manifest["command"] == "privacy expire"


def test_what_is_not_collected_is_told(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "w"]) == 0
    written = elsewhere / "w" / "persona.toml"
    written.write_text('[privacy.collect]\nprops = []\n[privacy.collect.coarsen]\ntimestamp = "day"\n')
    line = {"user_id": "u", "event_type": "click", "timestamp": "2026-06-01T10:00:00Z", "secret": "x"}
    (elsewhere / "a.jsonl").write_text(json.dumps(line) + "\n")
    capsys.readouterr()
    assert run(["ingest", "a.jsonl", "--json", "-w", "w"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["removed"] == {"props": 1, "timestamp_coarsened": 1}
    assert "removed before storing: 1 props, 1 timestamp coarsened" in told.err
    written.write_text('[privacy.collect]\nevents = ["event_id", "user_id"]\n')
    assert run(["ingest", "a.jsonl", "-w", "w"]) == 78
    assert "anon_id cannot be left out, since without the ids" in capsys.readouterr().err
