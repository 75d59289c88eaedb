"""What a reader hands on: accepted rows as an Arrow table with an id each, rejects, and the counts that must add up.

The id of an event that came without one is part of the workspace format, the same for ever: md5, in hexadecimal,
of these bytes joined by the unit separator (byte 31):

- 17 bytes: the hash version as one ASCII character, the timestamp in microseconds since 1970, and the value as an IEEE
  double, each of the two as eight bytes, little-endian; a missing value is eight bytes of 255, which no number is;
- user_id, or anon_id where there is none; event_type; target; item_id; session_id: UTF-8, null being empty. None of
  them can hold a control character, so two different events never give the same bytes.

The value goes in as its bits so that no way of printing decimals matters. Identical rows of one file have the same id
here; the store numbers them.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.events.judge import Rejected, Rules, judge
from persona_cli.events.scan import Positions
from persona_cli.events.schema import HASH_VERSION, MAX_RAW_BYTES, Kind, judged_schema

SEPARATOR = "\x1f"
_BYTE = SEPARATOR.encode()
_VERSION = HASH_VERSION.encode()
_NO_VALUE = b"\xff" * 8
_HEAD = np.dtype([("version", "S1"), ("timestamp", "<i8"), ("value", "<i8")])
_TEXTS = ("event_type", "target", "item_id", "session_id")
_local = threading.local()


def event_id(row: dict[str, Any]) -> str:
    """The id of one judged row; the definition."""
    value = _NO_VALUE if row["value"] is None else struct.pack("<d", row["value"])
    person = row["anon_id"] if row["user_id"] is None else row["user_id"]
    texts = [(text or "").encode() for text in (person, *(row[name] for name in _TEXTS))]
    head = _VERSION + struct.pack("<q", row["timestamp"]) + value
    return hashlib.md5(_BYTE.join([head, *texts]), usedforsecurity=False).hexdigest()


def event_ids(rows: pa.Table) -> pa.Array:
    """The given ids of judged rows, with the missing ones made; text, no nulls."""
    if not rows.num_rows:
        return pa.array([], pa.string())
    heads = np.empty(rows.num_rows, _HEAD)
    heads["version"] = _VERSION
    heads["timestamp"] = rows["timestamp"].cast(pa.int64()).to_numpy()
    bits = rows["value"].to_numpy().view(np.int64)
    heads["value"] = np.where(rows["value"].is_null().to_numpy(), np.frombuffer(_NO_VALUE, np.int64), bits)
    head = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_HEAD.itemsize), len(heads), [None, pa.py_buffer(heads)])
    texts = [pc.coalesce(rows["user_id"], rows["anon_id"]), *(rows[name] for name in _TEXTS)]
    parts = [part.cast(pa.binary()) for part in (head, *texts)]
    joined = pc.binary_join_element_wise(*parts, _BYTE, null_handling="replace", null_replacement=b"")
    hashed = pa.table({"event_id": rows["event_id"], "bytes": joined})
    import duckdb  # here: most commands make no ids, and it takes a fifth of a second

    connection = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = duckdb.connect(config={"threads": 1})
    made = connection.from_arrow(hashed).project("coalesce(event_id, md5(bytes)) as event_id")
    return made.to_arrow_table()["event_id"].combine_chunks()


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
