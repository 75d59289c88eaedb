"""Lists as they are served: who gets what, and what is never in them."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from shop import START, add, add_items, clicks, events, taste, user

from persona_cli.errors import MissingInput, UsageError
from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.profiles.permitted import in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.serving.recommend import recommend, rounded
from persona_cli.serving.writing import flat, write_lines
from persona_cli.workspace.home import Home, create, open_home

EVERYONE = pl.Series("user_id", [user(number) for number in range(80)])


def lines(home: Home, **asked: Any) -> dict[str, dict[str, Any]]:
    """What is written, by user."""
    stream = io.BytesIO()
    write_lines(recommend(home, **asked).blocks, stream)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [record["user_id"] for record in records] == sorted({record["user_id"] for record in records})
    return {record["user_id"]: record for record in records}


def items(line: dict[str, Any]) -> list[str]:
    return [entry["item_id"] for entry in line["items"]]


def test_everybody_gets_what_is_left_of_their_taste_and_nothing_twice(home: Home) -> None:
    found = lines(home, top=5)
    assert list(found) == EVERYONE.to_list()
    held = set(EVERYONE.filter(in_holdout(home, EVERYONE)))
    for number in range(80):
        line = found[user(number)]
        assert len(items(line)) == len(set(items(line))) == 5
        assert not set(items(line)) & set(clicks(number))
        scores = [entry["score"] for entry in line["items"]]
        assert scores == sorted(scores, reverse=True)
        if user(number) not in held:
            assert {item[0] for item in items(line)} == {taste(number)}


def test_a_line_says_what_it_stands_on(home: Home) -> None:
    served = registry.load_model(home)
    found = lines(home, include_holdout=True)
    line = found["u07"]
    assert list(line) == ["user_id", "items", "model", "base", "stage"]
    assert (line["model"], line["base"], line["stage"]) == (served.reference, served.parts["individual"], "cohort")
    add(home, [{"user_id": "u07", "item_id": f"a{n:02d}", "timestamp": START + timedelta(weeks=30)} for n in range(8)])
    sync(home)
    assert lines(home, include_holdout=True)["u07"]["stage"] == "individual", "12 events and 8 more are 20"


def test_the_held_out_get_one_list_for_all_and_say_so(home: Home) -> None:
    found = lines(home)
    held = [name for name, line in found.items() if line.get("holdout")]
    assert held == EVERYONE.filter(in_holdout(home, EVERYONE)).to_list()
    whole = recommended_to_nobody(home)
    for name in held:
        line = found[name]
        assert (line["holdout"], line["stage"], line["base"]) == (True, "context", "popular/1")
        seen = set(clicks(int(name[1:])))
        assert items(line) == [item for item in whole if item not in seen][:20]
    assert not any("holdout" in line for line in lines(home, include_holdout=True).values())


def recommended_to_nobody(home: Home) -> list[str]:
    """The popular list of all users, without a context."""
    return items(lines(home, users=pl.Series(["nobody"]), top=40)["nobody"])


def test_holdout_is_there_only_where_it_is_true(home: Home) -> None:
    wide = Home(home.root, home.settings.with_flags({"holdout.share": 0.10}), home.salt)
    text = io.BytesIO()
    write_lines(recommend(wide).blocks, text)
    assert b"null" not in text.getvalue()
    assert text.getvalue().count(b'"holdout":true}\n') == int(in_holdout(wide, EVERYONE).sum())


def test_strangers_get_the_popular_list_of_their_context(home: Home) -> None:
    for device, item in (("phone", "hit"), ("desktop", "common")):
        at = START + timedelta(weeks=12)
        add(home, [{"user_id": f"{item}{n}", "item_id": item, "timestamp": at, "device": device} for n in range(300)])
    train(home)
    strangers = pl.Series("user_id", [f"stranger{number}" for number in range(100)])
    # The salt of this workspace decides who is held out, and the held out have no context.
    stranger = strangers.filter(~in_holdout(home, strangers)).head(1)
    line = lines(home, users=stranger, context={"device": "phone"}, top=3)[stranger[0]]
    assert items(line)[0] == "hit"
    assert (line["base"], line["stage"]) == ("popular/2", "context")
    assert "holdout" not in line
    elsewhere = lines(home, users=stranger, context={"device": "desktop"}, top=3)[stranger[0]]
    assert items(elsewhere)[0] == "common"
    with pytest.raises(UsageError, match="did you mean 'device'"):
        recommend(home, context={"devise": "x"})


def test_users_given_twice_or_unknown_are_sorted_and_once(home: Home) -> None:
    found = lines(home, users=pl.Series(["u09", "zz", "u01", "u09"]), include_holdout=True)
    assert list(found) == ["u01", "u09", "zz"]
    everybody = lines(home, include_holdout=True)
    assert [found[name] for name in ("u01", "u09")] == [everybody[name] for name in ("u01", "u09")]


def test_what_is_not_available_is_not_recommended(home: Home) -> None:
    add_items(home, [{"item_id": "a01", "available": False}, {"item_id": "b02", "available": True}])
    shown = {item for line in lines(home, top=40).values() for item in items(line)}
    assert "a01" not in shown
    assert "b02" in shown


def test_blocked_items_are_not_recommended_though_never_consumed(home: Home) -> None:
    asked = pl.Series(["u00"])
    first = items(lines(home, users=asked, include_holdout=True)["u00"])[0]
    add(home, [{"user_id": "u00", "item_id": first, "event_type": "block", "timestamp": START + timedelta(weeks=12)}])
    sync(home)
    assert first not in items(lines(home, users=asked, include_holdout=True, top=40)["u00"])


def test_a_new_click_changes_the_list_without_training(home: Home) -> None:
    add(home, [{"user_id": "fresh", "item_id": "b03", "timestamp": START + timedelta(weeks=12)}])
    sync(home)
    asked = pl.Series(["fresh"])
    line = lines(home, users=asked, include_holdout=True, top=10)["fresh"]
    assert line["base"] == registry.load_model(home).parts["individual"]
    assert "b03" not in items(line)
    assert items(line) != items(lines(home, users=pl.Series(["other"]), include_holdout=True, top=10)["other"])


def test_as_of_is_what_was_known_then(home: Home) -> None:
    cut = START + timedelta(weeks=4)
    train(home, as_of=cut)
    found = lines(home, as_of=cut, include_holdout=True, top=40)
    for number in (0, 5, 12):
        assert not set(items(found[user(number)])) & set(clicks(number)[:4])
    later = set(clicks(0)[4:])
    assert later & set(items(found["u00"])), "what was clicked later was still to be recommended"
    with pytest.raises(MissingInput, match="no user is known before 2025-12-01"):
        recommend(home, as_of=START - timedelta(days=31))


def test_as_of_gives_the_lists_that_a_workspace_of_then_gives(home: Home, tmp_path: Path) -> None:
    cut = START + timedelta(weeks=6)
    then = create(tmp_path / "then")
    add(then, [event for event in events() if event["timestamp"] < cut])
    train(then)
    train(home, as_of=then_trained_until(then))
    now, before = lines(home, as_of=cut, include_holdout=True), lines(then, include_holdout=True)
    assert {name: line["items"] for name, line in now.items()} == {name: line["items"] for name, line in before.items()}
    assert {name: line["stage"] for name, line in now.items()} == {name: line["stage"] for name, line in before.items()}


def then_trained_until(home: Home) -> datetime:
    return registry.load_model(home).trained_until


def test_candidates_are_all_that_is_ranked(home: Home) -> None:
    wanted = pl.Series("item_id", ["a01", "b01", "a00", "unheard"])
    for name, line in lines(home, candidates=wanted).items():
        assert set(items(line)) == set(wanted) - set(clicks(int(name[1:])))
        assert items(line)[-1] == "unheard"
        assert line["items"][-1]["score"] == 0
    pairs = pl.DataFrame({"user_id": ["u01", "u02"], "item_id": ["a01", "b01"]})
    assert {name: items(line) for name, line in lines(home, candidates=pairs).items()} == {
        "u01": ["a01"],
        "u02": ["b01"],
    }
    found = lines(home, candidates=pairs, users=pl.Series(["u01", "u02", "u03"]))
    assert {name: items(line) for name, line in found.items()} == {"u01": ["a01"], "u02": ["b01"], "u03": []}


@pytest.mark.parametrize("name", ["ease", "knn", "popular", "ease/1"])
def test_any_model_can_be_asked_and_the_popular_list_goes_on_where_it_ends(home: Home, name: str) -> None:
    found = lines(home, model=name, include_holdout=True, users=pl.Series(["u04", "stranger"]), top=28)
    reference = name if "/" in name else f"{name}/1"
    assert {line["model"] for line in found.values()} == {reference}
    assert found["u04"]["base"] == reference
    assert found["stranger"]["base"] == "popular/1"
    assert [len(items(line)) for line in found.values()] == [28, 28]
    assert not set(items(found["u04"])) & set(clicks(4))
    popular = items(
        lines(home, model="popular", users=pl.Series(["stranger"]), include_holdout=True, top=28)["stranger"]
    )
    assert items(found["stranger"]) == popular


def test_reasons_name_own_items_by_title_or_say_popular(home: Home) -> None:
    add_items(home, [{"item_id": item, "title": f"Title {item}"} for item in clicks(4)])
    found = lines(home, explain=True, include_holdout=True, users=pl.Series(["u04", "stranger"]), top=5)
    titles = {f"goes with Title {item}" for item in clicks(4)}
    for entry in found["u04"]["items"]:
        assert 1 <= len(entry["reasons"]) <= 4
        assert {reason.rpartition(" (")[0] for reason in entry["reasons"]} <= titles | {"popular"}
    assert {tuple(entry["reasons"]) for entry in found["stranger"]["items"]} == {("popular",)}
    device = lines(home, explain=True, users=pl.Series(["x"]), context={"device": "mobile"}, include_holdout=True)
    assert device["x"]["items"][0]["reasons"] == ["popular on mobile"]


def test_the_first_reason_is_what_speaks_most(home: Home) -> None:
    found = lines(home, explain=True, include_holdout=True, users=pl.Series(["u04"]), model="ease", top=3)["u04"]
    saved = registry.load_model(home, "ease")
    weights = saved.model.weights_of(np.arange(len(saved.model.items)))  # type: ignore[attr-defined]
    place = {item: number for number, item in enumerate(saved.model.items)}
    from persona_cli.models.interactions import interactions, rows_for
    from persona_cli.profiles.history import history

    made = interactions(history(home), home.settings)
    row = rows_for(made, saved.model.items, home.settings)[[made.users.to_list().index("u04")]].toarray()[0]
    for entry in found["items"]:
        speaks = row * weights[:, place[entry["item_id"]]]
        assert entry["reasons"][0].rpartition(" (")[0] == f"goes with {saved.model.items[int(np.argmax(speaks))]}"


def test_rows_are_the_same_lists_flat(home: Home) -> None:
    blocks = list(recommend(home, top=3).blocks)
    rows = pl.concat([flat(block) for block in blocks])
    assert rows.columns == ["user_id", "rank", "item_id", "score", "model", "base", "stage", "holdout"]
    assert rows["rank"].to_list() == [1, 2, 3] * 80
    found = lines(home, top=3)
    assert rows.group_by("user_id", maintain_order=True).agg("item_id").rows() == [
        (name, items(line)) for name, line in found.items()
    ]
    assert rows["holdout"].null_count() == 0


def test_ids_come_out_as_they_went_in(home: Home) -> None:
    strange = ['a"b', "line\nbreak", ',"holdout":null}', "é\u202e", "=1+1"]
    add(home, [{"user_id": name, "item_id": f"i{name}", "timestamp": START} for name in strange])
    train(home)
    found = lines(home, users=pl.Series(strange), top=60, include_holdout=True)
    assert set(found) == set(strange)
    assert {f"i{name}" for name in strange} - {"i" + strange[0]} <= set(items(found[strange[0]]))


def test_scores_keep_digits_not_places() -> None:
    assert rounded(np.array([1.23456789, 0.0000123456789, 0.0], dtype=np.float32)).to_list() == [
        1.2346,
        1.2346e-05,
        0.0,
    ]


def test_without_a_model_or_users_it_is_missing_input(home: Home, tmp_path: Path) -> None:
    empty = create(tmp_path / "empty")
    with pytest.raises(MissingInput) as error:
        recommend(empty)
    assert error.value.hint == "persona train"
    with pytest.raises(UsageError, match="did you mean 'knn'"):
        recommend(home, model="knm")


def test_events_that_are_not_in_the_profiles_yet_are_warned_of(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    add(home, [{"user_id": "u00", "item_id": "a00", "timestamp": START + timedelta(weeks=20)}])
    recommend(home)
    assert "persona profile build" in caplog.text


def test_a_model_of_later_is_warned_of(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    recommend(home, as_of=START + timedelta(weeks=5))
    assert "trained on events after" in caplog.text


def test_a_segment_gets_its_members_lists(home: Home) -> None:
    (home.root / "persona.toml").write_text("[segments.phones]\nwhen = \"device = 'mobile'\"\n")
    shop = open_home(home.root)
    phones = {user(number) for number in range(80) if number % 4 < 2}
    everybody = lines(home)
    found = lines(shop, segment="phones")
    assert set(found) == phones
    assert all(found[name] == everybody[name] for name in phones)
    asked = pl.Series("user_id", [user(1), user(2), "stranger"])
    assert set(lines(shop, segment="phones", users=asked)) == {user(1)}
    assert lines(shop, segment="phones", users=pl.Series("user_id", [user(2)])) == {}
    assert set(lines(shop, segment="phones", as_of=START + timedelta(minutes=6))) == {
        user(number) for number in range(6) if number % 4 < 2
    }
    with pytest.raises(MissingInput, match="'fones'; did you mean 'phones'"):
        recommend(shop, segment="fones")
