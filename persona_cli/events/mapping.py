"""Where each canonical field lies in the input: native names, `--map canonical=theirs`, or a guess from aliases.

`theirs` is a column name, or a dotted path into nested JSON (`properties.product_id`); `canonical==text` gives every
record the constant `text` (`event_type==purchase`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from persona_cli.errors import BadData, UsageError, nearest
from persona_cli.events.schema import FIELDS, KEY, Field, Kind

Path = tuple[str, ...]
# Nested keys of the input; a leaf holds the canonical names read from it.
Tree = dict[str, Union[tuple[str, ...], "Tree"]]


@dataclass(frozen=True)
class Mapping:
    """Canonical name → path in the record, plus constants; `guessed` names what came from an alias."""

    kind: Kind
    paths: dict[str, Path]
    constants: dict[str, str] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()

    def tree(self) -> Tree:
        """The paths as nested keys. A path that leads through another field's value adds nothing."""
        tree: Tree = {}
        for name, path in sorted(self.paths.items(), key=lambda entry: len(entry[1])):
            place = tree
            for key in path[:-1]:
                below = place.setdefault(key, {})
                if isinstance(below, tuple):
                    break
                place = below
            else:
                leaf = place.get(path[-1], ())
                if isinstance(leaf, tuple):
                    place[path[-1]] = (*leaf, name)
        return tree

    def describe(self) -> dict[str, str]:
        """Canonical → theirs as text, for `--dry-run` and run manifests."""
        shown = {name: ".".join(path) for name, path in self.paths.items()}
        return shown | {name: f"={text}" for name, text in self.constants.items()}


def json_type(value: Any) -> str:
    """The JSON type of a Python value, in the words of a message."""
    if value is None:
        return "null"
    names = ((bool, "a boolean"), ((int, float), "a number"), (str, "text"), ((list, tuple), "an array"))
    return next((name for types, name in names if isinstance(value, types)), "an object")


def parse_flags(kind: Kind, flags: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """`--map` arguments as (paths, constants); raises UsageError for a shape or canonical name that is unknown."""
    names = {spec.name for spec in FIELDS[kind]}
    paths: dict[str, Path] = {}
    constants: dict[str, str] = {}
    for flag in flags:
        name, equals, theirs = flag.partition("=")
        if not equals or not theirs or theirs == "=":
            raise UsageError(f"--map expects canonical=theirs, got {flag!r}", "persona ingest FILE --map user_id=uid")
        if name not in names:
            raise UsageError(f"--map: {name!r} is not a field of {kind}{nearest(name, names)}")
        if theirs.startswith("="):
            constants[name] = theirs[1:]
        else:
            paths[name] = tuple(theirs.split("."))
    return paths, constants


def resolve(kind: Kind, present: Collection[Path], flags: Sequence[str], *, nested: bool) -> Mapping:
    """The mapping for a file in which the paths `present` were seen.

    Native names win over aliases; an alias is taken only for a field with no native name present. `nested` is for JSON
    lines, in which more keys may come later: a field that was not seen keeps its native path, context fields under
    `context`. Raises BadData when a field that every record needs cannot be found, or a column named by a flag is not
    in a table.
    """
    given, constants = parse_flags(kind, flags)
    seen = set(present)
    if not nested:
        _exist(given, seen)
    paths: dict[str, Path] = {}
    guessed: list[str] = []
    taken = set(given.values())
    for spec in FIELDS[kind]:
        if spec.name in constants:
            continue
        if spec.name in given:
            paths[spec.name] = given[spec.name]
            continue
        natives = (spec.native_path, (spec.name,), ("context." + spec.name,))
        chosen = next((path for path in natives if path in seen and path not in taken), None)
        if chosen is None:
            chosen = next((path for path in _aliases(spec) if path in seen and path not in taken), None)
            if chosen is not None:
                guessed.append(spec.name)
        if chosen is not None:
            paths[spec.name] = chosen
            taken.add(chosen)
        elif nested:
            paths[spec.name] = spec.native_path
    ratings = kind == "events" and paths.get("value") == ("rating",)
    if ratings and "event_type" not in constants and paths.get("event_type") not in seen:
        paths.pop("event_type", None)
        constants["event_type"] = "rating"
        guessed.append("event_type")
    mapping = Mapping(kind, paths, constants, tuple(guessed))
    if seen:
        _require(mapping, seen)
    return mapping


def _aliases(spec: Field) -> Iterator[Path]:
    for alias in spec.aliases:
        yield (alias,)
        if spec.context:
            yield from (("context", alias), ("context." + alias,))


def _exist(given: dict[str, Path], seen: set[Path]) -> None:
    names = {".".join(path) for path in seen}
    for name, path in given.items():
        if path not in seen:
            theirs = ".".join(path)
            raise BadData(f"--map {name}={theirs}: the input has no column {theirs!r}{nearest(theirs, names)}")


def _require(mapping: Mapping, seen: set[Path]) -> None:
    needs = [("user_id", "anon_id"), ("event_type",), ("timestamp",)]
    if mapping.kind != "events":
        needs = [(KEY[mapping.kind],)]
    for names in needs:
        if not any(name in mapping.constants or mapping.paths.get(name) in seen for name in names):
            have = ", ".join(sorted(".".join(path) for path in seen)[:20])
            raise BadData(
                f"no column for {' or '.join(names)}: expected it or a known alias; the input has {have}",
                f"persona ingest FILE --map {names[0]}=THEIRS"
                + (" (or --map event_type==click for a constant)" if names[0] == "event_type" else ""),
            )
