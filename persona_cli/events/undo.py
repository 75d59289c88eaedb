"""Take back what one ingest did: the rows that carry its moment leave, wherever they are by now.

All rows of a run have one `ingested_at`. Whole files of it leave the table; a file that also holds rows of other runs
is written again without them. What a run with --replace took away comes back from the files before it, in the same
commit; what another run replaced (--on-duplicate keep-last) does not. Its quarantined lines leave with it, and the
consent that it read from events; what people refused in them stays refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from persona_cli.consent.receipts import take_back_grants
from persona_cli.errors import MissingInput, UsageError
from persona_cli.events.withdrawal import restored
from persona_cli.workspace import locks, runs, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.tables import File, Table

TABLES = ("events", "items", "users", "accounts")


def undo(home: Home, run_id: str, wait: float = 0.0) -> int:
    """Remove the rows that the run `run_id` (or the beginning of its id, or `latest`) added, and bring back what it
    took away with --replace; answers how many rows left or came back.

    Raises MissingInput for an unknown run, UsageError for one that was no ingest or whose replacing cannot be taken
    back, Busy while the tables are in use.
    """
    with locks.hold(home, "tables", "ingest undo", wait):
        run = find(home, run_id)
        moment = _added(home).get(run) or _recorded(home, run)
        removed = 0
        for name in TABLES:
            table = tables.open_table(home, name)
            if table is not None and moment is not None:
                said = {"undo": run, "undone_at": moment.isoformat()}
                back = restored(table, run, moment, _undone(table)) if name == "events" else []
                removed += _take_out(table, "ingested_at", moment, said, back) + sum(file.rows for file in back)
        kept = tables.open_table(home, "quarantine")
        if kept is not None:
            _take_out(kept, "run", run, {"undo": run})
        take_back_grants(home, run)
        return removed


def find(home: Home, run_id: str) -> str:
    """The full id of a run by its beginning; `latest` is the newest that added something which is still there."""
    added = _added(home)
    if run_id == "latest":
        if not added:
            raise MissingInput("there is nothing to take back", "persona runs list")
        return max(added, key=lambda run: added[run])
    if run_id in added:
        return run_id
    run = runs.read_run(home, run_id)
    if run.get("command") not in ("ingest", "quarantine retry"):
        raise UsageError(f"the run {run['id']} is of {run.get('command')!r}, not an ingest", "persona runs list")
    return str(run["id"])


def _added(home: Home) -> dict[str, datetime]:
    """Runs that added rows and were not taken back, by what the commits say of themselves, with their moment."""
    added: dict[str, datetime] = {}
    for name in TABLES:
        table = tables.open_table(home, name)
        for commit in reversed(table.history()) if table is not None else ():
            if "ingested_at" in commit:
                added[str(commit["run"])] = datetime.fromisoformat(commit["ingested_at"])
            added.pop(str(commit.get("undo")), None)
    return added


def _undone(table: Table) -> list[datetime]:
    """The moments of runs that were taken back."""
    return [datetime.fromisoformat(commit["undone_at"]) for commit in table.history() if "undone_at" in commit]


def _recorded(home: Home, run: str) -> datetime | None:
    """The moment by the run's manifest, for when the log no longer reaches back to its commit."""
    counts = runs.read_run(home, run).get("counts") or {}
    return datetime.fromisoformat(counts["ingested_at"]) if "ingested_at" in counts else None


def _take_out(table: Table, column: str, value: Any, metadata: dict[str, str], back: Sequence[File] = ()) -> int:
    """Remove the rows whose `column` is `value`, and add the files `back`, in one commit; answers how many left."""
    remove, add, removed = [], list(back), 0
    try:
        for file, whole in _holding(table, column, value):
            remove.append(file)
            if whole:
                removed += file.rows
                continue
            rows = table.scan([file]).filter(pl.col(column).ne_missing(pl.lit(value))).collect()
            removed += file.rows - rows.height
            if rows.height:
                add.append(table.write(rows, file.partition))
    except BaseException:
        table.discard()
        raise
    if removed or back:
        table.commit(add, remove, metadata=metadata)
    return removed


def _holding(table: Table, column: str, value: Any) -> Iterator[tuple[File, bool]]:
    """Files in which the value occurs, and whether all their rows have it, by the statistics of the Parquet files."""
    for file in table.files:
        described = pq.ParquetFile(table.root / file.path)
        at = described.schema_arrow.names.index(column)
        whole, possible = True, False
        for group in range(described.metadata.num_row_groups):
            statistics = described.metadata.row_group(group).column(at).statistics
            if statistics is None or not statistics.has_min_max:
                whole, possible = False, True
                continue
            possible |= statistics.min <= value <= statistics.max
            whole &= statistics.min == value == statistics.max and not statistics.null_count
        if possible:
            yield file, whole
