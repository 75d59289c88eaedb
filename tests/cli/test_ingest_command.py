"""persona ingest and quarantine as a shell sees them."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persona_cli.cli.main import run

EVENT = {"user_id": "u1", "event_type": "click", "item_id": "i1", "timestamp": "2026-01-05T10:00:00Z"}


@pytest.fixture(autouse=True)
def here(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield elsewhere


def write(name: str, *records: dict[str, Any] | str) -> str:
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    Path(name).write_text("".join(line + "\n" for line in lines))
    return name


def persona(capfd: pytest.CaptureFixture[str], *args: str, code: int = 0) -> tuple[str, str]:
    assert run(args) == code, capfd.readouterr()
    shown = capfd.readouterr()
    return shown.out, shown.err


def test_json_has_the_shape_others_rely_on(capfd: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", EVENT, {**EVENT, "user_id": "u2", "timestamp": "2026-01-06T00:00:00Z"}, "bad")
    out, err = persona(capfd, "ingest", "a.jsonl", "--json")
    shown = json.loads(out)
    assert list(shown)[:11] == [
        "read", "accepted", "duplicates", "rejected", "dropped", "users", "items", "first", "last", "seconds", "run",
    ]  # fmt: skip
    assert [shown[name] for name in list(shown)[:9]] == [
        3, 2, 0, 1, {}, 2, 1, "2026-01-05T10:00:00Z", "2026-01-06T00:00:00Z",
    ]  # fmt: skip
    assert "created the workspace" in err
    out, _ = persona(capfd, "runs", "show")
    manifest = json.loads(out)
    assert (manifest["id"], manifest["command"], manifest["status"]) == (shown["run"], "ingest", "done")
    assert manifest["counts"]["accepted"] == 2


def test_a_summary_for_people_is_not_data(capfd: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", EVENT, EVENT, "bad\x1b[31m")
    out, err = persona(capfd, "ingest", "a.jsonl")
    assert out == ""
    lines = err.splitlines()
    assert lines[1].startswith("3 lines: 2 new events, 0 duplicates, 1 rejected, ")
    assert lines[2] == "1 users, 1 items, 2026-01-05 10:00 – 2026-01-05 10:00 UTC"
    assert "  rejected 1 x not valid JSON (a.jsonl:3)" in lines
    assert lines[-1].startswith("take it back: persona ingest undo 20")
    out, err = persona(capfd, "ingest", "a.jsonl", "--quiet")
    assert (out, err) == ("", "")


def test_profiles_are_brought_up_to_date_unless_told_otherwise(capfd: pytest.CaptureFixture[str]) -> None:
    persona(capfd, "ingest", write("a.jsonl", EVENT))
    out, _ = persona(capfd, "profile", "show", "u1", "--json")
    assert json.loads(out)["events"] == 1
    persona(capfd, "ingest", write("b.jsonl", {**EVENT, "user_id": "u2"}), "--no-profiles")
    out, err = persona(capfd, "profile", "list", "--json")
    assert [row["user_id"] for row in json.loads(out)] == ["u1"]
    assert "behind" in err


def test_a_refused_file_exits_65_with_reasons(capfd: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", EVENT, *["bad"] * 30)
    out, err = persona(capfd, "ingest", "a.jsonl", "--json", code=65)
    assert out == ""
    assert "a.jsonl: 30 of 31 lines were rejected (96.8%)" in err
    assert "30 x not valid JSON" in err
    assert "hint: name the columns with --map" in err
    out, _ = persona(capfd, "ingest", "a.jsonl", "--max-rejected", "1.0", "--json")
    assert json.loads(out)["rejected"] == 30


def test_a_missing_file_makes_no_workspace(capfd: pytest.CaptureFixture[str], here: Path) -> None:
    _, err = persona(capfd, "ingest", "nowhere.jsonl", code=66)
    assert "nowhere.jsonl: no such file" in err
    assert list(here.iterdir()) == []


def test_a_dry_run_shows_the_mapping_and_makes_nothing(capfd: pytest.CaptureFixture[str], here: Path) -> None:
    Path("ratings.csv").write_text("userId,movieId,rating,timestamp\n7,10,4.5,1700000000\n")
    out, err = persona(capfd, "ingest", "ratings.csv", "--dry-run")
    assert "user_id     userId   (guessed)" in out
    assert "event_type  =rating   (guessed)" in out
    assert '"user_id": "7"' in out
    assert "dry run: nothing was stored" in err
    out, _ = persona(capfd, "ingest", "ratings.csv", "--dry-run", "--json")
    assert json.loads(out)[0]["mapping"]["item_id"] == "movieId"
    assert sorted(path.name for path in here.iterdir()) == ["ratings.csv"]


def test_standard_input_is_read_where_nothing_is_named(here: Path) -> None:
    command = [sys.executable, "-m", "persona_cli", "ingest", "--json"]
    done = subprocess.run(command, input=json.dumps(EVENT).encode(), capture_output=True, cwd=here, check=True)
    assert json.loads(done.stdout)["accepted"] == 1
    named = subprocess.run([*command, "-"], input=json.dumps(EVENT).encode(), capture_output=True, cwd=here, check=True)
    assert json.loads(named.stdout)["duplicates"] == 1


def test_no_input_on_a_terminal_is_a_usage_error(here: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "persona_cli", "ingest"]
        done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, cwd=here, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert "no input: name files or folders, or pipe lines in" in done.stderr
    assert list(here.iterdir()) == []


def test_undo_takes_back_the_latest_or_a_named_run(capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = persona(capfd, "ingest", write("a.jsonl", EVENT), "--json")
    first = json.loads(out)["run"]
    persona(capfd, "ingest", write("b.jsonl", {**EVENT, "user_id": "u2"}))
    out, _ = persona(capfd, "ingest", "undo", "latest", "--json")
    assert json.loads(out) == {"removed": 1}
    _, err = persona(capfd, "ingest", "undo", first)
    assert "took back 1 rows" in err
    _, err = persona(capfd, "ingest", "undo", first)
    assert "added nothing that is still there" in err
    _, err = persona(capfd, "ingest", "undo", code=2)
    assert "ingest undo takes one run, got 0" in err
    out, _ = persona(capfd, "sql", "SELECT count(*) AS n FROM events", "--json")
    assert json.loads(out) == [{"n": 0}]
    out, _ = persona(capfd, "runs", "list", "--json")
    assert [row["command"] for row in json.loads(out)].count("ingest undo") == 3


def test_a_file_called_undo_is_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = persona(capfd, "ingest", write("undo", EVENT), "--json")
    assert json.loads(out)["accepted"] == 1


def test_kinds_and_duplicates(capfd: pytest.CaptureFixture[str]) -> None:
    write("items.csv", "id,title", "a,One", "b,Two")
    out, _ = persona(capfd, "ingest", "--kind", "items", "items.csv", "--json")
    assert (json.loads(out)["accepted"], json.loads(out)["items"]) == (2, 2)
    given = {**EVENT, "event_id": "e1"}
    persona(capfd, "ingest", write("a.jsonl", given))
    persona(capfd, "ingest", write("b.jsonl", {**given, "value": 3}), "--on-duplicate", "error", code=65)
    _, err = persona(capfd, "ingest", "b.jsonl", "--on-duplicate", "keep-last")
    assert "0 new events, 1 duplicates (1 replaced)" in err


def test_quarantine_list_show_and_retry(capfd: pytest.CaptureFixture[str]) -> None:
    _, err = persona(capfd, "ingest", write("a.jsonl", EVENT))
    _, err = persona(capfd, "quarantine", "list")
    assert "the quarantine is empty" in err
    late = {"user_id": "u2", "event_type": "click", "sent": "2026-01-05"}
    write("b.jsonl", EVENT, late, "bad \x1b[31m line", "bad")
    persona(capfd, "ingest", "b.jsonl")
    out, _ = persona(capfd, "quarantine", "list", "--json")
    assert [(row["reason"], row["lines"], row["source"]) for row in json.loads(out)] == [
        ("not valid JSON", 2, "b.jsonl"), ("timestamp: missing or empty", 1, "b.jsonl"),
    ]  # fmt: skip
    out, _ = persona(capfd, "quarantine", "list", "--by", "kind", "--format", "csv")
    assert out.splitlines()[1].startswith("events,3,")
    _, err = persona(capfd, "quarantine", "list", "--by", "colour", code=2)
    assert "--by is 'colour'" in err
    out, _ = persona(capfd, "quarantine", "show", "--reason", "not valid JSON")
    assert "bad \\x1b[31m line" in out
    assert "\x1b" not in out
    _, err = persona(capfd, "quarantine", "retry", "--map", "timestamp=sent")
    assert "3 lines judged again: 1 new, 0 duplicates, 2 still rejected" in err
    out, _ = persona(capfd, "quarantine", "show", "--limit", "1", "--json")
    assert json.loads(out)[0]["line"] == 3
    out, _ = persona(capfd, "profile", "show", "u2", "--json")
    assert json.loads(out)["events"] == 1


def test_a_newer_state_of_a_file_and_back(capfd: pytest.CaptureFixture[str]) -> None:
    first, other = EVENT | {"event_id": "e1"}, EVENT | {"event_id": "e2"}
    persona(capfd, "ingest", write("day.jsonl", first, other))
    write("day.jsonl", first | {"item_id": "i2"}, EVENT | {"event_id": "e3"})
    out, _ = persona(capfd, "ingest", "day.jsonl", "--replace", "--json")
    shown = json.loads(out)
    assert {name: shown[name] for name in ("read", "accepted", "duplicates", "replaced", "withdrawn")} == {
        "read": 2, "accepted": 1, "duplicates": 1, "replaced": 1, "withdrawn": 1,
    }  # fmt: skip
    manifest = json.loads(persona(capfd, "runs", "show", shown["run"])[0])
    assert (manifest["counts"]["withdrawn"], manifest["counts"]["replaced"]) == (1, 1)
    _, err = persona(capfd, "ingest", write("other.jsonl", EVENT | {"event_id": "e9"}), "--replace")
    assert "other.jsonl: no event was stored under this name before" in err
    _, err = persona(capfd, "ingest", "undo", shown["run"])
    assert "took back 4 rows" in err  # e1 and e3 of the newer state, e1 and e2 of the older one
    out, _ = persona(capfd, "sql", "select event_id, item_id from events order by 1", "--format", "jsonl")
    assert [tuple(json.loads(line).values()) for line in out.splitlines()] == [
        ("e1", "i1"), ("e2", "i1"), ("e9", "i1"),
    ]  # fmt: skip
    _, err = persona(capfd, "ingest", "-", "--replace", code=2)
    assert "standard input has none" in err


@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_is_read_like_a_file(packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `persona ingest <(command)` gives it."""
    assert run(["init", "-q", "w"]) == 0
    line = b'{"user_id":"a","event_type":"click","item_id":"x","timestamp":"2026-03-01T12:00:00Z"}\n'
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(line) if packed else line,))
    writer.start()
    assert run(["ingest", str(pipe), "-w", "w"]) == 0
    writer.join()
    assert "1 lines: 1 new events" in capsys.readouterr().err
