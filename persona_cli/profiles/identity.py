"""Which ids are one person: an id that was identified belongs to the user it was identified as.

An event of a type in `identity.link_events` that names both an `anon_id` and a `user_id` links the first to the second:
everything done under the anonymous id, before or after, is then done by that user. Links are a view of the events and
nothing is rewritten, so taking the events back (`ingest undo`) parts the ids again, and a link counts as of a past
moment only if it had been made then.

An id that was linked to several users belongs to the first of them in time (of equal times the one that sorts first):
a device that is handed on does not carry the old owner's past to the new one. Links form chains; of ids that are linked
in a circle the one that sorts first is the person.

Which links each file of events holds is kept in the table `links`, so that no file is searched twice. The table
`identities` keeps, for every linked id, when it was first stored: experiments assign a person by the first id seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

NAME, FIRSTS = "links", "identities"
SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("anon_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("at", UTC_MICROSECONDS),
        pa.field("stored_at", UTC_MICROSECONDS),
    ]
)
FIRSTS_SCHEMA = pa.schema(
    [pa.field("id", pa.string()), pa.field("stored_at", UTC_MICROSECONDS), pa.field("at", UTC_MICROSECONDS)]
)
_NONE = pl.Schema(SCHEMA).to_frame()
_NO_FIRSTS = pl.Schema(FIRSTS_SCHEMA).to_frame()


@dataclass(frozen=True)
class Persons:
    """Ids that are somebody else's, and whose."""

    ids: pl.Series
    """Linked ids, sorted (n_ids,)."""
    persons: pl.Series
    """The user that each belongs to (n_ids,)."""

    def key(self) -> pl.Expr:
        """Whose event it is, as `user_id`: the person behind the user's id, else behind the anonymous one."""
        return self.resolved(raw_key())

    def resolved(self, id: pl.Expr) -> pl.Expr:
        return id.replace(self.ids, self.persons) if len(self.ids) else id

    def folded(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Those of the stored events that are folded: all of them."""
        return events

    def of(self, ids: pl.Series) -> pl.Series:
        """The person behind each id (n,)."""
        return ids.to_frame("id").select(self.resolved(pl.col("id"))).to_series().alias(ids.name)

    def ids_of(self, persons: pl.Series) -> pl.Series:
        """Every id of these persons, their own included, sorted."""
        theirs = self.ids.filter(self.persons.is_in(persons.implode()))
        return pl.concat([persons.cast(pl.String).alias("id"), theirs.alias("id")]).unique().sort()


def raw_key() -> pl.Expr:
    """The id that an event was recorded under, as `user_id`: the user's, else the anonymous one."""
    return pl.coalesce("user_id", "anon_id").alias("user_id")


def persons(home: Home, as_of: datetime | None = None, known_at: datetime | None = None) -> Persons:
    """Who is who by the links made before `as_of` and stored until `known_at`."""
    events = tables.open_table(home, "events")
    if events is None:
        return NOBODY
    found = Links.of(home, events).rows
    if as_of is not None:
        found = found.filter(pl.col("at") < as_of)
    if known_at is not None:
        found = found.filter(pl.col("stored_at") <= known_at)
    return resolve(found)


def resolve(links: pl.DataFrame) -> Persons:
    """Persons of links (anon_id, user_id, at), in any order."""
    if not links.height:
        return NOBODY
    first = links.sort("anon_id", "at", "user_id").unique("anon_id", keep="first", maintain_order=True)
    ids = pl.concat([first["anon_id"].alias("id"), first["user_id"].alias("id")]).unique().sort()
    parents = np.arange(len(ids))
    parents[_places(first["anon_id"], ids)] = _places(first["user_id"], ids)
    roots = _roots(parents)
    moved = np.flatnonzero(roots != np.arange(len(ids)))
    return Persons(ids.gather(moved), ids.gather(roots[moved]))


NOBODY = Persons(pl.Series("id", dtype=pl.String), pl.Series("id", dtype=pl.String))


def _places(ids: pl.Series, among: pl.Series) -> NDArray[np.int64]:
    return np.asarray(among.search_sorted(ids), dtype=np.int64)


def _roots(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where following the parents ends for each (n,); a circle ends at its first member."""
    ends = _followed(parents)
    on_circles = np.unique(ends[parents[ends] != ends])
    if len(on_circles):
        parents = parents.copy()
        left = set(on_circles.tolist())
        for start in on_circles.tolist():  # ascending: the first met of a circle is its first member
            if start in left:
                at = start
                while at in left:
                    left.remove(at)
                    at = int(parents[at])
                parents[start] = start
        ends = _followed(parents)
    return ends


def _followed(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place after at least n steps, by doubling."""
    ends = parents
    for _ in range(max(len(parents).bit_length(), 1)):
        ends = ends[ends]
    return ends


@dataclass(frozen=True)
class Links:
    """The links of every file of events, those that the table does not know yet searched for now."""

    rows: pl.DataFrame
    """file, anon_id, user_id, at, stored_at."""
    table: Table | None
    searched: tuple[File, ...]
    """Files that the table does not know."""

    @classmethod
    def of(cls, home: Home, events: Table, more: Sequence[File] = ()) -> Links:
        """Of the files of `events` and of `more`, which it may have lost."""
        table = tables.open_table(home, NAME)
        types = home.settings.texts("identity.link_events")
        rule = ",".join(sorted(types))
        known = set[str]()
        kept = _NONE
        said = table.metadata if table is not None else {}
        if table is not None and said.get("events_table") == events.id and said.get("rule") == rule:
            since = int(said["events_version"])
            changed = events.changes(since) if since != events.version else ([], [])
            if changed is not None:
                kept = table.scan().collect()
                new = {file.path for file in changed[0]}
                known = {file.path for file in events.files if file.path not in new}
                known |= {file.path for file in changed[1]}
        wanted = {file.path: file for file in (*events.files, *more)}
        missing = tuple(file for path, file in wanted.items() if path not in known)
        found = [kept.filter(pl.col("file").is_in(list(wanted)))]
        found += [_searched(events, file, types) for file in missing]
        return cls(pl.concat(found), table, missing)

    def persons(self, files: Iterable[File]) -> Persons:
        """Who is who by the links in these files alone."""
        return resolve(self.rows.filter(pl.col("file").is_in([file.path for file in files])))

    def save(self, home: Home, events: Table) -> None:
        """Bring the tables `links` and `identities` to the version of the events."""
        rule = ",".join(sorted(home.settings.texts("identity.link_events")))
        state = {"events_table": events.id, "events_version": str(events.version), "rule": rule}
        table = tables.open_or_create(home, NAME, SCHEMA)
        here = {file.path for file in events.files}
        rows = self.rows.filter(pl.col("file").is_in(list(here))).sort("file", "anon_id", "user_id", "at")
        if table.metadata.get("events_version") == state["events_version"] and table.metadata.get("rule") == rule:
            return
        if rows.height or tables.exists(home, FIRSTS):
            _save_firsts(home, events, rows, state)
        table.commit([table.write(rows, {})] if rows.height else [], table.files, metadata=state)


def _searched(events: Table, file: File, types: Sequence[str]) -> pl.DataFrame:
    linking = pl.lit(True) if "*" in types else pl.col("event_type").is_in(list(types))
    both = pl.col("anon_id").is_not_null() & pl.col("user_id").is_not_null() & (pl.col("anon_id") != pl.col("user_id"))
    found = events.scan([file]).filter(linking & both)
    # Of each run that stored some, the first time of a pair is all that counts.
    made = found.group_by("anon_id", "user_id", stored_at="ingested_at").agg(at=pl.col("timestamp").min())
    return made.select(pl.lit(file.path).alias("file"), "anon_id", "user_id", "at", "stored_at").collect()


def _save_firsts(home: Home, events: Table, links: pl.DataFrame, state: dict[str, str]) -> None:
    """When each linked id was first stored, and the time of its first event then."""
    table = tables.open_or_create(home, FIRSTS, FIRSTS_SCHEMA)
    ids = pl.concat([links["anon_id"].alias("id"), links["user_id"].alias("id")]).unique().sort()
    known, added = _NO_FIRSTS, list[File]()
    said = table.metadata
    if said.get("events_table") == events.id and "events_version" in said:
        changed = events.changes(int(said["events_version"]))
        if changed is not None and not changed[1]:  # nothing was taken out: what was first still is, or is new
            known, added = table.scan().collect(), changed[0]
            known = known.filter(pl.col("id").is_in(ids.implode()))
    new = ids.filter(~ids.is_in(known["id"].implode()))
    parts = [known, _firsts(events, added, known["id"]), _firsts(events, events.files, new)]
    firsts = pl.concat(parts).sort("id", "stored_at", "at").unique("id", keep="first", maintain_order=True)
    table.commit([table.write(firsts, {})] if firsts.height else [], table.files, metadata=state)


def _firsts(events: Table, files: Sequence[File], ids: pl.Series) -> pl.DataFrame:
    """id, stored_at, at of the event of each id in these files that was stored first."""
    if not len(ids) or not files:
        return _NO_FIRSTS
    theirs = events.scan(files).select(raw_key().alias("id"), stored_at="ingested_at", at="timestamp")
    return theirs.filter(pl.col("id").is_in(ids.implode())).sort("stored_at", "at").unique("id", keep="first").collect()


def assignment_ids(home: Home, users: pl.Series) -> pl.Series:
    """The id by which each person is assigned to the holdout and to variants (n_users,): the first of theirs seen.

    First seen is first stored, of those stored together the one with the earlier event, then the one that sorts first.
    """
    table = tables.open_table(home, FIRSTS)
    if table is None or not table.files:
        return users
    who = persons(home)
    firsts = table.scan().collect().with_columns(who.resolved(pl.col("id")).alias("person"))
    chosen = firsts.sort("person", "stored_at", "at", "id").unique("person", keep="first", maintain_order=True)
    other = chosen.filter(pl.col("id") != pl.col("person"))
    asked = who.of(users)
    return Persons(other["person"], other["id"]).of(asked).alias(users.name)
