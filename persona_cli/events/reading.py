"""Inputs → batches of judged rows and rejects, in the order of the input, in flat memory.

Every line or record is read exactly once: `read` = rows + rejects of each batch. A blank line is a record and is
rejected as one. Lines count from 1; in a table of text the header is line 1 and is not a record, in Parquet the first
record is 1.

The fast reader takes what layouts (JSON lines) or separators (tables without quotes) and typed columns vouch for; all
else goes through `judge`, which alone rejects. The plain reader sends every record through `judge`: the same verdicts
and values, slowly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from persona_cli.events import jsonlines, parquet, tabular
from persona_cli.events.batch import Batch, Reject, rows_schema
from persona_cli.events.judge import Rules
from persona_cli.events.mapping import Mapping, Path, resolve
from persona_cli.events.opening import BLOCK_BYTES, Block, Damage, Format, Input, Lines
from persona_cli.events.schema import Kind
from persona_cli.workspace.settings import Settings

__all__ = ["Batch", "Reject", "Sniffed", "batches", "sniff"]

Reader = Literal["fast", "plain", "auto"]
# Keys in the first lines decide what aliases stand for; a key that first comes later goes to props.
HEAD_LINES = 1_000
SNIFF_BYTES = 1 << 20


@dataclass
class Sniffed:
    """What the head of an input shows: the mapping, the first accepted rows, and the rejects among its first lines."""

    mapping: Mapping
    format: Format
    rows: pa.Table
    rejects: list[Reject]


# A piece of the input, ready to be judged.
Work = Callable[[Rules], Batch]


def batches(
    source: Input,
    kind: Kind,
    flags: Sequence[str],
    settings: Settings,
    latest_us: int,
    *,
    reader: Reader = "auto",
    threads: int = 2,
    tell: Callable[[Mapping], None] | None = None,
) -> Iterator[Batch]:
    """Judged batches of one input, in its order; `flags` are those of --map, `latest_us` the latest time allowed.

    `tell` is called with the mapping, before the first batch.

    Raises BadData when the needed columns cannot be found or the input cannot be read at all.
    """
    mapping, works = _open(source, kind, flags, settings, fast=reader != "plain", block_bytes=BLOCK_BYTES)
    if tell is not None:
        tell(mapping)
    zone = settings.text("ingest.assume_tz")
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for work in works:
                waiting.append(pool.submit(work, Rules(mapping, latest_us, zone)))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def sniff(
    source: Input, kind: Kind, flags: Sequence[str], settings: Settings, latest_us: int, rows: int = 3
) -> Sniffed:
    """Look at the head of an input (which consumes standard input): for --dry-run. Raises what `batches` raises."""
    mapping, works = _open(source, kind, flags, settings, fast=False, block_bytes=SNIFF_BYTES)
    accepted: list[pa.Table] = []
    rejects: list[Reject] = []
    read = 0
    for work in works:
        batch = work(Rules(mapping, latest_us, settings.text("ingest.assume_tz")))
        accepted.append(batch.rows)
        rejects += batch.rejects
        read += batch.read
        if read >= HEAD_LINES or sum(table.num_rows for table in accepted) >= rows:
            break
    table = pa.concat_tables(accepted) if accepted else rows_schema(kind).empty_table()
    return Sniffed(mapping, source.format, table.slice(0, rows), rejects)


def _open(
    source: Input, kind: Kind, flags: Sequence[str], settings: Settings, *, fast: bool, block_bytes: int
) -> tuple[Mapping, Iterator[Work]]:
    if source.format == "parquet":
        file = parquet.open_file(source)
        mapping = resolve(kind, parquet.paths_of(file.schema_arrow), flags, nested=False)
        return mapping, _parquet_works(file, source, fast=fast)
    max_line = settings.whole("ingest.max_line_mb") << 20
    pieces = iter(Lines(source, max_line, settings.number("ingest.max_expansion"), block_bytes))
    if source.format == "jsonl":
        return _open_json(pieces, kind, flags, max_line, fast=fast)
    return _open_text(pieces, source, kind, flags, max_line, fast=fast)


def _open_json(
    pieces: Iterator[Block | Damage], kind: Kind, flags: Sequence[str], max_line: int, *, fast: bool
) -> tuple[Mapping, Iterator[Work]]:
    held: list[Block | Damage] = []
    seen: set[Path] = set()
    looked = 0
    for piece in pieces:
        held.append(piece)
        if isinstance(piece, Block):
            found, lines = jsonlines.present_paths(piece.data, HEAD_LINES - looked)
            seen |= found
            looked += lines
        if looked >= HEAD_LINES or len(held) == 2:
            break
    layouts = jsonlines.Layouts() if fast else None

    def works() -> Iterator[Work]:
        for piece in chain(held, pieces):
            if isinstance(piece, Damage):
                yield partial(_damaged, piece)
            else:
                yield partial(jsonlines.read_block, piece, max_line=max_line, layouts=layouts)

    return resolve(kind, seen, flags, nested=True), works()


def _open_text(
    pieces: Iterator[Block | Damage],
    source: Input,
    kind: Kind,
    flags: Sequence[str],
    max_line: int,
    *,
    fast: bool,
) -> tuple[Mapping, Iterator[Work]]:
    separator = "\t" if source.format == "tsv" else ","
    names, rest = tabular.header(pieces, source.name, separator, max_line)
    mapping = resolve(kind, {(name,) for name in names}, flags, nested=False)

    def works() -> Iterator[Work]:
        for piece in tabular.whole_rows(rest, separator, max_line):
            if isinstance(piece, Damage):
                yield partial(_damaged, piece)
            elif isinstance(piece, Block) and fast:
                yield partial(tabular.read_block, piece, names, separator, max_line=max_line)
            else:
                records = tabular.split(piece, separator, max_line) if isinstance(piece, Block) else piece
                yield partial(tabular.read_records, records, names, together=fast)

    return mapping, works()


def _parquet_works(file: pq.ParquetFile, source: Input, *, fast: bool) -> Iterator[Work]:
    line = 1
    for table in parquet.tables_of(file, source.name):
        yield partial(parquet.read_table, table, line, together=fast)
        line += table.num_rows


def _damaged(damage: Damage, rules: Rules) -> Batch:
    reject = Reject(damage.line, damage.offset, damage.reason, damage.raw)
    return Batch(rows_schema(rules.mapping.kind).empty_table(), [reject], 1, 0)
