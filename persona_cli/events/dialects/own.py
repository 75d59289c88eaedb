"""Dialects that users write themselves, as TOML: a file of its own (`--dialect shop.toml`) or `[dialects.shop]` in
persona.toml.

    name = "shop"                        a file is called by its name otherwise
    recognise = ["shop_version"]         paths that are there in every record; without it, it is read only when named
    explode = "lines"                    one record for each element of this list
    time_unit = "ms"                     of times that are numbers: s, ms, us, ns; otherwise their size tells
    leave_out = ["raw_request"]          paths that are not kept in props
    json = ["payload"]                   columns that hold JSON as text
    fields = { user_id = ["customer.id", "guest"], item_id = "lines[].sku" }
    constants = { currency = "EUR" }
    event_types = { bought = "purchase" }
    when = [ { if = { kind = "ping" }, drop = "heartbeat" },
             { if = { kind = ["a", "b"] }, constants = { event_type = "click" } } ]

`columns`, `separator` and `encoding` describe tables without a header; `kind` and `about` are what they are elsewhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from persona_cli.errors import BadSettings, MissingInput, nearest
from persona_cli.events.dialects.dialect import (
    Dialect,
    Dropped,
    Record,
    Rejected,
    elements,
    event_type,
    numbered,
    value_at,
    without,
)
from persona_cli.events.dialects.split import native, put, split
from persona_cli.events.judge import json_text, parse_json
from persona_cli.events.schema import FIELDS, Kind
from persona_cli.workspace.settings import Settings

KEYS = ("name", "about", "kind", "recognise", "explode", "time_unit", "leave_out", "json", "fields", "constants",
        "event_types", "when", "columns", "separator", "encoding")  # fmt: skip
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_HINT = "docs/events.md, Your own dialect"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """What holds for records in which every path of `conditions` has one of the values (None: any value)."""

    conditions: Mapping[str, tuple[Any, ...] | None]
    drop: str = ""
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    def holds(self, record: Record) -> bool:
        for path, wanted in self.conditions.items():
            value = value_at(record, path)
            if value is None or (wanted is not None and value not in wanted):
                return False
        return True


@dataclass(frozen=True)
class Rule:
    """A dialect as it is written down."""

    kind: Kind
    sources: Mapping[str, tuple[str, ...]]
    explode: str = ""
    unit: str = ""
    texts: tuple[str, ...] = ()  # columns of JSON
    words: Mapping[str, str] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    left_out: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # what every record has

    def recognises(self, records: Sequence[Record]) -> bool:
        return bool(self.needs) and all(
            value_at(parsed, path) is not None for parsed in map(self.parsed, records) for path in self.needs
        )

    def parsed(self, record: Record) -> Record:
        """With the JSON texts of columns read."""
        found = {name: _json(name, text) for name in self.texts if isinstance(text := record.get(name), str)}
        return record | found if found else record

    def records(self, record: Record) -> list[Record]:
        record = self.parsed(record)
        case = next((case for case in self.cases if case.holds(record)), None)
        if case is not None and case.drop:
            raise Dropped(case.drop)
        sources = dict(self.sources)
        if case is not None:
            sources |= case.fields
            sources |= {name: (f"={text}",) for name, text in case.constants.items()}
        parts: Sequence[Record | None] = elements(record, self.explode) if self.explode else ()
        return [self._event(record, sources, part, at) for at, part in enumerate(parts or (None,))]

    def _event(self, record: Record, sources: Mapping[str, tuple[str, ...]], part: Record | None, at: int) -> Record:
        fields, rest, props = split(sources, record, part, kind=self.kind, needed=False)
        if self.explode and self.explode in rest:
            del rest[self.explode]
        for name, value in without(rest, self.left_out).items():
            put(props, name, value)
        if self.unit:
            for name in ("timestamp", "received_at", "valid_from"):
                if name in fields:
                    fields[name] = _time(fields[name], self.unit)
        if "event_id" in fields:
            fields["event_id"] = numbered(fields["event_id"], at)
        if (theirs := fields.get("event_type")) is not None:
            fields["event_type"] = self.words[theirs] if theirs in self.words else event_type(theirs)
        return native(fields, props)


def _json(name: str, text: str) -> Any:
    if not text.strip():
        return None
    try:
        return parse_json(f'{{"":{text}}}'.encode())[""]
    except Rejected:
        raise Rejected(f"{name}: expected JSON") from None


def _time(value: Any, unit: str) -> Any:
    """A number of units since 1970 as a time in words; text that is no number as it is."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    if isinstance(number, bool) or not isinstance(number, int | float):
        return value
    try:
        us = int(number) // 1_000 if unit == "ns" else round(number * UNITS[unit])
        return (_EPOCH + timedelta(microseconds=us)).isoformat()
    except (OverflowError, ValueError):
        raise Rejected("timestamp: unreadable as a time") from None


def load(path: Path) -> tuple[Dialect, ...]:
    """The dialect in a TOML file; raises MissingInput or BadSettings."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingInput(f"--dialect {path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise BadSettings(f"{path} is not valid TOML: {error}", _HINT) from error
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{path} is not valid TOML: {error}", _HINT) from error
    return (build(given, path.stem, str(path)),)


def declared(settings: Settings) -> tuple[Dialect, ...]:
    """The dialects of persona.toml, in the order of the file."""
    given: Mapping[str, Any] = settings.values["dialects"]
    return tuple(build(table, name, f"persona.toml: dialects.{name}") for name, table in given.items())


def build(given: Any, name: str, place: str) -> Dialect:
    """A dialect of what its TOML says; raises BadSettings with file, key and what was expected."""
    at = _Place(place)
    at.check(isinstance(given, Mapping), "", given, "a section")
    at.only(given, KEYS, "")
    kind = at.text(given, "kind") or "events"
    at.check(kind in FIELDS, "kind", kind, f"one of {', '.join(FIELDS)}")
    names = [spec.name for spec in FIELDS[kind]]  # type: ignore[index]
    at.check("fields" in given, "fields", None, 'a table such as { user_id = "customer.id" }')
    sources = at.fields(given, "fields", names) | {
        field: (f"={text}",) for field, text in at.constants(given, "constants", names).items()
    }
    explode = at.text(given, "explode")
    for field_name, paths in sources.items():
        for path in paths:
            listed, is_element, _ = path.partition("[].")
            key = f"fields.{field_name}"
            at.check(not is_element or listed == explode, key, path, f'a path, or explode = "{listed}" beside it')
    unit = at.text(given, "time_unit")
    at.check(unit in ("", "ns", *UNITS), "time_unit", unit, "one of s, ms, us, ns")
    words = at.table(given, "event_types")
    for theirs, ours in words.items():
        at.check(isinstance(ours, str) and bool(ours), f"event_types.{theirs}", ours, "an event type in quotes")
    encoding = at.text(given, "encoding") or "utf-8"
    try:
        "".encode(encoding)
    except LookupError:
        at.fail("encoding", encoding, 'an encoding such as "utf-8" or "latin-1"')
    rule = Rule(
        kind=kind,  # type: ignore[arg-type]
        sources=sources,
        explode=explode,
        unit=unit,
        texts=at.texts(given, "json"),
        words=words,
        cases=at.cases(given, names),
        left_out=at.texts(given, "leave_out"),
        needs=at.texts(given, "recognise"),
    )
    return Dialect(
        name=at.text(given, "name") or name,
        about=at.text(given, "about") or f"of {place}",
        formats=("jsonl", "csv", "tsv", "parquet"),
        sources=sources,
        recognises=rule.recognises,
        records=rule.records,
        kind=rule.kind,
        columns=at.texts(given, "columns"),
        separator=at.text(given, "separator"),
        encoding=encoding,
    )


@dataclass(frozen=True)
class _Place:
    """Where a dialect is written down: every complaint names it, the key, what is there and what was expected."""

    name: str

    def fail(self, key: str, seen: Any, expected: str) -> None:
        shown = (
            "missing"
            if seen is None
            else json_text(seen)
            if isinstance(seen, str | int | float | list | dict)
            else seen
        )
        raise BadSettings(f"{self.name}: {key or 'it'} is {shown}; expected {expected}", _HINT)

    def check(self, holds: bool, key: str, seen: Any, expected: str) -> None:
        if not holds:
            self.fail(key, seen, expected)

    def only(self, given: Mapping[str, Any], names: Sequence[str], above: str) -> None:
        for key in given:
            if key not in names:
                raise BadSettings(f"{self.name}: {above}{key} is not known{nearest(key, names)}", _HINT)

    def text(self, given: Mapping[str, Any], key: str) -> str:
        value = given.get(key, "")
        self.check(isinstance(value, str), key, value, "a text in quotes")
        return str(value)

    def texts(self, given: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = given.get(key, [])
        several = [value] if isinstance(value, str) else value
        fits = isinstance(several, list) and all(isinstance(text, str) and text for text in several)
        self.check(fits, key, value, "a text or a list of texts")
        return tuple(several)

    def table(self, given: Mapping[str, Any], key: str, called: str = "") -> Mapping[str, Any]:
        value = given.get(key, {})
        self.check(isinstance(value, Mapping), called or key, value, "a table")
        return value  # type: ignore[no-any-return]

    def fields(self, given: Mapping[str, Any], key: str, names: Sequence[str], above: str = "") -> dict[str, Any]:
        table = self.table(given, key, above + key)
        self.only(table, names, f"{above}{key}.")
        found = {}
        for name in table:
            value = table[name]
            paths = [value] if isinstance(value, str) else value
            fits = isinstance(paths, list) and bool(paths) and all(isinstance(path, str) and path for path in paths)
            self.check(fits, f"{above}{key}.{name}", value, 'a path such as "customer.id", or a list of paths')
            found[name] = tuple(paths)
        return found

    def constants(self, given: Mapping[str, Any], key: str, names: Sequence[str], above: str = "") -> dict[str, str]:
        table = self.table(given, key, above + key)
        self.only(table, names, f"{above}{key}.")
        for name, value in table.items():
            fits = isinstance(value, str | int | float) and not isinstance(value, bool)
            self.check(fits, f"{above}{key}.{name}", value, "a text or a number")
        return {name: str(value) for name, value in table.items()}

    def cases(self, given: Mapping[str, Any], names: Sequence[str]) -> tuple[Case, ...]:
        written = given.get("when", [])
        self.check(isinstance(written, list), "when", written, 'a list of { if = { kind = "ping" }, … }')
        found = []
        for number, case in enumerate(written, 1):
            above = f"when[{number}]."
            self.check(isinstance(case, Mapping), above[:-1], case, 'a table { if = { kind = "ping" }, … }')
            self.only(case, ("if", "drop", "fields", "constants"), above)
            conditions = self.table(case, "if", f"{above}if")
            self.check(bool(conditions), f"{above}if", None, 'a table of paths and values, such as { kind = "ping" }')
            drop = case.get("drop", "")
            self.check(isinstance(drop, str), f"{above}drop", drop, "the reason in quotes")
            found.append(
                Case(
                    {path: _wanted(value) for path, value in conditions.items()},
                    drop,
                    self.fields(case, "fields", names, above),
                    self.constants(case, "constants", names, above),
                )
            )
        return tuple(found)


def _wanted(value: Any) -> tuple[Any, ...] | None:
    """`"*"` is anything that is there; a list is any of its values."""
    if value == "*":
        return None
    return tuple(value) if isinstance(value, list) else (value,)
