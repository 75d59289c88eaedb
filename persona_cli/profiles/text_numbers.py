"""Texts as 64-bit numbers that are the same on every machine and in every version: they are stored.

Eight bytes at a time are mixed in, for all texts at once. Two texts share a number by accident about once in 10^19
pairs, which is all that is asked of it; it keeps nothing secret.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

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
