"""The code itself: no reader of personal data forgets to say what it reads for, and few read the tables as they are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "persona_cli"
PROFILES = "persona_cli.profiles."
READERS = {
    "stated": ("attributes",),
    "permitted": ("stored_events", "person_events"),
    "history": ("signal_events", "history"),
    "fold": ("profile_rows",),
    "people": ("people", "members", "person", "population_for"),
    "population": ("past", "population_of"),
    "preferences": ("explicit_events", "spoken"),
    "read": ("profile", "profiles", "events_of", "preferred_categories", "contexts"),
    "snapshots": ("user_events",),
    "fitting": ("event_counts", "dwell_seconds"),
}
"""Functions of persona_cli/profiles that answer rows of people, by module: each call says `purpose=`."""
PERSONAL = ("events", "users", "history", "profiles")
RAW = {
    "events/": "storing, taking back, rejecting: before anything is used",
    "consent/": "the gate itself",
    "workspace/": "tables as such",
    "privacy/": "what the law asks for: access, erasure, expiry, records",
    "profiles/permitted.py": "filters what it scans",
    "profiles/sync.py": "folds whom `standing` covers",
    "profiles/changes.py": "finds who is covered",
    "profiles/identity.py": "who is who, which the gate needs",
    "profiles/history.py": "filters what it scans",
    "profiles/fold.py": "filters what it scans",
    "profiles/population.py": "reads the table only where everybody is permitted",
    "profiles/read.py": "filters what it scans, or refuses",
    "profiles/views.py": "filters what it scans",
    "profiles/carrying.py": "counts what is there, of nobody in particular",
    "profiles/stated.py": "filters what it scans",
    "profiles/snapshots.py": "looks up the users of events that it was given",
    "evaluation/attributes.py": "looks up the users who are asked about",
    "feedback/decisions.py": "filters what it scans",
    "serving/context.py": "reads the history of those whom personalization covers",
    "serving/surfaces/plan_usage.py": "who is in whose account; of members who are not covered nothing but that",
    "serving/surfaces/plan_audit.py": "looks up the users who are asked about, covered by both purposes",
    "api.py": "the catalogue",
}
"""Who may open tables of people without a purpose, and why."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def calls(source: str, module: str) -> list[tuple[str, str, ast.Call]]:
    """(module, function, call) of the calls of functions of persona_cli that a module imports or defines."""
    tree = ast.parse(source)
    functions, modules = dict[str, tuple[str, str]](), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                functions[alias.asname or alias.name] = (node.module, alias.name)
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.FunctionDef) and node in tree.body:
            functions[node.name] = (module, node.name)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in functions:
                found.append((*functions[node.func.id], node))
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                found.append((modules.get(node.func.value.id, ""), node.func.attr, node))
    return found


def dotted(path: Path) -> str:
    return ".".join(("persona_cli", *path.relative_to(PACKAGE).with_suffix("").parts))


def forgotten(source: str, module: str) -> list[str]:
    readers = {(PROFILES + name, function) for name, functions in READERS.items() for function in functions}
    return [
        f"line {call.lineno}: {function}"
        for where, function, call in calls(source, module)
        if (where, function) in readers and not any(word.arg == "purpose" for word in call.keywords)
    ]


def raw(source: str, module: str) -> list[str]:
    """Calls that open a table of people, or one whose name is not written there, or scan all events."""
    found = []
    for where, function, call in calls(source, module):
        if (where, function) == ("persona_cli.events.store", "scan_events"):
            found.append(f"line {call.lineno}: {function}")
        if where == "persona_cli.workspace.tables" and function in ("open_table", "open_or_create", "scan"):
            name = call.args[1]
            if not isinstance(name, ast.Constant) or name.value in PERSONAL:
                found.append(f"line {call.lineno}: {function}({ast.unparse(name)})")
        if (where, function) == ("persona_cli.events.catalogue", "current"):
            name = call.args[1]
            if not isinstance(name, ast.Constant) or name.value in PERSONAL:
                found.append(f"line {call.lineno}: {function}({ast.unparse(name)})")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_reader_says_what_it_reads_for(path: Path) -> None:
    assert not forgotten(path.read_text(), dotted(path)), "expected purpose=… (see profiles/permitted.py)"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_tables_of_people_are_opened_in_few_places(path: Path) -> None:
    if not str(path.relative_to(PACKAGE)).startswith(tuple(RAW)):
        found = raw(path.read_text(), dotted(path))
        assert not found, "expected a reader of profiles/ with a purpose, or a reason in RAW"


def test_every_reader_that_is_named_here_is_there_and_takes_a_purpose() -> None:
    for name, functions in READERS.items():
        tree = ast.parse((PACKAGE / "profiles" / f"{name}.py").read_text())
        defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for function in functions:
            assert "purpose" in [arg.arg for arg in defined[function].args.kwonlyargs], f"{name}.{function}"
    assert all((PACKAGE / name).exists() for name in RAW)


def test_a_new_reader_that_forgets_is_found() -> None:
    head = "from persona_cli.profiles import history as histories\n"
    head += "from persona_cli.profiles.permitted import person_events\n"
    assert forgotten(head + "person_events(home)\nhistories.history(home)\n", "persona_cli.new") == [
        "line 3: person_events",
        "line 4: history",
    ]
    assert not forgotten(head + "person_events(home, purpose=None)\n", "persona_cli.new")
    tables = "from persona_cli.workspace import tables\nfrom persona_cli.workspace.tables import open_table\n"
    opened = tables + 'tables.open_table(home, "events")\nopen_table(home, NAME)\nopen_table(home, "items")\n'
    assert raw(opened, "persona_cli.new") == ["line 3: open_table('events')", "line 4: open_table(NAME)"]
