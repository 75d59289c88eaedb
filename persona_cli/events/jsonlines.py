"""JSON lines → batches: what layouts describe and columns vouch for at once, the rest of the lines one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from persona_cli.events.batch import Batch, Singly
from persona_cli.events.columns import Columns, joined
from persona_cli.events.judge import Rejected, Rules, parse_json
from persona_cli.events.layouts import Layout, Slice, layout_of
from persona_cli.events.mapping import Path
from persona_cli.events.opening import Block, too_long
from persona_cli.events.scan import QUOTE, Positions, scan

# A layout costs about as much as judging this many lines; fewer lines alike are judged one by one.
WORTHWHILE = 100
# Attempts at layouts that turned out not worthwhile, per block, before the rest of it is judged one by one.
PATIENCE = 20
MOST_LAYOUTS = 32  # kept for each number of quotes

Layouts = dict[int, list[Layout]]


def new_layouts() -> Layouts:
    """An empty collection, for all blocks of one input: later blocks repeat the layouts of earlier ones."""
    return defaultdict(list)


def read_block(block: Block, rules: Rules, max_line: int, layouts: Layouts | None) -> Batch:
    """The batch of one block; without `layouts` every line is judged by itself."""
    lines = scan(block.data, QUOTE, max_line)
    singly = Singly(rules)
    left = np.arange(len(lines.starts))
    columns = Columns(lines, rules)
    if layouts is not None:
        fill(columns, layouts)
        left = np.flatnonzero(~columns.done)
    for row in left.tolist():
        raw = lines.line(row)
        singly.add(block.line + row, block.offset + int(lines.starts[row]), raw, partial(_record, raw, max_line))
    if layouts is None:
        return singly.batch(len(lines.starts))
    rows, table = columns.table()
    return singly.batch(len(lines.starts), table, rows + block.line, int(columns.zoneless[rows].sum()))


def fill(columns: Columns, layouts: Layouts) -> None:
    """Find the layouts of the plain lines and take what they describe."""
    lines = columns.scan
    plain = np.flatnonzero(lines.plain & (lines.mark_count > 0))
    counts = lines.mark_count[plain]
    patience = PATIENCE
    tallies = np.bincount(counts)
    for quotes in np.argsort(-tallies, kind="stable").tolist():
        if tallies[quotes] < WORTHWHILE:
            break
        rows = plain[counts == quotes]
        for known in list(layouts[quotes]):
            rows = _take(columns, known, rows)
        while len(rows) >= WORTHWHILE and patience:
            layout = layout_of(lines.line(int(rows[0])), columns.rules.tree)
            before = len(rows)
            rows = rows[1:] if layout is None else _take(columns, layout, rows)
            if layout is None or before - len(rows) < WORTHWHILE:
                patience -= 1
            elif len(layouts[quotes]) < MOST_LAYOUTS:
                layouts[quotes].append(layout)


def _take(columns: Columns, layout: Layout, rows: Positions) -> Positions:
    """Fill what fits; returns the rows that don't."""
    if len(rows) < WORTHWHILE:
        return rows
    fitting, slices = layout.fit(columns.scan, rows)
    if len(fitting):
        fields = {name: slices[number] for name, number in layout.fields.items()}
        parts = [part if isinstance(part, bytes) else slices[part] for part in layout.props]
        bare = [part for part in parts if isinstance(part, Slice) and part.bare]
        columns.fill(fitting, fields, partial(joined, columns.scan, parts) if parts else None, bare)
    return np.setdiff1d(rows, fitting, assume_unique=True)


def _record(raw: bytes, max_line: int) -> dict[str, Any]:
    if len(raw) > max_line:
        raise Rejected(too_long(max_line))
    return parse_json(raw)


def present_paths(block: bytes, most: int) -> tuple[set[Path], int]:
    """Paths that are not null in the first `most` lines, and the number of lines looked at."""
    found: set[Path] = set()
    lines = block.split(b"\n", most)[:most]
    for line in lines:
        try:
            found.update(_paths(parse_json(line), ()))
        except Rejected:
            continue
    return found, len(lines)


def _paths(record: dict[str, Any], above: Path) -> Iterator[Path]:
    for key, value in record.items():
        if value is not None:
            yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))
