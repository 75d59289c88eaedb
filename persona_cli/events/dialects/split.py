"""A record in two parts: what the table of a dialect takes, and the rest, which goes to `props`.

What is taken is checked here under the dialect's own names, so that a reason in the quarantine says `EVENT_VALUE` where
the file says `EVENT_VALUE`. Only what was used is taken: of three times the first that is there becomes the timestamp,
the other two stay in the rest. Addresses are the exception: none of the places where one is looked for stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from persona_cli.events.dialects.dialect import Record, Rejected, Sources, value_at, without
from persona_cli.events.judge import ASCII_BLANK, SURELY_SHORT, Rules, constant, parse_json
from persona_cli.events.referrers import campaign_text
from persona_cli.events.schema import FIELDS, KEY, Field, Kind, json_type
from persona_cli.events.schema import Mapping as Places

_SPECS = {kind: {spec.name: spec for spec in fields} for kind, fields in FIELDS.items()}
_ALL = {name for specs in _SPECS.values() for name in specs}
# Of each group a record has at least one.
_NEEDS: dict[Kind, tuple[tuple[str, ...], ...]] = {
    kind: ((KEY[kind],),) if kind in KEY else (("user_id", "anon_id"), ("event_type",), ("timestamp",))
    for kind in FIELDS
}
_RULES = Rules(Places("events", {}), latest_us=0)  # the checks of single values look at none of it
_ELEMENT = "[]."
_NO_CAMPAIGN = ("(direct)", "(none)")
_CONTROL = re.compile(r"[\x00-\x1f]")
_SHOWN = 4  # places that a reason names
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)


class Split(NamedTuple):
    """`fields`: canonical name → value as it came; `rest` of the record and `others` of the element: what is left."""

    fields: Record
    rest: Record
    others: Record


def split(
    sources: Sources,
    record: Record,
    element: Record | None = None,
    *,
    kind: Kind = "events",
    needed: bool = True,
    left_out: Iterable[str] = (),
) -> Split:
    """The fields of one record (and one element of its list) by `sources`, checked, and what they leave, less what is
    `left_out`: paths.

    Raises Rejected, with the dialect's own name of the field, for a value that cannot be read as what is expected and,
    if `needed`, for a missing one that every record needs.
    """
    fields: Record = {}
    used: set[str] = {*sources.get("ip", ()), *left_out}
    inner: set[str] = set()
    plan = _plan_of(sources, kind)
    for name, places in plan.fields:
        for path, text, in_element, spec, top, below in places:
            value: Any
            if text is not None:
                value = text
            elif in_element:
                value = None if element is None else value_at(element, path)
            elif (value := record.get(path)) is None:  # what follows is value_at, which most of the time goes into
                if not below or (value := record.get(top)) is None:
                    continue
                for key in below:
                    if type(value) is not dict:
                        value = value_at(record, path)
                        break
                    if (value := value.get(key)) is None:
                        break
            if value is None:
                continue
            if type(value) is str:
                if (not value or value[0] in ASCII_BLANK) and not value.strip(ASCII_BLANK):
                    continue
                if spec is not None and not (
                    spec.type == "text" and len(value) <= SURELY_SHORT and value.isprintable()
                ):
                    constant(spec, value, _RULES)
            elif spec is not None:
                constant(spec, value, _RULES)
            fields[name] = value
            (inner if in_element else used).add(path)
            break
    if needed:
        require(fields, sources, kind)
    used |= {path for path in plan.lists if element is not None or value_at(record, path) == []}
    return Split(fields, without(record, used), {} if element is None else without(element, inner))


class _Place(NamedTuple):
    """Where a field may lie: a path, in the element if so, or a constant; and what it is checked as."""

    path: str
    text: str | None
    in_element: bool
    spec: Field | None
    top: str  # the first key of the path, and the others
    below: tuple[str, ...]


class _Plan(NamedTuple):
    fields: tuple[tuple[str, tuple[_Place, ...]], ...]
    lists: frozenset[str]


def _plan_of(sources: Sources, kind: Kind) -> _Plan:
    """The table taken apart; one that is the same object as before is not even looked at."""
    held = _PLANS.get(id(sources))
    if held is not None and held[0] is sources and held[1] == kind:
        return held[2]
    plan = _plan(tuple(sources.items()), kind)
    if held is not None or len(_PLANS) < _PLANS_KEPT:
        _PLANS[id(sources)] = (sources, kind, plan)
    return plan


_PLANS: dict[int, tuple[Sources, Kind, _Plan]] = {}
_PLANS_KEPT = 1_024


@lru_cache(maxsize=256)
def _plan(sources: tuple[tuple[str, tuple[str, ...]], ...], kind: Kind) -> _Plan:
    """A table, taken apart once."""

    def place(name: str, path: str) -> _Place:
        spec = _called(kind, name, path) if name in _SPECS[kind] else None
        if path.startswith("="):
            return _Place(path, path[1:], False, spec, "", ())
        _, is_element, inner = path.partition(_ELEMENT)
        path = inner if is_element else path
        top, *below = path.split(".")
        return _Place(path, None, bool(is_element), spec, top, tuple(below))

    lists = frozenset(path.partition(_ELEMENT)[0] for _, paths in sources for path in paths if _ELEMENT in path)
    return _Plan(tuple((name, tuple(place(name, path) for path in paths)) for name, paths in sources), lists)


@lru_cache(maxsize=4_096)
def _called(kind: Kind, name: str, path: str) -> Field:
    """The field `name` under the name that the dialect has for it."""
    return replace(_SPECS[kind][name], name=path)


def require(fields: Mapping[str, Any], sources: Sources, kind: Kind) -> None:
    """Raise Rejected if a field that every record of `kind` needs is not there."""
    for names in _NEEDS[kind]:
        if fields.keys().isdisjoint(names):
            paths = [path for name in names for path in sources.get(name, ())]
            more = ", …" if len(paths) > _SHOWN else ""
            raise Rejected(f"{' or '.join(paths[:_SHOWN])}{more}: missing or empty")


def whole(record: Record, path: str, expected: str, low: int, high: int) -> int | None:
    """The whole number at `path` (`12` or `"12"`), None when nothing is there.

    Raises Rejected for what is no whole number in [low, high): `expected` says in words what that is.
    """
    value = value_at(record, path)
    if value is None:
        return None
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Rejected(f"{path}: expected {expected}, got {json_type(value)}")
    if not low <= value < high:
        raise Rejected(f"{path}: expected {expected}")
    return value


def number(record: Record, path: str) -> float | None:
    """The number at `path`, None when nothing is there; raises Rejected for what is not a finite number."""
    value = value_at(record, path)
    if value is None:
        return None
    read: float | None = constant(_called("events", "value", path), value, _RULES)
    return read


def money(price: float | None, quantity: float | None) -> float | None:
    """Price · quantity, one where no quantity is given; None without a price."""
    return None if price is None else price * (1.0 if quantity is None else quantity)


def read_json(text: str, path: str) -> Record:
    """The JSON object that a cell holds; raises Rejected, which names the cell, for anything else."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except Rejected as rejected:
        said = str(rejected)
        raise Rejected(
            f"{path}: {said if said.startswith('expected') else f'expected a JSON object: {said}'}"
        ) from None


def said(record: Record, path: str) -> str | None:
    """The text at `path`, stripped; None when nothing is there or it is not text."""
    value = value_at(record, path)
    return value.strip(ASCII_BLANK) if isinstance(value, str) else None


def campaign(record: Record, rest: Record, places: Sequence[tuple[str, str, str]]) -> str | None:
    """The campaign of the first of `places` (paths of source, medium and name) that names one, which leaves the rest.

    Raises Rejected for a name that is no text; a source or medium that is none stays where it is.
    """
    for paths in places:
        said = [value_at(record, path) for path in paths]
        if said[2] is not None:
            constant(_called("events", "campaign", paths[2]), said[2], _RULES)
        texts = [None if isinstance(one, bool) or not isinstance(one, str | int) else str(one) for one in said]
        texts = [None if one in _NO_CAMPAIGN else one for one in texts]
        text = texts[2]
        if texts[0] is not None or texts[1] is not None:
            text = campaign_text(*(None if one is None else _CONTROL.sub(" ", one) for one in texts))
        if text is not None:
            for path, one in zip(paths, texts, strict=True):
                if one is not None:
                    drop(rest, path)
            return text
    return None


def drop(place: Record, path: str) -> None:
    """Take out what lies at the path, and the objects that this leaves empty."""
    if path in place:
        del place[path]
        return
    key, dot, below = path.partition(".")
    inner = place.get(key)
    if dot and isinstance(inner, dict):
        drop(inner, below)
        if not inner:
            del place[key]


def put(place: Record, name: str, value: Any) -> None:
    """Add `value` under `name`, or under `name_2`, `name_3`… where that is taken: nothing is lost."""
    count, free = 1, name
    while free in place:
        count += 1
        free = f"{name}_{count}"
    place[free] = value


def fits(name: str, value: Any) -> bool:
    """Whether `value` can be read as what the field `name` of events expects."""
    try:
        constant(_SPECS["events"][name], value, _RULES)
    except Rejected:
        return False
    return True


def merged(*parts: Record) -> Record:
    """The members of all parts; of two with one name the later is called `name_2`."""
    whole: Record = {}
    for part in parts:
        for name, value in part.items():
            put(whole, name, value)
    return whole


def native(fields: Record, props: Record) -> Record:
    """A native record of fields and what goes to `props`: the rest, and fields that have no column (`order_id`)."""
    columns = {name: value for name, value in fields.items() if name in _ALL}
    props = props | {name: value for name, value in fields.items() if name not in columns}
    return columns | {"props": props} if props else columns
