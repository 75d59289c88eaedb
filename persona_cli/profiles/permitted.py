"""Whose data a stage may read, and who is held out of personalisation.

Whose data a stage may read: every reader of personal data below asks here, and here the gate of consent is asked.

A reader names its purpose, and rows of persons whom the purpose does not cover are not there for it, whatever moment it
reads. It is the word of now that counts, also about the past, and by the links of now: whoever turned out to be one
person is refused or permitted as one. Persons whom no purpose covers are not even folded (`profiles.changes`).

The permanent holdout: users who always get the non-personalised list, so that personalisation can be measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

import polars as pl

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import COVERING
from persona_cli.consent.receipts import NAME as RECEIPTS
from persona_cli.errors import Refused
from persona_cli.events.store import scan_events
from persona_cli.profiles.coding import by_distinct
from persona_cli.profiles.identity import Persons, assignment_ids, persons, raw_key
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

Purpose = str | tuple[str, ...] | None
"""What data is read for: all of several purposes must cover a person; None: it is no use of the data, but the care for
it that the law asks for, such as access and erasure."""
PERSONALIZATION, ANALYTICS, TRAINING = "personalization", "analytics", "model_training"
ANY = "any"
"""Some purpose covers the person: what it takes to be folded."""
MEASURING = (ANALYTICS, TRAINING)
"""Measuring models fits them as well."""
_KEPT = 8
_STRANGER = pl.Series("id", [""], dtype=pl.String)  # no id is empty
Rows = TypeVar("Rows", pl.DataFrame, pl.LazyFrame)


class Allowed(NamedTuple):
    """Ids that decide who is in: only these, or everybody but these."""

    ids: pl.Series
    only: bool

    @property
    def everybody(self) -> bool:
        return not self.only and not len(self.ids)

    def where(self, id: pl.Expr) -> pl.Expr:
        there = id.is_in(self.ids.implode())
        return there if self.only else ~there

    def rows(self, rows: Rows, id: pl.Expr | None = None) -> Rows:
        """The rows of those who are in; `id` is whose a row is, by default `user_id`."""
        return rows if self.everybody else rows.filter(self.where(pl.col("user_id") if id is None else id))

    def of(self, ids: pl.Series) -> pl.Series:
        """Whether each id (n,) is in: Boolean."""
        return ids.to_frame("id").select(self.where(pl.col("id"))).to_series()


EVERYBODY = Allowed(pl.Series("id", dtype=pl.String), False)
_remembered: dict[tuple[object, ...], Allowed] = {}
_gates: dict[tuple[object, ...], Gate] = {}


def allowed(home: Home, purpose: Purpose, among: pl.Series | None = None) -> Allowed:
    """Who may be read for the purpose now; where only the ids `among` matter, the answer holds for them alone.

    Raises BadSettings for a purpose without a lawful basis.
    """
    purposes = _several(purpose)
    if not purposes:
        return EVERYBODY
    gate = _gate(home)
    if gate.trivial and {*purposes} <= {*COVERING, ANY}:  # of messaging and profiling a trivial gate says nothing
        return EVERYBODY
    events = tables.open_table(home, "events")
    if among is not None:
        who = persons(home)
        return verdict(gate, purposes, who.ids_of(who.of(among.drop_nulls())), who)
    state = (None, 0) if events is None else (events.id, events.version)
    ruling = home.settings.digest(["privacy.purposes.", "identity."])
    key = (str(home.root), home.salt, *state, gate.version, ruling, purposes)
    if (found := _remembered.get(key)) is None:
        who = persons(home)
        found = verdict(gate, purposes, ids_in(scan_events(home), who), who)
        if len(_remembered) >= _KEPT:
            _remembered.clear()
        _remembered[key] = found
    return found


def _gate(home: Home) -> Gate:
    """The gate as it is now; the receipts of one version are read once."""
    table = tables.open_table(home, RECEIPTS)
    if table is None:
        return Gate.of(home)
    key = (str(home.root), home.salt, table.id, table.version, home.settings.digest(["privacy.purposes."]))
    if (found := _gates.get(key)) is None:
        found = Gate.of(home)
        _gates.clear()
        _gates[key] = found
    return found


def verdict(gate: Gate, purposes: Sequence[str], ids: pl.Series, who: Persons) -> Allowed:
    """What the gate says of these ids; of an id that nobody has seen it says that it is as good as its basis."""
    asked = pl.concat([_STRANGER, ids.rename("id")])
    people = who.of(asked)
    found = pl.repeat(True, len(asked), eager=True)
    for purpose in purposes:
        found = found & (gate.covers(asked, people) if purpose == ANY else gate.permits(purpose, asked, people))
    only = not found[0]
    return Allowed(asked.filter(found if only else ~found).sort(), only)


def ids_in(events: pl.LazyFrame, who: Persons) -> pl.Series:
    """Every id that these events were recorded under or that is linked, each once."""
    recorded = events.select(raw_key().alias("id")).unique().collect()["id"]
    return pl.concat([recorded, who.ids.rename("id"), who.persons.rename("id")]).unique()


def stored_events(
    home: Home, as_of: datetime | None = None, known_at: datetime | None = None, *, purpose: Purpose = None
) -> pl.LazyFrame:
    """`scan_events` for a purpose: events as they were recorded, in no order."""
    return allowed(home, purpose).rows(scan_events(home, as_of, known_at), raw_key())


def person_events(
    home: Home, as_of: datetime | None = None, known_at: datetime | None = None, *, purpose: Purpose = None
) -> pl.LazyFrame:
    """All events (before `as_of`, stored until `known_at`) with the person as `user_id`; in no order."""
    who = persons(home, as_of, known_at)
    return stored_events(home, as_of, known_at, purpose=purpose).with_columns(who.key())


def refusal(home: Home, user: str, purpose: Purpose) -> Refused | None:
    """Why nothing of the person behind an id may be read for the purpose, as an error to raise; None: it may."""
    one = pl.Series("id", [user], dtype=pl.String)
    lacking = [name for name in _several(purpose) if not allowed(home, name, one).of(one)[0]]
    if not lacking:
        return None
    if not allowed(home, ANY, one).of(one)[0]:
        why = "no purpose covers this person: consent was not given, or the use of the data was refused"
    else:
        why = f"this person is not covered for {' and '.join(lacking)}: no consent, or the use was refused"
    return Refused(f"the profile of {user!r} may not be read; {why}", f"persona privacy consent show {user}")


def _several(purpose: Purpose) -> tuple[str, ...]:
    if purpose is None:
        return ()
    return (purpose,) if isinstance(purpose, str) else purpose


def in_holdout(home: Home, users: pl.Series) -> pl.Series:
    """Whether each user is held out (n_users,) Boolean: blake2b of the id, keyed with the workspace's salt, as a share.

    It depends on nothing but the id, the salt and `holdout.share`; a greater share only adds users. Of a person with
    several ids it is the first one seen, so that signing in never changes the side.
    """
    bound = round(home.settings.number("holdout.share") * 2**64)

    def drawn(user: str) -> bool:
        digest = hashlib.blake2b(user.encode(), key=home.salt, digest_size=8).digest()
        return int.from_bytes(digest, "big") < bound

    return by_distinct(assignment_ids(home, users), drawn, pl.Boolean).alias("holdout")
