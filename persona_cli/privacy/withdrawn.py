"""People whom no purpose has a basis for any more: what is stored of them goes some days after they said so.

Nothing new of them is collected from the moment they refuse (`consent.gate`), and nothing is used. What was stored
before stays for `privacy.retention.withdrawn_days`, in which a refusal can be taken back. People of whom no word is
known are not among them: where a purpose rests on consent since lately, their events are unused until they expire.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from persona_cli.consent.gate import GIVEN, Gate
from persona_cli.consent.receipts import COVERING
from persona_cli.consent.subjects import subjects
from persona_cli.events.schema import stored_schema
from persona_cli.events.store import NAME as EVENTS
from persona_cli.events.store import iso
from persona_cli.privacy.removal import remove_where
from persona_cli.profiles.identity import persons
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_IDS = ("user_id", "anon_id")


def withdrawn(home: Home, cut: datetime, since: datetime | None = None) -> pl.Series:
    """Every id of persons whom no purpose covered at the cut, by a word of theirs, nor covers now; sorted.

    Files of events that all happened before `since` are not read.
    """
    none = pl.Series("id", [], dtype=pl.String)
    now, then = Gate.of(home), Gate.of(home, cut)
    if now.trivial or not (refused := _refused(then, cut)).len():
        return none
    ids = _stored_ids(home, since)
    who = persons(home).of(ids)
    said = subjects(home, ids).is_in(refused.implode()) | subjects(home, who).is_in(refused.implode())
    theirs = who.is_in(who.filter(said).unique().implode())
    ids, who = ids.filter(theirs), who.filter(theirs)
    return ids.filter(~now.covers(ids, who) & ~then.covers(ids, who)).alias("id")


def stored(home: Home, ids: pl.Series, since: datetime | None = None) -> int:
    """Events (from `since` on) and rows of users of these ids."""
    if not len(ids):
        return 0
    users = tables.scan(home, "users", stored_schema("users"))
    counts = [rows.filter(_theirs(name, ids)).select(pl.len()).collect().item()
              for name, rows in ((EVENTS, _events(home, since)), ("users", users))]  # fmt: skip
    return sum(counts)


def remove(home: Home, ids: pl.Series) -> dict[str, int]:
    """Take the events and rows of users of these ids out; an anonymous id of theirs leaves events of other users."""
    alias = pl.when(~pl.col("anon_id").is_in(ids.implode())).then("anon_id").alias("anon_id")
    return {
        EVENTS: remove_where(home, EVENTS, _theirs("events", ids), {"anon_id": alias}, {"expired": "withdrawn"}),
        "users": remove_where(home, "users", _theirs("users", ids), None, {"expired": "withdrawn"}),
    }


def _theirs(name: str, ids: pl.Series) -> pl.Expr:
    return (pl.coalesce(_IDS) if name == "events" else pl.col("user_id")).is_in(ids.implode())


def _refused(then: Gate, cut: datetime) -> pl.Series:
    """Digests of ids that had refused a purpose that events are collected for."""
    words = then.words.filter(pl.col("purpose").is_in(list(COVERING)) & (pl.col("state") != GIVEN))
    return words.filter(pl.col("at") < int(cut.timestamp() * 1_000_000))["subject"].unique()


def _stored_ids(home: Home, since: datetime | None) -> pl.Series:
    """Ids in events and users, sorted."""
    events, users = _events(home, since), tables.scan(home, "users", stored_schema("users"))
    places = ((events, "user_id"), (events, "anon_id"), (users, "user_id"))
    parts = [rows.select(pl.col(name).alias("id")) for rows, name in places]
    return pl.concat(parts).unique().drop_nulls().sort("id").collect()["id"]


def _events(home: Home, since: datetime | None) -> pl.LazyFrame:
    table = tables.open_table(home, EVENTS)
    if table is None or since is None:
        return tables.scan(home, EVENTS, stored_schema("events"), ["month"])
    files = [file for file in table.files if file.last is None or file.last >= iso(since)]
    return table.scan(files).filter(pl.col("timestamp") >= since)
