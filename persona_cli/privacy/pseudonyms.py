"""Pseudonyms: what stands in for an id outside, the same for the same id, key and recipient, and for nothing else.

    pseudonym = letter of the kind + first 32 hexadecimal digits of HMAC-SHA-256(subkey, kind + byte 0 + id in UTF-8)

The subkey is that of a key and a domain (`keys.subkey`). The kinds are kept apart: a user and a session that have the
same id have different pseudonyms. A user's id and an anonymous one are one kind, since the events that name both say
who is who. 128 bits are kept: among 10^9 ids two share a pseudonym with probability 1.5e-21.

Event ids are replaced as well: one that persona made is an unkeyed hash of the user's id and the event
(`events/batch.py`), which can be tried out for every user, and one that was given is the same in every export.

A pseudonym is personal data to whoever holds the key (GDPR Art. 4(5)), and hides nobody by itself: `unicity` counts how
many people a few of their items single out.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from persona_cli.errors import UsageError, nearest
from persona_cli.events.schema import EVENTS

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
