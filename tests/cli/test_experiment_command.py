"""`persona experiment` as a shell sees it: start, serve, look, update, stop, and what is said of mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import asin
from pathlib import Path

import pytest

from persona_cli.cli.main import run

Film = Callable[[int], Path]


@pytest.fixture
def shop(films: Film, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    root = films(60)
    monkeypatch.setenv("PERSONA_WORKSPACE", str(root))
    assert run(["train", "--model", "knn", "--model", "ease"]) == 0
    capsys.readouterr()
    return root


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    found = run([*words])
    read = capsys.readouterr()
    assert found == code, read.err
    return read.out, read.err


def test_from_the_start_to_the_stop(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ("experiment", "start", "new", "--variants", "a=latest", "b=ease", "--shares", "0.5,0.5", "--ramp", "0.9")
    out, err = said(capsys, *start)
    assert "model=ease" in out and "new runs; served with: persona recommend --log" in err
    (row,) = json.loads(said(capsys, "experiment", "list", "--json")[0])
    assert (row["name"], row["kind"], row["variants"], row["ramp"], row["stopped"]) == ("new", "ab", "a b", 0.9, None)

    lines = [json.loads(line) for line in said(capsys, "recommend", "--log")[0].splitlines()]
    csv = said(capsys, "recommend", "--format", "csv")[0].splitlines()
    assert csv[0] == "user_id,rank,item_id,score,model,base,stage,variant,share,holdout"
    assigned = said(capsys, "experiment", "assign", "new")[0].splitlines()
    assert assigned[0] == "user_id,variant,share" and len(assigned) == 61
    told = {line["user_id"]: line.get("variant", "new:")[4:] for line in lines}
    assert dict(line.split(",")[:2] for line in assigned[1:]) == told
    assert said(capsys, "experiment", "assign", "new", "--user", "u07")[0].splitlines()[1] == next(
        line for line in assigned if line.startswith("u07,")
    )

    shown = json.loads(said(capsys, "experiment", "show", "new", "--json")[0])
    assert shown["people"] == sum("variant" in line for line in lines) and shown["crossovers"] == 0
    assert [one["people"] is None or one["people"] >= 20 for one in shown["variants"]] == [True, True]
    assert "crossovers" in said(capsys, "experiment", "show", "new")[1]
    assert said(capsys, "experiment", "show", "new", "--crossovers", "--json")[0] == "[]\n"

    said(capsys, "experiment", "update", "new", "--ramp", "1")
    assert (
        "only the control of new would be left" in said(capsys, "experiment", "update", "new", "--drop", "b", code=2)[1]
    )
    said(capsys, "experiment", "stop", "new")
    assert "variant" not in said(capsys, "recommend")[0]
    assert json.loads(said(capsys, "experiment", "show", "new", "--json")[0])["state"] == "stopped"


def test_a_manifest_of_a_run_names_the_command_and_nobody(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "experiment", "start", "new", "--variants", "a=latest", "b=ease")
    said(capsys, "experiment", "assign", "new", "--user", "u07")
    texts = [path.read_text() for path in (shop / "runs").glob("*.json")]
    assert any('"experiment start"' in text for text in texts)
    assert not any("u07" in text for text in texts)


@pytest.mark.parametrize(
    ("words", "code", "words_of_it"),
    [
        ("start x", 2, "the variants are missing"),
        ("start x --variants a=latest", 2, "1 variants; expected 2 to 20"),
        ("start x --variants a=latest b=eese", 2, "eese"),
        ("start x --variants a=latest b=als", 66, "no als model has been trained yet"),
        ("start x --variants a=latest b=ease --shares half", 2, "expected numbers such as"),
        ("start x --variants a=latest b=ease --shares 0.5,0.6", 2, "add up to 1.1"),
        ("start x --variants a=latest b=ease --metric wins", 2, "no metric is named 'wins'"),
        ("start x --variants a=latest b=ease --looks 5", 2, "looks are taken on the way to the people planned"),
        ("start x --variants a=latest b=ease --looks 1 --planned-units 900", 2, "1 looks; expected 2 to 50"),
        ("start x --kind bandit --variants a=latest b=ease --looks 5", 2, "--looks says nothing of an experiment"),
        ("plan --metric purchase --looks 0", 2, "0 looks; expected 1 to 50"),
        ("start x --variants a=latest b=ease --policy ucb1", 2, "--policy says nothing"),
        ("start x --variants a=latest b=ease --part 2", 2, "a part of a layer of 2"),
        ("start x --variants a=latest b=ease --surface nav", 66, "no surface is named 'nav'"),
        ("start x --variants a=latest b=rules.nothing=1", 78, "rules.nothing is not a setting"),
        ("start old --variants a=latest b=ease", 2, "'old' is there already"),
        ("show new", 66, "no experiment is named 'new'"),
        ("stop nothing", 66, "no experiment is named 'nothing'"),
        ("update old", 2, "nothing of old follows from outcomes"),
        ("update old --ramp 0.5", 2, "a ramp only grows"),
        ("update old --drop c", 2, "old has no variant 'c'"),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    shop: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, words_of_it: str
) -> None:
    said(capsys, "experiment", "start", "old", "--variants", "a=latest", "b=ease")
    before = (shop / "experiments/old/experiment.json").read_bytes()
    out, err = said(capsys, "experiment", *words.split(), code=code)
    assert words_of_it in err and not out and "Traceback" not in err
    assert [path.name for path in (shop / "experiments").iterdir()] == ["old"]
    assert (shop / "experiments/old/experiment.json").read_bytes() == before


def test_a_plan_says_how_many_people_and_days_an_effect_takes(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (shop / "persona.toml").open("a") as file:
        file.write('[metric.even]\nevent = "item_id = \'f00\'"\nvalue = "any"\nbefore_days = 0\n')
    out, err = said(capsys, "experiment", "plan", "--metric", "even", "--effect", "30%", "--days", "12", "--json")
    (row,) = json.loads(out)
    lists = said(capsys, "recommend")[0].splitlines()
    inside = {json.loads(line)["user_id"] for line in lists if "holdout" not in line}
    events = [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()]
    share = len({event["user_id"] for event in events if event["item_id"] == "f00"} & inside) / len(inside)
    n, spread = len(inside), share * (1 - share)
    assert (row["people"], row["days"]) == (n, 12) and row["value"] == pytest.approx(share)
    assert row["variance"] == pytest.approx(spread * n / (n - 1))
    # (1.959964 + 0.841621)^2 = 7.8489: the normal law of a difference of two means, here of the arcsines.
    apart = 2 * (asin((1.3 * share) ** 0.5) - asin(share**0.5))
    assert row["needed"] == pytest.approx(2 * 2 * 7.8489 / apart**2, abs=1)
    assert row["detectable"] == pytest.approx((7.8489 * row["variance"] * 4 / n) ** 0.5, rel=1e-3)
    assert not row["enough"] and f"{row['needed']:,} people: more than 12 days" in err
    half = json.loads(said(capsys, "experiment", "plan", "--metric", "even", "--part", "0.5", "--json")[0])
    assert half[0]["people"] == round(n / 2) and "needed" not in half[0]
    three = ("experiment", "plan", "--metric", "even", "--effect", "0.3", "--variants", "3", "--days", "12", "--json")
    assert json.loads(said(capsys, *three)[0])[0]["needed"] > 1.5 * row["needed"]
    for words, part in (
        ("--effect 5%", "name a metric"), ("--metric even --effect lots", "expected a share such as"),
        ("--metric odd", "no metric is named 'odd'"), ("--metric even --days 400", "the events are of 12 days"),
        ("--metric even --part 0", "expected shares over 0"), ("--metric even --variants 1", "expected at least 2"),
        ("--metric even --shares 0.9,0.2", "add up to 1.1"),
    ):  # fmt: skip
        assert part in said(capsys, "experiment", "plan", *words.split(), code=2)[1]


def test_lists_are_merged_only_for_an_experiment_of_that_kind(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "experiment", "start", "ab", "--variants", "a=latest", "b=ease", "--part", "0.4")
    said(capsys, "experiment", "start", "two", "--kind", "interleave", "--variants", "a=knn", "b=ease")
    assert "of the kind ab" in said(capsys, "recommend", "--interleave", "ab", code=2)[1]
    assert "lists of two models of now" in said(capsys, "recommend", "--interleave", "two", "--model", "knn", code=2)[1]
    lines = [json.loads(line) for line in said(capsys, "recommend", "--interleave", "two")[0].splitlines()]
    assert {line.get("variant", "").partition(":")[0] for line in lines} == {"", "ab", "two"}
    for line in lines:
        assert ("team" in str(line["items"])) <= (line.get("variant") == "two:interleaved")
    said(capsys, "experiment", "stop", "two")
    assert "does not run any more" in said(capsys, "recommend", "--interleave", "two", code=2)[1]


def test_a_damaged_file_is_named(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "experiment", "start", "old", "--variants", "a=latest", "b=ease")
    (shop / "experiments/old/experiment.json").write_text("{")
    assert "experiments/old/experiment.json is damaged" in said(capsys, "recommend", code=65)[1]
