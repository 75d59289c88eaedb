"""Delta tables of a workspace: whole Parquet files of our own, added and removed in one atomic commit.

A `Table` is a snapshot. Files are written first (`write`), invisible until `commit` names them; a commit made from a
snapshot that another writer has overtaken is refused, so what was read before it (the ids already there) still holds.
The log carries no ids: statistics are kept on the column of time alone, and no partition value names anybody.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from persona_cli.errors import BadData, Busy
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

_COMPRESSION_LEVEL = 1
_STATISTICS = "delta.dataSkippingStatsColumns"


@dataclass(frozen=True)
class File:
    """One Parquet file of a table: path relative to the table's folder, partition values, rows, bytes."""

    path: str
    partition: Mapping[str, str]
    rows: int
    size: int
    first: str | None = None
    """Earliest and latest time in the file as ISO text, where the table has a column of time (`Table.time`)."""
    last: str | None = None


class Table:
    """A snapshot of one table."""

    def __init__(self, root: Path, delta: DeltaTable) -> None:
        self.root = root
        self._delta = delta
        self._made: set[str] = set()  # paths of the files written from here; noted before they exist
        self._discarded = False
        self.version: int = delta.version()
        self.id: str = str(delta.metadata().id)
        self.schema: pa.Schema = pa.schema(delta.schema())
        self.partition_by: tuple[str, ...] = tuple(delta.metadata().partition_columns)
        said = delta.metadata().configuration.get(_STATISTICS)
        self.time: str | None = said if said in self.schema.names else None
        """The column that says when a row is of, if there is one: the log knows its range in each file."""

    @property
    def files(self) -> list[File]:
        """The files of this snapshot, sorted by path."""
        return _files_of(self._delta, self.partition_by, self.time)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the last commit said of itself beside Delta's own fields."""
        history = self._delta.history(1)
        return dict(history[0]) if history else {}

    def history(self) -> list[dict[str, Any]]:
        """What every commit that is still in the log said of itself, the newest first."""
        return [dict(commit) for commit in self._delta.history()]

    def applied(self, app: str) -> int | None:
        """The number that the last commit of `app` carried (Delta's application transaction), None if none did."""
        return self._delta.transaction_version(app)

    def scan(self, files: Iterable[File] | None = None) -> pl.LazyFrame:
        """Rows of the table, or of some of its files; partition columns included."""
        chosen = list(self.files if files is None else files)
        return scan_files(self.root, self.schema, self.partition_by, chosen)

    def write(
        self,
        rows: pl.DataFrame | pa.Table,
        partition: Mapping[str, Any] | None = None,
        *,
        statistics: Sequence[str] | None = None,
        dictionaries: Sequence[str] | None = None,
    ) -> File:
        """Write rows as one new file, flushed to disk and in no table until `commit`. Safe to call from threads.

        A text column may come as a dictionary of texts. `statistics` and `dictionaries` name the columns whose Parquet
        gets them, where not all need them: both take time.
        """
        values = {name: str((partition or {})[name]) for name in self.partition_by}
        names = [name for name in self.schema.names if name not in self.partition_by]
        table = (rows if isinstance(rows, pa.Table) else rows.to_arrow()).select(names)
        table = _as_declared(table, pa.schema([self.schema.field(name) for name in names]))
        folder = "/".join(f"{name}={value}" for name, value in values.items())
        relative = (f"{folder}/" if folder else "") + f"part-{time.time_ns():020d}-{secrets.token_hex(8)}.parquet"
        path = self.root / relative
        self._made.add(relative)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # Without the Arrow schema a column is read back as what it is declared, also if it came as a dictionary.
            pq.write_table(
                table,
                path,
                compression="zstd",
                compression_level=_COMPRESSION_LEVEL,
                write_statistics=True if statistics is None else list(statistics),
                use_dictionary=True if dictionaries is None else list(dictionaries),
                store_schema=False,
            )
            artifacts.sync_file(path)
            # An interruption can lose sight of a thread that is just starting: what it writes would stay for ever.
            if self._discarded:
                raise RuntimeError("everything written from this snapshot was discarded")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        first, last = _span(table, self.time)
        return File(relative, values, table.num_rows, path.stat().st_size, first, last)

    def discard(self, files: Iterable[File] | None = None) -> None:
        """Delete files (None: all written from this snapshot); one that a commit from this snapshot added stays.

        So it may be called after any error: an interruption can come when the commit is made already, or when a file
        is written and its writer does not know of it yet. After discarding all of them nothing more is written here.
        """
        self._discarded = self._discarded or files is None
        chosen = sorted(self._made) if files is None else [file.path for file in files]
        committed = self._added_next() if chosen else frozenset()
        for path in chosen:
            if Path(path).name not in committed:
                (self.root / path).unlink(missing_ok=True)

    def commit(
        self,
        add: Sequence[File],
        remove: Sequence[File] = (),
        *,
        apps: Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """Make `add` part of the table and take `remove` out of it, in one commit; answers the new version.

        `apps` are application transactions that ride in the commit. Raises Busy when another writer committed since
        this snapshot was taken. Whatever is raised: files that did not get into the table are discarded.
        """
        now = time.time_ns() // 1_000_000
        actions: list[Any] = [
            RemoveAction(
                file.path,
                data_change=True,
                deletion_timestamp=now,
                partition_values=dict(file.partition),
                size=file.size,
            )
            for file in remove
        ]
        actions += [
            AddAction(file.path, file.size, dict(file.partition), now, True, _stats(file, self.time)) for file in add
        ]
        # A number of our own makes two blind appends conflict, which Delta would let through.
        ours = "persona-writer"
        numbers = {ours: (self.applied(ours) or 0) + 1, **(apps or {})}
        try:
            for folder in {(self.root / file.path).parent for file in add} | {self.root}:
                artifacts.sync_folder(folder)
            self._delta.create_write_transaction(
                actions,
                "append",
                Schema.from_arrow(self.schema),
                list(self.partition_by) or None,
                commit_properties=CommitProperties(
                    custom_metadata=dict(metadata or {}) or None,
                    max_commit_retries=0 if remove else None,
                    app_transactions=[Transaction(app, number) for app, number in numbers.items()],
                ),
            )
        except BaseException as error:
            self.discard(add)
            if isinstance(error, CommitFailedError):
                raise Busy(
                    f"another run changed {self.root.name} meanwhile; nothing was written", "run the same command again"
                ) from error
            raise
        artifacts.sync_file(self._log_of(self.version + 1))  # exactly: a commit from an overtaken snapshot is refused
        artifacts.sync_folder(self.root / "_delta_log")
        return self.version + 1

    def _log_of(self, version: int) -> Path:
        return self.root / "_delta_log" / f"{version:020d}.json"

    def _added_next(self) -> frozenset[str]:
        """Names of the files added by the version after this snapshot, if there is one."""
        try:
            actions = [json.loads(line) for line in self._log_of(self.version + 1).read_text().splitlines()]
        except FileNotFoundError:
            return frozenset()
        return frozenset(Path(action["add"]["path"]).name for action in actions if "add" in action)

    def changed_by(self, version: int) -> tuple[list[File], list[File]] | None:
        """Files that the commit of `version` added and removed; None when its log is gone."""
        try:
            return Table(self.root, DeltaTable(str(self.root), version)).changes(version - 1)
        except (DeltaError, OSError):
            return None

    def changes(self, since: int) -> tuple[list[File], list[File]] | None:
        """Files added and removed since version `since`; None when that version's log is gone."""
        if since > self.version:
            return None
        try:
            then = _files_of(DeltaTable(str(self.root), since), self.partition_by, self.time)
            before = {file.path: file for file in then}
        except (DeltaError, OSError):
            return None
        now = {file.path: file for file in self.files}
        added = [file for path, file in now.items() if path not in before]
        removed = [file for path, file in before.items() if path not in now]
        return added, removed


def open_table(home: Home, name: str) -> Table | None:
    """The table as it is now, or None where it was never begun."""
    root = home.path(name)
    if not (root / "_delta_log").is_dir():
        return None
    try:
        return Table(root, DeltaTable(str(root)))
    except TableNotFoundError:
        return None
    except DeltaError as error:
        raise BadData(f"the table {root} cannot be read: {error}", "restore it from a backup") from error


def open_or_create(
    home: Home, name: str, schema: pa.Schema, partition_by: Sequence[str] = (), time: str = "timestamp"
) -> Table:
    """The table as it is now, begun with `schema` (partition columns included) where it is not there yet.

    `time` is its column of time, where it has one.
    """
    table = open_table(home, name)
    if table is not None:
        return table
    root = home.path(name)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    statistics = {_STATISTICS: time} if time in schema.names else {"delta.dataSkippingNumIndexedCols": "0"}
    try:
        delta = DeltaTable.create(
            str(root),
            Schema.from_arrow(schema),
            mode="ignore",
            partition_by=list(partition_by),
            configuration=statistics,
        )
    except CommitFailedError:  # somebody else began it between this look and this commit
        delta = DeltaTable(str(root))
    artifacts.sync_folder(root / "_delta_log")
    return Table(root, delta)


def names(home: Home) -> list[str]:
    """Every table that was begun, sorted."""
    return [name for name, _ in _all(home)]


def drop(home: Home, name: str) -> None:
    """Remove a table with all its versions; call it under the lock `tables`, for what can be made again."""
    aside = home.root / f".tmp-{name}-{secrets.token_hex(8)}"  # a run killed from here on leaves what doctor finds
    home.path(name).rename(aside)
    artifacts.remove(aside)


def exists(home: Home, name: str) -> bool:
    return open_table(home, name) is not None


def row_count(home: Home, name: str) -> int:
    """Rows of a table by its log, without reading it; 0 where it was never begun."""
    table = open_table(home, name)
    return sum(file.rows for file in table.files) if table else 0


def scan(home: Home, name: str, schema: pa.Schema, partition_by: Sequence[str] = ()) -> pl.LazyFrame:
    """Rows of a table; of the given schema and empty where it was never begun."""
    table = open_table(home, name)
    return table.scan() if table else scan_files(home.path(name), schema, partition_by, [])


def scan_files(root: Path, schema: pa.Schema, partition_by: Sequence[str], files: Sequence[File]) -> pl.LazyFrame:
    """Rows of `files` in the column order of `schema`."""
    known = pl.Schema(schema)
    if not files:
        return known.to_frame().lazy()
    types = {name: known[name] for name in partition_by}
    return pl.scan_parquet(
        [root / file.path for file in files], hive_partitioning=bool(types), hive_schema=types or None
    ).select(schema.names)


def orphans(home: Home) -> list[str]:
    """Files under the tables' folders that belong to no version still kept: what killed runs and compaction left."""
    found: list[str] = []
    for name, table in _all(home):
        gone = table._delta.vacuum(0, dry_run=True, enforce_retention_duration=False, full=True)
        # The log goes on naming files that an earlier vacuum has deleted.
        found += [f"{name}/{path}" for path in gone if (table.root / path).exists()]
    return sorted(found)


def vacuum(home: Home) -> int:
    """Delete every file that the newest version of its table does not name; call it under the lock `tables`.

    Not by Delta's own vacuum, whose commits would hide what the table's last commit said of itself.
    """
    found = orphans(home)
    for path in found:
        home.path(path).unlink(missing_ok=True)
    return len(found)


def _all(home: Home) -> list[tuple[str, Table]]:
    names = sorted(path.parent.name for path in home.root.glob("*/_delta_log"))
    return [(name, table) for name in names if (table := open_table(home, name)) is not None]


def _as_declared(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        column = table[field.name]
        of_texts = pa.types.is_dictionary(column.type) and column.type.value_type == field.type
        columns.append(column if of_texts else column.cast(field.type))
    return pa.table(columns, names=schema.names)


def _files_of(delta: DeltaTable, partition_by: Sequence[str], time: str | None) -> list[File]:
    actions = pl.DataFrame(delta.get_add_actions(flatten=True)).to_dicts()
    return sorted(
        (
            File(
                action["path"],
                {name: str(action[f"partition.{name}"]) for name in partition_by},
                action["num_records"] or 0,
                action["size_bytes"],
                _iso(action.get(f"min.{time}")),
                _iso(action.get(f"max.{time}")),
            )
            for action in actions
        ),
        key=lambda file: file.path,
    )


def _span(table: pa.Table, time: str | None) -> tuple[str | None, str | None]:
    if time is None or not table.num_rows:
        return None, None
    span = pc.min_max(table[time])
    return _iso(span["min"].as_py()), _iso(span["max"].as_py())


def _iso(time: Any) -> str | None:
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _stats(file: File, time: str | None) -> str:
    stats: dict[str, Any] = {"numRecords": file.rows}
    if file.first is not None:
        stats |= {"minValues": {time: file.first}, "maxValues": {time: file.last}, "nullCount": {time: 0}}
    return json.dumps(stats)
