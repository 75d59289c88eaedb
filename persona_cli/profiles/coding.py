"""Texts as numbers: by their places in a column, and by a number of their own that may be stored.

Text columns as integers: the sorted distinct values, and each row's place among them.

Codes of one column compare as their texts do, so that sorting by codes sorts by ids; all else that the folds do is
arithmetic on whole numbers.

Texts as 64-bit numbers that are the same on every machine and in every version: they are stored.

Eight bytes at a time are mixed in, for all texts at once. Two texts share a number by accident about once in 10^19
pairs, which is all that is asked of it; it keeps nothing secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_NULL = -1


@dataclass(frozen=True)
class Coded:
    """Rows (n) whose text columns are codes.

    `rows` holds the codes as Int32 (-1 is null) and other columns as they are; a text column that is null in every row
    may be missing. `values` has the sorted distinct texts that the codes of a column stand for.
    """

    rows: pl.DataFrame
    values: Mapping[str, pl.Series]

    def codes(self, name: str) -> Ints | None:
        """The codes of a column (n,), or None where it is null in every row."""
        return self.rows[name].cast(pl.Int64).to_numpy() if name in self.rows.columns else None

    def filtered(self, keep: pl.Expr) -> Coded:
        return Coded(self.rows.filter(keep), self.values)


def coded(rows: pl.DataFrame, names: Sequence[str]) -> Coded:
    """Rows with the text columns `names` coded."""
    values: dict[str, pl.Series] = {}
    columns: dict[str, pl.Series] = {name: rows[name] for name in rows.columns if name not in names}
    for name in names:
        values[name] = rows[name].drop_nulls().unique().sort()
        if values[name].len():
            places = rows[name].cast(pl.Enum(values[name])).to_physical()
            columns[name] = places.cast(pl.Int32).fill_null(_NULL)
    return Coded(pl.DataFrame(columns), values)


class Encoder:
    """Codes text columns batch after batch: as numbers in order of appearance now, as sorted codes at the end."""

    def __init__(self, names: Sequence[str]) -> None:
        self._categories = {name: pl.Categories.random() for name in names}
        # polars forgets categories that no column uses.
        self._used = [pl.Series([], dtype=pl.Categorical(categories)) for categories in self._categories.values()]
        self._places: dict[str, NDArray[np.int32]] = {}
        self.values: dict[str, pl.Series] = {}
        """Sorted distinct texts by column; filled by `finish`."""

    def encode(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The batch with numbers for texts; columns without any text are left out."""
        empty = [name for name in self._categories if rows[name].null_count() == rows.height]
        return rows.drop(empty).with_columns(
            pl.col(name).cast(pl.Categorical(categories)).to_physical()
            for name, categories in self._categories.items()
            if name not in empty
        )

    def seen(self, name: str, since: int = 0) -> pl.Series:
        """The texts of a column by number, from number `since` on."""
        return self._categories[name].to_series()[since:]

    def finish(self) -> None:
        """No more batches: the order of the texts is known."""
        for name in self._categories:
            texts = self.seen(name)
            order = texts.arg_sort().to_numpy()
            self.values[name] = texts.gather(order)
            self._places[name] = np.empty(len(order), dtype=np.int32)
            self._places[name][order] = np.arange(len(order), dtype=np.int32)

    def decoded(self, rows: pl.DataFrame) -> Coded:
        """A batch of `encode`, or a part of it, as sorted codes."""
        columns = {name: rows[name] for name in rows.columns if name not in self._categories}
        for name in self._categories:
            if name in rows.columns:
                places = pl.Series(self._places[name]).gather(rows[name])
                columns[name] = places.fill_null(_NULL)
        return Coded(pl.DataFrame(columns), self.values)


def by_distinct(column: pl.Series, of: Callable[[str], object], dtype: type[pl.DataType]) -> pl.Series:
    """`of` each text of a column (n,), asked once for each distinct text."""
    if not column.len():
        return pl.Series(dtype=dtype)
    distinct = column.unique()
    answers = pl.Series([of(text) for text in distinct], dtype=dtype)
    return column.replace_strict(distinct, answers, return_dtype=dtype)


def compacted(code: Ints, values: pl.Series) -> tuple[Ints, pl.Series]:
    """Codes (n,) among the values that occur, and those values."""
    occurs = np.zeros(len(values), dtype=bool)
    occurs[code] = True
    return (np.cumsum(occurs) - 1)[code], values.gather(np.flatnonzero(occurs))


def sort_order(parts: Sequence[tuple[Ints, int]]) -> Ints:
    """Row numbers (n,) that sort by the parts, the first the most significant; rows alike in any order.

    Each part is (whole numbers from 0 on (n,), their exclusive upper bound).
    """
    size = 1
    for _, bound in parts:
        size *= max(bound, 1)
    if size >= 2**63:
        return np.lexsort([column for column, _ in reversed(parts)])
    key = parts[0][0]
    for column, bound in parts[1:]:
        key = key * max(bound, 1) + column
    return np.argsort(key)


def run_starts(*sorted_columns: Ints) -> Ints:
    """Where runs of equal rows begin in columns sorted together (n_runs,)."""
    n = len(sorted_columns[0])
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    begins = np.zeros(n, dtype=bool)
    begins[0] = True
    for column in sorted_columns:
        begins[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(begins)


_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio
_HALF = np.uint64(32)
_WORD = 8


def text_numbers(texts: pl.Series) -> pl.Series:
    """The number of each text (n,) Int64; null stays null."""
    given = texts.drop_nulls()
    if not given.len():
        return pl.Series(texts.name, [None], dtype=pl.Int64).new_from_index(0, texts.len())
    mixed = pl.Series(_mixed(given).view(np.int64))
    if given.len() == texts.len():
        return mixed.alias(texts.name)
    present = texts.is_not_null()
    return mixed.gather(pl.select(pl.when(present).then(present.cast(pl.Int64).cum_sum() - 1)).to_series()).alias(
        texts.name
    )


def number_of(column: str) -> pl.Expr:
    """`text_numbers` of a column, under its name."""
    return pl.col(column).map_batches(text_numbers, return_dtype=pl.Int64, is_elementwise=True)


def _mixed(texts: pl.Series) -> NDArray[np.uint64]:
    array = texts.rechunk().to_arrow().cast(pa.large_binary())
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    _, offsets, characters = array.buffers()
    places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    data = (b"" if characters is None else bytes(characters)) + bytes(_WORD)  # the last text needs room behind it
    words = np.ndarray((len(data) - _WORD + 1,), dtype="<u8", buffer=data, strides=(1,))
    begin, length = places[:-1], np.diff(places)
    mixed = length.astype(np.uint64) * _ODD
    rows = np.arange(len(length))
    for done in range(0, int(length.max()), _WORD):
        rows = rows[length[rows] > done]
        left = np.minimum(length[rows] - done, _WORD)
        word = words[begin[rows] + done] & (np.uint64(2**64 - 1) >> ((_WORD - left) * 8).astype(np.uint64))
        value = (mixed[rows] ^ word) * _ODD
        mixed[rows] = value ^ (value >> _HALF)
    return mixed
