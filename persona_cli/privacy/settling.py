"""After rows were removed from the base tables: bring everything that follows from them to what it would be without.

Nothing of it is undone by a crash in between: every step looks at what is there, so running it again completes it. The
steps that delete what readers may have open come last, and wait until nobody reads (`locks.unread`).

`expire` takes out what is over its time (`retention`) and settles the rest. Whole files before the cut leave their
table by name, in one commit with what is left of those that hold the cut; they are never opened. Profiles and history
are folded from what is left. A note in privacy/ says that an expiry is under way, so that the next one completes what a
kill has interrupted, whatever is due then.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

import polars as pl

from persona_cli.errors import BadData, MissingInput
from persona_cli.events.quarantine import NAME as QUARANTINE
from persona_cli.events.store import NAME as EVENTS
from persona_cli.events.store import iso
from persona_cli.feedback import bandit_state, refitting, training
from persona_cli.feedback.refitting import Refitted
from persona_cli.models import gram_store
from persona_cli.privacy import retention
from persona_cli.privacy.removal import MARK, remove_people, remove_where, rewrite, said
from persona_cli.privacy.retention import BY_TIME, NOTE, OF_USERS, PER_USER, Plan, cut_of
from persona_cli.profiles import fold as folding
from persona_cli.profiles import history as histories
from persona_cli.profiles.fitting import Source, fit_signals
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.identity import Links
from persona_cli.profiles.signal_fit import keep_fit_in_force, load
from persona_cli.profiles.sync import behind, sync
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.home import FITTED_FOLDER, Home
from persona_cli.workspace.tables import File, Table

READERS_WAIT = 600.0
"""Seconds that files are kept for commands that were reading before; then they are deleted all the same."""
log = logging.getLogger("persona")


@dataclass(frozen=True)
class Settled:
    """What was brought up to date."""

    profiles: str
    """`subtracted`: the rows of the persons left; else the mode of the sync: unchanged, incremental or rebuilt."""
    gram: str | None
    """`subtracted`, `unchanged` or `updated`; None: no item sums are kept."""
    models: Refitted
    """What is served."""
    removed_models: tuple[str, ...]
    """Versions from before."""
    per_user: int
    """Rows of people that left evaluations and other artifacts."""
    files: int
    """Superseded files that were deleted."""
    alone: bool
    """Whether nobody read while they were deleted."""


def settle(
    home: Home,
    persons: pl.Series | None,
    *,
    refit: bool = True,
    progress: Callable[[str], None] | None = None,
    wait: float = 0.0,
) -> Settled:
    """Bring profiles, history, links, item sums and models to what the base tables say now, and vacuum.

    `persons`: every id of the persons whose rows were removed (`Persons.ids_of`), where nothing else was; None: what
    changed is found out. Raises Busy where another run holds the models or the tables after `wait` seconds.
    """
    tell = progress or (lambda step: None)
    with everything(home, "settle", wait):
        tell("signals")
        home = _signals(home)
        tell("profiles and history")
        mode = bring_profiles(home, persons)
        tell("item sums")
        gram = _gram(home, persons)
        tell("models")
        models = refitting.refit(home) if refit else refitting.unfitted(home)
        bandit_state.refit(home)
        tell("figures of users")
        known = profile_rows(home, ("user_id",), purpose=None)["user_id"] if persons is None else None
        with locks.unread(home, READERS_WAIT) as alone:
            per_user = remove_people(home, persons, known)
            tell("superseded files")
            removed = refitting.remove_others(home, models)
            gram_store.keep_newest(home)
            keep_fit_in_force(home)
            files = tables.vacuum(home)
            for path in artifacts.leftovers(home.root):
                artifacts.remove(path)
    return Settled(mode, gram, models, tuple(removed), per_user, files, alone)


@contextlib.contextmanager
def everything(home: Home, command: str, wait: float) -> Iterator[None]:
    """Hold the locks of all that is made of events, in the order in which training takes them."""
    with (
        locks.hold(home, "models", command, wait),
        locks.hold(home, "tables", command, wait),
        locks.hold(home, "signals", command, wait),
    ):
        yield


def _signals(home: Home) -> Home:
    """What signals mean, learned again where it was learned: a fit of all people's events."""
    if home.settings.fitted is None:
        return home
    try:
        learned = fit_signals(home, cast(Source, load(home.settings.fitted).source))
    except (MissingInput, BadData) as error:  # nothing is left to learn from, or the fit is damaged
        log.warning("what signals mean is not learned again: %s", error.message)
        home.path(*FITTED_FOLDER.split("/"), "latest.json").unlink(missing_ok=True)
        return replace(home, settings=replace(home.settings, fitted=None))
    return replace(home, settings=replace(home.settings, fitted=learned.fitted))


def bring_profiles(home: Home, persons: pl.Series | None) -> str:
    """Profiles, history and links as they follow from the events now, with nothing of what left; how, as `Settled`."""
    events = tables.open_table(home, EVENTS)
    if events is None:
        return "unchanged"
    if persons is not None and _subtracted(home, events, persons):
        return "subtracted"
    mode = sync(home).mode
    compact_negative(home)
    return mode


def _subtracted(home: Home, events: Table, persons: pl.Series) -> bool:
    """Take the persons' rows out of profiles and history, if all that happened to events since is that they left."""
    there = [tables.open_table(home, name) for name in (histories.NAME, folding.NAME)]
    if any(table is None or not _only_persons_left(events, table) for table in there):
        return False
    state = {"events_version": str(events.version)}
    for name in (histories.NAME, folding.NAME):
        if not remove_where(home, name, pl.col("user_id").is_in(persons.implode()), metadata=state):
            table = tables.open_table(home, name)
            assert table is not None
            table.commit([], metadata={**said(table), **state})
    Links.of(home, events).save(home, events)
    return behind(home) is None


def _only_persons_left(events: Table, table: Table) -> bool:
    followed = table.metadata
    if followed.get("events_table") != events.id or "events_version" not in followed:
        return False
    since = [commit for commit in events.history() if int(commit["version"]) > int(followed["events_version"])]
    complete = len(since) == events.version - int(followed["events_version"])
    return complete and all(commit.get("removed") == MARK for commit in since)


def compact_negative(home: Home) -> None:
    """Add up the buckets of history with negative partial folds, in which what was taken back is still written."""
    table = tables.open_table(home, histories.NAME)
    if table is None:
        return
    add: list[File] = []
    remove: list[File] = []
    try:
        for bucket, files in folding.files_by_bucket(table).items():
            if not table.scan(files).select((pl.col("n") < 0).any()).collect().item():
                continue
            rows = histories.summed(table.scan(files).drop("bucket"))
            remove += files
            if rows.height:
                add.append(table.write(rows, {"bucket": bucket}))
    except BaseException:
        table.discard()
        raise
    if remove:
        table.commit(add, remove, metadata=said(table))


def _gram(home: Home, persons: pl.Series | None) -> str | None:
    before = gram_store.stored_digest(home)
    if before is None:
        return None
    if persons is not None:
        return gram_store.subtract(home, persons)
    try:
        training.material(home, home.settings, (), None)  # as training sums: of those alone whom models may learn from
    except MissingInput:
        gram_store.keep_newest(home, 0)
        return None
    return "unchanged" if gram_store.stored_digest(home) == before else "updated"


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
        for name, rows in retention.remove(home, gone).items():
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
