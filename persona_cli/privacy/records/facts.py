"""What tables and settings say: what of people is held, who is responsible, what for, for how long, who was given some.

The data map has every table, every kind of file, every column, and what each is for: one catalogue, declared in
`data_tables` and `data_files`. A test compares it with all that the code reads and stores: a new column cannot come
without an entry. `found` compares it with what a workspace holds.

A fact that nobody has stated reads `TO BE FILLED IN: …` and names the setting that states it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from persona_cli.consent.receipts import CONSENT, INTEREST, PURPOSES
from persona_cli.privacy.data_files import FILES, SETTINGS, TECHNICAL
from persona_cli.privacy.data_tables import TABLES
from persona_cli.privacy.data_terms import BASES, CATEGORIES, NOT_RUN, PERSONAL, USES, Column, Store
from persona_cli.privacy.recipients import by_recipient
from persona_cli.privacy.requests import requests
from persona_cli.workspace import tables
from persona_cli.workspace.declarations import BY_KEY
from persona_cli.workspace.home import Home

STORES: tuple[Store, ...] = (*TABLES, *FILES)
"""A file belongs to the first that holds it."""
NEVER_STORED = ("user_agent", "ip")
"""Fields of events that are read at the door and thrown away."""
PASSING = ("runs/*.json", ".locks/*", "*.tmp-*", "privacy/records/*", "privacy/pending/*.json")
"""Kinds of files that come and go with every command: taken to be there always."""
QUASI: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("users", ("country", "locale", "tz", "role")),
    ("users", ("country", "locale", "tz", "role", "account_id")),
    ("profiles", ("country", "locale", "tz", "device", "browser", "os")),
)
"""Columns by which somebody could be recognised who knows a user a little, without knowing what the user did."""


@dataclass(frozen=True)
class Held:
    """What of the catalogue a workspace holds."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows of the tables that are there; of profiles and history parts, some of which are added up when read."""
    filled: dict[str, dict[str, float]] = field(default_factory=dict)
    """Table → column → share of the rows that have a value; of tables that are there and not empty."""
    kinds: frozenset[str] = frozenset()
    """Places of the kinds of files that are there, those that come and go among them."""
    unknown: tuple[str, ...] = ()
    """Tables, columns (`table.column`) and files that the catalogue does not name, sorted."""


def store_of(path: str) -> Store | None:
    """The store that a file of a workspace belongs to, by its path from the workspace's folder."""
    return next((store for store in STORES if store.holds(path)), None)


def unnamed(store: Store, schema: pa.Schema) -> list[str]:
    """Columns of a schema, and fields of their entries, that the store does not name."""
    missing = []
    for one in schema:
        column: Column | None = store.column(one.name)
        if column is None:
            missing.append(one.name)
        elif not store.open and tuple(column.inside.split()) != inside(one.type):
            missing.append(f"{one.name}: {' '.join(inside(one.type)) or one.type}")
    return missing


def inside(type_: pa.DataType) -> tuple[str, ...]:
    """Names of the fields of a record, or of the records in a list."""
    while pa.types.is_list(type_) or pa.types.is_large_list(type_):
        type_ = type_.value_type
    return tuple(one.name for one in type_) if pa.types.is_struct(type_) else ()


def setting_of(key: str) -> tuple[str, str] | None:
    """The entry of `SETTINGS` or `TECHNICAL` that a setting falls under, and what it decides about data of people; ""
    for nothing, None where nobody has said.
    """
    return next(((name, what) for name, what in _classified() if key == name or key.startswith(f"{name}.")), None)


def found(home: Home) -> Held:
    """What is there: reads the log of every table, the null counts of its files, and names of other files."""
    rows: dict[str, int] = {}
    filled: dict[str, dict[str, float]] = {}
    unknown: set[str] = set()
    for store in TABLES:
        table = tables.open_table(home, store.place)
        if table is None:
            continue
        rows[store.place] = sum(file.rows for file in table.files)
        unknown.update(f"{store.place}.{name}" for name in unnamed(store, table.schema))
        if rows[store.place]:
            nulls = table.scan().null_count().collect().row(0, named=True)
            filled[store.place] = {name: 1 - count / rows[store.place] for name, count in nulls.items()}
    kinds = set(PASSING)
    assessments = {home.settings.text(key).strip() for key in BY_KEY if key.endswith(".assessment")}
    for path in _files(home):
        owner = store_of(path)
        if owner is None:
            unknown.update({path} - assessments)
        elif not owner.is_table:
            kinds.add(owner.place)
    return Held(rows, filled, frozenset(kinds), tuple(sorted(unknown)))


def _files(home: Home) -> Iterator[str]:
    """Files of the workspace by their paths from its folder; of the known tables none."""
    known = {store.place for store in TABLES}
    for folder, names, files in os.walk(home.root):
        here = os.path.relpath(folder, home.root).replace(os.sep, "/")
        names[:] = sorted(name for name in names if here != "." or name not in known)
        yield from (name if here == "." else f"{here}/{name}" for name in files)


def _classified() -> Iterator[tuple[str, str]]:
    yield from SETTINGS.items()
    yield from ((name, "") for name in TECHNICAL)


Doc = dict[str, Any]
TO_FILL = "TO BE FILLED IN"
UNDECIDED = "NOT YET DECIDED by the controller"
NONE = "none"
_CONTROLLER = {
    "name": "name and address of the controller",
    "contact": "how to reach the controller",
    "representative": "the representative in the Union, or none",
    "dpo": "name and contact of the data protection officer, or none",
    "authority": "the supervisory authority",
}
_PERIODS: dict[str, tuple[str, str, str]] = {
    "events": ("privacy.retention.events_months", "months", "after they happened"),
    "decisions": ("privacy.retention.decisions_months", "months", "after they were made"),
    "quarantine": ("quarantine.retention_days", "days", "after they were rejected"),
    "evaluations": ("privacy.retention.evaluations_days", "days", "for the rows of users; means over users stay"),
    "runs": ("privacy.retention.runs_months", "months", "after the command"),
    "superseded": ("privacy.retention.superseded_days", "days", "at most; all go whenever events expire"),
    "withdrawn": ("privacy.retention.withdrawn_days", "days", "after nothing allows their use any more"),
    "models": ("train.keep", "versions", "of each model, what is served among them; after an erasure none from before"),
}
_AT_ONCE = ("quarantine.retention_days", "privacy.retention.superseded_days", "privacy.retention.withdrawn_days")
"""Where 0 means at once; elsewhere it means without end."""
_RULES: dict[str, str] = {
    "derived": "as long as the events that it follows from; it is brought up to date whenever these go",
    "users": "the newest row until the user has no events left; older rows as long as events",
    "accounts": "without end: they are firms or households; one of a single person is to be removed by hand",
    "catalogue": "as long as the catalogue names it; no data of people",
    "proof": "kept as proof of what was asked, allowed or done (Art. 5(2), 17(3)(b) and (e)); digests, no ids",
    "workspace": "as long as the workspace",
    "passing": "until the command ends; after a crash until persona doctor",
}
_TITLES = {
    "events": "Events",
    "derived": "Profiles, histories and sums that follow from events",
    "users": "Attributes of users",
    "accounts": "Attributes of accounts",
    "quarantine": "Rejected lines",
    "evaluations": "Results of evaluations",
    "models": "Models",
    "runs": "Records of commands",
    "proof": "Receipts, requests, recipients, digests of the erased",
    "workspace": "Settings and marks of the workspace",
    "catalogue": "Catalogue of items",
    "decisions": "Decisions and outcomes",
    "superseded": "Old versions of tables, kept so that ingest undo works",
    "withdrawn": "Events of people who withdrew or objected",
    "passing": "Temporary files",
}
_TOLD: dict[str, tuple[str, str]] = {
    "events": ("what you did", "{} after you did it"),
    "users": ("what we know of you as a customer", "until nothing that you did is left with us"),
    "quarantine": ("records that reached us damaged", "{} after they reached us"),
    "evaluations": ("how well our lists suited you", "{} after we measured it"),
    "models": ("what computers have learned", "the last {}; after an erasure none that knows of you"),
    "decisions": ("what we showed you, and how you responded", "{} after we showed it"),
}
"""Category of the retention schedule → its name and its time in the notice."""


def to_fill(what: str, key: str) -> str:
    return f"{TO_FILL}: {what} ({key})"


def stated(home: Home, key: str, what: str) -> str:
    """The text of a setting, or that it is to be filled in."""
    return home.settings.text(key).strip() or to_fill(what, key)


def listed(home: Home, key: str, what: str) -> list[str]:
    """The texts of a setting; none where it says so, and one that is to be filled in where it says nothing."""
    given = [one.strip() for one in home.settings.texts(key) if one.strip()]
    if not given:
        return [to_fill(what, key)]
    return [] if given == [NONE] else given


def controller(home: Home) -> Doc:
    return {name: stated(home, f"privacy.controller.{name}", what) for name, what in _CONTROLLER.items()}


def purposes(home: Home, held: Held) -> list[Doc]:
    """Every purpose of persona.toml: its basis, whether anybody decided on it, what the code does, with which data."""
    decided = home.settings.text("privacy.controller.bases_decided").strip()
    return [_purpose(home, name, decided, held) for name in PURPOSES]


def _purpose(home: Home, name: str, decided: str, held: Held) -> Doc:
    section = f"privacy.purposes.{name}"
    basis = home.settings.text(f"{section}.basis")
    title, article = BASES.get(basis, ("none: this use is refused until there is one", ""))
    as_shipped = not decided and basis == BY_KEY[f"{section}.basis"].default
    use = USES.get(name)
    found: Doc = {
        "purpose": name,
        "title": use.title if use else name.capitalize(),
        "basis": basis or None,
        "basis_name": title,
        "article": article,
        "decided": None if as_shipped else decided or "set in the settings by the controller",
        "runs": use is not None and bool(basis),
        "does": [{"what": what, "commands": commands} for what, commands in use.does] if use else [],
        "note": NOT_RUN.get(name),
        "data": categories_of(held, name),
    }
    if basis == INTEREST:
        named = home.settings.text(f"{section}.assessment").strip()
        found |= {"assessment": named or to_fill("the file that weighs the interest", f"{section}.assessment")}
        found["interest"] = _interest(home, named) if named else None
    if basis == CONSENT:
        found["withdrawal"] = "persona privacy consent withdraw, optout; from then on the data is not used for it"
    return found


def _interest(home: Home, named: str) -> str:
    """The first line of the assessment that says something: what interest it is."""
    try:
        lines = home.path(named).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return to_fill(f"there is no file {named}; it states the interest in its first line", "assessment")
    said = (line.strip().lstrip("#").strip() for line in lines)
    return next((line for line in said if line), to_fill(f"the interest, in the first line of {named}", "assessment"))


def categories_of(held: Held, purpose: str | None = None) -> list[str]:
    """Categories of personal data in tables and files that the workspace holds, of one purpose or of all."""
    present = set()
    for store in STORES:
        filled = held.filled.get(store.place, {})
        for name, column in store.columns.items():
            if purpose is not None and purpose not in store.purposes_of(name):
                continue
            there = filled.get(name, 0) > 0 if store.is_table else store.place in held.kinds
            if there and column.category in PERSONAL:
                present.add(column.category)
    return [name for name in CATEGORIES if name in present]


def people(home: Home) -> Doc:
    """How many people of which kind, and from when the events are."""
    events = tables.open_table(home, "events")
    counts = {"persons": 0, "anonymous": 0, "users": 0, "accounts": 0, "receipts": tables.row_count(home, "consents")}
    window: list[str | None] = [None, None]
    if events is not None and events.files:
        named = events.scan().select("user_id").drop_nulls().unique().collect()["user_id"]
        profiles = tables.open_table(home, "profiles")
        if profiles is not None and profiles.files:
            persons = profiles.scan().select("user_id").unique().collect()["user_id"]
            counts["persons"] = len(persons)
            counts["anonymous"] = int((~persons.is_in(named.implode())).sum())
        firsts = [file.first for file in events.files if file.first]
        lasts = [file.last for file in events.files if file.last]
        window = [min(firsts, default=None), max(lasts, default=None)]
    for name, key in (("users", "user_id"), ("accounts", "account_id")):
        table = tables.open_table(home, name)
        if table is not None and table.files:
            counts[name] = table.scan().select(key).collect()[key].n_unique()
    return {"counts": counts, "first_event": window[0], "last_event": window[1]}


def retention(home: Home, held: Held) -> list[Doc]:
    """What is kept for how long, a row a category; of tables and files that persona knows."""
    rows = []
    for kept, title in _TITLES.items():
        stores = [store for store in STORES if store.kept == kept]
        there = [store.place for store in stores if store.place in held.kinds or store.place in held.rows]
        rows.append(
            {
                "category": title,
                "told": _told(home, kept),
                "stores": [store.place for store in stores],
                "there": there,
                "kept": period(home, kept),
                "setting": _PERIODS[kept][0] if kept in _PERIODS else None,
                "personal": not stores or any(store.personal for store in stores),
            }
        )
    return [row for row in rows if row["stores"] or row["setting"]]


def period(home: Home, kept: str) -> str:
    """How long what is kept under this key of the schedule is kept."""
    if kept not in _PERIODS:
        return _RULES[kept]
    key, _, then = _PERIODS[kept]
    if home.settings.whole(key):
        return f"{_span(home, kept)} {then}"
    return "until the next persona privacy expire" if key in _AT_ONCE else "without end"


def _span(home: Home, kept: str) -> str:
    """`25 months`."""
    key, unit, _ = _PERIODS[kept]
    value = home.settings.whole(key)
    return f"{value:,} {unit if value != 1 else unit[:-1]}"


def _told(home: Home, kept: str) -> list[str] | None:
    if kept not in _TOLD:
        return None
    name, said = _TOLD[kept]
    if kept not in _PERIODS:
        return [name, said]
    return [name, said.format(_span(home, kept)) if home.settings.whole(_PERIODS[kept][0]) else period(home, kept)]


def recipients(home: Home) -> list[Doc]:
    """Each recipient with what it was given, by name."""
    found = []
    for name, given in by_recipient(home).items():
        found.append(
            {
                "recipient": name,
                "exports": len(given),
                "first": given[0].at,
                "last": given[-1].at,
                "what": sorted({one.what for one in given}),
                "ids": sorted({one.ids or "none" for one in given}),
                "domains": sorted({one.domain for one in given if one.domain}),
                "keys": sorted({one.key_id for one in given if one.key_id}),
            }
        )
    return found


def asked(home: Home) -> list[Doc]:
    """Requests of people by kind: how many came, how many are answered, how many of these after their last day."""
    known = requests(home)
    came = Counter(one.kind for one in known)
    closed = Counter(one.kind for one in known if one.closed is not None)
    late = Counter(one.kind for one in known if one.late())
    return [{"kind": kind, "came": came[kind], "closed": closed[kind], "late": late[kind]} for kind in sorted(came)]
