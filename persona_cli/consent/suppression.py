"""Who was erased and must not come back with an old file: the table `suppressed` of digests.

Kept after an erasure on purpose (GDPR Art. 17(3)(b) and (e)): without it the next import of a backup would undo it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.consent.appending import append
from persona_cli.consent.subjects import Halves, Index, subjects
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.locks import hold

NAME = "suppressed"
SCHEMA = pa.schema(
    [pa.field("subject", pa.string()), pa.field("request", pa.string()), pa.field("at", pa.timestamp("us", tz="UTC"))]
)


def suppress(home: Home, ids: Sequence[str], request: str) -> None:
    """Let nothing of these ids in from now on; one that is suppressed already stays so by its first request."""
    given = subjects(home, pl.Series(list(ids), dtype=pl.String)).unique().sort()
    at = pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC"))

    def new(stored: pl.LazyFrame) -> pl.DataFrame:
        missing = given.filter(~given.is_in(stored.select("subject").collect()["subject"].implode()))
        return missing.to_frame("subject").select("subject", pl.lit(request).alias("request"), at.alias("at"))

    append(home, NAME, SCHEMA, new)


def lift(home: Home, ids: Sequence[str], wait: float = 0.0) -> int:
    """Let these ids in again, because the person came back; answers how many were suppressed."""
    with hold(home, "tables", "lift suppression", wait):
        table = tables.open_table(home, NAME)
        if table is None:
            return 0
        gone = subjects(home, pl.Series(list(ids), dtype=pl.String))
        rows = table.scan().collect()
        rest = rows.filter(~pl.col("subject").is_in(gone.implode()))
        if rest.height < rows.height:
            table.commit([table.write(rest)] if rest.height else [], table.files)
        return rows["subject"].n_unique() - rest["subject"].n_unique()


@dataclass(frozen=True)
class Suppressed:
    """A snapshot of the table, for who asks again and again."""

    subjects: pl.Series
    """Digests, sorted and distinct."""

    @classmethod
    def of(cls, home: Home) -> Suppressed:
        table = tables.open_table(home, NAME)
        if table is None or not table.files:
            return cls(pl.Series("subject", [], dtype=pl.String))
        return cls(table.scan().select("subject").collect()["subject"].unique().sort())

    @property
    def any(self) -> bool:
        return len(self.subjects) > 0

    def has(self, asked: Halves) -> NDArray[np.bool_]:
        """Whether each digest (n,) is there."""
        return self._index.find(asked) >= 0

    @cached_property
    def _index(self) -> Index:
        return Index.of(self.subjects)


def suppressed(home: Home, ids: pl.Series) -> pl.Series:
    """Whether each id (n,) is suppressed: Boolean, false where the id is null."""
    snapshot = Suppressed.of(home)
    if not snapshot.any:
        return pl.repeat(False, len(ids), eager=True)
    return subjects(home, ids).is_in(snapshot.subjects.implode()).fill_null(False)
