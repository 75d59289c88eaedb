"""How privacy stands in a workspace: what is used for what, who said no, and what is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from persona_cli.consent.gate import OBJECTED, PAUSED, Gate
from persona_cli.consent.receipts import COVERING
from persona_cli.consent.subjects import NAME as SUPPRESSED
from persona_cli.privacy.choices import overview
from persona_cli.privacy.recipients import by_recipient
from persona_cli.privacy.requests import requests
from persona_cli.privacy.retention import overdue
from persona_cli.workspace import locks, runs, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.overview import pending_erasures, stale_models


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
