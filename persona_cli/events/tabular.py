"""CSV and TSV → batches.

Tables follow RFC 4180: a header row; fields in quotes may hold separators, quotes (doubled) and line ends; an
empty cell is null. A row with more or fewer cells than the header is rejected. A quoted field that is never closed
costs its first line, not the rest of the file. A column named `props` holds JSON objects.

Blocks without any quote are cut at their separators all at once; others go through Python's csv module first.
"""

from __future__ import annotations

import csv
import re
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
from persona_cli.events.scan import RETURN, Positions, Scan, scan

_OPEN = "quoted field is not closed"
_EXPECTED = "expected a header row with a name for each column"
CUT = "\x1f"
# What would be taken for the end of a row, or is not a JSON text as it stands.
_NOT_SIMPLE = re.compile('[\n\r"]')


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
    first = next(pieces, None)
    if not isinstance(first, Block):
        raise BadData(f"{source}: {first.reason if first else 'the file is empty'}; {_EXPECTED}")
    row = next(records_of(first, separator, max_line, last=False))
    if isinstance(row, Block) or isinstance(row.cells, str):
        raise BadData(f"{source}: {_OPEN if isinstance(row, Block) else row.cells}; {_EXPECTED}")
    names = tuple(name.strip() for name in row.cells)
    used = len(row.raw) + 1
    rest = Block(first.data[used:], first.line + row.raw.count(b"\n") + 1, first.offset + used)
    return names, chain([rest] if rest.data else [], pieces)


def no_name_twice(names: Sequence[str], source: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadData(f"{source}: the header row names {twice[0]!r} twice; {_EXPECTED}")


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
    for cells, used in _undisputed(block.data, lines, separator, max_line):
        raw = lines[at] if used == 1 else b"\n".join(lines[at : at + used])
        yield Record(block.line + at, offset, raw, cells)
        offset += len(raw) + 1
        at += used
    while at < len(lines):
        raw, used = lines[at], 1
        found: list[str] | str
        if b'"' not in raw:
            found = cells_of(raw, separator)
        else:
            found, used = _quoted(lines, at, separator, max_line)
            raw = b"\n".join(lines[at : at + used])
            if found == _OPEN and at + used == len(lines) and not last and len(raw) <= max_line:
                yield Block(raw + b"\n", block.line + at, offset)
                return
            if isinstance(found, str):
                raw, used = lines[at], 1
        if len(raw) > max_line:
            found = too_long(max_line)
        yield Record(block.line + at, offset, raw, found)
        offset += len(raw) + 1
        at += used


def _undisputed(block: bytes, lines: Sequence[bytes], separator: str, max_line: int) -> Iterator[tuple[list[str], int]]:
    """The cells and number of lines of the rows before the first that has something wrong with it."""
    try:
        texts = [line + "\n" for line in block.decode().split("\n")[:-1]]
    except UnicodeDecodeError:
        return
    reader = csv.reader(texts, delimiter=separator, strict=True)
    at = 0
    while at < len(lines):
        try:
            cells = next(reader)
        except (csv.Error, StopIteration):
            return
        used = reader.line_num - at
        if not cells or (len(cells) == 1 and not cells[0].strip(ASCII_BLANK)):
            return
        if sum(map(len, lines[at : at + used])) + used > max_line:
            return
        yield cells, used
        at += used


def cells_of(raw: bytes, separator: str) -> list[str] | str:
    """The cells of a row without quotes, or a reason."""
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


def read_records(records: Sequence[Record], names: Sequence[str], rules: Rules, *, together: bool = True) -> Batch:
    """The batch of rows that were taken apart; unless `together`, each is judged by itself."""
    singly = Singly(rules)
    if not together or not records or "props" in names:
        _judge(records, names, singly)
        return singly.batch(len(records))
    # Cells are put together again with a separator that no cell holds: a block that can be cut all at once.
    rows = [CUT.join(record.cells) if isinstance(record.cells, list) else "" for record in records]
    simple = np.array([not _NOT_SIMPLE.search(row) for row in rows], bool)
    block = "\n".join(row if is_simple else "" for row, is_simple in zip(rows, simple.tolist(), strict=True)) + "\n"
    columns = Columns(scan(block.encode(), ord(CUT)), rules)
    _fill(columns, names)
    _judge([records[place] for place in np.flatnonzero(~columns.done).tolist()], names, singly)
    done, table = columns.table()
    lines = np.array([record.line for record in records], np.int64)[done]
    return singly.batch(len(records), table, lines, int(columns.zoneless[done].sum()))


def _judge(records: Sequence[Record], names: Sequence[str], singly: Singly) -> None:
    for record in records:
        singly.add(record.line, record.offset, record.raw, partial(_named, record, names))


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
        text = too_long(max_line) if len(raw) > max_line else cells_of(raw, separator)
        record = Record(block.line + row, block.offset + int(cells.starts[row]), raw, text)
        _judge([record], names, singly)
    done, table = columns.table()
    return singly.batch(len(cells.starts), table, done + block.line, int(columns.zoneless[done].sum()))


def _fill(columns: Columns, names: Sequence[str]) -> None:
    rows, cells = cut(columns.scan, len(names))
    slices = dict(zip(names, cells, strict=True))
    paths = columns.rules.mapping.paths
    fields = {name: slices[path[0]] for name, path in paths.items() if path[0] in slices}
    taken = {path[0] for path in paths.values()}
    others = {name: cell for name, cell in slices.items() if name not in taken}
    columns.fill(rows, fields, partial(members, columns.scan, others) if others else None)


def cut(lines: Scan, width: int) -> tuple[Positions, list[Slice]]:
    """The plain lines with `width` cells, and the slices of these."""
    line_ends = lines.ends - (lines.octets[lines.ends - 1] == RETURN)
    rows = np.flatnonzero(lines.plain & (lines.mark_count == width - 1) & (line_ends > lines.starts))
    first = lines.first_mark[rows]
    marks = [lines.marks[number:][first] for number in range(width - 1)] if len(rows) else [first] * (width - 1)
    starts, ends = [lines.starts[rows], *(mark + 1 for mark in marks)], [*marks, line_ends[rows]]
    return rows, [Slice(start, end, False) for start, end in zip(starts, ends, strict=True)]


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
