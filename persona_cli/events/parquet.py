"""Parquet → batches."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from persona_cli.errors import BadData
from persona_cli.events.batch import Batch, Record, Singly
from persona_cli.events.judge import Rules, json_text
from persona_cli.events.mapping import Path
from persona_cli.events.opening import Input, opened

NO_OFFSET = -1  # records of Parquet have no place in bytes
ROWS = 32_768


def open_file(source: Input) -> pq.ParquetFile:
    """Raises BadData for what is not Parquet."""
    try:
        if source.path is not None:
            return pq.ParquetFile(source.path, memory_map=False)
        with opened(source) as (_, stream):
            return pq.ParquetFile(io.BytesIO(stream.read()))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadData(f"{source.name}: not a readable Parquet file") from error


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


def read_table(table: pa.Table, line: int, rules: Rules) -> Batch:
    """Judge the rows of a Parquet piece whose first record has number `line`."""
    singly = Singly(rules)
    for number, record in enumerate(table.to_pylist(), line):
        singly.add(number, NO_OFFSET, partial(_raw, record), partial(dict, record))
    return singly.batch(table.num_rows)


def _raw(record: Record) -> bytes:
    return json_text(record).encode("utf-8", "replace")
