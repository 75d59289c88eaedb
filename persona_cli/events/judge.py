"""The verdict on one record, in plain Python: the definition that the fast reader must agree with.

Rules (DESIGN 3): ids and text are JSON strings or integers, integers by their text; empty text is null; anything that
cannot be read as its type rejects the record, never nulls it; times lie in 1990-01-01 … now + 24 h; zone-less times
are read in `assume_tz` and counted.

What the format leaves open, fixed here:

- null is the same as absent, also inside `props`; text of nothing but blanks is null;
- a key that comes twice in one object, at any depth, rejects the line: readers disagree which of the two counts;
- `props` is the JSON text of what no field took: unknown keys, and the members of an object called `props`, spread out.
  Numbers keep their text (`1.10` stays `1.10`), so nothing is rounded or lost;
- a number as a time is seconds, milli-, micro- or nanoseconds since 1970, told apart by its size;
- digits of a fraction of a second after the sixth are cut; a second of 60 is not a time.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from persona_cli.events.schema import FIELDS, ID_FIELDS, KEY, MAX_ID_BYTES, Field, Mapping, Path, Tree, json_type

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_US = 631_152_000_000_000  # 1990-01-01T00:00:00Z
NAMES = {kind: tuple(spec.name for spec in fields) for kind, fields in FIELDS.items()}
ASCII_BLANK = " \t\r\n\f\v"
SURELY_SHORT = MAX_ID_BYTES // 4  # so many characters of any kind are no id that is too long
MAX_DEPTH = 100  # Python's own limit differs between versions; the verdict may not

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)? ?(Z|z|UTC|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f]")
_CONTROL_BUT_SPACE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Rejected(Exception):
    """A record that is not accepted; the message is the reason stored in quarantine, free of the record's values."""


class Number(float):
    """A JSON number that is not a plain integer, with the text it had."""

    text: str

    def __new__(cls, text: str) -> Number:
        number = super().__new__(cls, text)
        number.text = text
        return number


@dataclass
class Rules:
    """What judgement depends on besides the record; counts the accepted records that had a zone-less time."""

    mapping: Mapping
    latest_us: int
    assume_tz: str = "UTC"
    zoneless: int = field(default=0, compare=False)
    zone: tzinfo = field(init=False)
    tree: Tree = field(init=False)
    # Fields by the object they lie in (None: constants), with their key there.
    places: list[tuple[Path | None, list[tuple[Field, str]]]] = field(init=False)
    had_zoneless: bool = field(default=False, init=False, compare=False)

    def __post_init__(self) -> None:
        self.zone = UTC if self.assume_tz == "UTC" else ZoneInfo(self.assume_tz)
        self.tree = self.mapping.tree()
        places: dict[Path | None, list[tuple[Field, str]]] = {}
        for spec in FIELDS[self.mapping.kind]:
            if spec.name in self.mapping.constants:
                places.setdefault(None, []).append((spec, spec.name))
            elif spec.name in self.mapping.paths:
                *above, key = self.mapping.paths[spec.name]
                places.setdefault(tuple(above), []).append((spec, key))
        self.places = list(places.items())


def parse_json(line: bytes) -> dict[str, Any]:
    """The JSON object on one line; raises Rejected for anything that is not exactly one strict JSON object."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected("not UTF-8") from None
    if not text.strip(ASCII_BLANK):
        raise Rejected("blank line")
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise Rejected(f"not valid JSON: nested deeper than {MAX_DEPTH}")
    try:
        record = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = "more than one JSON value on the line" if error.msg == "Extra data" else "not valid JSON"
        raise Rejected(reason) from None
    if not isinstance(record, dict):
        raise Rejected(f"expected a JSON object, got {json_type(record)}")
    if "\\u" in text and _SURROGATE.search(json.dumps(record, ensure_ascii=False)):
        raise Rejected("lone surrogate: not valid Unicode")
    return record


def judge(record: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """Canonical values of one record and its props; times as µs since 1970. Raises Rejected with the reason."""
    kind = rules.mapping.kind
    rules.had_zoneless = False
    row: dict[str, Any] = dict.fromkeys(NAMES[kind])
    for above, fields in rules.places:
        place = rules.mapping.constants if above is None else _object_at(record, above)
        if place is not None:
            for spec, key in fields:
                if (raw := place.get(key)) is None:
                    continue
                if spec.type == "text" and type(raw) is str and 0 < len(raw) <= SURELY_SHORT and raw.isprintable():
                    if raw[0] != " " or raw.strip(ASCII_BLANK):  # as _text says, without the call
                        row[spec.name] = raw
                else:
                    row[spec.name] = _READERS[spec.type](spec, raw, rules)
    props = record.get("props")
    if props is not None and not isinstance(props, dict):
        raise Rejected(f"props: expected an object, got {json_type(props)}")
    if kind != "events":
        if row[KEY[kind]] is None:
            raise Rejected(f"{KEY[kind]}: missing or empty")
        return _accepted(record, row, rules)
    if row["user_id"] is None and row["anon_id"] is None:
        raise Rejected("user_id: missing or empty, and no anon_id")
    for name in ("event_type", "timestamp"):
        if row[name] is None:
            raise Rejected(f"{name}: missing or empty")
    if row["timestamp"] < EARLIEST_US:
        raise Rejected("timestamp: before 1990-01-01")
    if row["timestamp"] > rules.latest_us:
        raise Rejected("timestamp: more than 24 h in the future")
    return _accepted(record, row, rules)


def _object_at(record: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """The nested object at `path`, None when there is none."""
    place: Any = record
    for depth, key in enumerate(path, 1):
        if (place := place.get(key)) is None:
            return None
        if not isinstance(place, dict):
            raise Rejected(f"{'.'.join(path[:depth])}: expected an object, got {json_type(place)}")
    return place  # type: ignore[no-any-return]


def constant(spec: Field, text: str, rules: Rules) -> Any:
    """The value that `--map field==text` gives every record; raises Rejected."""
    return _READERS[spec.type](spec, text, rules)


def _accepted(record: dict[str, Any], row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    rules.zoneless += rules.had_zoneless
    row["props"] = props_text(record, rules.tree)
    return row


def props_text(record: dict[str, Any], tree: Tree) -> str | None:
    """JSON text of what no field of `tree` took, None when that is nothing.

    The members of `props` are spread beside the unknown keys; one whose name is taken there becomes `props.NAME`.
    """
    rest = _rest(record, tree)
    nested = rest.get("props")
    if isinstance(nested, dict):
        del rest["props"]
        for name, value in nested.items():
            if value is not None:
                rest[f"props.{name}" if name in rest else name] = value
    return json_text(rest) if rest else None


def _rest(record: dict[str, Any], tree: Tree) -> dict[str, Any]:
    left: dict[str, Any] = {}
    for key, value in record.items():
        below = tree.get(key)
        if value is None or isinstance(below, tuple):
            continue
        if below is not None and isinstance(value, dict):
            if inner := _rest(value, below):
                left[key] = inner
        else:
            left[key] = value
    return left


def json_text(value: Any) -> str:
    """JSON text without spaces in which numbers are written as they came."""
    if type(value) is str:
        return _quoted(value)
    if type(value) is int:
        return int.__repr__(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{json_text(key)}:{json_text(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, Number):
        return value.text
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(str(value))
    if value is None or isinstance(value, str | int | float):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value.hex() if isinstance(value, bytes) else str(value), ensure_ascii=False)


# What json.dumps(text, ensure_ascii=False) does, without making an encoder for each text.
_quoted = json.encoder.encode_basestring


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        raise Rejected("duplicate key in one object")
    return built


def _integer(text: str) -> int | Number:
    # Python refuses to read integers of thousands of digits, and -0 has a text of its own.
    return int(text) if len(text) < 1_000 and text != "-0" else Number(text)


def _constant(name: str) -> Any:
    raise Rejected(f"not valid JSON: {name.removeprefix('-')} is not a number")


# Strict JSON: no NaN, no key twice, numbers with their text.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=Number, parse_int=_integer)


def _depth(text: str) -> int:
    deepest = depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        deepest = max(deepest, depth)
    return deepest


def _text(spec: Field, raw: Any, rules: Rules) -> str | None:
    if type(raw) is str:
        text = raw
    elif isinstance(raw, int) and not isinstance(raw, bool):
        text = str(raw)
    elif spec.transient:
        text = json_text(raw)
    else:
        raise Rejected(f"{spec.name}: expected text, got {json_type(raw)}")
    if not text.strip(ASCII_BLANK):
        return None
    if spec.transient:  # never stored, so nothing about it is a reason to turn the record away
        return text
    if spec.name in ID_FIELDS and len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES:
        raise Rejected(f"{spec.name}: longer than {MAX_ID_BYTES:,} bytes")
    if not text.isprintable() and (_CONTROL if spec.name in ID_FIELDS else _CONTROL_BUT_SPACE).search(text):
        raise Rejected(f"{spec.name}: holds a control character")
    return text


def _number(spec: Field, raw: Any, rules: Rules) -> float | None:
    if isinstance(raw, str) and not raw.strip(ASCII_BLANK):
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise Rejected(f"{spec.name}: expected a number, got {json_type(raw)}")
    if isinstance(raw, str) and not _NUMBER.fullmatch(raw):
        raise Rejected(f"{spec.name}: expected a number, got text")
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Rejected(f"{spec.name}: not a finite number")
    return number + 0.0  # -0.0 and 0.0 are one value: they must hash alike


def _whole(spec: Field, raw: Any, rules: Rules) -> int | None:
    if isinstance(raw, str) and not raw.strip(ASCII_BLANK):
        return None
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or abs(raw) >= 10**18:
        raise Rejected(f"{spec.name}: expected a whole number, got {json_type(raw)}")
    return raw


def _flag(spec: Field, raw: Any, rules: Rules) -> bool | None:
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip(ASCII_BLANK).lower()
    if not text:
        return None
    if text not in _FLAGS:
        raise Rejected(f"{spec.name}: expected true or false")
    return _FLAGS[text]


def _texts(spec: Field, raw: Any, rules: Rules) -> list[str] | None:
    """A list of texts; one text is split at `|`, the separator of MovieLens and Personalize files."""
    parts = raw.split("|") if isinstance(raw, str) else raw
    if not isinstance(parts, list):
        raise Rejected(f"{spec.name}: expected a list of texts, got {json_type(raw)}")
    stripped = (part.strip(ASCII_BLANK) if isinstance(part, str) else part for part in parts)
    read = (_text(spec, part, rules) for part in stripped if part is not None)
    return [text for text in read if text is not None]


def _time(spec: Field, raw: Any, rules: Rules) -> int | None:
    """Microseconds since 1970 UTC; numbers are seconds, milli-, micro- or nanoseconds, told apart by their size."""
    if isinstance(raw, str) and not raw.strip(ASCII_BLANK):
        return None
    if isinstance(raw, date):  # from Parquet
        return _microseconds(spec, raw if isinstance(raw, datetime) else datetime(raw.year, raw.month, raw.day), rules)
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
    moment = _iso_moment(text)
    if moment is None:
        raise Rejected(f"{spec.name}: unreadable as a time")
    return _microseconds(spec, moment, rules)


@lru_cache(1_024)  # a record often has one time several times over
def _iso_moment(text: str) -> datetime | None:
    """With its zone if it names one; None for what is no time."""
    match = _ISO.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    micro = int((fraction or "0")[:6].ljust(6, "0"))  # nanoseconds are cut, not rounded
    try:
        naive = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro)
    except ValueError:
        return None
    if zone in ("Z", "z", "UTC"):
        naive = naive.replace(tzinfo=UTC)
    elif zone is not None:
        hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
        if hours > 23 or minutes > 59:
            return None
        offset = timedelta(hours=hours, minutes=minutes)
        naive = naive.replace(tzinfo=timezone(-offset if zone[0] == "-" else offset))
    return naive


def _microseconds(spec: Field, moment: datetime, rules: Rules) -> int:
    if moment.tzinfo is None:
        rules.had_zoneless = True
        moment = moment.replace(tzinfo=rules.zone)
    try:
        return (moment - EPOCH) // timedelta(microseconds=1)
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
