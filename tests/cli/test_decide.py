"""`persona decide` as a shell sees it: lines, what is kept, and what is said of mistakes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import START, add, shop, user

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.receipts import record
from persona_cli.feedback.decisions import read
from persona_cli.feedback.training import train
from persona_cli.profiles.permitted import in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.workspace.home import SETTINGS_FILE, Home, open_home

PAGE = (Path(__file__).parents[2] / "docs" / "surfaces.md").read_text()
EXAMPLE, MEASURED = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS, CALIBRATING = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
USER, AT = user(3), datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = shop(tmp_path_factory.mktemp("deciding") / "w")
    with (home.root / SETTINGS_FILE).open("a") as file:
        file.write(EXAMPLE)
    uses = [
        {"user_id": user(n), "event_type": "feature_use", "target": "analytics", "timestamp": AT, "device": "desktop"}
        for n in range(40)
        for _ in range(20)
    ]
    add(home, uses)
    sync(home)
    train(home, ["knn"])
    return home.root


@pytest.fixture(autouse=True)
def home(made_once: Path, elsewhere: Path) -> Home:
    shutil.copytree(made_once, elsewhere / "persona-workspace")
    return open_home(elsewhere / "persona-workspace")


def out(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run([*words]) == code
    return capsys.readouterr().out


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out(capsys, "decide", *words).splitlines()]


def test_the_commands_of_the_page_run(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    names = set()
    for line in COMMANDS.splitlines():
        words = shlex.split(line.partition(" > ")[0])[1:]
        names.add(words[1])
        assert run(words) == 0, capsys.readouterr().err
    assert names == set(tomllib.loads(EXAMPLE)["surface"])
    assert len((elsewhere / "questions.jsonl").read_text().splitlines()) == 80


def test_lines_have_their_shape_and_are_kept(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    for name, key in (("home", "items"), ("navigation", "config"), ("help", "config"), ("question", "choice")):
        found = lines(capsys, name, "--user", USER, "--user", user(4), "--context", "device=mobile")
        assert [line["user_id"] for line in found] == [USER, user(4)]
        start = ["decision_id", "user_id", "surface", key, "policy", "propensity", "stage", "rules"]
        kept = read(home).filter(pl.col("surface") == name).sort("user_id").collect()
        assert [list(line)[:8] for line in found] == [start, start]
        assert kept["decision_id"].to_list() == [line["decision_id"] for line in found]
        for line, row in zip(found, kept.to_dicts(), strict=True):
            assert (row["policy"], row["stage"], row["propensity"]) == (line["policy"], line["stage"], 1.0)
            if key == "items":
                assert [one["item_id"] for one in row["items"]] == [one["item_id"] for one in line["items"]]  # type: ignore[attr-defined]
            else:
                assert (None if row["choice"] is None else json.loads(row["choice"])) == line[key]
            if not row["holdout"]:
                assert json.loads(row["context"])["device"] == "mobile"


def test_a_dry_run_keeps_nothing_and_is_the_same_bytes(
    capsys: pytest.CaptureFixture[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("home", "navigation", "help", "question"):
        texts = set()
        for threads in ("1", "2"):
            monkeypatch.setenv("PERSONA_COMPUTE_THREADS", threads)
            # An order that changes says when: the moment is part of what is the same.
            texts.add(out(capsys, "decide", name, "--dry-run", "--as-of", "2026-05-01"))
        (text,) = texts
        assert len(text.splitlines()) == 80 and "decision_id" not in text
        found = json.loads(out(capsys, "decide", name, "--dry-run", "--as-of", "2026-05-01", "--json"))
        assert found == [json.loads(line) for line in text.splitlines()]
    assert not read(home).collect().height


def test_what_was_decided_binds_what_comes(capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = lines(capsys, "navigation", "--user", USER)
    config = first["config"]
    assert isinstance(config, dict) and config["order"][0] == "analytics" and config["since"] is not None
    (second,) = lines(capsys, "navigation", "--user", USER)
    assert (second["config"], second["rules"]) == (config, ["every_days"])


def test_whom_personalization_does_not_cover_is_a_stranger(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    record(home, [USER], ["personalization"], "withdrawn", at=AT, source="test")
    for name, context in (("home", "device=mobile"), ("navigation", "network=slow")):
        gone, stranger = lines(capsys, name, "--user", USER, "--user", "zz", "--context", context, "--dry-run")
        assert gone == {**stranger, "user_id": USER, "policy": "default", "stage": "generic", "consent": False} | {
            "rules": gone["rules"]
        }
    (gone,) = lines(capsys, "help", "--user", USER, "--dry-run")
    assert gone["config"] == {"onboarding": [], "workflow": ["setup"], "panel": [], "hint": [], "kept": []}
    (gone,) = lines(capsys, "question", "--user", USER)
    assert (gone["choice"], gone["policy"]) == (None, "default")


def test_who_refused_analytics_is_not_kept(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    record(home, [USER], ["analytics"], "withdrawn", at=AT, source="test")
    assert run(["decide", "help", "--user", USER, "--user", user(4)]) == 0
    text, said = capsys.readouterr()
    assert [json.loads(line)["decision_id"] is None for line in text.splitlines()] == [True, False]
    assert "1 of 2 decisions are not kept: analytics do not cover these people" in said
    assert read(home, purpose=None).collect()["user_id"].to_list() == [user(4)]


def test_a_segment_or_a_file_says_for_whom(capsys: pytest.CaptureFixture[str], elsewhere: Path, home: Home) -> None:
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text() + "[segments.phones]\nwhen = \"device = 'mobile'\"\n")
    phones = {str(line["user_id"]) for line in lines(capsys, "help", "--segment", "phones", "--dry-run")}
    assert phones and phones < {user(n) for n in range(80)}
    (elsewhere / "some.txt").write_text(f"{user(7)}\n{user(5)}\n{user(7)}\n")
    found = lines(capsys, "help", "--users", "some.txt", "--dry-run")
    assert [line["user_id"] for line in found] == [user(5), user(7)]


def test_python_decides_as_the_command_does(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    frame = Workspace.of(home).decide("help", [USER], dry_run=True)
    (line,) = lines(capsys, "help", "--user", USER, "--dry-run")
    assert frame.drop("holdout").to_dicts() == [line]
    assert Workspace.of(home).decide("help", [USER])["decision_id"].null_count() == 0


def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    for words, code, said in (
        (("naviation",), 66, "no surface is named 'naviation'; did you mean 'navigation'?"),
        (("help", "--context", "devce=x"), 2, "--context devce: nothing of that name is told of a visit; did you mean"),
        (("help", "--segment", "keen"), 66, "no segment is named 'keen'"),
        (("help", "--dry-run", "--wait", "3"), 2, "nothing is written with --dry-run"),
        (("help", "--user", "a", "--users", "b"), 2, "give one of them"),
    ):
        assert run(["decide", *words]) == code
        text, error = capsys.readouterr()
        assert text == "" and said in error.splitlines()[0]
    assert not read(home).collect().height


def test_nothing_left_is_said(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    ordinary = next(user(n) for n in range(80) if not in_holdout(home, pl.Series([user(n)]))[0])
    assert run(["decide", "question", "--user", ordinary]) == 0
    assert run(["decide", "question", "--user", ordinary]) == 0
    assert "warning: there is no question to ask for 1 of 1 users" in capsys.readouterr().err
    everything = [
        {"user_id": ordinary, "item_id": f"{kind}{n:02d}", "timestamp": START} for kind in "ab" for n in range(20)
    ]
    add(home, everything)
    sync(home)
    assert run(["decide", "home", "--user", ordinary]) == 0
    text, said = capsys.readouterr()
    assert json.loads(text)["items"] == [] and "warning: no item is left to show for 1 of 1 users" in said


def test_the_surfaces_that_were_measured_are_settings_and_too_few_people_are_said(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = elsewhere / "persona-workspace" / SETTINGS_FILE
    path.write_text(path.read_text().replace(EXAMPLE, MEASURED))
    assert set(open_home(path.parent).settings.values["surface"]) == {"home", "nav", "help"}
    for line in CALIBRATING.splitlines():
        words = shlex.split(line, comments=True)
        assert run(words[1:]) == 66, line  # 80 people
        assert "a curve takes 100" in (err := capsys.readouterr().err) or "no surface was calibrated yet" in err
