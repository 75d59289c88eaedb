"""Layouts: machines write JSON lines by a template, so many lines differ only in their values.

A layout is made from one line that `judge` calls valid JSON: the constant bytes between its values (keys, punctuation,
null, true, false) and the values in between, each a text in quotes or a bare number. Another plain line *fits* when it
has as many quotes and every constant stands, byte for byte, between its values. A line that fits is therefore valid
JSON with exactly these keys in this order, given that its bare numbers are numbers: nothing about it is sampled or
guessed. Values are found by position, thousands of lines at a time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from persona_cli.events.judge import Rejected, parse_json
from persona_cli.events.scan import Mask, Positions, Scan
from persona_cli.events.schema import Tree

# Constants and numbers of values, in turn: how the JSON text of props is put together.
Parts = list[bytes | int]

_TOKEN = re.compile(rb'\s*("[^"]*"|[][{}:,]|[^][{}:,"\s]+)')
_LITERALS = (b"null", b"true", b"false")


class Slice(NamedTuple):
    """Where one value lies in each line: a text without its quotes, or a bare number."""

    start: Positions
    end: Positions
    bare: bool


class Anchor(NamedTuple):
    """A position in every line: `shift` bytes from its quote number `quote`, or from its end when that is None."""

    quote: int | None
    shift: int


class Value(NamedTuple):
    """A value of the template."""

    start: Anchor
    end: Anchor
    bare: bool


@dataclass(frozen=True)
class Layout:
    """A template; `constants[i]` stands before value i, the last one behind all values."""

    quotes: int
    values: tuple[Value, ...]
    constants: tuple[bytes, ...]
    fields: dict[str, int]  # canonical name → number of its value
    props: tuple[bytes | int, ...]

    def fit(self, scan: Scan, rows: Positions) -> tuple[Positions, list[Slice]]:
        """Those of `rows` (plain lines with as many quotes) that fit, with the slices of their values."""
        first, line_ends = scan.first_mark[rows], scan.ends[rows]

        def at(anchor: Anchor) -> Positions:
            base = line_ends if anchor.quote is None else scan.marks[anchor.quote :][first]
            return base + anchor.shift if anchor.shift else base

        slices = [Slice(at(value.start), at(value.end), value.bare) for value in self.values]
        good = np.ones(len(rows), bool)
        gap_starts = [scan.starts[rows], *(slice_.end for slice_ in slices)]
        gap_ends = [*(slice_.start for slice_ in slices), line_ends]
        for start, end, constant in zip(gap_starts, gap_ends, self.constants, strict=True):
            good &= end - start == len(constant)
        for slice_ in slices:
            if slice_.bare:
                good &= slice_.end >= slice_.start
        rows, slices = _kept(good, rows, slices)
        # Only now is it sure that no constant is looked for beyond its line.
        good = np.ones(len(rows), bool)
        gap_starts = [scan.starts[rows], *(slice_.end for slice_ in slices)]
        for start, constant in zip(gap_starts, self.constants, strict=True):
            good &= _stands(scan, start, constant)
        return _kept(good, rows, slices)


def _kept(good: Mask, rows: Positions, slices: list[Slice]) -> tuple[Positions, list[Slice]]:
    if good.all():
        return rows, slices
    return rows[good], [Slice(slice_.start[good], slice_.end[good], slice_.bare) for slice_ in slices]


def _stands(scan: Scan, start: Positions, constant: bytes) -> Mask:
    """Whether `constant` is what begins at each position, compared eight bytes at a time."""
    length = len(constant)
    if length < 8:
        wanted = np.uint64(int.from_bytes(constant, "little"))
        found: Mask = (scan.words[start] & np.uint64((1 << 8 * length) - 1)) == wanted
        return found
    found = np.ones(len(start), bool)
    for step in [*range(0, length - 7, 8), length - 8]:
        found &= scan.words[step:][start] == np.uint64(int.from_bytes(constant[step : step + 8], "little"))
    return found


def layout_of(line: bytes, tree: Tree) -> Layout | None:
    """The layout of a plain line; None when the line is not accepted as JSON or is nothing a layout can describe."""
    try:
        parse_json(line)
        return _Template(line).layout(tree)
    except (Rejected, _Unfit):
        return None


class _Unfit(Exception):
    """The line has something that no layout describes, such as a list of numbers."""


class _Template:
    """One line of valid JSON taken apart."""

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.spans = [match.span(1) for match in _TOKEN.finditer(line)]
        self.tokens = [line[start:end] for start, end in self.spans]
        self.quotes = [place for place, byte in enumerate(line) if byte == ord('"')]
        # Quotes before each token.
        self.before = np.searchsorted(self.quotes, [start for start, _ in self.spans]).tolist()
        self.values: dict[int, int] = {}  # token → number of its value, in the order of the line
        self.fields: dict[str, int] = {}

    def layout(self, tree: Tree) -> Layout:
        rest, _ = self._members(0, tree, top=True)
        if (nested := rest.pop("props", None)) is not None:
            for name, parts in nested.items() if isinstance(nested, dict) else ():
                rest[f"props.{name}" if name in rest else name] = parts
        ends = [0]
        constants = []
        for token in self.values:
            start, end = self._inner(token)
            constants.append(self.line[ends[-1] : start])
            ends.append(end)
        constants.append(self.line[ends[-1] :])
        return Layout(
            len(self.quotes), tuple(map(self._value, self.values)), tuple(constants), self.fields,
            tuple(_joined(rest)) if rest else (),
        )  # fmt: skip

    def _members(self, at: int, tree: Tree, *, top: bool = False) -> tuple[dict[str, Parts | Rest], int]:
        """What no field takes of the object that opens at token `at`, and the token behind it."""
        rest: dict[str, Parts | Rest] = {}
        at += 1
        while self.tokens[at] != b"}":
            if self.tokens[at] == b",":
                at += 1
            key, value = json.loads(self.tokens[at]), at + 2
            below = tree.get(key)
            if top and key == "props" and below is None and self.tokens[value] != b"null":
                below = {}
            at = self._member(key, value, below, rest)
        return rest, at + 1

    def _member(self, key: str, value: int, below: Tree | tuple[str, ...] | None, rest: Rest) -> int:
        text = self.tokens[value]
        if text == b"null":
            return value + 1
        if isinstance(below, dict):
            if text != b"{":
                raise _Unfit
            inner, behind = self._members(value, below)
            if inner:
                rest[key] = inner
            return behind
        if isinstance(below, tuple):
            if text in (b"{", b"[", b"true", b"false"):
                raise _Unfit
            number = self._number(value)
            self.fields |= dict.fromkeys(below, number)
            return value + 1
        rest[key], behind = self._unknown(value)
        return behind

    def _unknown(self, at: int) -> tuple[Parts, int]:
        """The text of a value of any kind that begins at token `at`, without the spaces between tokens."""
        parts: Parts = []
        depth = 0
        while True:
            text = self.tokens[at]
            if text[:1] == b'"' and not (depth and self.tokens[at + 1] == b":"):
                parts += [b'"', self._number(at), b'"']
            elif text[:1] == b'"' or text in _LITERALS or text in b"{}[]:,":
                parts.append(text)
                depth += (text in b"{[") - (text in b"]}")
            else:
                parts.append(self._number(at))
            at += 1
            if not depth:
                return parts, at

    def _number(self, token: int) -> int:
        return self.values.setdefault(token, len(self.values))

    def _inner(self, token: int) -> tuple[int, int]:
        start, end = self.spans[token]
        return (start + 1, end - 1) if self.tokens[token][:1] == b'"' else (start, end)

    def _value(self, token: int) -> Value:
        start, end = self._inner(token)
        quote = self.before[token]
        if self.tokens[token][:1] == b'"':
            return Value(Anchor(quote, 1), Anchor(quote + 1, 0), False)
        same_gap = [other for other in self.values if other != token and self.before[other] == quote]
        if any(self.tokens[other][:1] != b'"' for other in same_gap):
            raise _Unfit  # two numbers between the same quotes: where the first ends cannot be told
        behind = (
            Anchor(quote, end - self.quotes[quote]) if quote < len(self.quotes) else Anchor(None, end - len(self.line))
        )
        return Value(Anchor(quote - 1, start - self.quotes[quote - 1]), behind, True)


Rest = dict[str, "Parts | Rest"]


def _joined(rest: Rest) -> Parts:
    """The JSON text of an object, neighbouring constants joined."""
    parts: Parts = [b"{"]
    for number, (key, inner) in enumerate(rest.items()):
        parts.append((b"," if number else b"") + json.dumps(key, ensure_ascii=False).encode() + b":")
        parts += _joined(inner) if isinstance(inner, dict) else inner
    parts.append(b"}")
    joined: Parts = []
    for part in parts:
        if joined and isinstance(part, bytes) and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return joined
