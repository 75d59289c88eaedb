"""How long what is kept, and what is over its time: the schedule of `[privacy.retention]` and the plan of an expiry.

A period ends with a day (UTC): what is of a day before `now` less the period is due, so every run of one day finds the
same. Rows of tables by month are counted by the log where all of a file is due, and by its times alone where some is.

Of people whom no purpose has a basis for any more, nothing new is collected from the moment they refuse
(`consent.gate`), and nothing is used. What was stored before stays for `privacy.retention.withdrawn_days`, in which a
refusal can be taken back. People of whom no word is known are not among them: where a purpose rests on consent since
lately, their events are unused until they expire.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from persona_cli.consent.gate import GIVEN, Gate
from persona_cli.consent.receipts import COVERING
from persona_cli.consent.subjects import subjects
from persona_cli.events.quarantine import NAME as QUARANTINE
from persona_cli.events.schema import stored_schema
from persona_cli.events.store import NAME as EVENTS
from persona_cli.events.store import iso
from persona_cli.models.registry import list_models
from persona_cli.privacy.removal import remove_where
from persona_cli.profiles import fold as folding
from persona_cli.profiles.identity import persons
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

_IDS = ("user_id", "anon_id")


def withdrawn(home: Home, cut: datetime, since: datetime | None = None) -> pl.Series:
    """Every id of persons whom no purpose covered at the cut, by a word of theirs, nor covers now; sorted.

    Files of events that all happened before `since` are not read.
    """
    none = pl.Series("id", [], dtype=pl.String)
    now, then = Gate.of(home), Gate.of(home, cut)
    if now.trivial or not (refused := _refused(then, cut)).len():
        return none
    ids = _stored_ids(home, since)
    who = persons(home).of(ids)
    said = subjects(home, ids).is_in(refused.implode()) | subjects(home, who).is_in(refused.implode())
    theirs = who.is_in(who.filter(said).unique().implode())
    ids, who = ids.filter(theirs), who.filter(theirs)
    return ids.filter(~now.covers(ids, who) & ~then.covers(ids, who)).alias("id")


def stored(home: Home, ids: pl.Series, since: datetime | None = None) -> int:
    """Events (from `since` on) and rows of users of these ids."""
    if not len(ids):
        return 0
    users = tables.scan(home, "users", stored_schema("users"))
    counts = [rows.filter(_theirs(name, ids)).select(pl.len()).collect().item()
              for name, rows in ((EVENTS, _events(home, since)), ("users", users))]  # fmt: skip
    return sum(counts)


def remove(home: Home, ids: pl.Series) -> dict[str, int]:
    """Take the events and rows of users of these ids out; an anonymous id of theirs leaves events of other users."""
    alias = pl.when(~pl.col("anon_id").is_in(ids.implode())).then("anon_id").alias("anon_id")
    return {
        EVENTS: remove_where(home, EVENTS, _theirs("events", ids), {"anon_id": alias}, {"expired": "withdrawn"}),
        "users": remove_where(home, "users", _theirs("users", ids), None, {"expired": "withdrawn"}),
    }


def _theirs(name: str, ids: pl.Series) -> pl.Expr:
    return (pl.coalesce(_IDS) if name == "events" else pl.col("user_id")).is_in(ids.implode())


def _refused(then: Gate, cut: datetime) -> pl.Series:
    """Digests of ids that had refused a purpose that events are collected for."""
    words = then.words.filter(pl.col("purpose").is_in(list(COVERING)) & (pl.col("state") != GIVEN))
    return words.filter(pl.col("at") < int(cut.timestamp() * 1_000_000))["subject"].unique()


def _stored_ids(home: Home, since: datetime | None) -> pl.Series:
    """Ids in events and users, sorted."""
    events, users = _events(home, since), tables.scan(home, "users", stored_schema("users"))
    places = ((events, "user_id"), (events, "anon_id"), (users, "user_id"))
    parts = [rows.select(pl.col(name).alias("id")) for rows, name in places]
    return pl.concat(parts).unique().drop_nulls().sort("id").collect()["id"]


def _events(home: Home, since: datetime | None) -> pl.LazyFrame:
    table = tables.open_table(home, EVENTS)
    if table is None or since is None:
        return tables.scan(home, EVENTS, stored_schema("events"), ["month"])
    files = [file for file in table.files if file.last is None or file.last >= iso(since)]
    return table.scan(files).filter(pl.col("timestamp") >= since)


BY_TIME = {EVENTS: "events_months", "decisions": "decisions_months", "outcomes": "decisions_months"}
"""Tables of which rows expire by their column of time, and the setting that says when."""
NOTE = ("privacy", "expiring.json")
"""There while an expiry is under way, and after one that was killed."""
OF_USERS = ("user_id", "valid_from", "ingested_at")
PER_USER = "users.parquet"
KEPT = (
    ("profiles, history, models", "as long as the events that they follow from"),
    ("consents, suppressed, privacy/", "as proof, without end: of people they hold keyed digests"),
    ("items, accounts", "without end: they are not people"),
)
_STAMP = re.compile(r"\d{8}T\d{6}(?=-)")
_NEVER = "without end"


class Period(NamedTuple):
    """How long one kind of thing is kept."""

    what: str
    setting: str
    kept: str
    """In words: `25 months`, or `without end`."""
    before: datetime | None
    """What is of an earlier moment is due (UTC, the start of a day); None: nothing is."""


class Due(NamedTuple):
    """What is due in one place: rows of a month of a table, or files."""

    what: str
    part: str
    """A month of a table (2024-01), else empty."""
    rows: int
    whole: bool = False
    """Whether it leaves without being read."""


@dataclass(frozen=True)
class Plan:
    """What an expiry takes out, and what follows. Empty where nothing is due."""

    at: datetime
    due: tuple[Due, ...]
    persons: int
    """Persons whose last event is due: their profiles vanish."""
    models: tuple[str, ...]
    """Models (`ease/3`) that learned from events that are due: made again without."""
    evaluations: tuple[str, ...]
    """Runs of evaluations whose tables by user are due."""
    runs: tuple[str, ...]
    """Runs whose manifests are due."""
    superseded: int
    """Files that no table names any more, and that are over their time: all such files leave with them."""

    @property
    def nothing(self) -> bool:
        return not (self.due or self.evaluations or self.runs or self.superseded)


def schedule(home: Home, now: datetime | None = None) -> list[Period]:
    """Every period in force, as of `now`."""
    settings, today = home.settings, _day(now)

    def months(what: str, name: str) -> Period:
        n = settings.whole(f"privacy.retention.{name}")
        return Period(
            what,
            f"privacy.retention.{name}",
            f"{n:,} months" if n else _NEVER,
            months_before(today, n) if n else None,
        )

    def days(what: str, key: str, *, zero_is_never: bool = True) -> Period:
        n = settings.whole(key)
        never = zero_is_never and not n
        return Period(what, key, _NEVER if never else f"{n:,} days", None if never else today - timedelta(days=n))

    return [
        months(EVENTS, "events_months"),
        months("users", "events_months"),
        months("decisions", "decisions_months"),
        months("outcomes", "decisions_months"),
        days(QUARANTINE, "quarantine.retention_days", zero_is_never=False),
        days("evaluations", "privacy.retention.evaluations_days"),
        months("runs", "runs_months"),
        days("withdrawn", "privacy.retention.withdrawn_days", zero_is_never=False),
        days("superseded", "privacy.retention.superseded_days", zero_is_never=False),
    ]


def cut_of(home: Home, what: str, now: datetime | None = None) -> datetime | None:
    """The moment before which `what` is due."""
    return next(period.before for period in schedule(home, now) if period.what == what)


def withdrawn_ids(home: Home, now: datetime | None = None) -> pl.Series:
    """Every id of people who are due since they refused."""
    cut = cut_of(home, "withdrawn", now)
    assert cut is not None
    return withdrawn(home, cut, cut_of(home, EVENTS, now))


def months_before(day: datetime, months: int) -> datetime:
    """The same day of an earlier month, or the last one of it: 31 March less a month is 28 or 29 February."""
    number = day.year * 12 + day.month - 1 - months
    year, month = max(number // 12, 1), number % 12 + 1
    following = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    last = (following - timedelta(days=1)).day
    return datetime(year, month, min(day.day, last), tzinfo=UTC)


def plan(home: Home, now: datetime | None = None) -> Plan:
    """What `settling.expire` would take out now; reads nothing that is due as a whole month."""
    at = now or datetime.now(UTC)
    due = [one for name in BY_TIME for one in _due_by_month(home, name, cut_of(home, name, at))]
    if rows := stored(home, withdrawn_ids(home, at), cut_of(home, EVENTS, at)):
        due.append(Due("withdrawn", "", rows))
    events = any(one.what in (EVENTS, "withdrawn") for one in due)
    if rows := overdue_users(home, at).height:
        due.append(Due("users", "", rows))
    if rows := _rejected(home, cut_of(home, QUARANTINE, at)):
        due.append(Due(QUARANTINE, "", rows))
    return Plan(
        at,
        tuple(due),
        _vanishing(home, cut_of(home, EVENTS, at)) if events else 0,
        tuple(f"{one['model']}/{one['version']}" for one in list_models(home)) if events else (),
        tuple(path.parent.name for path in old_evaluations(home, cut_of(home, "evaluations", at))),
        tuple(path.stem for path in old_runs(home, cut_of(home, "runs", at))),
        len(old_files(home, at)),
    )


def shown(home: Home, now: datetime | None = None) -> list[dict[str, Any]]:
    """The schedule with what is due: what, kept, before, due (rows or files), setting; and what is kept without end."""
    planned = plan(home, now)
    counts = Counter({"evaluations": len(planned.evaluations), "runs": len(planned.runs)})
    counts["superseded"] = planned.superseded
    for one in planned.due:
        counts[one.what] += one.rows
    rows: list[dict[str, Any]] = [
        {"what": one.what, "kept": one.kept, "before": one.before.isoformat() if one.before else None,
         "due": counts[one.what], "setting": one.setting}
        for one in schedule(home, planned.at)
    ]  # fmt: skip
    return rows + [{"what": what, "kept": why, "before": None, "due": 0, "setting": ""} for what, why in KEPT]


def overdue(home: Home, now: datetime | None = None) -> str | None:
    """A sentence on what is over its time, by the logs alone; None where nothing is."""
    if home.path(*NOTE).exists():
        return "an expiry is under way or was interrupted"
    for name in BY_TIME:
        cut, table = cut_of(home, name, now), tables.open_table(home, name)
        if cut is None or table is None:
            continue
        rows = sum(file.rows for file in table.files if file.last is not None and file.last < iso(cut))
        if rows or any(file.first is not None and file.first < iso(cut) for file in table.files):
            period = next(one for one in schedule(home, now) if one.what == name)
            return f"{name} are older than {period.kept} ({period.setting})"
    return None


def split(table: Table, cut: datetime) -> tuple[list[File], list[File]]:
    """Files with rows before the cut: those that hold nothing else, and those that do, by the log."""
    moment = iso(cut)
    old = [file for file in table.files if file.first is None or file.first < moment]
    whole = [file for file in old if file.last is not None and file.last < moment]
    return whole, [file for file in old if file not in whole]


def _due_by_month(home: Home, name: str, cut: datetime | None) -> Iterator[Due]:
    table = tables.open_table(home, name)
    if table is None or cut is None or table.time is None:
        return
    whole, some = split(table, cut)
    counts: dict[str, int] = {}
    for file in whole:
        month = (file.first or "")[:7]
        counts[month] = counts.get(month, 0) + file.rows
    read: dict[str, int] = {}
    if some:
        early = table.scan(some).select(pl.col(table.time).alias("at")).filter(pl.col("at") < cut)
        months = early.group_by(pl.col("at").dt.strftime("%Y-%m").alias("month")).len().collect()
        read = dict(months.iter_rows())
    for month in sorted({*counts, *read}):
        yield Due(name, month, counts.get(month, 0) + read.get(month, 0), whole=month not in read)


def overdue_users(home: Home, now: datetime | None = None) -> pl.DataFrame:
    """What names the rows of `users` that are due: user_id, valid_from, ingested_at.

    Those that another row had taken the place of when the window of events began, and all of users of whom no event is
    left in the window and nothing newer was told.
    """
    rows = tables.scan(home, "users", stored_schema("users")).select(*OF_USERS)
    cut = cut_of(home, "users", now)
    since = pl.coalesce("valid_from", "ingested_at")
    if cut is None or not rows.filter(since < cut).head(1).collect().height:
        return rows.head(0).collect()
    told = rows.with_columns(since.alias("since")).sort("user_id", "since", "ingested_at").collect()
    told = told.with_columns(pl.col("since").shift(-1).over("user_id").alias("until"))
    quiet = told.group_by("user_id").agg(pl.col("since").max()).filter(pl.col("since") < cut)["user_id"].sort()
    gone = quiet.filter(~quiet.is_in(_seen_since(home, quiet, cut).implode()))
    return told.filter((pl.col("until") <= cut) | pl.col("user_id").is_in(gone.implode())).select(*OF_USERS)


def _seen_since(home: Home, ids: pl.Series, cut: datetime) -> pl.Series:
    """Which of these ids an event of the window names."""
    table = tables.open_table(home, EVENTS)
    if table is None or not len(ids):
        return pl.Series("user_id", [], dtype=pl.String)
    files = [file for file in table.files if file.last is None or file.last >= iso(cut)]
    named = table.scan(files).filter(pl.col("timestamp") >= cut)
    both = [named.select(pl.col(name).alias("user_id")).filter(pl.col("user_id").is_in(ids.implode()))
            for name in ("user_id", "anon_id")]  # fmt: skip
    return pl.concat(both).unique().collect()["user_id"]


def _rejected(home: Home, cut: datetime | None) -> int:
    table = tables.open_table(home, QUARANTINE)
    if table is None or cut is None:
        return 0
    return int(table.scan().filter(pl.col("rejected_at") < cut).select(pl.len()).collect().item())


def _vanishing(home: Home, cut: datetime | None) -> int:
    """Persons whose last event is due."""
    table = tables.open_table(home, folding.NAME)
    if table is None or cut is None:
        return 0
    last = table.scan().group_by("user_id").agg(pl.col("last_seen").max())
    return int(last.filter(pl.col("last_seen") < cut).select(pl.len()).collect().item())


def old_evaluations(home: Home, cut: datetime | None) -> list[Path]:
    """Tables with a row a user of evaluations before the cut."""
    return [path for path in sorted(home.root.glob(f"evaluations/*/{PER_USER}")) if _before(path.parent, cut)]


def old_runs(home: Home, cut: datetime | None) -> list[Path]:
    """Manifests of runs before the cut."""
    return [path for path in sorted(home.root.glob("runs/*.json")) if _before(path, cut)]


def old_files(home: Home, now: datetime | None = None) -> list[str]:
    """Superseded files that are over their time: written before it began, or of a month that is due as a whole."""
    cuts = {name: cut_of(home, name, now) for name in ("superseded", EVENTS)}
    found = []
    for path in tables.orphans(home):
        written, month = _written(home.path(path)), re.search(r"month=(\d{4}-\d{2})/", path)
        early = month is not None and (cut := cuts[EVENTS]) is not None and month[1] < f"{cut:%Y-%m}"
        if early or (written is not None and cuts["superseded"] is not None and written < cuts["superseded"]):
            found.append(path)
    return found


def _before(path: Path, cut: datetime | None) -> bool:
    """Whether a run began before the cut, by its id, or where it has none by when its file was written."""
    if cut is None:
        return False
    stamp = _STAMP.match(path.stem)
    at = datetime.strptime(stamp[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) if stamp else _written(path)
    return at is not None and at < cut


def _written(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def _day(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
