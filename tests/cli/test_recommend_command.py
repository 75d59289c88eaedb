"""`persona recommend`, `similar` and `score` as a shell sees them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import START, add, shop

from persona_cli.cli.main import run
from persona_cli.feedback.training import train
from persona_cli.workspace.artifacts import file_digest
from persona_cli.workspace.home import open_home
from persona_cli.workspace.runs import read_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = shop(tmp_path_factory.mktemp("commands") / "w")
    train(home)
    return home.root


@pytest.fixture(autouse=True)
def workspace(made_once: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(made_once, elsewhere / "persona-workspace")
    return elsewhere / "persona-workspace"


def out(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run([*words]) == code
    return capsys.readouterr().out


def test_json_lines_by_default_and_the_same_in_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = out(capsys, "recommend", "--top", "3")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["user_id"] for line in lines] == [f"u{n:02d}" for n in range(80)]
    assert {len(line["items"]) for line in lines} == {3}
    assert out(capsys, "recommend", "--top", "3", "--out", "lists.jsonl") == ""
    assert (tmp_path / "lists.jsonl").read_text() == text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_threads_and_time_change_no_byte(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("PERSONA_COMPUTE_THREADS", threads)
        texts.add(out(capsys, "recommend"))
    assert len(texts) == 1


def test_every_format_holds_the_same_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in out(capsys, "recommend", "--top", "2").splitlines()]
    expected = [(line["user_id"], entry["item_id"], entry["score"]) for line in lines for entry in line["items"]]
    rows = list(csv.DictReader(io.StringIO(out(capsys, "recommend", "--top", "2", "--format", "csv"))))
    assert [(row["user_id"], row["item_id"], float(row["score"])) for row in rows] == expected
    out(capsys, "recommend", "--top", "2", "--format", "parquet", "--out", "l.parquet")
    frame = pl.read_parquet(tmp_path / "l.parquet")
    assert frame.select("user_id", "item_id", "score").rows() == expected
    assert json.loads(out(capsys, "recommend", "--top", "2", "--json")) == lines
    table = out(capsys, "recommend", "--top", "2", "--format", "table").splitlines()
    assert [tuple(line.split()[i] for i in (0, 2)) for line in table[1:]] == [(u, i) for u, i, _ in expected]


def test_users_come_from_a_file_from_standard_input_or_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users.txt").write_text("u09\nstranger\nu03\n")
    expected = out(capsys, "recommend", "--users", "users.txt")
    assert [json.loads(line)["user_id"] for line in expected.splitlines()] == ["stranger", "u03", "u09"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"user_id": "u09"}\n{"user_id": "u03"}\n')))
    assert out(capsys, "recommend", "--users", "-") == "".join(expected.splitlines(keepends=True)[1:])
    assert out(capsys, "recommend", "-u", "u03", "-u", "u09", "--user", "stranger") == expected


def test_no_id_of_a_user_stays_in_the_record_of_the_run(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    out(capsys, "recommend", "--user", "u03", "-u", "u44")
    record = json.dumps(read_run(open_home(workspace), "latest"))
    assert "u03" not in record
    assert "u44" not in record


def test_the_record_of_the_run_knows_what_was_read_and_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, workspace: Path
) -> None:
    (tmp_path / "users.txt").write_text("u09\n")
    out(capsys, "recommend", "--users", "users.txt", "--out", "lists.jsonl")
    record = read_run(open_home(workspace), "latest")
    assert record["inputs"] == {"users.txt": file_digest(tmp_path / "users.txt")}
    assert record["outputs"] == {"lists.jsonl": file_digest(tmp_path / "lists.jsonl")}
    assert record["counts"] == {"users": 1, "holdout": record["counts"]["holdout"], "model": "layered/1"}


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet", "table"])
def test_nobody_asked_gets_an_empty_answer_in_every_form(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str
) -> None:
    (tmp_path / "users.txt").write_text("\n")
    out(capsys, "recommend", "--users", "users.txt", "--format", form, "--out", "lists")
    content = (tmp_path / "lists").read_bytes()
    if form == "json":
        assert json.loads(content) == []
    elif form == "parquet":
        assert pl.read_parquet(tmp_path / "lists").columns[:4] == ["user_id", "rank", "item_id", "score"]
    elif form == "csv":
        assert content.startswith(b"user_id,rank,item_id,score,") and content.count(b"\n") == 1
    else:
        assert content.strip() in (b"", b"user_id  rank  item_id  score  model  base  stage  holdout")


def test_candidates_are_ranked_and_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "hits.csv").write_text("item_id\na00\nb00\na05\n")
    for line in out(capsys, "recommend", "--candidates", "hits.csv").splitlines():
        assert {entry["item_id"] for entry in json.loads(line)["items"]} <= {"a00", "b00", "a05"}


def test_a_formula_in_an_id_is_harmless_in_csv(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    home = open_home(workspace)
    add(home, [{"user_id": "=cmd()", "item_id": item, "timestamp": START} for item in ("a01", "-5", "@x")])
    train(home)
    text = out(capsys, "recommend", "--format", "csv", "--top", "60")
    cells = {(row["user_id"], row["item_id"]) for row in csv.DictReader(io.StringIO(text))}
    assert {user for user, _ in cells if "cmd" in user} == {"'=cmd()"}
    assert {item for _, item in cells if item[-2:] in ("-5", "@x")} == {"-5", "'@x"}


def test_explain_adds_reasons_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "reasons" not in out(capsys, "recommend", "--user", "u03")
    line = json.loads(out(capsys, "recommend", "--user", "u03", "--explain", "--include-holdout"))
    assert all(reason.startswith("goes with b") for reason in line["items"][0]["reasons"])
    assert all(entry["reasons"] for entry in line["items"])


def test_the_reader_may_leave_early(workspace: Path) -> None:
    command = f"{sys.executable} -m persona_cli recommend --top 40 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert json.loads(lines[0])["user_id"] == "u00"
    assert lines[1] in ("0", "141")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["recommend", "--users", "none.txt"], 66, "none.txt: no such file"),
        (["recommend", "--users", "a", "--user", "b"], 2, "give one of them"),
        (["recommend", "--users", "-", "--candidates", "-"], 2, "standard input"),
        (["recommend", "--model", "eas"], 2, "did you mean 'ease'"),
        (["recommend", "--model", "ease/7"], 66, "there are ease/1"),
        (["recommend", "--context", "device"], 2, "expected KEY=VALUE"),
        (["recommend", "--context", "planet=mars"], 2, "popularity is not counted by that"),
        (["recommend", "--as-of", "2019-01-01"], 66, "no user is known before"),
        (["recommend", "--out", "none/x.jsonl"], 74, "does not exist"),
        (["similar"], 2, "--all"),
        (["similar", "a00", "--all"], 2, "--all"),
        (["similar", "a99"], 66, "knows no item"),
        (["score", "none.csv"], 66, "no such file"),
    ],
)
def test_what_cannot_be_is_said(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    assert run(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert not (tmp_path / "none").exists()


def test_similar_items(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(out(capsys, "similar", "a03", "--top", "2", "--json"))
    assert [(row["item_id"], row["rank"]) for row in rows] == [("a03", 1), ("a03", 2)]
    assert {row["similar_id"][0] for row in rows} == {"a"}
    every = list(csv.DictReader(io.StringIO(out(capsys, "similar", "--all", "--top", "2", "--format", "csv"))))
    assert len(every) == 80


def test_score_keeps_the_order_of_the_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        '{"user_id": "u05", "item_id": "b01"}\n'
        '{"user_id": "u01", "item_id": "zz"}\n'
        '{"user_id": "u05", "item_id": "a01"}\n'
    )
    rows = list(csv.reader(io.StringIO(out(capsys, "score", "pairs.jsonl", "--include-holdout"))))
    assert [row[:2] for row in rows] == [["user_id", "item_id"], ["u05", "b01"], ["u01", "zz"], ["u05", "a01"]]
    assert rows[0][2] == "score"
    assert rows[2][2] == ""
    assert float(rows[1][2]) > float(rows[3][2])
    out(capsys, "score", "pairs.jsonl", "--format", "parquet", "--out", "s.parquet", "--include-holdout")
    scores = [float(row[2]) if row[2] else None for row in rows[1:]]
    assert pl.read_parquet(tmp_path / "s.parquet")["score"].to_list() == scores
    as_lines = out(capsys, "score", "pairs.jsonl", "--format", "jsonl", "--include-holdout").splitlines()
    assert [json.loads(line)["score"] for line in as_lines] == scores
