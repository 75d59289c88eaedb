"""Who was erased and must not come back with an old file: the table `suppressed` of digests.

Kept after an erasure on purpose (GDPR Art. 17(3)(b) and (e)): without it the next import of a backup would undo it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

from persona_cli.consent.appending import append
from persona_cli.consent.subjects import subjects
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


def suppressed(home: Home, ids: pl.Series) -> pl.Series:
    """Whether each id (n,) is suppressed: Boolean, false where the id is null."""
    table = tables.open_table(home, NAME)
    if table is None or not table.files:
        return pl.repeat(False, len(ids), eager=True)
    there = table.scan().select("subject").collect()["subject"]
    return subjects(home, ids).is_in(there.implode()).fill_null(False)
