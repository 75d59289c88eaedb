"""A file of lists or of pairs, opened: which format it is, told by what is in it, and blocks of its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import polars as pl

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.events.opening import Block, Damage, Input, Lines

_MAX_LINE, _MAX_EXPANSION = 64 << 20, 200.0


@dataclass(frozen=True)
class Source:
    """A source whose format is known, its text not yet read but for the first block."""

    name: str
    format: str
    header: tuple[str, ...]
    """Names of the columns of a table, as they are written."""
    blocks: Iterable[Block]
    path: Path | None

    @property
    def place(self) -> str:
        """What `row` counts, in words."""
        return "row" if self.format in ("csv", "tsv", "parquet") else "line"

    def wrong(self, row: int, words: str, hint: str | None = None) -> NoReturn:
        """Raise BadData naming the file and the line or row."""
        raise BadData(f"{self.name}, {self.place} {row}: {words}", hint)


def open_source(source: str) -> Source:
    """`source`, a file or `-`, with its format: persona, personalize, jsonl, csv, tsv or parquet.

    MissingInput where there is no such file; BadData where it is empty, damaged or of no such format.
    """
    name, path = ("standard input", None) if source == "-" else (source, Path(source))
    if path is not None:
        if not path.exists():
            raise MissingInput(f"{source}: no such file")
        if path.is_dir():
            raise UsageError(f"{source} is a folder; expected a file of lists, or - for standard input")
        with path.open("rb") as stream:
            if stream.read(4) == b"PAR1":
                return Source(name, "parquet", tuple(read_parquet(path, pl.read_parquet_schema)), (), path)
    blocks = _blocks(name, Lines(Input(name, path, "jsonl"), _MAX_LINE, _MAX_EXPANSION))
    begin = next(blocks, None)
    if begin is None or not begin.data.strip():
        raise BadData(f"{name} is empty; expected lists: JSON lines, CSV, TSV or Parquet")
    blocks = chain([begin], blocks)
    first = begin.data.lstrip().split(b"\n", 1)[0].strip()
    if first.startswith(b"PAR1"):
        raise BadData(f"{name}: Parquet can be read from a file only, and it is compressed in itself")
    if first.startswith(b"["):
        raise BadData(
            f"{name} is one JSON array; expected a JSON object a line", "jq -c '.[]' turns one into the other"
        )
    if first.startswith(b"{"):
        keys = tuple(_object(name, begin, first))
        format = "personalize" if "input" in keys else "persona" if "items" in keys else "jsonl"
        return Source(name, format, keys, blocks, path)
    try:
        text = first.decode()
    except UnicodeDecodeError as error:
        raise BadData(f"{name}, line 1: not UTF-8 text; expected JSON lines, CSV, TSV or Parquet") from error
    separator = "\t" if "\t" in text else ","
    header = tuple(cell.strip().strip('"') for cell in text.split(separator))
    return Source(name, "tsv" if separator == "\t" else "csv", header, blocks, path)


def _blocks(name: str, lines: Lines) -> Iterator[Block]:
    for piece in lines:
        if isinstance(piece, Damage):
            raise BadData(f"{name}, line {piece.line}: {piece.reason}")
        yield piece


def _object(name: str, begin: Block, first: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(first, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        line = 1 + begin.data[: begin.data.find(first)].count(b"\n")
        raise BadData(f"{name}, line {line}: not a JSON object ({error})") from error
    return found


def read_parquet(path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of a Parquet file; BadData where it cannot."""
    try:
        return read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadData(f"{path}: not a Parquet file that can be read ({error})") from error


def numbered(block: Block) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each line that is not blank."""
    lines = enumerate(block.data.split(b"\n"), start=block.line)
    return ((row, line) for row, line in lines if line.strip())
