"""The questions that divide users best: planted tastes are found, small groups are not shown."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from stored import START, add, at, with_settings

from persona_cli.errors import BadSettings, MissingInput
from persona_cli.events.schema import stored_schema
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.survey import survey, unknown_names
from persona_cli.profiles.sync import sync
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import question

SIZES = {"noir": 60, "war": 60, "love": 60, "rare": SMALLEST_CELL - 1}


def catalogue(home: Home, rows: Sequence[dict[str, Any]]) -> None:
    schema = pl.DataFrame(pl.from_arrow(stored_schema("items").empty_table())).schema
    table = tables.open_or_create(home, "items", stored_schema("items"))
    filled = [dict.fromkeys(schema) | {"ingested_at": START, "available": True} | row for row in rows]
    table.commit([table.write(pl.DataFrame(filled, schema=schema, orient="row"))])


def world(home: Home, sizes: dict[str, int]) -> Home:
    """Each user likes sixteen of the twenty items of one category; every other item is tagged at random."""
    random = np.random.default_rng(1)
    names = [f"{kind}{n:02d}" for kind in sizes for n in range(20)]
    catalogue(
        home,
        [
            {"item_id": name, "category": name[:-2], "tags": ["new" if random.random() < 0.5 else "old"]}
            for name in names
        ],
    )
    events = []
    for kind, size in sizes.items():
        for user in range(size):
            for item in random.permutation(20)[:16]:
                events.append({"user_id": f"{kind}-{user}", "item_id": f"{kind}{item:02d}", "timestamp": at(user)})
    add(home, events)
    sync(home)
    return home


def test_the_question_that_was_planted_comes_first_and_nothing_else_adds_to_it(home: Home) -> None:
    found = survey(world(home, {kind: n for kind, n in SIZES.items() if kind != "rare"}))
    first = found[0]
    assert first["question"] == "category_of_3"
    assert [(one["answer"], one["users"], one["share"]) for one in first["answers"]] == [
        ("love", 60, 0.333),
        ("noir", 60, 0.333),
        ("war", 60, 0.333),
    ]
    assert [one["categories"] for one in first["answers"]] == [["love"], ["noir"], ["war"]]
    # Whoever knows the category knows which third of the items: log2 3 bits, less what is smoothed away.
    assert 1.0 < first["gain"] < np.log2(3)
    assert first["total"] == first["gain"]
    assert sum(one["gain"] for one in found[1:]) < 0.1


def test_what_is_printed_can_stand_in_the_settings(home: Home) -> None:
    first = survey(world(home, {"noir": 40, "war": 40}), 1)[0]
    parsed = tomllib.loads(first["toml"])["survey"]
    ready = with_settings(home, survey=parsed)
    assert ready.settings.values["survey"][first["question"]]["text"] == first["text"]
    again = survey(ready, 1)[0]
    assert (again["question"], again["configured"]) == (first["question"], True), "of equals, the one that is there"
    assert not unknown_names(ready)


def test_answers_of_fewer_than_twenty_people_are_never_shown(home: Home) -> None:
    found = survey(world(home, SIZES), 10)
    assert found
    for one in found:
        assert all(answer["users"] >= SMALLEST_CELL for answer in one["answers"])
        assert not any("rare" in (*answer["categories"], answer["answer"]) for answer in one["answers"])


def test_what_people_answered_counts_more_than_what_is_supposed(home: Home) -> None:
    world(home, {"noir": 60, "war": 60})
    asked = {"mood": {"answers": {"n": {"categories": ["noir"]}, "w": {"categories": ["war"]}}}}
    asking = with_settings(home, survey=asked)
    before = survey(asking, 1)
    supposed = before[0]
    assert supposed["question"] == "mood"
    assert [one["users"] for one in supposed["answers"]] == [60, 60]
    said = [
        {"user_id": f"{kind}-{n}", "event_type": "survey_answer", "target": "mood", "timestamp": at(200)}
        | {"props": '{"answer": "n"}'}
        for kind in ("noir", "war")
        for n in range(30)
    ]
    add(home, said)
    sync(home)
    now = [one for one in survey(asking, 10) if one["question"] == "mood"]
    assert not now or now[0]["answers"][0]["users"] == 90
    assert survey(asking, 1, as_of=at(199)) == before


def test_names_that_no_item_has_are_named(home: Home) -> None:
    world(home, {"noir": 1})
    asked = {"q": {"answers": {"a": {"categories": ["noir", "nior"], "tags": ["gone"]}}}}
    assert unknown_names(with_settings(home, survey=asked)) == [
        'survey.q: the answer "a" names the category "nior", which no item has',
        'survey.q: the answer "a" names the tag "gone", which no item has',
    ]


def test_too_few_users_and_no_catalogue_are_said(home: Home) -> None:
    with pytest.raises(MissingInput, match="0 users"):
        survey(home)
    add(home, [{"user_id": f"u{n}", "item_id": f"i{k}", "timestamp": at(k)} for n in range(50) for k in range(20)])
    sync(home)
    with pytest.raises(MissingInput, match="no question"):
        survey(home)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"text": "?"},
        {"answers": {}},
        {"answers": {"a": ["x"]}},
        {"answers": {"a": {"category": ["x"]}}},
        {"answers": {"a": {"categories": "x"}}},
        {"answers": {"a": {}}, "weight": 1},
        {"answers": {"a": {}}, "text": 1},
        [],
    ],
)
def test_a_question_that_is_no_question_is_refused(home: Home, asked: Any) -> None:
    with pytest.raises(ValueError):
        question("q", asked)
    with pytest.raises(BadSettings, match="survey"):
        with_settings(home, survey={"q": asked})
