"""What users tell, as it is kept and read: by hand, and in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import Event, add, at, frame, take_back, with_settings

from persona_cli.profiles import preferences
from persona_cli.profiles.fold import NEEDED, fold_users, merge
from persona_cli.profiles.folds import explicit
from persona_cli.profiles.folds.part import MINUTE, FoldRules
from persona_cli.profiles.read import profile
from persona_cli.profiles.sync import sync
from persona_cli.workspace.home import Home

RULES = FoldRules(30 * MINUTE)


def folded(events: Sequence[Event]) -> pl.DataFrame:
    keyed = frame(events).with_columns(user_id=pl.coalesce("user_id", "anon_id")).select(NEEDED)
    return fold_users(keyed, RULES)


def told(home: Home, *events: Event) -> dict[str, Any]:
    return preferences.told(folded(events).row(0, named=True), home.settings)


def one(kind: str, **more: Any) -> Event:
    return {"event_type": kind, **more}


def test_ratings_are_kept_as_their_sums(home: Home) -> None:
    values = [4.0, 2.5, 5.0, 0.125]
    events = [one("rating", item_id=f"i{n}", value=value) for n, value in enumerate(values)]
    row = folded([*events, one("rating", item_id="x"), one("rating", item_id="y", value=float("nan"))]).row(
        0, named=True
    )
    assert (row["ratings"], row["_rating_sum"], row["_rating_squares"]) == (4, 11_625, 47_265_625)
    found = told(home, *events)["ratings"]
    assert found == {"n": 4, "mean": round(np.mean(values), 3), "deviation": round(float(np.std(values)), 3)}
    assert told(home, one("click"))["ratings"] is None


def test_the_last_word_counts_and_of_two_at_once_the_block(home: Home) -> None:
    found = told(
        home,
        one("block", target="category:war", timestamp=at(1)),
        one("unblock", target="category:war", timestamp=at(2)),
        one("block", target="tag:x", timestamp=at(1)),
        one("unblock", target="tag:x", timestamp=at(1)),
        one("block", item_id="i", target="ignored", timestamp=at(1)),
        one("block", target="war"),
        one("block", target="category:"),
        one("save", item_id="a", timestamp=at(1)),
        one("save", item_id="b", timestamp=at(1)),
        one("unsave", item_id="a", timestamp=at(2)),
    )
    assert found["blocked"] == {"items": ["i"], "categories": [], "tags": ["x"]}
    assert found["saved"] == ["b"]


def test_show_less_is_counted_by_day_and_fades_to_the_last_event(home: Home) -> None:
    events = [one("show_less", item_id="i", timestamp=at(day)) for day in (0, 0, 10)]
    events += [one("show_less", target="tag:t", timestamp=at(20)), one("page_view", timestamp=at(20, hours=5))]
    slow = with_settings(home, recommend__show_less_half_life_days=10)
    assert told(slow, *events)["show_less"] == {"item:i": 2 * 0.25 + 0.5, "tag:t": 1.0}
    assert list(told(slow, *events)["show_less"]) == ["item:i", "tag:t"]
    never = with_settings(home, recommend__show_less_half_life_days=0)
    assert told(never, *events)["show_less"]["item:i"] == 3.0


def test_settings_and_answers_are_the_latest_by_key(home: Home) -> None:
    found = told(
        home,
        one("preference", target="theme", props='{"value": "light"}', timestamp=at(1)),
        one("preference", target="theme", props='{"value": "dark"}', timestamp=at(2)),
        one("preference", target="size", value=12.0),
        one("preference", target="ratio", value=0.5),
        one("preference", target="nothing"),
        one("preference", props='{"value": 1}'),
        one("survey_answer", target="taste", props='{"answer": ["b", "a", "b"], "other": 1}'),
        one("survey_answer", target="level", props='{"answer": "[x"}'),
    )
    assert found["preferences"] == {"theme": "dark", "size": "12", "ratio": "0.5"}
    assert found["answers"] == {"taste": ["a", "b"], "level": ["[x"]}


def test_reactions_name_the_decision_they_answer_to(home: Home) -> None:
    found = told(
        home,
        one("thumbs_up", item_id="a", decision_id="d1"),
        one("thumbs_up", item_id="b"),
        one("thumbs_down", item_id="a", decision_id="d1"),
        one("click", item_id="a", decision_id="d2"),
    )
    assert (found["thumbs_up"], found["thumbs_down"], found["reactions"]) == (2, 1, 2)


@st.composite
def tellings(draw: st.DrawFn) -> Event:
    return {
        "user_id": draw(st.sampled_from(("a", "b"))),
        "event_type": draw(st.sampled_from((*explicit.TYPES, "click"))),
        "item_id": draw(st.sampled_from((None, "x", "y"))),
        "target": draw(st.sampled_from((None, "category:c", "tag:t", "q"))),
        "value": draw(st.sampled_from((None, 1.0, 4.5, -3.25, float("nan"), 1e12))),
        "props": draw(st.sampled_from((None, '{"answer": "n"}', '{"answer": ["n", "m"]}', '{"value": 2}', "{}"))),
        "decision_id": draw(st.sampled_from((None, "d"))),
        "timestamp": at(draw(st.sampled_from((0, 0, 1))), minutes=draw(st.integers(0, 2))),
    }


@settings(max_examples=100)
@given(st.lists(st.lists(tellings(), max_size=8), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_is_told_merges_in_any_order(parts: list[list[Event]], random: Any) -> None:
    events = [event for part in parts for event in part]
    whole = folded(events)
    random.shuffle(parts)
    for part in parts:
        random.shuffle(part)
    assert merge(pl.concat([folded(part) for part in parts]), RULES).equals(whole)


def test_events_that_are_taken_back_were_never_said(home: Home) -> None:
    add(home, [one("block", target="tag:a", timestamp=at(1)), one("click", item_id="i", timestamp=at(2))])
    paths = add(home, [one("unblock", target="tag:a", timestamp=at(3)), one("show_less", item_id="i", timestamp=at(3))])
    sync(home)
    rows = preferences.spoken(home)
    assert preferences.blocks(rows)["on"].to_list() == [False]
    assert preferences.shown_less(rows, 365.0).rows() == [("u", "item:i", 1.0)]
    assert preferences.blocks(preferences.spoken(home, as_of=at(2)))["on"].to_list() == [True]
    take_back(home, paths)
    sync(home)
    rows = preferences.spoken(home)
    assert preferences.blocks(rows)["on"].to_list() == [True]
    assert not preferences.shown_less(rows, 365.0).height
    assert profile(home, "u")["told"]["blocked"]["tags"] == ["a"]
