"""`measure --from`: words first, one document for programs, and refusals with exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_cli.cli.main import run


@pytest.fixture
def users(elsewhere: Path) -> Path:
    rng = np.random.default_rng(4)
    n = 3000
    arm = rng.permutation(np.arange(n) % 2)
    frame = pl.DataFrame(
        {"user": np.arange(n), "group": np.where(arm == 1, "new", "control"), "spent": rng.gamma(2 + arm, 1.0, n)}
    )
    frame.write_csv(elsewhere / "users.csv")
    return elsewhere / "users.csv"


ARGS = ["measure", "--from", "users.csv", "--unit", "user", "--variant", "group", "--value", "spent"]


def test_words_come_first(users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ARGS) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("1,500 : 1,500 units of control, new") and "as planned" in first
    assert second.startswith("spent: new +") and second.endswith("enough to ship")


def test_every_format_says_the_same(users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ARGS, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (metric,) = said["metrics"]
    assert said["srm"]["state"] == "ok" and said["words"][1] == metric["words"] and metric["verdict"] == "better"
    assert run([*ARGS, "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["relative"]) == metric["relative"]
    assert run([*ARGS, "--format", "md", "--out", "found.md"]) == 0
    assert metric["words"] in Path("found.md").read_text() and "| metric |" in Path("found.md").read_text()
    pl.read_csv("users.csv").write_ndjson("users.jsonl")
    pl.read_csv("users.csv").write_csv("users.tsv", separator="\t")
    for name in ("users.jsonl", "users.tsv"):
        assert run([*ARGS[:2], name, *ARGS[3:], "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == said


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--share", "control=0.6", "--share", "new=0.4"], 77, "not those planned"),
        (["--share", "control=0.5"], 2, "says nothing of new"),
        (["--share", "control=x", "--share", "new=1"], 2, "expected NAME=SHARE"),
        (["--kind", "medium"], 2, "no kind 'medium'"),
        (["--value", "spend"], 66, "did you mean 'spent'"),
        (["--peek", "open"], 2, "--planned"),
        (["--looks", "5"], 2, "give both"),
        (["--looks", "5", "--look", "2", "--peek", "open"], 2, "give one of them"),
        (["--looks", "5", "--look", "6"], 2, "look 6 of 5"),
        (["--looks", "5", "--look", "5", "--planned", "1000000"], 2, "look 5 of 5 comes after 80 %"),
        (["--control", "old"], 2, "no variant"),
    ],
)
def test_refusals(users: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, words: str) -> None:
    assert run([*ARGS, *more]) == code
    said = capsys.readouterr()
    assert words in said.err and not said.out


def test_broken_files_are_told(users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users.write_text("user,group,spent\n1,control,3\n2,new,much\n")
    assert run(ARGS) == 65
    assert "'much' in row 2" in capsys.readouterr().err
    assert run([*ARGS[:2], "nothing.csv", *ARGS[3:]]) == 66
    assert run(["measure", "--from", "users.csv"]) == 2
    users.rename("users.xlsx")
    assert run([*ARGS[:2], "users.xlsx", *ARGS[3:]]) == 2
