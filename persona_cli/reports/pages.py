"""Self-contained HTML pages: a skeleton, sections, tables and figures; no script, no font, nothing from elsewhere.

Text is escaped unless it is `Html`, which only the functions here make; so an id or a title cannot become markup, and
control and direction characters in it are written out. The page forbids itself scripts and connections (Content
Security Policy), follows the reader's colour scheme, fits a phone and prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from persona_cli.reports.words import visible


class Html(str):
    """Markup that is fit for a page. Everything else that is a str is text."""


class Section(NamedTuple):
    """One section: its heading, which also names its anchor, and what is in it; left out where there is nothing."""

    heading: str
    body: Sequence[Html]


def page(heading: str, top: Sequence[Html], sections: Iterable[Section], foot: str = "") -> str:
    """The whole document; `top` stands before the list of sections."""
    filled = [(section, "".join(section.body)) for section in sections]
    filled = [(section, body) for section, body in filled if body]
    anchors = "".join(f'<li><a href="#{_anchor(one.heading)}">{escaped(one.heading)}</a></li>' for one, _ in filled)
    contents = f"<nav><ul>{anchors}</ul></nav>" if len(filled) > 1 else ""
    main = "\n".join(
        f'<section id="{_anchor(one.heading)}"><h2>{escaped(one.heading)}</h2>{body}</section>' for one, body in filled
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped(heading)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escaped(heading)}</h1>{''.join(top)}</header>\n{contents}\n<main>\n{main}\n</main>\n"
        f"<footer>{escaped(foot)}</footer>\n</body>\n</html>\n"
    )


def escaped(text: object) -> Html:
    """Text as it can stand in an element or an attribute."""
    return text if isinstance(text, Html) else Html(escape(visible(str(text)), quote=True))


def paragraph(text: object, kind: str = "") -> Html:
    """kind: "" or "lead" (what matters), "alarm" (what must not be overlooked), "note" (small print)."""
    return Html(f"<p{_class(kind)}>{escaped(text)}</p>")


def joined(*pieces: object) -> Html:
    """Pieces of text and markup, one after another."""
    return Html("".join(escaped(piece) for piece in pieces))


def number(value: float | None, shown: str) -> Html:
    """A figure as people read it, with the exact one for machines."""
    return escaped(shown) if value is None else Html(f'<data value="{value!r}">{escaped(shown)}</data>')


def small(text: object) -> Html:
    """What belongs to a figure, under it."""
    return Html(f"<small>{escaped(text)}</small>")


def listing(items: Iterable[object]) -> Html:
    rows = "".join(f"<li>{escaped(item)}</li>" for item in items)
    return Html(f"<ul>{rows}</ul>" if rows else "")


def definitions(items: Iterable[tuple[object, object]]) -> Html:
    """Terms and what they mean."""
    rows = "".join(f"<dt>{escaped(term)}</dt><dd>{escaped(meaning)}</dd>" for term, meaning in items)
    return Html(f"<dl>{rows}</dl>" if rows else "")


def table(columns: Sequence[object], rows: Sequence[Sequence[object]], caption: str = "", words: int = 1) -> Html:
    """A table whose first `words` columns are text and whose others are figures, set to the right.

    A row of one cell heads the rows that follow it. Wider than the screen, it can be moved sideways by itself.
    """
    if not rows:
        return Html("")
    head = "".join(f'<th scope="col"{_text(c, words)}>{escaped(column)}</th>' for c, column in enumerate(columns))
    body = []
    for row in rows:
        if len(row) == 1:
            cells = f'<th scope="rowgroup" class="text" colspan="{len(columns)}">{escaped(row[0])}</th>'
            body.append(f'<tr class="group">{cells}</tr>')
            continue
        first = f'<th scope="row" class="text">{escaped(row[0])}</th>'
        others = "".join(f"<td{_text(c, words)}>{escaped(cell)}</td>" for c, cell in enumerate(row[1:], 1))
        body.append(f"<tr>{first}{others}</tr>")
    titled = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="wide" tabindex="0"><table>{titled}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def figure(svg: str, caption: object = "") -> Html:
    """A chart of `charts` with what it shows; nothing where the chart is empty."""
    return Html(f"<figure>{svg}<figcaption>{escaped(caption)}</figcaption></figure>" if svg else "")


def side_by_side(figures: Iterable[Html]) -> Html:
    """Figures beside each other where there is room."""
    filled = "".join(figures)
    return Html(f'<div class="figures">{filled}</div>' if filled else "")


def details(summary: object, body: Iterable[Html]) -> Html:
    """What only some want to read, folded; nothing where there is nothing."""
    inside = "".join(body)
    return Html(f"<details><summary>{escaped(summary)}</summary>{inside}</details>" if inside else "")


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _text(column: int, words: int) -> str:
    return ' class="text"' if column < words else ""


_STYLE = """
:root{--ink:#1a1a1a;--soft:#5c5c5c;--line:#d9d9d9;--paper:#fff;--card:#f5f7f9;--link:#005a8c;--alarm:#a33b00}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--soft:#a8a8a8;--line:#3d3d3d;--paper:#161616;--card:#212427;
--link:#7cc4ee;--alarm:#ff9d5c}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem 1rem 3rem;max-width:62rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;margin:.5rem 0}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-top:.4rem;border-top:1px solid var(--line)}
p{margin:.5rem 0;max-width:48rem}
.lead{font-size:1.1rem;padding:.8rem 1rem;background:var(--card);border-left:4px solid #0072b2}
.alarm{padding:.8rem 1rem;border-left:4px solid var(--alarm);color:var(--alarm);font-weight:600}
.note,figcaption,footer,caption{color:var(--soft);font-size:.875rem}
caption{text-align:left;padding:.2rem 0}
a{color:var(--link)}
nav ul{padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;font-size:.9rem}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th:first-child,td:first-child{padding-left:0}
th{font-weight:600}
tbody th{font-weight:normal}
.text{text-align:left}
td.text{white-space:normal;min-width:6rem;max-width:24rem}
td small{display:block;color:var(--soft);font-size:.8rem}
.group th{color:var(--soft);padding-top:.8rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1rem}
figure{margin:.6rem 0}
svg{max-width:100%;height:auto;display:block;overflow:visible}
dt{font-weight:600;margin-top:.5rem}
dd{margin:0;max-width:48rem}
ul{padding-left:1.2rem}
details{margin:.6rem 0}
summary{cursor:pointer;color:var(--link)}
footer{margin-top:3rem}
@media print{:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--card:#fff;--link:#000;--alarm:#000}
body{max-width:none;padding:0;font-size:11px}nav{display:none}.wide{overflow:visible}
figure,tr{break-inside:avoid}h2{break-after:avoid}}
"""
