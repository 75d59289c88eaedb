"""What changed since tables were made: events of rewritten files, and who is folded at all.

What became of the events of rewritten files: rows that are gone, rows that are new, rows that only moved.

Undo and `--on-duplicate keep-last` write files again without some rows. Most rows of such a file are the same before
and after; only users of rows that are really gone must be folded again.

Who is folded: persons whom some purpose covers. And who became one of them, or ceased to be, since tables were made.

Each commit of history and profiles says which receipts it knows, so a sync folds exactly those persons again whose
standing changed; where a lawful basis itself changed, everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import CONSENT, COVERING
from persona_cli.consent.receipts import NAME as RECEIPTS
from persona_cli.profiles.identity import NOBODY, Persons, raw_key
from persona_cli.profiles.permitted import ANY, EVERYBODY, Allowed, ids_in, verdict
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

Rows = Callable[[list[File]], pl.LazyFrame]
"""Events of files: user_id (the key) and every column that counts."""


@dataclass(frozen=True)
class Changes:
    gone: pl.Series
    """Users of rows that are no longer there (user_id), sorted."""
    moved: pl.Series
    """Hashes of the rows that removed files held; good for this process only."""


def changes(rows: Rows, added: Sequence[File], removed: Sequence[File]) -> Changes:
    """Compares the rows of removed files with those of added ones, a month at a time (rows never change theirs)."""
    gone, moved = [pl.Series("user_id", dtype=pl.String)], [pl.Series("row", dtype=pl.UInt64)]
    for month in sorted({file.partition["month"] for file in removed}):
        before, after = (
            _hashed(rows, [file for file in files if file.partition["month"] == month]) for files in (removed, added)
        )
        both = pl.concat([before.with_columns(by=pl.lit(-1)), after.with_columns(by=pl.lit(1))])
        counted = both.group_by("user_id", "row").agg(left=pl.col("by").sum(), was=pl.col("by").min()).collect()
        held = counted.filter(pl.col("was") < 0)
        gone.append(held.filter(pl.col("left") != 0)["user_id"])
        moved.append(held["row"])
    return Changes(pl.concat(gone).unique().sort(), pl.concat(moved))


def new_rows(rows: Rows, files: Sequence[File], changed: Changes) -> Iterator[pl.LazyFrame]:
    """The rows of added files that no removed file held, of users who are not folded again."""
    for file in files:
        found = rows([file])
        if len(changed.moved):
            found = found.filter(~row_hash(found).is_in(changed.moved.implode()))
        yield found.filter(~pl.col("user_id").is_in(changed.gone.implode())) if len(changed.gone) else found


def row_hash(rows: pl.LazyFrame) -> pl.Expr:
    return pl.struct(rows.collect_schema().names()).hash().alias("row")


def _hashed(rows: Rows, files: list[File]) -> pl.LazyFrame:
    found = rows(files)
    return found.select("user_id", row_hash(found))


_KNOWN, _RULING = "receipts", "ruling"
CHANGED = "what people allow has changed"


@dataclass(frozen=True)
class Folded(Persons):
    """Persons, and which of their ids are folded."""

    covered: Allowed
    said: dict[str, str]
    """What a commit says of the receipts and bases that it knows."""

    def folded(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return self.covered.rows(events, raw_key())


class Standing(NamedTuple):
    """What people allow now, and what tables say that they know of it."""

    gate: Gate
    known: str | None
    """The receipts there are, as commits name them; None: there are none."""
    ruling: str
    """What the bases demand: the same text, and silence means the same; "" where they demand nothing."""

    @classmethod
    def of(cls, home: Home) -> Standing:
        table, gate = tables.open_table(home, RECEIPTS), Gate.of(home)
        on = {name: home.settings.text(f"privacy.purposes.{name}.basis") for name in COVERING}
        demanding = {name: basis for name, basis in on.items() if basis in (CONSENT, "")}
        ruling = "/".join(f"{name}={basis}" for name, basis in sorted(demanding.items()))
        # The gate's version and not the table's: others may write in between.
        return cls(gate, f"{table.id}:{gate.version}" if table and gate.version is not None else None, ruling)

    def unknown(self, said: Mapping[str, Any]) -> str | None:
        """Why it cannot be known whose standing changed since a commit; None: it can."""
        if said.get(_RULING, "") != self.ruling:
            return "the lawful bases of purposes changed"
        if self.changed(said) and self.before(said) is None:
            return "it is not known what people allowed when the table was built"
        return None

    def changed(self, said: Mapping[str, Any]) -> bool:
        """Whether receipts came or went since a commit, and not all of both times let everybody be folded."""
        if said.get(_KNOWN) == self.known:
            return False
        before = self.before(said)
        return before is None or not (before.trivial and self.gate.trivial)

    def before(self, said: Mapping[str, Any]) -> Gate | None:
        """The gate as it was for a commit; None where that cannot be known."""
        was = said.get(_KNOWN)
        if was is None:
            return Gate.before(self.gate.home, None)
        table, _, version = str(was).rpartition(":")
        same = self.known is not None and self.known.startswith(f"{table}:")
        return Gate.before(self.gate.home, int(version)) if same else None

    def folded(self, who: Persons, events: Table, more: Sequence[File] = ()) -> Folded:
        """The persons with those of their ids that are folded, among all in `events` and in files that it lost."""
        said = {_KNOWN: self.known, _RULING: self.ruling}
        covered = EVERYBODY
        if not self.gate.trivial:
            covered = verdict(self.gate, (ANY,), ids_in(events.scan([*events.files, *more]), who), who)
        return Folded(who.ids, who.persons, covered, {name: text for name, text in said.items() if text})

    def moved(
        self, said: Mapping[str, Any], was: Persons, now: Folded, events: Table, more: Sequence[File]
    ) -> pl.Series:
        """Persons (by the links of then and of now) who are folded now and were not at a commit, or the reverse."""
        gate = self.before(said) if self.changed(said) else None
        if gate is None:
            return NOBODY.persons
        ids = pl.concat([ids_in(events.scan([*events.files, *more]), now), was.ids, was.persons]).unique()
        other = ids.filter(verdict(gate, (ANY,), ids, was).of(ids) != now.covered.of(ids))
        return pl.concat([was.of(other), now.of(other)])
