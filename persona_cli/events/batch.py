"""What a reader hands on: accepted rows as an Arrow table, rejects, and the counts that must add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from persona_cli.events.ids import event_id, event_ids
from persona_cli.events.judge import Rejected, Rules, judge
from persona_cli.events.scan import Positions
from persona_cli.events.schema import MAX_RAW_BYTES, Kind, judged_schema

Record = dict[str, Any]


@dataclass(frozen=True)
class Reject:
    """A record that was not accepted; `raw` is cut to MAX_RAW_BYTES, `offset` counts uncompressed bytes."""

    line: int
    offset: int
    reason: str
    raw: bytes


@dataclass
class Batch:
    """Judged records in the order of the input; `read` = rows + rejects + what `dropped` adds up to, by reason.

    `rows` has the columns of judged_schema, then `given` (the id came with the input) and `line` (from 1). `zoneless`
    counts the rows that had a time without zone.
    """

    rows: pa.Table
    rejects: list[Reject]
    read: int
    zoneless: int
    dropped: dict[str, int] = field(default_factory=dict)
    about: dict[Kind, list[Record]] = field(
        default_factory=dict
    )  # judged rows of users and accounts that it also gives


@dataclass
class Singly:
    """Records judged one by one."""

    rules: Rules
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def add(self, line: int, offset: int, raw: bytes | Callable[[], bytes], record: Callable[[], Record]) -> None:
        """Judge one record; `record` gives it or raises Rejected, `raw` is its text."""
        try:
            row = judge(record(), self.rules)
        except Rejected as rejected:
            text = raw if isinstance(raw, bytes) else raw()
            self.rejects.append(Reject(line, offset, str(rejected), text[:MAX_RAW_BYTES]))
            return
        if self.rules.mapping.kind == "events":
            row["given"] = row["event_id"] is not None
            row["event_id"] = row["event_id"] or event_id(row)
        else:
            row["given"] = True
        row["line"] = line
        self.rows.append(row)

    def batch(
        self, read: int, many: pa.Table | None = None, lines: Positions | None = None, zoneless: int = 0
    ) -> Batch:
        """With `many` rows that were judged together (judged columns only), their line numbers and zone-less count."""
        kind = self.rules.mapping.kind
        singly = pa.Table.from_pylist(self.rows, schema=rows_schema(kind)) if self.rows else None
        if many is not None and lines is not None and many.num_rows:
            given = pa.repeat(True, many.num_rows)
            if kind == "events":
                given = many["event_id"].is_valid()
                at = many.schema.get_field_index("event_id")
                many = many.set_column(at, "event_id", event_ids(many))
            many = many.append_column("given", given).append_column("line", pa.array(lines))
            many = many.cast(rows_schema(kind))
            if singly is not None:
                together = pa.concat_tables([many, singly]).combine_chunks()
                many = together.take(pa.array(np.argsort(together["line"].to_numpy(), kind="stable")))
            singly = many
        rows = rows_schema(kind).empty_table() if singly is None else singly
        return Batch(rows, self.rejects, read, self.rules.zoneless + zoneless)


def rows_schema(kind: Kind) -> pa.Schema:
    """Arrow schema of Batch.rows."""
    return judged_schema(kind).append(pa.field("given", pa.bool_())).append(pa.field("line", pa.int64()))
