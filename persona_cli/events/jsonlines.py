"""JSON lines → batches: what layouts describe and columns vouch for at once, the rest of the lines one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from persona_cli.events.batch import Batch, Singly
from persona_cli.events.columns import Columns, joined, numbers_in
from persona_cli.events.judge import Rejected, Rules, parse_json
from persona_cli.events.layouts import Layout, Slice, layout_of
from persona_cli.events.opening import Block, too_long
from persona_cli.events.scan import QUOTE, Mask, Positions, Scan, line_starts, scan
from persona_cli.events.schema import Path

# A layout costs about as much as judging this many lines; fewer lines alike are judged one by one.
WORTHWHILE = 20
MOST_LAYOUTS = 10_000  # remembered


@dataclass
class Layouts:
    """The layouts of one input, shared by its blocks: later blocks repeat those of earlier ones."""

    common: dict[int, Layout] = field(default_factory=dict)  # by number of quotes
    known: dict[int, Layout] = field(default_factory=dict)  # by signature


@dataclass(frozen=True)
class Match:
    """Lines that fit a layout, and where their values lie."""

    rows: Positions
    fields: dict[str, Slice]
    parts: list[bytes | Slice]  # of props

    @property
    def kind(self) -> frozenset[str]:
        """The fields that are bare numbers: matches of one kind can be read together."""
        return frozenset(name for name, slice_ in self.fields.items() if slice_.bare)


def read_block(block: Block, rules: Rules, max_line: int, layouts: Layouts | None) -> Batch:
    """The batch of one block; without `layouts` every line is judged by itself."""
    singly = Singly(rules)
    columns = None
    if layouts is None:
        starts = line_starts(block.data)
        left = np.arange(len(starts) - 1)
    else:
        text = unescaped(block.data)
        lines = scan(text, QUOTE)
        starts = np.append(lines.starts, len(text)) if text is block.data else line_starts(block.data)
        lines.plain[np.diff(starts) > max_line + 1] = False  # the limit holds for lines as they come
        columns = Columns(lines, rules)
        fill(columns, layouts)
        left = np.flatnonzero(~columns.done)
    for row in left.tolist():
        begin, end = int(starts[row]), int(starts[row + 1])
        raw = block.data[begin : end - 1]
        singly.add(block.line + row, block.offset + begin, raw, partial(_record, raw, max_line))
    if columns is None:
        return singly.batch(len(left))
    rows, table = columns.table()
    return singly.batch(len(columns.done), table, rows + block.line, int(columns.zoneless[rows].sum()))


def fill(columns: Columns, layouts: Layouts) -> None:
    """Find the layouts of the plain lines and take what they describe."""
    lines = columns.scan
    plain = np.flatnonzero(lines.plain & (lines.mark_count > 0) & (lines.mark_count % 2 == 0))
    matches: list[Match] = []
    left = _match_common(columns, layouts, plain, matches)
    if len(left) >= WORTHWHILE:
        found, index, counts = np.unique(signatures(lines, left), return_inverse=True, return_counts=True)
        groups = np.split(left[np.argsort(index, kind="stable")], np.cumsum(counts)[:-1])
        for number in np.argsort(-counts, kind="stable").tolist():
            if counts[number] < WORTHWHILE:
                break
            _match_group(columns, layouts, int(found[number]), groups[number], matches)
    alike: dict[frozenset[str], list[Match]] = {}
    for match in matches:
        if len(match.rows):
            alike.setdefault(match.kind, []).append(match)
    for group in alike.values():
        take(columns, group)


def _match_common(columns: Columns, layouts: Layouts, rows: Positions, matches: list[Match]) -> Positions:
    """Try the commonest layout for each number of quotes; returns the rows that it does not fit."""
    counts = columns.scan.mark_count[rows]
    left = rows
    for quotes in np.flatnonzero(np.bincount(counts) >= WORTHWHILE).tolist():
        if (layout := layouts.common.get(quotes)) is not None:
            match = _match(columns, layout, rows[counts == quotes])
            matches.append(match)
            left = np.setdiff1d(left, match.rows, assume_unique=True)
    return left


def _match_group(columns: Columns, layouts: Layouts, signature: int, rows: Positions, matches: list[Match]) -> None:
    """Lines of one signature: one layout as a rule; more where constants differ or the model line is a bad one."""
    for attempt in range(4):
        if len(rows) < WORTHWHILE:
            return
        layout = layouts.known.get(signature) if not attempt else None
        if layout is None:
            layout = layout_of(columns.scan.line(int(rows[0])), columns.rules.tree)
        if layout is None:
            rows = rows[1:]
            continue
        layouts.common.setdefault(layout.quotes, layout)
        if len(layouts.known) < MOST_LAYOUTS:
            layouts.known.setdefault(signature, layout)
        match = _match(columns, layout, rows)
        matches.append(match)
        rows = np.setdiff1d(rows, match.rows, assume_unique=True)


def _match(columns: Columns, layout: Layout, rows: Positions) -> Match:
    fitting, slices = layout.fit(columns.scan, rows)
    fields = {name: slices[number] for name, number in layout.fields.items()}
    return Match(fitting, fields, [part if isinstance(part, bytes) else slices[part] for part in layout.props])


def take(columns: Columns, group: list[Match]) -> None:
    """Read matches of one kind together: what costs is the number of steps, not of lines."""
    lines = columns.scan
    if len(group) == 1:
        (only,) = group
        allowed = numbers_in(lines, only.parts, len(only.rows))
        columns.fill(only.rows, only.fields, partial(joined, lines, only.parts) if only.parts else None, allowed)
        return
    rows = np.concatenate([match.rows for match in group])
    order = np.argsort(rows, kind="stable")
    # A field that a layout does not have is an empty text at the start of the line.
    begins = [lines.starts[match.rows] for match in group]
    fields = {}
    for name in dict.fromkeys(name for match in group for name in match.fields):
        slices = [
            match.fields.get(name, Slice(begin, begin, False)) for match, begin in zip(group, begins, strict=True)
        ]
        start, end = (np.concatenate([slice_[bound] for slice_ in slices])[order] for bound in (0, 1))
        fields[name] = Slice(start, end, name in group[0].kind)
    allowed = np.concatenate([numbers_in(lines, match.parts, len(match.rows)) for match in group])[order]

    def props(kept: Mask) -> pa.Array:
        unsorted = np.empty_like(kept)
        unsorted[order] = kept
        masks = np.split(unsorted, np.cumsum([len(match.rows) for match in group])[:-1])
        made = [joined(lines, match.parts, mask) for match, mask in zip(group, masks, strict=True)]
        return pa.concat_arrays(made).take(pa.array(np.argsort(rows[unsorted], kind="stable")))

    columns.fill(rows[order], fields, props if any(match.parts for match in group) else None, allowed)


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


_UNICODE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+")


def unescaped(block: bytes) -> bytes:
    """The same lines, one for one, with those escapes undone."""
    if b"\\" not in block:
        return block
    # An escaped backslash must not lend its second half to what follows. The byte put there makes its line not plain.
    block = block.replace(b"\\\\", b"\\\x01").replace(b"\\/", b"/")
    return _UNICODE.sub(_characters, block) if b"\\u" in block else block


def _characters(match: re.Match[bytes]) -> bytes:
    units = match[0].decode("unicode_escape")
    try:
        text = units.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return match[0]
    return match[0] if min(text) < "\x80" else text.encode()


Words = npt.NDArray[np.uint64]

# Bytes of a key that count, by its length.
_FIRST_BYTES = np.array([(1 << 8 * length) - 1 for length in range(9)], np.uint64)
# How a value begins; all numbers are one kind.
_KINDS = np.arange(256, dtype=np.uint64)
_KINDS[[*b"-0123456789"]] = ord("0")
_COLON, _SPACE = b": "
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


def signatures(scan: Scan, rows: Positions) -> Words:
    """(rows,) signatures of plain lines, each with an even number of quotes, at least two."""
    counts = scan.mark_count[rows]
    begins = np.concatenate(([0], np.cumsum(counts)[:-1]))
    quotes = scan.marks[np.repeat(scan.first_mark[rows] - begins, counts) + np.arange(counts.sum())]
    opening, closing = quotes[0::2], quotes[1::2]
    length = np.minimum(closing - opening - 1, 8)
    behind = scan.octets[closing + 1]
    value = np.where(scan.octets[closing + 2] == _SPACE, scan.octets[closing + 3], scan.octets[closing + 2])
    key = (scan.words[opening + 1] & _FIRST_BYTES[length]) * _MIXERS[0] + _KINDS[value] * _MIXERS[1]
    mixed = np.where(behind == _COLON, key + length.astype(np.uint64), _KINDS[behind] * _MIXERS[2])
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIXERS[3]
    place = np.arange(len(opening)) - np.repeat(begins // 2, counts // 2)
    # A different odd factor for each place, so that the order counts.
    mixed = (mixed ^ (mixed >> np.uint64(32))) * (_MIXERS[0] + np.uint64(2) * place.astype(np.uint64))
    return np.add.reduceat(mixed, begins // 2)
