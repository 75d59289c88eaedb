"""What a variant changes: settings of lists, or keys of a surface, from `NAME=…` as it is written on a command line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from persona_cli.errors import UsageError, nearest
from persona_cli.serving.surfaces import Surface, surface_of
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

RECOMMEND = "recommend"
"""The surface of `persona recommend`; others are sections [surface.NAME]."""
NAME = re.compile(r"^[A-Za-z][\w.-]{0,59}$", re.ASCII)
"""Names of experiments and variants: without the colon and comma that stand between them in decisions."""
MODEL = "model"
"""The override that is a model; on the surface recommend it is no setting."""
_SERVED = ("recommend.", "rules.")
"""Settings that lists follow from at the moment they are made."""


class Variant(NamedTuple):
    """What one group of people gets."""

    name: str
    overrides: dict[str, str]
    """Setting → value, as written; empty: as configured."""


def parse_variant(text: str) -> Variant:
    """`a=latest`, `b=ease/3`, `c=model=spectral,rules.strength=0.5`. UsageError for others."""
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise UsageError(f"{text!r} is no variant; expected NAME=latest, NAME=MODEL or NAME=KEY=VALUE,KEY=VALUE")
    if not NAME.match(name):
        raise UsageError(f"{name!r} is no name of a variant; expected letters, digits, _, - and ., a letter first")
    if rest in ("", "latest"):
        return Variant(name, {})
    if "=" not in rest:
        return Variant(name, {MODEL: rest})
    overrides: dict[str, str] = {}
    for piece in _split(rest):
        key, given, value = (part.strip() for part in piece.partition("="))
        if not given or not key or not value:
            raise UsageError(f"{piece!r} of the variant {name!r} is no KEY=VALUE")
        if key in overrides:
            raise UsageError(f"the variant {name!r} sets {key} twice")
        overrides[key] = value
    return Variant(name, overrides)


def _split(text: str) -> list[str]:
    """Pieces between commas that are in no brackets, braces or quotes."""
    pieces, depth, quoted = [""], 0, ""
    for letter in text:
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "\"'":
            quoted = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and not depth:
            pieces.append("")
            continue
        pieces[-1] += letter
    return pieces


def check_overrides(home: Home, surface: str, variant: Variant) -> None:
    """Raise what serving this variant would raise: of an unknown surface, model, key or value."""
    if surface == RECOMMEND:
        settings_with(home.settings, variant.overrides)
    else:
        surface_with(surface_of(home, surface), variant.overrides)
    if MODEL in variant.overrides:
        from persona_cli.models.registry import find

        find(home, variant.overrides[MODEL])


def settings_with(settings: Settings, overrides: Mapping[str, str]) -> Settings:
    """The settings under which lists of a variant are made; UsageError for a key that changes no list."""
    given = {key: value for key, value in overrides.items() if key != MODEL}
    for key in given:
        if not key.startswith(_SERVED):
            raise UsageError(
                f"{key} changes nothing about lists as they are made; expected model, recommend.… or rules.…",
                "train another model and name it: NAME=MODEL/VERSION",
            )
    return settings.with_flags(given) if given else settings


def surface_with(surface: Surface, overrides: Mapping[str, str]) -> Surface:
    """The surface with other values of its keys; UsageError for a key or value that it cannot have."""
    from persona_cli.workspace.plan_declarations import check_plan
    from persona_cli.workspace.surface_declarations import KINDS as SURFACE_KINDS

    known, options = SURFACE_KINDS[surface.kind], dict(surface.options)
    section = f"[surface.{surface.name}]"
    for key, text in overrides.items():
        first, *more = key.split(".")
        if first not in known:
            raise UsageError(f"{section} of the kind {surface.kind} has no key {first!r}{nearest(first, known)}")
        check = known[first][1]
        try:
            if first == "rules" and more:  # kept by the keys of [rules], not as it is written
                options[first] = {**options[first], **check(_nested(more, _typed(text)))}
            elif more:
                options[first] = check(_merged(options[first], more, _typed(text)))
            else:
                options[first] = check(_typed(text))
        except ValueError as error:
            raise UsageError(f"{key}={text} for {section}: expected {error}") from error
    if surface.kind == "plan":
        try:
            check_plan(options, section)
        except ValueError as error:
            raise UsageError(f"a variant of {section}: expected {error}") from error
    return replace(surface, options=options)


def _typed(text: str) -> Any:
    """As TOML reads it, else the text itself."""
    if "\n" not in text:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            pass
    return text


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def _merged(before: Any, path: Sequence[str], value: Any) -> Any:
    """A section with one value inside it replaced; ValueError where it is no section."""
    if not path:
        return value
    if not isinstance(before, Mapping):
        raise ValueError("a value, and not a section")
    return {**before, path[0]: _merged(before.get(path[0], {}), path[1:], value)}
