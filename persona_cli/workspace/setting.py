"""What a setting is, and how a value given for it is checked; moments and conditions as people type them.

A condition is on one event: `click`, or an event type with a comparison on its value, `rating>=4`. Conditions are the
keys of `[signals.strengths]`. One is parsed against an allow-list, so that a settings file cannot smuggle an expression
in; what is evaluated is made from its parts and never from its text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from persona_cli.errors import UsageError, nearest


def parse_moment(text: str) -> datetime:
    """A date (its first instant) or a time in ISO 8601, zone-less read as UTC; answers in UTC. Raises UsageError."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is not a date or time; expected such as 2026-03-01 or 2026-03-01T12:00:00Z"
        ) from error


def moment_of(given: str | date | datetime | None) -> datetime | None:
    """A moment as a program gives it: text as `parse_moment` reads it, a date, a time, or None."""
    if given is None:
        return None
    return parse_moment(given if isinstance(given, str) else given.isoformat())


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


Kind = Literal[
    "text", "number", "whole", "flag", "texts", "wholes", "duration", "zone", "strengths", "counts", "survey",
    "dialects", "segments", "features", "coarsening", "sections", "any",
]  # fmt: skip
_STATED = {"segments": "when", "features": "value"}
"""Kinds of sections that hold one expression each, and its key."""
_NAME = re.compile(r"^[^\W\d]\w*$")
_DURATION = re.compile(r"^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?$")


@dataclass(frozen=True)
class Setting:
    """One key. `low` and `high` are inclusive; `words` stand beside a number ("auto") or are all that a text may be.

    `check` looks at a value of the right type and answers it as it is kept; its ValueError says what was expected.
    """

    key: str
    kind: Kind
    default: Any
    comment: str
    low: float = -math.inf
    high: float = math.inf
    words: tuple[str, ...] = ()
    check: Callable[[Any], Any] | None = None

    @property
    def section(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def is_table(self) -> bool:
        return self.kind in (
            "strengths", "counts", "survey", "dialects", "segments", "features", "coarsening", "sections",
        )  # fmt: skip


def seconds(text: str) -> float:
    """`90s`, `5m`, `1h30m` or plain seconds as seconds; ValueError for anything else."""
    parts = _DURATION.match(text.strip())
    if not text.strip() or parts is None:
        raise ValueError("a duration such as 90s, 5m or 1h30m")
    hours, minutes, rest = (float(part) if part else 0.0 for part in parts.groups())
    return hours * 3600 + minutes * 60 + rest


def checked(setting: Setting, value: Any) -> Any:
    """`value` in the setting's own type; ValueError whose text completes the sentence "expected …"."""
    value = _typed(setting, value)
    return value if setting.check is None else setting.check(value)


def _typed(setting: Setting, value: Any) -> Any:
    kind = setting.kind
    if kind in ("number", "whole"):
        return _number(setting, value)
    if kind == "any":
        return _anything(value)
    if kind == "flag":
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if kind in ("texts", "wholes"):
        return _several(setting, value)
    if kind in ("strengths", "counts"):
        return _table(setting, value)
    if kind == "coarsening":
        if not isinstance(value, Mapping):
            raise ValueError('fields and how coarse they are kept, such as timestamp = "hour"')
        return {str(key): entry for key, entry in value.items()}
    if kind == "sections":
        if not isinstance(value, Mapping) or not all(isinstance(entry, Mapping) for entry in value.values()):
            raise ValueError(f"sections such as [{setting.key}.mine]")
        return {str(name): dict(entry) for name, entry in value.items()}
    if kind == "survey":
        return _survey(value)
    if kind == "dialects":
        return _dialects(value)
    if kind in _STATED:
        return _stated(kind, value)
    if not isinstance(value, str):
        raise ValueError(f"one of {', '.join(setting.words)}" if setting.words else "a text in quotes")
    if kind == "duration":
        seconds(value)
    elif kind == "zone":
        _zone(value)
    elif setting.words and value not in setting.words:
        raise ValueError(f"one of {', '.join(setting.words)}")
    return value


def _number(setting: Setting, value: Any) -> Any:
    if isinstance(value, str) and value in setting.words:
        return value
    whole = setting.kind == "whole"
    wanted = ("a whole number" if whole else "a number") + _range(setting)
    wanted += "".join(f' or "{word}"' for word in setting.words)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(wanted)
    if not (setting.low <= value <= setting.high) or not math.isfinite(value):
        raise ValueError(wanted)
    return int(value) if whole else float(value)


def _range(setting: Setting) -> str:
    low, high = setting.low, setting.high
    if math.isfinite(low) and math.isfinite(high):
        return f" from {low:g} to {high:g}"
    if math.isfinite(low):
        return f" of at least {low:g}"
    return f" of at most {high:g}" if math.isfinite(high) else ""


def _several(setting: Setting, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(
            'a list, such as ["click", "purchase"]' if setting.kind == "texts" else "a list, such as [10, 20]"
        )
    if setting.kind == "texts":
        if not all(isinstance(entry, str) and entry for entry in value):
            raise ValueError('a list of texts, such as ["click", "purchase"]')
        return tuple(value)
    if not value or not all(isinstance(n, int) and not isinstance(n, bool) and n >= setting.low for n in value):
        raise ValueError(f"a list of whole numbers of at least {setting.low:g}, such as [10, 20]")
    return tuple(value)


def _anything(value: Any) -> Any:
    """What a setting of a plug-in may be; whether it is right, the plug-in says."""
    one = isinstance(value, str | int | float) and not (isinstance(value, float) and not math.isfinite(value))
    if not one and not (
        isinstance(value, list | tuple) and all(isinstance(entry, str | int | float) for entry in value)
    ):
        raise ValueError("a number, a text, true, false, or a list of these")
    return tuple(value) if isinstance(value, list) else value


def _table(setting: Setting, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a table of event types and numbers")
    return {str(key): table_entry(setting, str(key), entry) for key, entry in value.items()}


def table_entry(setting: Setting, key: str, entry: Any) -> Any:
    """One entry of a free table."""
    if setting.kind == "dialects":
        return _section(key, entry)
    if setting.kind == "survey":
        return question(key, entry)
    if setting.kind in _STATED:
        return _statement(setting.kind, key, entry)
    if setting.kind in ("coarsening", "sections"):
        return checked(setting, {key: entry})[key]
    return strength(key, entry) if setting.kind == "strengths" else count(key, entry)


def count(key: str, entry: Any) -> int:
    """One entry of `[signals.minimum]`: a whole number from 0 on; the key is an event type."""
    if parse_condition(key).op is not None:
        raise ValueError(f"an event type, not a comparison such as {key!r}")
    if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry <= 10**12:
        raise ValueError(f"a whole number from 0 on for {key!r}")
    return entry


def strength(key: str, entry: Any) -> float | str:
    """One entry of `[signals.strengths]`: a number, or "never"; the key must be a condition."""
    parse_condition(key)
    if entry == "never":
        return "never"
    number = isinstance(entry, int | float) and not isinstance(entry, bool)
    # 1e6 keeps a thousandth of a strength times any count of events well inside 64 bits.
    if not number or not abs(entry) <= 1e6:
        raise ValueError(f'a number from -1000000 to 1000000 or "never" for {key!r}')
    return float(entry)


def _dialects(value: Any) -> dict[str, Any]:
    """Sections by name; what is in them is checked where they are read (`events/dialects/own.py`)."""
    if not isinstance(value, Mapping):
        raise ValueError("sections of dialects, such as [dialects.shop]")
    return {str(name): _section(str(name), given) for name, given in value.items()}


def _section(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"a section [dialects.{name}] with fields = {{ … }}")
    return dict(given)


def _stated(kind: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f'sections such as [{kind}.mine] with {_STATED[kind]} = "…"')
    return {str(name): _statement(kind, str(name), given) for name, given in value.items()}


def _statement(kind: str, name: str, given: Any) -> dict[str, str]:
    """One `[segments.NAME]` or `[features.NAME]`: {"when": text} or {"value": text}; read in `profiles/segments.py`."""
    key = _STATED[kind]
    if not _NAME.match(name):
        raise ValueError(f"a name of letters, digits and _, beginning with a letter, instead of {name!r}")
    if not isinstance(given, Mapping):
        raise ValueError(f'{key} = "an expression" in a section [{kind}.{name}]')
    for unknown in given:
        if unknown != key:
            raise ValueError(
                f"{key} and nothing else in [{kind}.{name}], which has {unknown!r}{nearest(unknown, [key])}"
            )
    text = given.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{key} = "an expression" in [{kind}.{name}]')
    return {key: text}


def _survey(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("sections of questions, such as [survey.taste]")
    return {str(name): question(str(name), asked) for name, asked in value.items()}


def question(name: str, asked: Any) -> dict[str, Any]:
    """One `[survey.NAME]`: {"text": str, "answers": {answer: {"categories": [...], "tags": [...]}}}."""
    if not isinstance(asked, Mapping) or not set(asked) <= {"text", "answers"} or not asked.get("answers"):
        raise ValueError(f"text and answers, and nothing else, for the question {name!r}")
    text, answers = asked.get("text", name), asked["answers"]
    if not isinstance(text, str) or not isinstance(answers, Mapping):
        raise ValueError(
            f"a text, and answers.NAME = {{ categories = [...], tags = [...] }}, for the question {name!r}"
        )
    found: dict[str, Any] = {}
    for answer, names in answers.items():
        lists: dict[str, Any] = dict(names) if isinstance(names, Mapping) else {"": None}
        if not set(lists) <= {"categories", "tags"} or not all(_are_texts(entry) for entry in lists.values()):
            raise ValueError(f'categories = ["name"], tags = ["name"] or both for the answer {answer!r} of {name!r}')
        found[str(answer)] = {kind: list(lists.get(kind, ())) for kind in ("categories", "tags")}
    return {"text": text, "answers": found}


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(entry, str) and entry for entry in value)


def _zone(name: str) -> None:
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ValueError("the name of a time zone, such as UTC or Europe/Berlin") from error
