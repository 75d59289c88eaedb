from __future__ import annotations

import json
from pathlib import Path

import pytest

from persona_cli.errors import CheckFailed, MissingInput, Refused, UsageError
from persona_cli.workspace import artifacts, runs
from persona_cli.workspace.home import Home, create


@pytest.fixture
def workspace(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


def only(workspace: Home) -> dict[str, object]:
    (found,) = runs.read_runs(workspace)
    return found


def test_a_run_is_recorded_while_it_runs_and_when_it_is_done(workspace: Home) -> None:
    with runs.recording(workspace, ["ingest", "events.jsonl"]) as run:
        run.counts["accepted"] = 3
        run.inputs["events.jsonl"] = "ab"
        assert only(workspace)["status"] == "running"
    recorded = only(workspace)
    assert recorded["status"] == "done" and recorded["exit_code"] == 0
    assert recorded["counts"] == {"accepted": 3} and recorded["inputs"] == {"events.jsonl": "ab"}
    assert recorded["command"] == "ingest" and recorded["arguments"] == ["ingest", "events.jsonl"]
    assert recorded["settings_digest"] == workspace.settings.digest()
    assert recorded["id"] == run.id and (workspace.path("runs") / f"{run.id}.json").exists()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused("user u1 did not consent"), "failed", 77),
        (CheckFailed("2 problems"), "done", 10),
        (ZeroDivisionError("u1"), "failed", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_how_a_run_ended_without_the_words_of_the_error(
    workspace: Home, error: BaseException, status: str, code: int
) -> None:
    with pytest.raises(type(error)), runs.recording(workspace, ["train"]):
        raise error
    recorded = only(workspace)
    assert (recorded["status"], recorded["exit_code"], recorded["error"]) == (status, code, type(error).__name__)
    assert "u1" not in json.dumps(recorded)


def test_a_run_whose_process_is_gone_reads_killed(workspace: Home) -> None:
    with runs.recording(workspace, ["train"]) as run:
        record = json.loads((workspace.path("runs") / f"{run.id}.json").read_text())
    runs.write_manifest(workspace, record | {"pid": 2**22 + 1})
    assert only(workspace)["status"] == "killed"
    (killed,) = runs.unmarked(workspace)
    runs.write_manifest(workspace, killed)
    assert only(workspace)["status"] == "killed" and runs.unmarked(workspace) == [], "marked once"
    runs.write_manifest(workspace, record | {"pid": 2**22 + 1, "host": "elsewhere"})
    assert only(workspace)["status"] == "running"


def test_ids_and_passwords_are_not_recorded(workspace: Home, tmp_path: Path) -> None:
    listed = tmp_path / "users.txt"
    listed.write_text("")
    digest = runs.digest_id(workspace, "u1")
    cases = {
        ("profile", "show", "u1", "--json"): ["profile", "show", digest, "--json"],
        ("recommend", "--users", "u1"): ["recommend", "--users", digest],
        ("recommend", "--users=u1"): ["recommend", f"--users={digest}"],
        ("recommend", "--users", str(listed)): ["recommend", "--users", str(listed)],
        ("recommend", "--users", "-"): ["recommend", "--users", "-"],
        ("ingest", "s3://me:secret@host/x"): ["ingest", "s3://me:***@host/x"],
        ("ingest", "https://h/x?token=abc&y=1"): ["ingest", "https://h/x?token=***&y=1"],
        ("sql", "SELECT 1 WHERE user_id='u1'"): ["sql", runs.digest_id(workspace, "SELECT 1 WHERE user_id='u1'")],
        ("ingest", "events.jsonl"): ["ingest", "events.jsonl"],
    }
    for command, expected in cases.items():
        assert runs.scrubbed(workspace, command) == expected
    assert runs.scrubbed(workspace, ["forget", "u1", "u2"], ids=["u1"]) == ["forget", digest, "u2"]


def test_a_digest_of_an_id_is_keyed_by_the_workspace(workspace: Home, tmp_path: Path, own_salts: None) -> None:
    other = create(tmp_path / "other")
    assert runs.digest_id(workspace, "u1") == runs.digest_id(workspace, "u1")
    assert runs.digest_id(workspace, "u1") != runs.digest_id(other, "u1")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["train", "--model", "ease"], "train"),
        (["profile", "show", "u1"], "profile show"),
        (["ingest", "undo", "r1"], "ingest undo"),
        (["ingest", "data"], "ingest"),
        ([], ""),
    ],
)
def test_the_name_of_a_command_ends_before_its_arguments(workspace: Home, words: list[str], command: str) -> None:
    with runs.recording(workspace, words) as run:
        assert run.command == command


def test_a_workspace_that_cannot_be_written_is_a_warning(
    workspace: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(artifacts, "write_text", refuse)
    with runs.recording(workspace, ["recommend"]) as run:
        run.counts["users"] = 1
    assert caplog.text.count("Read-only file system") == 1
    assert runs.read_runs(workspace) == []


def test_runs_are_listed_newest_first_and_found_by_their_beginning(workspace: Home) -> None:
    for name in ("20260101T000000-aaaaaa", "20260102T000000-bbbbbb", "20260102T000000-cccccc"):
        runs.write_manifest(workspace, {"id": name, "status": "done"})
    workspace.path("runs", "20260103T000000-broken.json").write_text("{")
    workspace.path("runs", "20260103T000000-list.json").write_text("[]")
    assert [run["id"][-6:] for run in runs.read_runs(workspace)] == ["cccccc", "bbbbbb", "aaaaaa"]
    assert runs.read_run(workspace, "20260101")["id"] == "20260101T000000-aaaaaa"
    with pytest.raises(UsageError, match="2 runs begin"):
        runs.read_run(workspace, "20260102")
    with pytest.raises(MissingInput, match="did you mean '20260101T000000-aaaaaa'"):
        runs.read_run(workspace, "20260101T000000-aaaaab")
