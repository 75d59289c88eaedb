"""Profile rows: folded from events, merged from parts, and read from the table that holds the parts.

The fold of a user's own events into one profile row, made of the parts in `folds/`, and the merge of partial rows.

The row is the same whatever the order of the events, and whatever parts they were folded in before they were merged.

Tables of partial folds: increments are appended as small files of a bucket, merged when read, compacted in time.

So an increment costs what it brings, not what is there. The profiles table may hold several rows a user; whoever reads
it here gets one. `profile build --rebuild` leaves one row a user on disk too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import polars as pl
import pyarrow as pa

from persona_cli.errors import MissingInput
from persona_cli.profiles.coding import Coded, coded, number_of
from persona_cli.profiles.folds import activity, attention, context, explicit
from persona_cli.profiles.folds.context import LATEST as LATEST
from persona_cli.profiles.folds.part import FoldRules, Part, part_of
from persona_cli.profiles.permitted import Purpose, allowed
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table


class Fold(Protocol):
    """What a module of `folds/` offers."""

    @property
    def FIELDS(self) -> tuple[pa.Field, ...]: ...

    @property
    def NEEDED(self) -> tuple[str, ...]: ...

    @property
    def TEXTS(self) -> tuple[str, ...]: ...

    def fold(self, part: Part, rules: FoldRules) -> dict[str, pl.Series]:
        """The columns (n_users,) of the users of a part."""

    def merge(self, rows: pl.DataFrame, rules: FoldRules) -> pl.DataFrame:
        """user_id and the columns: several partial rows a user as one, sorted by user_id."""


NAME = "profiles"
FOLDS: tuple[Fold, ...] = (activity, context, explicit, attention)
SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        *(field for fold in FOLDS for field in fold.FIELDS),
        pa.field("bucket", pa.int32()),
    ]
)
COLUMNS = tuple(name for name in SCHEMA.names if name != "bucket")
SHOWN = tuple(name for name in COLUMNS if not name.startswith("_"))
"""Columns for people; the others are there for merging."""
FOLDED = tuple(dict.fromkeys(("user_id", "timestamp", *(name for fold in FOLDS for name in fold.NEEDED))))
"""Columns of events that the folds read, with the user's key as user_id; some are made of others."""
NEEDED = tuple(dict.fromkeys((*(name for name in FOLDED if name not in explicit.derived()), *explicit.SOURCES)))
"""The stored columns of which these are made."""
TEXTS = tuple(dict.fromkeys(("user_id", *(name for fold in FOLDS for name in fold.TEXTS))))
NOBODY = pl.Schema(SCHEMA).to_frame().drop("bucket")


def fold_users(events: pl.DataFrame, rules: FoldRules) -> pl.DataFrame:
    """One row a user of the events given, sorted by user_id; columns `COLUMNS`. `events` has the columns `NEEDED`."""
    made = events.with_columns(session_number(), *explicit.derived().values())
    return fold_coded(coded(made.select(FOLDED), TEXTS), rules)


def session_number() -> pl.Expr:
    """session_id as a number: all that folds ask is which events of a user share one."""
    return number_of("session_id")


def fold_coded(events: Coded, rules: FoldRules) -> pl.DataFrame:
    """As `fold_users`, of coded events with session numbers."""
    part = part_of(events)
    if part is None:
        return NOBODY
    columns = {"user_id": part.users}
    for fold in FOLDS:
        columns |= fold.fold(part, rules)
    return pl.DataFrame({name: columns[name] for name in COLUMNS})


def merge(rows: pl.DataFrame, rules: FoldRules) -> pl.DataFrame:
    """Partial rows (columns `COLUMNS`) of disjoint events, in any order, as one row a user; sorted by user_id."""
    several = rows["user_id"].is_duplicated()
    alone = rows.filter(~several)
    if alone.height == rows.height:
        return rows.select(COLUMNS).sort("user_id")
    rows = rows.filter(several)
    parts = [fold.merge(rows.select("user_id", *(field.name for field in fold.FIELDS)), rules) for fold in FOLDS]
    merged = pl.concat([parts[0], *(part.drop("user_id") for part in parts[1:])], how="horizontal")
    return pl.concat([alone.select(COLUMNS), merged.select(COLUMNS)]).sort("user_id")


MAX_FILES = 8
"""A bucket with so many files is compacted by the next increment."""
_LARGE = 0.25
"""Increments with fewer rows than this share of the largest file are compacted among themselves."""


def files_by_bucket(table: Table) -> dict[int, list[File]]:
    found: dict[int, list[File]] = {}
    for file in table.files:
        found.setdefault(int(file.partition["bucket"]), []).append(file)
    return found


def to_compact(files: Sequence[File]) -> list[File]:
    """Those files of a bucket that the next increment is written into one with: none, all but the largest, or all."""
    if len(files) < MAX_FILES:
        return []
    largest, *others = by_size(files)
    return list(files) if sum(file.rows for file in others) >= _LARGE * largest.rows else others


def by_size(files: Sequence[File]) -> list[File]:
    """The largest first."""
    return sorted(files, key=lambda file: (-file.rows, file.path))


def profile_rows(home: Home, columns: Sequence[str] = SHOWN, *, purpose: Purpose = None) -> pl.DataFrame:
    """One row a user of the profiles table, in no order. Raises MissingInput where it is of an older version."""
    who = allowed(home, purpose)
    if who.everybody or "user_id" in columns:
        return who.rows(_rows(home, columns))
    return who.rows(_rows(home, ("user_id", *columns))).drop("user_id")


def _rows(home: Home, columns: Sequence[str]) -> pl.DataFrame:
    table, largest, increments = stored_rows(home)
    if table is None:
        return NOBODY.select(columns)
    if not increments:
        return table.scan(largest).select(columns).collect()
    # Only the users with increments are merged, and only theirs are the columns for merging read.
    later = table.scan(increments).select(COLUMNS).collect()
    touched = pl.col("user_id").is_in(later["user_id"].unique().implode())
    theirs = table.scan(largest).filter(touched).select(COLUMNS).collect()
    others = table.scan(largest).filter(~touched).select(columns).collect()
    merged = merge(pl.concat([theirs, later]), FoldRules.of(home.settings))
    return pl.concat([others, merged.select(columns)])


def stored_rows(home: Home) -> tuple[Table | None, list[File], list[File]]:
    """The profiles table (None where there are no profiles), the largest file of each bucket, and all others.

    Raises MissingInput where the table is of an older version.
    """
    table = tables.open_table(home, NAME)
    if table is not None and table.schema != SCHEMA:
        raise MissingInput("the profiles were built by another version of persona", "persona profile build")
    by_bucket = [by_size(files) for files in files_by_bucket(table).values()] if table is not None else []
    largest, others = [files[0] for files in by_bucket], [file for files in by_bucket for file in files[1:]]
    return table if largest else None, largest, others
