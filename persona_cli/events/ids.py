"""The id of an event that came without one: part of the workspace format, the same for ever.

md5, in hexadecimal, of these texts joined by the unit separator (chr 31), null being the empty text: hash version,
user_id or else anon_id, event_type, target, item_id, timestamp in microseconds since 1970, the value, session_id. The
value is written as the signed whole number whose 64 bits are those of the IEEE double (2.5 → 4612811918334230528), so
that no way of printing decimals matters. Identical rows of one file have the same id here; the store numbers them.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.events.schema import HASH_VERSION

SEPARATOR = "\x1f"
_local = threading.local()


def event_id(row: dict[str, Any]) -> str:
    """The id of one judged row; the definition."""
    bits = "" if row["value"] is None else str(struct.unpack("<q", struct.pack("<d", row["value"]))[0])
    person = row["anon_id"] if row["user_id"] is None else row["user_id"]
    parts = [person, row["event_type"], row["target"], row["item_id"], str(row["timestamp"]), bits, row["session_id"]]
    text = SEPARATOR.join([HASH_VERSION, *("" if part is None else part for part in parts)])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def event_ids(rows: pa.Table) -> pa.Array:
    """The given ids of judged rows, with the missing ones made; text, no nulls."""
    if not rows.num_rows:
        return pa.array([], pa.string())
    parts = [pc.coalesce(rows["user_id"], rows["anon_id"]), rows["event_type"], rows["target"], rows["item_id"]]
    parts.append(pc.cast(pc.cast(rows["timestamp"], pa.int64()), pa.string()))
    bits = pa.chunked_array([chunk.view(pa.int64()) for chunk in rows["value"].chunks], pa.int64())
    parts += [pc.cast(bits, pa.string()), rows["session_id"]]
    text = pc.binary_join_element_wise(HASH_VERSION, *parts, SEPARATOR, null_handling="replace", null_replacement="")
    texts = pa.table({"event_id": rows["event_id"], "text": text})
    connection = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = duckdb.connect(config={"threads": 1})
    made: pa.Table = connection.from_arrow(texts).project("coalesce(event_id, md5(text)) as event_id").to_arrow_table()
    return made["event_id"].combine_chunks()
