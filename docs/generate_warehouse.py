"""The columns of the Delta tables in docs/warehouse.md, written from the schemas that the tables are begun with.

python docs/generate_warehouse.py            write them between the two marks in docs/warehouse.md
python docs/generate_warehouse.py --check    exit 10 if they are out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import Schema
from written import between, write

from persona_cli.events.schema import FIELDS, stored_schema
from persona_cli.profiles import fold, history

TARGET = Path(__file__).with_name("warehouse.md")
BEGIN = "<!-- Written by `make docs` from the schemas of the tables; do not edit from here -->\n"


def tables() -> Mapping[str, pa.Schema]:
    """Folder → schema, partition column included."""
    return {kind: stored_schema(kind) for kind in FIELDS} | {fold.NAME: fold.SCHEMA, history.NAME: history.SCHEMA}


def reference(schemas: Mapping[str, pa.Schema]) -> str:
    """One table a folder: the types as the log names them, each with the columns that have it."""
    return "\n".join(["", *(line for name, schema in schemas.items() for line in section(name, schema))])


def section(name: str, schema: pa.Schema) -> Iterator[str]:
    yield f"**`{name}/`**\n\n| Type | Columns |\n|---|---|"
    columns: dict[str, list[str]] = {}
    for field in json.loads(Schema.from_arrow(schema).to_json())["fields"]:
        if not field["name"].startswith("_"):
            columns.setdefault(named(field["type"]), []).append(f"`{field['name']}`")
    for kind, names in columns.items():
        yield f"| `{kind}` | {', '.join(names)} |"
    if merging := [column for column in schema.names if column.startswith("_")]:
        yield f"\nFor merging: {', '.join(f'`{column}`' for column in merging)}."
    yield ""


def named(kind: str | Mapping[str, Any]) -> str:
    """A type of the log as text: `array<struct<event_type: string, n: long>>`."""
    if isinstance(kind, str):
        return kind
    if kind["type"] == "array":
        return f"array<{named(kind['elementType'])}>"
    return f"struct<{', '.join(field['name'] + ': ' + named(field['type']) for field in kind['fields'])}>"


if __name__ == "__main__":
    sys.exit(write(__doc__, TARGET, lambda current: between(current, BEGIN, reference(tables()))))
