"""Lists as numbers and the hits in them: exact in any order of rows, in any blocks, with any vocabulary."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import pairs_of

from persona_cli.errors import BadData
from persona_cli.evaluation import coded
from persona_cli.evaluation.coded import coded_lists, coded_pairs, find_hits, hits_of

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64}
Lists = dict[str, list[tuple[str, int]]]


def frame_of(lists: Lists) -> pl.DataFrame:
    """Each user's entries: item and rank."""
    rows = [(user, item, rank) for user, entries in lists.items() for item, rank in entries]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


# Ids that share prefixes and lengths, are empty, or differ beyond the twelve bytes that polars holds inline.
ids = st.sampled_from(["", "a", "aa", "b", "ü", "a-rather-long-item-id-1", "a-rather-long-item-id-2", "10", "9"])


@st.composite
def some_lists(draw: st.DrawFn) -> Lists:
    lists: Lists = {}
    for user in draw(st.lists(ids, unique=True, max_size=6)):
        items = draw(st.lists(ids, unique=True, min_size=1, max_size=6))
        ranks = draw(st.lists(st.integers(1, 30), unique=True, min_size=len(items), max_size=len(items)))
        lists[user] = list(zip(items, ranks, strict=True))
    return lists


some_wants = st.dictionaries(ids, st.sets(ids, min_size=1, max_size=6), max_size=6)


@settings(max_examples=150, deadline=None)
@given(lists=some_lists(), wanted=some_wants, depth=st.none() | st.integers(1, 30), seed=st.integers(0, 99))
def test_hits_are_those_that_a_person_would_find(
    lists: Lists, wanted: dict[str, set[str]], depth: int | None, seed: int
) -> None:
    users = sorted(wanted)
    expected = [
        (number, rank)
        for number, user in enumerate(users)
        for rank in sorted(rank for item, rank in lists.get(user, []) if item in wanted[user])
        if depth is None or rank <= depth
    ]
    shuffled = frame_of(lists).sample(fraction=1.0, shuffle=True, seed=seed)
    for frame in (frame_of(lists), frame_of(lists).sort("user_id", "rank"), shuffled):
        hits = find_hits(frame, pairs_of(wanted).sample(fraction=1.0, shuffle=True, seed=seed), depth)
        assert hits.users.to_list() == users
        assert hits.relevant.tolist() == [len(wanted[user]) for user in users]
        assert list(zip(hits.user.tolist(), hits.rank.tolist(), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(lists=some_lists(), vocabulary=st.lists(ids, unique=True), seed=st.integers(0, 99))
def test_coded_lists_are_the_lists_whatever_the_order_of_rows_and_the_vocabulary(
    lists: Lists, vocabulary: list[str], seed: int
) -> None:
    frame = frame_of(lists).sample(fraction=1.0, shuffle=True, seed=seed)
    found = coded_lists(frame, pl.Series("item_id", vocabulary, dtype=pl.String))
    assert found.ranks is not None
    table = pl.DataFrame(
        {
            "user_id": found.users.gather(np.repeat(np.arange(len(found.users)), found.lengths)),
            "item_id": found.items.gather(found.codes),
            "rank": found.ranks,
        },
        schema=SCHEMA,
    )
    assert table.equals(frame.sort("user_id", "rank"))
    assert found.items.to_list()[: len(vocabulary)] == vocabulary  # codes of a vocabulary are its places
    assert found.column(frame["item_id"]).to_list() == table["item_id"].to_list()


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(5)
    lists: Lists = {
        f"u{n}": [(f"i{i}", r) for r, i in enumerate(draws.permutation(40)[: draws.integers(1, 20)], 1)]
        for n in range(50)
    }
    wanted = {f"u{n}": {f"i{i}" for i in draws.integers(0, 40, 7)} for n in range(10, 60)}
    bits = draws.random(40)
    items = pl.Series("item_id", [f"i{i}" for i in range(40)])
    whole = find_hits(frame_of(lists), pairs_of(wanted))
    entries = coded_lists(frame_of(lists), items)
    rows, means = entries.means(bits, 3)
    monkeypatch.setattr(coded, "BLOCK", 7)
    monkeypatch.setattr(coded.blocks, "__defaults__", (7,))
    monkeypatch.setattr(coded, "_share", lambda n: 11)
    parts = find_hits(frame_of(lists), pairs_of(wanted))
    assert all(np.array_equal(a, b) for a, b in zip(whole[1:], parts[1:], strict=True))
    again = coded_lists(frame_of(lists), items)
    assert np.array_equal(again.codes, entries.codes) and again.items.equals(entries.items)
    assert all(np.array_equal(a, b) for a, b in zip(again.means(bits, 3), (rows, means), strict=True))


def test_a_vocabulary_too_large_for_small_keys_still_finds_what_stands_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "_KEYS", 10)  # rows of one block times items must stay below
    lists = frame_of({user: [("a", 1), ("b", 2), ("c", 3)] for user in "uvwxyz"})
    assert len(coded_lists(lists).users) == 6
    with pytest.raises(BadData, match="item_id 'c' 2 times for user 'y'"):
        coded_lists(pl.concat([lists, frame_of({"y": [("c", 9)]})]))


def test_times_shown_and_means_over_a_first_k() -> None:
    entries = coded_lists(frame_of({"u": [("a", 1), ("b", 2)], "v": [("b", 3)], "w": [("c", 1)]}))
    assert entries.shown(1).tolist() == [1, 0, 1]
    assert entries.shown(3).tolist() == [1, 2, 1]
    assert entries.shown(3, n_items=5).tolist() == [1, 2, 1, 0, 0]
    rows, means = entries.means(np.array([1.0, 4.0, 8.0]), 2)
    assert rows.tolist() == [0, 2]  # v shows nothing in its first two places
    assert means.tolist() == [2.5, 8.0]


def test_answers_and_lists_agree_on_items_that_no_vocabulary_knew() -> None:
    wanted = coded_pairs(pairs_of({"u": {"new", "older"}}), pl.Series("item_id", ["known"]))
    lists = coded_lists(frame_of({"u": [("newer", 1), ("older", 2), ("known", 3)]}), wanted.items)
    hits = hits_of(lists, wanted)
    assert hits.rank.tolist() == [2]
    assert lists.items.to_list() == ["known", "new", "older", "newer"]


@pytest.mark.parametrize("kind", [pl.Int8, pl.UInt16, pl.Int32, pl.UInt64])
def test_ranks_may_be_whole_numbers_of_any_size(kind: type[pl.DataType]) -> None:
    lists = frame_of({"u": [("b", 2), ("a", 1)]}).with_columns(pl.col("rank").cast(kind))
    assert find_hits(lists, pairs_of({"u": {"b"}})).rank.tolist() == [2]


@pytest.mark.parametrize("apart", [False, True])
def test_the_first_duplicate_is_named_wherever_it_stands(apart: bool) -> None:
    rows = [("v", "a", 1), ("v", "b", 2), ("u", "b", 1), ("u", "c", 2)]
    rows.insert(4 if apart else 1, ("v", "a", 3))
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    with pytest.raises(BadData, match="the lists hold item_id 'a' 2 times for user 'v'; expected once"):
        coded_lists(frame)
    with pytest.raises(BadData, match="the relevant pairs hold item_id 'a' 2 times for user 'v'; expected once"):
        coded_pairs(frame.drop("rank"))
