"""What of people a workspace holds: every table, every kind of file, every column, and what each is for.

One catalogue, declared in `data_tables` and `data_files`. A test compares it with all that the code reads and stores: a
new column cannot come without an entry. `found` compares it with what a workspace holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from persona_cli.privacy.data_files import FILES, SETTINGS, TECHNICAL
from persona_cli.privacy.data_tables import TABLES
from persona_cli.privacy.data_terms import Column, Store
from persona_cli.workspace import tables
from persona_cli.workspace.declarations import BY_KEY
from persona_cli.workspace.home import Home

STORES: tuple[Store, ...] = (*TABLES, *FILES)
"""A file belongs to the first that holds it."""
NEVER_STORED = ("user_agent", "ip")
"""Fields of events that are read at the door and thrown away."""
PASSING = ("runs/*.json", ".locks/*", "*.tmp-*", "privacy/records/*", "privacy/pending/*.json")
"""Kinds of files that come and go with every command: taken to be there always."""
QUASI: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("users", ("country", "locale", "tz", "role")),
    ("users", ("country", "locale", "tz", "role", "account_id")),
    ("profiles", ("country", "locale", "tz", "device", "browser", "os")),
)
"""Columns by which somebody could be recognised who knows a user a little, without knowing what the user did."""


@dataclass(frozen=True)
class Held:
    """What of the catalogue a workspace holds."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows of the tables that are there; of profiles and history parts, some of which are added up when read."""
    filled: dict[str, dict[str, float]] = field(default_factory=dict)
    """Table → column → share of the rows that have a value; of tables that are there and not empty."""
    kinds: frozenset[str] = frozenset()
    """Places of the kinds of files that are there, those that come and go among them."""
    unknown: tuple[str, ...] = ()
    """Tables, columns (`table.column`) and files that the catalogue does not name, sorted."""


def store_of(path: str) -> Store | None:
    """The store that a file of a workspace belongs to, by its path from the workspace's folder."""
    return next((store for store in STORES if store.holds(path)), None)


def unnamed(store: Store, schema: pa.Schema) -> list[str]:
    """Columns of a schema, and fields of their entries, that the store does not name."""
    missing = []
    for one in schema:
        column: Column | None = store.column(one.name)
        if column is None:
            missing.append(one.name)
        elif not store.open and tuple(column.inside.split()) != inside(one.type):
            missing.append(f"{one.name}: {' '.join(inside(one.type)) or one.type}")
    return missing


def inside(type_: pa.DataType) -> tuple[str, ...]:
    """Names of the fields of a record, or of the records in a list."""
    while pa.types.is_list(type_) or pa.types.is_large_list(type_):
        type_ = type_.value_type
    return tuple(one.name for one in type_) if pa.types.is_struct(type_) else ()


def setting_of(key: str) -> tuple[str, str] | None:
    """The entry of `SETTINGS` or `TECHNICAL` that a setting falls under, and what it decides about data of people; ""
    for nothing, None where nobody has said.
    """
    return next(((name, what) for name, what in _classified() if key == name or key.startswith(f"{name}.")), None)


def found(home: Home) -> Held:
    """What is there: reads the log of every table, the null counts of its files, and names of other files."""
    rows: dict[str, int] = {}
    filled: dict[str, dict[str, float]] = {}
    unknown: set[str] = set()
    for store in TABLES:
        table = tables.open_table(home, store.place)
        if table is None:
            continue
        rows[store.place] = sum(file.rows for file in table.files)
        unknown.update(f"{store.place}.{name}" for name in unnamed(store, table.schema))
        if rows[store.place]:
            nulls = table.scan().null_count().collect().row(0, named=True)
            filled[store.place] = {name: 1 - count / rows[store.place] for name, count in nulls.items()}
    kinds = set(PASSING)
    assessments = {home.settings.text(key).strip() for key in BY_KEY if key.endswith(".assessment")}
    for path in _files(home):
        owner = store_of(path)
        if owner is None:
            unknown.update({path} - assessments)
        elif not owner.is_table:
            kinds.add(owner.place)
    return Held(rows, filled, frozenset(kinds), tuple(sorted(unknown)))


def _files(home: Home) -> Iterator[str]:
    """Files of the workspace by their paths from its folder; of the known tables none."""
    known = {store.place for store in TABLES}
    for folder, names, files in os.walk(home.root):
        here = os.path.relpath(folder, home.root).replace(os.sep, "/")
        names[:] = sorted(name for name in names if here != "." or name not in known)
        yield from (name if here == "." else f"{here}/{name}" for name in files)


def _classified() -> Iterator[tuple[str, str]]:
    yield from SETTINGS.items()
    yield from ((name, "") for name in TECHNICAL)
