"""What people allow, as they say it to you: giving and withdrawing consent, opting out, and what stands now.

A word is written for every id that is linked to the person now, so that the door knows it under each of them. Requests
that the law gives a clock are noted and closed with it: a withdrawal of consent, an objection. `status` is how privacy
stands in a workspace: what is used for what, who said no, and what is to be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from persona_cli.consent.gate import CLEARED, GIVEN, OBJECTED, PAUSED, Gate
from persona_cli.consent.receipts import (
    COVERING,
    PURPOSES,
    Receipt,
    State,
    append_words,
    basis,
    parent,
    proof_of,
    receipts,
    record,
    scan,
)
from persona_cli.consent.subjects import NAME as SUPPRESSED
from persona_cli.consent.subjects import subjects
from persona_cli.errors import BadSettings, MissingInput, UsageError
from persona_cli.events.store import scan_events
from persona_cli.privacy.recipients import by_recipient
from persona_cli.privacy.requests import close_request, open_request, requests
from persona_cli.profiles.identity import persons, raw_key
from persona_cli.profiles.sync import sync
from persona_cli.workspace import locks, runs, tables
from persona_cli.workspace.doctor import pending_erasures, stale_models
from persona_cli.workspace.home import Home

OPTED_OUT, OPTED_IN = "opt-out", "opt-out taken back"


@dataclass(frozen=True)
class Chosen:
    """What a command wrote."""

    receipts: list[Receipt]
    """Those that are new, one an id and purpose."""
    ids: int
    """How many ids the people have, linked ones included."""
    request: str | None = None


class Standing(NamedTuple):
    """How a person stands to one purpose."""

    purpose: str
    basis: str | None
    """None: there is none, or it lacks its assessment, and nobody's data may be used for it."""
    state: State | None
    """The last word; None: nothing was said."""
    since: datetime | None
    permitted: bool
    receipt_id: str | None


def linked(home: Home, ids: pl.Series) -> pl.DataFrame:
    """id and `all`: for each of the distinct ids every id of the person behind it, its own included."""
    distinct = ids.cast(pl.String).unique().sort().alias("id")
    who = persons(home)
    people = pl.DataFrame({"id": distinct, "person": who.of(distinct)})
    own = [people.select("id", all="id"), people.select("id", all="person")]
    theirs = people.join(pl.DataFrame({"person": who.persons, "all": who.ids}), on="person").select("id", "all")
    return pl.concat([*own, theirs]).unique().sort("id", "all")


def say(
    home: Home,
    users: Sequence[str],
    state: State,
    purposes: Sequence[str],
    *,
    at: datetime | None = None,
    notice: str | Path | None = None,
    source: str | None = None,
    proof: str | None = None,
    channel: str = "cli",
    wait: float = 0.0,
) -> Chosen:
    """Write the word of these people about these purposes, for all their ids.

    A withdrawal is noted as a request and closed; one of several people is one request. Raises UsageError for an
    unknown purpose, no user, or a proof or source that names the person, Busy while the tables are in use.
    """
    if not users:
        raise UsageError("no user is named", "USER, --file FILE, or - for ids on standard input")
    for purpose in purposes:
        parent(purpose)
    _unnamed(users, source=source, proof=proof)
    with locks.hold(home, "tables", "privacy consent", wait):
        ids = linked(home, pl.Series(list(users), dtype=pl.String))["all"].unique().sort().to_list()
        request = open_request(home, "consent_withdrawal", ids, channel=channel) if state == "withdrawn" else None
        written = record(home, ids, purposes, state, at=at, notice=notice, source=source, proof=proof)
        followed(home)
        if request is not None:
            close_request(home, request, f"withdrawn for {', '.join(sorted(purposes))}")
    return Chosen(written, len(ids), request)


def opt_out(
    home: Home, users: Sequence[str], *, at: datetime | None = None, channel: str = "cli", wait: float = 0.0
) -> Chosen:
    """Object to every purpose for these people (GDPR Art. 21; CCPA § 1798.120): nothing of them is stored or used."""
    if not users:
        raise UsageError("no user is named", "USER, --file FILE, or - for ids on standard input")
    with locks.hold(home, "tables", "privacy optout", wait):
        ids = linked(home, pl.Series(list(users), dtype=pl.String))["all"].unique().sort().to_list()
        request = open_request(home, "objection", ids, channel=channel)
        written = record(home, ids, PURPOSES, "objected", at=at, source=OPTED_OUT)
        followed(home)
        close_request(home, request, "opted out of everything")
    return Chosen(written, len(ids), request)


def opt_in(home: Home, users: Sequence[str], *, wait: float = 0.0) -> Chosen:
    """Take an opt-out back: what each id had said before it holds again. Consent is not given by this.

    An id that did not opt out stays as it is. Raises UsageError without a user, Busy while the tables are in use.
    """
    if not users:
        raise UsageError("no user is named", "USER, --file FILE, or - for ids on standard input")
    with locks.hold(home, "tables", "privacy optout", wait):
        ids = linked(home, pl.Series(list(users), dtype=pl.String))["all"].unique().sort().to_list()
        written: list[Receipt] = []
        restored: dict[tuple[str, State], list[str]] = {}
        said = receipts(home, ids)
        names = dict(zip(subjects(home, pl.Series(ids, dtype=pl.String)).to_list(), ids, strict=True))
        by_place: dict[tuple[str, str], list[Receipt]] = {}
        for one in said:
            by_place.setdefault((one.subject, one.purpose), []).append(one)
        for (subject, purpose), words in by_place.items():
            if words[-1].state == "objected":
                before: State = next((one.state for one in reversed(words) if one.state != "objected"), "cleared")
                restored.setdefault((purpose, before), []).append(names[subject])
        for (purpose, state), theirs in sorted(restored.items()):
            written += record(home, theirs, [purpose], state, source=OPTED_IN)
        followed(home)
    return Chosen(written, len(ids))


def spread(home: Home, run: str) -> int:
    """Write opt-outs by browsers' signals in an ingest for the other ids of the same people; answers how many words.

    What a signal says is written for the ids of its event when it is read, before it is known who is who.
    """
    who = persons(home)
    ids = pl.concat([who.ids.alias("id"), who.persons.alias("id")]).unique()
    linked_ids = pl.DataFrame({"person": who.of(ids), "subject": subjects(home, ids)})
    said = scan(home).filter((pl.col("proof") == proof_of(run)) & (pl.col("state") == "objected")).collect()
    theirs = said.drop("receipt_id", "recorded_at").join(linked_ids, on="subject")
    latest = theirs.sort("at", "purpose", "person").unique(["person", "purpose"], keep="last").drop("subject")
    words = latest.join(linked_ids, on="person")
    known = scan(home).filter(pl.col("state") == "objected").select("subject", "purpose", since="at").collect()
    known = known.group_by("subject", "purpose").agg(pl.col("since").max())
    words = words.join(known, on=["subject", "purpose"], how="left")
    written = append_words(home, words.filter(pl.col("since").is_null() | (pl.col("since") < pl.col("at")))).height
    if written:
        followed(home)
    return written


def stand(home: Home, user: str) -> tuple[list[Standing], list[Receipt]]:
    """How a person stands to each purpose, channels that were spoken of included, and all receipts, the latest last."""
    ids = linked(home, pl.Series([user], dtype=pl.String))["all"]
    said, gate = receipts(home, ids.to_list()), Gate.of(home)
    spoken = sorted({one.purpose for one in said} - set(PURPOSES))
    found = []
    for purpose in (*PURPOSES, *spoken):
        words = [one for one in said if one.purpose in (purpose, parent(purpose))]
        last = words[-1] if words else None
        on, permitted = _basis(home, purpose), False
        if on is not None:
            who = pl.Series([user] * len(ids), dtype=pl.String)
            permitted = bool(gate.permits(purpose, ids, who)[0])
        state, since = (last.state, last.at) if last else (None, None)
        found.append(Standing(purpose, on, state, since, permitted, last.receipt_id if last else None))
    return found, said


def overview(home: Home) -> list[dict[str, Any]]:
    """Each purpose with its basis, how many people there are in the events, and how many of them are permitted."""
    who, gate = persons(home), Gate.of(home)
    ids = scan_events(home).select(raw_key()).unique().collect()["user_id"] if tables.exists(home, "events") else None
    ids = pl.Series([], dtype=pl.String) if ids is None else ids
    people = who.of(ids)
    rows: list[dict[str, Any]] = []
    for purpose in PURPOSES:
        on = _basis(home, purpose)
        permitted = people.filter(gate.permits(purpose, ids, people)).n_unique() if on is not None else 0
        last = gate.words.filter(pl.col("purpose") == purpose).sort("order").unique("subject", keep="last")
        given = int((last["state"] == GIVEN).sum())
        refused = int((last["state"] > CLEARED).sum())
        rows.append(
            {
                "purpose": purpose,
                "basis": on,
                "people": people.n_unique(),
                "permitted": permitted,
                "ids_given": given,
                "ids_refused": refused,
                "collects": purpose in COVERING,
            }
        )
    return rows


def _basis(home: Home, purpose: str) -> str | None:
    try:
        return basis(home, purpose)
    except BadSettings:
        return None


def _unnamed(users: Sequence[str], **texts: str | None) -> None:
    """A receipt outlives an erasure, so nothing in it may name the person."""
    for name, text in texts.items():
        if text and ((len(users) == 1 and users[0] in text) or text in users):
            raise UsageError(f"--{name} names the user; receipts are kept after an erasure, and must not")


def followed(home: Home) -> None:
    """Bring profiles to what people allow now."""
    if tables.exists(home, "profiles"):
        sync(home)


def users_in(path: Path) -> list[str]:
    """The ids in a file, one a line; blank lines do not count. Raises MissingInput."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInput(f"{path} cannot be read: {error}", "a file of ids, one a line") from error
    return [line.strip() for line in lines if line.strip()]


@dataclass(frozen=True)
class Status:
    """One screen; `alarms` says in sentences what is overdue, nothing where nothing is."""

    purposes: tuple[Mapping[str, Any], ...]
    """purpose, basis (None: none that holds), people, permitted, and how many ids said yes or no."""
    opted_out: int
    """Ids that objected to everything."""
    paused: int
    """Ids whose personal lists are paused."""
    open_requests: int
    overdue_requests: tuple[str, ...]
    next_due: str | None
    """The next day by which a request must be answered."""
    retention: str | None
    """What is over its time; None: nothing."""
    erasures: tuple[str, ...]
    """Requests whose erasure was begun and not completed."""
    erasing: bool
    """Whether one is running now."""
    suppressed: int
    """Ids that are kept from coming back."""
    stale_models: tuple[str, ...]
    recipients: Mapping[str, Mapping[str, Any]]
    """By name: exports, the last one's day, ids of the keys of its pseudonyms."""
    last_scan: Mapping[str, Any] | None
    """When the workspace was last scanned, and the findings."""
    alarms: tuple[str, ...]


def status(home: Home, now: datetime | None = None) -> Status:
    """How things stand at `now`; reads ids of events, logs of tables, and receipts."""
    from persona_cli.privacy.retention import overdue  # loads models, which no other word of choices needs

    now = now or datetime.now(UTC)
    asked = requests(home)
    waiting = [one for one in asked if one.closed is None]
    late = tuple(one.id for one in waiting if one.overdue(now))
    pending = tuple(pending_erasures(home))
    erasing = "forget" in str((locks.holder(home, "tables") or {}).get("command", ""))
    kept, stale = overdue(home, now), tuple(stale_models(home))
    alarms = [f"{len(late)} of the requests are overdue: {', '.join(late[:5])}"] if late else []
    alarms += [f"{kept}: persona privacy expire"] if kept else []
    if pending and not erasing:
        alarms.append(f"{len(pending)} erasures were begun and not completed: persona privacy forget")
    alarms += [f"{', '.join(stale)} learned from people who were erased since: persona train"] if stale else []
    opted_out, paused = _refusals(home)
    return Status(
        purposes=tuple(overview(home)),
        opted_out=opted_out,
        paused=paused,
        open_requests=len(waiting),
        overdue_requests=late,
        next_due=min((one.due.isoformat() for one in waiting), default=None),
        retention=kept,
        erasures=pending,
        erasing=erasing,
        suppressed=tables.row_count(home, SUPPRESSED),
        stale_models=stale,
        recipients={
            name: {
                "exports": len(exports),
                "last": max(one.at for one in exports)[:10],
                "keys": sorted({one.key_id for one in exports if one.key_id}),
            }
            for name, exports in by_recipient(home).items()
        },
        last_scan=_last_scan(home),
        alarms=tuple(alarms),
    )


def _refusals(home: Home) -> tuple[int, int]:
    """Ids that objected to every purpose that events are collected for, and ids that are paused."""
    words = Gate.of(home).words.sort("order")
    firm = words.filter(pl.col("state") != PAUSED, pl.col("purpose").is_in(list(COVERING)))
    last = firm.unique(["subject", "purpose"], keep="last")
    objected = last.filter(pl.col("state") == OBJECTED).group_by("subject").len().filter(pl.col("len") == len(COVERING))
    lists = words.filter(pl.col("purpose") == "personalization").unique("subject", keep="last")
    return objected.height, int((lists["state"] == PAUSED).sum())


def _last_scan(home: Home) -> dict[str, Any] | None:
    for run in runs.read_runs(home):
        if run.get("command") == "privacy scan" and run.get("status") == "done":
            return {"at": run["started"], "findings": (run.get("counts") or {}).get("findings")}
    return None
