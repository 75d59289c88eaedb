"""What is held of one person, part by part, as documents for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from persona_cli.consent.receipts import receipts
from persona_cli.errors import MissingInput
from persona_cli.events import quarantine
from persona_cli.events.catalogue import current
from persona_cli.events.judge import json_text, parse_json
from persona_cli.events.schema import EVENTS, stored_schema
from persona_cli.events.store import NAME, scan_events
from persona_cli.privacy import per_user
from persona_cli.privacy.access_words import HISTORY, meaning
from persona_cli.privacy.needles import Needles
from persona_cli.privacy.requests import Request
from persona_cli.profiles import fold as folding
from persona_cli.profiles import history as histories
from persona_cli.profiles import identity
from persona_cli.profiles.identity import raw_key
from persona_cli.profiles.people import person
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

if TYPE_CHECKING:
    from persona_cli.privacy.strangers import Strangers

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
        columns = [column for column in per_user.PERSONS if column in table.schema.names]
        if columns:
            theirs = pl.any_horizontal(pl.col(column).is_in(mine) for column in columns)
            found[name] = _plain(table.scan().filter(theirs.fill_null(False)).collect())
    for path, columns in per_user.files(home):
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
