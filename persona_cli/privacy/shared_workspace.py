"""A second workspace that carries pseudonyms in place of ids, to be handed on.

Events, users and accounts are rewritten file by file, the catalogue of items is copied, and profiles, history, links
and all else that follows from events is folded again there; so nothing of the first workspace is in it that was not
looked at. Rows of people whom the purpose `analytics` does not cover stay behind. What has no place in it either:
quarantined lines (raw text), models, decisions, evaluations, runs, names of accounts and of the files that were
ingested, and the salt of the holdout, which it draws anew. Props, queries, pages and referrers stay, but for ids under
known names: `persona privacy scan` finds what else of people is in them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.errors import CannotWrite, MissingInput, Refused, UsageError
from persona_cli.events.schema import stored_schema
from persona_cli.privacy.pseudonyms import Places, Rename
from persona_cli.privacy.replacing import Replacing
from persona_cli.privacy.unicity import Unicity, matrix_of, unicity
from persona_cli.profiles.identity import raw_key
from persona_cli.profiles.permitted import ANALYTICS, Allowed, allowed, person_events
from persona_cli.profiles.sync import sync
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.home import IDENTITY_FILE, SETTINGS_FILE, Home, create

MANIFEST = "privacy/pseudonyms.json"
TABLES = ("events", "users", "accounts", "items")
_SOURCE = "persona privacy pseudonymize"
_STATISTICS = ["timestamp", "ingested_at"]
_QUOTED = re.compile("'([^']*)'|\"([^\"]*)\"")


@dataclass(frozen=True)
class Shared:
    """What came into the new workspace."""

    rows: dict[str, int]
    """Rows by table."""
    unknown: int
    """Rows left out, since nothing was there to take the place of their ids."""
    replaced: dict[str, int]
    users: int
    withheld: int
    """Rows of events and users left out, since the purpose `analytics` does not cover the person."""


def share(
    home: Home,
    out: Path,
    rename: Rename,
    places: Places,
    said: dict[str, Any],
    *,
    drop_unknown: bool = False,
    default_settings: bool = False,
    wait: float = 0.0,
) -> Shared:
    """Make the workspace `out`, whole or not at all; `said` goes into its privacy/pseudonyms.json.

    Raises CannotWrite where something is at `out`, Refused where persona.toml names one of the ids or rows have ids
    without a replacement (unless `drop_unknown`), MissingInput where there are no events, users or accounts.
    """
    out = out.absolute()
    if out.exists():
        raise CannotWrite(f"{out} exists already; expected the name of a new folder", "choose another name for --out")
    if home.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out} lies in the workspace that it is made from", "choose a folder elsewhere")
    _sweep(out.parent)
    seen: set[str] = set()

    def noted(kind: str, id: str) -> str | None:
        if kind in ("person", "account"):
            seen.add(id)
        return rename(kind, id)

    replacing = Replacing(noted, places)
    with locks.hold(home, "tables", _SOURCE, wait), artifacts.publish(out) as beside:
        if not default_settings:
            (beside / SETTINGS_FILE).write_bytes((home.root / SETTINGS_FILE).read_bytes())
        made = create(beside)
        rows, unknown, withheld = {}, 0, 0
        covered = allowed(home, ANALYTICS)
        for name in TABLES:
            rows[name], gone, kept_back = _rewrite(home, made, name, replacing, covered)
            unknown, withheld = unknown + gone, withheld + kept_back
        if not any(rows[name] for name in TABLES[:3]) and not unknown:
            raise MissingInput(f"the workspace {home.root} has no events, users or accounts", "persona ingest FILE")
        if unknown and not drop_unknown:
            raise Refused(
                f"{unknown:,} rows hold pseudonyms that no id given makes under the old key and this domain",
                "ids that are erased cannot be rotated; --drop-unknown leaves these rows out",
            )
        if not default_settings and (named := _ids_in(home.root / SETTINGS_FILE, seen)):
            raise Refused(
                f"{home.root / SETTINGS_FILE}: {named} names one of the ids that pseudonyms are to hide",
                "--default-settings gives the new workspace default settings",
            )
        users = sync(made).users if tables.exists(made, "events") else 0
        (beside / MANIFEST).parent.mkdir(mode=0o700, exist_ok=True)
        text = {**said, "replaced": dict(sorted(replacing.replaced.items())), "rows": rows}
        (beside / MANIFEST).write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    return Shared(rows, unknown, replacing.replaced, users, withheld)


def ids_of(home: Home, places: Places, rename: Rename) -> None:
    """Show every id of the workspace to `rename`, which notes them."""
    replacing = Replacing(rename, places)
    for name in TABLES[:3]:
        table = tables.open_table(home, name)
        for file in table.files if table else ():
            _replaced(table.scan([file]).collect().to_arrow(), replacing)  # type: ignore[union-attr]


def unicity_of(home: Home) -> Unicity:
    """How many persons are the only ones with 4 of their items, by all events of the workspace."""
    pairs = person_events(home, purpose=None).select("user_id", "item_id").drop_nulls().unique().collect()
    return unicity(matrix_of(pairs["user_id"], pairs["item_id"]))


def _rewrite(home: Home, made: Home, name: str, replacing: Replacing, covered: Allowed) -> tuple[int, int, int]:
    """Rows written to a table, rows left out since an id has no replacement, and rows of people not covered."""
    table = tables.open_table(home, name)
    if table is None:
        return 0, 0, 0
    new = tables.open_or_create(made, name, stored_schema(name), list(table.partition_by))  # type: ignore[arg-type]
    files, unknown, withheld = [], 0, 0
    for file in table.files:
        rows: pl.DataFrame = table.scan([file]).collect().with_columns(pl.lit(_SOURCE).alias("source"))
        if name in ("events", "users"):
            there = covered.rows(rows, raw_key() if name == "events" else None)
            rows, withheld = there, withheld + rows.height - there.height
        if name == "accounts":
            rows = rows.with_columns(pl.lit(None, pl.String).alias("name"))
        arrow = rows.to_arrow()
        if name != "items":
            arrow, gone = _replaced(arrow, replacing)
            unknown += gone
        if arrow.num_rows:
            written = [column for column in new.schema.names if column not in new.partition_by]
            coded = [column for column in written if column not in ("event_id", *_STATISTICS)]
            files.append(new.write(arrow, file.partition, statistics=_of(written), dictionaries=coded))
    if files:
        new.commit(files, metadata={"pseudonymized": "true"})
    return sum(file.rows for file in files), unknown, withheld


def _sweep(folder: Path) -> None:
    """Remove the workspaces that killed runs left half made in `folder`: doctor does not look outside its own."""
    for path in folder.glob(".tmp-*"):
        if (path / IDENTITY_FILE).is_file() and artifacts.is_leftover(path):
            artifacts.remove(path)


def _of(written: list[str]) -> list[str]:
    return [column for column in _STATISTICS if column in written]


def _replaced(rows: pa.Table, replacing: Replacing) -> tuple[pa.Table, int]:
    """The rows with their ids replaced, without those whose ids are unknown, and how many these were."""
    parts = []
    for batch in rows.to_batches():
        columns, known = [], pa.repeat(True, batch.num_rows)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            made, gone = replacing.array(column, (name,))
            columns.append(made)
            known = known if gone is None else pc.and_not(known, gone)
        parts.append(pa.Table.from_arrays(columns, names=rows.schema.names).filter(known))
    kept = pa.concat_tables(parts) if parts else rows
    return kept, rows.num_rows - kept.num_rows


def _ids_in(settings: Path, ids: set[str]) -> str | None:
    """The first setting that has an id as its value, or quotes one in an expression; None: no setting has."""

    def texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield key, name
                yield from texts(inner, f"{key}.{name}" if key else name)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner, key)
        elif isinstance(value, str):
            yield key, value
            for found in _QUOTED.finditer(value):
                yield key, found[1] or found[2] or ""

    for key, text in texts(tomllib.loads(settings.read_text(encoding="utf-8")), ""):
        if text in ids:
            return key or "a section"
    return None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """What is said of a pseudonymised file or workspace (`path`: its manifest); None where nothing is."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and "scheme" in said else None
