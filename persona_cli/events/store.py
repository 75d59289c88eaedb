"""Events on their way into the Delta table, and out of it.

Rows gather by month in memory; a month's rows are deduplicated when there are enough of them for a good file, written
by worker threads, and named by the table in one commit at the end. Until then nobody sees them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from persona_cli.errors import BadData, Busy
from persona_cli.events.dedupe import (
    Distinct,
    Keys,
    Mask,
    Month,
    Policy,
    Segment,
    judge_ids,
    keys_of,
    number_occurrences,
)
from persona_cli.events.schema import UTC_MICROSECONDS, kept_schema, stored_schema
from persona_cli.events.withdrawal import MARK, Returned, withdrawn
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

NAME = "events"
# A month's rows become a file when there are this many of them (about 64 MB as Parquet), or this many bytes in memory.
FILE_ROWS = 2_000_000
FILE_BYTES = 600 << 20
# Rows of all months together; beyond, the largest months are written as they are.
BUFFER_BYTES = 900 << 20
WORKERS = 2
# Rows of several months are sorted out when there are this many: many months in small batches would take long.
MIXED_ROWS = 400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_DAY, _ON_MINUTE = "T23:59:59.999999Z", re.compile(r":00(\.0*)?Z$")
# Every id and nearly every time is there once; nobody looks for a file by its other columns.
_DICTIONARIES = [name for name in stored_schema("events").names if name not in ("event_id", "timestamp", "ingested_at")]
_STATISTICS = ["timestamp", "ingested_at"]
_CONTENT = kept_schema("events").names


def scan_events(home: Home, as_of: datetime | None = None, known_at: datetime | None = None) -> pl.LazyFrame:
    """All stored columns of the events before `as_of` that were ingested at `known_at` or earlier (None: all events).

    One row an event, in no order. Files whose events are all later, by the statistics in the table's log, are not
    opened.
    """
    table = tables.open_table(home, NAME)
    if table is None:
        return tables.scan(home, NAME, stored_schema("events"), ["month"])
    rows, known = table.scan(files_before(table, as_of)), were_known(as_of, known_at)
    return rows.filter(*known) if known else rows


def files_before(table: Table, as_of: datetime | None) -> list[File]:
    """The files of the events table that can hold events before `as_of`."""
    if as_of is None:
        return table.files
    moment = iso(as_of)
    return [file for file in table.files if file.first is None or file.first < moment]


def iso(moment: datetime) -> str:
    """A moment as the log of the table has it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def were_known(as_of: datetime | None, known_at: datetime | None) -> list[pl.Expr]:
    """Conditions on stored events: what had happened before `as_of`, as it was known at `known_at`."""
    happened = [pl.col("timestamp") < as_of] if as_of is not None else []
    return happened + ([pl.col("ingested_at") <= known_at] if known_at is not None else [])


@dataclass
class _Buffer:
    """Rows of one month that are in no file yet, in the order of the input."""

    parts: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def add(self, part: pa.Table) -> int:
        size = int(part.nbytes)
        self.parts.append(part)
        self.rows += part.num_rows
        self.bytes += size
        return size


@dataclass
class _Month:
    ids: Month = field(default_factory=Month)
    unread: list[File] = field(default_factory=list)
    """Files of the table whose ids were not needed so far."""


class EventStore:
    """What one ingest adds to the events table. `add` in the order of the input, then `finish`, then `commit`.

    `discard` takes everything back that is not committed. `replace`: stored events of these sources that do not come
    again are taken out.
    """

    def __init__(
        self, home: Home, policy: Policy, ingested_at: datetime, sources: Sequence[str], *, replace: bool = False
    ) -> None:
        self.accepted = self.duplicates = self.replaced = self.withdrawn = 0
        self._returned = Returned() if replace else None
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._home, self._policy, self._ingested_at = home, policy, ingested_at
        self._names = list(sources)
        # The snapshot is taken before anything is compared: a commit made from an overtaken one is refused.
        self._table = tables.open_table(home, NAME)
        self._stored: dict[str, list[File]] = {}
        for file in self._table.files if self._table is not None else ():
            self._stored.setdefault(file.partition["month"], []).append(file)
        self._mixed: list[pa.Table] = []
        self._buffers: dict[str, _Buffer] = {}
        self._buffered = 0
        self._months: dict[str, _Month] = {}
        self._users, self._items = Distinct(), Distinct()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="write")
        self._written: dict[str, Future[File]] = {}
        self._pending: list[Future[File]] = []
        self._superseded: dict[str, list[pl.Series]] = {}
        self._add: list[File] = []
        self._remove: list[File] = []

    @property
    def without_older(self) -> list[str]:
        """Sources, of those to be replaced, of which nothing was stored; known after `finish`."""
        return [name for name in self._names if self._returned is not None and name not in self._returned.sources]

    @property
    def users(self) -> int:
        return self._users.count

    @property
    def items(self) -> int:
        return self._items.count

    def add(self, rows: pa.Table, file: int) -> None:
        """Judged rows (schema of Batch.rows) of the input file of this number."""
        if not rows.num_rows:
            return
        rows = rows.append_column("file", pa.repeat(pa.scalar(file, pa.int32()), rows.num_rows))
        first, last = _span(rows)
        if (first.year, first.month) == (last.year, last.month):
            self._sort_out()
            self._buffer(f"{first:%Y-%m}", rows)
        else:
            self._mixed.append(rows)
            if sum(part.num_rows for part in self._mixed) >= MIXED_ROWS:
                self._sort_out()

    def finish(self) -> None:
        """Write what is left. After this only `commit` is missing."""
        self._sort_out()
        for month in sorted(self._buffers):
            self._flush(month)
        self._add = [future.result() for future in self._written.values()]
        if self._returned is not None and self._table is not None:
            for file, gone in withdrawn(self._table, self._names, self._returned):
                self._superseded.setdefault(file.path, []).append(gone)
                self.withdrawn += len(gone)
        if self._superseded:
            self._rewrite()
        self._workers.shutdown()

    def commit(self, metadata: Mapping[str, Any]) -> int | None:
        """One commit of everything; answers the table's new version, None when there was nothing to add."""
        if self._table is None or not (self._add or self._remove):
            return None
        mark = {MARK: "true"} if self._returned is not None and self._remove else {}
        return self._table.commit(self._add, self._remove, metadata={**metadata, **mark})

    def discard(self) -> None:
        """Delete every file written and not committed."""
        self._workers.shutdown(cancel_futures=True)
        if self._table is not None:
            self._table.discard()

    def _sort_out(self) -> None:
        """Put the rows of several months into the buffers of theirs."""
        mixed, self._mixed = self._mixed, []
        if mixed:
            for month, part in _by_month(pa.concat_tables(mixed).combine_chunks()):
                self._buffer(month, part)

    def _buffer(self, month: str, rows: pa.Table) -> None:
        buffer = self._buffers.setdefault(month, _Buffer())
        self._buffered += buffer.add(rows)
        if buffer.rows >= FILE_ROWS or buffer.bytes >= FILE_BYTES:
            self._flush(month)
        if self._buffered > BUFFER_BYTES:
            for name in sorted(self._buffers, key=lambda name: (-self._buffers[name].bytes, name)):
                if self._buffered > BUFFER_BYTES // 2:
                    self._flush(name)

    def _flush(self, name: str) -> None:
        buffer = self._buffers.pop(name)
        self._buffered -= buffer.bytes
        rows = pa.concat_tables(buffer.parts)
        del buffer
        month = self._month(name, rows)
        files = rows["file"].to_numpy()
        ids = _series(rows["event_id"])
        final = number_occurrences(month, ids, rows["given"].to_numpy().astype(bool), files)
        verdict = judge_ids(month, final, self._policy)
        keep = verdict.keep
        if self._policy == "error":
            self._refuse_duplicates(rows, final, keep)
        if self._returned is not None:
            self._returned.add(name, final.filter(pl.Series(verdict.again)))
        if self._policy == "keep-last" and verdict.again.any():
            keep = self._supersede(month, rows, final, verdict.again, keep)
        self.replaced += int((keep & verdict.again).sum())
        accepted = int((keep & ~verdict.again).sum())
        self.accepted += accepted
        self.duplicates += rows.num_rows - accepted
        if not keep.any():
            return
        if final is not ids:
            at = rows.schema.get_field_index("event_id")
            rows = rows.set_column(at, "event_id", final.to_arrow().cast(pa.string()))
        keys = verdict.keys
        if not keep.all():
            rows, keys = rows.filter(pa.array(keep)), keys[keep]
        self._count(rows)
        self._submit(name, month, rows, np.sort(keys))

    def _submit(self, name: str, month: Month, rows: pa.Table, keys: Keys) -> None:
        table = self._begun()
        sources = pa.chunked_array(
            [pa.DictionaryArray.from_arrays(chunk, pa.array(self._names, pa.string())) for chunk in rows["file"].chunks]
        )
        stamp = pa.repeat(pa.scalar(self._ingested_at, UTC_MICROSECONDS), rows.num_rows)
        stored = rows.select(_CONTENT).append_column("source", sources).append_column("ingested_at", stamp)
        while len(self._pending) >= WORKERS:
            self._pending.pop(0).result()
        write = partial(table.write, statistics=_STATISTICS, dictionaries=_DICTIONARIES)
        future = self._workers.submit(write, stored, {"month": name})
        self._pending.append(future)
        label = f"new {len(self._written)}"
        self._written[label] = future
        month.segments.append(Segment(label, keys, lambda: _ids(self._begun().root / future.result().path)))

    def _begun(self) -> Table:
        if self._table is None:
            self._table = tables.open_or_create(self._home, NAME, stored_schema("events"), ["month"])
            if self._table.version > 0:
                raise Busy("another run began the events table meanwhile; nothing was written", "run it again")
        return self._table

    def _month(self, name: str, rows: pa.Table) -> Month:
        """What the month holds, with the ids that these rows could be duplicates of."""
        state = self._months.get(name)
        if state is None:
            state = self._months[name] = _Month(unread=self._stored.pop(name, []))
        if state.unread:
            # The time is part of an id made by hash: only files of those hours can hold it. A given id may be anywhere.
            span = None if pc.any(rows["given"]).as_py() else _span(rows)
            needed = [file for file in state.unread if span is None or _overlaps(file, span)]
            state.unread = [file for file in state.unread if file not in needed]
            root = self._begun().root
            for file in needed:
                path = root / file.path
                keys = np.sort(keys_of(_ids(path)))
                state.ids.segments.insert(0, Segment(file.path, keys, lambda path=path: _ids(path)))  # type: ignore[misc]
        return state.ids

    def _refuse_duplicates(self, rows: pa.Table, ids: pl.Series, keep: Mask) -> None:
        if keep.all():
            return
        row = int(np.flatnonzero(~keep)[0])
        source, line = self._names[rows["file"][row].as_py()], rows["line"][row].as_py()
        count = int((~keep).sum())
        raise BadData(
            f"{source}:{line}: the event {_masked(ids[row])} is there already"
            f"{f', as are {count - 1:,} others' if count > 1 else ''}; nothing was stored",
            "--on-duplicate keep-first leaves the stored event as it is",
        )

    def _supersede(self, month: Month, rows: pa.Table, ids: pl.Series, again: Mask, keep: Mask) -> Mask:
        """`keep` without the rows that are stored just so; where the others are stored, the old row is to go."""
        at = np.flatnonzero(again)
        names = [name for name in _CONTENT if name != "event_id"]
        new = pl.DataFrame(pl.from_arrow(rows.select(names).take(pa.array(at))))
        new = new.with_columns(ids.gather(at).alias("event_id"), pl.Series("at", at))
        keep = keep.copy()
        for segment in reversed(month.segments):  # the newest first: there each id is as it is now
            mine = segment.among(new["event_id"]) if new.height else np.zeros(0, bool)
            if not mine.any():
                continue
            theirs = new.filter(pl.Series(mine))
            new = new.filter(pl.Series(~mine))
            path = self._path(segment.name)
            wanted = pc.field("event_id").isin(theirs["event_id"].to_arrow().cast(pa.string()))
            old = pl.DataFrame(pl.from_arrow(pq.read_table(path, columns=_CONTENT, filters=wanted, partitioning=None)))
            both = theirs.join(old, "event_id", "left", suffix=" before")
            same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name} before")) for name in names)
            keep[both.filter(same)["at"].to_numpy()] = False
            changed = both.filter(~same)["event_id"]
            if len(changed):
                self._superseded.setdefault(segment.name, []).append(changed)
        return keep

    def _rewrite(self) -> None:
        """Files with rows that newer ones take the place of are written again without them."""
        table = self._begun()
        stored = {file.path: file for file in table.files}
        for name, parts in sorted(self._superseded.items()):
            file = self._written[name].result() if name in self._written else stored[name]
            gone = pl.concat(parts)
            rows = pl.DataFrame(pl.from_arrow(pq.ParquetFile(table.root / file.path).read()))
            rows = rows.filter(~pl.col("event_id").is_in(gone.implode()))
            if rows.height:
                self._add.append(table.write(rows, file.partition))
            if name in self._written:
                self._add.remove(file)
            else:
                self._remove.append(file)

    def _path(self, name: str) -> Path:
        file = self._written[name].result().path if name in self._written else name
        return self._begun().root / file

    def _count(self, rows: pa.Table) -> None:
        people = pc.coalesce(rows["user_id"], rows["anon_id"])
        self._users.add(keys_of(_series(people)))
        items = _series(rows["item_id"]).drop_nulls()
        self._items.add(keys_of(items))
        first, last = _span(rows)
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)


def _by_month(rows: pa.Table) -> list[tuple[str, pa.Table]]:
    """The rows of each month, in their order."""
    moments = rows["timestamp"].cast(pa.int64()).to_numpy().astype("M8[us]")
    months: npt.NDArray[np.int64] = moments.astype("M8[M]").astype(np.int64)
    order = np.argsort(months, kind="stable")
    present, starts = np.unique(months[order], return_index=True)
    parts = np.split(order, starts[1:])
    # Copies rather than slices: a few late rows would hold the memory of all rows around them.
    return [
        (str(np.int64(month).astype("M8[M]")), rows.take(pa.array(at)))
        for month, at in zip(present, parts, strict=True)
    ]


def _span(rows: pa.Table) -> tuple[datetime, datetime]:
    found = pc.min_max(rows["timestamp"].cast(pa.int64())).as_py()
    return _EPOCH + timedelta(microseconds=found["min"]), _EPOCH + timedelta(microseconds=found["max"])


def _overlaps(file: File, span: tuple[datetime, datetime]) -> bool:
    if file.first is None or file.last is None:
        return True
    first, last = (iso(moment) for moment in span)
    # Times on whole minutes may have been made coarse (privacy.collect): the ids are of some moment of those days.
    last, held = (
        at[1][:10] + _END_OF_DAY if all(_ON_MINUTE.search(moment) for moment in at) else at[1]
        for at in ((first, last), (file.first, file.last))
    )
    return file.first <= last and held >= first


def _ids(path: Path) -> pl.Series:
    return _series(pq.ParquetFile(path).read(columns=["event_id"])["event_id"])


def _series(column: pa.ChunkedArray) -> pl.Series:
    return pl.Series(pl.from_arrow(column)).rechunk()


def _masked(text: str) -> str:
    """An id of which only the beginning is shown."""
    return f"{text[:4]}…" if len(text) > 6 else "…"
