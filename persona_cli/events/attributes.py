"""What events say about people and accounts (traits of `identify` and `group` calls) → the tables users and accounts.

A call names some traits only, and a row of these tables says all: each row begun here is the one that held then, with
what the call says on top. A call that says nothing new adds no row, so the same file again adds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa

from persona_cli.events.batch import rows_schema
from persona_cli.events.catalogue import CatalogueStore
from persona_cli.events.collecting import Collect, collect_about, collect_records
from persona_cli.events.judge import json_text, parse_json
from persona_cli.events.schema import FIELDS, KEY, Kind, stored_schema
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

Row = dict[str, Any]


class Attributes:
    """What the inputs of one ingest say. `add` as often as needed, then `finish`, then `commit`; else `discard`."""

    def __init__(self, home: Home, ingested_at: datetime, sources: Sequence[str]) -> None:
        self._home, self._at, self._sources = home, ingested_at, list(sources)
        self._said: dict[Kind, list[tuple[int, Row]]] = {}
        self._stores: dict[Kind, CatalogueStore] = {}
        self._collect = Collect.of(home.settings)
        self.removed: Counter[str] = Counter()
        """Rows that lost something which is not collected, as `users.role`."""

    def add(self, about: Mapping[Kind, Sequence[Row]], file: int) -> None:
        """Judged rows by kind, each with a `valid_from` (µs), of the input of this number."""
        for kind, rows in collect_about(about, self._collect, self.removed).items():
            self._said.setdefault(kind, []).extend((file, row) for row in rows)

    def finish(self) -> None:
        for kind, said in self._said.items():
            store = self._stores[kind] = CatalogueStore(self._home, kind, self._at, self._sources)
            for file, rows in _merged(kind, said, self._held(kind, said)).items():
                store.add(pa.Table.from_pylist(rows, schema=rows_schema(kind)), file)
            store.finish()

    def commit(self, metadata: Mapping[str, Any]) -> None:
        for store in self._stores.values():
            store.commit(metadata)

    def discard(self) -> None:
        for store in self._stores.values():
            store.discard()

    @property
    def accepted(self) -> dict[str, int]:
        """New rows by kind."""
        return {kind: store.accepted for kind, store in self._stores.items() if store.accepted}

    def _held(self, kind: Kind, said: Sequence[tuple[int, Row]]) -> list[Row]:
        """The stored rows of those that something was said about, times in µs; `since` is when each begins."""
        key = KEY[kind]
        known = pl.Series(sorted({row[key] for _, row in said}), dtype=pl.String)
        rows = tables.scan(self._home, kind, stored_schema(kind)).filter(pl.col(key).is_in(known.implode())).collect()
        times = [spec.name for spec in FIELDS[kind] if spec.type == "time"]
        since = pl.coalesce("valid_from", "ingested_at").cast(pl.Int64).alias("since")
        held = rows.with_columns(since, pl.col(*times).cast(pl.Int64), pl.col("ingested_at").cast(pl.Int64)).to_dicts()
        # What is collected no more is not carried over into the rows begun now.
        return collect_records(held, kind, self._collect, Counter())


def _merged(kind: Kind, said: Sequence[tuple[int, Row]], held: Sequence[Row]) -> dict[int, list[Row]]:
    """Whole rows by input: what was said on top of what held. Equal times: stored first, then by what is said."""
    key = KEY[kind]
    names = [spec.name for spec in FIELDS[kind] if spec.name not in (key, "valid_from")]
    steps = [(row[key], row["since"], 0, row["ingested_at"], "", -1, row) for row in held]
    steps += [(row[key], row["valid_from"], 1, 0, json_text(row), file, row) for file, row in said]
    made: dict[int, list[Row]] = {}
    state: Row = {}
    whose = None
    for who, since, _, _, _, file, row in sorted(steps, key=lambda step: step[:6]):
        if who != whose:
            whose, state = who, {}
        before = state
        if file < 0:
            state = {name: row[name] for name in (*names, "props")}
            continue
        state = before | {name: row[name] for name in names if row[name] is not None}
        state["props"] = _both(before.get("props"), row["props"])
        if state != before:
            line = {"given": True, "line": row["line"], key: who, "valid_from": since}
            made.setdefault(file, []).append(state | line)
    return made


def _both(before: str | None, after: str | None) -> str | None:
    """JSON texts of two objects as that of one; the later counts. Keys sorted: the order of calls leaves no trace."""
    if before is None and after is None:
        return None
    both: Row = {}
    for text in (before, after):
        both |= parse_json(text.encode()) if text else {}
    return json_text(dict(sorted(both.items())))
