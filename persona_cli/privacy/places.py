"""What to look for when everything of some people is searched, and where a workspace holds rows and words of them.

An id that could be anything else (shorter than 6 bytes, or digits alone) counts only as a whole value: of a column that
is not known to be about something else (an item `7` is not the user `7`), or in a text as a quoted word or as what
stands under the name of a person's field; in a file of text it depends on the file. Any other id counts wherever it
stands as a whole word, so `u-1234` is not found in `u-12345`, and is in `exports/u-1234.csv`.

Places are counted and emptied: tables, by their columns of persons; rejected lines that name somebody; texts of others
that do; the item sums' rows; figures of users in evaluations and experiments; manifests of runs; reports. What is left
to `settling` follows from these. Files that belong to none of them (exports somebody put here, the settings) are only
found by the search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from persona_cli.events import quarantine
from persona_cli.events.schema import ACCOUNTS, EVENTS, ITEMS, USERS
from persona_cli.events.store import NAME as EVENT_TABLE
from persona_cli.privacy import removal
from persona_cli.privacy.pseudonyms import ALIASES, KINDS
from persona_cli.privacy.removal import MARK, remove_where
from persona_cli.profiles import fold as folding
from persona_cli.profiles import history as histories
from persona_cli.profiles.identity import FIRSTS, NAME, raw_key
from persona_cli.workspace import artifacts, runs, tables
from persona_cli.workspace.home import Home

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


_PAGES = (".html", ".svg", ".css", ".js", ".md")
_PIECES = re.compile(r"[^\s\"',;:<>{}\[\]()=]+")
_JSON_TEXTS = re.compile(r'"([^"\n]{1,1000})"')
_ID_OPTIONS = ("--user", "--users")


def in_text(text: str, name: str, needles: Needles) -> bool:
    """Whether the text of the file `name` names one of them."""
    if needles.spans(text):
        return True
    if needles.digests and needles.digest is not None and _digested(text, needles):
        return True
    if not needles.short:
        return False
    if name.startswith("runs/"):
        return _in_run(text, needles)
    # Numbers are quoted in pages and logs of tables for other reasons.
    plain = name.endswith(_PAGES) or "/_delta_log/" in f"/{name}" or name.startswith(("models/", "derived/", ".locks/"))
    return needles.mentions(text, fields=name.endswith((".csv", ".tsv")), quoted=not plain)


def _in_run(text: str, needles: Needles) -> bool:
    """A run's manifest: words of its command, but for the values of options that are no ids."""
    try:
        said: Any = json.loads(text)
        words = [str(word) for word in said["arguments"]]
    except (ValueError, KeyError, TypeError):
        return needles.mentions(text)
    if any(value in needles.short for value in person_values(text)):
        return True
    for word, before in zip(words, ["", *words], strict=False):
        option = before.startswith("-") and before.partition("=")[0] not in _ID_OPTIONS
        if not option and word.partition("=")[2 if word.startswith(_ID_OPTIONS) else 0] in needles.short:
            return True
    return False


def _digested(text: str, needles: Needles) -> bool:
    assert needles.digest is not None
    words = {*_PIECES.findall(text), *_JSON_TEXTS.findall(text)}
    return any(needles.digest(word) in needles.digests for word in words)


_FOLLOWING = (folding.NAME, histories.NAME, NAME, FIRSTS)
"""Tables that follow from the events: settling brings them up to date."""
_WORDS = ("source", "props", "target", "query", "page", "referrer", "campaign", "context", "choice")
"""Texts in which somebody may be named beside whose row it is."""
ERASED = "[erased]"


def held(home: Home, needles: Needles) -> dict[str, int]:
    """Rows (of texts and reports: files) that are of the persons or name them, by place; places without any too."""
    ids = needles.values
    found: dict[str, int] = {}
    for name in tables.names(home):
        table = tables.open_table(home, name)
        assert table is not None
        if name == quarantine.NAME:
            found[name] = int(table.scan().select(_named(needles).sum()).collect().item())
        elif (hit := _theirs(name, table.schema.names, ids)) is not None:
            found[name] = int(table.scan().select(hit.sum()).collect().item())
    folder = home.path("models", "gram")
    parts = [path for path in folder.glob("*/rows/*.parquet") if not path.parts[-3].startswith(".")]
    if parts:
        rows = pl.scan_parquet(parts).select(pl.col("user_id").is_in(ids.implode()).sum())
        found["models/gram"] = int(rows.collect().item())
    for path, columns in removal.files(home):
        hit = pl.any_horizontal(pl.col(name).is_in(ids.implode()) for name in columns).fill_null(False)
        place = path.relative_to(home.root).parts[0]
        found[place] = found.get(place, 0) + int(pl.scan_parquet(path).select(hit.sum()).collect().item())
    for place, paths in (("runs", _runs(home, needles)), ("reports", _reports(home, needles))):
        found[place] = len(list(paths))
    return dict(sorted(found.items()))


def remove(home: Home, needles: Needles) -> None:
    """Take rows out of all tables that do not follow from others, and words out of texts; under the lock `tables`.

    An event of somebody else that a device of theirs sent keeps its row and loses the device's id.
    """
    ids = needles.values
    of_device = pl.when(pl.col("anon_id").is_in(ids.implode())).then(None).otherwise(pl.col("anon_id"))
    gone = raw_key().is_in(ids.implode())
    remove_where(home, EVENT_TABLE, gone, {"anon_id": of_device}, {"removed": MARK})
    for name in tables.names(home):
        table = tables.open_table(home, name)
        assert table is not None
        if name == quarantine.NAME:
            remove_where(home, name, _named(needles))
        elif name not in (EVENT_TABLE, *_FOLLOWING) and (hit := _theirs(name, table.schema.names, ids)) is not None:
            remove_where(home, name, hit)
        if name not in _FOLLOWING:
            _scrub(home, name, needles)
    for path in _runs(home, needles):
        _rewrite_run(home, path, needles)
    for path in _reports(home, needles):
        path.unlink(missing_ok=True)


def _theirs(name: str, columns: list[str], ids: pl.Series) -> pl.Expr | None:
    """Whether a row is of one of them; None where the table has no column of persons."""
    persons = [column for column in (*removal.PERSONS, *(("id",) if name == FIRSTS else ())) if column in columns]
    if not persons:
        return None
    return pl.any_horizontal(pl.col(column).is_in(ids.implode()) for column in persons).fill_null(False)


def _named(needles: Needles) -> pl.Expr:
    """Whether a rejected line names one of them."""

    def lines(raw: pl.Series) -> pl.Series:
        texts = [(line or b"").decode("utf-8", "replace") for line in raw.to_list()]
        return pl.Series([needles.mentions(text, fields=True, quoted=False) for text in texts], dtype=pl.Boolean)

    return pl.col("raw").map_batches(lines, return_dtype=pl.Boolean)


def _scrub(home: Home, name: str, needles: Needles) -> None:
    """Write `[erased]` where a text of somebody else's row names one of them."""
    table = tables.open_table(home, name)
    if table is None or not needles.long:
        return
    put = {}
    for column in (column for column in _WORDS if column in table.schema.names):
        values = table.scan().select(pl.col(column).drop_nulls().unique()).collect()[column]
        if len(found := needles.among(values, column, leaf=False)):
            put[column] = pl.col(column).replace(
                found, pl.Series([scrubbed(text, needles) for text in found.to_list()])
            )
    if put:
        remove_where(home, name, pl.lit(False), put)


def scrubbed(text: str, needles: Needles, put: str = ERASED) -> str:
    """The text with `put` for every word that is one of the ids."""
    made, at = [], 0
    for start, end in needles.spans(text):
        if start >= at:
            made += [text[at:start], put]
            at = end
    return "".join((*made, text[at:]))


def _runs(home: Home, needles: Needles) -> Iterator[Path]:
    for path in sorted(home.path("runs").glob("*.json")):
        if in_text(path.read_text(encoding="utf-8", errors="replace"), f"runs/{path.name}", needles):
            yield path


def _reports(home: Home, needles: Needles) -> Iterator[Path]:
    for path in sorted(path for path in home.path("reports").rglob("*") if path.is_file()):
        name = path.relative_to(home.root).as_posix()
        if in_text(path.read_bytes().decode("utf-8", "replace"), name, needles) or needles.spans(name):
            yield path


def _rewrite_run(home: Home, path: Path, needles: Needles) -> None:
    """The manifest with keyed digests for ids."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for one in needles.long:
        text = scrubbed(text, Needles(frozenset((one,))), runs.digest_id(home, one))
    try:
        said = json.loads(text)
        words = [runs.digest_id(home, word) if word in needles.short else word for word in said["arguments"]]
        text = json.dumps({**said, "arguments": words}, indent=2, ensure_ascii=False) + "\n"
    except (ValueError, KeyError, TypeError):
        pass
    artifacts.write_text(path, text)
