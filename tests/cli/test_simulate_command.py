"""`persona simulate` as a shell sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from persona_cli.cli.main import run

SMALL = ("--users", "60", "--runs", "40")


@pytest.fixture
def workspace(films: Callable[[int], Path]) -> Path:
    return films(60)


def answered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert run(["simulate", *words, "-w", "w"]) == code
    out, err = capsys.readouterr()
    return out, err


def test_every_kind_and_format(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ab = ("ab", "--a", "popular", "--b", "knn", *SMALL)
    out, err = answered(capsys, *ab, "--json", "--threads", "1")
    found = json.loads(out)
    assert (found["kind"], found["a"], found["b"], found["metric"]) == ("ab", "popular", "knn", "clicks")
    assert found["truth"]["difference"] > 0  # two tastes: knn knows them
    assert found["people"]["users"] == 60 and found["people"]["visits"] > 1
    assert "stated defaults" in err and "0 lists with 0 clicks are logged" in err
    assert answered(capsys, *ab, "--json", "--threads", "2")[0] == out
    answered(capsys, *ab, "--format", "parquet", "--out", "runs.parquet")
    rows = pl.read_parquet("runs.parquet")
    assert rows["run"].to_list() == list(range(1, 41))
    assert rows["difference"].mean() == pytest.approx(found["estimate"]["mean"])
    for words, said in (
        (("aa", "--a", "knn"), "Where nothing differs, "),
        (("interleave", "--a", "popular", "--b", "knn"), "Interleaving (team-draft) needs "),
        (("bandit", "--a", "popular", "--b", "knn"), "Over 60 users the bandit (thompson) loses "),
    ):
        out, _ = answered(capsys, *words, *SMALL)
        assert said in out and "time split: " in out


def test_a_page_with_charts(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("altair")
    for words in (
        ("ab", "--a", "popular", "--b", "knn"),
        ("bandit", "--a", "popular", "--b", "knn"),
        ("aa", "--a", "knn"),
    ):
        _, err = answered(capsys, *words, *SMALL, "--html", "page.html")
        page = Path("page.html").read_text()
        assert "page: page.html" in err and page.count("<svg") == 2 and "<script" not in page


def test_one_sentence_where_it_cannot_go_on(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, said in (
        (("ab", "--a", "knn", "--b", "knn"), 2, "A and B are the same model, knn"),
        (("ab", "--a", "knn", "--b", "eaze"), 2, "did you mean 'ease'?"),
        (("ab", "--a", "knn"), 2, "ab needs a second model"),
        (("aa", "--a", "knn", "--b", "ease"), 2, "--b cannot apply"),
        (("aa", "--a", "latest"), 66, "no model has been trained yet"),
        (("aa", "--a", "knn", "--users", "5"), 2, "expected at least 20"),
        (("aa", "--a", "knn", "--method", "balanced"), 2, "aa interleaves none"),
        (("aa", "--a", "knn", "--floor", "0.1"), 2, "aa has fixed shares"),
        (("aa", "--a", "knn", "--base", "0.6"), 2, "a base rate of 0.6"),
    ):
        out, err = answered(capsys, *words, code=code)
        assert out == "" and said in err and "Traceback" not in err
    assert run(["init", "empty"]) == 0
    assert run(["simulate", "aa", "--a", "knn", "-w", "empty"]) == 66
    assert "there are no users to simulate" in capsys.readouterr().err


def test_too_few_people_with_something_new(films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    films(12)
    out, err = answered(capsys, "aa", "--a", "knn", code=66)
    assert out == "" and "too few held-out events: 12 users have " in err and "needs 20 with 50" in err
