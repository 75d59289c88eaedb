"""A text report as a page: the same sentences and tables, for a browser or an attachment."""

from __future__ import annotations

from collections.abc import Sequence

from persona_cli.reports import pages
from persona_cli.reports.pages import Html, Section
from persona_cli.reports.parts import Part


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
