"""The id of an event that came without one: part of the workspace format, the same for ever.

md5, in hexadecimal, of these bytes joined by the unit separator (byte 31):

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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.events.schema import HASH_VERSION

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
