"""The fold of a user's own events into one profile row, made of the parts in `folds/`, and the merge of partial rows.

The row is the same whatever the order of the events, and whatever parts they were folded in before they were merged.
"""

from __future__ import annotations

from typing import Protocol

import polars as pl
import pyarrow as pa

from persona_cli.profiles.coding import Coded, coded
from persona_cli.profiles.folds import activity, attention, context, explicit
from persona_cli.profiles.folds.context import LATEST as LATEST
from persona_cli.profiles.folds.part import FoldRules, Part, part_of
from persona_cli.profiles.text_numbers import number_of


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
