"""persona privacy status: one screen, and exit code 10 where something is overdue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.receipts import record
from persona_cli.consent.subjects import suppress
from persona_cli.privacy import recipients
from persona_cli.privacy.erasure import write_journal

COVERING = ["personalization", "analytics", "model_training"]


@pytest.fixture
def shop(films: Callable[[int], Path]) -> Workspace:
    return Workspace(films(6))


def _told(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["privacy", "status", "-w", "w", "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_quiet_workspace_has_nothing_overdue(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = _told(capsys)
    assert {one["purpose"]: one["permitted"] for one in found["purposes"]} == {
        "personalization": 6,
        "analytics": 6,
        "model_training": 6,
        "messaging": 0,
    }
    assert found["alarms"] == [] and found["last_scan"] is None
    assert run(["privacy", "status", "-w", "w"]) == 0
    assert "6 of 6 people permitted" in capsys.readouterr().out


def test_refusals_recipients_requests_and_scans_are_counted(
    shop: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    record(shop.home, ["u00"], COVERING, "objected")
    record(shop.home, ["u01"], ["personalization"], "paused")
    recipients.register(shop.home, "Mail house", "profiles", key_id="k1", domain="mail", ids="pseudonyms")
    suppress(shop.home, ["gone"], "R-1")
    due = shop.privacy.open_request("access", "u01").due
    assert run(["privacy", "scan", "-w", "w"]) == 0
    found = _told(capsys)
    assert (found["opted_out"], found["paused"], found["suppressed"]) == (1, 1, 1)
    assert {one["purpose"]: one["permitted"] for one in found["purposes"]}["personalization"] == 4
    assert (found["open_requests"], found["next_due"]) == (1, due.isoformat())
    assert found["recipients"]["Mail house"]["keys"] == ["k1"]
    assert found["last_scan"]["findings"] == 0
    assert run(["privacy", "status", "-w", "w"]) == 0
    assert "Mail house: 1 exports" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "words"), [("request", "overdue"), ("erasure", "not completed"), ("retention", "persona privacy expire")]
)
def test_what_is_overdue_is_exit_code_10(
    shop: Workspace, capsys: pytest.CaptureFixture[str], what: str, words: str
) -> None:
    if what == "request":
        shop.privacy.open_request("access", "u01", received="2026-01-02")
    elif what == "erasure":
        write_journal(shop.home, "R-0123456789ab", {"ids": ["u01"]})
    else:
        old = {"user_id": "u01", "event_type": "click", "timestamp": "2019-01-01T00:00:00Z"}
        Path("old.jsonl").write_text(json.dumps(old) + "\n")
        shop.ingest("old.jsonl")
    assert any(words in alarm for alarm in _told(capsys, 10)["alarms"])
    assert run(["privacy", "status", "-w", "w"]) == 10
    shown = capsys.readouterr()
    assert words in shown.err and "u01" not in shown.out + shown.err
