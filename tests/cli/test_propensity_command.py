"""`train` and `score` with --model propensity."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_cli.cli.main import run

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def workspace(elsewhere: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        {"user_id": f"u{user:03d}", "event_type": "call", "timestamp": (START + timedelta(days=float(day))).isoformat()}
        for user in range(200)
        for day in rng.uniform(0, rng.uniform(20, 120), rng.integers(2, 25))
    ]
    pl.DataFrame(rows).write_ndjson(elsewhere / "events.jsonl")
    assert run(["init"]) == 0
    assert run(["ingest", "events.jsonl"]) == 0
    return elsewhere


def test_trained_and_scored(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["train", "--model", "propensity", "--event", "churn", "--within", "15d", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "propensity/1" and report["test"]["users"] == 200
    assert run(["score", "--model", "propensity"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "user_id,score" and len(lines) == 201
    (workspace / "some.csv").write_text("user_id\nu003\nstranger\n")
    assert run(["score", "some.csv", "--model", "propensity/1"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].startswith("u003,0.") and lines[1] == "stranger,"


@pytest.mark.usefixtures("workspace")
def test_what_is_missing_or_too_much_is_said() -> None:
    assert run(["train", "--model", "propensity"]) == 2
    assert run(["train", "--event", "churn"]) == 2
    assert run(["train", "--model", "propensity", "--model", "knn", "--event", "churn"]) == 2
    assert run(["train", "--model", "propensity", "--event", "churn", "--within", "200d"]) == 66
    assert run(["score", "--model", "propensity"]) == 66
    assert run(["score"]) == 2
