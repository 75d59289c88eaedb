"""Rows of tables that a dialect only renames, all at once: ratings, interactions.

Most rows of such a table are what `Dialect.records` makes of them if one only looks at the columns. Those are read in
columns, as native tables are; a row about which anything is odd goes to the dialect, which alone rejects. So what comes
out is the same as though every row had gone there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa

from persona_cli.events import tabular, translation
from persona_cli.events.batch import Batch, Singly
from persona_cli.events.columns import Columns, members, whole_seconds
from persona_cli.events.dialects.dialect import Plain, event_type
from persona_cli.events.judge import Rules
from persona_cli.events.opening import Block, too_long
from persona_cli.events.scan import scan
from persona_cli.events.schema import Mapping
from persona_cli.events.translation import Translated, Translator


def renaming(translator: Translator, names: Sequence[str]) -> tuple[Plain, Mapping] | None:
    """How a table with these columns is read all at once; None where its rows have to be read one by one."""
    dialect = translator.dialect
    if dialect.plain is None or translator.paths or translator.constants or "props" in names:
        return None
    plain = dialect.plain(names)
    if plain is None or not {*plain.seconds, *plain.needed} <= set(names):
        return None
    # Where a column is empty another place may be looked at: such a row is for the dialect.
    paths: dict[str, tuple[str, ...]] = {}
    constants: dict[str, str] = {}
    needed = list(plain.needed)
    for name, places in plain.sources.items():
        columns = [place for place in places if place in names]
        texts = [place[1:] for place in places if place.startswith("=")]
        if len(columns) > 1:
            return None  # row by row another one may count
        if columns:
            paths[name] = (columns[0],)
            needed += columns if texts else []
        elif texts:
            constants[name] = texts[0]
    return replace(plain, needed=tuple(needed)), Mapping(dialect.kind, paths, constants)


def read_block(
    block: Block,
    names: Sequence[str],
    separator: str,
    translator: Translator,
    how: tuple[Plain, Mapping],
    max_line: int,
    rules: Rules,
) -> Batch:
    """The batch of a block; `separator` is that of the file, names are of its header or of the dialect."""
    headerless = bool(translator.dialect.columns)
    data = block.data
    if headerless and (b'"' in data or not data.isascii() or (len(separator) > 1 and b"\t" in data)):
        return translation.read_headerless(block, translator, max_line, rules)
    mark = separator
    if len(separator) > 1:
        data, mark = data.replace(separator.encode(), b"\t"), "\t"
    plain, mapping = how
    cells = scan(data, ord(mark))
    cells.plain[cells.ends - cells.starts > max_line] = False
    columns = Columns(cells, Rules(mapping, rules.latest_us, rules.assume_tz))
    _fill(columns, names, plain)
    done, table = columns.table()
    found = Translated(translator, Singly(rules), whole_lines=headerless)
    odd = np.flatnonzero(~columns.done)
    if len(odd):
        lines = block.data.split(b"\n")[:-1]
        starts = np.cumsum([0, *(len(raw) + 1 for raw in lines)]) if data is not block.data else cells.starts
        for row in odd.tolist():
            raw, line, offset = lines[row], block.line + row, block.offset + int(starts[row])
            if headerless:
                found.add(line, offset, raw, partial(translation.cells_of, raw, translator.dialect, max_line))
            else:
                text = too_long(max_line) if len(raw) > max_line else tabular.cells_of(raw, separator)
                found.add(line, offset, raw, partial(translation.named, text, names))
    if plain.worded:
        table = _with_words(table)
    return found.batch(table, done + block.line)


def _fill(columns: Columns, names: Sequence[str], plain: Plain) -> None:
    rows, cells = tabular.cut(columns.scan, len(names))
    slices = dict(zip(names, cells, strict=True))
    allowed = np.ones(len(rows), bool)
    for name in plain.seconds:
        allowed &= whole_seconds(columns.scan, slices[name])
    for name in plain.needed:
        allowed &= slices[name].end > slices[name].start
    for name in plain.empty:
        if name in slices:
            allowed &= slices[name].end == slices[name].start
    paths = columns.rules.mapping.paths
    taken = {path[0] for path in paths.values()}
    others = {name: cell for name, cell in slices.items() if name not in taken}
    props = partial(members, columns.scan, others) if others else None
    columns.fill(rows, {name: slices[path[0]] for name, path in paths.items()}, props, allowed)


def _with_words(table: pa.Table) -> pa.Table:
    encoded = table["event_type"].combine_chunks().dictionary_encode()
    words = pa.array([_word(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("event_type"), "event_type", words.take(encoded.indices))


@lru_cache(4_096)
def _word(text: str) -> str:
    return str(event_type(text))
