"""The verdict on one record, in plain Python: the definition that the fast reader must agree with.

Rules (DESIGN 3): ids and text are JSON strings or integers, integers by their text; empty text is null; anything that
cannot be read as its type rejects the record, never nulls it; times lie in 1990-01-01 … now + 24 h; zone-less times
are read in `assume_tz` and counted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from persona_cli.events.mapping import Mapping, NotAnObject, Path, json_type
from persona_cli.events.schema import FIELDS, ID_FIELDS, KEY, MAX_ID_BYTES, Field

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_US = 631_152_000_000_000  # 1990-01-01T00:00:00Z
DAY_US = 86_400_000_000
ASCII_BLANK = " \t\r\n\f\v"

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)? ?(Z|z|UTC|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f]")
_CONTROL_BUT_SPACE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Rejected(Exception):
    """A record that is not accepted; the message is the reason stored in quarantine, free of the record's values."""


class DuplicateKey(dict[str, Any]):
    """A JSON object in which a key came twice: the last one is in the dict, the earlier are lost."""


@dataclass
class Rules:
    """What judgement depends on besides the record."""

    mapping: Mapping
    latest_us: int
    assume_tz: str = "UTC"
    zoneless: int = field(default=0, compare=False)


def parse_json(line: bytes, parents: Iterable[Path] = (("context",),)) -> dict[str, Any]:
    """The JSON object on one line; raises Rejected for anything that is not exactly one strict JSON object.

    A key that comes twice in the object, or in one of its `parents` (paths of nested objects that hold fields), is
    rejected: readers disagree which of the two counts.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected("not UTF-8") from None
    if not text.strip(ASCII_BLANK):
        raise Rejected("blank line")
    try:
        record = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise Rejected("not valid JSON: nested too deep") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            raise Rejected("more than one JSON value on the line") from None
        raise Rejected("not valid JSON") from None
    if not isinstance(record, dict):
        raise Rejected(f"expected a JSON object, got {json_type(record)}")
    if isinstance(record, DuplicateKey) or any(isinstance(_inside(record, path), DuplicateKey) for path in parents):
        raise Rejected("duplicate key in one object")
    if _SURROGATE.search(text) or ("\\u" in text and _SURROGATE.search(json.dumps(record, ensure_ascii=False))):
        raise Rejected("lone surrogate: not valid Unicode")
    return record


def judge(record: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """Canonical values of one record (without props); raises Rejected with the reason."""
    kind = rules.mapping.kind
    row: dict[str, Any] = {}
    for spec in FIELDS[kind]:
        raw = rules.mapping.value_of(record, spec.name)
        if isinstance(raw, NotAnObject):
            raise Rejected(f"{raw.name}: expected an object, got {raw.type}")
        row[spec.name] = _READERS[spec.type](spec, raw, rules)
    props = record.get("props")
    if props is not None and not isinstance(props, dict):
        raise Rejected(f"props: expected an object, got {json_type(props)}")
    if kind != "events":
        if row[KEY[kind]] is None:
            raise Rejected(f"{KEY[kind]}: missing or empty")
        return row
    if row["user_id"] is None and row["anon_id"] is None:
        raise Rejected("user_id: missing or empty, and no anon_id")
    for name in ("event_type", "timestamp"):
        if row[name] is None:
            raise Rejected(f"{name}: missing or empty")
    if row["timestamp"] < EARLIEST_US:
        raise Rejected("timestamp: before 1990-01-01")
    if row["timestamp"] > rules.latest_us:
        raise Rejected("timestamp: more than 24 h in the future")
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        return DuplicateKey(built)
    return built


def _inside(record: Any, path: Path) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _constant(name: str) -> Any:
    raise ValueError(name)


def _text(spec: Field, raw: Any, rules: Rules) -> str | None:
    if isinstance(raw, bool) or not isinstance(raw, str | int | None):
        raise Rejected(f"{spec.name}: expected text, got {json_type(raw)}")
    if raw is None:
        return None
    try:
        text = str(raw)
    except ValueError:  # an integer of more than 4,300 digits
        raise Rejected(f"{spec.name}: longer than {MAX_ID_BYTES:,} bytes") from None
    if not text.strip(ASCII_BLANK):
        return None
    if spec.name in ID_FIELDS and len(text.encode()) > MAX_ID_BYTES:
        raise Rejected(f"{spec.name}: longer than {MAX_ID_BYTES:,} bytes")
    if (_CONTROL if spec.name in ID_FIELDS else _CONTROL_BUT_SPACE).search(text):
        raise Rejected(f"{spec.name}: holds a control character")
    return text


def _number(spec: Field, raw: Any, rules: Rules) -> float | None:
    if raw is None or (isinstance(raw, str) and not raw.strip(ASCII_BLANK)):
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise Rejected(f"{spec.name}: expected a number, got {json_type(raw)}")
    if isinstance(raw, str):
        if not _NUMBER.fullmatch(raw):
            raise Rejected(f"{spec.name}: expected a number, got text")
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Rejected(f"{spec.name}: not a finite number")
    return number + 0.0  # -0.0 and 0.0 are one value: they must hash alike


def _whole(spec: Field, raw: Any, rules: Rules) -> int | None:
    if raw is None or (isinstance(raw, str) and not raw.strip(ASCII_BLANK)):
        return None
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or abs(raw) >= 10**18:
        raise Rejected(f"{spec.name}: expected a whole number, got {json_type(raw)}")
    return raw


def _flag(spec: Field, raw: Any, rules: Rules) -> bool | None:
    if raw is None or isinstance(raw, bool):
        return raw
    text = str(raw).strip(ASCII_BLANK).lower()
    if not text:
        return None
    if text not in _FLAGS:
        raise Rejected(f"{spec.name}: expected true or false")
    return _FLAGS[text]


def _texts(spec: Field, raw: Any, rules: Rules) -> list[str] | None:
    """A list of texts; one text is split at `|`, the separator of MovieLens and Personalize files."""
    if raw is None:
        return None
    parts = raw.split("|") if isinstance(raw, str) else raw
    if not isinstance(parts, list):
        raise Rejected(f"{spec.name}: expected a list of texts, got {json_type(raw)}")
    read = [_text(spec, part.strip(ASCII_BLANK) if isinstance(part, str) else part, rules) for part in parts]
    return [text for text in read if text is not None]


def _time(spec: Field, raw: Any, rules: Rules) -> int | None:
    """Microseconds since 1970 UTC; numbers are seconds, milli-, micro- or nanoseconds, told apart by their size."""
    if raw is None or (isinstance(raw, str) and not raw.strip(ASCII_BLANK)):
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise Rejected(f"{spec.name}: expected a time, got {json_type(raw)}")
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        raw = int(raw)
    if isinstance(raw, str):
        return _iso(spec, raw, rules)
    if isinstance(raw, float) and not math.isfinite(raw):
        raise Rejected(f"{spec.name}: not a finite number")
    return epoch_us(spec, raw)


def epoch_us(spec: Field, number: int | float) -> int:
    size = abs(number)
    if size >= 10**19:
        raise Rejected(f"{spec.name}: unreadable as a time")
    if isinstance(number, int):
        if size < 10**11:
            return number * 1_000_000
        if size < 10**14:
            return number * 1_000
        return number if size < 10**17 else number // 1_000
    scale = 1e6 if size < 1e11 else 1e3 if size < 1e14 else 1.0 if size < 1e17 else 1e-3
    return math.floor(number * scale + 0.5)


def _iso(spec: Field, text: str, rules: Rules) -> int:
    match = _ISO.fullmatch(text)
    if not match:
        raise Rejected(f"{spec.name}: unreadable as a time")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    micro = int((fraction or "0")[:6].ljust(6, "0"))  # nanoseconds are cut, not rounded
    try:
        naive = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro)
    except ValueError:
        raise Rejected(f"{spec.name}: unreadable as a time") from None
    if zone is None:
        rules.zoneless += 1
        tz: Any = UTC if rules.assume_tz == "UTC" else ZoneInfo(rules.assume_tz)
    elif zone in ("Z", "z", "UTC"):
        tz = UTC
    else:
        hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
        if hours > 23 or minutes > 59:
            raise Rejected(f"{spec.name}: unreadable as a time")
        offset = timedelta(hours=hours, minutes=minutes)
        tz = timezone(-offset if zone[0] == "-" else offset)
    try:
        return (naive.replace(tzinfo=tz) - EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise Rejected(f"{spec.name}: unreadable as a time") from None


_READERS: dict[str, Any] = {
    "text": _text,
    "number": _number,
    "whole": _whole,
    "flag": _flag,
    "texts": _texts,
    "time": _time,
}
