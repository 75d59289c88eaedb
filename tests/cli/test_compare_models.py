"""`persona compare MODEL MODEL` as a shell sees it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_cli.cli.main import run


@pytest.fixture
def workspace(films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> Path:
    """The films of 60 users; knn is trained and served."""
    made = films(60)
    assert run(["train", "-w", "w", "--model", "knn"]) == 0
    capsys.readouterr()
    return made


def answered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert run(["compare", "-w", "w", *words]) == code
    out, err = capsys.readouterr()
    return out, err


def test_every_format(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = answered(capsys, "popular", "knn", "--json")
    found = json.loads(out)
    assert (found["first"]["model"], found["second"]["model"]) == ("popular/1", "knn/1")
    assert found["metric"] == "ndcg@20" and found["comparison"]["verdict"] in ("better", "worse", "within noise")
    assert found["second"]["users_per_second"] > 0 and found["second"]["bytes"] > 0
    out, err = answered(capsys, "popular", "knn", "--metric", "recall@5", "--html", "page.html", "--margin", "2%")
    assert "recall@5" in out and "page: page.html" in err and max(map(len, out.splitlines())) <= 100
    page = (workspace.parent / "page.html").read_text()
    assert "<h1>Two models</h1>" in page and "Jaccard" in page and "<script" not in page
    out, _ = answered(capsys, "popular", "knn", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert rows[0]["second_model"] == "knn/1" and rows[0]["group"] == "all"


def test_one_model_is_compared_with_what_is_served(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = answered(capsys, "popular", "--json")
    assert json.loads(out)["second"]["model"] == "layered/1"


def test_how_it_ends_when_it_cannot_go_on(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, said in (
        (["knn", "knn/1"], 2, "would be compared with itself"),
        (["knn", "eaze"], 2, "did you mean 'ease'?"),
        (["ease", "knn"], 66, "no ease model has been trained yet"),
        (["knn", "layered/9"], 66, "there is no model layered/9"),
        (["knn", "popular", "--metric", "ndgc@20"], 2, "did you mean 'ndcg@20'?"),
        (["knn", "popular", "--model", "knn"], 2, "FIRST and SECOND are the models already"),
        (["knn", "popular", "--margin", "much"], 2, "--margin is 'much'"),
    ):
        out, err = answered(capsys, *words, code=code)
        assert said in err and out == "", words


def test_evaluations_have_a_page_too(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "-w", "w", "--model", "knn", "--k", "5"]) == 0
    answered(capsys, "latest:popular", "latest:knn", "--html", "page.html")
    assert "<h1>Two evaluations</h1>" in (workspace.parent / "page.html").read_text()
