"""`persona evaluate` as a shell sees it: what is printed, in which shape, and how it ends."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona_cli.cli.main import run

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def workspace(films: Callable[[int], Path]) -> Path:
    return films(30)


def answered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert run(["evaluate", "-w", "w", *words]) == code
    out, err = capsys.readouterr()
    return out, err


def test_json_has_the_shape_that_others_rely_on(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = json.loads(answered(capsys, "--model", "knn", "--k", "3,5", "--json")[0])
    assert {"run", "split", "users", "models"} <= result.keys()
    assert result["users"] == 30 and result["split"]["kind"] == "time"
    assert [one["model"] for one in result["models"]] == ["knn", "popular", "recent-popular", "last-items", "random"]
    for one in result["models"]:
        for metric in ("recall", "ndcg", "precision", "map", "mrr", "hit_rate", "coverage", "novelty", "tie_share"):
            assert one["metrics"][f"{metric}@3"].keys() == {"value", "low", "high"}
        recall = one["metrics"]["recall@5"]
        assert 0 <= recall["low"] <= recall["value"] <= recall["high"] <= 1
    knn, popular, *_ = result["models"]
    assert knn["metrics"]["recall@5"]["low"] > popular["metrics"]["recall@5"]["high"]  # two tastes
    assert knn["lift"]["recall@5"]["low"] > 0
    kept = workspace / "evaluations" / result["run"]
    assert json.loads((kept / "result.json").read_text()) == result
    manifest = json.loads((workspace / "runs" / f"{result['run']}.json").read_text())
    assert manifest["status"] == "done" and manifest["counts"]["users"] == 30
    assert manifest["outputs"].keys() == {"result.json", "users.parquet"}


def test_people_read_the_split_first(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "-w", "w", "--model", "ease"]) == 0
    capsys.readouterr()
    out, err = answered(capsys)
    lines = out.splitlines()
    assert lines[0].startswith("time split: trained before 2026-01-")
    assert lines[1].startswith("30 users asked, ")
    assert sum(line.startswith("layered (ease)") for line in lines) >= 3  # each k, and beyond accuracy
    assert max(map(len, lines)) <= 100
    assert "by user: " in err
    assert run(["evaluate", "-w", "w", "-q", "--out", "page.txt"]) == 0
    assert Path("page.txt").read_text() == out and capsys.readouterr() == ("", "")


def test_flat_records_for_spreadsheets(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(answered(capsys, "--model", "knn", "--k", "5", "--format", "csv")[0])))
    assert {row["model"] for row in rows} == {"knn", "popular", "recent-popular", "last-items", "random"} and {
        row["k"] for row in rows
    } == {"5"}
    assert float(next(row["lift"] for row in rows if row["model"] == "knn" and row["metric"] == "ndcg")) > 0


def test_right_answers_of_a_file(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test.csv").write_text("user_id,item_id\nu00,f00\nu01,f01\nnobody,f02\nu00,missing\n")
    result = json.loads(answered(capsys, "--model", "knn", "--test", "test.csv", "--json")[0])
    assert result["split"]["kind"] == "test" and result["test_pairs"] <= 4
    manifest = json.loads((workspace / "runs" / f"{result['run']}.json").read_text())
    assert manifest["inputs"]["test.csv"] == hashlib.sha256(Path("test.csv").read_bytes()).hexdigest()
    assert any("have no event; they get the popular list" in note for note in result["notes"])


def test_the_holdout_section_is_there_when_asked_for(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = answered(capsys, "--model", "popular", "--holdout")
    assert "in the permanent holdout" in out and "not yet" in out
    assert "holdout" not in answered(capsys, "--model", "popular")[0]


def test_how_it_ends_when_it_cannot_go_on(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, said in (
        ([], 66, "no model has been trained yet"),
        (["--model", "eese"], 2, "did you mean 'ease'?"),
        (["--model", "ease/4"], 66, "no ease model has been trained yet"),
        (["--model", "ease", "--split", "sideways"], 2, "sideways"),
        (["--model", "ease", "--k", "0"], 2, "--k is '0'"),
        (["--model", "ease", "--k", "5,5"], 2, "--k is '5,5'"),
        (["--model", "ease", "--set", "model.ease.lambada=3"], 78, "model.ease.lambada"),
        (["--model", "ease", "--test", "no.csv"], 66, "no.csv"),
        (["--model", "ease", "--test", "no.csv", "--split", "time"], 2, "give one of them"),
        (["--model", "ease", "--no-refit"], 66, "no ease model has been trained yet"),
        (["--model", "ease", "--as-of", "2020-01-01"], 66, "no events before 2020-01-01"),
        (["--model", "ease", "--as-of", "soon"], 2, "soon"),
    ):
        out, err = answered(capsys, *words, code=code)
        assert said in err and out == "", words
    assert not (workspace / "evaluations").exists()
    assert run(["train", "-w", "w", "--model", "knn"]) == 0
    capsys.readouterr()
    out, err = answered(capsys, "--no-refit", code=66)
    assert "no event is later than what layered/1, popular/1 was trained on" in err and out == ""


def test_a_workspace_without_events(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "w"]) == 0
    capsys.readouterr()
    out, err = answered(capsys, "--model", "ease", code=66)
    assert "no events to evaluate on" in err and "persona ingest FILE" in err and out == ""


def test_several_cuts_slices_other_libraries_and_a_random_split(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "knn", "--k", "5", "--cuts", "3", "--slice", "events >= 2", "--compat", "all", "--inflation"]
    result = json.loads(answered(capsys, *words, "--json")[0])
    assert [cut["headline"].partition(":")[0] for cut in result["cuts"]] == [
        f"time split, cut {number} of 3" for number in (1, 2, 3)
    ]
    assert {one["model"] for one in result["trend"]} == {one["model"] for one in result["models"]}
    (only,) = result["slices"]
    assert only["expression"] == "events >= 2" and 20 <= only["users"] <= result["users"]
    assert {one["library"] for one in result["compat"]} >= {"RecTools", "RePlay", "LensKit", "implicit"}
    assert result["inflation"]["metric"] == "ndcg@5" and result["inflation"]["random"] > 0
    assert result["leakage"]["leaked"] is False
    (against,) = result["comparisons"]
    assert against["model"] == "knn" and against["verdict"] == "better"


def test_a_slice_that_says_nothing_is_refused_by_name(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "devise" in answered(capsys, "--model", "knn", "--slice", "devise = 'mobile'", code=2)[1]
    assert "holds 0 of the 30 users" in answered(capsys, "--model", "knn", "--slice", "events > 999", code=2)[1]


def test_a_page_with_plots(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    err = answered(capsys, "--model", "knn", "--html", "page.html")[1]
    page = Path("page.html").read_text()
    assert "page: page.html" in err and page.startswith("<!DOCTYPE html>") and "<svg" in page and "knn" in page


def test_lists_of_anybody_without_a_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSONA_WORKSPACE", raising=False)
    Path("theirs.csv").write_text("user_id,item_id,rank\nu1,a,1\nu1,b,2\nu2,b,1\n")
    Path("ours.jsonl").write_text(
        '{"user_id":"u1","items":[{"item_id":"c","score":2.0},{"item_id":"b","score":1.0}]}\n'
    )
    Path("test.csv").write_text("user_id,item_id\nu1,b\nu2,b\nu3,z\n")
    words = ["evaluate", "--from", "theirs.csv", "--from", "ours.jsonl", "--test", "test.csv", "--k", "2", "--json"]
    assert run(words) == 0
    result = json.loads(capsys.readouterr().out)
    theirs, ours = result["models"]
    assert (theirs["model"], ours["model"], result["users"]) == ("theirs", "ours", 3)
    assert theirs["metrics"]["recall@2"]["value"] == pytest.approx(2 / 3)
    assert ours["metrics"]["mrr@2"]["value"] == pytest.approx(0.5 / 3)
    assert theirs["metrics"]["novelty@2"] is None  # nobody said who has what
    assert not list(tmp_path.glob("persona-workspace*"))


def test_lists_beside_the_baselines_of_a_workspace(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend", "-w", "w", "--include-holdout", "--model", "popular", "--out", "made.jsonl"]) in (0, 66)
    Path("theirs.csv").write_text("user_id,item_id,score\nu00,f00,2\nu00,f01,1\n")
    Path("test.csv").write_text("user_id,item_id\nu00,f00\nu01,f01\n")
    capsys.readouterr()
    result = json.loads(answered(capsys, "--from", "theirs.csv", "--test", "test.csv", "--k", "5", "--json")[0])
    names = [one["model"] for one in result["models"]]
    assert names == ["theirs", "popular", "recent-popular", "last-items", "random"]
    assert (workspace / "evaluations" / result["run"] / "result.json").is_file()


@pytest.mark.parametrize("words", [["--split", "time"], ["--model", "knn"], ["--cuts", "2"], ["--no-refit"]])
def test_lists_take_no_options_of_models(workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    Path("theirs.csv").write_text("user_id,item_id\nu00,f00\n")
    err = answered(capsys, "--from", "theirs.csv", "--test", "theirs.csv", *words, code=2)[1]
    assert f"without a model; {words[0]} cannot apply" in err


def test_lists_that_hold_what_was_not_born_fail_with_the_reason(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file was made with the future in sight: its items have no event before the moment it claims to be of."""
    Path("theirs.csv").write_text("user_id,item_id\n" + "".join(f"u{n:02d},unborn{n % 3}\n" for n in range(30)))
    Path("test.csv").write_text("user_id,item_id\n" + "".join(f"u{n:02d},unborn{n % 3}\n" for n in range(30)))
    out, err = answered(
        capsys, "--from", "theirs.csv", "--test", "test.csv", "--k", "5", "--as-of", "2026-02-01", code=10
    )
    assert "unborn items" in err and "unborn items" in out.replace("\n  ", " ")
