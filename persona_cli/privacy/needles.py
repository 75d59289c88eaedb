"""What to look for when everything of some people is searched, and where in a text it counts.

An id that could be anything else (shorter than 6 bytes, or digits alone) counts only as a whole value: of a column that
is not known to be about something else (an item `7` is not the user `7`), or in a text as a quoted word or as what
stands under the name of a person's field. Any other id counts wherever it stands as a whole word, so `u-1234` is not
found in `u-12345`, and is in `exports/u-1234.csv`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from urllib.parse import quote

import polars as pl

from persona_cli.events.schema import ACCOUNTS, EVENTS, ITEMS, USERS
from persona_cli.privacy.pseudonyms import ALIASES, KINDS

SHORT = 6
"""Bytes below which an id is not looked for inside texts."""
_PERSON = frozenset(name for names in (KINDS, ALIASES) for name, kind in names.items() if kind == "person")
PERSON_COLUMNS = ("user_id", "anon_id", "id")
_OTHERWISE = frozenset(field.name for fields in (EVENTS, ITEMS, ACCOUNTS, USERS) for field in fields) | frozenset(
    ("kind", "run", "reason", "dialect", "month", "bucket", "file", "model", "currency", "source", "target", "feature")
)
_NOT_OF_PERSONS = _OTHERWISE - frozenset(PERSON_COLUMNS)
_WORD = re.compile(r"[0-9A-Za-z_\x80-\U0010ffff]")
_FIELD = re.compile(
    '"(?:' + "|".join(sorted(map(re.escape, _PERSON))) + r')"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|(-?[0-9][0-9.eE+-]*))'
)
_QUOTED = re.compile(r'"([^"\\\n]{1,24})"|\'([^\'\\\n]{1,24})\'')
_BETWEEN = re.compile(r"[,;\t|]")


@dataclass(frozen=True)
class Needles:
    """Ids, and what stands for them outside, to be looked for."""

    ids: frozenset[str]
    digests: frozenset[bytes] = frozenset()
    """Keyed digests of values that are not known any more: found where a whole value or word has one of them."""
    digest: Callable[[str], bytes] | None = field(default=None, repr=False)

    @cached_property
    def values(self) -> pl.Series:
        return pl.Series("value", sorted(self.ids), dtype=pl.String)

    @cached_property
    def long(self) -> list[str]:
        """Those that cannot be taken for anything else, in every way in which texts write them."""
        found = {one for one in self.ids if not common(one)}
        return sorted(found | {written for one in found for written in _written(one)})

    @cached_property
    def short(self) -> frozenset[str]:
        return frozenset(one for one in self.ids if common(one))

    def among(self, values: pl.Series, column: str, leaf: bool = True) -> pl.Series:
        """Those of distinct texts that are one of the ids (`leaf`), or mention one, sorted; `column` is their name."""
        values = values.drop_nulls()
        hit = values.is_in(self.values.implode()) if leaf else pl.Series([False]).new_from_index(0, len(values))
        if self.short and column in _NOT_OF_PERSONS:
            hit = hit & ~values.is_in(pl.Series(sorted(self.short)).implode())
        if self.long:
            maybe = ~hit & values.str.contains_any(self.long)
            if maybe.any():
                said = values.filter(maybe)
                told = {text for text in said.to_list() if self.spans(text)}
                hit = hit | values.is_in(pl.Series(sorted(told), dtype=pl.String).implode())
        if self.short and column in ("props", "raw"):
            texts = values.filter(~hit)
            told = {text for text in texts.to_list() if self._short_in(text, column == "raw", quoted=False)}
            hit = hit | values.is_in(pl.Series(sorted(told), dtype=pl.String).implode())
        if self.digests and self.digest is not None:
            digest, digests = self.digest, self.digests
            told = {text for text in values.filter(~hit).to_list() if digest(text) in digests}
            hit = hit | values.is_in(pl.Series(sorted(told), dtype=pl.String).implode())
        return values.filter(hit).sort()

    def mentions(self, text: str, fields: bool = False, quoted: bool = True) -> bool:
        """Whether a text names one of them. `fields`: also as a whole field between , ; tab or |."""
        if self.spans(text):
            return True
        return bool(self.short) and self._short_in(text, fields, quoted)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of every long one that stands in the text as a whole word."""
        if not self.long:
            return []
        found = []
        for one in self.long if len(self.long) <= 8 else self._candidates(text):
            start = text.find(one)
            while start >= 0:
                end = start + len(one)
                if _apart(text, start, end):
                    found.append((start, end))
                start = text.find(one, start + 1)
        return sorted(set(found))

    def _candidates(self, text: str) -> Iterable[str]:
        found: list[str] = (
            pl.Series([text]).str.extract_many(self.long, overlapping=True).explode().drop_nulls().unique().to_list()
        )
        return found

    def _short_in(self, text: str, fields: bool = False, quoted: bool = True) -> bool:
        if any(value in self.short for value in person_values(text)):
            return True
        if quoted and any((match[1] or match[2]) in self.short for match in _QUOTED.finditer(text)):
            return True
        if not fields or text.lstrip()[:1] in ("{", "["):
            return False
        return any(part.strip().strip("\"'") in self.short for part in _BETWEEN.split(text))


def common(id: str) -> bool:
    """Whether an id could be anything else: it is short, or a number."""
    return len(id.encode()) < SHORT or (id.isascii() and id.isdigit())


def _written(id: str) -> tuple[str, ...]:
    """An id as JSON, addresses and pages write it."""
    return json.dumps(id)[1:-1], json.dumps(id, ensure_ascii=False)[1:-1], quote(id, safe=""), escape(id)


def person_values(text: str) -> Iterator[str]:
    """What stands under the names of persons' fields in a text that has JSON in it; numbers by their text."""
    for match in _FIELD.finditer(text):
        yield match[1] if match[1] is not None else match[2]


def _apart(text: str, start: int, end: int) -> bool:
    """Whether what stands there is not part of a longer word."""
    before = start == 0 or not (_WORD.match(text[start - 1]) and _WORD.match(text[start]))
    after = end == len(text) or not (_WORD.match(text[end]) and _WORD.match(text[end - 1]))
    return before and after
