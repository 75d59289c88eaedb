"""Bring `history` and `profiles` to the version of the events table.

Both follow from the events and the settings alone, and each commit says from which version and settings, so that a run
that was killed between the two commits is completed by the next.

What changed is found by the files that the events table gained and lost: their partial folds are added to history (and
taken from it) and to profiles, where they merge exactly, also late events and sessions that go on. Nothing can be taken
from a profile: users of whom events are gone are folded again from all of theirs, and so are persons who gained or lost
an id by a link (`identity`), in both tables. All is done a bucket at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from persona_cli.profiles import fold as folding
from persona_cli.profiles import history as histories
from persona_cli.profiles.buckets import Load, buckets_of, shared_out
from persona_cli.profiles.changes import CHANGED, Changes, Folded, Standing, changes, new_rows
from persona_cli.profiles.coding import Coded
from persona_cli.profiles.folds import explicit
from persona_cli.profiles.folds.part import RULE_SETTINGS, FoldRules
from persona_cli.profiles.identity import NOBODY, Links, Persons, raw_key
from persona_cli.profiles.signals import FOLD_VERSION, coded_signals, signals_digest
from persona_cli.workspace import locks, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings
from persona_cli.workspace.tables import File, Table

_MAX_THREADS = 4
_PIECE = 1 << 20  # a row group of the files that tables are written in
log = logging.getLogger("persona")
Mode = Literal["unchanged", "incremental", "rebuilt"]
HISTORY_COLUMNS = ("user_id", "item_id", "timestamp", "event_type", "value")
ALL_COLUMNS = tuple(dict.fromkeys((*HISTORY_COLUMNS, *folding.FOLDED)))


@dataclass(frozen=True)
class Synced:
    """What a sync did. `users` and `events`: how many were folded; when incremental, those that changed."""

    mode: Mode
    reason: str
    users: int
    events: int


@dataclass(frozen=True)
class _Plan:
    """What one table needs: nothing, these files of events, or everything."""

    mode: Mode
    reason: str
    added: tuple[File, ...] = ()
    removed: tuple[File, ...] = ()
    again: pl.Series = field(default_factory=lambda: NOBODY.persons)
    """Persons who gained or lost an id, or their standing: user_id, sorted."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """What the table's last commit said of itself."""

    def before(self, now: Sequence[File]) -> list[File]:
        """The files of events that the table follows from, by those of now."""
        new = {file.path for file in self.added}
        return [*(file for file in now if file.path not in new), *self.removed]


def sync(home: Home, rebuild: bool = False, wait: float = 0.0) -> Synced:
    """Fold what is new, or everything (`rebuild`, or other settings than the tables were made by).

    Raises `Busy` where another run holds the tables after `wait` seconds.
    """
    with locks.hold(home, "tables", "profile build", wait):
        events = tables.open_table(home, "events")
        if events is None:
            return Synced("unchanged", "there are no events yet", 0, 0)
        history, profiles = (
            _of_now(home, name, schema)
            for name, schema in ((histories.NAME, histories.SCHEMA), (folding.NAME, folding.SCHEMA))
        )
        standing = Standing.of(home)
        if rebuild:
            first = second = _Plan("rebuilt", "asked for")
        else:
            rules = _history_digest(home.settings), _profiles_digest(home.settings)
            first = _plan(events, history, rules[0], "signals, consumed_by or buckets changed", standing)
            second = _plan(events, profiles, rules[1], "the session gap or buckets changed", standing)
        gone = [*first.removed, *second.removed]
        links = Links.of(home, events, gone)
        if first.mode == second.mode == "unchanged":
            links.save(home, events)
            return Synced("unchanged", first.reason, 0, 0)
        who = standing.folded(links.persons(events.files), events, gone)
        first, second = (_with_moved(plan, events, links, who, standing) for plan in (first, second))
        done = _carry_out(home, events, history, profiles, first, second, who)
        links.save(home, events)
        return done


def _of_now(home: Home, name: str, schema: pa.Schema) -> Table:
    """The table, begun anew where it is of another version of persona: it is made again from the events."""
    older = tables.open_table(home, name)
    if older is not None and older.schema != schema:
        tables.drop(home, name)
    return tables.open_or_create(home, name, schema, ["bucket"])


def _with_moved(plan: _Plan, events: Table, links: Links, who: Folded, standing: Standing) -> _Plan:
    """The plan with the persons whose ids, or whose standing, are others than when the table was made."""
    if plan.mode != "incremental":
        return plan
    before = links.persons(plan.before(events.files))
    ids = pl.concat([before.ids, who.ids]).unique().sort()
    pairs = pl.DataFrame({"before": before.of(ids), "now": who.of(ids)}).filter(pl.col("before") != pl.col("now"))
    moved = standing.moved(plan.said, before, who, events, plan.removed)
    return replace(plan, again=pl.concat([pairs["before"], pairs["now"], moved]).unique().sort().alias("user_id"))


def behind(home: Home) -> str | None:
    """Why the profiles do not hold what the events and settings say now; None where they do."""
    events = tables.open_table(home, "events")
    if events is None:
        return None
    standing = Standing.of(home)
    for name, digest in ((histories.NAME, _history_digest), (folding.NAME, _profiles_digest)):
        table, rules = tables.open_table(home, name), (digest(home.settings), "settings changed", standing)
        plan = _plan(events, table, *rules) if table else _Plan("rebuilt", _FIRST)
        if table and table.schema != (histories.SCHEMA if name == histories.NAME else folding.SCHEMA):
            return "they are of another version of persona"
        if plan.mode != "unchanged":
            return plan.reason
    return None


_FIRST = "nothing was built yet"


def _history_digest(settings: Settings) -> str:
    return f"{signals_digest(settings)}/{settings.digest(['identity.'])}/{settings.whole('profiles.buckets')}"


def _profiles_digest(settings: Settings) -> str:
    own = f"{FOLD_VERSION} {folding.SCHEMA} {settings.digest([*RULE_SETTINGS, 'identity.'])}"
    return f"{hashlib.sha256(own.encode()).hexdigest()}/{settings.whole('profiles.buckets')}"


def _history_state(home: Home, events: Table, who: Folded) -> dict[str, str]:
    return _state(events, _history_digest(home.settings), who)


def _profiles_state(home: Home, events: Table, who: Folded) -> dict[str, str]:
    return _state(events, _profiles_digest(home.settings), who)


def _state(events: Table, digest: str, who: Folded) -> dict[str, str]:
    """What a commit says of itself: the events it follows from, the rules, and who is folded."""
    return {"events_table": events.id, "events_version": str(events.version), "digest": digest, **who.said}


def _plan(events: Table, table: Table, digest: str, when_changed: str, standing: Standing) -> _Plan:
    said: dict[str, Any] = table.metadata
    if "events_version" not in said:
        return _Plan("rebuilt", _FIRST if not table.files else "it is not known from which events the table was built")
    if said.get("digest") != digest:
        return _Plan("rebuilt", when_changed)
    if said.get("events_table") != events.id:
        return _Plan("rebuilt", "the events table is another one")
    if reason := standing.unknown(said):
        return _Plan("rebuilt", reason)
    since, changed = int(said["events_version"]), standing.changed(said)
    if since == events.version:
        return _Plan("incremental", CHANGED, said=said) if changed else _Plan("unchanged", "no new events")
    changes = events.changes(since)
    if changes is None:
        return _Plan("rebuilt", "the log of the events no longer reaches back to the last build")
    added, removed = changes
    if not all((events.root / file.path).exists() for file in removed):
        return _Plan("rebuilt", "files that events were removed from are gone")
    files = f"{len(added)} files of events added, {len(removed)} removed"
    reason = f"{files}; {CHANGED}" if changed else files
    return _Plan("incremental", reason, (*added,), (*removed,), said=said)


def _carry_out(
    home: Home, events: Table, history: Table, profiles: Table, first: _Plan, second: _Plan, who: Folded
) -> Synced:
    mode: Mode = "rebuilt" if "rebuilt" in (first.mode, second.mode) else "incremental"
    reason = next(plan.reason for plan in (first, second) if plan.mode == mode)
    if mode == "rebuilt":
        log.debug("folding all events: %s", reason)
    again = [table if plan.mode == "rebuilt" else None for table, plan in ((history, first), (profiles, second))]
    users = _rebuild(home, events, who, *again) if any(again) else 0
    if first.mode == "incremental":
        _add_to_history(home, events, history, first, who)
    if second.mode == "incremental":
        touched = _add_to_profiles(home, events, profiles, second, who)
        users = users or touched
    if mode == "rebuilt":
        return Synced(mode, reason, users, sum(file.rows for file in events.files))
    plan = first if first.mode == mode else second
    return Synced(mode, reason, users, sum(file.rows for file in (*plan.added, *plan.removed)))


def _rebuild(home: Home, events: Table, who: Folded, history: Table | None, profiles: Table | None) -> int:
    """Fold all events into the tables given; answers the number of users."""
    columns = dict.fromkeys((*(HISTORY_COLUMNS if history else ()), *(folding.FOLDED if profiles else ())))
    with (
        _written(history) as history_files,
        _written(profiles) as profile_files,
        shared_out(home, _pieces(events, events.files, who, *columns), texts(*columns), _buckets(home)) as shared,
    ):

        def build(bucket: int, load: Load) -> int:
            part = load()
            if history is not None:
                _write(history, history_of(part, home.settings), bucket, history_files)
            if profiles is not None:
                _write(profiles, folding.fold_coded(part, FoldRules.of(home.settings)), bucket, profile_files)
            return part.rows["user_id"].n_unique()

        users = sum(_in_threads(home, build, shared))
    # From here on the files may be part of a table, so nothing deletes them any more.
    if history is not None:
        history.commit(history_files, history.files, metadata=_history_state(home, events, who))
    if profiles is not None:
        profiles.commit(profile_files, profiles.files, metadata=_profiles_state(home, events, who))
    return users


def _add_to_history(home: Home, events: Table, history: Table, plan: _Plan, who: Folded) -> None:
    """Append the partial folds of added files, and the negative ones of removed files, to the buckets they touch.

    What is there of persons folded again is taken back, and all their events are added.
    """
    others = ~pl.col("user_id").is_in(plan.again.implode())
    changed = [
        (piece.filter(others) if len(plan.again) else piece).with_columns(gone=pl.lit(gone))
        for files, gone in ((plan.added, False), (plan.removed, True))
        for piece in _pieces(events, files, who, *HISTORY_COLUMNS)
    ]
    changed += [rows.with_columns(gone=pl.lit(False)) for rows in _all_of(events, plan.again, who, *HISTORY_COLUMNS)]
    present = folding.files_by_bucket(history)
    again_in = buckets_of(plan.again, _buckets(home))
    remove: list[File] = []
    with (
        _written(history) as add,
        shared_out(home, changed, texts(*HISTORY_COLUMNS), _buckets(home)) as shared,
    ):

        def append(bucket: int, load: Load) -> int:
            part = load()
            files, again = present.get(bucket, []), plan.again.filter(again_in == bucket)
            rows, gone = histories.NOBODY, histories.NOBODY
            if part.rows.width:
                rows = history_of(part.filtered(~pl.col("gone")), home.settings)
                gone = history_of(part.filtered(pl.col("gone")), home.settings)
            if len(again):
                theirs = history.scan(files).drop("bucket").filter(pl.col("user_id").is_in(again.implode()))
                gone = pl.concat([gone, theirs.collect()])
            if gone.height:
                rows = histories.merged(pl.concat([rows, histories.negative(gone)]))
            compacted = folding.to_compact(files)
            if compacted:
                add_up = histories.summed if len(compacted) == len(files) else histories.merged
                rows = add_up(pl.concat([history.scan(compacted).drop("bucket").collect(), rows]))
                remove.extend(compacted)
            _write(history, rows, bucket, add)
            return rows.height

        _in_threads(home, append, _with_empty(shared, again_in))
    history.commit(add, remove, metadata=_history_state(home, events, who))


def _with_empty(shared: list[tuple[int, Load]], buckets: pl.Series) -> list[tuple[int, Load]]:
    """Loads by bucket, with empty ones of these buckets where all events were taken back."""
    loads = dict(shared)
    return [*shared, *((bucket, _nothing) for bucket in buckets.unique().sort() if bucket not in loads)]


def _add_to_profiles(home: Home, events: Table, profiles: Table, plan: _Plan, who: Folded) -> int:
    """Append the partial folds of new events to the buckets they touch; answers the number of users that changed.

    Users of events that are gone are folded again from all their events, and their buckets written anew.
    """
    rules = FoldRules.of(home.settings)
    changed = changes(partial(_identified, events, who), plan.added, plan.removed)
    changed = replace(changed, gone=pl.concat([changed.gone, plan.again]).unique().sort())
    pieces = _new_pieces(events, plan, changed, who)
    present = folding.files_by_bucket(profiles)
    gone_from = buckets_of(changed.gone, _buckets(home))
    remove: list[File] = []
    with _written(profiles) as add, shared_out(home, pieces, folding.TEXTS, _buckets(home)) as shared:

        def append(bucket: int, load: Load) -> int:
            rows = folding.fold_coded(load(), rules)
            files, gone = present.get(bucket, []), changed.gone.filter(gone_from == bucket)
            again = files if len(gone) else folding.to_compact(files)
            written = rows
            if again:
                kept = profiles.scan(again).select(folding.COLUMNS).filter(~pl.col("user_id").is_in(gone.implode()))
                written = folding.merge(pl.concat([kept.collect(), rows]), rules)
                remove.extend(again)
            _write(profiles, written, bucket, add)
            return rows["user_id"].append(gone).n_unique()

        users = sum(_in_threads(home, append, _with_empty(shared, gone_from)))
    profiles.commit(add, remove, metadata=_profiles_state(home, events, who))
    return users


def _new_pieces(events: Table, plan: _Plan, changed: Changes, who: Persons) -> Iterator[pl.LazyFrame]:
    """New events of users that lost none, and all events of those that did."""
    if not plan.removed and not len(changed.gone):
        yield from _pieces(events, plan.added, who, *folding.FOLDED)
        return
    for rows in new_rows(partial(_identified, events, who), plan.added, changed):
        yield rows.drop("event_id")
    yield from _all_of(events, changed.gone, who, *folding.FOLDED)


def _all_of(events: Table, users: pl.Series, who: Persons, *columns: str) -> Iterator[pl.LazyFrame]:
    """All events of these persons, a file at a time."""
    if len(users):
        theirs = raw_key().is_in(who.ids_of(users).implode())
        yield from (keyed(events.scan([file]).filter(theirs), who, *columns) for file in events.files)


def _identified(events: Table, who: Persons, files: list[File]) -> pl.LazyFrame:
    return keyed(events.scan(files), who, "event_id", *folding.FOLDED)


def _nothing() -> Coded:
    return Coded(pl.DataFrame(), {})


def keyed(events: pl.LazyFrame, who: Persons, *columns: str) -> pl.LazyFrame:
    """Events that are folded, with the person as user_id, session numbers, and other columns as they are."""
    events = who.folded(events)
    special = {"user_id": who.key(), "session_id": folding.session_number()}
    if set(columns) & set(explicit.derived()):
        special |= explicit.derived() if explicit.any_explicit(events) else explicit.nothing()
    return events.select(special.get(name, pl.col(name)) for name in dict.fromkeys(("user_id", *columns)))


def _pieces(events: Table, files: Iterable[File], who: Persons, *columns: str) -> Iterator[pl.LazyFrame]:
    """The events of files, not more than `_PIECE` at once."""
    for file in files:
        rows = keyed(events.scan([file]), who, *columns)
        yield from (rows.slice(start, _PIECE) for start in range(0, max(file.rows, 1), _PIECE))


def texts(*columns: str) -> list[str]:
    return [name for name in columns if name in folding.TEXTS]


def history_of(events: Coded, settings: Settings) -> pl.DataFrame:
    return histories.fold_coded_history(events, coded_signals(events, settings))


def _in_threads(home: Home, work: Callable[[int, Load], int], shared: list[tuple[int, Load]]) -> list[int]:
    """What `work` answers for each bucket; a few at a time, since each is in memory as a whole."""
    threads = min(home.settings.whole("compute.threads") or os.cpu_count() or 1, _MAX_THREADS)
    pool = ThreadPoolExecutor(threads)
    try:
        return list(pool.map(work, *zip(*shared, strict=True))) if shared else []
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _written(table: Table | None) -> Iterator[list[File]]:
    """Files written by the body; deleted again when it does not end well."""
    files: list[File] = []
    try:
        yield files
    except BaseException:
        if table is not None:
            table.discard()
        raise


def _write(table: Table, rows: pl.DataFrame, bucket: int, files: list[File]) -> None:
    if rows.height:
        files.append(table.write(rows, {"bucket": bucket}))


def _buckets(home: Home) -> int:
    return home.settings.whole("profiles.buckets")
