"""Files with their ids replaced: JSON lines, CSV, TSV and Parquet, a block at a time; and their columns, to examine.

Nothing is skipped: a line that cannot be read stops the run, and what was written of the result is thrown away. What
comes out has the format of what came in, without compression unless the name asks for it (.gz, .zst); Parquet comes
without the metadata that other programs left in its footer.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from persona_cli.errors import BadData, MissingInput, Refused, UsageError, nearest
from persona_cli.events import parquet, tabular
from persona_cli.events.catalogue import current
from persona_cli.events.judge import ASCII_BLANK, Rejected, json_text, parse_json
from persona_cli.events.opening import Block, Damage, Input, Lines, format_of
from persona_cli.privacy.anonymity import Pairs
from persona_cli.privacy.pseudonyms import BARE, ITEMS, PEOPLE, Replacing, type_of
from persona_cli.profiles.permitted import person_events
from persona_cli.profiles.read import profiles
from persona_cli.workspace.home import Home

# The defaults of ingest.max_line_mb and ingest.max_expansion: no workspace is needed here.
_MAX_LINE = 64 << 20
_MAX_EXPANSION = 200.0
_ROWS = 32_768


@dataclass
class Counts:
    """Records written, and those with an id for which there was no replacement: dropped, or the run is refused."""

    rows: int = 0
    unknown: int = 0


def input_of(path: Path) -> Input:
    """The file as an input; MissingInput or BadData where it is none that can be read."""
    if str(path) == "-":
        return Input("-", None, "jsonl")
    if not path.is_file():
        raise MissingInput(f"{path}: {'a folder; expected a file' if path.is_dir() else 'no such file'}")
    format = format_of(path.name)
    if format is None:
        raise BadData(f"{path}: the format is not told by the name; expected .jsonl, .csv, .tsv or .parquet")
    return Input(str(path), path, format)


def rewrite(source: Input, out: IO[bytes] | None, replacing: Replacing, *, drop_unknown: bool = False) -> Counts:
    """Write `source` to `out` (None: nowhere) with its ids replaced.

    Raises BadData for what cannot be read, UsageError where nothing that is an id was found, and Refused where records
    hold ids without a replacement, unless `drop_unknown` leaves these records out.
    """
    counts = Counts()
    sink: IO[bytes] = io.BytesIO() if out is None else out
    try:
        if source.format == "parquet":
            _parquet(source, sink, replacing, counts, out is None)
        else:
            way = _json_lines if source.format == "jsonl" else _tables
            for text in way(source, replacing, counts):
                if out is not None:
                    out.write(text)
    except Rejected as error:
        raise BadData(f"{source.name}: {error}") from error
    if counts.rows and not replacing.replaced and not counts.unknown:
        raise UsageError(f"{source.name}: no ids were found under known names", "name them: --column NAME")
    if counts.unknown and not drop_unknown:
        raise Refused(
            f"{source.name}: {counts.unknown:,} of {counts.rows + counts.unknown:,} records hold pseudonyms that no id "
            "given makes under the old key and this domain",
            "ids that are erased cannot be rotated; --drop-unknown leaves these records out",
        )
    return counts


@contextlib.contextmanager
def compressed(stream: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """`stream`, or one that compresses into it where the name ends in .gz or .zst; equal bytes for equal content."""
    if name.endswith((".gz", ".gzip")):
        with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed:
            yield cast("IO[bytes]", packed)
    elif name.endswith((".zst", ".zstd")):
        with pa.CompressedOutputStream(pa.PythonFile(stream, mode="w"), "zstd") as packed:
            yield packed
    else:
        yield stream


def same_format(source: Input, out: Path) -> None:
    """UsageError where the name of the output tells another format than that of the input."""
    wanted = format_of(out.name)
    if wanted is not None and wanted != source.format:
        raise UsageError(f"--out {out} is {wanted} and {source.name} is {source.format}; expected the same format")


def columns_of_file(source: Input, names: Sequence[str]) -> pl.DataFrame:
    """Columns of a file by their names, or by dotted paths in JSON lines; texts, but for Parquet, which has types.

    A column that no record has is not among them. Raises BadData for what cannot be read.
    """
    if source.format == "parquet":
        file = parquet.open_file(source)
        kept = [name for name in names if name in file.schema_arrow.names]
        rows = pa.table(file.read(columns=kept))
        return pl.DataFrame(pl.from_arrow(rows))
    found: dict[str, list[str | None]] = {name: [] for name in names}
    there: set[str] = set()
    for row in _cells_of(source, names, there):
        for name, value in zip(found, row, strict=True):
            found[name].append(value)
    return pl.DataFrame({name: pl.Series(found[name], dtype=pl.String) for name in found if name in there})


def _cells_of(source: Input, names: Sequence[str], there: set[str]) -> Iterator[list[str | None]]:
    """The values of each record; `there` gets the names that the file has."""
    if source.format == "jsonl":
        for piece in _pieces(source):
            if isinstance(piece, Damage):
                raise BadData(f"{source.name}: line {piece.line}: {piece.reason}")
            for number, line in enumerate(piece.data.split(b"\n")[:-1]):
                if line.strip():
                    try:
                        record = parse_json(line)
                    except Rejected as error:
                        raise BadData(f"{source.name}: line {piece.line + number}: {error}") from error
                    values = [_value_at(record, name) for name in names]
                    there.update(name for name, value in zip(names, values, strict=True) if value is not None)
                    yield values
        return
    separator = "," if source.format == "csv" else "\t"
    header, pieces = tabular.header(_pieces(source), source.name, separator, _MAX_LINE)
    there.update(set(names) & set(header))
    places = [header.index(name) if name in header else None for name in names]
    for row in _records(pieces, separator):
        if isinstance(row, Damage) or (isinstance(row.cells, str) and row.cells != "blank line"):
            raise BadData(f"{source.name}: line {row.line}: {row.reason if isinstance(row, Damage) else row.cells}")
        if row.cells == "blank line":
            continue
        if len(row.cells) != len(header):
            raise BadData(f"{source.name}: line {row.line}: expected {len(header)} columns, got {len(row.cells)}")
        yield [None if place is None else row.cells[place] or None for place in places]


def _value_at(record: Any, name: str) -> str | None:
    for key in [name] if name in record else name.split("."):
        record = record.get(key) if isinstance(record, dict) else None
    return record if record is None or isinstance(record, str) else json_text(record)


def _pieces(source: Input) -> Iterator[Block | Damage]:
    return iter(Lines(source, _MAX_LINE, _MAX_EXPANSION))


def _json_lines(source: Input, replacing: Replacing, counts: Counts) -> Iterator[bytes]:
    for piece in _pieces(source):
        if isinstance(piece, Damage):
            raise BadData(f"{source.name}: line {piece.line}: {piece.reason}")
        made = []
        for number, line in enumerate(piece.data.split(b"\n")[:-1]):
            if not line.strip(ASCII_BLANK.encode()):
                continue
            try:
                text = replacing.line(line)
            except Rejected as error:
                raise BadData(f"{source.name}: line {piece.line + number}: {error}", _HINT) from error
            if _counted(replacing, counts):
                made.append(text + "\n")
        yield "".join(made).encode()


_HINT = "correct or remove the line, and run it again"


def _counted(replacing: Replacing, counts: Counts) -> bool:
    counts.rows += not replacing.unknown
    counts.unknown += replacing.unknown
    return not replacing.unknown


def _tables(source: Input, replacing: Replacing, counts: Counts) -> Iterator[bytes]:
    separator = "," if source.format == "csv" else "\t"
    names, pieces = tabular.header(_pieces(source), source.name, separator, _MAX_LINE)
    tabular.no_name_twice(names, source.name)
    paths = [tuple(name.split(".")) for name in names]
    replacing.bare = BARE in names
    ids = [number for number, path in enumerate(paths) if replacing.places.at(path) is not None or path == ("props",)]
    people = [names.index(name) for name in PEOPLE if name in names]
    items = [names.index(name) for name in ITEMS if name in names]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, lineterminator="\n")
    writer.writerow(names)
    for record in _records(pieces, separator):
        where = f"{source.name}: line {record.line}"
        if isinstance(record, Damage):
            raise BadData(f"{where}: {record.reason}")
        if record.cells == "blank line":
            continue
        if isinstance(record.cells, str):
            raise BadData(f"{where}: {record.cells}", _HINT)
        if len(record.cells) != len(names):
            raise BadData(f"{where}: expected {len(names)} columns, got {len(record.cells)}", _HINT)
        cells = record.cells
        if replacing.pairs is not None:
            _pair(replacing.pairs, _cell(cells, people), _cell(cells, items))
        replacing.unknown = False
        for number in ids:
            cells[number] = replacing.cell(cells[number], paths[number])
        if _counted(replacing, counts):
            writer.writerow(cells)
        if buffer.tell() > 1 << 20:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _records(pieces: Iterator[Block | Damage], separator: str) -> Iterator[tabular.Record | Damage]:
    for piece in tabular.whole_rows(pieces, separator, _MAX_LINE):
        if isinstance(piece, Damage):
            yield piece
        else:
            yield from tabular.split(piece, separator, _MAX_LINE) if isinstance(piece, Block) else piece


def _parquet(source: Input, out: IO[bytes], replacing: Replacing, counts: Counts, unwritten: bool) -> None:
    file = parquet.open_file(source)
    before = file.schema_arrow
    replacing.bare = BARE in before.names
    fields = [field.with_type(type_of(replacing.places, field.type, (field.name,))) for field in before]
    schema = pa.schema([field.remove_metadata() for field in fields])
    writer = None if unwritten else pq.ParquetWriter(out, schema, compression="zstd")
    try:
        for rows in file.iter_batches(batch_size=_ROWS, use_threads=False):
            if replacing.pairs is not None:
                people, items = _texts(rows, PEOPLE), _texts(rows, ITEMS)
                for person, item in zip(people, items, strict=True):
                    _pair(replacing.pairs, person, item)
            columns, known = [], pa.repeat(True, rows.num_rows)
            for column, field in zip(rows.columns, before, strict=True):
                made, gone = replacing.array(column, (field.name,))
                columns.append(made)
                known = known if gone is None else pc.and_not(known, gone)
            table = pa.Table.from_arrays(columns, schema=schema).filter(known)
            counts.rows += table.num_rows
            counts.unknown += rows.num_rows - table.num_rows
            if writer is not None:
                writer.write_table(table)
    except pa.ArrowException as error:
        raise BadData(f"{source.name}: damaged Parquet file") from error
    finally:
        if writer is not None:
            writer.close()


def _texts(rows: pa.RecordBatch, names: Sequence[str]) -> list[str | None]:
    """The first of these columns that holds an id, in each row."""
    found = pa.nulls(rows.num_rows, pa.string())
    for name in names:
        if name in rows.schema.names:
            column = rows[name]
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
                found = pc.coalesce(found, column.cast(pa.string()))
    return found.to_pylist()  # type: ignore[no-any-return]


def _cell(cells: Sequence[str], places: Sequence[int]) -> str | None:
    return next((cells[place] for place in places if cells[place].strip(ASCII_BLANK)), None)


def _pair(pairs: Pairs, person: str | None, item: str | None) -> None:
    if person is not None and item is not None:
        pairs.add(person, item)


TABLES = ("users", "accounts", "events", "profiles")


def columns_of(what: str, names: Sequence[str], home: Home | None) -> pl.DataFrame:
    """Those of the columns `names` that there are, of the file `what`, or (with a workspace) of its table `what`.

    Of users and accounts the rows that hold now; of events all, with the person as user_id. Raises UsageError for a
    table that there is not.
    """
    if home is None:
        return columns_of_file(input_of(Path(what)), names)
    if what in ("users", "accounts"):
        rows = current(home, what).lazy()  # type: ignore[arg-type]
    elif what == "events":
        rows = person_events(home, purpose=None)
    elif what == "profiles":
        rows = profiles(home, purpose=None)
    else:
        raise UsageError(f"{what!r} is neither a file nor a table{nearest(what, TABLES)}")
    there = set(rows.collect_schema().names())
    return rows.select([name for name in dict.fromkeys(names) if name in there]).collect()
