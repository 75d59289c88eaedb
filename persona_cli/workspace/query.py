"""One SELECT over tables handed in as Arrow, in a DuckDB that can reach nothing else.

The engine is in memory, reads no file and no Python variable, loads no extension, and its configuration is locked
before the query is seen; tables come in as Arrow datasets, into which DuckDB pushes its projections and filters. So a
query can be slow or wrong, but it cannot write, and cannot read what is not in the workspace.
"""

from __future__ import annotations

import contextlib
import decimal
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from persona_cli.errors import CannotWrite, MissingInput, PersonaError, Refused, UsageError, nearest
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import Table

Source = Callable[[], "ds.Dataset | pa.Table | None"]
"""Gives the rows of a table when a query names it; None where the workspace has no such table yet."""

_BATCH = 10_000
_ALLOWED = ("SELECT", "EXPLAIN", "MULTI")  # PIVOT is MULTI: it finds its columns first
_HINT = 'persona sql "SHOW TABLES"'
_WHOLE = pa.decimal128(38, 0)


class Answer:
    """Rows of a query as they come; columns have distinct names."""

    def __init__(self, reader: pa.RecordBatchReader, explain: Callable[[duckdb.Error], PersonaError]) -> None:
        self.columns: list[str] = _distinct(reader.schema.names)
        fields = zip(self.columns, reader.schema, strict=True)
        # Sums of whole numbers are 128 bits wide in DuckDB; whoever reads the result wants plain integers.
        self.schema = pa.schema([pa.field(n, pa.int64() if f.type == _WHOLE else f.type) for n, f in fields])
        self._reader, self._explain = reader, explain

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Arrow batches with the columns of `schema`; they can be read once."""
        for batch in self._raw():
            arrays = [
                c.cast(f.type) if c.type == _WHOLE else c for c, f in zip(batch.columns, self.schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def iter_rows(self) -> Iterator[tuple[Any, ...]]:
        """Rows as Python values; decimals as numbers. They can be read once."""
        for batch in self._raw():
            columns = [_numbers(column.to_pylist()) for column in batch.columns]
            yield from zip(*columns, strict=True)

    def write_parquet(self, stream: IO[bytes]) -> None:
        with pq.ParquetWriter(stream, self.schema, compression="zstd") as writer:
            for batch in self.batches():
                writer.write_batch(batch)

    def table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches(), self.schema)

    def _raw(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._reader
        except duckdb.Error as error:
            raise self._explain(error) from error
        except (pa.ArrowException, OSError) as error:
            # What the engine raises in mid-stream comes through Arrow as its words alone.
            raise self._explain(duckdb.Error(str(error))) from error


@contextlib.contextmanager
def answering(
    home: Home, sql: str, sources: Mapping[str, Source], views: Mapping[str, tuple[str, str]] | None = None
) -> Iterator[Answer]:
    """The answer to one SELECT over `sources` (name → rows) and `views` (name → the source it needs, its SELECT).

    Raises UsageError for what is not SQL or names what is not there, Refused for anything but a query.
    """
    views = views or {}
    connection = duckdb.connect(":memory:")
    try:
        _check(connection, sql)
        with _spill(home) as folder:
            _settle(connection, home, folder)
            missing = _register(connection, sql, sources, views)
            _lock(connection)

            def explain(error: duckdb.Error) -> PersonaError:
                columns: dict[str, list[str]] = {name: [] for name in (*sources, *views)}
                return explained(error, columns | _columns(connection), missing)

            try:
                reader = connection.sql(sql).to_arrow_reader(_BATCH)
            except duckdb.Error as error:
                raise explain(error) from error
            yield Answer(reader, explain)
    finally:
        connection.close()


def dataset(table: Table) -> ds.Dataset:
    """Exactly the files of this snapshot, partition columns included."""
    paths = [str(table.root / file.path) for file in table.files]
    if not paths:
        return ds.dataset(table.schema.empty_table())
    partition = pa.schema([table.schema.field(name) for name in table.partition_by])
    return ds.dataset(
        paths,
        schema=table.schema,
        format="parquet",
        partitioning=ds.partitioning(partition, flavor="hive"),
        partition_base_dir=str(table.root),
    )


def explained(
    error: duckdb.Error, columns: Mapping[str, Sequence[str]] | None = None, missing: Sequence[str] = ()
) -> PersonaError:
    """DuckDB's error as ours: the nearest names of tables and columns, no position drawings."""
    columns = columns or {}
    text = str(error)
    if isinstance(error, duckdb.PermissionException) or "operations are disabled" in text:
        return Refused("persona sql reads the tables of the workspace, no files and nothing on the network", _HINT)
    if found := re.search(r"Table with name (.+?) does not exist", text):
        name = found[1].strip('"')
        if name.lower() in missing:
            return MissingInput(f"the workspace has no {name.lower()} yet", "persona status")
        return UsageError(f"there is no table {name!r}{nearest(name, columns)}", _HINT)
    if found := re.search(r'Referenced table "(.+?)" not found', text):
        return UsageError(f"{found[1]!r} is no table of this FROM clause", _HINT)
    if found := re.search(r'(?:list|Table|table) "(.+?)" does not have a column named "(.+?)"', text):
        known = columns.get(found[1], ())
        return UsageError(f"{found[1]!r} has no column {found[2]!r}{nearest(found[2], known)}", _describe(found[1]))
    if found := re.search(r'Referenced column "(.+?)" (?:was )?not found', text):
        bindings = re.search(r"Candidate bindings: (.+)", text)
        near = re.findall(r'"([^"]+)"', bindings[1]) if bindings else []
        names = {name.rpartition(".")[2] for name in near} or {n for listed in columns.values() for n in listed}
        close = nearest(found[1], names).replace("; known:", "; perhaps one of:") if near else nearest(found[1], names)
        return UsageError(f"no table of this FROM clause has a column {found[1]!r}{close}", _describe())
    words = re.sub(r"^[A-Za-z ]+Error: ", "", text.partition("\n\n")[0])
    words = " ".join(words.split())
    if isinstance(error, duckdb.ParserException):
        return UsageError(f"this is not SQL: {words}")
    if isinstance(error, duckdb.OutOfMemoryException):
        return CannotWrite(
            f"the query needs more memory than it may have: {words}", "compute.memory_gb in persona.toml"
        )
    return UsageError(f"the query fails: {words}")


def _describe(table: str | None = None) -> str:
    return f'persona sql "DESCRIBE {table or "events"}"'


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """One statement, and one that only reads. Courtesy: what keeps the query in is the locked configuration."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise explained(error) from error
    if len(statements) != 1:
        raise UsageError(f"expected one statement, got {len(statements)}", 'persona sql "SELECT count(*) FROM events"')
    kind = statements[0].type.name
    if kind not in _ALLOWED:
        raise Refused(f"persona sql answers SELECT and changes nothing; {kind} is not a query", _HINT)


def _settle(connection: duckdb.DuckDBPyConnection, home: Home, spill: Path | None) -> None:
    settings = {
        "TimeZone": "UTC",
        "memory_limit": f"{home.settings.number('compute.memory_gb')}GiB",
        "temp_directory": str(spill or ""),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "preserve_insertion_order": True,
    }
    if threads := home.settings.whole("compute.threads"):
        settings["threads"] = threads
    for name, value in settings.items():
        shown = f"'{value}'" if not isinstance(value, str) else "'" + value.replace("'", "''") + "'"
        connection.execute(f"SET {name} = {shown}")


def _lock(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _register(
    connection: duckdb.DuckDBPyConnection, sql: str, sources: Mapping[str, Source], views: Mapping[str, tuple[str, str]]
) -> list[str]:
    """Hand over what the query names (all, where it asks for the list); answers the names that have no rows yet."""
    everything = re.search(r"\bshow\b|\binformation_schema\b|\bduckdb_\w+\(", sql, re.IGNORECASE)
    names = (*sources, *views)
    wanted = {name for name in names if everything or re.search(rf"\b{name}\b", sql, re.IGNORECASE)}
    wanted |= {views[name][0] for name in wanted if name in views}
    missing = []
    for name in sources:
        if name in wanted:
            rows = sources[name]()
            if rows is None:
                missing.append(name)
            else:
                connection.register(name, rows)
    for name, (needs, select) in views.items():
        if name in wanted and needs in missing:
            missing.append(name)
        elif name in wanted:
            connection.execute(f"CREATE TEMP VIEW {name} AS {select}")
    return missing


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    rows = connection.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    for table, column in rows:
        found.setdefault(table, []).append(column)
    return found


@contextlib.contextmanager
def _spill(home: Home) -> Iterator[Path | None]:
    """A folder for what does not fit in memory; None in a workspace that cannot be written.

    Its name and its lock tell `doctor` whose it is after a crash.
    """
    folder = home.path(artifacts.temporary_name())
    try:
        folder.mkdir(mode=0o700)
    except OSError:
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _distinct(names: Sequence[str]) -> list[str]:
    """`a, a` as `a, a_2`: every column can be named."""
    given: list[str] = []
    for name in names:
        number, chosen = 1, name
        while chosen in given:
            number += 1
            chosen = f"{name}_{number}"
        given.append(chosen)
    return given


def _numbers(values: list[Any]) -> list[Any]:
    if not any(isinstance(value, decimal.Decimal) for value in values):
        return values
    return [_number(value) if isinstance(value, decimal.Decimal) else value for value in values]


def _number(value: decimal.Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)
