"""The data map names everything that the code reads and stores. What fails here is a field that nobody has described:
say in persona_cli/privacy/data_tables.py or data_files.py what it is, whether it is personal, and what it is for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import persona_cli
from persona_cli.cli.main import run
from persona_cli.consent.receipts import PURPOSES
from persona_cli.events.schema import FIELDS, QUARANTINE, kept_schema, stored_schema
from persona_cli.privacy.data_tables import EVENTS, TABLES
from persona_cli.privacy.data_terms import CATEGORIES
from persona_cli.privacy.recipients import Disclosure
from persona_cli.privacy.records.facts import NEVER_STORED, QUASI, STORES, found, setting_of, store_of, unnamed
from persona_cli.privacy.requests import Request
from persona_cli.profiles import fold
from persona_cli.workspace.declarations import BY_KEY
from persona_cli.workspace.home import open_home
from persona_cli.workspace.runs import Run

PACKAGE = Path(persona_cli.__file__).parent
BY_PLACE = {store.place: store for store in STORES}
# Schemas that are made by functions, or of no table of the workspace, and the modules that make them.
OTHER_SCHEMAS = {
    "events/schema.py",  # the four kinds of input, looked at below
    "events/parquet.py",  # what a given Parquet file has
    "privacy/files.py",  # what a given file has
    "profiles/folds/explicit.py",  # columns of profiles, by their types
    "profiles/preferences.py",  # columns of profiles, for one user
    "workspace/query.py",  # what a query asks for
    "workspace/tables.py",  # columns of a table without those it is partitioned by
}
# Modules that write Parquet, and of which store; the files that commands leave are looked at below.
WRITERS = {
    "workspace/tables.py": "every table",
    "cli/what_if.py": "probabilities by decision_id, where --probabilities asks for them",
    "experiments/results.py": "sums of a measured experiment, without ids, in reports/",
    "models/gram_store.py": "models/gram/*/rows/*.parquet",
    "models/stored.py": "models/*/items.parquet",
    "models/popular.py": "models/*/cells.parquet",
    "models/content.py": "models/*/words.parquet",
    "profiles/signal_fit.py": "derived/signals/*/targets.parquet",
    "evaluation/document.py": "evaluations/*/users.parquet",
    "cli/profiles.py": "an export",
    "privacy/erasure.py": "privacy/erased/*.parquet",
    "privacy/removal.py": "evaluations/*/users.parquet",
    "cli/output.py": "an export",
    "cli/explore.py": "an export",
    "serving/writing.py": "an export",
    "workspace/query.py": "an export",
    "privacy/files.py": "an export",
}


def modules() -> Iterator[Any]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "pa.schema(" in path.read_text():
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            yield importlib.import_module(".".join(("persona_cli", *parts)))


def test_every_field_that_is_read_is_named() -> None:
    for kind, given in FIELDS.items():
        for field in given:
            assert field.name in BY_PLACE[kind].columns, f"{kind}.{field.name}"
            if field.transient:
                assert field.name in NEVER_STORED and field.name not in kept_schema(kind).names


@pytest.mark.parametrize("kind", list(FIELDS))
def test_every_column_of_an_input_is_named(kind: Any) -> None:
    assert unnamed(BY_PLACE[kind], stored_schema(kind)) == []


def test_every_schema_of_the_package_is_one_of_a_store() -> None:
    for module in modules():
        for name, schema in vars(module).items():
            if isinstance(schema, pa.Schema):
                fitting = [store.place for store in TABLES if not unnamed(store, schema)]
                assert fitting, f"{module.__name__}.{name}: no table of the data map has the columns {schema.names}"


def test_no_schema_is_made_where_nobody_looks() -> None:
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        tree = ast.parse(path.read_text())
        top = {id(node.value) for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pa.schema" and id(node) not in top:
                assert name in OTHER_SCHEMAS, f"{name}, line {node.lineno}: which store of the data map is this?"


def test_no_parquet_is_written_where_nobody_looks() -> None:
    calls = ("write_parquet(", "write_table(", "ParquetWriter(", "sink_parquet(")
    writing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(f".{call}" in path.read_text() for call in calls)
    }
    assert writing - set(WRITERS) == set()
    assert all(store in BY_PLACE for store in WRITERS.values() if "*" in store)


def test_no_column_is_named_that_is_not_there() -> None:
    schemas = {kind: stored_schema(kind).names for kind in FIELDS}
    schemas |= {"quarantine": QUARANTINE.names, "profiles": fold.SCHEMA.names}
    for place, names in schemas.items():
        assert set(BY_PLACE[place].columns) - set(NEVER_STORED) == set(names), place


@pytest.mark.parametrize(
    ("place", "record"),
    [("runs/*.json", Run), ("privacy/recipients.jsonl", Disclosure), ("privacy/requests.jsonl", Request)],
)
def test_every_field_of_a_line_or_manifest_is_named(place: str, record: Any) -> None:
    assert {field.name for field in fields(record)} <= set(BY_PLACE[place].columns)


def test_every_setting_says_what_it_decides_about_data_of_people() -> None:
    assert [key for key in BY_KEY if setting_of(key) is None] == []


def test_what_folds_read_is_said_to_be_read_by_profiles() -> None:
    for name in fold.NEEDED:
        assert "profiles" in EVENTS.columns[name].read or name == "props", name


def test_the_catalogue_uses_its_own_words() -> None:
    for store in STORES:
        assert set(store.purposes) <= set(PURPOSES), store.place
        assert all(column.category in CATEGORIES and column.what for column in store.columns.values()), store.place
        assert ("*" in store.columns) == store.open, store.place
    for place, columns in QUASI:
        assert set(columns) <= set(BY_PLACE[place].columns)


def test_every_file_that_commands_leave_is_of_a_kind_that_is_named(films: Callable[[int], Path]) -> None:
    root = films(40)
    assert run(["train", "-w", "w", "--model", "ease", "--model", "popular"]) == 0
    assert run(["evaluate", "-w", "w", "--model", "ease"]) == 0
    assert run(["profile", "export", "-w", "w", "p.parquet", "--recipient", "Ads"]) == 0
    held = found(open_home(root))
    assert held.unknown == ()
    assert {"models/gram/*/rows/*.parquet", "evaluations/*/users.parquet", "runs/*.json"} <= held.kinds
    for path in root.rglob("*.parquet"):
        store = store_of(path.relative_to(root).as_posix())
        assert store is not None
        partitions = [part.partition("=")[0] for part in path.relative_to(root).parts if "=" in part]
        schema = pq.read_schema(path)
        assert unnamed(store, schema) == [], path
        assert all(store.column(name) for name in partitions), path


def test_what_the_map_does_not_name_is_found(films: Callable[[int], Path]) -> None:
    root = films(2)
    (root / "export.csv").write_text("user_id\nu1\n")
    (root / "models").mkdir(exist_ok=True)
    pl.DataFrame({"user_id": ["u1"]}).write_parquet(root / "models" / "extra.parquet")
    assert found(open_home(root)).unknown == ("export.csv", "models/extra.parquet")


def test_shares_of_filled_columns_are_counted(films: Callable[[int], Path]) -> None:
    held = found(open_home(films(3)))
    assert held.rows["events"] == 36
    assert held.filled["events"]["user_id"] == 1 and held.filled["events"]["anon_id"] == 0
