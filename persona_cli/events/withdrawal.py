"""`ingest --replace`: which stored events of a file did not come again, and what taking the run back brings back.

An event belongs to the file under whose name it is stored (`source`): the text by which the file was given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from persona_cli.errors import UsageError
from persona_cli.workspace.tables import File, Table

MARK = "replace"
"""In what a commit says of itself: it took stored events away."""
_SEEDS = (0x7265_7475, 0x726E_6564)


class Returned:
    """The stored events that came again, by month: two hashes an id (128 bits), since ids are long and many."""

    def __init__(self) -> None:
        self._parts: dict[str, list[pl.DataFrame]] = {}
        self.sources: set[str] = set()  # those of which anything is stored, once `withdrawn` is through

    def add(self, month: str, ids: pl.Series) -> None:
        if len(ids):
            self._parts.setdefault(month, []).append(_hashed(ids))

    def absent(self, month: str, ids: pl.Series) -> pl.Series:
        """Those of `ids` that did not come again."""
        came = self._parts.get(month)
        if came is None or not len(ids):
            return ids
        hashed = _hashed(ids).with_columns(ids.alias("id"))
        return hashed.join(pl.concat(came), on=["one", "two"], how="anti")["id"]


def _hashed(ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({name: ids.hash(seed=seed) for name, seed in zip(("one", "two"), _SEEDS, strict=True)})


def withdrawn(table: Table, sources: Sequence[str], returned: Returned) -> Iterator[tuple[File, pl.Series]]:
    """The files that hold events of `sources` which did not come again, with the ids of these."""
    names = pa.array(sorted(set(sources)), pa.string())
    for file in table.files:
        parquet = pq.ParquetFile(table.root / file.path)
        stored = parquet.read(columns=["source"])["source"]
        theirs = pc.is_in(stored, value_set=names)
        returned.sources.update(stored.filter(theirs).unique().to_pylist())
        if not pc.any(theirs).as_py():
            continue
        ids = parquet.read(columns=["event_id"])["event_id"].filter(theirs)
        gone = returned.absent(file.partition["month"], pl.Series(pl.from_arrow(ids)))
        if len(gone):
            yield file, gone


def in_force(history: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Runs that took stored events away and were not taken back, with their commits; the oldest first."""
    found: dict[str, Mapping[str, Any]] = {}
    for commit in reversed(history):
        if MARK in commit:
            found[str(commit["run"])] = commit
        found.pop(str(commit.get("undo")), None)
    return found


def restored(table: Table, run: str, moment: datetime, undone: Collection[datetime]) -> list[File]:
    """Written files of the events that `run` (of this `moment`) withdrew or replaced, as they were before it.

    Not among them: events that are stored under the same id by now, and those of runs that were taken back since
    (`undone`: their moments). [] for a run that took nothing away. Raises UsageError where what it took away cannot be
    told exactly: a later such run is in force, or the files before it are gone.
    """
    runs = in_force(table.history())
    if run not in runs:
        return []
    if later := list(runs)[list(runs).index(run) + 1 :]:
        raise UsageError(
            f"{later[-1]} replaced files after {run}: what {run} took away can only be told without it; "
            "nothing was changed",
            f"persona ingest undo {later[-1]}",
        )
    changed = table.changed_by(int(runs[run]["version"]))
    if changed is None or not all((table.root / file.path).exists() for file in changed[1]):
        raise UsageError(
            f"{run} replaced files, and the events it took away are kept no longer; nothing was changed",
            "ingest the older files with --replace",
        )
    added, removed = changed
    moments = pl.Series([moment, *undone], dtype=pl.Datetime("us", "UTC"))
    made = []
    try:
        for month in sorted({file.partition["month"] for file in removed}):
            before, kept, now = (
                table.scan([file for file in files if file.partition["month"] == month])
                for files in (removed, added, table.files)
            )
            stayed = kept.filter(pl.col("ingested_at") != moment).select("event_id")
            there = now.filter(pl.col("ingested_at") != moment).select("event_id")
            rows = before.filter(~pl.col("ingested_at").is_in(moments.implode()))
            rows = rows.join(stayed, on="event_id", how="anti").join(there, on="event_id", how="anti")
            if (found := rows.collect()).height:
                made.append(table.write(found, {"month": month}))
    except BaseException:
        table.discard()
        raise
    return made
