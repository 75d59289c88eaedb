"""Persons in the tables of consent (a keyed digest of the id, and never the id), and who was erased for good.

BLAKE2b (RFC 7693) with the workspace's salt as its key: equal within the workspace and meaningless without the salt.
Whoever has the salt and a list of ids can find out which of them are there, so it is no pseudonym to hand out.

Who was erased must not come back with an old file: the table `suppressed` holds their digests. It is
kept after an erasure on purpose (GDPR Art. 17(3)(b) and (e)): without it the next import of a backup would undo it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.errors import Busy
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.locks import hold

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


_TRIES = 20


def append(home: Home, name: str, schema: pa.Schema, new: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
    """Add what `new` makes of the stored rows, in one commit; answers what was added.

    Where another writer was faster it is asked again, with the other's rows. Raises Busy when that happens too often.
    """
    for _ in range(_TRIES):
        there = tables.open_table(home, name)
        rows = new(tables.scan_files(home.path(name), schema, (), []) if there is None else there.scan())
        if not rows.height:
            return rows
        table = there or tables.open_or_create(home, name, schema)
        try:
            table.commit([table.write(rows)])
        except Busy:
            continue
        return rows
    raise Busy(f"others keep writing to {name}; nothing was written", "run the same command again")


NAME = "suppressed"
SCHEMA = pa.schema(
    [pa.field("subject", pa.string()), pa.field("request", pa.string()), pa.field("at", pa.timestamp("us", tz="UTC"))]
)


def suppress(home: Home, ids: Sequence[str], request: str) -> None:
    """Let nothing of these ids in from now on; one that is suppressed already stays so by its first request."""
    given = subjects(home, pl.Series(list(ids), dtype=pl.String)).unique().sort()
    at = pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC"))

    def new(stored: pl.LazyFrame) -> pl.DataFrame:
        missing = given.filter(~given.is_in(stored.select("subject").collect()["subject"].implode()))
        return missing.to_frame("subject").select("subject", pl.lit(request).alias("request"), at.alias("at"))

    append(home, NAME, SCHEMA, new)


def lift(home: Home, ids: Sequence[str], wait: float = 0.0) -> int:
    """Let these ids in again, because the person came back; answers how many were suppressed."""
    with hold(home, "tables", "lift suppression", wait):
        table = tables.open_table(home, NAME)
        if table is None:
            return 0
        gone = subjects(home, pl.Series(list(ids), dtype=pl.String))
        rows = table.scan().collect()
        rest = rows.filter(~pl.col("subject").is_in(gone.implode()))
        if rest.height < rows.height:
            table.commit([table.write(rest)] if rest.height else [], table.files)
        return rows["subject"].n_unique() - rest["subject"].n_unique()


@dataclass(frozen=True)
class Suppressed:
    """A snapshot of the table, for who asks again and again."""

    subjects: pl.Series
    """Digests, sorted and distinct."""

    @classmethod
    def of(cls, home: Home) -> Suppressed:
        table = tables.open_table(home, NAME)
        if table is None or not table.files:
            return cls(pl.Series("subject", [], dtype=pl.String))
        return cls(table.scan().select("subject").collect()["subject"].unique().sort())

    @property
    def any(self) -> bool:
        return len(self.subjects) > 0

    def has(self, asked: Halves) -> NDArray[np.bool_]:
        """Whether each digest (n,) is there."""
        return self._index.find(asked) >= 0

    @cached_property
    def _index(self) -> Index:
        return Index.of(self.subjects)


def suppressed(home: Home, ids: pl.Series) -> pl.Series:
    """Whether each id (n,) is suppressed: Boolean, false where the id is null."""
    snapshot = Suppressed.of(home)
    if not snapshot.any:
        return pl.repeat(False, len(ids), eager=True)
    return subjects(home, ids).is_in(snapshot.subjects.implode()).fill_null(False)
