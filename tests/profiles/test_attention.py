"""What the fold keeps of attention: by hand, and merged from any split of the events."""

from __future__ import annotations

import random as randoms
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import Event, at, frame

from persona_cli.profiles.coding import coded
from persona_cli.profiles.folds import attention
from persona_cli.profiles.folds.part import MINUTE, FoldRules, part_of

RULES = FoldRules(30 * MINUTE)
COLUMNS = ["user_id", *(field.name for field in attention.FIELDS)]


def folded(events: list[Event]) -> pl.DataFrame:
    rows = frame(events).select("user_id", "timestamp", *attention.NEEDED)
    part = part_of(coded(rows, ("user_id", *attention.TEXTS)))
    if part is None:
        return folded([{}]).clear()
    return pl.DataFrame({"user_id": part.users, **attention.fold(part, RULES)}).select(COLUMNS)


def merged(*parts: pl.DataFrame) -> pl.DataFrame:
    return attention.merge(pl.concat(parts), RULES)


def one(*events: Event) -> dict[str, Any]:
    return folded(list(events)).row(0, named=True)


def test_seconds_and_depths() -> None:
    row = one(
        {"event_type": "dwell", "value": 1.5},
        {"event_type": "dwell", "value": 1.4999},
        {"event_type": "dwell", "value": 90.0},
        *({"event_type": "dwell", "value": value} for value in (None, float("nan"), 0.0, -3.0, float("inf"))),
        {"event_type": "scroll", "value": 0.25},
        {"event_type": "scroll", "value": 7.0},
        {"event_type": "scroll", "value": -1.0},
        {"event_type": "scroll"},
    )
    assert (row["dwells"], row["dwell_ms"]) == (3, 93_000)
    assert [(step["n"], step["ms"]) for step in row["_dwell"]] == [(2, 3000), (1, 90_000)]
    assert (row["scrolls"], row["_scroll_thousandths"]) == (3, 1250)


def test_a_day_is_the_longest_dwell() -> None:
    assert one({"event_type": "dwell", "value": 1e300})["dwell_ms"] == attention.LONGEST_MS


def test_what_was_clicked_searched_for_and_used_with_how_often_and_when_last() -> None:
    row = one(
        {"event_type": "click", "target": "card", "timestamp": at(1)},
        {"event_type": "click", "target": "card", "timestamp": at(0)},
        {"event_type": "view", "target": "card", "timestamp": at(2)},
        {"event_type": "search", "query": " blue \n shoes", "timestamp": at(1)},
        {"event_type": "click", "query": "blue shoes", "timestamp": at(3)},
        {"event_type": "search", "query": "  ", "timestamp": at(3)},
        {"event_type": "feature_use", "target": "export", "timestamp": at(4)},
    )
    assert row["clicked"] == [{"target": "card", "n": 2, "last": at(1)}]
    assert row["queries"] == [{"query": "blue shoes", "n": 2, "last": at(3)}]
    assert row["features_used"] == [{"feature": "export", "n": 1, "last": at(4)}]


def test_a_user_without_any_has_empty_lists() -> None:
    row = one({"event_type": "view"})
    assert row == {"user_id": "u"} | dict.fromkeys(("scrolls", "_scroll_thousandths", "dwells", "dwell_ms"), 0) | {
        name: [] for name in ("_dwell", "clicked", "queries", "features_used", "channels", "_purchases")
    }


def test_messages_by_channel_and_purchases() -> None:
    row = one(
        {"event_type": "message_open", "target": "mail", "timestamp": at(1)},
        {"event_type": "message_click", "target": "mail", "timestamp": at(2)},
        {"event_type": "message_open", "target": "push", "timestamp": at(3)},
        {"event_type": "purchase", "timestamp": at(4)},
    )
    assert row["channels"] == [{"channel": "mail", "n": 2, "last": at(2)}, {"channel": "push", "n": 1, "last": at(3)}]
    assert row["_purchases"] == [{"event_type": "purchase", "n": 1, "last": at(4)}]


@st.composite
def event(draw: st.DrawFn) -> Event:
    return {
        "user_id": draw(st.sampled_from(("a", "b", "ä"))),
        "event_type": draw(
            st.sampled_from(("dwell", "scroll", "click", "search", "feature_use", "view", "message_open", "purchase"))
        ),
        "timestamp": at(draw(st.sampled_from((0, 1, 400)))) + timedelta(microseconds=draw(st.integers(0, 2))),
        "target": draw(st.sampled_from((None, "x", "y", "é"))),
        "query": draw(st.sampled_from((None, "q", " q ", "r  s", "r s", " "))),
        "value": draw(st.sampled_from((None, 0.0, 0.4, 0.9, 3.0, 41.5, 900.0, float("nan"), -2.0, 1e12))),
    }


events = st.lists(event(), max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(events, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_fold_of_all_events_is_the_merge_of_any_split(parts: list[list[Event]], random: randoms.Random) -> None:
    whole = folded([one for part in parts for one in part])
    rows = [folded(part) for part in parts]
    assert merged(*rows).equals(whole)
    random.shuffle(rows)
    assert merged(rows[0], *(merged(row) for row in rows[1:])).equals(whole)
    together = [one for part in parts for one in part]
    random.shuffle(together)
    assert folded(together).equals(whole)


@pytest.mark.parametrize("n", [1, 2])
def test_no_rows_are_neutral(n: int) -> None:
    row = folded([{"event_type": "dwell", "value": 3.0}])
    assert merged(row, *[row.clear()] * n).equals(row)
