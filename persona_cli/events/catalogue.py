"""Items, users and accounts: what is known of each, and since when.

Tables only grow: a row is valid from `valid_from`, or from when it was taken in. Of one input the last row of an id
and `valid_from` counts. A row that says nothing new is a duplicate: one with a `valid_from` if the stored row of that
very time is equal, one without if the row that holds now is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from persona_cli.events.schema import KEY, Kind, judged_schema, stored_schema
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File

_SINCE = pl.coalesce("valid_from", "ingested_at")


def current(home: Home, kind: Kind, as_of: datetime | None = None) -> pl.DataFrame:
    """The row that holds at `as_of` (None: now) for each id, sorted by id; columns as stored."""
    key = KEY[kind]
    moment = datetime.now(UTC) if as_of is None else as_of
    rows = tables.scan(home, kind, stored_schema(kind)).filter(pl.lit(moment) >= _SINCE).collect()
    return _newest(rows, [key]).sort(key)


def described(home: Home, as_of: datetime | None = None, known: pl.Series | None = None) -> pl.DataFrame | None:
    """Items as a model of `as_of` (None: now) may know them, sorted by item_id; None: there is no catalogue.

    An item that had no row then, since the catalogue came into the workspace later, is described as it first was where
    it was there without doubt: it is among `known` (item_ids of earlier events), or came out before.
    """
    if not tables.exists(home, "items"):
        return None
    then = current(home, "items", as_of)
    if as_of is None:
        return then
    rows = tables.scan(home, "items", stored_schema("items")).collect()
    there = pl.col("published_at") < as_of
    if known is not None:
        there = there.fill_null(False) | pl.col("item_id").is_in(known.implode())
    later = rows.join(then, on="item_id", how="anti").filter(there.fill_null(False))
    first = later.sort(_SINCE, "ingested_at").unique("item_id", keep="first", maintain_order=True)
    return pl.concat([then, first.select(then.columns)]).sort("item_id")


def unavailable(home: Home, as_of: datetime | None = None) -> pl.Series:
    """Items that the catalogue says are not to be had, sorted."""
    if not tables.exists(home, "items"):
        return pl.Series("item_id", [], dtype=pl.String)
    return current(home, "items", as_of).filter(~pl.col("available"))["item_id"]


class CatalogueStore:
    """What one ingest adds to the table of `kind`. `add` in the order of the input, then `finish`, then `commit`."""

    def __init__(self, home: Home, kind: Kind, ingested_at: datetime, sources: Sequence[str]) -> None:
        self.accepted = self.duplicates = self.replaced = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.users = self.items = 0
        self._home, self._kind, self._at, self._names = home, kind, ingested_at, list(sources)
        self._table = tables.open_table(home, kind)
        self._parts: list[pl.DataFrame] = []
        self._add: list[File] = []

    def add(self, rows: pa.Table, file: int) -> None:
        """Judged rows (schema of Batch.rows) of the input file of this number."""
        if rows.num_rows:
            names = judged_schema(self._kind).names
            part = pl.DataFrame(pl.from_arrow(rows.select(names)))
            self._parts.append(part.with_columns(pl.lit(self._names[file]).alias("source")))

    def finish(self) -> None:
        if not self._parts:
            return
        key = KEY[self._kind]
        stamp = pl.lit(self._at).cast(pl.Datetime("us", "UTC")).alias("ingested_at")
        given = pl.concat(self._parts).with_columns(stamp)
        last = given.unique([key, "valid_from"], keep="last", maintain_order=True)
        new = self._new(last).sort(key, "valid_from")
        self.accepted, self.duplicates = new.height, given.height - new.height
        known = new[key].n_unique()
        self.users, self.items = known * (self._kind == "users"), known * (self._kind == "items")
        if new.height:
            if self._table is None:
                self._table = tables.open_or_create(self._home, self._kind, stored_schema(self._kind))
            self._add = [self._table.write(new)]

    def commit(self, metadata: Mapping[str, Any]) -> int | None:
        if self._table is None or not self._add:
            return None
        return self._table.commit(self._add, metadata=metadata)

    def discard(self) -> None:
        if self._table is not None:
            self._table.discard()

    def _new(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that say something which is not stored."""
        if self._table is None:
            return rows
        key = KEY[self._kind]
        content = [name for name in judged_schema(self._kind).names if name not in (key, "valid_from")]
        stored = self._table.scan().collect()
        timed = _newest(stored.filter(pl.col("valid_from").is_not_null()), [key, "valid_from"])
        now = _newest(stored.filter(pl.lit(self._at) >= _SINCE), [key])
        same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name} before")) for name in content)
        found = []
        for part, before, on in (
            (rows.filter(pl.col("valid_from").is_not_null()), timed, [key, "valid_from"]),
            (rows.filter(pl.col("valid_from").is_null()), now, [key]),
        ):
            held = before.select(*on, *content, pl.lit(True).alias("held"))
            both = part.join(held, on, "left", suffix=" before")
            found.append(both.filter(~(pl.col("held").fill_null(False) & same)).select(rows.columns))
        return pl.concat(found)


def _newest(rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    return rows.sort(_SINCE, "ingested_at", maintain_order=True).unique(by, keep="last", maintain_order=True)
