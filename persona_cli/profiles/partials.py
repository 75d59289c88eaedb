"""Tables of partial folds: increments are appended as small files of a bucket, merged when read, compacted in time.

So an increment costs what it brings, not what is there. The profiles table may hold several rows a user; whoever reads
it here gets one. `profile build --rebuild` leaves one row a user on disk too.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from persona_cli.errors import MissingInput
from persona_cli.profiles import fold as folding
from persona_cli.profiles.folds.part import FoldRules
from persona_cli.profiles.permitted import Purpose, allowed
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

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


def profile_rows(home: Home, columns: Sequence[str] = folding.SHOWN, *, purpose: Purpose = None) -> pl.DataFrame:
    """One row a user of the profiles table, in no order. Raises MissingInput where it is of an older version."""
    who = allowed(home, purpose)
    if who.everybody or "user_id" in columns:
        return who.rows(_rows(home, columns))
    return who.rows(_rows(home, ("user_id", *columns))).drop("user_id")


def _rows(home: Home, columns: Sequence[str]) -> pl.DataFrame:
    table, largest, increments = stored_rows(home)
    if table is None:
        return folding.NOBODY.select(columns)
    if not increments:
        return table.scan(largest).select(columns).collect()
    # Only the users with increments are merged, and only theirs are the columns for merging read.
    later = table.scan(increments).select(folding.COLUMNS).collect()
    touched = pl.col("user_id").is_in(later["user_id"].unique().implode())
    theirs = table.scan(largest).filter(touched).select(folding.COLUMNS).collect()
    others = table.scan(largest).filter(~touched).select(columns).collect()
    merged = folding.merge(pl.concat([theirs, later]), FoldRules.of(home.settings))
    return pl.concat([others, merged.select(columns)])


def stored_rows(home: Home) -> tuple[Table | None, list[File], list[File]]:
    """The profiles table (None where there are no profiles), the largest file of each bucket, and all others.

    Raises MissingInput where the table is of an older version.
    """
    table = tables.open_table(home, folding.NAME)
    if table is not None and table.schema != folding.SCHEMA:
        raise MissingInput("the profiles were built by another version of persona", "persona profile build")
    by_bucket = [by_size(files) for files in files_by_bucket(table).values()] if table is not None else []
    largest, others = [files[0] for files in by_bucket], [file for files in by_bucket for file in files[1:]]
    return table if largest else None, largest, others
