"""Events as other systems write them: which dialects there are, and which one a file speaks.

Each module named in MODULES offers `DIALECTS`, a tuple of Dialect. Two may share a name if they differ in kind
(`personalize` for events, users and items).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from persona_cli.errors import UsageError, nearest
from persona_cli.events.dialects.dialect import Dialect, Record
from persona_cli.events.schema import Kind

MODULES = ("segment", "snowplow", "ga4", "cloudevents", "personalize", "movielens", "otto")


@cache
def built_in() -> tuple[Dialect, ...]:
    """The dialects of this package, in the order of MODULES."""
    found: list[Dialect] = []
    for name in MODULES:
        if find_spec(f"{__name__}.{name}") is not None:
            found += import_module(f"{__name__}.{name}").DIALECTS
    return tuple(found)


def named(name: str, kind: Kind) -> Dialect:
    """The dialect called `name` for input of `kind`; raises UsageError with the nearest name when there is none."""
    same = [dialect for dialect in built_in() if dialect.name == name]
    for dialect in same:
        if dialect.kind == kind:
            return dialect
    if same:
        kinds = ", ".join(dialect.kind for dialect in same)
        raise UsageError(
            f"--dialect {name} is for {kinds}, not for {kind}", f"persona ingest --kind {same[0].kind} FILE"
        )
    names = {dialect.name for dialect in built_in()}
    raise UsageError(f"--dialect: {name!r} is not a dialect{nearest(name, names)}", "persona ingest --list-dialects")


def recognised(records: Sequence[Record], kind: Kind) -> Dialect | None:
    """The one dialect for `kind` that knows these records (the first ones of a file, unpacked by each dialect for itself)."""
    for dialect in built_in():
        if dialect.kind != kind or dialect.columns:
            continue
        unpacked = [inner for record in records for inner in dialect.unpack(record)][:100]
        objects = [inner for inner in unpacked if isinstance(inner, dict)]
        if objects and len(objects) == len(unpacked) and dialect.recognises(objects):
            return dialect
    return None
