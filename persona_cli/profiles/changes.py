"""What became of the events of rewritten files: rows that are gone, rows that are new, rows that only moved.

Undo and `--on-duplicate keep-last` write files again without some rows. Most rows of such a file are the same before
and after; only users of rows that are really gone must be folded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from persona_cli.workspace.tables import File

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
