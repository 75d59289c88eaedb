"""The one expression language of segments, rules, surfaces and slices: the WHERE of SQL on declared columns.

    plan = 'free' and events >= 20
    country in ('DE', 'AT') or role like 'admin%'
    signed_up >= '2026-03-01' and not (device is null)

A text is read into an allow-list of terms (`workspace.terms`) and never evaluated: no functions, no subqueries, no
names but those of the declared columns. Grammar, the weakest binding first:

    or · and · not · = == != <> < <= > >= , [not] in (...), [not] between a and b, [not] like 'a%', is [not] null ·
    + - · * / · a sign · 'text' ('' is a quote), number, true, false, column, "column", ( ... )

A text that is compared with a column of times is a date or time (`workspace.setting`). The logic is SQL's, with one
trap taken out: null stands only in `is null`, because `plan = null` is never true.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from persona_cli.errors import UsageError, nearest
from persona_cli.workspace.setting import parse_moment
from persona_cli.workspace.terms import (
    Among,
    Calculation,
    Column,
    Comparison,
    Constant,
    FilterError,
    IsNull,
    Joined,
    Kind,
    Like,
    Not,
    Row,
    Term,
    Token,
    column_of,
    shortened,
    tokens,
    unquoted,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Filter", "FilterError", "Value", "column_of", "parse", "parse_value"]

MAX_LENGTH = 10_000
"""Characters of an expression."""
MAX_NESTING = 32
"""Parentheses, signs and negations inside one another."""
MAX_VALUES = 1_000
"""Values of one `in (...)`."""
MAX_CALCULATIONS = 100
"""Signs of calculation in one expression."""
MAX_PATTERN = 200
"""Characters of one `like` pattern."""

_COMPARISONS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NOUNS: dict[Kind, str] = {
    "text": "text",
    "whole": "a number",
    "number": "a number",
    "flag": "a flag",
    "time": "a time",
}
_NUMBERS = ("whole", "number")
_VALUE = "a value such as events / sessions"
_CONDITION = "a condition such as plan = 'free' or events >= 20"


@dataclass(frozen=True)
class Value:
    """What an expression is worth on a row of the declared columns: a number, a flag, a text or a time."""

    text: str
    columns: tuple[str, ...]
    """Names of the columns it reads, sorted."""
    term: Term = field(repr=False)

    @property
    def kind(self) -> Kind:
        return self.term.kind

    @property
    def expression(self) -> pl.Expr:
        """The value on a frame that has the columns; a condition is true, false, or null where SQL says unknown."""
        return self.term.expression()


class Filter(Value):
    """One condition on a row of the declared columns."""

    def mask(self, frame: pl.DataFrame) -> pl.Series:
        """Whether each row meets the condition, Boolean without nulls (frame.height,)."""
        name = next(iter(frame.columns), "mask")
        # Put beside the columns and not selected: a condition on no column still answers for every row.
        return frame.with_columns(self.expression.fill_null(False).alias(name))[name].alias("mask")

    def holds(self, row: Row) -> bool:
        """Whether one row meets the condition: the definition."""
        return self.term.value(row) is True


def parse(text: str, columns: Mapping[str, pl.DataType | str]) -> Filter:
    """The filter that `text` states on `columns`: name → "text", "whole", "number", "flag", "time" or a polars type.

    FilterError, with a sentence, for anything else.
    """
    return Filter(*_read(text, columns, condition=True))


def parse_value(text: str, columns: Mapping[str, pl.DataType | str]) -> Value:
    """As `parse`, of an expression that may be worth anything: `purchases / (sessions + 1)`, `events >= 20`, `os`."""
    return Value(*_read(text, columns, condition=False))


def _read(text: str, columns: Mapping[str, pl.DataType | str], condition: bool) -> tuple[str, tuple[str, ...], Term]:
    if len(text) > MAX_LENGTH:
        raise FilterError(f"an expression of {len(text):,} characters; expected at most {MAX_LENGTH:,}")
    reader = _Reader(text, columns)
    term = reader.whole(condition)
    return text, tuple(sorted(set(reader.used))), term


class _Reader:
    """One pass over the tokens, one method for each strength of binding."""

    def __init__(self, text: str, columns: Mapping[str, pl.DataType | str]) -> None:
        self.used: list[str] = []  # in the order they are met
        self._text, self._columns = text, columns
        self._tokens = list(tokens(text))
        self._next = self._depth = self._calculations = 0

    def whole(self, condition: bool) -> Term:
        start = self._token
        if start.type == "end":
            raise FilterError(f"an empty expression; expected {_CONDITION if condition else _VALUE}")
        term = self._condition(self._either(), start) if condition else self._either()
        if self._token.type != "end":
            self._fail("and, or, or the end of the expression")
        return term

    def _either(self) -> Term:
        return self._joined("or", self._both)

    def _both(self) -> Term:
        return self._joined("and", self._negated)

    def _joined(self, word: Literal["and", "or"], part: Any) -> Term:
        start = self._token
        term: Term = part()
        if self._token[:2] != ("word", word):
            return term
        terms = [self._condition(term, start)]
        while self._took(word):
            start = self._token
            terms.append(self._condition(part(), start))
        return Joined(word, tuple(terms))

    def _negated(self) -> Term:
        if not self._took("not"):
            return self._compared()
        start = self._token
        return Not(self._condition(self._deeper(self._negated), start))

    def _compared(self) -> Term:
        start, used = self._token, len(self.used)
        left = self._sum()
        token = self._token
        if self._took("is"):
            negated = self._took("not")
            self._need("null", "null or not null")
            term = _negation(IsNull(left), negated)
        elif token.type == "mark" and token.text in _COMPARISONS:
            self._next += 1
            term = self._comparison(cast(Any, _COMPARISONS[token.text]), left, start)
        else:
            negated = self._took("not")
            if self._took("between"):
                above = self._comparison(">=", left, start)
                self._need("and", "and, as in between 1 and 9")
                term = Joined("and", (above, self._comparison("<=", left, start)))
            elif self._took("in"):
                term = self._among(left, start)
            elif self._took("like"):
                term = self._like(left, start)
            elif negated:
                self._fail("in, between or like after not")
            else:
                return left
            term = _negation(term, negated)
        if self._token.type == "mark" and self._token.text in _COMPARISONS:
            self._stop("comparisons do not follow one another; join two with and", self._token)
        if len(self.used) == used:
            self._stop("no column is compared here; the same holds for every row", start)
        return term

    def _comparison(self, op: Any, left: Term, start: Token) -> Term:
        left, right = self._sides(left, start)
        if left.kind == "flag" and op not in ("=", "<>"):
            self._stop("true and false have no order; expected = or <>", start)
        return Comparison(op, left, right)

    def _sides(self, left: Term, start: Token) -> tuple[Term, Term]:
        """`left` and what comes next, of one kind: texts beside times are read as times."""
        token = self._token
        if token[:2] == ("word", "null"):
            self._stop("a comparison with null is never true; expected is null or is not null", token)
        right = self._sum()
        if "time" in (left.kind, right.kind):
            left, right = self._moment(left, start), self._moment(right, token)
        if left.kind != right.kind and not (left.kind in _NUMBERS and right.kind in _NUMBERS):
            first = f"{left.name} is {_NOUNS[left.kind]} and" if isinstance(left, Column) else _named(left)
            self._stop(f"{first} is compared with {_named(right).rstrip(',')}", start)
        return left, right

    def _moment(self, term: Term, token: Token) -> Term:
        if not (isinstance(term, Constant) and isinstance(term.content, str)):
            return term
        try:
            return Constant(parse_moment(term.content), "time")
        except UsageError as error:
            return self._stop(error.message, token)

    def _among(self, left: Term, start: Token) -> Term:
        self._need("(", "( and a list of values after in")
        constants: list[Constant] = []
        while True:
            token = self._token
            constant = self._sides(left, start)[1]
            if not isinstance(constant, Constant):
                self._stop("the values of in (...) are texts, numbers, true or false", token)
            constants.append(constant)
            if len(constants) > MAX_VALUES:
                self._stop(f"in (...) holds more than {MAX_VALUES:,} values", token)
            if not self._took(","):
                break
        self._need(")", ", or ) after a value of in (...)")
        return Among(left, tuple(constants))

    def _like(self, left: Term, start: Token) -> Term:
        token = self._token
        if token.type != "text":
            self._fail("a pattern such as 'a%' after like")
        self._next += 1
        pattern = unquoted(token.text)
        if left.kind != "text":
            self._stop(f"{_named(left)} cannot be like {pattern!r}: only texts can", start)
        if len(pattern) > MAX_PATTERN:
            self._stop(f"a pattern of {len(pattern):,} characters; expected at most {MAX_PATTERN}", token)
        return Like(left, pattern)

    def _sum(self) -> Term:
        return self._chain(("+", "-"), self._product)

    def _product(self) -> Term:
        return self._chain(("*", "/"), self._signed)

    def _chain(self, marks: tuple[str, ...], part: Any) -> Term:
        start = self._token
        term: Term = part()
        while self._token.type == "mark" and self._token.text in marks:
            mark = self._token
            self._next += 1
            right_start = self._token
            term = Calculation(cast(Any, mark.text), self._number(term, start), self._number(part(), right_start))
            self._calculations += 1
            if self._calculations > MAX_CALCULATIONS:
                self._stop(f"more than {MAX_CALCULATIONS} calculations in one expression", mark)
        return term

    def _signed(self) -> Term:
        sign = self._token
        if sign.type != "mark" or sign.text not in ("+", "-"):
            return self._primary()
        self._next += 1
        start = self._token
        term = self._number(self._deeper(self._signed), start)
        if sign.text == "+":
            return term
        if isinstance(term, Constant):
            return Constant(-cast(float, term.content), term.kind)
        return Calculation("-", Constant(0, "whole"), term)

    def _primary(self) -> Term:
        token = self._token
        self._next += 1
        if token.type == "number":
            return self._literal_number(token)
        if token.type == "text":
            return Constant(unquoted(token.text), "text")
        if token[:2] in (("word", "true"), ("word", "false")):
            return Constant(token.text == "true", "flag")
        if token.type in ("name", "quoted"):
            return self._column(token)
        if token[:2] == ("mark", "("):
            term = self._deeper(self._either)
            self._need(")", ") to close the ( before")
            return term
        self._next -= 1
        if token[:2] == ("word", "null"):
            self._stop("null stands only in is null and is not null", token)
        return self._fail("a column, a number, a 'text' or (")

    def _literal_number(self, token: Token) -> Constant:
        number = float(token.text)
        if not math.isfinite(number):
            self._stop(f"the number {token.text[:20]} is too large", token)
        if token.text.isdigit() and int(token.text) < 2**63:
            return Constant(int(token.text), "whole")
        return Constant(number, "number")

    def _column(self, token: Token) -> Column:
        quoted = token.type == "quoted"
        name = token.text[1:-1].replace('""', '"') if quoted else token.text
        if not quoted and self._token[:2] == ("mark", "("):
            self._stop(f"{name} is called as a function; there are none here", token)
        if name not in self._columns:
            close = nearest(name, self._columns)
            text = "" if "did you mean" in close else "; a text stands in single quotes"
            self._stop(f"there is no column {name!r}{close}{text}", token)
        column = column_of(name, self._columns[name])
        if column is None:
            self._stop(f"{name} holds {self._columns[name]}, which cannot be compared here", token)
        self.used.append(name)
        return column

    def _number(self, term: Term, start: Token) -> Term:
        if term.kind not in _NUMBERS:
            self._stop(f"{_named(term)} is calculated with; expected a number", start)
        return term

    def _condition(self, term: Term, start: Token) -> Term:
        if term.kind != "flag":
            self._stop(f"{_named(term)} is no condition; expected {_CONDITION}", start)
        return term

    def _deeper(self, part: Any) -> Term:
        self._depth += 1
        if self._depth > MAX_NESTING:
            self._stop(f"more than {MAX_NESTING} parentheses or signs inside one another", self._token)
        term: Term = part()
        self._depth -= 1
        return term

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _took(self, text: str) -> bool:
        """Step over the word or mark if it is next."""
        if self._token.type not in ("word", "mark") or self._token.text != text:
            return False
        self._next += 1
        return True

    def _need(self, text: str, expected: str) -> None:
        if not self._took(text):
            self._fail(expected)

    def _fail(self, expected: str) -> NoReturn:
        token = self._token
        if token.type == "end":
            raise FilterError(f"the expression ends too early; expected {expected}")
        self._stop(f"found {shortened(token.text)!r}; expected {expected}", token)

    def _stop(self, what: str, token: Token) -> NoReturn:
        raise FilterError.at(token.at, what)


def _negation(term: Term, negated: bool) -> Term:
    return Not(term) if negated else term


def _named(term: Term) -> str:
    if isinstance(term, Column):
        return f"{term.name}, which is {_NOUNS[term.kind]},"
    if not isinstance(term, Constant):
        return "a condition" if term.kind == "flag" else "a calculated number"
    if isinstance(term.content, str):
        return f"the text {shortened(term.content)!r}"
    if isinstance(term.content, bool):
        return str(term.content).lower()
    return f"the number {term.content}" if term.kind in _NUMBERS else f"the time {term.content}"
