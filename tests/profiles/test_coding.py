"""Codes of texts: whole batches at once and one after the other say the same."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_cli.profiles.coding import Encoder, coded, compacted, run_starts, sort_order

texts = st.lists(st.sampled_from((None, "b", "a", "ä", "", "Z", "zz")), max_size=10)


@given(texts)
def test_codes_are_places_among_the_sorted_texts(column: list[str | None]) -> None:
    found = coded(pl.DataFrame({"x": pl.Series(column, dtype=pl.String)}), ["x"])
    distinct = sorted({text for text in column if text is not None}, key=str.encode)
    assert found.values["x"].to_list() == distinct
    codes = found.codes("x")
    if codes is None:
        assert not distinct
    else:
        assert codes.tolist() == [-1 if text is None else distinct.index(text) for text in column]


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_batches_one_after_the_other_are_coded_like_all_at_once(batches: list[list[str | None]]) -> None:
    frames = [pl.DataFrame({"x": pl.Series(batch, dtype=pl.String), "n": range(len(batch))}) for batch in batches]
    encoder = Encoder(["x"])
    encoded = [encoder.encode(frame) for frame in frames]
    encoder.finish()
    whole = coded(pl.concat(frames), ["x"])
    assert encoder.values["x"].to_list() == whole.values["x"].to_list()
    found = [encoder.decoded(batch) for batch in encoded]
    codes = [part.codes("x") for part in found]
    parts = [np.full(len(b), -1) if c is None else c for c, b in zip(codes, batches, strict=True)]
    expected = whole.codes("x")
    assert np.concatenate(parts).tolist() == (
        expected.tolist() if expected is not None else [-1] * sum(map(len, batches))
    )
    assert pl.concat([part.rows.select("n") for part in found]).equals(pl.concat(frames).select("n"))


def test_compacted_codes_name_the_same_texts() -> None:
    code, values = compacted(np.array([5, 2, 5, 0]), pl.Series(list("abcdef")))
    assert (code.tolist(), values.to_list()) == ([2, 1, 2, 0], ["a", "c", "f"])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20),
    st.sampled_from((4, 2**40)),  # the second leaves no room to pack two columns into one
)
def test_sorts_by_the_first_column_first(rows: list[tuple[int, int]], bound: int) -> None:
    first, second = (np.array([row[c] for row in rows], dtype=np.int64) for c in (0, 1))
    order = sort_order([(first, bound), (second, bound)])
    assert [rows[i] for i in order] == sorted(rows)
    starts = run_starts(first[order], second[order])
    assert len(starts) == len(set(rows))
