"""The gate: may data of this person be used for this purpose now? Every stage asks it, and nothing else decides.

Where a purpose rests on consent, the last word of the person must be `given`. On any other basis the person may refuse
(`withdrawn`, `objected`) or have the use paused, and is otherwise permitted; `cleared` is as if nothing had been said.
The last word is the latest said, of equal ones the one recorded later, then the refusal. Pausing keeps nobody from
being collected.

What an event says of consent is read here too: the field `consent`, and the browser's Global Privacy Control. `consent`
is a word (`granted`, `denied`), names of purposes (those not named are refused), `purpose=yes` or `=denied` (those not
named are left as they are), or a TCF string. A text that says nothing of the three purposes in one of these ways cannot
be read; like a string of an unknown version it is no consent.

TCF strings are those of the IAB Transparency and Consent Framework, version 2. The core is the part before the first
dot: base64url without padding, so each character is six bits. Its first six bits are the version; bits 152 to 175 are
the consents to purposes 1 to 24, bits 176 to 199 say for which of them a legitimate interest was made known and not
objected to (IAB Tech Lab, Consent string and vendor list formats v2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.consent.receipts import (
    CONSENT,
    COVERING,
    INTEREST,
    NAME,
    PURPOSES,
    SCHEMA,
    STATES,
    State,
    basis,
    parent,
)
from persona_cli.consent.subjects import Halves, Index, subjects
from persona_cli.errors import BadSettings
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}
_FORM = re.compile(r"^[A-Za-z0-9_-]{20,}={0,2}(\.[A-Za-z0-9_-]+={0,2})*$")
_BITS = 6
_CONSENTS, _INTERESTS, _PURPOSES = 152, 176, 24
# A core has 213 bits before its first list of vendors.
_SHORTEST = 213
VERSION = 2

TCF_PURPOSES = {"personalization": (5, 6), "analytics": (8, 9), "model_training": (10,)}
"""Our purposes → theirs, all of which are needed: 5 and 6 are making profiles for content and choosing content by them,
8 and 9 measuring content and knowing the audience by statistics, 10 developing and improving services."""


class Consented(NamedTuple):
    """What a string says: purposes consented to, and purposes with a legitimate interest that nobody objected to."""

    consents: frozenset[int]
    interests: frozenset[int]


def is_string(text: str) -> bool:
    """Whether a text has the form of a consent string, of whatever version: long, and nothing but its characters."""
    return _FORM.match(text) is not None


def decode(text: str) -> Consented | None:
    """What a TCF v2 string says; None for another version and for what cannot be read: both are no consent."""
    core = text.partition(".")[0].rstrip("=")
    if not is_string(text) or len(core) * _BITS < _SHORTEST or _VALUE[core[0]] != VERSION:
        return None
    return Consented(_flags(core, _CONSENTS), _flags(core, _INTERESTS))


def _flags(core: str, start: int) -> frozenset[int]:
    """Numbers from 1 of the bits that are set among the 24 from `start` on."""
    return frozenset(n + 1 for n in range(_PURPOSES) if _bit(core, start + n))


def _bit(core: str, place: int) -> bool:
    return bool(_VALUE[core[place // _BITS]] >> (_BITS - 1 - place % _BITS) & 1)


Words = dict[str, State]
"""Purpose → what was said about it."""
_YES = frozenset(
    [
        "granted",
        "grant",
        "given",
        "yes",
        "true",
        "1",
        "all",
        "accepted",
        "accept",
        "allowed",
        "allow",
        "opt_in",
        "opt-in",
        "optin",
        "in",
    ]
)
_NO = frozenset(
    [
        "denied",
        "deny",
        "none",
        "no",
        "false",
        "0",
        "rejected",
        "reject",
        "refused",
        "withdrawn",
        "opt_out",
        "opt-out",
        "optout",
        "out",
    ]
)
# What consent-mode fields of others are called.
_ALSO = {"analytics_storage": "analytics", "personalization_storage": "personalization"}
# Snowplow says on which basis an event was processed, and not what the person said.
_BASES = frozenset(
    [
        "consent",
        "contract",
        "legal_obligation",
        "vital_interests",
        "vital_interest",
        "public_task",
        "legitimate_interests",
        "legitimate_interest",
    ]
)
_SEPARATORS = re.compile(r"[,;\s]+")
_SIGNALS = frozenset({"gpc", "secgpc", "globalprivacycontrol"})
MAYBE_SIGNAL = "(?i)gpc|global.?privacy.?control"
"""What a JSON text matches in which `opts_out` can find a signal."""
_NESTED = 4


def said(text: str | None, bases: Mapping[str, str]) -> Words | None:
    """What a consent field says about the purposes that events are collected for; None: it cannot be read.

    `bases` (purpose → lawful basis) decide whether the bits of a legitimate interest in a TCF string count.
    """
    word = (text or "").strip().lower()
    if not word or word in _BASES:
        return {}
    if word in _YES:
        return dict.fromkeys(COVERING, "given")
    if word in _NO:
        return dict.fromkeys(COVERING, "withdrawn")
    if is_string((text or "").strip()) and word not in COVERING:
        return _of_string((text or "").strip(), bases)
    parts = [part for part in _SEPARATORS.split(word) if part]
    if all("=" in part for part in parts):
        return _of_pairs(parts)
    named = {_ALSO.get(part, part) for part in parts}
    if not named & set(COVERING):
        return None
    return {purpose: "given" if purpose in named else "withdrawn" for purpose in COVERING}


def _of_string(text: str, bases: Mapping[str, str]) -> Words | None:
    found = decode(text)
    if found is None:
        return None
    words: Words = {}
    for purpose, theirs in TCF_PURPOSES.items():
        allowed = found.consents | (found.interests if bases.get(purpose) == INTEREST else frozenset())
        words[purpose] = "given" if allowed.issuperset(theirs) else "withdrawn"
    return words


def _of_pairs(parts: list[str]) -> Words | None:
    words: Words = {}
    for part in parts:
        name, _, value = part.partition("=")
        purpose = _ALSO.get(name, name)
        if purpose not in COVERING:
            continue
        if value not in _YES | _NO:
            return None
        refused = value in _NO or words.get(purpose) == "withdrawn"
        words[purpose] = "withdrawn" if refused else "given"
    return words


def opts_out(props: str) -> bool:
    """Whether the rest of an event (JSON text) says what a browser signals: `Sec-GPC: 1` or `gpc` true, inside too."""
    try:
        return _signalled(json.loads(props), _NESTED)
    except (ValueError, RecursionError):
        return False


def _signalled(value: Any, depth: int) -> bool:
    if not isinstance(value, dict) or not depth:
        return False
    for name, inner in value.items():
        if re.sub(r"[-_\s]", "", name).lower() in _SIGNALS and _set(inner):
            return True
        if _signalled(inner, depth - 1):
            return True
    return False


def _set(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("1", "true")) or value == 1


GIVEN, CLEARED, PAUSED, WITHDRAWN, OBJECTED = range(len(STATES))


@dataclass(frozen=True)
class Gate:
    """A snapshot of receipts and bases. Cheap where there are no receipts and no purpose rests on consent."""

    home: Home
    words: pl.DataFrame
    """subject, purpose, state (its number), order (its place among all receipts), at (µs); all that count."""
    version: int | None
    """Version of the table of receipts; None: there is none."""
    trivial: bool
    """Nobody is kept out of personalization, analytics or model_training: callers skip all work."""

    @classmethod
    def of(cls, home: Home, at: datetime | None = None) -> Gate:
        """As things stand now, or by what had been said before or at `at`."""
        table = tables.open_table(home, NAME)
        rows = tables.scan(home, NAME, SCHEMA) if table is None else table.scan()
        if at is not None:
            rows = rows.filter(pl.col("at") <= at)
        return cls._by(home, rows, table.version if table else None)

    @classmethod
    def before(cls, home: Home, version: int | None) -> Gate | None:
        """As things stood at a version of the table of receipts (None: without any), by the bases of now.

        None where that version is not known any more.
        """
        table = tables.open_table(home, NAME)
        if version is None:
            return cls._by(home, tables.scan_files(home.path(NAME), SCHEMA, (), []), None)
        changes = None if table is None else table.changes(version)
        if table is None or changes is None:
            return None
        new = {file.path for file in changes[0]}
        files = [*(file for file in table.files if file.path not in new), *changes[1]]
        there = all((table.root / file.path).exists() for file in files)
        return cls._by(home, table.scan(files), version) if there else None

    @classmethod
    def _by(cls, home: Home, rows: pl.LazyFrame, version: int | None) -> Gate:
        words = _numbered(rows.select("subject", "purpose", "state", "at", "recorded_at").collect())
        refused = ((words["state"] > CLEARED) & words["purpose"].is_in(list(COVERING))).any()
        return cls(home, words, version, not refused and _needs_nobody(home))

    def permits(self, purpose: str, ids: pl.Series, persons: pl.Series | None = None) -> pl.Series:
        """Whether data of each id (n_ids,) may be used for the purpose: Boolean (n_ids,).

        With `persons` (n_ids,), the person behind each id, the last word of any id of a person, the person's own
        included, counts for all of them. Raises what `basis` raises.
        """
        on = basis(self.home, purpose)
        keys = self._keys(purpose, ids, persons)
        return _allowed(keys, on)

    def collects(self, user_ids: pl.Series, anon_ids: pl.Series) -> pl.Series:
        """Whether an event with these ids (n,) may be stored: Boolean (n,); the user's id decides where there is one.

        False where none of the purposes that events are collected for covers the person: opted out, consent not given,
        or no purpose with a basis.
        """
        ids = pl.select(pl.coalesce(user_ids.cast(pl.String), anon_ids.cast(pl.String))).to_series()
        return self.covers(ids)

    def covers(self, ids: pl.Series, persons: pl.Series | None = None) -> pl.Series:
        """Whether some purpose that events are collected for covers each id (n,), pauses aside: Boolean (n,)."""
        found = pl.repeat(False, len(ids), eager=True)
        for purpose, on in self.bases().items():
            if on is None:
                continue
            found = found | _allowed(self._keys(purpose, ids, persons, pauses=False), on)
        return found

    def opted_out(self, ids: pl.Series, persons: pl.Series | None = None) -> pl.Series:
        """Whether each id (n,) has objected to everything that events are collected for: Boolean (n,)."""
        found = pl.repeat(True, len(ids), eager=True)
        for purpose in COVERING:
            keys = self._keys(purpose, ids, persons, pauses=False)
            found = found & (keys >= 0) & (keys % len(STATES) == OBJECTED)
        return found

    def bases(self) -> dict[str, str | None]:
        """The basis of each purpose that events are collected for, None where it has none. Raises as `basis` else."""
        stated = {purpose: self.home.settings.text(f"privacy.purposes.{purpose}.basis") for purpose in COVERING}
        return {purpose: basis(self.home, purpose) if name else None for purpose, name in stated.items()}

    def last(self, asked: Halves) -> NDArray[np.int64]:
        """The last word of each digest (n,) about each of PURPOSES, pauses aside: µs x 5 + state, or -1: (n, 4)."""
        index, table = self._table
        return table[index.find(asked)]  # that of who is not found is the last row

    @cached_property
    def _table(self) -> tuple[Index, NDArray[np.int64]]:
        """Who spoke, and µs x 5 + state of their last word that is no pause about each purpose; -1s at the end."""
        words = self.words.filter(pl.col("state") != PAUSED)
        key = (pl.col("at") * len(STATES) + pl.col("state").cast(pl.Int64)).alias("key")
        who = words.select("subject").unique().with_row_index("place")
        table = np.full((who.height + 1, len(PURPOSES)), -1)
        for column, purpose in enumerate(PURPOSES):
            about = words.filter(pl.col("purpose") == purpose).select("subject", key).join(who, on="subject")
            table[about["place"].to_numpy(), column] = about["key"].to_numpy()  # one word each: all others are earlier
        return Index.of(who["subject"]), table

    def _keys(self, purpose: str, ids: pl.Series, persons: pl.Series | None, *, pauses: bool = True) -> pl.Series:
        """order x 5 + state of the last word about the purpose of each id, -1 where there is none: Int64 (n,)."""
        about = {purpose, parent(purpose)}
        # What was taken back leaves what other ids, or the channel itself, said before.
        words = self.words.filter(pl.col("purpose").is_in(sorted(about)) & (pl.col("state") != CLEARED))
        if not pauses:
            words = words.filter(pl.col("state") != PAUSED)
        if not words.height:
            return pl.repeat(-1, len(ids), dtype=pl.Int64, eager=True)
        key = (pl.col("order").cast(pl.Int64) * len(STATES) + pl.col("state").cast(pl.Int64)).alias("key")
        last = words.select("subject", key).group_by("subject").agg(pl.col("key").max())
        own = self._looked_up(ids, last)
        if persons is None:
            return own
        both = pl.DataFrame({"person": persons.cast(pl.String), "own": own})
        both = both.with_columns(self._looked_up(persons, last).alias("theirs"))
        shared = pl.max_horizontal("own", "theirs").max().over("person")
        return both.select(pl.when(pl.col("person").is_null()).then("own").otherwise(shared).alias("key")).to_series()

    def _looked_up(self, ids: pl.Series, last: pl.DataFrame) -> pl.Series:
        whose = subjects(self.home, ids.cast(pl.String)).to_frame("subject")
        return whose.join(last, on="subject", how="left", maintain_order="left")["key"].fill_null(-1)


def _allowed(keys: pl.Series, basis: str) -> pl.Series:
    given = (keys >= 0) & (keys % len(STATES) == GIVEN)
    return given if basis == CONSENT else given | (keys < 0)


def _numbered(receipts: pl.DataFrame) -> pl.DataFrame:
    """Per subject and purpose the last word; where that is a pause also the last one that is none."""
    state = pl.col("state").replace_strict(STATES, range(len(STATES)), return_dtype=pl.UInt8)
    # Of equal ones the state is the same, whoever said it.
    words = receipts.with_columns(state).sort("at", "recorded_at", "state").with_row_index("order")
    words = words.select("subject", "purpose", "state", "order", pl.col("at").cast(pl.Int64))
    key = ["subject", "purpose"]
    last = words.unique(key, keep="last", maintain_order=True)
    paused = last.filter(pl.col("state") == PAUSED)
    if not paused.height:
        return last
    before = words.filter(pl.col("state") != PAUSED).join(paused, on=key, how="semi")
    return pl.concat([last, before.unique(key, keep="last")]).sort("order")


def _needs_nobody(home: Home) -> bool:
    """Whether every purpose that events are collected for has a basis that needs no consent."""
    try:
        return all(basis(home, purpose) != CONSENT for purpose in COVERING)
    except BadSettings:
        return False
