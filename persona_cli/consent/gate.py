"""The gate: may data of this person be used for this purpose now? Every stage asks it, and nothing else decides.

Where a purpose rests on consent, the last word of the person must be `given`. On any other basis the person may refuse
(`withdrawn`, `objected`) or have the use paused, and is otherwise permitted; `cleared` is as if nothing had been said.
The last word is the latest said, of equal ones the one recorded later, then the refusal. Pausing keeps nobody from
being collected.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.consent.receipts import CONSENT, COVERING, NAME, PURPOSES, SCHEMA, STATES, basis, parent
from persona_cli.consent.subjects import Halves, Index, subjects
from persona_cli.errors import BadSettings
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

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
