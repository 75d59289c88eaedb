"""The tables of dialects in docs/events.md, written from the tables that the dialects read by.

python docs/generate_dialects.py            write them between the two marks in docs/events.md
python docs/generate_dialects.py --check    exit 10 if they are out of date
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from written import between, write

from persona_cli.events.dialects import built_in
from persona_cli.events.dialects.dialect import Dialect
from persona_cli.events.schema import FIELDS

TARGET = Path(__file__).with_name("events.md")
BEGIN = "<!-- Written by `make docs` from the dialects; do not edit from here -->\n"


def reference(dialects: Sequence[Dialect]) -> str:
    """One section a name; dialects with the same table stand under the first of them."""
    parts = ["\n| Dialect | Kind | Formats | What it is |\n|---|---|---|---|\n"]
    for one in dialects:
        parts.append(f"| `{one.name}` | {one.kind} | {', '.join(one.formats)} | {cell(one.about)} |\n")
    shown: dict[int, str] = {}
    named = ""
    for one in dialects:
        if id(one.sources) in shown:
            continue
        shown[id(one.sources)] = one.name
        if one.name != named:
            named = one.name
            parts.append(f"\n### {one.name}\n")
        parts += section(one)
    return "".join(parts)


def section(one: Dialect) -> list[str]:
    """What a dialect is, where each field is looked for, and what a table cannot say."""
    columns = f" Columns: {', '.join(f'`{name}`' for name in one.columns)}." if 0 < len(one.columns) < 10 else ""
    parts = [f"\n{one.about}.{columns}\n\n| Field | Looked for in this order |\n|---|---|\n"]
    known = {spec.name for spec in FIELDS[one.kind]}
    for name, paths in one.sources.items():
        field = f"`{name}`" if name in known else f"`{name}` in `props`"
        parts.append(f"| {field} | {', '.join(f'`{cell(path)}`' for path in paths)} |\n")
    if one.notes:
        parts += ["\n", *(f"- {note}\n" for note in one.notes)]
    return parts


def cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(write(__doc__, TARGET, lambda current: between(current, BEGIN, reference(built_in()))))
