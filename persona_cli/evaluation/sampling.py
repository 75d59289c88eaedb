"""Users drawn for figures that would cost too much of all: the same ones on every machine, in every version."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

SAMPLE = 10_000
"""Users on whom figures are computed that need the pairs of a list or the order of all scores."""


def drawn(users: pl.Series, n: int = SAMPLE) -> NDArray[np.int64]:
    """Positions of `n` of the users (of all where there are fewer), ascending; which ones follows from the ids alone.

    The n smallest hashes are taken: whoever is drawn among many users is drawn among any of them, too.
    """
    if len(users) <= n:
        return np.arange(len(users))
    return np.sort(np.argsort(hashes(users), kind="stable")[:n])


def hashes(ids: pl.Series) -> NDArray[np.uint64]:
    """crc32 of each id, spread over 64 bits by the finaliser of SplitMix64 (Steele et al., OOPSLA 2014) (n_ids,)."""
    crc = (zlib.crc32(text.encode()) for text in ids)
    mixed = np.fromiter(crc, dtype=np.uint64, count=len(ids)) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def halves(ids: pl.Series) -> NDArray[np.bool_]:
    """One half of the users: True for about every second (n_ids,), whatever has been drawn."""
    # The lowest bit: being drawn says something of the highest ones.
    return (hashes(ids) & np.uint64(1)).astype(bool)
