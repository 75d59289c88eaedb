"""Items, users and accounts: what is known of each, and since when.

Tables only grow: a row is valid from `valid_from`, or from when it was taken in. Of one input the last row of an id
and `valid_from` counts. A row that says nothing new is a duplicate: one with a `valid_from` if the stored row of that
very time is equal, one without if the row that holds now is.

`Attributes` takes into users and accounts what events say of them (traits of `identify` and `group` calls). A call
names some traits only, and a row of these tables says all: each row begun here is the one that held then, with what the
call says on top. A call that says nothing new adds no row, so the same file again adds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from persona_cli.events.batch import rows_schema
from persona_cli.events.collecting import Collect, collect_about, collect_records
from persona_cli.events.judge import json_text, parse_json
from persona_cli.events.schema import FIELDS, KEY, Kind, judged_schema, stored_schema
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


Row = dict[str, Any]


class Attributes:
    """What the inputs of one ingest say. `add` as often as needed, then `finish`, then `commit`; else `discard`."""

    def __init__(self, home: Home, ingested_at: datetime, sources: Sequence[str]) -> None:
        self._home, self._at, self._sources = home, ingested_at, list(sources)
        self._said: dict[Kind, list[tuple[int, Row]]] = {}
        self._stores: dict[Kind, CatalogueStore] = {}
        self._collect = Collect.of(home.settings)
        self.removed: Counter[str] = Counter()
        """Rows that lost something which is not collected, as `users.role`."""

    def add(self, about: Mapping[Kind, Sequence[Row]], file: int) -> None:
        """Judged rows by kind, each with a `valid_from` (µs), of the input of this number."""
        for kind, rows in collect_about(about, self._collect, self.removed).items():
            self._said.setdefault(kind, []).extend((file, row) for row in rows)

    def finish(self) -> None:
        for kind, said in self._said.items():
            store = self._stores[kind] = CatalogueStore(self._home, kind, self._at, self._sources)
            for file, rows in _merged(kind, said, self._held(kind, said)).items():
                store.add(pa.Table.from_pylist(rows, schema=rows_schema(kind)), file)
            store.finish()

    def commit(self, metadata: Mapping[str, Any]) -> None:
        for store in self._stores.values():
            store.commit(metadata)

    def discard(self) -> None:
        for store in self._stores.values():
            store.discard()

    @property
    def accepted(self) -> dict[str, int]:
        """New rows by kind."""
        return {kind: store.accepted for kind, store in self._stores.items() if store.accepted}

    def _held(self, kind: Kind, said: Sequence[tuple[int, Row]]) -> list[Row]:
        """The stored rows of those that something was said about, times in µs; `since` is when each begins."""
        key = KEY[kind]
        known = pl.Series(sorted({row[key] for _, row in said}), dtype=pl.String)
        rows = tables.scan(self._home, kind, stored_schema(kind)).filter(pl.col(key).is_in(known.implode())).collect()
        times = [spec.name for spec in FIELDS[kind] if spec.type == "time"]
        since = pl.coalesce("valid_from", "ingested_at").cast(pl.Int64).alias("since")
        held = rows.with_columns(since, pl.col(*times).cast(pl.Int64), pl.col("ingested_at").cast(pl.Int64)).to_dicts()
        # What is collected no more is not carried over into the rows begun now.
        return collect_records(held, kind, self._collect, Counter())


def _merged(kind: Kind, said: Sequence[tuple[int, Row]], held: Sequence[Row]) -> dict[int, list[Row]]:
    """Whole rows by input: what was said on top of what held. Equal times: stored first, then by what is said."""
    key = KEY[kind]
    names = [spec.name for spec in FIELDS[kind] if spec.name not in (key, "valid_from")]
    steps = [(row[key], row["since"], 0, row["ingested_at"], "", -1, row) for row in held]
    steps += [(row[key], row["valid_from"], 1, 0, json_text(row), file, row) for file, row in said]
    made: dict[int, list[Row]] = {}
    state: Row = {}
    whose = None
    for who, since, _, _, _, file, row in sorted(steps, key=lambda step: step[:6]):
        if who != whose:
            whose, state = who, {}
        before = state
        if file < 0:
            state = {name: row[name] for name in (*names, "props")}
            continue
        state = before | {name: row[name] for name in names if row[name] is not None}
        state["props"] = _both(before.get("props"), row["props"])
        if state != before:
            line = {"given": True, "line": row["line"], key: who, "valid_from": since}
            made.setdefault(file, []).append(state | line)
    return made


def _both(before: str | None, after: str | None) -> str | None:
    """JSON texts of two objects as that of one; the later counts. Keys sorted: the order of calls leaves no trace."""
    if before is None and after is None:
        return None
    both: Row = {}
    for text in (before, after):
        both |= parse_json(text.encode()) if text else {}
    return json_text(dict(sorted(both.items())))
