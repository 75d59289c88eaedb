"""Pseudonyms: what stands in for an id outside, the same for the same id, key and recipient, and for nothing else.

    pseudonym = letter of the kind + first 32 hexadecimal digits of HMAC-SHA-256(subkey, kind + byte 0 + id in UTF-8)

The subkey is that of a key and a domain (`recipients.subkey`). The kinds are kept apart: a user and a session that have
the same id have different pseudonyms. A user's id and an anonymous one are one kind, since the events that name both
say who is who. 128 bits are kept: among 10^9 ids two share a pseudonym with probability 1.5e-21. A pseudonym is
personal data to whoever holds the key (GDPR Art. 4(5)), and hides nobody by itself: `unicity` counts how many people a
few of their items single out.

Event ids are replaced as well: one that persona made is an unkeyed hash of the user's id and the event
(`events/batch.py`), which can be tried out for every user, and one that was given is the same in every export.

`Replacing` puts them into records and columns, wherever `Places` says that ids stand; all else keeps its value. Ids are
read as `persona ingest` reads them (`events/judge.py`): texts, and integers by their text, so that 7 and "7" have one
pseudonym and "007" another; blank texts are no ids. What cannot be an id where only ids may stand is an error that
stops everything: leaving it would leave it to be read.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.errors import UsageError, nearest
from persona_cli.events.judge import ASCII_BLANK, Number, Rejected, json_text, parse_json
from persona_cli.events.schema import EVENTS, Path, json_type

if TYPE_CHECKING:
    from persona_cli.privacy.anonymity import Pairs

SCHEME = "hmac-sha-256/1"
DIGITS = 32
# The first letter of the pseudonyms of each kind of id.
LETTERS = {"person": "p", "account": "a", "session": "s", "event": "e", "decision": "d"}
KINDS = {
    "user_id": "person",
    "anon_id": "person",
    "account_id": "account",
    "session_id": "session",
    "event_id": "event",
    "decision_id": "decision",
}
ALIASES = {alias: KINDS[spec.name] for spec in EVENTS if spec.name in KINDS for alias in spec.aliases}
_REMEMBERED = 1_000_000

Rename = Callable[[str, str], str | None]
"""(kind, id) → what takes its place; None: nothing can."""


def pseudonym(subkey: bytes, kind: str, id: str) -> str:
    """The pseudonym of one id; the definition."""
    message = kind.encode() + b"\0" + id.encode()
    return LETTERS[kind] + hmac.digest(subkey, message, "sha256").hex()[:DIGITS]


def pseudonyms(subkey: bytes) -> Rename:
    """`pseudonym` with the subkey filled in, which remembers the ids that it saw last."""
    seen: dict[tuple[str, str], str] = {}

    def rename(kind: str, id: str) -> str:
        made = seen.get((kind, id))
        if made is None:
            if len(seen) >= _REMEMBERED:
                seen.clear()
            made = seen[kind, id] = pseudonym(subkey, kind, id)
        return made

    return rename


@dataclass(frozen=True)
class Place:
    """A place where ids stand. `certain`: what stands there must be an id; otherwise only texts and integers are."""

    kind: str
    certain: bool


@dataclass
class Places:
    """Where ids stand in records: under known names at any depth, and at the paths that were given.

    `keep`: names or dotted paths that are left as they are.
    """

    given: dict[str, str] = field(default_factory=dict)
    """Dotted path → kind."""
    keep: Collection[str] = ()
    _known: dict[tuple[str, ...], Place | None] = field(default_factory=dict, init=False, repr=False)

    def at(self, path: tuple[str, ...]) -> Place | None:
        """What kind of id stands at a path; None: none."""
        if path not in self._known:
            if len(self._known) >= _REMEMBERED:  # objects whose keys are data
                self._known.clear()
            self._known[path] = self._find(path)
        return self._known[path]

    def _find(self, path: tuple[str, ...]) -> Place | None:
        name, dotted = path[-1], ".".join(path)
        if dotted in self.given:
            return Place(self.given[dotted], True)
        if name in self.keep or dotted in self.keep:
            return None
        if name in KINDS:
            return Place(KINDS[name], True)
        return Place(ALIASES[name], False) if name in ALIASES else None


def places(columns: Sequence[str], keep: Sequence[str] = ()) -> Places:
    """Known places and those named by `PATH` or `PATH=KIND`; a path without a kind has that of its name, else person.

    Raises UsageError for a kind that there is not, and for a place that is both given and kept.
    """
    given: dict[str, str] = {}
    for text in columns:
        path, equals, kind = text.partition("=")
        kind = kind if equals else KINDS.get(path.rpartition(".")[2]) or ALIASES.get(path.rpartition(".")[2], "person")
        if not path or kind not in LETTERS:
            raise UsageError(f"--column is {text!r}; expected NAME or NAME=KIND{nearest(kind, LETTERS)}")
        given[path] = kind
    if both := sorted(set(given) & set(keep)):
        raise UsageError(f"{both[0]!r} is named by --column and by --keep")
    return Places(given, frozenset(keep))


def recorder(into: set[tuple[str, str]]) -> Rename:
    """Replaces nothing and notes every (kind, id)."""

    def rename(kind: str, id: str) -> str:
        into.add((kind, id))
        return id

    return rename


def remap(old: bytes, new: bytes, ids: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Pseudonym under the old subkey → pseudonym under the new one, of every (kind, id).

    It cannot be made from the pseudonyms alone: that a pseudonym cannot be turned back is its purpose. So it needs the
    ids, which the controller still has; of an id that is erased the pseudonyms die with the old key.
    """
    return {pseudonym(old, kind, id): pseudonym(new, kind, id) for kind, id in ids}


def remapped(mapping: dict[str, str]) -> Rename:
    """Replaces pseudonyms by those that `remap` found for them; None for others."""
    return lambda kind, id: mapping.get(id)


PROPS, BARE = "props", "id"
_ROWS = {spec.name: (spec.name, *spec.aliases) for spec in EVENTS}
PEOPLE = (*_ROWS["user_id"], *_ROWS["anon_id"])
ITEMS = _ROWS["item_id"]


@dataclass
class Replacing:
    """What is replaced by what, and how much of it there was. `pairs` gets who has which item, by the ids before."""

    rename: Rename
    places: Places
    pairs: Pairs | None = None
    replaced: dict[str, int] = field(default_factory=dict)
    """Dotted path (`a.*.z` for longer ones) → ids replaced."""
    unknown: bool = False
    """Whether the last record had an id for which there is nothing to put in its place."""
    bare: bool = False
    """Whether records have a field `id` of which nobody said whose it is: it is left alone."""
    _numbers: bool = False

    def record(self, record: dict[str, Any]) -> None:
        """Replace the ids of one record in place. Raises Rejected with the reason."""
        self.unknown = self._numbers = False
        if self.pairs is not None:
            self._pair(record)
        self.bare = self.bare or BARE in record
        self._object(record, ())

    def line(self, line: bytes) -> str:
        """One JSON object with its ids replaced, as JSON text in which numbers keep theirs."""
        record = parse_json(line)
        self.record(record)
        return self._text(record)

    def props(self, text: str) -> str:
        """A JSON object held in a text (the column `props`); text that is none, or has no ids in it, is left alone."""
        if not text.lstrip(ASCII_BLANK).startswith("{"):
            return text
        try:
            record = parse_json(text.encode())
        except Rejected:
            return text
        before, numbers = sum(self.replaced.values()), self._numbers
        self._object(record, (PROPS,))
        made = self._text(record)
        self._numbers = numbers
        return made if sum(self.replaced.values()) > before else text

    def cell(self, text: str, path: Path) -> str:
        """The cell of a table of text."""
        if not text.strip(ASCII_BLANK):
            return text
        place = self.places.at(path)
        if place is not None:
            return self._renamed(place.kind, text, path) or text
        return self.props(text) if path == (PROPS,) else text

    def array(self, values: pa.Array, path: Path) -> tuple[pa.Array, pa.Array | None]:
        """A column of the type `type_of` says, and which rows have an unknown id (None: no row has)."""
        kind = values.type
        place = self.places.at(path)
        if pa.types.is_struct(kind) and not (place and place.certain):
            return self._struct(values, path)
        if place is None and path != (PROPS,):
            return values, None
        if not _is_text(kind) and (place is None or not pa.types.is_integer(_plain(kind))):
            return values, None  # `type_of` has refused what would be an id and cannot
        coded = values.cast(pa.string()).dictionary_encode()
        named: list[str | None] = []
        counts = pc.value_counts(coded.indices.drop_null()).to_pylist()
        times = {entry["values"]: entry["counts"] for entry in counts}
        for place_in, text in enumerate(coded.dictionary.to_pylist()):
            if place is None:
                named.append(self.props(text))
            elif not text.strip(ASCII_BLANK):
                named.append(text)
            else:
                named.append(self._renamed(place.kind, text, path, times.get(place_in, 0)))
        made = pa.array(named, pa.string()).take(coded.indices)
        gone = pc.and_(made.is_null(), values.is_valid()) if None in named else None
        return made.cast(type_of(self.places, kind, path)), gone

    def _struct(self, values: pa.StructArray, path: Path) -> tuple[pa.Array, pa.Array | None]:
        children, gone = [], None
        for number in range(values.type.num_fields):
            child, bad = self.array(values.field(number), (*path, values.type.field(number).name))
            children.append(child)
            if bad is not None:
                gone = bad if gone is None else pc.or_(gone, bad)
        fields = list(type_of(self.places, values.type, path))
        return pa.StructArray.from_arrays(children, fields=fields, mask=values.is_null()), gone

    def _object(self, record: dict[str, Any], above: Path) -> None:
        for key, value in record.items():
            if value is None:
                continue
            path, kind = (*above, key), type(value)
            place = self.places.at(path)
            if place is not None and kind in (str, int):
                if kind is int or value.strip(ASCII_BLANK):
                    record[key] = self._renamed(place.kind, str(value), path) or value
            elif place is not None and place.certain:
                raise Rejected(f"{'.'.join(path)}: expected text or a whole number, got {json_type(value)}")
            elif kind is str and key == PROPS:
                record[key] = self.props(value)
            else:
                self._below(value, path)

    def _below(self, value: Any, path: Path) -> None:
        if isinstance(value, dict):
            self._object(value, path)
        elif isinstance(value, list):
            for entry in value:
                self._below(entry, path)
        elif type(value) is Number:
            self._numbers = True

    def _renamed(self, kind: str, id: str, path: Path, times: int = 1) -> str | None:
        made = self.rename(kind, id)
        if made is None:
            self.unknown = True
        else:
            # Keys on the way may be data themselves, and counts go into manifests.
            dotted = ".".join(path if len(path) < 3 else (path[0], "*", path[-1]))
            self.replaced[dotted] = self.replaced.get(dotted, 0) + times
        return made

    def _text(self, record: dict[str, Any]) -> str:
        # Python's encoder is written in C, but would write 1.10 as 1.1.
        return json_text(record) if self._numbers else json.dumps(record, ensure_ascii=False, separators=(",", ":"))

    def _pair(self, record: dict[str, Any]) -> None:
        person, item = _first(record, PEOPLE), _first(record, ITEMS)
        if self.pairs is not None and person is not None and item is not None:
            self.pairs.add(person, item)


def type_of(places: Places, kind: pa.DataType, path: Path) -> pa.DataType:
    """The type of a column once its ids are replaced: integers become text, other types stay.

    Raises Rejected for a type that holds no ids where ids must be, and for ids inside lists and maps.
    """
    place = places.at(path)
    plain = _plain(kind)
    if place is not None and (_is_text(kind) or pa.types.is_integer(plain)):
        return kind if _is_text(kind) and not pa.types.is_dictionary(kind) else pa.string()
    if place is not None and place.certain and not pa.types.is_null(kind):
        raise Rejected(f"{'.'.join(path)}: expected text or whole numbers, got {kind}")
    if pa.types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return pa.struct([field.with_type(type_of(places, field.type, (*path, field.name))) for field in fields])
    if _holds_ids(places, kind, path):
        raise Rejected(f"{'.'.join(path)}: ids inside lists are not supported in Parquet; expected JSON lines")
    return pa.string() if path == (PROPS,) and pa.types.is_dictionary(kind) and _is_text(kind) else kind


def _holds_ids(places: Places, kind: pa.DataType, path: Path) -> bool:
    if pa.types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return any(
            places.at((*path, field.name)) is not None or _holds_ids(places, field.type, (*path, field.name))
            for field in fields
        )
    if pa.types.is_map(kind):
        return _holds_ids(places, kind.item_type, path)
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return nested and _holds_ids(places, kind.value_type, path)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    plain = _plain(kind)
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain))


def _first(record: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these fields that holds an id."""
    for name in names:
        value = record.get(name)
        if (type(value) is str and value.strip(ASCII_BLANK)) or type(value) is int:
            return str(value)
    return None
