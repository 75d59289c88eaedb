"""What people change in what is held of them: what they decided about their own lists, and an event that is wrong.

Settings, blocks, "show me less", answers, and whether lists are paused are events of the person
(`profiles.folds.explicit`), written through the ordinary ingest, so that profiles, lists and evaluations follow from
them as from what an app sends. Taking something back is an event too: a later ingest of the file that held the first
word does not bring it back. A setting that was taken back has the empty value.

Rectification (GDPR Art. 16): one stored event is corrected or taken out. The corrected event takes the place of the old
one in one commit of the table: same id, same source, judged and cut by the rules that a new event is. Then everything
is settled as after an erasure, so that nothing on disk has the old one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import Receipt, receipts, record
from persona_cli.consent.subjects import suppressed
from persona_cli.errors import BadData, MissingInput, Refused, UsageError, nearest
from persona_cli.events.batch import rows_schema
from persona_cli.events.catalogue import described
from persona_cli.events.door import DoorRules, admit
from persona_cli.events.ingest import ingest
from persona_cli.events.judge import Rejected, Rules, judge, parse_json
from persona_cli.events.opening import Input
from persona_cli.events.schema import EVENTS, kept_schema
from persona_cli.events.schema import Mapping as FieldMapping
from persona_cli.events.store import NAME
from persona_cli.privacy.removal import remove_where
from persona_cli.privacy.requests import begin_request, close_request, requests
from persona_cli.profiles import preferences
from persona_cli.profiles.folds import explicit
from persona_cli.profiles.folds.explicit import ANSWER, BLOCK, CATEGORY, ITEM, LESS, PREFERENCE, TAG, UNBLOCK
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import person_events
from persona_cli.profiles.sync import sync
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

SOURCE = "persona privacy preferences"
"""Where these events say they come from."""
PERSONALIZATION = "personalization"
TOPIC = "topic:"
LONGEST = 1_000
log = logging.getLogger("persona")


@dataclass(frozen=True)
class Own:
    """What one person said, as it stands."""

    settings: Mapping[str, str]
    """By key, the latest value."""
    blocked: tuple[str, ...]
    """item:ID, category:NAME or tag:NAME, sorted."""
    show_less: Mapping[str, float]
    """What is left of "show me less" by topic (`profiles.preferences.shown_less`)."""
    answers: Mapping[str, tuple[str, ...]]


def own(home: Home, user: str) -> Own:
    """What the person behind an id said; nothing of somebody unknown."""
    who = persons(home).of(pl.Series([user]))
    said = person_events(home, purpose=None).filter(
        pl.col("user_id").is_in(who.implode()), pl.col("event_type").is_in(explicit.TYPES)
    )
    told = said.select("user_id", "timestamp", "event_type", "item_id", "value", *explicit.derived().values()).collect()
    if not told.height:
        return Own({}, (), {}, {})
    theirs = person_events(home, purpose=None).filter(pl.col("user_id").is_in(who.implode()))
    last = theirs.select(pl.col("timestamp").max()).collect().item()
    found = preferences.told({**preferences.folded(told).row(0, named=True), "last_seen": last}, home.settings)
    starts = (("items", ITEM), ("categories", CATEGORY), ("tags", TAG))
    blocked = sorted(start + key for name, start in starts for key in found["blocked"][name])
    return Own(
        found["preferences"],
        tuple(blocked),
        found["show_less"],
        {name: tuple(value) for name, value in found["answers"].items()},
    )


def change(
    home: Home,
    user: str,
    *,
    put: Mapping[str, str] | None = None,
    block: Sequence[str] = (),
    unblock: Sequence[str] = (),
    wait: float = 0.0,
    run: str | None = None,
) -> Own:
    """Set keys, block and unblock topics (item:ID, category:NAME, tag:NAME, topic:NAME), and answer what stands.

    `topic:NAME` is the category and the tag of that name. Raises UsageError for what is no topic or contradicts itself,
    Refused where nothing of this person may be stored.
    """
    blocks, unblocks = ([one for text in texts for one in topics(home, text)] for texts in (block, unblock))
    if both := set(blocks) & set(unblocks):
        raise UsageError(f"{min(both)} cannot be blocked and unblocked at once")
    for key, value in (put or {}).items():
        if not value or len(value) > LONGEST or not value.isprintable():
            raise UsageError(f"the value of {key!r} is {value!r}; expected 1 to {LONGEST} printable characters")
    said = [_setting(key, value) for key, value in (put or {}).items()]
    said += [_about(BLOCK, topic) for topic in dict.fromkeys(blocks)]
    said += [_about(UNBLOCK, topic) for topic in dict.fromkeys(unblocks)]
    write(home, user, said, wait, run)
    now = own(home, user)
    if set(blocks) - set(now.blocked) or set(unblocks) & set(now.blocked):
        log.warning(
            "of words at the same (coarse) time a block wins, so not all of this holds: [privacy.collect.coarsen]"
        )
    return now


def reset(home: Home, user: str, wait: float = 0.0, run: str | None = None) -> Own:
    """Take back every setting, block, answer and "show me less" of the person; answers what that was."""
    with locks.hold(home, "tables", "privacy preferences", wait):
        before = own(home, user)
        said = [_setting(key, "") for key in before.settings] + [_about(UNBLOCK, key) for key in before.blocked]
        said += [{"event_type": ANSWER, "target": key, "props": {"answer": ""}} for key in before.answers]
        if before.show_less:
            # "Show me less" is counted and has no opposite: what was said of it leaves the events.
            ids = persons(home).ids_of(persons(home).of(pl.Series([user])))
            theirs = pl.coalesce("user_id", "anon_id").is_in(ids.implode())
            remove_where(home, "events", theirs & (pl.col("event_type") == LESS))
            sync(home)
        write(home, user, said, wait, run)
    return before


def topics(home: Home, text: str) -> list[str]:
    """What a text names: `item:ID`, `category:NAME`, `tag:NAME`, or the category and tag called so by `topic:NAME`."""
    for start in (ITEM, CATEGORY, TAG):
        if text.startswith(start) and len(text) > len(start):
            return [text]
    if not text.startswith(TOPIC) or len(text) == len(TOPIC):
        raise UsageError(
            f"{text!r} names nothing that can be blocked", "item:ID, category:NAME, tag:NAME or topic:NAME"
        )
    name = text[len(TOPIC) :]
    if name.startswith((CATEGORY, TAG)):
        return topics(home, name)
    known = preferences.topics(described(home))["topic"].unique().to_list()
    found = [start + name for start in (CATEGORY, TAG) if start + name in known]
    if not found:
        names = {one.partition(":")[2] for one in known}
        close = nearest(name, names) if len(names) <= 20 or nearest(name, names).startswith("; did") else ""
        raise UsageError(f"no item has the category or tag {name!r}{close}", "category:NAME and tag:NAME take any name")
    return found


def write(home: Home, user: str, said: Sequence[Mapping[str, Any]], wait: float = 0.0, run: str | None = None) -> None:
    """Store events of the person behind `user`, all at this moment, and bring the profiles up to date.

    Each has event_type, target or item_id, and perhaps value or answer (a text). Raises Refused where the gate keeps
    the person's events out.
    """
    if not said:
        return
    with locks.hold(home, "tables", "privacy preferences", wait):
        who = persons(home).of(pl.Series([user]))[0]
        moment = datetime.now(UTC).isoformat(timespec="microseconds")
        lines = [json.dumps({"user_id": who, "timestamp": moment, **one}, ensure_ascii=False) for one in said]
        with artifacts.scratch(home.root) as folder:
            (folder / "said.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            source = Input(SOURCE, folder / "said.jsonl", "jsonl")
            report = ingest(home, [source], dialect="native", max_rejected=0.0, on_duplicate="keep-last", run=run)
        if report.rejected:
            raise BadData(f"this was not stored: {report.reasons[0].reason}")
        if report.dropped:
            why = ", ".join(sorted(report.dropped))
            raise Refused(f"nothing of this person is stored ({why}), so neither are their settings",
                          "persona privacy consent show USER")  # fmt: skip
        sync(home)


def _setting(key: str, value: str) -> dict[str, Any]:
    return {"event_type": PREFERENCE, "target": key, "props": {"value": value}}


def _about(kind: str, topic: str) -> dict[str, Any]:
    item = topic.startswith(ITEM)
    return {"event_type": kind, "item_id" if item else "target": topic[len(ITEM) :] if item else topic}


def pause(home: Home, user: str) -> bool:
    """Give the person lists that know nothing of them until `resume`; False where it was so already."""
    if paused(home, user):
        return False
    record(home, _ids(home, user), [PERSONALIZATION], "paused", source=SOURCE)
    return True


def resume(home: Home, user: str) -> bool:
    """End a pause; False where nothing was paused.

    What the person had said before it holds again, which is no consent where there was none.
    """
    if not paused(home, user):
        return False
    before = [one for one in _words(home, user) if one.state != "paused"]
    record(home, _ids(home, user), [PERSONALIZATION], before[-1].state if before else "cleared", source=SOURCE)
    return True


def paused(home: Home, user: str) -> bool:
    """Whether the person's last word on personalization is a pause."""
    words = _words(home, user)
    return bool(words) and words[-1].state == "paused"


def _words(home: Home, user: str) -> list[Receipt]:
    return [one for one in receipts(home, _ids(home, user)) if one.purpose == PERSONALIZATION]


def _ids(home: Home, user: str) -> list[str]:
    who = persons(home)
    return who.ids_of(who.of(pl.Series([user], dtype=pl.String))).to_list()


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
    from persona_cli.privacy.settling import settle  # loads models, which settings of people's own need not

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
