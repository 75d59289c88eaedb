"""Random numbers that follow from ids and a seed alone: the same in any block, thread and run."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray


def keys(ids: pl.Series, seed: int) -> NDArray[np.uint64]:
    """A random number of 64 bits for each id (n_ids,)."""
    crc = (zlib.crc32(text.encode()) for text in ids)
    return mixed(np.fromiter(crc, dtype=np.uint64, count=len(ids)) ^ np.uint64(seed))


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    found = numbers + np.uint64(0x9E3779B97F4A7C15)
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(found ^ (found >> np.uint64(31)), dtype=np.uint64)
