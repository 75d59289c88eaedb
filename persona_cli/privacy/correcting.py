"""Rectification (GDPR Art. 16): one stored event is corrected or taken out, and what follows from it is made anew.

The corrected event takes the place of the old one in one commit of the table: same id, same source, judged and cut by
the rules that a new event is. Then everything is settled as after an erasure, so that nothing on disk has the old one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from persona_cli.consent.gate import Gate
from persona_cli.consent.subjects import suppressed
from persona_cli.errors import MissingInput, Refused, UsageError, nearest
from persona_cli.events.batch import rows_schema
from persona_cli.events.door import DoorRules, admit
from persona_cli.events.judge import Rejected, Rules, judge, parse_json
from persona_cli.events.schema import EVENTS, kept_schema
from persona_cli.events.schema import Mapping as FieldMapping
from persona_cli.events.store import NAME
from persona_cli.privacy.requests import begin_request, close_request, requests
from persona_cli.privacy.settling import settle
from persona_cli.profiles.identity import persons
from persona_cli.workspace import locks, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

PROPS = "props."
FIELDS = tuple(field.name for field in EVENTS if field.name != "event_id" and not field.transient)
Row = dict[str, Any]


@dataclass(frozen=True)
class Corrected:
    """What was done."""

    request: str
    """The request of the person that this answers."""
    fields: tuple[str, ...]
    """What changed, sorted; () where the event was so already, or was deleted."""
    deleted: bool
    returns: bool
    """Whether an older file that is ingested again would bring the former event back."""


def correct(
    home: Home,
    event_id: str,
    changes: Mapping[str, str] | None = None,
    *,
    delete: bool = False,
    month: str | None = None,
    refit: bool = True,
    wait: float = 0.0,
) -> Corrected:
    """Correct fields of a stored event (`changes`: field → text, "" takes the value away), or `delete` it.

    Fields are the columns of events, `props.NAME` (JSON or a text), or `props` (a JSON object). `month` (2026-03) tells
    events of one id apart. Raises MissingInput where there is no such event, UsageError for a field or value that an
    event cannot have, Refused where the corrected event would be somebody's whose events are not stored, Busy.
    """
    if delete == bool(changes):
        raise UsageError("expected what to correct or --delete, and not both", "--set value=3")
    with locks.hold(home, "models", "privacy correct", wait), locks.hold(home, "tables", "privacy correct", wait):
        try:
            table, file, old = _find(home, event_id, month)
        except MissingInput:
            if delete and any(one.kind == "rectification" and one.closed is None for one in requests(home)):
                settle(home, None, refit=refit)  # a run that was killed may have taken the event out and no more
            raise
        new = None if delete else _corrected(home, old, changes or {})
        who = persons(home)
        user = pl.Series([old["user_id"] or old["anon_id"]], dtype=pl.String)
        ids = who.ids_of(who.of(user)).to_list()
        fields = tuple(sorted(name for name in new or () if new is not None and new[name] != old[name]))
        request = begin_request(home, "rectification", ids)
        if delete or fields:
            _replace(table, file, old, new)
        settle(home, None, refit=refit)
        close_request(home, request, "deleted" if delete else "corrected")
    return Corrected(request, fields, delete, delete or (new is not None and _month(new) != _month(old)))


def _find(home: Home, event_id: str, month: str | None) -> tuple[Table, File, Row]:
    table = tables.open_table(home, NAME)
    found: list[tuple[File, Row]] = []
    for file in table.files if table is not None else ():
        if table is not None and month in (None, file.partition["month"]):
            rows = table.scan([file]).filter(pl.col("event_id") == event_id).collect()
            found += [(file, row) for row in rows.to_dicts()]
    if table is None or not found:
        where = f" in {month}" if month else ""
        raise MissingInput(f"there is no event {event_id!r}{where}", "persona privacy access USER lists the ids")
    if len(found) > 1:
        months = ", ".join(sorted(row["month"] for _, row in found))
        raise UsageError(f"{len(found)} events have the id {event_id!r}, in {months}", "--month says which")
    return table, *found[0]


def _corrected(home: Home, old: Row, changes: Mapping[str, str]) -> Row:
    """The event with the changes, judged as one that comes in; a stored row."""
    record: Row = {name: old[name] for name in FIELDS if old[name] is not None}
    props = parse_json(old["props"].encode()) if old["props"] else {}
    for key, text in changes.items():
        name = key.removeprefix("context.")
        if key.startswith(PROPS) and len(key) > len(PROPS):
            props[key[len(PROPS) :]] = _json_or_text(text)
        elif key == "props":
            props = _object(text)
        elif name in FIELDS:
            record[name] = text or None
        else:
            known = (*FIELDS, "props")
            raise UsageError(f"--set {key}: events have no such field that can be corrected{nearest(name, known)}")
    record["props"] = {name: value for name, value in props.items() if value not in (None, "")}
    latest = round((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1_000_000)
    rules = Rules(
        FieldMapping("events", {name: (name,) for name in FIELDS}), latest, home.settings.text("ingest.assume_tz")
    )
    try:
        judged = judge(record, rules)
    except Rejected as rejected:
        raise UsageError(f"the corrected event could not be stored: {rejected}") from rejected
    judged |= {"event_id": old["event_id"], "given": True, "line": 1}
    let_in = admit(pa.Table.from_pylist([judged], rows_schema("events")), "events", DoorRules.of(home.settings)).rows
    if not let_in.num_rows:
        raise Refused("the corrected event would be one of a bot, and those are not stored (ingest.bots)")
    _allowed(home, let_in)
    kept: Row = pl.DataFrame(pl.from_arrow(let_in.select(kept_schema("events").names))).to_dicts()[0]
    return kept


def _allowed(home: Home, rows: pa.Table) -> None:
    """Raises Refused where events of these ids are not collected."""
    users, anons = (pl.Series(pl.from_arrow(rows[name].combine_chunks())) for name in ("user_id", "anon_id"))
    if not Gate.of(home).collects(users, anons)[0] or suppressed(home, users)[0] or suppressed(home, anons)[0]:
        raise Refused("events of the corrected event's person are not stored (opted out, no consent, or erased)")


def _replace(table: Table, file: File, old: Row, new: Row | None) -> None:
    """Write the file again without the old row, and the new one where it belongs, in one commit."""
    rows = table.scan([file]).collect()
    rest = rows.filter(pl.col("event_id") != old["event_id"])
    add: list[File] = []
    try:
        if new is not None:
            stored = {**new, "source": old["source"], "ingested_at": datetime.now(UTC), "month": _month(new)}
            made = pl.DataFrame([stored], schema=rows.schema)
            if stored["month"] == old["month"]:
                rest = pl.concat([rest, made])
            else:
                add.append(table.write(made, {"month": stored["month"]}))
        if rest.height:
            add.append(table.write(rest, file.partition))
        table.commit(add, [file])
    except BaseException:
        table.discard()
        raise


def _month(row: Row) -> str:
    return f"{row['timestamp']:%Y-%m}"


def _json_or_text(text: str) -> Any:
    try:
        return parse_json(f'{{"_":{text}}}'.encode())["_"]
    except (Rejected, KeyError):
        return text


def _object(text: str) -> dict[str, Any]:
    try:
        return parse_json(text.encode()) if text else {}
    except Rejected as rejected:
        raise UsageError(
            f"--set props: expected a JSON object: {rejected}", f"--set 'props={json.dumps({'a': 1})}'"
        ) from None
