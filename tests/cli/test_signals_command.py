"""`persona signals`: the commands as a shell sees them, after a real ingest."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_cli.cli.main import run
from persona_cli.reports import charts


def lines() -> list[dict[str, Any]]:
    """400 looks of 25 people: a click on a card leads to a view, and a dwell says how long it lasted."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for k in range(400):
        idle = rng.random() < 0.3
        seconds = float(max(np.rint(np.exp(rng.normal(np.log(900 if idle else 40), 0.5))), 1))
        begin = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=k)
        of = {"user_id": f"u{k % 25}", "item_id": f"i{k % 7}"}
        rows.append(of | {"event_type": "click", "timestamp": begin.isoformat()})
        rows.append(of | {"event_type": "view", "timestamp": (begin + timedelta(seconds=2)).isoformat()})
        end = begin + timedelta(seconds=2 + seconds)
        rows.append(of | {"event_type": "dwell", "value": seconds, "timestamp": end.isoformat()})
    return [*rows, rows[0] | {"event_type": "share", "timestamp": "2026-03-02T00:30:00Z"}]


@pytest.fixture
def shop(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["init", "--quiet", "shop"]) == 0
    (elsewhere / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines()))
    assert run(["ingest", "--quiet", "-w", "shop", "events.jsonl"]) == 0
    monkeypatch.setenv("PERSONA_WORKSPACE", "shop")
    capsys.readouterr()
    return elsewhere / "shop"


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_fit_says_what_seconds_mean_and_is_in_force(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["signals", "show"]) == 0
    assert "Nothing is fitted yet: a dwell counts in full" in capsys.readouterr().out
    before = asked(capsys, "profile", "show", "u0")["top_items"]
    assert run(["signals", "fit"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    first, *rest = err.splitlines()
    assert first.startswith("Of 400 dwell events: median engaged reading ")
    assert "a tab is idle" in first and "of the page time is idle." in first
    assert rest[-1].startswith("version 1 is in force; profiles rebuilt (signals")
    after = asked(capsys, "profile", "show", "u0")["top_items"]
    assert sum(item["strength"] for item in after) < sum(item["strength"] for item in before)
    assert run(["signals", "fit"]) == 0
    assert "version 1 was in force already: nothing new; profiles unchanged" in capsys.readouterr().err


def test_as_json(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "signals", "fit")
    dwell = found["dwell"]
    assert (found["new"], found["histories"], dwell["events"], dwell["resolution"]) == (True, "rebuilt", 400, 1.0)
    assert [part["role"] for part in dwell["components"]] == ["engaged", "idle"]
    assert dwell["engaged_median"] == pytest.approx(40, rel=0.15)
    assert 100 < dwell["idle_from"] < 500
    shown = asked(capsys, "signals", "show")
    assert shown["dwell"] == dwell
    of = {row["signal"]: row for row in shown["signals"]}
    assert (of["dwell"]["events"], of["dwell"]["note"]) == (400, "by the chance of reading")
    assert (of["share"]["strength"], of["share"]["events"], of["share"]["note"]) == (1.0, 1, "signals.other")
    # After each view nothing else is looked at in the same session.
    assert asked(capsys, "signals", "fit", "--from", "gaps")["dwell"] is None


def test_minimum_evidence_is_named(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_SIGNALS_MINIMUM", "{share = 2, view = 400}")
    notes = {row["signal"]: (row["enough"], row["note"]) for row in asked(capsys, "signals", "show")["signals"]}
    assert notes["share"] == (False, "signals.other; counts nothing: the last fit saw 0 of 2")
    assert notes["view"][1].endswith("saw 0 of 400; there are enough now: persona signals fit")
    asked(capsys, "signals", "fit")
    notes = {row["signal"]: (row["enough"], row["note"]) for row in asked(capsys, "signals", "show")["signals"]}
    assert notes["share"][1].endswith("saw 1 of 2")
    assert notes["view"] == (True, "")
    monkeypatch.setenv("PERSONA_SIGNALS_MINIMUM", "{'rating>=4' = 2}")
    assert run(["signals", "show"]) == 78
    assert "an event type, not a comparison" in capsys.readouterr().err


def test_centred_ratings_are_said_and_fitted(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"user_id": f"u{n}", "item_id": f"i{k}", "event_type": "rating", "value": 1 + (n + 2 * k) % 5,
         "timestamp": f"2026-03-04T10:{k:02d}:00Z"}
        for n in range(25) for k in range(4)
    ]  # fmt: skip
    (shop.parent / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["ingest", "--quiet", "ratings.jsonl"]) == 0
    assert run(["signals", "show"]) == 0
    assert "from the user's" not in capsys.readouterr().out
    (shop / "persona.toml").write_text("signals.center_ratings = true\n")
    assert run(["signals", "show"]) == 0
    before = capsys.readouterr().out
    assert "Ratings count by their distance from the user's own mean: too few are fitted" in " ".join(before.split())
    assert "by the distance from the user's mean" in " ".join(before.split())
    fitted = asked(capsys, "signals", "fit")
    values = [row["value"] for row in rows]
    assert fitted["ratings"]["mean"] == pytest.approx(np.mean(values)) and fitted["histories"] == "rebuilt"
    assert run(["signals", "show"]) == 0
    assert "it is drawn to the mean of all, 3.00, as if by" in " ".join(capsys.readouterr().out.split())


def test_navigation(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["signals", "navigation", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["from,to,n,users", "(click),(view),400,25"]
    assert err == "1 other transitions were made by fewer than 20 users and are not shown\n"
    assert asked(capsys, "signals", "navigation", "--user", "u1") == [{"from": "(click)", "to": "(view)", "n": 16}]
    assert run(["sql", "SELECT n FROM navigation", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ["n", "400"]


def test_the_page_with_and_without_the_extra(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked(capsys, "signals", "fit")
    assert run(["signals", "show", "--html", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 1 and "median seconds" in page and "<script" not in page
    monkeypatch.setattr(charts.importlib, "import_module", without)
    assert run(["signals", "show", "--html", "plain.html"]) == 0
    plain = (tmp_path / "plain.html").read_text()
    assert "<svg" not in plain and "persona-cli[report]" in plain and "median seconds" in plain


def without(name: str, imported: Callable[[str], Any] = importlib.import_module) -> Any:
    if name.startswith("persona_cli"):
        return imported(name)
    raise ImportError(name)


def test_no_events_and_no_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSONA_WORKSPACE", raising=False)
    assert run(["signals", "show"]) == 66
    assert run(["init", "--quiet", "empty"]) == 0
    assert run(["signals", "fit", "-w", "empty"]) == 66
    assert run(["signals", "navigation", "-w", "empty"]) == 0


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, persona_cli.cli.signals; print([m for m in ('numpy', 'polars', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
