"""persona privacy scan as a shell sees it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from persona_cli.cli.main import run

CLEAN = {"user_id": "u1", "event_type": "click", "item_id": "i1", "timestamp": "2026-01-05T10:00:00Z"}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("clean.jsonl").write_text(json.dumps(CLEAN) + "\n")
    Path("dirty.jsonl").write_text(json.dumps(CLEAN | {"user_id": "jo@example.com"}) + "\n" + json.dumps(CLEAN) + "\n")


def test_nothing_found_is_0_and_something_10(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["privacy", "scan", "clean.jsonl"]) == 0
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "nothing found" in shown.err
    assert run(["privacy", "scan", "dirty.jsonl"]) == 10
    shown = capfd.readouterr()
    assert [line.split()[:7] for line in shown.out.splitlines()] == [
        ["table", "field", "kind", "values", "rows", "share", "sure"],
        ["events", "user_id", "email", "1", "1", "50.00%", "high"],
    ]
    assert "persona privacy pseudonymize FILE" in shown.err
    assert not Path("persona-workspace").exists()


def test_files_without_a_record_or_an_empty_workspace_are_66(capfd: pytest.CaptureFixture[str]) -> None:
    Path("empty.jsonl").write_text("")
    assert run(["privacy", "scan", "empty.jsonl"]) == 66
    assert run(["privacy", "scan", "absent.jsonl"]) == 66
    assert run(["privacy", "scan"]) == 66
    assert run(["init", "w"]) == 0
    assert run(["-w", "w", "privacy", "scan"]) == 66
    assert "nothing to scan" in capfd.readouterr().err


def test_json_has_its_shape(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["privacy", "scan", "dirty.jsonl", "--json"]) == 10
    found = json.loads(capfd.readouterr().out)
    assert found["rows"] == found["of"] == {"events": 2}
    (one,) = found["findings"]
    assert one | {"advice": "", "example": ""} == {
        "table": "events", "field": "user_id", "kind": "email", "values": 1, "exact": True, "rows": 1, "share": 0.5,
        "sure": "high", "example": "", "advice": "",
    }  # fmt: skip
    assert run(["privacy", "scan", "clean.jsonl", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["findings"] == []


def test_min_share_and_sample_narrow_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["privacy", "scan", "dirty.jsonl", "--min-share", "0.6"]) == 0
    assert run(["privacy", "scan", "dirty.jsonl", "--min-share", "0.5"]) == 10
    assert run(["privacy", "scan", "dirty.jsonl", "--sample", "5", "--all"]) == 2
    capfd.readouterr()
    assert run(["privacy", "scan", "clean.jsonl", "dirty.jsonl", "--sample", "1", "--json"]) == 10
    assert json.loads(capfd.readouterr().out)["rows"] == {"events": 2}


def test_files_are_read_as_ingest_reads_them(capfd: pytest.CaptureFixture[str]) -> None:
    Path("calls.csv").write_text("who,what,when\njo@example.com,click,2026-01-05\n")
    maps = ["--map", "user_id=who", "--map", "event_type=what", "--map", "timestamp=when"]
    assert run(["privacy", "scan", "calls.csv", *maps]) == 10
    assert run(["privacy", "scan", "calls.csv"]) == 65
    Path("users.csv").write_text("user_id,email\nu1,jo@example.com\n")
    assert run(["privacy", "scan", "--kind", "users", "users.csv"]) == 10
    assert run(["privacy", "scan", "--kind", "users"]) == 2
