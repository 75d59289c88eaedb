"""What users searched for moves their lists: by events with `query` until that moment, and not for the held out."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from shop import START, add, add_items, events, user

from persona_cli.evaluation.evaluate import evaluate
from persona_cli.events.ingest import ingest
from persona_cli.feedback.training import train
from persona_cli.profiles.sync import sync
from persona_cli.serving.recommend import recommend
from persona_cli.serving.similar import score
from persona_cli.workspace.home import Home, create

ANIMALS = ["heron", "otter", "badger", "weasel"]
SECRET = "otter"
LATER = START + timedelta(weeks=20)


def titles() -> list[dict[str, object]]:
    """Items of both tastes; every fifth of a taste names the same animal."""
    return [
        {"item_id": f"{taste}{n:02d}", "title": f"{ANIMALS[n % 4]} story", "category": taste, "valid_from": START}
        for taste in "ab"
        for n in range(20)
    ]


def searching(home: Home, who: str, text: str, weeks: int = 20) -> None:
    moment = START + timedelta(weeks=weeks)
    add(home, [{"user_id": who, "event_type": "search", "query": text, "timestamp": moment}])


@pytest.fixture
def described(tmp_path: Path) -> Home:
    home = create(tmp_path / "w")
    add(home, events())
    add_items(home, titles())
    train(home, ["content"])
    return home


def lists(home: Home, *users: str, **options: object) -> dict[str, list[str]]:
    asked = {"include_holdout": True, "users": pl.Series(users)} | options
    made = pl.concat(list(recommend(home, top=10, **asked).blocks))  # type: ignore[arg-type]
    return dict(zip(made["user_id"], made["items"].list.eval(pl.element().struct["item_id"]).to_list(), strict=True))


def named(item: str) -> str:
    return ANIMALS[int(item[1:]) % 4]


@pytest.mark.parametrize("model", [None, "content"])
def test_who_only_searched_for_a_word_gets_what_it_names_first(described: Home, model: str | None) -> None:
    searching(described, "seeker", SECRET)
    searching(described, "lost", "zebra")
    sync(described)
    found = lists(described, "seeker", "lost", "stranger", model=model)
    assert [named(item) for item in found["seeker"]] == [SECRET] * 10
    assert found["lost"] == found["stranger"], "a word that no item has says nothing"
    scored = score(
        described,
        pl.DataFrame({"user_id": ["seeker"] * 2, "item_id": ["a01", "a02"]}),
        model=model,
        include_holdout=True,
    )
    assert scored["score"][0] > scored["score"][1]


def test_a_search_counts_from_the_moment_it_was_made(described: Home) -> None:
    searching(described, "seeker", SECRET, 20)
    searching(described, "seeker", "badger", 22)
    sync(described)
    then = lists(described, "seeker", as_of=START + timedelta(weeks=21))["seeker"]
    assert {named(item) for item in then} == {SECRET}
    assert {named(item) for item in lists(described, "seeker")["seeker"]} == {SECRET, "badger"}


def test_members_of_the_holdout_get_the_list_that_is_the_same_for_all(described: Home) -> None:
    seekers = [f"seeker{n}" for n in range(80)]
    add(described, [{"user_id": one, "event_type": "search", "query": SECRET, "timestamp": LATER} for one in seekers])
    sync(described)
    made = pl.concat(list(recommend(described, top=10, users=pl.Series([*seekers, "stranger"])).blocks))
    held, others = made.filter("holdout"), made.filter(pl.col("holdout").is_null())
    assert held.height and others.height
    assert held["items"].to_list() == [made.filter(user_id="stranger")["items"][0].to_list()] * held.height
    assert held["base"].unique().to_list() == ["popular/1"]
    assert others.filter(pl.col("user_id") != "stranger")["base"].unique().to_list() == ["content/1"]


def test_reasons_say_that_it_was_searched_and_not_what(described: Home, caplog: pytest.LogCaptureFixture) -> None:
    searching(described, "seeker", f"{SECRET} qqqq")
    sync(described)
    with caplog.at_level(logging.DEBUG):
        made = recommend(described, users=pl.Series(["seeker"]), top=3, explain=True, include_holdout=True)
        (entry,) = pl.concat(list(made.blocks)).to_dicts()
    assert [one["reasons"] for one in entry["items"]] == [["matches a recent search"]] * 3
    assert "qqqq" not in json.dumps(entry)
    assert "qqqq" not in caplog.text


def test_an_evaluation_sees_no_search_from_the_cut_on_and_reports_none(described: Home, tmp_path: Path) -> None:
    """Searches after the cut name what was clicked then; none of them may help."""
    before = evaluate(described, "before", models=["content"], overrides={"model.content.text": 1}).result
    cut = datetime.fromisoformat(str(before["split"]["cut"]))
    rows = [row for row in events() if row["timestamp"] >= cut]
    assert rows
    add(
        described,
        [
            {
                "user_id": row["user_id"],
                "event_type": "search",
                "query": f"{named(row['item_id'])} qqqq",
                "timestamp": row["timestamp"],
            }
            for row in rows
        ],
    )
    sync(described)
    after = evaluate(described, "after", models=["content"], overrides={"model.content.text": 1})
    assert after.result["models"][0]["metrics"] == before["models"][0]["metrics"]
    assert "qqqq" not in json.dumps(after.result, default=str)
    # The same searches a little earlier are known, and help or harm.
    add(
        described,
        [
            {
                "user_id": user(number),
                "event_type": "search",
                "query": f"{ANIMALS[number % 4]} wwww",
                "timestamp": START + timedelta(weeks=1),
            }
            for number in range(80)
        ],
    )
    sync(described)
    earlier = evaluate(described, "earlier", models=["content"], overrides={"model.content.text": 1}).result
    assert earlier["models"][0]["metrics"] != before["models"][0]["metrics"]
    for path in described.path("evaluations").rglob("*"):
        assert path.is_dir() or not any(word in path.read_bytes() for word in (b"qqqq", b"wwww")), path


def test_from_a_file_of_events_to_lists_in_any_order_of_lines(tmp_path: Path) -> None:
    lines = [
        {key: value.isoformat() if key == "timestamp" else value for key, value in row.items() if key != "device"}
        | {"event_type": "click"}
        for row in events(40)
    ]
    moment = "2026-06-01T00:00:00Z"
    lines += [
        {"user_id": "seeker", "event_type": "search", "query": text, "timestamp": moment} for text in ("otter", "heron")
    ]
    made = []
    for number, rows in enumerate((lines, lines[::-1])):
        home = create(tmp_path / str(number))
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        ingest(home, [str(file)])
        add_items(home, titles())
        train(home, ["content"])
        made.append(pl.concat(list(recommend(home, top=5, include_holdout=True).blocks)))
        assert {named(one["item_id"]) for one in made[-1].filter(user_id="seeker")["items"][0]} == {"otter", "heron"}
    assert made[0].equals(made[1])
    assert made[0].write_json() == made[1].write_json()
