"""Lists of ids that people give: users to recommend to, candidates to rank, pairs to score.

A text file holds one id a line; CSV, TSV, JSON lines and Parquet name their columns, by our names or by common ones
(`userId`, `sku`). Ids are text and stay as they are written: `007` is not `7`.
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.events.opening import Input, opened
from persona_cli.events.schema import EVENTS, MAX_ID_BYTES

Kind = Literal["text", "csv", "tsv", "jsonl", "parquet"]
_BOM = "\ufeff"
_SUFFIX: dict[str, Kind] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2")
_ALIASES = {field.name: field.aliases for field in EVENTS}


def read_ids(source: str, columns: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """The rows of `source` (a file, compressed or not, or `-`) as text: `columns`, then those of `optional` it has.

    Rows keep their order and are as many as there are lines that are not blank. A file without a suffix that we know is
    JSON lines if it begins with a brace, CSV or TSV if its first line names the columns, and else one id a line, which
    is enough where one column is asked for. MissingInput where there is no such file; BadData (file, line, field) where
    a column is missing or an id is empty, too long or not text.
    """
    path = _path(source)
    wanted = [*columns, *optional]
    if path.path is not None and _suffix(path.name) == "parquet":
        rows = _parquet(path, wanted)
    else:
        lines = _lines(path)
        first = next(iter(lines), (1, ""))[1]
        kind = _suffix(path.name) or _guess(first, wanted)
        if kind == "jsonl":
            rows = _jsonl(path.name, lines, wanted)
        elif kind == "text":
            rows = _text(path.name, lines, columns)
        else:
            rows = _separated(path.name, lines, wanted, "\t" if kind == "tsv" else ",")
    return _checked(path.name, rows, columns, optional)


Rows = tuple[dict[str, list[Any]], list[int]]
"""Columns found, and the line of each row."""


def _path(source: str) -> Input:
    from pathlib import Path

    if source == "-":
        return Input("standard input", None, "jsonl")
    path = Path(source)
    if not path.exists():
        raise MissingInput(f"{source}: no such file; expected a file of ids, one a line, or - for standard input")
    if path.is_dir():
        raise UsageError(f"{source} is a folder; expected a file of ids, or - for standard input")
    return Input(source, path, "jsonl")


def _suffix(name: str) -> Kind | None:
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return next((kind for ending, kind in _SUFFIX.items() if name.lower().endswith(ending)), None)


def _lines(source: Input) -> list[tuple[int, str]]:
    """(number, text) of every line that is not blank."""
    with opened(source) as (compression, stream):
        try:
            raw = stream.read()
        except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
            if compression is None:
                raise
            raise BadData(f"{source.name}: the {compression} stream is damaged ({error})") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadData(f"{source.name}, line {line}: not UTF-8 text (byte {error.object[error.start]:#04x})") from error
    numbered = enumerate(text.removeprefix(_BOM).split("\n"), start=1)
    return [(number, line.removesuffix("\r")) for number, line in numbered if line.strip()]


def _guess(first: str, wanted: Sequence[str]) -> Kind:
    if first.lstrip().startswith("{"):
        return "jsonl"
    names = {name for column in wanted for name in (column, *_ALIASES.get(column, ()))}
    for kind, separator in (("tsv", "\t"), ("csv", ",")):
        if names & {cell.strip().strip('"') for cell in first.split(separator)}:
            return "tsv" if kind == "tsv" else "csv"
    return "text"


def _text(name: str, lines: list[tuple[int, str]], columns: Sequence[str]) -> Rows:
    if len(columns) > 1:
        raise BadData(
            f"{name}: {' and '.join(columns)} are needed; expected CSV, TSV, JSON lines or Parquet with these columns",
            f"begin the file with the line {','.join(columns)}",
        )
    return {columns[0]: [line.strip() for _, line in lines]}, [number for number, _ in lines]


def _separated(name: str, lines: list[tuple[int, str]], wanted: Sequence[str], separator: str) -> Rows:
    if not lines:
        return {column: [] for column in wanted}, []
    # A quoted cell may hold line breaks, so the reader gets the text as a whole.
    reader = csv.reader(io.StringIO("\n".join(line for _, line in lines)), delimiter=separator, strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
        places = {column: header.index(given) for column, given in _matched(name, header, wanted).items()}
        columns: dict[str, list[Any]] = {column: [] for column in places}
        numbers = []
        for row in reader:
            number = lines[min(reader.line_num, len(lines)) - 1][0]
            if len(row) != len(header):
                raise BadData(f"{name}, line {number}: {len(row)} cells; expected {len(header)} as in the first line")
            for column, place in places.items():
                columns[column].append(row[place])
            numbers.append(number)
    except csv.Error as error:
        raise BadData(f"{name}, line {lines[min(reader.line_num, len(lines)) - 1][0]}: {error}") from error
    return columns, numbers


def _jsonl(name: str, lines: list[tuple[int, str]], wanted: Sequence[str]) -> Rows:
    columns: dict[str, list[Any]] = {column: [] for column in wanted}
    for number, line in lines:
        try:
            row = json.loads(line, parse_int=str)
        except ValueError as error:
            raise BadData(f"{name}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadData(f"{name}, line {number}: expected an object such as {{{_example(wanted)}}}")
        for column in wanted:
            names = (column, *_ALIASES.get(column, ()))
            columns[column].append(next((row[given] for given in names if given in row), None))
    filled = {column: values for column, values in columns.items() if any(value is not None for value in values)}
    return filled if lines else columns, [number for number, _ in lines]


def _parquet(source: Input, wanted: Sequence[str]) -> Rows:
    try:
        file = pq.ParquetFile(source.path)
        matched = _matched(source.name, file.schema_arrow.names, wanted)
        table = file.read(columns=list(matched.values()))
    except (OSError, ValueError) as error:
        raise BadData(f"{source.name}: not a Parquet file that can be read ({error})") from error
    # Whole numbers are ids in many tables; numbers with a fraction never are.
    columns = {
        column: [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in table[given].to_pylist()]
        for column, given in matched.items()
    }
    return columns, list(range(1, table.num_rows + 1))


def _matched(name: str, header: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Column → its name in the file."""
    found = {}
    for column in wanted:
        given = next((alias for alias in (column, *_ALIASES.get(column, ())) if alias in header), None)
        if given is not None:
            found[column] = given
    return found


def _checked(name: str, rows: Rows, columns: Sequence[str], optional: Sequence[str]) -> pl.DataFrame:
    found, numbers = rows
    for column in columns:
        if column not in found:
            raise BadData(f"{name}: there is no column {column}; expected {{{_example(columns)}}} or such columns")
    checked = {}
    for column in (*columns, *(name for name in optional if name in found)):
        checked[column] = list(_ids(name, column, found[column], numbers))
    return pl.DataFrame(checked, schema=dict.fromkeys(checked, pl.String))


def _ids(name: str, column: str, values: Iterable[Any], numbers: Sequence[int]) -> Iterator[str]:
    for value, number in zip(values, numbers, strict=True):
        if not isinstance(value, str) or not value:
            seen = "missing" if value is None else "empty" if value == "" else json.dumps(value, default=str)[:80]
            raise BadData(f"{name}, line {number}: {column} is {seen}; expected an id as text")
        if len(value.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            raise BadData(f"{name}, line {number}: {column} is longer than {MAX_ID_BYTES:,} bytes")
        yield value


def _example(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}": "…"' for column in columns)
