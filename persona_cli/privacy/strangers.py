"""Ids of other people in what is handed to one person (GDPR Art. 15(4)): found, and written over.

An id counts as `needles` says: as a whole word, and one that could be anything else (short, or digits alone) only under
the name of a person's field; a short one of letters and digits also as a word of free text, where only an id looks so.
What is somebody's own is never written over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from persona_cli.events.judge import Rejected, json_text, parse_json
from persona_cli.events.schema import stored_schema
from persona_cli.events.store import scan_events
from persona_cli.privacy.needles import Needles
from persona_cli.privacy.places import scrubbed
from persona_cli.privacy.pseudonyms import ALIASES, KINDS
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

SOMEBODY = "[somebody else]"
_PERSON_FIELDS = frozenset(name for names in (KINDS, ALIASES) for name, kind in names.items() if kind == "person")
_WORDS = (re.compile(r"[^\s,;|\"'()<>\[\]{}/?&=#]+"), re.compile(r"[\w.@+-]+"), re.compile(r"\w+"))
_AROUND = ".:!…"
_FREE = frozenset(("props", "query", "target", "page", "referrer", "campaign", "source", "line", "proof", "notice"))
"""Fields in which anything may stand, and all that lies in them."""


class Strangers:
    """The ids of others among all texts of some documents."""

    def __init__(self, home: Home, own: Iterable[str], documents: Iterable[Any]) -> None:
        self.own = frozenset(own)
        words = {word for document in documents for text in _texts(document) for word in _words(text)}
        asked = pl.Series(sorted(words - self.own), dtype=pl.String)
        found = set[str]()
        for rows, names in (
            (scan_events(home), ("user_id", "anon_id")),
            (tables.scan(home, "users", stored_schema("users")), ("user_id",)),
        ):
            for name in names:
                theirs = rows.select(id=name).filter(pl.col("id").is_in(asked.implode())).unique().collect()
                found |= set(theirs["id"].to_list())
        self.needles = Needles(frozenset(found - self.own))
        named = sorted(one for one in self.needles.short if not one.isdigit() and not one.isalpha() and len(one) > 2)
        self._short = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, named))})(?![\w-])") if named else None

    def hidden(self, value: Any, field: str = "", free: bool = False) -> Any:
        """The same document without ids of others; `field` is under which name it stands, `free`: in free text."""
        free = free or field in _FREE
        if not self.needles.ids:
            return value
        if isinstance(value, str):
            if value in self.own:
                return value
            if field in _PERSON_FIELDS and value in self.needles.ids:
                return SOMEBODY
            text = self._short.sub(SOMEBODY, value) if free and self._short else value
            return scrubbed(text, self.needles, SOMEBODY)
        if isinstance(value, Mapping):
            return {self.hidden(key, "", free): self.hidden(one, key, free) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.hidden(one, field, free) for one in value]
        if isinstance(value, int) and not isinstance(value, bool) and field in _PERSON_FIELDS:
            return SOMEBODY if str(value) in self.needles.ids else value
        return value

    def hidden_line(self, text: str) -> str:
        """A line as somebody sent it: JSON is looked at by its fields, anything else as a text."""
        try:
            return json_text(self.hidden(parse_json(text.encode()), free=True)) if self.needles.ids else text
        except Rejected:
            pass
        parts = re.split(r"([,;\t|])", text)
        shown = [SOMEBODY if part.strip().strip("\"'") in self.needles.short else part for part in parts]
        return scrubbed("".join(shown), self.needles, SOMEBODY)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a document, keys too; numbers by their text, since an id may be one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from (str(key), *_texts(one))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)


def _words(text: str) -> Iterator[str]:
    yield text
    for pattern in _WORDS:
        for word in pattern.findall(text):
            yield word
            yield word.strip(_AROUND)
