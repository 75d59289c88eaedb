"""Segments and features that a workspace defines in persona.toml, read with the one expression language.

    [features.pace]
    value = "events / (days_since_first + 1)"

    [segments.keen]
    when = "pace >= 3 and device = 'mobile'"

Both may name the columns of profiles that hold one value (counts, times, texts), computed features and own features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import polars as pl

from persona_cli.errors import BadSettings, MissingInput, PersonaError, UsageError, nearest
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles import fold as folding
from persona_cli.profiles.features import NAMES, PREFERRED
from persona_cli.workspace.filters import Filter, FilterError, Value, column_of, parse, parse_value
from persona_cli.workspace.home import SETTINGS_FILE, Home
from persona_cli.workspace.terms import tokens

_HINT = "persona segment list --columns"


def built_in() -> dict[str, pl.DataType | str]:
    """Columns that expressions may name, own features left out, with their types or kinds."""
    schema = folding.NOBODY.select(folding.SHOWN).schema
    plain = {name: type_ for name, type_ in schema.items() if column_of(name, type_) is not None}
    return {**plain, "stage": "text", "holdout": "flag", **PREFERRED, **NAMES}


def own(home: Home) -> dict[str, Value]:
    """The features of [features.NAME], each after those it needs; `BadSettings` names what is wrong and where."""
    given = {name: one["value"] for name, one in home.settings.values["features"].items()}
    return dict(_own(str(home.path(SETTINGS_FILE)), tuple(given.items())))


def columns(home: Home) -> dict[str, pl.DataType | str]:
    """All columns that a condition may name."""
    return {**built_in(), **{name: value.kind for name, value in own(home).items()}}


def kinds(home: Home) -> dict[str, str]:
    """What conditions may name: text, whole, number, flag or time by name."""
    found = {name: column_of(name, type_) for name, type_ in columns(home).items()}
    return {name: column.kind for name, column in found.items() if column is not None}


def conditions(home: Home) -> dict[str, Filter]:
    """The conditions of [segments.NAME] in the order of the file; `BadSettings` names what is wrong and where."""
    known = columns(home)
    found = {}
    for name, one in home.settings.values["segments"].items():
        try:
            found[name] = parse(one["when"], known)
        except FilterError as error:
            raise _bad(str(home.path(SETTINGS_FILE)), f"segments.{name}.when", error) from error
    return found


def condition(home: Home, name: str | None = None, when: str | None = None) -> Filter:
    """The condition of a segment, or of an expression; exactly one is given. `MissingInput` for an unknown name."""
    if (name is None) == (when is None):
        raise UsageError(
            "expected the name of a segment or --when 'an expression', one of them", "persona segment list"
        )
    if when is not None:
        try:
            return parse(when, columns(home))
        except FilterError as error:
            raise UsageError(f"--when: {error}", _HINT) from error
    found = conditions(home)
    if name not in found:
        defined = nearest(str(name), found) if found else "; [segments] in persona.toml defines none"
        raise MissingInput(f"no segment is named {name!r}{defined}", "persona segment list")
    return found[name]


def with_own(rows: pl.DataFrame, home: Home) -> pl.DataFrame:
    """Rows that have the columns `built_in`, with a column for each own feature."""
    for name, value in own(home).items():
        rows = rows.with_columns(value.expression.alias(name))
    return rows


def sizes(people: pl.DataFrame, home: Home) -> pl.DataFrame:
    """segment, when, users, share: one row a segment; users and share are null where fewer than `SMALLEST_CELL` are."""
    rows = []
    for name, one in conditions(home).items():
        users = int(one.mask(people).sum())
        shown = users >= SMALLEST_CELL
        share = round(users / people.height, 6) if shown else None
        rows.append({"segment": name, "when": one.text, "users": users if shown else None, "share": share})
    schema = {"segment": pl.String, "when": pl.String, "users": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def findings(home: Home) -> Iterator[tuple[str, str, str]]:
    """What a check of the settings has to say: (check, state, detail); nothing where neither is defined."""
    for name, read in (("features", own), ("segments", conditions)):
        if given := home.settings.values[name]:
            try:
                read(home)
                yield name, "ok", ", ".join(given)
            except PersonaError as error:
                yield name, "problem", error.message


@lru_cache(maxsize=32)
def _own(file: str, given: tuple[tuple[str, str], ...]) -> tuple[tuple[str, Value], ...]:
    texts, known = dict(given), built_in()
    found: dict[str, Value] = {}

    def read(name: str, above: tuple[str, ...]) -> None:
        key = f"features.{name}.value"
        if name in above:
            circle = " → ".join((*above[above.index(name) :], name))
            raise BadSettings(f"{file}: {key} needs itself: {circle}; expected features without a circle", _HINT)
        if name in found:
            return
        if name in known or name in folding.COLUMNS:
            raise BadSettings(f"{file}: {name} is a column already; expected another name for [features.{name}]", _HINT)
        try:
            for word in _names(texts[name]):
                if word in texts:
                    read(word, (*above, name))
            reach: Mapping[str, pl.DataType | str] = {**known, **{one: value.kind for one, value in found.items()}}
            found[name] = parse_value(texts[name], reach)
        except FilterError as error:
            raise _bad(file, key, error) from error

    for name in texts:
        read(name, ())
    return tuple(found.items())


def _names(text: str) -> list[str]:
    """The columns that an expression names."""
    named = [token.text for token in tokens(text) if token.type in ("name", "quoted")]
    return [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in named]


def _bad(file: str, key: str, error: FilterError) -> BadSettings:
    return BadSettings(f"{file}: {key}: {error}", _HINT)
