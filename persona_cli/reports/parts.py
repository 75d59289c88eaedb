"""A text report as parts, each some sentences and a table: for plain text, for terminals, and as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from persona_cli.reports import pages
from persona_cli.reports.pages import Html, Section

WIDTH = 100
_GAP = 2


@dataclass(frozen=True)
class Part:
    """Paragraphs, then a table, then paragraphs; each may be absent. Cells are text, ready to be read."""

    prose: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """A row of one cell heads the rows that follow it."""
    after: Sequence[str] = ()


def as_lines(parts: Sequence[Part], width: int = WIDTH) -> list[str]:
    """Plain lines, at most `width` wide as long as words and cells are short; an empty line between parts.

    A table that is too wide is broken into blocks of columns, each with the first column again.
    """
    lines: list[str] = []
    for part in parts:
        block = [line for text in part.prose for line in wrapped(text, width)]
        for columns, rows in _blocks(part, width):
            block += [*([""] if block else []), *aligned([columns, *rows])]
        block += [line for text in part.after for line in wrapped(text, width)]
        lines += [*([""] if lines and block else []), *block]
    return lines


def as_renderables(parts: Sequence[Part], safe: Callable[[str], str], width: int = WIDTH) -> list[Any]:
    """What a rich console prints, in order: text and tables. `safe` makes a text harmless for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found: list[Any] = []
    for part in parts:
        if found:
            found.append(Text(""))
        found += [Text(safe(text)) for text in part.prose]
        for columns, rows in _blocks(part, width):
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for c, column in enumerate(columns):
                table.add_column(Text(safe(column)), justify="right" if c else "left", no_wrap=True)
            for row in rows:
                if len(row) == 1:
                    table.add_section()
                table.add_row(*(Text(safe(cell), style="dim" if len(row) == 1 else "") for cell in row))
            found.append(table)
        found += [Text(safe(text)) for text in part.after]
    return found


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """A sentence in lines of at most `width`."""
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: the first to the left, the others to the right. A row of one cell widens no column."""
    widths = _widths(rows)
    return [
        (" " * _GAP)
        .join(
            text.rjust(width) if c else text.ljust(width)
            for c, (text, width) in enumerate(zip(row, widths, strict=False))
        )
        .rstrip()
        for row in rows
    ]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    whole = [row for row in rows if len(row) == len(rows[0])]
    return [max(len(row[c]) for row in whole) for c in range(len(rows[0]))]


def _blocks(part: Part, width: int) -> list[tuple[list[str], list[list[str]]]]:
    """The table in blocks of columns that fit: columns and rows of each."""
    if not part.columns:
        return []
    widths = _widths([part.columns, *part.rows])
    blocks: list[list[int]] = []
    used = 0
    for c in range(1, len(widths)):
        if not blocks or used + _GAP + widths[c] > width:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(c)
        used += _GAP + widths[c]
    return [
        (
            [part.columns[c] for c in chosen],
            [[row[c] for c in chosen] if len(row) > 1 else list(row) for row in part.rows],
        )
        for chosen in blocks or [[0]]
    ]


def html(heading: str, parts: Sequence[tuple[str, Part]], foot: str = "") -> str:
    """One section a part, under the heading that stands before it."""
    return pages.page(heading, [], [Section(title, _body(part)) for title, part in parts], foot)


def _body(part: Part) -> list[Html]:
    rows = [[cell.strip() for cell in row] for row in part.rows]
    return [
        *(pages.paragraph(text) for text in part.prose),
        pages.table(list(part.columns), rows),
        *(pages.paragraph(text) for text in part.after),
    ]
