"""Markdown that says what was meant: text of data and settings is escaped, so a name cannot be a table or a link."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from persona_cli.reports.words import visible

# What Markdown obeys within a line; an underscore only beside a word, since one inside a word is harmless.
_MARKS = re.compile(r"[\\`*<\[|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
# What would begin a list, a heading, a quotation or an underline.
_FIRST = re.compile(r"(?:\d{1,9}(?=[.)])|(?=[-+=#>]))")


class Written(str):
    """Text that is Markdown already."""

    __slots__ = ()


def text(value: Any) -> str:
    """A value as inline Markdown: one line, with nothing in it that Markdown or HTML would obey."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(one) for one in value) or "–"
    line = " ".join(visible(re.sub(r"[\n\r\t]", " ", str(value))).split())
    line = _MARKS.sub(lambda found: f"\\{found.group()}", line)
    first = _FIRST.match(line)
    return line if first is None else f"{first.group()}\\{line[first.end() :]}"


def code(value: Any) -> Written:
    """A name as code, where it can be."""
    written = str(value)
    plain = written.isprintable() and written.strip() == written and not set(written) & set("`|\\")
    return Written(f"`{written}`" if written and plain else text(value))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table with a blank line behind it; nothing where there are no rows. `Written` cells stand as they are."""
    lines = [f"| {' | '.join(cell if isinstance(cell, Written) else text(cell) for cell in row)} |" for row in rows]
    if not lines:
        return []
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""]


def bullets(items: Iterable[Any]) -> list[str]:
    lines = [f"- {item if isinstance(item, Written) else text(item)}" for item in items]
    return [*lines, ""] if lines else []


def heading(level: int, title: Any) -> list[str]:
    return [f"{'#' * level} {title if isinstance(title, Written) else text(title)}", ""]


def paragraph(*sentences: Any) -> list[str]:
    return [" ".join(text(one) for one in sentences), ""]


def share(value: float | None) -> str:
    """`12.3 %`; what is not nothing never reads as nothing."""
    if value is None:
        return "–"
    if 0 < value < 0.0005:
        return "under 0.1 %"
    return f"{100 * value:.1f} %"
