"""The fold of a user's events into one row, against a plain second version and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import oracle
import polars as pl
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import Event, at, frame

from persona_cli.profiles.fold import NEEDED, SCHEMA, SHOWN, fold_users
from persona_cli.profiles.folds import activity, context
from persona_cli.profiles.folds.part import MINUTE, FoldRules

PLAIN = ["user_id", *(field.name for fold in (activity, context) for field in fold.FIELDS if field.name in SHOWN)]


def folded(events: Sequence[Event], gap: float = 30.0) -> pl.DataFrame:
    keyed = frame(events).with_columns(user_id=pl.coalesce("user_id", "anon_id")).select(NEEDED)
    return fold_users(keyed, FoldRules(round(gap * MINUTE)))


def one(*events: Event, gap: float = 30.0) -> dict[str, Any]:
    rows = folded(events, gap)
    assert rows.height == 1
    return rows.row(0, named=True)


@settings(max_examples=150, deadline=None)
@given(strategies.events, st.sampled_from((0.5, 30.0, 90.0)))
def test_equals_the_plain_fold(events: list[Event], gap: float) -> None:
    schema = folded([]).select(PLAIN).schema
    expected = pl.DataFrame(oracle.profiles(events, gap), schema=schema)
    assert folded(events, gap).select(PLAIN).equals(expected)


@settings(max_examples=50, deadline=None)
@given(strategies.events, st.randoms(use_true_random=False))
def test_the_order_of_events_changes_nothing(events: list[Event], random: Any) -> None:
    shuffled = events.copy()
    random.shuffle(shuffled)
    assert folded(shuffled).equals(folded(events))


def test_columns_are_those_of_the_table() -> None:
    stored = pl.DataFrame(pl.from_arrow(SCHEMA.empty_table())).drop("bucket")
    assert folded([]).schema == stored.schema
    assert folded([{}]).schema == stored.schema


def test_a_pause_of_exactly_the_gap_does_not_split() -> None:
    row = one({}, {"timestamp": at(minutes=30)}, {"timestamp": at(minutes=60, seconds=1)})
    assert (row["sessions"], row["session_seconds"]) == (2, 1800.0)


def test_a_session_id_holds_a_session_together_and_belongs_to_one_user() -> None:
    rows = folded(
        [
            {"session_id": "s"},
            {"session_id": "s", "timestamp": at(hours=5)},
            {"session_id": "t", "timestamp": at(minutes=1)},
            {"timestamp": at(minutes=2)},
            {"user_id": "v", "session_id": "s", "timestamp": at(days=9)},
        ]
    )
    assert rows["sessions"].to_list() == [3, 1]
    assert rows["session_seconds"].to_list() == [18_000.0, 0.0]


def test_the_latest_value_that_is_there_counts_and_ties_go_to_the_last_in_order() -> None:
    row = one(
        {"device": "tablet", "country": "DE", "timestamp": at(1)},
        {"device": "desktop", "timestamp": at(2)},
        {"device": "mobile", "timestamp": at(2)},
        {"timestamp": at(3), "account_id": "acme"},
    )
    assert (row["device"], row["country"], row["account_id"], row["browser"]) == ("mobile", "DE", "acme", None)


def test_one_user_has_nothing_of_another() -> None:
    rows = folded([{"user_id": "a", "device": "mobile"}, {"user_id": "b", "timestamp": at(1)}])
    assert rows["device"].to_list() == ["mobile", None]
    assert rows["devices"].to_list() == [[{"device": "mobile", "n": 1}], []]


def test_hours_are_local_where_the_zone_is_known() -> None:
    row = one({"timestamp": at(hours=23)}, {"timestamp": at(hours=23), "tz": "Asia/Tokyo"}, {"tz": "Mars/Olympus"})
    assert [(hour, n) for hour, n in enumerate(row["hours"]) if n] == [(0, 1), (8, 1), (23, 1)]


def test_times_too_far_apart_to_pack_into_one_key_still_sort() -> None:
    # 270 years in microseconds times a thousand users is more than 63 bits.
    events = [
        {"user_id": f"u{n:04d}", "timestamp": at(days=99_000 * (m == 1) + m), "device": f"d{m}"}
        for n in range(1500)
        for m in (2, 1, 0)
    ]
    rows = folded(events)
    assert rows["device"].unique().to_list() == ["d1"]
    assert rows["sessions"].unique().to_list() == [3]
