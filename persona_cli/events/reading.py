"""Inputs → batches of judged rows and rejects, in the order of the input, in flat memory.

Every line or record is read exactly once: `read` = rows + rejects + dropped of each batch. A blank line is a record
and is rejected as one. Lines count from 1; in a table of text the header is line 1 and is not a record, in Parquet the
first record is 1.

The fast reader takes what layouts (JSON lines) or separators (tables without quotes) and typed columns vouch for; all
else goes through `judge`, which alone rejects. The plain reader sends every record through `judge`: the same verdicts
and values, slowly. Input that speaks a dialect (`translation`) is found out by its first records and read one by one,
but for rows of tables that a dialect only renames (`plain`).
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

from persona_cli.events import jsonlines, parquet, plain, tabular, translation
from persona_cli.events.batch import Batch, Reject, rows_schema
from persona_cli.events.dialects.dialect import NATIVE, Choice, Dialect
from persona_cli.events.judge import Rules
from persona_cli.events.opening import BLOCK_BYTES, Block, Damage, Format, Input, Lines
from persona_cli.events.schema import Kind, Mapping, Path, resolve
from persona_cli.events.translation import Translator
from persona_cli.workspace.settings import Settings

__all__ = ["NATIVE", "Batch", "Choice", "Reject", "Sniffed", "batches", "sniff"]

Reader = Literal["fast", "plain", "auto"]
# Keys in the first lines decide what aliases stand for; a key that first comes later goes to props.
HEAD_LINES = 1_000
SNIFF_BYTES = 1 << 20


@dataclass
class Sniffed:
    """What the head of an input shows: how it is read, the first accepted rows, the rejects among its first lines."""

    mapping: Mapping
    format: Format
    rows: pa.Table
    rejects: list[Reject]
    dialect: Dialect | None = None
    dropped: int = 0


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
    choice: Choice = NATIVE,
    tell: Callable[[Mapping, Dialect | None], None] | None = None,
) -> Iterator[Batch]:
    """Judged batches of one input, in its order; `flags` are those of --map, `latest_us` the latest time allowed.

    `choice` is of the dialects that it may be of. `tell` is called with the mapping and the dialect (None: native),
    before the first batch.

    Raises BadData when the needed columns cannot be found or the input cannot be read at all.
    """
    fast = reader != "plain"
    mapping, works, dialect = _open(source, kind, flags, settings, choice, fast=fast, block_bytes=BLOCK_BYTES)
    if tell is not None:
        tell(mapping, dialect)
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
    source: Input,
    kind: Kind,
    flags: Sequence[str],
    settings: Settings,
    latest_us: int,
    rows: int = 3,
    choice: Choice = NATIVE,
) -> Sniffed:
    """Look at the head of an input (which consumes standard input): for --dry-run. Raises what `batches` raises."""
    mapping, works, dialect = _open(source, kind, flags, settings, choice, fast=False, block_bytes=SNIFF_BYTES)
    accepted: list[pa.Table] = []
    rejects: list[Reject] = []
    read = dropped = 0
    for work in works:
        batch = work(Rules(mapping, latest_us, settings.text("ingest.assume_tz")))
        accepted.append(batch.rows)
        rejects += batch.rejects
        read += batch.read
        dropped += sum(batch.dropped.values())
        if read >= HEAD_LINES or sum(table.num_rows for table in accepted) >= rows:
            break
    table = pa.concat_tables(accepted) if accepted else rows_schema(kind).empty_table()
    return Sniffed(mapping, source.format, table.slice(0, rows), rejects, dialect, dropped)


def _open(
    source: Input,
    kind: Kind,
    flags: Sequence[str],
    settings: Settings,
    choice: Choice,
    *,
    fast: bool,
    block_bytes: int,
) -> tuple[Mapping, Iterator[Work], Dialect | None]:
    if source.format == "parquet":
        return _open_parquet(source, kind, flags, choice, fast=fast)
    max_line = settings.whole("ingest.max_line_mb") << 20
    pieces = iter(Lines(source, max_line, settings.number("ingest.max_expansion"), block_bytes))
    if choice.dialects:
        first = next(pieces, None)
        pieces = chain([] if first is None else [first], pieces)
        if (found := translation.of_lines(first, source.format, choice, max_line)) is not None:
            translator = Translator.of(found, flags)
            works = (
                partial(_damaged, piece)
                if isinstance(piece, Damage)
                else _translated_lines(piece, translator, max_line, fast=fast)
                for piece in pieces
            )
            return translator.mapping, works, found
    if source.format == "jsonl":
        return *_open_json(pieces, kind, flags, max_line, fast=fast), None
    return _open_text(pieces, source, kind, flags, max_line, choice, fast=fast)


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
    choice: Choice,
    *,
    fast: bool,
) -> tuple[Mapping, Iterator[Work], Dialect | None]:
    separator = "\t" if source.format == "tsv" else ","
    names, rest = tabular.header(pieces, source.name, separator, max_line)
    dialect = None
    if choice.dialects:
        first = next(rest, None)
        rest = chain([] if first is None else [first], rest)
        unique = translation.unique_names(names)
        dialect = translation.of_rows(first, unique, separator, choice, max_line)
    if dialect is not None:
        translator = Translator.of(dialect, flags)
        translated = (
            _translated_text(piece, unique, separator, translator, max_line, fast=fast)
            for piece in tabular.whole_rows(rest, separator, max_line)
        )
        return translator.mapping, translated, dialect
    tabular.no_name_twice(names, source.name)
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

    return mapping, works(), None


def _translated_lines(block: Block, translator: Translator, max_line: int, *, fast: bool) -> Work:
    if not translator.dialect.columns:
        return partial(translation.read_json, block, translator, max_line)
    names, separator = translator.dialect.columns, translation.separator_of(translator.dialect)
    if fast and (how := plain.renaming(translator, names)) is not None:
        return partial(plain.read_block, block, names, separator, translator, how, max_line)
    return partial(translation.read_headerless, block, translator, max_line)


def _translated_text(
    piece: Block | Damage | list[tabular.Record],
    names: Sequence[str],
    separator: str,
    translator: Translator,
    max_line: int,
    *,
    fast: bool,
) -> Work:
    if isinstance(piece, Damage):
        return partial(_damaged, piece)
    if isinstance(piece, Block):
        if fast and (how := plain.renaming(translator, names)) is not None:
            return partial(plain.read_block, piece, names, separator, translator, how, max_line)
        return partial(translation.read_block, piece, names, separator, translator, max_line)
    return partial(translation.read_rows, piece, names, translator)


def _open_parquet(
    source: Input, kind: Kind, flags: Sequence[str], choice: Choice, *, fast: bool
) -> tuple[Mapping, Iterator[Work], Dialect | None]:
    file = parquet.open_file(source)
    tables = parquet.tables_of(file, source.name)
    dialect = None
    if choice.dialects:
        first = next(tables, None)
        tables = chain([] if first is None else [first], tables)
        head = [] if first is None else first.slice(0, translation.LOOKED_AT).to_pylist()
        dialect = translation.of_records(choice, head)
    if dialect is not None:
        translator = Translator.of(dialect, flags)
        return translator.mapping, _numbered(tables, partial(_translated_table, translator)), dialect
    mapping = resolve(kind, parquet.paths_of(file.schema_arrow), flags, nested=False)
    return mapping, _numbered(tables, lambda table, line: partial(parquet.read_table, table, line, together=fast)), None


def _translated_table(translator: Translator, table: pa.Table, line: int) -> Work:
    return partial(translation.read_table, table, line, translator)


def _numbered(tables: Iterator[pa.Table], work: Callable[[pa.Table, int], Work]) -> Iterator[Work]:
    line = 1
    for table in tables:
        yield work(table, line)
        line += table.num_rows


def _damaged(damage: Damage, rules: Rules) -> Batch:
    reject = Reject(damage.line, damage.offset, damage.reason, damage.raw)
    return Batch(rows_schema(rules.mapping.kind).empty_table(), [reject], 1, 0)
