"""What of judged rows is collected: columns and keys of `props` that are allowed, as coarse as the settings say.

The last step at the door (`[privacy.collect]`). The ids of events are made before it, from the columns as they came, so
that other settings change no id and bring no event back. Where nothing is set it does nothing. A column that is null in
every row costs nothing, and texts are looked at by their distinct values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.events.judge import json_text
from persona_cli.events.schema import Kind, judged_schema
from persona_cli.workspace.privacy_declarations import DROP, EVERYTHING, OPTIONAL
from persona_cli.workspace.settings import Settings

_KEYS_KNOWN = 10_000
MICROSECONDS = {"minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}
Path = tuple[str, ...]
Records = list[dict[str, Any]]
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])


class Collect(NamedTuple):
    """What [privacy.collect] says: columns left out by kind, how coarse others are, and allowed paths of props."""

    left_out: Mapping[Kind, tuple[str, ...]] = {}
    coarse: Mapping[str, str | float] = {}
    props: tuple[str, ...] = (EVERYTHING,)

    @classmethod
    def of(cls, settings: Settings) -> Collect:
        """What the settings say."""
        coarse = settings.table("privacy.collect.coarsen")
        if "timestamp" in coarse:
            # A hidden moment would stand right beside: what was received was received just after it happened.
            coarse.setdefault("received_at", coarse["timestamp"])
        dropped = {name for name, way in coarse.items() if way == DROP}
        left_out: dict[Kind, tuple[str, ...]] = {}
        for kind in ("events", "items", "users", "accounts"):
            allowed = settings.texts(f"privacy.collect.{kind}")
            names = () if allowed == (EVERYTHING,) else tuple(n for n in OPTIONAL[kind] if n not in allowed)
            if kind != "items":  # items are not people
                names += tuple(name for name in OPTIONAL[kind] if name in dropped and name not in names)
            if names:
                left_out[kind] = names
        return cls(
            left_out,
            {name: way for name, way in coarse.items() if name not in dropped},
            settings.texts("privacy.collect.props"),
        )

    def touches(self, kind: Kind) -> bool:
        """Whether anything at all is done to rows of `kind`."""
        return kind in self.left_out or (kind != "items" and (bool(self.coarse) or self.props != (EVERYTHING,)))


def collect(rows: pa.Table, kind: Kind, rules: Collect, removed: Counter[str]) -> pa.Table:
    """Judged rows (n) as they are collected; adds to `removed` how many rows lost something, by column.

    A column that is coarse now counts as `<column>_coarsened`, and `props` counts rows of which keys were left out:
    their names are not told, since a name can be personal too.
    """
    if not rows.num_rows or not rules.touches(kind):
        return rows
    for name in rules.left_out.get(kind, ()):
        if name in rows.schema.names and (held := rows.num_rows - rows[name].null_count):
            removed[name] += held
            rows = _with(rows, name, pa.nulls(rows.num_rows, rows.schema.field(name).type))
    if kind == "items":
        return rows
    for name, way in rules.coarse.items():
        if name not in rows.schema.names or rows[name].null_count == rows.num_rows:
            continue
        coarse = _coarse(rows[name].combine_chunks(), name, way)
        same = pc.sum(pc.fill_null(pc.equal(coarse, rows[name]), False)).as_py() or 0
        if changed := rows.num_rows - rows[name].null_count - same:
            removed[f"{name}_coarsened"] += changed
            rows = _with(rows, name, coarse)
    if rules.props != (EVERYTHING,) and (held := rows.num_rows - rows["props"].null_count):
        rows = _with_props(rows, rules.props, held, removed)
    return rows


def collect_records(records: Sequence[dict[str, Any]], kind: Kind, rules: Collect, removed: Counter[str]) -> Records:
    """As `collect`, for judged rows as dictionaries (times in µs)."""
    if not records or not rules.touches(kind):
        return list(records)
    schema = judged_schema(kind)
    table = collect(pa.Table.from_pylist([_only(row, schema.names) for row in records], schema), kind, rules, removed)
    for place, field in enumerate(schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(pa.int64()))
    return [{**row, **_only(left, row)} for row, left in zip(records, table.to_pylist(), strict=True)]


def collect_about(
    about: Mapping[Kind, Sequence[dict[str, Any]]], rules: Collect, removed: Counter[str]
) -> dict[Kind, Records]:
    """As `collect_records`, for rows of users and accounts that events also gave; counts as `users.role`."""
    left: dict[Kind, Records] = {}
    for kind, records in about.items():
        mine: Counter[str] = Counter()
        left[kind] = collect_records(records, kind, rules, mine)
        removed.update({f"{kind}.{name}": n for name, n in mine.items()})
    return left


def _only(row: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name in names}


def _with(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)


def _coarse(column: pa.Array, name: str, way: str | float) -> pa.Array:
    if isinstance(way, float):
        return _to_steps(column, way)
    if way in MICROSECONDS:
        moments = column.cast(pa.int64())
        return pc.subtract(moments, _modulo(moments, MICROSECONDS[way])).cast(column.type)
    encoded = column.dictionary_encode()
    read = device if name == "device" else _READERS[way]
    texts = pa.array([read(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return texts.take(encoded.indices)


def _modulo(numbers: pa.Array, by: int) -> pa.Array:
    filled = pc.fill_null(numbers, 0).to_numpy()
    return pa.array(filled % by)  # of the sign of `by`: moments before 1970 go down too


def _to_steps(column: pa.Array, step: float) -> pa.Array:
    """The nearest multiple of `step` (of two the greater), written as decimals are; beyond 2^53 steps as it was."""
    values = pc.fill_null(column, 0).cast(pa.float64()).to_numpy()
    steps = np.floor(values / step + 0.5)
    exponent = Decimal(repr(step)).as_tuple().exponent
    digits = max(-exponent, 0) if isinstance(exponent, int) else 0
    near = np.round(steps * step, digits) if digits <= 15 else steps * step
    near = np.where(np.abs(steps) < 2.0**53, near + 0.0, values)  # + 0.0: no negative zero
    if pa.types.is_integer(column.type):
        near = np.round(near).astype(np.int64)
    return pa.array(near, column.type, mask=column.is_null().to_numpy(zero_copy_only=False))


_HOST = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*:)?//)?([^/?#\s]*)", re.ASCII)
_LIKE_HOST = re.compile(r"(?:[\w-]+\.)+\w{2,}(?::\d+)?")


def host(url: str) -> str | None:
    """`https://shop.test` of `https://shop.test/a/b`; None of a path, which has no host."""
    found = _HOST.match(url)
    if found is None or (not url[: found.start(2)].endswith("//") and not _LIKE_HOST.fullmatch(found[2])):
        return None
    return (url[: found.start(2)] + found[2].rpartition("@")[2]) or None


def section(url: str) -> str | None:
    """The host and the first part of the path: `https://shop.test/a` of `https://shop.test/a/b`, `/a` of `/a/b`."""
    before = host(url) or ""
    path = url[_HOST.match(url).end() :] if before else url  # type: ignore[union-attr]
    first = re.split(r"[/?#]", path.lstrip("/"), maxsplit=1)[0]
    slash = "/" if first and (before or path.startswith("/")) else ""
    return (before + slash + first) or ("/" if path.startswith("/") else None)


def language(locale: str) -> str:
    """`de` of `de-AT`, `de_AT.UTF-8` and `de-AT,de;q=0.9`."""
    return re.split(r"[-_.,;@\s]", locale.strip(), maxsplit=1)[0].lower()


_DEVICES = (
    ("bot", r"\bbots?\b|crawler|spider"),
    ("tv", r"\btv|chromecast|roku"),
    ("console", r"playstation|xbox|nintendo|console"),
    ("tablet", r"ipad|tablet|\btab\b|kindle"),
    ("mobile", r"iphone|ipod|mobile|phone|handset|pixel|galaxy|\bsm-"),
    ("desktop", r"desktop|laptop|windows|\bmac|\bpc\b|linux|computer"),
)


def device(text: str) -> str:
    """mobile, tablet, desktop, tv, console, bot or other, of what a tracker calls a device."""
    lower = text.casefold()
    return next((name for name, pattern in _DEVICES if re.search(pattern, lower)), "other")


def family(text: str) -> str:
    """`Chrome` of `Chrome 120.0.1` and `Chrome/120`; `Mac OS X` of `Mac OS X 10.15`."""
    return re.split(r"[\s/_(;-]*\bv?\d", text, maxsplit=1)[0].strip() or "other"


def offset(tz: str) -> str | None:
    """The winter offset in whole hours, `+01:00` of `Europe/Berlin` and of `+01:30`; None of what names no zone."""
    import zoneinfo
    from datetime import datetime

    found = re.fullmatch(r"(?:UTC|GMT)?\s*([+-])(\d{1,2})(?::?\d{2})?", tz.strip())
    if found is not None:
        return f"{found[1]}{int(found[2]):02}:00"
    try:
        moment = datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo(tz.strip()))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None
    ahead, summer = moment.utcoffset(), moment.dst()
    hours = int((ahead.total_seconds() if ahead else 0) - (summer.total_seconds() if summer else 0)) // 3600
    return f"{'-' if hours < 0 else '+'}{abs(hours):02}:00"


_READERS: dict[str, Callable[[str], str | None]] = {
    "host": host,
    "section": section,
    "language": language,
    "family": family,
    "offset": offset,
}


def _with_props(rows: pa.Table, allowed: Sequence[str], held: int, removed: Counter[str]) -> pa.Table:
    """With only the allowed keys of `props`; null where none is left."""
    if not allowed:
        removed["props"] += held
        return _with(rows, "props", pa.nulls(rows.num_rows, pa.string()))
    # Which texts differ is not asked: in most logs nearly all do.
    allowed_keys, left, changed = AllowedKeys(allowed), [], 0
    for text in rows["props"].to_pylist():
        kept = None if text is None else allowed_keys.of(text)
        changed += kept is not text
        left.append(kept)
    if not changed:
        return rows
    removed["props"] += changed
    return _with(rows, "props", pa.array(left, pa.string()))


class AllowedKeys:
    """Takes from JSON texts of objects the keys that are not allowed; values stay as they are written.

    An allowed path names a key with all that is below it; what is below a key is reached by a dot, also through lists.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)
        # Path above → key → how the key is written if it is kept, and whether only what is below it is looked at.
        self._known: dict[str, dict[str, tuple[str, bool]]] = {}

    def of(self, text: str) -> str | None:
        """The text with the allowed keys: the very same where these are all, None where none is there."""
        kept, whole = self._object(text.encode(), "")
        return text if whole else kept

    def _object(self, raw: bytes | msgspec.Raw, above: str) -> tuple[str | None, bool]:
        """(JSON text with the allowed keys, None if there are none; whether that is all of it)."""
        known = self._known.setdefault(above, {})
        left, whole = [], True
        for key, value in _object.decode(raw).items():
            if (said := known.get(key)) is None:
                said = self._judged(key, above, known)
            written, deeper = said
            if not written:
                whole = False
            elif deeper:
                inner = self._below(value, f"{above}{key}.")
                held = str(value, "utf-8")
                whole = whole and inner == held
                if inner is not None:
                    left.append(written + inner)
            else:
                left.append(written + str(value, "utf-8"))
        return "{" + ",".join(left) + "}" if left else None, whole

    def _judged(self, key: str, above: str, known: dict[str, tuple[str, bool]]) -> tuple[str, bool]:
        path = above + key
        all_below = any(path == one or path.startswith(one + ".") for one in self._allowed)
        deeper = not all_below and any(one.startswith(path + ".") for one in self._allowed)
        said = (f"{json_text(key)}:" if all_below or deeper else "", deeper)
        if len(known) < _KEYS_KNOWN:  # keys may be data, and without end
            known[key] = said
        return said

    def _below(self, value: msgspec.Raw, above: str) -> str | None:
        begin = bytes(memoryview(value)[:1])
        if begin == b"{":
            return self._object(value, above)[0]
        if begin != b"[":
            return None
        parts = [part for one in _list.decode(value) if (part := self._below(one, above)) is not None]
        return "[" + ",".join(parts) + "]" if parts else None
