"""Take rows of people out for good: of tables, and of Parquet files that lie elsewhere.

The files of a table that hold the rows are written again without them, in one commit. Rows are found by comparison,
never by a predicate of Delta, which would write the ids into the table's log. Of a table that follows from the events
(profiles, history) the commit carries on what the one before said of itself, so the table stays at the version that it
follows from. What was taken out is on disk until `settling` vacuums the superseded files.

Outside the tables it is every Parquet file that has a column of persons, wherever it lies: evaluations and experiments
keep the figures of every user. A file is replaced at once by one without the rows, then the manifest beside it is
brought up to date; a run that is killed between the two is completed by the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.errors import BadData, MissingInput
from persona_cli.workspace import artifacts, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

MARK = "persons"
"""In what a commit of events says of itself: whole persons were taken out, and nothing else changed."""
_OF_DELTA = (
    "timestamp",
    "operation",
    "operationParameters",
    "operationMetrics",
    "engineInfo",
    "clientVersion",
    "version",
    "readVersion",
    "isBlindAppend",
    "isolationLevel",
    "userMetadata",
)


def remove_rows(home: Home, table_name: str, keys: pl.DataFrame, on: Sequence[str]) -> int:
    """Remove the rows that agree with a row of `keys` in the columns `on`; answers how many.

    A null agrees with nothing. Call it under the lock of the table (`tables`). Raises Busy where another run committed
    meanwhile; nothing is changed then.
    """
    wanted = keys.select(on).unique().drop_nulls()
    if not wanted.height:
        return 0
    if len(on) == 1:
        return remove_where(home, table_name, pl.col(on[0]).is_in(wanted[on[0]].implode()))
    struct = pl.struct([pl.col(name).cast(wanted.schema[name]) for name in on])
    found = struct.is_in(wanted.to_struct().implode()) & pl.all_horizontal(pl.col(name).is_not_null() for name in on)
    return remove_where(home, table_name, found)


def remove_where(
    home: Home,
    table_name: str,
    gone: pl.Expr,
    put: Mapping[str, pl.Expr] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Remove the rows of which `gone` holds (null counts as no) and answer how many.

    `put`: column → what stands in it afterwards, in the rows that stay. Only files in which one of both changes
    something are written again. `metadata` goes on top of what the table's last commit said of itself.
    """
    table = tables.open_table(home, table_name)
    if table is None:
        return 0

    def left(file: File) -> pl.DataFrame | None:
        if not _concerned(table, file, gone, put or {}):
            return None
        return table.scan([file]).filter(~gone.fill_null(False)).with_columns(**dict(put or {})).collect()

    return rewrite(table, table.files, left, metadata={**said(table), **(metadata or {})})


def rewrite(
    table: Table,
    files: Iterable[File],
    left: Callable[[File], pl.DataFrame | None],
    *,
    drop: Sequence[File] = (),
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Write files again with what is `left` of each (None: it stays), in one commit; answers how many rows went.

    Files of `drop` leave as a whole. Raises Busy where another run committed meanwhile; nothing is changed then.
    """
    remove = list(drop)
    add: list[File] = []
    try:
        for file in files:
            if (rows := left(file)) is None:
                continue
            remove.append(file)
            if rows.height:
                add.append(table.write(rows, file.partition))
    except BaseException:
        table.discard()
        raise
    if remove:
        table.commit(add, remove, metadata=metadata)
    return sum(file.rows for file in remove) - sum(file.rows for file in add)


def said(table: Table) -> dict[str, Any]:
    """What the last commit of a table that follows from the events said of itself, without Delta's own words.

    Of any other table nothing: what its last commit did, this one does not.
    """
    last = table.metadata
    if "events_version" not in last:
        return {}
    return {name: str(value) for name, value in last.items() if name not in _OF_DELTA and value is not None}


def _concerned(table: Table, file: File, gone: pl.Expr, put: Mapping[str, pl.Expr]) -> bool:
    changed = gone.fill_null(False)
    for name, value in put.items():
        changed = changed | value.ne_missing(pl.col(name))
    return bool(table.scan([file]).select(changed.any()).collect().item())


PERSONS = ("user_id", "anon_id")
"""Columns that name a person, in tables and files alike."""
_DERIVED = ("models", "derived", "runs", "privacy")


def files(home: Home) -> Iterator[tuple[Path, list[str]]]:
    """Parquet files of artifacts with a column of persons, and these columns."""
    for folder, names, found in os.walk(home.root):
        here = Path(folder)
        if here == home.root:
            names[:] = [name for name in names if name not in _DERIVED and not name.startswith(".")]
        names[:] = sorted(name for name in names if not (here / name / "_delta_log").is_dir())
        for name in sorted(found):
            if not name.endswith(".parquet"):
                continue
            try:
                schema = pl.read_parquet_schema(here / name)
            except (OSError, pl.exceptions.PolarsError):
                continue
            if columns := [column for column in PERSONS if schema.get(column) == pl.String]:
                yield here / name, columns


def remove_people(home: Home, gone: pl.Series | None, known: pl.Series | None = None) -> int:
    """Take the rows of these ids out (or, with `known`, those of ids that are not among them); answers how many."""
    removed = 0
    for path, columns in files(home):
        rows = pl.read_parquet(path)
        if gone is not None:
            hit = [pl.col(name).is_in(gone.implode()) for name in columns]
        elif known is not None:
            hit = [pl.col(name).is_not_null() & ~pl.col(name).is_in(known.implode()) for name in columns]
        else:
            hit = []
        left = rows.filter(~pl.any_horizontal(hit).fill_null(False)) if hit else rows
        if left.height < rows.height:
            with artifacts.replace_file(path) as beside:
                left.write_parquet(beside, compression="zstd")
            removed += rows.height - left.height
        _restate(path)
    return removed


def _restate(path: Path) -> None:
    """Make the manifest beside a file say what is in it."""
    try:
        manifest = artifacts.read_manifest(path.parent)
        stated = manifest["files"][path.name]
    except (KeyError, MissingInput, BadData):
        return
    now = {"sha256": artifacts.file_digest(path), "bytes": path.stat().st_size}
    if stated != now:
        manifest["files"][path.name] = now
        artifacts.write_text(
            path.parent / artifacts.MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        )
