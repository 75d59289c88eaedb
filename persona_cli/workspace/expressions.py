"""Conditions on one event: `click`, or an event type with a comparison on its value, `rating>=4`.

They are the keys of `[signals.strengths]`. A condition is parsed against an allow-list, so that a settings file cannot
smuggle an expression in; what is evaluated is made from its parts and never from its text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_COMPARISON = re.compile(r"^(?P<type>[^<>=!]+?)\s*(?P<op>>=|<=|!=|==|=|>|<)\s*(?P<number>\S.*)$")
_NUMBER = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$")
# Words of a longer expression: refusing them in a name keeps `a and b>3` from becoming the event type `a and b`.
_RESERVED = re.compile(r"\b(and|or|not|in|is|between|like|null)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Condition:
    """`event_type`; with `op` and `number` also a comparison on the event's value, false where the value is null."""

    event_type: str
    op: str | None = None
    number: float | None = None

    def __str__(self) -> str:
        return self.event_type if self.op is None else f"{self.event_type}{self.op}{self.number:g}"

    def holds(self, event_type: str, value: float | None) -> bool:
        """Whether one event meets the condition: the definition."""
        if event_type != self.event_type:
            return False
        if self.op is None or self.number is None:
            return True
        if value is None or math.isnan(value):
            return False
        return {
            ">=": value >= self.number,
            "<=": value <= self.number,
            ">": value > self.number,
            "<": value < self.number,
            "=": value == self.number,
            "!=": value != self.number,
        }[self.op]


def parse_condition(text: str) -> Condition:
    """The condition that `text` states; ValueError, with a sentence, for anything else."""
    expected = "expected an event type or a comparison on its value, such as 'click' or 'rating>=4'"
    stripped = text.strip()
    if not stripped:
        raise ValueError(f"an empty condition; {expected}")
    if not stripped.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be printed; {expected}")
    comparison = _COMPARISON.match(stripped)
    event_type = comparison["type"].strip() if comparison else stripped
    if not comparison and re.search("[<>=!]", stripped):
        raise ValueError(f"{text!r} is not a whole comparison; {expected}")
    if found := _RESERVED.search(event_type):
        raise ValueError(
            f"{text!r} joins conditions with {found.group()!r}; a condition names one event type; {expected}"
        )
    if not comparison:
        return Condition(event_type)
    number = comparison["number"].strip()
    if not _NUMBER.match(number):
        raise ValueError(f"{text!r} compares with {number!r}, which is not a number; {expected}")
    if not math.isfinite(float(number)):
        raise ValueError(f"{text!r} compares with a number that is too large")
    op = "=" if comparison["op"] == "==" else comparison["op"]
    return Condition(event_type, op, float(number))
