from __future__ import annotations

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.models.stored import positions, union, with_columns


def test_positions_keep_the_order_asked_and_mark_strangers() -> None:
    vocabulary = pl.Series(["10", "9", "a", "ä"])
    assert positions(pl.Series(["ä", "x", "10", "ä", "9"]), vocabulary).tolist() == [3, -1, 0, 3, 1]
    assert positions(pl.Series([], dtype=pl.String), vocabulary).tolist() == []


def test_a_union_is_sorted_by_bytes_each_id_once() -> None:
    first, second = pl.Series(["10", "9", "a"]), pl.Series(["9", "B", "ä"])
    assert union(first, second).to_list() == ["10", "9", "B", "a", "ä"]
    assert union(first, first) is first


def test_columns_move_and_those_without_a_place_go() -> None:
    rows = sparse.csr_array(np.array([[1, 2, 3], [0, 0, 0], [4, 0, 5]]))
    moved = with_columns(rows, np.array([3, -1, 0]), 4)
    assert moved.toarray().tolist() == [[3, 0, 0, 1], [0, 0, 0, 0], [5, 0, 0, 4]]
    assert moved.has_sorted_indices
    assert rows.toarray().tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 5]]
