"""persona privacy requests, as a shell sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_cli.cli.main import run


def test_requests_are_noted_listed_extended_and_closed(
    films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = films(2)
    group = ["privacy", "requests"]
    assert run([*group, "-w", "w", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run([*group, "add", "-w", "w", "access", "u01", "--received", "2026-01-31", "--json"]) == 0
    late = json.loads(capsys.readouterr().out)
    assert late["due"] == "2026-02-28" and late["overdue"] is True
    assert run([*group, "add", "-w", "w", "erasure", "u00", "--json"]) == 0
    fresh = json.loads(capsys.readouterr().out)["id"]
    assert run([*group, "-w", "w"]) == 10
    shown = capsys.readouterr()
    assert late["id"] in shown.out and "1 overdue" in shown.err and "u01" not in shown.out
    assert run([*group, "extend", "-w", "w", fresh, "--reason", "three systems"]) == 0
    assert run([*group, "extend", "-w", "w", late["id"], "--reason", "three systems"]) == 2
    assert run([*group, "close", "-w", "w", late["id"], "--outcome", "answered by letter"]) == 0
    capsys.readouterr()
    assert run([*group, "list", "-w", "w", "--open", "--json"]) == 0
    left = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in left] == [fresh] and left[0]["reason"] == "three systems"
    assert run([*group, "add", "-w", "w", "acces", "u01"]) == 2
    texts = [path.read_text() for path in (*root.glob("runs/*.json"), root / "privacy" / "requests.jsonl")]
    assert not any("u01" in text for text in texts)
