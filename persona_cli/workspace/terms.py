"""What a filter is written with and made of: words, marks and literals; columns, comparisons and their combinations.

A term has two meanings: `expression()` is the polars expression over a whole frame, `value(row)` the definition on one
row as a mapping; None stands for null in both. The logic is SQL's, with three values: a comparison with null is null,
`false and null` is false, `true or null` is true, and null is not true. What is not a number (NaN) is null, and so is a
division by zero.

Kinds: text; whole and number (64 bits each, a calculation is a number); flag (true or false: every condition is one);
time (an instant, microseconds, UTC; a naive time is read as UTC, a date as its first instant).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    import polars as pl

_TOKENS = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")+")
      | (?P<name>[^\W\d]\w*)
      | (?P<mark><=|>=|<>|!=|==|[=<>(),+*/-])""",
    re.VERBOSE,
)
_WORDS = frozenset({"and", "or", "not", "in", "is", "between", "like", "null", "true", "false"})


class FilterError(ValueError):
    """A text that is no filter: one sentence with what was found, where, and what was expected."""

    @classmethod
    def at(cls, before: int, what: str) -> FilterError:
        """With the place in the text: `before` is the number of characters before it."""
        return cls(f"{what} (at character {before + 1})")


class Token(NamedTuple):
    type: Literal["number", "text", "quoted", "name", "word", "mark", "end"]
    text: str
    """As it is written; words in lower case."""
    at: int
    """Characters before it."""


def tokens(text: str) -> Iterator[Token]:
    """The tokens of `text` in order and one of type "end"; FilterError where something is none."""
    at = 0
    while at < len(text):
        if text.startswith(("--", "/*"), at):
            raise FilterError.at(at, f"found {text[at : at + 2]!r}; comments are no part of an expression")
        found = _TOKENS.match(text, at)
        if found is None:
            raise FilterError.at(at, _unreadable(text[at]))
        written, type_ = found.group(), cast(Any, found.lastgroup)
        start, at = at, found.end()
        if not _is_unicode(written):
            raise FilterError.at(start, "a character that is not valid Unicode")
        if type_ == "number" and at < len(text) and (text[at].isalnum() or text[at] in "_."):
            run_on = shortened(written + text[at])
            raise FilterError.at(start, f"{run_on!r} is no number; a text stands in single quotes")
        if type_ == "name" and written.lower() in _WORDS:
            type_, written = "word", written.lower()
        if type_ != "space":
            yield Token(type_, written, start)
    yield Token("end", "", len(text))


def unquoted(text: str) -> str:
    """What stands between single quotes, of which two are one."""
    return text[1:-1].replace("''", "'")


def shortened(text: str) -> str:
    """At most 40 characters of a text for a message."""
    return text if len(text) <= 40 else text[:40] + "…"


def _unreadable(character: str) -> str:
    if character == "'":
        return "a text without its closing '"
    if character == '"':
        return 'a column name in " that is empty or without its closing "'
    return f"found {character!r}, which is no part of an expression"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Kind = Literal["text", "whole", "number", "flag", "time"]
Row = Mapping[str, Any]
Shape = Literal["plain", "naive", "date"]
"""How a column of times is stored; the others are plain."""
_COMPARED = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Term(Protocol):
    """A part of a filter that has a value on every row."""

    @property
    def kind(self) -> Kind: ...

    def expression(self) -> pl.Expr:
        """The value on all rows of a frame, of the polars type that belongs to the kind."""
        ...

    def value(self, row: Row) -> Any:
        """The value on one row; None is null."""
        ...


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind
    shape: Shape = "plain"

    def expression(self) -> pl.Expr:
        import polars as pl

        column = pl.col(self.name)
        if self.kind == "time":
            if self.shape == "plain":
                return column.cast(pl.Datetime("us", "UTC"))
            return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        if self.kind == "number":
            return column.cast(pl.Float64).fill_nan(None)
        return column.cast({"text": pl.String, "whole": pl.Int64, "flag": pl.Boolean}[self.kind])

    def value(self, row: Row) -> Any:
        found = row[self.name]
        if found is None or (isinstance(found, float) and math.isnan(found)):
            return None
        if self.kind == "number":
            return float(found)
        return _instant(found) if self.kind == "time" else found


@dataclass(frozen=True)
class Constant:
    content: str | int | float | bool | datetime
    kind: Kind

    def expression(self) -> pl.Expr:
        import polars as pl

        return pl.lit(self.content, dtype=_types()[self.kind])

    def value(self, row: Row) -> Any:
        return self.content


@dataclass(frozen=True)
class Calculation:
    """left op right of two numbers."""

    op: Literal["+", "-", "*", "/"]
    left: Term
    right: Term
    kind: Kind = "number"

    def expression(self) -> pl.Expr:
        return self._raw().fill_nan(None)

    def _raw(self) -> pl.Expr:
        """With NaN in place: what fills it names its input twice, which would double with every step."""
        import polars as pl

        left, right = (
            side._raw() if isinstance(side, Calculation) else side.expression().cast(pl.Float64)
            for side in (self.left, self.right)
        )
        if self.op == "/":
            return left / right.replace(0.0, None)
        return left + right if self.op == "+" else left - right if self.op == "-" else left * right

    def value(self, row: Row) -> Any:
        left, right = self.left.value(row), self.right.value(row)
        if left is None or right is None or (self.op == "/" and right == 0):
            return None
        a, b = float(left), float(right)
        found = a + b if self.op == "+" else a - b if self.op == "-" else a * b if self.op == "*" else a / b
        return None if math.isnan(found) else found


@dataclass(frozen=True)
class Comparison:
    """left op right of the same kind, or of two numbers."""

    op: Literal["=", "<>", "<", "<=", ">", ">="]
    left: Term
    right: Term
    kind: Kind = "flag"

    def expression(self) -> pl.Expr:
        found: pl.Expr = _COMPARED[self.op](self.left.expression(), self.right.expression())
        return found

    def value(self, row: Row) -> Any:
        left, right = self.left.value(row), self.right.value(row)
        if left is None or right is None:
            return None
        if "number" in (self.left.kind, self.right.kind):
            left, right = float(left), float(right)
        return _COMPARED[self.op](left, right)


@dataclass(frozen=True)
class Among:
    """Whether the term equals one of the constants, all of its kind or all numbers."""

    term: Term
    constants: tuple[Constant, ...]
    kind: Kind = "flag"

    @property
    def _kind(self) -> Kind:
        return "number" if any(one.kind == "number" for one in (self.term, *self.constants)) else self.term.kind

    def expression(self) -> pl.Expr:
        import polars as pl

        dtype = _types()[self._kind]
        contents = [float(one.content) if self._kind == "number" else one.content for one in self.constants]  # type: ignore[arg-type]
        return self.term.expression().cast(dtype).is_in(pl.Series(contents, dtype=dtype).implode())

    def value(self, row: Row) -> Any:
        found = self.term.value(row)
        if found is None:
            return None
        if self._kind == "number":
            return float(found) in [float(one.content) for one in self.constants]  # type: ignore[arg-type]
        return found in [one.content for one in self.constants]


@dataclass(frozen=True)
class Like:
    """Whether the whole text matches the pattern: % stands for any text, _ for one character, case counts."""

    term: Term
    pattern: str
    kind: Kind = "flag"

    def expression(self) -> pl.Expr:
        parts = {"%": ".*", "_": "."}
        # Everything else by its code: nothing in a pattern has another meaning to the engine of regular expressions.
        body = "".join(parts.get(letter) or f"\\x{{{ord(letter):x}}}" for letter in self.pattern)
        return self.term.expression().str.contains(f"(?s)^{body}$")

    def value(self, row: Row) -> Any:
        found = self.term.value(row)
        return None if found is None else matches(found, self.pattern)


@dataclass(frozen=True)
class IsNull:
    term: Term
    kind: Kind = "flag"

    def expression(self) -> pl.Expr:
        return self.term.expression().is_null()

    def value(self, row: Row) -> Any:
        return self.term.value(row) is None


@dataclass(frozen=True)
class Not:
    term: Term
    kind: Kind = "flag"

    def expression(self) -> pl.Expr:
        return ~self.term.expression()

    def value(self, row: Row) -> Any:
        found = self.term.value(row)
        return None if found is None else not found


@dataclass(frozen=True)
class Joined:
    """Conditions joined by `and` (all must be true) or by `or` (one must be)."""

    word: Literal["and", "or"]
    terms: tuple[Term, ...]
    kind: Kind = "flag"

    def expression(self) -> pl.Expr:
        import polars as pl

        joined = pl.all_horizontal if self.word == "and" else pl.any_horizontal  # both know three values
        return joined([term.expression() for term in self.terms])

    def value(self, row: Row) -> Any:
        found = [term.value(row) for term in self.terms]
        decisive = self.word == "or"
        if decisive in found:
            return decisive
        return None if None in found else not decisive


def matches(text: str, pattern: str) -> bool:
    """SQL's LIKE without an escape character, by going back to the last % only."""
    at = place = 0
    star, resume = -1, 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "%":
            star, resume = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("_", text[at]):
            place += 1
            at += 1
        elif star >= 0:
            resume += 1
            at, place = resume, star + 1
        else:
            return False
    return not pattern[place:].strip("%")


def column_of(name: str, declared: pl.DataType | str) -> Column | None:
    """The column of a declared type: the name of a kind, or a polars type; None for types that no filter reads."""
    if isinstance(declared, str):
        kinds: Sequence[Kind] = ("text", "whole", "number", "flag", "time")
        return next((Column(name, kind) for kind in kinds if kind == declared), None)
    import polars as pl

    if declared in (pl.UInt64, pl.Int128, pl.UInt128) or declared.is_float() or declared.is_decimal():
        return Column(name, "number")
    if declared.is_integer():
        return Column(name, "whole")
    if declared == pl.Date:
        return Column(name, "time", "date")
    if isinstance(declared, pl.Datetime):
        return Column(name, "time", "naive" if declared.time_zone is None else "plain")
    if declared in (pl.String, pl.Categorical, pl.Enum):
        return Column(name, "text")
    return Column(name, "flag") if declared == pl.Boolean else None


def _types() -> dict[Kind, pl.DataType]:
    import polars as pl

    return {
        "text": pl.String(),
        "whole": pl.Int64(),
        "number": pl.Float64(),
        "flag": pl.Boolean(),
        "time": pl.Datetime("us", "UTC"),
    }


def _instant(given: date) -> datetime:
    if not isinstance(given, datetime):
        return datetime(given.year, given.month, given.day, tzinfo=UTC)
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
