"""A person in the tables of consent: a keyed digest of the id, and never the id.

BLAKE2b (RFC 7693) with the workspace's salt as its key: equal within the workspace and meaningless without the salt.
Whoever has the salt and a list of ids can find out which of them are there, so it is no pseudonym to hand out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.workspace.home import Home

_PERSON = b"consent subject"
_SIZE = 16


def subject(home: Home, id: str) -> str:
    """The digest of an id: 32 hexadecimal digits."""
    return _digest(home.salt[:64], id)


def subjects(home: Home, ids: pl.Series) -> pl.Series:
    """The digest of each id (n,), null where the id is; every distinct id is digested once."""
    distinct = ids.drop_nulls().unique()
    key = home.salt[:64]
    digests = pl.Series([_digest(key, id) for id in distinct.to_list()], dtype=pl.String)
    found = pl.DataFrame({"id": distinct, "subject": digests})
    return ids.to_frame("id").join(found, on="id", how="left", maintain_order="left")["subject"]


Halves = NDArray[np.uint64]
"""(n, 2): digests as two numbers, for looking up many at once."""


def halves(home: Home, ids: Sequence[str]) -> Halves:
    """The digest of each id (n,)."""
    key = home.salt[:64]
    made = [
        blake2b(id.encode("utf-8", "surrogatepass"), key=key, person=_PERSON, digest_size=_SIZE).digest() for id in ids
    ]
    return np.frombuffer(b"".join(made), ">u8").reshape(-1, 2).astype(np.uint64)


@dataclass(frozen=True)
class Index:
    """Where digests stand among others that are all different."""

    sorted: Halves
    places: NDArray[np.int64]

    @classmethod
    def of(cls, digests: pl.Series) -> Index:
        """Of digests as texts (n,)."""
        octets = b"".join(digests.str.decode("hex").to_list())
        both = np.frombuffer(octets, ">u8").reshape(-1, 2).astype(np.uint64)
        places = np.lexsort((both[:, 1], both[:, 0]))
        return cls(both[places], places)

    def find(self, asked: Halves) -> NDArray[np.int64]:
        """The place of each (m,), -1 where it is not among them."""
        if not len(self.places):
            return np.full(len(asked), -1)
        order = np.argsort(asked[:, 0])  # looked up in order, neighbours are in the cache
        at = np.empty(len(asked), np.int64)
        at[order] = np.searchsorted(self.sorted[:, 0], asked[order, 0])
        at = np.minimum(at, len(self.places) - 1)
        same = (self.sorted[at] == asked).all(1)
        # Two with one first half: as good as never, and found all the same.
        for lost in np.flatnonzero(~same & (self.sorted[at, 0] == asked[:, 0])).tolist():
            hit = np.flatnonzero((self.sorted == asked[lost]).all(1))
            at[lost], same[lost] = (hit[0], True) if len(hit) else (at[lost], False)
        return np.where(same, self.places[at], -1)


def _digest(key: bytes, id: str) -> str:
    return blake2b(id.encode("utf-8", "surrogatepass"), key=key, person=_PERSON, digest_size=_SIZE).hexdigest()
