"""`persona compare` as a shell sees it: two evaluations that were run, and whether one is better."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_cli.cli.main import run

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def workspace(films: Callable[[int], Path]) -> Path:
    return films(60)


@pytest.fixture
def evaluated(workspace: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Two evaluations: knn with one neighbour, and with twenty. Their runs, the older one first."""
    for neighbours in ("1", "20"):
        words = ["evaluate", "-w", "w", "--model", "knn", "--k", "5", "--set", f"model.knn.neighbours={neighbours}"]
        assert run([*words, "--json"]) == 0
    runs = [json.loads(line)["run"] for line in capsys.readouterr().out.splitlines()]
    assert len(runs) == 2
    return runs


def answered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert run(["compare", "-w", "w", *words]) == code
    out, err = capsys.readouterr()
    return out, err


def test_json_says_what_was_compared_and_what_came_out(
    evaluated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = answered(capsys, *evaluated, "--json")
    found = json.loads(out)
    assert [found[side]["run"] for side in ("first", "second")] == evaluated
    assert (found["metric"], found["users"], found["same_exam"], err) == ("ndcg@5", 60, True, "")
    (row,) = found["comparisons"]
    assert row["verdict"] in ("better", "worse", "within noise") and row["margin"] == 0.01
    assert row["difference"]["value"] == pytest.approx(row["second"]["value"] - row["first"]["value"])
    assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
    assert row["changed"] == {"model.knn.neighbours": [1, 20]}
    assert len(found["conclusion"]) == 1


def test_models_of_one_run_by_name(evaluated: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    name = evaluated[1]
    out, _ = answered(capsys, f"{name}:popular", f"{name}:knn", "--margin", "2%", "--metric", "recall@5")
    assert "knn is better than popular: recall@5 +" in out
    assert max(map(len, out.splitlines())) <= 100
    other, _ = answered(capsys, f"{name}:knn", f"{name}:popular", "--metric", "recall@5")
    assert "popular is worse than knn: recall@5 -" in other


def test_records_for_spreadsheets(evaluated: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = answered(capsys, *evaluated, "--model", "knn", "--model", "popular", "--format", "csv", "--out", "c.csv")
    assert out == ""
    rows = list(csv.DictReader(io.StringIO(Path("c.csv").read_text())))
    assert [row["first_model"] for row in rows] == ["knn", "popular"]
    assert (rows[1]["difference"], rows[1]["verdict"], rows[1]["p"]) == ("0.0", "within noise", "1.0")


def test_another_exam_is_warned_of(evaluated: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "-w", "w", "--model", "knn", "--k", "5", "--split", "leave-last", "--json"]) == 0
    last = json.loads(capsys.readouterr().out)["run"]
    out, err = answered(capsys, evaluated[0], last)
    assert "warning: the two are not the same exam" in err and "time in the first, leave-last in the second" in err
    assert "NDCG@5" in out


def test_how_it_ends_when_it_cannot_go_on(evaluated: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = evaluated
    for words, code, said in (
        ([first, "1999"], 66, "there is no evaluation '1999'"),
        ([first, second, "--metric", "ndgc@5"], 2, "did you mean 'ndcg@5'?"),
        ([first, second, "--model", "knnn"], 2, "did you mean 'knn'?"),
        ([first, first], 2, "would be compared with itself"),
        ([first, second, "--margin", "much"], 2, "--margin is 'much'"),
        ([first, second, "--margin", "100%"], 2, "--margin is '100%'"),
    ):
        out, err = answered(capsys, *words, code=code)
        assert said in err and out == "", words


def test_a_workspace_without_evaluations(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = answered(capsys, code=66)
    assert "no evaluation is kept in this workspace" in err and "hint: persona evaluate" in err and out == ""
