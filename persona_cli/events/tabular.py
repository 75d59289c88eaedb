"""CSV and TSV → batches.

Tables follow RFC 4180: a header row; fields in quotes may hold separators, quotes (doubled) and line ends; an
empty cell is null. A row with more or fewer cells than the header is rejected. A quoted field that is never closed
costs its first line, not the rest of the file. A column named `props` holds JSON objects.

Blocks without any quote are cut at their separators all at once; others go through Python's csv module.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from persona_cli.errors import BadData
from persona_cli.events.batch import Batch, Singly
from persona_cli.events.columns import Columns, members
from persona_cli.events.judge import ASCII_BLANK, Rejected, Rules, parse_json
from persona_cli.events.layouts import Slice
from persona_cli.events.opening import Block, Damage, too_long
from persona_cli.events.scan import RETURN, scan

_OPEN = "quoted field is not closed"


@dataclass(frozen=True)
class Record:
    """One row of a table of text; `cells` is the reason when it cannot be taken apart."""

    line: int
    offset: int
    raw: bytes
    cells: list[str] | str


def header(
    pieces: Iterator[Block | Damage], source: str, separator: str, max_line: int
) -> tuple[tuple[str, ...], Iterator[Block | Damage]]:
    """The names in the first row, and the pieces without it.

    Raises BadData when there is no row that names columns.
    """
    expected = "expected a header row with a name for each column"
    first = next(pieces, None)
    if not isinstance(first, Block):
        raise BadData(f"{source}: {first.reason if first else 'the file is empty'}; {expected}")
    row = next(records_of(first, separator, max_line, last=False))
    if isinstance(row, Block) or isinstance(row.cells, str):
        raise BadData(f"{source}: {_OPEN if isinstance(row, Block) else row.cells}; {expected}")
    names = tuple(name.strip() for name in row.cells)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadData(f"{source}: the header row names {twice[0]!r} twice; {expected}")
    used = len(row.raw) + 1
    rest = Block(first.data[used:], first.line + row.raw.count(b"\n") + 1, first.offset + used)
    return names, chain([rest] if rest.data else [], pieces)


def whole_rows(
    pieces: Iterator[Block | Damage], separator: str, max_line: int
) -> Iterator[Block | Damage | list[Record]]:
    """Blocks without quotes as they are; of other blocks the rows, one that goes on in the next block with that one."""
    begun: Block | None = None
    for piece in pieces:
        if isinstance(piece, Damage):
            if begun is not None:
                yield split(begun, separator, max_line)
                begun = None
            yield piece
            continue
        block = piece if begun is None else Block(begun.data + piece.data, begun.line, begun.offset)
        begun = None
        if b'"' not in block.data:
            yield block
            continue
        records: list[Record] = []
        for record in records_of(block, separator, max_line, last=False):
            if isinstance(record, Block):
                begun = record
            else:
                records.append(record)
        yield records
    if begun is not None:
        yield split(begun, separator, max_line)


def split(block: Block, separator: str, max_line: int) -> list[Record]:
    """All rows of a block after which nothing comes that could belong to them."""
    return [row for row in records_of(block, separator, max_line, last=True) if isinstance(row, Record)]


def records_of(block: Block, separator: str, max_line: int, *, last: bool) -> Iterator[Record | Block]:
    """The rows of a block, then the begun row at its end, if any, as a block to put before the next one."""
    csv.field_size_limit(max(max_line, 131_072))
    lines = block.data.split(b"\n")[:-1]
    at, offset = 0, block.offset
    while at < len(lines):
        raw, used = lines[at], 1
        cells: list[str] | str
        if b'"' not in raw:
            cells = _split(raw, separator)
        else:
            cells, used = _quoted(lines, at, separator, max_line)
            raw = b"\n".join(lines[at : at + used])
            if cells == _OPEN and at + used == len(lines) and not last and len(raw) <= max_line:
                yield Block(raw + b"\n", block.line + at, offset)
                return
            if isinstance(cells, str):
                raw, used = lines[at], 1
        if len(raw) > max_line:
            cells = too_long(max_line)
        yield Record(block.line + at, offset, raw, cells)
        offset += len(raw) + 1
        at += used


def _split(raw: bytes, separator: str) -> list[str] | str:
    try:
        text = raw.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    return text.split(separator) if text.strip(ASCII_BLANK) or separator in text else "blank line"


def _quoted(lines: Sequence[bytes], at: int, separator: str, max_line: int) -> tuple[list[str] | str, int]:
    """The cells of the row that begins at line `at`, or a reason, and the number of lines looked at."""
    used = size = 0

    def feed() -> Iterator[str]:
        nonlocal used, size
        while at + used < len(lines) and size <= max_line:
            raw = lines[at + used]
            used += 1
            size += len(raw) + 1
            yield raw.decode("utf-8", "surrogateescape") + "\n"

    reader = csv.reader(feed(), delimiter=separator, strict=True)
    try:
        cells = next(reader)
    except csv.Error as error:
        return (_OPEN if "end of data" in str(error) else "not valid CSV: misplaced quote"), used
    if any("\udc80" <= character <= "\udcff" for cell in cells if not cell.isascii() for character in cell):
        return "not UTF-8", used
    return cells, used


def read_records(records: Sequence[Record], names: Sequence[str], rules: Rules) -> Batch:
    """Judge rows one by one."""
    singly = Singly(rules)
    for record in records:
        singly.add(record.line, record.offset, record.raw, partial(_named, record, names))
    return singly.batch(len(records))


def read_block(block: Block, names: Sequence[str], separator: str, rules: Rules, max_line: int) -> Batch:
    """The batch of a block without quotes: rows are cut at the separators, what is odd is judged one by one."""
    cells = scan(block.data, ord(separator))
    cells.plain[cells.ends - cells.starts > max_line] = False
    columns = Columns(cells, rules)
    if "props" not in names:
        _fill(columns, names)
    singly = Singly(rules)
    for row in np.flatnonzero(~columns.done).tolist():
        raw = cells.line(row)
        text = too_long(max_line) if len(raw) > max_line else _split(raw, separator)
        record = Record(block.line + row, block.offset + int(cells.starts[row]), raw, text)
        singly.add(record.line, record.offset, raw, partial(_named, record, names))
    done, table = columns.table()
    return singly.batch(len(cells.starts), table, done + block.line, int(columns.zoneless[done].sum()))


def _fill(columns: Columns, names: Sequence[str]) -> None:
    cells, mapping = columns.scan, columns.rules.mapping
    line_ends = cells.ends - (cells.octets[cells.ends - 1] == RETURN)
    rows = np.flatnonzero(cells.plain & (cells.mark_count == len(names) - 1) & (line_ends > cells.starts))
    first = cells.first_mark[rows]
    marks = [cells.marks[first + number] for number in range(len(names) - 1)]
    starts, ends = [cells.starts[rows], *(mark + 1 for mark in marks)], [*marks, line_ends[rows]]
    slices = {name: Slice(start, end, False) for name, start, end in zip(names, starts, ends, strict=True)}
    fields = {name: slices[path[0]] for name, path in mapping.paths.items() if path[0] in slices}
    taken = {path[0] for path in mapping.paths.values()}
    others = {name: cell for name, cell in slices.items() if name not in taken}
    columns.fill(rows, fields, partial(members, cells, others) if others else None)


def _named(record: Record, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(record.cells, str):
        raise Rejected(record.cells)
    if len(record.cells) != len(names):
        raise Rejected(f"expected {len(names)} columns, got {len(record.cells)}")
    named: dict[str, Any] = {name: cell or None for name, cell in zip(names, record.cells, strict=True)}
    if named.get("props") is not None:
        try:
            named["props"] = parse_json(named["props"].encode())
        except Rejected:
            raise Rejected("props: expected an object, got text") from None
    return named
