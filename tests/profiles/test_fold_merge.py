"""Partial folds merge: in any order, in any grouping, and into what a fold of all events gives."""

from __future__ import annotations

import functools
import random as randoms
from typing import Any

import polars as pl
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import Event, at, frame

from persona_cli.profiles import fold as folding
from persona_cli.profiles.coding import text_numbers
from persona_cli.profiles.folds.part import MINUTE, FoldRules

RULES = FoldRules(30 * MINUTE)


def folded(events: list[Event]) -> pl.DataFrame:
    keyed = frame(events).with_columns(user_id=pl.coalesce("user_id", "anon_id")).select(folding.NEEDED)
    return folding.fold_users(keyed, RULES)


def merged(*parts: pl.DataFrame) -> pl.DataFrame:
    return folding.merge(pl.concat(parts), RULES)


@settings(max_examples=150, deadline=None)
@given(st.lists(strategies.events, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_fold_of_all_events_is_the_merge_of_any_split(parts: list[list[Event]], random: randoms.Random) -> None:
    rows = [folded(part) for part in parts]
    whole = folded([event for part in parts for event in part])
    assert merged(*rows).equals(whole)
    random.shuffle(rows)
    assert functools.reduce(merged, rows).equals(whole)
    assert functools.reduce(lambda right, left: merged(left, right), reversed(rows)).equals(whole)


@pytest.mark.parametrize("module", folding.FOLDS, ids=lambda module: module.__name__.rpartition(".")[2])
@settings(max_examples=50, deadline=None)
@given(a=strategies.events, b=strategies.events, c=strategies.events)
def test_each_module_merges_by_the_laws(module: Any, a: list[Event], b: list[Event], c: list[Event]) -> None:
    columns = ["user_id", *(field.name for field in module.FIELDS)]
    one, two, three = (folded(events).select(columns) for events in (a, b, c))

    def merge(*parts: pl.DataFrame) -> pl.DataFrame:
        rows = module.merge(pl.concat(parts), RULES)
        assert set(rows.columns) == set(columns)
        return rows.select(columns)

    assert merge(merge(one, two), three).equals(merge(one, merge(two, three)))
    assert merge(one, two).equals(merge(two, one))
    assert merge(one).equals(one)
    assert merge(one, one.clear()).equals(one)
    assert merge(one, two, three).equals(folded([*a, *b, *c]).select(columns))


def test_an_event_between_two_sittings_joins_them() -> None:
    first, second = folded([{}, {"timestamp": at(minutes=50)}]), folded([{"timestamp": at(minutes=25)}])
    assert (first["sessions"].item(), second["sessions"].item()) == (2, 1)
    row = merged(first, second).row(0, named=True)
    assert (row["sessions"], row["session_seconds"]) == (1, 3000.0)
    assert row["_intervals"] == [{"session": None, "first": at(), "last": at(minutes=50)}]


def test_a_session_id_goes_on_in_a_later_part() -> None:
    row = merged(
        folded([{"session_id": "s"}, {"session_id": "t", "timestamp": at(minutes=1)}]),
        folded([{"session_id": "s", "timestamp": at(days=2)}, {"timestamp": at(minutes=1)}]),
    ).row(0, named=True)
    assert (row["sessions"], row["session_seconds"]) == (3, 172_800.0)


def test_a_late_event_changes_the_latest_values_only_where_nothing_later_is_known() -> None:
    known = folded([{"device": "mobile", "timestamp": at(5)}])
    late = folded([{"device": "desktop", "country": "DE", "timestamp": at(1)}])
    row = merged(known, late).row(0, named=True)
    assert (row["device"], row["country"], row["first_seen"]) == ("mobile", "DE", at(1))


@given(st.lists(st.none() | st.text(max_size=40)))
def test_numbers_of_texts_depend_on_the_text_alone(texts: list[str | None]) -> None:
    column = pl.Series("s", texts, dtype=pl.String)
    numbers = text_numbers(column)
    assert numbers.is_null().equals(column.is_null())
    assert numbers.n_unique() == column.n_unique()
    assert numbers.to_list() == [text_numbers(pl.Series([text], dtype=pl.String)).item() for text in texts]
    assert text_numbers(column[1:]).equals(numbers[1:])


def test_numbers_of_texts_are_stored_and_so_never_change() -> None:
    texts = ["", "s", "12345678", "123456789", "Grüße aus dem Zug um 7:05"]
    assert text_numbers(pl.Series(texts)).to_list() == [_number(text.encode()) for text in texts]


def _number(text: bytes) -> int:
    odd, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    mixed = len(text) * odd & mask
    for begin in range(0, len(text), 8):
        value = (mixed ^ int.from_bytes(text[begin : begin + 8], "little")) * odd & mask
        mixed = value ^ (value >> 32)
    return mixed - 2**64 if mixed >= 2**63 else mixed
