"""Events as other systems write them: which dialects there are, and which a file may be of.

Each module named in MODULES offers `DIALECTS`, a tuple of Dialect; other distributions offer theirs by the entry point
group `persona.dialects` (a Dialect, or a tuple of them), and anybody writes them as TOML (`own`). Dialects may share a
name: one kind each (`personalize` for events, users and items), or one shape of file each (with a header and without).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from persona_cli.errors import Unavailable, UsageError, nearest
from persona_cli.events.dialects import own
from persona_cli.events.dialects.dialect import NATIVE, Choice, Dialect
from persona_cli.events.schema import Kind
from persona_cli.workspace.settings import Settings

MODULES = ("segment", "snowplow", "ga4", "cloudevents", "personalize", "movielens", "otto")
GROUP = "persona.dialects"
WORDS = ("auto", "native")


@cache
def built_in() -> tuple[Dialect, ...]:
    """The dialects of this package, in the order of MODULES."""
    return tuple(dialect for name in MODULES for dialect in import_module(f"{__name__}.{name}").DIALECTS)


@cache
def plugged_in() -> tuple[Dialect, ...]:
    """The dialects of other distributions, by name; raises Unavailable for one that cannot be loaded."""
    found: list[Dialect] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            offered: Any = point.load()
        except Exception as error:
            raise Unavailable(f"the dialect {point.name} ({point.value}) cannot be loaded: {error}") from error
        for dialect in offered if isinstance(offered, tuple | list) else (offered,):
            if not isinstance(dialect, Dialect):
                kind = type(dialect).__name__
                raise Unavailable(f"the entry point {point.name} of {GROUP} is of type {kind}, not Dialect")
            found.append(dialect)
    return tuple(found)


def known(settings: Settings) -> tuple[Dialect, ...]:
    """All dialects: those of persona.toml, then installed ones, then ours: the nearer one is asked first."""
    return (*own.declared(settings), *plugged_in(), *built_in())


def choose(name: str, kind: Kind, settings: Settings) -> Choice:
    """What `--dialect NAME` allows for input of `kind`.

    Raises UsageError with the nearest name where there is none of this name, BadSettings for a faulty TOML file.
    """
    if name == "native":
        return NATIVE
    if name == "auto":
        return Choice(tuple(dialect for dialect in known(settings) if dialect.kind == kind))
    if name.endswith(".toml"):
        same = own.load(Path(name))
    else:
        same = tuple(dialect for dialect in known(settings) if dialect.name == name)
    if fitting := tuple(dialect for dialect in same if dialect.kind == kind):
        return Choice(fitting, sure=True)
    if same:
        kinds = ", ".join(dict.fromkeys(dialect.kind for dialect in same))
        hint = f"persona ingest --kind {same[0].kind} FILE"
        raise UsageError(f"--dialect {name} is for {kinds}, not for {kind}", hint)
    names = dict.fromkeys((*(dialect.name for dialect in known(settings)), *WORDS))
    raise UsageError(f"--dialect: {name!r} is not a dialect{nearest(name, names)}", "persona ingest --list-dialects")


def overview(settings: Settings) -> list[dict[str, Any]]:
    """Name, kinds of input, formats and a line about each dialect, in the order in which they are asked."""
    rows: dict[str, dict[str, Any]] = {}
    for dialect in known(settings):
        row = rows.setdefault(
            dialect.name, {"dialect": dialect.name, "kinds": [], "formats": [], "about": dialect.about}
        )
        row["kinds"] += [dialect.kind] if dialect.kind not in row["kinds"] else []
        row["formats"] += [name for name in dialect.formats if name not in row["formats"]]
    return list(rows.values())
