"""The words, marks and literals that a filter is written with, and where each of them stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, cast

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
