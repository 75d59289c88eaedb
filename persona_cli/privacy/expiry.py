"""Take out what is over its time (`retention`), and bring all that follows from it to what it would be without.

Whole files before the cut leave their table by name, in one commit with what is left of those that hold the cut; they
are never opened. Profiles and history are folded from what is left. A note in privacy/ says that an expiry is under
way, so that the next one completes what a kill has interrupted, whatever is due then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from persona_cli.events.quarantine import NAME as QUARANTINE
from persona_cli.events.store import NAME as EVENTS
from persona_cli.events.store import iso
from persona_cli.privacy import retention, withdrawn
from persona_cli.privacy.removal import remove_where, rewrite
from persona_cli.privacy.retention import BY_TIME, NOTE, OF_USERS, PER_USER, Plan, cut_of
from persona_cli.privacy.settling import Settled, settle
from persona_cli.profiles.sync import behind, sync
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File

log = logging.getLogger("persona")


@dataclass(frozen=True)
class Expired:
    """What an expiry did: the plan that it carried out, rows by table, and what was brought up to date."""

    plan: Plan
    removed: dict[str, int]
    settled: Settled | None
    """None: nothing was due, and nothing had been left undone."""
    completed: bool
    """Whether an earlier expiry, which was killed, was completed by it."""


def expire(
    home: Home,
    now: datetime | None = None,
    *,
    refit: bool = True,
    wait: float = 0.0,
    progress: Callable[[str], None] | None = None,
) -> Expired:
    """Carry out `retention.plan(home, now)`. Raises Busy where another run holds the models or the tables.

    The same again changes nothing. What is kept on purpose: proofs in privacy/ (consent, requests, certificates),
    items and accounts, which are not people, and the figures of evaluations without their rows by user.
    """
    tell = progress or (lambda step: None)
    at = now or datetime.now(UTC)
    with locks.hold(home, "models", "privacy expire", wait), locks.hold(home, "tables", "privacy expire", wait):
        note = home.path(*NOTE)
        unfinished = note.exists()
        due = retention.plan(home, at)
        if due.nothing and not unfinished:
            return Expired(due, {}, None, False)
        note.parent.mkdir(mode=0o700, exist_ok=True)
        artifacts.write_text(note, json.dumps({"at": at.isoformat()}) + "\n")
        tell("rows that are due")
        removed = _take_out(home, at)
        settled = None
        if unfinished or due.due or due.superseded:
            if EVENTS in removed or (unfinished and behind(home) is not None):
                tell("profiles and history")
                # What left is not read to find whose it was: everything is folded from what is left.
                sync(home, rebuild=True)
            settled = settle(home, None, refit=refit, progress=tell)
        note.unlink()
        artifacts.sync_folder(note.parent)
    return Expired(due, removed, settled, unfinished)


def _take_out(home: Home, at: datetime) -> dict[str, int]:
    """Rows that left, by table; files of evaluations and runs among them."""
    counts = {name: remove_before(home, name, cut_of(home, name, at)) for name in BY_TIME}
    if len(gone := retention.withdrawn_ids(home, at)):
        for name, rows in withdrawn.remove(home, gone).items():
            counts[name] = counts.get(name, 0) + rows
    counts["users"] = counts.get("users", 0) + _users_out(home, at)
    if (cut := cut_of(home, QUARANTINE, at)) is not None:
        counts[QUARANTINE] = remove_where(home, QUARANTINE, pl.col("rejected_at") < cut)
    for path in retention.old_evaluations(home, cut_of(home, "evaluations", at)):
        counts["evaluations"] = counts.get("evaluations", 0) + 1
        _without_users(home, path.parent.name)
    for path in retention.old_runs(home, cut_of(home, "runs", at)):
        counts["runs"] = counts.get("runs", 0) + 1
        path.unlink()
    return {name: n for name, n in counts.items() if n}


def remove_before(home: Home, name: str, cut: datetime | None) -> int:
    """Remove the rows of a table that are of before the cut, in one commit; answers how many.

    Files that hold nothing else are not opened. Call it under the lock `tables`.
    """
    table = tables.open_table(home, name)
    if table is None or cut is None or table.time is None:
        return 0
    whole, some = retention.split(table, cut)
    young = pl.col(table.time) >= cut

    def left(file: File) -> pl.DataFrame | None:
        rows = table.scan([file]).filter(young).collect()
        return None if rows.height == file.rows else rows

    return rewrite(table, some, left, drop=whole, metadata={"expired_before": iso(cut)})


def _users_out(home: Home, at: datetime) -> int:
    due = retention.overdue_users(home, at)
    table = tables.open_table(home, "users")
    if table is None or not due.height:
        return 0

    def left(file: File) -> pl.DataFrame | None:
        rows = table.scan([file]).collect()
        kept = rows.join(due, on=OF_USERS, how="anti", nulls_equal=True, maintain_order="left")
        return None if kept.height == rows.height else kept

    return rewrite(table, table.files, left, metadata={"expired": "users"})


def _without_users(home: Home, run: str) -> None:
    """An evaluation without its rows by user: first the manifest lets go of the table, then it is deleted."""
    folder = home.path("evaluations", run)
    manifest = artifacts.read_manifest(folder)
    if manifest["files"].pop(PER_USER, None) is not None:
        manifest["expired"] = [PER_USER]
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        artifacts.write_text(folder / artifacts.MANIFEST, text)
    (folder / PER_USER).unlink()
