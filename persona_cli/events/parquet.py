"""Parquet → batches."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from persona_cli.errors import BadData
from persona_cli.events.batch import Batch, Record, Singly
from persona_cli.events.columns import Columns
from persona_cli.events.judge import Rules, json_text, props_text
from persona_cli.events.opening import Input, opened
from persona_cli.events.scan import Mask, scan
from persona_cli.events.schema import FIELDS, Field, Path
from persona_cli.events.tabular import CUT, cut

NO_OFFSET = -1  # records of Parquet have no place in bytes
ROWS = 32_768


def open_file(source: Input) -> pq.ParquetFile:
    """Raises BadData for what is not Parquet, or names a column twice."""
    try:
        if source.path is not None:
            file = pq.ParquetFile(source.path, memory_map=False)
        else:
            with opened(source) as (_, stream):
                file = pq.ParquetFile(io.BytesIO(stream.read()))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadData(f"{source.name}: not a readable Parquet file") from error
    names = file.schema_arrow.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadData(f"{source.name}: has two columns named {twice[0]!r}; expected one of each name")
    return file


def paths_of(schema: pa.Schema) -> set[Path]:
    """Columns and the members of structs."""
    found: set[Path] = set()

    def walk(fields: Sequence[pa.Field], above: Path) -> None:
        for field in fields:
            found.add((*above, field.name))
            if pa.types.is_struct(field.type):
                walk([field.type.field(place) for place in range(field.type.num_fields)], (*above, field.name))

    walk(list(schema), ())
    return found


def tables_of(file: pq.ParquetFile, source: str) -> Iterator[pa.Table]:
    """The file in pieces of bounded size, in types that Python and JSON know."""
    try:
        for rows in file.iter_batches(batch_size=ROWS, use_threads=False):
            table = pa.Table.from_batches([rows])
            schema = pa.schema([pa.field(field.name, _simple(field.type)) for field in table.schema])
            yield table.cast(schema, safe=False)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadData(f"{source}: damaged Parquet file") from error


def _simple(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_dictionary(kind):
        return _simple(kind.value_type)
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct([pa.field(field.name, _simple(field.type)) for field in fields])
    return kind


def read_table(table: pa.Table, line: int, rules: Rules, *, together: bool = True) -> Batch:
    """The batch of a piece whose first record has number `line`; unless `together`, each is judged by itself."""
    singly = Singly(rules)
    columns = _together(table, rules) if together else None
    left = np.arange(table.num_rows) if columns is None else np.flatnonzero(~columns.done)
    for row, record in zip(left.tolist(), table.take(left).to_pylist(), strict=True):
        singly.add(line + row, NO_OFFSET, partial(_raw, record), partial(dict, record))
    if columns is None:
        return singly.batch(table.num_rows)
    rows, many = columns.table()
    return singly.batch(table.num_rows, many, rows + line, int(columns.zoneless[rows].sum()))


def _together(table: pa.Table, rules: Rules) -> Columns | None:
    """The fields as a block of text, to be read like a table of text; rows that this does not fit stay empty lines."""
    names = [spec.name for spec in FIELDS[rules.mapping.kind] if spec.name in rules.mapping.paths]
    if "props" in table.schema.names or not names:
        return None
    simple = pa.chunked_array([pa.repeat(True, table.num_rows)])
    texts = []
    for spec in FIELDS[rules.mapping.kind]:
        if spec.name in names:
            text, fits = _text_of(_column(table, rules.mapping.paths[spec.name]), spec)
            texts.append(text)
            simple = pc.and_(simple, fits)
    lines = pc.binary_join_element_wise(*texts, CUT, null_handling="replace", null_replacement="")
    simple = pc.and_(simple, pc.invert(pc.match_substring_regex(lines, "[\n\r]")))
    block = "\n".join(pc.if_else(simple, lines, "").to_pylist()) + "\n"
    columns = Columns(scan(block.encode(), ord(CUT)), rules)
    rows, cells = cut(columns.scan, len(names))
    taken = {path[0] for path in rules.mapping.paths.values() if len(path) == 1}
    rest = table.drop_columns([name for name in table.schema.names if name in taken])

    def props(kept: Mask) -> pa.Array:
        records = rest.take(rows[kept]).to_pylist()
        return pa.array([props_text(record, rules.tree) for record in records], pa.string())

    columns.fill(rows, dict(zip(names, cells, strict=True)), props if rest.num_columns else None)
    return columns


def _column(table: pa.Table, path: Path) -> pa.ChunkedArray:
    column = table[path[0]]
    return pc.struct_field(column, list(path[1:])) if len(path) > 1 else column


def _text_of(column: pa.ChunkedArray, spec: Field) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Values as text that reads back as the same values, and where that holds."""
    kind = column.type
    everywhere = pa.chunked_array([pa.repeat(True, len(column))])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string()), everywhere
    if pa.types.is_floating(kind) and spec.type == "number":
        return column.cast(pa.float64()).cast(pa.string()), everywhere
    if pa.types.is_timestamp(kind) and kind.tz is not None and spec.type == "time":
        us = column.cast(pa.int64())
        # Numbers of other sizes would be taken for seconds, milli- or nanoseconds.
        sized = pc.and_(pc.greater_equal(us, 10**14), pc.less(us, 10**17))
        return us.cast(pa.string()), pc.fill_null(sized, True)
    return pa.chunked_array([pa.nulls(len(column), pa.string())]), column.is_null()


def _raw(record: Record) -> bytes:
    return json_text(record).encode("utf-8", "replace")
