from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest

from persona_cli.events import dedupe
from persona_cli.events.dedupe import Month, Segment, judge_ids, keys_of, number_occurrences, numbered


def segment(*ids: str) -> Segment:
    held = pl.Series(ids, dtype=pl.String)
    return Segment("held", np.sort(keys_of(held)), lambda: held)


def number(month: Month, ids: list[str], given: list[bool] | None = None, files: list[int] | None = None) -> list[str]:
    series = pl.Series(ids, dtype=pl.String)
    flags = np.array(given if given is not None else [False] * len(ids))
    numbers = np.array(files if files is not None else [0] * len(ids), np.int32)
    return number_occurrences(month, series, flags, numbers).to_list()


def test_the_id_of_a_repetition_is_md5_of_id_and_number() -> None:
    assert numbered("abc", 2) == hashlib.md5(b"abc\x1f2").hexdigest() == "12fc9b6d2cacbdcc7b80db8077aa57ce"


def test_identical_rows_of_one_file_are_numbered_in_order() -> None:
    ids = ["a", "b", "a", "a"]
    assert number(Month(), ids) == ["a", "b", numbered("a", 1), numbered("a", 2)]
    assert ids == ["a", "b", "a", "a"]


def test_numbering_leaves_its_input_alone() -> None:
    ids = pl.Series(["a", "a"])
    number_occurrences(Month(), ids, np.array([False, False]), np.zeros(2, np.int32))
    assert ids.to_list() == ["a", "a"]


def test_given_ids_are_never_numbered_and_files_count_apart() -> None:
    assert number(Month(), ["a", "a", "a"], given=[True, False, True]) == ["a", "a", "a"]
    assert number(Month(), ["a", "a", "a"], files=[0, 1, 1]) == ["a", "a", numbered("a", 1)]


def test_counting_goes_on_where_the_file_does() -> None:
    month = Month()
    assert number(month, ["a", "b"]) == ["a", "b"]
    month.segments.append(segment("a", "b"))
    assert number(month, ["a", "c", "a"]) == [numbered("a", 1), "c", numbered("a", 2)]
    assert number(month, ["a"]) == [numbered("a", 3)]
    assert number(month, ["a"], files=[1]) == ["a"]


def test_a_key_without_its_id_is_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "keys_of", lambda ids: np.zeros(len(ids), np.uint64))
    month = Month()
    assert number(month, ["a", "b", "b"]) == ["a", "b", numbered("b", 1)]
    month.segments.append(Segment("held", np.zeros(3, np.uint64), lambda: pl.Series(["a", "b", numbered("b", 1)])))
    assert number(month, ["c"]) == ["c"]
    verdict = judge_ids(month, pl.Series(["c", "a", "c"]), "keep-first")
    assert verdict.keep.tolist() == [True, False, False]


def test_first_or_last_of_equal_ids_is_kept() -> None:
    ids = pl.Series(["x", "y", "x", "z", "x"])
    assert judge_ids(Month(), ids, "keep-first").keep.tolist() == [True, True, False, True, False]
    assert judge_ids(Month(), ids, "keep-last").keep.tolist() == [False, True, False, True, True]


def test_what_is_in_the_month_is_dropped_or_takes_its_place() -> None:
    month = Month([segment("x", "q"), segment("z")])
    ids = pl.Series(["x", "y", "z", "z"])
    assert judge_ids(month, ids, "keep-first").keep.tolist() == [False, True, False, False]
    last = judge_ids(month, ids, "keep-last")
    assert last.keep.tolist() == [True, True, False, True]
    assert last.again.tolist() == [True, False, False, True]


@pytest.mark.parametrize("rows", [0, 1, 5, 5_000])
def test_contained_and_distinct_agree_with_sets(rows: int) -> None:
    rng = np.random.default_rng(rows)
    keys = rng.integers(0, 4_000, rows, dtype=np.uint64)
    ordered = np.sort(rng.integers(0, 4_000, 1_000, dtype=np.uint64))
    held = set(ordered.tolist())
    assert dedupe.contained(keys, ordered).tolist() == [key in held for key in keys.tolist()]
    assert dedupe.distinct(keys).tolist() == sorted(set(keys.tolist()))
    twice = {key for key in keys.tolist() if keys.tolist().count(key) > 1} if rows < 100 else None
    if twice is not None:
        assert dedupe.repeated(keys).tolist() == sorted(twice)
