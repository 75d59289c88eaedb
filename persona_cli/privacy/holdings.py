"""What is held of one person, part by part, as documents for JSON, with the ids of other people written over.

An id of somebody else (GDPR Art. 15(4)) counts as `Needles` say: as a whole word, and one that could be anything else
(short, or digits alone) only under the name of a person's field; a short one of letters and digits also as a word of
free text, where only an id looks so. What is somebody's own is never written over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from persona_cli.consent.receipts import receipts
from persona_cli.errors import MissingInput
from persona_cli.events import quarantine
from persona_cli.events.catalogue import current
from persona_cli.events.judge import Rejected, json_text, parse_json
from persona_cli.events.schema import EVENTS, stored_schema
from persona_cli.events.store import NAME, scan_events
from persona_cli.privacy import removal
from persona_cli.privacy.access_page import HISTORY, meaning
from persona_cli.privacy.places import Needles, scrubbed
from persona_cli.privacy.pseudonyms import ALIASES, KINDS
from persona_cli.privacy.requests import Request
from persona_cli.profiles import fold as folding
from persona_cli.profiles import history as histories
from persona_cli.profiles import identity
from persona_cli.profiles.identity import raw_key
from persona_cli.profiles.people import person
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

Row = dict[str, Any]
_TOLD_APART = (
    NAME,
    "users",
    "accounts",
    "items",
    folding.NAME,
    histories.NAME,
    identity.NAME,
    identity.FIRSTS,
    quarantine.NAME,
)
_THOUSANDTHS = 1000


def events(home: Home, ids: Sequence[str]) -> list[Row]:
    """Stored events of these ids, oldest first, as native records; a device that is somebody else's is left out.

    Beside the fields of a native record each has `source` and `ingested_at`, which `line` leaves out.
    """
    theirs = scan_events(home).filter(raw_key().is_in(pl.Series(ids, dtype=pl.String).implode()))
    found = []
    for row in theirs.sort("timestamp", "event_id", "month").collect().iter_rows(named=True):
        record: Row = {}
        for field in EVENTS:
            value = row.get(field.name)
            if value is None or field.transient or (field.name == "anon_id" and value not in ids):
                continue
            place = record.setdefault("context", {}) if field.context else record
            place[field.name] = plain(value)
        if row["props"]:
            record["props"] = parse_json(row["props"].encode())
        found.append({**record, "source": row["source"], "ingested_at": plain(row["ingested_at"])})
    return found


def line(event: Mapping[str, Any], strangers: Strangers) -> str:
    """One event as a line that `persona ingest` reads as the same event."""
    record = {name: value for name, value in event.items() if name not in ("source", "ingested_at")}
    return json_text(strangers.hidden(record))


def profile(home: Home, user: str) -> Row | None:
    """What follows from the events, each value with what it means; None without any."""
    try:
        found = person(home, user, top=50, purpose=None)
    except MissingInput:
        return None
    features = found.pop("features")
    values = [{"name": name, "value": plain(value), "means": meaning(name)} for name, value in found.items()]
    values += [{"name": name, "value": plain(value), "means": meaning(name)} for name, value in features.items()]
    return {"values": values}


def history(home: Home, who: str) -> Row:
    """What was done with each item by day, and the interest that is left of it by now."""
    table = tables.open_table(home, histories.NAME)
    days = histories.NOBODY
    if table is not None and set(histories.SCHEMA.names) <= set(table.schema.names):  # else of an older persona
        days = histories.summed(table.scan().drop("bucket").filter(pl.col("user_id") == who))
    left = histories.faded(days, home.settings)
    titles = current(home, "items").select("item_id", "title", "category")
    by_day = days.join(titles, on="item_id", how="left").sort("day", "item_id").to_dicts()
    by_item = left.join(titles, on="item_id", how="left").sort("strength", "item_id", descending=[True, False])
    shown = ("day", "item_id", "title", "n", "consumed", "never")
    return {
        "means": HISTORY,
        "interests": [
            {"item_id": one["item_id"], "title": one["title"], "category": one["category"], "faded": one["strength"]}
            for one in by_item.to_dicts()
        ],
        "days": [
            {name: plain(one[name]) for name in shown} | {"strength": one["strength"] / _THOUSANDTHS} for one in by_day
        ],
    }


def attributes(home: Home, ids: Sequence[str]) -> Row:
    """Rows of the tables users, accounts (of accounts that these name), links and identities."""
    mine = pl.Series(ids, dtype=pl.String).implode()
    users = _rows(home, "users", pl.col("user_id").is_in(mine))
    seen = scan_events(home).filter(raw_key().is_in(mine)).select(pl.col("account_id").drop_nulls().unique()).collect()
    named = pl.Series(sorted({*seen["account_id"], *(row["account_id"] for row in users)} - {None}), dtype=pl.String)
    links = tables.scan(home, identity.NAME, identity.SCHEMA).filter(
        pl.col("anon_id").is_in(mine), pl.col("user_id").is_in(mine)
    )
    firsts = tables.scan(home, identity.FIRSTS, identity.FIRSTS_SCHEMA).filter(pl.col("id").is_in(mine))
    return {
        "users": users,
        "accounts": _rows(home, "accounts", pl.col("account_id").is_in(named.implode())),
        "links": _plain(links.drop("file").sort("anon_id", "user_id", "at").collect()),
        "first_seen": _plain(firsts.sort("id").collect()),
    }


def consents(home: Home, ids: Sequence[str]) -> list[Row]:
    """What was allowed or refused, the latest last; without the digests."""
    return [
        {name: plain(value) for name, value in one._asdict().items() if name != "subject"}
        for one in receipts(home, ids)
    ]


def request(one: Request) -> Row:
    return {name: plain(value) for name, value in vars(one).items() if name != "subjects"}


def rejected(home: Home, ids: Sequence[str]) -> list[Row]:
    """Kept lines that could not be accepted and name one of the ids: kind, source, line, reason, when, and the text."""
    needles = Needles(frozenset(ids))
    found = []
    for row in quarantine.lines(home).collect().iter_rows(named=True):
        text = (row["raw"] or b"").decode("utf-8", "replace")
        if needles.mentions(text, fields=True, quoted=False):
            said = {name: plain(row[name]) for name in ("kind", "source", "reason", "rejected_at")}
            found.append({**said, "number": row["line"], "line": text})
    return found


def others(home: Home, ids: Sequence[str]) -> Row:
    """Rows of every other table or file that has a column of persons (decisions, experiments, evaluations)."""
    mine = pl.Series(ids, dtype=pl.String).implode()
    found: Row = {}
    for name in tables.names(home):
        table = tables.open_table(home, name)
        if table is None or name in _TOLD_APART:
            continue
        columns = [column for column in removal.PERSONS if column in table.schema.names]
        if columns:
            theirs = pl.any_horizontal(pl.col(column).is_in(mine) for column in columns)
            found[name] = _plain(table.scan().filter(theirs.fill_null(False)).collect())
    for path, columns in removal.files(home):
        theirs = pl.any_horizontal(pl.col(column).is_in(mine) for column in columns)
        rows = pl.read_parquet(path).filter(theirs.fill_null(False))
        if rows.height:
            found[path.relative_to(home.root).as_posix()] = _plain(rows)
    return {name: rows for name, rows in sorted(found.items()) if rows}


def plain(value: Any) -> Any:
    """`value` as JSON has it: times as ISO 8601 in UTC, what is no number as null."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _rows(home: Home, kind: Any, mine: pl.Expr) -> list[Row]:
    rows = tables.scan(home, kind, stored_schema(kind)).filter(mine).collect()
    return _plain(rows)


def _plain(rows: pl.DataFrame) -> list[Row]:
    """Rows in an order that does not depend on how they are stored."""
    made: list[Row] = [plain(row) for row in rows.iter_rows(named=True)]
    return sorted(made, key=json_text)


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
