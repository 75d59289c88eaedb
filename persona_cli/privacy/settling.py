"""After rows were removed from the base tables: bring everything that follows from them to what it would be without.

Nothing of it is undone by a crash in between: every step looks at what is there, so running it again completes it. The
steps that delete what readers may have open come last, and wait until nobody reads (`locks.unread`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import polars as pl

from persona_cli.errors import BadData, MissingInput
from persona_cli.events.store import NAME as EVENTS
from persona_cli.feedback import bandit_state, refitting, training
from persona_cli.feedback.refitting import Refitted
from persona_cli.models import gram_store
from persona_cli.privacy.per_user import remove_people
from persona_cli.privacy.removal import remove_where, said
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

MARK = "persons"
"""In what a commit of events says of itself: whole persons were taken out, and nothing else changed."""
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
