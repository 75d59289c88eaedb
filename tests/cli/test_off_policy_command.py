"""evaluate --off-policy, evaluate --surface and experiment what-if as commands: what they print, and how they end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from persona_cli.cli.main import run
from persona_cli.feedback.decisions import TYPES, log
from persona_cli.workspace.home import open_home

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def workspace(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """300 people in two variants; every second one of b clicks, nobody of a. 30 more were decided for by themselves."""
    assert run(["init", "w"]) == 0
    home = open_home(elsewhere / "w")
    clicks = []
    for surface, people in (("banner", 300), ("thin", 30)):
        rows = pl.DataFrame(
            {
                "user_id": [f"u{n:03d}" for n in range(people)],
                "variant": ["x:a" if n % 2 else "x:b" for n in range(people)],
                "propensity": [0.5] * people,
                "surface": [surface] * people,
            }
        )
        ids = log(home, rows.select(pl.col(name).cast(TYPES[name]) for name in rows.columns), at=AT)
        clicks += [
            {"user_id": f"u{n:03d}", "event_type": "click", "timestamp": (AT + timedelta(hours=1)).isoformat(),
             "decision_id": ids[n], "item_id": "one"}
            for n in range(0, people, 4)
        ]  # fmt: skip
    Path("events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in clicks))
    assert run(["ingest", "-w", "w", "events.jsonl"]) == 0
    capsys.readouterr()
    return elsewhere


def ends(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run([*words, "-w", "w"])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_arms(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ends(capsys, "evaluate", "--surface", "banner", "--json")
    assert code == 0 and err == ""
    told = json.loads(out)
    assert told["decisions"] == 300 and [one["name"] for one in told["policies"]] == ["x:a", "x:b"]
    first, second = told["policies"]
    assert (first["ips"]["value"], second["ips"]["value"]) == (0, pytest.approx(0.5))
    assert second["snips"]["value"] == pytest.approx(0.5) and second["logged"]["value"] == 0.25
    assert (second["ess"], second["largest"], second["mean_weight"]) == (150, 2, 1)
    code, out, _ = ends(capsys, "evaluate", "--surface", "banner")
    assert code == 0 and out.startswith("Always x:a: 0.00 %") and "so it does better" in out


def test_a_thin_log_is_refused_unless_forced(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ends(capsys, "evaluate", "--surface", "thin")
    assert (code, out) == (77, "") and "an effective sample of 15.0 of 30" in err and "--force" in err
    code, out, _ = ends(capsys, "evaluate", "--surface", "thin", "--force")
    assert code == 0 and "Always x:b" in out
    code, _, err = ends(capsys, "evaluate", "--surface", "banner", "--until", "2026-02-01")
    assert code == 66 and "no decision of 'banner'" in err
    code, _, err = ends(capsys, "evaluate", "--off-policy", "popular")
    assert code == 66 and "no list of 'recommend' is logged" in err


def test_what_if(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.toml").write_text('surface = "banner"\n[shares]\na = 0.25\nb = 0.75\n')
    code, out, err = ends(
        capsys, "experiment", "what-if", "new.toml", "--probabilities", "p.parquet", "--out", "told.json", "--json"
    )
    assert (code, out) == (0, "") and "300 logged decisions" in err
    told = json.loads(Path("told.json").read_text())
    assert told["policies"][0]["ips"]["value"] == pytest.approx(0.375)
    written = pl.read_parquet("p.parquet")
    assert written.columns == ["decision_id", "propensity", "probability", "reward"]
    assert sorted(set(written["probability"])) == [0.25, 0.75]
    Path("new.toml").write_text("[serve]\nport = 1\n")
    code, _, err = ends(capsys, "experiment", "what-if", "new.toml")
    assert code == 77 and "changes serve" in err
    code, _, err = ends(capsys, "experiment", "what-if", "gone.toml")
    assert code == 66 and "gone.toml is not there" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--surface", "banner", "--model", "ease"], "--model cannot apply"),
        (["--off-policy", "ease", "--choice", "--k", "5"], "--k, --choice cannot apply"),
        (["--since", "2026-01-01"], "add --off-policy MODEL or --surface NAME; --since cannot apply"),
        (["--force"], "--force cannot apply"),
        (["--surface", "banner", "--format", "csv"], "there are table and json"),
    ],
)
def test_options_that_could_do_nothing(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, _, err = ends(capsys, "evaluate", *words)
    assert code == 2 and said in err
