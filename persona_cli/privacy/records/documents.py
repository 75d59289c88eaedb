"""The records as JSON documents: what each says; writing them, and comparing what is on disk with what it would be now.

    processing   record of processing activities (GDPR Art. 30)
    data-map     every table and file, every column, what it is for
    dpia         draft of an impact assessment (Art. 35(7)) with measured risks
    retention    what is kept for how long
    notice       what the people concerned are told (Art. 13, 14)
    recipients   who was given data (Art. 19, 30(1)(d))
    model-cards  what each model in use is, and what it tells of people

Nothing in them depends on when or by whom they are made: the same workspace and settings give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_cli.errors import UsageError
from persona_cli.privacy.data_files import SETTINGS
from persona_cli.privacy.data_terms import CATEGORIES, USES, Store
from persona_cli.privacy.records import facts
from persona_cli.privacy.records.cards import cards
from persona_cli.privacy.records.facts import NEVER_STORED, QUASI, STORES, TO_FILL, UNDECIDED, Held, found, setting_of
from persona_cli.privacy.records.pages import page
from persona_cli.privacy.records.risks import keys, measures, risks
from persona_cli.workspace import artifacts
from persona_cli.workspace.declarations import BY_KEY
from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import checked

Doc = dict[str, Any]
NAMES = ("processing", "data-map", "dpia", "retention", "notice", "recipients", "model-cards")
_DIGITS = 6
_MOST = 20  # files that nobody knows, of those that open points name
_OBLIGATION = "whether people must give their data, and what follows if they don't (Art. 13(2)(e))"


def documents(home: Home) -> dict[str, Doc]:
    """Every record by name, `index` last, with JSON types alone; floats have six digits behind the point."""
    held = found(home)
    props = keys(home)
    measured = risks(home, props)
    made = cards(home, measured["co_occurrences"])
    common = {
        "controller": facts.controller(home),
        "purposes": facts.purposes(home, held),
        "retention": facts.retention(home, held),
        "recipients": facts.recipients(home),
        "processors": facts.listed(home, "privacy.controller.processors", "who works with the data for you, or none"),
        "transfers": facts.listed(
            home, "privacy.controller.transfers", "transfers outside the EEA with their safeguards, or none"
        ),
        "people": facts.people(home),
        "categories": [{"category": name, "name": CATEGORIES[name][0]} for name in facts.categories_of(held)],  # type: ignore[index]
    }
    security = [one._asdict() for one in measures(home)]
    own = facts.listed(home, "privacy.controller.measures", "measures beyond persona: disks, backups, access")
    whole: dict[str, Doc] = {
        "processing": {**common, "security": security, "measures": own, "requests": facts.asked(home)},
        "data-map": {"stores": [_store(home, store, held) for store in STORES], **_data_map(home, held, props)},
        "dpia": _dpia(common, measured, security, own, held, made),
        "retention": {"retention": common["retention"]},
        "notice": _notice(home, common, held),
        "recipients": {"recipients": common["recipients"], "transfers": common["transfers"]},
        "model-cards": {"models": made},
    }
    whole = {name: _plain(whole[name]) for name in NAMES}
    return {**whole, "index": {"records": list(NAMES), "open_points": open_points(whole)}}


def open_points(whole: Mapping[str, Doc]) -> list[str]:
    """What only people can fill in or decide, each once, in the order in which it comes up; then what needs a look."""
    texts = [text for name in whole for text in _texts(whole[name])]
    points = [text for text in texts if text.startswith((TO_FILL, UNDECIDED))]
    for purpose in whole["processing"]["purposes"]:
        if purpose["basis"] and purpose["decided"] is None and purpose["runs"]:
            points.append(f"{UNDECIDED}: the basis of {purpose['purpose']}, as shipped: {purpose['basis']}")
    points += [
        f"NOT SO: {one['what']}: {one['detail']}" for one in whole["processing"]["security"] if one["state"] == "not so"
    ]
    unknown = whole["data-map"]["unknown"]
    points += [
        f"NOT IN THE DATA MAP: {name}; if it holds data of people, keep it elsewhere" for name in unknown[:_MOST]
    ]
    points += [f"NOT IN THE DATA MAP: {len(unknown) - _MOST:,} more"] if len(unknown) > _MOST else []
    return list(dict.fromkeys(points))


def _data_map(home: Home, held: Held, props: Mapping[str, Mapping[str, float]]) -> Doc:
    changed = _changed(home)
    return {
        "props": [
            {"table": table, "keys": [{"key": key, "filled": filled} for key, filled in found.items()]}
            for table, found in sorted(props.items())
        ],
        "unknown": list(held.unknown),
        "never_stored": list(NEVER_STORED),
        "settings": [
            {"setting": name, "decides": what, "changed": changed.get(name, [])} for name, what in SETTINGS.items()
        ],
    }


def _changed(home: Home) -> dict[str, list[str]]:
    """Settings that are not as shipped, by the entry of `SETTINGS` that they fall under."""
    found: dict[str, list[str]] = {}
    for key, setting in sorted(BY_KEY.items()):
        entry = setting_of(key)
        if entry is not None and home.settings.values[key] != checked(setting, setting.default):
            found.setdefault(entry[0], []).append(key)
    return found


def _store(home: Home, store: Store, held: Held) -> Doc:
    filled = held.filled.get(store.place, {})
    return {
        "place": store.place,
        "kind": "table" if store.is_table else "file",
        "what": store.what,
        "there": store.place in held.rows or store.place in held.kinds,
        "rows": held.rows.get(store.place),
        "source": store.source,
        "purposes": list(store.purposes),
        "kept": facts.period(home, store.kept),
        "read_by": store.read,
        "personal": store.personal,
        "columns": [
            {
                "column": name,
                "what": column.what,
                "entries": column.inside.split(),
                "category": column.category,
                "personal": CATEGORIES[column.category][1],
                "purposes": list(store.purposes_of(name)),
                "read_by": column.read or store.read,
                "stored": not (store.place == "events" and name in NEVER_STORED),
                "filled": filled.get(name),
            }
            for name, column in store.columns.items()
        ],
    }


def _dpia(common: Doc, measured: Doc, security: list[Doc], own: list[str], held: Held, models: list[Doc]) -> Doc:
    unread = [
        name
        for store in STORES
        if store.place == "events"
        for name, column in store.columns.items()
        if column.read == "persona sql" and held.filled.get("events", {}).get(name, 0) > 0
    ]
    return {
        "controller": common["controller"]["name"],
        "purposes": [one for one in common["purposes"] if one["runs"]],
        "people": common["people"],
        "categories": common["categories"],
        "recipients": len(common["recipients"]),
        "domains": sorted({domain for one in common["recipients"] for domain in one["domains"]}),
        "with_own_ids": sorted(one["recipient"] for one in common["recipients"] if "user_ids" in one["ids"]),
        "columns_that_nothing_reads": unread,
        "free_text": [
            f"{store.place}.{name}"
            for store in STORES
            if store.is_table
            for name, column in store.columns.items()
            if column.category == "free text" and held.filled.get(store.place, {}).get(name, 0) > 0
        ],
        "quasi_identifiers": [{"table": table, "columns": list(columns)} for table, columns in QUASI],
        "risks": measured,
        "models": [{"model": one["model"], "privacy": one["privacy"]} for one in models],
        "security": security,
        "measures": own,
    }


def _notice(home: Home, common: Doc, held: Held) -> Doc:
    """What to tell the people concerned: each purpose that the code carries out, and nothing else."""
    run = [one for one in common["purposes"] if one["runs"]]
    return {
        "controller": common["controller"],
        "purposes": [
            {
                "purpose": one["purpose"],
                "title": one["title"],
                "plain": USES[one["purpose"]].plain,
                "logic": USES[one["purpose"]].logic,
                "basis": one["basis"],
                "basis_name": one["basis_name"],
                "article": one["article"],
                "interest": one.get("interest"),
            }
            for one in run
        ],
        "consent": any(one["basis"] == "consent" for one in run),
        "objection": any(one["basis"] in ("legitimate_interest", "public_task") for one in run),
        "data": sorted({name for one in run for name in one["data"]}),
        "recipients": [one["recipient"] for one in common["recipients"]],
        "processors": common["processors"],
        "transfers": common["transfers"],
        "retention": [one for one in common["retention"] if one["told"] and one["there"]],
        "authority": common["controller"]["authority"],
        "obligation": facts.stated(home, "privacy.controller.obligation", _OBLIGATION),
        "holdout": home.settings.number("holdout.share"),
    }


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _plain(value: Any) -> Any:
    """JSON types alone: floats rounded, what is no number None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return str(value)


FOLDER = ("privacy", "records")


@dataclass(frozen=True)
class Recorded:
    """What came of writing the records, or of looking at them."""

    folder: Path
    files: int
    changed: tuple[str, ...]
    """Names of the files that were written, or with a check are out of date; sorted."""
    open_points: tuple[str, ...]
    """What is to be filled in, decided or looked at."""

    @property
    def to_be_filled_in(self) -> int:
        return sum(point.startswith(TO_FILL) for point in self.open_points)


def rendered(whole: dict[str, Doc]) -> dict[str, str]:
    """File name → content: Markdown and JSON of every document, sorted."""
    made = {}
    for name, document in sorted(whole.items()):
        made[f"{name}.json"] = (
            json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
        )
        made[f"{name}.md"] = page(name, document)
    return made


def record(home: Home, out: Path | None = None, *, check: bool = False) -> Recorded:
    """Write the records to `out` (None: privacy/records of the workspace), what differs and nothing else; with `check`
    nothing is written. Raises UsageError for a folder of the workspace, which would become part of the record.
    """
    if out is not None and home.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out} lies in the workspace", "leave --out away, or choose a folder elsewhere")
    whole = documents(home)
    folder, files = home.path(*FOLDER) if out is None else out, rendered(whole)
    changed = outdated(folder, files) if check else write(folder, files)
    return Recorded(folder, len(files), tuple(changed), tuple(whole["index"]["open_points"]))


def outdated(folder: Path, files: dict[str, str]) -> list[str]:
    """Files of the records that are missing in a folder or differ, sorted."""
    return sorted(name for name, content in files.items() if not _same(folder / name, content))


def write(folder: Path, files: dict[str, str]) -> list[str]:
    """Write what differs, each file whole or not at all; answers the names of what was written."""
    changed = outdated(folder, files)
    for name in changed:
        artifacts.write_text(folder / name, files[name])
    return changed


def _same(path: Path, content: str) -> bool:
    try:
        return path.read_bytes() == content.encode()
    except (FileNotFoundError, NotADirectoryError):
        return False
