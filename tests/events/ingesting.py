"""Small inputs, what a workspace holds of them, and what it should hold by the rules, done one event at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.events.batch import event_id
from persona_cli.events.dedupe import numbered
from persona_cli.events.judge import Rules, judge
from persona_cli.events.schema import kept_schema, resolve
from persona_cli.events.store import scan_events
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

Record = dict[str, Any]
_RULES = Rules(resolve("events", set(), [], nested=True), latest_us=4_000_000_000_000_000)


def event(user: str = "u1", at: str = "2026-01-05T10:00:00Z", type: str = "click", **more: Any) -> Record:
    return {"user_id": user, "event_type": type, "timestamp": at} | more


def write(path: Path, records: Iterable[Record | str]) -> str:
    """JSON lines; a text is a line as it is."""
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def stored(home: Home) -> pl.DataFrame:
    """All events but for where and when they were taken in, sorted."""
    rows = scan_events(home).drop("source", "ingested_at").collect()
    return rows.sort("month", "event_id")


def versions(home: Home, *names: str) -> dict[str, int | None]:
    """Version of each table, None where there is none."""
    opened = {name: tables.open_table(home, name) for name in names or ("events", "quarantine", "items")}
    return {name: table.version if table else None for name, table in opened.items()}


def files(home: Home) -> list[str]:
    return sorted(str(path.relative_to(home.root)) for path in home.root.rglob("*.parquet"))


@dataclass
class Oracle:
    """The rules of duplicates in the plainest form."""

    policy: str = "keep-first"
    table: dict[tuple[str, str], Record] = field(default_factory=dict)

    def ingest(self, inputs: Sequence[Sequence[Record]]) -> tuple[int, int, int]:
        """Take in the files of one run; (accepted, duplicates, replaced)."""
        accepted = duplicates = 0
        before = dict(self.table)
        for records in inputs:
            times: dict[str, int] = {}
            for record in records:
                row = judge(record, _RULES)
                if row["event_id"] is None:
                    base = event_id(row)
                    number = times.get(base, 0)
                    times[base] = number + 1
                    row["event_id"] = base if number == 0 else numbered(base, number)
                row["timestamp"] = datetime.fromtimestamp(row["timestamp"] / 1e6, UTC)
                key = (f"{row['timestamp']:%Y-%m}", row["event_id"])
                if key not in self.table:
                    accepted += 1
                    self.table[key] = row
                    continue
                duplicates += 1
                if self.policy == "keep-last":
                    self.table[key] = row
        replaced = sum(before[key] != self.table[key] for key in before)
        return accepted, duplicates, replaced

    def rows(self) -> list[tuple[Any, ...]]:
        names = kept_schema("events").names
        return sorted(
            ((month, identity, *(row[name] for name in names)) for (month, identity), row in self.table.items()),
            key=lambda row: row[:2],
        )


def comparable(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return frame.select("month", pl.col("event_id").alias("id"), *kept_schema("events").names).rows()
