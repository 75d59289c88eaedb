"""Random numbers that follow from ids and keys alone: the same in any order, block, thread and run.

`keys` is quick and tells nobody apart on purpose; `hashed` is a keyed hash, of whose numbers neither key nor others can
be told: for who is in what.
"""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
STEP = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the distance of the states of SplitMix64."""
BITS = 53
"""Of 64: what a float64 holds exactly."""
_BYTES = 8


def mixed(values: Keys) -> Keys:
    """Each number scrambled by the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); overflow wraps."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys(ids: pl.Series, seed: int = 0) -> Keys:
    """A number of 64 bits for each id (n_ids,): its crc32 with the seed, scrambled."""
    crc = (zlib.crc32(text.encode()) for text in ids)
    return mixed((np.fromiter(crc, dtype=np.uint64, count=len(ids)) ^ np.uint64(seed)) + STEP)


def hashed(ids: pl.Series, key: bytes, draws: int = 1) -> Keys:
    """Independent numbers of 64 bits of each id (n_ids, draws), keyed blake2b: for ever and everywhere the same."""
    keyed = hashlib.blake2b(key=key, digest_size=_BYTES * draws)
    known, digests = ids.unique(), []
    for text in known.to_list():
        digest = keyed.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        digests.append(digest.digest())
    numbers = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64).reshape(len(known), draws)
    rows = known.to_frame("id").with_row_index("row")
    places = ids.to_frame("id").join(rows, on="id", how="left", maintain_order="left")["row"]
    found: Keys = numbers[places.to_numpy().astype(np.int64)]
    return found


def positions(ids: pl.Series, key: bytes, draws: int = 1) -> NDArray[np.float64]:
    """`hashed` as numbers from 0 to under 1 (n_ids, draws): the first bits of each digest."""
    found: NDArray[np.float64] = (hashed(ids, key, draws).byteswap() >> np.uint64(64 - BITS)) / float(2**BITS)
    return found
