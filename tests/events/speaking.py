"""Records of a dialect as the rows that a workspace would hold, and the reasons of what is turned away."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from persona_cli.events.dialects import built_in
from persona_cli.events.dialects.dialect import Dialect, Dropped, Record
from persona_cli.events.judge import Rejected, Rules, judge, parse_json
from persona_cli.events.schema import FIELDS, Mapping

LATEST = 4_000_000_000_000_000
SHARED = Path(__file__).parents[3] / "shared" / "data" / "event-dialects"


def dialect(name: str, kind: str = "events", *, columns: int = 0, key: str = "") -> Dialect:
    """The dialect of this name and kind; of several the one with so many columns, or that reads `key`."""
    found = [
        one
        for one in built_in()
        if (one.name, one.kind, len(one.columns)) == (name, kind, columns)
        and key in {"", *sum(one.sources.values(), ())}
    ]
    assert len(found) == 1, found
    return found[0]


def rules(kind: str) -> Rules:
    return Rules(Mapping(kind, {field.name: (field.name,) for field in FIELDS[kind]}), LATEST)  # type: ignore[arg-type,index]


def heard(speaks: Dialect, records: Iterable[Any]) -> tuple[list[Record], Counter[str]]:
    """Judged rows without nulls, `props` as an object; and how often each reason was given, dropped ones after `-`."""
    judged, reasons, by = [], Counter[str](), rules(speaks.kind)
    for record in records:
        for part in speaks.unpack(record):
            before = json.dumps(part, default=str, sort_keys=True)
            try:
                rows = [judge(native, by) for native in speaks.records(part)]
            except Rejected as rejected:
                reasons[str(rejected)] += 1
            except Dropped as dropped:
                reasons[f"-{dropped}"] += 1
            else:
                judged += [{name: value for name, value in row.items() if value is not None} for row in rows]
            assert json.dumps(part, default=str, sort_keys=True) == before, "a dialect changed its record"
    for row in judged:
        if "props" in row:
            row["props"] = json.loads(row["props"])
    return judged, reasons


def hear(speaks: Dialect, *records: Any) -> list[Record]:
    """The rows of records that are all accepted."""
    rows, reasons = heard(speaks, records)
    assert not reasons
    return rows


def reason(speaks: Dialect, record: Any) -> str:
    """Why one record is turned away."""
    rows, reasons = heard(speaks, [record])
    assert not rows and reasons.total() == 1
    return next(iter(reasons))


def lines(path: Path) -> list[Record]:
    return [parse_json(line) for line in path.read_bytes().splitlines()]
