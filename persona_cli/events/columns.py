"""Typed columns of many rows at once from slices of a block, for what can be vouched for; the rest is judged singly.

Everything here accepts less than `judge` and gives the same values: a row that is not vouched for is not rejected, it
is left for `judge`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.events.judge import EARLIEST_US, Rejected, Rules, constant
from persona_cli.events.layouts import Slice
from persona_cli.events.scan import Mask, Positions, Scan
from persona_cli.events.schema import ARROW_TYPES, FIELDS, ID_FIELDS, KEY, MAX_ID_BYTES, UTC_MICROSECONDS, Field
from persona_cli.events.times import epoch_times, iso_times

LONGEST_NUMBER = 24
# A deterministic automaton for JSON numbers without exponents: state × class of the byte → state.
_START, _MINUS, _ZERO, _INTEGER, _POINT, _DECIMAL, _MINUS_ZERO, _BAD = range(8)
_CLASSES = np.full(256, 4, np.intp)
_CLASSES[[*b"0"]], _CLASSES[[*b"123456789"]], _CLASSES[[*b"-"]], _CLASSES[[*b"."]] = 0, 1, 2, 3
_NEXT = np.full((8, 5), _BAD, np.intp)
_NEXT[_START] = [_ZERO, _INTEGER, _MINUS, _BAD, _BAD]
_NEXT[_MINUS] = [_MINUS_ZERO, _INTEGER, _BAD, _BAD, _BAD]
_NEXT[_ZERO] = _NEXT[_MINUS_ZERO] = [_BAD, _BAD, _BAD, _POINT, _BAD]
_NEXT[_INTEGER] = [_INTEGER, _INTEGER, _BAD, _POINT, _BAD]
_NEXT[_POINT] = _NEXT[_DECIMAL] = [_DECIMAL, _DECIMAL, _BAD, _BAD, _BAD]
_NUMBERS = np.isin(np.arange(8), (_ZERO, _INTEGER, _DECIMAL, _MINUS_ZERO))
_INTEGERS = np.isin(np.arange(8), (_ZERO, _INTEGER))


Doubles = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64 | np.float64]


@dataclass
class Columns:
    """The rows of one block that are vouched for, filled group by group."""

    scan: Scan
    rules: Rules
    done: Mask = field(init=False)
    zoneless: Mask = field(init=False)
    texts: dict[str, tuple[Positions, Positions]] = field(default_factory=dict)
    values: dict[str, tuple[Numbers, Mask]] = field(default_factory=dict)
    props: list[tuple[Positions, pa.Array]] = field(default_factory=list)
    constants: dict[str, object] | None = field(init=False)

    def __post_init__(self) -> None:
        lines = len(self.scan.starts)
        self.done, self.zoneless = np.zeros(lines, bool), np.zeros(lines, bool)
        self.rules.had_zoneless = False
        try:
            self.constants = constants_of(self.rules)
        except Rejected:
            self.constants = None
        self.constant_zoneless = self.rules.had_zoneless

    def fill(
        self,
        rows: Positions,
        slices: dict[str, Slice],
        props: Callable[[Mask], pa.Array] | None,
        allowed: Mask | None = None,
    ) -> None:
        """Take those of `rows` (rising) that are `allowed` and whose fields at `slices` are all vouched for.

        `props` gives the props of those rows that a mask keeps.
        """
        if self.constants is None:
            return
        good = np.ones(len(rows), bool) if allowed is None else allowed
        present: dict[str, Mask] = {}
        typed: dict[str, Numbers] = {}
        zoneless = np.full(len(rows), self.constant_zoneless)
        specs = {spec.name: spec for spec in FIELDS[self.rules.mapping.kind]}
        for name, slice_ in slices.items():
            spec = specs[name]
            present[name] = slice_.end > slice_.start
            if spec.type == "text":
                good &= _good_text(self.scan, spec, slice_)
            elif spec.type == "number":
                typed[name], fine = _numbers(self.scan, slice_)
                good &= fine
            elif spec.type == "whole":
                typed[name], fine = _wholes(self.scan, slice_)
                good &= fine
            elif spec.type == "time":
                typed[name], fine, without_zone = _times(self.scan, slice_, self.rules)
                good &= fine
                zoneless |= without_zone
            else:
                return
        good &= self._complete(present, typed, len(rows))
        kept = slice(None) if good.all() else good
        rows = rows[kept]
        self.done[rows] = True
        self.zoneless[rows] = zoneless[kept]
        for name, slice_ in slices.items():
            if name in typed:
                values, valid = self.values.setdefault(name, self._empty(typed[name].dtype))
                values[rows], valid[rows] = typed[name][kept], present[name][kept]
            else:
                starts, ends = self.texts.setdefault(name, (self.scan.starts.copy(), self.scan.starts.copy()))
                starts[rows], ends[rows] = slice_.start[kept], slice_.end[kept]
        if props is not None and len(rows):
            self.props.append((rows, props(good)))

    def table(self) -> tuple[Positions, pa.Table]:
        """The rows that are done, in the order of the lines, and their judged columns."""
        rows = np.flatnonzero(self.done)
        columns = []
        for spec in FIELDS[self.rules.mapping.kind]:
            kind = ARROW_TYPES[spec.type]
            if self.constants and spec.name in self.constants:
                columns.append(pa.repeat(pa.scalar(self.constants[spec.name], kind), len(rows)))
            elif spec.name in self.texts:
                starts, ends = self.texts[spec.name]
                columns.append(sliced(self.scan, starts[rows], ends[rows], null_empty=True))
            elif spec.name in self.values:
                values, valid = self.values[spec.name]
                column = pa.array(values[rows], mask=~valid[rows])
                columns.append(column.cast(UTC_MICROSECONDS) if spec.type == "time" else column)
            else:
                columns.append(pa.nulls(len(rows), kind))
        names = [spec.name for spec in FIELDS[self.rules.mapping.kind]]
        return rows, pa.table([*columns, self._props(rows)], [*names, "props"])

    def _props(self, rows: Positions) -> pa.Array:
        if not self.props:
            return pa.nulls(len(rows), pa.string())
        source = np.full(len(self.done), -1, np.int64)
        at = 0
        for group, array in self.props:
            source[group] = np.arange(at, at + len(array))
            at += len(array)
        index = source[rows]
        return pc.take(pa.concat_arrays([array for _, array in self.props]), pa.array(index, mask=index < 0))

    def _empty(self, dtype: np.dtype[np.int64 | np.float64]) -> tuple[Numbers, Mask]:
        return np.zeros(len(self.done), dtype), np.zeros(len(self.done), bool)

    def _complete(self, present: dict[str, Mask], typed: dict[str, Numbers], n: int) -> Mask:
        """Whether the fields that every record needs are there, and its time is allowed."""
        constants = self.constants or {}

        def has(name: str) -> Mask:
            if name in constants:
                return np.full(n, constants[name] is not None)
            return present.get(name, np.zeros(n, bool))

        kind = self.rules.mapping.kind
        if kind != "events":
            return has(KEY[kind])
        good = (has("user_id") | has("anon_id")) & has("event_type") & has("timestamp")
        moment = typed.get("timestamp", constants.get("timestamp"))
        if moment is not None:
            good &= (moment >= EARLIEST_US) & (moment <= self.rules.latest_us)  # type: ignore[operator]
        return good


def constants_of(rules: Rules) -> dict[str, object]:
    """The values of `--map name==text`; raises Rejected when one cannot be read as its type."""
    return {
        spec.name: constant(spec, rules.mapping.constants[spec.name], rules)
        for spec in FIELDS[rules.mapping.kind]
        if spec.name in rules.mapping.constants
    }


def sliced(scan: Scan, start: Positions, end: Positions, *, null_empty: bool = False) -> pa.Array:
    """The texts at `start`…`end` as an Arrow array; positions must rise from row to row."""
    if not len(start):
        return pa.array([], pa.string())
    offsets = np.empty(2 * len(start), np.int32)
    offsets[0::2], offsets[1::2] = start, end
    # Every second element of this array is a text we want, the others are what lies between: nothing is copied twice.
    both = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(scan.data))
    mask = end == start if null_empty else None
    return pc.take(both, pa.array(np.arange(0, len(offsets), 2, dtype=np.int32), mask=mask), boundscheck=False)


def joined(scan: Scan, parts: Sequence[bytes | Slice], rows: Mask) -> pa.Array:
    """Constants and slices put together, for the rows that the mask keeps; null without any parts."""
    count = int(np.count_nonzero(rows))
    if not parts:
        return pa.nulls(count, pa.string())
    columns = [
        pa.repeat(part.decode(), count) if isinstance(part, bytes) else sliced(scan, part.start[rows], part.end[rows])
        for part in parts
    ]
    return pc.binary_join_element_wise(*columns, "")


def numbers_in(scan: Scan, parts: Sequence[bytes | Slice], count: int) -> Mask:
    """Whether all bare values among `parts` are numbers, for each of `count` rows."""
    good = np.ones(count, bool)
    for part in parts:
        if isinstance(part, Slice) and part.bare:
            good &= _NUMBERS[number_states(scan, part)]
    return good


def members(scan: Scan, cells: dict[str, Slice], rows: Mask) -> pa.Array:
    """JSON objects of those of the named texts that are not empty, null when all are; for rows that the mask keeps."""
    kept = np.flatnonzero(rows)
    texts = []
    for name, cell in cells.items():
        text = sliced(scan, cell.start[kept], cell.end[kept], null_empty=True)
        member = pc.binary_join_element_wise(f',{json.dumps(name, ensure_ascii=False)}:"', text, '"', "")
        texts.append(pc.fill_null(member, ""))
    inner = pc.binary_join_element_wise(*texts, "")
    objects = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(inner, 1), "}", "")
    return pc.if_else(pc.equal(inner, ""), None, objects)


def number_states(scan: Scan, slice_: Slice) -> npt.NDArray[np.intp]:
    """The state in which the automaton ends for each text."""
    length = slice_.end - slice_.start
    states = np.where((length > LONGEST_NUMBER) | (length < 1), _BAD, _START)
    longest = int(length.max(initial=0, where=length <= LONGEST_NUMBER))
    for place in range(longest):
        octets = scan.octets[np.minimum(slice_.start + place, slice_.end)]
        # Behind its end a text stays in its state.
        states = np.where(place < length, _NEXT.take(states * 5 + _CLASSES.take(octets)), states)
    return states


def whole_seconds(scan: Scan, slice_: Slice) -> Mask:
    """Whether each text is a whole number of at most ten digits and no sign."""
    good: Mask = _INTEGERS[number_states(scan, slice_)]
    good &= (slice_.end - slice_.start <= 10) & (scan.octets[slice_.start] != ord("-"))
    return good


def _good_text(scan: Scan, spec: Field, slice_: Slice) -> Mask:
    if slice_.bare:
        return _INTEGERS[number_states(scan, slice_)]
    # A text that begins with a space is perhaps nothing but blanks.
    good: Mask = (scan.octets[slice_.start] != ord(" ")) | (slice_.start == slice_.end)
    if spec.name in ID_FIELDS:
        good &= slice_.end - slice_.start <= MAX_ID_BYTES
    return good


def _numbers(scan: Scan, slice_: Slice) -> tuple[Doubles, Mask]:
    good = _NUMBERS[number_states(scan, slice_)]
    texts = sliced(scan, slice_.start[good], slice_.end[good])
    values = np.zeros(len(good), np.float64)
    values[good] = pc.cast(texts, pa.float64()).to_numpy() + 0.0
    return values, good | _absent(slice_)


def _wholes(scan: Scan, slice_: Slice) -> tuple[Positions, Mask]:
    good = _INTEGERS[number_states(scan, slice_)] & (slice_.end - slice_.start <= 18)
    texts = sliced(scan, slice_.start[good], slice_.end[good])
    values = np.zeros(len(good), np.int64)
    values[good] = pc.cast(texts, pa.int64()).to_numpy()
    return values, good | _absent(slice_)


def _times(scan: Scan, slice_: Slice, rules: Rules) -> tuple[Positions, Mask, Mask]:
    """Microseconds, vouched for, zone-less."""
    if slice_.bare or _begins_with_whole(scan, slice_):
        numbers, good = _wholes(scan, slice_)
        return epoch_times(numbers), good, np.zeros(len(good), bool)
    us, good, zoneless = iso_times(scan, slice_.start, slice_.end, rules.zone)
    return us, good | _absent(slice_), zoneless


def _absent(slice_: Slice) -> Mask:
    """Empty texts are null; nothing at all where a bare number belongs is not JSON."""
    return np.zeros(len(slice_.start), bool) if slice_.bare else slice_.start == slice_.end


def _begins_with_whole(scan: Scan, slice_: Slice) -> bool:
    """Whether the first text there is is all digits: then the column is read as numbers in quotes."""
    present = np.flatnonzero(slice_.end > slice_.start)[:1]
    first = Slice(slice_.start[present], slice_.end[present], True)
    return bool(_wholes(scan, first)[1].any())
