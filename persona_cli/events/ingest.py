"""Files of events or of a catalogue into the workspace: all of one command in one commit, or nothing of it.

A file with too many rejected lines is refused, and with it the command: nothing is stored, and its rejected lines,
which are still in the user's file, are shown instead of kept. Otherwise the rejected lines go to the quarantine, which
is committed first: it knows its lines again, so a run killed between the two commits is completed by the next.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

import pyarrow as pa

from persona_cli.errors import BadData, MissingInput, UsageError, nearest
from persona_cli.events import opening, reading
from persona_cli.events.catalogue import Attributes, CatalogueStore
from persona_cli.events.consenting import Consenting
from persona_cli.events.dedupe import Policy
from persona_cli.events.dialects import choose
from persona_cli.events.dialects.dialect import Dialect
from persona_cli.events.door import DoorRules, admit
from persona_cli.events.opening import Format, Input
from persona_cli.events.quarantine import Rejections, masked
from persona_cli.events.reading import Reject
from persona_cli.events.schema import Kind, Mapping, kept_schema, parse_flags
from persona_cli.events.store import EventStore
from persona_cli.events.undo import undo
from persona_cli.workspace import locks, runs
from persona_cli.workspace.home import Home

__all__ = ["Planned", "Reason", "Report", "ingest", "masked", "plan", "take", "undo"]

DAY_US = 86_400_000_000
# Fewer rejected lines than this never refuse a file, whatever their share.
ALWAYS_ALLOWED = 20
COMMONEST = 5
log = logging.getLogger("persona")
Progress = Callable[[float], None]


class Reason(NamedTuple):
    """Why lines were rejected: how many, and one of them with its values masked."""

    reason: str
    lines: int
    example: str
    place: str


@dataclass
class Report:
    """What an ingest did. `read` = accepted + duplicates + rejected + what `dropped` adds up to.

    `removed` counts query strings and IP addresses taken out at the door, of accepted rows and duplicates; `bots` the
    rows of bots, which `dropped` has too where they are left out.
    `users`, `items`, `first`, `last` are of the accepted rows; `replaced` counts the duplicates whose values took the
    place of stored ones (keep-last), `withdrawn` stored events of these files that did not come again (`replace`).
    `dialects` names the inputs that were not native, and what each was read as;
    `about` counts the new rows of users and accounts that came from traits, `receipts` what was said of consent and
    written down, `opted_out_by_signal` the people whose browser's signal opted them out now.
    """

    run: str
    ingested_at: datetime
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    users: int = 0
    items: int = 0
    first: datetime | None = None
    last: datetime | None = None
    seconds: float = 0.0
    reasons: list[Reason] = field(default_factory=list)
    replaced: int = 0
    zoneless: int = 0
    dialects: dict[str, str] = field(default_factory=dict)
    about: dict[str, int] = field(default_factory=dict)
    version: int | None = None
    removed: dict[str, int] = field(default_factory=dict)
    bots: int = 0
    withdrawn: int = 0
    receipts: int = 0
    opted_out_by_signal: int = 0


@dataclass
class Planned:
    """How one input would be read: its format and dialect, canonical field → theirs, which of that is guessed, the
    first rows, and how many of the first records hold nothing to keep.
    """

    source: str
    format: str
    dialect: str
    mapping: dict[str, str]
    guessed: tuple[str, ...]
    rows: list[dict[str, Any]]
    rejects: list[Reason]
    dropped: int = 0


class Store(Protocol):
    """Where accepted rows go: `EventStore` or `CatalogueStore`."""

    accepted: int
    duplicates: int
    replaced: int
    first: datetime | None
    last: datetime | None

    @property
    def users(self) -> int: ...
    @property
    def items(self) -> int: ...
    def add(self, rows: pa.Table, file: int) -> None: ...
    def finish(self) -> None: ...
    def commit(self, metadata: dict[str, Any]) -> int | None: ...
    def discard(self) -> None: ...


def ingest(
    home: Home,
    inputs: Sequence[str | Input],
    *,
    kind: Kind = "events",
    maps: Sequence[str] = (),
    format: Format | None = None,
    dialect: str = "auto",
    max_rejected: float | None = None,
    on_duplicate: Policy | None = None,
    replace: bool = False,
    wait: float = 0.0,
    progress: Progress | None = None,
    run: str | None = None,
) -> Report:
    """Judge, deduplicate and store `inputs` (paths, globs, folders, `-`); `run` is the id under which to take it back.

    `dialect` is the name of one, a TOML file, "native", or "auto": by the first records of each input; where that finds
    one, `maps` override single fields. `replace`: the inputs are newer states of files stored before; events that are
    stored under the name of one of them and do not come again are taken out in the same commit, and changed ones take
    their new values (keep-last). Options that are None follow the settings [ingest]. `progress` is called with numbers
    of lines read. Raises MissingInput, UsageError, Busy (the tables are in use), and BadData where a file is refused
    or, with on_duplicate="error", where an event is there already; nothing is stored then.
    """
    began = time.monotonic()
    policy = _policy(home, on_duplicate) if not replace else _replacing(kind, on_duplicate, inputs)
    allowed = home.settings.number("ingest.max_rejected") if max_rejected is None else max_rejected
    if not 0 <= allowed <= 1:
        raise UsageError(f"--max-rejected is {allowed:g}; expected a share from 0 to 1")
    sources = _sources(inputs, format)
    choice = choose(dialect, kind, home.settings)
    with locks.hold(home, "tables", "ingest", wait):
        now = datetime.now(UTC)
        report = Report(run or runs.new_id(now), now)
        store = open_store(home, kind, policy, now, [source.name for source in sources], replace=replace)
        attributes = Attributes(home, now, [source.name for source in sources])
        rejections = Rejections(home, report.run, kind, now, [source.name for source in sources])
        rules = DoorRules.of(home.settings)
        consenting = Consenting.of(home, report.run, now)
        latest_us = int(now.timestamp() * 1_000_000) + DAY_US
        try:
            seen: dict[str, Reason] = {}
            guesses: set[str] = set()
            for number, source in enumerate(sources):
                read = rejected = 0
                reasons: dict[str, Reason] = {}
                told = partial(_tell, source.name, guesses, dialect, report.dialects)
                batches = reading.batches(source, kind, maps, home.settings, latest_us, choice=choice, tell=told)
                for batch in batches:
                    _let_in(batch, kind, rules, consenting, report)
                    spoken = report.dialects.get(source.name, "native")
                    take(batch, number, source.name, store, rejections, reasons, spoken)
                    attributes.add(batch.about, number)
                    for why, count in batch.dropped.items():
                        report.dropped[why] = report.dropped.get(why, 0) + count
                    read += batch.read
                    rejected += len(batch.rejects)
                    report.zoneless += batch.zoneless
                    if progress is not None:
                        progress(batch.read)
                report.read += read
                report.rejected += rejected
                if rejected > max(ALWAYS_ALLOWED, allowed * read):
                    raise _refused(source, read, rejected, allowed, reasons)
                if replace and any(reason.endswith(opening.BROKEN) for reason in reasons):
                    raise BadData(f"{source.name}: damaged, so that it is not known what it no longer holds; "
                                  "nothing was stored", "ingest it without --replace, or the whole file")  # fmt: skip
                for name, reason in reasons.items():
                    old = seen.get(name)
                    seen[name] = reason if old is None else old._replace(lines=old.lines + reason.lines)
            store.finish()
            attributes.finish()
            rejections.finish()
            rejections.commit()
            consenting.commit()  # before the events: who refused is known also if the run is killed here
            attributes.commit({"run": report.run, "ingested_at": now.isoformat()})
            report.version = store.commit({"run": report.run, "ingested_at": now.isoformat()})
        except BaseException:
            store.discard()
            attributes.discard()
            rejections.discard()
            raise
    report.reasons = _commonest(seen)
    report.about = attributes.accepted
    report.removed |= dict(sorted(attributes.removed.items()))
    report.receipts, report.opted_out_by_signal = consenting.receipts, consenting.opted_out_by_signal
    if consenting.stripped:
        report.removed["anon_ids"] = consenting.stripped
    if isinstance(store, EventStore):
        report.withdrawn = store.withdrawn
        for name in store.without_older if replace else ():
            log.info("%s: no event was stored under this name before", name)
    for name in ("accepted", "duplicates", "replaced", "users", "items", "first", "last"):
        setattr(report, name, getattr(store, name))
    report.seconds = round(time.monotonic() - began, 3)
    _tell_removed(report)
    if report.zoneless:
        zone = home.settings.text("ingest.assume_tz")
        log.warning("%s rows had a time without a zone, read as %s (ingest.assume_tz)", f"{report.zoneless:,}", zone)
    return report


def open_store(
    home: Home, kind: Kind, policy: Policy, now: datetime, sources: Sequence[str], *, replace: bool = False
) -> Store:
    """The store for rows of `kind`, with a snapshot of its table taken now."""
    if kind == "events":
        return EventStore(home, policy, now, sources, replace=replace)
    return CatalogueStore(home, kind, now, sources)


def _let_in(batch: reading.Batch, kind: Kind, rules: DoorRules, consenting: Consenting, report: Report) -> None:
    """Take from the rows of a batch what is not stored, and count it."""
    for why, n in consenting.let_in(batch, kind).items():
        report.dropped[why] = report.dropped.get(why, 0) + n
    admitted = admit(batch.rows, kind, rules)
    batch.rows = admitted.rows
    report.bots += admitted.bots
    if admitted.dropped:
        report.dropped["bots"] = report.dropped.get("bots", 0) + admitted.dropped
    fields = sorted(admitted.fields.items())
    for name, n in (("query_strings", admitted.queries), ("ip_addresses", admitted.addresses), *fields):
        if n:
            report.removed[name] = report.removed.get(name, 0) + n


def _tell_removed(report: Report) -> None:
    if report.removed:
        counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in report.removed.items())
        log.info("removed before storing: %s", counts)
    if report.bots:
        done = "left out" if "bots" in report.dropped else "kept"
        log.info("%s events of bots were %s (ingest.bots)", f"{report.bots:,}", done)


def take(
    batch: reading.Batch,
    number: int,
    source: str,
    store: Store,
    rejections: Rejections,
    reasons: dict[str, Reason],
    dialect: str = "native",
) -> None:
    """Hand one batch on: rows to the store, rejects to the quarantine, reasons to those counted so far."""
    if batch.rejects:
        rejections.add(batch.rejects, source, dialect)
        _count_reasons(reasons, batch.rejects, source)
    store.add(batch.rows, number)


def plan(
    home: Home,
    inputs: Sequence[str],
    *,
    kind: Kind = "events",
    maps: Sequence[str] = (),
    format: Format | None = None,
    dialect: str = "auto",
    rows: int = 3,
) -> list[Planned]:
    """How each input would be read, by its first lines; nothing is written. Standard input is consumed."""
    planned = []
    latest_us = time.time_ns() // 1_000 + DAY_US
    choice = choose(dialect, kind, home.settings)
    for source in _sources(inputs, format):
        found = reading.sniff(source, kind, maps, home.settings, latest_us, rows, choice)
        reasons: dict[str, Reason] = {}
        _count_reasons(reasons, found.rejects, source.name)
        let_in = admit(found.rows, kind, DoorRules.of(home.settings)).rows
        records = let_in.select(kept_schema(kind).names).slice(0, rows).to_pylist()
        shown = [{name: value for name, value in record.items() if value is not None} for record in records]
        described, guessed = found.mapping.describe(), found.mapping.guessed
        if found.dialect is not None:
            described, guessed = _table_of(found.dialect, kind, maps), ()
        spoken = "native" if found.dialect is None else found.dialect.name
        wrong = _commonest(reasons)
        planned.append(Planned(source.name, found.format, spoken, described, guessed, shown, wrong, found.dropped))
    return planned


def _table_of(dialect: Dialect, kind: Kind, maps: Sequence[str]) -> dict[str, str]:
    """Canonical field → where it is looked for, by the dialect, and by what --map says instead."""
    paths, constants = parse_flags(kind, maps)
    table = {name: " | ".join(places) for name, places in dialect.sources.items()}
    table |= {name: ".".join(path) for name, path in paths.items()}
    return table | {name: f"={text}" for name, text in constants.items()}


def _tell(
    source: str, told: set[str], asked: str, dialects: dict[str, str], mapping: Mapping, dialect: Dialect | None
) -> None:
    """Remember the dialect of an input; say once what was taken for what without having been told."""
    if dialect is not None:
        dialects[source] = str(Path(asked).absolute()) if asked.endswith(".toml") else dialect.name
        if asked == "auto" and dialect.name not in told:
            told.add(dialect.name)
            log.info("%s: read as %s (--dialect native reads it as it is)", source, dialect.name)
    if not mapping.guessed:
        return
    shown = mapping.describe()
    guess = ", ".join(f"{name} = {shown[name].removeprefix('=')}" for name in mapping.guessed)
    if guess not in told:
        told.add(guess)
        log.info("%s: guessed %s (--map FIELD=THEIRS decides)", source, guess)


def _policy(home: Home, given: Policy | None) -> Policy:
    policy = given or home.settings.text("ingest.on_duplicate")
    if policy not in get_args(Policy):
        raise UsageError(f"--on-duplicate is {policy!r}{nearest(policy, get_args(Policy))}")
    return policy  # type: ignore[return-value]


def _replacing(kind: Kind, on_duplicate: Policy | None, inputs: Sequence[str | Input]) -> Policy:
    """The policy of --replace; raises UsageError for what does not go with it."""
    if kind != "events":
        raise UsageError(f"--replace is for events: rows of {kind} hold until a later one, and are not taken out")
    if on_duplicate not in (None, "keep-last"):
        raise UsageError(f"--replace takes the newer of two events with one id, not --on-duplicate {on_duplicate}")
    if "-" in inputs:
        raise UsageError("--replace needs the name of the file that was stored before; standard input has none")
    return "keep-last"


def _sources(inputs: Sequence[str | Input], format: Format | None) -> list[Input]:
    """The inputs in order, each once: a file named twice is one file."""
    found: dict[object, Input] = {}
    for source in opening.find(inputs):
        found.setdefault(source.path.resolve() if source.path else None, source)
    chosen = list(found.values())
    for source in chosen:
        if source.path is not None and not os.access(source.path, os.R_OK):
            raise MissingInput(f"{source.name}: it is there, but this user may not read it")
    return [dataclasses.replace(source, format=format) for source in chosen] if format else chosen


def _count_reasons(reasons: dict[str, Reason], rejects: Sequence[Reject], source: str) -> None:
    for reject in rejects:
        old = reasons.get(reject.reason)
        if old is None:
            reasons[reject.reason] = Reason(reject.reason, 1, masked(reject.raw), f"{source}:{reject.line}")
        else:
            reasons[reject.reason] = old._replace(lines=old.lines + 1)


def _commonest(reasons: dict[str, Reason]) -> list[Reason]:
    return sorted(reasons.values(), key=lambda reason: (-reason.lines, reason.reason))[:COMMONEST]


def _refused(source: Input, read: int, rejected: int, allowed: float, reasons: dict[str, Reason]) -> BadData:
    limit = max(ALWAYS_ALLOWED, int(allowed * read))
    lines = [
        f"{source.name}: {rejected:,} of {read:,} lines were rejected ({rejected / read:.1%}), more than the {limit:,} "
        f"allowed (ingest.max_rejected = {allowed:g}); nothing was stored"
    ]
    lines += [f"  {r.lines:>7,} x {r.reason}\n            {r.place}: {r.example}" for r in _commonest(reasons)]
    return BadData("\n".join(lines), "name the columns with --map, or take what is good with --max-rejected 1.0")
