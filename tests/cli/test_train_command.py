"""`persona train` and `persona model` as a shell sees them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import shop

from persona_cli.cli.main import run
from persona_cli.feedback.candidates import PORTFOLIO, lacking
from persona_cli.workspace.runs import read_run

# Of the shop, which has no catalogue.
TRAINED = [name for name in PORTFOLIO if lacking(name, None) is None]


@pytest.fixture(autouse=True)
def workspace(elsewhere: Path) -> Path:
    return shop(elsewhere / "persona-workspace").root


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(said(capsys)[0])


def test_train_says_what_it_trained_and_what_is_served(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    assert run(["train"]) == 0
    out, err = said(capsys)
    table = out.splitlines()
    assert table[0].split() == ["model", "seconds", "NDCG@20", "95", "%", "interval", "served"]
    shown = [line.split()[0] for line in table[1:] if not line.startswith("blend")]
    assert shown == ["popular/1", *(f"{name}/1" for name in TRAINED), "layered/1"]
    assert [line.split()[0] for line in table[1:] if line.endswith("yes")] == ["layered/1"]
    assert "served: layered/1 (ndcg@20 of" in err
    assert "split" in err
    assert json.loads((workspace / "models" / "latest.json").read_text()) == {"model": "layered", "version": 1}


def test_train_as_json_has_the_shape_that_others_rely_on(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    assert run(["train", "--json"]) == 0
    told = document(capsys)
    assert told["latest"] == "layered/1"
    entries = [entry for entry in told["models"] if entry["model"] != "blend"]
    assert [entry["model"] for entry in entries] == ["popular", *TRAINED, "layered"]
    assert set(told["skipped"]) == set(PORTFOLIO) - set(TRAINED)
    for entry in entries:
        assert entry["seconds"] >= 0
        assert entry["validation"]["low"] <= entry["validation"]["value"] <= entry["validation"]["high"]
    from persona_cli.workspace.home import open_home

    counts = read_run(open_home(workspace), "latest")["counts"]
    assert counts["latest"] == "layered/1"
    assert counts["events"] == 960


def test_train_one_model_by_name_with_a_bare_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--model", "ease", "--set", "lambda=300", "--json"]) == 0
    assert [entry["validation"] for entry in document(capsys)["models"]] == [None] * 3
    assert run(["model", "show", "ease"]) == 0
    assert document(capsys)["settings"]["lambda"] == 300


def test_models_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "list"]) == 0
    assert said(capsys) == ("", "no models yet; the next step is: persona train\n")
    assert run(["train", "--quiet"]) == 0
    said(capsys)
    assert run(["model", "list"]) == 0
    lines = said(capsys)[0].splitlines()
    assert [line.split()[:3] for line in lines[1:] if not line.startswith("blend")] == [
        [name, "1", "true" if name == "layered" else "false"] for name in sorted([*TRAINED, "layered", "popular"])
    ]
    assert run(["model", "list", "--json"]) == 0
    (layered,) = (entry for entry in document(capsys) if entry["model"] == "layered")
    assert layered["parts"][0] == "popular/1"
    assert run(["model", "show"]) == 0
    assert document(capsys)["name"] == "layered"
    assert run(["model", "show", "knn/9"]) == 66
    assert "there are knn/1" in said(capsys)[1]
    assert run(["model", "show", "nkn"]) == 2


@pytest.mark.parametrize(
    ("words", "code", "words_said"),
    [
        (["--time-limit", "soon"], 2, "expected a duration"),
        (["--time-limit", "5m", "--model", "ease"], 2, "give one of them"),
        (["--model", "eas"], 2, "did you mean 'ease'"),
        (["--set", "lambda=5"], 78, "no hyper-parameter"),
        (["--set", "signals.other=5"], 78, "persona.toml"),
        (["--set", "model.ease.lambda=much"], 78, "a number"),
        (["--as-of", "tomorrow"], 2, "not a date"),
        (["--as-of", "2020-01-01"], 66, "no events before"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, words_said: str, workspace: Path
) -> None:
    assert run(["train", *words]) == code
    assert words_said in said(capsys)[1]
    assert not (workspace / "models").exists() or not list((workspace / "models").glob("*/*"))


def test_an_empty_workspace_has_nothing_to_train_or_recommend(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["init", str(tmp_path / "empty")]) == 0
    said(capsys)
    for words, hint in ((["train"], "persona ingest FILE"), (["recommend"], "persona train")):
        assert run([*words, "-w", str(tmp_path / "empty")]) == 66
        out, err = said(capsys)
        assert out == ""
        assert f"hint: {hint}" in err
