"""Lines that were not accepted: kept with their reason until they expire, are retried with success, or are erased.

A line is the same line when kind, source, line number, offset and bytes are the same: a file that is read again, after
a kill or by mistake, adds nothing. So the quarantine can be committed before the events, and nothing is lost between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from persona_cli.events.batch import Reject
from persona_cli.events.schema import QUARANTINE, Kind
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

NAME = "quarantine"
_SPILL_BYTES = 64 << 20
_PER_LINE = 200  # what a rejected line takes in memory besides its bytes
_SPILLED = {"source": pl.String, "line": pl.Int64, "offset": pl.Int64, "reason": pl.String, "raw": pl.Binary,
            "dialect": pl.String}  # fmt: skip
_SAME = ["kind", "source", "line", "offset", "raw_hash"]


class Rejections:
    """The rejected lines of one run. `add`, then `finish`, then `commit`; `discard` if it comes to nothing."""

    def __init__(self, home: Home, run: str, kind: Kind, at: datetime, sources: Sequence[str]) -> None:
        self._home, self._run, self._kind, self._at = home, run, kind, at
        self._sources = list(sources)
        self._keep_raw = home.settings.flag("privacy.collect.quarantine_raw")
        self._table = tables.open_table(home, NAME)
        self._known = self._present()
        self._columns: dict[str, list[Any]] = {name: [] for name in _SPILLED}
        self._bytes = 0
        self._add: list[File] = []

    def add(self, rejects: Sequence[Reject], source: str, dialect: str = "native") -> None:
        """`dialect` is by which they are to be read when they are judged again: a name, or a TOML file."""
        columns = self._columns
        for reject in rejects:
            columns["source"].append(source)
            columns["line"].append(reject.line)
            columns["offset"].append(reject.offset)
            columns["reason"].append(reject.reason)
            columns["raw"].append(reject.raw if self._keep_raw else b"")
            columns["dialect"].append(dialect)
            self._bytes += len(reject.raw) + _PER_LINE
        if self._bytes > _SPILL_BYTES:
            self._spill()

    def finish(self) -> None:
        self._spill()

    def commit(self) -> None:
        """Commit the new lines and let go of those whose time is over, if there is anything to do."""
        expired, rest = self._expired()
        if not (self._add or expired):
            return
        table = self._begun()
        if rest is not None:
            self._add.append(table.write(rest))
        table.commit(self._add, expired, metadata={"run": self._run})
        table.discard(expired)

    def discard(self) -> None:
        if self._table is not None:
            self._table.discard()

    def _begun(self) -> Table:
        if self._table is None:
            self._table = tables.open_or_create(self._home, NAME, QUARANTINE)
        return self._table

    def _present(self) -> pl.DataFrame:
        """What identifies the lines of these sources that are kept already."""
        if self._table is None:
            return pl.DataFrame(schema={"kind": pl.String, "source": pl.String, "line": pl.Int64, "offset": pl.Int64,
                                        "raw_hash": pl.UInt64})  # fmt: skip
        rows = self._table.scan().filter(pl.col("kind") == self._kind, pl.col("source").is_in(self._sources))
        return rows.select(*_SAME[:-1], pl.col("raw").hash().alias("raw_hash")).collect()

    def _spill(self) -> None:
        if not self._columns["line"]:
            return
        rows = pl.DataFrame(self._columns, schema=_SPILLED).with_columns(
            pl.lit(self._run).alias("run"),
            pl.lit(self._kind).alias("kind"),
            pl.lit(self._at).cast(pl.Datetime("us", "UTC")).alias("rejected_at"),
            pl.col("raw").hash().alias("raw_hash"),
        )
        same = _SAME if self._keep_raw else _SAME[:-1]  # of lines kept earlier the bytes may be there
        new = rows.join(self._known, on=same, how="anti", maintain_order="left")
        if new.height:
            self._add.append(self._begun().write(new.select(QUARANTINE.names)))
        self._columns = {name: [] for name in self._columns}
        self._bytes = 0

    def _expired(self) -> tuple[list[File], pl.DataFrame | None]:
        """Files with lines that are too old, and what of them must be kept."""
        if self._table is None:
            return [], None
        oldest = self._at - timedelta(days=self._home.settings.whole("quarantine.retention_days"))
        over = [
            file
            for file in self._table.files
            if self._table.scan([file]).filter(pl.col("rejected_at") < oldest).head(1).collect().height
        ]
        if not over:
            return [], None
        rest = self._table.scan(over).filter(pl.col("rejected_at") >= oldest).collect()
        return over, rest if rest.height else None


def lines(home: Home, where: Mapping[str, str | None] | None = None) -> pl.LazyFrame:
    """Kept lines (schema QUARANTINE), oldest run first; `where` picks by exact reason, run, source or kind."""
    rows = tables.scan(home, NAME, QUARANTINE)
    for name, wanted in (where or {}).items():
        if wanted is not None:
            rows = rows.filter(pl.col(name) == wanted)
    return rows.sort("rejected_at", "source", "line", "offset")


def groups(home: Home, by: Sequence[str] = ("run", "source", "reason")) -> pl.DataFrame:
    """How many lines are kept for each combination of `by`, the newest first, the most first."""
    return (
        tables.scan(home, NAME, QUARANTINE)
        .group_by(*by)
        .agg(pl.len().alias("lines"), pl.col("rejected_at").max(), pl.col("line").min().alias("first_line"))
        .sort("rejected_at", "lines", *by, descending=[True, True, *[False] * len(by)])
        .collect()
    )


def release(home: Home, keep: pa.Table | pl.DataFrame, files: Sequence[File], table: Table, run: str) -> None:
    """Put `keep` in the place of `files` (a snapshot's), in one commit: what was taken in elsewhere leaves."""
    rest = keep if isinstance(keep, pl.DataFrame) else pl.DataFrame(pl.from_arrow(keep))
    add = [table.write(rest.select(table.schema.names))] if rest.height else []
    table.commit(add, files, metadata={"run": run})
    table.discard(files)


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?(\s*:)?|\b(?:true|false|null)\b|[^\W\d_]|\d', re.DOTALL)


def masked(raw: bytes, longest: int = 160) -> str:
    """A line of which one sees the shape: keys stay, letters of values become x and their digits 0."""
    text = raw[: 4 * longest].decode("utf-8", "replace")

    def mask(found: re.Match[str]) -> str:
        token = found[0]
        if found[1] is not None or token in ("true", "false", "null"):
            return token
        return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "0", token))

    shown = _TOKEN.sub(mask, text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
