"""`persona explain`: what it says is true by ranking again, and the sets are as small as it says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import START, add, add_items, clicks, shop, user

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.receipts import record
from persona_cli.errors import MissingInput
from persona_cli.feedback.training import train
from persona_cli.profiles.permitted import PERSONALIZATION, in_holdout, person_events
from persona_cli.profiles.sync import sync
from persona_cli.serving.counterfactual import Explanation, explain
from persona_cli.serving.recommend import recommend
from persona_cli.serving.trials import Trials, smallest_set
from persona_cli.workspace.home import Home, open_home

TOP = 5


def ruled(home: Home, text: str) -> Home:
    path = home.root / "persona.toml"
    path.write_text(f"{path.read_text().split('[rules]')[0]}\n{text}")
    return open_home(home.root)


def listed(home: Home, name: str, top: int = TOP, model: str | None = None) -> list[str]:
    made = recommend(home, users=pl.Series([name]), model=model, top=top, include_holdout=True)
    return pl.concat(list(made.blocks))["items"].explode().struct.field("item_id").to_list()


def explained(home: Home, name: str, item: str, **asked: Any) -> Explanation:
    return explain(home, name, item, **{"top": TOP, "include_holdout": True, **asked})


def subsets(n: int) -> list[tuple[int, ...]]:
    return [one for size in range(n + 1) for one in combinations(range(n), size)]


@settings(max_examples=200)
@given(n=st.integers(0, 6), gone=st.sets(st.integers(1, 63)), budget=st.sampled_from([0, 3, 10, 2_000]))
def test_the_search_against_all_subsets(n: int, gone: set[int], budget: int) -> None:
    """Any function of subsets at all: what is found leaves, nothing of it can be spared, `smallest` is true."""

    def bits(chosen: Sequence[int]) -> int:
        return sum(1 << one for one in chosen)

    found = smallest_set(n, lambda sets: [bits(one) in gone for one in sets], budget)
    right = [one for one in subsets(n) if bits(one) in gone]
    if found is None:
        assert not right or budget < 2_000
        return
    assert found.chosen in right
    assert not any(bits(found.chosen) - (1 << one) in gone for one in found.chosen)
    if found.smallest:
        assert len(found.chosen) == min(map(len, right))
    assert found.smallest or budget < 2_000


@settings(max_examples=60)
@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=40), need=st.integers(1, 60))
def test_of_parts_that_add_up_the_answer_is_minimal_at_any_size(weights: list[int], need: int) -> None:
    """As in a linear model: the item leaves where what is taken away adds up to `need`."""
    weights = sorted(weights, reverse=True)
    found = smallest_set(
        len(weights), lambda sets: [sum(weights[one] for one in chosen) >= need for chosen in sets], 100
    )
    fewest = next((size for size in range(1, len(weights) + 1) if sum(weights[:size]) >= need), None)
    assert (None if found is None else len(found.chosen)) == fewest  # the first few are best here, and are tried


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Thirty more users with two to eight items at random, of both tastes, some clicked again; the models are older."""
    home = shop(tmp_path_factory.mktemp("small") / "w")
    train(home, ["popular", "knn", "ease", "spectral"])
    train(home)
    rng = np.random.default_rng(5)
    rows = []
    for number in range(30):
        own = rng.choice(40, rng.integers(2, 9), replace=False)
        rows += [
            {"user_id": f"r{number:02d}", "item_id": f"{'ab'[item // 20]}{item % 20:02d}", "device": "mobile"}
            | {"timestamp": START + timedelta(weeks=12, days=int(day))}
            for item in own
            for day in rng.integers(0, 60, rng.integers(1, 4))
        ]
    add(home, rows)
    sync(home)
    return open_home(home.root)


WHO = {
    "number": st.integers(0, 29),
    "rank": st.integers(0, TOP - 1),
    "model": st.sampled_from([None, "knn", "ease", "spectral"]),
}


def against_every_subset(home: Home, number: int, rank: int, model: str | None) -> None:
    name = f"r{number:02d}"
    item = listed(home, name, model=model)[rank]
    told = explained(home, name, item, model=model)
    assert told.listed and told.rank == rank + 1
    trials = Trials(home, name, TOP, model, None, None, True)
    every = subsets(len(trials.items))
    there = trials.listed(item, [np.array(one, dtype=np.int64) for one in every])
    leaving = [set(trials.items.gather(list(one))) for one, stays in zip(every, there, strict=True) if not stays]
    if told.why == "history":
        assert set(told.without) in leaving and told.proven == "smallest"
        assert len(told.without) == min(map(len, leaving))
    else:
        assert told.why == "popular" and not leaving


def against_events_that_never_were(home: Home, root: Path, number: int, rank: int, model: str | None) -> None:
    """Somebody with the same events but those of the set, in the tables: the item is not in the list, and back with
    any one of the items of the set."""
    name = f"r{number:02d}"
    model = "knn" if model is None else model  # whose scores do not depend on what is hidden
    item = listed(home, name, model=model)[rank]
    told = explained(home, name, item, model=model)
    shutil.copytree(home.root, root)
    copy = open_home(root)
    events = person_events(copy, purpose=None).filter(pl.col("user_id") == name)
    rows = events.select("item_id", "timestamp", "device").collect().to_dicts()
    without = set(told.without)
    others = {"gone": without} | {f"with{number}": without - {one} for number, one in enumerate(told.without)}
    add(copy, [row | {"user_id": who} for who, out in others.items() for row in rows if row["item_id"] not in out])
    sync(copy)
    for who, out in others.items():
        found = [one for one in listed(copy, who, TOP + len(out), model) if one not in out][:TOP]
        assert (item in found) == (who != "gone" or told.why == "popular")


@settings(max_examples=5)
@given(**WHO)
def test_no_smaller_part_of_a_history_would_do(small: Home, number: int, rank: int, model: str | None) -> None:
    against_every_subset(small, number, rank, model)


@pytest.mark.slow
@settings(max_examples=100)
@given(**WHO)
def test_no_smaller_part_of_many_histories_would_do(small: Home, number: int, rank: int, model: str | None) -> None:
    against_every_subset(small, number, rank, model)


@settings(max_examples=2)
@given(**WHO)
def test_events_that_never_were_take_the_item_away(
    small: Home, number: int, rank: int, model: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    against_events_that_never_were(small, tmp_path_factory.mktemp("copy") / "w", number, rank, model)


@pytest.mark.slow
@settings(max_examples=30)
@given(**WHO)
def test_events_of_many_that_never_were_take_the_item_away(
    small: Home, number: int, rank: int, model: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    against_events_that_never_were(small, tmp_path_factory.mktemp("copy") / "w", number, rank, model)


def test_nothing_of_anybody_else_is_told(small: Home) -> None:
    for item in [*listed(small, "r03"), "b01", "a01"]:
        told = explained(small, "r03", item)
        text = json.dumps(told.to_dict())
        assert set(re.findall(r"\b[ur]\d\d\b", text)) == {"r03"}


def test_the_same_as_the_list_and_its_shares(home: Home) -> None:
    made = recommend(home, users=pl.Series([user(4)]), explain=True, top=TOP, include_holdout=True)
    (line,) = pl.concat(list(made.blocks)).to_dicts()
    for rank, entry in enumerate(line["items"], 1):
        told = explained(home, user(4), entry["item_id"])
        assert (told.listed, told.rank, told.score, told.shares) == (True, rank, entry["score"], entry["shares"])
        assert (told.model, told.base, told.stage, told.layers) == tuple(
            line[key] for key in ("model", "base", "stage", "layers")
        )
        assert told.why == "history" and set(told.without) <= set(clicks(4))
        assert told.rank_without is not None and told.rank_without > TOP and told.instead


def test_popular_where_that_is_the_truth(home: Home) -> None:
    item = listed(home, user(4), model="popular")[0]
    told = explained(home, user(4), item, model="popular")
    assert told.why == "popular" and told.without == [] and told.proven is None
    assert told.text[-1].endswith(": popular on mobile")


def test_pinned_drawn_and_excluded_by_rules(home: Home) -> None:
    items = listed(home, user(4))
    rules = f'[rules]\n[rules.pin.season]\nitems = ["b19"]\n[rules.exclude.old]\nitems = ["{items[0]}"]\n'
    pinned = ruled(home, rules)
    told = explained(pinned, user(4), "b19")
    assert (told.why, told.rank, told.rules, told.without) == ("pinned", 1, ["rules.pin.season"], [])
    assert "pinned by rule season" in told.text[0]
    out = explained(pinned, user(4), items[0])
    assert (out.why, out.listed, out.rules) == ("excluded", False, ["rules.exclude.old"])
    assert out.text[0].endswith("excluded by rule old")
    drawing = ruled(home, f"{rules}[rules.exploration]\nshare = 0.4\n")
    made = recommend(drawing, users=pl.Series([user(4)]), explain=True, top=TOP, include_holdout=True)
    (line,) = pl.concat(list(made.blocks)).to_dicts()
    drawn = [entry["item_id"] for entry in line["items"] if entry["reasons"] == ["drawn at random"]]
    assert len(drawn) == 2
    for item in drawn:
        assert explained(drawing, user(4), item).why == "drawn"
    kept = [entry["item_id"] for entry in line["items"] if entry["item_id"] not in (*drawn, "b19")]
    for item in kept:
        assert explained(drawing, user(4), item).why in ("history", "popular")


def test_what_is_not_in_the_list_says_why_and_what_is_missing(home: Home) -> None:
    items = listed(home, user(4), top=15)
    told = explained(home, user(4), items[9])
    assert (told.why, told.listed, told.rank) == ("behind", False, 10)
    last = explained(home, user(4), items[TOP - 1]).score
    assert last is not None and told.score is not None
    assert told.missing == pytest.approx(last - told.score, rel=1e-3)
    assert explained(home, user(4), items[9], top=10).listed


def test_consumed_and_unavailable_items_say_so(home: Home) -> None:
    items = listed(home, user(4))
    add_items(home, [{"item_id": items[0], "available": False}, {"item_id": "unheard", "title": "Of no model"}])
    assert explained(home, user(4), clicks(4)[0]).why == "consumed"
    assert explained(home, user(4), items[0]).why == "unavailable"
    told = explained(home, user(4), "unheard")
    assert told.why == "unknown" and "trained without it" in told.text[0]


def test_sensitive_items_are_counted_and_not_named(home: Home) -> None:
    plain = [explained(home, user(4), item) for item in listed(home, user(4))]
    told = next(one for one in plain if one.without)
    worst = told.without[0]
    add_items(home, [{"item_id": worst, "title": "Secret", "category": "health"}])
    again = explained(ruled(home, '[rules]\nsensitive = ["health"]\n'), user(4), told.item_id)
    assert (again.without, again.unnamed) == (told.without[1:], 1)
    text = json.dumps(again.to_dict())
    assert worst not in text and "Secret" not in text and "may not be named" in text


def test_the_held_out_and_those_who_said_no_get_the_general_answer(home: Home) -> None:
    users = pl.Series([user(number) for number in range(80)])
    held = users.filter(in_holdout(home, users))[0]
    told = explain(home, held, listed_for_all(home, held)[0], top=TOP)
    assert told.why == "general" and "held out" in told.text[-1] and told.without == []
    record(home, [user(4)], [PERSONALIZATION], "withdrawn", at=START + timedelta(weeks=20), source="test")
    item = listed(home, user(4))[0]
    told = explained(home, user(4), item)
    assert (told.why, told.stage, told.without) == ("general", "generic", [])
    assert "does not cover" in told.text[-1] and not any(share["item_id"] for share in told.shares)
    behind = explained(home, user(4), listed(home, user(4), top=10)[8])
    assert behind.why == "behind" and "does not cover" in behind.text[-1]


def listed_for_all(home: Home, name: str) -> list[str]:
    made = recommend(home, users=pl.Series([name]), top=TOP)
    return pl.concat(list(made.blocks))["items"].explode().struct.field("item_id").to_list()


def test_unknown_users_and_items_are_one_sentence_and_no_user_is_suggested(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MissingInput, match=r"^nothing is known of a user 'u0'$"):
        explained(home, "u0", "a01")
    with pytest.raises(MissingInput, match=r"^no item 'a001' is known; did you mean 'a\d\d'"):
        explained(home, user(4), "a001")
    assert run(["explain", "u0", "a01", "-w", str(home.root)]) == 66
    said = capsys.readouterr().err
    assert "u0'" in said and not re.search(r"u\d\d", said)


def test_the_command_and_the_api_say_the_same(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    item = listed(home, user(4))[0]
    words = ["explain", user(4), item, "--top", str(TOP), "--include-holdout", "-w", str(home.root)]
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = Workspace(home.root).explain(user(4), item, top=TOP, include_holdout=True)
    assert told == found.to_dict()
    assert run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.lower() for line in lines] == [f"{text}.".lower() for text in found.text]
    for path in Path(home.root).rglob("runs/*/*.json"):
        assert user(4) not in path.read_text()


def test_searches_blocks_and_orders_of_events_take_part(home: Home) -> None:
    """Virtual users have them like the user: nothing dropped is the user's own list, bit for bit."""
    at = START + timedelta(weeks=14)
    add_items(
        home,
        [
            {"item_id": f"{k}{n:02d}", "category": f"c{n // 4}", "title": f"{k} {n % 5}"}
            for k in "ab"
            for n in range(20)
        ],
    )
    add(
        home,
        [
            {"user_id": user(4), "timestamp": at, "event_type": "show_less", "item_id": "a14"},
            {"user_id": user(4), "timestamp": at, "event_type": "search", "query": "b 3 zebra"},
            {"user_id": "new", "timestamp": at, "event_type": "search", "query": "b 3 zebra"},
        ],
    )
    train(home, ["content", "ranker"])
    for model in ("layered", "ranker", "content"):
        trials = Trials(home, user(4), 40, model, None, None, True)
        _, (real,) = trials.ranked(trials.asked, 40, None)
        _, (same,) = trials.ranked(trials.virtual([np.zeros(0, dtype=np.int64)]), 40, None)
        np.testing.assert_array_equal(real.places, same.places)
        np.testing.assert_array_equal(real.scores, same.scores)
    told = explained(home, "new", listed(home, "new", model="content")[0], model="content")
    assert told.why == "search" and told.text[-1].endswith("matches a recent search")
    assert "zebra" not in json.dumps(told.to_dict())
